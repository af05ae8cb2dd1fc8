//! What one count of one limit has spent and holds, slice by slice.
//!
//! **Invariant:** the totals are the sums over the slices kept; a slice is dropped only once it lies outside the window, and a
//! settlement finds its slice by a serial number that is never used twice.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use super::window::Period;
use super::{Per, Window};

/// How long a caller should wait for others' holds to settle: nobody can know, and a call seldom takes less.
const HELD_RETRY: Duration = Duration::from_secs(1);
/// How many windows that are over are remembered: as many of the shortest as clocks may differ by.
const LEFT: usize = 8;

/// The spent and held amounts of one (limit, key), in the limit's unit.
#[derive(Debug, Default)]
pub struct Counter {
    /// In the order of their ends.
    slots: VecDeque<SlotCount>,
    spent: u128,
    held: u128,
    opened: u64,
    /// The ends of calendar windows that are over, and what each had used: those that others may still be in.
    left: Vec<(i64, u64)>,
    /// The calendar period last worked out, with its unit and timezone: it is asked for far more often than it ends.
    calendar: Option<(Per, Box<str>, Period)>,
}

#[derive(Debug)]
struct SlotCount {
    slice: WindowSlot,
    start: i64,
    end: i64,
    spent: u64,
    held: u64,
}

/// Where a reservation was counted; [`Counter::settle`] and [`Counter::release`] want it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSlot(u64);

/// What a window has used at an instant, in the limit's unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Settled.
    pub spent: u64,
    /// Reserved by calls under way.
    pub held: u64,
}

/// Why an amount could not be reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It would fit but for what others hold.
    Held {
        /// A guess: holds are freed when their calls end.
        retry_after: Duration,
    },
    /// It does not fit beside what is spent.
    Exhausted {
        /// When enough of what is spent will have left the window.
        resets_in: Duration,
    },
    /// It is above the cap by itself and fits at no time.
    TooLarge,
}

impl Counter {
    /// A count that starts at nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Holds `amount` in the slice of `now`, if it fits under `cap` beside all that is spent and held.
    pub fn reserve(
        &mut self,
        window: &Window,
        cap: u64,
        amount: u64,
        now: Timestamp,
    ) -> Result<WindowSlot, Refused> {
        let period = self.advance(window, now);
        self.fits(&period, cap, amount, now)?;
        let slot = self.slot(&period);
        slot.held = slot.held.saturating_add(amount);
        let slice = slot.slice;
        self.held += u128::from(amount);
        Ok(slice)
    }

    /// Holds `amount` in the slice of `now`, whatever is left.
    pub fn reserve_past(&mut self, window: &Window, amount: u64, now: Timestamp) -> WindowSlot {
        let period = self.advance(window, now);
        let slot = self.slot(&period);
        // What a slice has no room for is not held, so that the totals stay its sums.
        let before = slot.held;
        slot.held = before.saturating_add(amount);
        let (slice, added) = (slot.slice, slot.held - before);
        self.held += u128::from(added);
        slice
    }

    /// Holds `amount` more in a slice that [`Counter::reserve`] gave, if it fits under `cap` beside all that is spent and held at `now`. One
    /// that has left the window takes nothing more.
    pub fn extend(
        &mut self,
        slice: WindowSlot,
        (window, cap): (&Window, u64),
        amount: u64,
        now: Timestamp,
    ) -> Result<(), Refused> {
        let period = self.advance(window, now);
        self.fits(&period, cap, amount, now)?;
        let gone = Refused::Exhausted { resets_in: Duration::ZERO };
        let slot = self.slots.iter_mut().rfind(|slot| slot.slice == slice).ok_or(gone)?;
        slot.held = slot.held.saturating_add(amount);
        self.held += u128::from(amount);
        Ok(())
    }

    /// Why [`Counter::reserve`] would refuse; nothing is held.
    pub fn refusal(&mut self, window: &Window, cap: u64, amount: u64, now: Timestamp) -> Option<Refused> {
        let period = self.advance(window, now);
        self.fits(&period, cap, amount, now).err()
    }

    fn fits(&self, period: &Period, cap: u64, amount: u64, now: Timestamp) -> Result<(), Refused> {
        if amount > cap {
            return Err(Refused::TooLarge);
        }
        let (cap, wanted) = (u128::from(cap), u128::from(amount));
        if self.spent + wanted > cap {
            return Err(Refused::Exhausted { resets_in: self.frees_in(cap - wanted, period, now) });
        }
        if self.spent + self.held + wanted > cap {
            return Err(Refused::Held { retry_after: HELD_RETRY });
        }
        Ok(())
    }

