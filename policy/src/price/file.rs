//! Price files: what they say, and the table made of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;

use super::image::ImageRule;
use super::model::{Price, Surcharge, Tier};
use super::money::NanoUsd;
use super::rates::{LongContext, Rates, Schedule};
use super::table::{ModelPrices, PriceTable, Provider};
use super::units::Item;

/// One provider's prices. Rates are USD per million units, in decimal text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PriceFile {
    /// The provider, as a dialect names it.
    prices: Box<str>,
    /// Where the figures come from, unless a price says otherwise.
    source: Arc<str>,
    /// Words for the standard tier.
    standard: Vec<Box<str>>,
    /// Forms of a snapshot's suffix, where `#` is a digit.
    snapshots: Vec<Box<str>>,
    /// Rates of units that cost the same with every model.
    #[serde(default)]
    rates: BTreeMap<Item, Rate>,
    /// Ways to count the tokens of an image, which models name.
    #[serde(default)]
    images: BTreeMap<Box<str>, ImageRule>,
    models: Vec<ModelText>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelText {
    model: Box<str>,
    /// Other names; one that ends in `*` is a prefix.
    #[serde(default)]
    aliases: Vec<Box<str>>,
    context_window: Option<u64>,
    max_output: Option<u64>,
    images: Option<Box<str>>,
    prices: Vec<PriceText>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceText {
    valid_from: Date,
    source: Option<Arc<str>>,
    rates: BTreeMap<Item, Rate>,
    long_context: Option<LongText>,
    #[serde(default)]
    tiers: BTreeMap<Box<str>, TierText>,
    #[serde(default)]
    surcharges: BTreeMap<Box<str>, SurchargeText>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TierText {
    #[serde(default)]
    asked: bool,
    rates: BTreeMap<Item, Rate>,
    long_context: Option<LongText>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LongText {
    above: u64,
    rates: BTreeMap<Item, Rate>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SurchargeText {
    permille: u64,
    asked: bool,
}

/// Nano-USD per million units, written as USD.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "DecimalText")]
struct Rate(u64);

/// A number as its author wrote it; one with a fraction arrives as text, so that no float comes between.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum DecimalText {
    Whole(u64),
    Text(String),
}

impl TryFrom<DecimalText> for Rate {
    type Error = String;

    fn try_from(number: DecimalText) -> Result<Self, String> {
        let text = match number {
            DecimalText::Whole(number) => number.to_string(),
            DecimalText::Text(text) => text,
        };
        NanoUsd::from_decimal(&text).map(|rate| Self(rate.0)).map_err(|error| format!("{text:?}: {error}"))
    }
}

impl PriceFile {
    /// Adds this provider's prices to the table. Returns what contradicts itself, by field and with what would be
    /// right; then the table is not to be used.
    pub(crate) fn add_to(self, table: &mut PriceTable) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut provider = Provider { snapshots: self.snapshots, ..Provider::default() };
        let shared = Shared {
            provider: self.prices.clone(),
            source: self.source,
            standard: self.standard.into(),
            others: Rates::complete(&plain(&self.rates), &Rates::free()),
            images: self.images,
        };
        for (index, text) in self.models.into_iter().enumerate() {
            let mut name = |name: &str| match name.strip_suffix('*') {
                Some(prefix) => {
                    provider.prefixes.push((prefix.into(), index));
                    false
                }
                None => provider.names.insert(name.into(), index).is_some(),
            };
            let taken = std::iter::once(&text.model).chain(&text.aliases).any(|alias| name(alias));
            if taken {
                problems.push((
                    format!("models[{index}]"),
                    format!("{:?} or an alias of it is listed twice", text.model),
                ));
            }
            if text.prices.is_empty() || !text.prices.is_sorted_by_key(|price| price.valid_from) {
                let problem = "prices are listed oldest first, and there is at least one".to_owned();
                problems.push((format!("models[{index}].prices"), problem));
            }
            if let Some(rule) = text.images.as_ref().filter(|rule| !shared.images.contains_key(*rule)) {
                let problem = format!("{rule:?} is not one of the ways in which this file counts images");
                problems.push((format!("models[{index}].images"), problem));
            }
            provider.models.push(shared.model(text));
        }
        provider.rank();
        if table.providers.insert(self.prices, provider).is_some() {
            problems
                .push(("prices".to_owned(), "this provider's prices are in another file already".to_owned()));
        }
        problems
    }
}

/// What all prices of a file have in common.
struct Shared {
    provider: Box<str>,
    source: Arc<str>,
    standard: Arc<[Box<str>]>,
    others: Rates,
    images: BTreeMap<Box<str>, ImageRule>,
}

impl Shared {
    fn model(&self, text: ModelText) -> ModelPrices {
        let images = text.images.as_ref().and_then(|rule| self.images.get(rule)).copied();
        let name: Arc<str> = text.model.into();
        let prices = text.prices.into_iter().map(|price| {
            let standard = schedule(&price.rates, price.long_context.as_ref(), &self.others);
            let tiers = price.tiers.iter().map(|(word, text)| Tier {
                word: word.clone(),
                asked: text.asked,
                schedule: tier(text, &standard),
            });
            let surcharges = price.surcharges.iter().map(|(word, text)| Surcharge {
                word: word.clone(),
                permille: text.permille,
                asked: text.asked,
            });
            Arc::new(Price {
                model: name.clone(),
                valid_from: price
                    .valid_from
                    .to_zoned(TimeZone::UTC)
                    .map_or(jiff::Timestamp::MAX, |day| day.timestamp()),
                version: format!("{}/{name}@{}", self.provider, price.valid_from).into(),
                source: price.source.clone().unwrap_or_else(|| self.source.clone()),
                context_window: text.context_window,
                max_output: text.max_output,
                images,
                standard_words: self.standard.clone(),
                tiers: tiers.collect(),
                surcharges: surcharges.collect(),
                standard,
            })
        });
        let prices = prices.collect();
        ModelPrices { name: (&*name).into(), prices }
    }
}

/// A tier that lists no rates for long contexts is not offered for them; what is served anyway costs the dearer of the
/// tier's rates and the standard ones.
fn tier(text: &TierText, standard: &Schedule) -> Schedule {
    let mut tier = schedule(&text.rates, text.long_context.as_ref(), &standard.rates);
    if let (None, Some(long)) = (&tier.long_context, &standard.long_context) {
        let rates = tier.rates.dearer(&long.rates);
        tier.long_context = Some(LongContext { above: long.above, rates });
    }
    tier
}

/// `others` has the rates of units that neither are named nor follow from one that is.
fn schedule(rates: &BTreeMap<Item, Rate>, long: Option<&LongText>, others: &Rates) -> Schedule {
    let rates = Rates::complete(&plain(rates), others);
    let long_context = long
        .map(|long| LongContext { above: long.above, rates: Rates::complete(&plain(&long.rates), &rates) });
    Schedule { rates, long_context }
}

fn plain(rates: &BTreeMap<Item, Rate>) -> BTreeMap<Item, u64> {
    rates.iter().map(|(item, rate)| (*item, rate.0)).collect()
}
