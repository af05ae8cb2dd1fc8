//! A secret that its provider refuses: who is told, and when its store is asked for another.
//!
//! **Invariant:** what a caller can provoke is one fetch of a version in [`FORCED_EVERY`]. Only where nothing but refusals came of it, so
//! that it is nobody's doing but the secret's, is a store asked each [`STANDING_EVERY`]. Looking at the state of a file is free.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Inner, Landing, Slot, landed};
use crate::error::Failure;
use crate::observe::What;
use crate::read::FileStamp;
use crate::secret::{Secret, Version};

/// A version that a provider rejected is fetched again at most this often; a minted value, whose every mint is another
/// version, whatever its version.
const FORCED_EVERY: Duration = Duration::from_secs(30);
/// The same for one that was rejected before, and never answered well since.
const STANDING_EVERY: Duration = Duration::from_secs(5);

/// What is known of refusals.
#[derive(Default)]
pub(super) struct Rejection {
    forced: Option<(Version, Instant)>,
    /// The last version that a provider was said to refuse, and when.
    told: Option<(Version, Instant)>,
    /// The last version that the log has a line about.
    warned: Option<Version>,
    /// Since when nothing but refusals came.
    pub(super) since: Option<Instant>,
}

/// How often a version that was refused is fetched again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) enum Pace {
    /// Calls with it were answered well lately, as far as is known.
    Doubted,
    /// It was refused before, and no call with it was answered well since.
    Standing,
}

impl Pace {
    const fn every(self) -> Duration {
        match self {
            Self::Doubted => FORCED_EVERY,
            Self::Standing => STANDING_EVERY,
        }
    }
}

/// What came of fetching a secret because somebody asked for that.
#[derive(Clone, Debug)]
pub struct Refreshed {
    /// The version that calls got before.
    pub before: Option<Arc<str>>,
    /// The one that they get now.
    pub now: Option<Arc<str>>,
    /// Whether the two are of different contents.
    pub changed: bool,
    /// Why it could not be fetched.
    pub failure: Option<Failure>,
}

enum Step {
    /// For a fetch; `true`: what it brings is the answer.
    Wait(Landing, bool),
    /// Whether the files changed since.
    Look(Option<FileStamp>),
}

impl Slot {
    /// The provider refused `version`.
    pub(in crate::cache) fn note_refusal(&self, version: &Version) -> Pace {
        let pace = self.pace(version);
        let mut inner = self.inner();
        let now = Instant::now();
        if let Some(held) = self.held.load_full().filter(|held| held.secret.version() == version) {
            held.secret.set_rejected(true);
            self.warn(&mut inner, version);
            inner.rejection.since.get_or_insert(now);
        }
        let told = inner.rejection.told.as_ref();
        if !told.is_some_and(|(told, at)| told == version && now < *at + FORCED_EVERY) {
            inner.rejection.told = Some((version.clone(), now));
            self.observer.tell(self.event(&inner, What::Rejected { version: version.clone() }));
        }
        pace
    }

    /// Once a version; of minted values, which come and go, once until one is taken. Keys of a pool have a line of their own.
    fn warn(&self, inner: &mut Inner, version: &Version) {
        let is_known = match &inner.rejection.warned {
            Some(warned) => {
                warned == version || (self.origin.mint.is_some() && inner.rejection.since.is_some())
            }
            None => false,
        };
        if is_known || !inner.aliases.is_empty() {
            return;
        }
        inner.rejection.warned = Some(version.clone());
        let credentials: Vec<&str> = inner.credentials.iter().map(|name| name.as_str()).collect();
        warn!(
            secret = &*self.description, %version, credentials = credentials.join(","),
            "rejected by its provider: calls are refused until another is in the store, which is then taken at once"
        );
    }

    /// The provider took it.
    pub(in crate::cache) fn note_taken(&self, secret: &Secret) {
        if secret.set_rejected(false) {
            self.inner().rejection.since = None;
            debug!(secret = &*self.description, version = %secret.version(), "taken by its provider again");
        }
    }

    /// How often the store may be asked for another than this version, which was refused.
    pub(in crate::cache) fn pace(&self, version: &Version) -> Pace {
        let held = self.held.load();
        let stands =
            held.as_ref().is_some_and(|held| held.secret.is_rejected() && held.secret.version() == version);
        if stands && !self.is_made() { Pace::Standing } else { Pace::Doubted }
    }

    /// Whether another is made or lent each time: what is wrong with one may be so with all.
    pub(in crate::cache) fn is_made(&self) -> bool {
        self.origin.mint.is_some() || self.reference.secret.dynamic
    }

    /// A value of another version than the one that a provider refused, if there is one by now or after a forced fetch.
    pub(in crate::cache) async fn newer(
        self: &Arc<Self>,
        version: &Version,
        pace: Pace,
    ) -> Option<Arc<Secret>> {
        let mut looked = false;
        loop {
            let step = {
                let mut inner = self.inner();
                if let Some(newer) = self.peek().filter(|secret| secret.version() != version) {
                    return Some(newer);
                }
                let now = Instant::now();
                let spent = inner.rejection.is_spent(version, self.origin.mint.is_some(), pace, now);
                if let Some(landing) = self.under_way(&mut inner) {
                    // A fetch that was under way before the rejection may have read the old value, so this caller's
                    // own one still follows, unless it is spent.
                    Step::Wait(landing, spent && looked)
                } else if !spent && inner.barred_at(now).is_none() {
                    inner.rejection.forced = Some((version.clone(), now));
                    Step::Wait(self.start(&mut inner), true)
                } else if looked {
                    return None;
                } else {
                    Step::Look(inner.stamp.clone())
                }
            };
            match step {
                Step::Wait(landing, false) => drop(landed(landing).await),
                Step::Wait(landing, true) => {
                    return landed(landing).await.ok().filter(|secret| secret.version() != version);
                }
                Step::Look(before) => {
                    looked = true;
                    let now = self.origin.stamp(&self.reference).await;
                    if now.is_none() || now == before {
                        return None;
                    }
                    let mut inner = self.inner();
                    if self.under_way(&mut inner).is_none() {
                        self.start(&mut inner);
                    }
                }
            }
        }
    }

    /// Fetches, whatever was fetched or failed before.
    pub(in crate::cache) async fn refetched(self: &Arc<Self>) -> Refreshed {
        let version = || self.held.load_full().map(|held| held.secret.version().clone());
        let before = version();
        let under_way = self.under_way(&mut self.inner());
        if let Some(landing) = under_way {
            // It may have read what there was before.
            drop(landed(landing).await);
        }
        let landing = {
            let mut inner = self.inner();
            match self.under_way(&mut inner) {
                Some(landing) => landing,
                None => self.start(&mut inner),
            }
        };
        drop(landed(landing).await);
        let (now, failure) = (version(), self.inner().barred.map(|(failure, _)| failure));
        let changed = before != now;
        let word = |version: Option<Version>| version.map(|version| version.shared());
        Refreshed { before: word(before), now: word(now), changed, failure }
    }

    /// Somebody says that what was refused may be shown again.
    pub(in crate::cache) fn open(&self) {
        self.origin.open();
    }
}

impl Rejection {
    fn is_spent(&self, version: &Version, minted: bool, pace: Pace, now: Instant) -> bool {
        let is_this = |forced: &Version| minted || forced == version;
        self.forced.as_ref().is_some_and(|(forced, at)| is_this(forced) && now < *at + pace.every())
    }
}
