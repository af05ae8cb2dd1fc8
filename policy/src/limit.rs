//! What a limit is, and the arithmetic of the windows that tokens, spend and daily requests are counted in.
//!
//! A reservation is held in the slice of time in which it opened and is later settled at what was really used, or released.
//!
//! **Invariant:** while no settlement exceeds its hold and the cap stays what it is, `spent + held <= cap` in every window at every
//! instant, whatever the order of calls and however the clock jumps. Nothing here panics or wraps.
//!
//! Lacks on purpose: a clock, locks, and the rates per second, minute and hour, which are the gateway's `governor`.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::Deserialize;

mod counter;
mod id;
pub mod slices;
mod state;
mod window;

#[cfg(test)]
mod tests;

pub use counter::{Counter, Refused, Usage, WindowSlot};
pub use id::{LimitId, Owner, OwnerError};
pub use state::LimitState;

/// One limit, resolved: how much of what, in which window, counted for whom together.
#[derive(Debug, Clone)]
pub struct Limit {
    /// The text of its [`LimitId`]. State belongs to it and so survives an edit of the amount.
    pub id: Arc<str>,
    /// Whose limit it is, which its id says too.
    pub owner: Owner,
    /// What is counted.
    pub unit: Unit,
    /// The cap, in the unit's own measure: requests, tokens, nano-USD, bytes, seconds, or calls under way.
    pub amount: u64,
    /// How it is counted.
    pub kind: LimitKind,
    /// Whose calls share one count.
    pub key: LimitKey,
    /// What becomes of a call for which not enough is left.
    pub on_exhausted: OnExhausted,
    /// By how much the amount is more for a time.
    pub raises: Arc<[Raise]>,
    /// What becomes of it where replicas share it and their store is gone.
    pub store_failure: StoreFailure,
}

/// What becomes of a call for which a limit has not enough left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OnExhausted {
    /// It is refused.
    #[default]
    Deny,
    /// It goes on past the amount, and is marked.
    Flag,
    /// It goes on past the amount, with this model in place of the one that it asks for. What cannot be had so is refused.
    Downgrade(Arc<str>),
}

/// For a time the amount is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raise {
    /// By so much, in the unit's own measure.
    pub by: u64,
    /// Until then, and no longer.
    pub until: Timestamp,
}

/// How a limit counts.
#[derive(Debug, Clone)]
pub enum LimitKind {
    /// A rate: `amount` per `per`, as GCRA with room for `burst` requests at once. It cannot be given back.
    Gcra {
        /// The span that the amount is spread over.
        per: Duration,
        /// How many requests may come at once, at least 1.
        burst: u32,
    },
    /// A sum over a window of time, held before the call and settled after it.
    Counted(Window),
    /// The number of calls under way at one time.
    Concurrent,
}

/// The stretch of time whose usage a counted limit adds up.
#[derive(Debug, Clone)]
pub enum Window {
    /// The last `length`, moving along with the clock in `slices` steps. A slice counts until it lies wholly outside, so the window
    /// forgets up to one slice late and never early.
    Rolling {
        /// How far back usage counts.
        length: SignedDuration,
        /// How many steps the window moves in; see [`Window::SLICES`].
        slices: u32,
    },
    /// The current calendar unit on a wall clock: a day has 23 to 25 hours where the clock changes, a week starts on Monday.
    Calendar {
        /// Which calendar unit.
        per: Per,
        /// Whose wall clock.
        timezone: TimeZone,
    },
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unit {
    /// Calls sent to the destination.
    Requests,
    /// Input and output tokens together, as the provider bills them.
    Tokens,
    /// Tokens that the model reads, cached ones included.
    InputTokens,
    /// Tokens that the model writes, reasoning included.
    OutputTokens,
    /// Tokens that the model reads from the provider's prompt cache.
    CachedTokens,
    /// Tokens of reasoning that the model writes, where the provider tells them apart.
    ReasoningTokens,
    /// Money, in nano-USD.
    Spend,
    /// Calls under way at one time.
    Concurrency,
    /// Bytes that pass both ways on connections that are passed through.
    Bytes,
    /// How long connections that are passed through are open, in seconds.
    Seconds,
}

/// The span that a limit's amount is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// One second.
    Second,
    /// One minute.
    Minute,
    /// One hour.
    Hour,
    /// One day.
    Day,
    /// One week; on the calendar from Monday.
    Week,
    /// One month; 30 days where the window rolls.
    Month,
}

