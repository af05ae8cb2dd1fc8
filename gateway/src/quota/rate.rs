//! Requests per second, minute or hour, and what an answer tells of limits in general.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use http::header::{HeaderName, HeaderValue};
use jiff::Timestamp;
use tollgate_policy::limit::{Limit, LimitKind, LimitState, StoreFailure, Unit, Window};

use super::lease::Replicas;

/// The largest integer of a structured field (RFC 9651 section 3.3.1).
const FIELD_MAX: u64 = 999_999_999_999_999;

/// One GCRA: an amount spread evenly over a span, with room for a burst. Replicas that share it have an even part each.
#[derive(Debug)]
pub(super) struct Rate {
    amount: u64,
    per: Duration,
    burst: u32,
    part: ArcSwap<RatePart>,
    replicas: Option<Arc<Replicas>>,
    /// When it was last asked, in milliseconds since the epoch.
    asked: AtomicI64,
}

/// The part of one of several replicas.
#[derive(Debug)]
struct RatePart {
    replicas: u64,
    /// `None` lets nothing through.
    limiter: Option<RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>>,
    /// How long an empty burst takes to fill.
    refill: Duration,
}

/// What limits have left.
pub(crate) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The values of the two fields of draft-ietf-httpapi-ratelimit-headers-11; each policy is named by its limit's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateHeaders {
    /// `RateLimit-Policy`: quota, unit and window of each limit. A month counts as 30 days.
    pub policy: HeaderValue,
    /// `RateLimit`: what each limit has left, and the seconds until it has more.
    pub limit: HeaderValue,
}

impl Rate {
    pub(super) fn new(amount: u64, per: Duration, burst: u32, replicas: Option<&Arc<Replicas>>) -> Self {
        Self {
            amount,
            per,
            burst,
            part: ArcSwap::from_pointee(RatePart::new(amount, per, burst, 1)),
            replicas: replicas.cloned(),
            asked: AtomicI64::new(i64::MIN),
        }
    }

    /// Takes `requests`, and says how many more could come at once; or how long to wait, `None` where waiting does not help.
    pub(super) fn take(&self, requests: u64, now: Timestamp) -> Result<u32, Option<Duration>> {
        self.asked.store(now.as_millisecond(), Ordering::Relaxed);
        self.divide();
        let part = self.part.load();
        let limiter = part.limiter.as_ref().ok_or(None)?;
        let Some(requests) = NonZeroU32::new(u32::try_from(requests).unwrap_or(u32::MAX)) else {
            return Ok(0);
        };
        match limiter.check_n(requests) {
            Ok(Ok(state)) => Ok(state.remaining_burst_capacity()),
            Ok(Err(until)) => Err(Some(until.wait_time_from(DefaultClock::default().now()))),
            Err(_never_fits) => Err(None),
        }
    }

    /// Whether nothing may be let through because nobody knows how many replicas share it.
    pub(super) fn is_lost(&self, limit: &Limit) -> bool {
        limit.store_failure == StoreFailure::Deny
            && self.replicas.as_ref().is_some_and(|replicas| replicas.is_lost())
    }

    /// Whether it must have filled up since it was last asked.
    pub(super) fn is_full(&self, now: Timestamp) -> bool {
        let idle = now.as_millisecond().saturating_sub(self.asked.load(Ordering::Relaxed));
        u64::try_from(idle).is_ok_and(|idle| Duration::from_millis(idle) > self.part.load().refill)
    }

    /// How long until a burst with this much left is whole again.
    pub(super) fn refills_in(&self, left: u32, burst: u32) -> Duration {
        (self.part.load().refill / burst.max(1)).saturating_mul(burst.saturating_sub(left))
    }

    /// Takes another part where there are more replicas now, or fewer. It starts full.
    fn divide(&self) {
        let Some(replicas) = &self.replicas else { return };
        let live = replicas.live();
        if live != self.part.load().replicas {
            self.part.store(Arc::new(RatePart::new(self.amount, self.per, self.burst, live)));
        }
    }
}

