use serde_json::{Value, json};

use super::*;
use crate::ledger::json::Calendar;
use crate::ledger::record::{Attempt, Record};
use crate::ledger::samples::{self, read_back};
use crate::ledger::{Bounded, Outcome, UsageSource};

fn text(write: impl FnOnce(&mut Json<'_>)) -> Vec<u8> {
    let (mut out, mut calendar) = (Vec::new(), Calendar::default());
    write(&mut Json::new(&mut out, &mut calendar));
    out
}

/// The JSON of a record, which is the same once it was written and read back.
fn read(record: &Record) -> Value {
    let written = text(|json| record.fields().write(json));
    assert_eq!(text(|json| read_back(record).fields().write(json)), written);
    serde_json::from_slice(&written).unwrap()
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
    let said = [text(|json| record.fields().write_access(json)), b"}".to_vec()].concat();
    let said: Value = serde_json::from_slice(&said).unwrap();
    let whole = read(&record);
    for (name, value) in said.as_object().unwrap() {
        assert_eq!(&whole[name.strip_suffix("_nano_usd").unwrap_or(name)], value);
    }
    for name in ["caller", "destination", "grant", "status", "outcome", "attempts", "units", "cost_nano_usd"]
    {
        assert!(said.get(name).is_some(), "{name}");
    }
    assert!(said.get("charges").is_none() && whole.get("charges").is_some());
}

#[test]
fn a_hold_stands_with_what_it_reserves() {
    let hold = samples::hold(RecordId::new());
    let line: Value = serde_json::from_slice(&text(|json| hold.fields().write_hold(json))).unwrap();
    assert_eq!(line["id"], hold.id.to_string());
    assert_eq!(line["caller"], "spiffe://prod.acme/ns/checkout/sa/api");
    assert_eq!(line["charges"][0], json!({"limit": samples::SPEND, "amount": 2_000_000}));
    assert_eq!(line["cost"], 2_000_000);
    assert_eq!(line["price_version"], "openai/gpt-5-mini@2026-08-01");
}
