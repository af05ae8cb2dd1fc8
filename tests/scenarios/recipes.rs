//! The examples for clusters: what they show is what Kubernetes, the chart, the gateway and the projects around it take.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tollgate_tests::cluster::Cluster;
use tollgate_tests::gateway::binary;
use tollgate_tests::sandbox::parts_dir;
use tollgate_tests::{Plan, Sandbox, helm, needs};

async fn judge(sandbox: &Sandbox, mut argument: Value) -> Value {
    argument["definitions"] = json!([helm::definitions(), parts_dir().join("gateway-api/1.7.0")]);
    helm::run(sandbox, "examples.py", &argument).await
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_and_values_of_every_example_fit_the_schemas() {
    needs!(helm::installed(), Cluster::installed(), parts_dir().join("gateway-api.stamp").exists());
    let sandbox = Sandbox::new();
    let found = judge(&sandbox, json!({"job": "manifests", "kubectl": Cluster::kubectl_program()})).await;
    assert_eq!(found["wrong"], json!([]));
    assert_eq!(found["blind"], json!([]), "kinds whose schema sees nothing");
    let counts = found["counts"].as_object().expect("counts");
    assert!(counts.len() >= 10 && counts.values().all(|count| count.as_u64() > Some(1)), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chart_takes_the_values_that_argo_cd_is_given() {
    needs!(helm::installed());
    let sandbox = Sandbox::new();
    let found = judge(&sandbox, json!({"job": "values"})).await;
    assert!(found["objects"][0].as_u64() > Some(5), "{found}");
}

/// A condition of the second version of an object.
fn condition(kind: &str, status: &str) -> Value {
    json!({"type": kind, "status": status, "observedGeneration": 2, "message": format!("{kind} is {status}")})
}

#[tokio::test(flavor = "multi_thread")]
async fn argo_cd_shows_an_object_as_its_conditions_say() {
    needs!(helm::installed());
    let sandbox = Sandbox::new();
    let good = || {
        vec![
            condition("Accepted", "True"),
            condition("ResolvedRefs", "True"),
            condition("Programmed", "True"),
        ]
    };
    let with = |index: usize, other: Value| {
        let mut conditions = good();
        conditions[index] = other;
        conditions
    };
    let mut waiting = good();
    waiting.push(condition("Approved", "False"));
    let mut approved = good();
    approved.push(condition("Approved", "True"));
    let old = json!({"type": "Accepted", "status": "True", "observedGeneration": 1});
    let cases: [(Option<Vec<Value>>, &str, &str); 9] = [
        (None, "Progressing", "Waiting for the gateway"),
        (Some(vec![]), "Progressing", "Waiting for the gateway"),
        (Some(good()), "Healthy", "Programmed is True"),
        (Some(with(0, old)), "Progressing", "Waiting for the gateway"),
        (Some(with(0, condition("Accepted", "False"))), "Degraded", "Accepted is False"),
        (Some(with(1, condition("ResolvedRefs", "False"))), "Degraded", "ResolvedRefs is False"),
        (Some(with(2, condition("Programmed", "False"))), "Degraded", "Programmed is False"),
        (Some(waiting), "Suspended", "Approved is False"),
        (Some(approved), "Healthy", "Programmed is True"),
    ];
    let object = |conditions: &Option<Vec<Value>>| {
        let mut object = json!({"metadata": {"name": "web", "generation": 2}});
        if let Some(conditions) = conditions {
            object["status"] = json!({"conditions": conditions});
        }
        object
    };
    let objects: Vec<Value> = cases.iter().map(|(conditions, ..)| object(conditions)).collect();
    let said = judge(&sandbox, json!({"job": "health", "objects": objects})).await["said"].clone();
    for (index, (_, status, message)) in cases.iter().enumerate() {
        assert_eq!(said[index], json!({"status": status, "message": message}), "case {index}");
    }
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("examples").join(name)
}

/// Whether systemd's own judge of units is there.
fn has_systemd_analyze() -> bool {
    let mut command = Command::new("systemd-analyze");
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// What systemd says of a unit below this root.
fn verified(root: &Path, unit: &str) -> Output {
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--recursive-errors=no"]).arg(format!("--root={}", root.display())).arg(unit);
    command.output().expect("systemd-analyze runs")
}

#[test]
fn systemd_takes_the_units_of_a_virtual_machine() {
    needs!(has_systemd_analyze());
    let sandbox = Sandbox::new();
    let root = sandbox.inputs().join("machine");
    let units = root.join("etc/systemd/system");
    fs::create_dir_all(&units).expect("a folder");
    for program in ["usr/local/bin/tollgate", "usr/local/bin/spire-agent"] {
        let file = root.join(program);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::copy("/bin/true", file).expect("a program");
    }
    let names = ["tollgate.service", "spire-agent.service"];
    for name in names {
        fs::copy(example("vm").join(name), units.join(name)).expect("the unit");
    }
    for name in names {
        let output = verified(&root, name);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{name}: {said}");
    }
    // It would say so.
    let text = fs::read_to_string(units.join(names[0])).expect("the unit");
    fs::write(units.join(names[0]), text.replace("ProtectHome=", "ProtectHouse=")).expect("the unit");
    let said = String::from_utf8_lossy(&verified(&root, names[0]).stderr).into_owned();
    assert!(said.contains("ProtectHouse"), "{said}");
}

#[test]
fn the_settings_of_replicas_are_good_where_their_files_are() {
    let plan = Plan::new();
    let home = plan.sandbox.inputs().join("replicas");
    for folder in ["a", "b", "resources", "certs", "keys"] {
        fs::create_dir_all(home.join(folder)).expect("a folder");
    }
    for file in ["a/tollgate.yaml", "b/tollgate.yaml", "resources/openai.yaml", "resources/budgets.yaml"] {
        fs::copy(example("replicas").join(file), home.join(file)).expect("the example");
    }
    let identity = plan.pki.server(&plan.sandbox, &["localhost"]);
    fs::copy(&identity.cert, home.join("certs/gateway.pem")).expect("a certificate");
    fs::copy(&identity.key, home.join("certs/gateway.key")).expect("its key");
    fs::copy(plan.prod.bundle(), home.join("certs/prod-acme.pem")).expect("a bundle");
    for file in ["keys/openai", "redis.password", "ledger.password"] {
        fs::write(home.join(file), plan.sandbox.canary(&file.replace('/', "-"))).expect("a secret");
    }
    for file in ["certs/gateway.key", "keys/openai", "redis.password", "ledger.password"] {
        fs::set_permissions(home.join(file), fs::Permissions::from_mode(0o600)).expect("its mode");
    }
    for settings in ["a/tollgate.yaml", "b/tollgate.yaml"] {
        let said = checked(&home.join(settings));
        assert!(said.contains("1 grant, 3 budgets: good"), "{settings}: {said}");
        assert!(!said.contains("warning") && !said.contains("error"), "{settings}: {said}");
    }
}

#[test]
fn the_settings_of_a_virtual_machine_are_good_where_its_files_are() {
    let plan = Plan::new();
    let machine = plan.sandbox.inputs().join("machine");
    for folder in ["etc/tollgate/resources", "etc/tollgate/keys", "var/lib/tollgate-seal"] {
        fs::create_dir_all(machine.join(folder)).expect("a folder");
    }
    fs::write(machine.join("etc/tollgate/keys/openai"), plan.sandbox.canary("vm")).expect("a key");
    let secret = machine.join("etc/tollgate/keys/openai");
    fs::set_permissions(secret, fs::Permissions::from_mode(0o600)).expect("its mode");
    let at = |text: &str| {
        ["/etc/tollgate", "/var/lib/tollgate"].iter().fold(text.to_owned(), |text, place| {
            text.replace(place, &format!("{}{place}", machine.display()))
        })
    };
    for file in ["tollgate.yaml", "resources/openai.yaml"] {
        let text = fs::read_to_string(example("vm/etc").join(file)).expect("the example");
        fs::write(machine.join("etc/tollgate").join(file), at(&text)).expect("a file");
    }
    let said = checked(&machine.join("etc/tollgate/tollgate.yaml"));
    assert!(said.contains("1 grant: good"), "{said}");
    assert!(!said.contains("warning"), "{said}");
}

/// What `tollgate check` says of settings that are good.
fn checked(settings: &Path) -> String {
    let mut check = Command::new(binary());
    check.args(["check", "--config"]).arg(settings);
    // Those of the tests are nothing that it knows.
    std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TOLLGATE_")).for_each(
        |(name, _)| {
            check.env_remove(name);
        },
    );
    let output = check.output().expect("the binary runs");
    let said = String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    said
}
