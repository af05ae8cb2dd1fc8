//! What a connection may still use of the limits that it takes in pieces.
//!
//! **Invariant:** no byte is read that is not reserved, and the journal has what is reserved. A connection that has used all and gets no more
//! is over.

use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tollgate_policy::denial::Denial;

use crate::metering::{Account, Traffic};
use crate::quota::Allowance;

/// Stands for as much as it likes.
const UNLIMITED: u64 = u64::MAX;
/// The next piece of bytes is a part of all that has passed, between these.
const LEAST: u64 = 64 << 10;
const MOST: u64 = 64 << 20;
const PART: u64 = 8;
/// The next piece is taken while so much is left, or half of the last where that was less.
const LOW: u64 = 512 << 10;
const SECONDS: u64 = 60;
const LOW_SECONDS: u64 = 5;

/// How much is reserved, and what is little of it.
#[derive(Debug)]
struct ReservedAmount {
    all: AtomicU64,
    low: AtomicU64,
}

impl ReservedAmount {
    const fn new() -> Self {
        Self { all: AtomicU64::new(0), low: AtomicU64::new(0) }
    }

    /// `None`: no limit counts it.
    fn all(&self) -> Option<u64> {
        Some(self.all.load(Ordering::Relaxed)).filter(|all| *all != UNLIMITED)
    }

    fn low(&self) -> u64 {
        self.low.load(Ordering::Relaxed)
    }

    fn allow(&self, all: Option<u64>, low: u64) {
        let all = all.unwrap_or(UNLIMITED);
        let piece = all - self.all.swap(all, Ordering::Relaxed).min(all);
        if piece > 0 {
            self.low.store(low.min(piece / 2), Ordering::Relaxed);
        }
    }
}

/// What may pass, and for how long.
#[derive(Debug)]
pub(super) struct Budget {
    traffic: Arc<Traffic>,
    begun: Instant,
    bytes: ReservedAmount,
    seconds: ReservedAmount,
    /// Each way, who waits to read.
    waiting: Mutex<[Option<Waker>; 2]>,
    asked: Notify,
}

impl Budget {
    pub(super) fn new(traffic: Arc<Traffic>, allowance: Allowance) -> Self {
        let budget = Self {
            traffic,
            begun: Instant::now(),
            bytes: ReservedAmount::new(),
            seconds: ReservedAmount::new(),
            waiting: Mutex::default(),
            asked: Notify::new(),
        };
        budget.allow(allowance);
        budget
    }

    /// Bytes that may still be read.
    pub(super) fn room(&self) -> u64 {
        self.bytes.all().map_or(UNLIMITED, |bytes| bytes.saturating_sub(self.traffic.all()))
    }

    /// Bytes were read.
    pub(super) fn used(&self) {
        if self.room() <= self.bytes.low() {
            self.asked.notify_one();
        }
    }

    /// Has the reader of one way woken once there is room.
    pub(super) fn wait(&self, way: usize, cx: &Context<'_>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.get_mut(way).into_iter().for_each(|waker| *waker = Some(cx.waker().clone()));
        drop(waiting);
        self.asked.notify_one();
    }

    fn allow(&self, allowance: Allowance) {
        self.bytes.allow(allowance.bytes, LOW);
        self.seconds.allow(allowance.seconds, LOW_SECONDS);
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    /// When so many seconds are left; `None`: it may last.
    fn ends(&self, left: u64) -> Option<Instant> {
        let seconds = self.seconds.all()?;
        Some(self.begun + Duration::from_secs(seconds.saturating_sub(left)))
    }

    /// Whether somebody waits for room.
    fn is_starved(&self) -> bool {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.room() == 0 && waiting.iter().any(Option::is_some)
    }

    /// Ready once little is left; `is_refused`: once all is used, and more is asked for.
    async fn is_low(&self, is_refused: bool) {
        loop {
            let is_low = if is_refused { self.is_starved() } else { self.room() <= self.bytes.low() };
            if is_low {
                return;
            }
            let ends = self.ends(if is_refused { 0 } else { self.seconds.low() });
            tokio::select! {
                () = self.asked.notified() => {}
                () = async { sleep_until(ends.unwrap_or_else(Instant::now)).await }, if ends.is_some() => return,
            }
        }
    }

    /// Keeps enough reserved. Ready with why there is no more, once all is used.
    pub(super) async fn kept_up(&self, account: &mut Account) -> Denial {
        if self.room() == UNLIMITED && self.ends(0).is_none() {
            return pending().await;
        }
        let mut is_refused = false;
        loop {
            self.is_low(is_refused).await;
            let (bytes, seconds) = if is_refused { (0, 0) } else { (self.bytes.low(), self.seconds.low()) };
            let next = (self.traffic.all() / PART).clamp(LEAST, MOST);
            let wanted = if self.room() <= bytes { next } else { 0 };
            let ends_soon = self.ends(seconds).is_some_and(|ends| ends <= Instant::now());
            match account.extend(wanted, if ends_soon { SECONDS } else { 0 }).await {
                Ok(allowance) => {
                    self.allow(allowance);
                    is_refused = false;
                }
                Err(denial) if is_refused => return denial,
                Err(_) => is_refused = true,
            }
        }
    }
}
