//! Every way in which a body can end: what came arrives, what is cut is seen as cut, and nobody waits for what never comes.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;
use tollgate_tests::provider::chat;
use tollgate_tests::{Fixture, Plan, Protocol, Reply, Upstream, needs, python};

type Stream = TlsStream<TcpStream>;

/// No ending may take longer to arrive than this.
const PATIENCE: Duration = Duration::from_secs(20);

/// How the provider ends its connection after what it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Keep,
    Close,
    Reset,
    Stall,
}

/// What it says, how it ends, and what the caller gets: the whole of a body, or only the beginning of one.
const WAYS: &[(&str, End, Result<&str, &str>)] = &[
    ("200 X\r\ncontent-length: 4\r\n\r\nfull", End::Keep, Ok("full")),
    ("200 X\r\nconnection: close\r\ncontent-length: 4\r\n\r\nfull", End::Close, Ok("full")),
    ("200 X\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfull\r\n0\r\n\r\n", End::Keep, Ok("full")),
    ("200 X\r\nconnection: close\r\n\r\nfull", End::Close, Ok("full")),
    ("429 X\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}", End::Keep, Ok("{}")),
    ("200 X\r\ncontent-length: 0\r\n\r\n", End::Keep, Ok("")),
    ("204 X\r\n\r\n", End::Keep, Ok("")),
    ("200 X\r\ncontent-length: 2000\r\n\r\nhalf\n", End::Close, Err("half\n")),
    ("200 X\r\ncontent-length: 2000\r\n\r\nhalf\n", End::Reset, Err("half\n")),
    ("200 X\r\ncontent-length: 2000\r\n\r\nhalf\n", End::Stall, Err("half\n")),
    ("200 X\r\ncontent-length: 900000\r\n\r\nhalf\n", End::Close, Err("half\n")),
    ("200 X\r\ncontent-length: 900000\r\n\r\nhalf\n", End::Stall, Err("half\n")),
    ("200 X\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhalf\n\r\n", End::Close, Err("half\n")),
    ("200 X\r\ntransfer-encoding: chunked\r\n\r\n40\r\nhalf\n", End::Close, Err("half\n")),
    ("200 X\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhalf\n\r\n", End::Stall, Err("half\n")),
    ("200 X\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhalf\n\r\nzz\r\n", End::Keep, Err("half\n")),
    ("200 X\r\ncontent-type: text/event-stream\r\n\r\ndata: {}\n\n", End::Stall, Err("data: {}\n\n")),
    (
        "429 X\r\ncontent-type: application/json\r\ncontent-length: 2000\r\n\r\n{\"error\":{\"message\":\"half\",",
        End::Close,
        Err("{\"error\":{\"message\":\"half\","),
    ),
    (
        "400 X\r\ncontent-type: application/json\r\ncontent-length: 2000\r\n\r\n{\"error\":{\"message\":\"half\",",
        End::Reset,
        Err("{\"error\":{\"message\":\"half\","),
    ),
    (
        "400 X\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{\"\r\n",
        End::Close,
        Err("{\""),
    ),
    (
        "500 X\r\ncontent-type: application/json\r\ncontent-length: 2000\r\n\r\n{\"error\": ",
        End::Close,
        Err("{\"error\": "),
    ),
];

/// One request, head and body of a known length; `None` when the peer is gone.
async fn request(stream: &mut Stream) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&text).to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
    stream.read_exact(&mut body).await.ok()?;
    Some(head)
}

/// Answers `/v1/chat/completions?N`, or `x-way: N`, in the way N, and everything else with `next`.
async fn provider(plan: &Plan) -> Upstream {
    Upstream::raw(&plan.server, &["http/1.1"], None, |mut stream, _| async move {
        while let Some(head) = request(&mut stream).await {
            let way =
                head.split("x-way: ").nth(1).and_then(|rest| rest.split("\r\n").next()).map(str::to_owned);
            let Some(way) = way.and_then(|way| way.parse::<usize>().ok()) else {
                let _ = stream.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 4\r\n\r\nnext").await;
                continue;
            };
            let (text, end, _) = WAYS[way];
            let _ = stream.write_all(format!("HTTP/1.1 {text}").as_bytes()).await;
            let _ = stream.flush().await;
            match end {
                End::Keep => {}
                End::Close => return drop(stream.shutdown().await),
                End::Reset => {
                    // What was said is on its way before the reset can overtake it.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    let _ = stream.get_ref().0.set_zero_linger();
                    return;
                }
                End::Stall => std::future::pending().await,
            }
        }
    })
    .await
}

