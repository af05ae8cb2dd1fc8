mod revoked;
mod said;

use std::fs;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CertifiedKey, IsCa, KeyPair, KeyUsagePurpose,
    SanType, generate_simple_self_signed,
};
use rustls::pki_types::UnixTime;
use tempfile::TempDir;

use super::super::refusal::Refusal;
use super::super::settings::TrustDomainSettings;
use super::*;

/// A trust domain with its root.
struct Domain {
    name: &'static str,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Domain {
    fn new(name: &'static str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self { name, issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn leaf(&self) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::default();
        let id = format!("spiffe://{}/ns/a/sa/b", self.name);
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

/// The files of a gateway of `prod.acme` that is federated with `partner.example`.
struct Disk {
    folder: TempDir,
    prod: Domain,
    partner: Domain,
}

impl Disk {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let disk = Self { folder, prod: Domain::new("prod.acme"), partner: Domain::new("partner.example") };
        disk.write("prod.acme.pem", &disk.prod.issuer.pem());
        disk.write("partner.example.pem", &disk.partner.issuer.pem());
        disk.rotate();
        disk
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// Writes another certificate of its own.
    fn rotate(&self) {
        let (certificate, key) = self.prod.leaf();
        self.write("own.crt", &certificate.pem());
        self.write("own.key", &key.serialize_pem());
    }

    fn load(&self) -> Result<IdentityFiles, FileError> {
        let certificate = CertificateFiles { cert_file: "own.crt".into(), key_file: "own.key".into() };
        let bundle =
            |domain: &Domain| (domain.name.parse().unwrap(), bundle_file(&format!("{}.pem", domain.name)));
        let trust_domains = [&self.prod, &self.partner].map(bundle).into();
        let settings = settings(Some(certificate), trust_domains);
        IdentityFiles::load(settings, self.folder.path(), HomeCluster::default())
    }
}

fn bundle_file(name: &str) -> TrustDomainSettings {
    TrustDomainSettings { bundle_file: Some(name.into()), crl_file: None }
}

fn settings(
    certificate: Option<CertificateFiles>,
    trust_domains: BTreeMap<TrustDomain, TrustDomainSettings>,
) -> IdentitySettings {
    let workload_api =
        certificate.is_none().then(|| serde_json::from_str("\"unix:///run/api.sock\"").unwrap());
    IdentitySettings {
        workload_api,
        certificate,
        trust_domains,
        tokens: Vec::new(),
        clock_skew: Duration::ZERO,
    }
}

fn verdict(files: &IdentityFiles, domain: &Domain) -> Result<(), Refusal> {
    files.trust.verify(&[domain.leaf().0.der().clone()], UnixTime::now()).map(drop)
}

/// The settings whose files are not in force.
fn refused(files: &IdentityFiles) -> Vec<String> {
    let all = files.standing().all();
    assert_eq!(all.len(), 4);
    all.iter().filter(|(_, stands)| !stands).map(|(setting, _)| setting.clone()).collect()
}

/// What two looks take.
fn refresh(files: &mut IdentityFiles) -> Vec<String> {
    assert!(files.refresh().is_empty(), "it may be being written");
    files.refresh()
}

const PARTNERS: &str = "identity.trustDomains.partner.example.bundleFile";

#[test]
fn a_partners_broken_bundle_holds_up_neither_our_certificate_nor_our_revocations() {
    let disk = Disk::new();
    let mut files = disk.load().unwrap();
    assert_eq!((verdict(&files, &disk.prod), verdict(&files, &disk.partner)), (Ok(()), Ok(())));
    for broken in [Some("no certificate"), Some("-----BEGIN CERTIFICATE-----\nAAAA\n"), None] {
        match broken {
            Some(text) => disk.write("partner.example.pem", text),
            None => fs::remove_file(disk.folder.path().join("partner.example.pem")).unwrap(),
        }
        disk.rotate();
        assert_eq!(refresh(&mut files), ["certificate"]);
        assert_eq!(refused(&files), [PARTNERS]);
        assert_eq!(files.faults().count(), 1);
        assert_eq!(verdict(&files, &disk.partner), Ok(()), "the last good one serves");
    }
    disk.write("prod.acme.pem", &Domain::new("prod.acme").issuer.pem());
    assert_eq!(refresh(&mut files), ["trust bundle of prod.acme"]);
    assert_eq!(verdict(&files, &disk.prod), Err(Refusal::UnknownIssuer));
    let next = Domain::new("partner.example");
    disk.write("partner.example.pem", &next.issuer.pem());
    assert_eq!(refresh(&mut files), ["trust bundle of partner.example"]);
    assert_eq!((verdict(&files, &next), refused(&files).len()), (Ok(()), 0));
}

#[test]
fn our_own_broken_certificate_holds_up_no_revocation() {
    let disk = Disk::new();
    let mut files = disk.load().unwrap();
    disk.write("own.crt", "");
    disk.write("prod.acme.pem", &Domain::new("prod.acme").issuer.pem());
    assert_eq!(refresh(&mut files), ["trust bundle of prod.acme"]);
    assert_eq!(refused(&files), [CERTIFICATE]);
    assert_eq!(verdict(&files, &disk.prod), Err(Refusal::UnknownIssuer));
}

#[test]
fn an_emptied_bundle_trusts_nobody_once_it_was_found_empty_twice() {
    let disk = Disk::new();
    for empty in ["", " \n\n", "# nobody\n"] {
        disk.write("partner.example.pem", &disk.partner.issuer.pem());
        let mut files = disk.load().unwrap();
        disk.write("partner.example.pem", empty);
        assert!(files.refresh().is_empty(), "it may be being written");
        assert_eq!(verdict(&files, &disk.partner), Ok(()));
        assert_eq!(files.refresh(), ["trust bundle of partner.example, which trusts nobody,"]);
        assert_eq!(verdict(&files, &disk.partner), Err(Refusal::UnknownIssuer));
        assert_eq!((verdict(&files, &disk.prod), refused(&files).len()), (Ok(()), 0));
        assert!(files.refresh().is_empty());
        disk.write("partner.example.pem", &disk.partner.issuer.pem());
        assert_eq!(refresh(&mut files), ["trust bundle of partner.example"]);
        assert_eq!(verdict(&files, &disk.partner), Ok(()));
    }
    disk.write("partner.example.pem", "");
    let files = disk.load().unwrap();
    assert_eq!(verdict(&files, &disk.partner), Err(Refusal::UnknownIssuer));
}

#[test]
fn at_the_start_a_partners_broken_bundle_trusts_nobody_and_our_own_is_an_error() {
    let disk = Disk::new();
    disk.write("partner.example.pem", "no certificate");
    let mut files = disk.load().unwrap();
    assert_eq!(refused(&files), [PARTNERS]);
    assert_eq!(verdict(&files, &disk.partner), Err(Refusal::UnknownIssuer));
    assert_eq!(verdict(&files, &disk.prod), Ok(()));
    assert!(files.refresh().is_empty());
    assert_eq!(refused(&files), [PARTNERS]);
    disk.write("partner.example.pem", &disk.partner.issuer.pem());
    assert_eq!(refresh(&mut files), ["trust bundle of partner.example"]);
    assert_eq!((verdict(&files, &disk.partner), refused(&files).len()), (Ok(()), 0));
    disk.write("prod.acme.pem", "no certificate");
    assert_eq!(disk.load().unwrap_err().field, "identity.trustDomains.prod.acme.bundleFile");
}

#[test]
fn a_file_that_is_not_taken_is_named_with_its_setting() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["tollgate".into()]).unwrap();
        fs::write(directory.path().join(format!("{name}.crt")), cert.pem()).unwrap();
        fs::write(directory.path().join(format!("{name}.key")), signing_key.serialize_pem()).unwrap();
    }
    let load = |cert: &str, key: &str, bundle: &str| {
        let certificate = CertificateFiles { cert_file: cert.into(), key_file: key.into() };
        let trust_domains = BTreeMap::from([("prod.acme".parse().unwrap(), bundle_file(bundle))]);
        let settings = settings(Some(certificate), trust_domains);
        let loaded = IdentityFiles::load(settings, directory.path(), HomeCluster::default());
        let base = format!("{}/", directory.path().display());
        loaded.map(drop).map_err(|error| error.to_string().replace(&base, ""))
    };
    fs::write(directory.path().join("ca.crt"), Domain::new("prod.acme").issuer.pem()).unwrap();
    load("a.crt", "a.key", "ca.crt").unwrap();
    for (files, said) in [
        (("a.crt", "b.key", "a.crt"), "keyFile: certFile a.crt and keyFile b.key do not belong together"),
        (("a.crt", "c.key", "a.crt"), "keyFile: c.key: No such file"),
        (("c.crt", "a.key", "a.crt"), "certFile: c.crt: No such file"),
        (("a.crt", "a.crt", "a.crt"), "keyFile: a.crt: no PEM private key in it"),
        (("a.key", "a.key", "a.crt"), "certFile: a.key: no PEM certificate in it"),
    ] {
        let error = load(files.0, files.1, files.2).unwrap_err();
        assert!(error.starts_with(&format!("identity.certificate.{said}")), "{error}");
    }
    let error = load("a.crt", "a.key", "a.key").unwrap_err();
    assert_eq!(error, "identity.trustDomains.prod.acme.bundleFile: a.key: no PEM certificate in it");
    let error = load("a.crt", "a.key", "b.crt").unwrap_err();
    assert!(
        error.starts_with("identity.trustDomains.prod.acme.bundleFile: b.crt: no certificate in it may sign others: certificate 1 (")
            && error.contains("is no certificate authority"),
        "{error}"
    );
}

