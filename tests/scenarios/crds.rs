//! The CustomResourceDefinitions, judged by the real API server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tollgate_tests::cluster::{ADMIN, Cluster, Verb};
use tollgate_tests::gateway::binary;
use tollgate_tests::{Sandbox, needs, python};

/// A mistake, a part of what is said of it, and the object.
const MISTAKES: [(&str, &str, &str); 17] = [
    ("spec.callers[0]", "exactly one of serviceAccount, spiffe and token is required", "Grant callers: [{}]"),
    (
        "spec.callers[0]",
        "exactly one of",
        "Grant callers: [{spiffe: 'spiffe://a/b', token: {issuer: i, subject: s}}]",
    ),
    ("spec.allow.methods", "says for which methods", "Grant credential: key, allow: {paths: [/x]}"),
    ("spec.allow.paths", "says for which paths", "Grant credential: key, allow: {methods: [GET]}"),
    (
        "spec.limits[0]",
        "exactly one of requests, tokens, inputTokens, outputTokens, cachedTokens, reasoningTokens, spend, bytes, seconds and concurrency",
        "Grant limits: [{requests: 1, tokens: 2, per: day}]",
    ),
    (
        "spec.limits[0].per",
        "per is required with requests, tokens, inputTokens, outputTokens, cachedTokens, reasoningTokens, spend, bytes and seconds",
        "Grant limits: [{spend: 5 USD}]",
    ),
    ("spec.limits[0].spend", "should match", "Grant limits: [{spend: 5 EUR, per: day}]"),
    ("spec.limits[0].concurrency", "leave out per", "Grant limits: [{concurrency: 5, per: day}]"),
    ("spec.limits[0].per", "Unsupported value", "Grant limits: [{requests: 5, per: fortnight}]"),
    (
        "spec.limits[0].burst",
        "only requests per second, minute",
        "Grant limits: [{tokens: 5, per: day, burst: 2}]",
    ),
    (
        "spec.limits[0].requests",
        "are a rate and have no window",
        "Grant limits: [{requests: 5, per: minute, window: rolling}]",
    ),
    (
        "spec.limits[0].timezone",
        "a rolling window knows no timezone",
        "Grant limits: [{tokens: 5, per: day, window: rolling, timezone: Europe/Berlin}]",
    ),
    ("spec.allow.range", "is passed on as it is", "Grant allow: {range: true}"),
    ("spec.allow.actions", "only where a credential signs for AWS", "Grant allow: {actions: [GetItem]}"),
    ("spec.limit", "unknown field", "Grant limit: [{requests: 5, per: day}]"),
    ("spec", "exactly one of", "SecretStore file: {root: /x}, env: {prefix: A_}"),
    ("spec.hosts", "uplicate", "Destination hosts: [a.example, a.example]"),
];

/// Lists, and what makes an element of each of a number.
const LISTS: [(&str, &str, &str); 7] = [
    ("spec.callers", "Grant callers: [@]", "{spiffe: 'spiffe://a/b#'}"),
    ("spec.allow.paths", "Grant credential: key, allow: {methods: [GET], paths: [@]}", "/x#"),
    ("spec.allow.models", "Grant credential: key, allow: {methods: [GET], paths: [/x], models: [@]}", "m#"),
    ("spec.limits", "Grant limits: [@]", "{requests: #, per: day}"),
    ("spec.hosts", "Destination hosts: [@]", "h#.example"),
    (
        "spec.destinations",
        "Credential destinations: [@], from: {store: s, path: p}, inject: {bearer: {}}",
        "d#",
    ),
    (
        "spec.from",
        "Credential destinations: [d], from: [@], inject: {bearer: {}}",
        "{alias: a#, store: s, path: p#}",
    ),
];

/// What `kubectl explain` says of a field.
const EXPLAINED: [(&str, &str); 6] = [
    ("grant.spec.limits", "Calls under way at one time"),
    ("grant.spec.limits.per", "fortnight"),
    ("grant.spec.allow.paths", "The paths that are allowed"),
    ("credential.spec.inject.sigv4", "The regions that it may sign for"),
    ("secretstore.spec.vault.auth", "exactly one of the fields"),
    ("grant.status.limits", "What calls under way may still use"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A cluster in which what `tollgate crds` prints is established.
async fn cluster(sandbox: &Sandbox) -> Cluster {
    let printed = Command::new(binary()).arg("crds").output().expect("the binary runs");
    let printed = String::from_utf8(printed.stdout).unwrap();
    let cluster = Cluster::start(sandbox, &[]).await;
    cluster.try_apply(ADMIN, &printed, &["--server-side"]).await.unwrap();
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]).await;
    let definitions = cluster.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions").await;
    for definition in definitions["items"].as_array().unwrap() {
        let conditions = definition["status"]["conditions"].as_array().unwrap();
        assert!(conditions.iter().all(|condition| condition["status"] == "True"), "{conditions:?}");
    }
    cluster
}

