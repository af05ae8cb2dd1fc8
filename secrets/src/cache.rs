//! The cache over all stores and token endpoints of the policy: lock-free to read, one fetch per secret, refreshed ahead of need.
//!
//! **Invariant:** [`Secrets::peek`] never waits and never takes a lock. A credential is served the secret that it
//! names, or nothing: what the policy no longer holds is let go of when the new policy is applied, and zeroized when
//! the last request that uses it ends.
//!
//! Deliberately lacks: knowledge of requests and providers; a 401 is a fact that the gateway reports.

mod slot;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time;
use tollgate_policy::map::Map;
use tollgate_policy::name::{Name, ResourceId};
use tollgate_policy::policy::{Credential, Policy, Store as Definition, TokenEndpoint};
use tracing::warn;

use crate::dial::Dialable;
use crate::error::{Failure, SecretError};
use crate::mint::{Issuer, IssuerHealth};
use crate::observe::Observer;
use crate::origin::{Maker, Origin};
use crate::reference::{self, Freshness, Reference, Wanted};
use crate::refusals::Refusals;
use crate::secret::{Fits, Secret, Version, VersionKey};
use crate::store::{Cluster, Store, StoreHealth};
use crate::svid::{OwnSvids, SvidSource};

use slot::Slot;
pub use slot::{CredentialStatus, Health, Refreshed};

/// Every secret that the policy in force uses.
pub struct Secrets {
    handle: Handle,
    dialable: Dialable,
    cluster: Cluster,
    svids: SvidSource,
    observer: Observer,
    fits: Fits,
    versions: VersionKey,
    slots: ArcSwap<Slots>,
    applying: Mutex<()>,
    /// Stores that the policy dropped and that were not given back all that they lent.
    leaving: Mutex<Vec<Arc<Store>>>,
}

/// The slots of one generation of the policy.
#[derive(Default)]
struct Slots {
    /// The keys of each, in their order.
    by_credential: Map<ResourceId, Vec<Served>>,
    stores: Vec<Arc<Store>>,
    issuers: Vec<Arc<Issuer>>,
}

/// The credentials that use a slot, and what they call its secret if they have others.
type Users = (BTreeMap<ResourceId, Arc<Credential>>, BTreeSet<Name>);

/// A key of a credential, and the slot of its secret, which others may share.
struct Served {
    credential: Arc<Credential>,
    alias: Option<Name>,
    slot: Arc<Slot>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

impl Secrets {
    /// An empty cache. Fetches and refreshes run on `handle`'s runtime, which needs time and network; `dialable` says
    /// whether a store at that address may be connected to.
    #[must_use]
    pub fn new(handle: Handle, dialable: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>) -> Arc<Self> {
        let versions = VersionKey::random();
        Self::observed(handle, dialable, Observer::nobody(), Arc::new(|_, _| Ok(())), versions)
    }

    /// [`Secrets::new`], told about to `observer`, with versions named under `versions`. A value that is new is then used only once that is written down, and only if `fits`
    /// says that one of its credentials can use it: until one comes that fits, the one before is used, while its `maxStale` lasts.
    #[must_use]
    pub fn observed(
        handle: Handle,
        dialable: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
        observer: Observer,
        fits: Fits,
        versions: VersionKey,
    ) -> Arc<Self> {
        Arc::new(Self {
            handle,
            dialable,
            cluster: Cluster::default(),
            svids: SvidSource::default(),
            observer,
            fits,
            versions,
            slots: ArcSwap::default(),
            applying: Mutex::default(),
            leaving: Mutex::default(),
        })
    }

    /// Says how the API server of the gateway's cluster is asked, which stores of Kubernetes Secrets need. To be called before the first
    /// policy is applied; what is said first stays.
    pub fn reach_cluster(&self, client: kube::Client) {
        self.cluster.reach(client);
    }

    /// Says who makes SVIDs of the gateway, which logins with one and stores of them need. To be called before the first policy is applied; what is said
    /// first stays.
    pub fn reach_svids(&self, svids: Arc<dyn OwnSvids>) {
        self.svids.reach(svids);
    }

