//! What a call may cost before it is made, and what it probably did cost where nobody said so.
//!
//! **Invariant:** no call that keeps to its bound is charged more than was held for it, whichever way the provider
//! bills the tokens, but for a PDF with pages of more text than the catalog has for one. What has no finite bound is refused, unless the
//! grant states what to hold it at.
//!
//! Deliberately absent: tokenizers. A token is at least one byte: those of OpenAI's models are byte sequences (its
//! `tiktoken` is a byte-level BPE), and no published count of Anthropic's is denser. A JSON body is longer than what it says.

use tollgate_policy::decision::Facts;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::dialect::{Endpoint, RequestRules};
use tollgate_policy::policy::Assume;
use tollgate_policy::price::{Image, ImageRule, NanoUsd, Price, UNIT_MAX, Units};

use super::usage::UsageReading;
use crate::quota::TokenDemand;

/// Tokens that a provider adds to what the body says: the system prompts of tool use and of structured output. The
/// largest that Anthropic documents is under a thousand for each kind of tool.
const PROMPT_ALLOWANCE: u64 = 4096;

/// No call is held at fewer: a part of the allowance, for models with a small window.
pub(super) const LEAST_TOKENS: u64 = 1024;
/// Bytes of text for one token where an estimate is shown; English has about four, most else fewer.
const BYTES_PER_TOKEN: u64 = 3;

/// The most that a call may use and cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written, over all choices.
    pub output_tokens: u64,
    /// What they cost at most, tools included; nothing where there is no price.
    pub spend: NanoUsd,
    /// The cap, in tokens for each choice, that has to be written into the request for the bound to hold.
    pub write_cap: Option<u64>,
}

impl Bound {
    /// Its tokens, by kind.
    pub(super) const fn tokens(&self) -> TokenDemand {
        TokenDemand::most(self.input_tokens, self.output_tokens)
    }
}

/// What the grant says about calls that name too little.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// The cap for a call that names none, in tokens for each choice.
    pub default_output_cap: Option<u64>,
    /// What a call that nothing bounds is held at.
    pub assume: Option<Assume>,
}

/// The bound of a call, for limits on tokens and spend. `price` is what the call will be charged by.
///
/// Refuses with `unbounded_cost`.
pub fn bound(
    facts: &Facts,
    endpoint: &Endpoint,
    price: Option<&Price>,
    terms: Terms,
) -> Result<Bound, Denial> {
    if endpoint.free {
        return Ok(Bound::default());
    }
    let output = output_bound(facts, endpoint, price, terms);
    let written = output.map_or(0, |output| output.tokens);
    let input = input_bound(facts, endpoint, price, written);
    let is_bounded = input.is_some() && output.is_some() && !facts.unbounded;
    let (mut input_tokens, output) = (input.unwrap_or(0), output.unwrap_or_default());
    let mut output_tokens = output.tokens;
    if !is_bounded {
        let assumed = terms.assume.ok_or_else(|| refusal(facts, input))?;
        input_tokens = input_tokens.max(assumed.input_tokens);
        output_tokens = output_tokens.max(assumed.output_tokens);
    }
    let ceiling = price.map(|price| price.ceiling(input_tokens, output_tokens, facts.tier.as_deref()));
    Ok(Bound {
        input_tokens,
        output_tokens,
        spend: ceiling.map_or(NanoUsd::ZERO, |spend| spend.saturating_add(facts.tool_fees)),
        write_cap: output.write_cap,
    })
}

/// The tokens read: for each run of the model what is in the body, or the whole window where it may read more than that.
fn input_bound(facts: &Facts, endpoint: &Endpoint, price: Option<&Price>, written: u64) -> Option<u64> {
    let rules = &endpoint.request;
    let window = price.and_then(Price::context_window);
    let windows = window.map(|window| window.saturating_mul(facts.inputs));
    let most = match (rules.call_input, windows) {
        (Some(call), Some(windows)) if !facts.outside => Some(call.min(windows)),
        (call, windows) => call.or(windows),
    };
    let pictures = pictures(facts, rules, price);
    let beside = pictures.filter(|_| price.and_then(Price::images).is_some_and(ImageRule::is_beside_window));
    let said = pictures.map(|pictures| {
        let text = facts.body_bytes.saturating_sub(facts.picture_bytes).saturating_add(PROMPT_ALLOWANCE);
        // What one run writes is read by the next.
        let again = if facts.passes > 1 { written } else { 0 };
        text.saturating_add(pictures).saturating_add(again)
    });
    let one = match said {
        Some(said) if !facts.outside => {
            most.map_or(said, |most| said.min(most.saturating_add(beside.unwrap_or(0))))
        }
        _ => most?.saturating_add(beside.unwrap_or(0)),
    };
    Some(one.saturating_mul(facts.passes))
}