/// `Grant callers: [{}]` as an object, with what it has to have besides.
fn object(mistake: &str) -> String {
    let (kind, spec) = mistake.split_once(' ').unwrap();
    let besides = match kind {
        "Grant" if spec.starts_with("callers") => "destination: up, ",
        "Grant" => "destination: up, callers: [{spiffe: 'spiffe://a/b'}], ",
        _ => "",
    };
    format!(
        "apiVersion: tollgate.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: one}}\nspec: {{{besides}{spec}}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_what_compiles_and_refuses_mistakes_by_the_name_of_their_field() {
    needs!(Cluster::installed(), python::installed());
    let sandbox = Sandbox::new();
    let cluster = cluster(&sandbox).await;
    for (field, says, mistake) in MISTAKES {
        let flags: [&[&str]; 2] = [&["--dry-run=server"], &["--dry-run=server", "--server-side"]];
        for flags in flags {
            let said = cluster.try_apply(ADMIN, &object(mistake), flags).await;
            let said = said.expect_err(mistake).replace('\n', " ");
            // Server-side apply has words of its own for a field that is not there.
            let says = if says == "unknown field" && flags.len() > 1 { "not declared" } else { says };
            assert!(said.contains(field) && said.contains(says), "{mistake}: {said}");
        }
    }
    for example in ["quickstart", "first-call"] {
        let folder = root().join("examples").join(example).join("resources");
        cluster.kubectl(&["apply", "--dry-run=server", "-f", &folder.display().to_string()]).await;
    }

    let argument = json!({
        "root": root(), "ca": cluster.ca(), "address": cluster.address(), "token": cluster.token(ADMIN),
    });
    let found = python::run_alone(&sandbox, "crds.py", &argument).await;
    assert_eq!(found["wrong"], json!([]), "right by the compiler, wrong by the API server");
    assert_eq!(found["unnamed"], json!([]), "refused, and not by the name of the field");
    assert!(found["taken"].as_u64() > Some(100) && found["told"].as_u64() > Some(60), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_as_many_elements_of_a_list_as_the_reader_and_not_one_more() {
    needs!(Cluster::installed());
    let sandbox = Sandbox::new();
    let cluster = cluster(&sandbox).await;
    for (field, written, element) in LISTS {
        let most = match field {
            "spec.limits" => 64,
            "spec.from" => 32,
            _ => 4096,
        };
        let with = |count: usize| {
            let elements: Vec<String> = (1..=count).map(|at| element.replace('#', &at.to_string())).collect();
            object(&written.replace('@', &elements.join(", ")))
        };
        let flags = ["--dry-run=server"];
        cluster.try_apply(ADMIN, &with(most), &flags).await.unwrap_or_else(|said| panic!("{field}: {said}"));
        let said = cluster.try_apply(ADMIN, &with(most + 1), &flags).await.expect_err(field);
        let says = format!("{field}: Too many: {}: must have at most {most} items", most + 1);
        assert!(said.contains(&says), "{field}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_explains_fields_shows_columns_and_keeps_an_empty_word() {
    needs!(Cluster::installed());
    let sandbox = Sandbox::new();
    let cluster = cluster(&sandbox).await;
    for (field, says) in EXPLAINED {
        let said =
            cluster.kubectl(&["explain", field]).await.split_whitespace().collect::<Vec<_>>().join(" ");
        let says = if says == "fortnight" { "second minute hour day week month" } else { says };
        assert!(said.contains(says), "{field}: {said}");
    }
    let empty = object("Grant credential: key, allow: {methods: [GET], paths: [/x]}, limits: null");
    cluster.try_apply(ADMIN, &empty, &["--server-side"]).await.unwrap();
    let path = "/apis/tollgate.dev/v1alpha1/namespaces/default/grants/one";
    let grant = cluster.get(path).await;
    let spec = grant["spec"].as_object().unwrap();
    assert!(spec.contains_key("limits"), "the compiler sees the empty word and refuses it: {grant}");
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": kind, "message": "so it is", "lastTransitionTime": "2026-11-29T00:00:00Z"});
    let status = json!({"status": {
        "conditions": [condition("Accepted"), condition("Programmed")],
        "observedGeneration": 1,
        "limits": [{"id": "spend per month", "spent": "12.5 USD", "held": "0 USD", "left": "487.5 USD", "resets": "2026-12-01T00:00:00Z"}],
    }});
    cluster.call(Verb::Merge, &format!("{path}/status"), &status).await.expect(path);
    let shown = cluster.kubectl(&["get", "grants"]).await;
    let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        lines[0],
        ["NAME", "DESTINATION", "CREDENTIAL", "ACCEPTED", "PROGRAMMED", "SPENT", "LEFT", "AGE"]
    );
    assert_eq!(lines[1][..8], ["one", "up", "key", "True", "True", "12.5", "USD", "487.5"]);
    for short in ["tgg", "tollgate"] {
        assert!(cluster.kubectl(&["get", short, "-o", "wide"]).await.contains("so it is"), "{short}");
    }
    let status = json!({"status": {"limits": [{"id": "a", "spent": 5}]}});
    let told = cluster.call(Verb::Merge, &format!("{path}/status"), &status).await;
    assert_eq!(told.status.as_u16(), 422, "a number is no amount: {}", told.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chart_has_what_the_binary_prints() {
    let printed = Command::new(binary()).arg("crds").output().expect("the binary runs").stdout;
    let printed = String::from_utf8(printed).unwrap();
    let mut documents = 0;
    for entry in fs::read_dir(root().join("charts/tollgate/crds")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        // Without the line that says how it is made.
        let (_, text) = text.split_once('\n').unwrap();
        assert!(printed.contains(&format!("---\n{text}")), "{text}");
        documents += 1;
    }
    assert_eq!(printed.matches("---\n").count(), documents);
}
