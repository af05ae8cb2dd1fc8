//! What the journal says of a call, whoever holds it: a [`Record`](super::Record) or a [`HoldLine`](super::HoldLine) that is being written, or
//! a [`Row`](super::line::Row) that was read. Payloads, JSON and sums are made of it.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::amount::{Amount, Amounts};
use super::dimension::{Dimension, LinePart, Number, NumberPart, Numbers, Texts};
use super::json::{Json, JsonObject, member};
use super::record_id::RecordId;
use crate::trace::TraceId;

/// All that is written of a call. Absent texts are empty.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    pub(crate) id: RecordId,
    pub(crate) at: Timestamp,
    pub(crate) texts: Texts<'a>,
    pub(crate) numbers: Numbers,
    pub(crate) details: Details<'a>,
    pub(crate) path: &'a str,
    /// What they have in common with the record they leave out.
    pub(crate) attempts: Vec<AttemptFields<'a>>,
    pub(crate) units: Amounts,
    pub(crate) charges: Charges<'a>,
    /// When the hold was taken, where that is known.
    pub(crate) held_at: Option<Timestamp>,
    pub(crate) trace: Option<TraceId>,
    pub(crate) correction: Option<CorrectionFields<'a>>,
}

/// A text that calls are not told apart by, and that many of them share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    Proof,
    Method,
    Operation,
    CredentialVersion,
    PriceVersion,
    /// The address that the last attempt dialled.
    Peer,
}

/// How many details there are. In the journal each is known by its place, as dimensions are.
pub(crate) const DETAILS: usize = 6;

/// A text for each detail.
pub(crate) type Details<'a> = [&'a str; DETAILS];

/// What is written of one attempt.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AttemptFields<'a> {
    pub(crate) peer: &'a str,
    pub(crate) source: &'a str,
    pub(crate) alias: &'a str,
    pub(crate) credential_version: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) status: Option<u16>,
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

/// What a correction takes its call out of: a group of sums, and the call's part in them. The same and the difference go to the group
/// of the correction's own `usage_source`.
#[derive(Debug, Clone, Default)]
pub(crate) struct CorrectedUsage {
    pub(crate) outcome: Arc<str>,
    pub(crate) reason: Arc<str>,
    pub(crate) usage_source: Arc<str>,
    pub(crate) status: i64,
    pub(crate) units: Amounts,
    pub(crate) cost: Amount,
    pub(crate) unpriced: bool,
    pub(crate) bytes_in: i64,
    pub(crate) bytes_out: i64,
}

/// A charge as it is read back.
#[derive(Debug, Clone)]
pub(crate) struct RowCharge {
    pub(crate) limit: Arc<str>,
    pub(crate) key: Arc<str>,
    pub(crate) amount: Amount,
}

/// What windows were charged, or what they have reserved.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Charges<'a> {
    Counted(&'a [Charge]),
    Read(&'a [RowCharge]),
}

/// What only a correction says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CorrectionFields<'a> {
    pub(crate) corrects: RecordId,
    pub(crate) takes: Option<&'a CorrectedUsage>,
    pub(crate) by: &'a str,
    pub(crate) note: &'a str,
}

impl Charges<'_> {
    /// Limit, key and amount of each, in order.
    pub(crate) fn each(&self, mut each: impl FnMut(&Arc<str>, &Arc<str>, i64)) {
        match self {
            Self::Counted(charges) => charges.iter().for_each(|charge| {
                each(&charge.limit, &charge.key, i64::try_from(charge.amount).unwrap_or(i64::MAX));
            }),
            Self::Read(charges) => {
                charges.iter().for_each(|charge| each(&charge.limit, &charge.key, charge.amount.0));
            }
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        match self {
            Self::Counted(charges) => charges.is_empty(),
            Self::Read(charges) => charges.is_empty(),
        }
    }
}

