//! Every place where the gateway reads HTTP/1.1, and how bytes get there.

use http::HeaderMap;
use rustls::RootCertStore;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tollgate_tests::client::RawAnswer;
use tollgate_tests::fixture::CHECKOUT;
use tollgate_tests::forward::{self, Interception};
use tollgate_tests::gateway::eventually;
use tollgate_tests::hbone::HboneClient;
use tollgate_tests::idp::{self, Idp};
use tollgate_tests::resources::document;
use tollgate_tests::{Client, Fixture, Plan, Protocol, Reply};

use crate::proxies::{SPIFFE_TLV, header};

const AUDIENCE: &str = "tollgate";
const SUBJECT: &str = "repo:acme/shop:main";

/// A gateway with every listener that reads HTTP, and what its callers trust in a proxy's tunnel.
pub(super) async fn tunnelled() -> (Fixture, RootCertStore) {
    let mut plan = Plan::new();
    for listener in [
        "name: proxy, kind: forward",
        "name: tunnels, kind: hbone",
        "name: sandwich, proxyProtocol: {from: [127.0.0.1/32], spiffeTlv: true}",
    ] {
        plan.settings.listeners.push(format!("{{{listener}, address: \"127.0.0.1:0\"}}"));
    }
    let interception = Interception::new(&plan.sandbox, &["api.up.test"]);
    plan.settings.extra = interception.settings();
    let roots = interception.roots();
    (plan.start(|_| Reply::status(200).data("reached")).await, roots)
}

/// The same with a proxy in the clear, and the token of a caller of its, whose issuer goes with it.
pub(super) async fn in_the_clear() -> (Fixture, String, Idp) {
    let mut plan = Plan::new();
    let server = plan.pki.server(&plan.sandbox, &[idp::HOST, "localhost"]);
    let idp = Idp::start(&plan.sandbox, server, 600, &json!({"id": "unused", "secret": "unused"})).await;
    plan.settings.tokens = vec![format!(
        "{{kind: oidc, issuer: \"{}\", audience: {AUDIENCE}, keys: {{discovery: {{}}}}, caFile: {}}}",
        idp.issuer(),
        plan.pki.bundle().display()
    )];
    let local = "{name: local, kind: forward, address: \"127.0.0.1:0\", tls: none, clientCertificate: none}";
    plan.settings.listeners.push(local.to_owned());
    let granted = format!(
        "  callers: [{{token: {{issuer: \"{}\", subject: \"{SUBJECT}\"}}}}]\n  destination: up\n  credential: up-key\n{}",
        idp.issuer(),
        plan.grant
    );
    let text = document("Grant", "program-up", granted);
    plan.settings = plan.settings.clone().resource("program.yaml", text);
    let fixture = plan.start(|_| Reply::status(200).data("reached")).await;
    let up = || fixture.gateway.metrics().sum("tollgate_token_issuer_up", &[]) == 1.0;
    eventually("the keys of the issuer are there", up).await;
    let token = idp.mint(&json!({"sub": SUBJECT, "aud": AUDIENCE}), false).await;
    (fixture, token, idp)
}

/// A place where HTTP/1.1 is read.
pub(super) struct Door {
    pub(super) name: &'static str,
    kind: DoorKind,
    client: Client,
    /// What stands before a path there.
    pub(super) prefix: &'static str,
    pub(super) authority: String,
}

enum DoorKind {
    Listener,
    /// In a tunnel of the mesh.
    Hbone,
    /// In TLS in a tunnel of the proxy, which these trust.
    Intercepted(RootCertStore),
    /// In a tunnel of the proxy, in the clear.
    Clear,
    /// Behind a proxy that names the workload.
    Sandwich,
    /// At a proxy in the clear, to which each request shows this token.
    Local(String),
    /// In a tunnel of that one, which has shown it.
    LocalTunnel(String),
}

impl Door {
    /// Whether each request has to show who makes it.
    pub(super) const fn demands_proof(&self) -> bool {
        matches!(self.kind, DoorKind::Local(_))
    }

