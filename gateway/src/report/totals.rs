//! What the lines of a report add up.

use tollgate_policy::price::Item;

/// Sums of one line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReportTotals {
    /// All requests, those that were refused included.
    pub requests: i128,
    /// Requests that Tollgate let through and that were answered, other than with an error.
    pub calls: i128,
    /// Requests that it let through and that came to nothing: the provider answered with an error (a status of 400 or more), or not
    /// at all.
    pub failed: i128,
    /// Requests that it refused.
    pub refused: i128,
    /// What was used, by unit.
    pub usage: UnitAmounts,
    /// Body bytes from callers.
    pub bytes_in: i128,
    /// Body bytes to callers.
    pub bytes_out: i128,
    /// Nano-USD.
    pub cost: i128,
    /// Calls whose usage the provider did not report: estimated, or presumed after a crash.
    pub estimated: i128,
    /// Nano-USD of `cost` that those calls make up.
    pub estimated_cost: i128,
    /// Calls that cost something and have no price: they are not in `cost`.
    pub unpriced: i128,
    /// Corrections of earlier calls that are in the other sums.
    pub adjustments: i128,
}

impl ReportTotals {
    /// Requests that Tollgate let through.
    pub const fn sent(&self) -> i128 {
        self.calls.saturating_add(self.failed)
    }

    /// Adds another line's sums.
    pub fn add(&mut self, other: &Self) {
        let mut other = *other;
        for ((_, sum), (_, part)) in self.counts().into_iter().zip(other.counts()) {
            *sum = sum.saturating_add(*part);
        }
        for unit in Item::ALL {
            self.usage.add(*unit, other.usage.get(*unit));
        }
    }

    /// Name and value of each, in the order of CSV and JSON. The two amounts of money are in nano-USD.
    pub fn columns(&self) -> Vec<(&'static str, i128)> {
        let mut copy = *self;
        let counts = copy.counts().map(|(name, value)| (name, *value));
        let (before, after) = counts.split_at(BEFORE_USAGE);
        [before, &self.usage.columns(), after].concat()
    }

    /// Name and value of each but the usage.
    fn counts(&mut self) -> [(&'static str, &mut i128); 11] {
        [
            ("requests", &mut self.requests),
            ("calls", &mut self.calls),
            ("failed", &mut self.failed),
            ("refused", &mut self.refused),
            ("bytes_in", &mut self.bytes_in),
            ("bytes_out", &mut self.bytes_out),
            ("cost", &mut self.cost),
            ("estimated", &mut self.estimated),
            ("estimated_cost", &mut self.estimated_cost),
            ("unpriced", &mut self.unpriced),
            ("adjustments", &mut self.adjustments),
        ]
    }
}

/// Counts that stand before the usage.
const BEFORE_USAGE: usize = 4;

/// An amount of each unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnitAmounts([i128; Item::ALL.len()]);

impl UnitAmounts {
    /// How much of this unit.
    pub const fn get(&self, unit: Item) -> i128 {
        self.0[unit as usize]
    }

    /// Adds so much of this unit.
    pub const fn add(&mut self, unit: Item, amount: i128) {
        self.0[unit as usize] = self.0[unit as usize].saturating_add(amount);
    }

    /// Name and sum of each column: one for each unit, but for those that are shown together.
    pub fn columns(&self) -> Vec<(&'static str, i128)> {
        let mut columns: Vec<(&'static str, i128)> = Vec::new();
        for unit in Item::ALL {
            let Some(name) = column(*unit) else { continue };
            let amount = self.get(*unit);
            match columns.iter_mut().find(|(column, _)| *column == name) {
                Some((_, sum)) => *sum = sum.saturating_add(amount),
                None => columns.push((name, amount)),
            }
        }
        columns
    }
}

/// The column that a unit is shown in.
const fn column(unit: Item) -> Option<&'static str> {
    match unit {
        Item::CacheRead | Item::CacheReadAudio | Item::CacheReadImage => Some("cache_read"),
        Item::CacheWrite5m | Item::CacheWrite1h => Some("cache_write"),
        Item::AudioIn | Item::AudioOut | Item::ImageIn | Item::ImageOut => Some("media"),
        Item::WebSearches | Item::PreviewSearches | Item::FileSearches => Some("searches"),
        Item::CodeSessions => Some("sessions"),
        // Calls and their bytes have columns of their own, whether they are billed or not.
        Item::Requests | Item::BytesIn | Item::BytesOut => None,
        unit => Some(unit.as_str()),
    }
}