/// The plan's settings, with a provider that may be silent for a second only.
fn idle_of_a_second(plan: &Plan, port: u16) -> tollgate_tests::Settings {
    let mut settings = plan.complete(port);
    let (_, text) = settings.resources.pop().expect("the fixture's resources");
    let dialect = format!("  dialect: {}\n", plan.dialect);
    let timeouts = format!("{dialect}  timeouts: {{connect: 2s, firstByte: 5s, idle: 1s}}\n");
    settings.resource("fixture.yaml", text.replacen(&dialect, &timeouts, 1))
}

async fn fixture(dialect: &'static str) -> Fixture {
    let models = if dialect == "http" { "" } else { ", models: [\"*\"]" };
    let grant = format!("  allow: {{methods: [POST, GET], paths: [\"/**\"]{models}}}\n");
    let plan = Plan { dialect, grant, ..Plan::new() };
    let upstream = provider(&plan).await;
    let settings = idle_of_a_second(&plan, upstream.port());
    Plan { settings, ..plan }.start_with(upstream).await
}

/// What a caller over HTTP/1.1 has when its connection ends, or falls silent after a complete answer.
async fn raw_answer(fixture: &Fixture, way: usize) -> (String, bool) {
    let body = chat(9).to_string();
    let text = format!(
        "POST /up/v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-way: {way}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}\
         GET /up/v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n",
        body.len()
    );
    let answer = fixture.checkout().raw(text.as_bytes()).await;
    (String::from_utf8_lossy(&answer.bytes).into_owned(), answer.closed)
}

