//! Two gateways on what the chart renders for both stores, with real ones: one budget in Redis, one ledger in PostgreSQL.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tollgate_tests::fixture::CHECKOUT;
use tollgate_tests::gateway::eventually;
use tollgate_tests::postgres::Postgres;
use tollgate_tests::process::free_port;
use tollgate_tests::redis::Redis;
use tollgate_tests::rendered::Pod;
use tollgate_tests::report::requests_reach;
use tollgate_tests::resources::document;
use tollgate_tests::{Authority, Client, Gateway, Plan, Reply, Sandbox, Upstream, helm, needs};

const SPENT_BY_ALL: &str = "tollgate_limit_spent_by_all";
/// That of settings that name none.
const LEASE: Duration = Duration::from_secs(10);
const LIMIT: &str = "budget/all/requests/day/shared";

/// What the chart renders for the value set `stores`, with each of these texts in the place of another.
async fn rendered(sandbox: &Sandbox, changes: &[(&str, String)]) -> String {
    let found = helm::run(sandbox, "chart.py", &json!({"job": "settings"})).await;
    let text = found["settings"]["stores"]["tollgate.yaml"].as_str().expect("settings").to_owned();
    changes.iter().fold(text, |text, (of_chart, here)| {
        assert!(text.contains(of_chart), "{of_chart} is not in\n{text}");
        text.replace(of_chart, here)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_on_rendered_settings_spend_one_budget_and_keep_one_ledger() {
    needs!(helm::installed(), Redis::installed(), Postgres::installed());
    let plan = Plan::new();
    let stores = Authority::new(&plan.sandbox, "stores");
    let identity = stores.server(&plan.sandbox, &["localhost"]);
    let port = free_port();
    let lines = format!(
        "tls-port {port}\ntls-cert-file {}\ntls-key-file {}\ntls-auth-clients no\ntls-ca-cert-file {}\n",
        identity.cert.display(),
        identity.key.display(),
        stores.bundle().display()
    );
    let redis = Redis::with(&plan.sandbox, plan.sandbox.canary("cache"), &lines).await;
    let database = Postgres::start(&plan.sandbox, Some(&identity)).await;
    let file = |name: &str, text: &str| plan.sandbox.input(name, text).display().to_string();
    let changes = [
        ("redis.cache.svc:6379", format!("localhost:{port}")),
        ("ledger-db.databases.svc:5432", format!("localhost:{}", database.port())),
        ("/etc/tollgate/redis/password", file("redis.password", redis.password())),
        ("/etc/tollgate/postgres/password", file("ledger.password", database.password())),
    ];
    let text = rendered(&plan.sandbox, &changes).await;
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200).data("fine")).await;
    let budget = document("Budget", "all", "  appliesTo: All\n  limits: [{requests: 40, per: day}]\n");
    let settings = plan.complete(upstream.port()).resource("budgets.yaml", budget);
    // There is no cluster: the resources are files.
    let nothing = Path::new("/nonexistent");
    let pod = Pod {
        kubeconfig: nothing,
        api_server: "",
        api_ca: stores.bundle(),
        token: nothing.to_owned(),
        bundle: plan.prod.bundle(),
    };
    let mut gateways = Vec::new();
    for _ in 0..2 {
        let mut gateway = Gateway::prepare(&Sandbox::new(), &settings);
        pod.run_on(&gateway, &text);
        gateway.launch().await;
        gateway.ready().await;
        gateways.push(gateway);
    }
    // The store grants nothing before it has heard of all replicas for a lease.
    tokio::time::sleep(LEASE + Duration::from_millis(300)).await;
    let live = |gateway: &Gateway| gateway.metrics().sum("tollgate_limit_replicas", &[]);
    eventually("both are known", || gateways.iter().all(|gateway| live(gateway) == 2.0)).await;
    for gateway in &gateways {
        let identity = plan.prod.svid(&plan.sandbox, CHECKOUT);
        let client = Client::new(&plan.sandbox, gateway.address(), plan.pki.roots(), Some(identity));
        // A name that the chart gives the gateway.
        let client = client.naming("tollgate");
        client.get("/up/x").await.assert_status(200);
    }
    for gateway in &gateways {
        let label = format!("limit=\"{LIMIT}\"");
        eventually("each knows what both have spent", || {
            gateway.metrics().sum(SPENT_BY_ALL, &[&label]) == 2.0
        })
        .await;
        requests_reach(gateway, 2).await;
        let admin = gateway.admin().to_string();
        let split = gateway
            .tollgate(&["budget", "ls", "all", "--by", "caller", "--format", "json", "--admin", &admin]);
        assert!(split.status.success(), "{}", String::from_utf8_lossy(&split.stderr));
        let split: Value = serde_json::from_slice(&split.stdout).expect("JSON");
        let expected = json!([{
            "budget": "all", "limit": LIMIT, "key": "", "by": CHECKOUT, "unit": "requests",
            "spent": 2, "percent": 100.0, "calls": 2,
        }]);
        assert_eq!(split, expected, "of both replicas");
    }
    // They would wait before they close their listeners, as in a pod.
    gateways.iter_mut().for_each(Gateway::kill);
}
