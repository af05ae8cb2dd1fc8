//! A key that the provider sends back in a body: masked in every form and however it is cut, with nothing else changed or delayed.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use http::Method;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tollgate_tests::fixture::Fixture;
use tollgate_tests::gateway::eventually;
use tollgate_tests::{Answer, Plan, Protocol, Reply, Upstream};

/// What a provider may make of `key`, and how many characters of it depend on the key alone.
fn reflections(key: &str) -> Vec<(String, usize)> {
    let every = |pattern: fn(u8) -> String| key.bytes().map(pattern).collect::<String>();
    let escaped = |pattern: fn(u8) -> String| -> String {
        key.bytes()
            .map(
                |byte| {
                    if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { pattern(byte) }
                },
            )
            .collect()
    };
    let plain = [
        key.to_owned(),
        escaped(|byte| format!("%{byte:02X}")),
        escaped(|byte| format!("%{byte:02x}")),
        every(|byte| format!("%{byte:02X}")),
        key.replace('/', "\\/"),
        escaped(|byte| format!("\\u{byte:04x}")),
        every(|byte| format!("\\u{byte:04X}")),
        key.replace('/', "&#x2F;").replace('+', "&#43;").replace('=', "&equals;"),
        every(|byte| format!("&#{byte};")),
        key.replace('/', "\\\\\\/"),
        escaped(|byte| format!("%25{byte:02X}")),
        every(|byte| format!("{byte:02x}")),
        every(|byte| format!("{byte:02X}")),
    ];
    let mut all: Vec<_> = plain.into_iter().map(|form| (form.clone(), form.len())).collect();
    let whole = key.len() / 3 * 4 + [0, 1, 2][key.len() % 3];
    all.push((STANDARD.encode(key), whole));
    all.push((URL_SAFE.encode(key), whole));
    all
}

/// A document with every reflection, and what is to be left of it.
fn document(key: &str) -> (String, String) {
    let (mut before, mut after) = (String::from("{\"echo\": [\n"), String::from("{\"echo\": [\n"));
    for (number, (form, core)) in reflections(key).into_iter().enumerate() {
        before += &format!("{{\"form\": {number}, \"key\": \"{form}\"}},\n");
        after += &format!("{{\"form\": {number}, \"key\": \"{}{}\"}},\n", "*".repeat(core), &form[core..]);
    }
    (before + "0]}", after + "0]}")
}

