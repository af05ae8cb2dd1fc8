//! Looking twice before something on disk is taken.
//!
//! **Invariant:** whoever writes a file in place empties it first and may be seen half way: what is taken was the same at two looks in a row.

/// What something was when it was taken, and at the last look.
#[derive(Debug)]
pub(crate) struct StableFile<T> {
    taken: Option<T>,
    last: Option<T>,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing but what was taken.
    Same,
    /// A change that may still be under way.
    Unsettled,
    /// A change that is the same as at the look before. From now on it counts as taken.
    Settled,
}

impl<T: PartialEq> StableFile<T> {
    /// `taken` is what counts as taken.
    pub(crate) const fn new(taken: Option<T>) -> Self {
        Self { taken, last: None }
    }

    /// Makes what settles next count as a change, whatever it is.
    pub(crate) fn forget(&mut self) {
        self.taken = None;
    }

    pub(crate) fn look(&mut self, now: T) -> Look {
        if self.taken.as_ref() == Some(&now) {
            self.last = None;
            return Look::Same;
        }
        if self.last.as_ref() != Some(&now) {
            self.last = Some(now);
            return Look::Unsettled;
        }
        *self = Self::new(Some(now));
        Look::Settled
    }
}

/// Tells files from what they were; what the system says where they cannot be read.
pub(crate) type Digest = Result<Vec<u8>, String>;

/// Files that are taken together.
#[derive(Debug)]
pub(crate) struct WatchedFiles<E> {
    settle: StableFile<Digest>,
    /// As they were when they were taken; `None` where they never were.
    in_force: Option<Digest>,
    /// Why what is there now is not in force.
    pub(crate) fault: Option<E>,
}

impl<E> WatchedFiles<E> {
    pub(crate) const fn new(taken: Digest) -> Self {
        Self { settle: StableFile::new(Some(taken)), in_force: None, fault: None }
    }

    /// Whether files that are now like this are to be taken.
    pub(crate) fn is_new(&mut self, now: &Digest) -> bool {
        if self.settle.look(now.clone()) != Look::Settled {
            return false;
        }
        let is_old = self.in_force.as_ref() == Some(now);
        if is_old {
            self.fault = None;
        }
        !is_old
    }

    pub(crate) fn took(&mut self, now: Digest) {
        (self.in_force, self.fault) = (Some(now), None);
    }
}

/// SHA-256 of what stands in these parts.
pub(crate) fn digest(parts: &[&[u8]]) -> Vec<u8> {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_between_two_looks_is_not_taken() {
        let mut settle = StableFile::new(Some("whole"));
        let mut look = |now| settle.look(now);
        assert_eq!(look("whole"), Look::Same);
        assert_eq!([look(""), look("wh"), look("whole")], [Look::Unsettled, Look::Unsettled, Look::Same]);
        assert_eq!([look(""), look("whole"), look("")], [Look::Unsettled, Look::Same, Look::Unsettled]);
        assert_eq!([look("new"), look("new"), look("new")], [Look::Unsettled, Look::Settled, Look::Same]);
    }

    #[test]
    fn what_was_never_taken_has_to_settle_too() {
        let mut settle = StableFile::new(None);
        assert_eq!(
            [settle.look(1), settle.look(1), settle.look(1)],
            [Look::Unsettled, Look::Settled, Look::Same]
        );
    }
}
