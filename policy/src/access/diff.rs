//! What a change of resources adds and removes: every class of calls, decided by both policies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::change::{Change, Diff, Example, What};
use super::reach::{ComparedHost, Named, Side, Verdicts};
use super::words::{carried, class, joined, limited, passed};
use super::{readings, stores, terms, universe};
use crate::caller::{Caller, Identity};
use crate::denial::Reason;
use crate::dialect::Class;
use crate::name::ResourceId;
use crate::pattern::{CallerPattern, HostPattern, MethodPattern, ModelPattern, PathPattern};
use crate::policy::{Approval, Grant, Policy, Protocol};

/// What `new` adds to `old` and removes from it. `assume` makes callers that nobody has proven, to ask what they could do if they had been;
/// `now` says which prices are in force.
pub fn diff(old: &Policy, new: &Policy, now: Timestamp, assume: &dyn Fn(Identity) -> Caller) -> Diff {
    let mut diff = Diff::default();
    for hosts in places(old, new).into_values() {
        let Some((host, port, _)) = hosts.first() else { continue };
        let (old, new) = (Side::at(old, host, *port), Side::at(new, host, *port));
        let place = ComparedHost { host, port: *port, old, new };
        let named = joined(hosts.iter().map(|(_, port, pattern)| match port {
            443 => pattern.to_string(),
            port => format!("{pattern}:{port}"),
        }));
        compare(&place, &named, now, assume, &mut diff);
    }
    terms::approvals(old, new, &mut diff);
    terms::credentials(old, new, &mut diff);
    stores::compare(old, new, &mut diff);
    diff.sorted()
}

/// The destinations, by name, that two policies have at one host and port.
type Pair = (Option<ResourceId>, Option<ResourceId>);

/// A host that stands for the others of its pattern, its port, and the pattern.
type Host<'a> = (String, u16, &'a HostPattern);

/// All hosts of both policies, those together that are the same destinations.
fn places<'a>(old: &'a Policy, new: &'a Policy) -> BTreeMap<Pair, Vec<Host<'a>>> {
    let destinations = || old.destinations().chain(new.destinations());
    let known = || destinations().flat_map(|destination| &destination.hosts);
    let claimed: BTreeSet<(&HostPattern, u16)> = destinations()
        .flat_map(|destination| destination.hosts.iter().map(|host| (host, destination.port)))
        .collect();
    let mut places: BTreeMap<Pair, Vec<Host<'a>>> = BTreeMap::new();
    for (pattern, port) in claimed {
        let host = universe::host(pattern, known());
        let name = |policy| Side::at(policy, &host, port).destination.map(|it| it.name.clone());
        places.entry((name(old), name(new))).or_default().push((host.clone(), port, pattern));
    }
    places
}

fn compare(
    place: &ComparedHost<'_>,
    hosts: &str,
    now: Timestamp,
    assume: &dyn Fn(Identity) -> Caller,
    diff: &mut Diff,
) {
    let sides = [place.old, place.new];
    let patterns = sides.iter().flat_map(Side::grants).flat_map(|grant| &grant.callers);
    let of_budgets = sides.iter().flat_map(|side| side.policy.budgets()).flat_map(|budget| budget.callers());
    // Callers of one class are named by the same grants and held to the same budgets.
    let mut classes: BTreeMap<Named<'_>, BTreeMap<[BTreeSet<ResourceId>; 2], Caller>> = BTreeMap::new();
    for (id, claims) in universe::callers(patterns.chain(of_budgets)) {
        let caller = assume(id).claiming(claims);
        let named = sides.each_ref().map(|side| {
            let named = side.grants().filter_map(|grant| Some((&grant.name, by(grant, caller.id())?)));
            named.collect::<Vec<_>>()
        });
        if named.iter().any(|named| !named.is_empty()) {
            let budgets = sides.map(|side| held_to(side.policy, &caller));
            classes.entry(named).or_default().entry(budgets).or_insert(caller);
        }
    }
    let mut tally = Tally { place, hosts, lines: BTreeMap::new() };
    let mut compared = BTreeSet::new();
    let patterns: BTreeSet<&CallerPattern> =
        classes.keys().flatten().flatten().map(|(_, pattern)| *pattern).collect();
    for caller in classes.values().flat_map(BTreeMap::values) {
        let verdicts = place.verdicts(caller, now);
        // Of all that say who calls, the one that says it best.
        let label = patterns
            .iter()
            .find(|pattern| pattern.matches(caller.id()))
            .map_or_else(String::new, ToString::to_string);
        for verdict in &verdicts {
            let mut take = |gain: Gain<'_>| tally.take(gain, (caller.id(), &label), verdict, &verdicts);
            match (&verdict.old, &verdict.new) {
                (Ok(old), Ok(new)) => {
                    if compared.insert((Arc::as_ptr(old), Arc::as_ptr(new))) {
                        terms::grants((place.old.policy, old), (place.new.policy, new), diff);
                    }
                }
                (Err(why), Ok(grant)) => take(Gain { adds: true, grant, why: *why }),
                (Ok(grant), Err(why)) => take(Gain { adds: false, grant, why: *why }),
                (Err(_), Err(_)) => {}
            }
        }
    }
    if let (Some(old), Some(new), false) = (place.old.destination, place.new.destination, compared.is_empty())
    {
        terms::destinations((place.old.policy, old), (place.new.policy, new), diff);
    }
    for named in classes.keys() {
        readings::compare(place, named, diff);
    }
    tally.say(&classes.keys().collect::<Vec<_>>(), diff);
}

