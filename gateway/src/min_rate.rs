//! How fast a caller has to be that holds what others share: a budget's hold, a place, bytes of held bodies.
//!
//! **Invariant:** only the time that the gateway waits for the caller counts. A provider may take as long as it likes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// What is asked of a caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MinRate {
    /// Bytes a second, at least 1.
    pub(crate) bytes: u64,
    /// How long it may be behind that.
    pub(crate) patience: Duration,
    /// How long the whole may take.
    pub(crate) lifetime: Duration,
}

impl MinRate {
    /// How long these bytes may take.
    pub(crate) fn time_for(&self, bytes: usize) -> Duration {
        let nanos = (bytes as u64).saturating_mul(1_000_000_000) / self.bytes.max(1);
        Duration::from_nanos(nanos)
    }
}

/// Whether the bytes of one caller come fast enough. Time that is waited uses its credit up, bytes give it back, up to the patience: what
/// came fast buys no silence later.
#[derive(Debug)]
pub(crate) struct MinRateClock {
    min: MinRate,
    credit: Duration,
    since: Option<Instant>,
    until: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl MinRateClock {
    pub(crate) fn new(min: MinRate) -> Self {
        let until = Instant::now() + min.lifetime;
        Self { min, credit: min.patience, since: None, until, timer: None }
    }

    /// Bytes came, or none were waited for any more.
    pub(crate) fn came(&mut self, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.credit = self.credit.saturating_sub(since.elapsed());
        }
        self.credit = self.min.patience.min(self.credit + self.min.time_for(bytes));
    }

    /// Until when the caller has time, now that it is waited for.
    pub(crate) fn due(&mut self) -> Instant {
        let since = *self.since.get_or_insert_with(Instant::now);
        self.until.min(since + self.credit)
    }

    /// Ready where it took too long. To be polled while the caller is waited for.
    pub(crate) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // It only ever moves on, so a timer that was set earlier is not late.
        let due = self.due();
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const LEAST: MinRate =
        MinRate { bytes: 1_000, patience: Duration::from_secs(30), lifetime: Duration::from_secs(600) };

    async fn late(rate_clock: &mut MinRateClock) -> Duration {
        let begun = Instant::now();
        poll_fn(|cx| rate_clock.poll_late(cx)).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_fast_buys_no_silence() {
        let mut rate_clock = MinRateClock::new(LEAST);
        rate_clock.came(8 << 20);
        assert_eq!(late(&mut rate_clock).await.as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_late_and_the_min_rate_is_not() {
        let mut trickle = MinRateClock::new(LEAST);
        let mut seconds = 0;
        while tokio::time::timeout(Duration::from_secs(1), late(&mut trickle)).await.is_err() {
            trickle.came(1);
            seconds += 1;
        }
        assert!((29..=31).contains(&seconds), "{seconds}");
        let mut steady = MinRateClock::new(LEAST);
        for _ in 0..300 {
            assert!(tokio::time::timeout(Duration::from_secs(1), late(&mut steady)).await.is_err());
            steady.came(1_000);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_nobody_waits_for_the_caller_does_not_count_and_all_has_an_end() {
        let mut rate_clock = MinRateClock::new(LEAST);
        tokio::time::advance(Duration::from_secs(500)).await;
        assert_eq!(late(&mut rate_clock).await.as_secs(), 30);
        let mut rate_clock = MinRateClock::new(LEAST);
        let begun = Instant::now();
        while tokio::time::timeout(Duration::from_secs(1), late(&mut rate_clock)).await.is_err() {
            rate_clock.came(100_000);
        }
        assert!((599..=601).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    }
}