    /// Turns a hold into what was really used, and returns how far that went beyond the hold. More than was held is booked all the
    /// same; once the slice has left the window nothing changes.
    pub fn settle(&mut self, slice: WindowSlot, held: u64, actual: u64) -> u64 {
        if let Some(slot) = self.slots.iter_mut().rfind(|slot| slot.slice == slice) {
            let freed = held.min(slot.held);
            slot.held -= freed;
            self.held -= u128::from(freed);
            self.spent += slot.spend(actual);
        }
        actual.saturating_sub(held)
    }

    /// Gives a hold back whole.
    pub fn release(&mut self, slice: WindowSlot, held: u64) {
        self.settle(slice, held, 0);
    }

    /// Books what was settled before a restart, in the slice where its hold had opened.
    pub fn restore(&mut self, window: &Window, opened: Timestamp, spent: u64) {
        let period = self.period(window, opened);
        let booked = self.slot(&period).spend(spent);
        self.spent += booked;
    }

    /// What counts at `now`; what has left the window is forgotten for good, also for a clock that goes back.
    pub fn usage(&mut self, window: &Window, now: Timestamp) -> Usage {
        self.advance(window, now);
        Usage { spent: saturated(self.spent), held: saturated(self.held) }
    }

    /// When the window has more to give than at `now`: the end of a calendar window; the time at which the oldest usage leaves a
    /// rolling one, or its whole length while there is none.
    pub fn resets_in(&mut self, window: &Window, now: Timestamp) -> Duration {
        let period = self.advance(window, now);
        let oldest = self.slots.iter().find(|slot| slot.spent > 0 || slot.held > 0);
        match (window, oldest) {
            (Window::Rolling { .. }, None) => window.length(now),
            (Window::Rolling { .. }, Some(slot)) => until(period.drops(slot.end), now),
            (Window::Calendar { .. }, _) => until(period.end, now),
        }
    }

    fn advance(&mut self, window: &Window, now: Timestamp) -> Period {
        let period = self.period(window, now);
        while let Some(gone) = self.slots.front().filter(|slot| slot.end <= period.since) {
            self.spent -= u128::from(gone.spent);
            self.held -= u128::from(gone.held);
            if period.is_calendar() {
                self.left.truncate(LEFT - 1);
                self.left.insert(0, (gone.end, gone.spent.saturating_add(gone.held)));
            }
            self.slots.pop_front();
        }
        period
    }

    /// The most that was used in a calendar window that ended within this time before `now`.
    pub fn used_before(&mut self, window: &Window, within: Duration, now: Timestamp) -> u64 {
        self.advance(window, now);
        let since =
            now.as_millisecond().saturating_sub(i64::try_from(within.as_millis()).unwrap_or(i64::MAX));
        let lately = self.left.iter().filter(|(end, _)| *end > since);
        lately.map(|(_, used)| *used).max().unwrap_or(0)
    }

    fn period(&mut self, window: &Window, now: Timestamp) -> Period {
        let Window::Calendar { per, timezone } = window else { return window.period(now) };
        let Some(zone) = timezone.iana_name() else { return window.period(now) };
        match &self.calendar {
            Some((of, at, period)) if of == per && **at == *zone && period.contains(now) => *period,
            _ => {
                let period = window.period(now);
                self.calendar = Some((*per, zone.into(), period));
                period
            }
        }
    }

    /// The slot of a period. One that an edited window left behind is kept beside it until it is outside the new window too.
    fn slot(&mut self, period: &Period) -> &mut SlotCount {
        let known = self.slots.iter().rposition(|slot| slot.start == period.start && slot.end == period.end);
        let at = known.unwrap_or_else(|| {
            self.opened += 1;
            let (slice, start, end) = (WindowSlot(self.opened), period.start, period.end);
            let at = self.slots.partition_point(|slot| slot.end <= end);
            self.slots.insert(at, SlotCount { slice, start, end, spent: 0, held: 0 });
            at
        });
        &mut self.slots[at]
    }

    /// How long until at most `room` of what is spent is left.
    fn frees_in(&self, room: u128, period: &Period, now: Timestamp) -> Duration {
        let mut left = self.spent;
        let mut at = period.end;
        for slot in &self.slots {
            if left <= room {
                break;
            }
            left -= u128::from(slot.spent);
            at = period.drops(slot.end);
        }
        until(at, now)
    }
}

impl SlotCount {
    /// Returns by how much `spent` grew: less than `amount` only where a `u64` ends.
    fn spend(&mut self, amount: u64) -> u128 {
        let before = self.spent;
        self.spent = before.saturating_add(amount);
        u128::from(self.spent - before)
    }
}

fn until(end: i64, now: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(end.saturating_sub(now.as_millisecond())).unwrap_or(0))
}

fn saturated(sum: u128) -> u64 {
    u64::try_from(sum).unwrap_or(u64::MAX)
}
