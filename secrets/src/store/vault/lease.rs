//! Dynamic secrets: what an engine made for this gateway alone, and lent it for a time.
//!
//! **Invariant:** one path has one lease, of which every field is taken. A lease counts as ended no later than the vault
//! ends it, be it by its own time or because the login that it was taken with ends. Whoever drops the last owner of
//! a [`Lease`] gives it back; what is not given back yet is in [`Leases::open`].
//!
//! Deliberately lacks: a clock of its own. Whoever holds a lease asks again at [`Lease::renew_at`].

mod open;

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, PoisonError, Weak};
use std::time::Duration;

use reqwest::header::HeaderValue;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::info;
use zeroize::Zeroizing;

use self::open::{Open, Term};
use super::answer::{self, Lent};
use super::client::{Client, Question, json};
use super::session::Session;
use crate::error::Failure;
use crate::jitter::jittered;
use crate::store::field;
use crate::value::Value;

/// Whoever asks again so soon wants another field of the same answer.
const YOUNG: Duration = Duration::from_secs(1);
/// No value is handed out so shortly before its end that it could end on its way.
const LONGEST_MARGIN: Duration = Duration::from_secs(5);
const ENDING: Failure = Failure::Login("it ends too soon for anything to be leased with it");

/// What a vault lent. Dropping the last owner gives it back.
pub(crate) struct Lease {
    data: Zeroizing<Vec<u8>>,
    /// The login that it hangs on.
    token: HeaderValue,
    renewable: bool,
    /// The time it was first given; a renewal that grants much less is near the maximum.
    first: Duration,
    term: Arc<StdMutex<Term>>,
    number: u64,
    leases: Arc<Leases>,
    handle: Handle,
}

/// The leases of one vault.
pub(super) struct Leases {
    client: Arc<Client>,
    session: Arc<Session>,
    /// The lease of each path, locked while the vault is asked about it.
    paths: StdMutex<HashMap<String, Arc<Mutex<Weak<Lease>>>>>,
    open: Open,
}

impl Lease {
    /// The moment from which its value is not handed out any more.
    pub(crate) fn use_until(&self) -> Instant {
        let term = self.term();
        term.ends - (term.length() / 10).min(LONGEST_MARGIN)
    }

    /// When to ask for it again: after two thirds of its time, ±10 %, but not at once.
    pub(crate) fn renew_at(&self) -> Instant {
        let term = self.term();
        term.since + jittered(term.length() * 2 / 3).max(YOUNG)
    }

    /// Parts of what was lent.
    pub(super) fn fields(&self, names: &[String]) -> Result<Value, Failure> {
        field::pick(&self.data, names)
    }

    fn is_young(&self) -> bool {
        self.term().since.elapsed() < YOUNG && Instant::now() < self.use_until()
    }

    /// Itself, unless the login that it hangs on is at its end.
    fn usable(self: Arc<Self>) -> Result<Arc<Self>, Failure> {
        if Instant::now() < self.use_until() { Ok(self) } else { Err(ENDING) }
    }

    fn term(&self) -> Term {
        *self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (leases, number) = (Arc::clone(&self.leases), self.number);
        self.handle.spawn(async move { leases.open.give_back(&leases.session, number).await });
    }
}

impl Leases {
    pub(super) fn new(client: Arc<Client>, session: Arc<Session>) -> Self {
        Self { client, session, paths: StdMutex::default(), open: Open::default() }
    }

    /// The lease of this path, with time ahead of it: the one there is, renewed, or another one.
    pub(super) async fn fetch(self: &Arc<Self>, path: &str) -> Result<Arc<Lease>, Failure> {
        let place = self.place(path);
        let mut current = place.lock().await;
        if let Some(lease) = current.upgrade()
            && (lease.is_young() || self.renewed(&lease).await?)
        {
            return lease.usable();
        }
        let (leases, asked) = (Arc::clone(self), path.to_owned());
        // A task of its own: where the caller goes away meanwhile, what was taken is given back.
        let taken = tokio::spawn(async move { leases.taken(&asked).await });
        let lease = taken.await.map_err(|_| Failure::Internal)??;
        *current = Arc::downgrade(&lease);
        lease.usable()
    }

    /// Whether there is anything left to give back.
    pub(super) fn any_open(&self) -> bool {
        self.open.any()
    }

    /// Gives back every lease, used or not.
    pub(super) async fn close(&self) {
        self.open.close(&self.session).await;
    }

    fn place(&self, path: &str) -> Arc<Mutex<Weak<Lease>>> {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(paths.entry(path.to_owned()).or_default())
    }

    /// False where the lease cannot be kept: gone, near its maximum, or of a login that is being replaced.
    async fn renewed(&self, lease: &Lease) -> Result<bool, Failure> {
        let token = self.session.token().await?;
        if !lease.renewable || lease.token != *token.header() {
            return Ok(false);
        }
        let Some(id) = self.open.id(lease.number) else { return Ok(false) };
        let since = Instant::now();
        let question = Question::post(&self.client, "sys/leases/renew")?;
        let body = json(&[("lease_id", id.as_bytes())])?;
        let answer = self.client.ask(&question, Some(token.header()), Some(body)).await?;
        match answer.status {
            200 => {}
            503 => return Err(Failure::Sealed),
            _ => return Ok(false),
        }
        let granted = answer::lent(&answer.body)?.time;
        if granted < lease.first / 2 {
            return Ok(false);
        }
        let ends = bounded(since + granted, self.session.end_of(&token).await);
        *lease.term.lock().unwrap_or_else(PoisonError::into_inner) = Term { since, ends };
        Ok(true)
    }

    async fn taken(self: Arc<Self>, path: &str) -> Result<Arc<Lease>, Failure> {
        let since = Instant::now();
        let (token, answer) = self.session.ask(&Question::get(&self.client, path)?).await?;
        match answer.status {
            200 => {}
            404 => return Err(Failure::NotFound),
            400 if answer.mentions("unknown role") => return Err(Failure::NotFound),
            500 => return Err(Failure::Malformed("the vault's engine cannot make one now")),
            503 => return Err(Failure::Sealed),
            status => return Err(Failure::Status(status)),
        }
        let Lent { id, time, renewable, data } = answer::lent(&answer.body)?;
        let unleased = Failure::Malformed("the vault does not lease it; leave `dynamic` out");
        let (Some(data), false) = (data, id.is_empty()) else { return Err(unleased) };
        let term = Arc::new(StdMutex::new(Term { since, ends: since + time }));
        let lease = Arc::new(Lease {
            data,
            token: token.header().clone(),
            renewable,
            first: time,
            number: self.open.add(path, id, Arc::clone(&term)),
            term,
            leases: Arc::clone(&self),
            handle: Handle::current(),
        });
        // From here on it is given back whatever happens.
        if time.is_zero() {
            return Err(unleased);
        }
        let ends = bounded(since + time, self.session.end_of(&token).await);
        lease.term.lock().unwrap_or_else(PoisonError::into_inner).ends = ends;
        info!(path, seconds = ends.saturating_duration_since(since).as_secs(), "dynamic secret leased");
        Ok(lease)
    }
}

/// A lease ends with the login that it was taken with.
fn bounded(ends: Instant, login_ends: Option<Instant>) -> Instant {
    login_ends.map_or(ends, |login| login.min(ends))
}
