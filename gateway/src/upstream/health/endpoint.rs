//! One endpoint: an address with its port, how often it failed in a row, and until when it is ejected.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tollgate_policy::policy::OutlierDetection;

use super::lock;

/// After so long without being one of its host's addresses it is none: twice as long as an answer of DNS holds.
const CURRENT: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(super) address: SocketAddr,
    /// In a row.
    failures: AtomicU32,
    /// Whether there is an `until`: all that a call looks at where there is none.
    is_ejected: AtomicBool,
    standing: Mutex<EjectionState>,
}

#[derive(Debug)]
struct EjectionState {
    until: Option<Instant>,
    /// How often in a row, less one for each `baseEjectionTime` that it was back.
    ejections: u32,
    back_since: Option<Instant>,
    seen: Instant,
}

impl Endpoint {
    pub(super) fn new(address: SocketAddr, now: Instant) -> Self {
        let standing = EjectionState { until: None, ejections: 0, back_since: None, seen: now };
        let (failures, is_ejected) = (AtomicU32::new(0), AtomicBool::new(false));
        Self { address, failures, is_ejected, standing: Mutex::new(standing) }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it is left alone now.
    pub(crate) fn is_ejected(&self) -> bool {
        self.is_ejected.load(Ordering::Relaxed) && self.ejected_for().is_some()
    }

    /// For how long it is left alone yet.
    #[cold]
    pub(super) fn ejected_for(&self) -> Option<Duration> {
        let mut standing = lock(&self.standing);
        let (until, now) = (standing.until?, Instant::now());
        if now < until {
            return Some(until - now);
        }
        (standing.until, standing.back_since) = (None, Some(until));
        self.is_ejected.store(false, Ordering::Relaxed);
        tracing::info!(endpoint = %self.address, "endpoint is back: its next failure ejects it again");
        None
    }

    pub(super) fn eject(&self, rules: &OutlierDetection) -> Duration {
        let mut standing = lock(&self.standing);
        let now = Instant::now();
        let base = rules.base_ejection_time;
        if let Some(back) = standing.back_since.take() {
            let healthy = now.saturating_duration_since(back).as_nanos() / base.as_nanos().max(1);
            let healthy = u32::try_from(healthy).unwrap_or(u32::MAX);
            standing.ejections = standing.ejections.saturating_sub(healthy);
        }
        standing.ejections = standing.ejections.saturating_add(1);
        let time = base.saturating_mul(standing.ejections).min(rules.max_ejection_time);
        standing.until = Some(now + time);
        self.is_ejected.store(true, Ordering::Relaxed);
        time
    }

    /// One failure more; how many those are in a row. They are not forgotten when it is ejected: whoever comes back on trial has no more
    /// of them to spare.
    pub(super) fn fail(&self) -> u32 {
        let before = self.failures.load(Ordering::Relaxed);
        self.failures.store(before.saturating_add(1), Ordering::Relaxed);
        before.saturating_add(1)
    }

    pub(crate) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Whether calls may go there instead: the last that is known of it is no failure.
    pub(super) fn is_working(&self) -> bool {
        self.failures() == 0 && !self.is_ejected()
    }

    pub(super) fn seen(&self, now: Instant) {
        lock(&self.standing).seen = now;
    }

    pub(super) fn is_current(&self, now: Instant) -> bool {
        let standing = lock(&self.standing);
        standing.until.is_some() || now.saturating_duration_since(standing.seen) < CURRENT
    }
}
