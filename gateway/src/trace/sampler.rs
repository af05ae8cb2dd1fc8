//! Which calls are recorded.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderMap;
use tollgate_policy::name::ResourceId;

use super::call::CallTrace;
use super::context::{Parent, SpanId, TraceId};

/// How many calls become traces.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sampling {
    /// The part of them: 0 to 1.
    pub(crate) part: f64,
    /// Calls a second whose callers have said so. With 0 their word counts neither way.
    pub(crate) callers_per_second: u32,
}

/// Decides for each call, and says whom its context is passed on to.
#[derive(Debug, Default)]
pub(crate) struct Tracer {
    /// Of the 56 bits of an id that are random, what is below.
    below: u64,
    callers_per_second: u32,
    /// The second, and how many calls of it were recorded at their callers' word.
    spent: AtomicU64,
    told: HashSet<ResourceId>,
}

const RANDOM: u32 = 56;

impl Tracer {
    /// `told` are the destinations that contexts are passed on to.
    pub(crate) fn new(sampling: Sampling, told: impl IntoIterator<Item = ResourceId>) -> Self {
        let below = (sampling.part.clamp(0.0, 1.0) * (1_u64 << RANDOM) as f64) as u64;
        Self {
            below,
            callers_per_second: sampling.callers_per_second,
            told: told.into_iter().collect(),
            ..Self::default()
        }
    }

    /// What traces a call that begins: `id` is its own, of which the last seven bytes are random; `second` is that of the clock.
    pub(crate) fn begin(&self, id: &[u8; 16], second: i64, headers: &HeaderMap) -> CallTrace {
        let parent = Parent::of(headers);
        let is_recorded = match &parent {
            // Not by the trace's own id, which the caller chooses.
            Some(_) if self.callers_per_second == 0 => self.is_drawn(id),
            Some(parent) => parent.is_sampled && self.may_record(second),
            None => self.is_drawn(id),
        };
        match (parent, is_recorded) {
            (None, false) => CallTrace::Absent,
            (Some(parent), false) => CallTrace::Passed(Box::new(parent)),
            (parent, true) => {
                let own = TraceId::of(*id);
                match parent.as_ref().map(|parent| parent.trace).or(own) {
                    Some(trace) => CallTrace::recorded(trace, SpanId::new(), parent),
                    None => CallTrace::Absent,
                }
            }
        }
    }

    /// Whether a destination is told of the trace that a call belongs to.
    pub(crate) fn tells(&self, destination: &ResourceId) -> bool {
        !self.told.is_empty() && self.told.contains(destination)
    }

    fn is_drawn(&self, id: &[u8; 16]) -> bool {
        let mut random = [0; 8];
        random[1..].copy_from_slice(&id[9..]);
        u64::from_be_bytes(random) < self.below
    }

    /// Takes one of this second's calls, while there are any.
    fn may_record(&self, second: i64) -> bool {
        let second = second as u64 & 0xffff_ffff;
        let most = u64::from(self.callers_per_second);
        let next = |spent: u64| {
            let used = if spent >> 32 == second { spent & 0xffff_ffff } else { 0 };
            (used < most).then_some(second << 32 | (used + 1))
        };
        self.spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::RecordId;

    fn headers(flags: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let value = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
        headers.insert("traceparent", value.parse().unwrap());
        headers
    }

    fn tracer(part: f64, callers_per_second: u32) -> Tracer {
        Tracer::new(Sampling { part, callers_per_second }, [])
    }

    fn recorded(tracer: &Tracer, headers: &HeaderMap) -> usize {
        let begin = || tracer.begin(RecordId::new().as_bytes(), 1, headers);
        (0..2_000).filter(|_| matches!(begin(), CallTrace::Recorded(_))).count()
    }

    #[test]
    fn the_part_that_is_asked_for_is_recorded() {
        let none = HeaderMap::new();
        assert_eq!(recorded(&tracer(0.0, 0), &none), 0);
        assert_eq!(recorded(&tracer(1.0, 0), &none), 2_000);
        let some = recorded(&tracer(0.25, 0), &none);
        assert!((350..650).contains(&some), "{some}");
        assert!(matches!(tracer(0.0, 0).begin(&[7; 16], 1, &none), CallTrace::Absent));
    }

    #[test]
    fn a_caller_forces_as_many_calls_a_second_as_it_may_and_no_more() {
        let tracer = tracer(0.0, 10);
        assert_eq!(recorded(&tracer, &headers("01")), 10);
        assert_eq!(recorded(&tracer, &headers("01")), 0, "of the same second");
        let begin = tracer.begin(&[7; 16], 2, &headers("01"));
        let CallTrace::Recorded(call) = begin else { panic!("the next second: {begin:?}") };
        assert_eq!(&call.trace().hex(), b"4bf92f3577b34da6a3ce929d0e0e4736", "the trace is the caller's");
    }

    #[test]
    fn where_the_word_of_callers_counts_it_does_both_ways_and_else_neither() {
        assert_eq!(recorded(&tracer(1.0, 10), &headers("00")), 0);
        assert_eq!(recorded(&tracer(1.0, 0), &headers("00")), 2_000);
        assert_eq!(recorded(&tracer(0.0, 0), &headers("01")), 0);
        let passed = tracer(0.0, 0).begin(&[7; 16], 1, &headers("01"));
        assert_eq!(&passed.id().unwrap().hex(), b"4bf92f3577b34da6a3ce929d0e0e4736");
    }
}
