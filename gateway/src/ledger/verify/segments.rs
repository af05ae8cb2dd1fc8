//! The segments: their chains, and what seals and later segments say about them.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::sealed::Vouched;
use super::seals::SealClaims;
use super::{Claim, SEALED_WITHIN, Verification, file};
use crate::ledger::LedgerError;
use crate::ledger::batch::{Batch, Batches, Damaged};
use crate::ledger::chain::ChainHead;
use crate::ledger::segment::{self, SegmentHeader};

/// Breaks of one chain that are told apart; more of them say nothing new.
const BREAKS: usize = 10;

/// Checks every segment, with what the seals and others who have seen them claim about them.
pub(super) fn check(
    data_dir: &Path,
    (SealClaims { mut claims, retired }, seen): (SealClaims, Vec<Claim>),
    sealed: bool,
    result: &mut Verification,
) -> Result<(), LedgerError> {
    let names = segment::list(data_dir)?;
    let mut headers = BTreeMap::new();
    for name in &names {
        if let Some(header) = unless_unreadable(segment::first(data_dir, name), name, result)?.flatten() {
            headers.insert(Arc::clone(name), header);
        }
    }
    let vouched = Vouched::new(&headers, &claims, result.last_seal.map(|(_, at)| at));
    for (name, header) in &headers {
        claims.extend(header.previous.iter().map(|head| Claim { head: head.clone(), by: file(name) }));
    }
    claims.extend(seen);
    if sealed {
        unsealed(&headers, &vouched, result);
    }
    vouched.cut_short(result);
    beginnings(&headers, result);
    let mut by_segment: HashMap<Arc<str>, Vec<Claim>> = HashMap::new();
    for claim in claims {
        by_segment.entry(Arc::clone(&claim.head.segment)).or_default().push(claim);
    }
    for name in &names {
        let claims = by_segment.remove(name).unwrap_or_default();
        let Some(ends) = walk(data_dir, name, &vouched, &claims, result)? else { continue };
        is_named(name, headers.get(name), ends > 0, result);
        result.segments += 1;
        result.entries += ends;
    }
    let mut missing: Vec<_> = by_segment.into_iter().filter(|(name, _)| !retired.contains(name)).collect();
    if !retired.is_empty() {
        result.notes.push(format!("{} segments went by ledger.keep", retired.len()));
    }
    missing.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, claims) in missing {
        let by = claims.first().map_or("", |claim| &claim.by);
        result.find(file(&name), None, format!("missing; {by} names it"));
    }
    Ok(())
}

/// Segments that no seal vouches for, neither by naming them nor by naming one that names them.
fn unsealed(headers: &BTreeMap<Arc<str>, SegmentHeader>, vouched: &Vouched<'_>, result: &mut Verification) {
    let Some((number, at)) = result.last_seal else { return };
    for (name, header) in headers.iter().filter(|(name, _)| !vouched.knows(name)) {
        if header.at.saturating_add(SEALED_WITHIN).is_ok_and(|due| due < at) {
            result.find(file(name), None, format!("no seal up to number {number} knows it: it was added"));
        } else {
            result.notes.push(format!("{} is not sealed yet", file(name)));
        }
    }
}

/// Only the very first run has nothing before it.
fn beginnings(headers: &BTreeMap<Arc<str>, SegmentHeader>, result: &mut Verification) {
    for (name, header) in headers.iter().skip(1) {
        if header.previous.is_empty() {
            result.find(
                file(name),
                Some(1),
                "does not say what came before it, and it is not the first segment",
            );
        }
    }
}

