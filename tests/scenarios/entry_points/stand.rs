//! One gateway with every entry point to it, and what stands at their ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rustls::RootCertStore;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tollgate_tests::fixture::Plan;
use tollgate_tests::forward::Interception;
use tollgate_tests::resources::{credential, destination, document, file_store};
use tollgate_tests::websockets::Provider;
use tollgate_tests::{Authority, Client, Gateway, Leaf, Reply, Sandbox, SecretKind, Seen, Upstream};

use super::table::{ENTRY_POINTS, Row, Traffic};

pub(crate) const GRANTED: &str = "entry-points";
const EAST_WEST: &str = "spiffe://prod.acme/ns/istio-gateways/sa/east-west";
const RESOURCES: &str = "fixture.yaml";
const LISTENERS: [&str; 7] = [
    "name: tunnels, kind: hbone",
    "name: network, kind: hbone, doubleHbone: {gateways: [\"spiffe://prod.acme/ns/istio-gateways/sa/east-west\"]}",
    "name: proxy, kind: forward",
    "name: queue, kind: tcp, destination: queue",
    "name: named, kind: tcp",
    "name: sandwich, proxyProtocol: {from: [127.0.0.1/32], spiffeTlv: true}",
    "name: sandwich-queue, kind: tcp, destination: queue, proxyProtocol: {from: [127.0.0.1/32], spiffeTlv: true}",
];

/// The gateway and its surroundings.
pub(crate) struct Stand {
    pub(crate) sandbox: Sandbox,
    pub(crate) gateway: Gateway,
    pub(crate) prod: Authority,
    pub(crate) pki: Authority,
    /// Which callers trust that call through TLS that the gateway reads.
    pub(crate) interception: RootCertStore,
    pub(crate) key: String,
    upstream: Upstream,
    websockets: Provider,
    named: Upstream,
    queue: Queue,
    heard: Arc<AtomicUsize>,
    revoked: PathBuf,
    serial: AtomicU64,
    destinations: String,
}

/// A workload.
pub(crate) struct Caller {
    pub(crate) id: String,
    pub(crate) serial: u64,
    pub(crate) client: Client,
}

/// A caller that says this first is answered once it has ended, with how many bytes came.
pub(crate) const ENDS_FIRST: &[u8] = b"I end first";
/// A caller that says this first is told [`FAREWELL`], which ends the way to it; what it says then is read to its end.
pub(crate) const ENDS_LAST: &[u8] = b"I end last";
pub(crate) const FAREWELL: &str = "farewell";

/// What sends back what comes, and ends where that ends, unless it is told to do otherwise.
struct Queue {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Queue {
    async fn start(heard: Arc<AtomicUsize>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections: Arc<AtomicUsize> = Arc::default();
        let count = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(echo(stream, heard.clone()));
            }
        });
        Self { port, connections }
    }
}

async fn echo(stream: impl AsyncRead + AsyncWrite, heard: Arc<AtomicUsize>) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut first = vec![0; 1024];
    let Ok(length) = reader.read(&mut first).await else { return };
    first.truncate(length);
    let (mut rest, mut before) = (Vec::new(), Vec::new());
    if first.starts_with(ENDS_LAST) {
        before = FAREWELL.into();
    } else if !first.starts_with(ENDS_FIRST) {
        let copied = async {
            writer.write_all(&first).await?;
            tokio::io::copy(&mut reader, &mut writer).await?;
            writer.shutdown().await
        };
        let _ = copied.await;
        return;
    }
    let told = async {
        if !before.is_empty() {
            writer.write_all(&before).await?;
            writer.shutdown().await?;
        }
        reader.read_to_end(&mut rest).await?;
        if before.is_empty() {
            let count = length - ENDS_FIRST.len() + rest.len();
            writer.write_all(count.to_string().as_bytes()).await?;
            writer.shutdown().await?;
        } else {
            heard.fetch_add(rest.len(), Ordering::SeqCst);
        }
        Ok::<_, std::io::Error>(())
    };
    let _ = told.await;
}

fn answer(seen: &Seen) -> Reply {
    match seen.target.as_str() {
        "/key" => Reply::status(200).header("x-shown", seen.header("authorization")).data(seen.everything()),
        "/slow" => Reply::status(200).data("begun ").wait(Duration::from_secs(6)).data("ended"),
        // Word by word: an answer is decided on again with each.
        "/endless" => (0..600).fold(Reply::status(200).data("begun "), |reply, _| {
            reply.wait(Duration::from_millis(250)).data("word ")
        }),
        _ => Reply::status(200).data("reached"),
    }
}