async fn reflecting(protocol: &str) -> Fixture {
    let plan = Plan::new();
    let key = plan.key.clone();
    let upstream = Upstream::http(&plan.server, &[protocol], move |seen| {
        assert_eq!(seen.header("authorization"), format!("Bearer {key}"));
        let (text, _) = document(&key);
        match seen.target.as_str() {
            "/whole" => Reply::status(200).header("content-type", "application/json").data(text),
            "/bytes" => text.bytes().fold(Reply::status(200), |reply, byte| reply.data(vec![byte])),
            "/sevens" => {
                text.as_bytes().chunks(7).fold(Reply::status(200), |reply, part| reply.data(part.to_vec()))
            }
            "/failed" => Reply::status(500).data(text),
            _ => Reply::events(text.lines()),
        }
    })
    .await;
    plan.start_with(upstream).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_reflected_in_a_body_is_masked_in_every_form_and_however_it_is_cut() {
    for upstream in ["http/1.1", "h2"] {
        let fixture = reflecting(upstream).await;
        let client = fixture.checkout();
        let (sent, left) = document(&fixture.key);
        for protocol in Protocol::BOTH {
            for path in ["/whole", "/bytes", "/sevens", "/failed"] {
                let request = client.request(Method::GET, &format!("/up{path}"), "");
                let answer = client.send(protocol, request).await.unwrap();
                assert_eq!(answer.text(), left, "{path} over {protocol:?} from {upstream}");
                assert_eq!(answer.body.len(), sent.len());
            }
            let answer = client.send(protocol, client.request(Method::GET, "/up/events", "")).await.unwrap();
            let events: String = left.lines().map(|line| format!("data: {line}\n\n")).collect();
            assert_eq!(answer.text(), events, "{protocol:?} from {upstream}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_basic_password_is_masked_by_itself_and_in_its_pair() {
    let plan = Plan { inject: "{basic: {username: robot}}", ..Plan::new() };
    let key = plan.key.clone();
    let fixture = plan
        .start(move |seen| {
            let sent = seen.header("authorization").strip_prefix("Basic ").unwrap().to_owned();
            Reply::status(200).data(format!("{key} robot:{key} {sent} Basic {sent}\n"))
        })
        .await;
    let pair = format!("robot:{}", fixture.key);
    let encoded = STANDARD.encode(&pair);
    fixture.sandbox.needle(&encoded);
    let stars = |text: &str| "*".repeat(text.len());
    let expected =
        format!("{} {} {} Basic {}\n", stars(&fixture.key), stars(&pair), stars(&encoded), stars(&encoded));
    assert_eq!(fixture.checkout().get("/up/x").await.text(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stream_has_said_arrives_before_it_says_more() {
    let silence = Duration::from_secs(3600);
    let fixture = Plan::new()
        .start(move |seen| {
            let first = if seen.target == "/lines" { "{\"a\":\"sk-up.\"}\n" } else { "data: sk-up.\n\n" };
            Reply::status(200).header("content-type", "text/event-stream").data(first).wait(silence).data("x")
        })
        .await;
    let client = fixture.checkout();
    for protocol in Protocol::BOTH {
        for (path, expected) in [("/up/lines", "{\"a\":\"sk-up.\"}\n"), ("/up/events", "data: sk-up.\n\n")] {
            let mut connection = client.open(protocol).await.unwrap();
            let mut body = connection.start(client.request(Method::GET, path, "")).await.unwrap().into_body();
            let mut seen = Vec::new();
            while seen.len() < expected.len() {
                let frame =
                    tokio::time::timeout(Duration::from_secs(60), body.frame()).await.expect("a frame");
                seen.extend_from_slice(&frame.unwrap().unwrap().into_data().unwrap());
            }
            assert_eq!(String::from_utf8_lossy(&seen), expected);
        }
    }
}

/// Asserts which of these headers are there.
fn assert_headers(answer: &Answer, there: &[&str], gone: &[&str]) {
    for name in there {
        assert!(answer.headers.contains_key(*name), "{name}: {:?}", answer.headers);
    }
    for name in gone {
        assert!(!answer.headers.contains_key(*name), "{name}: {:?}", answer.headers);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn digests_of_a_body_that_held_a_key_or_is_still_to_come_stay_behind() {
    let plan = Plan::new();
    let key = plan.key.clone();
    let fixture = plan
        .start(move |seen| {
            let reply = Reply::status(200)
                .header("content-digest", "sha-256=:x:")
                .header("repr-digest", "sha-256=:x:")
                .header("digest", "sha-256=x")
                .header("content-md5", "x")
                .header("etag", "\"x\"");
            match seen.target.as_str() {
                "/held" => reply.data(format!("got {key}")),
                "/streamed" => reply.data("nothing ").data("of it"),
                _ => reply.data("nothing of it"),
            }
        })
        .await;
    let client = fixture.checkout();
    let digests = ["content-digest", "repr-digest", "digest", "content-md5"];
    assert_headers(&client.get("/up/plain").await, &[&digests[..], &["etag"]].concat(), &[]);
    assert_headers(&client.get("/up/held").await, &[], &[&digests[..], &["etag"]].concat());
    assert_headers(&client.get("/up/streamed").await, &["etag"], &digests);
}

/// The fixture with `more` in its destination's spec.
async fn stand_with(
    more: &str,
    grant: &str,
    respond: impl Fn(&tollgate_tests::Seen) -> Reply + Send + Sync + 'static,
) -> Fixture {
    let plan = Plan { grant: grant.to_owned(), ..Plan::new() };
    let upstream = Upstream::http(&plan.server, &["http/1.1"], respond).await;
    let mut settings = plan.complete(upstream.port());
    let (_, text) = settings.resources.pop().unwrap();
    let text = text.replacen("  dialect: http\n", &format!("  dialect: http\n{more}"), 1);
    Plan { settings: settings.resource("fixture.yaml", text), ..plan }.start_with(upstream).await
}

const ANY: &str = "  allow: {methods: [GET, HEAD], paths: [\"/**\"]}\n";
const RANGES: &str = "  allow: {methods: [GET, HEAD], paths: [\"/**\"], range: true}\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_could_split_a_key_is_not_asked_for_unless_allowed() {
    for (more, grant, passed) in
        [("", ANY, ""), ("", RANGES, "bytes=0-9"), ("  scrub: headers\n", ANY, "bytes=0-9")]
    {
        let fixture = stand_with(more, grant, |_| Reply::status(200).data("whole")).await;
        let client = fixture.checkout();
        let mut request = client.request(Method::GET, "/up/x", "");
        request.headers_mut().insert("range", "bytes=0-9".parse().unwrap());
        request.headers_mut().insert("if-range", "\"x\"".parse().unwrap());
        client.send(Protocol::H1, request).await.unwrap().assert_status(200);
        let seen = fixture.upstream.only();
        assert_eq!(seen.header("range"), passed, "{more}{grant}");
        assert_eq!(seen.headers.contains_key("if-range"), !passed.is_empty());
        assert_eq!(seen.header("accept-encoding"), "identity");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_an_encoding_that_would_hide_a_key_is_502() {
    let respond = |seen: &tollgate_tests::Seen| {
        let name = match seen.target.as_str() {
            "/grpc" => "grpc-encoding",
            "/connect" => "connect-content-encoding",
            _ => "content-encoding",
        };
        Reply::status(200).header(name, "gzip").data(&b"\x1f\x8b"[..])
    };
    let fixture = stand_with("", ANY, respond).await;
    let client = fixture.checkout();
    client.get("/up/x").await.assert_refused(502, "encoded_answer");
    client.get("/up/grpc").await.assert_refused(502, "encoded_answer");
    client.get("/up/connect").await.assert_refused(502, "encoded_answer");
    let head = client.send(Protocol::H1, client.request(Method::HEAD, "/up/x", "")).await.unwrap();
    head.assert_status(200);
    let fixture = stand_with("  scrub: headers\n", ANY, respond).await;
    let answer = fixture.checkout().get("/up/x").await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"\x1f\x8b"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoding_that_would_hide_a_key_is_not_asked_for() {
    for (more, passed) in [("", false), ("  scrub: headers\n", true)] {
        let fixture = stand_with(more, ANY, |_| Reply::status(200)).await;
        let client = fixture.checkout();
        let mut request = client.request(Method::GET, "/up/x", "");
        for name in ["accept-encoding", "grpc-accept-encoding", "connect-accept-encoding"] {
            request.headers_mut().insert(name, "gzip".parse().unwrap());
        }
        client.send(Protocol::H1, request).await.unwrap().assert_status(200);
        let seen = fixture.upstream.only();
        assert_eq!(seen.header("accept-encoding"), "identity", "usage is read off the answer");
        for name in ["grpc-accept-encoding", "connect-accept-encoding"] {
            assert_eq!(seen.headers.contains_key(name), passed, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_scrub_headers_a_body_passes_as_it_is() {
    let fixture = stand_with("  scrub: headers\n", ANY, |seen| {
        let key = seen.header("authorization");
        Reply::status(200).header("x-echo", key).header("content-digest", "x").data(key.to_owned())
    })
    .await;
    // No canary: the sweep would find it.
    let key = "not-one-to-look-for-0123456789";
    std::fs::write(fixture.sandbox.inputs().join("keys/up"), key).unwrap();
    let answer = fixture.checkout().get("/up/x").await;
    assert_eq!(answer.header("x-echo"), format!("Bearer {}", "*".repeat(key.len())));
    assert_eq!(answer.header("content-digest"), "x");
    assert_eq!(answer.text(), format!("Bearer {key}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_key_is_masked_in_headers_only_and_the_log_says_so_once() {
    let fixture = stand_with("", ANY, |seen| {
        let key = seen.header("authorization");
        Reply::status(200).header("x-echo", key).data(key.to_owned())
    })
    .await;
    std::fs::write(fixture.sandbox.inputs().join("keys/up"), "hunter2").unwrap();
    for _ in 0..8 {
        let answer = fixture.checkout().get("/up/x").await;
        assert_eq!((answer.header("x-echo"), answer.text().as_str()), ("Bearer *******", "Bearer hunter2"));
    }
    let said = |line: &serde_json::Value| line.to_string().contains("fewer than 12 bytes");
    let count = || fixture.gateway.log().iter().filter(|line| said(line)).count();
    eventually("the log says so", || count() > 0).await;
    assert_eq!(count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_interim_answers_and_trailers_stays_with_the_gateway() {
    for upstream in ["http/1.1", "h2"] {
        let plan = Plan::new();
        let key = plan.key.clone();
        let provider = Upstream::http(&plan.server, &[upstream], move |_| {
            Reply::status(200).header("trailer", "x-echo").data("fine").data("fine").trailer("x-echo", &key)
        })
        .await;
        let fixture = plan.start_with(provider).await;
        let client = fixture.checkout();
        for protocol in Protocol::BOTH {
            let mut request = client.request(Method::GET, "/up/x", "");
            request.headers_mut().insert("te", "trailers".parse().unwrap());
            let answer = client.send(protocol, request).await.unwrap();
            assert_eq!(answer.text(), "finefine");
            let echoed = answer.trailers.map(|trailers| trailers["x-echo"].to_str().unwrap().to_owned());
            let masked =
                (protocol == Protocol::H2 && upstream == "h2").then(|| "*".repeat(fixture.key.len()));
            assert_eq!(echoed, masked, "{protocol:?} from {upstream}");
        }
    }

    let plan = Plan::new();
    let key = plan.key.clone();
    let upstream = Upstream::raw(&plan.server, &["http/1.1"], None, move |mut stream, _| {
        let hints = format!("HTTP/1.1 103 Early Hints\r\nlink: <{key}>\r\n\r\n");
        let answer = format!(
            "{hints}HTTP/1.1 100 {key}\r\n\r\n{hints}HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine"
        );
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { return };
                head.push(byte);
            }
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.flush().await;
        }
    })
    .await;
    let fixture = plan.start_with(upstream).await;
    let client = fixture.checkout();
    let raw = format!("GET /up/x HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", client.authority());
    let answer = client.raw(raw.as_bytes()).await;
    assert_eq!(answer.statuses(), [200]);
    assert!(!String::from_utf8_lossy(&answer.bytes).contains(&fixture.key));
}
