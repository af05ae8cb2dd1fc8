//! How much of each unit a call asks for, or has used.

use tollgate_policy::limit::Unit;
use tollgate_policy::price::{Item, NanoUsd, Units};

/// The most that one call may use; or what it did use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// Calls: 1; 0 for a part of one that has been let through, which takes no place of its own.
    pub requests: u64,
    /// Tokens, by kind.
    pub tokens: TokenDemand,
    /// What it costs.
    pub spend: NanoUsd,
    /// Bytes that pass on a connection, both ways. What is asked for is the most of the next piece.
    pub bytes: u64,
    /// How long a connection is open. What is asked for is the most of the next piece.
    pub seconds: u64,
}

/// Tokens by what limits count: a token may be of several kinds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenDemand {
    /// Read and written.
    pub all: u64,
    /// Read.
    pub input: u64,
    /// Written.
    pub output: u64,
    /// Read from the provider's prompt cache.
    pub cached: u64,
    /// Written as reasoning.
    pub reasoning: u64,
}

impl Demand {
    pub(super) const fn of(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests => self.requests,
            Unit::Tokens => self.tokens.all,
            Unit::InputTokens => self.tokens.input,
            Unit::OutputTokens => self.tokens.output,
            Unit::CachedTokens => self.tokens.cached,
            Unit::ReasoningTokens => self.tokens.reasoning,
            Unit::Spend => self.spend.0,
            Unit::Concurrency => 1,
            Unit::Bytes => self.bytes,
            Unit::Seconds => self.seconds,
        }
    }
}

impl TokenDemand {
    /// As many as these may be read and written: all that is read may come from a cache, and all that is written be reasoning.
    pub const fn most(input: u64, output: u64) -> Self {
        Self { all: input.saturating_add(output), input, output, cached: input, reasoning: output }
    }

    /// What was used.
    pub fn used(units: &Units) -> Self {
        Self {
            all: units.tokens(),
            input: units.read(),
            output: units.written(),
            cached: units.cached(),
            reasoning: units.get(Item::Reasoning),
        }
    }

    /// Of each kind no more than that.
    pub fn at_most(self, most: &Self) -> Self {
        Self {
            all: self.all.min(most.all),
            input: self.input.min(most.input),
            output: self.output.min(most.output),
            cached: self.cached.min(most.cached),
            reasoning: self.reasoning.min(most.reasoning),
        }
    }
}
