//! What is to be said of each object, from what was compiled.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{Timestamp, Unit as TimeUnit};
use serde_json::{Value, json};
use tollgate_policy::limit::{Limit, LimitKind, Unit};
use tollgate_policy::model::Problem;
use tollgate_policy::name::{Name, ResourceId};
use tollgate_policy::policy::{Approval, Budget, Grant};
use tollgate_policy::price::NanoUsd;
use tollgate_secrets::{CredentialStatus, Health};

use super::super::Published;
use super::super::condition::{Condition, bounded, condition};
use super::super::kind::ObjectKind;
use super::super::object::{ClusterObject, ObjectKey, ObjectSet};
use super::{Refused, StatusMember};
use crate::budgets;
use crate::core::Shared;
use crate::quota::LimitUsage;

/// The most bytes of a condition's message (meta/v1: 32768); more than people read.
const LONGEST_MESSAGE: usize = 4096;
/// By how much a credential's next refresh may move without being told of.
const STEADY: Duration = Duration::from_secs(90);
/// The member of a limit's status that says that it will be used up before its window ends.
const FORESEEN: &str = "forecastReached";
/// Ends with what a field refers to another object by.
const REFERENCES: [&str; 8] = [
    "destination",
    "credential",
    "store",
    "clientCertificate",
    "destinations",
    "sourcePool",
    "credentials",
    "parent",
];

/// What was compiled, by object.
pub(super) struct Findings<'a> {
    published: &'a Published,
    /// By `Kind/id`, as problems name a resource.
    problems: HashMap<&'a str, Vec<&'a Problem>>,
    /// What is in force, by the same.
    in_force: HashSet<String>,
    grants: HashMap<&'a ResourceId, &'a Arc<Grant>>,
    live: Live,
    /// Whether what changes without being compiled is to be told of, too.
    is_due: bool,
    /// Whether what was compiled is what the API server says now of hosts: else who holds one is not told anew.
    is_latest: bool,
}

/// What changes while nothing is compiled.
struct Live {
    usage: HashMap<Arc<str>, Vec<LimitUsage>>,
    credentials: HashMap<ResourceId, Vec<CredentialStatus>>,
    now: Timestamp,
}

impl Live {
    fn of(shared: &Shared) -> Self {
        let now = Timestamp::now();
        let mut usage: HashMap<Arc<str>, Vec<LimitUsage>> = HashMap::new();
        for line in shared.quota.usage(now) {
            usage.entry(Arc::clone(&line.limit)).or_default().push(line);
        }
        let mut credentials: HashMap<ResourceId, Vec<CredentialStatus>> = HashMap::new();
        for status in shared.secrets.status() {
            credentials.entry(status.credential.clone()).or_default().push(status);
        }
        Self { usage, credentials, now }
    }
}

impl<'a> Findings<'a> {
    pub(super) fn of(published: &'a Published, latest: &ObjectSet, shared: &Shared, is_due: bool) -> Self {
        let objects = &published.objects;
        let is_latest = !objects.is_persisted() && !latest.is_unsettled() && objects.claims_like(latest);
        let (snapshot, policy) = (&published.snapshot, &published.snapshot.policy);
        let mut problems: HashMap<&str, Vec<&Problem>> = HashMap::new();
        for problem in &snapshot.refused {
            problems.entry(problem.resource()).or_default().push(problem);
        }
        let mut in_force = HashSet::new();
        let reached = policy.destinations().filter(|it| snapshot.tls(&it.name).is_some());
        in_force.extend(reached.map(|it| label(ObjectKind::Destination, &it.name)));
        in_force.extend(
            policy.budgets().filter(|it| !it.is_broken).map(|it| label(ObjectKind::Budget, &it.name)),
        );
        in_force.extend(policy.source_pools().map(|(id, _)| label(ObjectKind::SourcePool, id)));
        in_force.extend(policy.stores().map(|it| label(ObjectKind::SecretStore, &it.name)));
        in_force.extend(policy.credentials().map(|it| label(ObjectKind::Credential, &it.name)));
        let grants: HashMap<_, _> = policy.grants().map(|grant| (&grant.name, grant)).collect();
        let whole = policy.grants().filter(|grant| !grant.is_broken);
        in_force.extend(whole.map(|it| label(ObjectKind::Grant, &it.name)));
        Self { published, problems, in_force, grants, live: Live::of(shared), is_due, is_latest }
    }

