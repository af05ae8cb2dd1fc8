//! Resources from a cluster: watched, kept for a start without the API server, and told of in their status.
//!
//! **Invariant:** what an API server says or does not say changes which objects there are, and nothing else: without it the last good
//! ones serve.
//!
//! Deliberately lacks: Kubernetes Secrets. They are a store, and the store reads them.

mod claim;
mod client;
mod condition;
mod gateway_api;
mod kind;
mod lease;
mod object;
mod persisted;
mod raise;
mod raw;
mod sources;
mod status;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::runtime::Handle;
use tokio::sync::watch as channel;
use tollgate_policy::consent::Consents;
use tollgate_policy::model::SourceFile;

use self::client::Connection;
pub(crate) use self::client::{ClusterError, own_namespace};
pub(crate) use self::gateway_api::GatewayPlace;
pub(crate) use self::kind::{ObjectKind, VERSION};
use self::object::ObjectSet;
pub(crate) use self::persisted::PersistedObjects;
pub(crate) use self::raise::BudgetObject;
use self::sources::sources;
pub(crate) use self::status::StatusMember;
pub(crate) use self::watch::{WatchStates, WatchStatus};
use crate::core::Shared;
use crate::settings::{KubernetesSettings, Settings};
use crate::snapshot::Snapshot;

/// How long a start waits for the API server before it serves what was persisted.
const PATIENCE: Duration = Duration::from_secs(5);

/// A cluster whose objects are watched.
#[derive(Debug)]
pub(crate) struct ClusterWatch {
    connection: Connection,
    states: Arc<WatchStates>,
    objects: channel::Receiver<Option<Arc<ObjectSet>>>,
    persisted: PersistedObjects,
    place: Option<Arc<GatewayPlace>>,
    published: channel::Sender<Option<Published>>,
}

/// Objects, and the snapshot that was made of them.
#[derive(Debug, Clone)]
struct Published {
    objects: Arc<ObjectSet>,
    snapshot: Arc<Snapshot>,
}

impl ClusterWatch {
    /// Begins to watch the cluster that the settings name.
    ///
    /// # Errors
    /// Where it is not known how to reach an API server. One that does not answer is no error.
    pub(crate) fn start(
        cluster: &KubernetesSettings,
        settings: &Settings,
        control: &Handle,
    ) -> Result<Self, ClusterError> {
        let connection = control.block_on(Connection::open(cluster))?;
        let place = GatewayPlace::of(settings).map(Arc::new);
        let states = Arc::default();
        let objects = {
            let _inside = control.enter();
            watch::start(&connection, cluster.namespaces.as_deref(), place.is_some(), Arc::clone(&states))
        };
        Ok(Self {
            connection,
            states,
            objects,
            persisted: PersistedObjects::of(&settings.data_dir).for_at_most(cluster.persisted_for),
            place,
            published: channel::Sender::new(None),
        })
    }

    /// What reads Kubernetes Secrets, with the rights of the gateway.
    pub(crate) fn client(&self) -> kube::Client {
        self.connection.client.clone()
    }

    /// How the watches do.
    pub(crate) fn states(&self) -> Arc<WatchStates> {
        Arc::clone(&self.states)
    }

    /// What a reader of resources follows.
    pub(crate) fn feed(&self) -> ObjectFeed {
        ObjectFeed {
            objects: self.objects.clone(),
            current: None,
            persisted: self.persisted.clone(),
            place: self.place.clone(),
            states: Arc::clone(&self.states),
            published: self.published.clone(),
        }
    }

    /// Keeps what is persisted, and status, from here to the end. Inside of a runtime.
    pub(crate) fn tend(self, shared: Arc<Shared>) {
        let published = self.published.subscribe();
        tokio::spawn(self.persisted.keep(published.clone(), Arc::clone(&self.states)));
        tokio::spawn(status::keep(
            self.connection,
            (self.objects, published),
            self.place,
            self.states,
            shared,
        ));
    }
}

/// How long ago the API server has confirmed something.
fn age(confirmed: Timestamp) -> SignedDuration {
    Timestamp::now().duration_since(confirmed)
}

/// The objects as they change.
#[derive(Debug)]
pub(crate) struct ObjectFeed {
    objects: channel::Receiver<Option<Arc<ObjectSet>>>,
    current: Option<Arc<ObjectSet>>,
    persisted: PersistedObjects,
    place: Option<Arc<GatewayPlace>>,
    states: Arc<WatchStates>,
    published: channel::Sender<Option<Published>>,
}

impl ObjectFeed {
    /// Waits for the objects of the API server, and takes those that were persisted where it does not answer in time.
    pub(crate) async fn begin(&mut self) {
        let listed = self.objects.wait_for(Option::is_some);
        if let Ok(Ok(listed)) = tokio::time::timeout(PATIENCE, listed).await {
            self.current.clone_from(&listed);
            return;
        }
        let why = self.states.failure().unwrap_or_else(|| "it does not answer".to_owned());
        match self.persisted.read() {
            Ok((_, confirmed)) if self.persisted.is_too_old(confirmed) => {
                let age = age(confirmed);
                tracing::error!(%why, age = %format_args!("{age:#.0}"), "no API server, and the persisted objects are older than `persistedFor` allows: nothing serves until it answers");
            }
            Ok((objects, confirmed)) => {
                let age = age(confirmed);
                let count = objects.len();
                tracing::warn!(%why, count, age = %format_args!("{age:#.0}"), "no API server: the persisted objects serve");
                self.states.serves_persisted(confirmed);
                self.current = Some(Arc::new(objects));
            }
            Err(error) => {
                tracing::error!(%why, persisted = %error, "no API server, and no persisted objects: nothing serves until it answers");
            }
        }
    }

    /// Ready when there are other objects than the current ones.
    pub(crate) async fn changed(&mut self) {
        loop {
            if self.objects.changed().await.is_err() {
                // The watches end with the process.
                return std::future::pending().await;
            }
            let next = self.objects.borrow_and_update().clone();
            let Some(next) = next else { continue };
            let is_news = self.current.as_ref().is_none_or(|current| !current.compiles_like(&next));
            self.current = Some(next);
            if is_news {
                return;
            }
        }
    }

    /// The current objects, the oldest first; `None` while nothing is known of any.
    pub(crate) fn sources(&self) -> Option<(Vec<SourceFile>, Consents)> {
        self.current.as_ref().map(|objects| sources(objects, self.place.as_deref()))
    }

    /// Says that the current objects are in force.
    pub(crate) fn took(&self, snapshot: Arc<Snapshot>) {
        let Some(objects) = self.current.clone() else { return };
        if !objects.is_persisted() {
            self.states.serves_live();
        }
        self.published.send_replace(Some(Published { objects, snapshot }));
    }
}
