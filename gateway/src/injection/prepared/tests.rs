use std::path::Path;

use tempfile::TempDir;
use tokio::runtime::Handle;
use tollgate_policy::compile::compile_files;
use tollgate_policy::model::SourceFile;
use tollgate_policy::policy::Policy;
use tollgate_secrets::Secrets;

use super::*;
use crate::app;

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
    compile_files(&[file], &app::environment_of(&[], &[]).unwrap()).unwrap().0
}

#[tokio::test]
async fn a_version_that_is_in_force_no_longer_is_forgotten_though_no_call_asks() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("key"), "the-first-version").unwrap();
    let policy = policy(directory.path());
    let credential = Arc::clone(policy.credentials().next().unwrap());
    let secrets = Secrets::new(Handle::current(), Arc::new(|_| true));
    secrets.apply(&policy);
    let prepared = Prepared::default();
    let kept = || prepared.entries.lock().unwrap().len();
    let first = secrets.get(&credential).await.unwrap();
    assert!(prepared.ready(&credential, &first).is_some());
    prepared.retain(|credential| secrets.peek(credential));
    assert_eq!(kept(), 1, "it is in force");
    std::fs::write(directory.path().join("key"), "the-second-version").unwrap();
    let second = secrets.rejected(&credential, first.version()).await.expect("another value");
    assert_eq!(kept(), 1, "nobody has looked");
    prepared.retain(|credential| secrets.peek(credential));
    assert_eq!(kept(), 0);
    assert!(prepared.ready(&credential, &second).is_some());
    prepared.retain(|_| None);
    assert_eq!(kept(), 0, "revoked");
}
