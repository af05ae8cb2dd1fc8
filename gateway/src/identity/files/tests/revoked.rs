//! Certificates that their issuer has revoked.

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};

use super::*;

/// A revocation list of this issuer that names these serial numbers, and ends in so many seconds.
pub(super) fn list(issuer: &CertifiedIssuer<'static, KeyPair>, revoked: &[u64], ends_in: i64) -> String {
    list_naming(KeyIdMethod::Sha256, issuer, revoked, ends_in)
}

/// The same, with this for the identifier of its issuer's key.
pub(super) fn list_naming(
    key_identifier_method: KeyIdMethod,
    issuer: &CertifiedIssuer<'static, KeyPair>,
    revoked: &[u64],
    ends_in: i64,
) -> String {
    let at = |seconds: i64| {
        let now = Timestamp::now().as_second();
        let at = Duration::from_secs((now + seconds).unsigned_abs());
        (std::time::SystemTime::UNIX_EPOCH + at).into()
    };
    let revoked = revoked.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: at(-60),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: at(-60),
        next_update: at(ends_in),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method,
    };
    params.signed_by(issuer).unwrap().pem().unwrap()
}

/// A leaf of `prod.acme` with this serial number.
pub(super) fn leaf(issuer: &CertifiedIssuer<'static, KeyPair>, serial: u64) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI("spiffe://prod.acme/ns/a/sa/b".try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.serial_number = Some(SerialNumber::from(serial));
    params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
}

fn intermediate(
    issuer: &CertifiedIssuer<'static, KeyPair>,
    serial: u64,
) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "intermediate");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(SerialNumber::from(serial));
    CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), issuer).unwrap()
}

impl Disk {
    /// With revocation lists of `prod.acme` in `prod.crl`.
    fn load_revoking(&self) -> Result<IdentityFiles, FileError> {
        let certificate = CertificateFiles { cert_file: "own.crt".into(), key_file: "own.key".into() };
        let prod = TrustDomainSettings { crl_file: Some("prod.crl".into()), ..bundle_file("prod.acme.pem") };
        let domains = [("prod.acme".parse().unwrap(), prod)].into();
        IdentityFiles::load(settings(Some(certificate), domains), self.folder.path(), HomeCluster::default())
    }
}

fn verdict_of(files: &IdentityFiles, chain: &[&CertificateDer<'static>]) -> Result<(), Refusal> {
    let chain: Vec<_> = chain.iter().map(|one| (*one).clone()).collect();
    files.trust.verify(&chain, UnixTime::now()).map(drop)
}

#[test]
fn a_revoked_leaf_or_issuer_is_refused_as_soon_as_a_list_says_so() {
    let disk = Disk::new();
    let root = &disk.prod.issuer;
    let below = intermediate(root, 7);
    let (good, bad, deep) = (leaf(root, 2), leaf(root, 3), leaf(&below, 4));
    disk.write("prod.crl", &list(root, &[], 3600));
    let mut files = disk.load_revoking().unwrap();
    let verdicts = |files: &IdentityFiles| {
        [vec![&good], vec![&bad], vec![&deep, below.der()]].map(|chain| verdict_of(files, &chain))
    };
    assert_eq!(verdicts(&files), [Ok(()), Ok(()), Ok(())]);
    let generation = files.trust.generation();
    disk.write("prod.crl", &list(root, &[3, 7], 3600));
    assert_eq!(refresh(&mut files), ["trust bundle of prod.acme"]);
    assert!(files.trust.generation() > generation, "connections verify again");
    assert_eq!(verdicts(&files), [Ok(()), Err(Refusal::Revoked), Err(Refusal::Revoked)]);
    // A leaf of an issuer below the root is on that one's list.
    disk.write("prod.crl", &(list(root, &[3], 3600) + &list(&below, &[4], 3600) + &below.pem()));
    assert_eq!(refresh(&mut files), ["trust bundle of prod.acme"]);
    assert_eq!(verdicts(&files), [Ok(()), Err(Refusal::Revoked), Err(Refusal::Revoked)]);
    disk.write("prod.crl", &(list(root, &[3], 3600) + &list(&below, &[5], 3600) + &below.pem()));
    assert_eq!(refresh(&mut files), ["trust bundle of prod.acme"]);
    assert_eq!(verdicts(&files), [Ok(()), Err(Refusal::Revoked), Ok(())]);
}

#[test]
fn a_list_that_ended_refuses_whoever_its_issuer_has_certified() {
    let disk = Disk::new();
    let root = &disk.prod.issuer;
    let one = leaf(root, 2);
    disk.write("prod.crl", &list(root, &[3], -1));
    let mut files = disk.load_revoking().unwrap();
    assert_eq!(verdict_of(&files, &[&one]), Err(Refusal::RevocationListEnded));
    let said = files.remarks(&[], Timestamp::now());
    let said: Vec<_> =
        said.iter().filter(|(field, _)| field == "identity.trustDomains.prod.acme.crlFile").collect();
    assert!(said.len() == 1 && said[0].1.contains("whoever its issuer has certified is refused"), "{said:?}");
    disk.write("prod.crl", &list(root, &[3], 3600));
    refresh(&mut files);
    let proven = files.trust.verify(&[one], UnixTime::now()).unwrap();
    let ends = Timestamp::now().as_second() + 3600;
    assert!(proven.expires().as_second() <= ends, "a connection is proven until the next list is due");
}

#[test]
fn what_was_verified_before_a_list_ended_is_what_would_be_found_after_it() {
    let disk = Disk::new();
    let root = &disk.prod.issuer;
    let one = [leaf(root, 2)];
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() + seconds));
    for lists in [[100, 3600], [3600, 100]] {
        disk.write("prod.crl", &lists.map(|ends_in| list(root, &[], ends_in)).concat());
        let asked_before = disk.load_revoking().unwrap();
        assert!(asked_before.trust.verify(&one, at(0)).is_ok());
        for later in [50, 200, 4000] {
            let verdict = |files: &IdentityFiles| files.trust.verify(&one, at(later)).map(drop);
            assert_eq!(verdict(&asked_before), verdict(&disk.load_revoking().unwrap()), "{lists:?} {later}");
        }
        assert_eq!(asked_before.trust.verify(&one, at(4000)).map(drop), Err(Refusal::RevocationListEnded));
    }
}

