//! What becomes of calls whose address has no port left, is not there, or leads nowhere.

use std::net::SocketAddr;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tollgate_tests::hbone::HboneClient;

use super::*;

const CALLERS: &str = "spiffe://prod.acme/ns/checkout/sa/*";
/// As many as there are, but for an eighth, are used towards one endpoint.
const PORTS: usize = 64;
const PLACES: usize = PORTS / 8 * 7;
/// How often a call is made until what was changed shows.
const MOST_ATTEMPTS: usize = 1000;

/// The network of this process: its addresses, and counters of what leaves from which.
fn network(hosts: &[&str]) {
    run("ip link set lo up");
    for host in hosts {
        run(&format!("ip addr add 10.77.0.{host}/32 dev lo"));
    }
}

/// Counts the connections that are tried from an address to a port.
fn count_from(counter: &str, family: &str, address: &str, port: u16) {
    run(&format!("nft add counter inet watch {counter}"));
    run(&format!(
        "nft add rule inet watch out tcp dport {port} tcp flags & ( syn | ack ) == syn {family} saddr {address} counter name {counter}"
    ));
}

/// With a server for the destinations of these names.
fn plan(names: &[&str]) -> Plan {
    let mut plan = Plan::new();
    let hosts: Vec<String> = names.iter().map(|name| format!("{name}.up.test")).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    plan.server = plan.pki.server(&plan.sandbox, &hosts);
    plan.settings.private_ranges.extend(["10.77.0.0/16".to_owned(), "fd77::/16".to_owned()]);
    plan
}

/// A destination by HTTP at an address of the network, with its grant; `rest`: its pool, and what else it has.
fn called(plan: &Plan, name: &str, at: SocketAddr, rest: &str) -> String {
    let spec = destination(name, &format!("{name}.up.test"), at.port(), plan.pki.bundle(), "http");
    let spec = spec.replacen("[127.0.0.1]\n", &format!("[\"{}\"]\n{rest}", at.ip()), 1);
    spec + &grant(name, CALLERS, name, "none", &plan.grant).replace("  credential: none\n", "")
}

