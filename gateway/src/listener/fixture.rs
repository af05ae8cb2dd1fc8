//! A core with a destination, a caller and its grants, for listeners whose streams are in memory.

use std::collections::HashMap;
use std::fs;
use std::future::pending;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tollgate_policy::consent::Consents;
use tollgate_policy::denial::Reason;
use tollgate_policy::model::SourceFile;
use tollgate_secrets::Secrets;

use crate::app;
use crate::caller_occupancy::CallerOccupancies;
use crate::core::{Core, Shared, Throttles};
use crate::drain::Drain;
use crate::identity::{Bundle, Proofs, Trust};
use crate::injection::InjectionCache;
use crate::key_health::KeyPools;
use crate::ledger::{Ledger, samples};
use crate::metering::Recorder;
use crate::quota::Quota;
use crate::session::{Arrival, ConnectionRegistry, HeaderDeadline, ProxyMode, Session};
use crate::settings::RequestLimits;
use crate::snapshot::{Snapshot, Snapshots};
use crate::stats::{Series, Sums};
use crate::timers::Timers;
use crate::upstream::{DialRules, Pool, Resolver, SourceAddresses, UpstreamHealth};

type TestIssuer = CertifiedIssuer<'static, KeyPair>;

pub(super) fn issuer() -> TestIssuer {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf(issuer: &TestIssuer, san: SanType) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![san];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap().der().clone();
    (certificate, PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}

/// A destination that answers each connection's request with `200` and its request line.
async fn destination(issuer: &TestIssuer) -> u16 {
    let (certificate, key) = leaf(issuer, SanType::DnsName("up.test".try_into().unwrap()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let tls = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = tls.accept(stream).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let line = String::from_utf8(head).unwrap().lines().next().unwrap().to_owned();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{line}", line.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        }
    });
    port
}

/// A destination that sends back what comes, and ends where that ends.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await?;
                writer.shutdown().await
            });
        }
    });
    port
}

/// What a destination has met, in order.
pub(super) type Met = Arc<Mutex<Vec<String>>>;

/// Fails unless a destination has met this in the end.
pub(super) async fn has_met(met: &Met, expected: &[&str]) {
    for _ in 0..100 {
        if *met.lock().unwrap() == expected {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(*met.lock().unwrap(), expected);
}

/// A destination that begins late to read, notes how much that is up to a good end, says `ended`, and stays. One that is `talkative` writes
/// meanwhile.
async fn patient(is_talkative: bool) -> (u16, Met) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, met) = (listener.local_addr().unwrap().port(), Met::default());
    let own = Arc::clone(&met);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let met = Arc::clone(&own);
            let (mut reader, mut writer) = stream.into_split();
            tokio::spawn(async move {
                let mut read = Vec::new();
                let reading = async {
                    // What does not fit into the sockets' buffers waits in the gateway.
                    sleep(Duration::from_secs(1)).await;
                    reader.read_to_end(&mut read).await
                };
                let writing = async {
                    while is_talkative && writer.write_all(&[b'x'; 1 << 10]).await.is_ok() {}
                    pending::<()>().await;
                };
                let done = tokio::select! { done = reading => done, () = writing => return };
                let said = done.map_or_else(|_| "a reset".to_owned(), |bytes| format!("{bytes} bytes"));
                met.lock().unwrap().push(said);
                let _ = writer.write_all(b"ended").await;
                pending::<()>().await;
            });
        }
    });
    (port, met)
}

/// What its destinations listen on.
#[derive(Clone, Copy)]
struct Ports {
    http: u16,
    echo: u16,
    patient: u16,
    talkative: u16,
}

pub(super) struct Fixture {
    pub(super) core: Arc<Core>,
    ports: Ports,
    /// Of the patient and of the talkative destination.
    met: [Met; 2],
    issuer: TestIssuer,
    _ledger: Arc<Ledger>,
    directory: TempDir,
}

