//! Calls leave from the addresses of their pool and from no other, in a network namespace of its own.

mod many;
mod pool;

use std::net::IpAddr;

use serde_json::Value;
use tokio::net::TcpListener;
use tollgate_tests::gateway::eventually;
use tollgate_tests::ledger::records;
use tollgate_tests::namespace::{has_namespaces, is_inside, run};
use tollgate_tests::resources::{destination, document, grant};
use tollgate_tests::{Fixture, Plan, Reply, Seen, Upstream, needs};

const POOL: &str = "  addresses: [10.77.0.11, 10.77.0.12, 10.77.0.13, \"fd77::11\", \"fd77::12\", \"fd77::13\"]\n  order: spread\n";
/// Callers, with the IPv4 and the IPv6 address whose turn they are by FNV-1a and the finaliser of MurmurHash3, worked out apart from the
/// gateway; the third is the IPv4 address that comes next.
const TURNS: [[&str; 4]; 3] = [
    ["a", "10.77.0.12", "fd77::13", "10.77.0.11"],
    ["b", "10.77.0.11", "fd77::12", "10.77.0.13"],
    ["f", "10.77.0.13", "fd77::12", "10.77.0.11"],
];

/// Counts what goes to the destinations from the pool, and what does from anywhere else.
fn watch(ports: [u16; 2]) {
    let [four, six] = ports;
    run("nft add table inet watch");
    run("nft add chain inet watch out { type filter hook output priority 0 ; }");
    for (counter, is) in [("own", ""), ("stranger", "!= ")] {
        run(&format!("nft add counter inet watch {counter}"));
        run(&format!(
            "nft add rule inet watch out tcp dport {four} ip saddr {is}{{ 10.77.0.11-10.77.0.13 }} counter name {counter}"
        ));
        run(&format!(
            "nft add rule inet watch out tcp dport {six} ip6 saddr {is}{{ fd77::11-fd77::13 }} counter name {counter}"
        ));
    }
}

/// `namespace` is what a command line begins with to be in another one.
fn counted(namespace: &str, counter: &str) -> u64 {
    let told = run(&format!("{namespace}nft -j list counter inet watch {counter}"));
    let told: Value = serde_json::from_str(&told).expect("JSON");
    told["nftables"][1]["counter"]["packets"].as_u64().expect("a count")
}

async fn leaves_from(fixture: &Fixture, caller: &str, path: &str) -> Result<String, u16> {
    let client = fixture.caller(&format!("spiffe://prod.acme/ns/checkout/sa/{caller}"));
    let answer = client.get(path).await;
    match answer.status.as_u16() {
        200 => Ok(String::from_utf8(answer.body.to_vec()).expect("an address")),
        503 => {
            answer.assert_refused(503, "source_unavailable");
            Err(503)
        }
        other => Err(other),
    }
}

