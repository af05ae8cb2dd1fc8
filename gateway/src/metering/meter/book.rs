//! What a call is charged, by what was learnt of its usage.
//!
//! **Invariant:** a call that was sent and told nothing is charged at its hold, one that was not sent nothing; what is billed and has no price
//! here is `unpriced`, never 0.

use std::sync::Arc;

use tollgate_policy::decision::Priced;
use tollgate_policy::dialect::Class;
use tollgate_policy::price::{Item, NanoUsd, Price, Units};

use super::{Meter, Told, Usage};
use crate::ledger::{Bounded, UsageSource};
use crate::quota::{Demand, Hold};

impl Meter {
    /// Settles the hold by what was learnt, and puts it into the record.
    pub(super) fn book(&mut self, usage: Usage) {
        let hold = self.hold.take();
        let held = self.bound.as_ref().map(|bound| (bound.tokens, bound.spend));
        match usage {
            Usage::Unbilled => settle(self, hold, 0, NanoUsd::ZERO),
            Usage::Plain => {
                // What it was cannot be read off the call, so what it cost is not known.
                self.record.unpriced = self.is_paid_unread();
                settle(self, hold, 0, NanoUsd::ZERO);
            }
            Usage::Unknown { units, told } => {
                let estimate = self.tell(&units, &told, UsageSource::Estimated);
                let (tokens, spend) =
                    held.unwrap_or_else(|| (units.tokens(), estimate.unwrap_or(NanoUsd::ZERO)));
                self.record.cost = self.priced().map(|_| spend);
                settle(self, hold, tokens, spend);
            }
            Usage::Estimated { units, told } => {
                let estimate = self.tell(&units, &told, UsageSource::Estimated).unwrap_or(NanoUsd::ZERO);
                let most = held.unwrap_or((u64::MAX, estimate));
                let (tokens, spend) = (units.tokens().min(most.0), estimate.min(most.1));
                self.record.cost = self.priced().map(|_| spend);
                settle(self, hold, tokens, spend);
            }
            Usage::Reported { units, told, drained } => {
                let source = if drained { UsageSource::Drained } else { UsageSource::Reported };
                self.record.cost = self.tell(&units, &told, source);
                let spend = self.record.cost.unwrap_or(NanoUsd::ZERO);
                settle(self, hold, units.tokens(), spend);
            }
        }
    }

    /// Puts into the record what was used and how the call was served. Gives what that costs.
    fn tell(&mut self, units: &Units, told: &Told, source: UsageSource) -> Option<NanoUsd> {
        let units = self.as_asked(*units);
        let tier = told.tier.as_deref().or_else(|| self.asked_tier());
        let cost = self.priced().map(|price| price.cost(&units, tier));
        let is_used = source == UsageSource::Estimated || !Units { requests: 0, ..units }.is_empty();
        // What was used and costs nothing is billed by what is not known.
        let is_nothing = is_used && cost == Some(NanoUsd::ZERO);
        let tier = tier.map(Bounded::new);
        self.record.unpriced = told.unpriced || is_nothing || matches!(self.price, Priced::Unpriced);
        self.record.units = units;
        self.record.tier = tier;
        self.record.usage_source = source;
        self.record.model_answered = told.model.as_deref().map(Bounded::new);
        self.record.price_version = self.price_version();
        cost
    }

    /// Adds what only the request tells.
    fn as_asked(&self, mut units: Units) -> Units {
        units.set(Item::Characters, self.facts.characters);
        if let Some(item) = self.facts.searches_as {
            units.set(item, units.get(item).saturating_add(units.web_searches));
            units.set(Item::WebSearches, 0);
        }
        units
    }

    /// How the call is served, where an answer has no place to say it.
    fn asked_tier(&self) -> Option<&str> {
        let is_silent = self.endpoint.as_ref().is_some_and(|e| e.response.buffered.tiers.is_empty());
        self.facts.tier.as_deref().filter(|_| is_silent)
    }

    /// What to book where no answer was read.
    pub(super) fn untold(&self) -> Usage {
        match &self.endpoint {
            _ if !self.sent || self.rejected || self.is_error_answered() => Usage::Unbilled,
            Some(endpoint) if endpoint.metered => {
                Usage::Unknown { units: Units::default(), told: Told::default() }
            }
            _ => Usage::Plain,
        }
    }

    /// The provider's answer says that it did not do what it was asked, also where nothing more of it can be read.
    fn is_error_answered(&self) -> bool {
        self.record.attempts.last().and_then(|last| last.status).is_some_and(|status| status >= 300)
    }

    /// The provider may bill it, and neither its request nor its answer is read.
    fn is_paid_unread(&self) -> bool {
        let is_paid = match &self.endpoint {
            Some(endpoint) => {
                endpoint.class == Class::Use || (endpoint.deferred && self.record.method.as_str() == "POST")
            }
            None => !matches!(self.record.method.as_str(), "GET" | "HEAD" | "OPTIONS"),
        };
        self.sent && is_paid && !matches!(self.price, Priced::Free)
    }

    pub(super) fn priced(&self) -> Option<&Price> {
        match &self.price {
            Priced::At(price) | Priced::Dearest(price) => Some(price),
            Priced::Free | Priced::Unpriced => None,
        }
    }

    pub(super) fn price_version(&self) -> Option<Arc<str>> {
        self.priced().map(|price| price.version_shared())
    }
}

fn settle(meter: &mut Meter, hold: Option<Hold>, tokens: u64, spend: NanoUsd) {
    let Some(hold) = hold else { return };
    meter.record.held_at = Some(hold.opened());
    if !meter.sent {
        hold.release();
        return;
    }
    let settled = hold.settle(&Demand { requests: 1, tokens, spend });
    if settled.exceeded {
        meter.core.stats.hold_exceeded();
    }
    meter.record.charges = settled.charges;
}
