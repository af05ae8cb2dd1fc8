//! Windows on the wall clock, and holds under every order of calls.

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

mod interleavings;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn calendar(per: Per, timezone: &str) -> Window {
    Window::Calendar { per, timezone: zone(timezone) }
}

/// An instant, e.g. `at("2026-03-29T00:00+01:00")`.
fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn hours(window: &Window, now: &str) -> f64 {
    window.length(at(now)).as_secs_f64() / 3_600.0
}

#[test]
fn a_day_has_23_or_25_hours_where_the_clock_changes() {
    let day = calendar(Per::Day, "Europe/Berlin");
    assert_eq!(hours(&day, "2026-03-28T12:00Z"), 24.0);
    assert_eq!(hours(&day, "2026-03-29T12:00Z"), 23.0);
    assert_eq!(hours(&day, "2026-10-25T12:00Z"), 25.0);
    assert_eq!(hours(&calendar(Per::Month, "Europe/Berlin"), "2026-03-29T12:00Z"), 31.0 * 24.0 - 1.0);
}

#[test]
fn a_day_starts_at_midnight_of_its_own_timezone() {
    let day = calendar(Per::Day, "Europe/Berlin");
    let mut counter = Counter::new();
    let evening = at("2026-07-01T21:59:59Z");
    counter.reserve(&day, 10, 10, evening).unwrap();
    assert_eq!(counter.resets_in(&day, evening), SECOND);
    assert_eq!(counter.usage(&day, at("2026-07-01T21:59:59.999Z")).held, 10);
    assert_eq!(counter.usage(&day, at("2026-07-01T22:00:00Z")).held, 0);
}

#[test]
fn a_day_whose_midnight_the_clock_skips_starts_at_the_skip() {
    // Cairo goes from 24 April 00:00 (+02) to 01:00 (+03).
    let day = calendar(Per::Day, "Africa/Cairo");
    let skip = at("2026-04-23T22:00Z");
    assert_eq!(day.period(skip).start, skip.as_millisecond());
    assert_eq!(day.period(skip - SECOND).end, skip.as_millisecond());
    assert_eq!(hours(&day, "2026-04-24T12:00Z"), 23.0);
    // Samoa had no 30 December 2011 at all.
    let samoa = calendar(Per::Day, "Pacific/Apia");
    assert_eq!(hours(&samoa, "2011-12-30T09:59Z"), 24.0);
    assert_eq!(hours(&samoa, "2011-12-30T10:00Z"), 24.0);
}

#[test]
fn a_week_starts_on_monday_and_a_month_on_its_first() {
    let week = calendar(Per::Week, "UTC").period(at("2026-11-15T23:59:59Z"));
    assert_eq!(week.start, at("2026-11-09T00:00Z").as_millisecond());
    assert_eq!(week.end, at("2026-11-16T00:00Z").as_millisecond());
    let month = calendar(Per::Month, "America/New_York").period(at("2026-12-01T04:59Z"));
    assert_eq!(month.start, at("2026-11-01T04:00Z").as_millisecond());
    assert_eq!(month.end, at("2026-12-01T05:00Z").as_millisecond());
}

#[test]
fn an_hour_follows_the_wall_clock_of_a_half_hour_zone() {
    let hour = calendar(Per::Hour, "Asia/Kolkata").period(at("2026-01-01T10:15Z"));
    assert_eq!(hour.start, at("2026-01-01T09:30Z").as_millisecond());
    assert_eq!(hour.end, at("2026-01-01T10:30Z").as_millisecond());
}

#[test]
fn the_ends_of_time_do_not_panic_and_free_nothing() {
    for window in [calendar(Per::Month, "Asia/Tokyo"), Window::rolling(SignedDuration::MAX)] {
        for now in [Timestamp::MIN, Timestamp::MAX] {
            let mut counter = Counter::new();
            counter.reserve(&window, 5, 5, now).unwrap();
            assert_eq!(counter.usage(&window, now).held, 5);
            assert!(matches!(counter.reserve(&window, 5, 1, now), Err(Refused::Held { .. })));
        }
    }
    let degenerate = Window::Rolling { length: SignedDuration::MIN, slices: 0 };
    Counter::new().reserve(&degenerate, 1, 1, at("2026-01-01T00:00Z")).unwrap();
}

#[test]
fn a_refusal_says_whether_holds_or_spending_are_in_the_way() {
    let (day, now) = (calendar(Per::Day, "UTC"), at("2026-01-01T18:00Z"));
    let mut counter = Counter::new();
    let slice = counter.reserve(&day, 100, 90, now).unwrap();
    assert_eq!(counter.reserve(&day, 100, 11, now), Err(Refused::Held { retry_after: SECOND }));
    assert_eq!(counter.settle(slice, 90, 90), 0);
    assert_eq!(counter.reserve(&day, 100, 11, now), Err(Refused::Exhausted { resets_in: 6 * HOUR }));
    assert_eq!(counter.reserve(&day, 100, 101, now), Err(Refused::TooLarge));
    counter.reserve(&day, 100, 10, now).unwrap();
    assert_eq!(counter.usage(&day, now), Usage { spent: 90, held: 10 });
}

