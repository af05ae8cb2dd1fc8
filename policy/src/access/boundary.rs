//! Grants that go beyond a boundary, field by field.
//!
//! A grant is a box: each of its fields is a set, and so is each field of a boundary. One box is in another if and only if each of its sets
//! is in the other's, and that is decided for texts of every class that the patterns of both tell apart.
//!
//! **Invariant:** a grant that is within one of the boundaries permits no call that this boundary does not have, with no other key and no
//! looser limit.

use std::collections::BTreeSet;
use std::fmt::Display;

use serde::Serialize;

use super::classes::{Alphabet, Template, beginnings, segmented};
use super::terms::implies;
use super::universe;
use super::words::{joined, limit};
use crate::decision::class_word;
use crate::name::ResourceId;
use crate::pattern::{ActionPattern, CallerPattern, HostPattern, MethodPattern, ModelPattern, PathPattern};
use crate::policy::{Allow, Boundary, Destination, Grant, Policy, Unpriced};

/// A field of a grant that goes beyond every boundary.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Violation {
    /// The grant.
    pub grant: ResourceId,
    /// The field of it, as in `spec.allow.paths`.
    pub field: String,
    /// What is beyond, and what the nearest boundary allows.
    pub words: String,
}

/// What of a grant is beyond each of these boundaries. Every kind of its callers has to be within one of them, with all that the grant
/// lets them do; where one is within none, it is held against the boundary that it is beyond of in the fewest fields.
pub fn beyond(grant: &Grant, boundaries: &[Boundary]) -> Vec<Violation> {
    let mut found = BTreeSet::new();
    for caller in &grant.callers {
        let each = boundaries.iter().map(|boundary| Check::of(grant, caller, boundary).found);
        found.extend(each.min_by_key(Vec::len).into_iter().flatten());
    }
    found.into_iter().collect()
}

/// The grants of `new` that are not as they were in `old`: other ones, those that amount to something else, and those that are no longer
/// suspended.
pub fn changed<'a>(old: &'a Policy, new: &'a Policy) -> impl Iterator<Item = &'a Grant> {
    new.grants().map(AsRef::as_ref).filter(move |grant: &&Grant| {
        let before = old.grants().find(|before| before.name == grant.name);
        before.is_none_or(|before| {
            old.hash(before) != new.hash(grant) || (before.suspended.is_some() && grant.suspended.is_none())
        })
    })
}

struct Check<'a> {
    grant: &'a Grant,
    boundary: &'a Boundary,
    found: Vec<Violation>,
}

impl<'a> Check<'a> {
    fn of(grant: &'a Grant, caller: &CallerPattern, boundary: &'a Boundary) -> Self {
        let mut check = Self { grant, boundary, found: Vec::new() };
        if !is_within_callers(caller, &boundary.callers) {
            check.beyond("spec.callers", caller, &joined(&boundary.callers));
        }
        check.destination();
        check.allow();
        check.carried();
        check.limits();
        check
    }

    fn beyond(&mut self, field: &str, what: impl Display, allowed: &str) {
        let boundary = &self.boundary.name;
        let allowed = if allowed.is_empty() { "none" } else { allowed };
        let words = format!("{what} is beyond boundary {boundary}, which allows {allowed}");
        self.found.push(Violation { grant: self.grant.name.clone(), field: field.to_owned(), words });
    }

    /// Each of these that is not within what the boundary has.
    fn each<T: Display>(&mut self, field: &str, all: &[T], allowed: &str, is_within: impl Fn(&T) -> bool) {
        for one in all.iter().filter(|one| !is_within(one)) {
            self.beyond(field, one, allowed);
        }
    }

    fn destination(&mut self) {
        let (destination, boundary) = (&self.grant.destination, self.boundary);
        if !boundary.destinations.contains(&destination.name) {
            self.beyond("spec.destination", &destination.name, &joined(&boundary.destinations));
        }
        if let Some(hosts) = &boundary.hosts {
            let is_within = |host: &HostPattern| hosts.iter().any(|allowed| covers(allowed, host));
            let what = |host: &HostPattern| format!("{host} of {}", destination.name);
            let beyond: Vec<String> =
                destination.hosts.iter().filter(|host| !is_within(host)).map(what).collect();
            self.each("spec.destination", &beyond, &joined(hosts), |_| false);
        }
    }

    fn allow(&mut self) {
        let Allow { methods, paths, models, classes, actions, response_headers, upgrades, range } =
            &self.grant.allow;
        let allowed = &self.boundary.allow;
        self.each("spec.allow.methods", methods, &joined(&allowed.methods), |method| {
            allowed.methods.iter().any(|one| *one == MethodPattern::Any || one == method)
        });
        let destination = &self.grant.destination;
        self.each("spec.allow.paths", paths, &joined(&allowed.paths), |path| {
            is_within_paths(path, &allowed.paths, destination)
        });
        let has_models = destination.http().is_some_and(|http| !http.dialect.is_plain());
        if !allowed.models.is_empty() && models.is_empty() && has_models {
            self.beyond("spec.allow.models", "every model", &joined(&allowed.models));
        }
        self.each("spec.allow.models", models, &joined(&allowed.models), |model| {
            is_within_models(model, &allowed.models)
        });
        let words =
            |classes: &[crate::dialect::Class]| joined(classes.iter().map(|class| class_word(*class)));
        for class in classes.iter().filter(|class| !allowed.classes.contains(class)) {
            self.beyond("spec.allow.classes", class_word(*class), &words(&allowed.classes));
        }
        self.each("spec.allow.actions", actions, &joined(&allowed.actions), |action| {
            is_within_actions(action, &allowed.actions)
        });
        self.each(
            "spec.allow.responseHeaders",
            response_headers,
            &joined(&allowed.response_headers),
            |header| allowed.response_headers.contains(header),
        );
        self.each("spec.allow.upgrades", upgrades, &joined(&allowed.upgrades), |upgrade| {
            allowed.upgrades.contains(upgrade)
        });
        if *range && !allowed.range {
            self.beyond("spec.allow.range", "`Range` beside a key", "");
        }
    }

