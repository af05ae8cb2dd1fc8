//! One generation of the policy with all that was built from it.
//!
//! **Invariant:** a request sees one generation from start to end, and a generation that was not built whole is never published.

mod files;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use tollgate_policy::compile::{Environment, compile_files};
use tollgate_policy::map::Map;
use tollgate_policy::model::{Problem, SourceFile};
use tollgate_policy::name::Name;
use tollgate_policy::policy::Policy;

pub(crate) use self::files::ResourceFiles;
use crate::upstream::{TlsClient, TlsClients};

/// The policy and the TLS configurations of its destinations.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) generation: u64,
    pub(crate) policy: Policy,
    upstreams: Map<Name, TlsClient>,
    clients: TlsClients,
}

impl Snapshot {
    /// Compiles `files`; all problems are returned at once, warnings beside the result.
    ///
    /// # Errors
    /// Everything that is wrong with the files, or with the CA bundles that they name.
    pub(crate) fn build(
        files: &[SourceFile],
        environment: &Environment,
        before: Option<&Self>,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let (policy, warnings) = compile_files(files, environment)?;
        let mut clients = before.map(|b| b.clients.clone()).unwrap_or_default();
        let mut upstreams = Map::default();
        let mut problems = Vec::new();
        for destination in policy.destinations() {
            match clients.client(&destination.tls) {
                Ok(client) => {
                    upstreams.insert(destination.name.clone(), client);
                }
                Err(error) => problems.push(destination.origin.problem("spec.tls.verify", error.to_string())),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let generation = before.map_or(1, |b| b.generation + 1);
        Ok((Self { generation, policy, upstreams, clients }, warnings))
    }

    /// How to verify a destination of this policy.
    pub(crate) fn tls(&self, destination: &Name) -> Option<&TlsClient> {
        self.upstreams.get(destination)
    }
}

/// The snapshot in force.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    current: ArcSwapOption<Snapshot>,
    generation: AtomicU64,
}

impl Snapshots {
    pub(crate) fn publish(&self, snapshot: Arc<Snapshot>) {
        let generation = snapshot.generation;
        self.current.store(Some(snapshot));
        self.generation.store(generation, Ordering::Release);
    }

    pub(crate) fn current(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full()
    }

    /// The number of the snapshot in force; 0 before the first.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}