/// Checks a segment from batch to batch. Gives how many entries it has, if it can be read.
fn walk(
    data_dir: &Path,
    name: &str,
    vouched: &Vouched<'_>,
    claims: &[Claim],
    result: &mut Verification,
) -> Result<Option<u64>, LedgerError> {
    let file = file(name);
    let Some(mut batches) =
        unless_unreadable(Batches::open(&segment::file(data_dir, name), 0), name, result)?
    else {
        return Ok(None);
    };
    let mut due: BTreeMap<u64, Vec<&Claim>> = BTreeMap::new();
    for claim in claims {
        due.entry(claim.head.entries).or_default().push(claim);
    }
    let (mut head, mut count, mut breaks, mut unsealed) = (ChainHead::NONE, 0, 0, 0);
    let sealed = vouched.end(name).filter(|_| vouched.is_finished(name)).unwrap_or(u64::MAX);
    while let Some(batch) =
        batches.next_batch().map_err(|source| LedgerError::file("reading", name, source))?
    {
        if let Some((entry, what)) = broken(&batch, head) {
            breaks += 1;
            if breaks <= BREAKS {
                result.find(&file, Some(count + entry), what);
            }
        }
        // Going on from what the batch claims shows whether one batch was changed or all that follow.
        head = batch.head;
        unsealed += u64::from(count >= sealed);
        count += batch.count;
        while let Some(claims) = due.first_entry().filter(|claims| *claims.key() <= count) {
            let at = *claims.key();
            // A seal never ends within a batch.
            for claim in claims.remove().into_iter().filter(|claim| at < count || claim.head.head != head) {
                let what = format!("is not the entry that {} names: the chain was rewritten", claim.by);
                result.find(&file, Some(at), what);
            }
        }
    }
    if unsealed > 0 {
        let what =
            format!("{unsealed} batches behind the last seal of a segment that was over: they were added");
        result.find(&file, Some(sealed + 1), what);
    }
    let cut = claims.iter().filter(|claim| claim.head.entries > count).max_by_key(|claim| claim.head.entries);
    if let Some(claim) = cut {
        let what =
            format!("cut off: it ends after entry {count}, {} names entry {}", claim.by, claim.head.entries);
        result.find(&file, Some(count), what);
    } else if batches.rest() > 0 {
        let (bytes, offset) = (batches.rest(), batches.offset());
        result.notes.push(format!(
            "{file} has a torn tail: {bytes} bytes of a batch behind entry {count}, from byte {offset} on"
        ));
    }
    Ok(Some(count))
}

/// Checks that a segment, if it is not empty, is the one that its first entry says.
fn is_named(name: &str, header: Option<&SegmentHeader>, is_any: bool, result: &mut Verification) {
    if let Some(header) = header.filter(|header| *header.name != *name) {
        result.find(file(name), Some(1), format!("says it is {}: the file was renamed", header.name));
    } else if header.is_none() && is_any {
        result.find(file(name), Some(1), "is not the first entry of a segment");
    }
}

/// What is wrong with a batch that has to follow `head`, and with which of its entries, counted from 1.
fn broken(batch: &Batch<'_>, head: ChainHead) -> Option<(u64, String)> {
    if batch.passed_over > 0 {
        let (from, to) = (batch.start - batch.passed_over, batch.start);
        return Some((
            1,
            format!("bytes {from} to {to} are no batch: something was changed, removed or added"),
        ));
    }
    let damaged = (1..).zip(batch.entries()).find_map(|(number, entry)| Some((number, entry.err()?)));
    if let Some((number, Damaged { offset })) = damaged {
        return Some((number, format!("the entry at byte {offset} is damaged or was changed")));
    }
    let nameless = (1..)
        .zip(batch.entries().flatten())
        .find_map(|(number, entry)| Some((number, entry.unreadable_list()?)));
    if let Some((number, place)) = nameless {
        return Some((number, format!("names texts at byte {place} that cannot be read")));
    }
    let start = batch.start;
    if batch.entries().count() as u64 != batch.count {
        return Some((1, format!("the batch at byte {start} has not as many entries as it says")));
    }
    (!batch.follows(head)).then(|| {
        (1, format!("the batch at byte {start} does not follow the one before it: one of them was changed, removed, added or moved"))
    })
}

/// A segment that is none of ours is a finding, not the end of the check.
fn unless_unreadable<T>(
    read: Result<T, LedgerError>,
    name: &str,
    result: &mut Verification,
) -> Result<Option<T>, LedgerError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(LedgerError::File { source, .. }) if source.kind() == io::ErrorKind::InvalidData => {
            let (file, what) = (file(name), source.to_string());
            // Asked for its header and then for all of it.
            if !result.findings.iter().any(|known| known.file == file && known.what == what) {
                result.find(file, None, what);
            }
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
