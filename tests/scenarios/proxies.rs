//! Listeners behind a proxy that says who really connected (PROXY protocol, version 2), and behind one that has verified the workload, as
//! Istio's ztunnel says it to a waypoint.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use http::{HeaderValue, Method};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tollgate_tests::client::Connection;
use tollgate_tests::fixture::CHECKOUT;
use tollgate_tests::gateway::{eventually, field};
use tollgate_tests::haproxy::Haproxy;
use tollgate_tests::resources::document;
use tollgate_tests::{Client, Fixture, Plan, Protocol, Reply, ledger, needs};

pub(crate) const SPIFFE_TLV: u8 = 0xD0;
const WORKLOAD: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)), 55_000);

/// A gateway with a listener behind each kind of proxy, all of which are at 127.0.0.1, and one that lists others.
async fn fixture() -> Fixture {
    let mut plan = Plan::new();
    for (name, proxy) in [
        ("balanced", "{from: [127.0.0.1/32]}"),
        ("sandwich", "{from: [127.0.0.1/32], spiffeTlv: true}"),
        ("elsewhere", "{from: [192.0.2.0/24], spiffeTlv: true}"),
        ("connections, kind: tcp", "{from: [127.0.0.1/32], spiffeTlv: true}"),
        ("foreign, kind: tcp", "{from: [192.0.2.0/24], spiffeTlv: true}"),
    ] {
        let listener = format!("{{name: {name}, address: \"127.0.0.1:0\", proxyProtocol: {proxy}}}");
        plan.settings.listeners.push(listener);
    }
    plan.start(|_| Reply::status(200).data("through")).await
}

/// What a proxy says before a connection from 203.0.113.7.
pub(crate) fn header(tlvs: &[(u8, &str)]) -> Vec<u8> {
    header_to(80, tlvs)
}

/// The same of a connection to a port of 240.240.0.7.
fn header_to(port: u16, tlvs: &[(u8, &str)]) -> Vec<u8> {
    let mut rest = [203, 0, 113, 7, 240, 240, 0, 7].to_vec();
    rest.extend(WORKLOAD.port().to_be_bytes());
    rest.extend(port.to_be_bytes());
    for (kind, value) in tlvs {
        rest.push(*kind);
        rest.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        rest.extend(value.as_bytes());
    }
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    header.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
    header.extend(rest);
    header
}

