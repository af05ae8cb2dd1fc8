//! Files of the identity as they are looked at, and what may be wrong with them.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::bundle::Unfit;
use crate::stable_file::{Look, StableFile};

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

/// Files that are taken together.
#[derive(Debug)]
pub(super) struct Watched {
    settle: StableFile<Digest>,
    /// As they were when they were taken; `None` where they never were.
    in_force: Option<Digest>,
    /// Why what is there now is not in force.
    pub(super) fault: Option<FileError>,
}

/// Tells files from what they were; what the system says where they cannot be read.
pub(super) type Digest = Result<Vec<u8>, String>;

impl Watched {
    pub(super) const fn new(taken: Digest) -> Self {
        Self { settle: StableFile::new(Some(taken)), in_force: None, fault: None }
    }

    /// Whether files that are now like this are to be taken.
    pub(super) fn is_new(&mut self, now: &Digest) -> bool {
        if self.settle.look(now.clone()) != Look::Settled {
            return false;
        }
        let is_old = self.in_force.as_ref() == Some(now);
        if is_old {
            self.fault = None;
        }
        !is_old
    }

    pub(super) fn took(&mut self, now: Digest) {
        (self.in_force, self.fault) = (Some(now), None);
    }
}

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

pub(super) fn digest(parts: &[&[u8]]) -> Vec<u8> {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref().to_vec()
}