impl RatePart {
    fn new(amount: u64, per: Duration, burst: u32, replicas: u64) -> Self {
        let (amount, parts) =
            (u32::try_from(amount).unwrap_or(u32::MAX), u32::try_from(replicas).unwrap_or(u32::MAX).max(1));
        let burst = NonZeroU32::new(burst / parts).unwrap_or(NonZeroU32::MIN);
        let interval = per.saturating_mul(parts).checked_div(amount);
        let interval = interval.map(|interval| interval.max(Duration::from_nanos(1)));
        let quota = interval.and_then(Quota::with_period).map(|quota| quota.allow_burst(burst));
        Self {
            replicas,
            limiter: quota.map(|quota| RateLimiter::direct(quota).with_middleware()),
            refill: interval.unwrap_or_default().saturating_mul(burst.get()),
        }
    }
}

/// The quota unit of the `RateLimit` fields, and of the text of a refusal.
pub(crate) const fn quota_unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Requests => "requests",
        Unit::Tokens => "tokens",
        Unit::InputTokens => "input-tokens",
        Unit::OutputTokens => "output-tokens",
        Unit::CachedTokens => "cached-tokens",
        Unit::ReasoningTokens => "reasoning-tokens",
        Unit::Spend => "nano-usd",
        Unit::Concurrency => "concurrent-requests",
        Unit::Bytes => "content-bytes",
        Unit::Seconds => "seconds",
    }
}

/// The `RateLimit-Policy` of these limits: what does not change from answer to answer.
pub(super) fn policy<'a>(limits: impl Iterator<Item = Cow<'a, Limit>>) -> HeaderValue {
    let mut field = String::new();
    for limit in limits {
        item(&mut field, &label(&limit.id), "q=", limit.amount);
        // Requests are what is counted where nothing else is said.
        let unit = (limit.unit != Unit::Requests).then(|| quota_unit(limit.unit));
        let window = match &limit.kind {
            LimitKind::Gcra { per, .. } => Some(*per),
            LimitKind::Counted(Window::Rolling { length, .. }) => (*length).try_into().ok(),
            LimitKind::Counted(Window::Calendar { per, .. }) => Some(per.length()),
            LimitKind::Concurrent => None,
        };
        unit.into_iter().for_each(|unit| field.extend([";qu=\"", unit, "\""]));
        if let Some(window) = window {
            field.push_str(";w=");
            number(&mut field, seconds(window));
        }
    }
    // Names, numbers and punctuation: always a legal value.
    HeaderValue::try_from(field).unwrap_or(HeaderValue::from_static(""))
}

/// How both fields name a limit, up to its parameters.
pub(super) fn label(limit_id: &str) -> String {
    format!("\"{limit_id}\";")
}

/// The `RateLimit` of a refusal: what the limit that refused has left, and the seconds until it has more. That is less than the call needed,
/// also where other replicas have what this one does not count.
pub(crate) fn rate_limit_of_refusal(state: &LimitState) -> Option<HeaderValue> {
    let most = state.burst.map_or(state.amount, u64::from);
    let left = most.saturating_sub(state.used).saturating_sub(state.held).min(state.needed.saturating_sub(1));
    let mut field = String::new();
    limit(&mut field, &label(&state.id), left, state.resets_in);
    HeaderValue::try_from(field).ok()
}

/// Adds one limit to a `RateLimit` field.
pub(super) fn limit(field: &mut String, label: &str, left: u64, more_in: Option<Duration>) {
    item(field, label, "r=", left);
    if let Some(more_in) = more_in {
        field.push_str(";t=");
        number(field, seconds(more_in));
    }
}

fn item(field: &mut String, label: &str, parameter: &str, value: u64) {
    field.push_str(if field.is_empty() { "" } else { ", " });
    field.push_str(label);
    field.push_str(parameter);
    number(field, value.min(FIELD_MAX));
}

fn number(field: &mut String, value: u64) {
    field.push_str(itoa::Buffer::new().format(value));
}

/// Whole seconds, rounded up: a caller that waits this long has waited long enough.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0)).min(FIELD_MAX)
}