impl Fixture {
    pub(super) async fn new() -> Self {
        let (directory, issuer) = (samples::directory(), issuer());
        let (ledger, _) = Ledger::open(directory.path(), None, 1).unwrap();
        let bundle = Arc::new(Bundle::of(&[issuer.der().clone()]).unwrap().0);
        let limits = RequestLimits::default();
        let loopback = vec!["127.0.0.0/8".parse().unwrap()];
        let shared = Arc::new(Shared {
            snapshots: Snapshots::default(),
            secrets: Secrets::new(tokio::runtime::Handle::current(), Arc::new(|_| false)),
            keys: KeyPools::default(),
            quota: Quota::new(),
            trust: Trust::new(HashMap::from([("prod.acme".parse().unwrap(), bundle)]), Duration::ZERO),
            rules: DialRules::new(loopback),
            interception: None,
            sources: SourceAddresses::new(),
            upstreams: UpstreamHealth::default(),
            nameservers: Vec::new(),
            usages: CallerOccupancies::new(limits.bounds()),
            drain: Drain::new(),
            limits,
            throttles: Throttles::default(),
            tracer: None,
            exported: None,
        });
        let ((patient, met), (talkative, heard)) = (patient(false).await, patient(true).await);
        let (http, echo, met) = (destination(&issuer).await, echo().await, [met, heard]);
        let ports = Ports { http, echo, patient, talkative };
        shared.publish(snapshot((directory.path(), &issuer), ports, "web", None));
        let journal = ledger.journal(0).unwrap();
        let (stats, uses) = (Arc::default(), Arc::default());
        let core = Core {
            pool: Pool::new(
                Arc::clone(&journal),
                Resolver::new(&[]),
                (shared.sources.clone(), shared.upstreams.clone()),
                shared.limits.answer_fields,
            ),
            recorder: Recorder::new(&journal, &stats, &uses, None),
            shared,
            journal,
            prepared: InjectionCache::new(Arc::default()),
            connections: ConnectionRegistry::default(),
            stats,
            uses,
            timers: Timers::default(),
        };
        Self { core: Arc::new(core), ports, met, issuer, _ledger: ledger, directory }
    }

    /// The port of what sends back what comes.
    pub(super) fn echo(&self) -> u16 {
        self.ports.echo
    }

    /// The port of `patient.test`, which stays when it has read all, and what that has met.
    pub(super) fn patient(&self) -> (u16, Met) {
        (self.ports.patient, Arc::clone(&self.met[0]))
    }

    /// The same of `talkative.test`, which writes all the while.
    pub(super) fn talkative(&self) -> (u16, Met) {
        (self.ports.talkative, Arc::clone(&self.met[1]))
    }

    /// Puts a policy in force whose grants are for another workload.
    pub(super) fn withdraw(&self) {
        let before = self.core.shared.snapshots.current();
        let place = (self.directory.path(), &self.issuer);
        self.core.shared.publish(snapshot(place, self.ports, "other", before.as_deref()));
    }

    /// A connection of whoever has shown this chain elsewhere.
    pub(super) fn session(&self, chain: Vec<CertificateDer<'static>>, http2: bool) -> Arc<Session> {
        self.session_by(ProxyMode::Direct, chain, http2)
    }

    pub(super) fn session_by(
        &self,
        mode: ProxyMode,
        chain: Vec<CertificateDer<'static>>,
        http2: bool,
    ) -> Arc<Session> {
        let shared = &self.core.shared;
        let proven = Proofs::of(chain, &shared.trust, &shared.usages).unwrap();
        let deadline = Arc::new(HeaderDeadline::new());
        let arrival = Arrival { address: "192.0.2.1:1234".parse().unwrap(), mode, http2, deadline };
        Arc::new(Session::new(arrival, proven))
    }

    pub(super) fn web(&self) -> Vec<CertificateDer<'static>> {
        vec![leaf(&self.issuer, SanType::URI("spiffe://prod.acme/web".try_into().unwrap())).0]
    }
}

