//! Who was charged what of a limit in its window, as the records of single calls have it.
//!
//! Lacks on purpose: sums of its own. It is asked for seldom, and reads the records of the window.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::dimension::Dimension;
use super::entry::JournalEntry;
use super::segment::{self, Known};
use super::{LedgerError, offline};

/// How long before its hold the head of a call may have been read, at most.
pub(super) const BEFORE_HOLD: SignedDuration = SignedDuration::from_hours(24);

/// A limit, and since when charges count there.
#[derive(Debug, Clone)]
pub(crate) struct ChargedWindow {
    /// The limit's id.
    pub(crate) limit: Arc<str>,
    /// When its window began.
    pub(crate) since: Timestamp,
}

/// What one limit was charged for one key by the calls that have a text in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChargedKey {
    pub(crate) limit: Arc<str>,
    pub(crate) key: Arc<str>,
    /// What the calls have of the dimension that was asked for.
    pub(crate) text: Arc<str>,
}

/// How much, and by how many calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ChargedSum {
    pub(crate) amount: i64,
    pub(crate) calls: i64,
}

/// Sums by whom.
pub(crate) type ChargedSums = BTreeMap<ChargedKey, ChargedSum>;

impl ChargedSum {
    pub(crate) const fn add(&mut self, other: Self) {
        self.amount = self.amount.saturating_add(other.amount);
        self.calls = self.calls.saturating_add(other.calls);
    }
}

/// Of the journal in a data directory: what one replica has recorded. Corrections count where their calls do.
pub(crate) fn charged(
    data_dir: &Path,
    windows: &[ChargedWindow],
    dimension: Dimension,
) -> Result<ChargedSums, LedgerError> {
    if !segment::directory(data_dir).is_dir() {
        return Err(LedgerError::Missing(data_dir.to_owned()));
    }
    let since = windows.iter().map(|window| window.since).min().unwrap_or(Timestamp::MAX);
    let mut sums = ChargedSums::new();
    offline::entries(data_dir, &mut Known::new(), since, |entry| {
        let Ok(JournalEntry::Record(row)) = JournalEntry::read(entry) else { return };
        let opened = row.held_at.unwrap_or(row.at);
        for charge in &row.charges {
            let counts = |window: &&ChargedWindow| window.limit == charge.limit && opened >= window.since;
            let Some(window) = windows.iter().find(counts) else { continue };
            let key = ChargedKey {
                limit: Arc::clone(&window.limit),
                key: Arc::clone(&charge.key),
                text: row.texts()[dimension as usize].into(),
            };
            let calls = i64::from(row.corrects.is_none());
            sums.entry(key).or_default().add(ChargedSum { amount: charge.amount.0, calls });
        }
    })?;
    Ok(sums)
}
