//! Connections that are passed through: databases and TLS of workloads, in tunnels of a mesh and at a listener of their own.

mod bounds;

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use http::Method;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tollgate_tests::ca::client_config;
use tollgate_tests::client::Connection;
use tollgate_tests::echo::echo;
use tollgate_tests::envoy::{Envoy, Mesh, Tunnel};
use tollgate_tests::fixture::{CHECKOUT, Fixture};
use tollgate_tests::gateway::eventually;
use tollgate_tests::hbone::HboneClient;
use tollgate_tests::postgres::Postgres;
use tollgate_tests::redis::Redis;
use tollgate_tests::resources::document;
use tollgate_tests::{Client, Leaf, Plan, Protocol, Reply, Upstream, ledger, needs};

const GATEWAY: &str = "spiffe://prod.acme/ns/egress/sa/tollgate";
const FILE: &str = "tunnels.yaml";

/// A destination on loopback that connections are passed through to, and `checkout`'s grant for it.
fn passed(name: &str, port: u16, protocol: &str, rest: &str) -> String {
    let spec = format!(
        "  hosts: [{name}.test]\n  port: {port}\n  protocol: {protocol}\n  addresses: [127.0.0.1]\n{rest}"
    );
    document("Destination", name, spec) + &granted(name, CHECKOUT)
}

fn granted(name: &str, caller: &str) -> String {
    let spec = format!("  callers: [{{spiffe: \"{caller}\"}}]\n  destination: {name}\n");
    document("Grant", &format!("checkout-{name}"), spec)
}

/// A gateway with listeners for tunnels of a mesh, and for connections to one destination and to the server that their TLS names.
async fn mesh(mut plan: Plan, resources: &str) -> Fixture {
    let own = Leaf { uris: vec![GATEWAY.to_owned()], ..Leaf::server(&["localhost"]) };
    plan.settings.certificate = plan.prod.issue(&plan.sandbox, "gateway", &own);
    for listener in
        ["name: tunnels, kind: hbone", "name: cache, kind: tcp, destination: cache", "name: named, kind: tcp"]
    {
        plan.settings.listeners.push(format!("{{{listener}, address: \"127.0.0.1:0\"}}"));
    }
    plan.settings = plan.settings.clone().resource(FILE, resources);
    let upstream =
        Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200).data("through HTTP")).await;
    plan.start_with(upstream).await
}

fn workload(fixture: &Fixture, listener: &str) -> Client {
    let identity = fixture.prod.svid(&fixture.sandbox, CHECKOUT);
    let address = fixture.gateway.listener(listener);
    Client::new(&fixture.sandbox, address, fixture.prod.roots(), Some(identity)).naming("api.up.test")
}

async fn envoy(fixture: &Fixture, workload: &Client, authority: &str) -> Envoy {
    let mesh = Mesh {
        gateway: fixture.gateway.listener("tunnels"),
        gateway_id: GATEWAY,
        bundle: fixture.prod.bundle().to_owned(),
        workload: workload.identity(),
    };
    let tunnel = Tunnel { mesh, authority };
    Envoy::start(&fixture.sandbox, &tunnel).await
}

/// The records of connections to a destination, once there are so many.
async fn recorded(fixture: &Fixture, destination: &str, count: usize) -> Vec<serde_json::Value> {
    let of = || {
        let mut records = ledger::records(&fixture.gateway);
        // Whether Envoy listens is asked by a connection that says nothing.
        let is_of_nothing = |record: &serde_json::Value| {
            record["reason"].is_null()
                && record["outcome"] != "crashed"
                && record["bytes_in"].as_u64().unwrap_or(0) == 0
        };
        let is_http = |record: &serde_json::Value| record["method"] != "CONNECT";
        records.retain(|record| {
            record["destination"] == destination && (is_http(record) || !is_of_nothing(record))
        });
        records
    };
    eventually("they are recorded", || of().len() == count).await;
    of()
}

fn said(output: &std::process::Output) -> String {
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{error}");
    out.trim().to_owned()
}

