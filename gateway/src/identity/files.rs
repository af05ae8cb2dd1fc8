//! The own certificate and the trust bundles: from files, taken anew when their bytes change, or as the Workload API says them.
//!
//! **Invariant:** the own certificate with its key, and the bundle of each trust domain, are taken each for itself and
//! each whole or not at all, and of files only after two looks found the same; the last good one serves until the next good one. So what a
//! partner's file holds decides on the partner's callers alone. A bundle without certificates is a good one: nobody of its domain is
//! trusted. One in which nothing may sign is none.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use rustls::Error;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::runtime::Handle;
use tollgate_policy::caller::{SpiffeId, TrustDomain};
use tollgate_policy::compile::HomeCluster;
use tollgate_policy::target::GatewayName;
use tollgate_secrets::OwnSvids;
use zeroize::Zeroizing;

use super::bundle::{Bundle, Root};
use super::loaded_bundle::LoadedBundle;
use super::own_svids::SvidOrigin;
use super::settings::{CertificateFiles, IdentitySettings, bundle_field};
use super::tokens::TokenIssuers;
use super::trust::{Trust, spiffe_id};
use super::watched::{Fault, FileError, Watched, certificates, read};
use super::workload_api::{WorkloadSocket, X509Feed, X509State, follow_jwt};
use crate::expiry::{Dated, Purpose, Validity};
use crate::stable_file::{Digest, digest};

const CERTIFICATE: &str = "identity.certificate.certFile";
const KEY: &str = "identity.certificate.keyFile";
const WORKLOAD_API: &str = "identity.workloadApi";

/// The identity in force: what TLS presents, and whom it trusts.
#[derive(Debug)]
pub(crate) struct IdentityFiles {
    settings: IdentitySettings,
    certificate: Arc<OwnCertificate>,
    own: OwnOrigin,
    pub(crate) trust: Arc<Trust>,
    bundles: BTreeMap<TrustDomain, LoadedBundle>,
    api: Option<X509Feed>,
    standing: Arc<FilesInForce>,
}

/// Where the own certificate comes from.
#[derive(Debug)]
enum OwnOrigin {
    Files(CertificateFiles, Box<Watched>),
    WorkloadApi,
}

/// The settings that name the files, whether each is in force as it is on disk, and when what is in force ends.
#[derive(Debug, Default)]
pub(crate) struct FilesInForce {
    files: ArcSwap<Vec<(String, bool)>>,
    dated: ArcSwap<Vec<Dated>>,
    /// Where the own certificate is an SVID of the Workload API.
    svid: ArcSwapOption<SvidStanding>,
}

/// How the own SVID does.
#[derive(Debug)]
struct SvidStanding {
    socket: WorkloadSocket,
    /// When it ends; `None`: there is none yet.
    ends: Option<Timestamp>,
    fault: Option<Arc<str>>,
}

impl FilesInForce {
    /// The settings in a fixed order.
    pub(crate) fn all(&self) -> Arc<Vec<(String, bool)>> {
        self.files.load_full()
    }

    /// The own certificate, and the roots of all bundles.
    pub(crate) fn dated(&self) -> Arc<Vec<Dated>> {
        self.dated.load_full()
    }

    /// Why nobody can connect at `now`, for want of an SVID.
    pub(crate) fn unready(&self, now: Timestamp) -> Option<String> {
        let svid = self.svid.load();
        let SvidStanding { socket, ends, fault } = svid.as_deref()?;
        let why = fault.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        match ends {
            None => Some(format!("the Workload API at {socket} has said no SVID yet{why}")),
            Some(ends) if *ends <= now => {
                Some(format!("the SVID ended at {ends}, and the Workload API at {socket} says no other{why}"))
            }
            Some(_) => None,
        }
    }
}