    /// How many objects of each kind have problems.
    pub(super) fn refused(&self) -> Refused {
        let mut counts = BTreeMap::new();
        for object in self.published.objects.iter() {
            let is_refused = match object.key.id().filter(|_| object.key.kind.is_resource()) {
                None if !object.key.kind.is_resource() => false,
                None => true,
                Some(id) => self.problems.contains_key(&*label(object.key.kind, &id)),
            };
            if is_refused {
                *counts.entry(object.key.kind).or_default() += 1;
            }
        }
        counts
    }

    /// Why a Destination is not in force; `None`: it is.
    pub(super) fn destination(&self, namespace: &str, name: &str) -> Option<String> {
        let id = ResourceId::new(Some(&namespace.parse().ok()?), &name.parse().ok()?);
        let name = label(ObjectKind::Destination, &id);
        match self.problems.get(&*name) {
            Some(problems) => Some(text(problems)),
            None if self.in_force.contains(&name) => None,
            None => Some("something that it refers to is not in force".to_owned()),
        }
    }

    /// The status of an object, where what was compiled is what it says now. Times of `current` stay where nothing changed.
    pub(super) fn status(&self, object: &ClusterObject, current: &Value) -> Option<Value> {
        if !object.key.kind.is_resource() || !self.published.objects.has(object) {
            return None;
        }
        let conditions: Vec<Value> =
            self.conditions(object).into_iter().map(|it| it.json(object.generation, current)).collect();
        let mut status =
            json!({(StatusMember::ObservedGeneration.word()): object.generation, "conditions": conditions});
        for (member, value) in self.more(object, current) {
            if let (Some(status), false) = (status.as_object_mut(), value.is_null()) {
                status.insert(member.word().to_owned(), value);
            }
        }
        Some(status)
    }

    fn conditions(&self, object: &ClusterObject) -> Vec<Condition> {
        let Some(id) = object.key.id() else {
            let why = format!("metadata.name: {}", name_problem(&object.key));
            return all(
                (false, "Invalid", why),
                (true, "ResolvedRefs", String::new()),
                (false, "Invalid", "it is not accepted".to_owned()),
            );
        };
        let name = label(object.key.kind, &id);
        let problems = self.problems.get(&*name).map(Vec::as_slice).unwrap_or_default();
        let unresolved: Vec<&Problem> =
            problems.iter().copied().filter(|it| is_of_reference(it.path())).collect();
        if object.key.kind == ObjectKind::Approval && problems.is_empty() {
            return self.approval(&id);
        }
        let accepted = match problems {
            [] => (true, "Accepted", String::new()),
            problems => (false, "Invalid", text(problems)),
        };
        let in_force = self.in_force.contains(&name);
        let waits = problems.is_empty() && !in_force;
        let resolved = match unresolved.as_slice() {
            [] if waits => (false, "RefNotInForce", self.missing(object, &id)),
            [] => (true, "ResolvedRefs", String::new()),
            unresolved => (false, "RefNotResolved", text(unresolved)),
        };
        let grant = self.grants.get(&id).filter(|_| object.key.kind == ObjectKind::Grant);
        let approved = grant.and_then(|grant| self.approved(grant));
        let suspended = grant.and_then(|grant| grant.suspended.as_deref());
        let programmed = match (in_force, suspended) {
            (true, Some(why)) => (false, "Suspended", why.to_owned()),
            (true, None) => match &approved {
                Some((false, reason, why)) => (false, *reason, why.clone()),
                _ => (true, "Programmed", String::new()),
            },
            (false, _) if waits => (false, "RefNotInForce", self.missing(object, &id)),
            (false, _) => (false, "Invalid", "it is not accepted: what it might allow is denied".to_owned()),
        };
        let mut conditions = all(accepted, resolved, programmed);
        conditions.extend(approved.map(|(holds, reason, message)| Condition {
            kind: "Approved",
            holds,
            reason,
            message,
        }));
        conditions
    }

