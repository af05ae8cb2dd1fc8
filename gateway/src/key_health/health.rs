//! What is known of one version of one key: pure, with the time as an argument.
//!
//! What a provider said on a caller's call keeps that caller from the key. It is everybody's once another caller's call met the same, or
//! another key did better on the call; that is advice, and whoever has no other key and was not refused itself may still try.

use std::time::Duration;

use tokio::time::Instant;
use tollgate_policy::caller::Identity;
use tollgate_secrets::Version;

/// How long a dead key is not used. Doubles with each further signal, up to the most.
const BENCH: Duration = Duration::from_secs(30);
const LONGEST_BENCH: Duration = Duration::from_secs(600);
/// How long one call has to find out whether a benched key is good again, before another tries.
const PROBE: Duration = Duration::from_secs(2);
/// How many callers' strikes are kept. Who is forgotten asks the provider once more.
const STRIKES: usize = 256;

/// Why a key is out of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExclusionKind {
    /// The provider's limits refused it.
    Cooling,
    /// The provider says that it is no longer good.
    Benched,
}

/// What keeps a caller from a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exclusion {
    pub(crate) kind: ExclusionKind,
    pub(crate) until: Instant,
    /// It is of the caller's own calls.
    pub(crate) is_own: bool,
}

/// What is known of a key. All of it is of one version; nothing is known of another, nor of a key that has none.
#[derive(Debug, Default)]
pub(super) struct KeyHealth {
    version: Option<Version>,
    benched: Strikes,
    cooling: Strikes,
}

/// Strikes of one kind, at most one for each caller and one for everybody.
#[derive(Debug, Default)]
struct Strikes(Vec<Strike>);

#[derive(Debug, Clone)]
struct Strike {
    /// Whom it keeps from the key; `None`: everybody.
    whom: Option<Identity>,
    since: Instant,
    until: Instant,
    /// How often there was one, with no good answer between.
    times: u32,
    /// Its time was over, and a call is finding out whether it still holds.
    is_probed: bool,
}

impl KeyHealth {
    /// Forgets what is known of another version.
    pub(super) fn keep_only(&mut self, version: &Version) {
        if self.version.as_ref() != Some(version) {
            *self = Self { version: Some(version.clone()), ..Self::default() };
        }
    }

    /// Whether nothing at all counts against it.
    pub(super) const fn is_clear(&self) -> bool {
        self.benched.0.is_empty() && self.cooling.0.is_empty()
    }

    /// Why and until when this version is out of use, for whomever.
    pub(super) fn out(&self, version: Option<&Version>, now: Instant) -> Option<(ExclusionKind, Instant)> {
        self.worst(version, |_| true, now)
    }

    /// What keeps this caller from this version.
    pub(super) fn exclusion(
        &self,
        version: Option<&Version>,
        caller: &Identity,
        now: Instant,
    ) -> Option<Exclusion> {
        let (out, until) = self.worst(version, |strike| strike.concerns(caller), now)?;
        let is_own = self.worst(version, |strike| strike.whom.as_ref() == Some(caller), now).is_some();
        Some(Exclusion { kind: out, until, is_own })
    }

    fn worst(
        &self,
        version: Option<&Version>,
        counts: impl Fn(&Strike) -> bool,
        now: Instant,
    ) -> Option<(ExclusionKind, Instant)> {
        if self.version.as_ref() != version {
            return None;
        }
        let until = |strikes: &Strikes| {
            let counting = strikes.0.iter().filter(|strike| now < strike.until && counts(strike));
            counting.map(|strike| strike.until).max()
        };
        let benched = until(&self.benched).map(|until| (ExclusionKind::Benched, until));
        benched.or_else(|| until(&self.cooling).map(|until| (ExclusionKind::Cooling, until)))
    }