    /// What calls have on them.
    fn carried(&mut self) {
        let (grant, boundary) = (self.grant, self.boundary);
        if let Some(key) = grant.credential.as_ref().filter(|key| !boundary.credentials.contains(&key.name)) {
            self.beyond("spec.credential", &key.name, &joined(&boundary.credentials));
        }
        if let Some(audience) =
            grant.caller_token.as_ref().filter(|it| boundary.caller_token.as_ref() != Some(*it))
        {
            self.beyond(
                "spec.callerToken",
                format!("the token for {audience}"),
                boundary.caller_token.as_deref().unwrap_or_default(),
            );
        }
    }

    fn limits(&mut self) {
        let (grant, boundary) = (self.grant, self.boundary);
        for most in &boundary.limits {
            if grant.limits.iter().any(|own| implies(own, most)) {
                continue;
            }
            let own: Vec<String> =
                grant.limits.iter().filter(|own| own.unit == most.unit).map(limit).collect();
            let own = if own.is_empty() { format!("no limit on {}", most.unit) } else { own.join(", ") };
            self.beyond("spec.limits", own, &limit(most));
        }
        if let Some(most) =
            boundary.default_output_cap.filter(|most| grant.default_output_cap.is_none_or(|own| own > *most))
        {
            let own = grant
                .default_output_cap
                .map_or_else(|| "no cap".to_owned(), |own| format!("a cap of {own} tokens"));
            self.beyond("spec.defaultOutputCap", own, &format!("{most} tokens"));
        }
        if let Some(own) = grant.assume {
            let least = boundary.assume;
            let is_within = |least: crate::policy::Assume| {
                own.input_tokens >= least.input_tokens && own.output_tokens >= least.output_tokens
            };
            if !least.is_some_and(is_within) {
                let words = |it: crate::policy::Assume| {
                    format!("{} tokens in and {} out", it.input_tokens, it.output_tokens)
                };
                self.beyond(
                    "spec.assume",
                    words(own),
                    &least.map(|least| format!("{} or more", words(least))).unwrap_or_default(),
                );
            }
        }
        let rank = |it: Unpriced| match it {
            Unpriced::Deny => (0, "deny"),
            Unpriced::Dearest => (1, "dearest"),
            Unpriced::Flag => (2, "flag"),
        };
        let (own, most) = (rank(grant.unpriced), rank(boundary.unpriced));
        if own.0 > most.0 {
            self.beyond("spec.unpriced", own.1, most.1);
        }
    }
}

fn is_within_callers(caller: &CallerPattern, allowed: &[CallerPattern]) -> bool {
    let mut callers = universe::callers(std::iter::once(caller).chain(allowed)).into_iter();
    callers.all(|(id, _)| !caller.matches(&id) || allowed.iter().any(|allowed| allowed.matches(&id)))
}

fn covers(one: &HostPattern, other: &HostPattern) -> bool {
    one == other || matches!(other, HostPattern::Exact(host) if one.matches(host))
}

/// Whether every path that one pattern stands for is one that some of these do.
pub(super) fn is_within_paths(
    path: &PathPattern,
    allowed: &[PathPattern],
    destination: &Destination,
) -> bool {
    let within = |allowed: &[PathPattern]| {
        if path.is_exact() {
            return allowed.iter().any(|allowed| allowed.matches(&path.to_string()));
        }
        let patterns = std::iter::once(path).chain(allowed);
        let templates: Vec<Template> = patterns.map(|pattern| Template::new(&pattern.to_string())).collect();
        let mut paths = segmented(&templates, Alphabet::Paths).into_iter();
        paths.all(|text| !path.matches(&text) || allowed.iter().any(|allowed| allowed.matches(&text)))
    };
    // A path that readers could take for others matches a pattern only if each of these does, so that two patterns together may have all
    // of them and neither the path.
    let has_readings = destination.http().is_some_and(|http| http.encoded_path.has_readings());
    if has_readings { allowed.chunks(1).any(within) } else { within(allowed) }
}

fn is_within_models(model: &ModelPattern, allowed: &[ModelPattern]) -> bool {
    let patterns = std::iter::once(model).chain(allowed);
    let known: Vec<&str> =
        patterns.map(|(ModelPattern::Exact(text) | ModelPattern::Prefix(text))| &**text).collect();
    let mut texts = beginnings(known.into_iter()).into_iter();
    allowed.is_empty()
        || texts.all(|text| !model.matches(&text) || allowed.iter().any(|allowed| allowed.matches(&text)))
}

fn is_within_actions(action: &ActionPattern, allowed: &[ActionPattern]) -> bool {
    let patterns = std::iter::once(action).chain(allowed);
    let known: Vec<&str> =
        patterns.map(|(ActionPattern::Exact(text) | ActionPattern::Prefix(text))| &**text).collect();
    let mut texts = beginnings(known.iter().copied());
    texts.extend(known.iter().map(|text| format!("{text}-")));
    texts.iter().all(|text| !action.matches(text) || allowed.iter().any(|allowed| allowed.matches(text)))
}
