//! From a caller's grants to the one that decides: admission before the body is read, permit after.
//!
//! **Invariant:** only [`crate::policy::Policy`] makes an [`Admission`], and only an admission and the facts of the body make a
//! [`Permit`]. Neither can be copied, and no grant decides unless its caller, path, method, action and model patterns all match. What is no
//! request has none of these but the caller, and no grant that limits them.

use std::sync::Arc;

use jiff::Timestamp;

use crate::caller::Caller;
use crate::denial::{Denial, Reason};
use crate::dialect::{Catalog, Endpoint};
use crate::operation::{HttpRequest, Operation};
use crate::pattern::CallerPattern;
use crate::price::{Image, Item, NanoUsd, Price};
use crate::resource::{Block, BudgetIndex, CallerIndex, Credential, Destination, Grant, Scrub, SigV4};
use crate::target::{Target, TunnelEnd};

mod action;
mod call;
mod matching;
mod refusal;

#[cfg(test)]
mod tests;

pub use action::{Actions, action_of_target, actions_of_form, actions_of_path};
use call::{Call, Requested};
use matching::Candidates;
pub use matching::Verdict;
pub(crate) use refusal::class_word;

/// The grants that name one caller, by precedence. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CallerGrants {
    caller: Caller,
    held: Arc<[CallerGrant]>,
    blocks: Arc<[Arc<Block>]>,
}

/// A grant, and which of its patterns is the most specific that names the caller.
#[derive(Debug)]
struct CallerGrant {
    via: usize,
    grant: Arc<Grant>,
}

/// What the body says that decides and bounds. The default is what a request without a body says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The model that is asked for, as the request spells it.
    pub model: Option<Arc<str>>,
    /// The actions of an AWS service that it names; read only where a key that signs may be put on it.
    pub actions: Actions,
    /// Whether the answer is asked for as a stream of events.
    pub stream: bool,
    /// Bytes of the body.
    pub body_bytes: u64,
    /// The largest cap on output that the request names, in tokens for each choice.
    pub output_cap: Option<u64>,
    /// How many answers are asked for, at least 1.
    pub choices: u64,
    /// Whether it refers to content outside of the body, or has a member that is not known: the model may read its whole window.
    pub outside: bool,
    /// How often the model may read its context: once, and again after each use of a tool that the provider runs.
    pub passes: u64,
    /// How many inputs there are, each with a context window and choices of its own.
    pub inputs: u64,
    /// Images in the body, and those that it refers to.
    pub images: Vec<Image>,
    /// Pages of PDFs in the body.
    pub pages: u64,
    /// Bytes of the body that are images and PDFs: they are not read as text.
    pub picture_bytes: u64,
    /// How many times it refers to what a model wrote in one earlier call.
    pub written_before: u64,
    /// Tokens that may be billed as output for each choice, beyond what the model writes.
    pub predicted: u64,
    /// The most that the provider's own tools may add.
    pub tool_fees: NanoUsd,
    /// Whether something multiplies the cost with no bound.
    pub unbounded: bool,
    /// The service tier that the request pins, or what else of it says at which price it is served.
    pub tier: Option<Arc<str>>,
    /// Characters of text that are billed as such.
    pub characters: u64,
    /// What the provider's searches of the web are billed as, where its tool is not the plain one.
    pub searches_as: Option<Item>,
    /// What of it makes its bound large, for whoever is refused because of it.
    pub causes: Causes,
}

/// What makes the bound of a call large, in words. Nothing that the body holds is quoted but a member's name, cut short.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Causes {
    /// Why the model may read its whole window.
    pub outside: Option<Arc<str>>,
    /// Why nothing bounds the cost.
    pub unbounded: Option<Arc<str>>,
}

/// Leave to read the body: some grants of the caller match all that is known without it.
#[must_use]
#[derive(Debug)]
pub struct Admission {
    grants: CallerGrants,
    target: Target,
    operation: Operation,
    endpoint: Option<Arc<Endpoint>>,
    candidates: Candidates,
    catalog: Arc<Catalog>,
}

