//! What a stretch adds up to, as the stores have it: by the minute, by the hour, and by the day in UTC.

use std::collections::BTreeMap;

use super::rollup::{Rollup, RollupKey, RollupSums};

/// How long a row of sums is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeUnit {
    pub(crate) minutes: i64,
    /// What the names of its tables end with.
    pub(crate) suffix: &'static str,
    /// The name of their column of time: how many have passed since the epoch.
    pub(crate) column: &'static str,
}

const MINUTE: TimeUnit = TimeUnit { minutes: 1, suffix: "", column: "minute" };
const HOUR: TimeUnit = TimeUnit { minutes: 60, suffix: "_by_hour", column: "hour" };
const DAY: TimeUnit = TimeUnit { minutes: 24 * 60, suffix: "_by_day", column: "day" };

impl TimeUnit {
    /// The longest first. Each is a multiple of the next.
    pub(crate) const ALL: [Self; 3] = [DAY, HOUR, MINUTE];

    /// The stretches that a period is read in: of the longest unit that lies in it as much as there is, and what is around it in shorter
    /// ones. Each from its first minute to the first behind; the units are the last ones of [`Self::ALL`].
    pub(crate) fn stretches(units: &[Self], (since, until): (i64, i64)) -> Vec<(Self, (i64, i64))> {
        let Some((unit, shorter)) = units.split_first().filter(|_| since < until) else { return Vec::new() };
        let first =
            since.saturating_add(unit.minutes - 1).div_euclid(unit.minutes).saturating_mul(unit.minutes);
        let last = until.div_euclid(unit.minutes).saturating_mul(unit.minutes);
        if first >= last {
            return Self::stretches(shorter, (since, until));
        }
        let mut all = Self::stretches(shorter, (since, first));
        all.push((*unit, (first, last)));
        all.extend(Self::stretches(shorter, (last, until)));
        all
    }
}

/// What a row of sums is for: how many of its unit since the epoch, row of dimensions, status.
pub(crate) type SumKey = (i64, i64, i64);

/// The rows that a stretch adds to, by the unit of their time.
#[derive(Debug, Default)]
pub(crate) struct TimedSums([BTreeMap<SumKey, RollupSums>; TimeUnit::ALL.len()]);

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
            let (dimensions, status) = (id(RollupKey::texts_of(encoded), &key)?, i64::from(key.status));
            for (unit, rows) in TimeUnit::ALL.iter().zip(&mut timed.0) {
                rows.entry((key.minute.div_euclid(unit.minutes), dimensions, status)).or_default().add(sums);
            }
        }
        Ok(timed)
    }

    /// Each with its tables.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (TimeUnit, &BTreeMap<SumKey, RollupSums>)> {
        TimeUnit::ALL.into_iter().zip(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_period_is_read_in_the_longest_units_that_lie_in_it() {
        let read = |units: &[TimeUnit], period| -> Vec<_> {
            let stretches = TimeUnit::stretches(units, period);
            stretches.into_iter().map(|(unit, (since, until))| (unit.column, since, until)).collect()
        };
        let [_, hours @ ..] = &TimeUnit::ALL;
        let all = [
            ("minute", 59, 60),
            ("hour", 60, 1440),
            ("day", 1440, 4320),
            ("hour", 4320, 4380),
            ("minute", 4380, 4381),
        ];
        assert_eq!(read(&TimeUnit::ALL, (59, 4381)), all);
        assert_eq!(read(hours, (1440, 2880)), [("hour", 1440, 2880)]);
        assert_eq!(read(hours, (61, 119)), [("minute", 61, 119)]);
        assert_eq!(read(&TimeUnit::ALL, (7, 7)), []);
    }

    proptest! {
        #[test]
        fn every_minute_of_a_period_is_read_once(since in -5_000_i64..5_000, length in 0_i64..10_000, skipped in 0..3_usize) {
            let mut next = since;
            for (unit, (from, until)) in TimeUnit::stretches(&TimeUnit::ALL[skipped..], (since, since + length)) {
                prop_assert_eq!(from, next);
                prop_assert!(from < until && from % unit.minutes == 0 && until % unit.minutes == 0);
                next = until;
            }
            prop_assert_eq!(next, since + length);
        }
    }
}
