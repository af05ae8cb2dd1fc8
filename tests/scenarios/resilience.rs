//! A destination in trouble: calls go round an endpoint that fails, and nobody waits for one that does not answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tollgate_tests::gateway::{eventually, field};
use tollgate_tests::ledger::records;
use tollgate_tests::network::Dns;
use tollgate_tests::resources::{destination, grant};
use tollgate_tests::{Client, Fixture, Plan, Protocol, Reply, Upstream, needs, python};

const ALL: &str = "  allow: {methods: [GET, POST], paths: [\"/**\"]}\n";

/// The fixture's destination with more said of it.
fn with(plan: &mut Plan, port: u16, addresses: &str, more: &str) {
    let text = plan.complete(port).resources[0].1.clone();
    let text = text.replacen("[127.0.0.1]\n", &format!("[{addresses}]\n{more}"), 1);
    plan.settings = plan.settings.clone().resource("fixture.yaml", text);
}

/// The statuses of calls that are made at once, each on a connection of its own.
async fn crowd(client: &Client, path: &str, count: usize) -> Vec<u16> {
    let mut calls = JoinSet::new();
    for _ in 0..count {
        let (client, path) = (client.clone(), path.to_owned());
        calls.spawn(async move { client.get(&path).await.status.as_u16() });
    }
    calls.join_all().await
}

