//! What a change of resources adds and removes, in words.

use serde::Serialize;

use crate::name::ResourceId;

/// All that a change adds, and all that it removes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// What is possible now and was not before. What can be said neither to be more nor to be less is here too.
    pub adds: Vec<Change>,
    /// What was possible before and is no more.
    pub removes: Vec<Change>,
}

/// One thing that is added or removed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// What it is about.
    pub what: What,
    /// The grant that lets it through, or that did; `None`: it is about a destination, a credential or a store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<ResourceId>,
    /// What it is, in one line.
    pub words: String,
    /// One call that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub example: Option<Example>,
}

/// A call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Example {
    /// Who calls.
    pub caller: String,
    /// The method.
    pub method: String,
    /// The URL.
    pub url: String,
    /// The model that the body names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The actions of an AWS service that it names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
}

/// What a change is about. The words are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// Somebody calls a destination who could not.
    Caller,
    /// A host that is called, and that keys go to.
    Host,
    /// A path.
    Path,
    /// A class of endpoints.
    Class,
    /// A method.
    Method,
    /// A model.
    Model,
    /// An action of an AWS service.
    Action,
    /// A grant is suspended no more.
    Suspension,
    /// A grant is approved, or a destination demands no approval any more.
    Approval,
    /// The key that is put on calls.
    Credential,
    /// Where a key may go.
    Binding,
    /// How a store is reached and logged in to, and what is read there.
    Store,
    /// The caller's own token, passed on.
    CallerToken,
    /// How much may be used.
    Limit,
    /// Headers of answers that are passed on.
    ResponseHeader,
    /// Protocols that calls go on with.
    Upgrade,
    /// `Range` beside a key.
    Range,
    /// The cap that is written into calls without one.
    OutputCap,
    /// What calls are held at that nothing bounds.
    Assume,
    /// What becomes of models without a price.
    Unpriced,
    /// How a destination is verified.
    Tls,
    /// The certificate that a destination is shown.
    ClientCertificate,
    /// The addresses that are dialled.
    Address,
    /// The addresses that calls leave from.
    SourceAddress,
    /// The forms that paths may have.
    EncodedPath,
    /// Where keys are masked in answers.
    Scrub,
    /// How usage is read.
    Dialect,
}

impl What {
    /// The word, as JSON has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Host => "host",
            Self::Path => "path",
            Self::Class => "class",
            Self::Method => "method",
            Self::Model => "model",
            Self::Action => "action",
            Self::Suspension => "suspension",
            Self::Approval => "approval",
            Self::Credential => "credential",
            Self::Binding => "binding",
            Self::Store => "store",
            Self::CallerToken => "callerToken",
            Self::Limit => "limit",
            Self::ResponseHeader => "responseHeader",
            Self::Upgrade => "upgrade",
            Self::Range => "range",
            Self::OutputCap => "outputCap",
            Self::Assume => "assume",
            Self::Unpriced => "unpriced",
            Self::Tls => "tls",
            Self::ClientCertificate => "clientCertificate",
            Self::Address => "address",
            Self::SourceAddress => "sourceAddress",
            Self::EncodedPath => "encodedPath",
            Self::Scrub => "scrub",
            Self::Dialect => "dialect",
        }
    }
}

impl Diff {
    pub(super) fn add(&mut self, change: Change) {
        self.adds.push(change);
    }

    pub(super) fn remove(&mut self, change: Change) {
        self.removes.push(change);
    }

    /// In the order of what they are about, each once.
    pub(super) fn sorted(mut self) -> Self {
        for changes in [&mut self.adds, &mut self.removes] {
            changes.sort();
            changes.dedup_by(|a, b| (a.what, &a.words) == (b.what, &b.words));
        }
        self
    }
}

impl Change {
    pub(super) fn of(what: What, grant: Option<&ResourceId>, words: String) -> Self {
        Self { what, grant: grant.cloned(), words, example: None }
    }
}
