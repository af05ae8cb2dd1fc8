//! As many connections to one destination as its addresses have room for: the gateway in one network namespace, the destination in another.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use http::Request;
use http_body_util::Empty;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;
use tollgate_tests::gateway::eventually;
use tollgate_tests::hbone::HboneClient;
use tollgate_tests::namespace::{has_namespaces, is_inside, run};
use tollgate_tests::process::Process;
use tollgate_tests::resources::document;
use tollgate_tests::{Client, Fixture, Plan, Reply, Sandbox, needs};

use super::counted;
use crate::exhaustion::resident_kib;

/// 40,000 where `TOLLGATE_SOURCE_CONNECTIONS` says so, in waves where one process may not have so many open.
const CONNECTIONS: usize = 4_000;
const TUNNELS_OF_ONE: usize = 100;
const WORKERS: usize = 8;
/// What a held connection may take of the gateway, in KiB.
const EACH: u64 = 32;
const PORT: u16 = 7000;
const AUTHORITY: &str = "held.test:7000";
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 11), Ipv4Addr::new(10, 77, 0, 12)];

/// The destination, in a namespace of its own that ends with it.
struct Elsewhere {
    namespace: String,
    _holds: Process,
    _listens: Process,
}

impl Elsewhere {
    async fn start(sandbox: &Sandbox) -> Self {
        let logs = sandbox.providers();
        let mut command = Command::new("unshare");
        let mut holds = Process::spawn("namespace", &logs, command.args(["--net", "sleep", "infinity"]));
        let own = std::fs::read_link("/proc/self/ns/net").expect("a namespace");
        let link = format!("/proc/{}/ns/net", holds.id());
        holds.ready(|_| std::fs::read_link(&link).is_ok_and(|its| its != own).then_some(())).await;
        let namespace = format!("nsenter --net --target {} ", holds.id());
        run("ip link set lo up");
        run(&format!("ip link add va type veth peer name vb netns {}", holds.id()));
        run(&format!("{namespace}ip addr add 10.77.0.1/24 dev vb"));
        run(&format!("{namespace}ip link set vb up"));
        run("ip addr add 10.77.0.99/24 dev va");
        run("ip link set va up");
        for address in ADDRESSES {
            run(&format!("ip addr add {address}/32 dev va"));
        }
        let argument = json!({"address": "10.77.0.1", "port": PORT}).to_string();
        let script = format!("{}/clients/holding_server.py", env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &holds.id().to_string(), "python3", &script, &argument]);
        let mut listens = Process::spawn("holding-server", &logs, &mut command);
        listens.ready(|process| process.stdout().contains("listening").then_some(())).await;
        Self { namespace, _holds: holds, _listens: listens }
    }

    /// Counts the connections that come from each address, and from any other.
    fn watch(&self) {
        let nft = |line: &str| run(&format!("{}nft {line}", self.namespace));
        nft("add table inet watch");
        nft("add chain inet watch in { type filter hook input priority 0 ; }");
        let syn =
            format!("add rule inet watch in tcp dport {PORT} tcp flags & ( syn | ack ) == syn ip saddr");
        for address in ADDRESSES {
            nft(&format!("add counter inet watch {}", counter(address)));
            nft(&format!("{syn} {address} counter name {}", counter(address)));
        }
        nft("add counter inet watch stranger");
        nft(&format!("{syn} != {{ {}, {} }} counter name stranger", ADDRESSES[0], ADDRESSES[1]));
    }
}

fn counter(address: Ipv4Addr) -> String {
    format!("from{}", address.octets()[3])
}

