//! Where a window's slices lie, in milliseconds since the epoch.
//!
//! **Invariant:** a period never ends before what it counts has left the window; what the calendar cannot express counts for ever.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Span, Timestamp};

use super::{Per, Window};

/// The slice of an instant, and how far back slices still count at that instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period {
    /// First millisecond of the slice.
    pub(super) start: i64,
    /// First millisecond after the slice.
    pub(super) end: i64,
    /// A slice that ended at or before this is outside the window.
    pub(super) since: i64,
    /// How far a rolling window reaches back; 0 on the calendar.
    reach: i64,
}

impl Period {
    /// Everything there is: nothing ever leaves it.
    const ALL: Self = Self { start: i64::MIN, end: i64::MAX, since: i64::MIN, reach: 0 };

    /// Whether it is the period of this instant too. Nothing is said of one without bounds: the next instant may have them.
    pub(super) fn contains(&self, now: Timestamp) -> bool {
        *self != Self::ALL && (self.start..self.end).contains(&now.as_millisecond())
    }

    /// Whether it begins anew at one moment.
    pub(super) fn is_calendar(&self) -> bool {
        self.reach == 0
    }

    /// When a slice with this end is outside the window.
    pub(super) fn drops(&self, end: i64) -> i64 {
        if self.reach > 0 { end.saturating_add(self.reach) } else { end.max(self.end) }
    }
}

impl Window {
    /// How long the window is at this instant: constant if it rolls; from 23 hours to 31 days and an hour on the calendar.
    pub fn length(&self, now: Timestamp) -> Duration {
        match self {
            Self::Rolling { length, .. } => (*length).try_into().unwrap_or_default(),
            Self::Calendar { .. } => {
                let period = self.period(now);
                Duration::from_millis(period.end.saturating_sub(period.start).unsigned_abs())
            }
        }
    }

    /// How long at most a hold counts, whenever it is taken.
    pub fn longest(&self) -> Duration {
        match self {
            Self::Rolling { length, slices } => {
                let length = Duration::try_from(*length).unwrap_or_default();
                length.saturating_add(length / (*slices).max(1)).saturating_add(Duration::from_millis(2))
            }
            // A day may have 25 hours, and a month 31 days and an hour.
            Self::Calendar { per, .. } => match per {
                Per::Month => Duration::from_secs(31 * 86_400 + 3_600),
                Per::Day | Per::Week => per.length() + Duration::from_secs(3_600),
                Per::Second | Per::Minute | Per::Hour => per.length(),
            },
        }
    }

    /// When the calendar window of `now` began. `None` for a rolling one, which never begins anew.
    pub fn begun(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Rolling { .. } => None,
            Self::Calendar { per, timezone } => {
                Timestamp::from_millisecond(calendar(*per, timezone, now)?.start).ok()
            }
        }
    }

    /// When it begins anew on the calendar; `None`: it rolls, and has no such moment, or the calendar cannot express it.
    pub fn resets(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Rolling { .. } => None,
            Self::Calendar { per, timezone } => {
                Timestamp::from_millisecond(calendar(*per, timezone, now)?.end).ok()
            }
        }
    }

    /// How long at least a hold that is taken at this instant counts: to the end of a calendar window, and for the length of a rolling one.
    pub fn counts_for(&self, now: Timestamp) -> Duration {
        let period = self.period(now);
        let drops = period.drops(period.end);
        Duration::from_millis(u64::try_from(drops.saturating_sub(now.as_millisecond())).unwrap_or(0))
    }

    pub(super) fn period(&self, now: Timestamp) -> Period {
        match self {
            Self::Rolling { length, slices } => rolling(*length, *slices, now.as_millisecond()),
            Self::Calendar { per, timezone } => calendar(*per, timezone, now).unwrap_or(Period::ALL),
        }
    }
}

fn rolling(length: SignedDuration, slices: u32, now: i64) -> Period {
    let up = i128::from(length.subsec_nanos() % 1_000_000 != 0);
    let length = i64::try_from(length.as_millis().saturating_add(up)).unwrap_or(i64::MAX).max(1);
    let slices = i64::from(slices.max(1));
    let width = (length / slices + i64::from(length % slices != 0)).max(1);
    let start = now.div_euclid(width).saturating_mul(width);
    Period { start, end: start.saturating_add(width), since: now.saturating_sub(length), reach: length }
}

/// `None` at the ends of the calendar, where a boundary cannot be expressed.
fn calendar(per: Per, timezone: &TimeZone, now: Timestamp) -> Option<Period> {
    let (start, end) = match per {
        Per::Second | Per::Minute | Per::Hour => within_day(per, timezone, now),
        Per::Day | Per::Week | Per::Month => {
            let today = timezone.to_datetime(now).date();
            let (first, span) = match per {
                Per::Month => (today.first_of_month(), Span::new().months(1)),
                Per::Week => {
                    let since_monday = i64::from(today.weekday().to_monday_zero_offset());
                    (today.checked_sub(Span::new().days(since_monday)).ok()?, Span::new().weeks(1))
                }
                _ => (today, Span::new().days(1)),
            };
            let next = first.checked_add(span).ok()?;
            let (start, end) = (first_instant(first, timezone)?, first_instant(next, timezone)?);
            if now < end {
                (start, end)
            } else {
                // A clock set back over midnight repeats the end of a day that is over: it belongs to the next one.
                (end, first_instant(next.checked_add(span).ok()?, timezone)?)
            }
        }
    };
    let (start, end) = (start.as_millisecond(), end.as_millisecond());
    Some(Period { start, end, since: start, reach: 0 })
}

fn within_day(per: Per, timezone: &TimeZone, now: Timestamp) -> (Timestamp, Timestamp) {
    let width = i64::try_from(per.length().as_secs()).unwrap_or(1);
    let offset = i64::from(timezone.to_offset(now).seconds());
    let start = (now.as_second() + offset).div_euclid(width) * width - offset;
    let instant = |second| Timestamp::from_second(second).unwrap_or(now);
    (instant(start), instant(start + width))
}

/// The first instant of a date; where the clock skips midnight, the instant of the skip.
fn first_instant(date: Date, timezone: &TimeZone) -> Option<Timestamp> {
    let midnight = timezone.to_ambiguous_timestamp(date.at(0, 0, 0, 0));
    if let AmbiguousOffset::Gap { after, .. } = midnight.offset() {
        let before_the_skip = after.to_timestamp(date.at(0, 0, 0, 0)).ok()?;
        if let Some(skip) = timezone.following(before_the_skip).next() {
            return Some(skip.timestamp());
        }
    }
    midnight.compatible().ok()
}