fn from(seen: &Seen) -> Reply {
    Reply::status(200).data(seen.from.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_destination_sees_the_address_of_policy_for_each_caller_and_never_another() {
    needs!(has_namespaces());
    if !is_inside("sources::the_destination_sees_the_address_of_policy_for_each_caller_and_never_another") {
        return;
    }
    run("ip link set lo up");
    for host in ["1", "11", "12", "13", "99"] {
        run(&format!("ip addr add 10.77.0.{host}/32 dev lo"));
        run(&format!("ip addr add fd77::{host}/128 dev lo nodad"));
    }
    let mut plan = Plan::new();
    plan.settings.private_ranges.extend(["10.77.0.0/16".to_owned(), "fd77::/16".to_owned()]);
    let four = TcpListener::bind("10.77.0.1:0").await.expect("listen");
    let six = TcpListener::bind("[fd77::1]:0").await.expect("listen");
    let four = Upstream::http_on(four, &plan.server, &["http/1.1"], from);
    let six = Upstream::http_on(six, &plan.server, &["http/1.1"], from);
    watch([four.port(), six.port()]);
    let mut text = plan.complete(four.port()).resources[0].1.clone();
    text += &destination("six", "api.up.test", six.port(), plan.pki.bundle(), "http");
    text += &grant("six", "spiffe://prod.acme/ns/checkout/sa/*", "six", "none", &plan.grant)
        .replace("  credential: none\n", "");
    text = text.replacen("[127.0.0.1]\n", "[10.77.0.1]\n  sourcePool: ips\n", 1);
    text = text.replacen("[127.0.0.1]\n", "[\"fd77::1\"]\n  sourcePool: ips\n", 1);
    plan.settings = plan.settings.resource("fixture.yaml", text + &document("SourcePool", "ips", POOL));
    let fixture = plan.start_with(four).await;

    for _ in 0..5 {
        for [caller, four, six, _] in TURNS {
            assert_eq!(leaves_from(&fixture, caller, "/up/x").await.as_deref(), Ok(four));
            assert_eq!(leaves_from(&fixture, caller, "/six/x").await.as_deref(), Ok(six));
        }
    }
    let sources: Vec<IpAddr> = records(&fixture.gateway)
        .iter()
        .map(|it| it["source"].as_str().expect("a source").parse().expect("an address"))
        .collect();
    let turns: Vec<IpAddr> = TURNS
        .iter()
        .flat_map(|turn| [turn[1], turn[2]])
        .map(|turn| turn.parse().expect("an address"))
        .collect();
    assert_eq!(sources, turns.repeat(5));
    let report = fixture.gateway.tollgate(&["report", "--by", "source"]);
    let report = String::from_utf8_lossy(&report.stdout).into_owned();
    assert!(turns.iter().all(|turn| report.contains(&turn.to_string())), "{report}");

    // An address that is taken away moves its own caller, and no other.
    let [[moving, lost, _, next], [staying, own, ..], ..] = TURNS;
    run(&format!("ip addr del {lost}/32 dev lo"));
    let up = |address: &str| {
        let label = format!("address=\"{address}\"");
        fixture.gateway.metrics().sum("tollgate_source_address_up", &[&label])
    };
    eventually("the address is known to be gone", || up(lost) == 0.0).await;
    assert_eq!(leaves_from(&fixture, moving, "/up/x").await.as_deref(), Ok(next));
    assert_eq!(leaves_from(&fixture, staying, "/up/x").await.as_deref(), Ok(own));

    // With none left it is refused, though the machine has others; and it is back with its address.
    for host in ["11", "13"] {
        run(&format!("ip addr del 10.77.0.{host}/32 dev lo"));
    }
    eventually("both are known to be gone", || up("10.77.0.11") + up("10.77.0.13") == 0.0).await;
    assert_eq!(leaves_from(&fixture, moving, "/up/x").await, Err(503));
    assert!(leaves_from(&fixture, moving, "/six/x").await.is_ok());
    run(&format!("ip addr add {lost}/32 dev lo"));
    eventually("the address is known to be back", || up(lost) == 1.0).await;
    assert_eq!(leaves_from(&fixture, moving, "/up/x").await.as_deref(), Ok(lost));
    assert!(counted("", "own") > 0);
    assert_eq!(counted("", "stranger"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn source_check_connects_from_every_address_and_says_which_does_not_reach_which_destination() {
    let mut plan = Plan::new();
    let upstream = Upstream::http(&plan.server, &["http/1.1"], from).await;
    let mut text = plan.complete(upstream.port()).resources[0].1.clone();
    // Its certificate is for another name.
    text += &destination("other", "other.up.test", upstream.port(), plan.pki.bundle(), "http");
    text = text.replace("[127.0.0.1]\n", "[127.0.0.1]\n  sourcePool: ips\n");
    let pool = "  addresses: [127.0.0.7, 192.0.2.1, \"::1\"]\n";
    plan.settings = plan.settings.resource("fixture.yaml", text + &document("SourcePool", "ips", pool));
    let fixture = plan.start_with(upstream).await;

    let checked = |more: &[&str]| {
        let output = fixture.gateway.tollgate(&[&["source", "check"], more].concat());
        (output.status.success(), String::from_utf8(output.stdout).expect("text"))
    };
    let (is_good, json) = checked(&["--destination", "up", "--json"]);
    let found: Value = serde_json::from_str(&json).expect("JSON");
    let said = |at: usize| (found[at]["address"].as_str(), found[at]["result"].as_str());
    assert!(!is_good, "{json}");
    assert_eq!(said(0), (Some("127.0.0.7"), Some("ok")));
    assert_eq!(found[0]["remote"], fixture.upstream.address().to_string());
    assert_eq!(said(1), (Some("192.0.2.1"), Some("failed")));
    assert!(found[1]["error"].as_str().is_some_and(|why| why.contains("source address 192.0.2.1")), "{json}");
    assert_eq!(said(2), (Some("::1"), Some("not used")), "the destination has no IPv6 address");
    assert_eq!(fixture.upstream.count(), 0, "nothing is sent");

    let (is_good, table) = checked(&["--pool", "ips"]);
    assert!(!is_good && table.lines().count() == 2 + 6, "{table}");
    let other =
        table.lines().find(|line| line.starts_with("127.0.0.7") && line.contains("other")).expect("a line");
    assert!(other.contains("failed") && other.contains("TLS"), "{other}");
    assert!(!checked(&["--pool", "none"]).0);
    let warned = fixture.gateway.tollgate(&["check"]);
    let warned = String::from_utf8_lossy(&warned.stderr).into_owned();
    assert!(warned.contains("spec.sourcePool: this machine does not have 192.0.2.1"), "{warned}");
    assert!(!warned.contains("127.0.0.7"), "{warned}");
}
