//! Who calls, worked out of what shows it: the client certificate of the connection, a token on the request, or both.
//!
//! **Invariant:** a [`CallerContext`] is made only here, of proofs that hold at that moment under the trust in force. Where there are two, both
//! name the same caller.
//!
//! What a proof has shown is kept with it, so that one connection may carry the proofs of several callers. A few are remembered, and each is
//! worked out anew when trust, policy or clock ask for it. Of a token only its digest is kept.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use tollgate_policy::caller::{Caller, Proven, SpiffeId};
use tollgate_policy::decision::CallerGrants;
use tollgate_policy::denial::{Denial, Reason};

use super::call_proof::{CallProof, GRACE, over};
use super::connection_proof::ConnectionProof;
use super::credentials::{ShownTo, ShownToken};
use super::jwt::{MOST_BYTES, UnverifiedJwt};
use super::known_caller::{KnownCaller, KnownProof};
use super::recent::Recent;
use super::tokens::{TokenIssuers, TokenRefusal, VerifiedToken};
use super::{CallerCredentials, Refusal, Trust};
use crate::caller_occupancy::{CallerOccupancies, CallerOccupancy, OccupancySlot};
use crate::snapshot::Snapshot;

/// How long a connection that has shown nothing may wait with its first token.
const PATIENCE: SignedDuration = SignedDuration::from_secs(10);
/// The same where there never was a caller: long enough to read why it was refused.
const NOBODYS_GRACE: SignedDuration = SignedDuration::from_secs(5);

/// What shows who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProofKey {
    ClientCertificate,
    /// The token that has opened the tunnel.
    Tunnel,
    /// The SHA-256 of a token.
    Token([u8; 32]),
}

/// What a connection has to show, and whom it showed.
#[derive(Debug)]
pub(crate) struct Proofs {
    shown: ConnectionProof,
    /// Of what comes in a tunnel: the token that has opened it, which proves the caller of all that comes in it.
    opened_by: Option<Arc<VerifiedToken>>,
    begun: Timestamp,
    state: Mutex<ProofState>,
}

#[derive(Debug, Default)]
struct ProofState {
    known: Recent<ProofKey, KnownCaller>,
    /// When the connection was first seen to prove nobody any more.
    ended_since: Option<Timestamp>,
}

/// That nothing on a connection proves anybody.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProofEnded {
    pub(crate) since: Timestamp,
    /// How long what is under way may go on.
    pub(crate) grace: SignedDuration,
    /// Which of its proofs has ended.
    pub(crate) reason: Reason,
}

impl ProofEnded {
    /// Whether what is still under way has had its time.
    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        now.duration_since(self.since) > self.grace
    }
}

/// The caller of a request under one snapshot.
#[derive(Clone, Debug)]
pub(crate) struct CallerContext {
    grants: Arc<CallerGrants>,
    usage: Arc<CallerOccupancy>,
    /// What has proven it, alone or beside the certificate of its connection.
    token: Option<Arc<VerifiedToken>>,
}

fn expired(_: Refusal) -> Denial {
    Denial::new(Reason::CertificateExpired, "the client certificate is no longer valid")
}

/// Why nothing of a request and its connection proves anybody.
#[cold]
fn unauthenticated(credentials: &CallerCredentials, issuers: &TokenIssuers) -> Denial {
    if issuers.is_empty() {
        return Denial::new(Reason::NoCertificate, "the connection has shown no client certificate");
    }
    let Some(token) = credentials.tokens().first() else {
        if credentials.shown_to() == ShownTo::Proxy {
            let detail = "neither a client certificate nor a token for this gateway was shown: send the token as \
                          `proxy-authorization: Bearer`, or as the password in the URL of the proxy";
            return Denial::new(Reason::NoProof, detail);
        }
        let detail = "neither a client certificate nor a token for this gateway was shown: send the token as \
                      `authorization: Bearer`, or as the key that the SDK asks for";
        return Denial::new(Reason::NoProof, detail);
    };
    let refusal = match UnverifiedJwt::read(token.bytes()) {
        None if token.bytes().len() > MOST_BYTES => TokenRefusal::TooLong,
        None => TokenRefusal::Malformed,
        Some(read) if issuers.is_issuer_of(&read) => TokenRefusal::Audience,
        Some(_) => TokenRefusal::UnknownIssuer,
    };
    refusal.into()
}

