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
const LEAST: u64 = 1 << 20;
const MOST: u64 = 64 << 20;
const PART: u64 = 8;
/// The next piece is taken while so much is left.
const LOW: u64 = LEAST / 2;
const SECONDS: u64 = 60;
const LOW_SECONDS: u64 = 5;

/// What may pass, and for how long.
#[derive(Debug)]
pub(super) struct Budget {
    traffic: Arc<Traffic>,
    begun: Instant,
    bytes: AtomicU64,
    seconds: AtomicU64,
    /// Each way, who waits to read.
    waiting: Mutex<[Option<Waker>; 2]>,
    asked: Notify,
}

impl Budget {
    pub(super) fn new(traffic: Arc<Traffic>, allowance: Allowance) -> Self {
        let budget = Self {
            traffic,
            begun: Instant::now(),
            bytes: AtomicU64::new(UNLIMITED),
            seconds: AtomicU64::new(UNLIMITED),
            waiting: Mutex::default(),
            asked: Notify::new(),
        };
        budget.allow(allowance);
        budget
    }

    /// Bytes that may still be read.
    pub(super) fn room(&self) -> u64 {
        match self.bytes.load(Ordering::Relaxed) {
            UNLIMITED => UNLIMITED,
            bytes => bytes.saturating_sub(self.traffic.all()),
        }
    }

    /// Bytes were read.
    pub(super) fn used(&self) {
        if self.room() < LOW {
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
        self.bytes.store(allowance.bytes.unwrap_or(UNLIMITED), Ordering::Relaxed);
        self.seconds.store(allowance.seconds.unwrap_or(UNLIMITED), Ordering::Relaxed);
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    /// When so many seconds are left; `None`: it may last.
    fn ends(&self, left: u64) -> Option<Instant> {
        match self.seconds.load(Ordering::Relaxed) {
            UNLIMITED => None,
            seconds => Some(self.begun + Duration::from_secs(seconds.saturating_sub(left))),
        }
    }

    /// Ready once at most so many bytes or seconds are left.
    async fn is_low(&self, bytes: u64, seconds: u64) {
        while self.room() > bytes {
            let ends = self.ends(seconds);
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
            let (bytes, seconds) = if is_refused { (0, 0) } else { (LOW, LOW_SECONDS) };
            self.is_low(bytes, seconds).await;
            let next = (self.traffic.all() / PART).clamp(LEAST, MOST);
            let wanted = if self.room() <= LOW { next } else { 0 };
            let ends_soon = self.ends(LOW_SECONDS).is_some_and(|ends| ends <= Instant::now());
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
