//! The tunnels of an ambient mesh: a workload's plain HTTP in HTTP/2 CONNECT over mutual TLS, carried by Envoy, and by a client that
//! does what Istio's ztunnel does.

use std::time::Duration;

use http::{Method, Request};
use http_body_util::Empty;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tollgate_tests::client::Connection;
use tollgate_tests::envoy::{Envoy, Mesh, Tunnel};
use tollgate_tests::fixture::{CHECKOUT, Fixture};
use tollgate_tests::gateway::eventually;
use tollgate_tests::hbone::HboneClient;
use tollgate_tests::{Client, Leaf, Plan, Protocol, Reply, Upstream, ledger, needs};

const GATEWAY: &str = "spiffe://prod.acme/ns/egress/sa/tollgate";
const VIRTUAL: &str = "240.240.0.7";

/// A gateway with a listener for tunnels that shows an SVID of the mesh, and a destination that has an address in it.
async fn mesh() -> Fixture {
    let mut plan = Plan::new();
    let own = Leaf { uris: vec![GATEWAY.to_owned()], ..Leaf::server(&["localhost"]) };
    plan.settings.certificate = plan.prod.issue(&plan.sandbox, "gateway", &own);
    plan.settings.listeners.push("{name: tunnels, kind: hbone, address: \"127.0.0.1:0\"}".to_owned());
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |seen| match seen.target.as_str() {
        "/slow" => Reply::status(200).data("begun ").wait(Duration::from_secs(5)).data("ended"),
        _ => Reply::status(200).data("through the tunnel"),
    })
    .await;
    plan.settings = plan.complete(upstream.port());
    for (_, text) in &mut plan.settings.resources {
        *text = text.replacen("  port:", &format!("  virtualAddresses: [{VIRTUAL}]\n  port:"), 1);
    }
    plan.start_with(upstream).await
}

/// A workload with an SVID, at the listener for tunnels; what it asks for inside is for `api.up.test`.
fn workload(fixture: &Fixture, spiffe: &str) -> Client {
    let identity = fixture.prod.svid(&fixture.sandbox, spiffe);
    let address = fixture.gateway.listener("tunnels");
    Client::new(&fixture.sandbox, address, fixture.prod.roots(), Some(identity)).naming("api.up.test")
}

