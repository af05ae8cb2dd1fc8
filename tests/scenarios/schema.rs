//! What `tollgate schema` prints, judged by a validator that others wrote.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tollgate_tests::gateway::binary;
use tollgate_tests::{Sandbox, needs, python};

/// What an editor has to mark, with where.
const WRONG: [(&str, &str); 22] = [
    ("$.kind", "{apiVersion: tollgate.dev/v1alpha1, kind: Grnat, metadata: {name: a}, spec: {}}"),
    (
        "$.apiVersion",
        "{apiVersion: v1, kind: Grant, metadata: {name: a}, spec: {callers: [], destination: d}}",
    ),
    ("$:", "{apiVersion: tollgate.dev/v1alpha1, kind: Grant, metadata: {name: a}}"),
    ("$.metadata.name", "{kind: Destination, metadata: {name: A_b}, spec: {hosts: [a.example]}}"),
    ("$.spec:", "{kind: Destination, spec: {}}"),
    ("$.spec:", "{kind: Destination, spec: {hosts: [a.example], host: b}}"),
    ("$.spec.hosts[0]", "{kind: Destination, spec: {hosts: ['https://a.example/']}}"),
    ("$.spec.port", "{kind: Destination, spec: {hosts: [a.example], port: 70000}}"),
    ("$.spec.timeouts.connect", "{kind: Destination, spec: {hosts: [a.example], timeouts: {connect: 3}}}"),
    ("$.spec.timeouts.connect", "{kind: Destination, spec: {hosts: [a.example], timeouts: {connect: 0s}}}"),
    ("$.spec.scrub", "{kind: Destination, spec: {hosts: [a.example], scrub: none}}"),
    ("$.spec", "{kind: SecretStore, spec: {file: {root: a}, env: {prefix: B_}}}"),
    (
        "$.spec.vault.kvVersion",
        "{kind: SecretStore, spec: {vault: {address: x, auth: {token: {file: t}}, kvVersion: 3}}}",
    ),
    ("$.spec.vault.auth", "{kind: SecretStore, spec: {vault: {address: x, auth: {}}}}"),
    (
        "$.spec.inject",
        "{kind: Credential, spec: {destinations: [d], from: {store: s, path: p}, inject: {bearer: {}, cookie: {name: c}}}}",
    ),
    ("$.spec.from", "{kind: Credential, spec: {destinations: [d], from: {store: s}, inject: {bearer: {}}}}"),
    ("$.spec.limits[0].per", "{kind: Grant, spec: {limits: [{requests: 1, per: minut}]}}"),
    ("$.spec.limits[0]", "{kind: Grant, spec: {limits: [{requests: 1, tokens: 2, per: day}]}}"),
    ("$.spec.limits[0].spend", "{kind: Grant, spec: {limits: [{spend: 5, per: day}]}}"),
    ("$.spec.callers[0].spiffe", "{kind: Grant, spec: {callers: [{spiffe: 'http://prod.acme/a'}]}}"),
    ("$.limits.headBytes", "{limits: {headBytes: 64 kilobytes}}"),
    ("$.drain:", "{drain: {delays: 5s}}"),
];

#[tokio::test(flavor = "multi_thread")]
async fn all_yaml_that_is_shown_is_what_the_schema_describes_and_mistakes_are_not() {
    needs!(python::installed());
    let sandbox = Sandbox::new();
    let home = sandbox.inputs().join("first");
    let init = Command::new(binary()).arg("init").arg(&home).output().expect("the binary runs");
    assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
    let printed = Command::new(binary()).arg("schema").output().expect("the binary runs").stdout;
    let schema = home.join("tollgate.schema.json");
    let [beside, printed]: [Value; 2] =
        [&fs::read(&schema).unwrap(), &printed].map(|text| serde_json::from_slice(text).expect("JSON"));
    assert_eq!(beside, printed, "init writes what schema prints");
    let more = ["tollgate.yaml", "resources/openai.yaml"].map(|file| home.join(file));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let argument = json!({ "root": root, "schema": schema, "more": more, "wrong": WRONG });
    let found = python::run_alone(&sandbox, "schema.py", &argument).await;
    assert_eq!(found["wrong"], json!([]), "right by the code, wrong by the schema");
    assert_eq!(found["accepted"], json!([]), "wrong, and the schema says so nowhere near");
    assert!(found["count"].as_u64() > Some(100), "{found}");
}
