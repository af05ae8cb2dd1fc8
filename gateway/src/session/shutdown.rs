//! How a connection is told that it has to end. What it polls for this is one flag.

use std::sync::atomic::{AtomicU8, Ordering};

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
    notify: Notify,
}

impl ShutdownSignal {
    pub(super) fn send(&self, order: Shutdown) {
        if self.order.fetch_max(order as u8 + 1, Ordering::AcqRel) <= order as u8 {
            self.notify.notify_one();
        }
    }

    /// Has the connection look at itself.
    pub(super) fn wake(&self) {
        self.notify.notify_one();
    }

    /// Waits for the next order. `None`: there is none, but something to look at.
    pub(crate) async fn received(&self) -> Option<Shutdown> {
        self.notify.notified().await;
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
