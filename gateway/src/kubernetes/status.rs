//! Status of objects: whether they are accepted and in force, and what people look for.
//!
//! **Invariant:** only the leader writes, only what differs from what stands there, and nothing of a secret: what is written is made of
//! the compiler's problems, of names and of counts.

mod finding;
mod member;
mod route;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use serde_json::{Value, json};
use tokio::sync::watch as channel;
use tokio::time::Instant;
use tollgate_policy::consent::GROUP;

use self::finding::Findings;
pub(crate) use self::member::StatusMember;
use self::route::RouteFindings;
use super::Published;
use super::claim;
use super::client::{Connection, chain};
use super::condition::bounded;
use super::gateway_api::{self, GatewayPlace};
use super::kind::ObjectKind;
use super::lease::Election;
use super::object::{ClusterObject, ObjectKey, ObjectSet};
use super::raw::RawObject;
use super::watch::WatchStates;
use crate::core::Shared;

/// The field manager of everything that the gateway writes.
const MANAGER: &str = "tollgate";
/// How long changes are let come before they are told of.
const SETTLE: Duration = Duration::from_millis(200);
/// How often counts and the health of credentials are looked at.
const REFRESH: Duration = Duration::from_secs(30);
/// Reason and action of Events.
const NOT_ACCEPTED: (&str, &str) = ("NotAccepted", "Compile");
const THRESHOLD: (&str, &str) = ("ThresholdReached", "Count");
/// Between two writes.
const PACE: Duration = Duration::from_millis(20);
/// How long other status is written before what was compiled since is looked at, which may be of hosts.
const TURN: Duration = Duration::from_secs(2);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of an Event's note (events.k8s.io/v1: 1 kB).
const LONGEST_NOTE: usize = 1000;

/// Writes status while this replica is the leader, to the end of the process.
pub(super) async fn keep(
    connection: Connection,
    (mut objects, mut published): (
        channel::Receiver<Option<Arc<ObjectSet>>>,
        channel::Receiver<Option<Published>>,
    ),
    place: Option<Arc<GatewayPlace>>,
    states: Arc<WatchStates>,
    shared: Arc<Shared>,
) {
    let replica = replica();
    let (sender, mut leads) = channel::channel(false);
    let election = Election::new(&connection, replica.clone());
    tokio::spawn(election.run(sender, Arc::clone(&states), shared.drain.observe()));
    let mut writer = StatusWriter {
        connection,
        replica,
        leads: leads.clone(),
        states,
        written: Standing::default(),
        last: None,
        said: String::new(),
    };
    let mut refreshed: Option<Instant> = None;
    loop {
        tokio::time::sleep(SETTLE).await;
        let latest = objects.borrow_and_update().clone();
        let compiled = published.borrow_and_update().clone();
        if let (Some(latest), Some(compiled)) = (latest, compiled) {
            let is_due = refreshed.is_none_or(|refreshed| refreshed.elapsed() >= REFRESH);
            let findings = Findings::of(&compiled, &latest, &shared, is_due);
            let standing = writer.standing(&latest);
            let routes = RouteFindings::of(&compiled, &latest, &standing, place.as_deref(), &findings);
            let refused = findings.refused().into_iter().chain(routes.refused());
            writer.states.refused(refused.collect());
            // Also while it is in doubt who holds a host, and nobody writes it: whoever keeps it so is told of.
            writer.states.unwritten(unwritten(&latest, &standing, &findings));
            let changes = changes(&latest, &standing, (&findings, &routes));
            writer.written = standing;
            if *leads.borrow_and_update() {
                let is_whole = writer.write(changes, &published).await;
                if is_due && is_whole {
                    refreshed = Some(Instant::now());
                }
            }
        }
        let ended = tokio::select! {
            changed = objects.changed() => changed.is_err(),
            changed = published.changed() => changed.is_err(),
            // The election ends before the process does.
            changed = leads.changed() => changed.is_err(),
            () = tokio::time::sleep(REFRESH) => false,
        };
        if ended {
            return;
        }
    }
}

/// What this replica is called, which no other is: the name of its pod.
fn replica() -> String {
    let pod = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = pod.or_else(host).unwrap_or_default();
    format!("{}_{}", name.trim(), std::process::id())
}