fn sum(fixture: &Fixture, name: &str) -> f64 {
    fixture.gateway.metrics().sum(name, &["destination=\"up\""])
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_round_an_endpoint_that_keeps_failing_and_it_is_asked_again_later() {
    let mut plan = Plan::new();
    let bad = TcpListener::bind("127.0.0.2:0").await.expect("listen");
    let port = bad.local_addr().expect("an address").port();
    let good = TcpListener::bind(("127.0.0.3", port)).await.expect("listen");
    let is_ill = Arc::new(AtomicBool::new(false));
    let ill = Arc::clone(&is_ill);
    let slowly = |status| Reply::status(status).wait(Duration::from_millis(20)).data("x");
    let bad = Upstream::http_on(bad, &plan.server, &["http/1.1"], move |_| {
        slowly(if ill.load(Ordering::SeqCst) { 503 } else { 200 })
    });
    let good = Upstream::http_on(good, &plan.server, &["http/1.1"], move |_| slowly(200));
    let rules = "  outlierDetection: {consecutiveGatewayErrors: 3, baseEjectionTime: 3s}\n";
    with(&mut plan, port, "127.0.0.2, 127.0.0.3", rules);
    plan.settings.extra = "cores: 2\n".to_owned();
    let fixture = plan.start_with(good).await;
    let client = fixture.checkout();
    // The first of the list, while it works.
    assert_eq!(crowd(&client, "/up/x", 16).await, [200; 16]);
    assert_eq!((bad.count(), fixture.upstream.count()), (16, 0));
    assert_eq!(sum(&fixture, "tollgate_upstream_endpoints_ejected"), 0.0);

    // It answers 503, and kept connections lead to it.
    is_ill.store(true, Ordering::SeqCst);
    let mut failed = 0;
    while sum(&fixture, "tollgate_upstream_ejections_total") == 0.0 {
        let statuses = crowd(&client, "/up/x", 8).await;
        failed += statuses.iter().filter(|status| **status == 503).count();
        assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
        assert!(failed < 40, "it is never ejected");
    }
    let seen = bad.count();
    let mut asked = 0;
    while sum(&fixture, "tollgate_upstream_endpoints_ejected") == 1.0 && asked < 40 {
        crowd(&client, "/up/x", 8).await;
        asked += 8;
        if sum(&fixture, "tollgate_upstream_endpoints_ejected") == 1.0 {
            assert_eq!(bad.count(), seen, "an ejected endpoint was called");
        }
    }
    assert!(asked > 0);
    let endpoints = fixture.gateway.snapshot()["destinations"][0]["upstream"]["endpoints"].clone();
    assert_eq!(endpoints.as_array().map(Vec::len), Some(2), "{endpoints}");
    assert_eq!(endpoints[0]["address"], format!("127.0.0.2:{port}"), "{endpoints}");
    let told = |text: &str| {
        fixture
            .gateway
            .log()
            .iter()
            .any(|line| field(line, "message").as_str().is_some_and(|it| it.contains(text)))
    };
    assert!(told("endpoint ejected"));

    // Well again, it has its share when its time is over.
    is_ill.store(false, Ordering::SeqCst);
    eventually("it is back", || sum(&fixture, "tollgate_upstream_endpoints_ejected") == 0.0).await;
    let mut rounds = 0;
    while bad.count() == seen {
        assert_eq!(crowd(&client, "/up/x", 24).await, [200; 24]);
        rounds += 1;
        assert!(rounds < 100, "it is never called again");
    }
    eventually("it is told", || told("endpoint is back")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_endpoint_that_is_left_is_never_ejected_and_limits_of_a_provider_are_no_failures() {
    let mut plan = Plan::new();
    let first = TcpListener::bind("127.0.0.2:0").await.expect("listen");
    let port = first.local_addr().expect("an address").port();
    let second = TcpListener::bind(("127.0.0.3", port)).await.expect("listen");
    let status = |path: &str| path.rsplit('/').next().and_then(|last| last.parse().ok()).unwrap_or(200);
    let first = Upstream::http_on(first, &plan.server, &["http/1.1"], move |seen| {
        Reply::status(status(&seen.target))
    });
    let second = Upstream::http_on(second, &plan.server, &["http/1.1"], move |seen| {
        Reply::status(if seen.target.ends_with("503") { 503 } else { 200 })
    });
    with(&mut plan, port, "127.0.0.2, 127.0.0.3", "  outlierDetection: {consecutiveGatewayErrors: 2}\n");
    plan.settings.extra = "cores: 1\n".to_owned();
    let fixture = plan.start_with(second).await;
    let client = fixture.checkout();
    for status in [429, 529, 404, 500] {
        crowd(&client, &format!("/up/{status}"), 16).await;
    }
    assert_eq!(sum(&fixture, "tollgate_upstream_ejections_total"), 0.0);
    // Of two that answer 503 the one that is asked first goes, and the other stays however often it fails.
    for _ in 0..3 {
        assert_eq!(crowd(&client, "/up/503", 16).await, [503; 16]);
    }
    assert!(first.count() > 64 && fixture.upstream.count() > 16, "both were asked");
    assert_eq!(sum(&fixture, "tollgate_upstream_ejections_total"), 1.0);
    crowd(&client, "/up/200", 4).await;
    assert_eq!(crowd(&client, "/up/200", 4).await, [200; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_nobody_reaches_is_refused_at_once_while_one_call_tries() {
    let mut plan = Plan::new();
    // A queue that is full takes no more, as a host that drops everything.
    let full = TcpSocket::new_v4().expect("a socket");
    full.bind(SocketAddr::from(([127, 0, 0, 9], 0))).expect("an address");
    let full = full.listen(1).expect("listen");
    let address = full.local_addr().expect("an address");
    let mut queued = Vec::new();
    while let Ok(waits) = timeout(Duration::from_millis(250), TcpStream::connect(address)).await {
        queued.push(waits.expect("a place in the queue"));
    }
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200)).await;
    let mut text = plan.complete(upstream.port()).resources[0].1.clone();
    let lost = destination("lost", "api.up.test", address.port(), plan.pki.bundle(), "http");
    text += &lost.replace("[127.0.0.1]\n", "[127.0.0.9]\n  timeouts: {connect: 2s}\n");
    text += &grant("lost", "spiffe://prod.acme/**", "lost", "none", ALL).replace("  credential: none\n", "");
    plan.settings = plan.settings.clone().resource("fixture.yaml", text);
    plan.settings.extra = "cores: 2\n".to_owned();
    let fixture = plan.start_with(upstream).await;
    let client = fixture.checkout();
    assert_eq!(crowd(&client, "/lost/x", 6).await, [504; 6]);
    let open = || fixture.gateway.metrics().sum("tollgate_upstream_hosts_open", &["destination=\"lost\""]);
    assert_eq!(open(), 1.0);
    let statuses = crowd(&client, "/lost/x", 12).await;
    let tried = statuses.iter().filter(|status| **status == 504).count();
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 12 - tried, "{statuses:?}");
    assert!((1..12).contains(&tried), "{statuses:?}");
    client.get("/up/x").await.assert_status(200);
    let refused = records(&fixture.gateway).into_iter().find(|it| it["reason"] == "circuit_open");
    assert_eq!(refused.expect("a record")["destination"], "lost");

    // Whoever tries first when it is there again lets the others through.
    drop((queued, full));
    let listener = TcpListener::bind(address).await.expect("listen");
    let _lost = Upstream::http_on(listener, &plan_server(&fixture), &["http/1.1"], |_| Reply::status(200));
    let mut answered = false;
    for _ in 0..60 {
        let answer = client.get("/lost/x").await;
        answered = answer.status.as_u16() == 200;
        if answered {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(answered);
    assert_eq!(crowd(&client, "/lost/x", 8).await, [200; 8]);
    assert_eq!(open(), 0.0);
}

/// A certificate for the upstream's host.
fn plan_server(fixture: &Fixture) -> tollgate_tests::ca::Identity {
    fixture.pki.server(&fixture.sandbox, &["api.up.test"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_destination_has_no_more_calls_and_connections_than_it_may() {
    let mut plan = Plan::new();
    let server = plan.pki.server(&plan.sandbox, &["api.up.test", "few.up.test"]);
    let upstream = Upstream::http(&server, &["http/1.1"], |seen| match seen.target.ends_with("slow") {
        true => Reply::status(200).data("a").wait(Duration::from_secs(3)).data("b"),
        false => Reply::status(200),
    });
    let upstream = upstream.await;
    let mut text = plan.complete(upstream.port()).resources[0].1.clone();
    text = text.replacen("[127.0.0.1]\n", "[127.0.0.1]\n  circuitBreaker: {maxRequests: 3}\n", 1);
    let few = destination("few", "few.up.test", upstream.port(), plan.pki.bundle(), "http");
    text += &few.replace("[127.0.0.1]\n", "[127.0.0.1]\n  circuitBreaker: {maxConnections: 2}\n");
    text += &grant("few", "spiffe://prod.acme/**", "few", "none", ALL).replace("  credential: none\n", "");
    plan.settings = plan.settings.clone().resource("fixture.yaml", text);
    plan.settings.extra = "cores: 2\n".to_owned();
    let fixture = plan.start_with(upstream).await;
    let client = fixture.checkout();
    for (name, most) in [("up", 3), ("few", 2)] {
        let mut open = Vec::new();
        for _ in 0..most {
            let mut connection = client.open(Protocol::H1).await.expect("a connection");
            let request = client.request(Method::GET, &format!("/{name}/slow"), "");
            let answer = connection.start(request).await.expect("a head");
            assert_eq!(answer.status().as_u16(), 200);
            open.push((connection, answer));
        }
        let refused = client.get(&format!("/{name}/x")).await;
        refused.assert_refused(503, "circuit_open");
        assert_eq!((refused.header("retry-after"), refused.header("x-should-retry")), ("1", "true"));
        drop(open);
        let mut served = 0;
        for _ in 0..100 {
            served = client.get(&format!("/{name}/x")).await.status.as_u16();
            if served == 200 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(served, 200, "{name}: what ended makes room");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_sent_again_within_the_budget_and_only_those_that_may_be_made_twice() {
    let mut plan = Plan::new();
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(503)).await;
    let rules = "  retries: {attempts: 1, retryOn: [503], budgetPercent: 50, minPerSecond: 0}\n";
    with(&mut plan, upstream.port(), "127.0.0.1", rules);
    let fixture = plan.start_with(upstream).await;
    let client = fixture.checkout();
    for _ in 0..5 {
        client.post("/up/x", &Value::Null).await.assert_status(503);
    }
    assert_eq!(fixture.upstream.count(), 5, "a POST is sent once");
    for _ in 0..20 {
        client.get("/up/x").await.assert_status(503);
    }
    let again = fixture.upstream.count() - 25;
    assert!((5..=13).contains(&again), "{again} of 25 calls were sent again");
    let counted = |result: &str| {
        let labels = ["destination=\"up\"", &format!("result=\"{result}\"")];
        fixture.gateway.metrics().sum("tollgate_upstream_retries_total", &labels)
    };
    assert_eq!(counted("sent"), again as f64);
    assert_eq!(counted("over_budget"), 20.0 - again as f64);
    let attempts = records(&fixture.gateway)
        .iter()
        .map(|it| it["attempts"].as_array().map_or(1, Vec::len))
        .sum::<usize>();
    assert_eq!(attempts, 25 + again, "each attempt is a line of its record");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_as_many_calls_as_it_takes_refuses_more_and_is_healthy_all_the_while() {
    let mut plan = Plan::new();
    plan.settings.extra = "limits: {calls: 16}\n".to_owned();
    let (release, may_end) = watch::channel(false);
    let fixture = plan
        .start(move |seen| match seen.target.as_str() {
            "/slow" => Reply::status(200).data("begun ").until(&may_end).data("ended"),
            _ => Reply::status(200),
        })
        .await;
    let mut calls = JoinSet::new();
    for caller in ["a", "b", "c", "d"] {
        let client = fixture.caller(&format!("spiffe://prod.acme/ns/checkout/sa/{caller}"));
        calls.spawn(async move { crowd(&client, "/up/slow", 8).await });
    }
    // Of each it is known then whether it is held or refused.
    let known = || {
        let all = records(&fixture.gateway);
        fixture.upstream.count() + all.iter().filter(|it| it["reason"] == "overloaded").count()
    };
    eventually("each is under way or refused", || known() == 32).await;
    let client = fixture.caller("spiffe://prod.acme/ns/checkout/sa/e");
    for path in ["/healthz", "/readyz"] {
        let (status, text) = fixture.gateway.admin_get(path);
        assert_eq!(status, 200, "{path}: {text}");
    }
    release.send_replace(true);
    let statuses = calls.join_all().await.concat();
    let [served, refused] =
        [200, 503].map(|wanted| statuses.iter().filter(|status| **status == wanted).count());
    assert!((1..=16).contains(&served) && served + refused == 32, "{statuses:?}");
    let all = records(&fixture.gateway);
    let told = all.iter().filter(|it| it["reason"] == "overloaded" && it["outcome"] == "refused").count();
    assert_eq!((told, fixture.upstream.count()), (refused, served), "{all:#?}");
    // Who is refused is told so, and there is room again.
    client.get("/up/x").await.assert_status(200);
    release.send_replace(false);
    let before = known();
    let mut under_way = JoinSet::new();
    for _ in 0..16 {
        let client = client.clone();
        under_way.spawn(async move { client.get("/up/slow").await });
    }
    eventually("each is under way or refused", || known() == before + 16).await;
    release.send_replace(true);
    let answers = under_way.join_all().await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert!(!refused.is_empty(), "one caller has at most half of what others leave");
    for answer in refused {
        answer.assert_refused(503, "overloaded");
        assert!(answer.headers.contains_key("retry-after"), "{:?}", answer.headers);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_addresses_that_of_the_gateways_own_zone_is_called_and_the_other_once_it_is_gone() {
    let mut plan = Plan::new();
    let far = TcpListener::bind("127.0.0.2:0").await.expect("listen");
    let port = far.local_addr().expect("an address").port();
    let near = TcpListener::bind(("127.0.0.3", port)).await.expect("listen");
    let once = |_: &_| Reply::status(200).header("connection", "close");
    let far = Upstream::http_on(far, &plan.server, &["http/1.1"], once);
    let near = Upstream::http_on(near, &plan.server, &["http/1.1"], once);
    with(&mut plan, port, "127.0.0.2, 127.0.0.3", "");
    plan.settings.egress = "zoneRanges: [127.0.0.3/32]".to_owned();
    let fixture = plan.start_with(far).await;
    let client = fixture.checkout();
    assert_eq!(crowd(&client, "/up/x", 20).await, [200; 20]);
    assert_eq!((near.count(), fixture.upstream.count()), (20, 0));
    drop(near);
    assert_eq!(crowd(&client, "/up/x", 20).await, [200; 20]);
    assert_eq!(fixture.upstream.count(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn that_a_name_does_not_exist_is_asked_once_as_long_as_its_zone_says() {
    needs!(python::installed());
    let mut plan = Plan::new();
    // In seconds: more than the calls take.
    let dns = Dns::start(&plan.sandbox, &json!({"negative": 25})).await;
    let text = plan.complete(443).resources[0].1.replace("  addresses: [127.0.0.1]\n", "");
    plan.settings = plan.settings.clone().resource("fixture.yaml", text);
    plan.settings.egress = dns.egress();
    plan.settings.extra = "cores: 1\n".to_owned();
    let fixture = plan.start(|_| Reply::status(200)).await;
    let client = fixture.checkout();
    client.get("/up/x").await.assert_refused(502, "dns_failed");
    let asked = || ["A", "AAAA"].map(|kind| dns.asked(&format!("{kind} api.up.test")));
    eventually("the server says what it was asked", || asked() != [0, 0]).await;
    assert_eq!(crowd(&client, "/up/x", 60).await, [502; 60]);
    assert!(asked().iter().all(|count| *count <= 1), "{:?} questions for 61 calls", asked());
}