async fn connect(fixture: &Fixture, listener: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(fixture.gateway.listener(listener)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// HTTP of a workload that ztunnel names.
async fn named(fixture: &Fixture, client: &Client, spiffe: &str, protocol: Protocol) -> Connection {
    let stream = connect(fixture, "sandwich", &header(&[(0x02, "api.up.test"), (SPIFFE_TLV, spiffe)])).await;
    Connection::over(client, stream, protocol).await.unwrap()
}

/// Whether the gateway closes a connection that begins like this, and answers nothing.
async fn is_closed(fixture: &Fixture, listener: &str, bytes: &[u8]) -> bool {
    let mut stream = connect(fixture, listener, bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    // Closed with bytes unread, a socket is reset.
    read.is_ok() && answer.is_empty()
}

fn refused(fixture: &Fixture, reason: &str) -> f64 {
    fixture.gateway.metrics().sum("tollgate_tls_handshakes_refused_total", &[&format!("reason=\"{reason}\"")])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_that_a_listed_proxy_names_is_that_caller_and_nothing_that_it_says_of_itself_is() {
    let fixture = fixture().await;
    let client = fixture.stranger(None).naming("api.up.test");
    for protocol in Protocol::BOTH {
        let mut connection = named(&fixture, &client, CHECKOUT, protocol).await;
        let mut request = client.request(Method::GET, "/one", "");
        if protocol == Protocol::H2 {
            *request.uri_mut() = "http://api.up.test/one".parse().unwrap();
        }
        let said =
            HeaderValue::from_static("By=spiffe://prod.acme/gw;URI=spiffe://prod.acme/ns/admin/sa/root");
        for name in ["x-forwarded-client-cert", "x-forwarded-for", "forwarded", "baggage"] {
            request.headers_mut().insert(name, said.clone());
        }
        connection.send(request).await.unwrap().assert_status(200);
        let seen = fixture.upstream.seen().pop().unwrap();
        assert!(!seen.everything().contains("ns/admin/sa/root"), "{seen:#?}");
        assert_eq!(seen.header("authorization"), format!("Bearer {}", fixture.key));
    }
    let mut other = named(&fixture, &client, "spiffe://prod.acme/ns/search/sa/web", Protocol::H1).await;
    let mut request = client.request(Method::GET, "/one", "");
    let said = format!("By=spiffe://prod.acme/gw;URI={CHECKOUT}");
    request.headers_mut().insert("x-forwarded-client-cert", said.parse().unwrap());
    other.send(request).await.unwrap().assert_refused(403, "no_grant");
    assert_eq!(fixture.upstream.count(), 2);
    eventually("all are recorded", || ledger::records(&fixture.gateway).len() == 3).await;
    for record in ledger::records(&fixture.gateway) {
        assert_eq!(record["proof"], "proxy", "{record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_whole_header_of_a_listed_proxy_a_connection_is_closed() {
    let fixture = fixture().await;
    let web = header(&[(SPIFFE_TLV, CHECKOUT)]);
    let get = b"GET /up/x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let whole = [&web[..], get].concat();
    assert!(is_closed(&fixture, "elsewhere", &whole).await, "the proxy is not listed");
    assert_eq!(refused(&fixture, "proxy_stranger"), 1.0);
    let mut long = whole.clone();
    long[14] = 0xff;
    let twice = [header(&[(SPIFFE_TLV, CHECKOUT), (SPIFFE_TLV, CHECKOUT)]), get.to_vec()].concat();
    for (said, bytes) in [
        ("nothing", get.to_vec()),
        ("version 1", [b"PROXY TCP4 203.0.113.7 240.240.0.7 55000 80\r\n", &get[..]].concat()),
        ("an endless header", long),
        ("no workload", [header(&[]), get.to_vec()].concat()),
        ("two workloads", twice),
    ] {
        assert!(is_closed(&fixture, "sandwich", &bytes).await, "{said}");
    }
    assert_eq!(refused(&fixture, "proxy_header"), 5.0);
    for (id, reason) in [
        ("spiffe://prod.acme/../x", "not_a_spiffe_id"),
        ("spiffe://evil.example/web", "unknown_trust_domain"),
    ] {
        let bytes = [header(&[(SPIFFE_TLV, id)]), get.to_vec()].concat();
        assert!(is_closed(&fixture, "sandwich", &bytes).await, "{id}");
        assert_eq!(refused(&fixture, reason), 1.0, "{id}");
    }
    // A header that does not end takes no longer than a handshake may.
    let begun = Instant::now();
    assert!(is_closed(&fixture, "sandwich", &web[..20]).await);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(fixture.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_proxy_that_passes_tls_the_certificate_proves_the_caller_and_the_header_its_address() {
    needs!(Haproxy::installed());
    let fixture = fixture().await;
    let haproxy = Haproxy::passing(&fixture.sandbox, fixture.gateway.listener("balanced")).await;
    let through = |client: Client| client.at(haproxy.address());
    for _ in 0..10 {
        through(fixture.checkout()).get("/up/x").await.assert_status(200);
    }
    // What the header says of a workload proves nothing here.
    let client = fixture.caller("spiffe://prod.acme/ns/search/sa/web");
    let stream = connect(&fixture, "balanced", &header(&[(SPIFFE_TLV, CHECKOUT)])).await;
    let tls = TlsConnector::from(client.tls(&["http/1.1"]));
    let stream = tls.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    let mut connection = Connection::over(&client, stream, Protocol::H1).await.unwrap();
    let answer = connection.send(client.request(Method::GET, "/up/x", "")).await.unwrap();
    answer.assert_refused(403, "no_grant");
    // Who is turned away is logged with the address that it came from.
    let stream = connect(&fixture, "balanced", &header(&[])).await;
    let nobody = TlsConnector::from(fixture.stranger(None).tls(&["http/1.1"]));
    if let Ok(mut stream) = nobody.connect(ServerName::try_from("localhost").unwrap(), stream).await {
        assert!(stream.read_to_end(&mut Vec::new()).await.is_err());
    }
    let is_named = || {
        let log = fixture.gateway.log();
        log.iter().any(|line| {
            field(line, "reason") == "no_certificate"
                && field(line, "peer").as_str() == Some(&WORKLOAD.to_string())
        })
    };
    eventually("it is logged", is_named).await;
    // The proxy's own port without a proxy: TLS is no header.
    let direct = fixture.checkout().at(fixture.gateway.listener("balanced"));
    assert!(direct.open(Protocol::H1).await.is_err());
    assert_eq!(fixture.upstream.count(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_a_listed_proxy_names_leads_where_it_was_to_lead_and_no_other_is_taken() {
    let mut fixture = fixture().await;
    let queue = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = queue.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = queue.accept().await {
            stream.write_all(b"welcome").await.unwrap();
        }
    });
    let spec = format!(
        "  hosts: [queue.test]\n  port: {port}\n  protocol: tcp\n  addresses: [127.0.0.1]\n  virtualAddresses: [240.240.0.7]\n"
    );
    let grant = format!("  callers: [{{spiffe: \"{CHECKOUT}\"}}]\n  destination: queue\n");
    let resources = document("Destination", "queue", spec) + &document("Grant", "queue", grant);
    fixture.gateway.replace("queue.yaml", &resources).await;
    let named = |spiffe: &str| header_to(port, &[(SPIFFE_TLV, spiffe)]);
    let mut stream = connect(&fixture, "connections", &named(CHECKOUT)).await;
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "welcome");
    drop(stream);
    for (listener, bytes, why) in [
        ("foreign", named(CHECKOUT), "the proxy is not listed"),
        ("connections", named("spiffe://prod.acme/ns/search/sa/web"), "the workload has no grant"),
        ("connections", header_to(port + 1, &[(SPIFFE_TLV, CHECKOUT)]), "no destination has the port"),
        ("connections", header_to(port, &[]), "no workload is named"),
        ("connections", b"SELECT 1".repeat(4), "there is no header"),
    ] {
        assert!(is_closed(&fixture, listener, &bytes).await, "{why}");
    }
    assert_eq!(refused(&fixture, "proxy_stranger"), 1.0);
    eventually("all are recorded", || ledger::records(&fixture.gateway).len() == 3).await;
    let records = ledger::records(&fixture.gateway);
    assert!(records.iter().all(|record| record["proof"] == "proxy"), "{records:?}");
    let mut reasons = ledger::column(&fixture.gateway, "reason");
    reasons.sort();
    assert_eq!(reasons, ["", "no_grant", "unknown_host"]);
    fixture.gateway.stop();
}
