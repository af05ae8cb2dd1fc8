//! Limits on the bytes and seconds of connections that are passed through: reserved piece by piece, before they pass.

use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tollgate_tests::echo::echo;
use tollgate_tests::fixture::{CHECKOUT, Fixture};
use tollgate_tests::gateway::eventually;
use tollgate_tests::hbone::HboneClient;
use tollgate_tests::resources::document;
use tollgate_tests::{Plan, Reply, ledger};

/// A gateway with tunnels to `queue.test`, and these limits on `checkout`'s grant for it.
async fn queue(port: u16, limits: &str) -> Fixture {
    let mut plan = Plan::new();
    plan.settings.listeners.push("{name: tunnels, kind: hbone, address: \"127.0.0.1:0\"}".to_owned());
    let spec = format!("  hosts: [queue.test]\n  port: {port}\n  protocol: tcp\n  addresses: [127.0.0.1]\n");
    let grant =
        format!("  callers: [{{spiffe: \"{CHECKOUT}\"}}]\n  destination: queue\n  limits: [{limits}]\n");
    let resources = document("Destination", "queue", spec) + &document("Grant", "queue", grant);
    plan.settings = plan.settings.clone().resource("queue.yaml", resources);
    plan.start(|_| Reply::status(200)).await
}

async fn mesh_client(fixture: &Fixture) -> HboneClient {
    HboneClient::connect(&fixture.checkout().at(fixture.gateway.listener("tunnels"))).await
}

type Tunnel = TokioIo<hyper::upgrade::Upgraded>;

/// Sends so much and reads it back; how much came before the tunnel was cut.
async fn round(tunnel: &mut Tunnel, bytes: usize) -> (usize, bool) {
    let (mut reader, mut writer) = tokio::io::split(tunnel);
    let write = async {
        let piece = vec![7; bytes];
        let _ = writer.write_all(&piece).await;
    };
    let read = async {
        let (mut buffer, mut sum) = (vec![0; 64 << 10], 0);
        while sum < bytes {
            match reader.read(&mut buffer).await {
                Ok(count @ 1..) => sum += count,
                _ => return (sum, true),
            }
        }
        (sum, false)
    };
    tokio::join!(write, read).1
}

async fn recorded(fixture: &Fixture, count: usize) -> Vec<serde_json::Value> {
    eventually("they are recorded", || ledger::records(&fixture.gateway).len() == count).await;
    ledger::records(&fixture.gateway)
}

fn number(value: &serde_json::Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// What a limit has spent, and what it holds.
fn used(fixture: &Fixture, unit: &str) -> (f64, f64) {
    let metrics = fixture.gateway.metrics();
    let of = |name: &str| metrics.sum(name, &[&format!("unit=\"{unit}\"")]);
    (of("tollgate_limit_spent"), of("tollgate_limit_held"))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_passes_that_a_limit_does_not_have_however_many_tunnels_share_it() {
    const CAP: u64 = 3_000_000;
    let port = echo().await;
    let fixture = queue(port, &format!("{{bytes: {CAP}, per: day}}")).await;
    let authority = format!("queue.test:{port}");
    let mut mesh_client = mesh_client(&fixture).await;
    let mut one = mesh_client.tunnel(&authority).await;
    assert_eq!(round(&mut one, 500_000).await, (500_000, false));
    let (spent, held) = used(&fixture, "bytes");
    assert!(spent == 0.0 && held >= 1_000_000.0 && held <= CAP as f64, "{spent} {held}");
    one.shutdown().await.unwrap();
    let records = recorded(&fixture, 1).await;
    assert_eq!(records[0]["charges"][0]["amount"], 1_000_000, "{}", records[0]);
    assert_eq!(used(&fixture, "bytes"), (1_000_000.0, 0.0), "what was not used is given back");
    let mut tunnels = Vec::new();
    for _ in 0..4 {
        tunnels.push(mesh_client.tunnel(&authority).await);
    }
    let mut rounds = JoinSet::new();
    for mut tunnel in tunnels {
        rounds.spawn(async move { round(&mut tunnel, 1_000_000).await });
    }
    let ends = rounds.join_all().await;
    assert!(ends.iter().all(|(_, is_cut)| *is_cut), "{ends:?}");
    let records = recorded(&fixture, 5).await;
    let passed: u64 = records.iter().map(|it| number(&it["bytes_in"]) + number(&it["bytes_out"])).sum();
    let charged: u64 = records.iter().map(|it| number(&it["charges"][0]["amount"])).sum();
    assert!(passed == charged && passed <= CAP, "{passed} {charged}");
    assert!(passed > CAP / 2, "{passed}");
    let cut = records.iter().filter(|it| it["reason"] == "budget_exhausted" || it["reason"] == "budget_held");
    assert_eq!(cut.count(), 4, "{records:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_cut_when_its_seconds_are_over_and_none_opens_behind_it() {
    let port = echo().await;
    let fixture = queue(port, "{seconds: 3, per: day}").await;
    let authority = format!("queue.test:{port}");
    let mut mesh_client = mesh_client(&fixture).await;
    let mut tunnel = mesh_client.tunnel(&authority).await;
    let begun = Instant::now();
    let cut = tokio::time::timeout(Duration::from_secs(30), tunnel.read_u8()).await;
    assert!(cut.expect("it ends").is_err());
    assert!(begun.elapsed() > Duration::from_millis(2_500), "{:?}", begun.elapsed());
    let records = recorded(&fixture, 1).await;
    assert_eq!(
        (&records[0]["reason"], &records[0]["charges"][0]["amount"]),
        (&"budget_exhausted".into(), &3.into()),
        "{}",
        records[0]
    );
    let refused = mesh_client.ask(&authority).await;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["x-tollgate-reason"]),
        (429, &"budget_exhausted".parse().unwrap())
    );
    assert_eq!(used(&fixture, "seconds"), (3.0, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_charges_a_tunnel_all_that_was_reserved_and_never_less_than_passed() {
    const CAP: u64 = 1 << 30;
    const SENT: usize = 6 << 20;
    let port = echo().await;
    let mut fixture = queue(port, &format!("{{bytes: {CAP}, per: day}}, {{seconds: 9000, per: day}}")).await;
    let authority = format!("queue.test:{port}");
    let mut mesh_client = mesh_client(&fixture).await;
    let mut tunnel = mesh_client.tunnel(&authority).await;
    // Lines of its hold are in the journal and in the store before the last.
    for _ in 0..3 {
        assert_eq!(round(&mut tunnel, SENT / 3).await, (SENT / 3, false));
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    }
    fixture.gateway.kill();
    fixture.gateway.restart().await;
    let records = recorded(&fixture, 1).await;
    assert_eq!(records[0]["usage_source"], "presumed");
    let charge = |unit: &str| {
        let charges = records[0]["charges"].as_array().unwrap();
        let of = charges.iter().find(|it| it["limit"].as_str().unwrap().contains(unit)).unwrap();
        number(&of["amount"])
    };
    let passed = 2 * SENT as u64;
    assert!((passed..=passed + (4 << 20)).contains(&charge("/bytes/")), "{}", records[0]);
    assert!((4..=120).contains(&charge("/seconds/")), "{}", records[0]);
    assert_eq!(used(&fixture, "bytes"), (charge("/bytes/") as f64, 0.0));
    // Once more: what has a record is no orphan.
    fixture.gateway.kill();
    fixture.gateway.restart().await;
    assert_eq!(recorded(&fixture, 1).await.len(), 1);
    assert_eq!(used(&fixture, "bytes"), (charge("/bytes/") as f64, 0.0));
}