fn snapshot(
    (directory, issuer): (&Path, &TestIssuer),
    Ports { http: port, echo, patient, talkative }: Ports,
    workload: &str,
    before: Option<&Snapshot>,
) -> Snapshot {
    let bundle = directory.join("up.pem");
    fs::write(&bundle, issuer.pem()).unwrap();
    let head = "---\napiVersion: tollgate.dev/v1alpha1\nkind:";
    let text = format!(
        "{head} Destination\nmetadata: {{name: up}}\nspec:\n  hosts: [up.test]\n  port: {port}\n  addresses: [127.0.0.1]\n  virtualAddresses: [240.240.0.1]\n  tls: {{verify: {{caFile: {}}}}}\n\
         {head} Destination\nmetadata: {{name: twin}}\nspec:\n  hosts: [twin.test]\n  port: {port}\n  addresses: [127.0.0.1]\n\
         {head} Destination\nmetadata: {{name: a-foreign}}\nspec: {{hosts: [foreign.test], virtualAddresses: ['fd00::1', 240.240.0.1]}}\n\
         {head} Destination\nmetadata: {{name: queue}}\nspec: {{hosts: [queue.test], port: {echo}, protocol: tcp, addresses: [127.0.0.1], virtualAddresses: [240.240.0.9]}}\n\
         {head} Destination\nmetadata: {{name: patient}}\nspec: {{hosts: [patient.test], port: {patient}, protocol: tcp, addresses: [127.0.0.1]}}\n\
         {head} Destination\nmetadata: {{name: talkative}}\nspec: {{hosts: [talkative.test], port: {talkative}, protocol: tcp, addresses: [127.0.0.1]}}\n\
         {head} Destination\nmetadata: {{name: named}}\nspec: {{hosts: [a.named.test, b.named.test], port: {echo}, protocol: tls, addresses: [127.0.0.1], virtualAddresses: [240.240.0.10]}}\n\
         {head} Destination\nmetadata: {{name: closed}}\nspec: {{hosts: [closed.test], port: 1, protocol: tcp, addresses: [127.0.0.1]}}\n\
         {head} Destination\nmetadata: {{name: inside}}\nspec: {{hosts: [inside.test], port: 22, protocol: tcp, addresses: [169.254.169.254]}}\n\
         {head} Destination\nmetadata: {{name: idle}}\nspec: {{hosts: [idle.test], port: {echo}, protocol: tcp, addresses: [127.0.0.1], timeouts: {{idle: 100ms}}}}\n\
         {head} Destination\nmetadata: {{name: brief}}\nspec: {{hosts: [brief.test], port: {echo}, protocol: tcp, addresses: [127.0.0.1], timeouts: {{lifetime: 100ms}}}}\n",
        bundle.display()
    );
    let of = |name: &str| {
        format!(
            "{head} Grant\nmetadata: {{name: web-{name}}}\nspec: {{callers: [{{spiffe: 'spiffe://prod.acme/{workload}'}}], destination: {name}}}\n"
        )
    };
    let grants =
        ["twin", "up", "queue", "patient", "talkative", "named", "closed", "inside", "idle", "brief"].map(of);
    let text = text + &grants.concat();
    let environment = app::environment_of(&[], &["prod.acme".to_owned()]).unwrap();
    let file = SourceFile { path: "a.yaml".into(), text };
    Snapshot::build((&[file], &Consents::default()), &environment, before).unwrap().0
}

/// How many connections to this destination were recorded with this reason, or that of a good end.
pub(super) async fn recorded(fixture: &Fixture, destination: &str, reason: Option<Reason>) -> u64 {
    for _ in 0..50 {
        let mut sums = Sums::default();
        sums.add(&fixture.core.stats);
        let is_it = |series: &Series| {
            series.reason == reason && series.destination.as_ref().is_some_and(|it| it.name() == destination)
        };
        let calls = sums.calls.iter().filter(|(series, _)| is_it(series)).map(|(_, all)| all.requests).sum();
        if calls > 0 {
            return calls;
        }
        sleep(Duration::from_millis(100)).await;
    }
    0
}
