//! What a call is charged, by what was learnt of its usage.
//!
//! **Invariant:** a call that was sent and told nothing is charged at its hold, one that was not sent nothing; what is billed and has no price
//! here is `unpriced`, never 0.

use tollgate_policy::decision::Priced;
use tollgate_policy::dialect::Class;
use tollgate_policy::price::{Item, NanoUsd, Units};

use super::{Account, AnswerFacts, LearntUsage};
use crate::ledger::{Bounded, UsageSource};
use crate::metering::permitted::PermittedCall;
use crate::quota::{Demand, Hold, TokenDemand};

impl Account {
    /// Puts what was learnt into the record, and settles the hold by it, or releases that of a call that was not sent.
    pub(super) fn book(&mut self, usage: LearntUsage, hold: Option<Hold>, was_sent: bool) {
        let ((tokens, spend), requests) = match self.call.take() {
            Some(call) => (self.charge(&call, usage, was_sent), call.demand().requests),
            None => (Default::default(), 1),
        };
        let Some(hold) = hold else { return };
        self.record.held_at = Some(hold.opened());
        if !was_sent {
            hold.release();
            return;
        }
        let (bytes, seconds) = self.passed_through();
        let settled = hold.settle(&Demand { requests, tokens, spend, bytes, seconds });
        if settled.exceeded {
            self.core.stats.hold_exceeded();
        }
        self.record.charges = settled.charges;
    }

    /// The tokens and the money that the call is charged.
    fn charge(&mut self, call: &PermittedCall, usage: LearntUsage, was_sent: bool) -> (TokenDemand, NanoUsd) {
        let held = call.bound.map(|bound| (bound.tokens(), bound.spend));
        let (tokens, spend) = match usage {
            LearntUsage::Unbilled => return Default::default(),
            LearntUsage::Plain => {
                // What it was cannot be read off the call, so what it cost is not known.
                self.record.unpriced |= was_sent && self.is_paid_unread(call);
                return Default::default();
            }
            LearntUsage::Reported { units, told, drained } => {
                let source = if drained { UsageSource::Drained } else { UsageSource::Reported };
                let cost = self.tell(call, &units, &told, source);
                (TokenDemand::used(&units), cost.unwrap_or(NanoUsd::ZERO))
            }
            LearntUsage::Unknown { units, told } => {
                let estimate = self.tell(call, &units, &told, UsageSource::Estimated);
                held.unwrap_or_else(|| (TokenDemand::used(&units), estimate.unwrap_or(NanoUsd::ZERO)))
            }
            LearntUsage::Estimated { units, told } => {
                let estimate = self.tell(call, &units, &told, UsageSource::Estimated);
                let estimate = estimate.unwrap_or(NanoUsd::ZERO);
                let used = TokenDemand::used(&units);
                held.map_or((used, estimate), |(most, spend)| (used.at_most(&most), estimate.min(spend)))
            }
        };
        self.record.cost = call.price().map(|_| spend);
        (tokens, spend)
    }

    /// Puts into the record what was used and how the call was served. Gives what that costs.
    fn tell(
        &mut self,
        call: &PermittedCall,
        units: &Units,
        told: &AnswerFacts,
        source: UsageSource,
    ) -> Option<NanoUsd> {
        let units = as_asked(call, *units);
        let tier = told.tier.as_deref().or_else(|| asked_tier(call));
        let cost = call.price().map(|price| price.cost(&units, tier));
        let is_used = source == UsageSource::Estimated || !Units { requests: 0, ..units }.is_empty();
        // What was used and costs nothing is billed by what is not known.
        let is_nothing = is_used && cost == Some(NanoUsd::ZERO);
        let is_unpriced = matches!(call.permit.price(), Priced::Unpriced);
        self.record.unpriced = told.unpriced || is_nothing || is_unpriced;
        self.record.units = units;
        self.record.tier = tier.map(Bounded::new);
        self.record.usage_source = source;
        // It is mostly the one that was asked for.
        let asked = self.record.model.as_ref();
        let named = |model: &str| match asked.filter(|asked| asked.as_str() == model) {
            Some(asked) => asked.clone(),
            None => Bounded::new(model),
        };
        self.record.model_answered = told.model.as_deref().map(named);
        self.record.price_version = call.price_version();
        cost
    }

    /// What to book where no answer was read.
    pub(super) fn usage_unknown(&self) -> LearntUsage {
        match &self.call {
            Some(call) if self.is_out() && !self.is_error_answered() => match call.metered() {
                Some(_) => LearntUsage::Unknown { units: Units::default(), told: AnswerFacts::default() },
                None => LearntUsage::Plain,
            },
            _ => LearntUsage::Unbilled,
        }
    }

    /// The provider's answer says that it did not do what it was asked, also where nothing more of it can be read.
    fn is_error_answered(&self) -> bool {
        self.record.attempts.last().and_then(|last| last.status).is_some_and(|status| status >= 300)
    }

    /// The provider may bill it once it is sent, and neither its request nor its answer is read.
    fn is_paid_unread(&self, call: &PermittedCall) -> bool {
        let method = self.record.method.as_str();
        let is_paid = match call.permit.endpoint() {
            _ if call.is_upgrade() => call.session().is_none(),
            Some(endpoint) => endpoint.class == Class::Use || (endpoint.deferred && method == "POST"),
            None => !matches!(method, "GET" | "HEAD" | "OPTIONS"),
        };
        is_paid && !matches!(call.permit.price(), Priced::Free)
    }
}

/// Adds what only the request tells.
fn as_asked(call: &PermittedCall, mut units: Units) -> Units {
    units.set(Item::Characters, call.facts.characters);
    if let Some(item) = call.facts.searches_as {
        units.set(item, units.get(item).saturating_add(units.web_searches));
        units.set(Item::WebSearches, 0);
    }
    units
}

/// How the call is served, where an answer has no place to say it.
fn asked_tier(call: &PermittedCall) -> Option<&str> {
    let is_silent = call.permit.endpoint().is_some_and(|e| e.response.buffered.tiers.is_empty());
    call.facts.tier.as_deref().filter(|_| is_silent)
}