#[test]
fn a_bundle_that_is_cut_between_two_roots_or_emptied_for_a_moment_is_not_taken() {
    let disk = Disk::new();
    let mut files = disk.load().unwrap();
    let next = Domain::new("partner.example");
    let both = disk.partner.issuer.pem() + &next.issuer.pem();
    disk.write("partner.example.pem", &both);
    assert_eq!(refresh(&mut files), ["trust bundle of partner.example"]);
    for cut in [disk.partner.issuer.pem(), String::new(), "-----BEGIN CERTIFICATE-----".to_owned()] {
        disk.write("partner.example.pem", &cut);
        assert!(files.refresh().is_empty());
        disk.write("partner.example.pem", &both);
        assert!(files.refresh().is_empty() && files.refresh().is_empty());
        assert_eq!((verdict(&files, &disk.partner), verdict(&files, &next)), (Ok(()), Ok(())));
        assert!(refused(&files).is_empty());
    }
}

#[test]
fn our_chain_that_is_cut_for_a_moment_is_not_taken() {
    let disk = Disk::new();
    let whole = fs::read_to_string(disk.folder.path().join("own.crt")).unwrap() + &disk.prod.issuer.pem();
    disk.write("own.crt", &whole);
    let mut files = disk.load().unwrap();
    let length = |files: &IdentityFiles| files.certificate.0.load().as_ref().unwrap().cert.len();
    disk.write("own.crt", whole.split_inclusive("-----END CERTIFICATE-----").next().unwrap());
    assert!(files.refresh().is_empty());
    disk.write("own.crt", &whole);
    assert!(files.refresh().is_empty() && files.refresh().is_empty());
    assert_eq!(length(&files), 2);
}

