//! What one core has counted; summed over the cores at scrape.

use std::hash::Hash;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tollgate_policy::caller::Identity;
use tollgate_policy::denial::Reason;
use tollgate_policy::map::Map;
use tollgate_policy::name::ResourceId;
use tollgate_policy::price::Units;

use crate::ledger::{Record, UsageSource};
use crate::trace::TraceId;

/// Upper bounds of the duration buckets, in seconds: from a cached answer to a long stream.
pub(crate) const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0];

/// Series on one core before further ones are counted together as `other`.
const SERIES: usize = 10_000;

/// What tells one series from another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Series {
    pub(crate) destination: Option<ResourceId>,
    pub(crate) grant: Option<ResourceId>,
    pub(crate) caller: Option<Identity>,
    /// Only a model that the catalog knows; anything else is `other`.
    pub(crate) model: Option<Arc<str>>,
    pub(crate) reason: Option<Reason>,
    pub(crate) code: u16,
}

/// What is counted of a series.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    pub(crate) units: Units,
    pub(crate) cost: u64,
    pub(crate) estimated: u64,
    pub(crate) unpriced: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.units.add(&other.units);
        self.cost = self.cost.saturating_add(other.cost);
        self.estimated += other.estimated;
        self.unpriced += other.unpriced;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
    }
}

/// A call that stands for those of its bucket: one that is recorded as a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exemplar {
    pub(crate) trace: TraceId,
    pub(crate) micros: u64,
    /// When it began.
    pub(crate) at: Timestamp,
}

/// The last exemplar of each bucket, and of what is above them.
pub(crate) type Exemplars = [Option<Exemplar>; BUCKETS.len() + 1];

/// Durations of one destination's calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Durations {
    pub(crate) exemplars: Exemplars,
    pub(crate) buckets: [u64; BUCKETS.len()],
    pub(crate) count: u64,
    pub(crate) micros: u64,
}

impl Durations {
    fn observe(&mut self, micros: u64, exemplar: Option<Exemplar>) {
        let seconds = Duration::from_micros(micros).as_secs_f64();
        let at = BUCKETS.iter().position(|bound| seconds <= *bound);
        if let Some(at) = at {
            self.buckets[at] += 1;
        }
        if exemplar.is_some() {
            self.exemplars[at.unwrap_or(BUCKETS.len())] = exemplar;
        }
        self.count += 1;
        self.micros = self.micros.saturating_add(micros);
    }

    fn add(&mut self, other: &Self) {
        for (own, more) in self.exemplars.iter_mut().zip(&other.exemplars) {
            // The later of the two.
            if more.map(|more| more.at) > own.map(|own| own.at) {
                *own = *more;
            }
        }
        for (own, more) in self.buckets.iter_mut().zip(other.buckets) {
            *own += more;
        }
        self.count += other.count;
        self.micros = self.micros.saturating_add(other.micros);
    }
}

#[derive(Debug, Default)]
struct Tables {
    calls: Map<Series, Totals>,
    durations: Map<Option<ResourceId>, Durations>,
    strangers: Map<Reason, u64>,
}

/// The counters of one core. Its lock is contended by a scrape only.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    tables: Mutex<Tables>,
    handshakes: AtomicU64,
    handshake_micros: AtomicU64,
    handshakes_failed: AtomicU64,
    exceeded: AtomicU64,
    in_flight: AtomicI64,
}

