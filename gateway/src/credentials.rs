//! Credentials as people see them: what the resources say, and how their secrets do where a gateway runs.
//!
//! **Invariant:** made from the policy and from what the cache says of itself; there is no value in reach here.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tollgate_policy::name::{Name, ResourceId};
use tollgate_policy::policy::{Inject, Injection, Policy, StoreKind};
use tollgate_secrets::{CredentialStatus, Failure, Health};

use crate::key_health::KeyStatus;

/// One key of a credential. What only a running gateway knows is absent elsewhere.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct KeyListing {
    /// The credential's name.
    pub(crate) name: String,
    /// What it calls this key, if it has others.
    #[serde(default)]
    pub(crate) alias: Option<String>,
    /// Its weight against the others; 0: it stands by.
    #[serde(default)]
    pub(crate) weight: Option<u32>,
    /// Where its secret is: `store:path#field@version`; and what is minted of it, if anything.
    pub(crate) secret: String,
    /// The kind of that store.
    pub(crate) store_kind: String,
    /// How it is put on a call.
    pub(crate) inject: String,
    /// Where it may go.
    pub(crate) destinations: Vec<String>,
    /// The version that calls get.
    pub(crate) version: Option<String>,
    /// Since the store last said that this is the value.
    pub(crate) age_seconds: Option<u64>,
    /// Until the store is asked again.
    pub(crate) refresh_in_seconds: Option<u64>,
    /// When it was last put on a call.
    pub(crate) last_use: Option<Timestamp>,
    /// `unused`, `well`, `stale`, `rejected` (by its provider), `unavailable`.
    pub(crate) health: Option<String>,
    /// For how long its provider has been refusing it.
    #[serde(default)]
    pub(crate) rejected_seconds: Option<u64>,
    /// For how long it has been stale.
    pub(crate) stale_seconds: Option<u64>,
    /// Why it is stale or unavailable, in one word.
    pub(crate) reason: Option<String>,
    /// The same in words, and those of the token endpoint that refused it.
    #[serde(default)]
    pub(crate) detail: Option<String>,
    /// What its provider said of it lately, if it has others: `usable`, `cooling`, `benched`.
    #[serde(default)]
    pub(crate) state: Option<String>,
    /// For how long it is not used.
    #[serde(default)]
    pub(crate) rest_seconds: Option<u64>,
}

/// What came of fetching one key because an operator asked for that.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RefreshOutcome {
    /// What the credential calls the key, if it has others.
    pub(crate) alias: Option<String>,
    /// The version that calls got before.
    pub(crate) before: Option<String>,
    /// The one that they get now.
    pub(crate) version: Option<String>,
    /// Whether they are of different contents.
    pub(crate) changed: bool,
    /// Why it could not be fetched.
    pub(crate) failure: Option<String>,
}

impl KeyListing {
    /// Whether it is this key.
    pub(crate) fn is(&self, credential: &ResourceId, alias: Option<&Name>) -> bool {
        self.name == credential.as_str() && self.alias.as_deref() == alias.map(Name::as_str)
    }

    /// Adds what its provider said of it.
    pub(crate) fn does(&mut self, status: &KeyStatus) {
        self.state = Some(status.state.to_owned());
        self.rest_seconds = status.rest.map(|rest| rest.as_secs());
    }

    /// Adds what the running gateway knows.
    pub(crate) fn lives(&mut self, status: &CredentialStatus, last_use: Option<Timestamp>) {
        self.version = status.version.as_deref().map(str::to_owned);
        self.age_seconds = status.age.map(|age| age.as_secs());
        self.refresh_in_seconds = status.refresh_in.map(|next| next.as_secs());
        self.last_use = last_use;
        self.health = Some(status.health.as_str().to_owned());
        if let Health::Stale { since, .. } = status.health {
            self.stale_seconds = Some(since.as_secs());
        }
        self.rejected_seconds = status.rejected.map(|since| since.as_secs());
        self.detail = status.health.failure().map(|failure| failure_and(failure, status.said.as_deref()));
        self.reason = status.health.failure().map(|failure| failure.as_str().to_owned());
    }
}

/// A failure, and what the token endpoint said of it.
pub(crate) fn failure_and(failure: Failure, said: Option<&str>) -> String {
    let said = said.filter(|_| matches!(failure, Failure::MintRefused(_)));
    said.map_or_else(|| failure.to_string(), |said| format!("{failure} (it says: {said})"))
}

/// The keys of the credentials of a policy, by name.
pub(crate) fn of(policy: &Policy) -> Vec<KeyListing> {
    let mut listed: Vec<KeyListing> = policy
        .credentials()
        .flat_map(|credential| credential.keys.iter().map(move |key| (credential, key)))
        .map(|(credential, key)| {
            let store = policy.store(key.from.store.as_str());
            let alias = key.alias.as_ref().map(ToString::to_string);
            KeyListing {
                name: credential.name.to_string(),
                weight: alias.is_some().then_some(key.weight),
                alias,
                secret: credential.reference(key),
                store_kind: store.map_or("", |store| kind(&store.kind)).to_owned(),
                inject: inject(&credential.inject),
                destinations: credential.destinations.iter().map(|d| d.name.to_string()).collect(),
                ..KeyListing::default()
            }
        })
        .collect();
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    listed
}

/// The kind of a store, as its resource names it.
pub(crate) const fn kind(kind: &StoreKind) -> &'static str {
    match kind {
        StoreKind::File { .. } => "file",
        StoreKind::Age { .. } => "age",
        StoreKind::Vault(_) => "vault",
        StoreKind::Aws(_) => "aws",
        StoreKind::Env { .. } => "env",
        StoreKind::Kubernetes => "kubernetes",
        StoreKind::Svid { .. } => "svid",
    }
}

/// How a secret is put on a call, as the resource names it.
pub(crate) fn inject(ways: &[Injection]) -> String {
    ways.iter().map(way).collect::<Vec<_>>().join(", ")
}

fn way(injection: &Injection) -> String {
    match &injection.way {
        Inject::Bearer => "bearer".to_owned(),
        Inject::Header { name, .. } => format!("header {name}"),
        Inject::Basic { .. } => "basic".to_owned(),
        Inject::Query { name } => format!("query {name}"),
        Inject::Cookie { name } => format!("cookie {name}"),
        Inject::SigV4(_) => "sigv4".to_owned(),
        Inject::Hmac(_) => "hmac".to_owned(),
        Inject::ClientCertificate { .. } => "client certificate".to_owned(),
    }
}
