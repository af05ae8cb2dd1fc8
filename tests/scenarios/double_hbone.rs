//! Double HBONE: tunnels that come from another network of the mesh in tunnels that end here too, as Istio's ztunnel opens them.

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tollgate_tests::client::Connection;
use tollgate_tests::echo::echo;
use tollgate_tests::fixture::{CHECKOUT, Fixture};
use tollgate_tests::gateway::eventually;
use tollgate_tests::hbone::HboneClient;
use tollgate_tests::resources::document;
use tollgate_tests::{Client, Leaf, Plan, Protocol, Reply, ledger};

const GATEWAY: &str = "spiffe://prod.acme/ns/egress/sa/tollgate";
const EAST_WEST: &str = "spiffe://prod.acme/ns/istio-gateways/sa/east-west";
const SEARCH: &str = "spiffe://prod.acme/ns/search/sa/web";
const AUTHORITY: &str = "api.up.test:443";

/// A gateway at which both tunnels end, with `api.up.test` and, passed through, `queue.test`.
async fn network(queue: u16) -> Fixture {
    let mut plan = Plan::new();
    let own = Leaf { uris: vec![GATEWAY.to_owned()], ..Leaf::server(&["localhost"]) };
    plan.settings.certificate = plan.prod.issue(&plan.sandbox, "gateway", &own);
    let listener = format!(
        "{{name: network, kind: hbone, address: \"127.0.0.1:0\", doubleHbone: {{gateways: [\"{EAST_WEST}\"]}}}}"
    );
    plan.settings.listeners.push(listener);
    let spec = format!("  hosts: [queue.test]\n  port: {queue}\n  protocol: tcp\n  addresses: [127.0.0.1]\n");
    let grant = format!("  callers: [{{spiffe: \"{CHECKOUT}\"}}]\n  destination: queue\n");
    let resources = document("Destination", "queue", spec) + &document("Grant", "checkout-queue", grant);
    plan.settings = plan.settings.clone().resource("queue.yaml", resources);
    plan.start(|_| Reply::status(200).data("through both")).await
}

fn workload(fixture: &Fixture, spiffe: &str) -> Client {
    let identity = fixture.prod.svid(&fixture.sandbox, spiffe);
    let address = fixture.gateway.listener("network");
    Client::new(&fixture.sandbox, address, fixture.prod.roots(), Some(identity)).naming("api.up.test")
}

/// The tunnels of `inner` in one of `outer`.
async fn within(outer: &Client, inner: &Client, authority: &str) -> HboneClient {
    let tunnel = HboneClient::connect(outer).await.tunnel(authority).await;
    HboneClient::within(inner, tunnel).await.expect("TLS in the tunnel")
}