async fn run(mut command: Command) -> String {
    said(&tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_reaches_its_database_through_envoys_tunnels_and_the_gateways_tls() {
    needs!(Envoy::installed(), Postgres::installed());
    let plan = Plan::new();
    let server = plan.pki.server(&plan.sandbox, &["safe.test"]);
    let orders = Postgres::start(&plan.sandbox, None).await;
    let safe = Postgres::start(&plan.sandbox, Some(&server)).await;
    let tls =
        format!("  tls: {{originate: postgres, verify: {{caFile: {}}}}}\n", plan.pki.bundle().display());
    let resources = passed("orders", orders.port(), "tcp", "") + &passed("safe", safe.port(), "tcp", &tls);
    let mut fixture = mesh(plan, &resources).await;
    let checkout = workload(&fixture, "tunnels");
    for (name, database, is_secured) in [("orders", &orders, "f"), ("safe", &safe, "t")] {
        let refused = safe.psql(SocketAddr::from(([127, 0, 0, 1], safe.port())), "disable", "select 1");
        assert!(!refused.status.success(), "it takes nobody without TLS");
        let envoy = envoy(&fixture, &checkout, &format!("{name}.test:{}", database.port())).await;
        let query = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
        assert_eq!(said(&database.psql(envoy.address(), "disable", query)), is_secured);
        let many = "select count(*), sum(length(repeat(n::text, 100))) from generate_series(1, 20000) n";
        assert_eq!(said(&database.psql(envoy.address(), "disable", many)), "20000|8889400");
        let rows = said(&database.psql(
            envoy.address(),
            "disable",
            "select repeat('x', 1000) from generate_series(1, 3000)",
        ));
        assert_eq!(rows.len(), 3000 * 1001 - 1);
        let records = recorded(&fixture, name, 3).await;
        for record in &records {
            let peer = format!("127.0.0.1:{}", database.port());
            assert_eq!(
                (&record["host"], &record["peer"]),
                (&format!("{name}.test").into(), &peer.into()),
                "{record}"
            );
            assert_eq!(
                (&record["caller"], &record["outcome"]),
                (&CHECKOUT.into(), &"completed".into()),
                "{record}"
            );
            assert_eq!((&record["method"], &record["path"]), (&"CONNECT".into(), &serde_json::Value::Null));
            assert!(
                record["bytes_in"].as_u64() > Some(100) && record["duration_us"].as_u64() > Some(0),
                "{record}"
            );
        }
        assert!(records.iter().any(|record| record["bytes_out"].as_u64() > Some(3_000_000)));
    }
    let shown = fixture.gateway.tollgate(&["calls", "--destination", "orders"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("CONNECT"), "{shown:?}");
    // Threat 21, as far as a session is passed through: it is that of whoever has the password, which the gateway does not have.
    let envoy = envoy(&fixture, &checkout, &format!("safe.test:{}", safe.port())).await;
    let refused = orders.psql(envoy.address(), "disable", "select 1");
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("password authentication failed"), "{why}");
    drop(envoy);
    assert!(fixture.gateway.stop().success());
    // Nor does it show up in anything that the gateway has written.
    fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_cli_reaches_its_database_through_envoys_tunnels_and_at_a_listener_for_it() {
    needs!(Envoy::installed(), Redis::installed());
    let plan = Plan::new();
    let redis = Redis::start(&plan.sandbox).await;
    let resources = passed("cache", redis.port(), "tcp", "");
    let fixture = mesh(plan, &resources).await;
    let checkout = workload(&fixture, "tunnels");
    let envoy = envoy(&fixture, &checkout, &format!("cache.test:{}", redis.port())).await;
    let mut set = redis.client(envoy.address());
    set.args(["SET", "order", "seven"]);
    assert_eq!(run(set).await, "OK");
    let identity = checkout.identity().clone();
    let with_tls = |identity: &tollgate_tests::Identity| {
        let mut get = redis.client(fixture.gateway.listener("cache"));
        get.arg("--tls").arg("--cert").arg(&identity.cert).arg("--key").arg(&identity.key);
        get.arg("--cacert").arg(fixture.prod.bundle()).args(["--sni", "localhost", "GET", "order"]);
        get
    };
    assert_eq!(run(with_tls(&identity)).await, "seven");
    let stranger = fixture.prod.svid(&fixture.sandbox, "spiffe://prod.acme/ns/search/sa/web");
    let refused = with_tls(&stranger).output().unwrap();
    assert!(!String::from_utf8_lossy(&refused.stdout).contains("seven"), "{refused:?}");
    let records = recorded(&fixture, "cache", 4).await;
    // redis-cli tries a connection that breaks off once more.
    assert_eq!(records.iter().filter(|record| record["reason"] == "no_grant").count(), 2, "{records:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_tunnels_of_one_connection_carry_http_tls_and_tcp_while_pings_are_answered() {
    let plan = Plan::new();
    let server = plan.pki.server(&plan.sandbox, &["a.named.test"]);
    let upstream = Upstream::http(&server, &["http/1.1"], |_| Reply::status(200).data("through TLS")).await;
    let (tls, tcp) = (upstream.port(), echo().await);
    let resources = passed("queue", tcp, "tcp", "")
        + &passed("named", tls, "tls", "").replace("[named.test]", "[a.named.test, b.named.test]");
    let fixture = mesh(plan, &resources).await;
    let checkout = workload(&fixture, "tunnels");
    let mut mesh_client = HboneClient::pinging(&checkout, Duration::from_millis(20)).await;
    let inner = client_config(fixture.pki.roots(), None, &["http/1.1"]);
    let (told, pinged) = tokio::sync::watch::channel(false);
    let mut under_way = Vec::new();
    for index in 0..100_u32 {
        let (inner, checkout) = (inner.clone(), checkout.naming("a.named.test"));
        let authority = match index % 3 {
            0 => "api.up.test:80".to_owned(),
            1 => format!("a.named.test:{tls}"),
            _ => format!("queue.test:{tcp}"),
        };
        let mut io = mesh_client.tunnel(&authority).await;
        let mut pinged = pinged.clone();
        under_way.push(tokio::spawn(async move {
            match index % 3 {
                0 => {
                    let client = checkout.naming("api.up.test");
                    let mut http = Connection::over(&client, io, Protocol::H1).await.unwrap();
                    let answer = http.send(client.request(Method::GET, "/one", "")).await.unwrap();
                    assert_eq!(answer.body, "through HTTP");
                }
                1 => {
                    let name = ServerName::try_from("a.named.test").unwrap();
                    let stream = TlsConnector::from(inner).connect(name, io).await.unwrap();
                    let mut http = Connection::over(&checkout, stream, Protocol::H1).await.unwrap();
                    let answer = http.send(checkout.request(Method::GET, "/two", "")).await.unwrap();
                    assert_eq!(answer.body, "through TLS");
                }
                _ => {
                    let piece = vec![u8::try_from(index).unwrap(); 200_000];
                    let (mut reader, mut writer) = tokio::io::split(&mut io);
                    let written = async {
                        for _ in 0..4 {
                            writer.write_all(&piece).await.unwrap();
                        }
                        // The last pieces are under way between pings.
                        pinged.wait_for(|has| *has).await.unwrap();
                        writer.write_all(&piece).await.unwrap();
                        writer.shutdown().await.unwrap();
                    };
                    let mut back = Vec::new();
                    let (_, read) = tokio::join!(written, reader.read_to_end(&mut back));
                    assert_eq!(read.unwrap(), 1_000_000);
                    assert!(back.iter().all(|byte| u32::from(*byte) == index));
                }
            }
        }));
    }
    let wire = mesh_client.wire();
    eventually("there are pings between what is written", || wire.pings() >= 48).await;
    told.send(true).unwrap();
    for one in under_way {
        one.await.unwrap();
    }
    eventually("each ping was answered, in its turn", || wire.are_all_answered()).await;
    assert!(mesh_client.is_open().await);
    assert_eq!(recorded(&fixture, "queue", 33).await.len(), 33);
    assert_eq!(recorded(&fixture, "named", 33).await.len(), 33);
    assert_eq!(recorded(&fixture, "up", 34).await.len(), 34);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_that_a_workloads_tls_names_is_where_it_goes_and_no_other() {
    let plan = Plan::new();
    let server = plan.pki.server(&plan.sandbox, &["named.test"]);
    let upstream = Upstream::http(&server, &["http/1.1"], |_| Reply::status(200).data("through TLS")).await;
    let resources = passed("named", upstream.port(), "tls", "");
    let fixture = mesh(plan, &resources).await;
    let checkout = workload(&fixture, "named");
    let call = async |server: &str| {
        let outer = checkout.handshake(checkout.tls(&[])).await.unwrap();
        let inner = TlsConnector::from(client_config(fixture.pki.roots(), None, &["http/1.1"]));
        let stream = inner.connect(ServerName::try_from(server.to_owned()).unwrap(), outer).await?;
        let client = checkout.naming(server);
        let mut http = Connection::over(&client, stream, Protocol::H1).await?;
        http.send(client.request(Method::GET, "/one", "")).await
    };
    assert_eq!(call("named.test").await.unwrap().body, "through TLS");
    for other in ["api.up.test", "elsewhere.test", "127.0.0.1"] {
        assert!(call(other).await.is_err(), "{other}");
    }
    assert_eq!(upstream.count(), 1);
    assert_eq!(fixture.upstream.count(), 0);
    eventually("all are recorded", || ledger::records(&fixture.gateway).len() == 4).await;
    let mut reasons = ledger::column(&fixture.gateway, "reason");
    reasons.sort();
    assert_eq!(reasons, ["", "sni_mismatch", "sni_mismatch", "sni_missing"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_ends_with_its_grant_and_an_open_one_outlives_a_drain_only_until_its_timeout() {
    let plan = Plan::new();
    let port = echo().await;
    let resources = passed("queue", port, "tcp", "") + &passed("other", port, "tcp", "");
    let mut fixture = mesh(plan, &resources).await;
    let checkout = workload(&fixture, "tunnels");
    let mut mesh_client = HboneClient::connect(&checkout).await;
    let mut queue = mesh_client.tunnel(&format!("queue.test:{port}")).await;
    let mut other = mesh_client.tunnel(&format!("other.test:{port}")).await;
    for io in [&mut queue, &mut other] {
        io.write_all(b"x").await.unwrap();
        assert_eq!(io.read_u8().await.unwrap(), b'x');
    }
    let elsewhere = granted("queue", "spiffe://prod.acme/ns/search/sa/web");
    fixture.gateway.replace(FILE, &resources.replace(&granted("queue", CHECKOUT), &elsewhere)).await;
    let cut = tokio::time::timeout(Duration::from_secs(30), queue.read_u8()).await;
    assert!(cut.expect("it ends").is_err(), "it is cut, and not ended");
    let records = recorded(&fixture, "queue", 1).await;
    assert_eq!((&records[0]["reason"], &records[0]["outcome"]), (&"withdrawn".into(), &"refused".into()));
    assert_eq!((&records[0]["bytes_in"], &records[0]["bytes_out"]), (&1.into(), &1.into()), "{}", records[0]);
    let refused = mesh_client.ask(&format!("queue.test:{port}")).await;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["x-tollgate-reason"]),
        (401, &"no_grant".parse().unwrap())
    );

    fixture.gateway.begin_drain();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        other.write_all(b"y").await.unwrap();
        assert_eq!(other.read_u8().await.unwrap(), b'y', "it goes on while the drain has time");
    }
    let ended = other.read_u8().await;
    assert!(ended.is_err(), "{ended:?}");
    assert!(fixture.gateway.ended().await.success());
    let records = recorded(&fixture, "other", 1).await;
    assert_eq!(
        (&records[0]["reason"], &records[0]["bytes_in"]),
        (&"drained".into(), &6.into()),
        "{}",
        records[0]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_is_open_at_a_kill_leaves_one_presumed_record() {
    let plan = Plan::new();
    let port = echo().await;
    let mut fixture = mesh(plan, &passed("queue", port, "tcp", "")).await;
    let checkout = workload(&fixture, "tunnels");
    let mut mesh_client = HboneClient::connect(&checkout).await;
    let mut io = mesh_client.tunnel(&format!("queue.test:{port}")).await;
    io.write_all(b"x").await.unwrap();
    assert_eq!(io.read_u8().await.unwrap(), b'x');
    fixture.gateway.kill();
    fixture.gateway.restart().await;
    let records = recorded(&fixture, "queue", 1).await;
    assert_eq!(
        (&records[0]["outcome"], &records[0]["usage_source"]),
        (&"crashed".into(), &"presumed".into())
    );
    assert_eq!(records[0]["caller"], CHECKOUT);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_each_way_does_not_grow_the_gateway() {
    let size: usize = std::env::var("TOLLGATE_TUNNEL_BYTES").map_or(64 << 20, |text| text.parse().unwrap());
    let mut plan = Plan::new();
    plan.settings.environment = vec![("RUST_LOG".to_owned(), "info".to_owned())];
    let port = echo().await;
    let fixture = mesh(plan, &passed("queue", port, "tcp", "")).await;
    let checkout = workload(&fixture, "tunnels");
    let mut mesh_client = HboneClient::connect(&checkout).await;
    let authority = format!("queue.test:{port}");
    let mut round = async |bytes: usize| {
        let (mut reader, mut writer) = tokio::io::split(mesh_client.tunnel(&authority).await);
        let piece = vec![7; 64 << 10];
        let written = async {
            for _ in 0..bytes / piece.len() {
                writer.write_all(&piece).await.unwrap();
            }
            writer.shutdown().await.unwrap();
        };
        let read = async {
            let (mut buffer, mut sum) = (vec![0; 256 << 10], 0);
            while let count @ 1.. = reader.read(&mut buffer).await.unwrap() {
                sum += count;
            }
            sum
        };
        let begun = Instant::now();
        let (_, read) = tokio::join!(written, read);
        assert_eq!(read, bytes);
        begun.elapsed()
    };
    round(8 << 20).await;
    let before = resident(fixture.gateway.pid());
    let took = round(size).await;
    let after = resident(fixture.gateway.pid());
    eprintln!("{size} bytes each way in {took:?}: resident {before} KiB before, {after} KiB after");
    assert!(after < before + (24 << 10), "{before} KiB before, {after} KiB after");
    let records = recorded(&fixture, "queue", 2).await;
    let sums: Vec<_> = records.iter().map(|record| record["bytes_in"].as_u64()).collect();
    assert!(sums.contains(&Some(size as u64)), "{records:?}");
}

/// KiB of memory that a process has.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_leads_to_no_address_of_the_inside_and_to_no_port_but_its_destinations() {
    let plan = Plan::new();
    let port = echo().await;
    let inside = passed("inside", 80, "tcp", "").replace("127.0.0.1", "169.254.169.254");
    let fixture = mesh(plan, &(inside + &passed("queue", port, "tcp", ""))).await;
    let checkout = workload(&fixture, "tunnels");
    let mut mesh_client = HboneClient::connect(&checkout).await;
    for (authority, status, reason) in [
        ("inside.test:80".to_owned(), 503, "address_refused"),
        ("169.254.169.254:80".to_owned(), 421, "unknown_host"),
        ("127.0.0.1:22".to_owned(), 421, "unknown_host"),
        ("queue.test:443".to_owned(), 421, "unknown_host"),
    ] {
        let refused = mesh_client.ask(&authority).await;
        let said = (refused.status().as_u16(), refused.headers()["x-tollgate-reason"].to_str().unwrap());
        assert_eq!(said, (status, reason), "{authority}");
    }
}