/// Leave to make the call: the one grant that decides, and all that follows from it.
#[must_use]
#[derive(Debug)]
pub struct Permit {
    caller: Caller,
    target: Target,
    operation: Operation,
    grant: Arc<Grant>,
    endpoint: Option<Arc<Endpoint>>,
    price: Priced,
    /// Those that it was decided on.
    actions: Actions,
}

/// What a call is charged by.
#[derive(Debug, Clone)]
pub enum Priced {
    /// It costs nothing: a plain destination, or an endpoint that the provider does not bill.
    Free,
    /// The model's price.
    At(Arc<Price>),
    /// The model has no price: the provider's dearest is charged.
    Dearest(Arc<Price>),
    /// The model has no price, or its usage cannot be read: the record says so.
    Unpriced,
}

impl CallerGrants {
    /// `blocks` are those that deny the caller something.
    pub(crate) fn new(
        caller: &Caller,
        (grants, budgets): (&CallerIndex<Grant>, &BudgetIndex),
        blocks: Arc<[Arc<Block>]>,
    ) -> Self {
        let grants = grants.naming(caller);
        let mut held: Vec<CallerGrant> =
            grants.map(|(grant, via)| CallerGrant { via, grant: Arc::clone(grant) }).collect();
        held.sort_by(|a, b| (a.via(), &a.grant.name).cmp(&(b.via(), &b.grant.name)));
        budgets.hold(caller, held.iter_mut().map(|held| &mut held.grant));
        Self { caller: caller.clone(), held: held.into(), blocks }
    }

    /// What is denied at a destination because of a grant that is not in force.
    fn blocked(&self, destination: &Destination) -> Option<Denial> {
        self.blocks.iter().find(|block| block.is_at(destination)).map(|block| block.denial())
    }

    /// Refuses with `no_grant` or `broken_configuration` where no grant may ever decide a call of any of these destinations.
    pub fn check_reach(&self, destinations: &[Arc<Destination>]) -> Result<(), Denial> {
        let reach = |destination: &Arc<Destination>| match self.blocked(destination) {
            Some(denial) => Err(denial),
            None if self.iter().any(|grant| grant.destination.name == destination.name) => Ok(()),
            None => {
                let (caller, name) = (self.caller.id(), &destination.name);
                Err(Denial::new(Reason::NoGrant, format!("{caller} has no grant for destination {name}")))
            }
        };
        let mut refused = None;
        for destination in destinations {
            match reach(destination) {
                Ok(()) => return Ok(()),
                Err(denial) => refused = refused.or(Some(denial)),
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// What of a tunnel's end the caller has a grant for. Refuses as [`CallerGrants::check_reach`] where that is nothing.
    pub fn reach(&self, end: TunnelEnd) -> Result<TunnelEnd, Denial> {
        self.check_reach(end.destinations())?;
        let TunnelEnd::VirtualAddress(mut all) = end else { return Ok(end) };
        all.retain(|one| self.check_reach(std::slice::from_ref(one)).is_ok());
        Ok(TunnelEnd::VirtualAddress(all))
    }

    /// Whose grants these are.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The grants, the one with the most specific caller pattern first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Grant>> {
        self.held.iter().map(|held| &held.grant)
    }
}

impl CallerGrant {
    fn via(&self) -> &CallerPattern {
        &self.grant.callers[self.via]
    }
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            model: None,
            actions: Actions::default(),
            stream: false,
            body_bytes: 0,
            output_cap: None,
            choices: 1,
            outside: false,
            passes: 1,
            inputs: 1,
            images: Vec::new(),
            pages: 0,
            picture_bytes: 0,
            written_before: 0,
            predicted: 0,
            tool_fees: NanoUsd::ZERO,
            unbounded: false,
            tier: None,
            characters: 0,
            searches_as: None,
            causes: Causes::default(),
        }
    }
}

