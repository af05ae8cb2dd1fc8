//! Which grant decides a call: the only place where patterns meet requests.
//!
//! **Invariant:** admission, permit, renewal and trace all go through [`Match`], so none of them sees a match that another does not.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::call::{Asked, Call, Requested};
use super::refusal::{denial, refusal};
use super::{CallerGrant, CallerGrants, Priced};
use crate::denial::{Denial, Reason};
use crate::dialect::{Catalog, Class};
use crate::limit::Unit;
use crate::pattern::{CallerPattern, MethodPattern, ModelPattern, PathPattern, is_never_forwarded};
use crate::resource::{Approval, Grant, Unpriced};

/// How a grant stands to one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It decides, and lets the call go out.
    Permits,
    /// It decides, and refuses the call.
    Refuses(Denial),
    /// It matches, and a more specific grant decides.
    Outranked,
    /// It does not match: this is the first of destination, path, method, class, action and model in which it does not.
    Mismatch(Reason),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permits => f.write_str("decides, and permits"),
            Self::Refuses(denial) => write!(f, "decides, and refuses: {denial}"),
            Self::Outranked => f.write_str("matches, but a more specific grant decides"),
            Self::Mismatch(reason) => write!(f, "does not match: {reason}"),
        }
    }
}

/// A grant that matches, by index: which of the caller's, and the most specific of its patterns of each kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Match {
    held: usize,
    path: usize,
    method: usize,
    model: Option<usize>,
}

/// The grants that match all that is known without a body; never empty.
#[derive(Debug)]
pub(super) struct Candidates(Vec<Match>);

/// Hardly any call has more grants that match it.
const FEW: usize = 4;

/// What two matching grants are compared by, most specific first. No model pattern comes after every model pattern, and one that is not
/// in force after the one that it ties with.
type Precedence<'a> =
    (&'a CallerPattern, &'a PathPattern, (bool, Option<&'a ModelPattern>), &'a MethodPattern, bool);

impl Match {
    /// Matches everything but the model and the actions.
    fn new(index: usize, held: &CallerGrant, call: &Call<'_>) -> Result<Self, Reason> {
        let grant = &held.grant;
        if grant.destination.name != call.destination.name {
            return Err(Reason::NoGrant);
        }
        let http = match &call.asked {
            Asked::Http(http) => http,
            // Nobody sees what goes through, so no part of it can be all that is allowed.
            Asked::Connection if grant.allow.is_everything() => {
                return Ok(Self { held: index, path: 0, method: 0, model: None });
            }
            Asked::Connection | Asked::Other => return Err(Reason::NoGrant),
        };
        let path = grant.allow.paths.iter().position(|pattern| pattern.matches(http.path));
        let path = path.ok_or(Reason::PathNotAllowed)?;
        let method = grant.allow.methods.iter().position(|pattern| pattern.matches(http.method));
        let method = method.ok_or(Reason::MethodNotAllowed)?;
        let fit = Self { held: index, path, method, model: None };
        let is_exact = grant.allow.paths.get(path).is_some_and(PathPattern::is_exact);
        match http.endpoint {
            _ if http.dialect.is_plain() => Ok(fit),
            Some(endpoint) if endpoint.class == Class::Use => Ok(fit),
            Some(endpoint) if grant.allow.classes.contains(&endpoint.class) => Ok(fit),
            Some(_) => Err(Reason::EndpointClass),
            // What a wildcard stands for is use, and of an unlisted endpoint nobody knows what it is.
            None if is_exact => Ok(fit),
            None if grant.limits_content() => Err(Reason::UnmeteredEndpoint),
            None => Err(Reason::EndpointClass),
        }
    }

    fn wanted(
        self,
        grants: &CallerGrants,
        call: &Call<'_>,
        requested: Requested<'_>,
    ) -> Result<Self, Reason> {
        let grant = self.grant(grants);
        if !allows_actions(grant, requested.actions) {
            return Err(Reason::ActionNotAllowed);
        }
        let models = &grant.allow.models;
        let is_free = call.endpoint().is_some_and(|endpoint| endpoint.free);
        match requested.model {
            _ if models.is_empty() => Ok(self),
            None if is_free => Ok(self),
            None => Err(Reason::ModelRequired),
            Some(model) => match models.iter().position(|pattern| pattern.matches(model)) {
                Some(index) => Ok(Self { model: Some(index), ..self }),
                None => Err(Reason::ModelNotAllowed),
            },
        }
    }

    pub(super) fn grant<'a>(&self, grants: &'a CallerGrants) -> &'a Arc<Grant> {
        &grants.held[self.held].grant
    }

    fn precedence<'a>(&self, grants: &'a CallerGrants) -> Precedence<'a> {
        let held = &grants.held[self.held];
        let grant = &held.grant;
        let model = self.model.map(|index| &grant.allow.models[index]);
        let (path, method) = (&grant.allow.paths[self.path], &grant.allow.methods[self.method]);
        (held.via(), path, (model.is_none(), model), method, grant.is_broken)
    }
}

