//! What is written down about one request: the line that reserves before the send and the line that settles after the answer.
//!
//! **Invariant:** no field can hold a header value, a body, a query or a secret, and every string that the caller or the upstream
//! chose is a [`Bounded`]: at most 128 bytes, nothing in it that a terminal, a spreadsheet or a browser acts on. Names, SPIFFE ids
//! and reasons are types whose own grammar is narrower than that.
//!
//! Records are only written here. What is read back, possibly a line of an older version, is a `Row`.

mod id;
mod text;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use tollgate_policy::caller::{Proof, SpiffeId};
use tollgate_policy::denial::Reason;
use tollgate_policy::name::Name;
use tollgate_policy::price::{NanoUsd, Units};

pub use id::{ParseRecordIdError, RecordId};
pub use text::Bounded;
pub(crate) use text::shows;

/// One request, as the journal holds it: written once, when the request is over.
///
/// [`Record::new`] gives one with everything absent; what a stage learns it puts in. Fields that stay absent are not written.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    /// Ours; never taken from the caller. The same as that of the request's [`HoldLine`].
    pub id: RecordId,
    /// When the head of the request was read.
    pub at: Timestamp,
    /// Microseconds from `at` to the end of the answer.
    pub duration: u64,
    /// Microseconds from `at` to the first byte of the upstream's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<u64>,
    /// Who called, as proven.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "caller")]
    pub caller: Option<SpiffeId>,
    /// How it was proven.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "proof")]
    pub proof: Option<Proof>,
    /// HTTP method; extension methods are the caller's own words.
    pub method: Bounded,
    /// The destination that the request line named.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "name")]
    pub destination: Option<Name>,
    /// Host called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Bounded>,
    /// Port called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Path called, made with [`Bounded::path`]: never with a query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Bounded>,
    /// What the dialect calls this endpoint (`gen_ai.operation.name`), e.g. `chat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<Arc<str>>,
    /// The grant that decided.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "name")]
    pub grant: Option<Name>,
    /// The credential that was put on the call, by its name in the model.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "name")]
    pub credential: Option<Name>,
    /// The version of that credential that the last attempt carried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_version: Option<String>,
    /// The local address that the last attempt left from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// The model that the caller asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Bounded>,
    /// The model that the provider says it used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_answered: Option<Bounded>,
    /// HTTP status that the caller got; 0 where it got none.
    pub status: u16,
    /// Why Tollgate refused or broke off; absent where it did not.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "reason")]
    pub reason: Option<Reason>,
    /// How it ended.
    pub outcome: Outcome,
    /// One for each time a secret and the request were put on a connection, or were about to be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// Body bytes from the caller.
    pub bytes_in: u64,
    /// Body bytes to the caller.
    pub bytes_out: u64,
    /// What the provider bills, in its units.
    pub units: Units,
    /// Where `units` come from.
    pub usage_source: UsageSource,
    /// What that costs; absent where there is no price, which is not the same as 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<NanoUsd>,
    /// The provider bills this call and no price for it is known.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unpriced: bool,
    /// Which price made `cost`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_version: Option<Arc<str>>,
    /// What each window was charged in the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub charges: Vec<Charge>,
    /// When the hold was taken: the charges count in the windows of this moment. Absent: those of `at`.
    #[serde(skip_serializing_if = "Option::is_none")]
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
            caller: None,
            proof: None,
            method,
            destination: None,
            host: None,
            port: None,
            path: None,
            operation: None,
            grant: None,
            credential: None,
            credential_version: None,
            source: None,
            model: None,
            model_answered: None,
            status: 0,
            reason: None,
            outcome: Outcome::Refused,
            attempts: Vec::new(),
            bytes_in: 0,
            bytes_out: 0,
            units: Units::default(),
            usage_source: UsageSource::None,
            cost: None,
            unpriced: false,
            price_version: None,
            charges: Vec::new(),
            held_at: None,
            generation: 0,
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The whole answer reached the caller, whatever its status.
    Completed,
    /// Tollgate refused it; `reason` says why.
    Refused,
    /// The caller went away before the end of the answer.
    CallerGone,
    /// The upstream failed, before or in the middle of its answer.
    UpstreamFailed,
    /// A stage panicked.
    Panicked,
    /// The process ended before the request did; written on the next start from the hold.
    Crashed,
    /// No request at all: a later correction of one.
    Adjustment,
}

impl Outcome {
    /// The word in records and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Refused => "refused",
            Self::CallerGone => "caller_gone",
            Self::UpstreamFailed => "upstream_failed",
            Self::Panicked => "panicked",
            Self::Crashed => "crashed",
            Self::Adjustment => "adjustment",
        }
    }
}

/// Where the units of a record come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// The provider reported them in its answer.
    Reported,
    /// The provider reported them after the caller had gone.
    Drained,
    /// Not reported; worked out from what passed.
    Estimated,
    /// Nothing is known but the hold.
    Presumed,
    /// The call has no usage: refused, or of a kind that reports none.
    #[default]
    None,
}

impl UsageSource {
    /// The word in records and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Drained => "drained",
            Self::Estimated => "estimated",
            Self::Presumed => "presumed",
            Self::None => "none",
        }
    }
}

/// One connection that a request was put on, or that failed before it could be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Attempt {
    /// The address dialled; absent where none was found or allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<SocketAddr>,
    /// The local address it left from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// The version of the credential it carried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_version: Option<String>,
    /// HTTP status that the upstream answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "reason")]
    pub reason: Option<Reason>,
}

/// What one window of one limit was charged, or has reserved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Charge {
    /// `Limit::id`.
    pub limit: Arc<str>,
    /// What the limit counts apart: empty where it is shared, else the namespace or the caller.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub key: Arc<str>,
    /// In the limit's unit: requests, tokens, or nano-USD.
    pub amount: u64,
}

/// What a call has reserved, written before it is sent. If no record with its id follows, the next start makes one that charges all of it.
#[derive(Debug, Clone, Serialize)]
pub struct HoldLine {
    /// That of the request's record.
    pub id: RecordId,
    /// When the hold was taken: it counts in the windows of this moment.
    pub at: Timestamp,
    /// Who called.
    #[serde(serialize_with = "some_caller")]
    pub caller: SpiffeId,
    /// What it calls.
    #[serde(serialize_with = "some_name")]
    pub destination: Name,
    /// Host that it calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Bounded>,
    /// The grant that decided.
    #[serde(serialize_with = "some_name")]
    pub grant: Name,
    /// The credential that will be put on it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "name")]
    pub credential: Option<Name>,
    /// The model asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Bounded>,
    /// What is reserved.
    pub charges: Vec<Charge>,
    /// What the call can cost at most; absent where there is no price. One that names a model is then counted as unpriced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<NanoUsd>,
    /// Which price made `cost`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_version: Option<Arc<str>>,
    /// The generation of the policy that decided.
    pub generation: u64,
}

fn caller<S: Serializer>(id: &Option<SpiffeId>, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(id.as_ref().map_or("", SpiffeId::as_str))
}

fn some_caller<S: Serializer>(id: &SpiffeId, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(id.as_str())
}

fn proof<S: Serializer>(proof: &Option<Proof>, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(proof.as_ref().map_or("", |proof| proof.as_str()))
}

fn name<S: Serializer>(name: &Option<Name>, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(name.as_ref().map_or("", |name| name.as_ref()))
}

fn some_name<S: Serializer>(name: &Name, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(name.as_ref())
}

fn reason<S: Serializer>(reason: &Option<Reason>, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(reason.as_ref().map_or("", |reason| reason.as_str()))
}
