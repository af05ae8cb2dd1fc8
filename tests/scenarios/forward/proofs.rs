//! What a caller of a proxy is proven by, and what the proxy's own authority is taken for.

use std::path::{Path, PathBuf};
use std::process::Command as StdCommand;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncRead;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tollgate_tests::ca::client_config;
use tollgate_tests::client::Connection;
use tollgate_tests::echo::echo;
use tollgate_tests::forward;
use tollgate_tests::gateway::field;
use tollgate_tests::websockets::{self, Provider};
use tollgate_tests::{Answer, Client, Identity, Protocol};

use super::*;
use crate::proxies::{SPIFFE_TLV, header};
use crate::websocket::{echoed, frame};

/// The certificates of a PEM file.
fn roots(file: &Path) -> RootCertStore {
    use rustls::pki_types::pem::PemObject;
    let mut roots = RootCertStore::empty();
    for certificate in rustls::pki_types::CertificateDer::pem_file_iter(file).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    roots
}

impl Stand {
    /// A workload that shows its certificate to the proxy over TLS.
    fn workload(&self) -> Client {
        self.fixture.checkout().at(self.fixture.gateway.listener("proxy"))
    }

    /// How often a certificate was made for a tunnel.
    fn certificates_made(&self) -> usize {
        let log = self.fixture.gateway.log();
        log.iter().filter(|line| field(line, "message") == "certificate made for tunnels").count()
    }

    fn record_of(&self, destination: &str) -> Option<serde_json::Value> {
        let records = ledger::records(&self.fixture.gateway);
        records.into_iter().find(|record| record["destination"] == destination)
    }
}

