//! The resources of the examples: the API server takes them as they stand, and the gateway has each of them in force.

use std::path::Path;

use serde_json::{Value, json};
use tollgate_tests::cluster::Cluster;
use tollgate_tests::needs;

use super::{EGRESS, World, rights};

/// What is written of Tollgate's own resources for each kind of cluster.
const EXAMPLES: [&[&str]; 5] = [
    &["kubernetes/platform.yaml", "kubernetes/shop.yaml"],
    &["istio-sidecar/resources.yaml"],
    &["istio-ambient/resources.yaml"],
    &["linkerd/resources.yaml"],
    &["spire/resources.yaml"],
];

/// A file of an example, with this scenario's namespace, trust domain and proof of callers.
fn example(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.replace("namespace: tollgate", &format!("namespace: {EGRESS}"))
        .replace("tollgate/openai", &format!("{EGRESS}/openai"))
        .replace("spiffe://cluster.local/", "spiffe://prod.acme/")
        .replace("serviceAccount: {namespace: shop, name: web}", "spiffe: spiffe://prod.acme/ns/shop/sa/web")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_resources_of_every_example_are_in_force_on_an_api_server() {
    needs!(Cluster::installed());
    let world = World::new(&rights()).await;
    world.cluster.namespace("shop", &json!({}), &[]).await;
    let gateway = world.start().await;
    for files in EXAMPLES {
        let text: Vec<String> = files.iter().map(|file| example(file)).collect();
        let text = text.join("\n---\n");
        world.cluster.apply(&text).await;
        let kinds = "destinations,secretstores,credentials,grants,sourcepools,budgets";
        let all = world.cluster.kubectl(&["get", kinds, "--all-namespaces", "--output=json"]).await;
        let all: Value = serde_json::from_str(&all).unwrap();
        let items = all["items"].as_array().unwrap();
        assert_eq!(items.len(), text.matches("apiVersion: tollgate.dev/").count(), "{files:?}");
        for item in items {
            let word = |pointer: &str| item.pointer(pointer).and_then(Value::as_str).unwrap().to_owned();
            let (kind, name) = (word("/kind").to_lowercase(), word("/metadata/name"));
            let namespace = word("/metadata/namespace");
            let path = format!("/apis/tollgate.dev/v1alpha1/namespaces/{namespace}/{kind}s/{name}");
            for wanted in ["Accepted", "ResolvedRefs", "Programmed"] {
                world.condition(&path, wanted, "True").await;
            }
        }
        for namespace in ["shop", EGRESS] {
            world.cluster.kubectl(&["delete", kinds, "--all", "-n", namespace]).await;
        }
    }
    assert_eq!(gateway.metrics().sum("tollgate_kubernetes_objects_refused", &[]), 0.0);
}
