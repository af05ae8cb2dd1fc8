//! What calls have with them that both policies permit: keys, tokens, limits, and how their destinations are reached.
//!
//! **Invariant:** what can be said to be neither more nor less than before is said to be added.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use super::change::{Change, Diff, What};
use super::words::{joined, limit, passed, reading};
use crate::limit::{
    Limit, LimitId, LimitKey, LimitKind, OnExhausted, Owner, Per, StoreFailure, Unit, Window,
};
use crate::path::EncodedForms;
use crate::policy::{
    Allow, Assume, Credential, Destination, Grant, HttpDestination, Policy, Protocol, Proxy, Scrub,
    TlsVerify, Unpriced,
};

/// Whose terms are compared, and where what is said of them goes.
struct Terms<'a> {
    grant: &'a Grant,
    /// What the words begin with.
    subject: String,
    diff: &'a mut Diff,
}

impl Terms<'_> {
    fn adds(&mut self, what: What, words: &str) {
        self.diff.add(Change::of(what, Some(&self.grant.name), format!("{}{words}", self.subject)));
    }

    fn removes(&mut self, what: What, words: &str) {
        self.diff.remove(Change::of(what, Some(&self.grant.name), format!("{}{words}", self.subject)));
    }

    /// More or less of something that one can have none of.
    fn measure<T: Ord + Copy>(&mut self, what: What, (old, new): (T, T), words: impl Fn(T, T) -> String) {
        match new.cmp(&old) {
            std::cmp::Ordering::Greater => self.adds(what, &words(old, new)),
            std::cmp::Ordering::Less => self.removes(what, &words(old, new)),
            std::cmp::Ordering::Equal => {}
        }
    }

    /// Entries of a list that came, and entries that went.
    fn lists<T: PartialEq + Display>(&mut self, what: What, (old, new): (&[T], &[T]), words: [&str; 2]) {
        let beyond = |these: &[T], those: &[T]| joined(these.iter().filter(|it| !those.contains(it)));
        let ([came, went], (more, fewer)) = (words, (beyond(new, old), beyond(old, new)));
        if !more.is_empty() {
            self.adds(what, &format!("{came} {more}"));
        }
        if !fewer.is_empty() {
            self.removes(what, &format!("{went} {fewer}"));
        }
    }
}

/// The terms of calls that one grant permitted and another permits, which may be the same one changed.
pub(super) fn grants(
    (from, old): (&Policy, &Arc<Grant>),
    (to, new): (&Policy, &Arc<Grant>),
    diff: &mut Diff,
) {
    let Grant {
        name,
        credential,
        caller_token,
        allow: Allow { response_headers, upgrades, range, .. },
        limits,
        budgets: _,
        default_output_cap,
        assume,
        unpriced,
        // Whom it lets call what has been decided, as has whether it is in force.
        callers: _,
        destination: _,
        suspended: _,
        approval: _,
        is_broken: _,
    } = &**new;
    let subject = match old.name == *name {
        true => format!("grant {name}: "),
        false => format!("grant {name}, where grant {} decided before: ", old.name),
    };
    let mut terms = Terms { grant: new, subject, diff };
    self::credential((from, old.credential.as_deref()), (to, credential.as_deref()), &mut terms);
    if old.caller_token != *caller_token {
        match (&old.caller_token, caller_token) {
            (_, Some(audience)) => {
                terms.adds(What::CallerToken, &format!("the caller's own token for {audience} is passed on"));
            }
            (Some(audience), None) => {
                terms.removes(
                    What::CallerToken,
                    &format!("the caller's own token for {audience} is no longer passed on"),
                );
            }
            (None, None) => {}
        }
    }
    let headers = (&*old.allow.response_headers, &**response_headers);
    terms.lists(What::ResponseHeader, headers, ["answers keep", "answers no longer keep"]);
    let upgrades = (&*old.allow.upgrades, &**upgrades);
    terms.lists(What::Upgrade, upgrades, ["calls may go on with", "calls may no longer go on with"]);
    terms.measure(What::Range, (old.allow.range, *range), |_, now| {
        if now { "`Range` is passed on".to_owned() } else { "`Range` is no longer passed on".to_owned() }
    });
    // Without a cap it is the model's maximum.
    let cap = |cap: Option<u64>| cap.unwrap_or(u64::MAX);
    terms.measure(What::OutputCap, (cap(old.default_output_cap), cap(*default_output_cap)), |old, new| {
        let words = |cap| if cap == u64::MAX { "none".to_owned() } else { format!("{cap} tokens") };
        format!("the cap on the output of calls without one is {} (before: {})", words(new), words(old))
    });
    self::assume(old.assume, *assume, &mut terms);
    let rank = |unpriced| match unpriced {
        Unpriced::Deny => 0,
        Unpriced::Dearest => 1,
        Unpriced::Flag => 2,
    };
    terms.measure(What::Unpriced, (rank(old.unpriced), rank(*unpriced)), |old, new| {
        let word =
            |rank: usize| ["refused", "charged as the dearest", "let through for nothing"][rank.min(2)];
        format!("models without a price are {} (before: {})", word(new), word(old))
    });
    self::limits((&old.limits, limits), old.name != *name, &mut terms);
}

