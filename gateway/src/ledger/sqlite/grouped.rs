//! Sums for reports.
//!
//! Rows are added up here: the database would sort them all first.

use std::collections::HashMap;

use rusqlite::Row;

use super::StoreReader;
use crate::ledger::LedgerError;
use crate::ledger::dimension::{Dimension, Texts};
use crate::ledger::grouping::{ERROR, GroupRow, Grouping, QUARTER, Summed};
use crate::ledger::rollup::RollupSums;
use crate::ledger::timed_sums::TimeUnit;

type ColumnSums = [i64; RollupSums::COLUMNS.len()];

/// Combinations of dimensions that are told apart, and which of them each row of dimensions is.
struct Kinds {
    texts: Vec<[String; Dimension::ALL.len()]>,
    of: HashMap<i64, usize>,
}

/// What was added up of one quarter of an hour, or of all of them.
struct Groups {
    kinds: Kinds,
    units: Vec<String>,
    quarter: i64,
    /// By kind, status and unit.
    sums: HashMap<(usize, i64, usize), ColumnSums>,
}

/// Hands every row of the answer to `each`.
pub(super) fn grouped(
    reader: &StoreReader,
    grouping: &Grouping,
    summed: Summed,
    mut each: impl FnMut(&GroupRow<'_>),
) -> Result<(), LedgerError> {
    let kinds = Kinds::read(reader, grouping)?;
    let mut groups = Groups { kinds, units: Vec::new(), quarter: 0, sums: HashMap::new() };
    for (TimeUnit { minutes, suffix, column }, since, until) in grouping.stretches() {
        let sql = format!(
            "SELECT {column}, dimensions, status, {columns}{unit} FROM {table}{suffix}
             WHERE {column} >= {since} AND {column} < {until} ORDER BY {column}",
            columns = summed.columns().join(", "),
            unit = summed.unit(),
            table = summed.table(),
        );
        reader.query(&sql, &[], |row| {
            let quarter = if grouping.by_time { row.get::<_, i64>(0)? * minutes / QUARTER } else { 0 };
            if quarter != groups.quarter {
                groups.hand_over(&mut each);
                groups.quarter = quarter;
            }
            groups.add(row, grouping.by_status, summed)
        })?;
    }
    groups.hand_over(&mut each);
    Ok(())
}

impl Kinds {
    fn read(reader: &StoreReader, grouping: &Grouping) -> Result<Self, LedgerError> {
        let (mut kinds, mut known) = (Self { texts: Vec::new(), of: HashMap::new() }, HashMap::new());
        let columns: String = grouping.texts().map(|dimension| format!(", {}", dimension.column())).collect();
        reader.query(&format!("SELECT id{columns} FROM dimensions"), &[], |row| {
            let mut texts: [String; Dimension::ALL.len()] = Default::default();
            for (index, dimension) in grouping.texts().enumerate() {
                texts[dimension as usize] = row.get(1 + index)?;
            }
            let kind = *known.entry(texts).or_insert_with_key(|texts| {
                kinds.texts.push(texts.clone());
                kinds.texts.len() - 1
            });
            kinds.of.insert(row.get(0)?, kind);
            Ok(())
        })?;
        Ok(kinds)
    }
}

impl Groups {
    /// Adds a row: time, dimensions, status, the sums, and the unit where there is one.
    fn add(&mut self, row: &Row<'_>, by_status: bool, summed: Summed) -> rusqlite::Result<()> {
        let Some(kind) = self.kinds.of.get(&row.get(1)?) else { return Ok(()) };
        let status: i64 = row.get(2)?;
        let status = match status >= i64::from(ERROR) {
            _ if by_status => status,
            true => ERROR.into(),
            false => 0,
        };
        let length = summed.columns().len();
        let unit = match summed {
            Summed::Counts => 0,
            Summed::Usage => unit(&mut self.units, row.get_ref(3 + length)?.as_str()?),
        };
        let sums = self.sums.entry((*kind, status, unit)).or_default();
        for (index, sum) in sums.iter_mut().take(length).enumerate() {
            *sum = sum.saturating_add(row.get(3 + index)?);
        }
        Ok(())
    }

    fn hand_over(&mut self, each: &mut impl FnMut(&GroupRow<'_>)) {
        for ((kind, status, unit), sums) in self.sums.drain() {
            let mut texts = Texts::default();
            for (text, own) in texts.iter_mut().zip(&self.kinds.texts[kind]) {
                *text = own;
            }
            let unit = self.units.get(unit).map_or("", String::as_str);
            each(&GroupRow { quarter: self.quarter, status, texts, unit, sums });
        }
    }
}

/// Where a unit stands among those that were seen: a handful.
fn unit(units: &mut Vec<String>, name: &str) -> usize {
    units.iter().position(|unit| unit == name).unwrap_or_else(|| {
        units.push(name.to_owned());
        units.len() - 1
    })
}