impl IdentityFiles {
    /// Reads everything. Relative paths count from `base`; `home` is where one workload has two names. A bundle that cannot be used is an error where it is of the
    /// gateway's own trust domain, or where none can be used; of any other domain nobody is trusted until it can.
    pub(crate) fn load(
        settings: IdentitySettings,
        base: &Path,
        home: HomeCluster,
    ) -> Result<Self, FileError> {
        let settings = settings.based(base);
        let (own, key) = match &settings.certificate {
            Some(files) => {
                let pems = Pems::read(files)?;
                let key = pems.certified(files)?;
                let mut watched = Watched::new(pems.digest());
                watched.took(pems.digest());
                (OwnOrigin::Files(files.clone(), Box::new(watched)), Some(Arc::new(key)))
            }
            None => (OwnOrigin::WorkloadApi, None),
        };
        let id = key.as_ref().and_then(|key| spiffe_id(key.cert.first()?).ok());
        let bundles = load_bundles(&settings, id.as_ref())?;
        let tokens = TokenIssuers::new(&settings.tokens, base, settings.clock_skew, home);
        let trust = Trust::with_tokens(domains(&bundles), settings.clock_skew, tokens);
        let certificate = Arc::new(OwnCertificate(ArcSwapOption::new(key)));
        let api = settings.x509_socket().cloned().map(X509Feed::new);
        let files = Self { certificate, trust, own, bundles, api, standing: Arc::default(), settings };
        files.stand();
        Ok(files)
    }

    /// Follows the Workload API on `control`, where something is wanted of it. What comes is taken by [`IdentityFiles::take_said`].
    pub(crate) fn follow(&mut self, control: &Handle) {
        if let Some(api) = &mut self.api {
            api.follow(control);
        }
        if let Some(socket) = self.settings.workload_api.clone()
            && self.trust.tokens().ask_workload_api()
        {
            let trust = Arc::clone(&self.trust);
            control.spawn(follow_jwt(socket, move |said| trust.tokens().take_said(said)));
        }
    }

    /// Who makes SVIDs of the gateway's own for others than its listeners.
    pub(crate) fn own_svids(&self) -> Arc<dyn OwnSvids> {
        let IdentitySettings { workload_api, certificate, .. } = &self.settings;
        Arc::new(SvidOrigin::new(workload_api.clone(), certificate.clone()))
    }

    /// Ready when the Workload API has said something else, or is gone.
    pub(crate) async fn changed(&mut self) {
        match &mut self.api {
            Some(api) => api.changed().await,
            None => std::future::pending().await,
        }
    }

    /// What the TLS listeners present.
    pub(crate) fn certificate(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::<OwnCertificate>::clone(&self.certificate)
    }

    /// Which files are in force, kept up to date.
    pub(crate) fn standing(&self) -> Arc<FilesInForce> {
        Arc::clone(&self.standing)
    }

    /// What is not in force as it is on disk or as the Workload API says it, and why.
    pub(crate) fn faults(&self) -> impl Iterator<Item = &FileError> {
        let own = match &self.own {
            OwnOrigin::Files(_, watched) => watched.fault.as_ref(),
            OwnOrigin::WorkloadApi => None,
        };
        own.into_iter().chain(self.bundles.values().filter_map(LoadedBundle::fault))
    }

    /// What is in force and will not do, by the setting that names it. `names`: those that callers use.
    pub(crate) fn remarks(&self, names: &[GatewayName], now: Timestamp) -> Vec<(String, String)> {
        let mut remarks = Vec::new();
        let (field, place) = self.own_place();
        if let Some(key) = &*self.certificate.0.load() {
            for name in unnamed(&key.cert, names) {
                let message = format!(
                    "{place}: the certificate is not for `{name}`, which is one of `names`: who calls it by that name refuses the gateway"
                );
                remarks.push((field.to_owned(), message));
            }
        }
        for (domain, taken) in &self.bundles {
            let place = taken.place();
            remarks
                .extend(taken.unfit.iter().map(|unfit| (bundle_field(domain), format!("{place}: {unfit}"))));
        }
        for dated in self.standing.dated().iter() {
            let field = match dated.purpose {
                Purpose::Bundle => format!("identity.trustDomains.{}.bundleFile", dated.name),
                Purpose::RevocationList => format!("identity.trustDomains.{}.crlFile", dated.name),
                // It is made anew when half of its life is over; where it is not, the log says why.
                _ if field == WORKLOAD_API => continue,
                _ => field.to_owned(),
            };
            remarks.extend(dated.warning(now, self.settings.clock_skew).map(|warning| (field, warning)));
        }
        remarks
    }