    /// Takes over a new policy. What it defines as before keeps its value and its store's login; what it no longer
    /// has is let go of. To be called before the policy is published: a request of the new generation must find its
    /// credentials here. Fetches nothing.
    pub fn apply(&self, policy: &Policy) {
        let _one_at_a_time = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.slots.load_full();
        let stores = policy.stores().map(|definition| self.store(&before, definition)).collect();
        self.install(stores, reference::wanted(policy));
    }

    /// Begins to fetch what is not there of the credentials that want it ahead. To be called once the policy is in force.
    pub fn prefetch(&self) {
        let slots = self.slots.load_full();
        let wanted = slots.by_credential.values().flatten().filter(|served| served.credential.prefetch);
        for slot in wanted.map(|served| &served.slot).filter(|slot| slot.peek().is_none()) {
            let slot = Arc::clone(slot);
            // What fails is in the log and in the credential's health, as for a call.
            self.handle.spawn(async move { drop(slot.get().await) });
        }
    }

    /// The value of the key at this place of the credential, if it is cached and may be used now. Never waits, takes no lock.
    #[must_use]
    pub fn peek(&self, credential: &Credential, key: usize) -> Option<Arc<Secret>> {
        self.slots.load().slot(credential, key)?.peek()
    }

    /// The value of that key, fetched if it is not cached. Callers that ask together wait for one fetch; dropping the future
    /// leaves it running. After a failed fetch the store is not asked again before its back-off is over: until then
    /// the answer is the value that is held, while its `maxStale` lasts, or the failure.
    ///
    /// # Errors
    /// [`SecretError`] names the credential and the kind of failure.
    pub async fn get(&self, credential: &Credential, key: usize) -> Result<Arc<Secret>, SecretError> {
        let outcome = match self.slot(credential, key) {
            Some(slot) => slot.get().await,
            None => Err(Failure::Withdrawn),
        };
        outcome.map_err(|failure| SecretError::new(&credential.name, failure))
    }

    /// To be told when a provider refused `version` of this key. `Some` only if the value is another one now. Fetches once more, at most
    /// once per version in 30 seconds, whoever provokes it; or in 5 where no call was answered well between two refusals, so that it is
    /// no caller's doing. A store of files is asked as soon as they changed.
    pub async fn rejected(
        &self,
        credential: &Credential,
        key: usize,
        version: &Version,
    ) -> Option<Arc<Secret>> {
        let slot = self.slot(credential, key)?;
        let pace = slot.note_refusal(version);
        slot.newer(version, pace).await
    }

    /// The same where no provider was asked, because it refused `version` lately.
    pub async fn newer(&self, credential: &Credential, key: usize, version: &Version) -> Option<Arc<Secret>> {
        let slot = self.slot(credential, key)?;
        let pace = slot.pace(version);
        slot.newer(version, pace).await
    }

    /// To be told when a provider took a secret that [`Secret::is_rejected`].
    pub fn taken(&self, credential: &Credential, key: usize, secret: &Secret) {
        if let Some(slot) = self.slot(credential, key) {
            slot.note_taken(secret);
        }
    }

    /// Fetches this key now, whatever was fetched or failed before. `None`: the policy in force has no such key.
    pub async fn refresh(&self, credential: &Credential, key: usize) -> Option<Refreshed> {
        let slot = self.slot(credential, key)?;
        slot.open();
        Some(slot.refetched().await)
    }

    /// Begins to fetch every secret that was asked for, whatever was fetched or failed before. What is made or lent, and well, stays.
    pub fn reread(&self) {
        let slots = self.slots.load_full();
        // Once each, however many secrets are behind it.
        slots.distinct().for_each(|slot| slot.open());
        let is_wanted = |slot: &&Arc<Slot>| match slot.health() {
            Health::Unused => false,
            Health::Well => !slot.is_made(),
            _ => true,
        };
        for slot in slots.distinct().filter(is_wanted) {
            let slot = Arc::clone(slot);
            self.handle.spawn(async move { drop(slot.refetched().await) });
        }
    }

