//! Requests over HTTP/1.1 that two servers would cut in different places: gunicorn's corpus, and what it lacks.

mod doors;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tollgate_tests::idp::Idp;
use tollgate_tests::sandbox::parts_dir;
use tollgate_tests::{Fixture, Protocol, needs};

use self::doors::{CLEAR_DOORS, DOORS, Door, clear_doors, doors, in_the_clear, tunnelled};

/// Cases of the corpus that RFC 9110 and 9112 let a proxy repair: what reaches the upstream, if anything, is one request
/// that we have framed anew.
const HARMLESS: [(&str, &str); 7] = [
    ("003c", "a method may begin with a hyphen: it is a token"),
    ("041", "two content types: a plain destination gets both, a dialect refuses them"),
    ("chunked_09", "a blank behind a chunk size"),
    ("rfc9110_trailer_forbidden_cl_01", "trailers are dropped"),
    ("rfc9110_trailer_forbidden_host_01", "trailers are dropped"),
    ("rfc9110_trailer_forbidden_te_01", "trailers are dropped"),
    ("rfc9112_leading_crlf_02", "empty lines before a request are ignored (9112, section 2.2)"),
];

async fn fixture() -> Fixture {
    tunnelled().await.0
}

struct Case {
    name: String,
    bytes: Vec<u8>,
}

/// The invalid requests, decoded as the README of the corpus says, less those that only gunicorn's own settings make wrong.
fn corpus() -> Vec<Case> {
    let folder = parts_dir().join("gunicorn/invalid");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "http"));
    files.sort();
    let case = |path: &PathBuf| {
        let rules = fs::read_to_string(path.with_extension("py")).unwrap();
        if rules.contains("cfg.set(") || rules.contains("request = Limit") {
            return None;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        Some(Case { name, bytes: decode(&fs::read(path).unwrap()) })
    };
    files.iter().filter_map(case).collect()
}

fn decode(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let (byte, after) = match (first, tail) {
            (b'\n', _) => (None, tail),
            (b'\\', [b'r', after @ ..]) => (Some(b'\r'), after),
            (b'\\', [b'n', after @ ..]) => (Some(b'\n'), after),
            (b'\\', [b't', after @ ..]) => (Some(b'\t'), after),
            (b'\\', [b'0', after @ ..]) => (Some(0), after),
            (b'\\', [b'x', high, low, after @ ..]) => {
                let hex = [*high, *low];
                (u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).ok(), after)
            }
            _ => (Some(*first), tail),
        };
        bytes.extend(byte);
        rest = after;
    }
    bytes
}

/// Makes a case dangerous: a lenient reader would take it for a request to the fixture's destination.
fn armed(bytes: &[u8], door: &Door) -> Vec<u8> {
    let Door { prefix, authority, .. } = door;
    let proof = door.proof();
    let end = bytes.windows(2).position(|pair| pair == b"\r\n").unwrap_or(bytes.len());
    let (line, rest) = bytes.split_at(end);
    let mut out = match line.windows(2).position(|pair| pair == b" /") {
        Some(at) => [&line[..=at], prefix.as_bytes(), &line[at + 1..]].concat(),
        None => line.to_vec(),
    };
    let lower = rest.to_ascii_lowercase();
    match lower.windows(7).position(|window| window == b"\r\nhost:") {
        Some(at) => {
            let value = at + 7;
            let length = rest[value..]
                .iter()
                .position(|byte| matches!(byte, b'\r' | b'\n'))
                .unwrap_or(rest.len() - value);
            out.extend_from_slice(&rest[..value]);
            out.extend_from_slice(b" ");
            out.extend_from_slice(authority.as_bytes());
            out.extend_from_slice(proof.as_bytes());
            out.extend_from_slice(&rest[value + length..]);
        }
        None => {
            out.extend_from_slice(format!("\r\nHost: {authority}{proof}").as_bytes());
            out.extend_from_slice(rest);
        }
    }
    out
}