/// Records whose reason is this.
async fn refused(fixture: &Fixture, reason: &str) -> Vec<serde_json::Value> {
    let of = || {
        let mut records = ledger::records(&fixture.gateway);
        records.retain(|record| record["reason"] == reason);
        records
    };
    eventually("it is recorded", || !of().is_empty()).await;
    of()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workload_of_the_inner_tunnel_calls_whoever_has_carried_it() {
    let queue = echo().await;
    let fixture = network(queue).await;
    let checkout = workload(&fixture, CHECKOUT);
    let gateway = workload(&fixture, EAST_WEST);
    for outer in [&checkout, &gateway] {
        let mut inner = within(outer, &checkout, AUTHORITY).await;
        for protocol in Protocol::BOTH {
            let answer = inner.ask_inside(AUTHORITY).await.unwrap();
            assert_eq!(answer.status(), 200);
            let tunnel = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
            let mut http = Connection::over(&checkout, tunnel, protocol).await.unwrap();
            let mut request = checkout.request(http::Method::GET, "/one", "");
            if protocol == Protocol::H2 {
                *request.uri_mut() = "http://api.up.test/one".parse().unwrap();
            }
            assert_eq!(http.send(request).await.unwrap().body, "through both");
        }
        let authority = format!("queue.test:{queue}");
        let mut inner = within(outer, &checkout, &authority).await;
        let answer = inner.ask_inside(&authority).await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut tunnel = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
        tunnel.write_all(b"hello").await.unwrap();
        let mut echoed = [0; 5];
        tunnel.read_exact(&mut echoed).await.unwrap();
        assert_eq!(&echoed, b"hello");
        tunnel.shutdown().await.unwrap();
    }
    assert_eq!(fixture.upstream.count(), 4);
    for seen in fixture.upstream.seen() {
        assert_eq!(seen.header("authorization"), format!("Bearer {}", fixture.key));
        assert!(!seen.everything().contains("west"), "{seen:#?}");
    }
    eventually("all are recorded", || ledger::records(&fixture.gateway).len() == 6).await;
    let callers = ledger::column(&fixture.gateway, "caller");
    assert!(callers.iter().all(|caller| caller == CHECKOUT), "{callers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_tunnel_lends_its_identity_to_the_other() {
    let queue = echo().await;
    let fixture = network(queue).await;
    let [checkout, search, gateway] = [CHECKOUT, SEARCH, EAST_WEST].map(|id| workload(&fixture, id));
    // A workload without a grant carries nothing, not even for one that has some.
    let refusal = HboneClient::connect(&search).await.ask(AUTHORITY).await;
    assert_eq!(
        (refusal.status().as_u16(), &refusal.headers()["x-tollgate-reason"]),
        (401, &"no_grant".parse().unwrap())
    );
    // What a gateway carries has the grants of the workload inside, which are none.
    let mut inner = within(&gateway, &search, AUTHORITY).await;
    let refusal = inner.ask_inside(AUTHORITY).await.unwrap();
    assert_eq!(refusal.headers()["x-tollgate-reason"], "no_grant");
    let records = refused(&fixture, "no_grant").await;
    assert!(records.iter().all(|record| record["caller"] == SEARCH), "{records:?}");
    // Nor has the gateway any of its own.
    let mut inner = within(&gateway, &gateway, AUTHORITY).await;
    let refusal = inner.ask_inside(AUTHORITY).await.unwrap();
    assert_eq!(refusal.headers()["x-tollgate-reason"], "no_grant");
    // A workload carries no other's.
    let mut inner = within(&checkout, &search, AUTHORITY).await;
    assert!(inner.ask_inside(AUTHORITY).await.is_err(), "it is cut");
    let records = refused(&fixture, "proofs_disagree").await;
    assert_eq!((records.len(), &records[0]["caller"]), (1, &CHECKOUT.into()), "{records:?}");
    assert_eq!(fixture.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tunnel_is_in_one_and_leads_where_that_leads() {
    let queue = echo().await;
    let fixture = network(queue).await;
    let checkout = workload(&fixture, CHECKOUT);
    let authority = format!("queue.test:{queue}");
    let mut inner = within(&checkout, &checkout, &authority).await;
    let refusal = inner.ask_inside(AUTHORITY).await.unwrap();
    assert_eq!(
        (refusal.status().as_u16(), &refusal.headers()["x-tollgate-reason"]),
        (400, &"ambiguous_authority".parse().unwrap())
    );
    // Whoever shows nothing inside is nobody.
    let outer = HboneClient::connect(&checkout).await.tunnel(AUTHORITY).await;
    let turned_away = match HboneClient::within(&checkout.showing(None), outer).await {
        Ok(mut inner) => inner.ask_inside(AUTHORITY).await.is_err(),
        Err(_) => true,
    };
    assert!(turned_away);
    // What is no TLS has nobody to serve it.
    let mut outer = HboneClient::connect(&checkout).await.tunnel(AUTHORITY).await;
    outer.write_all(b"GET /up/one HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = outer.read_to_end(&mut said).await;
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    // A third one is taken for what a tunnel to an HTTP destination must not begin with.
    let mut inner = within(&checkout, &checkout, AUTHORITY).await;
    let answer = inner.ask_inside(AUTHORITY).await.unwrap();
    let tunnel = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    assert!(HboneClient::within(&checkout, tunnel).await.is_err());
    refused(&fixture, "tls_in_tunnel").await;
    assert_eq!(fixture.upstream.count(), 0);
}
