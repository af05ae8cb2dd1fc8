//! How one secret does, for whoever looks at it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tollgate_policy::name::{Name, ResourceId};

use super::{Held, Inner, Slot};
use crate::error::Failure;

/// How one key of a credential does.
#[derive(Clone, Debug)]
pub struct CredentialStatus {
    /// The credential.
    pub credential: ResourceId,
    /// What it calls the key, if it has others.
    pub alias: Option<Name>,
    /// The version that calls get now.
    pub version: Option<Arc<str>>,
    /// How long ago the store last said that this is the value.
    pub age: Option<Duration>,
    /// When the store is asked again unasked; zero while it is being asked.
    pub refresh_in: Option<Duration>,
    /// Whether it can be used.
    pub health: Health,
    /// For how long its provider has been refusing it, whether it can be had anew or not.
    pub rejected: Option<Duration>,
    /// What its token endpoint said of its refusal, bounded and without anything of a secret.
    pub said: Option<Arc<str>>,
}

/// Whether a secret can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nobody has asked for it yet.
    Unused,
    /// It can be used.
    Well,
    /// It could be used, but for its provider, which refuses it.
    Rejected {
        /// Since when.
        since: Duration,
    },
    /// It is used past its refresh time, because it could not be fetched again, or because what was fetched is not usable.
    Stale {
        /// Since when it should have been fetched again; zero: that time is still to come.
        since: Duration,
        /// Why it was not.
        failure: Failure,
    },
    /// It was asked for and cannot be had.
    Unavailable {
        /// Why.
        failure: Failure,
    },
}

impl Health {
    /// All words, in the order in which it gets worse.
    pub const WORDS: [&'static str; 5] = ["unused", "well", "stale", "rejected", "unavailable"];

    /// One word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unused => "unused",
            Self::Well => "well",
            Self::Rejected { .. } => "rejected",
            Self::Stale { .. } => "stale",
            Self::Unavailable { .. } => "unavailable",
        }
    }

    /// What keeps it from being well.
    #[must_use]
    pub const fn failure(self) -> Option<Failure> {
        match self {
            Self::Unused | Self::Well | Self::Rejected { .. } => None,
            Self::Stale { failure, .. } | Self::Unavailable { failure } => Some(failure),
        }
    }
}

impl Slot {
    pub(in crate::cache) fn health(&self) -> Health {
        let inner = self.inner();
        let failure = inner.barred.map(|(failure, _)| failure);
        let held = self.held.load();
        let usable = held.as_ref().filter(|held| Instant::now() < held.use_until);
        match (usable, failure) {
            (None, Some(failure)) => Health::Unavailable { failure },
            (Some(held), Some(failure)) => {
                match held.fetched.elapsed().checked_sub(inner.freshness.refresh) {
                    Some(since) => Health::Stale { since, failure },
                    // It is not the value that the store has.
                    None if matches!(failure, Failure::Malformed(_)) => {
                        Health::Stale { since: Duration::ZERO, failure }
                    }
                    None => Self::well(&inner, held),
                }
            }
            (None, None) if held.is_none() => Health::Unused,
            (Some(held), None) => Self::well(&inner, held),
            (None, None) => Health::Well,
        }
    }

    /// As well as its provider says that it is.
    fn well(inner: &Inner, held: &Held) -> Health {
        rejected(inner, held).map_or(Health::Well, |since| Health::Rejected { since })
    }

    pub(in crate::cache) fn status(&self, credential: &ResourceId, alias: Option<&Name>) -> CredentialStatus {
        let held = self.held.load_full();
        let (next, rejected) = {
            let inner = self.inner();
            (inner.next, held.as_ref().and_then(|held| rejected(&inner, held)))
        };
        CredentialStatus {
            credential: credential.clone(),
            alias: alias.cloned(),
            version: held.as_ref().map(|held| held.secret.version().shared()),
            age: held.as_ref().map(|held| held.fetched.elapsed()),
            refresh_in: held.and(next).map(|next| next.saturating_duration_since(Instant::now())),
            health: self.health(),
            rejected,
            said: self.origin.said(),
        }
    }
}

/// For how long its provider has been refusing it.
fn rejected(inner: &Inner, held: &Held) -> Option<Duration> {
    let since = || inner.rejection.since.map(|since| since.elapsed()).unwrap_or_default();
    held.secret.is_rejected().then(since)
}
