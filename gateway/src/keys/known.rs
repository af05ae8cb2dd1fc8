//! What is known of one version of one key: pure, with the time as an argument.

use std::time::Duration;

use tokio::time::Instant;
use tollgate_secrets::Version;

/// How long a dead key is not used. Doubles with each further signal, up to the most.
const BENCH: Duration = Duration::from_secs(30);
const LONGEST_BENCH: Duration = Duration::from_secs(600);
/// How long one call has to find out whether a benched key is good again, before another tries.
const PROBE: Duration = Duration::from_secs(2);
/// For how long a good answer speaks for a key.
const MINUTE: Duration = Duration::from_secs(60);

/// Why a key is out of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Out {
    /// The provider's limits refused it.
    Cooling,
    /// The provider says that it is no longer good.
    Benched,
    /// The same, and a call is finding out whether that is still so.
    Probed,
}

/// What is known of a key. All of it is of one version; nothing is known of another.
#[derive(Debug, Default)]
pub(super) struct Known {
    version: Option<Version>,
    out: Option<(Out, Instant)>,
    /// Signals that it is dead since it last answered well.
    signals: u32,
    /// The only caller by whose word it is benched, unless another key did better on its call.
    accuser: Option<u64>,
    /// The two callers that it answered well last, by [`super::Keys::mark`], the later first.
    well: [Option<(u64, Instant)>; 2],
}

impl Known {
    /// Forgets what is known of another version.
    pub(super) fn turn_to(&mut self, version: &Version) {
        if self.version.as_ref() != Some(version) {
            *self = Self { version: Some(version.clone()), ..Self::default() };
        }
    }

    /// Why and until when this version is out of use. Of an unknown version everything is hoped.
    pub(super) fn out(&self, version: Option<&Version>, now: Instant) -> Option<(Out, Instant)> {
        let is_other = version.is_some_and(|version| self.version.as_ref() != Some(version));
        self.out.filter(|(_, until)| !is_other && now < *until)
    }

    /// A call takes the key. Where its bench is over, no other call does until this one had its time to find out.
    pub(super) fn taken(&mut self, now: Instant) {
        if self.out.is_some_and(|(out, until)| out != Out::Cooling && until <= now) {
            self.out = Some((Out::Probed, now + PROBE));
        }
    }

    pub(super) fn answered_well(&mut self, caller: u64, now: Instant) {
        (self.out, self.signals, self.accuser) = (None, 0, None);
        let [latest, _] = &mut self.well;
        match latest {
            Some((known, at)) if *known == caller => *at = now,
            _ => self.well = [Some((caller, now)), latest.take()],
        }
    }

    /// When it last answered well, and when it last did so for another caller than then.
    pub(super) const fn well(&self) -> [Option<(u64, Instant)>; 2] {
        self.well
    }

    /// Whether it answered another caller well within the last minute.
    pub(super) fn speaks_for_itself(&self, accuser: u64, now: Instant) -> bool {
        self.well.iter().flatten().any(|(caller, at)| *caller != accuser && now < *at + MINUTE)
    }

    /// The provider's limits refused it.
    pub(super) fn cool(&mut self, rest: Duration, now: Instant) {
        let until = now + rest;
        if self.out.is_none_or(|(out, before)| out == Out::Cooling && before < until) {
            self.out = Some((Out::Cooling, until));
        }
    }

    /// Whether it is benched by one other caller's word alone, which could be about that caller's calls.
    pub(super) fn is_doubtful(&self, caller: u64) -> bool {
        self.accuser.is_some_and(|accuser| accuser != caller)
    }

    /// It is dead; `accuser`: by this caller's word alone. Whether that is news: what calls say that were under way when it was benched
    /// is not.
    pub(super) fn bench(&mut self, accuser: Option<u64>, now: Instant) -> bool {
        let is_confirmed = self.signals > 0 && self.accuser != accuser;
        self.accuser = accuser.filter(|_| !is_confirmed);
        if self.out.is_some_and(|(out, until)| out == Out::Benched && now < until) {
            return false;
        }
        let length = BENCH.saturating_mul(1 << self.signals.min(16)).min(LONGEST_BENCH);
        self.signals = self.signals.saturating_add(1);
        self.out = Some((Out::Benched, now + length));
        true
    }
}
