//! Destinations that are reached through a site's own proxy: Envoy, which is told where to and nothing else.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tollgate_tests::envoy::Envoy;
use tollgate_tests::gateway::eventually;
use tollgate_tests::ledger::records;
use tollgate_tests::process::{free_port, local};
use tollgate_tests::resources::{destination, grant};
use tollgate_tests::{Fixture, Plan, Reply, Upstream, needs};

const ALL: &str = "  allow: {methods: [GET], paths: [\"/**\"]}\n";

/// A gateway whose destinations are behind the proxy: `up`, which it lets through, and `other`, which it does not.
async fn fixture(mut plan: Plan, upstream: Upstream, proxy: &str) -> Fixture {
    let mut text = plan.complete(upstream.port()).resources[0].1.clone();
    let other = destination("other", "other.up.test", 443, plan.pki.bundle(), "http");
    text += &other;
    text +=
        &grant("other", "spiffe://prod.acme/**", "other", "none", ALL).replace("  credential: none\n", "");
    text = text
        .replace("  addresses: [127.0.0.1]\n", &format!("  sourceAddress: 127.0.0.7\n  proxy: {proxy}\n"));
    plan.settings = plan.settings.clone().resource("fixture.yaml", text);
    plan.start_with(upstream).await
}

async fn upstream(plan: &Plan) -> Upstream {
    Upstream::http(&plan.server, &["http/1.1"], |seen| {
        Reply::status(200).data(seen.header("authorization").to_owned())
    })
    .await
}

fn lines(requests: &Path) -> Vec<String> {
    fs::read_to_string(requests).unwrap_or_default().lines().map(str::to_owned).collect()
}

async fn asked(requests: &Path, count: usize) -> Vec<String> {
    eventually("the proxy wrote down what it was asked", || lines(requests).len() >= count).await;
    lines(requests)
}

/// What the proxy is asked over and over, and where it writes that down.
fn allowed(plan: &Plan, upstream: &Upstream) -> (String, SocketAddr, PathBuf) {
    let requests = plan.sandbox.sinks().join("proxy-requests");
    (format!("api.up.test:{}", upstream.port()), upstream.address(), requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_through_the_proxy_of_the_site_which_learns_where_to_and_nothing_else() {
    needs!(Envoy::installed());
    let plan = Plan::new();
    let upstream = upstream(&plan).await;
    let (host, towards, requests) = allowed(&plan, &upstream);
    let proxy = Envoy::forward(&plan.sandbox, None, (&host, towards), &requests).await;
    let key = plan.key.clone();
    let fixture = fixture(plan, upstream, &format!("{{address: \"{}\"}}", proxy.address())).await;
    let client = fixture.checkout();
    for _ in 0..2 {
        let answer = client.get("/up/x").await;
        answer.assert_status(200);
    }
    let seen = fixture.upstream.seen();
    assert!(seen.iter().all(|it| it.header("authorization") == format!("Bearer {key}")), "{seen:?}");
    let refused = client.get("/other/x").await;
    refused.assert_refused(502, "upstream_unreachable");
    assert!(refused.text().contains("does not let calls through"), "{}", refused.text());
    assert_eq!(refused.header("x-should-retry"), "true", "nothing was sent");

    let told = asked(&requests, 1).await;
    assert!(told.contains(&"127.0.0.7 CONNECT other.up.test:443 - - 403".to_owned()), "{told:?}");
    let seen = records(&fixture.gateway);
    assert_eq!(
        (&seen[0]["source"], &seen[0]["peer"]),
        (&"127.0.0.7".into(), &proxy.address().to_string().into())
    );
    drop(fixture);
    let told = asked(&requests, 2).await;
    assert!(told.contains(&format!("127.0.0.7 CONNECT {host} - - 200")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_to_a_proxy_that_is_verified_and_the_destinations_own_runs_inside() {
    needs!(Envoy::installed());
    let plan = Plan::new();
    let upstream = upstream(&plan).await;
    let (host, towards, requests) = allowed(&plan, &upstream);
    let own = plan.pki.server(&plan.sandbox, &["localhost"]);
    let proxy = Envoy::forward(&plan.sandbox, Some(&own), (&host, towards), &requests).await;
    let (port, bundle) = (proxy.address().port(), plan.pki.bundle().display().to_string());
    let written = format!("{{address: \"localhost:{port}\", tls: true, verify: {{caFile: {bundle}}}}}");
    let fixture = fixture(plan, upstream, &written).await;
    let client = fixture.checkout();
    client.get("/up/x").await.assert_status(200);
    // Whoever answers there and is not the proxy is told nothing; the connection that was kept is none of its.
    let text =
        fs::read_to_string(fixture.gateway.home().join("resources/fixture.yaml")).expect("the resources");
    let others = format!("tls: true, verify: {{caFile: {}}}", fixture.prod.bundle().display());
    let text = text.replace(&format!("tls: true, verify: {{caFile: {bundle}}}"), &others);
    fixture.gateway.replace("fixture.yaml", &text).await;
    let refused = client.get("/up/x").await;
    refused.assert_refused(502, "upstream_unreachable");
    assert!(refused.text().contains("TLS certificate of the proxy"), "{}", refused.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_cannot_reach_the_destination_or_is_not_there_is_said_to_be_that() {
    needs!(Envoy::installed());
    let plan = Plan::new();
    let upstream = upstream(&plan).await;
    let (host, _, requests) = allowed(&plan, &upstream);
    let proxy = Envoy::forward(&plan.sandbox, None, (&host, local(free_port())), &requests).await;
    let fixture = fixture(plan, upstream, &format!("{{address: \"{}\"}}", proxy.address())).await;
    let client = fixture.checkout();
    let refused = client.get("/up/x").await;
    refused.assert_refused(502, "upstream_unreachable");
    assert!(refused.text().contains("cannot reach it"), "{}", refused.text());
    drop(proxy);
    client.get("/up/x").await.assert_refused(502, "upstream_unreachable");
}
