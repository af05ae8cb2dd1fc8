//! What is written down about one request: the line that reserves before the send and the line that settles after the answer.
//!
//! **Invariant:** no field can hold a header value, a body, a query or a secret, and every string that the caller or the upstream
//! chose is a [`Bounded`]: at most 128 bytes, nothing in it that a terminal, a spreadsheet or a browser acts on. Names, identities
//! and reasons are types whose own grammar is narrower than that.
//!
//! Records are only written here. What is read back, possibly a line of an older version, is a `Row`.

mod id;
mod line;

use std::sync::Arc;

use jiff::Timestamp;
use tollgate_policy::caller::{Identity, Proof};
use tollgate_policy::denial::Reason;
use tollgate_policy::name::{Name, ResourceId};
use tollgate_policy::price::{NanoUsd, Units};

use super::dimension::{LinePart, Text, Texts, dimensions};
use super::json::{Json, member};

pub use super::bounded::Bounded;
pub(crate) use super::bounded::shows;
pub use super::outcome::{Outcome, UsageSource};
pub use id::RecordId;

macro_rules! record {
    ($( #[doc = $doc:literal] $variant:ident $name:ident: $type:ty, $part:ident; )*) => {
        /// One request (or several like refusals), as the journal holds it: written once, when the request is over.
        ///
        /// [`Record::new`] gives one with everything absent; what a stage learns it puts in. Fields that stay absent are not written.
        #[derive(Debug, Clone)]
        pub struct Record {
            /// Ours; never taken from the caller. The same as that of the request's [`HoldLine`].
            pub id: RecordId,
            /// When the head of the request was read.
            pub at: Timestamp,
            /// Microseconds from `at` to the end of the answer.
            pub duration: u64,
            /// Microseconds from `at` to the first byte of the upstream's answer.
            pub first_byte: Option<u64>,
            $( #[doc = $doc] pub $name: $type, )*
            /// How the caller was proven.
            pub proof: Option<Proof>,
            /// HTTP method; extension methods are the caller's own words.
            pub method: Bounded,
            /// Port called.
            pub port: Option<u16>,
            /// Path called, made with [`Bounded::path`]: never with a query.
            pub path: Option<Bounded>,
            /// What the dialect calls this endpoint (`gen_ai.operation.name`), e.g. `chat`.
            pub operation: Option<Arc<str>>,
            /// The version of that credential that the last attempt carried.
            pub credential_version: Option<Arc<str>>,
            /// HTTP status that the caller got; 0 where it got none.
            pub status: u16,
            /// How many requests it stands for: more than 1 where refusals of one kind are told together.
            pub count: u64,
            /// One for each time a secret and the request were put on a connection, or were about to be. A single one that got the answer
            /// that the caller got is not written; the address that it dialled is, as `peer`.
            pub attempts: Vec<Attempt>,
            /// Body bytes from the caller.
            pub bytes_in: u64,
            /// Body bytes to the caller.
            pub bytes_out: u64,
            /// What the provider bills, in its units.
            pub units: Units,
            /// What that costs; absent where there is no price, which is not the same as 0.
            pub cost: Option<NanoUsd>,
            /// The provider bills this call and no price for it is known.
            pub unpriced: bool,
            /// Which price made `cost`.
            pub price_version: Option<Arc<str>>,
            /// What each window was charged in the end.
            pub charges: Vec<Charge>,
            /// When the hold was taken: the charges count in the windows of this moment. Absent: those of `at`. Not written where it is
            /// the same millisecond.
            pub held_at: Option<Timestamp>,
            /// The generation of the policy that decided.
            pub generation: u64,
        }

        impl Record {
            /// A record of which nothing is known yet but when it began; its outcome is [`Outcome::Refused`] until a stage knows better.
            pub fn new(id: RecordId, at: Timestamp, method: Bounded) -> Self {
                Self {
                    id,
                    at,
                    duration: 0,
                    first_byte: None,
                    $( $name: <$type>::default(), )*
                    proof: None,
                    method,
                    port: None,
                    path: None,
                    operation: None,
                    credential_version: None,
                    status: 0,
                    count: 1,
                    attempts: Vec::new(),
                    bytes_in: 0,
                    bytes_out: 0,
                    units: Units::default(),
                    cost: None,
                    unpriced: false,
                    price_version: None,
                    charges: Vec::new(),
                    held_at: None,
                    generation: 0,
                }
            }

            /// What it is told apart by.
            pub(crate) fn texts(&self) -> Texts<'_> {
                [$( self.$name.text().unwrap_or_default() ),*]
            }

            /// Writes the dimensions that stand in this part of the line.
            fn write_dimensions(&self, json: &mut Json<'_>, part: LinePart) {
                $(
                    if part == LinePart::$part {
                        match self.$name.text() {
                            Some(text) if <$type as Text>::IS_PLAIN => json.word(member!(stringify!($name)), text),
                            text => json.optional(member!(stringify!($name)), text),
                        }
                    }
                )*
            }
        }
    };
}
dimensions!(record);

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

/// What one window of one limit was charged, or has reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// `Limit::id`.
    pub limit: Arc<str>,
    /// What the limit counts apart: empty where it is shared, else the namespace or the caller.
    pub key: Arc<str>,
    /// In the limit's unit: requests, tokens, or nano-USD.
    pub amount: u64,
}

/// What a call has reserved, written before it is sent. If no record with its id follows, the next start makes one that charges all of it.
#[derive(Debug, Clone)]
pub struct HoldLine {
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
    pub charges: Vec<Charge>,
    /// What the call can cost at most; absent where there is no price. One that names a model is then counted as unpriced.
    pub cost: Option<NanoUsd>,
    /// Which price made `cost`.
    pub price_version: Option<Arc<str>>,
    /// The generation of the policy that decided.
    pub generation: u64,
}
