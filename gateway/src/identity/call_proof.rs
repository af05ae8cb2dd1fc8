//! The token that a call was made with, for what of the call outlives its head.
//!
//! **Invariant:** what is under way ends [`GRACE`] after the proof that it was permitted by, whoever else is proven on its connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, Sleep};
use tollgate_policy::denial::Denial;

use super::tokens::{TokenIssuers, VerifiedToken};

/// How long what is under way may go on, once its caller is proven no longer.
pub(super) const GRACE: SignedDuration = SignedDuration::from_secs(60);
/// How often it is looked at again.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A token that has proven the caller of a call.
#[derive(Debug)]
pub(crate) struct CallProof {
    token: Arc<VerifiedToken>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl CallProof {
    pub(super) const fn new(token: Arc<VerifiedToken>) -> Self {
        Self { token, timer: None }
    }

    /// Ready once it has proven nobody for as long as what is under way may outlast it; with why.
    pub(crate) fn poll(&mut self, issuers: &TokenIssuers, cx: &mut Context<'_>) -> Poll<Denial> {
        loop {
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK_EVERY)));
            ready!(timer.as_mut().poll(cx));
            timer.as_mut().reset(Instant::now() + LOOK_EVERY);
            if let Some(denial) = over(&self.token, issuers, Timestamp::now()) {
                return Poll::Ready(denial);
            }
        }
    }
}

/// Why what is under way by `token` has to end at `now`.
pub(super) fn over(token: &VerifiedToken, issuers: &TokenIssuers, now: Timestamp) -> Option<Denial> {
    let refusal = issuers.check_current(token, now).err()?;
    let since = token.ended_since(&refusal, now);
    (now.duration_since(since) > GRACE).then(|| refusal.into())
}
