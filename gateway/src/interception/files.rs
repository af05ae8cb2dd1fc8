//! The authority from its files, taken anew when their bytes change.
//!
//! **Invariant:** certificate and key are taken together or not at all, and only after two looks found the same; the last good ones sign
//! until the next good ones.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::authority::{CaMaterial, CertificateAuthority};
use super::mint::{CERTIFICATE, Interception};
use crate::stable_file::{Digest, WatchedFiles, digest};

/// The authority whose certificates callers trust, for what they send through a proxy.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InterceptionSettings {
    /// The PEM file with the certificate of the authority, followed by those that it was signed by, if any. `tollgate ca init` makes one.
    pub ca_cert_file: PathBuf,
    /// The PEM file with its key: PKCS#8, PKCS#1 or SEC1.
    pub ca_key_file: PathBuf,
}

const KEY: &str = "interception.caKeyFile";

/// Why the authority was not taken: which setting names the file, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {message}")]
pub(crate) struct CaError {
    pub(crate) field: &'static str,
    pub(crate) message: String,
}

/// The files of the authority, and what was taken of them.
#[derive(Debug)]
pub(crate) struct CaFiles {
    settings: InterceptionSettings,
    watched: WatchedFiles<CaError>,
    pub(crate) interception: Arc<Interception>,
}

struct CaPems {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl CaFiles {
    /// Reads them. Relative paths count from `base`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn load(settings: &InterceptionSettings, base: &Path) -> Result<Self, CaError> {
        let settings = InterceptionSettings {
            ca_cert_file: base.join(&settings.ca_cert_file),
            ca_key_file: base.join(&settings.ca_key_file),
        };
        let pems = CaPems::read(&settings)?;
        let authority = pems.authority(&settings)?;
        let interception = Interception::new(authority)
            .map_err(|error| CaError { field: CERTIFICATE, message: error.to_string() })?;
        let mut watched = WatchedFiles::new(pems.digest());
        watched.took(pems.digest());
        Ok(Self { settings, watched, interception: Arc::new(interception) })
    }

    /// Why what is there now is not in force.
    pub(crate) const fn fault(&self) -> Option<&CaError> {
        self.watched.fault.as_ref()
    }

    /// Takes what changed on disk; says whether something was taken.
    pub(crate) fn refresh(&mut self) -> bool {
        let pems = CaPems::read(&self.settings);
        let now = pems.as_ref().map_or_else(|error| Err(error.to_string()), CaPems::digest);
        if !self.watched.is_new(&now) {
            return false;
        }
        match pems.and_then(|pems| pems.authority(&self.settings)) {
            Ok(authority) => {
                self.interception.replace(authority);
                self.watched.took(now);
                true
            }
            Err(error) => {
                self.watched.fault = Some(error);
                false
            }
        }
    }
}

impl CaPems {
    fn read(settings: &InterceptionSettings) -> Result<Self, CaError> {
        let read = |file: &Path, field| {
            let failed = |error| CaError { field, message: format!("{}: {error}", file.display()) };
            std::fs::read(file).map_err(failed)
        };
        let certificate = read(&settings.ca_cert_file, CERTIFICATE)?;
        let key = Zeroizing::new(read(&settings.ca_key_file, KEY)?);
        Ok(Self { certificate, key })
    }

    fn digest(&self) -> Digest {
        Ok(digest(&[&self.certificate, &self.key]))
    }

    fn authority(&self, settings: &InterceptionSettings) -> Result<CertificateAuthority, CaError> {
        let (certificate, key) = (self.certificate.as_slice(), self.key.as_slice());
        let title = format!("{}: the authority", settings.ca_cert_file.display());
        CertificateAuthority::of(CaMaterial { certificate, key, title }).map_err(|unusable| {
            let (field, file) = match unusable.is_of_key() {
                true => (KEY, &settings.ca_key_file),
                false => (CERTIFICATE, &settings.ca_cert_file),
            };
            CaError { field, message: format!("{}: {unusable}", file.display()) }
        })
    }
}