#[test]
fn a_rolling_window_says_when_enough_of_it_is_free_again() {
    let window = Window::Rolling { length: SignedDuration::from_hours(24), slices: 24 };
    let mut counter = Counter::new();
    for hour in [0, 1, 2] {
        let now = at("2026-01-01T00:30Z") + hour * HOUR;
        let slice = counter.reserve(&window, 30, 10, now).unwrap();
        counter.settle(slice, 10, 10);
    }
    let now = at("2026-01-01T12:00Z");
    // The slices end at 01:00, 02:00 and 03:00 and leave a day later.
    assert_eq!(counter.resets_in(&window, now), 13 * HOUR);
    assert_eq!(counter.reserve(&window, 30, 10, now), Err(Refused::Exhausted { resets_in: 13 * HOUR }));
    assert_eq!(counter.reserve(&window, 30, 11, now), Err(Refused::Exhausted { resets_in: 14 * HOUR }));
    assert_eq!(counter.reserve(&window, 30, 30, now), Err(Refused::Exhausted { resets_in: 15 * HOUR }));
    counter.reserve(&window, 30, 11, now + 14 * HOUR).unwrap();
}

#[test]
fn usage_beyond_a_hold_is_booked_and_reported() {
    let (day, now) = (calendar(Per::Day, "UTC"), at("2026-01-01T00:00Z"));
    let mut counter = Counter::new();
    let slice = counter.reserve(&day, 100, 60, now).unwrap();
    assert_eq!(counter.settle(slice, 60, 130), 70);
    assert_eq!(counter.usage(&day, now), Usage { spent: 130, held: 0 });
    assert!(matches!(counter.reserve(&day, 100, 0, now), Err(Refused::Exhausted { .. })));
}

#[test]
fn a_hold_of_a_past_calendar_window_does_not_count_against_the_new_one() {
    let (day, before, after) = (calendar(Per::Day, "UTC"), at("2026-01-01T23:59Z"), at("2026-01-02T00:00Z"));
    let mut counter = Counter::new();
    let old = counter.reserve(&day, 100, 100, before).unwrap();
    let new = counter.reserve(&day, 100, 100, after).unwrap();
    counter.settle(old, 100, 100);
    assert_eq!(counter.usage(&day, after), Usage { spent: 0, held: 100 });
    // The clock goes back, and its day is opened once more: the old hold must not take from the new one.
    counter.release(new, 100);
    counter.reserve(&day, 100, 50, before).unwrap();
    counter.release(old, 100);
    assert_eq!(counter.usage(&day, before), Usage { spent: 0, held: 50 });
}

#[test]
fn a_clock_that_goes_back_frees_nothing() {
    let (now, earlier) = (at("2026-03-15T12:00Z"), at("2026-01-15T12:00Z"));
    for window in [calendar(Per::Day, "UTC"), Window::rolling(SignedDuration::from_hours(24))] {
        let mut counter = Counter::new();
        let slice = counter.reserve(&window, 10, 10, now).unwrap();
        assert_eq!(counter.usage(&window, earlier).held, 10);
        counter.settle(slice, 10, 10);
        assert_eq!(counter.usage(&window, earlier).spent, 10);
        assert!(counter.reserve(&window, 10, 1, earlier).is_err());
    }
}

#[test]
fn an_edited_window_keeps_counting_what_still_overlaps_it() {
    let (berlin, utc) = (calendar(Per::Day, "Europe/Berlin"), calendar(Per::Day, "UTC"));
    let mut counter = Counter::new();
    let now = at("2026-07-01T10:00Z");
    counter.reserve(&berlin, 10, 10, now).unwrap();
    assert_eq!(counter.usage(&utc, now).held, 10);
    assert_eq!(counter.usage(&Window::rolling(SignedDuration::from_hours(24)), now).held, 10);
    // Berlin's day ended at 22:00Z, within the day of UTC.
    assert_eq!(counter.usage(&utc, at("2026-07-01T23:59Z")).held, 10);
    assert_eq!(counter.usage(&utc, at("2026-07-02T00:00Z")).held, 0);
}

#[test]
fn nothing_wraps_at_the_top_of_the_range() {
    let (day, now) = (calendar(Per::Day, "UTC"), at("2026-01-01T00:00Z"));
    let mut counter = Counter::new();
    let slice = counter.reserve(&day, u64::MAX, u64::MAX, now).unwrap();
    counter.restore(&day, now, u64::MAX);
    counter.restore(&day, now, u64::MAX);
    assert_eq!(counter.usage(&day, now), Usage { spent: u64::MAX, held: u64::MAX });
    assert_eq!(counter.settle(slice, u64::MAX, u64::MAX), 0);
    assert_eq!(counter.settle(slice, u64::MAX, u64::MAX), 0);
    assert_eq!(counter.usage(&day, now), Usage { spent: u64::MAX, held: 0 });
    assert!(matches!(counter.reserve(&day, u64::MAX, 1, now), Err(Refused::Exhausted { .. })));
}

proptest! {
    #[test]
    fn calendar_windows_tile_time_and_hold_their_instant(
        second in 946_684_800_i64..2_524_608_000,
        per in prop::sample::select(vec![Per::Second, Per::Minute, Per::Hour, Per::Day, Per::Week, Per::Month]),
        name in prop::sample::select(vec![
            "UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Africa/Cairo", "Asia/Beirut",
            "Asia/Kathmandu", "Pacific/Apia", "America/St_Johns", "Africa/Casablanca", "America/Nuuk",
        ]),
    ) {
        let window = calendar(per, name);
        let now = Timestamp::from_second(second).unwrap();
        let period = window.period(now);
        prop_assert!(period.start <= now.as_millisecond() && now.as_millisecond() < period.end);
        if !matches!(per, Per::Hour | Per::Minute | Per::Second) {
            let of = |millisecond| window.period(Timestamp::from_millisecond(millisecond).unwrap());
            prop_assert_eq!(of(period.start), period);
            prop_assert_eq!(of(period.end - 1), period);
            prop_assert_eq!(of(period.end).start, period.end);
        }
    }
}
