//! Records and places for the tests of the ledger and its reports.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use tempfile::TempDir;
use tollgate_policy::price::NanoUsd;

use super::json::{Calendar, Json, JsonObject};
use super::{Bounded, Charge, HoldLine, Outcome, Record, RecordId, UsageSource};

pub(crate) const TOKENS: &str = "grant/checkout-openai/tokens/day/shared";
pub(crate) const SPEND: &str = "grant/checkout-openai/spend/month/shared";

pub(crate) use super::batch::tamper::{parse, segment};

/// A directory in memory where there is one: these tests sync a lot.
pub(crate) fn directory() -> TempDir {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { TempDir::new_in(shared).unwrap() } else { TempDir::new().unwrap() }
}

/// The same files elsewhere: what is left when the process is killed.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// The payload of an entry.
pub(crate) fn json(line: &impl JsonObject) -> String {
    let (mut out, mut calendar) = (Vec::new(), Calendar::default());
    line.write(&mut Json::new(&mut out, &mut calendar));
    String::from_utf8(out).unwrap()
}

/// A hold of 1,000 tokens and 0.002 USD.
pub(crate) fn hold(id: RecordId) -> HoldLine {
    HoldLine {
        id,
        at: Timestamp::now(),
        caller: "spiffe://prod.acme/ns/checkout/sa/api".parse().unwrap(),
        destination: "openai".parse().unwrap(),
        host: Some(Bounded::new("api.openai.com")),
        grant: "checkout-openai".parse().unwrap(),
        credential: Some("openai-prod".parse().unwrap()),
        model: Some(Bounded::new("gpt-5-mini")),
        charges: charges(1_000, 2_000_000),
        cost: Some(NanoUsd(2_000_000)),
        price_version: Some("openai/gpt-5-mini@2026-08-01".into()),
        generation: 3,
    }
}

/// Its record: 100 tokens in, 20 out, 0.0001 USD.
pub(crate) fn record(hold: &HoldLine) -> Record {
    let mut record = Record::new(hold.id, hold.at, Bounded::new("POST"));
    record.caller = Some(hold.caller.clone());
    record.destination = Some(hold.destination.clone());
    record.host = hold.host.clone();
    record.path = Some(Bounded::path("/v1/chat/completions?key=canary"));
    record.grant = Some(hold.grant.clone());
    record.credential = hold.credential.clone();
    record.model = hold.model.clone();
    record.status = 200;
    record.outcome = Outcome::Completed;
    record.units.input = 100;
    record.units.output = 20;
    record.usage_source = UsageSource::Reported;
    record.cost = Some(NanoUsd(100_000));
    record.charges = charges(120, 100_000);
    record.held_at = Some(hold.at);
    record
}

pub(crate) fn charges(tokens: u64, spend: u64) -> Vec<Charge> {
    vec![
        Charge { limit: SPEND.into(), key: "".into(), amount: spend },
        Charge { limit: TOKENS.into(), key: "".into(), amount: tokens },
    ]
}

/// What each limit was charged.
pub(crate) fn sums(balances: &[(Timestamp, Charge)]) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (_, charge) in balances {
        *sums.entry(charge.limit.to_string()).or_default() += charge.amount;
    }
    sums
}