/// Tokens of images and PDFs in the body, and of what is not in it and bounded all the same; `None` where nothing bounds them.
fn pictures(facts: &Facts, rules: &RequestRules, price: Option<&Price>) -> Option<u64> {
    let tokens = |image: &Image| price.and_then(Price::images)?.tokens(image);
    let images =
        facts.images.iter().try_fold(0_u64, |sum, image| Some(sum.saturating_add(tokens(image)?)))?;
    let page = || Some(rules.content.page_text.saturating_add(tokens(&Image::default())?));
    let pages = if facts.pages == 0 { 0 } else { page()?.saturating_mul(facts.pages) };
    let written = match facts.written_before {
        0 => 0,
        times => price.and_then(Price::max_output)?.saturating_mul(times),
    };
    Some(images.saturating_add(pages).saturating_add(written))
}

#[derive(Clone, Copy, Default)]
struct OutputBound {
    tokens: u64,
    write_cap: Option<u64>,
}

fn output_bound(
    facts: &Facts,
    endpoint: &Endpoint,
    price: Option<&Price>,
    terms: Terms,
) -> Option<OutputBound> {
    if !endpoint.request.writes_tokens() {
        return Some(OutputBound::default());
    }
    let most = price.and_then(Price::max_output);
    let clip = |cap: u64| most.map_or(cap, |most| cap.min(most));
    let (cap, write_cap) = match facts.output_cap {
        Some(cap) if cap >= UNIT_MAX => (most?, None),
        Some(cap) => (clip(cap), None),
        None if endpoint.request.is_uncapped => (most?, None),
        None => {
            let cap = terms.default_output_cap.map(clip).or(most)?;
            (cap, Some(cap))
        }
    };
    let answers = facts.choices.saturating_mul(facts.inputs);
    Some(OutputBound { tokens: cap.saturating_add(facts.predicted).saturating_mul(answers), write_cap })
}

fn refusal(facts: &Facts, input: Option<u64>) -> Denial {
    let detail = if facts.unbounded {
        let cause = facts.causes.unbounded.as_deref().unwrap_or("something that it asks for");
        format!("nothing bounds what this call may cost, because of {cause}")
    } else if input.is_none() {
        let cause = facts.causes.outside.as_deref().unwrap_or("images, documents or earlier answers");
        format!("this call may fill the model's context window, whose size is not known, because of {cause}")
    } else {
        "the request caps its output at no number of tokens, and the most that the model writes is not known"
            .to_owned()
    };
    Denial::new(Reason::UnboundedCost, detail)
}

/// What makes the bound of a call large, to follow "because"; `None` where it is only the text in the body and the caps.
pub fn cause(facts: &Facts) -> Option<String> {
    let outside = facts.causes.outside.as_deref();
    let outside = outside.map(|cause| format!("{cause} is held at the model's context window"));
    let pictures = || match (facts.images.len(), facts.pages) {
        (0, 0) => None,
        (images, pages) => Some(format!("it has {images} images and {pages} pages of PDFs")),
    };
    let runs = (facts.passes > 1).then(|| {
        let passes = facts.passes;
        format!("tools that the provider runs may have the model read its context {passes} times")
    });
    let causes: Vec<String> = outside.or_else(pictures).into_iter().chain(runs).collect();
    (!causes.is_empty()).then(|| causes.join(", and "))
}

/// What a call probably used, where the provider did not report the whole of it: what it did report, and the rest from
/// the bytes that went by. It is to be shown, not to be credited against a hold.
pub fn estimate(facts: &Facts, endpoint: &Endpoint, reading: &UsageReading) -> Units {
    let tokens = |bytes: u64| bytes.div_ceil(BYTES_PER_TOKEN);
    let mut units = reading.partial.unwrap_or_default();
    units.requests = 1;
    // Of sound and images bytes tell nothing.
    if !endpoint.bounded && !endpoint.request.writes_tokens() {
        return units;
    }
    if units.read() == 0 {
        units.input = tokens(facts.body_bytes);
    }
    let missing = tokens(reading.output_bytes).saturating_sub(units.written());
    units.output = units.output.saturating_add(missing);
    units
}

#[cfg(test)]
mod tests;
