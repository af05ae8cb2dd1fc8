//! How a connection is told that it has to end. What it polls for this is one flag.
//!
//! **Invariant:** whoever drives the connection hears each order once. All who wait for its abort hear of that, also those who came later.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::Poll;

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

/// How a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shutdown {
    /// Finish what is under way and take no more.
    Graceful,
    /// End now.
    Abort,
}

/// Where a connection waits to be told.
#[derive(Debug, Default)]
pub(crate) struct ShutdownSignal {
    /// 0, or one more than the order.
    order: AtomicU8,
    /// There is something to look at.
    told: AtomicBool,
    driver: AtomicWaker,
    others: Notify,
}

impl ShutdownSignal {
    pub(super) fn send(&self, order: Shutdown) {
        if self.order.fetch_max(order as u8 + 1, Ordering::AcqRel) <= order as u8 {
            self.wake();
            if order == Shutdown::Abort {
                self.others.notify_waiters();
            }
        }
    }

    /// Has the connection look at itself.
    pub(super) fn wake(&self) {
        self.told.store(true, Ordering::Release);
        self.driver.wake();
    }

    /// For the one who drives the connection: waits for the next order. `None`: there is none, but something to look at.
    pub(crate) async fn received(&self) -> Option<Shutdown> {
        poll_fn(|cx| {
            // First, so that nothing is missed.
            self.driver.register(cx.waker());
            let is_told = self.told.load(Ordering::Acquire) && self.told.swap(false, Ordering::AcqRel);
            if is_told { Poll::Ready(self.order()) } else { Poll::Pending }
        })
        .await
    }

    /// For everybody who works for the connection: ready once it is to end now.
    pub(crate) async fn aborted(&self) {
        loop {
            let mut told = pin!(self.others.notified());
            // From here on nothing is missed.
            told.as_mut().enable();
            if self.order() == Some(Shutdown::Abort) {
                return;
            }
            told.await;
        }
    }

    fn order(&self) -> Option<Shutdown> {
        match self.order.load(Ordering::Acquire) {
            0 => None,
            order if order > Shutdown::Abort as u8 => Some(Shutdown::Abort),
            _ => Some(Shutdown::Graceful),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_who_wait_for_the_abort_hear_of_it_and_take_nothing_from_the_driver() {
        let signal = ShutdownSignal::default();
        let all = async { tokio::join!(signal.aborted(), signal.aborted(), signal.aborted()) };
        let told = async {
            signal.send(Shutdown::Graceful);
            tokio::task::yield_now().await;
            signal.send(Shutdown::Abort);
        };
        tokio::join!(all, told);
        assert_eq!(signal.received().await, Some(Shutdown::Abort));
        signal.aborted().await;
    }

    #[tokio::test]
    async fn an_order_is_heard_once_and_a_stronger_one_again() {
        let signal = ShutdownSignal::default();
        signal.send(Shutdown::Graceful);
        signal.send(Shutdown::Graceful);
        assert_eq!(signal.received().await, Some(Shutdown::Graceful));
        signal.send(Shutdown::Graceful);
        signal.send(Shutdown::Abort);
        assert_eq!(signal.received().await, Some(Shutdown::Abort));
    }
}
