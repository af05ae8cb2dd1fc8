//! What happens to secrets, told to whoever keeps the audit trail.
//!
//! **Invariant:** a value that is new is used only after the observer has said that it is written down; without that
//! word it is not used at all. Everything else is told and not waited for. No event holds a value.
//!
//! Deliberately lacks: knowledge of files and times; the observer has both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time;
use tollgate_policy::name::{Name, ResourceId};

use crate::error::Failure;
use crate::secret::Version;

/// Events that may wait for the observer; there are a few a minute.
const WAITING: usize = 1024;
/// How long a new value waits until it is written down.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// The store that it is about, or in which the secret is.
    pub store: ResourceId,
    /// The secret, as operators know it (`store:path#field@version`); `None` where it is the store as a whole.
    pub secret: Option<Arc<str>>,
    /// The credentials of the policy that use the secret, sorted.
    pub credentials: Arc<[ResourceId]>,
    /// What they call this key, where they have others; sorted.
    pub aliases: Arc<[Name]>,
    /// What it was.
    pub what: What,
}

/// The kinds of events.
#[derive(Clone, Debug)]
pub enum What {
    /// A value came into use where there was none.
    Fetched {
        /// The value's version.
        version: Version,
    },
    /// Another value took the place of the one in use.
    Rotated {
        /// The version in use so far.
        from: Version,
        /// The one from now on.
        to: Version,
    },
    /// A provider refused this version; said at most once a version in 30 seconds.
    Rejected {
        /// The version refused.
        version: Version,
    },
    /// The store's own word ended the value in use.
    Revoked {
        /// The version that was in use.
        version: Version,
        /// What the store said.
        failure: Failure,
    },
    /// The store cannot be asked, or not for this secret.
    Unavailable {
        /// The version that is no longer used because of it.
        ended: Option<Version>,
        /// Why.
        failure: Failure,
    },
    /// What was unavailable is no longer.
    Recovered,
    /// The policy no longer uses the value.
    Withdrawn {
        /// The version that was in use.
        version: Version,
    },
}

/// An event on its way to the observer.
#[derive(Debug)]
pub struct Observation {
    /// What happened.
    pub event: Event,
    /// To be sent to when it is written down. There only where somebody waits for that.
    pub written: Option<oneshot::Sender<()>>,
}

/// Where the cache tells what happens.
#[derive(Clone, Debug, Default)]
pub struct Observer(Option<Told>);

#[derive(Clone, Debug)]
struct Told {
    sender: SyncSender<Observation>,
    lost: Arc<AtomicU64>,
}

/// The other end of an [`Observer`].
#[derive(Debug)]
pub struct Observations {
    receiver: Receiver<Observation>,
    lost: Arc<AtomicU64>,
}

impl Observer {
    /// One that tells nobody, for commands that write nothing down.
    #[must_use]
    pub const fn nobody() -> Self {
        Self(None)
    }

    /// An observer and what it observes.
    #[must_use]
    pub fn channel() -> (Self, Observations) {
        let (sender, receiver) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        (Self(Some(Told { sender, lost: Arc::clone(&lost) })), Observations { receiver, lost })
    }

    /// Tells what happened. Never waits.
    pub(crate) fn tell(&self, event: Event) {
        if let Some(told) = &self.0
            && told.sender.try_send(Observation { event, written: None }).is_err()
        {
            told.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells what is about to happen, and waits until it is written down.
    pub(crate) async fn tell_first(&self, event: Event) -> Result<(), Failure> {
        let Some(told) = &self.0 else { return Ok(()) };
        let (written, answer) = oneshot::channel();
        let observation = Observation { event, written: Some(written) };
        told.sender.try_send(observation).map_err(|_| Failure::Unrecorded)?;
        match time::timeout(WRITE_LIMIT, answer).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Failure::Unrecorded),
        }
    }
}

impl Observations {
    /// The next event, for as long as `patience` lasts.
    ///
    /// # Errors
    /// Whether there was none in time, or nobody is left to tell any.
    pub fn next(&self, patience: Duration) -> Result<Observation, RecvTimeoutError> {
        self.receiver.recv_timeout(patience)
    }

    /// The next event, if there is one.
    #[must_use]
    pub fn ready(&self) -> Option<Observation> {
        self.receiver.try_recv().ok()
    }

    /// How many events were not taken since this was last asked, because too many were waiting.
    #[must_use]
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            store: "bao".parse().unwrap(),
            secret: None,
            credentials: Arc::default(),
            aliases: Arc::default(),
            what: What::Recovered,
        }
    }

    #[test]
    fn what_nobody_takes_is_counted_and_never_waited_for() {
        let (observer, observations) = Observer::channel();
        for _ in 0..WAITING + 3 {
            observer.tell(event());
        }
        assert_eq!(observations.take_lost(), 3);
        assert_eq!(observations.take_lost(), 0);
        assert_eq!(std::iter::from_fn(|| observations.ready()).count(), WAITING);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_to_be_written_first_fails_unless_somebody_says_that_it_is() {
        let (observer, observations) = Observer::channel();
        assert_eq!(observer.tell_first(event()).await, Err(Failure::Unrecorded), "nobody answers");
        let _ = observations.ready();
        let answering = async {
            loop {
                if let Some(observation) = observations.ready() {
                    let _ = observation.written.unwrap().send(());
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let event_told = observer.tell_first(event());
        let (told, ()) = tokio::join!(event_told, answering);
        assert_eq!(told, Ok(()));
        drop(observations);
        assert_eq!(observer.tell_first(event()).await, Err(Failure::Unrecorded), "nobody is there");
        assert_eq!(Observer::nobody().tell_first(event()).await, Ok(()));
    }
}
