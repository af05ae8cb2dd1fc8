//! Envoy on either side of the gateway, as the sidecar of a workload and as the edge of a provider: what breaks off behind it is not taken
//! for whole. Envoy says by a reset of the stream that it broke off; an old one gives it the code `NO_ERROR`.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tollgate_tests::envoy::{Envoy, Mesh, Release};
use tollgate_tests::fixture::CHECKOUT;
use tollgate_tests::gateway::eventually;
use tollgate_tests::{Client, Gateway, Leaf, Plan, Protocol, Reply, ledger, needs};

const GATEWAY: &str = "spiffe://prod.acme/ns/egress/sa/tollgate";
const BEGUN: &str = "transfer-encoding: chunked\r\n\r\n5\r\nhalf\n\r\n";
const ENDED: &str = "0\r\n\r\n";

/// A request or an answer without its body.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// Answers `/whole` to the end, and breaks off everything else.
async fn provider() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                while let Some(head) = head(&mut stream).await {
                    stream.write_all(format!("HTTP/1.1 200 OK\r\n{BEGUN}").as_bytes()).await.expect("sent");
                    // What was said passes on before the end can.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    if !head.contains("/whole") {
                        return;
                    }
                    stream.write_all(ENDED.as_bytes()).await.expect("sent");
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_behind_the_edge_of_a_provider_is_cut() {
    needs!(Release::BOTH.into_iter().all(Release::installed));
    for release in Release::BOTH {
        assert_answers_are_cut(release).await;
    }
}

async fn assert_answers_are_cut(release: Release) {
    let plan = Plan::new();
    let edge = Envoy::edge(&plan.sandbox, release, &plan.server, provider().await).await;
    let mut settings = plan.complete(edge.address().port());
    for (_, text) in &mut settings.resources {
        *text = text.replace("  dialect:", "  http: 2\n  dialect:");
    }
    let gateway = Gateway::start(&plan.sandbox, &settings).await;
    let identity = plan.prod.svid(&plan.sandbox, CHECKOUT);
    let client = Client::new(&plan.sandbox, gateway.address(), plan.pki.roots(), Some(identity));
    for protocol in Protocol::BOTH {
        let whole =
            client.send(protocol, client.request(Method::GET, "/up/whole", "")).await.expect("an answer");
        assert_eq!((whole.status.as_u16(), &*whole.text()), (200, "half\n"));
        let cut = client.send(protocol, client.request(Method::GET, "/up/cut", "")).await;
        assert!(cut.is_err(), "{release:?} {protocol:?}: {cut:?}");
    }
    let outcomes = || {
        let records = ledger::records(&gateway);
        records.iter().map(|record| record["outcome"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    eventually("all are recorded", || outcomes().len() == 4).await;
    let expected = ["completed", "upstream_failed", "completed", "upstream_failed"];
    assert_eq!(outcomes(), expected.map(|it| Some(it.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_behind_the_sidecar_of_a_workload_does_not_arrive_as_whole() {
    needs!(Release::BOTH.into_iter().all(Release::installed));
    for release in Release::BOTH {
        assert_uploads_are_cut(release).await;
    }
}

async fn assert_uploads_are_cut(release: Release) {
    let mut plan = Plan::new();
    let own = Leaf { uris: vec![GATEWAY.to_owned()], ..Leaf::server(&["localhost"]) };
    plan.settings.certificate = plan.prod.issue(&plan.sandbox, "gateway", &own);
    let fixture = plan.start(|seen| Reply::status(200).data(seen.body.clone())).await;
    let mesh = Mesh {
        gateway: fixture.gateway.address(),
        gateway_id: GATEWAY,
        bundle: fixture.prod.bundle().to_owned(),
        workload: &fixture.prod.svid(&fixture.sandbox, CHECKOUT),
    };
    let sidecar = Envoy::sidecar(&fixture.sandbox, release, &mesh).await;
    let upload = || async {
        let mut app = TcpStream::connect(sidecar.address()).await.expect("the sidecar listens");
        let begun = format!("POST /up/object HTTP/1.1\r\nhost: localhost\r\n{BEGUN}");
        app.write_all(begun.as_bytes()).await.expect("sent");
        // What was said passes on before the end can.
        tokio::time::sleep(Duration::from_millis(200)).await;
        app
    };
    for _ in 0..10 {
        drop(upload().await);
    }
    eventually("all are recorded", || ledger::records(&fixture.gateway).len() == 10).await;
    assert_eq!(fixture.upstream.count(), 0, "{release:?}: {:?}", fixture.upstream.seen());
    let records = ledger::records(&fixture.gateway);
    assert!(records.iter().all(|record| record["outcome"] == "caller_gone"), "{records:?}");
    let mut app = upload().await;
    app.write_all(ENDED.as_bytes()).await.expect("sent");
    let answered = head(&mut app).await.expect("an answer");
    assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
    assert_eq!(fixture.upstream.only().body, "half\n");
}
