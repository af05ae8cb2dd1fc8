use std::path::Path;

use tempfile::TempDir;
use tokio::runtime::Handle;
use tollgate_policy::compile::compile_files;
use tollgate_policy::model::SourceFile;
use tollgate_policy::policy::Policy;
use tollgate_secrets::Secrets;

use super::*;
use crate::app;
use crate::key_health::tests::KeyFixture;

const RESOURCES: &str = "apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {name: up}
spec: {hosts: [api.up.test]}
---
apiVersion: tollgate.dev/v1alpha1
kind: SecretStore
metadata: {name: files}
spec: {file: {root: .}}
---
apiVersion: tollgate.dev/v1alpha1
kind: Credential
metadata: {name: up}
spec: {destinations: [up], from: {store: files, path: key}, inject: {bearer: {}}}
";

fn policy(directory: &Path) -> Policy {
    let file = SourceFile { path: directory.join("a.yaml"), text: RESOURCES.to_owned() };
    compile_files(&[file], &app::environment_of(&[], &[]).unwrap()).unwrap().policy
}

fn value(parts: &[PreparedPart]) -> &[u8] {
    match parts {
        [PreparedPart::Header(_, value)] => value.as_bytes(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_version_that_is_in_force_no_longer_is_forgotten_though_no_call_asks() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("key"), "the-first-version").unwrap();
    let policy = policy(directory.path());
    let credential = Arc::clone(policy.credentials().next().unwrap());
    let secrets = Secrets::new(Handle::current(), Arc::new(|_| true));
    secrets.apply(&policy);
    let prepared = InjectionCache::default();
    let kept = || prepared.entries.lock().unwrap().len();
    let chosen = |secret: &Arc<Secret>| SelectedKey { key: 0, alias: None, secret: Arc::clone(secret) };
    let first = secrets.get(&credential, 0).await.unwrap();
    assert!(prepared.parts(&credential, &chosen(&first)).is_some());
    prepared.retain(|credential, key| secrets.peek(credential, key));
    assert_eq!(kept(), 1, "it is in force");
    std::fs::write(directory.path().join("key"), "the-second-version").unwrap();
    let second = secrets.rejected(&credential, 0, first.version()).await.expect("another value");
    assert_eq!(kept(), 1, "nobody has looked");
    prepared.retain(|credential, key| secrets.peek(credential, key));
    assert_eq!(kept(), 0);
    assert!(prepared.parts(&credential, &chosen(&second)).is_some());
    prepared.retain(|_, _| None);
    assert_eq!(kept(), 0, "revoked");
}

#[tokio::test]
async fn a_secret_is_put_on_a_call_as_the_key_that_it_is_of_and_as_no_other() {
    let fixture = KeyFixture::new();
    let prepared = InjectionCache::default();
    let (one, other) = (fixture.chosen(0).await, fixture.chosen(1).await);
    for (key, expected) in [(&one, "Bearer sk-a-1"), (&other, "Bearer sk-b-1"), (&one, "Bearer sk-a-1")] {
        let parts = prepared.parts(fixture.pool(), key).unwrap();
        assert_eq!(value(&parts), expected.as_bytes());
    }
    let crossed = SelectedKey { secret: Arc::clone(&other.secret), ..one.clone() };
    assert!(prepared.parts(fixture.pool(), &crossed).is_none());
    assert!(prepared.parts(fixture.pool(), &SelectedKey { key: 2, ..one.clone() }).is_none());
    let rotated = fixture.rotated(0).await;
    assert_eq!(value(&prepared.parts(fixture.pool(), &rotated).unwrap()), b"Bearer sk-another");
    let of_one: Vec<_> = prepared.entries.lock().unwrap().values().map(Vec::len).collect();
    assert_eq!(of_one, [2], "the form of the version before is gone");
}
