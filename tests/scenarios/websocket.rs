//! WebSocket by another implementation on both sides.

use http::Method;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tollgate_tests::gateway::eventually;
use tollgate_tests::process::free_port;
use tollgate_tests::{Fixture, Plan, Protocol, Reply, Upstream, ledger, needs, websockets};

const GRANT: &str =
    "  allow: {methods: [GET], paths: [/echo, /key, /head, \"/close/*\", /break], upgrades: [websocket]}\n";

/// A gateway before a port where the script's own provider will be, and what the script is to be told of that.
async fn fixture() -> (Fixture, Value) {
    fixture_of(Plan { grant: GRANT.to_owned(), ..Plan::new() }, "").await
}

/// The same, with more of a destination.
async fn fixture_of(plan: Plan, destination: &str) -> (Fixture, Value) {
    let port = free_port();
    let mut settings = plan.complete(port);
    for (_, text) in settings.resources.iter_mut().filter(|(file, _)| file == "fixture.yaml") {
        *text = text.replace("  dialect:", &format!("{destination}  dialect:"));
    }
    let unused = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(500)).await;
    let (cert, key) = (plan.server.cert.clone(), plan.server.key.clone());
    let fixture = Plan { settings, ..plan }.start_with(unused).await;
    (fixture, json!({"port": port, "server_cert": cert, "server_key": key}))
}

/// A WebSocket in a stream of HTTP/2 (RFC 8441).
async fn over_http2(fixture: &Fixture) -> TokioIo<Upgraded> {
    let client = fixture.checkout();
    let mut connection = client.open(Protocol::H2).await.unwrap();
    // Its SETTINGS say that it takes such requests.
    connection.send(client.request(Method::GET, "/up/elsewhere", "")).await.unwrap();
    let mut request = client.request(Method::CONNECT, "/up/echo", "");
    request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
    request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    let answer = connection.start(request).await.unwrap();
    assert_eq!(answer.status(), 200, "{:?}", answer.headers());
    TokioIo::new(hyper::upgrade::on(answer).await.unwrap())
}

/// Sends a text, masked as a client has to (RFC 6455, section 5.3), and returns the frame that comes back.
pub(crate) async fn echoed(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), text: &[u8]) -> (u8, Vec<u8>) {
    let mask = [7, 1, 9, 4];
    let masked = text.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    let head = [0x81, 0x80 | u8::try_from(text.len()).unwrap()];
    let sent: Vec<u8> = head.into_iter().chain(mask).chain(masked).collect();
    stream.write_all(&sent).await.unwrap();
    frame(stream).await
}