/// Without an assumption calls are refused that nothing bounds; the less is assumed, the more they may exceed.
fn assume(old: Option<Assume>, new: Option<Assume>, terms: &mut Terms<'_>) {
    let words = |it: Option<Assume>| match it {
        Some(Assume { input_tokens, output_tokens }) => {
            format!("held at {input_tokens} tokens in and {output_tokens} out")
        }
        None => "refused".to_owned(),
    };
    let is_within = |one: Option<Assume>, other: Option<Assume>| match (one, other) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(one), Some(other)) => {
            one.input_tokens >= other.input_tokens && one.output_tokens >= other.output_tokens
        }
    };
    let said = format!("calls that nothing bounds are {} (before: {})", words(new), words(old));
    if !is_within(new, old) {
        terms.adds(What::Assume, &said);
    } else if new != old {
        terms.removes(What::Assume, &said);
    }
}

fn credential(
    (from, old): (&Policy, Option<&Credential>),
    (to, new): (&Policy, Option<&Credential>),
    terms: &mut Terms<'_>,
) {
    let (old, new) = match (old, new) {
        (None, None) => return,
        (None, Some(new)) => {
            return terms.adds(What::Credential, &format!("calls carry credential {}", new.name));
        }
        (Some(old), None) => {
            return terms
                .removes(What::Credential, &format!("calls no longer carry credential {}", old.name));
        }
        (Some(old), Some(new)) => (old, new),
    };
    if old.name != new.name {
        terms.adds(What::Credential, &format!("calls carry credential {} (before: {})", new.name, old.name));
    } else if from.credential_differs(old, to, new) {
        // It is the credential that has changed, whichever grants name it.
        let words = format!("credential {} is another key, or is put on calls in another way", new.name);
        terms.diff.add(Change::of(What::Credential, None, words));
    }
}

/// What a limit is told apart by among those of one call: those of a budget are its own, those of grants go on in one another.
fn key(limit: &Limit) -> (Option<&Owner>, Unit, Option<Per>, LimitKey) {
    let budget = Some(&limit.owner).filter(|owner| matches!(owner, Owner::Budget(_)));
    (budget, limit.unit, LimitId::read(&limit.id).and_then(|id| id.per), limit.key)
}

fn limits((old, new): (&[Limit], &[Limit]), is_other: bool, terms: &mut Terms<'_>) {
    if is_other && !old.is_empty() {
        terms.adds(What::Limit, "calls are counted anew, by the limits of another grant");
    }
    for before in old {
        match new.iter().find(|now| key(now) == key(before)) {
            Some(now) => changed(before, now, terms),
            None if new.iter().any(|now| implies(now, before)) => {}
            None => terms.adds(What::Limit, &format!("no longer limited to {}", limit(before))),
        }
    }
    for now in new.iter().filter(|now| !old.iter().any(|before| key(before) == key(now))) {
        terms.removes(What::Limit, &format!("limited to {}", limit(now)));
    }
}

fn changed(before: &Limit, now: &Limit, terms: &mut Terms<'_>) {
    let said = format!("limited to {} (before: {})", limit(now), limit(before));
    match (implies(now, before), implies(before, now)) {
        (true, true) => {}
        (true, false) => terms.removes(What::Limit, &said),
        (false, _) => terms.adds(What::Limit, &said),
    }
}