    /// The caller's call takes the key. Where a bench is over, no other call does until this one had its time to find out.
    pub(super) fn taken(&mut self, caller: &Identity, now: Instant) {
        for strike in &mut self.benched.0 {
            if strike.concerns(caller) && strike.until <= now {
                (strike.until, strike.is_probed) = (now + PROBE, true);
            }
        }
    }

    /// A call of the caller's that left at `left` was answered well: what its provider said since then may still be so.
    pub(super) fn answered_well(&mut self, caller: &Identity, left: Instant, now: Instant) {
        self.benched.forget(LONGEST_BENCH, now);
        self.cooling.forget(Duration::ZERO, now);
        for strikes in [&mut self.benched, &mut self.cooling] {
            strikes.0.retain(|strike| !strike.concerns(caller) || left <= strike.since);
        }
    }

    /// The provider's limits refused it.
    pub(super) fn cool(&mut self, caller: &Identity, rest: Duration, now: Instant) {
        self.cooling.forget(Duration::ZERO, now);
        self.cooling.add(caller, |_| rest, now);
    }

    /// It is dead. Whether that is news: what everybody knows, and what calls say that were under way, is not.
    pub(super) fn bench(&mut self, caller: &Identity, now: Instant) -> bool {
        self.benched.forget(LONGEST_BENCH, now);
        let length = |times: u32| BENCH.saturating_mul(1 << times.min(16)).min(LONGEST_BENCH);
        self.benched.add(caller, length, now)
    }

    /// Another key did better on a call that this one was refused on.
    pub(super) fn did_worse(&mut self, caller: &Identity, now: Instant) {
        self.benched.spread(caller, now);
        self.cooling.spread(caller, now);
    }
}

impl Strikes {
    /// Adds a strike of this caller's, for as long as `length` says of one that follows so many others.
    /// Whether it is the first, or now everybody's.
    fn add(&mut self, caller: &Identity, length: impl Fn(u32) -> Duration, now: Instant) -> bool {
        let is_news = !self.0.iter().any(|strike| strike.holds(now));
        let is_others = |strike: &Strike| strike.whom.as_ref().is_some_and(|whom| whom != caller);
        let is_met = self.0.iter().any(|strike| strike.holds(now) && is_others(strike));
        if self.own(caller, now).is_none() {
            // What holds for everybody may be about others' calls: it makes this one's strike no longer.
            let over = self.0.iter().filter(|strike| strike.concerns(caller) && !strike.holds(now));
            let times = over.map(|strike| strike.times).max().unwrap_or_default();
            let (whom, until) = (Some(caller.clone()), now + length(times));
            self.put(Strike { whom, since: now, until, times: times.saturating_add(1), is_probed: false });
        }
        (is_met && self.spread(caller, now)) || is_news
    }

    /// Makes the caller's strike everybody's, unless there is one.
    fn spread(&mut self, caller: &Identity, now: Instant) -> bool {
        if self.0.iter().any(|strike| strike.whom.is_none() && strike.holds(now)) {
            return false;
        }
        let Some(strike) = self.own(caller, now).cloned() else { return false };
        self.put(Strike { whom: None, ..strike });
        true
    }

    fn own(&self, caller: &Identity, now: Instant) -> Option<&Strike> {
        self.0.iter().find(|strike| strike.holds(now) && strike.whom.as_ref() == Some(caller))
    }

    fn put(&mut self, strike: Strike) {
        self.0.retain(|known| known.whom != strike.whom);
        if self.0.len() == STRIKES {
            self.0.remove(0);
        }
        self.0.push(strike);
    }

    /// Forgets what has been over for this long.
    fn forget(&mut self, age: Duration, now: Instant) {
        self.0.retain(|strike| now < strike.until + age);
    }
}

impl Strike {
    fn concerns(&self, caller: &Identity) -> bool {
        self.whom.as_ref().is_none_or(|whom| whom == caller)
    }

    fn holds(&self, now: Instant) -> bool {
        !self.is_probed && now < self.until
    }
}
