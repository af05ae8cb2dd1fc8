//! The price of one model from one date on.

use std::sync::Arc;

use jiff::Timestamp;

use super::image::ImageRule;
use super::money::NanoUsd;
use super::rates::{PER_UNITS, Raw, Schedule};
use super::units::Units;

/// What one model costs from one date on.
#[derive(Clone, Debug)]
pub struct Price {
    pub(super) model: Arc<str>,
    pub(super) valid_from: Timestamp,
    pub(super) version: Arc<str>,
    pub(super) source: Arc<str>,
    pub(super) context_window: Option<u64>,
    pub(super) max_output: Option<u64>,
    pub(super) images: Option<ImageRule>,
    /// Words that a request or an answer uses for the standard tier.
    pub(super) standard_words: Arc<[Box<str>]>,
    pub(super) standard: Schedule,
    pub(super) tiers: Vec<Tier>,
    pub(super) surcharges: Vec<Surcharge>,
}

/// A service tier with rates of its own.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tier {
    /// The word for it in a tier expression.
    pub(super) word: Box<str>,
    /// It serves only calls that ask for it; otherwise the account's settings may have it serve any call.
    pub(super) asked: bool,
    pub(super) schedule: Schedule,
}

/// A factor on all token rates.
#[derive(Clone, Debug)]
pub(super) struct Surcharge {
    /// The word for it in a tier expression.
    pub(super) word: Box<str>,
    pub(super) permille: u64,
    /// It applies only to a call that asks for it; otherwise the account's settings may apply it to any call.
    pub(super) asked: bool,
}

impl Price {
    /// The model's name in the catalog.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The same, for whoever keeps it.
    #[must_use]
    pub fn model_shared(&self) -> Arc<str> {
        Arc::clone(&self.model)
    }

    /// From when on it holds.
    pub const fn valid_from(&self) -> Timestamp {
        self.valid_from
    }

    /// Names the price in records: `provider/model@date`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The same, for whoever keeps it.
    #[must_use]
    pub fn version_shared(&self) -> Arc<str> {
        Arc::clone(&self.version)
    }

    /// Where the figures come from: a URL.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The most tokens that the model reads and writes in one call.
    pub const fn context_window(&self) -> Option<u64> {
        self.context_window
    }

    /// The most tokens that the model writes in one call, reasoning included.
    pub const fn max_output(&self) -> Option<u64> {
        self.max_output
    }

    /// How the tokens of images are counted; `None` where the catalog does not know.
    pub const fn images(&self) -> Option<&ImageRule> {
        self.images.as_ref()
    }

    /// What these units cost, rounded up to the next nano-USD.
    ///
    /// `tier` is what the answer says about how it was served: the service tier and any surcharges, joined by `+`
    /// (`"priority"`, `"standard+us"`). `None` is the standard tier; a word that the price does not know is charged
    /// as the dearest that it does know.
    #[must_use]
    pub fn cost(&self, units: &Units, tier: Option<&str>) -> NanoUsd {
        let served = self.served(tier.unwrap_or_default());
        let charges = self.schedules(&served.by).map(|schedule| schedule.charge(units));
        let raw = charges.max_by_key(|raw| raw.tokens.saturating_add(raw.others)).unwrap_or_default();
        settle(raw, &served.permilles)
    }

    /// The most that a call with this many tokens read and written can cost, however they turn out to be billed:
    /// as cache writes, at the long-context rate, as audio. `tier` is what the request pins, in the form of
    /// [`Price::cost`]; what it leaves open is taken at its dearest.
    #[must_use]
    pub fn ceiling(&self, input_tokens: u64, output_tokens: u64, tier: Option<&str>) -> NanoUsd {
        let mut served = self.served(tier.unwrap_or_default());
        if matches!(served.by, By::Unsaid) {
            served.by = By::Any;
        }
        for surcharge in self.surcharges.iter().filter(|surcharge| !surcharge.asked) {
            served.add(surcharge);
        }
        let raw = self.schedules(&served.by).map(|schedule| schedule.ceiling(input_tokens, output_tokens));
        settle(raw.max_by_key(|raw| raw.tokens).unwrap_or_default(), &served.permilles)
    }

    fn served<'a>(&'a self, expression: &str) -> Served<'a> {
        let mut served = Served { by: By::Unsaid, permilles: Vec::new(), words: Vec::new() };
        if expression.is_empty() {
            return served;
        }
        // Two words that have a price together, such as an image's size and quality.
        if let Some(tier) = self.tiers.iter().find(|tier| is_both(&tier.word, expression)) {
            served.by = By::One(&tier.schedule);
            return served;
        }
        for word in expression.split('+').filter(|word| !word.is_empty()) {
            if self.standard_words.iter().any(|standard| **standard == *word) {
                served.by = By::One(&self.standard);
            } else if let Some(tier) = self.tiers.iter().find(|tier| *tier.word == *word) {
                served.by = By::One(&tier.schedule);
            } else if let Some(surcharge) = self.surcharges.iter().find(|surcharge| *surcharge.word == *word)
            {
                served.add(surcharge);
            } else {
                served.by = By::Unknown;
                self.surcharges.iter().for_each(|surcharge| served.add(surcharge));
                break;
            }
        }
        served
    }

    fn schedules<'a>(&'a self, by: &By<'a>) -> impl Iterator<Item = &'a Schedule> {
        let (one, others): (_, &[Tier]) = match by {
            By::Unsaid => (&self.standard, &[]),
            By::One(schedule) => (*schedule, &[]),
            By::Any | By::Unknown => (&self.standard, &self.tiers),
        };
        let is_open = matches!(by, By::Any);
        let others = others.iter().filter(move |tier| !(is_open && tier.asked)).map(|tier| &tier.schedule);
        std::iter::once(one).chain(others)
    }
}

/// Which tiers come into question.
enum By<'a> {
    Unsaid,
    One(&'a Schedule),
    /// All that may serve a call that asks for none.
    Any,
    /// A word that the price does not know: all there are.
    Unknown,
}

/// A tier expression, looked up.
struct Served<'a> {
    by: By<'a>,
    permilles: Vec<u64>,
    words: Vec<&'a str>,
}

impl<'a> Served<'a> {
    fn add(&mut self, surcharge: &'a Surcharge) {
        if !self.words.contains(&&*surcharge.word) {
            self.words.push(&surcharge.word);
            self.permilles.push(surcharge.permille);
        }
    }
}

/// Whether this is a word of several, and these are the same ones.
fn is_both(word: &str, expression: &str) -> bool {
    word.len() == expression.len()
        && word.contains('+')
        && word.split('+').all(|part| expression.split('+').any(|asked| asked == part))
}

fn settle(raw: Raw, permilles: &[u64]) -> NanoUsd {
    let mut divisor = PER_UNITS;
    let (mut tokens, mut others) = (raw.tokens, raw.others);
    for permille in permilles {
        tokens = tokens.saturating_mul(u128::from(*permille));
        others = others.saturating_mul(1000);
        divisor = divisor.saturating_mul(1000);
    }
    let total = tokens.saturating_add(others).div_ceil(divisor);
    NanoUsd(u64::try_from(total).unwrap_or(u64::MAX))
}