#[test]
fn a_list_that_is_foreign_unsigned_or_none_is_refused_with_its_file_and_the_last_good_one_counts() {
    let disk = Disk::new();
    let root = &disk.prod.issuer;
    let bad = leaf(root, 3);
    disk.write("prod.crl", &list(root, &[3], 3600));
    let mut files = disk.load_revoking().unwrap();
    let mut unsigned = pem_bytes(&list(root, &[], 3600));
    *unsigned.last_mut().unwrap() ^= 1;
    let same_name = Domain::new("prod.acme").issuer;
    let below = intermediate(root, 7);
    for (text, problem) in [
        (list(&disk.partner_named("other").issuer, &[], 3600), "another issuer"),
        (list(&below, &[], 3600), "another issuer"),
        (pem_of(&unsigned), "not signed by its issuer"),
        (list(&same_name, &[], 3600), "another issuer"),
        (disk.prod.issuer.pem(), "no PEM revocation list"),
        (pem_of(b"nonsense"), "cannot be read"),
    ] {
        disk.write("prod.crl", &text);
        assert!(refresh(&mut files).is_empty(), "{problem}");
        let fault = files.faults().map(ToString::to_string).next().unwrap();
        assert!(
            fault.starts_with("identity.trustDomains.prod.acme.crlFile: ") && fault.contains("/prod.crl"),
            "{fault}"
        );
        assert!(fault.contains(problem), "{fault}");
        assert_eq!(verdict_of(&files, &[&bad]), Err(Refusal::Revoked));
    }
    assert_eq!(disk.load_revoking().unwrap_err().field, "identity.trustDomains.prod.acme.crlFile");
}

impl Disk {
    fn partner_named(&self, name: &str) -> Domain {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Domain { name: self.partner.name, issuer }
    }
}

pub(super) fn pem_bytes(pem: &str) -> Vec<u8> {
    rustls::pki_types::CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).unwrap().as_ref().to_vec()
}

fn pem_of(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN X509 CRL-----\n{text}\n-----END X509 CRL-----\n")
}

#[test]
fn while_a_root_changes_the_list_of_one_says_nothing_of_what_another_of_its_name_has_certified() {
    let disk = Disk::new();
    let (old, new) = (&disk.prod.issuer, Domain::new("prod.acme").issuer);
    for both in [old.pem() + &new.pem(), new.pem() + &old.pem()] {
        disk.write("prod.acme.pem", &both);
        disk.write("prod.crl", &list(old, &[3], 3600));
        let files = disk.load_revoking().unwrap();
        assert_eq!(verdict_of(&files, &[&leaf(old, 3)]), Err(Refusal::Revoked));
        assert_eq!(verdict_of(&files, &[&leaf(old, 2)]), Ok(()));
        assert_eq!(verdict_of(&files, &[&leaf(&new, 3)]), Ok(()));
    }
}

#[test]
fn a_root_that_another_root_vouches_for_does_not_hide_whom_its_own_list_names() {
    let disk = Disk::new();
    let (old, new) = (&disk.prod.issuer, Domain::new("prod.acme"));
    // What changes the roots of a domain that is in use: the old one's name and key, certified by the new one.
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let mut issuer_params = CertificateParams::default();
    issuer_params.distinguished_name.push(rcgen::DnType::CommonName, "new root");
    issuer_params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    issuer_params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let successor = CertifiedIssuer::self_signed(issuer_params, new.issuer.key()).unwrap();
    let crossed = params.signed_by(old.key(), &successor).unwrap().der().clone();
    for both in [old.pem() + &successor.pem(), successor.pem() + &old.pem()] {
        disk.write("prod.acme.pem", &both);
        disk.write("prod.crl", &list(old, &[3], 3600));
        let files = disk.load_revoking().unwrap();
        assert_eq!(verdict_of(&files, &[&leaf(old, 2), &crossed]), Ok(()));
        assert_eq!(verdict_of(&files, &[&leaf(old, 3), &crossed]), Err(Refusal::Revoked));
        assert_eq!(verdict_of(&files, &[&leaf(old, 3)]), Err(Refusal::Revoked));
    }
}
