//! What the database says of journals: it has seen all of them, and is on no disk of a replica's.
//!
//! **Invariant:** what the database was given of each replica, in number and sum, is written in the transaction that takes it in, so that rows
//! which are removed, added or changed later do not agree with it. Whoever may write all its tables can make them agree; of the journal that
//! is at hand each record is looked up.

use std::fmt::Write;
use std::path::Path;

use super::read::SharedReader;
use super::segment_part::{SegmentOffset, SegmentPart};
use super::session::PostgresServer;
use crate::ledger::chain::ChainHead;
use crate::ledger::record::RecordId;
use crate::ledger::segment::{Known, SegmentEnd};
use crate::ledger::timed_sums::TimeUnit;
use crate::ledger::verify::{Verification, verify_against};
use crate::ledger::{LedgerError, chain, replica, segment};

/// What findings and notes call it.
const DATABASE: &str = "the database of several replicas";
/// Records of one segment that are named; more of them say nothing new.
const NAMED: usize = 10;

/// Checks the ledger of a data directory as [`verify`](crate::ledger::verify()) does, also by what the database has seen of it; and what the
/// database has of each replica by what it was given. A database that cannot be asked is a note.
///
/// # Errors
/// As [`verify`](crate::ledger::verify()).
pub fn verify_shared(
    server: &PostgresServer,
    data_dir: &Path,
    key: Option<&Path>,
) -> Result<Verification, LedgerError> {
    let own = replica::id(data_dir)?;
    let seen = own.map_or(Ok(Vec::new()), |own| heads(server, own));
    let (seen, unasked) = match seen {
        Ok(seen) => (seen, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let mut result = verify_against(data_dir, key, seen, DATABASE)?;
    let asked = match unasked {
        Some(error) => Err(error),
        // It answered before: what cannot be asked now is no proof.
        None => compare(server, own.map(|own| (own, data_dir)), &mut result).or_else(|error| {
            result.find(DATABASE, None, format!("it could not be checked: {}", chain(&error)));
            Ok(())
        }),
    };
    if let Err(error) = asked {
        result.notes.push(format!("{DATABASE} was not asked: {}", chain(&error)));
    }
    Ok(result)
}

/// How far each segment of a replica was taken in, with the head of the chain there.
fn heads(server: &PostgresServer, own: RecordId) -> Result<Vec<SegmentEnd>, LedgerError> {
    let sql = "SELECT s.name, s.entries, s.head FROM tollgate.segments s JOIN tollgate.replicas r ON r.id = s.replica
               WHERE r.uuid = $1::text::uuid AND s.head IS NOT NULL";
    let mut heads = Vec::new();
    for row in SharedReader::open(server)?.query(sql, &[&own.to_string()])? {
        let entries = u64::try_from(row.try_get::<_, i64>(1)?).unwrap_or_default();
        if let Some(head) = ChainHead::from_bytes(row.try_get(2)?) {
            heads.push(SegmentEnd { segment: row.try_get::<_, String>(0)?.into(), entries, head });
        }
    }
    Ok(heads)
}

fn compare(
    server: &PostgresServer,
    own: Option<(RecordId, &Path)>,
    result: &mut Verification,
) -> Result<(), LedgerError> {
    let mut reader = SharedReader::open(server)?;
    let before = result.findings.len();
    records(&mut reader, result)?;
    sums(&mut reader, result)?;
    let agrees = result.findings.len() == before;
    chains(&mut reader, agrees, result)?;
    if let Some((own, data_dir)) = own {
        let known = reader.known(own)?;
        each_record(&mut reader, data_dir, &known, result)?;
    }
    Ok(())
}

/// Months of which it has not as many records, or not of the same cost, as it was given.
fn records(reader: &mut SharedReader, result: &mut Verification) -> Result<(), LedgerError> {
    let sql = "WITH given AS (
            SELECT replica, month, records, cost FROM tollgate.vouched
            WHERE month >= (SELECT records_from AT TIME ZONE 'UTC' FROM tollgate.layout)
        ), has AS (
            SELECT replica, date_trunc('month', at AT TIME ZONE 'UTC')::date AS month, count(*) AS records,
                coalesce(sum((record->>'cost')::numeric), 0)::bigint AS cost
            FROM tollgate.records GROUP BY 1, 2
        )
        SELECT coalesce(r.name, 'of an unknown id'), to_char(month, 'YYYY-MM'),
            coalesce(given.records, 0), coalesce(given.cost, 0), coalesce(has.records, 0), coalesce(has.cost, 0)
        FROM given FULL JOIN has USING (replica, month) LEFT JOIN tollgate.replicas r ON r.id = replica
        WHERE given.records IS DISTINCT FROM has.records OR given.cost IS DISTINCT FROM has.cost ORDER BY 1, 2";
    for row in reader.query(sql, &[])? {
        let (name, month): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        let (given, has): ([i64; 2], [i64; 2]) =
            ([row.try_get(2)?, row.try_get(3)?], [row.try_get(4)?, row.try_get(5)?]);
        let what = format!(
            "of replica {name} and the month {month} it was given {} and has {}: rows were removed, added or changed",
            amount(given),
            amount(has)
        );
        result.find(DATABASE, None, what);
    }
    Ok(())
}

fn amount([records, cost]: [i64; 2]) -> String {
    format!("{records} records of {cost} nano-USD")
}

/// Replicas whose sums are not those of what was given.
fn sums(reader: &mut SharedReader, result: &mut Verification) -> Result<(), LedgerError> {
    for TimeUnit { suffix, column: per, .. } in TimeUnit::ALL {
        let sql = format!(
            "WITH given AS (
                SELECT replica, sum(requests)::bigint AS requests, sum(cost)::bigint AS cost FROM tollgate.vouched GROUP BY 1
            ), has AS (
                SELECT replica, sum(requests)::bigint AS requests, sum(cost)::bigint AS cost FROM tollgate.sums{suffix} GROUP BY 1
            )
            SELECT coalesce(r.name, 'of an unknown id'),
                coalesce(given.requests, 0), coalesce(given.cost, 0), coalesce(has.requests, 0), coalesce(has.cost, 0)
            FROM given FULL JOIN has USING (replica) LEFT JOIN tollgate.replicas r ON r.id = replica
            WHERE given.requests IS DISTINCT FROM has.requests OR given.cost IS DISTINCT FROM has.cost ORDER BY 1"
        );
        for row in reader.query(&sql, &[])? {
            let name: &str = row.try_get(0)?;
            let (requests, cost): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
            let (has_requests, has_cost): (i64, i64) = (row.try_get(3)?, row.try_get(4)?);
            let what = format!(
                "the sums by the {per} of replica {name} come to {has_requests} requests of {has_cost} nano-USD, and it was given \
                 {requests} of {cost}: rows were removed, added or changed"
            );
            result.find(DATABASE, None, what);
        }
    }
    Ok(())
}

