use rcgen::{CertificateParams, KeyPair, KeyUsagePurpose, SanType};

use super::message::{X509Svid, X509SvidResponse};
use super::*;

/// An SVID as the API says it, of an authority of its own.
fn svid(id: &str) -> X509Svid {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().der().to_vec();
    X509Svid {
        spiffe_id: id.to_owned(),
        x509_svid: certificate.clone(),
        x509_svid_key: key.serialize_der(),
        bundle: certificate,
    }
}

fn read(svids: Vec<X509Svid>, federated: &[(&str, Vec<u8>)]) -> Result<X509Context, String> {
    let federated_bundles = federated.iter().map(|(name, der)| ((*name).to_owned(), der.clone())).collect();
    X509Context::read(X509SvidResponse { svids, crl: Vec::new(), federated_bundles })
}

#[test]
fn of_several_svids_the_first_is_the_gateways_own() {
    let (first, second) = (svid("spiffe://prod.acme/a"), svid("spiffe://other.acme/b"));
    let context = read(vec![first, second], &[]).unwrap();
    assert_eq!(context.svid.id.as_str(), "spiffe://prod.acme/a");
    let domains: Vec<_> = context.bundles.keys().map(ToString::to_string).collect();
    assert_eq!(domains, ["other.acme", "prod.acme"]);
}

#[test]
fn the_revocation_lists_of_an_answer_are_kept_as_they_are() {
    let crl = vec![b"one".to_vec(), b"two".to_vec()];
    let message = X509SvidResponse {
        svids: vec![svid("spiffe://prod.acme/a")],
        crl: crl.clone(),
        ..X509SvidResponse::default()
    };
    assert_eq!(X509Context::read(message).unwrap().lists, crl);
}

#[test]
fn a_bundle_that_cannot_be_read_is_its_own_domains_fault() {
    let own = svid("spiffe://prod.acme/a");
    let two = [svid("spiffe://x.acme/a").bundle.clone(), svid("spiffe://x.acme/b").bundle.clone()].concat();
    let forged = svid("spiffe://prod.acme/forged").bundle.clone();
    let federated = [
        ("spiffe://good.example", two),
        ("spiffe://bad.example", b"none".to_vec()),
        ("spiffe://prod.acme", forged.clone()),
        ("no name", forged),
    ];
    let expected = own.bundle.clone();
    let context = read(vec![own], &federated).unwrap();
    let of = |name: &str| &context.bundles[&name.parse().unwrap()];
    assert_eq!(of("good.example").as_ref().map(Vec::len), Ok(2));
    assert!(of("bad.example").is_err());
    assert_eq!(
        of("prod.acme").as_ref().unwrap()[0].as_ref(),
        expected,
        "nobody federated speaks for the own domain"
    );
    assert_eq!(context.bundles.len(), 3);
}

#[test]
fn an_svid_that_is_not_whole_is_not_taken() {
    let good = || svid("spiffe://prod.acme/a");
    type Change = fn(&mut X509Svid);
    let broken: [(Change, &str); 4] = [
        (|svid| svid.spiffe_id = "spiffe://prod.acme/b".to_owned(), "another SPIFFE id"),
        (|svid| svid.x509_svid_key = KeyPair::generate().unwrap().serialize_der(), "keys"),
        (|svid| svid.x509_svid.truncate(40), ""),
        (|svid| svid.x509_svid.clear(), "no certificate"),
    ];
    for (change, problem) in broken {
        let mut svid = good();
        change(&mut svid);
        let error = read(vec![svid], &[]).unwrap_err();
        assert!(error.to_lowercase().contains(&problem.to_lowercase()), "{error}");
    }
    assert_eq!(read(Vec::new(), &[]).unwrap_err(), "it says no SVID");
}

#[test]
fn what_is_printed_of_an_svid_has_no_key_in_it() {
    let response =
        X509SvidResponse { svids: vec![svid("spiffe://prod.acme/a")], ..X509SvidResponse::default() };
    let key = format!("{:?}", &response.svids[0].x509_svid_key[..8]);
    let key = key.trim_matches(['[', ']']).to_owned();
    assert!(!format!("{response:?}").contains(&key));
}
