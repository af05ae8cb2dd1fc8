//! How a limit stood when it refused a call.

use std::sync::Arc;
use std::time::Duration;

use super::{Limit, LimitKind, Owner, Unit, Usage};

/// What a caller is told of the limit that refused its call, all amounts in the limit's unit.
///
/// The limit is one that the caller's own grant is held to, and what is left of it stands in the `RateLimit` of every answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitState {
    /// [`Limit::id`].
    pub id: Arc<str>,
    /// Whose limit it is.
    pub owner: Owner,
    /// What the amounts count.
    pub unit: Unit,
    /// The cap.
    pub amount: u64,
    /// How many of a rate may come at once; `used` is counted against it.
    pub burst: Option<u32>,
    /// Settled in the window.
    pub used: u64,
    /// Reserved by calls under way; their number for concurrency.
    pub held: u64,
    /// The most that the refused call may take.
    pub needed: u64,
    /// When the window has more to give. `None`: it has none, or the call fits into no window.
    pub resets_in: Option<Duration>,
}

impl LimitState {
    /// `limit` with this usage before a call that may take `needed`.
    pub fn new(limit: &Limit, Usage { spent, held }: Usage, needed: u64) -> Self {
        let burst = match limit.kind {
            LimitKind::Gcra { burst, .. } => Some(burst),
            LimitKind::Counted(_) | LimitKind::Concurrent => None,
        };
        let (id, owner, unit, amount) =
            (Arc::clone(&limit.id), limit.owner.clone(), limit.unit, limit.amount);
        Self { id, owner, unit, amount, burst, used: spent, held, needed, resets_in: None }
    }

    /// The same, with the time until it has more to give.
    #[must_use]
    pub fn resets_in(self, resets_in: Option<Duration>) -> Self {
        Self { resets_in, ..self }
    }
}