impl Candidates {
    pub(super) fn of(grants: &CallerGrants, call: &Call<'_>) -> Result<Self, Denial> {
        if call.http().is_some_and(|http| is_never_forwarded(http.method)) {
            return Err(Denial::new(Reason::MethodRefused, "CONNECT, TRACE and TRACK are never forwarded"));
        }
        if let Some(denial) = grants.blocked(call.destination) {
            return Err(denial);
        }
        let mut fits = Vec::with_capacity(grants.held.len().min(FEW));
        let mut reason = Reason::NoGrant;
        for (index, held) in grants.held.iter().enumerate() {
            match Match::new(index, held, call) {
                Ok(fit) => fits.push(fit),
                Err(mismatch) => reason = more_telling(reason, mismatch),
            }
        }
        if !fits.is_empty() {
            return Ok(Self(fits));
        }
        // Who may nowhere go on with it is told that, whatever else does not match: it is what a client can act on.
        let lists = |held: &CallerGrant, upgrade| {
            held.grant.destination.name == call.destination.name
                && held.grant.allow.upgrades.contains(&upgrade)
        };
        let upgrade = call.http().and_then(|http| http.upgrade).filter(|_| reason != Reason::NoGrant);
        let is_unlisted = upgrade.is_some_and(|upgrade| !grants.held.iter().any(|held| lists(held, upgrade)));
        let reason = if is_unlisted { Reason::UpgradeRefused } else { reason };
        Err(denial(reason, grants, call, Requested::NOTHING))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Match> {
        self.0.iter()
    }

    /// Refuses early where whichever grant decides would refuse.
    pub(super) fn any_unobstructed(&self, grants: &CallerGrants, call: &Call<'_>) -> Result<(), Denial> {
        let obstructed = |fit: &Match| {
            let grant = fit.grant(grants);
            Some((grant, obstacle(grant, call)?))
        };
        match self.0.first().and_then(obstructed) {
            Some((grant, reason)) if self.0.iter().all(|fit| obstructed(fit).is_some()) => {
                Err(refusal(grant, reason, grants, call, Requested::NOTHING))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn most_specific(
        &self,
        grants: &CallerGrants,
        call: &Call<'_>,
        requested: Requested<'_>,
    ) -> Result<Match, Denial> {
        let mut best: Option<Match> = None;
        let mut reason = Reason::NoGrant;
        for fit in &self.0 {
            match fit.wanted(grants, call, requested) {
                Ok(fit) if best.is_none_or(|best| fit.precedence(grants) < best.precedence(grants)) => {
                    best = Some(fit);
                }
                Ok(_) => {}
                Err(mismatch) => reason = more_telling(reason, mismatch),
            }
        }
        best.ok_or_else(|| denial(reason, grants, call, requested))
    }

    /// The grant that decides, and the price it decides on.
    pub(super) fn decide<'a>(
        &self,
        grants: &'a CallerGrants,
        call: &Call<'_>,
        requested: Requested<'_>,
        prices: (&Catalog, Timestamp),
    ) -> Result<(&'a Arc<Grant>, Priced), Denial> {
        let grant = self.most_specific(grants, call, requested)?.grant(grants);
        match judge(grant, call, requested.model, prices) {
            Ok(price) => Ok((grant, price)),
            Err(reason) => Err(refusal(grant, reason, grants, call, requested)),
        }
    }
}

pub(super) fn trace(
    grants: &CallerGrants,
    call: &Call<'_>,
    requested: Requested<'_>,
    prices: (&Catalog, Timestamp),
) -> Vec<(Arc<Grant>, Verdict)> {
    let candidates = Candidates::of(grants, call);
    let best = candidates.and_then(|candidates| candidates.most_specific(grants, call, requested));
    let decides = best.ok().map(|fit| fit.held);
    let blocked = grants.blocked(call.destination);
    let verdict = |(index, held): (usize, &CallerGrant)| {
        let fit = Match::new(index, held, call).and_then(|fit| fit.wanted(grants, call, requested));
        let verdict = match fit {
            Err(mismatch) => Verdict::Mismatch(mismatch),
            Ok(_) if let Some(denial) = &blocked => Verdict::Refuses(denial.clone()),
            Ok(_) if decides != Some(index) => Verdict::Outranked,
            Ok(_) => match judge(&held.grant, call, requested.model, prices) {
                Ok(_) => Verdict::Permits,
                Err(reason) => Verdict::Refuses(refusal(&held.grant, reason, grants, call, requested)),
            },
        };
        (Arc::clone(&held.grant), verdict)
    };
    grants.held.iter().enumerate().map(verdict).collect()
}

/// With a key that signs, a request whose path does not say what it does names an action, which a grant has to list.
fn allows_actions(grant: &Grant, named: &[Arc<str>]) -> bool {
    // Whether its key signs, and so whether actions were read at all, is not known.
    if grant.is_broken && grant.credential.is_none() {
        return true;
    }
    let listed = &grant.allow.actions;
    let signs = match &grant.credential {
        Some(key) => key.sigv4().is_some(),
        // Only beside a key that signs there are some.
        None => !listed.is_empty(),
    };
    if !signs {
        return true;
    }
    let is_listed = |action: &Arc<str>| listed.iter().any(|pattern| pattern.matches(action));
    // Of several, the service alone knows which one counts.
    named.iter().all(is_listed) && (listed.is_empty() || !named.is_empty())
}

/// Whether the grant that decides lets the call go out, and at what price.
fn judge(
    grant: &Grant,
    call: &Call<'_>,
    model: Option<&str>,
    (catalog, now): (&Catalog, Timestamp),
) -> Result<Priced, Reason> {
    if let Some(reason) = obstacle(grant, call) {
        return Err(reason);
    }
    let Some(http) = call.http() else { return Ok(Priced::Free) };
    if http.dialect.is_plain() || http.endpoint.is_some_and(|endpoint| endpoint.free) {
        return Ok(Priced::Free);
    }
    let provider = http.dialect.provider();
    if let Some(price) = model.and_then(|model| catalog.prices().price(provider, model, now)) {
        return Ok(Priced::At(price));
    }
    let is_limited = grant.limits_unit(Unit::Spend);
    match grant.unpriced {
        Unpriced::Flag => Ok(Priced::Unpriced),
        Unpriced::Dearest => match catalog.prices().dearest(provider, now) {
            Some(price) => Ok(Priced::Dearest(price)),
            None if is_limited => Err(Reason::UnpricedModel),
            None => Ok(Priced::Unpriced),
        },
        Unpriced::Deny if is_limited => Err(Reason::UnpricedModel),
        Unpriced::Deny => Ok(Priced::Unpriced),
    }
}

pub(super) fn is_obstructed(grant: &Grant, call: &Call<'_>) -> bool {
    obstacle(grant, call).is_some()
}

/// Why a grant that decides refuses the call, whatever the body says: it is suspended, broken or not approved, or cannot hold the call to its limits.
fn obstacle(grant: &Grant, call: &Call<'_>) -> Option<Reason> {
    if grant.suspended.is_some() {
        return Some(Reason::GrantSuspended);
    }
    if grant.is_broken || grant.broken_budget().is_some() {
        return Some(Reason::BrokenConfiguration);
    }
    if grant.approval == Approval::Lacking {
        return Some(Reason::NotApproved);
    }
    let http = call.http()?;
    if http.upgrade.is_some_and(|upgrade| !grant.allow.upgrades.contains(&upgrade)) {
        return Some(Reason::UpgradeRefused);
    }
    if !grant.limits_content() || http.dialect.is_plain() {
        return None;
    }
    // What follows an upgrade is read where the dialect knows of turns, which are nowhere else.
    let is_session = http.upgrade.is_some();
    let Some(endpoint) = http.endpoint.filter(|endpoint| endpoint.session.is_some() == is_session) else {
        return Some(Reason::UnmeteredEndpoint);
    };
    if endpoint.deferred {
        return Some(Reason::DeferredCost);
    }
    let is_known =
        endpoint.free || endpoint.bounded || is_session || (!grant.limits_usage() && endpoint.has_facts());
    if is_known { None } else { Some(Reason::UnmeteredEndpoint) }
}

/// Of two mismatches the one that got further: what a caller can act on.
fn more_telling(one: Reason, other: Reason) -> Reason {
    const STEPS: [Reason; 8] = [
        Reason::NoGrant,
        Reason::PathNotAllowed,
        Reason::MethodNotAllowed,
        Reason::EndpointClass,
        Reason::UnmeteredEndpoint,
        Reason::ActionNotAllowed,
        Reason::ModelRequired,
        Reason::ModelNotAllowed,
    ];
    let step = |reason: Reason| STEPS.iter().position(|step| *step == reason);
    if step(other) > step(one) { other } else { one }
}
