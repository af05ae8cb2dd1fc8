//! Sums for reports.

use tokio_postgres::Row;

use crate::ledger::LedgerError;
use crate::ledger::dimension::{Dimension, Texts};
use crate::ledger::grouping::{ERROR, GroupRow, Grouping, QUARTER, Summed};
use crate::ledger::rollup::RollupSums;
use crate::ledger::timed_sums::TimeUnit;

/// The question in the words of the database. Columns: quarter, status, the dimensions, the unit where usage is asked for, the sums.
pub(super) fn sql(grouping: &Grouping, summed: Summed) -> String {
    let quarter = if grouping.by_time { format!("minute / {QUARTER}") } else { "0".to_owned() };
    let is_error = format!("CASE WHEN status >= {ERROR} THEN {ERROR} ELSE 0 END");
    let status = if grouping.by_status { "status" } else { &is_error };
    let (unit, columns) = (summed.unit(), summed.columns());
    let of_unit = unit.replace(", ", ", g.");
    let sums = columns.iter().map(|sum| format!(", CAST(sum({sum}) AS BIGINT) AS {sum}"));
    format!(
        "SELECT g.quarter, g.status, {}{of_unit}{}
         FROM (SELECT k.kind AS dimensions, CAST({quarter} AS BIGINT) AS quarter, CAST({status} AS BIGINT) AS status{unit}{}
               FROM ({}) r JOIN ({}) k ON k.id = r.dimensions GROUP BY 1, 2, 3{unit}) g
         JOIN tollgate.dimensions d ON d.id = g.dimensions",
        Dimension::ALL.map(|dimension| format!("d.{}", dimension.column())).join(", "),
        columns.iter().map(|column| format!(", g.{column}")).collect::<String>(),
        sums.collect::<String>(),
        rows(grouping, summed),
        kinds(grouping),
    )
}

/// The rows of the tables that are read, with their first minute.
fn rows(grouping: &Grouping, summed: Summed) -> String {
    let (table, unit, columns) = (summed.table(), summed.unit(), summed.columns().join(", "));
    let stretches = grouping.stretches().map(|(TimeUnit { minutes, suffix, column }, since, until)| {
        format!(
            "SELECT {column} * {minutes} AS minute, dimensions, status{unit}, {columns}
             FROM tollgate.{table}{suffix} WHERE {column} >= {since} AND {column} < {until}"
        )
    });
    let nothing =
        format!("SELECT minute, dimensions, status{unit}, {columns} FROM tollgate.{table} WHERE false");
    stretches.chain([nothing]).collect::<Vec<_>>().join(" UNION ALL ")
}

/// For each row of dimensions one that has the same of what tells them apart: far fewer are left.
fn kinds(grouping: &Grouping) -> String {
    let columns: Vec<String> = grouping.texts().map(Dimension::column).collect();
    let apart =
        if columns.is_empty() { String::new() } else { format!("PARTITION BY {}", columns.join(", ")) };
    format!("SELECT id, min(id) OVER ({apart}) AS kind FROM tollgate.dimensions")
}

/// A row of the answer.
pub(super) fn group(row: &Row, summed: Summed) -> Result<GroupRow<'_>, LedgerError> {
    let mut texts = Texts::default();
    for (index, text) in texts.iter_mut().enumerate() {
        *text = row.try_get(2 + index)?;
    }
    let mut next = 2 + Dimension::ALL.len();
    let mut unit = "";
    if summed == Summed::Usage {
        unit = row.try_get(next)?;
        next += 1;
    }
    let mut sums = [0; RollupSums::COLUMNS.len()];
    for (index, sum) in sums.iter_mut().take(summed.columns().len()).enumerate() {
        *sum = row.try_get(next + index)?;
    }
    Ok(GroupRow { quarter: row.try_get(0)?, status: row.try_get(1)?, texts, unit, sums })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPING: Grouping = Grouping {
        by_time: true,
        by_texts: [false; Dimension::ALL.len()],
        by_status: false,
        units: &TimeUnit::ALL,
        since: 1_439,
        until: 2_941,
    };

    #[test]
    fn rows_are_told_apart_by_no_more_texts_than_are_asked_for() {
        let mut by_texts = GROUPING.by_texts;
        by_texts[Dimension::Model as usize] = true;
        let sql = sql(&Grouping { by_texts, ..GROUPING }, Summed::Usage);
        let apart = "SELECT id, min(id) OVER (PARTITION BY \"model\") AS kind FROM tollgate.dimensions";
        assert!(sql.contains(apart), "{sql}");
    }

    #[test]
    fn whole_days_and_hours_are_read_as_such_and_the_minutes_around_them_one_by_one() {
        let sql = sql(&GROUPING, Summed::Counts);
        for part in [
            "tollgate.sums WHERE minute >= 1439 AND minute < 1440",
            "tollgate.sums_by_day WHERE day >= 1 AND day < 2",
            "tollgate.sums_by_hour WHERE hour >= 48 AND hour < 49",
            "tollgate.sums WHERE minute >= 2940 AND minute < 2941",
        ] {
            assert!(sql.contains(part), "{part}: {sql}");
        }
    }
}