async fn envoy(fixture: &Fixture, workload: &Client, authority: &str) -> Envoy {
    let mesh = Mesh {
        gateway: fixture.gateway.listener("tunnels"),
        gateway_id: GATEWAY,
        bundle: fixture.prod.bundle().to_owned(),
        workload: workload.identity(),
    };
    let tunnel = Tunnel { mesh, authority };
    Envoy::start(&fixture.sandbox, &tunnel).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workloads_plain_http_gets_the_key_through_envoys_tunnels() {
    needs!(Envoy::installed());
    let fixture = mesh().await;
    let checkout = workload(&fixture, CHECKOUT);
    for authority in [format!("{VIRTUAL}:80"), "api.up.test:80".to_owned()] {
        let envoy = envoy(&fixture, &checkout, &authority).await;
        for _ in 0..20 {
            let stream = TcpStream::connect(envoy.address()).await.unwrap();
            let mut connection = Connection::over(&checkout, stream, Protocol::H1).await.unwrap();
            for _ in 0..3 {
                let answer = connection.send(checkout.request(Method::GET, "/one", "")).await.unwrap();
                answer.assert_status(200);
                assert_eq!(answer.body, "through the tunnel");
            }
        }
    }
    assert_eq!(fixture.upstream.count(), 120);
    for seen in fixture.upstream.seen() {
        assert_eq!(seen.header("authorization"), format!("Bearer {}", fixture.key));
        assert_eq!(seen.authority, format!("api.up.test:{}", fixture.upstream.port()));
    }
    let callers = ledger::column(&fixture.gateway, "caller");
    assert_eq!(callers.len(), 120, "a request is recorded, its tunnel is not");
    assert!(callers.iter().all(|caller| caller == CHECKOUT), "{callers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_without_a_grant_gets_no_tunnel_and_a_record_says_why() {
    let fixture = mesh().await;
    let stranger = workload(&fixture, "spiffe://prod.acme/ns/search/sa/web");
    let mut mesh_client = HboneClient::connect(&stranger).await;
    for authority in [format!("{VIRTUAL}:80"), "api.up.test:443".to_owned()] {
        let refused = mesh_client.ask(&authority).await;
        assert_eq!(refused.status(), 401, "as ztunnel says it");
        assert_eq!(refused.headers()["x-tollgate-reason"], "no_grant");
    }
    let other = workload(&fixture, CHECKOUT).showing(None);
    let showed_nothing = async {
        // Nothing is written: it would be reset, and what it is told with it.
        other.handshake(other.tls(&["h2"])).await?.read_u8().await?;
        Ok::<_, tollgate_tests::client::Failure>(())
    };
    let refused =
        tokio::time::timeout(Duration::from_secs(10), showed_nothing).await.expect("it is turned away");
    assert!(format!("{:?}", refused.unwrap_err()).contains("CertificateRequired"));
    eventually("both are recorded", || ledger::records(&fixture.gateway).len() == 2).await;
    for record in ledger::records(&fixture.gateway) {
        assert_eq!(
            (&record["reason"], &record["destination"]),
            (&"no_grant".into(), &"up".into()),
            "{record}"
        );
    }
    assert_eq!(fixture.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_tunnels_of_one_connection_carry_either_http_and_end_with_their_answers_at_a_drain() {
    let mut fixture = mesh().await;
    let checkout = workload(&fixture, CHECKOUT);
    let mut mesh_client = HboneClient::connect(&checkout).await;
    let mut open = Vec::new();
    for index in 0..100 {
        let protocol = Protocol::BOTH[index % 2];
        let mut inside = mesh_client.inside(&checkout, &format!("{VIRTUAL}:80"), protocol).await;
        let request = |path: &str| match protocol {
            Protocol::H1 => checkout.request(Method::GET, path, ""),
            Protocol::H2 => {
                let mut request = checkout.request(Method::GET, path, "");
                *request.uri_mut() = format!("http://api.up.test{path}").parse().unwrap();
                request
            }
        };
        inside.send(request("/one")).await.unwrap().assert_status(200);
        open.push((inside, request("/slow")));
    }
    let slow =
        open.into_iter().map(|(mut inside, request)| tokio::spawn(async move { inside.send(request).await }));
    let slow: Vec<_> = slow.collect();
    eventually("all are under way", || fixture.upstream.count() == 200).await;
    assert!(slow.iter().all(|answer| !answer.is_finished()), "none has ended before the drain");
    assert_eq!(mesh_client.wire().leaving().len(), 0);
    fixture.gateway.begin_drain();
    // It is told to open its next tunnel elsewhere while those that are open go on.
    eventually("it is told, and then with its last stream", || mesh_client.wire().leaving().len() >= 2).await;
    let request = Request::connect("api.up.test:80").body(Empty::new()).unwrap();
    let another = tokio::time::timeout(Duration::from_secs(10), mesh_client.try_ask(request)).await;
    assert!(another.expect("it does not wait").is_err(), "no other tunnel is opened on it");
    assert!(slow.iter().all(|answer| !answer.is_finished()), "all of them go on");
    for answer in slow {
        let answer = answer.await.unwrap().unwrap();
        answer.assert_status(200);
        assert_eq!(answer.body, "begun ended");
    }
    assert!(fixture.gateway.ended().await.success());
    assert!(mesh_client.wire().leaving().iter().all(|code| *code == 0), "without an error");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnels_authority_and_its_requests_have_to_agree() {
    let fixture = mesh().await;
    let checkout = workload(&fixture, CHECKOUT);
    let mut mesh_client = HboneClient::connect(&checkout).await;
    for (authority, status, reason) in [
        ("240.240.0.8:80", 421, "unknown_host"),
        ("169.254.169.254:80", 421, "unknown_host"),
        ("api.elsewhere.test:443", 421, "unknown_host"),
    ] {
        let refused = mesh_client.ask(authority).await;
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["x-tollgate-reason"]),
            (status, &reason.parse().unwrap())
        );
    }
    let mut inside = mesh_client.inside(&checkout, "api.up.test:80", Protocol::H1).await;
    let mut request = checkout.request(Method::GET, "/up/one", "");
    request.headers_mut().insert("host", "localhost".parse().unwrap());
    inside.send(request).await.unwrap().assert_refused(400, "ambiguous_authority");
    assert_eq!(fixture.upstream.count(), 0);
    let disagrees = |record: &serde_json::Value| record["reason"] == "ambiguous_authority";
    eventually("it is recorded", || ledger::records(&fixture.gateway).iter().any(disagrees)).await;
    let records = ledger::records(&fixture.gateway);
    let record = records.iter().find(|record| disagrees(record)).unwrap();
    assert_eq!((&record["destination"], &record["path"]), (&"up".into(), &"/one".into()), "{record}");
    let mut inside = mesh_client.inside(&checkout, "localhost:8443", Protocol::H1).await;
    let mut request = checkout.request(Method::GET, "/up/one", "");
    request.headers_mut().insert("host", "localhost".parse().unwrap());
    inside.send(request).await.unwrap().assert_status(200);
    assert_eq!(fixture.upstream.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_workload_says_of_itself_in_a_tunnel_proves_nothing_and_goes_no_further() {
    let fixture = mesh().await;
    let stranger = workload(&fixture, "spiffe://prod.acme/ns/search/sa/web");
    let checkout = workload(&fixture, CHECKOUT);
    let said = |client: &Client, id: &str| {
        let mut request = client.request(Method::GET, "/one", "");
        for name in
            ["x-forwarded-client-cert", "forwarded", "x-forwarded-for", "baggage", "x-envoy-original-path"]
        {
            request.headers_mut().insert(name, format!("By=spiffe://prod.acme/gw;URI={id}").parse().unwrap());
        }
        request
    };
    let mut mesh_client = HboneClient::connect(&checkout).await;
    let mut inside = mesh_client.inside(&checkout, &format!("{VIRTUAL}:80"), Protocol::H1).await;
    inside.send(said(&checkout, "spiffe://prod.acme/ns/admin/sa/root")).await.unwrap().assert_status(200);
    let seen = fixture.upstream.only();
    assert!(!seen.everything().contains("ns/admin/sa/root"), "{seen:#?}");
    let mut connect = Request::connect(format!("{VIRTUAL}:80")).body(Empty::new()).unwrap();
    let xfcc = format!("By=spiffe://prod.acme/gw;URI={CHECKOUT}");
    connect.headers_mut().insert("x-forwarded-client-cert", xfcc.parse().unwrap());
    let mut mesh_client = HboneClient::connect(&stranger).await;
    let refused = mesh_client.ask_with(connect).await;
    assert_eq!((refused.status().as_u16(), fixture.upstream.count()), (401, 1));
}
