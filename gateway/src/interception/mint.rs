//! The authority in force, and what it signs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::ServerConfig;
use tollgate_policy::target::Target;

use super::authority::CertificateAuthority;
use super::leaves::{self, Leaves, MintError};
use crate::expiry::{Dated, Purpose};

/// The setting that names the certificate of the authority.
pub(super) const CERTIFICATE: &str = "interception.caCertFile";

/// The authority in force, and the certificates that it has made.
#[derive(Debug)]
pub(crate) struct Interception {
    authority: ArcSwap<CertificateAuthority>,
    leaves: Mutex<Leaves>,
    /// One certificate is made at a time: those who wait for the same host find it made.
    making: tokio::sync::Mutex<()>,
    /// Shows nothing, so that a handshake with it ends with an alert.
    nothing: Arc<ServerConfig>,
}

impl Interception {
    pub(super) fn new(authority: CertificateAuthority) -> Result<Self, MintError> {
        Ok(Self {
            authority: ArcSwap::from_pointee(authority),
            leaves: Mutex::default(),
            making: tokio::sync::Mutex::default(),
            nothing: leaves::nothing()?,
        })
    }

    /// Whether the authority may sign for this host.
    pub(crate) fn permits(&self, target: &Target) -> bool {
        self.permits_name(&name_of(target))
    }

    /// The same for a host pattern.
    pub(crate) fn permits_name(&self, name: &str) -> bool {
        self.authority.load().permits(name)
    }

    /// How TLS is spoken as this host.
    ///
    /// # Errors
    /// What keeps its certificate from being made.
    pub(crate) async fn server(&self, target: &Target) -> Result<Arc<ServerConfig>, MintError> {
        let name = name_of(target);
        if let Some(config) = self.leaves().get(&name, Timestamp::now()) {
            return Ok(config);
        }
        let _turn = self.making.lock().await;
        if let Some(config) = self.leaves().get(&name, Timestamp::now()) {
            return Ok(config);
        }
        let authority = self.authority.load_full();
        let (made_for, signer) = (name.clone(), Arc::clone(&authority));
        // A signature by RSA takes milliseconds, which the core has others to serve in.
        let made = tokio::task::spawn_blocking(move || leaves::make(&signer, &made_for, Timestamp::now()));
        let leaf = made.await.map_err(|_| MintError::Ended)??;
        let config = leaf.config();
        tracing::debug!(name, "certificate made for tunnels");
        // A new authority may have come meanwhile, with which no certificate of the old one is kept.
        if Arc::ptr_eq(&authority, &self.authority.load()) {
            self.leaves().insert(name, leaf);
        }
        Ok(config)
    }

    /// How TLS is spoken with whoever is to be turned away.
    pub(crate) fn nothing(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.nothing)
    }

    /// When the authority ends.
    pub(crate) fn dated(&self) -> Dated {
        let authority = self.authority.load();
        Dated {
            purpose: Purpose::Interception,
            name: CERTIFICATE.to_owned(),
            title: authority.title.clone(),
            validity: authority.validity,
        }
    }

    /// Puts another authority in force.
    pub(super) fn replace(&self, authority: CertificateAuthority) {
        self.authority.store(Arc::new(authority));
        self.leaves().clear();
    }

    pub(super) fn leaves(&self) -> MutexGuard<'_, Leaves> {
        self.leaves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of the certificate for a host: the pattern of its destination that stands for it. Hosts of one wildcard share one certificate.
fn name_of(target: &Target) -> String {
    let hosts = &target.destination().hosts;
    let is_it =
        |wildcard| hosts.iter().find(|host| host.is_wildcard() == wildcard && host.matches(target.host()));
    is_it(false).or_else(|| is_it(true)).map_or_else(|| target.host().to_owned(), ToString::to_string)
}