    /// Lets go of every secret and gives back what the stores lent, and their logins, within `limit`: what is not
    /// answered by then ends by itself. Nothing can be had afterwards.
    pub async fn close(&self, limit: Duration) {
        let stores = {
            let _one_at_a_time = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
            let mut stores = self.slots.swap(Arc::default()).stores.clone();
            let left = std::mem::take(&mut *self.leaving());
            stores.extend(left);
            stores.sort_by_key(Arc::as_ptr);
            stores.dedup_by(|a, b| Arc::ptr_eq(a, b));
            stores
        };
        let mut closing = JoinSet::new();
        for store in stores {
            closing.spawn_on(async move { store.close().await }, &self.handle);
        }
        let closed = time::timeout(limit, async { while closing.join_next().await.is_some() {} }).await;
        if closed.is_err() {
            warn!("a secret store did not take back in time what it lent; it ends by itself");
        }
    }

    /// How each store does, in the order of the policy.
    #[must_use]
    pub fn health(&self) -> Vec<StoreHealth> {
        let slots = self.slots.load_full();
        let mut reports: Vec<StoreHealth> = slots.stores.iter().map(|store| store.health()).collect();
        for slot in slots.distinct() {
            // A minted value is counted with its token endpoint.
            let store = Some(slot.reference()).filter(|reference| reference.mint.is_none());
            let Some(report) =
                reports.iter_mut().find(|report| store.is_some_and(|r| r.store.name == report.store))
            else {
                continue;
            };
            report.secrets += 1;
            match slot.health() {
                Health::Unused | Health::Well | Health::Rejected { .. } => {}
                Health::Stale { .. } => report.stale += 1,
                Health::Unavailable { .. } => report.unavailable += 1,
            }
        }
        reports
    }

    /// How each token endpoint does, in the order of the policy's credentials.
    #[must_use]
    pub fn issuers(&self) -> Vec<IssuerHealth> {
        let slots = self.slots.load_full();
        let count = |issuer: &Arc<Issuer>| {
            let mut report = issuer.health();
            let minted = |slot: &&Arc<Slot>| slot.issuer().is_some_and(|own| Arc::ptr_eq(own, issuer));
            for slot in slots.distinct().filter(minted) {
                report.tokens += 1;
                report.unavailable += usize::from(matches!(slot.health(), Health::Unavailable { .. }));
            }
            report
        };
        slots.issuers.iter().map(count).collect()
    }

    /// How each key of each credential does, by name.
    #[must_use]
    pub fn status(&self) -> Vec<CredentialStatus> {
        let slots = self.slots.load_full();
        let served =
            slots.by_credential.iter().flat_map(|(name, keys)| keys.iter().map(move |key| (name, key)));
        let mut status: Vec<_> =
            served.map(|(name, key)| key.slot.status(name, key.alias.as_ref())).collect();
        status.sort_by(|a, b| a.credential.cmp(&b.credential));
        status
    }

    fn slot(&self, credential: &Credential, key: usize) -> Option<Arc<Slot>> {
        self.slots.load().slot(credential, key).cloned()
    }

    fn install(&self, stores: Vec<Arc<Store>>, wanted: Vec<Wanted>) {
        let before = self.slots.load_full();
        let freshness = strictest(&wanted);
        let mut by_reference: HashMap<Reference, Arc<Slot>> =
            before.distinct().map(|slot| (slot.reference().clone(), Arc::clone(slot))).collect();
        let mut by_credential: Map<ResourceId, Vec<Served>> = Map::default();
        let mut issuers = Vec::new();
        for Wanted { credential, alias, description, reference, freshness: own } in wanted {
            let freshness = freshness.get(&reference).copied().unwrap_or(own);
            let mint = reference.mint.as_ref().map(|minting| Maker {
                issuer: self.issuer(&before, &mut issuers, &minting.mint.endpoint),
                client_store: minting.client.as_ref().and_then(|client| running(&stores, client)),
                refusals: Refusals::new(),
                said: Mutex::default(),
            });
            let Some(store) = running(&stores, &reference) else { continue };
            let slot = by_reference.entry(reference.clone()).or_insert_with(|| {
                let (observer, fits) = (self.observer.clone(), Arc::clone(&self.fits));
                let origin = Origin { store, mint, observer, fits, versions: self.versions.clone() };
                Arc::new(Slot::new(reference, description, freshness, origin, self.handle.clone()))
            });
            slot.retune(freshness);
            let served = Served { credential, alias, slot: Arc::clone(slot) };
            by_credential.entry(served.credential.name.clone()).or_default().push(served);
        }
        let dropped =
            before.stores.iter().filter(|store| !stores.iter().any(|kept| Arc::ptr_eq(kept, store)));
        let mut leaving = self.leaving();
        leaving.retain(|store| store.lends());
        leaving.extend(dropped.filter(|store| store.lends()).cloned());
        drop(leaving);
        let slots = Slots { by_credential, stores, issuers };
        slots.tell_whom_for();
        let stays: HashSet<*const Slot> = slots.distinct().map(Arc::as_ptr).collect();
        self.slots.store(Arc::new(slots));
        before
            .distinct()
            .filter(|slot| !stays.contains(&Arc::as_ptr(slot)))
            .for_each(|slot| slot.withdrawn());
    }

