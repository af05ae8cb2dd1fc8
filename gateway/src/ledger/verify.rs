//! Checking a ledger: that nothing in its journal was changed, removed, added or cut off.
//!
//! The chain shows a changed segment, the first entries show a missing one, the seals show a cut or rewritten one, and the anchor beside
//! the key shows seals that were cut off. It works while the gateway runs: seals are read before the segments, which only grow.
//!
//! **Invariant:** what could not be checked is said in the notes; a clean result without a key is not a claim about truncation.

mod sealed;
mod seals;
mod segments;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::seal::SealKey;
use super::segment::SegmentEnd;
use super::{LedgerError, segment};

/// A segment this much older than the latest seal has to be known to it.
const SEALED_WITHIN: SignedDuration = SignedDuration::from_mins(5);

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Below the data directory, or the anchor's whole path.
    pub file: String,
    /// Which entry of a segment or line of the seals, counted from 1; absent where the file as a whole is wrong.
    pub line: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(out, "{}:{line}: {}", self.file, self.what),
            None => write!(out, "{}: {}", self.file, self.what),
        }
    }
}

/// What a check of a ledger found.
#[derive(Debug, Default)]
pub struct Verification {
    /// What is wrong; empty is good.
    pub findings: Vec<Finding>,
    /// What is remarkable but not wrong, and what could not be checked.
    pub notes: Vec<String>,
    /// Segments read.
    pub segments: u64,
    /// Entries read.
    pub entries: u64,
    /// Number and time of the latest seal.
    pub last_seal: Option<(u64, Timestamp)>,
}

impl Verification {
    pub(super) fn find(&mut self, file: impl Into<String>, line: Option<u64>, what: impl Into<String>) {
        self.findings.push(Finding { file: file.into(), line, what: what.into() });
    }
}

/// That a segment has this head behind that line, because somebody says so.
#[derive(Debug)]
struct Claim {
    head: SegmentEnd,
    by: String,
}

/// The name of a segment below the data directory.
fn file(segment: &str) -> String {
    format!("journal/{segment}")
}

/// Checks the ledger of a data directory, with the key of its seals if it is at hand. Fails only where there is no ledger, or files
/// or the key cannot be read.
pub fn verify(data_dir: &Path, key: Option<&Path>) -> Result<Verification, LedgerError> {
    verify_against(data_dir, key, Vec::new(), "")
}

/// [`verify`], also by the ends of segments that `by` has seen.
pub(super) fn verify_against(
    data_dir: &Path,
    key: Option<&Path>,
    seen: Vec<SegmentEnd>,
    by: &str,
) -> Result<Verification, LedgerError> {
    if !segment::directory(data_dir).is_dir() {
        return Err(LedgerError::Missing(data_dir.to_owned()));
    }
    let key = key.map(|path| SealKey::read(path, data_dir)).transpose()?;
    let mut result = Verification::default();
    let said = seals::check(data_dir, key.as_ref(), &mut result)?;
    let seen = seen.into_iter().map(|head| Claim { head, by: by.to_owned() }).collect();
    segments::check(data_dir, (said, seen), key.is_some(), &mut result)?;
    Ok(result)
}
