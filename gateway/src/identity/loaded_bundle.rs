//! The bundle of one trust domain, from its file or from the Workload API, with what its authorities have revoked.
//!
//! **Invariant:** it is taken whole, revocation lists and all, or not at all, and until the next good one the last good one serves. A bundle
//! that the Workload API says no more trusts nobody. A list of the API that nobody's authorities have signed may be the next one of any
//! domain: until it is known whose it is, the lists before count on.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tollgate_policy::caller::TrustDomain;

use super::bundle::{Bundle, Unfit};
use super::revocation::{self, RevocationList};
use super::settings::{TrustDomainSettings, bundle_field, list_field};
use super::watched::{Fault, FileError, Watched, certificates, read};
use super::workload_api::{ApiBundle, X509Context};
use crate::stable_file::{Digest, digest};

/// For people.
const API: &str = "the Workload API";

/// The bundle of one trust domain, as it was taken.
#[derive(Debug)]
pub(super) struct LoadedBundle {
    domain: TrustDomain,
    pub(super) bundle: Arc<Bundle>,
    /// What was left out of it.
    pub(super) unfit: Vec<Unfit>,
    settings: TrustDomainSettings,
    watched: Watched,
    /// The files as they settled.
    files: SettledFiles,
    said: SaidBundle,
    /// The lists of the Workload API that are in force, in DER.
    in_force: Vec<Vec<u8>>,
    /// Why what the Workload API says is not in force.
    said_fault: Option<FileError>,
    /// Why it is in force but for a list.
    list_fault: Option<FileError>,
}

/// The bytes of a bundle's files.
#[derive(Debug, Default)]
struct SettledFiles {
    authorities: Vec<u8>,
    lists: Vec<u8>,
}

/// What the Workload API said last of a trust domain.
#[derive(Debug, Default, PartialEq, Eq)]
struct SaidBundle {
    authorities: Option<ApiBundle>,
    lists: Vec<SaidList>,
}

/// A revocation list of the Workload API, which says of none whose it is.
#[derive(Debug, PartialEq, Eq)]
struct SaidList {
    der: Vec<u8>,
    /// Whether an authority of another trust domain has signed it.
    is_of_another: bool,
}

/// What is to be taken.
#[derive(Debug, Default)]
struct Made {
    bundle: Bundle,
    unfit: Vec<Unfit>,
    in_force: Vec<Vec<u8>>,
    list_fault: Option<FileError>,
}

impl LoadedBundle {
    /// With what the files say now: at the start there is no last good one to wait with. Where the bundle is the Workload API's, nobody is
    /// trusted before that says something.
    pub(super) fn new(domain: TrustDomain, settings: TrustDomainSettings) -> Self {
        let mut loaded = Self {
            domain,
            bundle: Arc::default(),
            unfit: Vec::new(),
            settings,
            watched: Watched::new(Ok(Vec::new())),
            files: SettledFiles::default(),
            said: SaidBundle::default(),
            in_force: Vec::new(),
            said_fault: None,
            list_fault: None,
        };
        let files = loaded.read();
        let digest = digest_of(&files);
        loaded.watched = Watched::new(digest.clone());
        loaded.take_files(files, digest);
        loaded
    }

    /// Why what there is now is not in force.
    pub(super) fn fault(&self) -> Option<&FileError> {
        self.watched.fault.as_ref().or(self.said_fault.as_ref()).or(self.list_fault.as_ref())
    }

    pub(super) fn take_fault(&mut self) -> Option<FileError> {
        self.watched.fault.take().or_else(|| self.said_fault.take())
    }

    pub(super) const fn is_of_file(&self) -> bool {
        self.settings.bundle_file.is_some()
    }

    /// Where its certificates are, for people.
    pub(super) fn place(&self) -> String {
        self.settings.bundle_file.as_ref().map_or_else(|| API.to_owned(), |file| file.display().to_string())
    }

    /// Where its revocation lists are, for people.
    pub(super) fn list_place(&self) -> String {
        self.settings.crl_file.as_ref().map_or_else(|| API.to_owned(), |file| file.display().to_string())
    }

    /// The settings that name its files.
    pub(super) fn fields(&self) -> impl Iterator<Item = String> {
        let list = self.settings.crl_file.as_ref().map(|_| list_field(&self.domain));
        std::iter::once(bundle_field(&self.domain)).chain(list)
    }

    /// Whether another bundle was taken of its files.
    pub(super) fn refresh(&mut self) -> bool {
        let files = self.read();
        let digest = digest_of(&files);
        self.watched.is_new(&digest) && self.take_files(files, digest)
    }

    fn read(&self) -> Result<SettledFiles, FileError> {
        let of = |file: &Option<PathBuf>, field: fn(&TrustDomain) -> String| match file {
            Some(file) => read(file).map_err(|fault| fault.at(field(&self.domain))),
            None => Ok(Vec::new()),
        };
        let TrustDomainSettings { bundle_file, crl_file } = &self.settings;
        Ok(SettledFiles { authorities: of(bundle_file, bundle_field)?, lists: of(crl_file, list_field)? })
    }

    fn take_files(&mut self, files: Result<SettledFiles, FileError>, digest: Digest) -> bool {
        match files.and_then(|files| Ok((self.made(&files, &self.said)?, files))) {
            Ok((made, files)) => {
                self.files = files;
                self.watched.took(digest);
                // Else nothing was said of it yet.
                made.is_some_and(|made| self.take(made))
            }
            Err(error) => {
                self.watched.fault = Some(error);
                false
            }
        }
    }

