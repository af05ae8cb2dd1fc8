//! What an answer says of the key that it was asked with.
//!
//! **Invariant:** only what a rule of the dialect names is a word against a key. A bare 403 and a provider's own trouble (5xx) are none.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde::Deserialize;
use serde_json::Value;

use super::Problems;
use super::tree::Path;

/// How long a key rests whose provider does not say for how long, and at most.
const REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_secs(600);

/// How the answers of a provider tell that a key is no longer good, or has to rest.
#[derive(Debug, Default)]
pub struct KeyRules {
    dead: Vec<u16>,
    spent: Vec<Spent>,
    rate_limited: Vec<u16>,
    free_again: Vec<FreeAgain>,
}

/// The rules as a catalog file has them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyText {
    /// Statuses that say that the key is not known.
    #[serde(default)]
    dead: Vec<u16>,
    /// Bodies that say that what the key has access to is used up.
    #[serde(default)]
    spent: Vec<Spent>,
    /// Statuses that say that the provider's own limits refused the call.
    #[serde(default)]
    rate_limited: Vec<u16>,
    /// Headers that say when they no longer will.
    #[serde(default)]
    free_again: Vec<FreeAgain>,
}

/// A word in the body of an error, in full: what a caller wrote may be part of a message, and never all of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spent {
    status: u16,
    at: Path,
    words: Vec<Arc<str>>,
}

/// A header that says when a key can be used again.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FreeAgain {
    header: Box<str>,
    form: Form,
    /// The header says so of one of several limits, and only where this one says that nothing is left of it.
    left: Option<Box<str>>,
}

/// How a header says how long.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    /// Seconds, or a date (RFC 9110, section 10.2.3).
    RetryAfter,
    /// A number of milliseconds.
    Milliseconds,
    /// As in `6m0s` or `120ms`.
    Duration,
    /// RFC 3339.
    Timestamp,
}

impl KeyRules {
    /// Whether an answer with this status says that the key itself is no longer good.
    pub fn dead(&self, status: u16) -> bool {
        self.dead.contains(&status)
    }

    /// Whether the body of an answer with this status may say so.
    pub fn may_be_spent(&self, status: u16) -> bool {
        self.spent.iter().any(|rule| rule.status == status)
    }

    /// The word in this body that says that the key has nothing left to be used for.
    pub fn spent(&self, status: u16, body: &[u8]) -> Option<Arc<str>> {
        let rules = || self.spent.iter().filter(|rule| rule.status == status);
        rules().next()?;
        let body: Value = serde_json::from_slice(body).ok()?;
        rules().find_map(|rule| {
            let said = rule.at.text(&body)?;
            rule.words.iter().find(|word| ***word == *said).cloned()
        })
    }

    /// Whether an answer with this status says that the provider's own limits refused the call.
    pub fn rate_limited(&self, status: u16) -> bool {
        self.rate_limited.contains(&status)
    }

    /// For how long the key has to rest after such an answer. `header` reads the only value of a header.
    pub fn rest<'a>(&self, header: impl Fn(&str) -> Option<&'a str>, now: Timestamp) -> Duration {
        let read = |rule: &FreeAgain| rule.form.read(header(&rule.header)?.trim(), now);
        let mut plain = self.free_again.iter().filter(|rule| rule.left.is_none());
        let is_used_up = |left: &str| header(left).is_some_and(|left| left.trim() == "0");
        let of_limits = || {
            let limits = self.free_again.iter().filter(|rule| rule.left.as_deref().is_some_and(is_used_up));
            limits.filter_map(read).max()
        };
        plain.find_map(read).or_else(of_limits).unwrap_or(REST).min(LONGEST_REST)
    }
}

impl Form {
    fn read(self, text: &str, now: Timestamp) -> Option<Duration> {
        let until = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
        match self {
            Self::RetryAfter => match text.parse().ok() {
                Some(seconds) => Some(Duration::from_secs(seconds)),
                None => rfc2822::DateTimeParser::new().parse_timestamp(text).ok().map(until),
            },
            Self::Milliseconds => number(text).map(|millis| millis / 1e3).and_then(seconds),
            Self::Duration => duration(text),
            Self::Timestamp => text.parse().ok().map(until),
        }
    }
}

fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let (amount, after) = rest.split_at(rest.find(|c: char| c.is_ascii_alphabetic())?);
        let (unit, after) =
            after.split_at(after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len()));
        let unit = match unit {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        sum += number(amount)? * unit;
        rest = after;
    }
    (!text.is_empty()).then_some(sum).and_then(seconds)
}

/// A number that is written with digits and at most one point.
fn number(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.parse().ok().filter(|_| plain)
}

fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds.min(LONGEST_REST.as_secs_f64())).ok()
}