    /// The setting that says where the own certificate is, and that place, for people.
    fn own_place(&self) -> (&'static str, String) {
        match &self.own {
            OwnOrigin::Files(files, _) => (CERTIFICATE, files.cert_file.display().to_string()),
            OwnOrigin::WorkloadApi => (WORKLOAD_API, "the Workload API".to_owned()),
        }
    }

    /// Takes what changed on disk; says which parts were taken.
    pub(crate) fn refresh(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        if self.refresh_own() {
            said.push("certificate".to_owned());
        }
        self.take_bundles(&mut said, LoadedBundle::refresh);
        self.stand();
        said
    }

    fn refresh_own(&mut self) -> bool {
        let OwnOrigin::Files(files, own) = &mut self.own else { return false };
        let pems = Pems::read(files);
        let digest = pems.as_ref().map_or_else(|error| Err(error.to_string()), Pems::digest);
        if !own.is_new(&digest) {
            return false;
        }
        match pems.and_then(|pems| pems.certified(files)) {
            Ok(key) => {
                self.certificate.0.store(Some(Arc::new(key)));
                own.took(digest);
                true
            }
            Err(error) => {
                own.fault = Some(error);
                false
            }
        }
    }

    /// Takes what the Workload API says now; says which parts were taken.
    pub(crate) fn take_said(&mut self) -> Vec<String> {
        let mut taken = Vec::new();
        let state = self.api.as_mut().map(X509Feed::now).unwrap_or_default();
        if let Some(context) = &state.said {
            let svid = &context.svid;
            let is_new = |old: Option<&Arc<CertifiedKey>>| old.is_none_or(|old| !Arc::ptr_eq(old, &svid.key));
            if matches!(self.own, OwnOrigin::WorkloadApi) && is_new(self.certificate.0.load().as_ref()) {
                self.certificate.0.store(Some(Arc::clone(&svid.key)));
                let ends = Validity::of_chain(&svid.key.cert)
                    .map(|validity| format!(", which ends at {}", validity.ends));
                taken.push(format!("SVID {}{}", svid.id, ends.unwrap_or_default()));
            }
            self.take_bundles(&mut taken, |loaded| loaded.take_said(context));
        }
        self.stand_with(state);
        taken
    }

    /// Takes bundles anew where `take` says so.
    fn take_bundles(&mut self, said: &mut Vec<String>, mut take: impl FnMut(&mut LoadedBundle) -> bool) {
        let before = said.len();
        for (domain, loaded) in &mut self.bundles {
            if take(loaded) {
                let nobody = if loaded.bundle.roots().is_empty() { ", which trusts nobody," } else { "" };
                said.push(format!("trust bundle of {domain}{nobody}"));
            }
        }
        if said.len() > before {
            self.trust.replace(domains(&self.bundles));
        }
    }

    fn stand(&self) {
        let state = self.api.as_ref().map(X509Feed::peek).unwrap_or_default();
        self.stand_with(state);
    }

    fn stand_with(&self, state: X509State) {
        let own: &[&str] = match &self.own {
            OwnOrigin::Files(..) => &[CERTIFICATE, KEY],
            OwnOrigin::WorkloadApi => &[],
        };
        let api = self.api.as_ref().map(|_| WORKLOAD_API);
        let bundles = self.bundles.values().flat_map(LoadedBundle::fields);
        let fields = own.iter().copied().chain(api).map(str::to_owned).chain(bundles);
        let stands = |field: &String| {
            let is_heard = field != WORKLOAD_API || (state.said.is_some() && state.fault.is_none());
            is_heard && !self.faults().any(|error| error.field == *field)
        };
        let all = fields.map(|field| {
            let stands = stands(&field);
            (field, stands)
        });
        self.standing.files.store(Arc::new(all.collect()));
        self.standing.dated.store(Arc::new(self.dated()));
        if let (OwnOrigin::WorkloadApi, Some(api)) = (&self.own, &self.api) {
            let key = self.certificate.0.load();
            let ends =
                key.as_ref().and_then(|key| Validity::of_chain(&key.cert)).map(|validity| validity.ends);
            let svid = SvidStanding { socket: api.socket.clone(), ends, fault: state.fault };
            self.standing.svid.store(Some(Arc::new(svid)));
        }
    }