    /// What comes back for these bytes.
    pub(super) async fn raw(&self, fixture: &Fixture, bytes: &[u8]) -> RawAnswer {
        match &self.kind {
            DoorKind::Listener => self.client.raw(bytes).await,
            DoorKind::Hbone => {
                let tunnel = HboneClient::connect(&self.client).await.tunnel("api.up.test:80").await;
                RawAnswer::of(&fixture.sandbox, tunnel, bytes).await
            }
            DoorKind::Intercepted(roots) => {
                let asked = forward::ask(&self.client, Protocol::H1, "api.up.test:443", HeaderMap::new());
                let tunnel = forward::tunnel(asked.await.unwrap()).await.unwrap();
                let inside = forward::tls(tunnel, "api.up.test", roots.clone(), &["http/1.1"]).await.unwrap();
                RawAnswer::of(&fixture.sandbox, inside, bytes).await
            }
            DoorKind::Clear => {
                let asked = forward::ask(&self.client, Protocol::H1, "api.up.test:80", HeaderMap::new());
                let tunnel = forward::tunnel(asked.await.unwrap()).await.unwrap();
                RawAnswer::of(&fixture.sandbox, tunnel, bytes).await
            }
            DoorKind::Sandwich => {
                let mut stream = self.client.dial().await.unwrap();
                let named = header(&[(0x02, "api.up.test"), (SPIFFE_TLV, CHECKOUT)]);
                stream.write_all(&named).await.unwrap();
                RawAnswer::of(&fixture.sandbox, stream, bytes).await
            }
            DoorKind::Local(_) => {
                RawAnswer::of(&fixture.sandbox, self.client.dial().await.unwrap(), bytes).await
            }
            DoorKind::LocalTunnel(token) => {
                let mut stream = self.client.dial().await.unwrap();
                let asked = format!(
                    "CONNECT api.up.test:80 HTTP/1.1\r\nhost: api.up.test:80\r\nproxy-authorization: Bearer {token}\r\n\r\n"
                );
                stream.write_all(asked.as_bytes()).await.unwrap();
                let mut said = Vec::new();
                while !said.ends_with(b"\r\n\r\n") {
                    said.push(stream.read_u8().await.unwrap());
                }
                assert!(said.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&said));
                RawAnswer::of(&fixture.sandbox, stream, bytes).await
            }
        }
    }

    /// What a caller has to show with each request there.
    pub(super) fn proof(&self) -> String {
        match &self.kind {
            DoorKind::Local(token) => format!("\r\nProxy-Authorization: Bearer {token}"),
            _ => String::new(),
        }
    }
}

pub(super) const DOORS: usize = 7;
/// Those of a proxy in the clear.
pub(super) const CLEAR_DOORS: usize = 2;

pub(super) fn doors(fixture: &Fixture, intercepted: RootCertStore) -> [Door; DOORS] {
    let server = fixture.checkout();
    let at = |listener: &str| server.at(fixture.gateway.listener(listener));
    let door = |name, kind, client: Client, prefix, authority: Option<&str>| {
        let authority = authority.unwrap_or_else(|| client.authority()).to_owned();
        Door { name, kind, client, prefix, authority }
    };
    let up = Some("api.up.test");
    [
        door("server", DoorKind::Listener, server.clone(), "/up", None),
        door("proxy", DoorKind::Listener, at("proxy"), "/up", None),
        door("proxy in absolute form", DoorKind::Listener, at("proxy"), "http://api.up.test", up),
        door("proxy's tunnel", DoorKind::Intercepted(intercepted), at("proxy"), "", up),
        door("tunnel of the mesh", DoorKind::Hbone, at("tunnels"), "", up),
        door("proxy's clear tunnel", DoorKind::Clear, at("proxy"), "", up),
        door("listener behind a proxy that names workloads", DoorKind::Sandwich, at("sandwich"), "", up),
    ]
}

pub(super) fn clear_doors(fixture: &Fixture, token: &str) -> [Door; CLEAR_DOORS] {
    let client = fixture.checkout().at(fixture.gateway.listener("local"));
    let door = |name, kind, prefix| Door {
        name,
        kind,
        client: client.clone(),
        prefix,
        authority: "api.up.test".to_owned(),
    };
    [
        door("proxy in the clear", DoorKind::Local(token.to_owned()), "http://api.up.test"),
        door("tunnel of a proxy in the clear", DoorKind::LocalTunnel(token.to_owned()), ""),
    ]
}