/// The next frame of a server: its first byte, and its content.
pub(crate) async fn frame(stream: &mut (impl AsyncRead + Unpin)) -> (u8, Vec<u8>) {
    let (first, length) = (stream.read_u8().await.unwrap(), stream.read_u8().await.unwrap());
    let mut content = vec![0; usize::from(length)];
    stream.read_exact(&mut content).await.unwrap();
    (first, content)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_as_without_the_gateway_but_for_its_key() {
    needs!(websockets::installed());
    let (fixture, call) = fixture().await;
    let said = websockets::run(&fixture.sandbox, &fixture.checkout(), fixture.pki.bundle(), &call).await;
    assert_eq!(said["right"], 10_000, "{said}");
    assert_eq!((&said["large"], &said["pong"]), (&json!(true), &json!(true)), "{said}");
    assert_eq!((&said["fragments"], &said["empty"]), (&json!("fragments"), &json!("")), "{said}");
    assert_eq!(
        (&said["extensions"], &said["code"]),
        (&json!([]), &json!(1000)),
        "compression was not left out"
    );
    // The key that was put on the handshake comes back in none of its messages.
    let masked = format!("Bearer {}", "*".repeat(fixture.key.len()));
    let whole = [masked.clone(), masked.clone(), format!("{masked}!"), format!("a {masked}")];
    assert_eq!(said["key"]["got"], json!(whole), "{said}");
    assert_eq!(
        (&said["key"]["code"], said["key"]["reason"].as_str()),
        (&json!(4001), Some(&*masked)),
        "{said}"
    );
    let fields = said["head"]["fields"].to_string().to_lowercase();
    assert!(fields.contains("realtime") && !fields.contains("sk-of-the-caller"), "{fields}");
    assert_eq!(said["head"]["chosen"], "realtime");
    assert_eq!(said["codes"], json!([1000, 1001, 1008, 1011, 3000, 4999]));
    assert_eq!(said["broken"], json!([["before"], null]), "a provider that breaks off is no clean end");
    assert_eq!(said["mine"], 4000);
    assert_eq!(said["elsewhere"], json!([403, "path_not_allowed"]));
    // Ten were opened, each of which is one record, and one was refused.
    let outcomes = || ledger::column(&fixture.gateway, "outcome");
    let count = |outcome: &str| outcomes().iter().filter(|it| *it == outcome).count();
    eventually("all are recorded", || outcomes().len() == 12).await;
    assert_eq!(
        (count("completed"), count("upstream_failed"), count("refused")),
        (10, 1, 1),
        "{:?}",
        outcomes()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_ends_with_its_grant_and_is_told_so() {
    needs!(websockets::installed());
    let (fixture, mut call) = fixture().await;
    let opened = fixture.sandbox.providers().join("opened");
    call["opened"] = json!(opened);
    let (client, withdrawn) = (fixture.checkout(), async {
        eventually("the WebSocket is open", || opened.exists()).await;
        let mut over_http2 = over_http2(&fixture).await;
        assert_eq!(echoed(&mut over_http2, b"first").await, (0x81, b"first".to_vec()));
        let resources = fixture.gateway.settings().resources.clone();
        let (_, text) = resources.iter().find(|(file, _)| file == "fixture.yaml").unwrap();
        fixture.gateway.replace("fixture.yaml", &text.replace(", upgrades: [websocket]", "")).await;
        let (opcode, told) = frame(&mut over_http2).await;
        assert_eq!((opcode, &told[2..]), (0x88, &b"withdrawn"[..]), "a close frame with its reason");
        assert_eq!(u16::from_be_bytes([told[0], told[1]]), 1008);
    });
    let script = websockets::run(&fixture.sandbox, &client, fixture.pki.bundle(), &call);
    let (said, ()) = tokio::join!(script, withdrawn);
    assert_eq!(said, json!({"first": "first", "code": 1008, "reason": "withdrawn"}));
    let reasons = || ledger::column(&fixture.gateway, "reason");
    eventually("both are recorded", || reasons().iter().filter(|reason| *reason == "withdrawn").count() == 2)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_outlasts_the_drain_is_told_that_the_gateway_goes_away() {
    needs!(websockets::installed());
    let (fixture, mut call) = fixture().await;
    let opened = fixture.sandbox.providers().join("opened");
    call["opened"] = json!(opened);
    let (client, drained) = (fixture.checkout(), async {
        eventually("the WebSocket is open", || opened.exists()).await;
        fixture.gateway.begin_drain();
    });
    let script = websockets::run(&fixture.sandbox, &client, fixture.pki.bundle(), &call);
    let (said, ()) = tokio::join!(script, drained);
    assert_eq!(said, json!({"first": "first", "code": 1001, "reason": "the gateway goes away"}));
    eventually("it is recorded", || ledger::column(&fixture.gateway, "reason") == ["drained"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn however_a_websocket_ends_its_caller_is_told_and_its_record_says_why() {
    needs!(websockets::installed());
    let paths = "  allow: {methods: [GET], paths: [\"/**\"], upgrades: [websocket]}\n";
    let mut plan = Plan { grant: format!("{paths}  limits: [{{concurrency: 9}}]\n"), ..Plan::new() };
    plan.settings.extra += "limits: {messageBytes: 1 MiB, lifetime: 6s}\n";
    let (fixture, mut call) = fixture_of(plan, "  timeouts: {idle: 2s}\n").await;
    call["ends"] = json!(true);
    let said = websockets::run(&fixture.sandbox, &fixture.checkout(), fixture.pki.bundle(), &call).await;
    // The name in the script, what its caller is told, and the record; `null` is no close frame.
    let ends = [
        ("", Value::Null, "caller_gone", ""),
        ("violation", json!([1002, "a frame of the client is not masked"]), "refused", "bad_request"),
        ("large", json!([1009, "the message is too large"]), "refused", "bad_request"),
        ("provider wrong", json!([null, ""]), "upstream_failed", "upstream_protocol"),
        ("provider large", json!([null, ""]), "upstream_failed", "upstream_protocol"),
        ("provider silent", json!([1001, "nothing was sent"]), "upstream_failed", "upstream_timeout"),
        ("lifetime", json!([1001, "limits.lifetime is over"]), "caller_gone", ""),
    ];
    eventually("all are recorded", || ledger::records(&fixture.gateway).len() == ends.len()).await;
    for ((name, told, outcome, reason), record) in ends.iter().zip(ledger::records(&fixture.gateway)) {
        assert_eq!(&said[*name], told, "{name}: {said}");
        let said = |member: &str| record[member].as_str().unwrap_or_default().to_owned();
        assert_eq!((&*said("outcome"), &*said("reason")), (*outcome, *reason), "{name}: {record}");
    }
}