impl Admission {
    pub(crate) fn new(
        grants: &CallerGrants,
        target: Target,
        operation: Operation,
        catalog: &Arc<Catalog>,
    ) -> Result<Self, Denial> {
        let call = Call::new(target.destination(), &operation);
        let candidates = Candidates::of(grants, &call)?;
        operation.http().map_or(Ok(()), HttpRequest::check_method)?;
        candidates.any_unobstructed(grants, &call)?;
        let endpoint = call.endpoint().cloned();
        Ok(Self {
            grants: grants.clone(),
            target,
            operation,
            endpoint,
            candidates,
            catalog: Arc::clone(catalog),
        })
    }

    /// The request; `None`: it is a connection that is asked for.
    pub fn http(&self) -> Option<&HttpRequest> {
        self.operation.http()
    }

    /// What the dialect knows of it; `None`: the dialect does not list it.
    pub fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        self.endpoint.as_ref()
    }

    /// Whether the body has to be read: its usage is metered, or a grant that may decide limits models, tokens or spend.
    pub fn reads_body(&self) -> bool {
        let limited = || self.candidates.iter().any(|fit| fit.grant(&self.grants).limits_content());
        let reads = |endpoint: &Arc<Endpoint>| {
            endpoint.metered || endpoint.forces_usage() || (endpoint.has_facts() && limited())
        };
        let has_body = self.http().is_some_and(|request| request.upgrade().is_none());
        has_body && self.endpoint.as_ref().filter(|endpoint| endpoint.session.is_none()).is_some_and(reads)
    }

    /// How what follows is read, where the request begins a session whose turns are billed.
    pub fn session(&self) -> Option<&Arc<Endpoint>> {
        let is_upgrade = self.http().is_some_and(|request| request.upgrade().is_some());
        self.endpoint.as_ref().filter(|endpoint| is_upgrade && endpoint.session.is_some())
    }

    /// Whether a grant that may decide limits models, tokens or spend.
    pub fn limits_content(&self) -> bool {
        self.candidates.iter().any(|fit| fit.grant(&self.grants).limits_content())
    }

    /// The grants that may decide.
    pub fn grants(&self) -> impl Iterator<Item = &Arc<Grant>> {
        self.candidates.iter().map(|fit| fit.grant(&self.grants))
    }

    /// The ways to sign for AWS of the grants that may decide: where there is one, actions decide too.
    pub fn aws_keys(&self) -> impl Iterator<Item = &SigV4> {
        self.candidates.iter().filter_map(|fit| fit.grant(&self.grants).credential.as_ref()?.sigv4())
    }

    /// Whether a grant that may decide has a key that signs the body; `has_digest` as in [`Credential::signs_body`].
    pub fn signs_body(&self, has_digest: bool) -> bool {
        let signs = |grant: &Grant| grant.credential.as_ref().is_some_and(|key| key.signs_body(has_digest));
        self.candidates.iter().any(|fit| signs(fit.grant(&self.grants)))
    }

    /// The one grant that decides, now that the body was read.
    ///
    /// Refuses with `model_not_allowed`, `model_required`, `action_not_allowed`, `unmetered_endpoint`, `deferred_cost`,
    /// `grant_suspended`, `not_approved` or `unpriced_model`. `now` says which price is in force.
    pub fn permit(self, facts: &Facts, now: Timestamp) -> Result<Permit, Denial> {
        let call = Call::again(self.target.destination(), &self.operation, self.endpoint.as_ref());
        let requested = Requested::of(facts);
        let (grant, price) = self.candidates.decide(&self.grants, &call, requested, (&self.catalog, now))?;
        let grant = Arc::clone(grant);
        let Self { grants, target, operation, endpoint, .. } = self;
        let actions = facts.actions.clone();
        Ok(Permit { caller: grants.caller, target, operation, grant, endpoint, price, actions })
    }
}

impl Permit {
    /// Who is calling.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Where the call goes.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What is asked there.
    pub fn operation(&self) -> &Operation {
        &self.operation
    }

    /// The request; `None`: a connection is permitted.
    pub fn http(&self) -> Option<&HttpRequest> {
        self.operation.http()
    }

    /// The grant that decided.
    pub fn grant(&self) -> &Arc<Grant> {
        &self.grant
    }

