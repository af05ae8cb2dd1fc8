//! One generation of the policy with all that was built from it.
//!
//! **Invariant:** a request sees one generation from start to end, and a generation that was not built whole is never published.

mod files;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use tollgate_policy::compile::{Compiled, Environment, compile_each, compile_files};
use tollgate_policy::consent::Consents;
use tollgate_policy::map::Map;
use tollgate_policy::model::{Problem, SourceFile};
use tollgate_policy::name::ResourceId;
use tollgate_policy::policy::{Destination, Policy, TlsVerify};

pub(crate) use self::files::{ResourceFiles, digest_of};
use crate::expiry::{Dated, Purpose};
use crate::upstream::{CaState, TlsClient, TlsClients};

/// The policy and the TLS configurations of its destinations.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) generation: u64,
    pub(crate) policy: Policy,
    /// What is wrong with objects of a cluster, which are denied: files are taken whole or not at all.
    pub(crate) refused: Vec<Problem>,
    upstreams: Map<ResourceId, TlsClient>,
    clients: TlsClients,
    /// The CA bundles that could not be used.
    unusable: Vec<PathBuf>,
}

impl Snapshot {
    /// Compiles `files`; all problems are returned at once, warnings beside the result. Of objects of a cluster those with problems
    /// are denied, and the rest is in force; `consents` is what their namespaces have agreed to.
    ///
    /// # Errors
    /// Everything that is wrong with the files, or with the CA bundles that they name.
    pub(crate) fn build(
        (files, consents): (&[SourceFile], &Consents),
        environment: &Environment,
        before: Option<&Self>,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let compiled = if are_objects(files) {
            compile_each(files, environment, consents)
        } else {
            compile_files(files, environment)
        };
        let Compiled { policy, warnings, problems: mut refused, .. } = compiled?;
        let mut clients = before.map(|b| b.clients.next()).unwrap_or_default();
        let mut upstreams = Map::default();
        let (mut problems, mut unusable) = (Vec::new(), Vec::new());
        for destination in policy.destinations() {
            match clients.client(&destination.tls) {
                Ok(client) => {
                    let proxy = destination.proxy.as_ref().and_then(|proxy| proxy.tls.as_ref());
                    let proxy = proxy.map(|verify| clients.client(verify)).transpose();
                    let proxy = proxy.unwrap_or_else(|error| {
                        problems.push(destination.origin.problem("spec.proxy.verify", error.to_string()));
                        None
                    });
                    let proxy = proxy.map(|proxy| proxy.config);
                    upstreams.insert(destination.name.clone(), TlsClient { proxy, ..client });
                }
                Err(error) => {
                    problems.push(destination.origin.problem("spec.tls.verify", error.to_string()));
                    // The last good bundle of one object serves alone, as all last good files do together.
                    if let Some(client) = before.and_then(|before| before.tls_of(destination)) {
                        upstreams.insert(destination.name.clone(), client.clone());
                    }
                    if let TlsVerify::Bundle(file) = &destination.tls {
                        unusable.push(file.clone());
                    }
                }
            }
        }
        if !problems.is_empty() && !are_objects(files) {
            return Err(problems);
        }
        refused.append(&mut problems);
        let generation = before.map_or(1, |b| b.generation + 1);
        Ok((Self { generation, policy, refused, upstreams, clients, unusable }, warnings))
    }

    /// How to verify this destination, if it was verified by the same bundle here.
    fn tls_of(&self, destination: &Destination) -> Option<&TlsClient> {
        let known = self.policy.destination(destination.name.as_str())?;
        self.upstreams.get(&destination.name).filter(|_| known.tls == destination.tls)
    }

    /// The CA bundles that destinations are verified with, as they were read.
    pub(crate) fn ca_states(&self) -> BTreeMap<PathBuf, Option<CaState>> {
        let unusable = self.unusable.iter().map(|file| (file.clone(), None));
        self.clients.states().into_iter().chain(unusable).collect()
    }

