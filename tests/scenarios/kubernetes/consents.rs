//! Consent between namespaces by objects that others define: the Gateway API's own ReferenceGrant.

use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use serde_json::Value;
use tollgate_tests::cluster::Cluster;
use tollgate_tests::sandbox::parts_dir;
use tollgate_tests::{Client, Gateway, Protocol, Reply, Seen, needs};

use super::{EGRESS, World, answers, rights};

const OF_SHOP: &str = "/apis/tollgate.dev/v1alpha1/namespaces/shop/grants/shop-up";
const RESOURCE: &str = "referencegrants.gateway.networking.k8s.io";

/// The definition of ReferenceGrants in version 1.7.0 of the Gateway API.
fn definition() -> PathBuf {
    parts_dir().join("gateway-api/1.7.0/gateway.networking.k8s.io_referencegrants.yaml")
}

/// A ReferenceGrant of the gateway's namespace that lets Grants of `shop` refer to what these kinds are.
fn consent(version: &str, kinds: &[&str]) -> String {
    let to: Vec<String> = kinds.iter().map(|kind| format!("{{group: tollgate.dev, kind: {kind}}}")).collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/{version}\nkind: ReferenceGrant\nmetadata: {{name: shop, namespace: {EGRESS}}}\n\
         spec:\n  from: [{{group: tollgate.dev, kind: Grant, namespace: shop}}]\n  to: [{}]\n",
        to.join(", ")
    )
}

/// The fixture's grant, as the namespace `shop` writes it for its own callers.
pub(super) fn grant_of_shop(world: &World) -> String {
    let grant = world.objects.split("---\n").find(|text| text.contains("kind: Grant")).unwrap();
    grant
        .replace("namespace: egress, name: checkout-up", "namespace: shop, name: shop-up")
        .replace("ns/checkout", "ns/shop")
        .replace("destination: up", "destination: egress/up")
        .replace("credential: up-key", "credential: egress/up-key")
}

/// A workload of the namespace `shop`.
pub(super) fn shop(world: &World, gateway: &Gateway) -> Client {
    let identity = world.plan.prod.svid(&world.plan.sandbox, "spiffe://prod.acme/ns/shop/sa/web");
    Client::new(&world.plan.sandbox, gateway.address(), world.plan.pki.roots(), Some(identity))
}

/// The first bytes of an answer, while the rest of it is still to come.
pub(super) async fn begun(client: &Client, protocol: Protocol) -> http::Response<hyper::body::Incoming> {
    let mut connection = client.open(protocol).await.expect("a connection");
    let mut answer = connection.start(client.request(Method::GET, "/up/stream", "")).await.expect("a head");
    assert_eq!(answer.status().as_u16(), 200);
    answer.body_mut().frame().await.expect("a frame").expect("the first bytes");
    answer
}

/// Waits until an answer breaks off, which is never a clean end.
pub(super) async fn breaks_off(answer: http::Response<hyper::body::Incoming>) {
    let rest = tokio::time::timeout(Duration::from_secs(20), answer.into_body().collect());
    rest.await.expect("it ends").expect_err("its end is not clean");
}

/// What the fixture's upstream answers: at `/stream` an event five times a second, for two minutes.
pub(super) fn respond(seen: &Seen) -> Reply {
    match seen.target.ends_with("/stream") {
        // Whole events, of which nothing is held back.
        true => (0..600)
            .fold(Reply::events(["first"]), |reply, _| reply.wait(Duration::from_millis(200)).event("more")),
        false => Reply::status(200),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_namespace_uses_what_a_reference_grant_consents_to_and_loses_it_with_it() {
    needs!(Cluster::installed(), definition().is_file());
    let world = World::answering(&rights(), respond).await;
    world.cluster.namespace("shop", &Value::Null, &[]).await;
    // A cluster that does not know the kind.
    let gateway = world.start().await;
    world.cluster.apply(&format!("{}---\n{}", world.objects, grant_of_shop(&world))).await;
    let (client, checkout) = (shop(&world, &gateway), world.checkout(&gateway));
    answers(&checkout, 200).await;
    let resolved = world.condition(OF_SHOP, "ResolvedRefs", "False").await;
    let why = resolved["message"].as_str().unwrap();
    assert!(
        why.contains("there is no Destination `egress/up` that the namespace `shop` may refer to"),
        "{why}"
    );
    assert!(why.contains("a ReferenceGrant in `egress` has to allow it to every Grant of `shop`"), "{why}");
    answers(&client, 403).await;
    assert_eq!(gateway.metrics().sum("tollgate_kubernetes_watch_errors_total", &[]), 0.0);

    world.cluster.kubectl(&["apply", "--server-side", "-f", &definition().display().to_string()]).await;
    let established = ["wait", "--for=condition=Established", "--timeout=60s", &format!("crd/{RESOURCE}")];
    world.cluster.kubectl(&established).await;
    for version in ["v1beta1", "v1"] {
        // Consent to one of the two is none to the other.
        world.cluster.apply(&consent(version, &["Destination"])).await;
        let wanted = |grant: &Value| {
            super::condition(grant, "ResolvedRefs")["message"]
                .as_str()
                .is_some_and(|it| it.contains("there is no Credential"))
        };
        world.cluster.until(OF_SHOP, wanted).await;
        assert_eq!(client.get("/up/x").await.status.as_u16(), 403);

        world.cluster.apply(&consent(version, &["Destination", "Credential"])).await;
        answers(&client, 200).await;
        world.condition(OF_SHOP, "Programmed", "True").await;

        let open = [begun(&client, Protocol::H1).await, begun(&client, Protocol::H2).await];
        let other = begun(&checkout, Protocol::H2).await;
        world.cluster.kubectl(&["delete", RESOURCE, "-n", EGRESS, "shop"]).await;
        for answer in open {
            breaks_off(answer).await;
        }
        answers(&client, 403).await;
        world.condition(OF_SHOP, "ResolvedRefs", "False").await;
        world.condition(OF_SHOP, "Programmed", "False").await;
        let going_on = tokio::time::timeout(Duration::from_millis(500), other.into_body().collect());
        going_on.await.expect_err("what needs no consent goes on");
    }

    // Where the newer version is not served any more, or was not yet, the older one is read.
    let hide = r#"[{"op": "replace", "path": "/spec/versions/0/served", "value": false}]"#;
    world.cluster.kubectl(&["patch", "crd", RESOURCE, "--type=json", "-p", hide]).await;
    world.cluster.apply(&consent("v1beta1", &["Destination", "Credential"])).await;
    answers(&client, 200).await;
    world
        .cluster
        .kubectl(&[
            "delete",
            &format!("referencegrants.v1beta1.{}", RESOURCE.split_once('.').unwrap().1),
            "-n",
            EGRESS,
            "shop",
        ])
        .await;
    answers(&client, 403).await;

    // The kind itself goes, and all consent by it.
    world.cluster.apply(&consent("v1beta1", &["Destination", "Credential"])).await;
    answers(&client, 200).await;
    world.cluster.kubectl(&["delete", "crd", RESOURCE]).await;
    answers(&client, 403).await;
    checkout.get("/up/x").await.assert_status(200);
    let (status, ready) = gateway.admin_get("/readyz");
    assert_eq!(status, 200, "{ready}");
    world.leave().await;
}
