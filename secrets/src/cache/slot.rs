//! One cached secret: its value, the one fetch that may be under way, and when the next may start.
//!
//! **Invariant:** at most one fetch at a time, and none before the back-off of a failed one is over, however many
//! callers ask. A fetch runs on the control runtime and outlives the callers that wait for it. Dropping the slot ends
//! its tasks and lets go of its value.

mod rejection;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{self, Instant};
use tollgate_policy::name::{Name, ResourceId};
use tollgate_policy::policy::Credential;
use tracing::{debug, info, warn};

pub use self::rejection::Refreshed;
use self::rejection::Rejection;
pub use self::status::{CredentialStatus, Health};
use crate::error::Failure;
use crate::jitter::jittered;
use crate::mint::Issuer;
use crate::observe::{Event, Observer, What};
use crate::origin::Origin;
use crate::read::FileStamp;
use crate::reference::{Freshness, Reference};
use crate::secret::Secret;
use crate::store::Fetched;

/// The first pause after a failure; doubles up to [`LONGEST_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(15);
/// The same where asking shows nothing to anybody: files of this machine.
const LONGEST_LOCAL_BACKOFF: Duration = Duration::from_secs(1);
/// The same for what is not shown again before it is another: then that is soon seen.
const LONGEST_REFUSED_BACKOFF: Duration = Duration::from_secs(5);

type Outcome = Result<Arc<Secret>, Failure>;
type Landing = watch::Receiver<Option<Outcome>>;

pub(super) struct Slot {
    reference: Arc<Reference>,
    description: Arc<str>,
    origin: Arc<Origin>,
    handle: Handle,
    observer: Observer,
    held: ArcSwapOption<Held>,
    inner: Mutex<Inner>,
}

/// A value and how long it may be used. Replaced as a whole, so that readers need no lock.
struct Held {
    secret: Arc<Secret>,
    fetched: Instant,
    /// When it ends, whatever the freshness.
    expires: Option<Instant>,
    use_until: Instant,
}

struct Inner {
    freshness: Freshness,
    flight: Option<Flight>,
    timer: Option<AbortHandle>,
    /// When the timer fires.
    next: Option<Instant>,
    failures: u32,
    /// The last failure and when the store may be asked again; `None` after a success.
    barred: Option<(Failure, Instant)>,
    rejection: Rejection,
    /// The state of the files at the last fetch, where the store is one of files.
    stamp: Option<FileStamp>,
    /// The credentials that use it, their names, and what they call it if they have others.
    users: Arc<[Arc<Credential>]>,
    credentials: Arc<[ResourceId]>,
    aliases: Arc<[Name]>,
}

struct Flight {
    landing: Landing,
    task: AbortHandle,
}

impl Slot {
    pub(super) fn new(
        reference: Reference,
        description: String,
        freshness: Freshness,
        origin: Origin,
        handle: Handle,
    ) -> Self {
        Self {
            description: description.into(),
            reference: Arc::new(reference),
            observer: origin.observer.clone(),
            origin: Arc::new(origin),
            handle,
            held: ArcSwapOption::empty(),
            inner: Mutex::new(Inner {
                freshness,
                flight: None,
                timer: None,
                next: None,
                failures: 0,
                barred: None,
                rejection: Rejection::default(),
                stamp: None,
                users: Arc::default(),
                credentials: Arc::default(),
                aliases: Arc::default(),
            }),
        }
    }

    pub(super) fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Who makes its value, where it is minted.
    pub(super) fn issuer(&self) -> Option<&Arc<Issuer>> {
        self.origin.mint.as_ref().map(|maker| &maker.issuer)
    }

    /// The value while it may be used. Takes no lock.
    pub(super) fn peek(&self) -> Option<Arc<Secret>> {
        let held = self.held.load();
        let held = held.as_ref()?;
        (Instant::now() < held.use_until).then(|| Arc::clone(&held.secret))
    }

    /// The value, fetched if need be. Dropping the future leaves the fetch running for the others.
    pub(super) async fn get(self: &Arc<Self>) -> Outcome {
        let landing = {
            let mut inner = self.inner();
            // Under the lock: a fetch may have landed since the caller's `peek`.
            if let Some(secret) = self.peek() {
                return Ok(secret);
            }
            match (self.under_way(&mut inner), inner.barred_at(Instant::now())) {
                (Some(landing), _) => landing,
                (None, Some(failure)) => return Err(failure),
                (None, None) => self.start(&mut inner),
            }
        };
        landed(landing).await
    }

    /// Applies the freshness of a new policy to the value that is held.
    pub(super) fn retune(self: &Arc<Self>, freshness: Freshness) {
        let mut inner = self.inner();
        if inner.freshness == freshness {
            return;
        }
        inner.freshness = freshness;
        if let Some(held) = self.held.load_full() {
            let failing = inner.barred.is_some();
            self.hold(&held, held.use_until(freshness, failing));
            if !failing {
                self.schedule(&mut inner, held.refresh_at(freshness));
            }
        }
    }

