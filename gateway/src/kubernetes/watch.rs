//! Watches of the API server: one for each kind, and each namespace where only some count.
//!
//! **Invariant:** nothing is said of the objects before every watch has listed its own; a watch that fails changes nothing of what was
//! listed before.

mod follow;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::Api;
use kube::runtime::watcher::Event;
use tokio::sync::{mpsc, watch as channel};
use tokio::time::Instant;
use tollgate_policy::name::Name;

use self::follow::{Update, WatchFault, follow};
use super::client::Connection;
use super::kind::ObjectKind;
use super::object::{ClusterObject, ObjectKey, ObjectSet};
use super::raw::RawObject;

/// From the first change to what is made of all that came meanwhile.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How long a kind is missing before its objects are forgotten: an API server that starts does not know all kinds at once.
const FORGET_AFTER: Duration = Duration::from_secs(120);
/// By when the hosts that objects hold are in their status, where somebody writes it.
const WRITTEN_WITHIN: Duration = Duration::from_secs(60);
/// Changes that wait to be taken.
const QUEUE: usize = 1024;

/// A watch: its kind, and its namespace if it is not of all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Scope {
    kind: ObjectKind,
    namespace: Option<Name>,
}

/// Starts the watches, which end with the runtime; `routes`: of the Gateway API, too. Inside of a runtime.
pub(super) fn start(
    connection: &Connection,
    namespaces: Option<&[Name]>,
    routes: bool,
    states: Arc<WatchStates>,
) -> channel::Receiver<Option<Arc<ObjectSet>>> {
    let (updates, taken) = mpsc::channel(QUEUE);
    let mut collector = Collector { scopes: BTreeMap::new(), states };
    let places = namespaces.map_or_else(|| vec![None], |names| names.iter().cloned().map(Some).collect());
    for kind in ObjectKind::ALL.iter().copied().filter(|kind| routes || !kind.is_route()) {
        let places = match kind.is_namespaced() {
            true => places.as_slice(),
            // The labels of namespaces are told only to who may see all of them: else nothing is selected by a label.
            false if kind == ObjectKind::Namespace && namespaces.is_some() => &[],
            false => &[None],
        };
        for namespace in places.iter().cloned() {
            let client = || connection.client.clone();
            let api = |api| match &namespace {
                None => Api::all_with(client(), &api),
                Some(namespace) => Api::namespaced_with(client(), namespace.as_str(), &api),
            };
            let apis = kind.apis().into_iter().map(api).collect();
            let scope = Scope { kind, namespace };
            collector.states.expect(&scope);
            collector.scopes.insert(scope.clone(), Listed::default());
            tokio::spawn(follow(apis, scope, updates.clone(), connection.retry_after.clone()));
        }
    }
    let (sender, receiver) = channel::channel(None);
    tokio::spawn(collector.run(taken, sender));
    receiver
}

/// What one watch has listed.
#[derive(Default)]
struct Listed {
    current: BTreeMap<ObjectKey, Arc<ClusterObject>>,
    /// A list that is not whole yet.
    incoming: BTreeMap<ObjectKey, Arc<ClusterObject>>,
    is_whole: bool,
    /// Whether there is nothing, because the API server does not know the kind.
    is_lacking: bool,
    /// Since when the API server says so, each time it is asked.
    missing_since: Option<Instant>,
    /// Whether that is so long ago that its objects were forgotten.
    is_forgotten: bool,
}

impl Listed {
    /// The API server does not know the kind; whether that changes what there is. Every replica comes to the same, whatever it listed
    /// before, because it forgets that.
    fn miss(&mut self) -> bool {
        let since = *self.missing_since.get_or_insert_with(Instant::now);
        let is_first = !std::mem::replace(&mut self.is_whole, true);
        let forgets = since.elapsed() >= FORGET_AFTER && !std::mem::replace(&mut self.is_forgotten, true);
        if forgets {
            self.current.clear();
        }
        self.is_lacking |= is_first || forgets;
        is_first || forgets
    }

    fn is_unsettled(&self) -> bool {
        self.missing_since.is_some() && !self.is_forgotten
    }
}

struct Collector {
    scopes: BTreeMap<Scope, Listed>,
    states: Arc<WatchStates>,
}