/// Whether who keeps to `one` keeps to `other` as well: a count that more share, of no more.
pub(super) fn implies(one: &Limit, other: &Limit) -> bool {
    let width = |key| match key {
        LimitKey::Caller => 0,
        LimitKey::Namespace => 1,
        LimitKey::Shared => 2,
    };
    let is_as_hard = (one.on_exhausted == OnExhausted::Deny || one.on_exhausted == other.on_exhausted)
        && (one.raises.is_empty() || one.raises == other.raises);
    let is_as_strict = one.store_failure == StoreFailure::Deny || other.store_failure == StoreFailure::Local;
    let (_, unit, per, _) = key(one);
    let is_alike = match (&one.kind, &other.kind) {
        (LimitKind::Concurrent, LimitKind::Concurrent) => true,
        (LimitKind::Gcra { burst, .. }, LimitKind::Gcra { burst: most, .. }) => burst <= most,
        (LimitKind::Counted(one), LimitKind::Counted(other)) => match (one, other) {
            (Window::Rolling { slices, .. }, Window::Rolling { slices: other, .. }) => slices == other,
            (Window::Calendar { timezone, .. }, Window::Calendar { timezone: other, .. }) => {
                timezone == other
            }
            _ => false,
        },
        _ => false,
    };
    let (_, other_unit, other_per, _) = key(other);
    // A budget counts the calls of others too, so no limit of a grant is as hard.
    let is_as_wide = matches!(other.owner, Owner::Grant(_)) || one.owner == other.owner;
    (unit, per) == (other_unit, other_per)
        && is_alike
        && is_as_hard
        && is_as_strict
        && is_as_wide
        && one.amount <= other.amount
        && width(one.key) >= width(other.key)
}

/// What grants for a destination need before they are in force.
pub(super) fn approvals(old: &Policy, new: &Policy, diff: &mut Diff) {
    for now in new.destinations() {
        let Some(before) = old.destination(now.name.as_str()) else { continue };
        let say =
            |words: &str| Change::of(What::Approval, None, format!("destination {}: {words}", now.name));
        match (before.demands_approval, now.demands_approval) {
            (true, false) => diff.add(say("no longer demands approval of grants")),
            (false, true) => diff.remove(say("demands approval of grants")),
            _ => {}
        }
    }
}

/// The proxy before a destination, in words.
fn through(proxy: Option<&Proxy>) -> String {
    proxy.map_or_else(
        || "no proxy".to_owned(),
        |proxy| match &proxy.tls {
            None => proxy.to_string(),
            Some(TlsVerify::System) => format!("{proxy} by TLS"),
            Some(TlsVerify::Bundle(file)) => format!("{proxy} by TLS, verified by {}", file.display()),
        },
    )
}

