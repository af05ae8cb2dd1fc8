//! A record and a hold as they stand on a line, member by member. Absent members are not written.

use tollgate_policy::price::{Item, Units};

use super::{Attempt, Charge, HoldLine, Record, RecordId};
use crate::ledger::dimension::LinePart;
use crate::ledger::json::{Json, JsonObject, member};

impl JsonObject for Record {
    fn write(&self, json: &mut Json<'_>) {
        self.access_fields(json);
        self.other_fields(json);
    }
}

impl Record {
    /// Who called what, how it ended and what it used: how the object begins, and all that an access log says.
    pub(crate) fn access_fields(&self, json: &mut Json<'_>) {
        id(json, self.id);
        json.time(member!("at"), self.at);
        json.number(member!("duration_us"), self.duration);
        optional(json, member!("first_byte_us"), self.first_byte);
        self.write_dimensions(json, LinePart::Access);
        json.text(member!("method"), self.method.as_str());
        json.optional(member!("path"), self.path.as_ref().map(|path| path.as_str()));
        json.number(member!("status"), self.status.into());
        optional(json, member!("count"), Some(self.count).filter(|count| *count != 1));
        // One that simply succeeded is told by the record itself.
        let last = self.attempts.last();
        if self.attempts.len() > 1 || last.is_some_and(|last| last.status != Some(self.status)) {
            list(json, member!("attempts"), &self.attempts, |json, attempt| self.attempt(json, attempt));
        }
        json.number(member!("bytes_in"), self.bytes_in);
        json.number(member!("bytes_out"), self.bytes_out);
        units(json, &self.units);
        optional(json, member!("cost"), self.cost.map(|cost| cost.0));
    }

