//! The seals: their MACs, their numbers, and the anchor.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Claim, Verification};
use crate::ledger::seal::{self, Mac, Seal, SealKey};
use crate::ledger::{LedgerError, retention};

/// What seals say about segments.
#[derive(Default)]
pub(super) struct SealClaims {
    pub(super) claims: Vec<Claim>,
    /// Segments that retention removed.
    pub(super) retired: HashSet<Arc<str>>,
}

const FILE: &str = "heads.jsonl";

/// Checks the seals and gives what they claim about segments. Claims of a seal that does not verify are passed over.
pub(super) fn check(
    data_dir: &Path,
    key: Option<&SealKey>,
    result: &mut Verification,
) -> Result<SealClaims, LedgerError> {
    // Before the seals: each is in the file before it is the anchor.
    let anchor = key.and_then(SealKey::anchor);
    let path = seal::path(data_dir);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if anchor.is_some() {
                result.find(FILE, None, "missing, though the anchor beside the key knows of seals");
            } else if key.is_some() {
                result.find(FILE, None, "missing: this ledger was never sealed, or its seals were removed");
            } else {
                result.notes.push("there are no seals: a cut-off tail cannot be seen".into());
            }
            return Ok(SealClaims { claims: Vec::new(), retired: retention::noted(data_dir)? });
        }
        Err(error) => return Err(LedgerError::file("reading", &path, error)),
    };
    if key.is_none() {
        result.notes.push("no key was given: the seals are taken as they stand, and whoever can write the data directory could have made them".into());
    }
    let mut check = Check {
        key,
        result,
        last: [0; 32],
        number: 0,
        anchored: anchor.is_none(),
        said: SealClaims::default(),
    };
    let whole = memchr::memrchr(b'\n', &bytes).map_or(0, |end| end + 1);
    for (index, line) in
        bytes[..whole].split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty())
    {
        check.line(index as u64 + 1, line);
        check.anchored |= anchor.as_deref() == Some(line);
    }
    let (said, anchored) = (check.said, check.anchored);
    if whole < bytes.len() {
        result.notes.push(format!("{FILE} ends in a part of a line: a seal was being written"));
    }
    anchors(key, anchor.as_deref(), anchored, result);
    Ok(said)
}

fn anchors(key: Option<&SealKey>, anchor: Option<&[u8]>, anchored: bool, result: &mut Verification) {
    let Some(key) = key else { return };
    match anchor.map(seal::parse) {
        None => result.notes.push(
            "there is no anchor beside the key: seals that were cut off with all they sealed cannot be seen"
                .into(),
        ),
        Some(_) if anchored => {}
        Some(Some(Seal { number, .. })) => {
            let anchor = key.anchor_path().display();
            let what = format!(
                "seal {number}, which the anchor {anchor} knows, is not in it: the seals were cut back or replaced"
            );
            result.find(FILE, None, what);
        }
        Some(None) => result.find(key.anchor_path().display().to_string(), None, "is no seal"),
    }
}

struct Check<'a> {
    key: Option<&'a SealKey>,
    result: &'a mut Verification,
    last: Mac,
    number: u64,
    anchored: bool,
    said: SealClaims,
}

impl Check<'_> {
    fn line(&mut self, number: u64, line: &[u8]) {
        let (Some((_, mac)), Some(seal)) = (seal::split(line), seal::parse(line)) else {
            self.result.find(FILE, Some(number), "is no seal");
            return;
        };
        if seal.number != self.number + 1 {
            let what = format!(
                "seal {} follows seal {}: seals are missing or out of order",
                seal.number, self.number
            );
            self.result.find(FILE, Some(number), what);
        }
        let good = self.key.is_none_or(|key| key.verifies(line, &self.last));
        if !good {
            self.result.find(
                FILE,
                Some(number),
                "its MAC is wrong: it was changed, it follows another seal, or the key is another",
            );
        }
        (self.last, self.number) = (mac, seal.number);
        self.result.last_seal = Some((seal.number, seal.at));
        if good {
            let by = format!("seal {}", seal.number);
            self.said.retired.extend(seal.retired.into_iter().map(|head| head.segment));
            self.said.claims.extend(seal.heads.into_iter().map(|head| Claim { head, by: by.clone() }));
        }
    }
}
