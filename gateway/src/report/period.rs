//! Instants as people write them.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};

/// Not an instant.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no point in time: a date (2026-11-01), a time (2026-11-01T08:00, 2026-11-01T08:00:00Z), or how long ago (90m, 24h, 7d, 4w)"
)]
pub struct PeriodError(String);

/// Reads a date (its first instant in `timezone`), a local or absolute time, or how long before `now`: a number and `s`, `m`, `h`,
/// `d` or `w`, where a day is one on the wall clock.
pub fn instant(text: &str, timezone: &TimeZone, now: Timestamp) -> Result<Timestamp, PeriodError> {
    let text = text.trim();
    let wrong = || PeriodError(text.to_owned());
    if let Some(ago) = ago(text, timezone, now) {
        return Ok(ago);
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let zoned = match text.parse::<Date>() {
        Ok(date) if text.len() == "2026-11-01".len() => date.to_zoned(timezone.clone()),
        _ => text.parse::<DateTime>().map_err(|_| wrong())?.to_zoned(timezone.clone()),
    };
    zoned.map(|zoned| zoned.timestamp()).map_err(|_| wrong())
}

fn ago(text: &str, timezone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
    let digits = text.find(|char: char| !char.is_ascii_digit())?;
    let (count, unit) = text.split_at(digits);
    let count: i64 = count.parse().ok()?;
    let exact = |seconds: i64| now.checked_sub(SignedDuration::from_secs(count.checked_mul(seconds)?)).ok();
    let days = |days: i64| {
        let span = Span::new().try_days(count.checked_mul(days)?).ok()?;
        now.to_zoned(timezone.clone()).checked_sub(span).map(|zoned| zoned.timestamp()).ok()
    };
    match unit {
        "s" => exact(1),
        "m" => exact(60),
        "h" => exact(3_600),
        "d" => days(1),
        "w" => days(7),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<String> {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let now = "2026-11-02T12:00:00Z".parse().unwrap();
        instant(text, &berlin, now).ok().map(|at| at.to_string())
    }

    #[test]
    fn a_date_begins_at_midnight_of_the_timezone() {
        assert_eq!(read("2026-11-01").unwrap(), "2026-10-31T23:00:00Z");
        assert_eq!(read("2026-07-01").unwrap(), "2026-06-30T22:00:00Z");
    }

    #[test]
    fn a_time_is_local_unless_it_says_otherwise() {
        assert_eq!(read("2026-11-01T08:30").unwrap(), "2026-11-01T07:30:00Z");
        assert_eq!(read("2026-11-01 08:30:15").unwrap(), "2026-11-01T07:30:15Z");
        assert_eq!(read("2026-11-01T08:30:00Z").unwrap(), "2026-11-01T08:30:00Z");
        assert_eq!(read("2026-11-01T08:30:00-05:00").unwrap(), "2026-11-01T13:30:00Z");
    }

    #[test]
    fn hours_ago_are_exact_and_days_ago_follow_the_wall_clock() {
        assert_eq!(read("24h").unwrap(), "2026-11-01T12:00:00Z");
        assert_eq!(read("90m").unwrap(), "2026-11-02T10:30:00Z");
        // The clock went back an hour on 25 October.
        assert_eq!(read("10d").unwrap(), "2026-10-23T11:00:00Z");
        assert_eq!(read("2w").unwrap(), "2026-10-19T11:00:00Z");
    }

    #[test]
    fn anything_else_is_no_instant() {
        for text in [
            "",
            "7",
            "d",
            "-7d",
            "7 d",
            "yesterday",
            "2026-13-01",
            "2026-02-30",
            "99999999999999999999d",
            "9999999999999d",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
