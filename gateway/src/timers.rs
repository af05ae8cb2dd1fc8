//! Timers that are used again: to set one anew costs little, to make and drop one for every call does not.
//!
//! **Invariant:** a timer is one future's at a time. One that nobody uses goes off once more, and wakes for nothing whoever had it last.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// How many are kept: each may keep the memory of a task that is over until it goes off.
const KEPT: usize = 64;

/// Those of one core. Its lock is never contended.
#[derive(Debug, Default)]
pub(crate) struct Timers(Mutex<Vec<Pin<Box<Sleep>>>>);

/// The time was over first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Elapsed;

/// A future that has until then.
#[derive(Debug)]
pub(crate) struct UntilDeadline<'a, F> {
    timers: &'a Timers,
    deadline: Instant,
    /// Set once the future has to be waited for.
    timer: Option<Pin<Box<Sleep>>>,
    future: F,
}

impl Timers {
    /// What `future` gives, where that comes before `deadline`.
    pub(crate) const fn until<F>(&self, deadline: Instant, future: F) -> UntilDeadline<'_, F> {
        UntilDeadline { timers: self, deadline, timer: None, future }
    }

    fn take(&self, deadline: Instant) -> Pin<Box<Sleep>> {
        let Some(mut timer) = self.kept().pop() else { return Box::pin(sleep_until(deadline)) };
        timer.as_mut().reset(deadline);
        timer
    }

    fn put(&self, timer: Pin<Box<Sleep>>) {
        let mut kept = self.kept();
        if kept.len() < KEPT {
            kept.push(timer);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Pin<Box<Sleep>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future + Unpin> Future for UntilDeadline<'_, F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { timers, deadline, timer, future } = &mut *self;
        if let Poll::Ready(output) = Pin::new(future).poll(cx) {
            timer.take().into_iter().for_each(|timer| timers.put(timer));
            return Poll::Ready(Ok(output));
        }
        timer.get_or_insert_with(|| timers.take(*deadline)).as_mut().poll(cx).map(|()| Err(Elapsed))
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use tokio::task::yield_now;

    use super::*;

    async fn elapses(timers: &Timers, limit: Duration) -> Duration {
        let begun = Instant::now();
        assert_eq!(timers.until(begun + limit, pending::<()>()).await, Err(Elapsed));
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_is_used_again_goes_off_when_it_is_told_to_whatever_it_was_told_before() {
        let (timers, second) = (Timers::default(), Duration::from_secs(1));
        assert_eq!(timers.until(Instant::now(), ready(7)).await, Ok(7));
        assert!(timers.kept().is_empty(), "nothing was waited for");
        for limit in [60, 3, 10] {
            assert_eq!(timers.until(Instant::now() + second * 60, Box::pin(yield_now())).await, Ok(()));
            assert_eq!(timers.kept().len(), 1);
            let waited = elapses(&timers, second * limit).await;
            assert!(waited.abs_diff(second * limit) < second / 10, "{waited:?} of {limit}");
            assert!(timers.kept().is_empty(), "what went off is not kept");
        }
        assert_eq!(timers.until(Instant::now() + second, Box::pin(yield_now())).await, Ok(()));
        tokio::time::advance(second * 60).await;
        let waited = elapses(&timers, second * 5).await;
        assert!(waited.abs_diff(second * 5) < second / 10, "{waited:?} of one that went off unused");
    }
}