async fn fixture(plan: Plan) -> Fixture {
    let mut plan = plan;
    plan.settings.environment = vec![("RUST_LOG".to_owned(), "info".to_owned())];
    plan.settings.private_ranges.push("10.77.0.0/16".to_owned());
    plan.settings.extra = "limits: {calls: 100000}\n".to_owned();
    plan.settings.listeners.push("{name: tunnels, kind: hbone, address: \"127.0.0.1:0\"}".to_owned());
    let pool = format!("  addresses: [{}, {}]\n  order: spread\n", ADDRESSES[0], ADDRESSES[1]);
    let held = format!("  hosts: [held.test]\n  port: {PORT}\n  protocol: tcp\n  addresses: [10.77.0.1]\n");
    let grant = "  callers: [{spiffe: \"spiffe://prod.acme/ns/checkout/sa/*\"}]\n  destination: held\n";
    let text = document("SourcePool", "ips", pool)
        + &document("Destination", "held", held + "  sourcePool: ips\n")
        + &document("Grant", "held", grant);
    plan.settings = plan.settings.clone().resource("held.yaml", text);
    plan.start(|_| Reply::status(200)).await
}

/// A connection of tunnels, each held open, and where they leave from.
struct Holder {
    mesh: HboneClient,
    from: Ipv4Addr,
    tunnels: Vec<TokioIo<Upgraded>>,
}

impl Holder {
    async fn open(client: &Client) -> Self {
        let mut mesh = HboneClient::connect(client).await;
        let first = mesh.tunnel(AUTHORITY).await;
        let mut holder = Self { mesh, from: Ipv4Addr::UNSPECIFIED, tunnels: vec![first] };
        holder.from = holder.said().await;
        holder
    }

    /// What the destination says of where the last tunnel came from.
    async fn said(&mut self) -> Ipv4Addr {
        let mut said = [0; 4];
        self.tunnels.last_mut().expect("a tunnel").read_exact(&mut said).await.expect("an address");
        said.into()
    }

    async fn fill(&mut self) {
        while self.tunnels.len() < TUNNELS_OF_ONE {
            let next = self.mesh.tunnel(AUTHORITY).await;
            self.tunnels.push(next);
            assert_eq!(self.said().await, self.from, "a caller leaves from one address");
        }
    }
}

/// Opens so many connections from each address, by callers whose turn it is.
async fn hold(fixture: &Fixture, each: usize) -> Vec<(Client, Holder)> {
    let (next, counts): (Arc<AtomicUsize>, Arc<[AtomicUsize; 2]>) = Default::default();
    let mut workers = JoinSet::new();
    let listener = fixture.gateway.listener("tunnels");
    let (prod, sandbox, at) = (&fixture.prod, &fixture.sandbox, fixture.checkout().at(listener));
    // A caller's turn is that of its name, so that some are left over.
    let callers = 3 * 2 * each / TUNNELS_OF_ONE + 20;
    let clients: Vec<Client> = (0..callers)
        .map(|number| {
            at.showing(Some(prod.svid(sandbox, &format!("spiffe://prod.acme/ns/checkout/sa/c{number}"))))
        })
        .collect();
    let clients: Arc<[Client]> = clients.into();
    for _ in 0..WORKERS {
        let (next, counts, clients) = (next.clone(), counts.clone(), clients.clone());
        workers.spawn(async move {
            let mut held = Vec::new();
            let is_full = |count: &AtomicUsize| count.load(Ordering::SeqCst) >= each;
            while !counts.iter().all(is_full) {
                let Some(client) = clients.get(next.fetch_add(1, Ordering::SeqCst)) else { break };
                let mut holder = Holder::open(client).await;
                let turn = ADDRESSES.iter().position(|address| *address == holder.from).expect("of the pool");
                if counts[turn].fetch_add(TUNNELS_OF_ONE, Ordering::SeqCst) < each {
                    holder.fill().await;
                    held.push((client.clone(), holder));
                }
            }
            held
        });
    }
    workers.join_all().await.into_iter().flatten().collect()
}