/// A certificate that is `edit`ed, as a bundle has it.
fn root(edit: impl FnOnce(&mut CertificateParams)) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    edit(&mut params);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[test]
fn what_may_not_sign_is_left_out_of_a_bundle_and_named() {
    let disk = Disk::new();
    let leaf = root(|params| params.is_ca = IsCa::ExplicitNoCa);
    let plain = root(|params| params.is_ca = IsCa::NoCa);
    let signs_no_certificates = root(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let of_any_use = root(|params| params.key_usages = Vec::new());
    let all = [&disk.partner.issuer, &leaf, &plain, &signs_no_certificates, &of_any_use];
    disk.write("partner.example.pem", &all.map(|one| one.pem()).concat());
    let files = disk.load().unwrap();
    let said = files.remarks(&[], Timestamp::now());
    let of_bundle: Vec<_> = said.iter().filter(|(field, _)| field == PARTNERS).collect();
    let places: Vec<_> = of_bundle.iter().map(|(_, said)| said.contains("keyCertSign")).collect();
    assert_eq!(places, [false, false, true], "{said:?}");
    assert!(
        of_bundle[0].1.contains("certificate 2 (") && of_bundle[0].1.ends_with("it is left out"),
        "{said:?}"
    );
    assert_eq!(files.bundles[&"partner.example".parse().unwrap()].bundle.roots().len(), 2);
    assert_eq!(verdict(&files, &disk.partner), Ok(()));
    // The same certificate is a leaf that proves itself, where it counts as a root.
    for unfit in [&leaf, &signs_no_certificates] {
        let forged = Domain { name: "partner.example", issuer: unfit_issuer(unfit) };
        assert_eq!(verdict(&files, &forged), Err(Refusal::UnknownIssuer));
    }
}

fn unfit_issuer(of: &CertifiedIssuer<'static, KeyPair>) -> CertifiedIssuer<'static, KeyPair> {
    let key = KeyPair::from_pem(&of.key().serialize_pem()).unwrap();
    CertifiedIssuer::self_signed(CertificateParams::default(), key).unwrap()
}

#[test]
fn what_is_out_of_date_ends_soon_or_lacks_a_name_is_said() {
    let disk = Disk::new();
    let dated = |begins: i64, ends: i64| {
        let at = |second: i64| std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(second.unsigned_abs());
        let now = Timestamp::now().as_second();
        root(|params| {
            params.not_before = at(now + begins).into();
            params.not_after = at(now + ends).into();
        })
    };
    let hour = 3600;
    let roots = [dated(-hour, -60), dated(hour, 2 * hour), dated(-24 * hour, hour), dated(-hour, 24 * hour)];
    disk.write("partner.example.pem", &roots.map(|one| one.pem()).concat());
    let files = disk.load().unwrap();
    let names: Vec<GatewayName> = ["tollgate:8443", "10.0.0.1"].map(|name| name.parse().unwrap()).into();
    let said = files.remarks(&names, Timestamp::now());
    let has =
        |field: &str, word: &str| said.iter().filter(|(at, said)| at == field && said.contains(word)).count();
    assert_eq!(
        ["expired on", "not valid before", "ends soon"].map(|word| has(PARTNERS, word)),
        [1, 1, 1],
        "{said:?}"
    );
    assert_eq!(
        [has(CERTIFICATE, "not for `tollgate`"), has(CERTIFICATE, "not for `10.0.0.1`")],
        [1, 1],
        "{said:?}"
    );
    assert_eq!(said.len(), 5, "{said:?}");
    let dated = files.standing().dated();
    assert_eq!(dated.iter().filter(|dated| dated.name == "partner.example").count(), 4);
    assert_eq!(dated[0].purpose, Purpose::Own);
}