    /// Whether the owners of its destination have agreed to a grant; `None`: they need not.
    fn approved(&self, grant: &Grant) -> Option<(bool, &'static str, String)> {
        let namespace = grant.destination.name.namespace();
        match grant.approval {
            Approval::NotRequired => None,
            Approval::Given => Some((true, "Approved", String::new())),
            Approval::Lacking => {
                let hash = self.published.snapshot.policy.hash(grant);
                let why = format!(
                    "an Approval of {hash} in the namespace {namespace} is needed, and none is there"
                );
                Some((false, "NotApproved", why))
            }
        }
    }

    /// What is to be said of an approval that was accepted.
    fn approval(&self, id: &ResourceId) -> Vec<Condition> {
        let mut approvals = self.published.snapshot.policy.approvals();
        let programmed = match approvals.find(|(known, _)| *known == id) {
            Some((_, None)) => (true, "Programmed", String::new()),
            Some((_, Some(why))) => (false, "NoEffect", why.to_owned()),
            None => (false, "Invalid", "it is not in force".to_owned()),
        };
        all((true, "Accepted", String::new()), (true, "ResolvedRefs", String::new()), programmed)
    }

    /// What keeps an object without problems from being in force.
    fn missing(&self, object: &ClusterObject, id: &ResourceId) -> String {
        let written: Value = serde_json::from_str(&object.text).unwrap_or_default();
        let names = [
            ("destination", ObjectKind::Destination),
            ("credential", ObjectKind::Credential),
            ("sourcePool", ObjectKind::SourcePool),
        ];
        let missing = names.into_iter().filter_map(|(member, kind)| {
            let reference = written.pointer(&format!("/spec/{member}"))?.as_str()?;
            let namespace: Name = id.namespace().parse().ok()?;
            let named = match reference.split_once('/') {
                Some(_) => reference.parse().ok()?,
                None => ResourceId::new(Some(&namespace), &reference.parse().ok()?),
            };
            let name = label(kind, &named);
            (!self.in_force.contains(&name)).then(|| format!("spec.{member}: {name} is not in force"))
        });
        let missing: Vec<String> = missing.collect();
        match missing.is_empty() {
            true => "something that it refers to is not in force".to_owned(),
            false => missing.join("\n"),
        }
    }

    /// What people look for besides: as it stands there, where it is not looked at now.
    fn more(&self, object: &ClusterObject, current: &Value) -> Vec<(StatusMember, Value)> {
        let Some(id) = object.key.id() else { return Vec::new() };
        // Of another generation, or of none yet, what stands there says nothing.
        let is_old = current.get(StatusMember::ObservedGeneration.word()) != Some(&object.generation.into());
        let is_due = self.is_due || is_old;
        let kept = |member: StatusMember| (member, current.get(member.word()).cloned().unwrap_or_default());
        match object.key.kind {
            ObjectKind::Grant if is_due => {
                let limits = self.grants.get(&id).map(|grant| grant.limits.as_slice()).unwrap_or_default();
                vec![self.live.limits(limits, None), self.hash(&id)]
            }
            ObjectKind::Budget if is_due => {
                let mut budgets = self.published.snapshot.policy.budgets();
                let budget = budgets.find(|budget| budget.name == id);
                let limits = budget.map(|budget| budget.limits.as_slice()).unwrap_or_default();
                vec![self.live.limits(limits, budget)]
            }
            ObjectKind::Budget => vec![kept(StatusMember::Limits)],
            ObjectKind::Destination if !self.is_latest => vec![kept(StatusMember::Hosts)],
            ObjectKind::Destination => {
                let hosts: Vec<String> = self.held_hosts(&id).collect();
                let said = if hosts.is_empty() { Value::Null } else { hosts.into() };
                vec![(StatusMember::Hosts, said)]
            }
            ObjectKind::Credential if is_due => self.live.credential(&id, current),
            ObjectKind::Grant => vec![kept(StatusMember::Limits), self.hash(&id)],
            ObjectKind::Credential => vec![kept(StatusMember::Health), kept(StatusMember::NextRefresh)],
            _ => Vec::new(),
        }
    }

    pub(super) fn is_latest(&self) -> bool {
        self.is_latest
    }