impl Collector {
    async fn run(
        mut self,
        mut updates: mpsc::Receiver<Update>,
        sender: channel::Sender<Option<Arc<ObjectSet>>>,
    ) {
        let mut due: Option<Instant> = None;
        loop {
            let pause = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                update = updates.recv() => {
                    let Some((scope, said)) = update else { return };
                    if self.take(&scope, said) && due.is_none() {
                        due = Some(Instant::now() + DEBOUNCE);
                    }
                }
                () = pause => {
                    due = None;
                    if self.scopes.values().all(|listed| listed.is_whole) {
                        sender.send_replace(Some(Arc::new(self.listed())));
                    }
                }
            }
        }
    }

    /// All that was listed.
    fn listed(&self) -> ObjectSet {
        let all = self.scopes.values().flat_map(|listed| listed.current.values().cloned());
        let mut backends = self.scopes.iter().filter(|(scope, _)| scope.kind == ObjectKind::Backend);
        // What namespaces agree to decides of Gateways, too, and of nothing else that has a host.
        let routes = self.scopes.keys().any(|scope| scope.kind.is_route());
        ObjectSet::new(all)
            .lacking_destinations(backends.any(|(_, listed)| listed.is_lacking))
            .unsettled(routes && self.scopes.values().any(Listed::is_unsettled))
    }

    /// Takes what a watch says; whether objects may have changed.
    fn take(&mut self, scope: &Scope, said: Result<Option<Event<RawObject>>, WatchFault>) -> bool {
        let Some(listed) = self.scopes.get_mut(scope) else { return false };
        let event = match said {
            Ok(Some(event)) => event,
            Ok(None) => {
                self.states.works(scope);
                return false;
            }
            Err(fault) if scope.kind.is_optional() && fault.code() == Some(404) => {
                self.states.lacks(scope);
                return listed.miss();
            }
            Err(fault) => {
                self.states.failed(scope, &fault);
                return false;
            }
        };
        let changed = match event {
            Event::Init => {
                listed.incoming.clear();
                return false;
            }
            Event::InitApply(object) => {
                if let Some(object) = ClusterObject::of(scope.kind, object) {
                    listed.incoming.insert(object.key.clone(), Arc::new(object));
                }
                return false;
            }
            Event::InitDone => {
                let incoming = std::mem::take(&mut listed.incoming);
                let changed = !listed.is_whole || listed.is_lacking || incoming != listed.current;
                (listed.current, listed.is_whole, listed.is_lacking) = (incoming, true, false);
                changed
            }
            Event::Apply(object) => ClusterObject::of(scope.kind, object).is_some_and(|object| {
                listed.current.insert(object.key.clone(), Arc::new(object));
                true
            }),
            Event::Delete(object) => ClusterObject::of(scope.kind, object)
                .is_some_and(|object| listed.current.remove(&object.key).is_some()),
        };
        let was_unsettled = listed.is_unsettled();
        (listed.missing_since, listed.is_forgotten) = (None, false);
        self.states.works(scope);
        changed || was_unsettled
    }
}

/// How the watches do.
#[derive(Debug, Default)]
pub(crate) struct WatchStates(Mutex<WatchTable>);

#[derive(Debug, Default)]
struct WatchTable {
    watches: BTreeMap<Scope, WatchState>,
    /// When what serves was last confirmed, where that was persisted.
    persisted: Option<Timestamp>,
    is_leader: bool,
    refused: BTreeMap<ObjectKind, usize>,
    /// Since when each object holds hosts that its status does not say.
    unwritten: BTreeMap<ObjectKey, Instant>,
}

#[derive(Debug, Default)]
struct WatchState {
    is_synced: bool,
    errors: u64,
    last_event: Option<Instant>,
    failing: Option<String>,
    /// Whether the API server does not know the kind.
    is_lacking: bool,
}

/// How the watches of one kind do, all namespaces together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WatchStatus {
    /// As paths of the API say it.
    pub(crate) resource: &'static str,
    /// Whether all objects are known, and the last attempt to follow them did not fail.
    pub(crate) is_synced: bool,
    /// Attempts that failed.
    pub(crate) errors: u64,
    /// Since a watch last said anything of an object.
    pub(crate) age: Option<Duration>,
    /// Objects that are not accepted.
    pub(crate) refused: usize,
}

