//! A provider, or a resolver, in trouble harms nobody else, and what it did not process costs nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tollgate_tests::fixture::{CHAT_ONLY, CHECKOUT};
use tollgate_tests::gateway::{eventually, field};
use tollgate_tests::network::{Dns, Http2Provider};
use tollgate_tests::provider::chat;
use tollgate_tests::resources::{destination, document, grant};
use tollgate_tests::{Client, Fixture, Gateway, Plan, Protocol, Reply, Upstream, needs, python};

const ALL: &str = "  allow: {methods: [GET, POST, PUT], paths: [\"/**\"]}\n";

/// The fixture's resources, for a destination that DNS decides on.
fn by_name(plan: &Plan, port: u16) -> String {
    let settings = plan.complete(port);
    let (_, text) = &settings.resources[0];
    text.replace("  addresses: [127.0.0.1]\n", "  timeouts: {connect: 20s, firstByte: 20s}\n")
}

fn dns_reason(gateway: &Gateway, text: &str) -> bool {
    gateway.log().iter().any(|line| {
        field(line, "reason") == "dns_failed"
            && field(line, "error").as_str().is_some_and(|e| e.contains(text))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_nobody_answers_for_fails_its_own_destination_alone_and_the_reason_says_dns() {
    needs!(python::installed());
    let mut plan = Plan::new();
    let zone = json!({"api.up.test": {"A": ["127.0.0.1"], "ttl": 1}, "api.lost.test": {"A": "drop", "AAAA": "drop"}});
    let dns = Dns::start(&plan.sandbox, &zone).await;
    // Each call needs a new connection.
    let upstream =
        Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200).header("connection", "close"))
            .await;
    let mut text = by_name(&plan, upstream.port());
    let lost = destination("lost", "api.lost.test", upstream.port(), plan.pki.bundle(), "http");
    text += &lost.replace("  addresses: [127.0.0.1]\n", "  timeouts: {connect: 2s}\n");
    text +=
        &grant("all-lost", "spiffe://prod.acme/**", "lost", "none", ALL).replace("  credential: none\n", "");
    plan.settings.egress = dns.egress();
    plan.settings.extra = "cores: 1\n".to_owned();
    let settings = plan.settings.clone().resource("fixture.yaml", text);
    let fixture = Plan { settings, ..plan }.start_with(upstream).await;
    let crowd = fixture.caller("spiffe://prod.acme/ns/crowd/sa/web");
    let refused = Arc::new(AtomicUsize::new(0));
    let mut calling = JoinSet::new();
    let mut connections = Vec::new();
    for _ in 0..300 {
        connections.push(crowd.open(Protocol::H1).await.unwrap());
    }
    for mut connection in connections {
        let (crowd, refused) = (crowd.clone(), refused.clone());
        calling.spawn(async move {
            loop {
                let answer = connection.send(crowd.request(Method::GET, "/lost/x", "")).await.unwrap();
                answer.assert_refused(502, "dns_failed");
                assert_eq!(answer.headers["x-should-retry"], "true", "nothing was sent");
                refused.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    let other = fixture.checkout();
    let mut served = 0;
    while refused.load(Ordering::SeqCst) < 600 {
        other.get("/up/x").await.assert_status(200);
        served += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    calling.abort_all();
    assert!(served > 20, "{served} calls of another destination meanwhile");
    assert!(dns.asked("A api.lost.test") < 60, "{} questions for 600 calls", dns.asked("A api.lost.test"));
    assert!(dns_reason(&fixture.gateway, "could not be resolved in time"));
    let answer = other.get("/lost/x").await;
    assert!(answer.text().contains("name could not be resolved in time"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_family_without_an_answer_and_dead_addresses_cost_a_moment_and_a_name_that_moves_is_followed() {
    needs!(python::installed());
    let mut plan = Plan::new();
    let zone =
        |address: &str| json!({"api.up.test": {"A": ["127.0.0.8", address], "AAAA": "drop", "ttl": 1}});
    let dns = Dns::start(&plan.sandbox, &zone("127.0.0.1")).await;
    let reply = |who: &'static str| move |_: &_| Reply::status(200).header("connection", "close").data(who);
    let upstream = Upstream::http(&plan.server, &["http/1.1"], reply("first")).await;
    let port = upstream.port();
    let second = TcpListener::bind(SocketAddr::from(([127, 0, 0, 2], port))).await.unwrap();
    // Each core asks for itself.
    plan.settings.extra = "cores: 1\n".to_owned();
    let _second = Upstream::http_on(second, &plan.server, &["http/1.1"], reply("second"));
    plan.settings.egress = dns.egress();
    let settings = plan.settings.clone().resource("fixture.yaml", by_name(&plan, port));
    let fixture = Plan { settings, ..plan }.start_with(upstream).await;
    let client = fixture.checkout();
    for _ in 0..3 {
        let answer = client.get("/up/x").await;
        answer.assert_status(200);
        assert_eq!(answer.text(), "first");
    }
    dns.now_says(&zone("127.0.0.2"));
    for _ in 0..100 {
        let answer = client.get("/up/x").await;
        answer.assert_status(200);
        if answer.text() == "second" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(client.get("/up/x").await.text(), "second");
    // The last answer stands in while there is none.
    dns.now_says(&json!({"api.up.test": {"A": "fail", "AAAA": "fail"}}));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(client.get("/up/x").await.text(), "second");
    // Not for a name that is no more, nor one that leads where nobody may go.
    dns.now_says(&json!({}));
    is_refused_at_last(&client, "dns_failed").await;
    dns.now_says(&json!({"api.up.test": {"A": ["169.254.169.254"], "AAAA": ["fd00:ec2::254"], "ttl": 1}}));
    is_refused_at_last(&client, "address_refused").await;
}

/// Calls until what is cached of a name has had its time.
async fn is_refused_at_last(client: &Client, reason: &str) {
    let mut answer = client.get("/up/x").await;
    for _ in 0..150 {
        if answer.header("x-tollgate-reason") == reason {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        answer = client.get("/up/x").await;
    }
    answer.assert_refused(502, reason);
}

/// A gateway before an HTTP/2 provider that misbehaves, and the spend of a limit there.
async fn misbehaving(mode: &str, times: usize) -> (Plan, Http2Provider, Gateway, Client) {
    let mut plan = Plan::new();
    plan.settings.extra = "cores: 1\n".to_owned();
    plan.grant = format!("{ALL}  limits: [{{requests: 1000, per: day}}]\n");
    let provider = Http2Provider::start(&plan.sandbox, &plan.server, mode, times).await;
    let settings = plan.complete(provider.port());
    let (_, text) = &settings.resources[0];
    let retries = if mode == "goaway-each" { "  retries: {budgetPercent: 100}\n" } else { "" };
    let fields = format!("  http: 2\n  timeouts: {{connect: 1s, firstByte: 2s}}\n{retries}  dialect:");
    let settings = settings.clone().resource("fixture.yaml", text.replace("  dialect:", &fields));
    let gateway = Gateway::start(&plan.sandbox, &settings).await;
    let identity = plan.prod.svid(&plan.sandbox, CHECKOUT);
    let client = Client::new(&plan.sandbox, gateway.address(), plan.pki.roots(), Some(identity));
    (plan, provider, gateway, client)
}

fn spent(gateway: &Gateway) -> f64 {
    gateway.metrics().sum("tollgate_limit_spent", &["requests/day"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_refused_is_sent_again_and_what_is_refused_for_good_costs_nothing() {
    needs!(python::installed());
    let (_plan, provider, gateway, client) = misbehaving("refuse", 2).await;
    client.get("/up/x").await.assert_status(200);
    assert_eq!(provider.saw("request").len(), 3);
    eventually("one is charged", || spent(&gateway) > 0.0).await;
    assert_eq!(spent(&gateway), 1.0);
    let (_plan, provider, gateway, client) = misbehaving("refuse", 1000).await;
    let answer = client.get("/up/x").await;
    answer.assert_refused(502, "upstream_reset");
    assert_eq!(answer.headers["x-should-retry"], "true");
    assert_eq!(provider.saw("request").len(), 4, "not for ever");
    assert_eq!(spent(&gateway), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_goes_away_loses_no_call() {
    needs!(python::installed());
    let (_plan, provider, _gateway, client) = misbehaving("goaway-below", 1).await;
    client.get("/up/x").await.assert_status(200);
    assert_eq!(provider.saw("connection").len(), 2);
    // About half of the calls meet a connection that is about to go. The budget that retries have by default is for fewer.
    let (_plan, provider, gateway, client) = misbehaving("goaway-each", 0).await;
    let mut calling = JoinSet::new();
    for _ in 0..6 {
        let client = client.clone();
        calling.spawn(async move {
            let mut connection = client.open(Protocol::H1).await.unwrap();
            for _ in 0..50 {
                connection.send(client.request(Method::GET, "/up/x", "")).await.unwrap().assert_status(200);
            }
        });
    }
    while let Some(done) = calling.join_next().await {
        done.unwrap();
    }
    assert_eq!(provider.saw("request").len(), 300);
    eventually("each is charged once", || spent(&gateway) >= 300.0).await;
    assert_eq!(spent(&gateway), 300.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_takes_one_stream_at_a_time_gets_more_connections_and_not_more_streams() {
    needs!(python::installed());
    let (_plan, provider, _gateway, client) = misbehaving("one-stream", 0).await;
    client.get("/up/x").await.assert_status(200);
    let mut calling = JoinSet::new();
    for _ in 0..20 {
        let client = client.clone();
        calling.spawn(async move { client.get("/up/x").await });
    }
    while let Some(answer) = calling.join_next().await {
        answer.unwrap().assert_status(200);
    }
    assert_eq!(provider.saw("violation").len(), 0);
    // One after the other they would take six seconds, and most of them end after two.
    assert!(provider.saw("connection").len() >= 4, "{}", provider.saw("connection").len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_does_not_answer_is_left_and_one_that_never_spoke_was_never_there() {
    needs!(python::installed());
    let (_plan, provider, gateway, client) = misbehaving("silent", 1).await;
    let answer = client.get("/up/x").await;
    answer.assert_refused(504, "upstream_timeout");
    assert_eq!(answer.headers["x-should-retry"], "true");
    assert!(answer.text().contains("nothing was sent"), "{}", answer.text());
    assert_eq!(spent(&gateway), 0.0);
    client.get("/up/x").await.assert_status(200);
    assert_eq!(provider.saw("request").len(), 1);
    let (_plan, provider, _gateway, client) = misbehaving("stall", 0).await;
    client.get("/up/x").await.assert_status(200);
    client.get("/up/x").await.assert_refused(504, "upstream_timeout");
    for _ in 0..3 {
        client.get("/up/x").await.assert_status(200);
    }
    let connections: Vec<Value> =
        provider.saw("request").iter().map(|seen| seen["connection"].clone()).collect();
    assert_eq!(connections, [0, 0, 1, 1, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_wants_http_1_gets_it_from_then_on() {
    needs!(python::installed());
    let (_plan, provider, gateway, client) = misbehaving("http1", 0).await;
    for _ in 0..3 {
        client.get("/up/x").await.assert_status(200);
    }
    let spoken: Vec<Value> = provider.saw("request").iter().map(|seen| seen["http"].clone()).collect();
    assert_eq!(spoken, [2, 1, 1, 1]);
    eventually("each is charged once", || spent(&gateway) >= 3.0).await;
    assert_eq!(spent(&gateway), 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_spoken_to_in_http_1_unless_it_says_2_or_the_call_is_grpc() {
    for (field, plain, grpc) in [
        ("", false, true),
        ("  http: auto\n", false, true),
        ("  http: 1\n", false, false),
        ("  http: 2\n", true, true),
    ] {
        let plan = Plan::new();
        let upstream = Upstream::http(&plan.server, &["h2", "http/1.1"], |_| Reply::status(200)).await;
        let settings = plan.complete(upstream.port());
        let text = settings.resources[0].1.replace("  dialect:", &format!("{field}  dialect:"));
        let settings = plan.settings.clone().resource("up.yaml", text).resource("fixture.yaml", "");
        let fixture = Plan { settings, ..plan }.start_with(upstream).await;
        let client = fixture.checkout();
        client.get("/up/x").await.assert_status(200);
        let mut call = client.request(Method::POST, "/up/x", "");
        call.headers_mut().insert("content-type", "application/grpc+proto".parse().unwrap());
        client.send(Protocol::H2, call).await.unwrap().assert_status(200);
        let spoken: Vec<bool> = fixture.upstream.seen().iter().map(|seen| seen.h2).collect();
        assert_eq!(spoken, [plain, grpc], "{field:?}");
    }
}

/// Answers the first request of a connection, and closes on the second without a word.
async fn closing(plan: Plan) -> Fixture {
    let upstream = Upstream::raw(&plan.server, &["http/1.1"], None, |mut stream, _| async move {
        let mut head = [0; 4096];
        if stream.read(&mut head).await.is_ok_and(|read| read > 0) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            let _ = stream.flush().await;
            let _ = stream.read(&mut head).await;
        }
    })
    .await;
    plan.start_with(upstream).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_may_be_made_twice_survives_the_death_of_its_kept_connection_and_another_does_not() {
    let mut plan = Plan::new();
    plan.settings.extra = "cores: 1\n".to_owned();
    let fixture = closing(plan).await;
    let client = fixture.checkout();
    let call = |method: Method, key: &'static str| {
        let mut request = client.request(method, "/up/x", "");
        if !key.is_empty() {
            request.headers_mut().insert("idempotency-key", key.parse().unwrap());
        }
        client.send(Protocol::H1, request)
    };
    let twice = [(Method::GET, ""), (Method::PUT, ""), (Method::DELETE, ""), (Method::POST, "one")];
    for (method, key) in twice {
        // Each leaves a kept connection, on which the next dies.
        let before = fixture.upstream.connections();
        for _ in 0..2 {
            call(method.clone(), key).await.unwrap().assert_status(200);
        }
        assert_eq!(fixture.upstream.connections(), before + 2, "{method}: each is made again on a new one");
    }
    call(Method::POST, "").await.unwrap().assert_refused(502, "upstream_reset");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_and_charged_is_not_to_be_made_again_and_the_sdk_does_not() {
    let mut plan = Plan::openai(&format!("{CHAT_ONLY}  limits: [{{spend: 100 USD, per: day}}]\n"));
    let upstream =
        Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200).wait(Duration::from_secs(30)))
            .await;
    let text = plan.complete(upstream.port()).resources[0]
        .1
        .replace("  dialect:", "  timeouts: {firstByte: 1s}\n  dialect:");
    plan.settings = plan.settings.resource("fixture.yaml", text);
    let fixture = plan.start_with(upstream).await;
    let client = fixture.checkout();
    let answer = client.post("/up/v1/chat/completions", &chat(9)).await;
    answer.assert_refused(504, "upstream_timeout");
    assert_eq!(answer.headers["x-should-retry"], "false");
    let mut keyed = client.json("/up/v1/chat/completions", &chat(9));
    keyed.headers_mut().insert("idempotency-key", "one".parse().unwrap());
    let answer = client.send(Protocol::H1, keyed).await.unwrap();
    answer.assert_refused(504, "upstream_timeout");
    assert!(!answer.headers.contains_key("x-should-retry"), "its key makes it safe");
    needs!(python::installed());
    let before = fixture.upstream.count();
    let said =
        python::run(&fixture.sandbox, "openai_retries.py", &client, fixture.pki.bundle(), &json!({})).await;
    assert_eq!(said["status"], 504, "{said}");
    assert_eq!(fixture.upstream.count() - before, 1, "its SDK repeats a 504 twice otherwise");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_to_ask_are_settings_and_what_is_none_is_named() {
    let mut plan = Plan::new();
    plan.settings.egress = "dns: {servers: [nonsense]}".to_owned();
    plan.settings = plan.settings.resource("a.yaml", document("Grant", "none", ""));
    let gateway = Gateway::prepare(&plan.sandbox, &plan.settings);
    let said = gateway.tollgate(&["check"]);
    let said = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(
        said.contains("egress.dns.servers") && said.contains("write the address of a DNS server"),
        "{said}"
    );
}