impl Proofs {
    /// Of a connection whose peer has shown `chain`, leaf first, with its place among those of its caller. For a full handshake rustls has
    /// verified the chain already; a resumed one brings an old one that may have expired or lost its bundle since. An empty chain proves
    /// nobody, and its requests are refused unless a token does.
    ///
    /// # Errors
    /// Why the chain proves nobody, or that its caller has as many connections as one caller may.
    pub(crate) fn of(
        chain: Vec<CertificateDer<'static>>,
        trust: &Trust,
        usages: &CallerOccupancies,
    ) -> Result<(Self, Option<OccupancySlot>), Refusal> {
        Self::shown(ConnectionProof::of_chain(chain), trust, usages)
    }

    /// Of a connection that a listed proxy says this workload has opened.
    ///
    /// # Errors
    /// As [`Proofs::of`].
    pub(crate) fn vouched(
        id: SpiffeId,
        trust: &Trust,
        usages: &CallerOccupancies,
    ) -> Result<(Self, Option<OccupancySlot>), Refusal> {
        Self::shown(ConnectionProof::Vouched(id), trust, usages)
    }

    fn shown(
        shown: ConnectionProof,
        trust: &Trust,
        usages: &CallerOccupancies,
    ) -> Result<(Self, Option<OccupancySlot>), Refusal> {
        let proofs = Self { shown, opened_by: None, begun: Timestamp::now(), state: Mutex::default() };
        if proofs.is_empty() {
            return Ok((proofs, None));
        }
        let mut state = proofs.state();
        let caller = proofs.of_certificate(&mut state.known, trust, usages, proofs.begun)?;
        let place = caller.usage.connection().ok_or(Refusal::TooMany)?;
        drop(state);
        Ok((proofs, Some(place)))
    }

    /// Of what comes in a tunnel that `opener` has opened on this connection: all that has proven the opener proves the caller of it.
    pub(crate) fn of_tunnel(self: &Arc<Self>, opener: &CallerContext) -> Arc<Self> {
        let Some(token) = &opener.token else { return Arc::clone(self) };
        let (shown, opened_by) = (self.shown.clone(), Some(Arc::clone(token)));
        Arc::new(Self { shown, opened_by, begun: Timestamp::now(), state: Mutex::default() })
    }

