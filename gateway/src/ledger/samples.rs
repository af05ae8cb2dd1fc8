//! Records and places for the tests of the ledger and its reports.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use tempfile::TempDir;
use tollgate_policy::price::NanoUsd;

use super::batch::{Batches, EntryKind, MAGIC, NewBatch};
use super::chain::ChainHead;
use super::line::Row;
use super::payload;
use super::{Bounded, Charge, HoldLine, Outcome, Record, RecordId, UsageSource};

pub(crate) const TOKENS: &str = "grant/checkout-openai/tokens/day/shared";
pub(crate) const SPEND: &str = "grant/checkout-openai/spend/month/shared";

pub(crate) use super::batch::tamper::{parse, segment, text};

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

/// What is read of a record that was written.
pub(crate) fn read_back(record: &Record) -> Row {
    let directory = directory();
    let path = directory.path().join("segment");
    fs::write(&path, segment_of(|batch| _ = payload::append(batch, EntryKind::Record, &record.fields())))
        .unwrap();
    let mut batches = Batches::open(&path, 0).unwrap();
    let batch = batches.next_batch().unwrap().unwrap();
    let entry = batch.entries().map(Result::unwrap).last().unwrap();
    payload::read(&entry).unwrap()
}

/// A segment of one batch.
pub(crate) fn segment_of(append: impl FnOnce(&mut NewBatch)) -> Vec<u8> {
    let mut batch = NewBatch::at(MAGIC.len() as u64);
    append(&mut batch);
    batch.close(ChainHead::NONE);
    [&MAGIC, batch.bytes()].concat()
}

/// A hold of 1,000 tokens and 0.002 USD.
pub(crate) fn hold(id: RecordId) -> HoldLine<'static> {
    HoldLine {
        id,
        at: Timestamp::now(),
        caller: "spiffe://prod.acme/ns/checkout/sa/api".parse().unwrap(),
        destination: "openai".parse().unwrap(),
        host: Some(Bounded::new("api.openai.com")),
        grant: "checkout-openai".parse().unwrap(),
        credential: Some("openai-prod".parse().unwrap()),
        model: Some(Bounded::new("gpt-5-mini")),
        charges: charges(1_000, 2_000_000).into(),
        cost: Some(NanoUsd(2_000_000)),
        price_version: Some("openai/gpt-5-mini@2026-08-01".into()),
        generation: 3,
    }
}

/// Its record: 100 tokens in, 20 out, 0.0001 USD.
pub(crate) fn record(hold: &HoldLine<'_>) -> Record {
    let mut record = Record::new(hold.id, hold.at, Bounded::new("POST"));
    record.caller = Some(hold.caller.clone());
    record.destination = Some(hold.destination.clone());
    record.host = hold.host.clone();
    record.path = Some(Bounded::path(&"/v1/chat/completions?key=canary".into()));
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
