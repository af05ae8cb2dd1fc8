//! Paths with empty segments or dot segments, at the few destinations that take them literally.
//!
//! Such a path matches a pattern with a wildcard only if all that readers could take it for matches as well, so one of two patterns that
//! have the same paths together may not have it. What is decided on these paths is not looked at one by one: a pattern is said to add some
//! unless one pattern alone had them all.
//!
//! **Invariant:** a change that adds such a path is said to add something. The converse need not hold.

use std::fmt::Write;

use super::boundary::is_within_paths;
use super::change::{Change, Diff, What};
use super::reach::{ComparedHost, Named, Side};
use crate::pattern::{MethodPattern, PathPattern};
use crate::policy::{Approval, Grant};

/// What the callers that these grants name get of such paths.
pub(super) fn compare(place: &ComparedHost<'_>, named: &Named<'_>, diff: &mut Diff) {
    let Some(destination) = place.new.destination else { return };
    if !destination.http().is_some_and(|http| http.encoded_path.has_readings()) {
        return;
    }
    let grants = |side: Side<'_>, index: usize| -> Vec<Grant> {
        let named = &named[index];
        let is_named = |grant: &&std::sync::Arc<Grant>| named.iter().any(|(name, _)| **name == grant.name);
        side.grants().filter(is_named).map(|grant| Grant::clone(grant)).collect()
    };
    let (old, new) = (grants(place.old, 0), grants(place.new, 1));
    let refuses =
        |grant: &&Grant| grant.suspended.is_some() || grant.approval == Approval::Lacking || grant.is_broken;
    let permits = |grant: &&Grant| !refuses(grant);
    let is_alike = |one: &Grant, other: &Grant| {
        one.name == other.name
            && one.allow.paths == other.allow.paths
            && one.allow.methods == other.allow.methods
    };
    // What refused in the old policy and no longer does may have refused any of them.
    let is_lifted =
        old.iter().filter(refuses).any(|before| !new.iter().filter(refuses).any(|now| is_alike(before, now)));
    let had = |grant: &Grant, path: &PathPattern| {
        old.iter().filter(permits).any(|before| {
            let has_method = |method: &MethodPattern| {
                before.allow.methods.contains(&MethodPattern::Any) || before.allow.methods.contains(method)
            };
            grant.allow.methods.iter().all(has_method)
                && before
                    .allow
                    .paths
                    .iter()
                    .any(|old| is_within_paths(path, std::slice::from_ref(old), destination))
        })
    };
    for grant in new.iter().filter(permits) {
        let wild = grant.allow.paths.iter().filter(|path| !path.is_exact());
        for path in wild.filter(|path| is_lifted || !had(grant, path)) {
            let mut callers = String::new();
            for (_, pattern) in named[1].iter().filter(|(name, _)| **name == grant.name) {
                let _ = write!(callers, "{pattern}");
            }
            let words = format!(
                "{callers} may call {}: paths of {path} that have empty segments or dot segments (grant {})",
                destination.name, grant.name
            );
            diff.add(Change::of(What::Path, Some(&grant.name), words));
        }
    }
}
