//! The gateway as the proxy of programs that know nothing of it: requests in absolute form, tunnels, and the TLS in these, which the
//! operator's authority lets the gateway read.

mod programs;
mod proofs;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tollgate_tests::fixture::CHECKOUT;
use tollgate_tests::gateway::{binary, eventually};
use tollgate_tests::idp::{self, Idp};
use tollgate_tests::resources::{credential, destination, document, file_store, grant};
use tollgate_tests::{Fixture, Plan, Reply, Seen, Upstream, ledger, needs};

use crate::tokens::in_seconds;

const AUDIENCE: &str = "tollgate";
const SUBJECT: &str = "repo:acme/shop:main";
const ALL: &str = "allow: {methods: [GET, HEAD, POST, PUT], paths: [\"/**\"]}";

/// A gateway with a proxy over TLS and one in the clear, which takes certificates and the tokens of an issuer.
struct Stand {
    fixture: Fixture,
    idp: Idp,
    /// What a program has to trust: the gateway's own certificate and what the proxy signs.
    trusted: PathBuf,
    token: String,
}

/// What a program said, and whether it was content.
struct Said {
    text: String,
    is_well: bool,
}

/// A grant to whoever has the token, for another destination.
fn to_program(issuer: &str, name: &str, credential: &str) -> String {
    let spec = format!(
        "  callers: [{{token: {{issuer: \"{issuer}\", subject: \"{SUBJECT}\"}}}}]\n  destination: {name}\n  credential: {credential}\n  {ALL}\n"
    );
    document("Grant", &format!("program-{name}"), spec)
}

/// A provider that answers nobody without this key.
fn demanding(seen: &Seen, key: &str) -> Reply {
    match seen.target.as_str() {
        _ if seen.header("authorization") != key => Reply::status(401).data("who are you?"),
        "/slow" => Reply::status(200).data("begun ").wait(Duration::from_secs(3)).data("ended"),
        _ => Reply::status(200).data("fine"),
    }
}

impl Stand {
    async fn start() -> Self {
        let plan = Plan::new();
        let key = format!("Bearer {}", plan.key);
        let upstream = Upstream::http(&plan.server, &["http/1.1"], move |seen| demanding(seen, &key)).await;
        Self::before(plan, upstream, &["api.up.test"], |_, _| String::new()).await
    }