/// By uid: the version of an object, and the status that it has there.
#[derive(Default)]
struct Standing(HashMap<String, (String, Value)>);

impl Standing {
    /// The status of an object in its version.
    fn of<'a>(&'a self, object: &'a ClusterObject) -> &'a Value {
        let known = self.0.get(&object.uid).filter(|(version, _)| *version == object.version);
        known.map_or(&object.status, |(_, status)| status)
    }
}

/// A status that is to be written.
struct StatusChange {
    object: Arc<ClusterObject>,
    current: Value,
    status: Value,
}

impl StatusChange {
    /// Whether it says anew which hosts the object holds.
    fn is_of_hosts(&self) -> bool {
        let hosts = |status: &Value| claim::held_hosts(self.object.key.kind, status);
        hosts(&self.current) != hosts(&self.status)
    }
}

/// The objects that hold hosts which the status that stands there does not say.
fn unwritten<'a>(
    objects: &'a ObjectSet,
    standing: &'a Standing,
    findings: &'a Findings<'_>,
) -> impl Iterator<Item = ObjectKey> + 'a {
    let is_unwritten = |object: &&Arc<ClusterObject>| {
        let told = claim::held_hosts(object.key.kind, standing.of(object));
        findings.hosts_of(&object.key, objects).iter().any(|host| !told.contains(host))
    };
    objects.iter().filter(is_unwritten).map(|object| object.key.clone())
}

/// What differs from what stands there.
fn changes(
    objects: &ObjectSet,
    standing: &Standing,
    (findings, routes): (&Findings<'_>, &RouteFindings<'_>),
) -> Vec<StatusChange> {
    let mut wanted = Vec::new();
    for object in objects.iter() {
        let current = standing.of(object);
        let (status, is_same): (_, fn(&Value, &Value) -> bool) = match object.key.kind.is_route() {
            true => (routes.status(object), gateway_api::stands),
            // Of what was not compiled yet nothing is known.
            false => (findings.status(object, current), finding::is_same),
        };
        if let Some(status) = status.filter(|status| !is_same(status, current)) {
            wanted.push(StatusChange { object: Arc::clone(object), current: current.clone(), status });
        }
    }
    wanted
}

struct StatusWriter {
    connection: Connection,
    replica: String,
    leads: channel::Receiver<bool>,
    states: Arc<WatchStates>,
    /// The version of each object that was written to, and the status that it got. The watch may not have told of it yet.
    written: Standing,
    /// The object whose status was the last to be written, of those that say nothing of hosts.
    last: Option<ObjectKey>,
    said: String,
}

impl StatusWriter {
    /// What was written and the watch has not told of yet.
    fn standing(&mut self, objects: &ObjectSet) -> Standing {
        let mut written = std::mem::take(&mut self.written);
        let current = objects.iter().filter_map(|object| {
            let (version, status) = written.0.remove(&object.uid)?;
            (version == object.version).then(|| (object.uid.clone(), (version, status)))
        });
        Standing(current.collect())
    }

    /// Writes what differs: who holds a host before all else, because that decides, and then the refused, where people wait for it.
    /// Whether that was all of it: what was compiled meanwhile may be of hosts, and is not let wait.
    async fn write(
        &mut self,
        changes: Vec<StatusChange>,
        published: &channel::Receiver<Option<Published>>,
    ) -> bool {
        let (hosts, mut others): (Vec<_>, Vec<_>) = changes.into_iter().partition(StatusChange::is_of_hosts);
        let mut written = Vec::new();
        for change in hosts {
            if !*self.leads.borrow() {
                return false;
            }
            if self.put(&change).await {
                written.push(change);
            }
        }
        for change in written {
            self.tell_of(&change).await;
        }
        // Each has its turn, also where none is ever written whole.
        let had_its_turn = |key: &ObjectKey| self.last.as_ref().is_some_and(|last| key <= last);
        others.sort_by_key(|it| (refusal(&it.status).is_none(), had_its_turn(&it.object.key)));
        let begun = Instant::now();
        for change in others {
            let is_late = begun.elapsed() >= TURN && published.has_changed().unwrap_or(false);
            if is_late || !*self.leads.borrow() {
                return false;
            }
            if self.put(&change).await {
                self.tell_of(&change).await;
            }
            self.last = Some(change.object.key.clone());
        }
        true
    }