/// How many the gateway may have open at once, of so many: each is a file, and not every root may have more.
fn room(connections: usize) -> usize {
    const OTHERS: u64 = 2_000;
    let wanted = connections as u64 + OTHERS;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let most = setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted.max(most)).map_or(most, |()| wanted);
    // Whole callers, as many for either address.
    let room = most.saturating_sub(OTHERS).min(connections as u64) as usize;
    room / (2 * TUNNELS_OF_ONE) * (2 * TUNNELS_OF_ONE)
}

/// How many leave from an address, as the gateway says.
fn told(fixture: &Fixture, address: Ipv4Addr) -> f64 {
    fixture.gateway.metrics().sum("tollgate_source_connections", &[&format!("address=\"{address}\"")])
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_by_the_thousand_leave_from_two_addresses_evenly_and_from_the_other_when_one_is_lost() {
    needs!(has_namespaces());
    if !is_inside(
        "sources::many::connections_by_the_thousand_leave_from_two_addresses_evenly_and_from_the_other_when_one_is_lost",
    ) {
        return;
    }
    let connections =
        std::env::var("TOLLGATE_SOURCE_CONNECTIONS").map_or(CONNECTIONS, |text| text.parse().unwrap());
    let waves = connections.div_ceil(room(connections));
    let each = (connections / waves / 2).next_multiple_of(TUNNELS_OF_ONE);
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "16000 64999").expect("root may");
    let plan = Plan::new();
    let elsewhere = Elsewhere::start(&plan.sandbox).await;
    elsewhere.watch();
    let fixture = fixture(plan).await;
    let (mut held, mut open) = (Vec::new(), 0);
    for _ in 0..waves {
        held.clear();
        eventually("those before have ended", || ADDRESSES.iter().all(|it| told(&fixture, *it) == 0.0)).await;
        let (before, begun) = (resident_kib(fixture.gateway.pid()), Instant::now());
        held = hold(&fixture, each).await;
        let (after, took) = (resident_kib(fixture.gateway.pid()), begun.elapsed());
        for address in ADDRESSES {
            let of = held.iter().filter(|(_, holder)| holder.from == address);
            assert_eq!(of.map(|(_, holder)| holder.tunnels.len()).sum::<usize>(), each, "{address}");
            assert!(told(&fixture, address) >= each as f64, "{address}: {}", told(&fixture, address));
        }
        open += 2 * each;
        let bound = EACH * 2 * each as u64;
        eprintln!("{} at once after {took:?}: resident {before} KiB before, {after} KiB after", 2 * each);
        assert!(after < before + bound, "{before} KiB before, {after} KiB after");
    }
    let counts = ADDRESSES.map(|address| counted(&elsewhere.namespace, &counter(address)));
    eprintln!("{open} connections in {waves} waves; the destination counted {counts:?}");
    assert!(counts.iter().all(|count| *count >= open as u64 / 2), "{counts:?}");
    assert_eq!(counted(&elsewhere.namespace, "stranger"), 0);

    // The next connection of a caller whose address is lost leaves from the other one, or not at all.
    let [stays, lost] = ADDRESSES;
    let (client, _) = held.iter().find(|(_, holder)| holder.from == lost).expect("one whose turn it is");
    let mut mesh = HboneClient::connect(client).await;
    run(&format!("ip addr del {lost}/32 dev va"));
    let begun = Instant::now();
    let answer = mesh.ask_with(Request::connect(AUTHORITY).body(Empty::new()).unwrap()).await;
    eprintln!(
        "{lost} was lost; the next connection was answered {} after {:?}",
        answer.status(),
        begun.elapsed()
    );
    if answer.status() == 200 {
        let mut tunnel = TokioIo::new(hyper::upgrade::on(answer).await.expect("a tunnel"));
        let mut said = [0; 4];
        tunnel.read_exact(&mut said).await.expect("an address");
        assert_eq!(Ipv4Addr::from(said), stays);
    } else {
        assert_eq!(answer.headers()["x-tollgate-reason"], "source_unavailable");
    }
    assert_eq!(counted(&elsewhere.namespace, "stranger"), 0);
}
