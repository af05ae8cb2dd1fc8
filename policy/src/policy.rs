//! The compiled policy: immutable, shared by all cores, asked once per connection and a few times per request.
//!
//! **Invariant:** every name in it resolves, and what no grant matches is denied. Only [`crate::compile`] makes one.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::caller::Caller;
use crate::decision::{Admission, CallerGrants, Facts, Permit, Verdict};
use crate::denial::Denial;
use crate::dialect::Catalog;
use crate::giving_way::giving_way;
use crate::hash::GrantHash;
use crate::model::Source;
use crate::name::ResourceId;
use crate::operation::{HttpRequest, Operation, RequestLine};
use crate::pattern::HostPattern;
use crate::resource::{Block, BlockedHosts, BudgetIndex, CallerIndex, Referred};
use crate::target::{Directory, GatewayName, Passage, Target, TunnelAuthority, TunnelEnd};

pub use crate::resource::{
    Algorithm, Allow, Approval, Assume, AwsKey, AwsSession, AwsStore, Boundary, Budget, BudgetRaise,
    CallSelector, CircuitBreaker, Client, ClientAuth, ClientCertificate, Credential, Destination, Grant,
    Hmac, HmacAlgorithm, HttpDestination, HttpVersion, Inject, Injection, Key, KeyEncoding, KvVersion, Mint,
    OutlierDetection, Piece, Protocol, Proxy, Resilience, Retries, Scrub, SecretId, SecretRef, SigV4,
    SignatureEncoding, Signer, SourceOrder, SourcePlan, SourcePool, SourceRules, Store, StoreKind, Svid,
    TcpDestination, Timeouts, TlsStart, TlsVerify, TokenEndpoint, TokenGrant, TokenLogin, TunnelTls,
    Unpriced, VaultAuth, VaultStore, is_s3,
};

/// Everything that may be called, by whom, with what: resolved and immutable.
#[derive(Debug, Default)]
pub struct Policy {
    directory: Directory,
    // Before the parts, which let go of the grants last.
    grants: CallerIndex<Grant>,
    parts: Parts,
    budgets: BudgetIndex,
    /// What grants might have decided that are not in force: of the callers that they name, and of all.
    blocks: CallerIndex<Block>,
    blocks_of_all: Vec<Arc<Block>>,
}

/// The resources of a policy, by name.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) source_pools: BTreeMap<ResourceId, Arc<SourcePool>>,
    pub(crate) destinations: BTreeMap<ResourceId, Arc<Destination>>,
    pub(crate) stores: BTreeMap<ResourceId, Arc<Store>>,
    pub(crate) credentials: BTreeMap<ResourceId, Arc<Credential>>,
    pub(crate) grants: BTreeMap<ResourceId, Arc<Grant>>,
    pub(crate) budgets: BTreeMap<ResourceId, Arc<Budget>>,
    /// The approvals without a problem, each with why it has no effect.
    pub(crate) approvals: BTreeMap<ResourceId, Option<String>>,
    /// The hosts that a cluster's destinations hold, those that are not in force included.
    pub(crate) held_hosts: BTreeMap<ResourceId, Vec<HostPattern>>,
    /// Where the stores were written: beside them, because a store that only moved in its file is the same store.
    pub(crate) store_origins: BTreeMap<ResourceId, Source>,
}

/// Of grants there may be thousands, and letting go of them takes tens of milliseconds; there is little of the rest.
impl Drop for Parts {
    fn drop(&mut self) {
        giving_way(std::mem::take(&mut self.grants)).for_each(drop);
    }
}

impl Parts {
    /// What grants refer to.
    pub(crate) fn referred(&self) -> Referred<'_> {
        Referred { destinations: &self.destinations, credentials: &self.credentials }
    }
}

impl Policy {
    /// `gateway` are the authorities that are the gateway itself: a canonical host, and the port where only that one is meant. A path there
    /// names a destination of `namespace`.
    pub(crate) fn new(parts: Parts, gateway: Vec<GatewayName>, namespace: &str) -> Self {
        let directory = Directory::new(parts.destinations.values(), gateway, namespace);
        let grants = CallerIndex::new(parts.grants.values().map(Arc::clone));
        let budgets = BudgetIndex::new(&parts.budgets);
        Self { directory, parts, grants, budgets, ..Self::default() }
    }

    /// The same, with this denied besides.
    pub(crate) fn denying(mut self, hosts: Vec<BlockedHosts>, blocks: Vec<Block>) -> Self {
        self.directory.block(hosts);
        let (of_all, of_some) =
            blocks.into_iter().map(Arc::new).partition::<Vec<_>, _>(|block| block.every_caller);
        self.blocks = CallerIndex::new(of_some);
        self.blocks_of_all = of_all;
        self
    }

    /// The grants that name this caller, each with the limits of the budgets that its calls by it are held to. Worked out once per connection and policy: the caller does not change, and grants are many.
    pub fn grants_of(&self, caller: &Caller) -> CallerGrants {
        let blocks = self.blocks.naming(caller).map(|(block, _)| block);
        let blocks = self.blocks_of_all.iter().chain(blocks).map(Arc::clone).collect();
        CallerGrants::new(caller, (&self.grants, &self.budgets), blocks)
    }

    /// Where a request goes, and what it asks there. Refuses with `ambiguous_path`, `ambiguous_authority`, `bad_request` or `unknown_host`.
    pub fn resolve(&self, line: &RequestLine<'_>) -> Result<(Target, HttpRequest), Denial> {
        self.directory.resolve(line)
    }

    /// Where a tunnel or a session with a database goes. Refuses with `ambiguous_authority` or `unknown_host`.
    pub fn target(&self, host: &str, port: u16) -> Result<Target, Denial> {
        self.directory.connection(host, port)
    }