    /// Says whom the secret is for.
    pub(super) fn serve(&self, credentials: BTreeMap<ResourceId, Arc<Credential>>, aliases: BTreeSet<Name>) {
        let (names, users): (Vec<_>, Vec<_>) = credentials.into_iter().unzip();
        let mut inner = self.inner();
        (inner.credentials, inner.users) = (names.into(), users.into());
        inner.aliases = aliases.into_iter().collect();
    }

    /// The policy no longer uses it.
    pub(super) fn withdrawn(&self) {
        if let Some(held) = self.held.load_full() {
            let version = held.secret.version().clone();
            self.observer.tell(self.event(&self.inner(), What::Withdrawn { version }));
        }
    }

    fn event(&self, inner: &Inner, what: What) -> Event {
        let secret = Some(Arc::clone(&self.description));
        let store = self.reference.store.name.clone();
        let (credentials, aliases) = (Arc::clone(&inner.credentials), Arc::clone(&inner.aliases));
        Event { store, secret, credentials, aliases, what }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fetch that is in the air. One that ended without landing, by a panic or because the runtime is shutting
    /// down, counts as failed.
    fn under_way(self: &Arc<Self>, inner: &mut Inner) -> Option<Landing> {
        if inner.flight.as_ref()?.task.is_finished() {
            inner.flight = None;
            let _ = self.fail(inner, Failure::Internal);
            return None;
        }
        inner.flight.as_ref().map(|flight| flight.landing.clone())
    }

    fn start(self: &Arc<Self>, inner: &mut Inner) -> Landing {
        let (send, landing) = watch::channel(None);
        let slot = Arc::downgrade(self);
        let (origin, reference) = (Arc::clone(&self.origin), Arc::clone(&self.reference));
        let task = self.handle.spawn(async move {
            // Before it is read: what changes meanwhile is seen to have changed.
            let stamp = origin.stamp(&reference).await;
            let fetched = origin.fetch(&reference).await;
            if let Some(slot) = slot.upgrade() {
                slot.inner().stamp = stamp;
                let outcome = slot.land(fetched).await;
                send.send_replace(Some(outcome));
            }
        });
        inner.flight = Some(Flight { landing: landing.clone(), task: task.abort_handle() });
        landing
    }

    async fn land(self: &Arc<Self>, fetched: Result<Fetched, Failure>) -> Outcome {
        let fetched = match fetched {
            Ok(fetched) => self.witnessed(fetched).await,
            Err(failure) => Err(failure),
        };
        let mut inner = self.inner();
        inner.flight = None;
        match fetched {
            Ok(held) => Ok(self.accept(&mut inner, held)),
            Err(failure) => self.fail(&mut inner, failure),
        }
    }

    /// The value to hold, once it is written down where its version is not the one in use.
    async fn witnessed(&self, fetched: Fetched) -> Result<Held, Failure> {
        let Fetched { value, version, lease, expires } = fetched;
        let description = Arc::clone(&self.description);
        let secret = Secret::new(description, value, version, &self.origin.versions)?.leased(lease);
        self.check(&secret)?;
        let to = secret.version().clone();
        let what = match self.held.load_full().map(|held| held.secret.version().clone()) {
            Some(from) if from == to => None,
            Some(from) => Some(What::Rotated { from, to }),
            None => Some(What::Fetched { version: to }),
        };
        if let Some(what) = what {
            let event = self.event(&self.inner(), what);
            self.observer.tell_first(event).await?;
        }
        let fetched = Instant::now();
        if expires.is_some_and(|expires| expires <= fetched) {
            return Err(Failure::Malformed("it was over before it came"));
        }
        Ok(Held { secret: Arc::new(secret), fetched, expires, use_until: fetched })
    }

    /// Whether one of those that it is for can use it. What another can, is not taken from it because of one that is written wrong.
    fn check(&self, secret: &Secret) -> Result<(), Failure> {
        let users = Arc::clone(&self.inner().users);
        let mut flaw = None;
        for user in &*users {
            match (self.origin.fits)(user, secret) {
                Ok(()) => return Ok(()),
                Err(found) => flaw = Some(found),
            }
        }
        flaw.map_or(Ok(()), |flaw| Err(Failure::Malformed(flaw)))
    }

    fn accept(self: &Arc<Self>, inner: &mut Inner, mut landed: Held) -> Arc<Secret> {
        let before = self.held.load_full();
        if let Some((failure, _)) = inner.barred.take()
            && failure.concerns_secret()
        {
            if failure != Failure::Unrecorded {
                info!(secret = &*self.description, "secret available again");
            }
            // That it is fetched or rotated is told already.
            if before.as_ref().is_some_and(|before| before.secret.version() == landed.secret.version()) {
                self.observer.tell(self.event(inner, What::Recovered));
            }
        }
        inner.failures = 0;
        if let Some(before) = before {
            let (from, to) = (before.secret.version(), landed.secret.version());
            if before.secret.is_same(&landed.secret) {
                // The owner that others already hold, so that nothing keyed by it has to be made again.
                landed.secret = Arc::clone(&before.secret);
            } else if self.origin.mint.is_some() {
                debug!(secret = &*self.description, %from, %to, "secret minted anew");
            } else {
                info!(secret = &*self.description, %from, %to, "secret rotated");
            }
        }
        self.hold(&landed, landed.use_until(inner.freshness, false));
        self.schedule(inner, landed.refresh_at(inner.freshness));
        landed.secret
    }

    fn fail(self: &Arc<Self>, inner: &mut Inner, failure: Failure) -> Outcome {
        let is_news = failure.concerns_secret() && inner.barred.map(|(before, _)| before) != Some(failure);
        // That the trail cannot be written is said once, by whoever keeps it.
        if is_news && failure != Failure::Unrecorded {
            let said = self.origin.said();
            warn!(secret = &*self.description, error = %failure, said = said.as_deref(), "secret not available");
        }
        let now = Instant::now();
        let retry_at = now + backoff(inner.failures, self.longest_backoff(failure));
        inner.failures = inner.failures.saturating_add(1);
        inner.barred = Some((failure, retry_at));
        let stale = self
            .held
            .load_full()
            .filter(|held| !failure.revokes() && now < held.use_until(inner.freshness, true));
        let Some(held) = stale else {
            let ended = self.held.swap(None).map(|held| held.secret.version().clone());
            let what = match ended {
                Some(version) if failure.revokes() => Some(What::Revoked { version, failure }),
                None if !is_news => None,
                ended => Some(What::Unavailable { ended, failure }),
            };
            what.into_iter().for_each(|what| self.observer.tell(self.event(inner, what)));
            return Err(failure);
        };
        if is_news {
            self.observer.tell(self.event(inner, What::Unavailable { ended: None, failure }));
        }
        self.hold(&held, held.use_until(inner.freshness, true));
        // Only what is held is retried unasked. What is not, the next caller asks for.
        self.schedule(inner, retry_at);
        Ok(Arc::clone(&held.secret))
    }

    fn longest_backoff(&self, failure: Failure) -> Duration {
        match failure {
            Failure::Login(_) | Failure::MintRefused(_) => LONGEST_REFUSED_BACKOFF,
            _ if self.origin.mint.is_none() && self.origin.store.is_local() => LONGEST_LOCAL_BACKOFF,
            _ => LONGEST_BACKOFF,
        }
    }

    fn hold(&self, held: &Held, use_until: Instant) {
        let Held { secret, fetched, expires, .. } = held;
        let (secret, fetched, expires) = (Arc::clone(secret), *fetched, *expires);
        self.held.store(Some(Arc::new(Held { secret, fetched, expires, use_until })));
    }

    /// Fetches at `at`, or when the store says that there is another value, unless the slot is gone by then.
    fn schedule(self: &Arc<Self>, inner: &mut Inner, at: Instant) {
        let slot = Arc::downgrade(self);
        let (origin, reference) = (Arc::clone(&self.origin), Arc::clone(&self.reference));
        let task = self.handle.spawn(async move {
            tokio::select! {
                () = time::sleep_until(at) => {}
                () = origin.changed(&reference) => {}
            }
            if let Some(slot) = slot.upgrade() {
                let mut inner = slot.inner();
                if slot.under_way(&mut inner).is_none() {
                    slot.start(&mut inner);
                }
            }
        });
        inner.next = Some(at);
        if let Some(before) = inner.timer.replace(task.abort_handle()) {
            before.abort();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(timer) = inner.timer.take() {
            timer.abort();
        }
        if let Some(flight) = inner.flight.take() {
            flight.task.abort();
        }
    }
}

impl Held {
    /// How long it is used: as its lease says, or its freshness as far as its own life allows.
    fn use_until(&self, freshness: Freshness, failing: bool) -> Instant {
        let Freshness { refresh, max_stale } = self.as_it_lives(freshness);
        match self.secret.lease() {
            Some(lease) => lease.use_until(),
            None => self.fetched + if failing { max_stale } else { refresh },
        }
    }

    /// When the next is fetched: two thirds of the refresh time or of the lease, ±10 %, early enough to fail a few times before anybody
    /// has to wait.
    fn refresh_at(&self, freshness: Freshness) -> Instant {
        match self.secret.lease() {
            Some(lease) => lease.renew_at(),
            None => self.fetched + jittered(self.as_it_lives(freshness).refresh * 2 / 3),
        }
    }

    fn as_it_lives(&self, freshness: Freshness) -> Freshness {
        self.expires
            .map_or(freshness, |expires| freshness.within(expires.saturating_duration_since(self.fetched)))
    }
}

impl Inner {
    fn barred_at(&self, now: Instant) -> Option<Failure> {
        self.barred.and_then(|(failure, until)| (now < until).then_some(failure))
    }
}

async fn landed(mut landing: Landing) -> Outcome {
    match landing.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone().unwrap_or(Err(Failure::Internal)),
        Err(_) => Err(Failure::Internal),
    }
}

fn backoff(failures: u32, longest: Duration) -> Duration {
    jittered(FIRST_BACKOFF.saturating_mul(1 << failures.min(10)).min(longest))
}
