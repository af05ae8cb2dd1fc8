use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CidrSubnet, DnType, GeneralSubtree, IsCa, KeyPair,
    KeyUsagePurpose, NameConstraints,
};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use tollgate_policy::consent::Consents;
use tollgate_policy::model::SourceFile;
use tollgate_policy::target::Target;

use super::*;
use crate::app;
use crate::snapshot::Snapshot;

/// An authority for `up.test` and what is below `many.test`, as PEM.
fn pem(
    algorithm: &'static rcgen::SignatureAlgorithm,
    name: &str,
) -> (String, String, CertificateDer<'static>) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: ["up.test", "many.test"]
            .map(|host| GeneralSubtree::DnsName(host.to_owned()))
            .into(),
        excluded_subtrees: vec![GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4]))],
    });
    let key = KeyPair::generate_for(algorithm).unwrap();
    let pem = key.serialize_pem();
    let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
    (issuer.pem(), pem, issuer.der().clone())
}

fn write(
    directory: &Path,
    (certificate, key, _): &(String, String, CertificateDer<'static>),
) -> InterceptionSettings {
    fs::write(directory.join("ca.pem"), certificate).unwrap();
    fs::write(directory.join("ca.key"), key).unwrap();
    InterceptionSettings { ca_cert_file: "ca.pem".into(), ca_key_file: "ca.key".into() }
}

fn target(host: &str) -> Target {
    let text = "apiVersion: tollgate.dev/v1alpha1\nkind: Destination\nmetadata: {name: up}\n\
                spec: {hosts: [up.test, '*.many.test', exact.many.test, other.test, 192.0.2.1]}\n";
    let environment = app::environment_of(&[], &["prod.acme".to_owned()]).unwrap();
    let file = SourceFile { path: "a.yaml".into(), text: text.to_owned() };
    let snapshot = Snapshot::build((&[file], &Consents::default()), &environment, None).unwrap().0;
    snapshot.policy.target(host, 443).unwrap()
}

/// The certificate that a client which trusts `root` is shown as `host`.
fn shown(
    config: &Arc<ServerConfig>,
    root: &CertificateDer<'static>,
    host: &str,
) -> Result<Vec<u8>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let client = client.with_root_certificates(roots).with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from(host.to_owned()).unwrap())?;
    let mut server = ServerConnection::new(Arc::clone(config))?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut bytes.as_slice()).unwrap();
        server.process_new_packets()?;
        bytes.clear();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut bytes.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(client.peer_certificates().unwrap()[0].to_vec())
}

#[tokio::test]
async fn a_certificate_of_any_kind_of_authority_is_taken_by_who_trusts_it_and_is_kept() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let directory = tempfile::tempdir().unwrap();
        let made = pem(algorithm, "one");
        let files = CaFiles::load(&write(directory.path(), &made), directory.path()).unwrap();
        let up = target("up.test");
        let config = files.interception.server(&up).await.unwrap();
        let first = shown(&config, &made.2, "up.test").unwrap();
        assert!(shown(&config, &made.2, "many.test").is_err(), "it is for one host");
        let again = files.interception.server(&up).await.unwrap();
        assert_eq!(shown(&again, &made.2, "up.test").unwrap(), first);
        let (_, read) = x509_parser::parse_x509_certificate(&first).unwrap();
        let lifetime = read.validity().not_after.timestamp() - read.validity().not_before.timestamp();
        assert!(lifetime <= 25 * 3600, "{lifetime}");
        assert!(!read.is_ca());
    }
}

#[tokio::test]
async fn random_names_under_a_wildcard_share_one_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let made = pem(&rcgen::PKCS_ECDSA_P256_SHA256, "one");
    let files = CaFiles::load(&write(directory.path(), &made), directory.path()).unwrap();
    let mut seen = HashSet::new();
    for at in 0..50 {
        let host = format!("r{at}.many.test");
        let config = files.interception.server(&target(&host)).await.unwrap();
        seen.insert(shown(&config, &made.2, &host).unwrap());
    }
    assert_eq!((seen.len(), files.interception.leaves().len()), (1, 1));
    let config = files.interception.server(&target("exact.many.test")).await.unwrap();
    assert!(seen.insert(shown(&config, &made.2, "exact.many.test").unwrap()), "an exact host has its own");
}