    /// Who calls, under `snapshot`. A token that is for the gateway is taken out of `credentials`, so that no grant passes it on.
    ///
    /// # Errors
    /// Why what the connection and the request show proves nobody, or not one and the same caller.
    pub(crate) fn authenticate(
        &self,
        credentials: &mut CallerCredentials,
        trust: &Trust,
        usages: &CallerOccupancies,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<CallerContext, Denial> {
        let state = &mut *self.state();
        let found = self.of_token(&mut state.known, credentials, trust.tokens(), usages, now)?;
        let by_token = found.and_then(|(at, key)| {
            credentials.keep(at);
            state.known.get(&key)
        });
        if self.is_empty() && self.opened_by.is_none() {
            let Some(caller) = by_token else { return Err(unauthenticated(credentials, trust.tokens())) };
            return Ok(CallerContext::of(caller, snapshot));
        }
        let token = by_token.and_then(|caller| caller.token().cloned());
        let opener = self.of_opener(&mut state.known, trust.tokens(), usages, now)?;
        let caller = match opener {
            Some(opener) if self.is_empty() => opener,
            _ => self.of_certificate(&mut state.known, trust, usages, now).map_err(expired)?,
        };
        let token = token.or_else(|| self.opened_by.clone());
        if token
            .as_ref()
            .is_some_and(|token| !trust.tokens().is_one_workload(caller.identity(), token.identity()))
        {
            return Err(TokenRefusal::Disagreement.into());
        }
        Ok(CallerContext { token, ..CallerContext::of(caller, snapshot) })
    }

    /// Who has opened the connection, by its certificate, under `snapshot`.
    ///
    /// # Errors
    /// Why it proves nobody.
    pub(crate) fn connection_caller(
        &self,
        trust: &Trust,
        usages: &CallerOccupancies,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<CallerContext, Denial> {
        if self.is_empty() {
            let detail = "the connection has shown no client certificate";
            return Err(Denial::new(Reason::NoCertificate, detail));
        }
        let state = &mut *self.state();
        let caller = self.of_certificate(&mut state.known, trust, usages, now).map_err(expired)?;
        Ok(CallerContext::of(caller, snapshot))
    }

    /// The caller of a request that was authenticated before, under a snapshot that came since.
    ///
    /// # Errors
    /// Why what has proven it does so no longer.
    pub(crate) fn reauthenticate(
        &self,
        before: &CallerContext,
        trust: &Trust,
        usages: &CallerOccupancies,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<CallerContext, Denial> {
        for token in before.token.iter().chain(&self.opened_by) {
            trust.tokens().check_current(token, now)?;
        }
        if !self.is_empty() {
            let state = &mut *self.state();
            self.of_certificate(&mut state.known, trust, usages, now).map_err(expired)?;
        }
        Ok(CallerContext { grants: self.grants(before.caller(), snapshot), ..before.clone() })
    }

    /// The grants of a caller that was proven here, for an answer that is under way already: it may outlive the proof by that.
    pub(crate) fn grants(&self, caller: &Caller, snapshot: &Snapshot) -> Arc<CallerGrants> {
        let mut state = self.state();
        let is_it = |known: &&mut KnownCaller| known.is(caller);
        match state.known.values().find(is_it) {
            Some(known) => known.grants(snapshot),
            None => Arc::new(snapshot.policy.grants_of(caller)),
        }
    }

    /// Whether anything on the connection has ever proven somebody.
    pub(crate) fn has_proven(&self) -> bool {
        self.opened_by.is_some() || !self.state().known.is_empty()
    }

    /// That nothing on the connection proves anybody; `None`: something does, or may yet.
    pub(crate) fn ended(
        &self,
        trust: &Trust,
        usages: &CallerOccupancies,
        now: Timestamp,
    ) -> Option<ProofEnded> {
        let state = &mut *self.state();
        let tokens = trust.tokens();
        let is_current = |token: &VerifiedToken| tokens.check_current(token, now).is_ok();
        let is_open = self.opened_by.as_deref().is_none_or(is_current);
        let is_proven = if self.is_empty() && self.opened_by.is_some() {
            is_open
        } else if self.is_empty() {
            let mut all = state.known.values().filter_map(|known| known.token());
            // A client may connect before it has something to ask.
            all.any(|token| is_current(token)) || now.duration_since(self.begun) < PATIENCE
        } else {
            is_open && self.of_certificate(&mut state.known, trust, usages, now).is_ok()
        };
        state.ended_since = (!is_proven).then(|| state.ended_since.unwrap_or(now));
        let is_nobodys = state.known.is_empty() && self.opened_by.is_none();
        let grace = if is_nobodys { NOBODYS_GRACE } else { GRACE };
        let has_certificate = is_open && !self.is_empty();
        let reason = if has_certificate { Reason::CertificateExpired } else { Reason::TokenExpired };
        state.ended_since.map(|since| ProofEnded { since, grace, reason })
    }

    fn of_certificate<'a>(
        &self,
        known: &'a mut Recent<ProofKey, KnownCaller>,
        trust: &Trust,
        usages: &CallerOccupancies,
        now: Timestamp,
    ) -> Result<&'a mut KnownCaller, Refusal> {
        let verify = || self.shown.verify(trust).map(KnownProof::Certificate);
        let make = || verify().map(|verified| KnownCaller::new(verified, usages));
        let caller = known.get_or_make(ProofKey::ClientCertificate, make)?;
        if caller.certificate().is_none_or(|shown| shown.generation() != trust.generation()) {
            caller.verified = verify()?;
        }
        let holds = caller.certificate().is_some_and(|shown| now < shown.expires());
        if holds { Ok(caller) } else { Err(Refusal::Expired) }
    }

    /// Whose token has opened the tunnel; `None`: none has.
    fn of_opener<'a>(
        &self,
        known: &'a mut Recent<ProofKey, KnownCaller>,
        issuers: &TokenIssuers,
        usages: &CallerOccupancies,
        now: Timestamp,
    ) -> Result<Option<&'a mut KnownCaller>, TokenRefusal> {
        let Some(token) = &self.opened_by else { return Ok(None) };
        issuers.check_current(token, now)?;
        let make = || Ok(KnownCaller::new(KnownProof::Token(Arc::clone(token)), usages));
        known.get_or_make(ProofKey::Tunnel, make).map(Some)
    }

    /// Which of the request's tokens is for the gateway, and what its caller is kept under; `None`: none is.
    fn of_token(
        &self,
        known: &mut Recent<ProofKey, KnownCaller>,
        credentials: &CallerCredentials,
        issuers: &TokenIssuers,
        usages: &CallerOccupancies,
        now: Timestamp,
    ) -> Result<Option<(usize, ProofKey)>, TokenRefusal> {
        let mut found = None;
        let shown = if issuers.is_empty() { &[] } else { credentials.tokens() };
        for (at, token) in shown.iter().enumerate() {
            let key = ProofKey::of(token.bytes());
            let read = match known.get(&key) {
                Some(_) => None,
                None => {
                    match UnverifiedJwt::read(token.bytes()).filter(|read| issuers.is_audience_of(read)) {
                        Some(read) => Some(read),
                        None => continue,
                    }
                }
            };
            if found.replace((at, key, read)).is_some() {
                return Err(TokenRefusal::Disagreement);
            }
        }
        let Some((at, key, read)) = found else { return Ok(None) };
        let token = shown.get(at).map(ShownToken::bytes).unwrap_or_default();
        let caller = known.get_or_make(key, || {
            let read = read.as_ref().ok_or(TokenRefusal::Malformed)?;
            let verified = KnownProof::Token(Arc::new(issuers.verify(token, read, now)?));
            let mut caller = KnownCaller::new(verified, usages);
            if self.is_empty() && self.opened_by.is_none() {
                caller.place = Some(caller.usage.connection().ok_or(TokenRefusal::TooMany)?);
            }
            Ok(caller)
        })?;
        match caller.token() {
            Some(token) => issuers.check_current(token, now).map(|()| Some((at, key))),
            None => Ok(None),
        }
    }

    /// Whether the connection itself proves nobody.
    const fn is_empty(&self) -> bool {
        self.shown.is_nothing()
    }

    fn state(&self) -> MutexGuard<'_, ProofState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProofKey {
    fn of(token: &[u8]) -> Self {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, token).as_ref());
        Self::Token(key)
    }
}

