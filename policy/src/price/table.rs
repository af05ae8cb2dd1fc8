//! Prices by provider, model and date.

use crate::map::Map;
use std::sync::Arc;

use jiff::Timestamp;

use super::model::Price;

/// The prices of all providers' models, each from its date on.
#[derive(Debug, Default)]
pub struct PriceTable {
    pub(super) providers: Map<Box<str>, Provider>,
}

/// One provider's models.
#[derive(Debug, Default)]
pub(super) struct Provider {
    pub(super) models: Vec<ModelPrices>,
    /// Names and aliases.
    pub(super) names: Map<Box<str>, usize>,
    /// Aliases that end in `*`, without it.
    pub(super) prefixes: Vec<(Box<str>, usize)>,
    /// Forms of a snapshot's suffix, where `#` is a digit: `-####-##-##`.
    pub(super) snapshots: Vec<Box<str>>,
    /// The price of a model that is not listed, from each date on at which any price changes.
    pub(super) dearest: Vec<Arc<Price>>,
}

#[derive(Debug)]
pub(super) struct ModelPrices {
    pub(super) name: Box<str>,
    /// Oldest first.
    pub(super) prices: Vec<Arc<Price>>,
}

/// What a price's ceiling is compared by where the dearest model is asked for: a million tokens each way.
const YARDSTICK: u64 = 1_000_000;

impl PriceTable {
    /// The model's price at that time. A dated snapshot (`gpt-5-mini-2025-08-07`) has its model's price where it has
    /// none of its own. `None`: this provider, model or date is not in the catalog, which never means free.
    pub fn price(&self, provider: &str, model: &str, at: Timestamp) -> Option<Arc<Price>> {
        let model = self.find(provider, model)?;
        at_time(&model.prices, at).cloned()
    }

    /// The provider's dearest price at that time, for a model that is not listed. It names no context window and no
    /// maximum output, because that model's are unknown.
    pub fn dearest(&self, provider: &str, at: Timestamp) -> Option<Arc<Price>> {
        at_time(&self.providers.get(provider)?.dearest, at).cloned()
    }

    /// The name of this model in the catalog, without a snapshot's date: for labels, whose number must stay bounded.
    pub fn canonical_model<'a>(&'a self, provider: &str, model: &str) -> Option<&'a str> {
        self.find(provider, model).map(|model| &*model.name)
    }

    /// Every price there is, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Price>> {
        self.providers.values().flat_map(|provider| &provider.models).flat_map(|model| &model.prices)
    }

    /// Whether a model whose name begins so may have a price.
    pub(crate) fn may_begin(&self, provider: &str, beginning: &str) -> bool {
        let Some(provider) = self.providers.get(provider) else { return false };
        let overlaps = |name: &str| name.starts_with(beginning) || beginning.starts_with(name);
        provider.names.keys().any(|name| overlaps(name))
            || provider.prefixes.iter().any(|(prefix, _)| overlaps(prefix))
    }

    fn find(&self, provider: &str, model: &str) -> Option<&ModelPrices> {
        let provider = self.providers.get(provider)?;
        provider.models.get(provider.index(model)?)
    }
}

impl Provider {
    fn index(&self, model: &str) -> Option<usize> {
        if let Some(index) = self.names.get(model) {
            return Some(*index);
        }
        let undated = self.snapshots.iter().find_map(|form| strip_snapshot(model, form));
        if let Some(index) = undated.and_then(|name| self.names.get(name)) {
            return Some(*index);
        }
        let prefix = self.prefixes.iter().filter(|(prefix, _)| model.starts_with(&**prefix));
        prefix.max_by_key(|(prefix, _)| prefix.len()).map(|(_, index)| *index)
    }

    /// Works out the dearest price of every date at which prices change.
    pub(super) fn rank(&mut self) {
        let mut dates: Vec<_> =
            self.models.iter().flat_map(|model| &model.prices).map(|p| p.valid_from).collect();
        dates.sort_unstable();
        dates.dedup();
        let dearest = dates.into_iter().filter_map(|date| {
            let current = self.models.iter().filter_map(|model| at_time(&model.prices, date));
            let price = current.max_by_key(|price| price.ceiling(YARDSTICK, YARDSTICK, None))?;
            let (context_window, max_output, images) = (None, None, None);
            let unknown =
                Price { valid_from: date, context_window, max_output, images, ..Price::clone(price) };
            Some(Arc::new(unknown))
        });
        self.dearest = dearest.collect();
    }
}

fn at_time(prices: &[Arc<Price>], at: Timestamp) -> Option<&Arc<Price>> {
    prices.iter().rev().find(|price| price.valid_from <= at)
}

fn strip_snapshot<'a>(model: &'a str, form: &str) -> Option<&'a str> {
    let cut = model.len().checked_sub(form.len())?;
    let (name, suffix) = model.split_at_checked(cut)?;
    let fits = |(byte, form): (u8, u8)| if form == b'#' { byte.is_ascii_digit() } else { byte == form };
    suffix.bytes().zip(form.bytes()).all(fits).then_some(name)
}
