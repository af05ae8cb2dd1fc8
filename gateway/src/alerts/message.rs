//! What is told of one threshold.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest;
use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};
use serde_json::json;
use tollgate_secrets::digest::hex;

/// How long what was told in a window is remembered after it: clocks of replicas differ.
const AFTER: SignedDuration = SignedDuration::from_mins(10);
/// The longest that anything is remembered: no window is longer.
const LONGEST: SignedDuration = SignedDuration::from_hours(40 * 24);

/// What was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threshold {
    /// So many percent of the amount are spent.
    Percent(u8),
    /// At this pace all of it will be spent before the window ends.
    Forecast,
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => percent.fmt(f),
            Self::Forecast => f.write_str("forecast"),
        }
    }
}

impl Serialize for Threshold {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Percent(percent) => serializer.serialize_u8(*percent),
            Self::Forecast => serializer.serialize_str("forecast"),
        }
    }
}

/// A threshold that was reached. Its names are those of the message.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Alert {
    pub(crate) budget: String,
    pub(crate) limit: String,
    /// Whose count it is; empty where all share one.
    pub(crate) key: String,
    pub(crate) threshold: Threshold,
    pub(crate) unit: &'static str,
    pub(crate) amount: u64,
    /// By all replicas.
    pub(crate) spent: u64,
    /// By this replica.
    pub(crate) held: u64,
    pub(crate) forecast: Option<u64>,
    pub(crate) window_start: Timestamp,
    /// `None` where the window rolls.
    pub(crate) window_end: Option<Timestamp>,
    /// From when to when it is told once.
    #[serde(skip)]
    pub(crate) once: (Timestamp, Timestamp),
    #[serde(skip)]
    pub(crate) at: Timestamp,
}

impl Alert {
    /// What it is told once for.
    pub(super) fn name(&self) -> String {
        let Self { limit, key, threshold, amount, once, .. } = self;
        let text = format!("{limit}\n{key}\n{threshold}\n{amount}\n{}", once.0.as_millisecond());
        let digest = digest::digest(&digest::SHA256, text.as_bytes());
        hex(digest.as_ref().get(..16).unwrap_or_default())
    }

    pub(super) fn budget(&self) -> &str {
        &self.budget
    }

    /// That of the budget; empty where its name says none.
    pub(super) fn namespace(&self) -> &str {
        self.budget.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    pub(super) fn threshold(&self) -> Threshold {
        self.threshold
    }

    /// When nobody asks any more whether it was told.
    pub(super) fn forget_at(&self) -> Timestamp {
        let most = self.at.saturating_add(LONGEST).unwrap_or(Timestamp::MAX);
        self.once.1.saturating_add(AFTER).unwrap_or(Timestamp::MAX).min(most)
    }

    /// How long that is from now.
    pub(super) fn life(&self, now: Timestamp) -> Duration {
        Duration::try_from(self.forget_at().duration_since(now))
            .unwrap_or_default()
            .max(Duration::from_secs(60))
    }

    pub(super) fn body(&self, id: &str, replica: &str) -> String {
        let mut data = json!(self);
        if let Some(data) = data.as_object_mut() {
            data.insert("id".to_owned(), id.into());
            data.insert("replica".to_owned(), replica.into());
        }
        json!({ "type": "budget.threshold", "timestamp": self.at, "data": data }).to_string()
    }

    pub(super) fn log(&self) {
        let Self { budget, limit, key, unit, spent, amount, forecast, .. } = self;
        match self.threshold {
            Threshold::Percent(percent) => {
                tracing::warn!(%budget, limit, key, unit, percent, spent, amount, forecast, "a budget has reached a threshold");
            }
            Threshold::Forecast => {
                tracing::warn!(%budget, limit, key, unit, spent, amount, forecast, "a budget will be used up before its window ends");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(threshold: Threshold, amount: u64, start: &str) -> Alert {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        Alert {
            budget: "team".into(),
            limit: "budget/team/tokens/day/shared".into(),
            key: String::new(),
            threshold,
            unit: "tokens",
            amount,
            spent: 85,
            held: 3,
            forecast: Some(170),
            window_start: at(start),
            window_end: Some(at("2026-07-02T00:00:00Z")),
            once: (at(start), at("2026-07-02T00:00:00Z")),
            at: at("2026-07-01T12:00:00Z"),
        }
    }

    #[test]
    fn a_message_says_all_that_is_known_and_its_name_is_of_threshold_amount_and_window() {
        let today = "2026-07-01T00:00:00Z";
        let one = alert(Threshold::Percent(80), 100, today);
        assert_eq!(
            one.body("msg_1", "r"),
            json!({"type": "budget.threshold", "timestamp": "2026-07-01T12:00:00Z", "data": {
                "id": "msg_1", "replica": "r", "budget": "team", "limit": "budget/team/tokens/day/shared", "key": "",
                "threshold": 80, "unit": "tokens", "amount": 100, "spent": 85, "held": 3, "forecast": 170,
                "windowStart": today, "windowEnd": "2026-07-02T00:00:00Z",
            }})
            .to_string()
        );
        assert_eq!(one.name(), Alert { spent: 99, held: 0, ..one.clone() }.name());
        for other in [
            alert(Threshold::Percent(50), 100, today),
            alert(Threshold::Forecast, 100, today),
            alert(Threshold::Percent(80), 200, today),
            alert(Threshold::Percent(80), 100, "2026-07-02T00:00:00Z"),
        ] {
            assert_ne!(one.name(), other.name(), "{other:?}");
        }
        assert_eq!(one.forget_at().to_string(), "2026-07-02T00:10:00Z");
    }
}
