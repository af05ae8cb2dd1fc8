//! The question that reports ask of a store.

use super::dimension::{Dimension, Texts};
use super::rollup::RollupSums;
use super::timed_sums::TimeUnit;

/// From this status on an answer is an error.
pub(crate) const ERROR: u16 = 400;
/// Hours, days and months of every timezone in use begin at multiples of this many minutes since the epoch.
pub(crate) const QUARTER: i64 = 15;

/// What rows are told apart by, and which minutes count. Rows that nothing tells apart may come as several, which add up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grouping {
    /// By the quarter of an hour, else not by time.
    pub(crate) by_time: bool,
    /// Which texts tell rows apart: the others are any of those that were there.
    pub(crate) by_texts: [bool; Dimension::ALL.len()],
    /// By status, else only by whether that is an error.
    pub(crate) by_status: bool,
    /// Of these units every border of time that counts is one; the last of [`TimeUnit::ALL`].
    pub(crate) units: &'static [TimeUnit],
    /// The first minute since the epoch.
    pub(crate) since: i64,
    /// The first minute behind.
    pub(crate) until: i64,
}

impl Grouping {
    /// What is read of which tables: the unit, the first of them since the epoch, and the first behind.
    pub(super) fn stretches(&self) -> impl Iterator<Item = (TimeUnit, i64, i64)> {
        let stretches = TimeUnit::stretches(self.units, (self.since, self.until));
        stretches.into_iter().map(|(unit, (since, until))| (unit, since / unit.minutes, until / unit.minutes))
    }

    /// The texts that tell rows apart.
    pub(super) fn texts(&self) -> impl Iterator<Item = Dimension> {
        Dimension::ALL.into_iter().filter(|dimension| self.by_texts[*dimension as usize])
    }
}

/// Which sums are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Summed {
    /// [`RollupSums::COLUMNS`].
    Counts,
    /// A unit and its amount.
    Usage,
}

impl Summed {
    pub(super) const fn table(self) -> &'static str {
        match self {
            Self::Counts => "sums",
            Self::Usage => "usage",
        }
    }

    pub(super) const fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Counts => &RollupSums::COLUMNS,
            Self::Usage => &["amount"],
        }
    }

    /// The column of the unit, behind a comma.
    pub(super) const fn unit(self) -> &'static str {
        match self {
            Self::Counts => "",
            Self::Usage => ", unit",
        }
    }
}

/// A row of an answer.
#[derive(Debug)]
pub(crate) struct GroupRow<'a> {
    /// Quarters of an hour since the epoch; 0 where rows are not told apart by time.
    pub(crate) quarter: i64,
    /// The status, or [`ERROR`] where it is an error and else 0.
    pub(crate) status: i64,
    pub(crate) texts: Texts<'a>,
    /// The unit, where usage was asked for.
    pub(crate) unit: &'a str,
    /// The sums of [`RollupSums::COLUMNS`], or the amount of the unit and nothing more.
    pub(crate) sums: [i64; RollupSums::COLUMNS.len()],
}
