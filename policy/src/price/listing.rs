//! Prices as they are shown to people: what a table has, model by model.

use std::sync::Arc;

use jiff::civil::Date;

use super::model::Price;
use super::money::NanoUsd;
use super::rates::{Rates, Schedule};
use super::table::PriceTable;
use super::units::Item;

/// One model of a provider, and what it cost from when on.
#[derive(Debug)]
pub struct ListedModel<'a> {
    /// The provider, as dialects name it.
    pub provider: &'a str,
    /// The name in the catalog.
    pub model: &'a str,
    /// Other names; one that ends in `*` is a prefix.
    pub aliases: Vec<String>,
    /// Oldest first.
    pub prices: &'a [Arc<Price>],
}

/// What one tier charges.
#[derive(Debug)]
pub struct ListedTier<'a> {
    /// The word for it; the standard tier has none.
    pub word: Option<&'a str>,
    /// It serves only calls that ask for it.
    pub asked: bool,
    /// Nano-USD for a million of each unit that costs anything.
    pub rates: Vec<(Item, NanoUsd)>,
    /// The same for calls that read more tokens than this.
    pub long_context: Option<(u64, Vec<(Item, NanoUsd)>)>,
}

impl PriceTable {
    /// The models that there are prices for, by provider and name.
    pub fn models(&self) -> Vec<ListedModel<'_>> {
        let mut models = Vec::new();
        for (name, provider) in &self.providers {
            for (index, model) in provider.models.iter().enumerate() {
                let names =
                    provider.names.iter().filter(|(alias, at)| **at == index && **alias != model.name);
                let prefixes = provider.prefixes.iter().filter(|(_, at)| *at == index);
                let mut aliases: Vec<String> = names.map(|(alias, _)| alias.to_string()).collect();
                aliases.extend(prefixes.map(|(prefix, _)| format!("{prefix}*")));
                aliases.sort_unstable();
                models.push(ListedModel {
                    provider: name,
                    model: &model.name,
                    aliases,
                    prices: &model.prices,
                });
            }
        }
        models.sort_by_key(|model| (model.provider, model.model));
        models
    }

    /// The day of which a provider's figures are.
    pub fn as_of(&self, provider: &str) -> Option<Date> {
        self.providers.get(provider)?.as_of
    }
}

impl PriceTable {
    /// Names of models for everything that has a price of its own kind: each name, one that begins as a prefix, and a snapshot of each
    /// name, whose digits are those of a `known` text that begins so far.
    pub(crate) fn spellings(&self, provider: &str, known: &[&str]) -> Vec<String> {
        let Some(provider) = self.providers.get(provider) else { return Vec::new() };
        let names = || provider.names.keys().map(AsRef::as_ref);
        let mut spellings: Vec<String> = names().map(str::to_owned).collect();
        spellings.extend(provider.prefixes.iter().map(|(prefix, _)| format!("{prefix}x")));
        for form in &provider.snapshots {
            for snapshot in names().map(|name| format!("{name}{form}")) {
                let digits = |from: usize| snapshot[from..].replace('#', "7");
                let fits = |(byte, form): (u8, u8)| byte == form || form == b'#' && byte.is_ascii_digit();
                let begins = |known: &&&str| {
                    known.len() <= snapshot.len() && known.bytes().zip(snapshot.bytes()).all(fits)
                };
                spellings.push(digits(0));
                spellings.extend(
                    known.iter().filter(begins).map(|known| format!("{known}{}", digits(known.len()))),
                );
            }
        }
        spellings
    }
}

impl Price {
    /// Its tiers, the standard one first.
    pub fn tiers(&self) -> Vec<ListedTier<'_>> {
        let standard = listed(None, false, &self.standard);
        let others = self.tiers.iter().map(|tier| listed(Some(&tier.word), tier.asked, &tier.schedule));
        std::iter::once(standard).chain(others).collect()
    }

    /// Factors on all token rates: the word for each, its thousandths, and whether it applies only to calls that ask for it.
    pub fn surcharges(&self) -> impl Iterator<Item = (&str, u64, bool)> {
        self.surcharges.iter().map(|surcharge| (&*surcharge.word, surcharge.permille, surcharge.asked))
    }
}

fn listed<'a>(word: Option<&'a str>, asked: bool, schedule: &Schedule) -> ListedTier<'a> {
    let long = schedule.long_context.as_ref().map(|long| (long.above, rates(&long.rates)));
    ListedTier { word, asked, rates: rates(&schedule.rates), long_context: long }
}

fn rates(rates: &Rates) -> Vec<(Item, NanoUsd)> {
    let each = Item::ALL.iter().map(|item| (*item, NanoUsd(rates.of(*item))));
    each.filter(|(_, rate)| rate.0 > 0).collect()
}