    /// The hosts that an object holds, itself or as the Destination of its name.
    pub(super) fn hosts_of(&self, key: &ObjectKey, objects: &ObjectSet) -> Vec<String> {
        let is_other = || {
            let destination = ObjectKey { kind: ObjectKind::Destination, ..key.clone() };
            objects.get(&destination).is_some()
        };
        match (key.kind, key.id()) {
            (ObjectKind::Destination, Some(id)) => self.held_hosts(&id).collect(),
            (ObjectKind::Backend, Some(id)) if !is_other() => self.held_hosts(&id).collect(),
            _ => Vec::new(),
        }
    }

    /// The hosts that a Destination holds.
    pub(super) fn held_hosts(&self, id: &ResourceId) -> impl Iterator<Item = String> {
        self.published.snapshot.policy.held_hosts(id).iter().map(ToString::to_string)
    }

    /// What an approval of a grant has to name.
    fn hash(&self, id: &ResourceId) -> (StatusMember, Value) {
        let hash = self.grants.get(id).map(|grant| self.published.snapshot.policy.hash(grant));
        (StatusMember::Hash, hash.map(|hash| Value::from(hash.as_str())).unwrap_or_default())
    }
}

impl Live {
    /// What is used of the limits of one object.
    fn limits(&self, limits: &[Limit], budget: Option<&Arc<Budget>>) -> (StatusMember, Value) {
        let limits: Vec<Value> = limits.iter().filter_map(|limit| self.limit(limit, budget)).collect();
        (StatusMember::Limits, if limits.is_empty() { Value::Null } else { limits.into() })
    }

    /// What is used of a limit; `None` of a rate, which cannot be asked. Where callers or namespaces have counts of their own, the sum of
    /// what they used, and the least that any has left.
    fn limit(&self, limit: &Limit, budget: Option<&Arc<Budget>>) -> Option<Value> {
        if matches!(limit.kind, LimitKind::Gcra { .. }) {
            return None;
        }
        let lines = self.usage.get(&limit.id).map(Vec::as_slice).unwrap_or_default();
        let shown = |amount: u64| match limit.unit {
            Unit::Spend => NanoUsd(amount).to_string(),
            _ => amount.to_string(),
        };
        let left = lines.iter().map(|it| it.amount.saturating_sub(it.taken())).min();
        let mut said = json!({
            "id": &*limit.id,
            "spent": shown(lines.iter().map(|it| it.spent_by_all()).sum()),
            "held": shown(lines.iter().map(|it| it.held).sum()),
            "left": shown(left.unwrap_or_else(|| limit.amount_at(self.now))),
        });
        let thresholds = budget.map(|budget| &*budget.thresholds).unwrap_or_default();
        let reached = lines.iter().map(|it| budgets::reached(thresholds, it.spent_by_all(), it.amount)).max();
        if let (Some(reached @ 1..), Some(said)) = (reached, said.as_object_mut()) {
            said.insert("reached".to_owned(), reached.into());
        }
        let is_foreseen =
            |it: &LimitUsage| budgets::is_foreseen(limit, it.spent_by_all(), it.amount, self.now);
        if budget.is_some_and(|budget| budget.tells_forecast)
            && lines.iter().any(is_foreseen)
            && let Some(said) = said.as_object_mut()
        {
            said.insert(FORESEEN.to_owned(), true.into());
        }
        if let (LimitKind::Counted(window), Some(said)) = (&limit.kind, said.as_object_mut())
            && let Some(resets) = window.resets(self.now)
        {
            said.insert("resets".to_owned(), resets.to_string().into());
        }
        Some(said)
    }

    /// The worst of what is known of its keys, and when the first of them is read again.
    fn credential(&self, id: &ResourceId, current: &Value) -> Vec<(StatusMember, Value)> {
        let keys = self.credentials.get(id).map(Vec::as_slice).unwrap_or_default();
        let rank = |word: &str| Health::WORDS.iter().position(|known| *known == word);
        let health = keys.iter().map(|key| key.health.as_str()).max_by_key(|word| rank(word));
        let next = keys.iter().filter_map(|key| key.refresh_in).min();
        let next = next.and_then(|next| self.now.checked_add(next).ok()?.round(TimeUnit::Second).ok());
        let before = current.get(StatusMember::NextRefresh.word());
        let before: Option<Timestamp> = before.and_then(Value::as_str).and_then(|text| text.parse().ok());
        let is_steady =
            |(next, before): (Timestamp, Timestamp)| next.duration_since(before).unsigned_abs() < STEADY;
        let next = match next.zip(before).filter(|both| is_steady(*both)) {
            Some((_, before)) => Some(before),
            None => next,
        };
        vec![
            (StatusMember::Health, health.map(Value::from).unwrap_or_default()),
            (StatusMember::NextRefresh, next.map(|next| Value::from(next.to_string())).unwrap_or_default()),
        ]
    }
}

