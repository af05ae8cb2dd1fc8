//! Who holds a host while the API server does not know a kind, or has a newer version of an object than the gateway.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate_tests::cluster::{Cluster, Fault, FaultyServer};
use tollgate_tests::gateway::eventually;
use tollgate_tests::sandbox::parts_dir;
use tollgate_tests::{Client, Sandbox, needs};

use super::super::hosts::{accepted, destination, leads, of};
use super::super::{GRANT, USER, answers, path};
use super::namespaces::routed_to;
use super::{CLASS, EGRESS, GATEWAY, Routed, backend, installed, of_backend, route};

const KIND: &str = "xbackends.gateway.networking.x-k8s.io";

/// `shop` has the older Destination, which names `llm.test` too; the XBackend of `web` holds that.
async fn two_apps(routed: &Routed) {
    let cluster = &routed.world.cluster;
    for namespace in ["shop", "web"] {
        cluster.namespace(namespace, &json!({}), &[]).await;
    }
    cluster.apply(&destination("shop", &["shop.test"], 1)).await;
    accepted(&routed.world, "shop", "True").await;
    // Times of creation have seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    cluster.apply(&routed_to("web", "llm.test", 443)).await;
    holds_it(routed).await;
    cluster.apply(&destination("shop", &["shop.test", "llm.test"], 1)).await;
    assert_eq!(accepted(&routed.world, "shop", "False").await["status"]["hosts"], json!(["shop.test"]));
}

/// Waits until the XBackend of `web` says that it holds its host.
async fn holds_it(routed: &Routed) {
    let path = of_backend("web", "saas");
    let has = routed.told(&path, "/ancestors/0", "tollgate.dev/HasHost", "True", "Claimed").await;
    assert_eq!(has["message"], "llm.test");
}

