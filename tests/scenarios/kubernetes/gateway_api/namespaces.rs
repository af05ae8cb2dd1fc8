//! XBackends of one namespace for another.

use serde_json::{Value, json};
use tollgate_tests::cluster::{Cluster, Verb};
use tollgate_tests::needs;

use super::super::{EGRESS, answers};
use super::{CLASS, GATEWAY, Routed, backend, installed, of_backend, route, shop};

#[tokio::test(flavor = "multi_thread")]
async fn another_namespace_uses_a_backend_by_its_reference_grant_alone() {
    needs!(Cluster::installed(), installed());
    let routed = Routed::new().await;
    // The older form of the Gateway API, which is taken too.
    routed.install("1.6.3").await;
    routed.world.cluster.namespace("shop", &json!({}), &[]).await;
    let grant = routed.world.objects.split("---\n").find(|text| text.contains("kind: Grant")).unwrap();
    let grant = grant
        .replace("namespace: egress, name: checkout-up", "namespace: shop, name: shop-up")
        .replace("ns/checkout", "ns/shop")
        .replace("destination: up", "destination: egress/up")
        .replace("credential: up-key", "credential: egress/up-key");
    let objects = format!(
        "{CLASS}{GATEWAY}{}{}{}---\n{grant}",
        routed.backend("1.6.3"),
        route((EGRESS, "up"), "api.up.test"),
        routed.others()
    );
    routed.world.cluster.apply(&objects).await;
    let gateway = routed.world.start().await;
    answers(&routed.world.checkout(&gateway), 200).await;
    routed.told(&of_backend(EGRESS, "up"), "/parents/0", "Accepted", "True", "Accepted").await;
    let client = shop(&routed, &gateway);
    client.get("/up/x").await.assert_refused(403, "broken_configuration");
    let of_shop = "/apis/tollgate.dev/v1alpha1/namespaces/shop/grants/shop-up";
    routed.world.condition(of_shop, "ResolvedRefs", "False").await;

    let permit = json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
        "metadata": {"namespace": EGRESS, "name": "shop"},
        "spec": {
            "from": [{"group": "tollgate.dev", "kind": "Grant", "namespace": "shop"}],
            "to": [
                {"group": "tollgate.dev", "kind": "Destination", "name": "up"},
                {"group": "tollgate.dev", "kind": "Credential", "name": "up-key"},
            ],
        },
    });
    routed.world.cluster.apply(&permit.to_string()).await;
    answers(&client, 200).await;
    let path = "/apis/gateway.networking.k8s.io/v1beta1/namespaces/egress/referencegrants/shop";
    routed.world.cluster.call(Verb::Delete, path, &Value::Null).await.expect(path);
    answers(&client, 403).await;
    routed.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_backend_that_names_a_host_later_takes_it_from_nobody() {
    needs!(Cluster::installed(), installed());
    let routed = Routed::new().await;
    routed.install("1.7.0").await;
    let cluster = &routed.world.cluster;
    let gateway = routed.world.start().await;
    cluster.apply(&format!("{}{CLASS}{GATEWAY}", routed.world.objects)).await;
    answers(&routed.world.checkout(&gateway), 200).await;
    for (namespace, host) in [("shop", "shop.test"), ("web", "llm.test")] {
        cluster.namespace(namespace, &json!({}), &[]).await;
        cluster.apply(&routed_to(namespace, host, 443)).await;
        let path = of_backend(namespace, "saas");
        let has = routed.told(&path, "/ancestors/0", "tollgate.dev/HasHost", "True", "Claimed").await;
        assert_eq!(has["message"], host);
        // Times of creation have seconds.
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    }

    cluster.apply(&routed_to("shop", "llm.test", 443)).await;
    let refused =
        routed.told(&of_backend("shop", "saas"), "/ancestors/0", "Accepted", "False", "Invalid").await;
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("`web`, where a Destination has it already"), "{message}");
    // Nor when what has it changes.
    cluster.apply(&routed_to("web", "llm.test", 8443)).await;
    routed.told(&of_backend("web", "saas"), "/ancestors/0", "Accepted", "True", "Accepted").await;
    let entry = cluster.get(&of_backend("shop", "saas")).await["status"]["ancestors"][0].to_string();
    assert!(!entry.contains("HasHost"), "{entry}");
    routed.leave().await;
}

/// A backend `saas` of a namespace, and the route that leads to it.
pub(super) fn routed_to(namespace: &str, host: &str, port: u16) -> String {
    backend("1.7", (namespace, "saas"), host, port) + &route((namespace, "saas"), host)
}