/// The conditions that every resource has.
fn all(
    accepted: (bool, &'static str, String),
    resolved: (bool, &'static str, String),
    programmed: (bool, &'static str, String),
) -> Vec<Condition> {
    let all = [("Accepted", accepted), ("ResolvedRefs", resolved), ("Programmed", programmed)];
    all.into_iter()
        .map(|(kind, (holds, reason, message))| Condition { kind, holds, reason, message })
        .collect()
}

/// Whether a status says that the object is accepted.
pub(super) fn is_accepted(status: &Value) -> Option<bool> {
    Some(condition(status, "Accepted")?.get("status")? == "True")
}

/// Why a status says that the object is not accepted.
pub(super) fn refusal(status: &Value) -> Option<&str> {
    let accepted = condition(status, "Accepted").filter(|_| is_accepted(status) == Some(false));
    accepted?.get("message")?.as_str()
}

/// What a status says of thresholds that its status before did not: a limit has reached one, or another.
pub(super) fn thresholds(status: &Value, before: &Value) -> Vec<String> {
    let limits = |status: &Value| -> Vec<Value> {
        let limits = status.get(StatusMember::Limits.word()).and_then(Value::as_array);
        limits.cloned().unwrap_or_default()
    };
    let reached = |limit: &Value| limit.get("reached").and_then(Value::as_u64).unwrap_or(0);
    let before = limits(before);
    let text = |limit: &Value, member: &str| limit[member].as_str().unwrap_or_default().to_owned();
    let said = |limit: &Value| {
        let known = before.iter().find(|known| known["id"] == limit["id"]);
        let (id, spent, left) = (text(limit, "id"), text(limit, "spent"), text(limit, "left"));
        let percent = (reached(limit) > known.map_or(0, reached))
            .then(|| format!("{} % of {id} are used: {spent} are spent, and {left} left", reached(limit)));
        let is_new = limit[FORESEEN] == true && known.is_none_or(|known| known[FORESEEN] != true);
        let foreseen = is_new.then(|| {
            format!(
                "at this pace all of {id} is used before its window ends: {spent} are spent, and {left} left"
            )
        });
        percent.into_iter().chain(foreseen)
    };
    limits(status).iter().flat_map(said).collect()
}

/// Whether what is wanted stands there already; what others wrote besides does not count.
pub(super) fn is_same(wanted: &Value, current: &Value) -> bool {
    let kinds = ["Accepted", "ResolvedRefs", "Programmed", "Approved"];
    let mut stand = kinds.iter().map(|kind| condition(wanted, kind) == condition(current, kind));
    let stands = |member: StatusMember| wanted.get(member.word()) == current.get(member.word());
    stand.all(|stands| stands) && StatusMember::ALL.into_iter().all(stands)
}

/// `Kind/id`, as problems name a resource.
fn label(kind: ObjectKind, id: &ResourceId) -> String {
    format!("{}/{id}", kind.word())
}

fn name_problem(key: &ObjectKey) -> String {
    let parsed: Result<Name, _> = key.name.parse();
    parsed.err().map(|error| error.to_string()).unwrap_or_default()
}

/// Whether the last member of a path says what is referred to.
fn is_of_reference(path: &str) -> bool {
    let last = path.rsplit('.').next().unwrap_or_default();
    let member = last.split('[').next().unwrap_or_default();
    REFERENCES.contains(&member)
}

/// Problems as one message.
fn text(problems: &[&Problem]) -> String {
    let line = |problem: &&Problem| match problem.path() {
        "" => problem.message.clone(),
        path => format!("{path}: {}", problem.message),
    };
    bounded(&problems.iter().map(line).collect::<Vec<_>>().join("\n"), LONGEST_MESSAGE)
}

#[cfg(test)]
mod tests;