impl WatchStates {
    fn lock(&self) -> MutexGuard<'_, WatchTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect(&self, scope: &Scope) {
        self.lock().watches.insert(scope.clone(), WatchState::default());
    }

    fn works(&self, scope: &Scope) {
        self.goes(scope, false);
    }

    /// It works, and there is nothing to watch: the API server does not know the kind. One line of the log says so.
    fn lacks(&self, scope: &Scope) {
        self.goes(scope, true);
    }

    fn goes(&self, scope: &Scope, is_lacking: bool) {
        let mut inner = self.lock();
        let lacking = |(other, state): (&Scope, &WatchState)| other.kind == scope.kind && state.is_lacking;
        let was_lacking = inner.watches.iter().any(lacking);
        let Some(state) = inner.watches.get_mut(scope) else { return };
        state.is_lacking = is_lacking;
        if is_lacking && !was_lacking {
            let (kind, api_version) = (scope.kind.word(), scope.kind.api_version());
            tracing::info!(kind, %api_version, "the API server does not have this kind: there are no such objects until its definition is installed");
        }
        (state.is_synced, state.last_event) = (true, Some(Instant::now()));
        if state.failing.take().is_some() && inner.watches.values().all(|state| state.failing.is_none()) {
            tracing::info!("the API server is watched again");
        }
    }

    /// One line of the log says that the API server is away, whichever watch finds it out.
    fn failed(&self, scope: &Scope, fault: &WatchFault) {
        let mut inner = self.lock();
        let was_failing = inner.watches.values().any(|state| state.failing.is_some());
        let Some(state) = inner.watches.get_mut(scope) else { return };
        state.errors += 1;
        // What it was asked from is too long ago for the API server: the next list says all of it.
        if fault.code() == Some(410) {
            return;
        }
        let said = in_words(scope.kind, fault);
        if state.failing.as_ref() != Some(&said) {
            let resource = scope.kind.plural();
            match was_failing {
                false => {
                    tracing::warn!(resource, error = %said, "the API server cannot be watched; what it said last serves");
                }
                true => tracing::debug!(resource, error = %said, "the API server cannot be watched"),
            }
        }
        state.failing = Some(said);
    }

    /// Why the API server cannot be watched; `None` while it can.
    pub(crate) fn failure(&self) -> Option<String> {
        self.lock().watches.values().find_map(|state| state.failing.clone())
    }

    pub(super) fn serves_persisted(&self, confirmed: Timestamp) {
        self.lock().persisted = Some(confirmed);
    }

    pub(super) fn serves_live(&self) {
        if self.lock().persisted.take().is_some() {
            tracing::info!("the objects of the API server serve in place of the persisted ones");
        }
    }

    /// When the API server last confirmed what serves; `None`: it is not what was persisted.
    pub(crate) fn persisted(&self) -> Option<Timestamp> {
        self.lock().persisted
    }

    pub(super) fn leads(&self, is_leader: bool) {
        self.lock().is_leader = is_leader;
    }

    /// Whether this gateway is the one that writes status.
    pub(crate) fn is_leader(&self) -> bool {
        self.lock().is_leader
    }

    /// These objects hold hosts that their status does not say, and no others do.
    pub(super) fn unwritten(&self, objects: impl IntoIterator<Item = ObjectKey>) {
        let mut inner = self.lock();
        let (before, now) = (std::mem::take(&mut inner.unwritten), Instant::now());
        let since = |key: ObjectKey| (before.get(&key).copied().unwrap_or(now), key);
        inner.unwritten = objects.into_iter().map(since).map(|(since, key)| (key, since)).collect();
    }

    /// How many objects hold hosts that their status does not say, though there was time to write them: until then another object may
    /// take these hosts.
    pub(crate) fn unwritten_hosts(&self) -> usize {
        self.lock().unwritten.values().filter(|since| since.elapsed() >= WRITTEN_WITHIN).count()
    }

    pub(super) fn refused(&self, refused: BTreeMap<ObjectKind, usize>) {
        self.lock().refused = refused;
    }

    /// How the watches of each kind that is watched do.
    pub(crate) fn status(&self) -> Vec<WatchStatus> {
        let inner = self.lock();
        let of_kind = |kind: ObjectKind| {
            let states =
                || inner.watches.iter().filter(move |(scope, _)| scope.kind == kind).map(|(_, it)| it);
            WatchStatus {
                resource: kind.plural(),
                is_synced: states().all(|state| state.is_synced && state.failing.is_none()),
                errors: states().map(|state| state.errors).sum(),
                age: states().filter_map(|state| state.last_event).max().map(|last| last.elapsed()),
                refused: inner.refused.get(&kind).copied().unwrap_or_default(),
            }
        };
        let watched = |kind: &ObjectKind| inner.watches.keys().any(|scope| scope.kind == *kind);
        ObjectKind::ALL.iter().copied().filter(watched).map(of_kind).collect()
    }
}

/// What went wrong, and what would help.
fn in_words(kind: ObjectKind, fault: &WatchFault) -> String {
    let WatchFault::Refused(status) = fault else { return fault.to_string() };
    let message = &status.message;
    match status.code {
        403 => format!("{message}: the gateway's role needs list and watch on it"),
        404 => {
            let name = kind.word();
            format!(
                "the API server knows no {name} of tollgate.dev/v1alpha1: install the CRDs (`tollgate crds`)"
            )
        }
        401 => format!("{message}: the API server does not know who the gateway is"),
        _ => fault.to_string(),
    }
}

#[cfg(test)]
mod tests;
