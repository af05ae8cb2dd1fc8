//! Files of the identity as they are looked at, and what may be wrong with them.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::bundle::Unfit;
use crate::stable_file::WatchedFiles;

/// Why a file, or what the Workload API says, was not taken: which setting names it, and what is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {fault}")]
pub(crate) struct FileError {
    pub(crate) field: String,
    pub(crate) fault: Fault,
}

/// What is wrong with a file, or with what the Workload API says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}: {1}")]
    Read(PathBuf, std::io::Error),
    #[error("{0}: no PEM certificate in it")]
    NoCertificate(PathBuf),
    #[error("{0}: no certificate in it may sign others: {1}")]
    NoAuthority(String, Unfit),
    #[error("{0}: no PEM private key in it")]
    NoKey(PathBuf),
    #[error("certFile {0} and keyFile {1} do not belong together")]
    Apart(PathBuf, PathBuf),
    #[error("{0}: {1}")]
    Unusable(String, String),
}

impl Fault {
    pub(super) fn at(self, field: impl Into<String>) -> FileError {
        FileError { field: field.into(), fault: self }
    }
}

/// Files of the identity that are taken together.
pub(super) type Watched = WatchedFiles<FileError>;

pub(super) fn read(file: &Path) -> Result<Vec<u8>, Fault> {
    std::fs::read(file).map_err(|error| Fault::Read(file.into(), error))
}

pub(super) fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(Fault::NoCertificate(file.into())),
    }
}
