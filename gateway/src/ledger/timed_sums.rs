//! What a stretch adds up to, as the stores have it: by the minute, and by the hour.

use std::collections::BTreeMap;

use super::rollup::{Rollup, RollupKey, RollupSums};

/// What the names of tables end with, and the name of their column of time.
pub(crate) type TimeUnit = (&'static str, &'static str);
pub(crate) const MINUTES: TimeUnit = ("", "minute");
pub(crate) const HOURS: TimeUnit = ("_by_hour", "hour");

/// What a row of sums is for: minute or hour, row of dimensions, status.
pub(crate) type SumKey = (i64, i64, i64);

/// The rows that a stretch adds to.
#[derive(Debug, Default)]
pub(crate) struct TimedSums {
    pub(crate) minutes: BTreeMap<SumKey, RollupSums>,
    pub(crate) hours: BTreeMap<SumKey, RollupSums>,
}

impl TimedSums {
    /// `id` names the row of a combination of dimensions, by its encoded texts.
    ///
    /// # Errors
    /// Those of `id`.
    pub(crate) fn of<E>(
        rollup: &Rollup,
        mut id: impl FnMut(&[u8], &RollupKey<'_>) -> Result<i64, E>,
    ) -> Result<Self, E> {
        let mut timed = Self::default();
        for (encoded, sums) in &rollup.sums {
            let Some(key) = RollupKey::decode(encoded) else { continue };
            let dimensions = id(RollupKey::texts_of(encoded), &key)?;
            let status = i64::from(key.status);
            timed.minutes.entry((key.minute, dimensions, status)).or_default().add(sums);
            timed.hours.entry((key.minute.div_euclid(60), dimensions, status)).or_default().add(sums);
        }
        Ok(timed)
    }

    /// Each with its tables.
    pub(crate) fn tables(&self) -> [(TimeUnit, &BTreeMap<SumKey, RollupSums>); 2] {
        [(MINUTES, &self.minutes), (HOURS, &self.hours)]
    }
}
