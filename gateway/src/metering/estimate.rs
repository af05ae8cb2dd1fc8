//! What a call may cost before it is made, and what it probably did cost where nobody said so.
//!
//! **Invariant:** no call that keeps to its bound is charged more than was held for it, whichever way the provider
//! bills the tokens. What has no finite bound is refused, unless the grant states what to hold it at.
//!
//! Deliberately absent: tokenizers. A token is at least one byte: those of OpenAI's models are byte sequences (its
//! `tiktoken` is a byte-level BPE), and no published count of Anthropic's is denser. A JSON body is longer than what it says.

use tollgate_policy::decision::Facts;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::dialect::Endpoint;
use tollgate_policy::policy::Assume;
use tollgate_policy::price::{NanoUsd, Price, UNIT_MAX, Units};

use super::usage::Reading;

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
    /// Both.
    pub tokens: u64,
    /// What they cost at most, tools included; nothing where there is no price.
    pub spend: NanoUsd,
    /// The cap, in tokens for each choice, that has to be written into the request for the bound to hold.
    pub write_cap: Option<u64>,
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
    let input = input_bound(facts, price);
    let output = output_bound(facts, endpoint, price, terms);
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
        tokens: input_tokens.saturating_add(output_tokens),
        spend: ceiling.map_or(NanoUsd::ZERO, |spend| spend.saturating_add(facts.tool_fees)),
        write_cap: output.write_cap,
    })
}

fn input_bound(facts: &Facts, price: Option<&Price>) -> Option<u64> {
    let window = price.and_then(Price::context_window);
    if facts.outside {
        return window;
    }
    let said = facts.body_bytes.saturating_add(PROMPT_ALLOWANCE);
    Some(window.map_or(said, |window| said.min(window)))
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
        None => {
            let cap = terms.default_output_cap.map(clip).or(most)?;
            (cap, Some(cap))
        }
    };
    Some(OutputBound { tokens: cap.saturating_mul(facts.choices), write_cap })
}

fn refusal(facts: &Facts, input: Option<u64>) -> Denial {
    let detail = if facts.unbounded {
        "the request asks for something whose cost nothing bounds, such as a tool of the provider without a cap on its uses"
    } else if input.is_none() {
        "the request refers to content outside of its body, and the size of the model's context window is not known"
    } else {
        "the request caps its output at no number of tokens, and the most that the model writes is not known"
    };
    Denial::new(Reason::UnboundedCost, detail)
}

/// What a call probably used, where the provider did not report the whole of it: what it did report, and the rest from
/// the bytes that went by. It is to be shown, not to be credited against a hold.
pub fn estimate(facts: &Facts, reading: &Reading) -> Units {
    let tokens = |bytes: u64| bytes.div_ceil(BYTES_PER_TOKEN);
    let mut units = reading.partial.unwrap_or_default();
    units.requests = 1;
    if units.read() == 0 {
        units.input = tokens(facts.body_bytes);
    }
    let missing = tokens(reading.output_bytes).saturating_sub(units.written());
    units.output = units.output.saturating_add(missing);
    units
}

#[cfg(test)]
mod tests;
