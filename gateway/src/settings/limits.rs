//! Bounds on requests, answers, and on what one caller may occupy.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tollgate_policy::model::Interval;

use super::{RedisSettings, SizeText, value};
use crate::caller_occupancy::Bounds;
use crate::memory;
use crate::min_rate::MinRate;

/// The part of the memory that this process may have that held bodies may fill together, and the most of it unless told otherwise.
const MEMORY_PART: u64 = 4;
const MOST_HELD: u64 = 1 << 30;
const LEAST_HELD: u64 = 16 << 20;
/// What hyper's HTTP/1 reads a head into is at least this large (`http1::Builder::max_buf_size`).
const LEAST_HEAD: usize = 8 << 10;
const MOST_HEAD: usize = 1 << 20;
/// So many fields hyper reads into an array of its own; any other bound costs it two new ones for each head.
pub(crate) const INLINE_FIELDS: usize = 100;

/// Bounds on requests, and on what one caller may occupy.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RequestLimits {
    /// The largest body that is read before it is sent.
    #[serde(deserialize_with = "value::bytes")]
    #[schemars(with = "SizeText", extend("default" = "32 MiB"))]
    pub body_bytes: usize,
    /// Bytes at once of bodies that are read before they are sent, of all callers: at least 16 MiB. An eighth is for bodies up to 64 KiB
    /// alone. Of the other seven eighths one caller may have a third: a larger body is `body_too_large`. While others hold some too, a
    /// caller, its namespace and its trust domain each have a share of what is left free. Work on a body takes two to three times as much
    /// memory. Without it a quarter of the memory that the control group or else the machine allows, at most 1 GiB.
    #[serde(deserialize_with = "value::some_bytes")]
    #[schemars(with = "SizeText")]
    pub held_bytes: Option<usize>,
    /// A further bound on one caller, for less than the third. Without it a third of `heldBytes`.
    #[serde(deserialize_with = "value::some_bytes")]
    #[schemars(with = "SizeText")]
    pub held_bytes_per_caller: Option<usize>,
    /// The largest head of a request: `8 KiB` to `1 MiB`.
    #[serde(deserialize_with = "value::bytes")]
    #[schemars(with = "SizeText", extend("default" = "64 KiB"))]
    pub head_bytes: usize,
    /// Fields of a request's head, over HTTP/1.1.
    #[schemars(range(min = 1))]
    pub head_fields: usize,
    /// Streams at once on an HTTP/2 connection.
    #[schemars(range(min = 1))]
    pub streams: u32,
    /// Fields of an answer's head, over HTTP/1.1. More than 100 costs every call a little.
    #[schemars(range(min = 1))]
    pub answer_fields: usize,
    /// The largest message of a WebSocket, as it is sent.
    #[serde(deserialize_with = "value::bytes")]
    #[schemars(with = "SizeText", extend("default" = "64 MiB"))]
    pub message_bytes: usize,
    /// Connections that one caller has open at once.
    #[schemars(range(min = 1))]
    pub connections_per_caller: u64,
    /// Calls that one caller has under way at once.
    #[schemars(range(min = 1))]
    pub calls_per_caller: u64,
    /// Calls that all callers have under way at once. One more is 503 `overloaded`, and readiness stays as it is. One caller may have at
    /// most half of those that others do not use.
    #[schemars(range(min = 1))]
    pub calls: u64,
    /// Bytes a second that a caller has to send and take while it holds what others share. See [slow callers](#slow-callers).
    #[serde(deserialize_with = "value::bytes")]
    #[schemars(with = "SizeText", extend("default" = "16 KiB"))]
    pub min_rate: usize,
    /// How long a caller may be behind `minRate`.
    #[schemars(extend("default" = "30s"))]
    pub patience: Interval,
    /// How long a call may take that holds what others share.
    #[schemars(extend("default" = "2h"))]
    pub lifetime: Interval,
    /// Redis or Valkey, where replicas [share limits](#limits-of-many-replicas). Without it each replica counts for itself.
    pub redis: Option<RedisSettings>,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            body_bytes: 32 << 20,
            held_bytes: None,
            held_bytes_per_caller: None,
            head_bytes: 64 << 10,
            head_fields: INLINE_FIELDS,
            streams: 256,
            answer_fields: INLINE_FIELDS,
            message_bytes: 64 << 20,
            connections_per_caller: 4_096,
            calls_per_caller: 2_048,
            calls: 16_384,
            min_rate: 16 << 10,
            patience: Interval(Duration::from_secs(30)),
            lifetime: Interval(Duration::from_secs(2 * 3_600)),
            redis: None,
        }
    }
}

impl RequestLimits {
    /// Fields that are out of bounds, with what is wrong.
    pub(super) fn problems(&self) -> Vec<(&'static str, &'static str)> {
        let mut problems = Vec::new();
        let mut wrong = |wrong: bool, field, message| {
            if wrong {
                problems.push((field, message));
            }
        };
        let least_held = usize::try_from(LEAST_HELD).unwrap_or(usize::MAX);
        wrong(self.held_bytes.is_some_and(|bytes| bytes < least_held), "heldBytes", "at least 16 MiB");
        wrong(self.held_bytes_per_caller == Some(0), "heldBytesPerCaller", "at least 1");
        let head = LEAST_HEAD..=MOST_HEAD;
        wrong(!head.contains(&self.head_bytes), "headBytes", "from 8 KiB to 1 MiB");
        wrong(self.head_fields == 0, "headFields", "at least 1");
        wrong(self.streams == 0, "streams", "at least 1");
        wrong(self.answer_fields == 0, "answerFields", "at least 1");
        wrong(self.message_bytes == 0, "messageBytes", "at least 1");
        wrong(self.connections_per_caller == 0, "connectionsPerCaller", "at least 1");
        wrong(self.calls_per_caller == 0, "callsPerCaller", "at least 1");
        wrong(self.calls == 0, "calls", "at least 1");
        wrong(self.min_rate == 0, "minRate", "at least 1");
        problems.extend(self.redis.iter().flat_map(RedisSettings::problems));
        problems
    }

    /// What one caller, or all together, may occupy.
    pub(crate) fn bounds(&self) -> Bounds {
        let memory = || memory::allowed().map_or(MOST_HELD, |bytes| bytes / MEMORY_PART);
        let held =
            self.held_bytes.map_or_else(|| memory().clamp(LEAST_HELD, MOST_HELD), |bytes| bytes as u64);
        Bounds {
            connections: self.connections_per_caller,
            calls: self.calls_per_caller,
            all_calls: self.calls,
            held,
            held_of_one: self.held_bytes_per_caller.map_or(held / 3, |bytes| bytes as u64),
        }
    }

    pub(crate) fn min_rate(&self) -> MinRate {
        let Self { min_rate, patience: Interval(patience), lifetime: Interval(lifetime), .. } = *self;
        MinRate { bytes: min_rate as u64, patience, lifetime }
    }
}
