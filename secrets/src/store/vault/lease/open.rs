//! The leases that the vault has not taken back yet.
//!
//! **Invariant:** an entry goes when its lease is revoked or has ended by itself. The id of a lease is in no message.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::super::client::{Question, json};
use super::super::session::Session;
use crate::error::Failure;

/// A call that was just sent may not have been let in yet.
const LINGER: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// From when to when a lease runs.
#[derive(Clone, Copy)]
pub(super) struct Term {
    pub(super) since: Instant,
    pub(super) ends: Instant,
}

impl Term {
    pub(super) fn length(self) -> Duration {
        self.ends.saturating_duration_since(self.since)
    }
}

#[derive(Default)]
pub(super) struct Open {
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    last: u64,
    by_number: HashMap<u64, Entry>,
}

#[derive(Clone)]
struct Entry {
    path: Arc<str>,
    id: Arc<Zeroizing<String>>,
    term: Arc<Mutex<Term>>,
}

impl Entry {
    fn ends(&self) -> Instant {
        self.term.lock().unwrap_or_else(PoisonError::into_inner).ends
    }
}

impl Open {
    /// The number that the lease goes by.
    pub(super) fn add(&self, path: &str, id: Zeroizing<String>, term: Arc<Mutex<Term>>) -> u64 {
        let mut entries = self.entries();
        entries.last += 1;
        let number = entries.last;
        entries.by_number.insert(number, Entry { path: path.into(), id: Arc::new(id), term });
        number
    }

    pub(super) fn id(&self, number: u64) -> Option<Arc<Zeroizing<String>>> {
        self.entries().by_number.get(&number).map(|entry| Arc::clone(&entry.id))
    }

    pub(super) fn any(&self) -> bool {
        !self.entries().by_number.is_empty()
    }

    /// Revokes the lease shortly, however often that takes until it ends by itself.
    pub(super) async fn give_back(&self, session: &Arc<Session>, number: u64) {
        let mut pause = LINGER;
        let mut next = FIRST_PAUSE;
        loop {
            time::sleep(pause).await;
            let Some(entry) = self.entries().by_number.get(&number).cloned() else { return };
            if Instant::now() >= entry.ends() || self.revoked(session, number, &entry).await {
                self.entries().by_number.remove(&number);
                return;
            }
            (pause, next) = (next, (next * 2).min(LONGEST_PAUSE));
        }
    }

    /// Revokes all of them at once, each with one attempt.
    pub(super) async fn close(&self, session: &Arc<Session>) {
        let entries = std::mem::take(&mut self.entries().by_number);
        let mut revoking = JoinSet::new();
        for (_, entry) in entries.into_iter().filter(|(_, entry)| Instant::now() < entry.ends()) {
            let session = Arc::clone(session);
            revoking.spawn(async move { said(&entry, revoke(&session, &entry.id).await) });
        }
        while revoking.join_next().await.is_some() {}
    }

    /// Whether there is nothing more to be done for it.
    async fn revoked(&self, session: &Arc<Session>, number: u64, entry: &Entry) -> bool {
        let outcome = revoke(session, &entry.id).await;
        // A close meanwhile has seen to it.
        if self.id(number).is_none() {
            return true;
        }
        match outcome {
            Ok(()) | Err(Failure::Denied) => {
                said(entry, outcome);
                true
            }
            Err(_) => false,
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn revoke(session: &Arc<Session>, id: &str) -> Result<(), Failure> {
    let question = Question::post(session.client(), "sys/leases/revoke")?;
    let answer = session.ask_with(&question, || json(&[("lease_id", id.as_bytes())]).map(Some)).await?.1;
    match answer.status {
        // 400: the vault knows no such lease any more.
        200 | 204 | 400 | 404 => Ok(()),
        503 => Err(Failure::Sealed),
        status => Err(Failure::Status(status)),
    }
}

fn said(entry: &Entry, outcome: Result<(), Failure>) {
    let path = &*entry.path;
    match outcome {
        Ok(()) => info!(path, "lease revoked"),
        Err(error) => {
            let seconds = entry.ends().saturating_duration_since(Instant::now()).as_secs();
            warn!(
                path,
                %error,
                seconds,
                "lease not revoked, it ends by itself; the gateway's policy in the vault needs `update` on `sys/leases/revoke`"
            );
        }
    }
}