impl KeyText {
    pub(super) fn rules(self, problems: &mut Problems) -> KeyRules {
        for (index, rule) in self.spent.iter().enumerate() {
            if rule.at.has_each() {
                problems.push((format!("keys.spent[{index}].at"), "a word stands in one place".to_owned()));
            }
            if rule.words.is_empty() {
                problems.push((format!("keys.spent[{index}].words"), "this cannot be empty".to_owned()));
            }
        }
        let Self { dead, spent, rate_limited, free_again } = self;
        KeyRules { dead, spent, rate_limited, free_again }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-06T08:49:37Z";

    fn rules() -> KeyRules {
        let reset = |name: &str, form: &str| serde_json::json!({"header": format!("{name}-reset"), "form": form, "left": format!("{name}-left")});
        let text = serde_json::json!({
            "dead": [401],
            "spent": [
                {"status": 429, "at": "error.code", "words": ["insufficient_quota"]},
                {"status": 400, "at": "error.message", "words": ["Your credit balance is too low."]},
            ],
            "rate_limited": [429],
            "free_again": [
                {"header": "retry-after-ms", "form": "milliseconds"},
                {"header": "retry-after", "form": "retry_after"},
                reset("requests", "duration"),
                reset("tokens", "timestamp"),
            ],
        });
        let mut problems = Problems::new();
        let rules = serde_json::from_value::<KeyText>(text).unwrap().rules(&mut problems);
        assert_eq!(problems, []);
        rules
    }

    fn rest(headers: &[(&str, &'static str)]) -> f64 {
        let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        rules().rest(header, NOW.parse().unwrap()).as_secs_f64()
    }

    #[test]
    fn a_key_is_dead_by_the_dialects_own_word_only() {
        let rules = rules();
        assert!(rules.dead(401) && !rules.dead(403) && !rules.dead(429) && !rules.dead(500));
        let spent = |status, body: &str| rules.spent(status, body.as_bytes());
        let quota = r#"{"error": {"code": "insufficient_quota"}}"#;
        assert_eq!(spent(429, quota).as_deref(), Some("insufficient_quota"));
        assert_eq!(spent(403, quota), None);
        assert_eq!(spent(400, quota), None);
        for body in [
            "insufficient_quota",
            "",
            r#"{"code": "insufficient_quota"}"#,
            r#"{"error": {"code": "rate_limit_exceeded", "message": "insufficient_quota"}}"#,
            r#"{"error": {"code": ["insufficient_quota"]}}"#,
            r#"{"error": "insufficient_quota"}"#,
        ] {
            assert_eq!(spent(429, body), None, "{body}");
        }
        assert!(rules.may_be_spent(429) && rules.may_be_spent(400) && !rules.may_be_spent(401));
    }

    #[test]
    fn what_a_caller_can_make_part_of_a_message_is_no_word() {
        let echoed =
            r#"{"error": {"message": "Your credit balance is too low.: Extra inputs are not permitted"}}"#;
        assert_eq!(rules().spent(400, echoed.as_bytes()), None);
    }

    #[test]
    fn a_key_rests_for_as_long_as_the_provider_says_and_not_for_ever() {
        let cases: &[(&[(&str, &'static str)], f64)] = &[
            (&[], 5.0),
            (&[("retry-after", "7")], 7.0),
            (&[("retry-after", "7"), ("retry-after-ms", "120.5")], 0.1205),
            (&[("retry-after", "Fri, 06 Nov 2026 08:50:07 GMT")], 30.0),
            (&[("retry-after", "Fri, 06 Nov 2026 08:00:00 GMT")], 0.0),
            (&[("retry-after", "soon")], 5.0),
            (&[("retry-after", "-3")], 5.0),
            (&[("retry-after", "86400")], 600.0),
            (&[("retry-after-ms", "1e300")], 5.0),
            (&[("retry-after-ms", "99999999999999999999999999")], 600.0),
            (&[("requests-left", "0"), ("requests-reset", "6m0s")], 360.0),
            (&[("requests-left", "0"), ("requests-reset", "1.5s")], 1.5),
            (&[("requests-left", "0"), ("requests-reset", "1m")], 60.0),
            (&[("requests-left", "0"), ("requests-reset", "1h2m3.5s")], 600.0),
            (&[("requests-left", "0"), ("requests-reset", "120ms")], 0.12),
            (&[("requests-left", "0"), ("requests-reset", "12")], 5.0),
            (&[("requests-left", "3"), ("requests-reset", "6m0s")], 5.0),
            (&[("requests-reset", "6m0s")], 5.0),
            (&[("tokens-left", "0"), ("tokens-reset", "2026-11-06T08:49:57Z")], 20.0),
            (
                &[
                    ("requests-left", "0"),
                    ("requests-reset", "2s"),
                    ("tokens-left", "0"),
                    ("tokens-reset", "2026-11-06T08:49:40Z"),
                ],
                3.0,
            ),
        ];
        for (headers, expected) in cases {
            assert_eq!(rest(headers), *expected, "{headers:?}");
        }
    }
}