impl Fields<'_> {
    /// One call of which nothing else is known.
    pub(crate) fn new(id: RecordId, at: Timestamp) -> Self {
        Self {
            id,
            at,
            texts: Texts::default(),
            numbers: Numbers::default(),
            details: Details::default(),
            path: "",
            attempts: Vec::new(),
            units: Amounts::default(),
            charges: Charges::Read(&[]),
            held_at: None,
            trace: None,
            correction: None,
        }
    }

    pub(crate) const fn number(&self, number: Number) -> Option<i64> {
        self.numbers[number as usize]
    }

    /// When the call was over.
    pub(crate) fn ended(&self) -> Timestamp {
        let took = SignedDuration::from_micros(self.number(Number::Duration).unwrap_or_default());
        self.at.saturating_add(took).unwrap_or(self.at)
    }

    /// All that an access log says, without the end of the object. The journal's own names say no unit of money.
    pub(crate) fn write_access(&self, json: &mut Json<'_>) {
        self.write_call(json);
        if let Some(cost) = self.number(Number::Cost) {
            json.number(member!("cost_nano_usd"), cost);
        }
    }

    /// Who called what, how it ended and what it used: how the JSON begins, without its end.
    fn write_call(&self, json: &mut Json<'_>) {
        self.write_id(json);
        Number::write(&self.numbers, NumberPart::Times, json);
        Dimension::write(&self.texts, LinePart::Access, json);
        json.some(member!("method"), self.details[Detail::Method as usize]);
        json.some(member!("path"), self.path);
        Number::write(&self.numbers, NumberPart::Ending, json);
        if let Some(trace) = self.trace {
            json.word(member!("trace_id"), str::from_utf8(&trace.hex()).unwrap_or_default());
        }
        json.list(member!("attempts"), self.attempts.iter(), |json, attempt| attempt.write(json));
        Number::write(&self.numbers, NumberPart::Bytes, json);
        self.write_units(json);
    }

    /// A hold says less, in an order of its own.
    pub(crate) fn write_hold(&self, json: &mut Json<'_>) {
        self.write_id(json);
        for dimension in [
            Dimension::Caller,
            Dimension::Destination,
            Dimension::Host,
            Dimension::Grant,
            Dimension::Credential,
            Dimension::Model,
        ] {
            json.some(Dimension::MEMBERS[dimension as usize], self.texts[dimension as usize]);
        }
        self.write_charges(json);
        Number::write(&self.numbers, NumberPart::Cost, json);
        json.some(member!("price_version"), self.details[Detail::PriceVersion as usize]);
        Number::write(&self.numbers, NumberPart::Rest, json);
        json.raw("}");
    }

    fn write_rest(&self, json: &mut Json<'_>) {
        Dimension::write(&self.texts, LinePart::Rest, json);
        json.some(member!("proof"), self.details[Detail::Proof as usize]);
        Number::write(&self.numbers, NumberPart::Rest, json);
        json.some(member!("operation"), self.details[Detail::Operation as usize]);
        json.some(member!("credential_version"), self.details[Detail::CredentialVersion as usize]);
        json.some(member!("peer"), self.details[Detail::Peer as usize]);
        json.some(member!("price_version"), self.details[Detail::PriceVersion as usize]);
        self.write_charges(json);
        let apart = self.held_at.filter(|at| at.as_millisecond() != self.at.as_millisecond());
        if let Some(held_at) = apart {
            json.time(member!("held_at"), held_at);
        }
        if let Some(correction) = &self.correction {
            correction.write(json);
        }
        json.raw("}");
    }

    fn write_id(&self, json: &mut Json<'_>) {
        json.word("{\"id\":", str::from_utf8(&self.id.hex()).unwrap_or_default());
        json.time(member!("at"), self.at);
    }

    fn write_units(&self, json: &mut Json<'_>) {
        json.raw(member!("units"));
        write_amounts(&self.units, json);
    }

    fn write_charges(&self, json: &mut Json<'_>) {
        if self.charges.is_empty() {
            return;
        }
        let mut begin = concat!(member!("charges"), "[");
        self.charges.each(|limit, key, amount| {
            json.raw(std::mem::replace(&mut begin, ","));
            json.raw("{\"limit\":");
            json.string(limit);
            json.some(member!("key"), key);
            json.number(member!("amount"), amount);
            json.raw("}");
        });
        json.raw("]");
    }
}

impl JsonObject for Fields<'_> {
    fn write(&self, json: &mut Json<'_>) {
        self.write_call(json);
        Number::write(&self.numbers, NumberPart::Cost, json);
        self.write_rest(json);
    }
}

impl AttemptFields<'_> {
    fn write(&self, json: &mut Json<'_>) {
        // A first member that is always there, so that the others need not know whether they are it.
        if self.peer.is_empty() {
            json.raw("{\"peer\":null");
        } else {
            json.text("{\"peer\":", self.peer);
        }
        json.some(member!("source"), self.source);
        json.some(member!("alias"), self.alias);
        json.some(member!("credential_version"), self.credential_version);
        if let Some(status) = self.status {
            json.number(member!("status"), status.into());
        }
        json.some(member!("reason"), self.reason);
        json.raw("}");
    }
}

impl CorrectionFields<'_> {
    fn write(&self, json: &mut Json<'_>) {
        json.word(member!("corrects"), str::from_utf8(&self.corrects.hex()).unwrap_or_default());
        if let Some(takes) = self.takes {
            json.raw(member!("takes"));
            takes.write(json);
        }
        json.some(member!("by"), self.by);
        json.some(member!("note"), self.note);
    }
}

impl JsonObject for CorrectedUsage {
    fn write(&self, json: &mut Json<'_>) {
        json.raw("{\"status\":");
        json.integer(self.status);
        json.some(member!("outcome"), &self.outcome);
        json.some(member!("reason"), &self.reason);
        json.some(member!("usage_source"), &self.usage_source);
        json.raw(member!("units"));
        write_amounts(&self.units, json);
        json.number(member!("cost"), self.cost.0);
        json.raw(if self.unpriced {
            concat!(member!("unpriced"), "true")
        } else {
            concat!(member!("unpriced"), "false")
        });
        json.number(member!("bytes_in"), self.bytes_in);
        json.number(member!("bytes_out"), self.bytes_out);
        json.raw("}");
    }
}

fn write_amounts(amounts: &Amounts, json: &mut Json<'_>) {
    json.raw("{");
    for (place, (unit, amount)) in amounts.entries().enumerate() {
        json.raw(if place == 0 { "\"" } else { ",\"" });
        json.raw(unit.as_str());
        json.raw("\":");
        json.integer(amount);
    }
    json.raw("}");
}

#[cfg(test)]
mod tests;