    /// Whether it was written.
    async fn put(&mut self, change: &StatusChange) -> bool {
        let written = self.patch(change).await;
        tokio::time::sleep(PACE).await;
        written.unwrap_or_else(|error| {
            self.failed(&change.object, &error);
            false
        })
    }

    /// The Events of what was written.
    async fn tell_of(&mut self, StatusChange { object, current, status }: &StatusChange) {
        match refusal(status).filter(|why| refusal(current) != Some(*why)) {
            Some(why) if object.key.kind.is_namespaced() => self.tell(object, NOT_ACCEPTED, why).await,
            _ => {
                for reached in finding::thresholds(status, current) {
                    self.tell(object, THRESHOLD, &reached).await;
                }
            }
        }
    }

    /// Server-side apply: fields of others stay. Whether the object was there, in the version that the status was made of where that
    /// counts.
    async fn patch(&mut self, change: &StatusChange) -> Result<bool, String> {
        let StatusChange { object, status, .. } = change;
        let key = &object.key;
        let client = self.connection.client.clone();
        // Not one of the same name that came since.
        let mut metadata = json!({"name": key.name, "uid": object.uid});
        let api: Api<RawObject> = match key.kind.is_namespaced() {
            true => {
                metadata["namespace"] = key.namespace.as_str().into();
                Api::namespaced_with(client, &key.namespace, &key.kind.api())
            }
            false => Api::all_with(client, &key.kind.api()),
        };
        // Other controllers have entries in the same list, which is written whole: not over what they have said since. And who holds a host
        // is said of what the object names now.
        if key.kind.is_route() || change.is_of_hosts() {
            metadata["resourceVersion"] = object.version.as_str().into();
        }
        let body = json!({
            "apiVersion": key.kind.api_version(), "kind": key.kind.word(), "metadata": metadata,
            "status": status,
        });
        let parameters = PatchParams::apply(MANAGER).force();
        let patch = Patch::Apply(&body);
        let patched = api.patch_status(&key.name, &parameters, &patch);
        match tokio::time::timeout(CALL_TIMEOUT, patched).await {
            Ok(Ok(_)) => {
                self.written.0.insert(object.uid.clone(), (object.version.clone(), status.clone()));
                self.said.clear();
                Ok(true)
            }
            // It is gone, or another one has its name: the watch tells of it.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(false),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err("the API server does not answer".to_owned()),
        }
    }

    /// An Event where an object is refused, or for another reason than before, and where a budget has reached a threshold.
    async fn tell(&mut self, object: &ClusterObject, (reason, action): (&str, &str), why: &str) {
        let key = &object.key;
        let reporter = Reporter { controller: GROUP.to_owned(), instance: Some(self.replica.clone()) };
        // A recorder of its own, because one that knows the object would only count the Event before, with its note.
        let recorder = Recorder::new(self.connection.client.clone(), reporter);
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(bounded(why, LONGEST_NOTE)),
            action: action.to_owned(),
            secondary: None,
        };
        let reference = ObjectReference {
            api_version: Some(key.kind.api_version()),
            kind: Some(key.kind.word().to_owned()),
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            uid: Some(object.uid.clone()),
            ..ObjectReference::default()
        };
        match tokio::time::timeout(CALL_TIMEOUT, recorder.publish(&event, &reference)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.failed(object, &chain(&error)),
            Err(_) => self.failed(object, "the API server does not answer"),
        }
    }

    /// Said once for the same failure, and not where the watches say that the API server is away.
    fn failed(&mut self, object: &ClusterObject, error: &str) {
        if self.said != error && self.states.failure().is_none() {
            let (kind, namespace, name) = (object.key.kind.word(), &object.key.namespace, &object.key.name);
            tracing::warn!(kind, namespace, name, error, "status cannot be written");
        }
        error.clone_into(&mut self.said);
    }
}

/// Why a status says that its object is refused.
fn refusal(status: &Value) -> Option<&str> {
    finding::refusal(status).or_else(|| gateway_api::refusal(status))
}

/// How many objects of each kind are refused.
type Refused = BTreeMap<ObjectKind, usize>;
