//! The example of an ambient mesh: its Gateway says where tunnels end, and Envoy carries a chat there as a node's proxy does.

use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tollgate_tests::client::Connection;
use tollgate_tests::cluster::Cluster;
use tollgate_tests::envoy::{Envoy, Mesh, Tunnel};
use tollgate_tests::{Client, Leaf, Protocol, SecretKind, Upstream, needs, provider};

use super::super::{EGRESS, USER};
use super::example::example;
use super::{ADDRESS, Routed, installed, of_gateway};

const OWN: &str = "spiffe://prod.acme/ns/egress/sa/tollgate";
const VIRTUAL: &str = "240.241.0.1";

/// The example's objects that this API server knows, with a provider on this machine, its key in a Secret, and this mesh's trust domain.
fn objects(port: u16) -> String {
    let mesh = example("istio-ambient/mesh.yaml");
    let entry = mesh.split("---\n").find(|text| text.contains("kind: ServiceEntry")).expect("a ServiceEntry");
    assert!(entry.contains(&format!("addresses: [{VIRTUAL}]")) && entry.contains("use-waypoint: tollgate"));
    let of_gateway = mesh.split("---\n").filter(|text| text.contains("kind: Gateway"));
    let resources = example("istio-ambient/resources.yaml")
        .replace("spiffe://cluster.local/", "spiffe://prod.acme/")
        .replace(
            "vault: {address: \"https://bao.vault.svc:8200\", auth: {kubernetes: {role: tollgate}}}",
            "kubernetes: {}",
        )
        .replace("path: llm/openai, field: api_key", "path: openai, field: key")
        .replace("  dialect: openai\n", &format!("  dialect: openai\n  port: {port}\n"));
    of_gateway.map(str::to_owned).chain([resources]).collect::<Vec<_>>().join("\n---\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_an_ambient_mesh_says_where_its_tunnels_end_and_carries_a_chat() {
    needs!(Cluster::installed(), installed(), Envoy::installed());
    let mut routed = Routed::new().await;
    routed.install("1.7.0").await;
    let own = Leaf { uris: vec![OWN.to_owned()], ..Leaf::server(&["localhost"]) };
    let world = &mut routed.world;
    world.settings.certificate = world.plan.prod.issue(&world.plan.sandbox, "gateway", &own);
    world.settings.listeners.push("{name: tunnels, kind: hbone, address: \"127.0.0.1:0\"}".to_owned());
    let (world, plan) = (&routed.world, &routed.world.plan);
    let rules = json!([
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["openai"], "verbs": ["get", "watch"]},
    ]);
    world.cluster.allow(USER, Some(EGRESS), &rules).await;
    plan.sandbox.stands_for(&plan.key, &[SecretKind::Kubernetes, SecretKind::Bearer]);
    world.cluster.secret(EGRESS, "openai", "key", &plan.key).await;
    let server = plan.pki.server(&plan.sandbox, &["api.openai.com"]);
    let upstream = Upstream::http(&server, &["http/1.1"], provider::openai(&plan.key, 9, 2)).await;
    routed.dns.now_says(&json!({"api.openai.com": {"A": ["127.0.0.1"]}}));
    world.cluster.namespace("shop", &json!({}), &[]).await;
    world.cluster.apply(&objects(upstream.port())).await;
    let gateway = world.start().await;

    // What Istio reads: where the waypoint is.
    routed.told(&of_gateway("tollgate"), "", "Programmed", "True", "Programmed").await;
    let status = world.cluster.get(&of_gateway("tollgate")).await["status"].clone();
    assert_eq!(status["addresses"], json!([{"type": "Hostname", "value": ADDRESS}]));
    assert_eq!(status["listeners"][0]["supportedKinds"], json!([]));
    world.condition("/apis/tollgate.dev/v1alpha1/namespaces/shop/grants/openai", "Programmed", "True").await;

    let identity = plan.prod.svid(&plan.sandbox, "spiffe://prod.acme/ns/shop/sa/web");
    let web = Client::new(&plan.sandbox, gateway.listener("tunnels"), plan.prod.roots(), Some(identity));
    let web = web.naming("api.openai.com");
    let authority = format!("{VIRTUAL}:80");
    let mesh = Mesh {
        gateway: gateway.listener("tunnels"),
        gateway_id: OWN,
        bundle: plan.prod.bundle().to_owned(),
        workload: web.identity(),
    };
    let tunnel = Tunnel { mesh, authority: &authority };
    let envoy = Envoy::start(&plan.sandbox, &tunnel).await;
    let stream = TcpStream::connect(envoy.address()).await.expect("Envoy listens");
    let mut connection = Connection::over(&web, stream, Protocol::H1).await.expect("a connection");
    let chat = json!({"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Say hello."}]});
    let mut request = web.request(Method::POST, "/v1/chat/completions", chat.to_string());
    request.headers_mut().insert("content-type", "application/json".parse().expect("a value"));
    connection.send(request).await.expect("an answer").assert_status(200);
    let seen = upstream.seen().pop().expect("a call");
    assert_eq!(seen.header("authorization"), format!("Bearer {}", plan.key));
    let spent = |grant: &Value| grant["status"]["limits"].to_string().contains("USD");
    world.cluster.until("/apis/tollgate.dev/v1alpha1/namespaces/shop/grants/openai", spent).await;
    routed.leave().await;
}
