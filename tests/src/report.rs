//! The usage report and the ledger, read as an operator reads them.

use serde_json::Value;

use crate::gateway::{Gateway, eventually};

/// The rows of `tollgate report --format json`.
pub fn report(gateway: &Gateway, by: &str) -> Vec<Value> {
    let output = gateway.tollgate(&["report", "--by", by, "--format", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Value = serde_json::from_slice(&output.stdout).expect("the report is JSON");
    let rows = rows.as_array().or_else(|| rows["rows"].as_array());
    rows.cloned().unwrap_or_else(|| panic!("no rows: {}", String::from_utf8_lossy(&output.stdout)))
}

/// The sum of a column over the rows that `wanted` picks.
pub fn total(rows: &[Value], column: &str, wanted: impl Fn(&Value) -> bool) -> u64 {
    rows.iter().filter(|row| wanted(row)).map(|row| row[column].as_u64().expect("a number")).sum()
}

/// All requests of the rows: those that went out and those that were refused.
pub fn requests(rows: &[Value]) -> u64 {
    total(rows, "requests", |_| true)
}

/// Waits until the report counts this many requests in all.
pub async fn requests_reach(gateway: &Gateway, count: u64) {
    let sum = || requests(&report(gateway, "caller"));
    eventually(&format!("the report counts {count} requests"), || sum() >= count).await;
    assert_eq!(sum(), count);
}

/// `tollgate ledger verify`: the chains are whole.
pub fn assert_verified(gateway: &Gateway) {
    let output = gateway.tollgate(&["ledger", "verify"]);
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
}