/// How far the chains of each replica are known.
fn chains(reader: &mut SharedReader, agrees: bool, result: &mut Verification) -> Result<(), LedgerError> {
    let sql = "SELECT r.name, count(s.name), coalesce(max(s.name), ''),
            coalesce((array_agg(s.entries ORDER BY s.name DESC))[1], 0),
            coalesce((SELECT sum(v.records) FROM tollgate.vouched v WHERE v.replica = r.id), 0)::bigint
        FROM tollgate.replicas r LEFT JOIN tollgate.segments s ON s.replica = r.id AND s.head IS NOT NULL
        GROUP BY r.id, r.name ORDER BY r.id";
    for row in reader.query(sql, &[])? {
        let (name, segments, last): (&str, i64, &str) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let (entries, records): (i64, i64) = (row.try_get(3)?, row.try_get(4)?);
        let mut note = format!("{DATABASE} vouches for {records} records of replica {name}");
        if segments > 0 {
            let _ = write!(
                note,
                " and the chains of {segments} segments, the last up to entry {entries} of {last}"
            );
        }
        if agrees {
            note.push_str(": what it has agrees in number and sum");
        }
        result.notes.push(note);
    }
    Ok(())
}

/// Looks each record up that the journal at hand has and the database took in.
fn each_record(
    reader: &mut SharedReader,
    data_dir: &Path,
    known: &Known,
    result: &mut Verification,
) -> Result<(), LedgerError> {
    let mut names: Vec<_> = known.iter().collect();
    names.sort_unstable();
    for (name, until) in names {
        let mut from: SegmentOffset = (0, 0);
        let (mut named, mut more) = (Vec::new(), 0);
        while from.0 < until.0 && segment::written(data_dir, name)?.is_some() {
            let Some(part) = SegmentPart::read(data_dir, name, from, *until)? else { break };
            for id in absent(reader, &part)? {
                if named.len() < NAMED { named.push(id) } else { more += 1 }
            }
            from = part.end;
        }
        for id in named {
            let what = format!("{DATABASE} took in its record {id}, and has no such row any more");
            result.find(format!("journal/{name}"), None, what);
        }
        if more > 0 {
            result.find(format!("journal/{name}"), None, format!("and {more} more of its records"));
        }
    }
    Ok(())
}

/// Those of its records that have no row of the same time and cost, of months that are kept.
fn absent(reader: &mut SharedReader, part: &SegmentPart) -> Result<Vec<String>, LedgerError> {
    let ids: Vec<String> = part.records.iter().map(|record| record.id.to_string()).collect();
    let at: Vec<i64> = part.records.iter().map(|record| record.at).collect();
    let cost: Vec<i64> = part.records.iter().map(|record| record.cost).collect();
    let sql = "SELECT t.id FROM (
            SELECT id, timestamptz 'epoch' + micros * interval '1 microsecond' AS at, cost
            FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS u (id, micros, cost)
        ) t LEFT JOIN tollgate.records r ON r.id = t.id::uuid AND r.at = t.at
        WHERE t.at >= (SELECT records_from FROM tollgate.layout)
            AND (r.id IS NULL OR coalesce((r.record->>'cost')::numeric, 0) <> t.cost) ORDER BY t.at, t.id";
    let rows = reader.query(sql, &[&ids, &at, &cost])?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
