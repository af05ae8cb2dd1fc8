//! What was shown to a store or a token endpoint and refused: it is not shown again until it is another, or a long time has passed.
//!
//! **Invariant:** of what was refused a keyed digest is kept, and nothing else.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::{hmac, rand};
use tokio::time::Instant;

use crate::error::Failure;
use crate::jitter::jittered;

/// How often whoever says that it was mended on the other side is believed, before the time is over by itself. A vault locks a role at
/// the fifth refusal.
const OPENINGS: u32 = 3;
/// Of tokens, one for each secret that was asked for.
const MOST: usize = 1024;

/// Names what was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Input([u8; 32]);

pub(crate) struct Refusals {
    key: Box<hmac::Key>,
    known: Mutex<Vec<Refusal>>,
}

struct Refusal {
    input: Input,
    failure: Failure,
    /// When it may be shown again unasked.
    over: Instant,
    /// Somebody said that it may be shown now.
    is_open: bool,
    opened: u32,
}

impl Refusals {
    pub(crate) fn new() -> Self {
        let mut random = [0; 32];
        // Without it the digests, which never leave the process, are of no secret key.
        let _ = rand::fill(&mut random);
        Self { key: Box::new(hmac::Key::new(hmac::HMAC_SHA256, &random)), known: Mutex::default() }
    }

    /// The name of what these parts are together.
    pub(crate) fn input(&self, parts: &[&[u8]]) -> Input {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        Input(digest)
    }

    /// Why it is not to be shown now.
    pub(crate) fn barred(&self, input: Input) -> Option<Failure> {
        let now = Instant::now();
        let known = self.known();
        let refusal = known.iter().find(|refusal| refusal.input == input)?;
        (!refusal.is_open && now < refusal.over).then_some(refusal.failure)
    }

    /// It was shown and refused. It rests for this long, or up to a tenth longer.
    pub(crate) fn refused(&self, input: Input, failure: Failure, rest: Duration) {
        let now = Instant::now();
        let mut known = self.known();
        let before = known.iter().find(|refusal| refusal.input == input && now < refusal.over);
        let opened = before.map_or(0, |before| before.opened);
        known.retain(|refusal| refusal.input != input && now < refusal.over);
        if known.len() == MOST {
            known.remove(0);
        }
        let over = now + rest + jittered(rest / 20);
        known.push(Refusal { input, failure, over, is_open: false, opened });
    }

    /// It was shown and taken.
    pub(crate) fn taken(&self, input: Input) {
        self.known().retain(|refusal| refusal.input != input);
    }

    /// Somebody says that what was wrong was mended on the other side: everything may be shown once more.
    pub(crate) fn open(&self) {
        for refusal in self.known().iter_mut().filter(|refusal| !refusal.is_open && refusal.opened < OPENINGS)
        {
            (refusal.is_open, refusal.opened) = (true, refusal.opened + 1);
        }
    }

    fn known(&self) -> MutexGuard<'_, Vec<Refusal>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const REST: Duration = Duration::from_secs(960);
    const REFUSED: Failure = Failure::Login("refused");

    #[tokio::test(start_paused = true)]
    async fn what_was_refused_is_shown_again_only_when_it_is_another_or_its_time_is_over() {
        let refusals = Refusals::new();
        let (first, second) = (refusals.input(&[b"role", b"one"]), refusals.input(&[b"role", b"two"]));
        assert_ne!(first, refusals.input(&[b"rol", b"eone"]));
        refusals.refused(first, REFUSED, REST);
        assert_eq!((refusals.barred(first), refusals.barred(second)), (Some(REFUSED), None));
        advance(REST).await;
        assert_eq!(refusals.barred(first), Some(REFUSED), "not sooner than it has to be");
        advance(REST / 10).await;
        assert_eq!(refusals.barred(first), None);
        refusals.refused(first, REFUSED, REST);
        refusals.taken(first);
        assert_eq!(refusals.barred(first), None);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_that_it_was_mended_is_believed_a_few_times() {
        let refusals = Refusals::new();
        let input = refusals.input(&[b"one"]);
        let mut shown = 0;
        for _ in 0..20 {
            if refusals.barred(input).is_none() {
                refusals.refused(input, REFUSED, REST);
                shown += 1;
            }
            refusals.open();
            advance(Duration::from_secs(10)).await;
        }
        assert_eq!(shown, 4, "a fifth would lock the role");
        advance(REST * 2).await;
        assert_eq!(refusals.barred(input), None);
    }
}
