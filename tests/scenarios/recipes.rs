//! The examples for clusters: what they show is what Kubernetes, the chart, the gateway and the projects around it take.

use serde_json::{Value, json};
use tollgate_tests::cluster::Cluster;
use tollgate_tests::sandbox::parts_dir;
use tollgate_tests::{Sandbox, helm, needs};

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
    assert!(counts.len() >= 9 && counts.values().all(|count| count.as_u64() > Some(1)), "{counts:?}");
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