    /// The destination that is called.
    pub fn destination(&self) -> &Arc<Destination> {
        self.target.destination()
    }

    /// The key that is put on the call; `None`: the grant has none.
    pub fn credential(&self) -> Option<&Arc<Credential>> {
        self.grant.credential.as_ref()
    }

    /// Whether bodies of answers are searched for the key too: it goes on the wire, and the destination is not excepted.
    pub fn scrubs_bodies(&self) -> bool {
        self.scrub() == Some(Scrub::All) && self.credential().is_some_and(|key| key.is_sent())
    }

    /// Whether bodies of answers are searched for a session token where they come plain: AWS names one in errors, and what is stored there
    /// has to come as it was stored, compressed or in parts.
    pub fn scrubs_plain_bodies(&self) -> bool {
        self.scrub() == Some(Scrub::All) && self.credential().is_some_and(|key| key.sends_session())
    }

    fn scrub(&self) -> Option<Scrub> {
        self.http().map(|request| request.destination().scrub)
    }

    /// What the dialect knows of the call; `None`: the dialect does not list it.
    pub fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        self.endpoint.as_ref()
    }

    /// What the call is charged by.
    pub fn price(&self) -> &Priced {
        &self.price
    }

    pub(crate) fn instead(
        &self,
        grants: &CallerGrants,
        facts: &Facts,
        prices: (&Catalog, Timestamp),
    ) -> Option<Self> {
        let call = Call::again(self.target.destination(), &self.operation, self.endpoint.as_ref());
        let candidates = Candidates::of(grants, &call).ok()?;
        let (grant, price) = candidates.decide(grants, &call, Requested::of(facts), prices).ok()?;
        if !Arc::ptr_eq(grant, &self.grant) || facts.actions != self.actions {
            return None;
        }
        Some(Self {
            caller: self.caller.clone(),
            target: self.target.clone(),
            operation: self.operation.clone(),
            grant: Arc::clone(grant),
            endpoint: self.endpoint.clone(),
            price,
            actions: self.actions.clone(),
        })
    }

    pub(crate) fn is_renewed_by(
        &self,
        grants: &CallerGrants,
        destination: &Arc<Destination>,
        model: Option<&str>,
    ) -> bool {
        let call = Call::new(destination, &self.operation);
        let decided = Candidates::of(grants, &call).and_then(|candidates| {
            let requested = Requested { model, actions: self.actions.as_slice() };
            let fit = candidates.most_specific(grants, &call, requested)?;
            Ok(Arc::clone(fit.grant(grants)))
        });
        let credential = |grant: &Grant| grant.credential.as_ref().map(|credential| credential.name.clone());
        decided.is_ok_and(|grant| {
            *grants.caller() == self.caller
                && grant.name == self.grant.name
                && credential(&grant) == credential(&self.grant)
                && grant.caller_token == self.grant.caller_token
                && destination.client_certificate == self.destination().client_certificate
                && destination.tcp().map(|tcp| tcp.tls) == self.destination().tcp().map(|tcp| tcp.tls)
                && (!self.is_long_lived() || self.leads_as(destination))
                && !matching::is_obstructed(&grant, &call)
        })
    }

    /// Whether what it permits goes on behind the answer.
    fn is_long_lived(&self) -> bool {
        self.http().is_none_or(|request| request.upgrade().is_some())
    }

    /// Whether a connection to `destination` would leave from where this one left, for where it went.
    fn leads_as(&self, destination: &Destination) -> bool {
        let own = self.destination();
        (&own.sources, &own.addresses, &own.tls)
            == (&destination.sources, &destination.addresses, &destination.tls)
    }
}

pub(crate) fn trace(
    grants: &CallerGrants,
    (target, operation, facts): (&Target, &Operation, &Facts),
    catalog: &Catalog,
    now: Timestamp,
) -> Vec<(Arc<Grant>, Verdict)> {
    let call = Call::new(target.destination(), operation);
    matching::trace(grants, &call, Requested::of(facts), (catalog, now))
}