/// Each call on a connection of its own.
fn once(seen: &Seen) -> Reply {
    from(seen).header("connection", "close")
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_leave_from_the_next_address_once_theirs_is_gone_or_they_do_not_leave() {
    needs!(has_namespaces());
    if !is_inside("sources::pool::calls_leave_from_the_next_address_once_theirs_is_gone_or_they_do_not_leave")
    {
        return;
    }
    network(&["1", "11", "12", "99"]);
    let mut plan = plan(&["moves", "stays"]);
    let listener = TcpListener::bind("10.77.0.1:0").await.expect("listen");
    let upstream = Upstream::http_on(listener, &plan.server, &["http/1.1"], once);
    watch([upstream.port(), upstream.port()]);
    let pool = |name: &str, rest: &str| {
        document("SourcePool", name, format!("  addresses: [10.77.0.11, 10.77.0.12]\n{rest}"))
    };
    let text = called(&plan, "moves", upstream.address(), "  sourcePool: both\n")
        + &called(&plan, "stays", upstream.address(), "  sourcePool: one\n")
        + &pool("both", "")
        + &pool("one", "  failover: none\n");
    plan.settings = plan.settings.resource("fixture.yaml", text);
    let fixture = plan.start_with(upstream).await;
    for path in ["/moves/x", "/stays/x"] {
        assert_eq!(leaves_from(&fixture, "a", path).await.as_deref(), Ok("10.77.0.11"));
    }
    run("ip addr del 10.77.0.11/32 dev lo");
    let mut moved = Vec::new();
    let mut attempts = 0;
    while moved.len() < 20 {
        attempts += 1;
        assert!(attempts <= MOST_ATTEMPTS, "none moves to the address that is left");
        match leaves_from(&fixture, "a", "/moves/x").await {
            Ok(address) => moved.push(address),
            // Not from another, and only before the first that has moved.
            Err(status) => assert_eq!((status, moved.len()), (503, 0)),
        }
        assert_eq!(leaves_from(&fixture, "a", "/stays/x").await, Err(503), "its pool has no fail-over");
    }
    assert!(moved.iter().all(|address| address == "10.77.0.12"), "{moved:?}");
    assert_eq!(counted("", "stranger"), 0);
    // The address is in the record of a call and in its line of the log, and a call that did not leave has none.
    let sources = |records: Vec<Value>| {
        let of = |record: &Value| {
            let said = ["destination", "outcome", "source", "reason"].map(|member| record[member].clone());
            said.map(|value| value.as_str().unwrap_or_default().to_owned())
        };
        let mut all: Vec<_> = records.iter().map(of).collect();
        all.sort();
        all.dedup();
        all
    };
    let expected = [
        ["moves", "completed", "10.77.0.11", ""],
        ["moves", "completed", "10.77.0.12", ""],
        ["stays", "completed", "10.77.0.11", ""],
        ["stays", "upstream_failed", "", "source_unavailable"],
    ];
    let lines = || -> Vec<Value> {
        fixture.gateway.log().iter().filter_map(|line| line.get("record").cloned()).collect()
    };
    let all = records(&fixture.gateway);
    eventually("the last line is written", || lines().len() == all.len()).await;
    for mut said in [sources(all), sources(lines())] {
        // Of a moment in which the address was gone and not yet known to be.
        said.retain(|it| it[..2] != ["moves", "upstream_failed"]);
        assert_eq!(said, expected);
    }
}

/// A tunnel that stays open, and the address that its destination says it came from; or why there is none.
async fn held(mesh: &mut HboneClient, authority: &str) -> Result<(TokioIo<Upgraded>, String), String> {
    let asked = http::Request::connect(authority).body(http_body_util::Empty::new()).unwrap();
    let answer = mesh.ask_with(asked).await;
    if let Some(reason) = answer.headers().get("x-tollgate-reason") {
        return Err(format!("{} {}", answer.status().as_u16(), reason.to_str().unwrap()));
    }
    let mut tunnel = TokioIo::new(hyper::upgrade::on(answer).await.expect("a tunnel"));
    let mut said = [0; 4];
    tokio::io::AsyncReadExt::read_exact(&mut tunnel, &mut said).await.expect("an address");
    Ok((tunnel, std::net::Ipv4Addr::from(said).to_string()))
}

/// A server that tells each connection where it came from, and holds it; its port.
async fn telling() -> u16 {
    let listener = TcpListener::bind("10.77.0.1:0").await.expect("listen");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, from)) = listener.accept().await {
            let IpAddr::V4(from) = from.ip() else { unreachable!("it listens at IPv4") };
            tokio::io::AsyncWriteExt::write_all(&mut stream, &from.octets()).await.unwrap();
            held.push(stream);
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_without_a_port_left_gives_way_to_the_next_and_the_last_to_none() {
    needs!(has_namespaces());
    if !is_inside("sources::pool::an_address_without_a_port_left_gives_way_to_the_next_and_the_last_to_none")
    {
        return;
    }
    network(&["1", "11", "12", "13", "99"]);
    let mut plan = plan(&["api"]);
    let port = telling().await;
    watch([port, port]);
    let tcp = |name: &str, pool: &str| {
        let spec =
            format!("  hosts: [{name}.test]\n  port: {port}\n  protocol: tcp\n  addresses: [10.77.0.1]\n");
        let granted = format!("  callers: [{{spiffe: \"{CALLERS}\"}}]\n  destination: {name}\n");
        document("Destination", name, format!("{spec}  sourcePool: {pool}\n"))
            + &document("Grant", name, granted)
    };
    let text = tcp("both", "both")
        + &tcp("one", "one")
        + &document("SourcePool", "both", "  addresses: [10.77.0.11, 10.77.0.12]\n")
        + &document("SourcePool", "one", "  addresses: [10.77.0.13, 10.77.0.12]\n  failover: none\n");
    plan.settings = plan.settings.resource("held.yaml", text);
    plan.settings.listeners.push("{name: tunnels, kind: hbone, address: \"127.0.0.1:0\"}".to_owned());
    // What the gateway finds when it starts. The callers of this test need some as well.
    let range = "/proc/sys/net/ipv4/ip_local_port_range";
    std::fs::write(range, format!("40000 {}", 40_000 + PORTS - 1)).expect("root may");
    let fixture = plan.start(|_| Reply::status(200)).await;
    let caller = fixture.checkout().at(fixture.gateway.listener("tunnels"));
    let mut mesh = HboneClient::connect(&caller).await;
    let authority = |name: &str| format!("{name}.test:{port}");
    let mut open = Vec::new();
    for number in 0..2 * PLACES {
        let (tunnel, from) = held(&mut mesh, &authority("both")).await.expect("a tunnel");
        let expected = if number < PLACES { "10.77.0.11" } else { "10.77.0.12" };
        assert_eq!(from, expected, "connection {number}");
        open.push(tunnel);
    }
    let refused = held(&mut mesh, &authority("both")).await.map(drop);
    assert_eq!(refused, Err("503 source_unavailable".to_owned()), "the machine has others");
    for number in 0..PLACES {
        let (tunnel, from) = held(&mut mesh, &authority("one")).await.expect("a tunnel");
        assert_eq!(from, "10.77.0.13", "connection {number}");
        open.push(tunnel);
    }
    // A place of the other address is free now, and is nothing to a pool without fail-over.
    drop(open.remove(PLACES));
    let mut given_back = None;
    for _ in 0..MOST_ATTEMPTS {
        match held(&mut mesh, &authority("both")).await {
            Ok((_, from)) => {
                given_back = Some(from);
                break;
            }
            Err(refused) => assert_eq!(refused, "503 source_unavailable"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(given_back.as_deref(), Some("10.77.0.12"), "a place is given back");
    let refused = held(&mut mesh, &authority("one")).await.map(drop);
    assert_eq!(refused, Err("503 source_unavailable".to_owned()));
    let reasons = || {
        let records = records(&fixture.gateway);
        let of = |name: &str| {
            let is_it = |it: &&Value| it["destination"] == name && it["reason"] == "source_unavailable";
            records.iter().filter(is_it).count()
        };
        [of("both"), of("one")]
    };
    eventually("they are recorded", || reasons()[0] >= 1 && reasons()[1] == 1).await;
    assert_eq!(counted("", "stranger"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_the_machine_need_not_have_is_bound_all_the_same() {
    needs!(has_namespaces());
    if !is_inside("sources::pool::an_address_that_the_machine_need_not_have_is_bound_all_the_same") {
        return;
    }
    network(&["1", "99"]);
    for host in ["1", "99"] {
        run(&format!("ip addr add fd77::{host}/128 dev lo nodad"));
    }
    let mut plan = plan(&["four", "six", "bound"]);
    let four = TcpListener::bind("10.77.0.1:0").await.expect("listen");
    let six = TcpListener::bind("[fd77::1]:0").await.expect("listen");
    let four = Upstream::http_on(four, &plan.server, &["http/1.1"], once);
    let six = Upstream::http_on(six, &plan.server, &["http/1.1"], once);
    watch([four.port(), six.port()]);
    count_from("four", "ip", "10.77.0.12", four.port());
    count_from("six", "ip6", "fd77::12", six.port());
    count_from("bound", "ip6", "fd77::13", six.port());
    let pool = |pool: &str| format!("  sourcePool: {pool}\n  timeouts: {{connect: 1s}}\n");
    let text = called(&plan, "four", four.address(), &pool("free"))
        + &called(&plan, "six", six.address(), &pool("free"))
        + &called(&plan, "bound", six.address(), &pool("bound"))
        + &document("SourcePool", "free", "  addresses: [10.77.0.12, \"fd77::12\"]\n  freebind: true\n")
        + &document("SourcePool", "bound", "  addresses: [\"fd77::13\"]\n");
    plan.settings = plan.settings.resource("fixture.yaml", text);
    let fixture = plan.start_with(four).await;
    let up = |address: &str| {
        let label = format!("address=\"{address}\"");
        fixture.gateway.metrics().sum("tollgate_source_address_up", &[&label])
    };
    assert_eq!((up("fd77::12"), up("fd77::13")), (1.0, 0.0));
    assert_eq!(leaves_from(&fixture, "a", "/bound/x").await, Err(503));
    // An IPv6 address is bound and leaves, and no answer finds its way to it. Without a route that makes it its own, the system lets none
    // of IPv4 leave.
    let refused = fixture.caller("spiffe://prod.acme/ns/checkout/sa/a").get("/six/x").await;
    refused.assert_refused(504, "upstream_timeout");
    assert!(counted("", "six") > 0);
    assert_eq!(leaves_from(&fixture, "a", "/four/x").await, Err(503));
    let none = [counted("", "four"), counted("", "bound"), counted("", "stranger")];
    assert_eq!((none, six.count(), fixture.upstream.count()), ([0; 3], 0, 0));
    // Once both are routed here, though no interface has them.
    run("ip route add local 10.77.0.12/32 dev lo");
    run("ip -6 route add local fd77::12/128 dev lo");
    let client = fixture.caller("spiffe://prod.acme/ns/checkout/sa/a");
    eventually_leaves(&client, "/four/x", "10.77.0.12").await;
    eventually_leaves(&client, "/six/x", "fd77::12").await;
    assert_eq!((counted("", "bound"), counted("", "stranger")), (0, 0));
}

/// Calls until one is answered, which came from this address.
async fn eventually_leaves(client: &tollgate_tests::Client, path: &str, address: &str) {
    for _ in 0..100 {
        let answer = client.get(path).await;
        if answer.status == 200 {
            return assert_eq!(answer.text(), address);
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{path} does not leave");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_family_that_leads_nowhere_is_left_for_the_pools_address_of_the_other() {
    needs!(has_namespaces());
    if !is_inside("sources::pool::a_family_that_leads_nowhere_is_left_for_the_pools_address_of_the_other") {
        return;
    }
    network(&["1", "2", "11", "99"]);
    for host in ["1", "2", "11", "99"] {
        run(&format!("ip addr add fd77::{host}/128 dev lo nodad"));
    }
    let mut plan = plan(&["four", "six"]);
    let four = TcpListener::bind("10.77.0.1:0").await.expect("listen");
    let port = four.local_addr().expect("an address").port();
    let six = TcpListener::bind(("fd77::2", port)).await.expect("listen");
    let four = Upstream::http_on(four, &plan.server, &["http/1.1"], once);
    let _six = Upstream::http_on(six, &plan.server, &["http/1.1"], once);
    watch([port, port]);
    count_from("six", "ip6", "fd77::11", port);
    // What goes there gets no answer of any kind.
    run(&format!("nft add rule inet watch out ip6 daddr fd77::1 tcp dport {port} drop"));
    run(&format!("nft add rule inet watch out ip daddr 10.77.0.2 tcp dport {port} drop"));
    let rest = "  sourcePool: ips\n  timeouts: {connect: 20s}\n";
    let both = |name: &str, addresses: &str| {
        let at = SocketAddr::from(([10, 77, 0, 1], port));
        called(&plan, name, at, rest).replacen("[\"10.77.0.1\"]", addresses, 1)
    };
    let text = both("four", "[\"fd77::1\", 10.77.0.1]")
        + &both("six", "[10.77.0.2, \"fd77::2\"]")
        + &document("SourcePool", "ips", "  addresses: [10.77.0.11, \"fd77::11\"]\n");
    plan.settings = plan.settings.resource("fixture.yaml", text);
    plan.settings.extra = "cores: 1\n".to_owned();
    let fixture = plan.start_with(four).await;
    assert_eq!(leaves_from(&fixture, "a", "/four/x").await.as_deref(), Ok("10.77.0.11"));
    assert!(counted("", "six") > 0, "the other family was tried as well");
    assert_eq!(leaves_from(&fixture, "a", "/six/x").await.as_deref(), Ok("fd77::11"));
    assert_eq!(counted("", "stranger"), 0);
}
