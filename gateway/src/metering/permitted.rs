//! A call that was decided on: by what, and how much it may use.

use std::sync::Arc;

use tollgate_policy::decision::{Facts, Permit, Priced};
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::dialect::Endpoint;
use tollgate_policy::price::Price;

use super::bound::{self, Bound, Terms};
use crate::quota::Demand;

/// Bytes and seconds of a connection that are reserved before it is opened: as many idle ones as a caller may have hold little.
const FIRST_PIECE: (u64, u64) = (16 << 10, 60);

/// What all who work on a permitted call share: nothing of it changes any more.
#[derive(Debug)]
pub(crate) struct PermittedCall {
    pub(crate) permit: Arc<Permit>,
    pub(crate) facts: Facts,
    /// The most that it can use; `None` where nothing of that is limited.
    pub(super) bound: Option<Bound>,
    /// The extra usage event is the gateway's own wish and is kept from the caller.
    pub(super) hides_usage: bool,
    /// It is one turn of a session, which is a call by itself and has its place.
    is_turn: bool,
    /// It asks for another model than its caller did.
    is_downgraded: bool,
}

impl PermittedCall {
    /// A connection that is passed through: nobody looks into it, so nothing of it is bounded but that it is one.
    pub(crate) fn passed_through(permit: Permit) -> Arc<Self> {
        Arc::new(Self::new(permit, Facts::default(), None, false))
    }

    pub(super) fn new(permit: Permit, facts: Facts, bound: Option<Bound>, hides_usage: bool) -> Self {
        let permit = Arc::new(permit);
        Self { permit, facts, bound, hides_usage, is_turn: false, is_downgraded: false }
    }

    /// The same call with another model, which its facts name.
    pub(super) fn downgraded(&self, permit: Permit, facts: Facts, bound: Option<Bound>) -> Arc<Self> {
        let hides_usage = self.hides_usage;
        Arc::new(Self { is_downgraded: true, ..Self::new(permit, facts, bound, hides_usage) })
    }

    /// A turn of the session that this call has begun.
    ///
    /// # Errors
    /// `unbounded_cost`.
    pub(super) fn turn(&self, facts: Facts) -> Result<Arc<Self>, Denial> {
        let bound = self.turn_bound(&facts)?;
        Ok(self.turn_with(facts, bound))
    }

    /// A turn that has begun already, and whether something bounds it.
    pub(super) fn begun_turn(&self, facts: Facts) -> (Arc<Self>, Result<(), Denial>) {
        match self.turn_bound(&facts) {
            Ok(bound) => (self.turn_with(facts, bound), Ok(())),
            Err(denial) => (self.turn_with(facts, None), Err(denial)),
        }
    }

    fn turn_bound(&self, facts: &Facts) -> Result<Option<Bound>, Denial> {
        let grant = self.permit.grant();
        let terms = Terms { default_output_cap: grant.default_output_cap, assume: grant.assume };
        let endpoint = self.session().filter(|_| self.limits_usage());
        endpoint.map(|endpoint| bound::bound(facts, endpoint, self.price(), terms)).transpose()
    }

    fn turn_with(&self, facts: Facts, bound: Option<Bound>) -> Arc<Self> {
        let permit = Arc::clone(&self.permit);
        let hides_usage = false;
        Arc::new(Self { permit, facts, bound, hides_usage, is_turn: true, is_downgraded: false })
    }

    /// Whether its grant limits tokens or spend.
    pub(super) fn limits_usage(&self) -> bool {
        self.permit.grant().limits_usage()
    }

    /// What it asks of its limits.
    pub(crate) fn demand(&self) -> Demand {
        let (tokens, spend) = self.bound.map(|bound| (bound.tokens(), bound.spend)).unwrap_or_default();
        let (bytes, seconds) = if self.permit.http().is_some() { (0, 0) } else { FIRST_PIECE };
        Demand { requests: u64::from(!self.is_turn), tokens, spend, bytes, seconds }
    }

    /// The refusal of a budget, with what made the hold so large.
    pub(crate) fn explained(&self, denial: Denial) -> Denial {
        let is_of_budget = matches!(denial.reason, Reason::BudgetHeld | Reason::BudgetExhausted);
        match is_of_budget.then(|| bound::cause(&self.facts)).flatten() {
            Some(cause) => Denial {
                detail: format!("{}. It may use that much because {cause}", denial.detail).into(),
                ..denial
            },
            None => denial,
        }
    }

    /// The model that is asked for in place of the caller's.
    pub(crate) fn model_instead(&self) -> Option<&str> {
        self.model().filter(|_| self.is_downgraded)
    }

    /// The model that is asked for.
    pub(crate) fn model(&self) -> Option<&str> {
        self.facts.model.as_deref()
    }

    /// The endpoint, where the call is billed by what it uses.
    pub(super) fn metered(&self) -> Option<&Arc<Endpoint>> {
        match self.is_turn {
            true => self.session(),
            false => self.permit.endpoint().filter(|endpoint| endpoint.metered && !self.is_upgrade()),
        }
    }

    /// The endpoint, where what follows the call is a session whose turns are billed.
    pub(super) fn session(&self) -> Option<&Arc<Endpoint>> {
        self.permit.endpoint().filter(|endpoint| endpoint.session.is_some() && self.is_upgrade())
    }

    /// Whether it goes on with another protocol than HTTP.
    pub(super) fn is_upgrade(&self) -> bool {
        self.permit.http().is_some_and(|request| request.upgrade().is_some())
    }

    /// Whose API it is, where the endpoint is one of models.
    pub(super) fn provider(&self) -> Option<&str> {
        self.permit.endpoint()?.operation.as_ref()?;
        Some(self.permit.http()?.destination().dialect.provider())
    }

    pub(super) fn price(&self) -> Option<&Price> {
        match self.permit.price() {
            Priced::At(price) | Priced::Dearest(price) => Some(price),
            Priced::Free | Priced::Unpriced => None,
        }
    }

    pub(super) fn price_version(&self) -> Option<Arc<str>> {
        self.price().map(|price| price.version_shared())
    }
}