/// The head of an answer, up to its empty line.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n\r\n") {
        said.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(said).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_has_opened_at_a_proxy_ends_with_it_and_its_record_says_so() {
    needs!(Idp::installed(), websockets::installed());
    let plan = Plan::new();
    let queue = echo().await;
    let server = plan.pki.server(&plan.sandbox, &["ws.up.test"]);
    let provider = Provider::start(&plan.sandbox, &server).await;
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200)).await;
    let more = |plan: &Plan, issuer: &str| {
        let passed = format!("  hosts: [queue.test]\n  port: {queue}\n  protocol: tcp\n");
        let passed = document("Destination", "queue", passed + "  addresses: [127.0.0.1]\n");
        let granted = |name: &str, rest: &str| {
            let callers =
                format!("  callers: [{{token: {{issuer: \"{issuer}\", subject: \"{SUBJECT}\"}}}}]\n");
            document("Grant", name, format!("{callers}  destination: {name}\n{rest}"))
        };
        passed
            + &granted("queue", "")
            + &destination("ws", "ws.up.test", provider.port(), plan.pki.bundle(), "http")
            + &granted("ws", "  allow: {methods: [GET], paths: [/echo], upgrades: [websocket]}\n")
    };
    let stand = Stand::before(plan, upstream, &["api.up.test"], more).await;
    // Long enough to open what it opens, and waited for by its `exp`.
    let ends_at = in_seconds(30);
    let short = json!({"sub": SUBJECT, "aud": AUDIENCE, "exp": ends_at});
    let short = stand.idp.mint(&short, false).await;
    let proof = format!("proxy-authorization: Bearer {short}\r\n");
    let open = async |request: String| {
        let mut stream = TcpStream::connect(stand.fixture.gateway.listener("local")).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let said = head(&mut stream).await;
        (stream, said)
    };
    let authority = format!("queue.test:{queue}");
    let (mut tunnel, said) =
        open(format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n{proof}\r\n")).await;
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let (mut messages, said) =
        open(format!("GET http://ws.up.test/echo HTTP/1.1\r\nhost: ws.up.test\r\n{proof}{upgrade}\r\n"))
            .await;
    assert!(said.starts_with("HTTP/1.1 101 "), "{said}");
    assert_eq!(echoed(&mut messages, b"before").await, (0x81, b"before".to_vec()));
    tunnel.write_all(b"x").await.unwrap();
    assert_eq!(tunnel.read_u8().await.unwrap(), b'x');

    let left = Duration::from_secs(u64::try_from(ends_at - in_seconds(0)).expect("it has not ended yet"));
    let ended = tokio::time::timeout(left + Duration::from_secs(30), tunnel.read_u8()).await;
    let ended = ended.expect("it ends with the token").unwrap_err();
    assert!(in_seconds(0) >= ends_at, "not before its token");
    assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset, "nobody takes it for a good end");
    // What is under way may outlast its proof by a minute.
    let ended = tokio::time::timeout(Duration::from_secs(90), frame(&mut messages)).await;
    let (opcode, told) = ended.expect("it ends a minute behind the token");
    assert_eq!((opcode, &told[..2], &told[2..]), (0x88, &1008_u16.to_be_bytes()[..], &b"token_expired"[..]));
    for destination in ["queue", "ws"] {
        eventually("it is recorded", || stand.record_of(destination).is_some()).await;
        let record = stand.record_of(destination).unwrap();
        assert_eq!(
            (&record["reason"], &record["outcome"]),
            (&"token_expired".into(), &"refused".into()),
            "{record}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_12_a_token_beside_another_proof_names_the_same_caller_or_nobody() {
    needs!(Idp::installed());
    let stand = Stand::start().await;
    let workload = stand.workload();
    let shown = |token: &str| {
        HeaderMap::from_iter([(
            http::header::PROXY_AUTHORIZATION,
            HeaderValue::from_str(&format!("Bearer {token}")).unwrap(),
        )])
    };
    // Nor does an issuer of tokens speak for a workload, whatever it says.
    let posing = stand.idp.mint(&json!({"sub": CHECKOUT, "aud": AUDIENCE}), false).await;
    for token in [&stand.token, &posing] {
        for protocol in Protocol::BOTH {
            for authority in ["api.up.test:443", "api.up.test:80"] {
                let refused = forward::ask(&workload, protocol, authority, shown(token)).await.unwrap();
                let reason = refused.headers()["x-tollgate-reason"].clone();
                assert_eq!((refused.status().as_u16(), reason.to_str().unwrap()), (407, "proofs_disagree"));
            }
        }
        let mut request = workload.request(Method::GET, "/one", "");
        *request.uri_mut() = "http://api.up.test/one".parse().unwrap();
        request.headers_mut().insert("host", HeaderValue::from_static("api.up.test"));
        request.headers_mut().extend(shown(token));
        workload.send(Protocol::H1, request).await.unwrap().assert_refused(407, "proofs_disagree");
        // Behind a proxy that has verified the workload.
        let mut stream = TcpStream::connect(stand.fixture.gateway.listener("sandwich")).await.unwrap();
        stream.write_all(&header(&[(0x02, "api.up.test"), (SPIFFE_TLV, CHECKOUT)])).await.unwrap();
        let named = workload.naming("api.up.test");
        let mut request = named.request(Method::GET, "/one", "");
        request.headers_mut().insert("x-api-key", HeaderValue::from_str(token).unwrap());
        let mut inside = Connection::over(&named, stream, Protocol::H1).await.unwrap();
        inside.send(request).await.unwrap().assert_refused(401, "proofs_disagree");
    }
    assert_eq!(stand.fixture.upstream.count(), 0);
    let counted = stand.fixture.gateway.metrics();
    let counted = counted.sum("tollgate_refused_before_identity_total", &["reason=\"proofs_disagree\""]);
    assert_eq!(counted, 12.0);
    // Either of them alone is good.
    let answer = forward::ask(&workload, Protocol::H1, "api.up.test:80", HeaderMap::new()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let bare = workload.showing(None);
    let answer = forward::ask(&bare, Protocol::H1, "api.up.test:80", shown(&stand.token)).await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_that_names_no_server_is_read_as_for_the_host_of_its_tunnel() {
    needs!(Idp::installed());
    let stand = Stand::start().await;
    let workload = stand.workload();
    let asked = forward::ask(&workload, Protocol::H1, "api.up.test:443", HeaderMap::new()).await.unwrap();
    let tunnel = forward::tunnel(asked).await.unwrap();
    let mut unnamed = ClientConfig::clone(&client_config(roots(&stand.trusted), None, &["http/1.1"]));
    unnamed.enable_sni = false;
    // It verifies that it is shown the certificate of that host.
    let host = ServerName::try_from("api.up.test").unwrap();
    let tls = TlsConnector::from(Arc::new(unnamed)).connect(host, tunnel).await.unwrap();
    let named = workload.naming("api.up.test");
    let mut http = Connection::over(&named, tls, Protocol::H1).await.unwrap();
    let answer = http.send(named.request(Method::GET, "/one", "")).await.unwrap();
    answer.assert_status(200);
    // What it asks for is for that host all the same.
    let mut other = named.request(Method::GET, "/one", "");
    other.headers_mut().insert("host", HeaderValue::from_static("closed.test"));
    http.send(other).await.unwrap().assert_refused(400, "ambiguous_authority");
    assert_eq!(stand.fixture.upstream.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_is_refused_has_no_certificate_made_and_one_host_has_one() {
    needs!(Idp::installed());
    let plan = Plan::new();
    let key = format!("Bearer {}", plan.key);
    let upstream = Upstream::http(&plan.server, &["http/1.1"], move |seen| demanding(seen, &key)).await;
    let port = upstream.port();
    let more = |plan: &Plan, _: &str| {
        destination("shut", "shut.api.up.test", port, plan.pki.bundle(), "http")
            + &destination("open", "\"*.wild.up.test\"", port, plan.pki.bundle(), "http")
    };
    let stand = Stand::before(plan, upstream, &["api.up.test", "wild.up.test"], more).await;
    let hello = "\x16\x03\x01\0\x05\x01\0\0\x01\0";
    for (authority, proof, reason) in [
        ("api.up.test:443", String::new(), "no_proof"),
        ("shut.api.up.test:443", stand.authorization(), "no_grant"),
        ("random.wild.up.test:443", stand.authorization(), "no_grant"),
        ("random.api.up.test:443", stand.authorization(), "unknown_host"),
    ] {
        let asked = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n{proof}\r\n{hello}");
        let said = stand.raw(&asked).await;
        assert!(said.contains(&format!("x-tollgate-reason: {reason}\r\n")), "{authority}: {said}");
    }
    let workload = stand.workload();
    let inside = async |server: &str| {
        let asked = forward::ask(&workload, Protocol::H1, "api.up.test:443", HeaderMap::new()).await?;
        forward::tls(forward::tunnel(asked).await?, server, roots(&stand.trusted), &["http/1.1"]).await
    };
    assert!(inside("shut.api.up.test").await.is_err(), "it is for another host");
    assert_eq!(stand.certificates_made(), 0);
    for _ in 0..5 {
        inside("api.up.test").await.unwrap();
    }
    eventually("one is made", || stand.certificates_made() == 1).await;
}

/// A certificate for these names, signed with an authority by openssl.
fn signed(folder: &Path, ca: &Path, name: &str, alternative: &str) -> Identity {
    let file = |kind: &str| folder.join(format!("{name}.{kind}"));
    let openssl = |arguments: &[&str]| {
        let output = StdCommand::new("openssl").args(arguments).output().expect("openssl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let text = |path: &PathBuf| path.display().to_string();
    let (key, request, cert) = (file("key"), file("csr"), file("crt"));
    let extension = format!("subjectAltName={alternative}");
    openssl(&[
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/O=elsewhere",
        "-addext",
        &extension,
        "-keyout",
        &text(&key),
        "-out",
        &text(&request),
    ]);
    openssl(&[
        "x509",
        "-req",
        "-days",
        "1",
        "-copy_extensions",
        "copy",
        "-CAcreateserial",
        "-in",
        &text(&request),
        "-CA",
        &text(&ca.join("ca.pem")),
        "-CAkey",
        &text(&ca.join("ca.key")),
        "-out",
        &text(&cert),
    ]);
    Identity { cert, key }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_trusts_the_authority_of_a_proxy_takes_it_for_its_hosts_alone() {
    needs!(Idp::installed());
    let stand = Stand::start().await;
    let ca = stand.fixture.sandbox.inputs().join("ca");
    let folder = stand.fixture.sandbox.inputs();
    let verified = |identity: &Identity| {
        let mut command = StdCommand::new("openssl");
        command.arg("verify").arg("-CAfile").arg(ca.join("ca.pem")).arg(&identity.cert);
        let output = command.output().expect("openssl runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    // Whoever has the key of the authority signs what it likes.
    for (name, host, alternative, refusal) in [
        ("own", "api.up.test", "DNS:api.up.test", None),
        ("below", "a.api.up.test", "DNS:a.api.up.test", None),
        ("elsewhere", "bank.test", "DNS:bank.test", Some("permitted subtree violation")),
        ("above", "up.test", "DNS:up.test", Some("permitted subtree violation")),
        ("both", "bank.test", "DNS:api.up.test,DNS:bank.test", Some("permitted subtree violation")),
        ("address", "127.0.0.1", "IP:127.0.0.1", Some("excluded subtree violation")),
    ] {
        let identity = signed(&folder, &ca, name, alternative);
        let (is_good, said) = verified(&identity);
        assert_eq!(is_good, refusal.is_none(), "{name}: {said}");
        assert!(said.contains(refusal.unwrap_or("OK")), "{name}: {said}");
        // A client that trusts the authority alone, and another implementation.
        let (near, far) = tokio::io::duplex(1 << 16);
        let acceptor = TlsAcceptor::from(identity.server_config(&[], None));
        let server = tokio::spawn(async move { acceptor.accept(far).await.is_ok() });
        let connected = forward::tls(near, host, roots(&ca.join("ca.pem")), &[]).await;
        match refusal {
            None => assert!(connected.is_ok() && server.await.unwrap(), "{name}"),
            Some(_) => {
                let why = connected.map(drop).unwrap_err().to_string();
                assert!(why.contains("NameConstraint"), "{name}: {why}");
            }
        }
    }
    // The same authority is good for what the proxy shows.
    let said = stand.run(&stand.local(), "curl", &["-sS", "-f", "https://api.up.test/one"]).await;
    assert!(said.is_well && said.text.contains("fine"), "{}", said.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_built_in_fetch_of_node_calls_by_base_url_without_a_key_where_one_is_demanded() {
    needs!(Idp::installed());
    let stand = Stand::start().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/fetch.mjs").display().to_string();
    let url = format!("https://localhost:{}/up/one", stand.fixture.gateway.address().port());
    let argument = json!({"url": url, "token": stand.token}).to_string();
    let said = stand.run("", "node", &[&script, &argument]).await;
    let answers: serde_json::Value =
        serde_json::from_str(said.text.lines().last().unwrap_or_default()).expect(&said.text);
    assert_eq!(answers, json!({"get": [200, "fine"], "post": [200, "fine"]}));
    // Its provider lets nobody in without the key.
    let port = stand.fixture.upstream.port();
    let direct =
        Client::new(&stand.fixture.sandbox, ([127, 0, 0, 1], port).into(), stand.fixture.pki.roots(), None);
    assert_eq!(unverified(&direct, &stand).await.status.as_u16(), 401);
    let seen = stand.fixture.upstream.seen();
    assert_eq!(seen.len(), 3);
    for seen in &seen[..2] {
        assert_eq!(seen.header("authorization"), format!("Bearer {}", stand.fixture.key));
        assert!(!seen.everything().contains(&stand.token));
    }
}

/// A call of the provider itself, with the token of its caller for a key.
async fn unverified(direct: &Client, stand: &Stand) -> Answer {
    let tcp = direct.dial().await.unwrap();
    let tls = forward::tls(tcp, "api.up.test", stand.fixture.pki.roots(), &["http/1.1"]).await.unwrap();
    let named = direct.naming("api.up.test");
    let mut request = named.request(Method::GET, "/one", "");
    let token = HeaderValue::from_str(&format!("Bearer {}", stand.token)).unwrap();
    request.headers_mut().insert("authorization", token);
    Connection::over(&named, tls, Protocol::H1).await.unwrap().send(request).await.unwrap()
}