/// How a destination is reached, where both policies permit some call to a host.
pub(super) fn destinations(
    (from, old): (&Policy, &Destination),
    (to, new): (&Policy, &Destination),
    diff: &mut Diff,
) {
    let Destination {
        name,
        addresses,
        proxy,
        sources,
        tls,
        client_certificate,
        protocol,
        demands_approval: _,
        origin,
        // A host and port are compared by themselves.
        hosts: _,
        port: _,
        timeouts: _,
        resilience: _,
        // What a request in a tunnel asks for decides, not the tunnel's address.
        virtual_addresses: _,
    } = new;
    let mut adds =
        |what, words: String| diff.add(Change::of(what, None, format!("destination {name}: {words}")));
    let verified = |of: &Destination, by: &TlsVerify, origin: &crate::model::Source| match by {
        _ if !of.is_secured() => "nobody here".to_owned(),
        TlsVerify::System => "the system's certificate authorities".to_owned(),
        TlsVerify::Bundle(file) => format!("those in {}", Path::display(origin.unresolve(file))),
    };
    let (by, before) = (verified(new, tls, origin), verified(old, &old.tls, &old.origin));
    if by != before {
        adds(What::Tls, format!("verified by {by} (before: {before})"));
    }
    if client_certificate != &old.client_certificate {
        let words = |shown: &Option<crate::name::ResourceId>| {
            shown.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)
        };
        let (now, before) = (words(client_certificate), words(&old.client_certificate));
        adds(What::ClientCertificate, format!("shown client certificate {now} (before: {before})"));
    } else if let (Some(before), Some(now)) = (from.client_certificate(old), to.client_certificate(new))
        && from.credential_differs(before, to, now)
    {
        let words = match (reading(before), reading(now)) {
            (before, now) if before == now => "is put together in another way".to_owned(),
            (before, now) => format!("is read at {now} (before: {before})"),
        };
        adds(What::ClientCertificate, format!("client certificate {} {words}", now.name));
    }
    let listed = |addresses: &[std::net::IpAddr], none: &str| match addresses {
        [] => none.to_owned(),
        some => joined(some),
    };
    let is_same = |one: &[std::net::IpAddr], other: &[std::net::IpAddr]| {
        one.len() == other.len() && one.iter().all(|address| other.contains(address))
    };
    if !is_same(addresses, &old.addresses) {
        let (now, before) = (listed(addresses, "what DNS says"), listed(&old.addresses, "what DNS says"));
        adds(What::Address, format!("dialled at {now} (before: {before})"));
    }
    if proxy != &old.proxy {
        let (now, before) = (through(proxy.as_deref()), through(old.proxy.as_deref()));
        adds(What::Address, format!("reached through {now} (before: {before})"));
    }
    let (from_now, from_before) = (sources.to_string(), old.sources.to_string());
    if from_now != from_before {
        adds(What::SourceAddress, format!("calls leave from {from_now} (before: {from_before})"));
    }
    let (now, before) = (passed(protocol), passed(&old.protocol));
    if now != before {
        adds(What::Tls, format!("takes {now} (before: {before})"));
    }
    if let (Protocol::Http(old), Protocol::Http(new)) = (&old.protocol, protocol) {
        http(old, new, &format!("destination {name}"), diff);
    }
}

fn http(old: &HttpDestination, new: &HttpDestination, subject: &str, diff: &mut Diff) {
    let HttpDestination { dialect, encoded_path, scrub, first_byte: _, total: _, version: _ } = new;
    if dialect.name() != old.dialect.name() {
        let words = format!("{subject}: has the dialect {} (before: {})", dialect.name(), old.dialect.name());
        diff.add(Change::of(What::Dialect, None, words));
    }
    let forms = |these: EncodedForms, those: EncodedForms| joined(these.beyond(those));
    let (more, fewer) = (forms(*encoded_path, old.encoded_path), forms(old.encoded_path, *encoded_path));
    if !more.is_empty() {
        diff.add(Change::of(What::EncodedPath, None, format!("{subject}: takes paths with {more}")));
    }
    if !fewer.is_empty() {
        diff.remove(Change::of(
            What::EncodedPath,
            None,
            format!("{subject}: no longer takes paths with {fewer}"),
        ));
    }
    match (old.scrub, scrub) {
        (Scrub::All, Scrub::Headers) => {
            diff.add(Change::of(
                What::Scrub,
                None,
                format!("{subject}: keys in bodies of answers are not masked"),
            ));
        }
        (Scrub::Headers, Scrub::All) => {
            diff.remove(Change::of(
                What::Scrub,
                None,
                format!("{subject}: keys in bodies of answers are masked"),
            ));
        }
        _ => {}
    }
}

/// Where keys may go.
pub(super) fn credentials(old: &Policy, new: &Policy, diff: &mut Diff) {
    for credential in new.credentials() {
        let Some(before) = old.credentials().find(|before| before.name == credential.name) else { continue };
        let beyond = |these: &Credential, those: &Credential| {
            let has = |name| those.destinations.iter().any(|destination| destination.name == name);
            joined(these.destinations.iter().map(|it| &it.name).filter(|name| !has((*name).clone())))
        };
        let (more, fewer) = (beyond(credential, before), beyond(before, credential));
        let name = &credential.name;
        if !more.is_empty() {
            diff.add(Change::of(What::Binding, None, format!("credential {name}: may be sent to {more}")));
        }
        if !fewer.is_empty() {
            diff.remove(Change::of(
                What::Binding,
                None,
                format!("credential {name}: may no longer be sent to {fewer}"),
            ));
        }
    }
}
