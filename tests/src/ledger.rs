//! The ledger's files, read behind the gateway's back.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::gateway::Gateway;

/// Every record in the journal, in the order of their ids. Lines that seal, hold or correct are left out.
pub fn records(gateway: &Gateway) -> Vec<Value> {
    let mut records = Vec::new();
    for path in segments(gateway) {
        let text = fs::read_to_string(path).expect("a segment");
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records.extend(lines.filter_map(|mut line| line.get_mut("record").map(Value::take)));
    }
    records.sort_by_key(|record| record["id"].as_str().map(str::to_owned));
    records
}

/// One member of every record, as text.
pub fn column(gateway: &Gateway, name: &str) -> Vec<String> {
    let text = |record: &Value| match &record[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    records(gateway).iter().map(text).collect()
}

/// The journal's segments, oldest first.
pub fn segments(gateway: &Gateway) -> Vec<PathBuf> {
    let entries = fs::read_dir(gateway.home().join("data/journal")).expect("the journal");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    paths
}