/// The budgets that some calls of a caller are held to.
fn held_to(policy: &Policy, caller: &Caller) -> BTreeSet<ResourceId> {
    let grants = policy.grants_of(caller);
    let budgets = grants.iter().flat_map(|grant| &*grant.budgets);
    budgets.map(|budget| budget.name.clone()).collect()
}

/// The most specific pattern of a grant that names a caller.
fn by<'a>(grant: &'a Grant, caller: &Identity) -> Option<&'a CallerPattern> {
    grant.callers.iter().filter(|pattern| pattern.matches(caller)).min()
}

/// A call that is added or removed: the grant that permits it, and why the other policy refuses it.
#[derive(Clone, Copy)]
struct Gain<'a> {
    adds: bool,
    grant: &'a Arc<Grant>,
    why: Reason,
}

/// What is said in one line: whether it is added, what it is about, the grant, and the callers.
type LineKey = (bool, What, ResourceId, String);

/// What is said in one line of the callers of one pattern.
struct Line {
    grant: Arc<Grant>,
    /// By class of the endpoint and path, as the grant has it.
    calls: BTreeMap<(Class, String), CallWords>,
    /// Some of what the grant has in the same words is on both sides.
    is_part: bool,
    example: Example,
}

/// What is asked of a path: in the grant's own patterns.
#[derive(Default, PartialEq, Eq, PartialOrd, Ord, Clone)]
struct CallWords {
    methods: BTreeSet<String>,
    models: BTreeSet<String>,
    actions: BTreeSet<String>,
}

struct Tally<'a> {
    place: &'a ComparedHost<'a>,
    hosts: &'a str,
    /// For each line its callers, by the pattern that says best who they are.
    lines: BTreeMap<LineKey, BTreeMap<String, Line>>,
}

/// A call in a grant's own patterns: path, method, model.
fn spelt<'a>(
    grant: &'a Grant,
    verdict: &Verdicts,
) -> Option<(&'a PathPattern, &'a MethodPattern, Option<&'a ModelPattern>)> {
    let (allow, request, model) = (&grant.allow, &verdict.request, verdict.model.as_deref());
    let path = allow.paths.iter().find(|pattern| pattern.matches(&request.path))?;
    let method = allow.methods.iter().find(|pattern| pattern.matches(&request.method))?;
    let model = model.and_then(|model| allow.models.iter().find(|pattern| pattern.matches(model)));
    Some((path, method, model))
}

