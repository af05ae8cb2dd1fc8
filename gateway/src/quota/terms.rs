//! On which terms a call is held, beside its amounts.

use tollgate_policy::denial::{Denial, Reason};

/// What a call asks for beside its amounts.
#[derive(Debug, Clone, Copy)]
pub(super) struct HoldTerms<'a> {
    /// The model: some budgets are gone past with one.
    pub(super) model: Option<&'a str>,
    /// It can wait for what another replica may have.
    pub(super) can_wait: bool,
}

impl<'a> HoldTerms<'a> {
    /// Without waiting for anybody.
    pub(super) const fn at_once(model: Option<&'a str>) -> Self {
        Self { model, can_wait: false }
    }

    /// Whether it is too early to go past an amount: it may not be used up.
    pub(super) fn waits_for(self, denial: &Denial) -> bool {
        self.can_wait && matches!(denial.reason, Reason::BudgetHeld | Reason::ConcurrencyLimited)
    }
}
