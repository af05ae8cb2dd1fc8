//! What is written down about one request: the line that reserves before the send and the line that settles after the answer.
//!
//! **Invariant:** no field can hold a header value, a body, a query or a secret, and every string that the caller or the upstream
//! chose is a [`Bounded`]: at most 128 bytes, nothing in it that a terminal, a spreadsheet or a browser acts on. Names, identities
//! and reasons are types whose own grammar is narrower than that.
//!
//! Records are only written here. What is read back is a `Row`; [`Fields`] are what both say.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use tollgate_policy::caller::{Identity, Proof};
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::name::{Name, ResourceId};
use tollgate_policy::price::{NanoUsd, Units};

use super::amount::Amounts;
use super::dimension::{Counted, Dimension, Number, Numbers, Text, Texts, dimensions, numbers};
use super::fields::{AttemptFields, Charges, Detail, Details, Fields};
use crate::trace::TraceId;

pub use super::bounded::Bounded;
pub(crate) use super::bounded::shows;
pub use super::fields::Charge;
pub use super::outcome::{Outcome, UsageSource};
pub use super::record_id::RecordId;

macro_rules! with_texts {
    ($( #[doc = $doc:literal] $variant:ident $name:ident: $type:ty, $part:ident; )*) => {
        numbers!(with_numbers { $( #[doc = $doc] $name: $type; )* });
    };
}

macro_rules! with_numbers {
    (
        { $( #[doc = $doc:literal] $variant:ident $name:ident $member:literal: $type:ty = $unless:expr, $unsaid:expr, $part:ident; )* }
        { $( #[doc = $text_doc:literal] $text:ident: $text_type:ty; )* }
    ) => {
        /// One request (or several like refusals), as the journal holds it: written once, when the request is over.
        ///
        /// [`Record::new`] gives one with everything absent; what a stage learns it puts in. Fields that stay absent are not written.
        #[derive(Debug, Clone)]
        pub struct Record {
            /// Ours; never taken from the caller. The same as that of the request's [`HoldLine`].
            pub id: RecordId,
            /// When the head of the request was read.
            pub at: Timestamp,
            $( #[doc = $text_doc] pub $text: $text_type, )*
            $( #[doc = $doc] pub $name: $type, )*
            /// How the caller was proven.
            pub proof: Option<Proof>,
            /// HTTP method; extension methods are the caller's own words.
            pub method: Bounded,
            /// Path called, made with [`Bounded::path`]: never with a query.
            pub path: Option<Bounded>,
            /// What the dialect calls this endpoint (`gen_ai.operation.name`), e.g. `chat`.
            pub operation: Option<Arc<str>>,
            /// The version of that credential that the last attempt carried.
            pub credential_version: Option<Arc<str>>,
            /// One for each time a secret and the request were put on a connection, or were about to be. A single one that got the answer
            /// that the caller got is not written; the address that it dialled is, as `peer`.
            pub attempts: Vec<Attempt>,
            /// What the provider bills, in its units.
            pub units: Units,
            /// Which price made `cost`.
            pub price_version: Option<Arc<str>>,
            /// What each window was charged in the end.
            pub charges: Vec<Charge>,
            /// When the hold was taken: the charges count in the windows of this moment. Absent: those of `at`.
            pub held_at: Option<Timestamp>,
            /// The trace that it belongs to, where calls are traced.
            pub(crate) trace: Option<TraceId>,
        }

        impl Record {
            /// A record of which nothing is known yet but when it began; its outcome is [`Outcome::Refused`] until a stage knows better.
            #[inline]
            pub fn new(id: RecordId, at: Timestamp, method: Bounded) -> Self {
                Self {
                    id,
                    at,
                    $( $text: <$text_type>::default(), )*
                    $( $name: $unless, )*
                    proof: None,
                    method,
                    path: None,
                    operation: None,
                    credential_version: None,
                    attempts: Vec::new(),
                    units: Units::default(),
                    price_version: None,
                    charges: Vec::new(),
                    held_at: None,
                    trace: None,
                }
            }

            /// What it is told apart by.
            fn texts(&self) -> Texts<'_> {
                [$( self.$text.text().unwrap_or_default() ),*]
            }

            fn numbers(&self) -> Numbers {
                [$( self.$name.counted().filter(|number| Some(*number) != $unsaid) ),*]
            }
        }
    };
}
dimensions!(with_texts);

impl Record {
    /// Notes why it was refused, or broken off.
    pub(crate) fn set_denial(&mut self, denial: &Denial) {
        self.reason = Some(denial.reason);
        self.limited_by = denial.limit_id();
    }

    /// All that is written of it.
    pub(crate) fn fields(&self) -> Fields<'_> {
        let last = self.attempts.last();
        let mut details = Details::default();
        details[Detail::Proof as usize] = self.proof.map_or("", |proof| proof.as_str());
        details[Detail::Method as usize] = self.method.as_str();
        details[Detail::Operation as usize] = self.operation.as_deref().unwrap_or_default();
        details[Detail::CredentialVersion as usize] = self.credential_version.as_deref().unwrap_or_default();
        details[Detail::PriceVersion as usize] = self.price_version.as_deref().unwrap_or_default();
        details[Detail::Peer as usize] = last.and_then(|last| last.peer.as_deref()).unwrap_or_default();
        // One that simply succeeded is told by the record itself.
        let is_told = self.attempts.len() > 1 || last.is_some_and(|last| last.status != Some(self.status));
        let attempts = self.attempts.iter().filter(|_| is_told).map(|attempt| self.attempt(attempt));
        Fields {
            texts: self.texts(),
            numbers: self.numbers(),
            details,
            path: self.path.as_ref().map_or("", Bounded::as_str),
            attempts: attempts.collect(),
            units: Amounts::from(&self.units),
            charges: Charges::Counted(&self.charges),
            held_at: self.held_at,
            trace: self.trace,
            ..Fields::new(self.id, self.at)
        }
    }

    fn attempt<'a>(&self, attempt: &'a Attempt) -> AttemptFields<'a> {
        let source = attempt.source.as_deref().filter(|_| attempt.source != self.source);
        let alias = attempt.alias.as_ref().filter(|_| attempt.alias != self.alias);
        let version = attempt.credential_version.as_deref();
        let version = version.filter(|_| attempt.credential_version != self.credential_version);
        AttemptFields {
            peer: attempt.peer.as_deref().unwrap_or_default(),
            source: source.unwrap_or_default(),
            alias: alias.map_or("", Name::as_str),
            credential_version: version.unwrap_or_default(),
            reason: attempt.reason.map_or("", |reason| reason.as_str()),
            status: attempt.status,
        }
    }
}

/// One connection that a request was put on, or that failed before it could be. Where `source`, `alias` and `credential_version` are those of the
/// record, its line does not repeat them.
#[derive(Debug, Clone, Default)]
pub struct Attempt {
    /// The address and port dialled; absent where none was found or allowed.
    pub peer: Option<Arc<str>>,
    /// The local IP address it left from.
    pub source: Option<Arc<str>>,
    /// Which key of the credential it carried, where there are several.
    pub alias: Option<Name>,
    /// The version of the credential it carried.
    pub credential_version: Option<Arc<str>>,
    /// HTTP status that the upstream answered.
    pub status: Option<u16>,
    /// Why it failed.
    pub reason: Option<Reason>,
}

/// What a call has reserved, written before it is sent. If no record with its id follows, the next start makes one that charges all of it.
#[derive(Debug, Clone)]
pub struct HoldLine<'a> {
    /// That of the request's record.
    pub id: RecordId,
    /// When the hold was taken: it counts in the windows of this moment.
    pub at: Timestamp,
    /// Who called.
    pub caller: Identity,
    /// What it calls.
    pub destination: ResourceId,
    /// Host that it calls.
    pub host: Option<Bounded>,
    /// The grant that decided.
    pub grant: ResourceId,
    /// The credential that will be put on it.
    pub credential: Option<ResourceId>,
    /// The model asked for.
    pub model: Option<Bounded>,
    /// What is reserved.
    pub charges: Cow<'a, [Charge]>,
    /// What the call can cost at most; absent where there is no price. One that names a model is then counted as unpriced.
    pub cost: Option<NanoUsd>,
    /// Which price made `cost`.
    pub price_version: Option<Arc<str>>,
    /// The generation of the policy that decided.
    pub generation: u64,
}

impl HoldLine<'_> {
    /// All that is written of it.
    pub(crate) fn fields(&self) -> Fields<'_> {
        let mut fields = Fields { charges: Charges::Counted(&self.charges), ..Fields::new(self.id, self.at) };
        let texts = &mut fields.texts;
        texts[Dimension::Caller as usize] = self.caller.as_str();
        texts[Dimension::Destination as usize] = self.destination.as_str();
        texts[Dimension::Host as usize] = self.host.text().unwrap_or_default();
        texts[Dimension::Grant as usize] = self.grant.as_str();
        texts[Dimension::Credential as usize] = self.credential.text().unwrap_or_default();
        texts[Dimension::Model as usize] = self.model.text().unwrap_or_default();
        fields.details[Detail::PriceVersion as usize] = self.price_version.as_deref().unwrap_or_default();
        fields.numbers[Number::Cost as usize] = self.cost.counted();
        fields.numbers[Number::Generation as usize] = self.generation.counted();
        fields
    }
}