    /// With an authority for these hosts, and resources for an issuer and the port of the upstream.
    async fn before(
        mut plan: Plan,
        upstream: Upstream,
        hosts: &[&str],
        more: impl Fn(&Plan, &str) -> String,
    ) -> Self {
        let server = plan.pki.server(&plan.sandbox, &[idp::HOST, "localhost"]);
        let idp = Idp::start(&plan.sandbox, server, 600, &json!({"id": "unused", "secret": "unused"})).await;
        let ca = plan.sandbox.inputs().join("ca");
        let mut command = std::process::Command::new(binary());
        command.args(["ca", "init", "--out"]).arg(&ca);
        for host in hosts {
            command.args(["--host", host]);
        }
        let made = command.output().expect("tollgate ca init");
        assert!(made.status.success(), "{made:?}");
        let key = fs::read_to_string(ca.join("ca.key")).expect("a key");
        key.lines().filter(|line| !line.starts_with('-')).for_each(|line| plan.sandbox.needle(line));
        let own = fs::read_to_string(plan.pki.bundle()).expect("a bundle");
        let trusted = own + &fs::read_to_string(ca.join("ca.pem")).expect("an authority");
        let trusted = plan.sandbox.input("trusted.pem", trusted);
        plan.settings.extra = format!(
            "interception: {{caCertFile: {}, caKeyFile: {}}}\n",
            ca.join("ca.pem").display(),
            ca.join("ca.key").display()
        );
        plan.settings.listeners = vec![
            "{name: proxy, kind: forward, address: \"127.0.0.1:0\", clientCertificate: optional}".to_owned(),
            "{name: local, kind: forward, address: \"127.0.0.1:0\", tls: none, clientCertificate: none}"
                .to_owned(),
            "{name: sandwich, proxyProtocol: {from: [127.0.0.1/32], spiffeTlv: true}, address: \"127.0.0.1:0\"}"
                .to_owned(),
        ];
        plan.settings.client_certificate = "optional";
        plan.settings.tokens = vec![format!(
            "{{kind: oidc, issuer: \"{}\", audience: {AUDIENCE}, keys: {{discovery: {{}}}}, caFile: {}}}",
            idp.issuer(),
            plan.pki.bundle().display()
        )];
        let issuer = idp.issuer();
        let resources = destination("up", "api.up.test", upstream.port(), plan.pki.bundle(), "http")
            + &file_store("files", &plan.sandbox.inputs().join("keys"))
            + &credential("up-key", "up", "{store: files, path: up}", plan.inject)
            + &grant(
                "checkout-up",
                "spiffe://prod.acme/ns/checkout/sa/*",
                "up",
                "up-key",
                &format!("  {ALL}\n"),
            )
            + &to_program(&issuer, "up", "up-key")
            + &destination("closed", "closed.test", upstream.port(), plan.pki.bundle(), "http")
            + &more(&plan, &issuer);
        plan.settings = plan.settings.clone().resource("fixture.yaml", resources);
        let fixture = plan.start_with(upstream).await;
        let up = || fixture.gateway.metrics().sum("tollgate_token_issuer_up", &[]) == 1.0;
        eventually("the keys of the issuer are there", up).await;
        let token = idp.mint(&json!({"sub": SUBJECT, "aud": AUDIENCE}), false).await;
        Self { fixture, idp, trusted, token }
    }

    /// The proxy in the clear, as a program has it in its environment.
    fn local(&self) -> String {
        format!("http://token:{}@{}", self.token, self.fixture.gateway.listener("local"))
    }

    /// The proxy over TLS.
    fn over_tls(&self) -> String {
        format!("https://token:{}@localhost:{}", self.token, self.fixture.gateway.listener("proxy").port())
    }

    /// Runs a program that finds its proxy and what to trust in its environment, and has no key.
    async fn run(&self, proxy: &str, program: &str, arguments: &[&str]) -> Said {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        command.current_dir(self.fixture.sandbox.providers()).env("HOME", self.fixture.sandbox.providers());
        for variable in ["NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "OPENAI_API_KEY", "PYTHONPATH"] {
            command.env_remove(variable);
        }
        for variable in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
            command.env(variable, proxy);
        }
        for variable in [
            "SSL_CERT_FILE",
            "CURL_CA_BUNDLE",
            "REQUESTS_CA_BUNDLE",
            "NODE_EXTRA_CA_CERTS",
            "GIT_SSL_CAINFO",
            "PIP_CERT",
            "AWS_CA_BUNDLE",
        ] {
            command.env(variable, &self.trusted);
        }
        command.envs([
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("PIP_CONFIG_FILE", "/dev/null"),
        ]);
        command.envs([("PIP_DISABLE_PIP_VERSION_CHECK", "1"), ("AWS_EC2_METADATA_DISABLED", "true")]);
        let output = command.output().await.expect("the program runs");
        self.fixture.sandbox.answered(&output.stdout);
        self.fixture.sandbox.answered(&output.stderr);
        let all = [output.stdout.as_slice(), &output.stderr].concat();
        Said { text: String::from_utf8_lossy(&all).into_owned(), is_well: output.status.success() }
    }

    /// What a proxy in the clear says to these bytes, until it closes or is silent for two seconds.
    async fn raw(&self, bytes: &str) -> String {
        raw(self.fixture.gateway.listener("local"), bytes).await
    }

    fn authorization(&self) -> String {
        format!("proxy-authorization: Bearer {}\r\n", self.token)
    }
}