    /// The certificates that a destination is verified with; none where these are the system's.
    pub(crate) fn dated(&self, destination: &Destination) -> Vec<Dated> {
        let TlsVerify::Bundle(file) = &destination.tls else { return Vec::new() };
        let roots = self.clients.roots(file).iter();
        let dated = roots.map(|(title, validity)| Dated {
            purpose: Purpose::Destination,
            name: destination.name.to_string(),
            title: format!("{}: {title}", file.display()),
            validity: *validity,
        });
        dated.collect()
    }

    /// How to verify a destination of this policy.
    pub(crate) fn tls(&self, destination: &ResourceId) -> Option<&TlsClient> {
        self.upstreams.get(destination)
    }
}

/// Of one that nobody can ask for any more.
fn is_unused(superseded: &Arc<Snapshot>) -> bool {
    Arc::strong_count(superseded) == 1
}

/// Whether these come from a cluster, where each object stands for itself.
fn are_objects(files: &[SourceFile]) -> bool {
    files.first().is_some_and(SourceFile::is_object)
}

/// The CA bundles that destinations of these files name, as they are now; `None` where the files cannot be compiled, or are objects.
pub(crate) fn ca_states(
    files: &[SourceFile],
    environment: &Environment,
) -> Option<BTreeMap<PathBuf, Option<CaState>>> {
    let Compiled { policy, .. } = compile_files(files, environment).ok().filter(|_| !are_objects(files))?;
    let bundles = policy.destinations().filter_map(|destination| match &destination.tls {
        TlsVerify::Bundle(file) => Some((file.clone(), crate::upstream::ca_state(file))),
        TlsVerify::System => None,
    });
    Some(bundles.collect())
}

/// Whether what is on disk is in force.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    failures: AtomicU64,
    refused: AtomicBool,
}

impl Reloads {
    /// Something on disk was refused: a configuration, or files of the identity.
    pub(crate) fn fail(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Says whether the configuration on disk is refused.
    pub(crate) fn set_refused(&self, refused: bool) {
        self.refused.store(refused, Ordering::Relaxed);
    }

    /// Whether the configuration on disk is not the one in force.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }
}

/// The snapshot in force, and those before it that calls still use.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    current: ArcSwapOption<Snapshot>,
    generation: AtomicU64,
    superseded: Mutex<Vec<Arc<Snapshot>>>,
}

impl Snapshots {
    pub(crate) fn publish(&self, snapshot: Arc<Snapshot>) {
        let generation = snapshot.generation;
        let before = self.current.swap(Some(snapshot));
        self.generation.store(generation, Ordering::Release);
        self.superseded().extend(before);
    }

    /// Whether one of those before this one is used by nobody.
    pub(crate) fn has_unused(&self) -> bool {
        self.superseded().iter().any(is_unused)
    }

    /// Lets go of these. It is done here alone: with thousands of grants it takes tens of milliseconds, which a core that serves calls
    /// would lose.
    pub(crate) fn free_unused(&self) {
        let unused: Vec<_> = self.superseded().extract_if(.., |before| is_unused(before)).collect();
        drop(unused);
    }

    fn superseded(&self) -> MutexGuard<'_, Vec<Arc<Snapshot>>> {
        self.superseded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn current(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full()
    }

    /// The number of the snapshot in force; 0 before the first.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_was_superseded_is_freed_once_nobody_uses_it() {
        let snapshots = Snapshots::default();
        let publish = || {
            let before = snapshots.current();
            let files = (&[][..], &Consents::default());
            let (next, _) = Snapshot::build(files, &Environment::default(), before.as_deref()).unwrap();
            snapshots.publish(Arc::new(next));
        };
        publish();
        let used = snapshots.current().unwrap();
        publish();
        publish();
        assert!(snapshots.has_unused(), "the second");
        snapshots.free_unused();
        assert!(!snapshots.has_unused());
        let generations = |of: &Snapshots| of.superseded().iter().map(|s| s.generation).collect::<Vec<_>>();
        assert_eq!(generations(&snapshots), [1]);
        drop(used);
        assert!(snapshots.has_unused());
        snapshots.free_unused();
        assert_eq!(generations(&snapshots), [0; 0]);
        assert_eq!(snapshots.current().unwrap().generation, 3);
    }
}
