//! OpenBao and HashiCorp Vault: the KV engine in both versions, and what engines make on demand. `vaultrs` knows the
//! endpoints of KV and tokens; requests are sent, bounded and read here, so that its own logging and error types never
//! see a body.
//!
//! **Invariant:** a value of an engine is used no longer than its lease runs, and the lease is given back.
//!
//! Deliberately lacks: writing secrets to the vault.

mod answer;
pub(super) mod client;
mod lease;
mod login;
mod session;

use std::sync::Arc;

use tollgate_policy::policy::{KvVersion, VaultStore};
use vaultrs::api::kv1::requests::GetSecretRequest;
use vaultrs::api::kv2::requests::ReadSecretRequest;

use self::client::{Client, Question};
pub(crate) use self::lease::Lease;
use self::lease::Leases;
use self::session::Session;
use super::Fetched;
use crate::dial::Dialable;
use crate::error::Failure;
use crate::read::downward;
use crate::reference::Reference;
use crate::svid::SvidSource;

pub(super) struct Vault {
    mount: String,
    kv: KvVersion,
    client: Arc<Client>,
    session: Arc<Session>,
    leases: Arc<Leases>,
}

impl Vault {
    pub(super) fn new(definition: &VaultStore, dialable: Dialable, svids: SvidSource) -> Self {
        let client = Arc::new(Client::new(definition, dialable));
        let session = Arc::new(Session::new(definition.auth.clone(), Arc::clone(&client), svids));
        let leases = Arc::new(Leases::new(Arc::clone(&client), Arc::clone(&session)));
        Self { mount: definition.mount.clone(), kv: definition.kv, client, session, leases }
    }

    /// The field of a secret: at the pinned version, the current one, or as an engine makes it.
    pub(super) async fn fetch(&self, reference: &Reference) -> Result<Fetched, Failure> {
        let secret = &reference.secret;
        downward(&secret.path)?;
        let fields = &secret.fields;
        if secret.dynamic {
            let lease = self.leases.fetch(&secret.path).await?;
            return Ok(Fetched {
                value: lease.fields(fields)?,
                version: None,
                lease: Some(lease),
                expires: None,
            });
        }
        let answer = self.session.ask(&self.question(reference)?).await?.1;
        match (answer.status, self.kv) {
            (200, KvVersion::V2) => answer::secret(&answer.body, fields),
            (200, KvVersion::V1) => answer::unversioned(&answer.body, fields),
            (404, KvVersion::V1) if answer.mentions("versioned K/V") => {
                Err(Failure::Misconfigured("the mount is version 2 of the KV engine: `kvVersion: 2`"))
            }
            (404, _) => Err(Failure::NotFound),
            (503, _) => Err(Failure::Sealed),
            (status, _) => Err(Failure::Status(status)),
        }
    }

    /// Somebody says that a login that was refused may be shown again.
    pub(super) fn open(&self) {
        self.session.open();
    }

    /// Whether there are leases that were not given back yet.
    pub(super) fn lends(&self) -> bool {
        self.leases.any_open()
    }

    /// Gives back every lease, and the login.
    pub(super) async fn close(&self) {
        self.leases.close().await;
        self.session.end().await;
    }

    fn question(&self, reference: &Reference) -> Result<Question, Failure> {
        let (mount, path) = (self.mount.as_str(), reference.secret.path.as_str());
        match self.kv {
            KvVersion::V1 => {
                let endpoint = GetSecretRequest::builder().mount(mount).path(path).build();
                Question::new(&self.client, &endpoint.map_err(|_| Failure::Internal)?)
            }
            KvVersion::V2 => {
                let endpoint = ReadSecretRequest::builder()
                    .mount(mount)
                    .path(path)
                    .version(reference.secret.version)
                    .build();
                Question::new(&self.client, &endpoint.map_err(|_| Failure::Internal)?)
            }
        }
    }
}