/// Whose calls one count takes together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitKey {
    /// Everybody whom the grant lets in: a wildcard does not multiply the amount.
    #[default]
    Shared,
    /// Each namespace of each trust domain by itself.
    Namespace,
    /// Each SPIFFE id by itself.
    Caller,
}

impl Limit {
    /// The cap at an instant.
    pub fn amount_at(&self, now: Timestamp) -> u64 {
        let raised = self.raises.iter().filter(|raise| now < raise.until);
        raised.fold(self.amount, |amount, raise| amount.saturating_add(raise.by))
    }

    /// The limit as it is at an instant: its amount is that of then.
    pub fn at(&self, now: Timestamp) -> Cow<'_, Self> {
        match self.amount_at(now) {
            amount if amount == self.amount => Cow::Borrowed(self),
            amount => Cow::Owned(Self { amount, ..self.clone() }),
        }
    }
}

/// What becomes of a limit that replicas share once their store is gone for longer than a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum StoreFailure {
    /// Nothing is let through.
    Deny,
    /// Each replica lets its even part of the amount through.
    Local,
}

impl StoreFailure {
    /// What a limit does that says nothing.
    pub fn of(unit: Unit) -> Self {
        match unit {
            Unit::Requests | Unit::Concurrency => Self::Local,
            Unit::Tokens
            | Unit::InputTokens
            | Unit::OutputTokens
            | Unit::CachedTokens
            | Unit::ReasoningTokens
            | Unit::Spend
            | Unit::Bytes
            | Unit::Seconds => Self::Deny,
        }
    }
}

impl Window {
    /// The steps of a rolling window unless something else is asked for: a window forgets at most a sixtieth of its length late.
    pub const SLICES: u32 = 60;

    /// A rolling window of the default number of slices.
    pub fn rolling(length: SignedDuration) -> Self {
        Self::Rolling { length, slices: Self::SLICES }
    }
}

impl Unit {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Requests,
        Self::Tokens,
        Self::InputTokens,
        Self::OutputTokens,
        Self::CachedTokens,
        Self::ReasoningTokens,
        Self::Spend,
        Self::Concurrency,
        Self::Bytes,
        Self::Seconds,
    ];

    /// The word that a limit's id and its denials use, and the field that it is written in.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "inputTokens",
            Self::OutputTokens => "outputTokens",
            Self::CachedTokens => "cachedTokens",
            Self::ReasoningTokens => "reasoningTokens",
            Self::Spend => "spend",
            Self::Concurrency => "concurrency",
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
        }
    }

    /// Whether it is tokens, of whatever kind.
    pub const fn is_tokens(self) -> bool {
        matches!(
            self,
            Self::Tokens
                | Self::InputTokens
                | Self::OutputTokens
                | Self::CachedTokens
                | Self::ReasoningTokens
        )
    }

    /// Whether it can be counted only where the dialect knows what a call is billed for.
    pub const fn is_metered(self) -> bool {
        self.is_tokens() || matches!(self, Self::Spend)
    }

    /// Whether a connection takes it piece by piece while it lasts: nobody knows before how much it will be.
    pub const fn is_taken_in_pieces(self) -> bool {
        matches!(self, Self::Bytes | Self::Seconds)
    }
}

impl Per {
    /// All of them, the shortest first.
    pub const ALL: [Self; 6] = [Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month];

    /// The word that a limit's id uses and a user writes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// The span by the stopwatch: a day of 24 hours, a month of 30 days.
    pub fn length(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Week => 7 * 86_400,
            Self::Month => 30 * 86_400,
        })
    }
}

impl LimitKey {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Shared, Self::Namespace, Self::Caller];

    /// The word that a limit's id uses and a user writes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Namespace => "namespace",
            Self::Caller => "caller",
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Per {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