    /// How the object goes on to its end.
    pub(crate) fn other_fields(&self, json: &mut Json<'_>) {
        self.write_dimensions(json, LinePart::Rest);
        json.optional_word(member!("proof"), self.proof.map(|proof| proof.as_str()));
        optional(json, member!("port"), self.port.map(u64::from));
        json.optional(member!("operation"), self.operation.as_deref());
        json.optional(member!("credential_version"), self.credential_version.as_deref());
        json.optional_word(member!("peer"), self.attempts.last().and_then(|last| last.peer.as_deref()));
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

    fn attempt(&self, json: &mut Json<'_>, attempt: &Attempt) {
        // A first member that is always there, so that the others need not know whether they are it.
        match &attempt.peer {
            Some(peer) => json.word("{\"peer\":", peer),
            None => json.raw("{\"peer\":null"),
        }
        json.optional_word(
            member!("source"),
            attempt.source.as_deref().filter(|_| attempt.source != self.source),
        );
        let alias = attempt.alias.as_ref().filter(|_| attempt.alias != self.alias);
        json.optional_word(member!("alias"), alias.map(|alias| alias.as_str()));
        let version = attempt.credential_version.as_deref();
        let version = version.filter(|_| attempt.credential_version != self.credential_version);
        json.optional(member!("credential_version"), version);
        optional(json, member!("status"), attempt.status.map(u64::from));
        json.optional_word(member!("reason"), attempt.reason.map(|reason| reason.as_str()));
        json.raw("}");
    }
}

impl JsonObject for HoldLine {
    fn write(&self, json: &mut Json<'_>) {
        id(json, self.id);
        json.time(member!("at"), self.at);
        json.word(member!("caller"), self.caller.as_str());
        json.word(member!("destination"), self.destination.as_str());
        json.optional(member!("host"), self.host.as_ref().map(|host| host.as_str()));
        json.word(member!("grant"), self.grant.as_str());
        json.optional_word(member!("credential"), self.credential.as_ref().map(|name| name.as_str()));
        json.optional(member!("model"), self.model.as_ref().map(|model| model.as_str()));
        list(json, member!("charges"), &self.charges, charge);
        optional(json, member!("cost"), self.cost.map(|cost| cost.0));
        json.optional(member!("price_version"), self.price_version.as_deref());
        json.number(member!("generation"), self.generation);
        json.raw("}");
    }
}

fn id(json: &mut Json<'_>, id: RecordId) {
    json.word("{\"id\":", str::from_utf8(&id.hex()).unwrap_or_default());
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::ledger::json::Calendar;
    use crate::ledger::samples;
    use crate::ledger::{Bounded, Outcome, UsageSource};

    fn read(line: &impl JsonObject) -> Value {
        serde_json::from_str(&samples::json(line)).unwrap()
    }

    #[test]
    fn a_record_stands_as_one_object_of_what_is_known() {
        let at = "2026-11-23T09:58:07.105271Z".parse().unwrap();
        let id: RecordId = "01a207d768017b24b761f7d78e801692".parse().unwrap();
        let mut record = Record::new(id, at, Bounded::new("PO\"ST"));
        let bare = json!({
            "id": "01a207d768017b24b761f7d78e801692", "at": "2026-11-23T09:58:07.105271Z", "duration_us": 0,
            "method": "PO\"ST", "status": 0, "outcome": "refused", "bytes_in": 0, "bytes_out": 0, "units": {},
            "usage_source": "none", "generation": 0,
        });
        assert_eq!(read(&record), bare);
        record.outcome = Outcome::Completed;
        record.usage_source = UsageSource::Reported;
        record.source = Some("10.0.0.7".into());
        record.credential_version = Some("4".into());
        record.alias = Some("team-b".parse().unwrap());
        let earlier = Attempt {
            alias: Some("team-a".parse().unwrap()),
            credential_version: Some("3".into()),
            status: Some(401),
            ..Attempt::default()
        };
        let last = Attempt {
            alias: record.alias.clone(),
            peer: Some("192.0.2.1:443".into()),
            source: record.source.clone(),
            credential_version: record.credential_version.clone(),
            status: Some(200),
            reason: None,
        };
        record.attempts = vec![earlier, last];
        (record.units.input, record.units.output) = (7, 9);
        record.unpriced = true;
        record.charges = vec![
            Charge { limit: "a".into(), key: "".into(), amount: 1 },
            Charge { limit: "b".into(), key: "k".into(), amount: 2 },
        ];
        record.held_at = Some(at);
        let full = read(&record);
        assert_eq!(
            full["attempts"],
            json!([
                {"peer": null, "alias": "team-a", "credential_version": "3", "status": 401},
                {"peer": "192.0.2.1:443", "status": 200},
            ])
        );
        assert_eq!(full["peer"], "192.0.2.1:443");
        record.attempts.remove(0);
        record.status = 200;
        assert_eq!(read(&record).get("attempts"), None);
        assert_eq!(full["units"], json!({"input": 7, "output": 9}));
        assert_eq!(
            full["charges"],
            json!([{"limit": "a", "amount": 1}, {"limit": "b", "key": "k", "amount": 2}])
        );
        assert_eq!(full["unpriced"], json!(true));
        assert_eq!(full.get("held_at"), None);
        record.held_at = Some("2026-11-23T09:58:08Z".parse().unwrap());
        assert_eq!(read(&record)["held_at"], "2026-11-23T09:58:08.000000Z");
    }

    #[test]
    fn a_record_begins_with_what_an_access_log_says() {
        let mut record = samples::record(&samples::hold(RecordId::new()));
        record.attempts = vec![Attempt { status: Some(503), ..Attempt::default() }];
        let (mut out, mut calendar) = (Vec::new(), Calendar::default());
        let mut json = Json::new(&mut out, &mut calendar);
        let said = [json.since(|json| record.access_fields(json)), b"}"].concat();
        let said: Value = serde_json::from_slice(&said).unwrap();
        let whole = read(&record);
        for (name, value) in said.as_object().unwrap() {
            assert_eq!(&whole[name], value);
        }
        for name in ["caller", "destination", "grant", "status", "outcome", "attempts", "units", "cost"] {
            assert!(said.get(name).is_some(), "{name}");
        }
        assert!(said.get("charges").is_none() && whole.get("charges").is_some());
    }

    #[test]
    fn a_hold_stands_with_what_it_reserves() {
        let hold = samples::hold(RecordId::new());
        let line = read(&hold);
        assert_eq!(line["id"], hold.id.to_string());
        assert_eq!(line["caller"], "spiffe://prod.acme/ns/checkout/sa/api");
        assert_eq!(line["charges"][0], json!({"limit": samples::SPEND, "amount": 2_000_000}));
        assert_eq!(line["cost"], 2_000_000);
        assert_eq!(line["price_version"], "openai/gpt-5-mini@2026-08-01");
    }
}
