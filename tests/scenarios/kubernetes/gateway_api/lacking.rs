//! A cluster that lacks some of the kinds.

use serde_json::json;
use tollgate_tests::cluster::{Cluster, FaultyServer};
use tollgate_tests::gateway::eventually;
use tollgate_tests::needs;
use tollgate_tests::sandbox::parts_dir;

use super::super::{EGRESS, GRANT, USER, answers, path, said};
use super::{CLASS, GATEWAY, Routed, installed, route};

/// The namespace of the callers.
const CALLERS: &str = "checkout";
const KIND: &str = "xbackends.gateway.networking.x-k8s.io";

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_the_api_server_does_not_have_is_an_empty_list_which_is_said_once() {
    needs!(Cluster::installed(), installed());
    let routed = Routed::new().await;
    let world = &routed.world;
    routed.install("1.7.0").await;
    world.cluster.kubectl(&["delete", "crd", KIND]).await;
    world.cluster.apply(&world.objects).await;
    let server = FaultyServer::start(&world.cluster, USER).await;
    let mut gateway = world.prepare_at(&world.plan.sandbox, server.kubeconfig());
    gateway.launch().await;
    gateway.ready().await;
    let client = world.checkout(&gateway);
    // What needs nothing of it is in force, also beside a grant of the same callers for what may be one of another namespace.
    answers(&client, 200).await;
    world.condition(GRANT, "Programmed", "True").await;
    let grant = world.objects.split("---\n").find(|text| text.contains("kind: Grant")).unwrap();
    let grant = grant
        .replace("name: checkout-up", "name: routed")
        .replace("destination: up", "destination: routed")
        .replace(EGRESS, CALLERS);
    let grant: String =
        grant.lines().filter(|line| !line.contains("credential:")).map(|line| format!("{line}\n")).collect();
    world.cluster.namespace(CALLERS, &json!({}), &[]).await;
    world.cluster.apply(&grant).await;
    let of_grant = path("grants", "routed").replace(EGRESS, CALLERS);
    world.condition(&of_grant, "ResolvedRefs", "False").await;
    client.get("/up/x").await.assert_status(200);
    eventually("it is asked for again", || server.asked("/xbackends?").len() >= 4).await;
    let message = "the API server does not have this kind";
    assert_eq!(said(&gateway, message), 1);
    assert_eq!(gateway.metrics().sum("tollgate_kubernetes_watch_errors_total", &[]), 0.0);
    let (status, ready) = gateway.admin_get("/readyz");
    assert!(status == 200 && !ready.contains("cannot be watched"), "{status} {ready}");

    // It comes later, and is followed.
    let definition = parts_dir().join("gateway-api/1.7.0/gateway.networking.x-k8s.io_xbackends.yaml");
    world.cluster.kubectl(&["apply", "--server-side", "-f", &definition.display().to_string()]).await;
    let established = ["wait", "--for=condition=Established", "--timeout=60s", &format!("crd/{KIND}")];
    world.cluster.kubectl(&established).await;
    world.cluster.served("/apis/gateway.networking.x-k8s.io/v1alpha1/xbackends").await;
    // Now it is known that there is none of that name.
    answers(&client, 403).await;
    client.get("/up/x").await.assert_refused(403, "broken_configuration");
    world.cluster.kubectl(&["delete", "grant", "-n", CALLERS, "routed"]).await;
    answers(&client, 200).await;
    world.cluster.kubectl(&["delete", "destination", "-n", EGRESS, "up"]).await;
    answers(&client, 421).await;
    let objects =
        format!("{CLASS}{GATEWAY}{}{}", routed.backend("1.7"), route((EGRESS, "up"), "api.up.test"));
    world.cluster.apply(&objects).await;
    answers(&client, 200).await;
    assert_eq!(said(&gateway, message), 1);
    routed.leave().await;
}