impl Stats {
    pub(crate) fn handshake(&self, took: Duration) {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        self.handshake_micros
            .fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn handshake_failed(&self) {
        self.handshakes_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// A call was charged more than it held.
    pub(crate) fn hold_exceeded(&self) {
        self.exceeded.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn began(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ended(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// A request that failed before its caller was proven: counted, not recorded.
    pub(crate) fn stranger(&self, reason: Reason) {
        *self.tables.lock().unwrap_or_else(PoisonError::into_inner).strangers.entry(reason).or_default() += 1;
    }

    /// Counts a finished call. `model` is its name in the catalog, if it has one; `is_recorded`: its trace is one to look at.
    pub(crate) fn call(&self, record: &Record, model: Option<Arc<str>>, is_recorded: bool) {
        let series = Series {
            destination: record.destination.clone(),
            grant: record.grant.clone(),
            caller: record.caller.clone(),
            model,
            reason: record.reason,
            code: record.status,
        };
        let estimated = matches!(record.usage_source, UsageSource::Estimated | UsageSource::Presumed);
        let totals = Totals {
            requests: 1,
            units: record.units,
            cost: record.cost.map_or(0, |cost| cost.0),
            estimated: u64::from(estimated),
            unpriced: u64::from(record.unpriced),
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
        };
        let exemplar = record.trace.filter(|_| is_recorded);
        let exemplar = exemplar.map(|trace| Exemplar { trace, micros: record.duration, at: record.at });
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let full = tables.calls.len() >= SERIES && !tables.calls.contains_key(&series);
        let series = if full { Series { reason: series.reason, ..Series::default() } } else { series };
        tables.calls.entry(series).or_default().add(&totals);
        tables.durations.entry(record.destination.clone()).or_default().observe(record.duration, exemplar);
    }
}

/// The sums over all cores.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    pub(crate) calls: Map<Series, Totals>,
    pub(crate) durations: Map<Option<ResourceId>, Durations>,
    pub(crate) strangers: Map<Reason, u64>,
    pub(crate) handshakes: u64,
    pub(crate) handshake_micros: u64,
    pub(crate) handshakes_failed: u64,
    pub(crate) exceeded: u64,
    pub(crate) in_flight: i64,
}

impl Sums {
    /// Adds one core.
    pub(crate) fn add(&mut self, stats: &Stats) {
        let tables = stats.tables.lock().unwrap_or_else(PoisonError::into_inner);
        merge(&mut self.calls, &tables.calls, Totals::add);
        merge(&mut self.durations, &tables.durations, Durations::add);
        merge(&mut self.strangers, &tables.strangers, |own, more| *own += more);
        drop(tables);
        self.handshakes += stats.handshakes.load(Ordering::Relaxed);
        self.handshake_micros += stats.handshake_micros.load(Ordering::Relaxed);
        self.handshakes_failed += stats.handshakes_failed.load(Ordering::Relaxed);
        self.exceeded += stats.exceeded.load(Ordering::Relaxed);
        self.in_flight += stats.in_flight.load(Ordering::Relaxed);
    }
}

fn merge<K: Clone + Eq + Hash, V: Default>(sum: &mut Map<K, V>, part: &Map<K, V>, add: impl Fn(&mut V, &V)) {
    for (key, value) in part {
        add(sum.entry(key.clone()).or_default(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Bounded, RecordId};

    #[test]
    fn callers_without_number_share_one_series_for_each_reason_and_no_call_goes_uncounted() {
        let stats = Stats::default();
        let mut record = Record::new(RecordId::new(), Timestamp::now(), Bounded::new("GET"));
        let mut call = |account: usize, reason: Option<Reason>| {
            let caller = format!("spiffe://prod.acme/ns/shop/sa/web-{account}");
            (record.caller, record.reason) = (Some(caller.parse().unwrap()), reason);
            stats.call(&record, None, false);
        };
        (0..SERIES + 5).for_each(|account| call(account, None));
        (SERIES..SERIES + 3).for_each(|account| call(account, Some(Reason::NoGrant)));
        // One that is known keeps its own.
        call(0, None);
        let mut sums = Sums::default();
        sums.add(&stats);
        assert_eq!(sums.calls.len(), SERIES + 2);
        let others = |reason| sums.calls[&Series { reason, ..Series::default() }].requests;
        assert_eq!((others(None), others(Some(Reason::NoGrant))), (5, 3));
        let first = Series {
            caller: Some("spiffe://prod.acme/ns/shop/sa/web-0".parse().unwrap()),
            code: record.status,
            ..Series::default()
        };
        assert_eq!(sums.calls[&first].requests, 2);
    }
}
