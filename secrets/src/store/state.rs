//! Whether a store or a token endpoint as a whole works, and which of its changes are worth a line in the log.
//!
//! **Invariant:** the log has a line when a store begins or ceases to fail, however many secrets fail with it. One that
//! fails for some secrets and works for others, or for other reasons all the time, gets [`BURST`] lines and then one a
//! minute; what is said is how the store does at that moment.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Failure;

const BURST: u32 = 4;
const EVERY: Duration = Duration::from_secs(60);

/// How a store does.
pub(crate) struct State {
    failing: Option<Failing>,
    /// What the log said last.
    said: Option<Failing>,
    said_at: Option<Instant>,
    lines: u32,
    refilled: Instant,
}

/// Since when, and why last.
#[derive(Clone, Copy)]
pub(crate) struct Failing {
    pub(crate) since: Instant,
    pub(crate) failure: Failure,
}

/// A change from working to failing or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shift {
    /// It begins to fail.
    Fails(Failure),
    /// It works again.
    Works,
}

/// A line for the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Fails(Failure),
    FailsOtherwise(Failure),
    Works(Duration),
}

impl State {
    pub(crate) fn new() -> Self {
        Self { failing: None, said: None, said_at: None, lines: BURST, refilled: Instant::now() }
    }

    pub(crate) const fn failing(&self) -> Option<Failing> {
        self.failing
    }

    /// Takes in how a fetch ended for the store as a whole.
    pub(crate) fn note(&mut self, broken: Option<Failure>) -> (Option<Shift>, Option<Line>) {
        let now = Instant::now();
        let before = self.failing;
        let since = before.map_or(now, |before| before.since);
        self.failing = broken.map(|failure| Failing { since, failure });
        let shift = match (before, broken) {
            (None, Some(failure)) => Some(Shift::Fails(failure)),
            (Some(_), None) => Some(Shift::Works),
            _ => None,
        };
        (shift, self.line(now))
    }

    fn line(&mut self, now: Instant) -> Option<Line> {
        let line = match (self.said, self.failing) {
            (None, Some(is)) => Line::Fails(is.failure),
            (Some(said), None) => Line::Works(now - said.since),
            (Some(said), Some(is)) if said.failure != is.failure => Line::FailsOtherwise(is.failure),
            _ => return None,
        };
        let is_recent = self.said_at.is_some_and(|at| now < at + EVERY);
        if matches!(line, Line::FailsOtherwise(_)) && is_recent {
            return None;
        }
        while self.lines < BURST && self.refilled + EVERY <= now {
            self.lines += 1;
            self.refilled += EVERY;
        }
        if self.lines == BURST {
            self.refilled = now;
        }
        self.lines = self.lines.checked_sub(1)?;
        (self.said, self.said_at) = (self.failing, Some(now));
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_a_thousand_times_is_one_change_of_state() {
        let mut state = State::new();
        assert_eq!(state.note(None), (None, None));
        let failure = Failure::Sealed;
        assert_eq!(state.note(Some(failure)), (Some(Shift::Fails(failure)), Some(Line::Fails(failure))));
        for _ in 0..1000 {
            assert_eq!(state.note(Some(failure)), (None, None));
        }
        advance(Duration::from_secs(90)).await;
        let otherwise = Line::FailsOtherwise(Failure::Timeout);
        assert_eq!(state.note(Some(Failure::Timeout)), (None, Some(otherwise)));
        let works = Line::Works(Duration::from_secs(90));
        assert_eq!(state.note(None), (Some(Shift::Works), Some(works)));
        assert_eq!(state.note(None), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn secrets_that_fail_for_different_reasons_are_one_line_a_minute() {
        let mut state = State::new();
        let reasons = [Failure::Timeout, Failure::Sealed, Failure::Unreachable("connection refused")];
        let mut lines = 0;
        for second in 0..600 {
            lines += usize::from(state.note(Some(reasons[second % 3])).1.is_some());
            advance(Duration::from_secs(1)).await;
        }
        assert!((2..=11).contains(&lines), "{lines}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_works_for_some_secrets_only_does_not_fill_the_log() {
        let mut state = State::new();
        let mut lines = 0;
        for second in 0..600 {
            let broken = (second % 2 == 0).then_some(Failure::Status(500));
            lines += u32::from(state.note(broken).1.is_some());
            advance(Duration::from_secs(1)).await;
        }
        assert!((5..=BURST + 11).contains(&lines), "{lines}");
        advance(EVERY * 2).await;
        for _ in 0..3 {
            state.note(None);
        }
        assert!(state.said.is_none(), "what is said last is how it is");
    }
}