impl Tally<'_> {
    fn take(
        &mut self,
        gain: Gain<'_>,
        (caller, label): (&Identity, &str),
        verdict: &Verdicts,
        all: &[Verdicts],
    ) {
        let Gain { adds, grant, .. } = gain;
        let class = self.class(gain, verdict);
        let what = self.what(gain, verdict, all, class);
        let via = by(grant, caller).map_or_else(|| caller.as_str().to_owned(), ToString::to_string);
        let lines = self.lines.entry((adds, what, grant.name.clone(), via)).or_default();
        let line = lines.entry(label.to_owned()).or_insert_with(|| Line {
            grant: Arc::clone(grant),
            calls: BTreeMap::new(),
            is_part: false,
            example: example(caller, (self.place, adds), verdict),
        });
        let words = spelt(grant, verdict);
        let Some((path, method, model)) = words else { return };
        let is_alike =
            |other: &Verdicts| other.old.is_ok() && other.new.is_ok() && spelt(grant, other) == words;
        line.is_part |= all.iter().any(is_alike);
        let asked = line.calls.entry((class, path.to_string())).or_default();
        asked.methods.insert(method.to_string());
        asked.models.extend(model.map(ToString::to_string));
        for action in verdict.actions.as_slice() {
            let pattern = grant.allow.actions.iter().find(|pattern| pattern.matches(action));
            asked.actions.extend(pattern.map(ToString::to_string));
        }
    }

    fn class(&self, gain: Gain<'_>, verdict: &Verdicts) -> Class {
        let side = if gain.adds { self.place.new } else { self.place.old };
        let http = side.destination.and_then(|destination| destination.http());
        let request = &verdict.request;
        let endpoint = http.and_then(|http| http.dialect.endpoint(&request.method, &request.path));
        endpoint.map_or(Class::Use, |endpoint| endpoint.class)
    }

    /// What of a call the other policy does not have.
    fn what(&self, gain: Gain<'_>, verdict: &Verdicts, all: &[Verdicts], class: Class) -> What {
        let (other, own) = match gain.adds {
            true => (self.place.old, self.place.new),
            false => (self.place.new, self.place.old),
        };
        let permits = |other: &&Verdicts| if gain.adds { other.old.is_ok() } else { other.new.is_ok() };
        let mut permitted = all.iter().filter(permits).peekable();
        let of_path = |it: &&Verdicts| it.request.path == verdict.request.path;
        let of_method = |it: &&Verdicts| it.request.method == verdict.request.method;
        let of_model = |it: &&Verdicts| it.model == verdict.model;
        match gain.why {
            Reason::GrantSuspended => return What::Suspension,
            Reason::NotApproved => return What::Approval,
            _ => {}
        }
        if other.destination.is_none() {
            let is_known =
                own.destination.is_some_and(|it| other.policy.destination(it.name.as_str()).is_some());
            return if is_known { What::Host } else { What::Caller };
        }
        if permitted.peek().is_none() {
            return What::Caller;
        }
        let same_path: Vec<&Verdicts> = permitted.filter(of_path).collect();
        let same_method: Vec<&Verdicts> = same_path.iter().copied().filter(of_method).collect();
        match class {
            _ if same_path.is_empty() && class != Class::Use => What::Class,
            _ if same_path.is_empty() => What::Path,
            _ if same_method.is_empty() => What::Method,
            _ if !same_method.iter().any(of_model) => What::Model,
            _ => What::Action,
        }
    }

    /// Says what was found. `classes` are all callers there are.
    fn say(self, classes: &[&Named<'_>], diff: &mut Diff) {
        let (place, hosts) = (self.place, self.hosts);
        for ((adds, what, id, via), lines) in self.lines {
            let is_via = |named: &&&Named<'_>| {
                let named = &named[usize::from(adds)];
                named.iter().any(|(name, pattern)| **name == id && pattern.to_string() == via)
            };
            let is_alike =
                lines.values().zip(lines.values().skip(1)).all(|(one, other)| one.calls == other.calls);
            // All of them, or those that are named.
            let everyone = lines.len() == classes.iter().filter(is_via).count();
            let named = lines.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let joined = if everyone { via.clone() } else { named };
            let lines: Vec<(String, Line)> = match is_alike {
                true => lines.into_values().next().map(|line| (joined, line)).into_iter().collect(),
                false => lines.into_iter().collect(),
            };
            for (callers, line) in lines {
                let words = phrase(place, hosts, (adds, what), (&callers, &line));
                let change = Change { what, grant: Some(id.clone()), words, example: Some(line.example) };
                if adds { diff.add(change) } else { diff.remove(change) }
            }
        }
    }
}

