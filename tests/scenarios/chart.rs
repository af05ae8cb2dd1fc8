//! The Helm chart, by Helm's own engine: linted, rendered, validated, and its settings read by the gateway.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tollgate_tests::gateway::binary;
use tollgate_tests::{Sandbox, helm, needs};

/// Set, it writes anew what is generated.
const WRITE: &str = "TOLLGATE_WRITE_CHART";

/// Values that are wrong, and what the refusal says.
const WRONG: [(&str, &[&str]); 34] = [
    (r#"{"replica": 2}"#, &["replica"]),
    (r#"{"kind": "Pod"}"#, &["kind", "StatefulSet"]),
    (r#"{"replicas": -1}"#, &["replicas"]),
    (r#"{"image": {"digest": "sha256:12"}}"#, &["image/digest"]),
    (r#"{"listeners": []}"#, &["listeners"]),
    (r#"{"listeners": [{"name": "https", "port": 70000}]}"#, &["listeners/0/port"]),
    (
        r#"{"listeners": [{"name": "https", "port": 8443, "clientCertificate": "maybe"}]}"#,
        &["clientCertificate"],
    ),
    (
        r#"{"identity": {"trustDomains": {"prod.acme": {"configMap": "b", "key": "k"}}}, "listeners": [{"name": "tunnels", "kind": "hbone", "port": 15008, "clientCertificate": "none"}]}"#,
        &["listeners/0/clientCertificate"],
    ),
    (
        r#"{"listeners": [{"name": "tunnels", "kind": "hbone", "port": 15008}]}"#,
        &["listeners[0].kind", "trustDomains"],
    ),
    (r#"{"interception": {"secret": "ca"}}"#, &["interception.secret", "kind: forward"]),
    (r#"{"listeners": [{"name": "db", "port": 5432, "destination": "orders"}]}"#, &["listeners/0", "kind"]),
    (r#"{"listeners": [{"name": "network", "port": 15010, "doubleHbone": {}}]}"#, &["listeners/0", "kind"]),
    (r#"{"listeners": [{"name": "https", "port": 9441}]}"#, &["listeners[0].port", "admin port"]),
    (
        r#"{"hostNetwork": true, "listeners": [{"name": "https", "port": 443}]}"#,
        &["listeners[0].port", "1024"],
    ),
    (r#"{"identity": {"serviceAccounts": {"enabled": false}}}"#, &["nobody could call"]),
    (r#"{"identity": {"serviceAccounts": {"issuer": "http://kubernetes"}}}"#, &["serviceAccounts/issuer"]),
    (r#"{"identity": {"certificate": {"source": "certManager"}}}"#, &["certManager.issuerRef.name"]),
    (r#"{"identity": {"certificate": {"source": "spire"}}}"#, &["spire.trustDomain"]),
    (r#"{"identity": {"trustDomains": {"prod.acme": {"key": "ca.crt"}}}}"#, &["trustDomains/prod.acme"]),
    (
        r#"{"identity": {"certificate": {"source": "volume", "volume": {"name": "certs"}}}}"#,
        &["certificate.volume.name"],
    ),
    (r#"{"telemetry": {"endpoint": "collector:4317"}}"#, &["telemetry/endpoint"]),
    (
        r#"{"telemetry": {"endpoint": "http://collector:4318", "headers": {"authorization": {"secret": "s", "key": "k"}}}}"#,
        &["telemetry.headers", "https"],
    ),
    (
        r#"{"telemetry": {"headers": {"authorization": {"secret": "s", "key": "k"}}}}"#,
        &["telemetry.endpoint", "collector"],
    ),
    (r#"{"redis": {"addresses": ["redis"]}}"#, &["redis/addresses"]),
    (
        r#"{"redis": {"addresses": ["redis:6379"], "username": "u"}}"#,
        &["redis.passwordSecret", "redis.username"],
    ),
    (r#"{"redis": {"addresses": ["redis:6379"], "caSecret": "ca"}}"#, &["redis.tls", "redis.caSecret"]),
    (r#"{"postgres": {"address": "ledger-db.databases.svc:5432"}}"#, &["postgres.passwordSecret"]),
    (
        r#"{"postgres": {"address": "postgres://a:b@ledger-db:5432/x", "passwordSecret": "s"}}"#,
        &["postgres/address"],
    ),
    (r#"{"persistence": {"existingClaim": "journal"}}"#, &["persistence.existingClaim", "one replica"]),
    (r#"{"persistence": {"hostPath": "/var/lib/tollgate"}}"#, &["persistence.hostPath", "DaemonSet"]),
    (r#"{"kind": "DaemonSet", "autoscaling": {"enabled": true}}"#, &["autoscaling.enabled", "DaemonSet"]),
    (r#"{"settings": {"limits": {"bodyByte": 1}}}"#, &["settings/limits", "bodyByte"]),
    (r#"{"settings": {"ledger": {"sealKeyFile": "/tmp/key"}}}"#, &["settings/ledger", "sealKeyFile"]),
    (r#"{"resources": {"source": "files", "files": {"openai.txt": ""}}}"#, &["openai.txt"]),
];

/// Runs a job of `chart.py`.
async fn judge(sandbox: &Sandbox, job: &str, more: Value) -> Value {
    let mut argument = json!({
        "job": job,
        "definitions": helm::definitions(),
        "write": std::env::var_os(WRITE).is_some(),
    });
    for (name, value) in more.as_object().expect("an object") {
        argument[name] = value.clone();
    }
    helm::run(sandbox, "chart.py", &argument).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_set_lints_strictly_renders_as_its_golden_file_says_and_fits_the_schemas() {
    needs!(helm::installed());
    let sandbox = Sandbox::new();
    let found = judge(&sandbox, "rendered", json!({})).await;
    assert_eq!(found["wrong"], json!([]), "after a change that is meant: {WRITE}=1 tests/run chart");
    let counts = found["counts"].as_object().expect("counts");
    assert!(counts.len() >= 12 && counts.values().all(|count| count.as_u64() > Some(5)), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schemas_see_a_field_that_no_kind_of_the_chart_has() {
    needs!(helm::installed());
    let sandbox = Sandbox::new();
    let said = judge(&sandbox, "broken", json!({})).await["said"].clone();
    let said = said.as_object().expect("kinds");
    assert!(said.len() > 10, "{said:?}");
    for (kind, problems) in said {
        assert!(problems.to_string().contains("fieldThatIsNone"), "{kind}: {problems}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_of_the_values_and_the_table_of_the_readme_are_made_of_the_comments() {
    needs!(helm::installed());
    let sandbox = Sandbox::new();
    let schema = Command::new(binary()).arg("schema").output().expect("the binary runs").stdout;
    let settings = sandbox.input("settings.json", schema);
    let found = judge(&sandbox, "written", json!({ "settings": settings })).await;
    assert_eq!(found["stale"], json!([]), "{WRITE}=1 tests/run chart writes them");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_are_wrong_are_refused_by_their_name() {
    needs!(helm::installed());
    let sandbox = Sandbox::new();
    let values: Vec<Value> =
        WRONG.iter().map(|(text, _)| serde_json::from_str(text).expect("JSON")).collect();
    let found = judge(&sandbox, "refused", json!({ "values": values })).await;
    let said = found["said"].as_array().expect("a list");
    for ((values, words), said) in WRONG.iter().zip(said) {
        let said = said.as_str().expect("text");
        assert!(!said.is_empty(), "{values} is taken");
        for word in *words {
            assert!(said.contains(word), "{values}: {said}");
        }
    }
}

#[test]
fn the_dockerfile_passes_a_linter() {
    needs!(helm::installed());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let output =
        Command::new(helm::program("hadolint")).arg(root.join("Dockerfile")).output().expect("hadolint runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