#[tokio::test]
async fn no_more_certificates_are_kept_than_there_is_room_for_and_the_oldest_goes_first() {
    let directory = tempfile::tempdir().unwrap();
    let made = pem(&rcgen::PKCS_ECDSA_P256_SHA256, "one");
    let files = CaFiles::load(&write(directory.path(), &made), directory.path()).unwrap();
    *files.interception.leaves() = leaves::Leaves::with_most(2);
    let certificate = async |host: &str| {
        let config = files.interception.server(&target(host)).await.unwrap();
        shown(&config, &made.2, host).unwrap()
    };
    let (first, second) = (certificate("up.test").await, certificate("a.many.test").await);
    assert_eq!((certificate("up.test").await, files.interception.leaves().len()), (first.clone(), 2));
    certificate("exact.many.test").await;
    assert_eq!(files.interception.leaves().len(), 2);
    assert_eq!(certificate("a.many.test").await, second, "it was kept");
    assert_ne!(certificate("up.test").await, first, "it was the oldest, and is made anew");
    assert_eq!(files.interception.leaves().len(), 2);
}

#[test]
fn what_the_name_constraints_forbid_is_known_before_a_program_finds_out() {
    let directory = tempfile::tempdir().unwrap();
    let made = pem(&rcgen::PKCS_ECDSA_P256_SHA256, "one");
    let files = CaFiles::load(&write(directory.path(), &made), directory.path()).unwrap();
    for (host, is_permitted) in [
        ("up.test", true),
        ("a.many.test", true),
        ("exact.many.test", true),
        ("other.test", false),
        ("192.0.2.1", false),
    ] {
        assert_eq!(files.interception.permits(&target(host)), is_permitted, "{host}");
    }
}

#[tokio::test]
async fn a_new_authority_is_taken_whole_and_signs_from_then_on() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (pem(&rcgen::PKCS_ECDSA_P256_SHA256, "one"), pem(&rcgen::PKCS_ECDSA_P256_SHA256, "two"));
    let mut files = CaFiles::load(&write(directory.path(), &one), directory.path()).unwrap();
    let up = target("up.test");
    assert!(shown(&files.interception.server(&up).await.unwrap(), &one.2, "up.test").is_ok());
    fs::write(directory.path().join("ca.pem"), &two.0).unwrap();
    assert!(!files.refresh() && !files.refresh());
    let fault = files.fault().unwrap().to_string();
    assert!(
        fault.starts_with("interception.caKeyFile: ") && fault.contains("the key is not the certificate's"),
        "{fault}"
    );
    assert!(shown(&files.interception.server(&up).await.unwrap(), &one.2, "up.test").is_ok());
    fs::write(directory.path().join("ca.key"), &two.1).unwrap();
    assert!(!files.refresh() && files.refresh());
    assert!(files.fault().is_none());
    assert!(shown(&files.interception.server(&up).await.unwrap(), &two.2, "up.test").is_ok());
}

#[test]
fn what_is_no_authority_is_refused_and_its_file_named() {
    let directory = tempfile::tempdir().unwrap();
    let made = pem(&rcgen::PKCS_ECDSA_P256_SHA256, "one");
    let settings = write(directory.path(), &made);
    let refused = || CaFiles::load(&settings, directory.path()).unwrap_err().to_string();
    fs::write(directory.path().join("ca.key"), "no key").unwrap();
    assert!(
        refused().contains("interception.caKeyFile") && refused().contains("no PEM private key"),
        "{}",
        refused()
    );
    fs::write(directory.path().join("ca.pem"), "nothing").unwrap();
    assert!(
        refused().contains("interception.caCertFile") && refused().contains("no PEM certificate"),
        "{}",
        refused()
    );
    let leaf = rcgen::generate_simple_self_signed(["up.test".to_owned()]).unwrap();
    fs::write(directory.path().join("ca.pem"), leaf.cert.pem()).unwrap();
    fs::write(directory.path().join("ca.key"), leaf.signing_key.serialize_pem()).unwrap();
    assert!(refused().contains("is no authority"), "{}", refused());
    fs::remove_file(directory.path().join("ca.key")).unwrap();
    assert!(refused().contains("ca.key: No such file"), "{}", refused());
}