/// Nothing reaches the upstream whole, nothing is answered below 400, and what is malformed is told so and closed. A request
/// that is only addressed to nobody (421), of nobody (407, where each has to show a proof) or not allowed (403) may be followed by another.
async fn offence(fixture: &Fixture, door: &Door, name: &str, bytes: &[u8]) -> Option<String> {
    let before = fixture.upstream.count();
    let answer = door.raw(fixture, bytes).await;
    let statuses = answer.statuses();
    let reached = fixture.upstream.count() - before;
    let shown = format!("{name}: {statuses:?}, {reached} reached the upstream, closed: {}", answer.closed);
    if HARMLESS.iter().any(|(harmless, _)| name.starts_with(&format!("{harmless} "))) {
        return (reached > 1 || statuses.len() > 1).then_some(shown);
    }
    let is_well_formed = |status: &u16| match status {
        403 | 421 => true,
        407 => door.demands_proof(),
        _ => false,
    };
    let well_formed = statuses.iter().all(is_well_formed) && !statuses.is_empty();
    let told = well_formed || answer.closed != statuses.is_empty();
    let good = reached == 0 && statuses.iter().all(|status| *status >= 400) && told;
    (!good).then_some(shown)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_malformed_request_of_gunicorns_corpus_is_forwarded() {
    needs!(parts_dir().join("gunicorn/invalid").exists(), Idp::installed());
    let cases: Arc<[Case]> = corpus().into();
    assert!(cases.len() >= 60, "{} cases", cases.len());
    for (name, why) in HARMLESS {
        assert!(cases.iter().any(|case| case.name == *name), "{name} ({why}) is not in the corpus");
    }
    // At each door a gateway of its own, so that what arrives came by it.
    let mut work = JoinSet::new();
    for number in 0..DOORS {
        let cases = cases.clone();
        work.spawn(async move {
            let (fixture, intercepted) = tunnelled().await;
            at_door(&fixture, &doors(&fixture, intercepted)[number], &cases).await
        });
    }
    for number in 0..CLEAR_DOORS {
        let cases = cases.clone();
        work.spawn(async move {
            let (fixture, token, _idp) = in_the_clear().await;
            at_door(&fixture, &clear_doors(&fixture, &token)[number], &cases).await
        });
    }
    let offences: Vec<String> = work.join_all().await.concat();
    assert!(offences.is_empty(), "{offences:#?}");
}

/// What the corpus does at one door; after it a good request is answered there.
async fn at_door(fixture: &Fixture, door: &Door, cases: &[Case]) -> Vec<String> {
    let mut offences = Vec::new();
    for case in cases {
        for (form, bytes) in [("as it is", case.bytes.clone()), ("armed", armed(&case.bytes, door))] {
            let name = format!("{} {form} at the {}", case.name, door.name);
            offences.extend(offence(fixture, door, &name, &bytes).await);
        }
    }
    let good = format!(
        "GET {}/fine HTTP/1.1\r\nhost: {}{}\r\nconnection: close\r\n\r\n",
        door.prefix,
        door.authority,
        door.proof()
    );
    assert_eq!(door.raw(fixture, good.as_bytes()).await.statuses(), [200], "{}", door.name);
    offences
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_proxy_in_front_may_frame_otherwise_is_400_and_ends_the_connection() {
    let fixture = fixture().await;
    let client = fixture.checkout();
    let host = client.authority();
    let good = format!("GET /up/x HTTP/1.1\r\nhost: {host}\r\n\r\n");
    for head in [
        format!("GET /up/x HTTP/1.1\nhost: {host}\r\n\r\n"),
        format!("GET /up/x HTTP/1.1\r\nhost: {host}\nx: y\r\n\r\n"),
        format!("GET /up/x HTTP/1.1\r\nhost: {host}\r\n\n"),
        format!("POST /up/x HTTP/1.1\r\nhost: {host}\r\ncontent-length: 05\r\n\r\nhello"),
        format!("POST /up/x HTTP/1.1\r\nhost: {host}\r\ncontent-length: +5\r\n\r\nhello"),
        format!("POST /up/x HTTP/1.1\r\nhost: {host}\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello"),
        format!("POST /up/x HTTP/1.1\r\nhost: {host}\r\ncontent-length: 5, 5\r\n\r\nhello"),
        format!("POST /up/x HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        format!(
            "POST /up/x HTTP/1.1\r\nhost: {host}\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        format!(
            "POST /up/x HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n"
        ),
        format!("GET /up/x HTTP/1.1\r\nhost: {host}\r\nx: a\r\n b\r\n\r\n"),
        format!("GET /up/x HTTP/1.1\r\nhost: {host}\r\nx : a\r\n\r\n"),
    ] {
        let answer = client.raw(format!("{head}{good}").as_bytes()).await;
        assert_eq!((answer.statuses(), answer.closed), (vec![400], true), "{head:?}");
        // The same behind a good one, and behind a body.
        let before = fixture.upstream.count();
        let body = "POST /up/x HTTP/1.1\r\ntransfer-encoding: chunked\r\nhost: ";
        let body = format!("{body}{host}\r\n\r\n3;x=y\r\n\n\n\n\r\n0\r\n\r\n");
        let answer = client.raw(format!("{good}{body}{head}").as_bytes()).await;
        assert_eq!((answer.statuses(), answer.closed), (vec![200, 200, 400], true), "{head:?}");
        assert_eq!(fixture.upstream.count(), before + 2, "{head:?}");
    }
    for seen in fixture.upstream.seen().chunks(2) {
        assert_eq!((&*seen[0].body, &*seen[1].body), (&b""[..], &b"\n\n\n"[..]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_stands_twice_is_400_over_http2_too() {
    let fixture = fixture().await;
    let client = fixture.checkout();
    for lengths in [&["5", "5"][..], &["05"]] {
        let mut request = client.request(http::Method::POST, "/up/x", "hello");
        for length in lengths {
            request.headers_mut().append("content-length", length.parse().unwrap());
        }
        // Whoever looks first: the parser resets the stream.
        if let Ok(answer) = client.send(Protocol::H2, request).await {
            answer.assert_refused(400, "bad_request");
        }
    }
    assert_eq!(fixture.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_heads_are_refused_and_the_connection_closed() {
    let fixture = fixture().await;
    let client = fixture.checkout();
    let host = client.authority();
    for (what, raw, expected) in [
        (
            "a long target",
            format!("GET /up/{} HTTP/1.1\r\nhost: {host}\r\n\r\n", "a".repeat(300_000)),
            &[414, 431][..],
        ),
        (
            "a long header",
            format!("GET /up/x HTTP/1.1\r\nhost: {host}\r\nx-a: {}\r\n\r\n", "a".repeat(300_000)),
            &[431],
        ),
        (
            "many headers",
            format!("GET /up/x HTTP/1.1\r\nhost: {host}\r\n{}\r\n", "x-a: b\r\n".repeat(1000)),
            &[431],
        ),
    ] {
        let answer = client.raw(raw.as_bytes()).await;
        let statuses = answer.statuses();
        assert!(
            statuses.len() == 1 && expected.contains(&statuses[0]) && answer.closed,
            "{what}: {statuses:?} {}",
            answer.closed
        );
    }
    assert_eq!(fixture.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_request_hidden_in_a_body_stays_a_body() {
    let fixture = fixture().await;
    let client = fixture.checkout();
    let host = client.authority();
    let hidden = "GET /up/hidden HTTP/1.1\r\nhost: api.up.test\r\n\r\n";
    let raw = format!(
        "POST /up/x HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n{hidden}GET /up/last HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n",
        hidden.len()
    );
    let answer = client.raw(raw.as_bytes()).await;
    assert_eq!(answer.statuses(), [200, 200]);
    let seen = fixture.upstream.seen();
    let targets: Vec<_> = seen.iter().map(|seen| seen.target.as_str()).collect();
    assert_eq!(targets, ["/x", "/last"]);
    assert_eq!(seen[0].body, hidden.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_that_nobody_allowed_are_not_passed_on() {
    let fixture = fixture().await;
    let client = fixture.checkout();
    for upgrade in ["h2c", "websocket", "TLS/1.3", "unknown"] {
        let raw = format!(
            "GET /up/x HTTP/1.1\r\nhost: {}\r\nconnection: upgrade, http2-settings, close\r\nupgrade: {upgrade}\r\n\
             http2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n",
            client.authority()
        );
        let answer = client.raw(raw.as_bytes()).await;
        assert!(!answer.statuses().contains(&101), "{upgrade}");
        for seen in fixture.upstream.seen() {
            assert!(
                seen.header("upgrade").is_empty() && seen.header("http2-settings").is_empty(),
                "{seen:#?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_on_the_tls_port_gets_nothing() {
    let fixture = fixture().await;
    let mut tcp = tokio::net::TcpStream::connect(fixture.gateway.address()).await.unwrap();
    AsyncWriteExt::write_all(&mut tcp, b"GET /up/x HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    let read = AsyncReadExt::read_to_end(&mut tcp, &mut bytes);
    let _ = tokio::time::timeout(std::time::Duration::from_secs(5), read)
        .await
        .expect("the connection is closed");
    assert!(!String::from_utf8_lossy(&bytes).contains("HTTP/"), "{bytes:?}");
    assert_eq!(fixture.upstream.count(), 0);
}
