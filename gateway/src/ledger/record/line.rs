//! A record and a hold as they stand on a line, member by member. Absent members are not written.

use tollgate_policy::price::{Item, Units};

use super::{Attempt, Charge, HoldLine, Record, RecordId};
use crate::ledger::json::{Json, Object, member};

impl Object for Record {
    fn write(&self, json: &mut Json<'_>) {
        id(json, self.id);
        json.time(member!("at"), self.at);
        json.number(member!("duration"), self.duration);
        optional(json, member!("first_byte"), self.first_byte);
        json.optional(member!("caller"), self.caller.as_ref().map(|caller| caller.as_str()));
        json.optional(member!("proof"), self.proof.map(|proof| proof.as_str()));
        json.text(member!("method"), self.method.as_str());
        json.optional(member!("destination"), self.destination.as_ref().map(|name| name.as_str()));
        json.optional(member!("host"), self.host.as_ref().map(|host| host.as_str()));
        optional(json, member!("port"), self.port.map(u64::from));
        json.optional(member!("path"), self.path.as_ref().map(|path| path.as_str()));
        json.optional(member!("operation"), self.operation.as_deref());
        json.optional(member!("grant"), self.grant.as_ref().map(|name| name.as_str()));
        json.optional(member!("credential"), self.credential.as_ref().map(|name| name.as_str()));
        json.optional(member!("credential_version"), self.credential_version.as_deref());
        json.optional(member!("source"), self.source.as_deref());
        json.optional(member!("model"), self.model.as_ref().map(|model| model.as_str()));
        json.optional(member!("model_answered"), self.model_answered.as_ref().map(|model| model.as_str()));
        json.number(member!("status"), self.status.into());
        json.optional(member!("reason"), self.reason.map(|reason| reason.as_str()));
        json.text(member!("outcome"), self.outcome.as_str());
        list(json, member!("attempts"), &self.attempts, |json, attempt| self.attempt(json, attempt));
        json.number(member!("bytes_in"), self.bytes_in);
        json.number(member!("bytes_out"), self.bytes_out);
        units(json, &self.units);
        json.text(member!("usage_source"), self.usage_source.as_str());
        optional(json, member!("cost"), self.cost.map(|cost| cost.0));
        if self.unpriced {
            json.raw(concat!(member!("unpriced"), "true"));
        }
        json.optional(member!("price_version"), self.price_version.as_deref());
        list(json, member!("charges"), &self.charges, charge);
        let apart = self.held_at.filter(|at| at.as_millisecond() != self.at.as_millisecond());
        if let Some(held_at) = apart {
            json.time(member!("held_at"), held_at);
        }
        json.number(member!("generation"), self.generation);
        json.raw("}");
    }
}

impl Record {
    fn attempt(&self, json: &mut Json<'_>, attempt: &Attempt) {
        // A first member that is always there, so that the others need not know whether they are it.
        json.raw("{\"peer\":");
        json.string(attempt.peer.as_deref().unwrap_or_default());
        json.optional(member!("source"), attempt.source.as_deref().filter(|_| attempt.source != self.source));
        let version = attempt.credential_version.as_deref();
        let version = version.filter(|_| attempt.credential_version != self.credential_version);
        json.optional(member!("credential_version"), version);
        optional(json, member!("status"), attempt.status.map(u64::from));
        json.optional(member!("reason"), attempt.reason.map(|reason| reason.as_str()));
        json.raw("}");
    }
}

impl Object for HoldLine {
    fn write(&self, json: &mut Json<'_>) {
        id(json, self.id);
        json.time(member!("at"), self.at);
        json.text(member!("caller"), self.caller.as_str());
        json.text(member!("destination"), self.destination.as_str());
        json.optional(member!("host"), self.host.as_ref().map(|host| host.as_str()));
        json.text(member!("grant"), self.grant.as_str());
        json.optional(member!("credential"), self.credential.as_ref().map(|name| name.as_str()));
        json.optional(member!("model"), self.model.as_ref().map(|model| model.as_str()));
        list(json, member!("charges"), &self.charges, charge);
        optional(json, member!("cost"), self.cost.map(|cost| cost.0));
        json.optional(member!("price_version"), self.price_version.as_deref());
        json.number(member!("generation"), self.generation);
        json.raw("}");
    }
}

fn id(json: &mut Json<'_>, id: RecordId) {
    json.raw("{\"id\":");
    json.string(str::from_utf8(&id.hex()).unwrap_or_default());
}

fn charge(json: &mut Json<'_>, charge: &Charge) {
    json.raw("{\"limit\":");
    json.string(&charge.limit);
    json.optional(member!("key"), Some(&*charge.key).filter(|key| !key.is_empty()));
    json.number(member!("amount"), charge.amount);
    json.raw("}");
}

fn units(json: &mut Json<'_>, units: &Units) {
    json.raw(concat!(member!("units"), "{"));
    let counted =
        Item::ALL.iter().map(|item| (item.as_str(), units.get(*item))).filter(|(_, count)| *count > 0);
    for (place, (name, count)) in counted.enumerate() {
        json.raw(if place == 0 { "\"" } else { ",\"" });
        json.raw(name);
        json.raw("\":");
        json.integer(count);
    }
    json.raw("}");
}

fn optional(json: &mut Json<'_>, name: &'static str, value: Option<u64>) {
    if let Some(value) = value {
        json.number(name, value);
    }
}

fn list<T>(json: &mut Json<'_>, name: &'static str, items: &[T], write: impl Fn(&mut Json<'_>, &T)) {
    if items.is_empty() {
        return;
    }
    json.raw(name);
    for (place, item) in items.iter().enumerate() {
        json.raw(if place == 0 { "[" } else { "," });
        write(json, item);
    }
    json.raw("]");
}