    fn issuer(
        &self,
        before: &Slots,
        issuers: &mut Vec<Arc<Issuer>>,
        endpoint: &TokenEndpoint,
    ) -> Arc<Issuer> {
        let running = issuers.iter().chain(&before.issuers).find(|issuer| issuer.endpoint() == endpoint);
        let issuer = match running {
            Some(running) => Arc::clone(running),
            None => Arc::new(Issuer::new(endpoint.clone(), &self.dialable)),
        };
        if !issuers.iter().any(|known| Arc::ptr_eq(known, &issuer)) {
            issuers.push(Arc::clone(&issuer));
        }
        issuer
    }

    fn leaving(&self) -> MutexGuard<'_, Vec<Arc<Store>>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, before: &Slots, definition: &Arc<Definition>) -> Arc<Store> {
        match before.stores.iter().find(|store| store.definition() == definition) {
            Some(running) => Arc::clone(running),
            None => {
                Arc::new(Store::new(Arc::clone(definition), &self.dialable, (&self.cluster, &self.svids)))
            }
        }
    }
}

fn running(stores: &[Arc<Store>], reference: &Reference) -> Option<Arc<Store>> {
    stores.iter().find(|store| *store.definition() == reference.store).cloned()
}

impl Slots {
    /// The slot of the secret that this key of the credential names. A request of an older policy may name another one than the
    /// policy in force has; it gets nothing.
    fn slot(&self, credential: &Credential, key: usize) -> Option<&Arc<Slot>> {
        let key = credential.keys.get(key)?;
        let served = self.by_credential.get(&credential.name)?;
        served.iter().map(|served| &served.slot).find(|slot| slot.reference().is_of(credential, key))
    }

    /// Each slot once, though several credentials may share it.
    fn distinct(&self) -> impl Iterator<Item = &Arc<Slot>> {
        let mut seen = HashSet::new();
        let slots = self.by_credential.values().flatten().map(|served| &served.slot);
        slots.filter(move |slot| seen.insert(Arc::as_ptr(slot)))
    }

    fn tell_whom_for(&self) {
        let mut users: HashMap<*const Slot, Users> = HashMap::new();
        for (name, keys) in &self.by_credential {
            for Served { credential, alias, slot } in keys {
                let (credentials, aliases) = users.entry(Arc::as_ptr(slot)).or_default();
                credentials.insert(name.clone(), Arc::clone(credential));
                aliases.extend(alias.clone());
            }
        }
        for slot in self.distinct() {
            let (credentials, aliases) = users.remove(&Arc::as_ptr(slot)).unwrap_or_default();
            slot.serve(credentials, aliases);
        }
    }
}

fn strictest(wanted: &[Wanted]) -> HashMap<Reference, Freshness> {
    let mut strictest: HashMap<Reference, Freshness> = HashMap::new();
    for Wanted { reference, freshness, .. } in wanted {
        strictest
            .entry(reference.clone())
            .and_modify(|least| *least = least.min(*freshness))
            .or_insert(*freshness);
    }
    strictest
}