async fn raw(address: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let silence = Duration::from_secs(2);
    while let Ok(Ok(1..)) = tokio::time::timeout(silence, stream.read_buf(&mut said)).await {}
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_of_a_proxy_gets_the_key_on_http_and_https_by_certificate_and_by_token() {
    needs!(Idp::installed());
    let mut stand = Stand::start().await;
    let identity = stand.fixture.prod.svid(&stand.fixture.sandbox, CHECKOUT);
    let (cert, key) = (identity.cert.display().to_string(), identity.key.display().to_string());
    let bare = format!("https://localhost:{}", stand.fixture.gateway.listener("proxy").port());
    let ca = stand.trusted.display().to_string();
    let by_certificate = ["--proxy-cert", cert.as_str(), "--proxy-key", key.as_str()];
    let (over_tls, local) = (stand.over_tls(), stand.local());
    let mut calls = 0;
    for url in ["https://api.up.test/one", "http://api.up.test/one"] {
        for (proxy, shown) in [(&over_tls, &[][..]), (&local, &[]), (&bare, &by_certificate)] {
            let arguments = [
                &["-sS", "-f", "--proxy-cacert", &ca, "-H", "authorization: Bearer sk-of-its-own", url],
                shown,
            ]
            .concat();
            let said = stand.run(proxy, "curl", &arguments).await;
            assert!(said.is_well && said.text.contains("fine"), "{url}: {}", said.text);
            calls += 1;
        }
    }
    let seen = stand.fixture.upstream.seen();
    assert_eq!(seen.len(), calls);
    for seen in seen {
        assert_eq!(seen.header("authorization"), format!("Bearer {}", stand.fixture.key));
        let all = seen.everything();
        assert!(
            !all.contains(&stand.token) && !all.contains("sk-of-its-own") && !all.contains("proxy-"),
            "{all}"
        );
    }
    assert!(stand.fixture.gateway.stop().success());
    let mut callers = ledger::column(&stand.fixture.gateway, "caller");
    callers.sort();
    let by_token = format!("jwt:{}#{SUBJECT}", stand.idp.issuer());
    let expected = [vec![by_token.as_str(); 4], vec![CHECKOUT; 2]].concat();
    assert_eq!(callers, expected, "a request is recorded, its tunnel is not");
    stand.fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_a_proxy_refuses_is_told_challenged_and_recorded() {
    needs!(Idp::installed());
    let stand = Stand::start().await;
    let proof = stand.authorization();
    let behind = "GET http://api.up.test/one HTTP/1.1\r\nhost: api.up.test\r\n\r\n";
    let stale = stand
        .idp
        .mint(&json!({"sub": SUBJECT, "aud": AUDIENCE, "exp": 1_000_000_000, "nbf": 1}), false)
        .await;
    let stale = format!("proxy-authorization: Bearer {stale}\r\n");
    for (authority, proof, status, reason) in [
        ("api.up.test:443", "", 407, "no_proof"),
        ("api.up.test:443", "proxy-authorization: Bearer sk-no-token\r\n", 407, "no_proof"),
        ("api.up.test:443", &stale, 407, "token_expired"),
        ("closed.test:443", &proof, 403, "no_grant"),
        ("elsewhere.test:443", &proof, 421, "unknown_host"),
        ("localhost:443", &proof, 421, "unknown_host"),
        ("127.0.0.1:22", &proof, 421, "unknown_host"),
        ("169.254.169.254:80", &proof, 421, "unknown_host"),
        ("user@api.up.test:443", &proof, 400, "ambiguous_authority"),
    ] {
        let said = stand
            .raw(&format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n{proof}\r\n{behind}"))
            .await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{authority}: {said}");
        assert!(said.contains(&format!("x-tollgate-reason: {reason}\r\n")), "{authority}: {said}");
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "nothing behind it is read: {said}");
        assert_eq!(
            said.contains("proxy-authenticate: Basic realm=\"tollgate\"\r\n"),
            status == 407,
            "{said}"
        );
    }
    eventually("those of callers are recorded", || ledger::records(&stand.fixture.gateway).len() == 5).await;
    let records = ledger::records(&stand.fixture.gateway);
    let refused = records.iter().find(|record| record["reason"] == "no_grant").expect("a record");
    assert_eq!(
        (&refused["destination"], &refused["method"]),
        (&"closed".into(), &"CONNECT".into()),
        "{refused}"
    );
    let unknown = records.iter().filter(|record| record["reason"] == "unknown_host");
    let asked: Vec<_> =
        unknown.map(|record| record["path"].as_str().unwrap_or_default().to_owned()).collect();
    assert!(asked.contains(&"elsewhere.test:443".to_owned()), "{asked:?}");
    assert_eq!(stand.fixture.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_in_a_tunnel_has_to_be_for_the_host_that_it_leads_to() {
    needs!(Idp::installed());
    let stand = Stand::start().await;
    let proxy = stand.over_tls();
    let ca = stand.trusted.display().to_string();
    // Another name in TLS than in the request for the tunnel, and another Host in the request in it.
    let port = stand.fixture.gateway.listener("local").port();
    let openssl = [
        "s_client",
        "-proxy",
        &format!("127.0.0.1:{port}"),
        "-proxy_user",
        "token",
        "-proxy_pass",
        &format!("pass:{}", stand.token),
        "-connect",
        "api.up.test:443",
        "-servername",
        "closed.test",
        "-CAfile",
        &ca,
    ];
    let said = stand.run(&proxy, "openssl", &openssl).await;
    assert!(!said.is_well && said.text.contains("alert"), "{}", said.text);
    let said = stand
        .run(
            &proxy,
            "curl",
            &["-sS", "-i", "--proxy-cacert", &ca, "-H", "host: closed.test", "https://api.up.test/one"],
        )
        .await;
    assert!(said.text.contains("ambiguous_authority"), "{}", said.text);
    eventually("both are recorded", || ledger::records(&stand.fixture.gateway).len() == 2).await;
    let mut reasons = ledger::column(&stand.fixture.gateway, "reason");
    reasons.sort();
    assert_eq!(reasons, ["ambiguous_authority", "sni_mismatch"]);
    assert_eq!(stand.fixture.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_whose_token_ends_is_refused_and_closed_and_a_drain_lets_it_finish() {
    needs!(Idp::installed());
    let mut stand = Stand::start().await;
    let short = json!({"sub": SUBJECT, "aud": AUDIENCE, "exp": in_seconds(4)});
    let short = stand.idp.mint(&short, false).await;
    let proxy = stand.fixture.gateway.listener("local");
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let asked = format!(
        "CONNECT api.up.test:80 HTTP/1.1\r\nhost: api.up.test:80\r\nproxy-authorization: Bearer {short}\r\n\r\n"
    );
    stream.write_all(asked.as_bytes()).await.unwrap();
    let inside = "GET /one HTTP/1.1\r\nhost: api.up.test\r\n\r\n";
    stream.write_all(inside.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"fine") {
        assert_ne!(stream.read_buf(&mut said).await.unwrap(), 0, "{}", String::from_utf8_lossy(&said));
    }
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
    closed.expect("an idle tunnel is closed once its token has ended").unwrap();

    let local = stand.local();
    let arguments = ["-sS", "-f", "https://api.up.test/slow"];
    let (said, ()) = tokio::join!(stand.run(&local, "curl", &arguments), async {
        eventually("the call is under way", || stand.fixture.upstream.count() == 2).await;
        stand.fixture.gateway.begin_drain();
    });
    assert!(said.is_well && said.text.contains("begun ended"), "{}", said.text);
    assert!(stand.fixture.gateway.ended().await.success());
}