impl CallerContext {
    /// Of whom a proof shows.
    fn of(known: &mut KnownCaller, snapshot: &Snapshot) -> Self {
        let token = known.token().cloned();
        Self { grants: known.grants(snapshot), usage: Arc::clone(&known.usage), token }
    }

    /// The caller, and what it was granted.
    pub(crate) fn grants(&self) -> &Arc<CallerGrants> {
        &self.grants
    }

    /// Who was proven, and how.
    pub(crate) fn caller(&self) -> &Caller {
        self.grants.caller()
    }

    /// Whether the token that has proven the caller, if one has, did so until a moment ago: what is under way may outlast it by that.
    ///
    /// # Errors
    /// Why it proves nobody any more.
    pub(crate) fn still_proven(&self, trust: &Trust) -> Result<(), Denial> {
        let token = self.token.as_deref();
        let ended = token.and_then(|token| over(token, trust.tokens(), Timestamp::now()));
        ended.map_or(Ok(()), Err)
    }

    /// The token that has proven the caller, alone or beside a certificate.
    pub(crate) fn proof(&self) -> Option<CallProof> {
        self.token.clone().map(CallProof::new)
    }

    /// What the caller occupies.
    pub(crate) fn usage(&self) -> &Arc<CallerOccupancy> {
        &self.usage
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;
    use crate::caller_occupancy::Bounds;

    #[test]
    fn a_connection_that_has_proven_somebody_has_a_longer_grace_than_one_that_never_did() {
        let usages = CallerOccupancies::new(Bounds {
            connections: 1,
            calls: 1,
            all_calls: 1,
            held: 1,
            held_of_one: 1,
        });
        let trust = Trust::new(HashMap::new(), Duration::ZERO);
        let (proofs, _) = Proofs::of(Vec::new(), &trust, &usages).unwrap();
        let begun = proofs.begun;
        assert!(proofs.ended(&trust, &usages, begun + PATIENCE - SignedDuration::from_secs(1)).is_none());
        let since = begun + PATIENCE;
        let is_over = |now| proofs.ended(&trust, &usages, now).unwrap().is_over(now);
        assert!(!is_over(since) && !is_over(since + NOBODYS_GRACE));
        assert!(is_over(since + NOBODYS_GRACE + SignedDuration::from_secs(1)));

        // As one whose token has ended.
        let proven = VerifiedToken::ended(since);
        let caller = KnownCaller::new(KnownProof::Token(Arc::new(proven)), &usages);
        proofs.state().known.get_or_make(ProofKey::of(b"token"), || Ok::<_, ()>(caller)).unwrap();
        assert!(!is_over(since + GRACE));
        assert!(is_over(since + GRACE + SignedDuration::from_secs(1)));
    }
}
