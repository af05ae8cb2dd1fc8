//! What each replica was charged of each limit, so that those who share a limit know it of a replica that is gone.
//!
//! **Invariant:** charges go in with the records that they are of, in one transaction. A part of a window is never counted in a later part.

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::{SignedDuration, Timestamp};
use tokio_postgres::{Client, Row, Transaction};
use tollgate_policy::limit::{LimitId, Per};

use super::schema::{self, MOST};
use super::session::{DatabaseSession, PostgresServer};
use crate::ledger::charged::ChargedWindow;
use crate::ledger::record::Charge;
use crate::ledger::rollup::{ChargeKey, Rollup};
use crate::ledger::sqlite::window_of;
use crate::ledger::{LONGEST_WINDOW, LedgerError};

/// Charges of days, weeks and months are added up by this many milliseconds, which divides what timezones differ by.
const QUARTER: i64 = 15 * 60_000;
/// So many counts of replicas are read at once, at most.
const MOST_READ: i64 = 500_000;

/// What the ledger has of one replica, in windows that are not over.
#[derive(Debug)]
pub(crate) struct ChargedReplica {
    row: i64,
    /// That of its data directory.
    pub(crate) id: String,
    /// The last process that had shares of limits, as far as the database was told; 0: none.
    pub(crate) process: u64,
    /// Somebody has said that it is gone for good.
    pub(crate) is_forgotten: bool,
    pub(crate) charges: Vec<Charge>,
}

/// Reads them.
pub(crate) struct ChargeReader(DatabaseSession);

impl ChargeReader {
    /// Connects, and makes the tables where there are none.
    pub(crate) fn open(server: &PostgresServer) -> Result<Self, LedgerError> {
        let mut session = DatabaseSession::open(server)?;
        session.run(schema::ensure)?;
        Ok(Self(session))
    }

    /// What was charged to replicas other than `own`. Limits that are not in `windows` count for as long as their ids say.
    pub(crate) fn others(
        &mut self,
        own: &str,
        windows: &[ChargedWindow],
    ) -> Result<Vec<ChargedReplica>, LedgerError> {
        let sql = "SELECT r.id FROM tollgate.replicas r WHERE r.uuid <> $1::text::uuid";
        let own = own.to_owned();
        let others: Vec<i64> = self.0.run(async |client: &mut Client| {
            client.query(sql, &[&own]).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
        })?;
        let mut replicas = self.read(&others, windows)?;
        replicas.retain(|replica| !replica.charges.is_empty());
        Ok(replicas)
    }

    /// What was charged to those whose shares may be given back: they have ended in order, with nothing waiting, or are gone for good.
    pub(crate) fn ended(&mut self, windows: &[ChargedWindow]) -> Result<Vec<ChargedReplica>, LedgerError> {
        let sql = "SELECT id FROM tollgate.replicas
                   WHERE process > settled AND ((ended AND waiting = 0) OR forgotten_at IS NOT NULL)";
        let ended: Vec<i64> = self.0.run(async |client: &mut Client| {
            client.query(sql, &[]).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
        })?;
        // One that is not read whole would give back what it has spent.
        let mut replicas = Vec::new();
        for replica in ended {
            let read = self.read(&[replica], windows)?;
            replicas.extend(read.into_iter().filter(|replica| (replica.charges.len() as i64) < MOST_READ));
        }
        Ok(replicas)
    }

    /// Notes that the shares of this replica were given back.
    pub(crate) fn settled(&mut self, replica: &ChargedReplica) -> Result<(), LedgerError> {
        let sql = "UPDATE tollgate.replicas SET settled = greatest(settled, $2) WHERE id = $1";
        let process = i64::try_from(replica.process).unwrap_or(i64::MAX);
        self.0.run(async |client: &mut Client| {
            client.execute(sql, &[&replica.row, &process]).await?;
            Ok(())
        })
    }

    fn read(&mut self, rows: &[i64], windows: &[ChargedWindow]) -> Result<Vec<ChargedReplica>, LedgerError> {
        let now = Timestamp::now().as_millisecond();
        let limits: Vec<&str> = windows.iter().map(|window| &*window.limit).collect();
        let since: Vec<i64> =
            windows.iter().map(|window| rounded(&window.limit, window.since.as_millisecond())).collect();
        let who = "SELECT id, replace(uuid::text, '-', ''), process, forgotten_at IS NOT NULL FROM tollgate.replicas WHERE id = ANY($1)";
        let what = format!(
            "SELECT c.replica, c.limit_id, c.key, least(sum(c.amount), {MOST})::bigint AS amount
             FROM tollgate.charges c
             LEFT JOIN unnest($2::text[], $3::bigint[]) AS w (limit_id, since) ON w.limit_id = c.limit_id
             WHERE c.replica = ANY($1) AND c.opened >= coalesce(w.since, {})
             GROUP BY c.replica, c.limit_id, c.key HAVING sum(c.amount) > 0 ORDER BY amount DESC LIMIT {MOST_READ}",
            oldest("c.limit_id", now)
        );
        let mut replicas: BTreeMap<i64, ChargedReplica> = BTreeMap::new();
        let charges = self.0.run(async |client: &mut Client| {
            let transaction =
                client.build_transaction().isolation_level(tokio_postgres::IsolationLevel::RepeatableRead);
            let transaction = transaction.read_only(true).start().await?;
            for row in transaction.query(who, &[&rows]).await? {
                let replica = replica(&row)?;
                replicas.insert(replica.row, replica);
            }
            let charges = transaction.query(&what, &[&rows, &limits, &since]).await?;
            transaction.commit().await?;
            Ok(charges)
        })?;
        if i64::try_from(charges.len()).unwrap_or(i64::MAX) >= MOST_READ {
            tracing::warn!(
                counts = MOST_READ,
                "the ledger's database has charges of more counts than are read: the smallest are left out"
            );
        }
        for row in charges {
            let (limit, key): (&str, &str) = (row.try_get(1)?, row.try_get(2)?);
            let amount = u64::try_from(row.try_get::<_, i64>(3)?).unwrap_or_default();
            if let Some(replica) = replicas.get_mut(&row.try_get(0)?) {
                replica.charges.push(Charge { limit: limit.into(), key: key.into(), amount });
            }
        }
        Ok(replicas.into_values().collect())
    }
}

