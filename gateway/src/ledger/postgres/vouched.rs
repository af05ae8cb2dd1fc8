//! What was taken in of each replica in each month, which the records and the sums are checked by.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use tokio_postgres::Transaction;

use super::schema::{MOST, Month};
use super::segment_part::SegmentPart;
use crate::ledger::LedgerError;
use crate::ledger::record::RecordId;

/// Adds the new records of a stretch.
pub(super) async fn add(
    transaction: &Transaction<'_>,
    replica: i64,
    stretch: &SegmentPart,
    new: &HashSet<RecordId>,
) -> Result<(), LedgerError> {
    let mut months: BTreeMap<Month, [i64; 3]> = BTreeMap::new();
    let mut counted = HashSet::new();
    for record in &stretch.records {
        if !new.contains(&record.id) || !counted.insert(record.id) {
            continue;
        }
        let month = Month::of(Timestamp::from_microsecond(record.at).unwrap_or_default());
        let sums = months.entry(month).or_default();
        for (sum, part) in sums.iter_mut().zip([1, record.requests, record.cost]) {
            *sum = sum.saturating_add(part).clamp(-MOST, MOST);
        }
    }
    let sql = format!(
        "INSERT INTO tollgate.vouched AS v (replica, month, records, requests, cost)
         VALUES ($1, $2::text::date, $3, $4, $5) ON CONFLICT (replica, month) DO UPDATE
         SET records = v.records + excluded.records, requests = least(v.requests + excluded.requests, {MOST}),
             cost = least(v.cost + excluded.cost, {MOST})"
    );
    for (month, [records, requests, cost]) in months {
        transaction.execute(&sql, &[&replica, &month.to_string(), &records, &requests, &cost]).await?;
    }
    Ok(())
}