    fn dated(&self) -> Vec<Dated> {
        let mut dated = Vec::new();
        let (field, place) = self.own_place();
        let key = self.certificate.0.load();
        if let Some(validity) = key.as_ref().and_then(|key| Validity::of_chain(&key.cert)) {
            let (name, title) = (field.to_owned(), format!("{place}: the certificate"));
            dated.push(Dated { purpose: Purpose::Own, name, title, validity });
        }
        for (domain, taken) in &self.bundles {
            for Root { validity, title, .. } in taken.bundle.roots() {
                let title = format!("{}: {title}", taken.place());
                let name = domain.to_string();
                dated.push(Dated { purpose: Purpose::Bundle, name, title, validity: *validity });
            }
            dated.extend(taken.bundle.revocations().iter().map(|list| Dated {
                purpose: Purpose::RevocationList,
                name: domain.to_string(),
                title: format!("{}: {}", taken.list_place(), list.title),
                validity: list.validity(),
            }));
        }
        dated
    }
}

/// Those in files are read. `own` is who the gateway is, where that is known.
fn load_bundles(
    settings: &IdentitySettings,
    own: Option<&SpiffeId>,
) -> Result<BTreeMap<TrustDomain, LoadedBundle>, FileError> {
    let mut bundles = BTreeMap::new();
    for (domain, from) in &settings.trust_domains {
        let mut loaded = LoadedBundle::new(domain.clone(), from.clone());
        if own.is_some_and(|id| id.trust_domain() == domain)
            && let Some(error) = loaded.take_fault()
        {
            return Err(error);
        }
        bundles.insert(domain.clone(), loaded);
    }
    if bundles.values().all(|loaded| loaded.is_of_file() && loaded.fault().is_some())
        && let Some(error) = bundles.values_mut().rev().find_map(LoadedBundle::take_fault)
    {
        return Err(error);
    }
    Ok(bundles)
}

#[derive(Debug)]
struct OwnCertificate(ArcSwapOption<CertifiedKey>);

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

/// The own certificate's files.
struct Pems {
    chain: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Pems {
    fn read(files: &CertificateFiles) -> Result<Self, FileError> {
        let chain = read(&files.cert_file).map_err(|fault| fault.at(CERTIFICATE))?;
        let key = Zeroizing::new(read(&files.key_file).map_err(|fault| fault.at(KEY))?);
        Ok(Self { chain, key })
    }

    fn digest(&self) -> Digest {
        Ok(digest(&[&self.chain, &self.key]))
    }

    /// The key with its chain. The key's bytes are not kept.
    fn certified(&self, files: &CertificateFiles) -> Result<CertifiedKey, FileError> {
        let CertificateFiles { cert_file, key_file } = files;
        let chain = certificates(cert_file, &self.chain).map_err(|fault| fault.at(CERTIFICATE))?;
        let key =
            PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| Fault::NoKey(key_file.clone()).at(KEY))?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            Error::InconsistentKeys(_) => Fault::Apart(cert_file.clone(), key_file.clone()).at(KEY),
            Error::InvalidCertificate(_) => {
                Fault::Unusable(cert_file.display().to_string(), error.to_string()).at(CERTIFICATE)
            }
            error => Fault::Unusable(key_file.display().to_string(), error.to_string()).at(KEY),
        })
    }
}

/// The names that a certificate is not for.
fn unnamed<'a>(chain: &[CertificateDer<'_>], names: &'a [GatewayName]) -> Vec<&'a str> {
    let Some(leaf) = chain.first().and_then(|leaf| webpki::EndEntityCert::try_from(leaf).ok()) else {
        return Vec::new();
    };
    let is_for = |host: &str| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        ServerName::try_from(bare).is_ok_and(|name| leaf.verify_is_valid_for_subject_name(&name).is_ok())
    };
    names.iter().map(GatewayName::host).filter(|host| !is_for(host)).collect()
}

fn domains(bundles: &BTreeMap<TrustDomain, LoadedBundle>) -> HashMap<TrustDomain, Arc<Bundle>> {
    bundles.iter().map(|(domain, taken)| (domain.clone(), Arc::clone(&taken.bundle))).collect()
}

#[cfg(test)]
mod tests;