fn replica(row: &Row) -> Result<ChargedReplica, LedgerError> {
    Ok(ChargedReplica {
        row: row.try_get(0)?,
        id: row.try_get(1)?,
        process: u64::try_from(row.try_get::<_, i64>(2)?).unwrap_or_default(),
        is_forgotten: row.try_get(3)?,
        charges: Vec::new(),
    })
}

/// Adds what a stretch was charged.
pub(super) async fn add(
    transaction: &Transaction<'_>,
    replica: i64,
    rollup: &Rollup,
) -> Result<(), LedgerError> {
    let mut sums: BTreeMap<(&str, String, i64), i64> = BTreeMap::new();
    for (encoded, amount) in &rollup.charges {
        let Some(charge) = ChargeKey::decode(encoded) else { continue };
        // PostgreSQL has no text with a zero byte.
        let key = charge.key.replace('\0', "\u{fffd}");
        let sum = sums.entry((charge.limit, key, rounded(charge.limit, charge.opened))).or_default();
        *sum = sum.saturating_add(*amount).clamp(-MOST, MOST);
    }
    if sums.is_empty() {
        return Ok(());
    }
    let limits: Vec<&str> = sums.keys().map(|(limit, ..)| *limit).collect();
    let keys: Vec<&str> = sums.keys().map(|(_, key, _)| key.as_str()).collect();
    let opened: Vec<i64> = sums.keys().map(|(.., opened)| *opened).collect();
    let amounts: Vec<i64> = sums.values().copied().collect();
    let sql = format!(
        "INSERT INTO tollgate.charges AS c (replica, limit_id, key, opened, amount)
         SELECT $1::bigint, t.* FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[]) AS t
         ON CONFLICT (replica, limit_id, key, opened)
         DO UPDATE SET amount = greatest(-{MOST}, least(c.amount + excluded.amount, {MOST}))"
    );
    transaction.execute(&sql, &[&replica, &limits, &keys, &opened, &amounts]).await?;
    Ok(())
}

/// Removes what is in no window any more.
pub(super) async fn prune(client: &Client, now: Timestamp) -> Result<(), LedgerError> {
    let oldest = oldest("limit_id", now.as_millisecond());
    client.execute(&format!("DELETE FROM tollgate.charges WHERE opened < {oldest}"), &[]).await?;
    Ok(())
}

/// The moment, or the part of a window that has it.
fn rounded(limit: &str, opened: i64) -> i64 {
    let part = match LimitId::read(limit).and_then(|id| id.per) {
        Some(Per::Day | Per::Week | Per::Month) => QUARTER,
        Some(Per::Hour) => 60_000,
        Some(Per::Minute) => 1_000,
        Some(Per::Second) | None => 1,
    };
    opened - opened.rem_euclid(part)
}

/// The SQL of when the oldest charge was taken that may be in a window of the limit in this column, in Unix milliseconds.
fn oldest(column: &str, now: i64) -> String {
    let before = |length: SignedDuration| {
        now.saturating_sub(i64::try_from(length.as_millis()).unwrap_or(i64::MAX)).saturating_sub(QUARTER)
    };
    let mut sql = "CASE".to_owned();
    for per in Per::ALL.into_iter().filter(|per| *per != Per::Month) {
        let length = before(window_of(&format!("limit/{per}/key")));
        let _ = write!(sql, " WHEN {column} ~ '/{per}/[^/]+$' THEN {length}");
    }
    let _ = write!(sql, " ELSE {} END", before(LONGEST_WINDOW));
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_are_added_up_by_parts_that_no_window_begins_within() {
        for (per, part) in [
            ("second", 1),
            ("minute", 1_000),
            ("hour", 60_000),
            ("day", QUARTER),
            ("week", QUARTER),
            ("month", QUARTER),
        ] {
            let limit = format!("budget/team/tokens/{per}/shared");
            assert_eq!(rounded(&limit, 10 * QUARTER + part - 1), 10 * QUARTER, "{per}");
            assert_eq!(rounded(&limit, 10 * QUARTER + part), 10 * QUARTER + part, "{per}");
        }
        assert_eq!(rounded("nothing", 7), 7);
    }

    #[test]
    fn what_is_removed_is_in_no_window() {
        let sql = oldest("limit_id", 40 * 86_400_000);
        for per in Per::ALL {
            let length = window_of(&format!("limit/{per}/key"));
            assert!(length.unsigned_abs() > per.length(), "{per}");
            let until = 40 * 86_400_000 - i64::try_from(length.as_millis()).unwrap() - QUARTER;
            assert!(sql.contains(&format!(" {until}")), "{sql}");
        }
    }
}