    /// Whether another bundle was taken of what the Workload API says.
    pub(super) fn take_said(&mut self, context: &X509Context) -> bool {
        let authorities = match self.settings.bundle_file {
            Some(_) => None,
            None => context.bundles.get(&self.domain).cloned(),
        };
        let lists = context.lists.iter().enumerate().map(|(index, der)| {
            let mut others = context.bundles.iter().filter(|(domain, _)| **domain != self.domain);
            let has_signed = |said: &ApiBundle| {
                said.as_ref().is_ok_and(|others| RevocationList::read(index, der, others).is_ok())
            };
            SaidList { der: der.clone(), is_of_another: others.any(|(_, said)| has_signed(said)) }
        });
        let said = SaidBundle { authorities, lists: lists.collect() };
        if self.said == said && self.said_fault.is_none() {
            return false;
        }
        match self.made(&self.files, &said) {
            Ok(Some(made)) => {
                (self.said, self.said_fault) = (said, None);
                self.take(made)
            }
            Ok(None) => {
                let fault =
                    "it says no bundle of this trust domain: federate the entry of this process with it"
                        .to_owned();
                self.said_fault = Some(Fault::Unusable(API.to_owned(), fault).at(bundle_field(&self.domain)));
                // Whoever is federated no more is trusted no more.
                let was_trusted = self.said.authorities.is_some();
                self.said = SaidBundle::default();
                was_trusted && self.take(Made::default())
            }
            Err(error) => {
                self.said_fault = Some(error);
                false
            }
        }
    }

    fn take(&mut self, made: Made) -> bool {
        (self.bundle, self.unfit) = (Arc::new(made.bundle), made.unfit);
        (self.in_force, self.list_fault) = (made.in_force, made.list_fault);
        true
    }

    /// The bundle that files and API make together; `None` where the API has said no authorities.
    fn made(&self, files: &SettledFiles, said: &SaidBundle) -> Result<Option<Made>, FileError> {
        let at_bundle = |fault: Fault| fault.at(bundle_field(&self.domain));
        let mut authorities = match (&self.settings.bundle_file, &said.authorities) {
            (Some(_), _) if is_hollow(&files.authorities) => Vec::new(),
            (Some(file), _) => certificates(file, &files.authorities).map_err(at_bundle)?,
            (None, None) => return Ok(None),
            (None, Some(said)) => {
                said.clone().map_err(|problem| at_bundle(Fault::Unusable(API.to_owned(), problem)))?
            }
        };
        let (bundle, mut unfit) =
            Bundle::of(&authorities).map_err(|error| at_bundle(Fault::Unusable(self.place(), error)))?;
        if bundle.roots().is_empty() && !unfit.is_empty() {
            return Err(at_bundle(Fault::NoAuthority(self.place(), unfit.swap_remove(0))));
        }
        let mut lists = self.written_lists(files, &mut authorities)?;
        let mut made = Made { unfit, ..Made::default() };
        self.add_said_lists(&mut lists, &mut made, said, &authorities);
        made.bundle = bundle.revoking(lists);
        Ok(Some(made))
    }

    /// The lists of the file, whose issuers are added to `authorities`.
    fn written_lists(
        &self,
        files: &SettledFiles,
        authorities: &mut Vec<CertificateDer<'static>>,
    ) -> Result<Vec<RevocationList>, FileError> {
        let Some(file) = &self.settings.crl_file else { return Ok(Vec::new()) };
        let wrong = |problem: String| {
            Fault::Unusable(file.display().to_string(), problem).at(list_field(&self.domain))
        };
        let (written, issuers) = revocation::parts(&files.lists)
            .ok_or_else(|| wrong("no PEM revocation list (X509 CRL) in it".to_owned()))?;
        authorities.extend(issuers);
        let read = written.iter().enumerate().map(|(index, der)| {
            RevocationList::read(index, der, authorities).map_err(|fault| wrong(fault.to_string()))
        });
        read.collect()
    }

    /// Adds those of the Workload API, and those that were in force before where one may be the next of them and cannot be verified.
    fn add_said_lists(
        &self,
        lists: &mut Vec<RevocationList>,
        made: &mut Made,
        said: &SaidBundle,
        authorities: &[CertificateDer<'_>],
    ) {
        for (index, SaidList { der, is_of_another }) in said.lists.iter().enumerate() {
            match RevocationList::read(index, der, authorities) {
                Ok(list) => {
                    lists.push(list);
                    made.in_force.push(der.clone());
                }
                Err(_) if *is_of_another => {}
                Err(fault) => {
                    let problem = format!("{fault}: it is left out, and the lists before count on");
                    let fault = Fault::Unusable(API.to_owned(), problem);
                    made.list_fault = Some(fault.at(bundle_field(&self.domain)));
                }
            }
        }
        if made.list_fault.is_none() {
            return;
        }
        let is_said = |der: &&Vec<u8>| said.lists.iter().any(|said| said.der == **der);
        for (index, der) in self.in_force.iter().filter(|der| !is_said(der)).enumerate() {
            // One whose authority is gone says nothing of whom the others certify.
            let Ok(list) = RevocationList::read(index, der, authorities) else { continue };
            if !lists.iter().any(|next| next.replaces(&list)) {
                lists.push(list);
                made.in_force.push(der.clone());
            }
        }
    }
}

fn digest_of(files: &Result<SettledFiles, FileError>) -> Digest {
    let digest = |files: &SettledFiles| digest(&[&files.authorities, &files.lists]);
    files.as_ref().map(digest).map_err(ToString::to_string)
}

/// Whether there is nothing but white space, and comments as bundles have them.
fn is_hollow(pem: &[u8]) -> bool {
    pem.split(|byte| *byte == b'\n').all(|line| matches!(line.trim_ascii_start(), [] | [b'#', ..]))
}