/// What `shop` is said to hold.
async fn hosts_of_shop(routed: &Routed) -> Value {
    routed.world.cluster.get(&of("shop")).await["status"]["hosts"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_not_told_of_a_kind_yet_says_of_nobody_that_it_holds_what_another_does() {
    needs!(Cluster::installed(), installed());
    let routed = Routed::new().await;
    routed.install("1.7.0").await;
    let (world, cluster) = (&routed.world, &routed.world.cluster);
    let mut first = world.start().await;
    cluster.apply(&format!("{}{CLASS}{GATEWAY}", world.objects)).await;
    two_apps(&routed).await;

    // An API server that starts knows some kinds later than others.
    let server = FaultyServer::start(cluster, USER).await;
    server.fail(Fault::Unknown("/xbackends"));
    let others = Sandbox::new();
    let mut second = world.prepare_at(&others, server.kubeconfig());
    second.launch().await;
    second.ready().await;
    assert!(first.stop().success());
    eventually("the second leads", || leads(&second)).await;
    // It writes status, and to it nothing else names the host.
    cluster.apply(&destination("shop", &["shop.test", "llm.test"], 2)).await;
    accepted(world, "shop", "True").await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(hosts_of_shop(&routed).await, json!(["shop.test"]));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // Once it knows, everybody has what they had.
    server.fail(Fault::None);
    assert_eq!(accepted(world, "shop", "False").await["status"]["hosts"], json!(["shop.test"]));
    holds_it(&routed).await;
    routed.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_not_written_over_a_newer_version_of_an_object_and_are_told_of_that_one() {
    needs!(Cluster::installed(), installed());
    let routed = Routed::new().await;
    routed.install("1.7.0").await;
    let (world, cluster) = (&routed.world, &routed.world.cluster);
    let server = FaultyServer::start(cluster, USER).await;
    let mut gateway = world.prepare_at(&world.plan.sandbox, server.kubeconfig());
    gateway.launch().await;
    gateway.ready().await;
    cluster.apply(&format!("{}{CLASS}{GATEWAY}", world.objects)).await;
    two_apps(&routed).await;

    // The gateway is not told that `shop` names the host no longer, before it is free.
    server.fail(Fault::Mute("/destinations"));
    cluster.apply(&destination("shop", &["shop.test", "more.test"], 1)).await;
    cluster.kubectl(&["delete", "xbackend", "-n", "web", "saas"]).await;
    let status = format!("{}/status", of("shop"));
    eventually("it tries to write", || !server.asked(&status).is_empty()).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(hosts_of_shop(&routed).await, json!(["shop.test"]));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // Told, it writes what the object names now.
    server.fail(Fault::None);
    let has = |object: &Value| object["status"]["hosts"] == json!(["more.test", "shop.test"]);
    cluster.until(&of("shop"), has).await;
    accepted(world, "shop", "True").await;
    assert_eq!(gateway.metrics().sum("tollgate_kubernetes_hosts_unwritten", &[]), 0.0);
    routed.leave().await;
}

/// Waits for as long as a kind is remembered that has no definition.
async fn answers_in_time(client: &Client, status: u16) -> Duration {
    let begun = Instant::now();
    while client.get("/up/x").await.status.as_u16() != status {
        assert!(begun.elapsed() < Duration::from_secs(160), "never {status}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_answer_alike_after_a_definition_is_deleted_and_when_it_is_back() {
    needs!(Cluster::installed(), installed());
    let routed = Routed::new().await;
    routed.install("1.7.0").await;
    let (world, cluster) = (&routed.world, &routed.world.cluster);
    let first = world.start().await;
    cluster.apply(&format!("{}{CLASS}{GATEWAY}", world.objects)).await;
    // A grant of what an XBackend stands for, of callers that have another one.
    cluster.namespace("checkout", &json!({}), &[]).await;
    let id = ("checkout", "routed");
    let routed_to = backend("1.7", id, "plain.up.test", world.upstream.port()) + &route(id, "plain.up.test");
    let grant = world.objects.split("---\n").find(|text| text.contains("kind: Grant")).unwrap();
    let grant = grant
        .replace("name: checkout-up", "name: routed")
        .replace("destination: up", "destination: routed")
        .replace(EGRESS, "checkout");
    let grant: String =
        grant.lines().filter(|line| !line.contains("credential:")).map(|line| format!("{line}\n")).collect();
    cluster.apply(&format!("{routed_to}---\n{grant}")).await;
    let of_grant = path("grants", "routed").replace(EGRESS, "checkout");
    world.condition(&of_grant, "Programmed", "True").await;
    let hosts = cluster.get(&path("destinations", "up")).await["status"]["hosts"].clone();
    assert!(hosts.is_array(), "{hosts}");

    cluster.kubectl(&["delete", "crd", KIND]).await;
    let others = Sandbox::new();
    let mut second = world.launch(&others).await;
    second.ready().await;
    let clients = [world.checkout(&first), world.checkout(&second)];
    // The one has seen the objects go. To the other they may be anything.
    answers(&clients[0], 403).await;
    answers(&clients[1], 200).await;
    // What is known to be missing for so long the first forgets.
    let took = answers_in_time(&clients[0], 200).await;
    eprintln!("forgotten {took:?} after its objects were gone");
    clients[1].get("/up/x").await.assert_status(200);
    world.condition(GRANT, "Programmed", "True").await;
    assert_eq!(cluster.get(&path("destinations", "up")).await["status"]["hosts"], hosts);

    // Defined again, it is known that there is none; then there is.
    let definition = parts_dir().join("gateway-api/1.7.0/gateway.networking.x-k8s.io_xbackends.yaml");
    cluster.kubectl(&["apply", "--server-side", "-f", &definition.display().to_string()]).await;
    cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &format!("crd/{KIND}")]).await;
    cluster.served("/apis/gateway.networking.x-k8s.io/v1alpha1/xbackends").await;
    for client in &clients {
        answers(client, 403).await;
        client.get("/up/x").await.assert_refused(403, "broken_configuration");
    }
    cluster.apply(&routed_to).await;
    for client in &clients {
        answers(client, 200).await;
    }
    let has = routed
        .told(&of_backend("checkout", "routed"), "/ancestors/0", "tollgate.dev/HasHost", "True", "Claimed")
        .await;
    assert_eq!(has["message"], "plain.up.test");
    world.condition(&of_grant, "Programmed", "True").await;
    routed.leave().await;
}