    /// Where a tunnel leads. Refuses with `unknown_host`.
    pub fn tunnel(&self, authority: &TunnelAuthority) -> Result<TunnelEnd, Denial> {
        self.directory.tunnel(authority)
    }

    /// Where a connection goes that is passed through to the destination of this name. Refuses with `unknown_host`.
    pub fn passage_to(&self, destination: &str) -> Result<Passage, Denial> {
        self.directory.passage_to(destination)
    }

    /// Where a connection goes whose own TLS is for this server. Refuses with `sni_mismatch`.
    pub fn server(&self, name: &str) -> Result<Target, Denial> {
        self.directory.server(name)
    }

    /// The grants that may still decide once the body is known. `grants` come from this policy's [`Policy::grants_of`].
    ///
    /// Refuses with `no_grant`, `path_not_allowed`, `method_not_allowed`, `endpoint_class`, `unmetered_endpoint`, `deferred_cost`,
    /// `grant_suspended`, `not_approved` or `method_refused`.
    pub fn admit(
        &self,
        grants: &CallerGrants,
        target: Target,
        operation: Operation,
    ) -> Result<Admission, Denial> {
        Admission::new(grants, target, operation, &self.parts.catalog)
    }

    /// How each of the caller's grants stands to a call, in order of precedence, and the one that decides. This is the decision
    /// of [`Policy::admit`] and [`Admission::permit`], shown.
    pub fn trace(
        &self,
        grants: &CallerGrants,
        target: &Target,
        operation: &Operation,
        facts: &Facts,
        now: Timestamp,
    ) -> Vec<(Arc<Grant>, Verdict)> {
        crate::decision::trace(grants, (target, operation, facts), &self.parts.catalog, now)
    }

    /// The same call with what other facts say, where the same grant decides on them too. `grants` are the caller's under the policy that
    /// gave the permit.
    pub fn permit_instead(
        &self,
        grants: &CallerGrants,
        permit: &Permit,
        facts: &Facts,
        now: Timestamp,
    ) -> Option<Permit> {
        permit.instead(grants, facts, (&self.parts.catalog, now))
    }

    /// Whether a call under way would still go out as it did: the same grant decides, for the same destination at the same host, with
    /// the same credential and client certificate. `grants` are the caller's under this policy, `model` what the request asked for.
    pub fn reauthorize(&self, grants: &CallerGrants, permit: &Permit, model: Option<&str>) -> bool {
        let target = permit.target();
        let Some(destination) = self.directory.destination(target.destination().name.as_str()) else {
            return false;
        };
        destination.port == target.port()
            && destination.has_host(target.host())
            && permit.is_renewed_by(grants, destination, model)
    }

    /// The destination of this name.
    pub fn destination(&self, name: &str) -> Option<&Arc<Destination>> {
        self.directory.destination(name)
    }

    /// The hosts that a Destination of a cluster holds, sorted: no other namespace's app may have them while it names them. It need not be
    /// in force, and the gateway's namespace may have one of them meanwhile.
    pub fn held_hosts(&self, destination: &ResourceId) -> &[HostPattern] {
        self.parts.held_hosts.get(destination).map(Vec::as_slice).unwrap_or_default()
    }

    /// What connections to this destination of the policy show.
    pub fn client_certificate(&self, destination: &Destination) -> Option<&Arc<Credential>> {
        self.parts.credentials.get(destination.client_certificate.as_ref()?)
    }

    /// The store of this name.
    pub fn store(&self, name: &str) -> Option<&Arc<Store>> {
        self.parts.stores.get(name)
    }

    /// Where the store of this name was written.
    pub fn store_origin(&self, name: &str) -> Option<&Source> {
        self.parts.store_origins.get(name)
    }

    /// All destinations, by name.
    pub fn destinations(&self) -> impl Iterator<Item = &Arc<Destination>> {
        self.parts.destinations.values()
    }

    /// All source pools, by name.
    pub fn source_pools(&self) -> impl Iterator<Item = (&ResourceId, &SourcePool)> {
        self.parts.source_pools.iter().map(|(id, pool)| (id, &**pool))
    }

    /// All secret stores, by name.
    pub fn stores(&self) -> impl Iterator<Item = &Arc<Store>> {
        self.parts.stores.values()
    }

    /// All credentials, by name.
    pub fn credentials(&self) -> impl Iterator<Item = &Arc<Credential>> {
        self.parts.credentials.values()
    }

    /// All grants, by name, as they are written.
    pub fn grants(&self) -> impl Iterator<Item = &Arc<Grant>> {
        self.parts.grants.values()
    }

    /// All budgets, by name.
    pub fn budgets(&self) -> impl Iterator<Item = &Arc<Budget>> {
        self.parts.budgets.values()
    }

    /// All approvals, by name, each with why it has no effect: `None` where it approves its grant.
    pub fn approvals(&self) -> impl Iterator<Item = (&ResourceId, Option<&str>)> {
        self.parts.approvals.iter().map(|(id, why)| (id, why.as_deref()))
    }

    /// The hash of all that a grant of this policy amounts to: what an approval of it has to name.
    pub fn hash(&self, grant: &Grant) -> GrantHash {
        self.parts.referred().hash(grant)
    }

    /// Whether a credential of this policy is another key than one of another policy, or is put on calls in another way. Where it may go
    /// makes no difference.
    pub(crate) fn credential_differs(&self, own: &Credential, other: &Self, others: &Credential) -> bool {
        self.parts.referred().key(own) != other.parts.referred().key(others)
    }

    /// The dialects and prices that it was compiled with.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.parts.catalog
    }
}
