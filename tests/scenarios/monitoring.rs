//! What Prometheus and Grafana make of the gateway's metrics: the alerts and the dashboard of the chart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tollgate_tests::process::free_port;
use tollgate_tests::prometheus::Prometheus;
use tollgate_tests::provider::{self, chat, chat_completion};
use tollgate_tests::resources::{credential, destination, file_store, grant};
use tollgate_tests::{
    Authority, Client, Fixture, Plan, Reply, Sandbox, SecretKind, Upstream, helm, needs, panels,
};

const CHAT: &str = "/up/v1/chat/completions";

#[tokio::test(flavor = "multi_thread")]
async fn every_alert_passes_promtool_fires_on_what_it_is_for_and_is_quiet_while_all_is_well() {
    needs!(helm::installed(), Prometheus::installed());
    let sandbox = Sandbox::new();
    let argument = json!({"job": "alerts", "folder": sandbox.inputs()});
    let found = helm::run(&sandbox, "monitoring.py", &argument).await;
    assert_eq!(found["wrong"], json!([]));
    assert!(found["rules"].as_u64() > Some(10), "{found}");
}

/// A gateway with a pool of a good key and a dead one, limits, and a token endpoint that is down.
async fn busy() -> Fixture {
    let plan = Plan::openai("");
    let [good, dead, client] = ["good", "dead", "client"].map(|name| {
        let key = plan.sandbox.canary(name);
        plan.sandbox.input(&format!("keys/{name}"), &key);
        key
    });
    plan.sandbox.stands_for(&good, &[SecretKind::File, SecretKind::Pool, SecretKind::Bearer]);
    plan.sandbox.stands_for(&dead, &[SecretKind::File, SecretKind::Pool]);
    plan.sandbox.stands_for(&client, &[SecretKind::File, SecretKind::ClientCredentials]);
    let bearer = format!("Bearer {good}");
    let upstream = Upstream::http(&plan.server, &["http/1.1"], move |seen| {
        if seen.header("authorization") == bearer {
            return Reply::json(&chat_completion(9, 2));
        }
        provider::wrong_key()
    })
    .await;
    let ca = plan.pki.bundle();
    let mint = "{bearer: {}}\n  mint:\n    endpoint: {destination: idp, path: /token}\n    clientCredentials: {clientId: tollgate}\n    scope: api";
    let pool = "[{alias: good, store: files, path: good}, {alias: dead, store: files, path: dead}]";
    let limits = "  allow: {methods: [POST], paths: [/v1/chat/completions], models: [gpt-5-mini]}\n  \
                  limits: [{spend: 50 USD, per: month}, {concurrency: 50}]\n";
    let text = destination("up", "api.up.test", upstream.port(), ca, "openai")
        + &destination("idp", "idp.test", free_port(), ca, "http")
        + &destination("minted", "api.minted.test", free_port(), ca, "http")
        + &file_store("files", &plan.sandbox.inputs().join("keys"))
        + &credential("pool", "up", pool, "{bearer: {}}")
        + &credential("minted", "minted", "{store: files, path: client}", mint)
        + &grant("all-up", "spiffe://prod.acme/ns/checkout/sa/*", "up", "pool", limits)
        + &grant(
            "all-minted",
            "spiffe://prod.acme/ns/checkout/sa/*",
            "minted",
            "minted",
            "  allow: {methods: [GET], paths: [\"/**\"]}\n",
        );
    let settings = plan.settings.clone().resource("fixture.yaml", text);
    Plan { settings, ..plan }.start_with(upstream).await
}

/// Calls that are answered, refused, failed and turned away, until told to stop.
async fn calls(fixture: &Fixture, stop: Arc<AtomicBool>) {
    let other = Authority::new(&fixture.sandbox, "other");
    let callers: Vec<Client> =
        (0..6).map(|n| fixture.caller(&format!("spiffe://prod.acme/ns/checkout/sa/web-{n}"))).collect();
    while !stop.load(Ordering::SeqCst) {
        for caller in &callers {
            caller.post(CHAT, &chat(50)).await;
            caller.get("/up/v1/models").await;
            caller.get("/minted/x").await;
        }
        let stranger = other.svid(&fixture.sandbox, "spiffe://other/ns/checkout/sa/web");
        fixture.stranger(Some(stranger)).refusal().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_dashboard_answers_from_a_prometheus_that_scrapes_a_gateway() {
    needs!(helm::installed(), Prometheus::installed());
    let fixture = busy().await;
    let prometheus = Prometheus::scraping(&fixture.sandbox, &fixture.gateway).await;
    let stop = Arc::new(AtomicBool::new(false));
    let argument =
        json!({"job": "dashboard", "cluster": false, "prometheus": prometheus.address().to_string()});
    let judged = async {
        let found = helm::run(&fixture.sandbox, "monitoring.py", &argument).await;
        stop.store(true, Ordering::SeqCst);
        found
    };
    let (found, ()) = tokio::join!(judged, calls(&fixture, Arc::clone(&stop)));
    assert_eq!(found["silent"], json!([]));
    assert!(found["count"].as_u64() > Some(25), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_of_the_dashboard_shows_something_under_names_that_tell_it_apart() {
    needs!(panels::installed(), Prometheus::installed());
    let fixture = busy().await;
    let prometheus = Prometheus::scraping(&fixture.sandbox, &fixture.gateway).await;
    let stop = Arc::new(AtomicBool::new(false));
    let drawn = async {
        // As long as the pictures show.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let drawn = panels::draw(&fixture.sandbox, &prometheus, false).await;
        stop.store(true, Ordering::SeqCst);
        drawn
    };
    let (drawn, ()) = tokio::join!(drawn, calls(&fixture, Arc::clone(&stop)));
    assert_eq!(drawn["wrong"], json!([]));
    assert!(drawn["count"].as_u64() > Some(20), "{drawn}");
}
