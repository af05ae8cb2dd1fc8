//! The segments: their chains, and what seals and later segments say about them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use jiff::SignedDuration;

use super::seals::Said;
use super::{Claim, Verification};
use crate::ledger::LedgerError;
use crate::ledger::chain::{self, Head};
use crate::ledger::segment::{self, Header, Lines};

/// Breaks of one chain that are told apart; more of them say nothing new.
const BREAKS: usize = 10;
/// A segment this much older than the latest seal has to be known to it.
const SEALED_WITHIN: SignedDuration = SignedDuration::from_mins(5);

/// Checks every segment, with what the seals claim about them.
pub(super) fn check(
    data_dir: &Path,
    Said { mut claims, retired }: Said,
    sealed: bool,
    result: &mut Verification,
) -> Result<(), LedgerError> {
    let names = segment::list(data_dir)?;
    let mut headers = BTreeMap::new();
    for name in &names {
        if let Some(header) = segment::first(data_dir, name)? {
            headers.insert(Arc::clone(name), header);
        }
    }
    let seals: HashSet<Arc<str>> = claims.iter().map(|claim| Arc::clone(&claim.head.segment)).collect();
    for (name, header) in &headers {
        claims.extend(header.previous.iter().map(|head| Claim { head: head.clone(), by: file(name) }));
    }
    if sealed {
        unsealed(&headers, seals, result);
    }
    beginnings(&headers, result);
    let mut by_segment: HashMap<Arc<str>, Vec<Claim>> = HashMap::new();
    for claim in claims {
        by_segment.entry(Arc::clone(&claim.head.segment)).or_default().push(claim);
    }
    for name in &names {
        let claims = by_segment.remove(name).unwrap_or_default();
        walk(data_dir, name, headers.get(name), &claims, result)?;
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

fn file(segment: &str) -> String {
    format!("journal/{segment}")
}

/// Segments that no seal vouches for, neither by naming them nor by naming one that names them.
fn unsealed(headers: &BTreeMap<Arc<str>, Header>, mut known: HashSet<Arc<str>>, result: &mut Verification) {
    let Some((number, at)) = result.last_seal else { return };
    let mut ask: Vec<Arc<str>> = known.iter().cloned().collect();
    while let Some(name) = ask.pop() {
        for previous in headers.get(&name).into_iter().flat_map(|header| &header.previous) {
            if known.insert(Arc::clone(&previous.segment)) {
                ask.push(Arc::clone(&previous.segment));
            }
        }
    }
    for (name, header) in headers.iter().filter(|(name, _)| !known.contains(*name)) {
        if header.at.saturating_add(SEALED_WITHIN).is_ok_and(|due| due < at) {
            result.find(file(name), None, format!("no seal up to number {number} knows it: it was added"));
        } else {
            result.notes.push(format!("{} is not sealed yet", file(name)));
        }
    }
}

/// Only the very first run has nothing before it.
fn beginnings(headers: &BTreeMap<Arc<str>, Header>, result: &mut Verification) {
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

fn walk(
    data_dir: &Path,
    name: &str,
    header: Option<&Header>,
    claims: &[Claim],
    result: &mut Verification,
) -> Result<(), LedgerError> {
    let file = file(name);
    let mut lines = Lines::open(data_dir, name, 0)?;
    let mut due: HashMap<u64, Vec<&Claim>> = HashMap::new();
    for claim in claims {
        due.entry(claim.head.lines).or_default().push(claim);
    }
    let (mut head, mut count, mut breaks, mut scratch) = (Head::NONE, 0, 0, Vec::new());
    while let Some(line) = lines.next_line().map_err(|source| LedgerError::file("reading", name, source))? {
        count += 1;
        let followed = head.follow(line, &mut scratch);
        if followed.is_none() {
            breaks += 1;
            if breaks <= BREAKS {
                result.find(&file, Some(count), broken(line));
            }
        }
        // Going on from what the line claims shows whether one line was changed or all that follow.
        head = followed.or_else(|| chain::split(line).map(|(_, head)| head)).unwrap_or(head);
        for claim in due.remove(&count).into_iter().flatten().filter(|claim| claim.head.head != head) {
            result.find(
                &file,
                Some(count),
                format!("is not the line that {} names: the chain was rewritten", claim.by),
            );
        }
    }
    if let Some(header) = header.filter(|header| *header.name != *name) {
        result.find(&file, Some(1), format!("says it is {}: the file was renamed", header.name));
    } else if header.is_none() && count > 0 {
        result.find(&file, Some(1), "is not the first line of a segment");
    }
    let cut = claims.iter().filter(|claim| claim.head.lines > count).max_by_key(|claim| claim.head.lines);
    if let Some(claim) = cut {
        let what =
            format!("cut off: it ends after line {count}, {} names line {}", claim.by, claim.head.lines);
        result.find(&file, Some(count), what);
    } else if !lines.rest().is_empty() {
        result.notes.push(format!(
            "{file} has a torn tail: {} bytes of a line behind line {count}",
            lines.rest().len()
        ));
    }
    result.segments += 1;
    result.lines += count;
    Ok(())
}

fn broken(line: &[u8]) -> &'static str {
    match chain::split(line) {
        Some(_) => "does not follow the line before it: one of them was changed, removed, added or moved",
        None => "is no line of a journal",
    }
}