async fn assert_ends_well(dialect: &'static str) {
    let fixture = fixture(dialect).await;
    let mut offences = Vec::new();
    for (way, (text, end, wanted)) in WAYS.iter().enumerate() {
        for protocol in Protocol::BOTH {
            let client = fixture.checkout();
            let mut request = client.json("/up/v1/chat/completions", &chat(9));
            request.headers_mut().insert("x-way", way.into());
            let answer = tokio::time::timeout(PATIENCE, client.send(protocol, request)).await;
            match (answer, wanted) {
                (Ok(Ok(answer)), Ok(wanted)) if answer.text() == *wanted => {}
                (Ok(Err(_)), Err(_)) => {}
                (answer, _) => offences.push(format!("{dialect} {protocol:?} {end:?} {text:?}: {answer:?}")),
            }
        }
        // Another call is behind it on the same connection: it is answered after a whole answer, and after nothing else.
        let (got, closed) = raw_answer(&fixture, way).await;
        let (first, rest) = got.split_once("\r\n\r\n").unwrap_or((&got, ""));
        let is_right = match wanted {
            Ok(wanted) => rest.contains(wanted) && got.ends_with("next"),
            Err(half) => closed && rest.contains(half) && !got.contains("next"),
        };
        if !is_right || !first.starts_with("HTTP/1.1 ") {
            offences.push(format!("{dialect} raw {end:?} {text:?}: closed {closed}, {got:?}"));
        }
    }
    assert!(offences.is_empty(), "{offences:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_an_answer_can_end_reaches_the_caller_as_what_it_is() {
    assert_ends_well("http").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_an_answer_can_end_reaches_the_caller_also_where_usage_is_read() {
    assert_ends_well("openai").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_a_stream_over_http_2_can_end_reaches_the_caller_as_what_it_is() {
    type Way = (&'static str, fn(Reply) -> Reply, Result<&'static str, ()>);
    let ways: &[Way] = &[
        ("whole", |reply| reply.data("full"), Ok("full")),
        ("with a length", |reply| reply.header("content-length", "4").data("full"), Ok("full")),
        ("empty", |reply| reply, Ok("")),
        ("cut", |reply| reply.data("half").wait(Duration::from_millis(50)).abort(), Err(())),
        (
            "cut before its length",
            |reply| {
                reply.header("content-length", "2000").data("half").wait(Duration::from_millis(50)).abort()
            },
            Err(()),
        ),
        ("cut at once", |reply| reply.header("content-length", "2000").data("half").abort(), Err(())),
        ("stalled", |reply| reply.data("half").wait(Duration::from_secs(60)).data("late"), Err(())),
    ];
    let plan = Plan { grant: "  allow: {methods: [GET], paths: [\"/**\"]}\n".to_owned(), ..Plan::new() };
    let respond = |seen: &tollgate_tests::Seen| {
        let way: usize = seen.header("x-way").parse().expect("a way");
        ways[way].1(Reply::status(200))
    };
    let upstream = Upstream::http(&plan.server, &["h2", "http/1.1"], respond).await;
    let settings = idle_of_a_second(&plan, upstream.port());
    let fixture = Plan { settings, ..plan }.start_with(upstream).await;
    for (way, (name, _, wanted)) in ways.iter().enumerate() {
        for protocol in Protocol::BOTH {
            let client = fixture.checkout();
            let mut request = client.request(Method::GET, "/up/x", "");
            request.headers_mut().insert("x-way", way.into());
            let answer =
                tokio::time::timeout(PATIENCE, client.send(protocol, request)).await.expect("it ends");
            match (answer, wanted) {
                (Ok(answer), Ok(wanted)) => assert_eq!(answer.text(), *wanted, "{name}"),
                (Err(_), Err(())) => {}
                // It broke off before anybody had looked at its head.
                (Ok(answer), Err(())) => answer.assert_refused(502, "upstream_reset"),
                (answer, _) => panic!("{name} {protocol:?}: {answer:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_grant_was_withdrawn_before_it_came_is_cut() {
    let (asked, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let plan = Plan::new();
    let (told, wait) = (asked.clone(), go.clone());
    let upstream = Upstream::raw(&plan.server, &["http/1.1"], None, move |mut stream, _| {
        let (told, wait) = (told.clone(), wait.clone());
        async move {
            while request(&mut stream).await.is_some() {
                told.notify_one();
                wait.notified().await;
                let _ = stream.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    let fixture = plan.start_with(upstream).await;
    let (_, text) = fixture.gateway.settings().resources[0].clone();
    for protocol in Protocol::BOTH {
        let client = fixture.checkout();
        let call = client.request(Method::GET, "/up/x", "");
        let sent = tokio::spawn(async move { client.send(protocol, call).await });
        asked.notified().await;
        fixture
            .gateway
            .replace("fixture.yaml", &text.replace("paths: [\"/**\"]", "paths: [\"/none\"]"))
            .await;
        go.notify_one();
        let answer = tokio::time::timeout(PATIENCE, sent).await.expect("it ends").unwrap();
        match answer {
            Err(_) => {}
            Ok(answer) => assert_eq!(answer.header("x-tollgate-reason"), "no_grant", "{}", answer.text()),
        }
        fixture.gateway.replace("fixture.yaml", &text).await;
    }
}

async fn uploads(fixture: &Fixture, client: &str, call: &Value) -> Value {
    match client {
        "node" => {
            tollgate_tests::node::run(
                &fixture.sandbox,
                "uploads.mjs",
                &fixture.checkout(),
                fixture.pki.bundle(),
                call,
            )
            .await
        }
        _ => {
            python::run(&fixture.sandbox, "uploads.py", &fixture.checkout(), fixture.pki.bundle(), call).await
        }
    }
}

/// Calls of real clients that are answered while their bodies still come.
///
/// Over HTTP/2 of bodies up to `most`: Python's copies what is left of a body for each frame of it, and where the provider takes no more of
/// one, the stream has to end before it.
async fn assert_uploads_are_answered(
    fixture: &Fixture,
    path: &str,
    status: u16,
    reason: Option<&str>,
    most: usize,
) {
    needs!(python::installed());
    for (client, library) in [
        ("python", "requests"),
        ("python", "httpx"),
        ("python", "curl"),
        ("node", "https"),
        ("python", "httpx over HTTP/2"),
        ("python", "curl over HTTP/2"),
        ("node", "http2"),
    ] {
        let is_http2 = library.ends_with("HTTP/2") || library == "http2";
        for bytes in [20_000, 100_000, 1_000_000, if is_http2 { 10_000_000 } else { 40_000_000 }] {
            if is_http2 && bytes > most {
                break;
            }
            let times = if bytes > 1_000_000 { 3 } else { 20 };
            let call = json!({"library": library, "path": path, "bytes": bytes, "times": times});
            let said = uploads(fixture, client, &call).await;
            let wanted = json!({"status": status, "reason": reason});
            let all = said["answers"].as_array().expect("answers");
            assert_eq!(all.len(), times, "{said}");
            assert!(all.iter().all(|answer| *answer == wanted), "{library} {bytes}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_real_clients_while_their_body_still_comes() {
    let plan =
        Plan { grant: "  allow: {methods: [POST], paths: [\"/allowed\"]}\n".to_owned(), ..Plan::new() };
    let fixture = plan.start(|_| Reply::status(200)).await;
    assert_uploads_are_answered(&fixture, "/up/denied", 403, Some("path_not_allowed"), 10_000_000).await;
    assert_eq!(fixture.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_of_the_provider_reaches_real_clients_while_their_body_still_comes() {
    let plan = Plan::new();
    let upstream = Upstream::raw(&plan.server, &["http/1.1"], None, |mut stream, _| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        let _ =
            stream.write_all(b"HTTP/1.1 413 X\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbig").await;
        let _ = stream.flush().await;
        // It reads no more, and closes only when the gateway does.
        tokio::time::sleep(Duration::from_secs(15)).await;
    })
    .await;
    let fixture = plan.start_with(upstream).await;
    assert_uploads_are_answered(&fixture, "/up/x", 413, None, 100_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_says_that_it_closes_and_is_closed_once_its_caller_has_ended() {
    let plan =
        Plan { grant: "  allow: {methods: [POST], paths: [\"/allowed\"]}\n".to_owned(), ..Plan::new() };
    let fixture = plan.start(|_| Reply::status(200)).await;
    let client = fixture.checkout();
    let refused =
        client.raw(b"POST /up/denied HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9000000\r\n\r\nx").await;
    let text = String::from_utf8_lossy(&refused.bytes).into_owned();
    assert!(refused.closed && text.contains("connection: close"), "{text}");
    // A body that is here whole takes nothing from its connection.
    let mut open = client.open(Protocol::H1).await.unwrap();
    for _ in 0..3 {
        let answer = open.send(client.request(Method::POST, "/up/denied", "small")).await.unwrap();
        answer.assert_refused(403, "path_not_allowed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_to_whom_the_end_of_the_connection_is_the_end_of_the_answer_sees_a_cut_as_one() {
    let fixture = fixture("http").await;
    for (way, (text, end, wanted)) in
        WAYS.iter().enumerate().filter(|(_, (text, ..))| text.contains("chunked"))
    {
        let client = fixture.checkout();
        let mut stream = client.handshake(client.tls(&["http/1.1"])).await.unwrap();
        let call = format!("GET /up/x HTTP/1.0\r\nhost: localhost\r\nx-way: {way}\r\n\r\n");
        stream.write_all(call.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut got)).await.expect("it ends");
        // Without TLS's own end there is no end that the caller may trust (RFC 9112, section 9.8).
        assert_eq!(ended.is_ok(), wanted.is_ok(), "{end:?} {text:?}: {}", String::from_utf8_lossy(&got));
    }
}
