//! What happened to secrets, written down so that it cannot be changed unseen: one journal of its own in `audit/` of the data directory,
//! with the chain, the segments and the seals of the ledger's.
//!
//! A fetched or rotated value is in the journal before any call uses it. What calls do with it is counted per core and written once a minute
//! for each caller, credential, version and host, so that a call appends nothing here; its own record in the ledger names the version too.
//!
//! **Invariant:** no line holds a value. Where the trail cannot be written, no *new* value comes into use (calls that need one are refused
//! with `secret_unavailable`): a key that nobody saw come must not go out. What is in use already stays, and what calls did with it is
//! kept in memory until it can be written: an outage of this disk is no reason to end every call, the ledger decides that.
//!
//! Deliberately lacks: retention. Segments stay, as the ledger's do.

mod list;
mod trail;
mod uses;
mod writer;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tollgate_policy::name::Name;
use tollgate_policy::policy::BudgetRaise;
use tollgate_secrets::{Event, What};

pub(crate) use list::list;
pub(crate) use uses::Uses;
pub(crate) use writer::{AuditView, Auditor, OpenTrail};

/// One line of the trail. Strings are empty where it has nothing to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// When it was written; what is counted says `first` and `last` too.
    pub(crate) at: Timestamp,
    /// One of [`Word`], or a word of a later version.
    pub(crate) what: Cow<'static, str>,
    /// The credentials that it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) credentials: Vec<String>,
    /// What they call the key, where they have several.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) alias: String,
    /// The store, where it is about the store as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) store: String,
    /// `store:path#field@version`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) secret: String,
    /// The version that came, went or was put on calls.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) version: String,
    /// The version that it took the place of.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) before: String,
    /// Why: in one word, or of a raise as it says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    /// The caller, in its text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) caller: String,
    /// The destination's host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) host: String,
    /// The limit of a budget, where it is about that.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) limit: String,
    /// Who has done it, as they say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) by: String,
    /// By how much, in the limit's own measure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) amount: Option<u64>,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Timestamp>,
    /// The first and the last of what is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last: Option<Timestamp>,
    /// How often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) count: Option<u64>,
}

/// The kinds of lines that this version writes. The words stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// A value came into use.
    Fetched,
    /// Another version took its place.
    Rotated,
    /// A provider refused a version.
    Rejected,
    /// The store's own word ended a value.
    Revoked,
    /// A store, or a secret in it, cannot be had.
    Unavailable,
    /// It can again.
    Recovered,
    /// The policy let go of a value.
    Withdrawn,
    /// Calls carried a value.
    Injected,
    /// Calls were refused because of their secret.
    Refused,
    /// A key of a pool is not used for a while, because its provider refuses it.
    Benched,
    /// A budget has more for a time.
    Raised,
    /// So many lines are missing here, because the trail could not be written.
    Lost,
}

impl Word {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Fetched => "fetched",
            Self::Rotated => "rotated",
            Self::Rejected => "rejected",
            Self::Revoked => "revoked",
            Self::Unavailable => "unavailable",
            Self::Recovered => "recovered",
            Self::Withdrawn => "withdrawn",
            Self::Injected => "injected",
            Self::Refused => "refused",
            Self::Benched => "benched",
            Self::Raised => "raised",
            Self::Lost => "lost",
        }
    }
}

impl Entry {
    fn new(at: Timestamp, word: Word) -> Self {
        Self {
            at,
            what: Cow::Borrowed(word.as_str()),
            credentials: Vec::new(),
            alias: String::new(),
            store: String::new(),
            secret: String::new(),
            version: String::new(),
            before: String::new(),
            reason: String::new(),
            caller: String::new(),
            host: String::new(),
            limit: String::new(),
            by: String::new(),
            amount: None,
            until: None,
            first: None,
            last: None,
            count: None,
        }
    }

    /// A raise that has come into force.
    pub(crate) fn raised(at: Timestamp, raise: &BudgetRaise) -> Self {
        Self {
            limit: raise.limit.to_string(),
            by: raise.by.to_string(),
            amount: Some(raise.amount),
            until: Some(raise.until),
            reason: raise.reason.to_string(),
            ..Self::new(at, Word::Raised)
        }
    }

    /// What the secrets' cache told.
    fn of(at: Timestamp, event: &Event) -> Self {
        let (word, version, before, failure) = match &event.what {
            What::Fetched { version } => (Word::Fetched, Some(version), None, None),
            What::Rotated { from, to } => (Word::Rotated, Some(to), Some(from), None),
            What::Rejected { version } => (Word::Rejected, Some(version), None, None),
            What::Revoked { version, failure } => (Word::Revoked, Some(version), None, Some(*failure)),
            What::Unavailable { ended, failure } => (Word::Unavailable, ended.as_ref(), None, Some(*failure)),
            What::Recovered => (Word::Recovered, None, None, None),
            What::Withdrawn { version } => (Word::Withdrawn, Some(version), None, None),
        };
        Self {
            credentials: event.credentials.iter().map(ToString::to_string).collect(),
            alias: event.aliases.iter().map(Name::as_str).collect::<Vec<_>>().join(","),
            store: if event.secret.is_none() { event.store.to_string() } else { String::new() },
            secret: event.secret.as_deref().unwrap_or_default().to_owned(),
            version: version.map(ToString::to_string).unwrap_or_default(),
            before: before.map(ToString::to_string).unwrap_or_default(),
            reason: failure.map_or("", |failure| failure.as_str()).to_owned(),
            ..Self::new(at, word)
        }
    }
}

/// Where the trail of a data directory is.
pub(crate) fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("audit")
}