fn phrase(
    place: &ComparedHost<'_>,
    hosts: &str,
    (adds, what): (bool, What),
    (callers, line): (&str, &Line),
) -> String {
    let (own, other) = if adds { (place.new, place.old) } else { (place.old, place.new) };
    let name = |side: Side<'_>| side.destination.map(|destination| destination.name.to_string());
    let destination = name(own).unwrap_or_default();
    let is_other = name(other).is_some_and(|name| name != destination);
    let to = if what == What::Host || is_other { format!("{hosts} ({destination})") } else { destination };
    let protocol = own.destination.map(|destination| &destination.protocol);
    let calls = match protocol.filter(|protocol| !matches!(protocol, Protocol::Http(_))) {
        Some(protocol) => passed(protocol).to_owned(),
        None => line.words(),
    };
    let id = &line.grant.name;
    let mut words = match adds {
        true => format!("{callers} may call {to}: {calls}"),
        false => format!("{callers} may no longer call {to}: {calls}"),
    };
    if line.is_part && !adds {
        words += ", apart from what is still allowed";
    }
    let same = other.policy.grants().find(|grant| grant.name == *id);
    let state = same.and_then(|same| match (what, adds, line.grant.approval) {
        (What::Suspension, true, _) if same.suspended.is_some() => Some("is no longer suspended".to_owned()),
        (What::Suspension, false, _) => same.suspended.as_ref().map(|why| format!("is suspended ({why})")),
        (What::Approval, true, Approval::Given) => Some("is approved".to_owned()),
        (What::Approval, true, Approval::NotRequired) => Some("needs no approval any more".to_owned()),
        (What::Approval, false, _) => Some("is not approved".to_owned()),
        _ => None,
    });
    words = match (state, what) {
        (Some(state), _) => format!("grant {id} {state}: {words}"),
        (None, What::Suspension) => format!("{words} (grant {id}), where a suspended grant decided"),
        (None, What::Approval) => format!("{words} (grant {id}), where a grant without approval decided"),
        (None, _) => format!("{words} (grant {id})"),
    };
    if adds {
        words += &format!(", {}, {}", carried(&line.grant), limited(&line.grant.limits));
    }
    words
}

impl Line {
    /// The calls, those paths together of which the same is asked.
    fn words(&self) -> String {
        let mut alike: BTreeMap<(Class, &CallWords), Vec<&str>> = BTreeMap::new();
        for ((class, path), asked) in &self.calls {
            alike.entry((*class, asked)).or_default().push(path);
        }
        let words = alike.into_iter().map(|((of, asked), paths)| {
            let CallWords { methods, models, actions } = asked;
            let any = methods.contains("*");
            let methods = if any { "every method on".to_owned() } else { joined(methods) };
            let mut words = format!("{methods} {}", joined(paths));
            for (with, names) in [("with model", models), ("naming action", actions)] {
                if !names.is_empty() {
                    words += &format!(" {with} {}", joined(names));
                }
            }
            if of != Class::Use {
                words += &format!(" of class {}", class(of));
            }
            words
        });
        words.collect::<Vec<_>>().join("; ")
    }
}

fn example(caller: &Identity, (place, adds): (&ComparedHost<'_>, bool), verdict: &Verdicts) -> Example {
    let Verdicts { request, model, actions, .. } = verdict;
    let side = if adds { place.new } else { place.old };
    if side.destination.is_some_and(|destination| destination.http().is_none()) {
        let url = format!("tcp://{}:{}", place.host, place.port);
        return Example {
            caller: caller.to_string(),
            method: "CONNECT".to_owned(),
            url,
            model: None,
            actions: Vec::new(),
        };
    }
    let port = if place.port == 443 { String::new() } else { format!(":{}", place.port) };
    Example {
        caller: caller.to_string(),
        method: request.method.clone(),
        url: format!("https://{}{port}{}", place.host, request.path),
        model: model.as_deref().map(str::to_owned),
        actions: actions.as_slice().iter().map(ToString::to_string).collect(),
    }
}