impl Stand {
    /// With these limits on the grant of every entry point.
    pub(crate) async fn start(limits: &str) -> Self {
        let mut plan = Plan::new();
        let own = Leaf {
            uris: vec!["spiffe://prod.acme/ns/egress/sa/tollgate".to_owned()],
            ..Leaf::server(&["localhost"])
        };
        plan.settings.certificate = plan.prod.issue(&plan.sandbox, "gateway", &own);
        let listeners = LISTENERS.map(|listener| format!("{{{listener}, address: \"127.0.0.1:0\"}}"));
        plan.settings.listeners = listeners.to_vec();
        let interception = Interception::new(&plan.sandbox, &["api.up.test"]);
        plan.settings.extra = interception.settings();
        let server = plan.pki.server(&plan.sandbox, &["api.up.test", "ws.test", "named.test"]);
        let upstream = Upstream::http(&server, &["http/1.1"], answer).await;
        let heard: Arc<AtomicUsize> = Arc::default();
        let own = heard.clone();
        let named = Upstream::raw(&server, &[], None, move |stream, _| echo(stream, own.clone())).await;
        let (queue, websockets) =
            (Queue::start(heard.clone()).await, Provider::start(&plan.sandbox, &server).await);
        let ca = plan.pki.bundle();
        let passed = |name: &str, port: u16, protocol: &str| {
            let spec = "  addresses: [127.0.0.1]\n";
            let spec = format!("  hosts: [{name}.test]\n  port: {port}\n  protocol: {protocol}\n{spec}");
            document("Destination", name, spec)
        };
        let destinations = destination("up", "api.up.test", upstream.port(), ca, "http")
            + &destination("ws", "ws.test", websockets.port(), ca, "http")
            + &passed("queue", queue.port, "tcp")
            + &passed("named", named.port(), "tls")
            + &file_store("files", &plan.sandbox.inputs().join("keys"))
            + &credential("up-key", "up, ws", "{store: files, path: up}", plan.inject);
        let settings = plan.settings.clone().resource(RESOURCES, destinations.clone() + &grants(limits));
        plan.sandbox.stands_for(&plan.key, &[SecretKind::File, SecretKind::of_injection(plan.inject)]);
        let revoked = plan.sandbox.input("prod.crl", plan.prod.revocation_list(&[], 3600));
        let mut gateway = Gateway::prepare(&plan.sandbox, &settings);
        let bundle = format!("bundleFile: {}", plan.prod.bundle().display());
        gateway.edit_settings(&bundle, &format!("{bundle}, crlFile: {}", revoked.display()));
        gateway.edit_settings("timeout: 10s", "timeout: 8s");
        gateway.launch().await;
        gateway.ready().await;
        let Plan { sandbox, prod, pki, key, .. } = plan;
        Self {
            sandbox,
            gateway,
            prod,
            pki,
            interception: interception.roots(),
            key,
            upstream,
            websockets,
            named,
            queue,
            heard,
            revoked,
            serial: AtomicU64::new(1000),
            destinations,
        }
    }

    /// A workload that is named after its entry point; that of the namespace [`GRANTED`] has its grant.
    pub(crate) fn caller(&self, namespace: &str, row: &Row) -> Caller {
        self.caller_for(namespace, row, 3600)
    }

    /// The same with a certificate that ends in so many seconds.
    pub(crate) fn caller_for(&self, namespace: &str, row: &Row, ends_in: i64) -> Caller {
        let id = format!("spiffe://prod.acme/ns/{namespace}/sa/{}", row.name);
        let serial = self.serial.fetch_add(1, Ordering::SeqCst);
        let leaf = Leaf { serial: Some(serial), ends_in, ..Leaf::svid(&id) };
        let identity = self.prod.issue(&self.sandbox, &format!("caller-{serial}"), &leaf);
        let client = Client::new(&self.sandbox, self.gateway.address(), self.prod.roots(), Some(identity));
        Caller { id, serial, client }
    }

    /// A gateway of the mesh that carries tunnels of another network.
    pub(crate) fn carrier(&self) -> Client {
        let identity = self.prod.svid(&self.sandbox, EAST_WEST);
        let address = self.gateway.listener("network");
        Client::new(&self.sandbox, address, self.prod.roots(), Some(identity))
    }

    /// Where connections that are passed through lead to, as a caller names it.
    pub(crate) fn passed_to(&self, row: &Row) -> String {
        match row.destination {
            "named" => format!("named.test:{}", self.named.port()),
            _ => format!("queue.test:{}", self.queue.port),
        }
    }

    /// How many bytes destinations have read behind their own end.
    pub(crate) fn heard(&self) -> usize {
        self.heard.load(Ordering::SeqCst)
    }

    /// What has arrived where an entry point leads: requests, handshakes or connections.
    pub(crate) fn arrived(&self, row: &Row) -> usize {
        match (row.traffic, row.destination) {
            (Traffic::Requests, _) => self.upstream.count(),
            (Traffic::Messages, _) => self.websockets.seen().len(),
            (Traffic::Bytes, "named") => self.named.connections(),
            (Traffic::Bytes, _) => self.queue.connections.load(Ordering::SeqCst),
        }
    }

    /// All that the last request or handshake said there.
    pub(crate) fn last(&self, row: &Row) -> String {
        match row.traffic {
            Traffic::Messages => self.websockets.seen().pop().expect("a handshake"),
            _ => self.upstream.seen().pop().expect("a request").everything(),
        }
    }

    /// Takes every grant away.
    pub(crate) async fn withdraw_all(&self) {
        self.gateway.replace(RESOURCES, &self.destinations).await;
    }

    /// Revokes the certificates of these callers.
    pub(crate) fn revoke<'a>(&self, callers: impl IntoIterator<Item = &'a Caller>) {
        let serials: Vec<u64> = callers.into_iter().map(|caller| caller.serial).collect();
        let next = self.revoked.with_extension("next");
        std::fs::write(&next, self.prod.revocation_list(&serials, 3600)).unwrap();
        std::fs::rename(next, &self.revoked).unwrap();
    }
}

/// The grant of each entry point, for its own caller.
fn grants(limits: &str) -> String {
    let grant = |row: &Row| {
        let of_http = match row.traffic {
            Traffic::Requests => "  credential: up-key\n  allow: {methods: [GET], paths: [\"/**\"]}\n",
            Traffic::Messages => {
                "  credential: up-key\n  allow: {methods: [GET], paths: [\"/**\"], upgrades: [websocket]}\n"
            }
            Traffic::Bytes => "",
        };
        let spec = format!(
            "  callers: [{{spiffe: \"spiffe://prod.acme/ns/{GRANTED}/sa/{}\"}}]\n  destination: {}\n{of_http}{limits}",
            row.name, row.destination
        );
        document("Grant", row.name, spec)
    };
    ENTRY_POINTS.iter().map(grant).collect()
}
