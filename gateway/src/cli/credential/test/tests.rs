use std::path::Path;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tollgate_policy::compile::compile_files;
use tollgate_policy::model::SourceFile;

use super::*;

const RESOURCES: &str = "apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {name: idp}
spec: {hosts: [idp.test]}
---
apiVersion: tollgate.dev/v1alpha1
kind: SecretStore
metadata: {name: files}
spec: {file: {root: .}}
---
apiVersion: tollgate.dev/v1alpha1
kind: Credential
metadata: {name: partner}
spec:
  destinations: [idp]
  from: {store: files, path: partner, fields: [chain, key]}
  inject: {clientCertificate: {certificate: chain, key: key}}
---
apiVersion: tollgate.dev/v1alpha1
kind: Credential
metadata: {name: minted}
spec:
  destinations: [idp]
  from: {store: files, path: client}
  mint: {endpoint: {destination: idp, path: /token}, clientCredentials: {clientId: a}}
  inject: {bearer: {}}
";

fn policy(directory: &Path) -> Policy {
    let file = SourceFile { path: directory.join("a.yaml"), text: RESOURCES.to_owned() };
    compile_files(&[file], &app::environment_of(&[], &[]).unwrap()).unwrap().policy
}

#[test]
fn every_failure_is_put_where_it_comes_up_and_helped() {
    for (failure, expected) in [
        (Failure::Unreachable("connection refused"), Step::Store),
        (Failure::Sealed, Step::Store),
        (Failure::File(std::io::ErrorKind::NotFound), Step::Store),
        (Failure::Login("the vault refuses the role id or the secret id"), Step::Login),
        (Failure::Decrypt, Step::Login),
        (Failure::NotFound, Step::Secret),
        (Failure::Denied, Step::Secret),
        (Failure::FieldMissing, Step::Value),
        (Failure::Malformed("it is empty"), Step::Value),
        (Failure::MintRefused("invalid_client"), Step::Mint),
        (Failure::MintNonsense("expires_in is 0"), Step::Mint),
    ] {
        assert_eq!(step(failure), expected, "{failure}");
        assert!(!help(failure).is_empty());
    }
}

#[test]
fn what_was_not_reached_is_not_said_to_be_good() {
    let report = TestReport {
        heading: "openai-prod: bao:llm/openai#api_key".into(),
        done: vec![(Step::Store, "https://bao:8200 answers".into())],
        version: None,
        comparable: true,
        destinations: vec!["api.openai.com".into()],
        failed: Some(Failed {
            step: Step::Login,
            what: Failure::Login("timed out").to_string(),
            help: "check it".into(),
        }),
    };
    assert_eq!(
        report.lines(),
        [
            "openai-prod: bao:llm/openai#api_key",
            "  ok      store    https://bao:8200 answers",
            "  FAILED  login    login failed: timed out",
            "          help     check it",
        ]
    );
    assert!(!report.is_good());
}

#[test]
fn what_a_token_endpoint_does_is_not_put_to_the_store() {
    let policy = policy(Path::new("/run/secrets"));
    let credential = policy.credentials().find(|credential| credential.mint.is_some()).unwrap();
    for failure in [
        Failure::Unreachable("connection refused"),
        Failure::Timeout,
        Failure::Tls("the certificate is for another name"),
        Failure::AddressRefused,
        Failure::Status(502),
    ] {
        let Failed { step, what, help } = failed((credential, &credential.keys[0]), failure, true);
        assert_eq!((step, what), (Step::Mint, format!("idp/token: {failure}")));
        assert!(help.contains("the Destination idp"), "{help}");
        assert!(
            !failed((credential, &credential.keys[0]), failure, false).help.contains("Destination"),
            "the endpoint was not asked"
        );
    }
}

#[test]
fn the_advice_is_about_what_the_token_endpoint_said() {
    for (failure, expected) in [
        (
            Failure::MintRefused("invalid_client; is the client's secret or key the one that is registered?"),
            "clientId",
        ),
        (Failure::MintRefused("invalid_scope"), "mint.scope"),
        (Failure::MintNonsense("there is no expires_in; say in `mint` what `lifetime` is right"), "lifetime"),
        (Failure::MintNonsense("expires_in is 0"), "whole number"),
        (Failure::MintNonsense("there is no access_token"), "token endpoint's"),
        (Failure::MintBusy("slow_down"), "wait"),
    ] {
        assert!(help(failure).contains(expected), "{failure}: {}", help(failure));
    }
    assert!(!help(Failure::MintRefused("invalid_client")).contains("lifetime"));
}

#[test]
fn a_field_that_is_not_there_is_named() {
    let said = |fields: &[&str]| missing(&fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>());
    assert_eq!(said(&["key"]), "the secret has no field `key`");
    assert_eq!(said(&["id", "key"]), "the secret does not have all of the fields id, key");
    assert!(said(&[]).contains("several fields or none"));
}

#[tokio::test]
async fn a_client_certificate_is_good_until_it_ends() {
    let directory = TempDir::new().unwrap();
    let key = KeyPair::generate().unwrap();
    let mut certificate = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    certificate.not_after = rcgen::date_time_ymd(2030, 1, 2);
    let chain = certificate.self_signed(&key).unwrap().pem();
    let text = serde_json::json!({"chain": chain, "key": key.serialize_pem()}).to_string();
    std::fs::write(directory.path().join("partner"), text).unwrap();
    let policy = policy(directory.path());
    let credential = policy.credentials().find(|credential| credential.mint.is_none()).unwrap();
    let secrets = Secrets::new(Handle::current(), Arc::new(|_| true));
    secrets.apply(&policy);
    let secret = secrets.get(credential, 0).await.unwrap();
    let at = |now: &str| form(credential, &secret, now.parse().unwrap()).map_err(|failed| failed.what);
    assert_eq!(
        at("2030-01-01T00:00:00Z"),
        Ok("chain and key belong together, until 2030-01-02T00:00:00Z".to_owned())
    );
    assert_eq!(at("2030-01-02T00:00:01Z"), Err("the certificate expired on 2030-01-02T00:00:00Z".to_owned()));
}
