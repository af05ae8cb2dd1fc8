//! Thresholds of budgets: each is told once by all replicas, to whoever the settings name, and whatever happens to the one that tells it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tollgate_tests::fixture::CHECKOUT;
use tollgate_tests::gateway::eventually;
use tollgate_tests::redis::Redis;
use tollgate_tests::{Client, Gateway, Plan, Reply, Sandbox, Seen, Upstream, needs};

const LIMIT: &str = "budget/team/requests/day/shared";
const HOOK: &str = "/hooks/tollgate?team=platform";

/// Gateways with one budget of requests, and a receiver of alerts.
struct Replicas {
    plan: Plan,
    key: String,
    receiver: Upstream,
    /// Where the calls go.
    _upstream: Upstream,
    gateways: Vec<Gateway>,
    _redis: Option<Redis>,
}

impl Replicas {
    /// `spec` is of the budget; `answer` is what the receiver does.
    async fn start(
        count: usize,
        spec: &str,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let mut plan = Plan::new();
        let key = plan.sandbox.canary("hook");
        let secret = plan.sandbox.input("webhook.secret", format!("whsec_{}\n", STANDARD.encode(&key)));
        let identity = plan.pki.server(&plan.sandbox, &["localhost"]);
        let receiver = Upstream::http(&identity, &["http/1.1"], answer).await;
        plan.settings.extra = format!(
            "alerts: {{webhook: {{url: \"https://localhost:{}{HOOK}\", secretFile: {}, caFile: {}}}}}\n",
            receiver.port(),
            secret.display(),
            plan.pki.bundle().display()
        );
        let mut redis = None;
        if count > 1 {
            let server = Redis::start(&plan.sandbox).await;
            let password = plan.sandbox.input("redis.password", server.password());
            plan.settings.extra += &format!(
                "limits: {{redis: {{addresses: [\"127.0.0.1:{}\"], passwordFile: {}, lease: 1s, wait: 500ms}}}}\n",
                server.port(),
                password.display()
            );
            redis = Some(server);
        }
        plan.settings = plan.settings.resource("budgets.yaml", budget(spec));
        let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200)).await;
        let settings = plan.complete(upstream.port());
        let mut gateways = Vec::new();
        for _ in 0..count {
            gateways.push(Gateway::start(&Sandbox::new(), &settings).await);
        }
        if count > 1 {
            eventually("all replicas are known", || {
                let live = |gateway: &Gateway| gateway.metrics().sum("tollgate_limit_replicas", &[]);
                gateways.iter().all(|gateway| live(gateway) == count as f64)
            })
            .await;
        }
        Self { plan, key, receiver, _upstream: upstream, gateways, _redis: redis }
    }

    fn client(&self, replica: usize) -> Client {
        let identity = self.plan.prod.svid(&self.plan.sandbox, CHECKOUT);
        Client::new(
            &self.plan.sandbox,
            self.gateways[replica].address(),
            self.plan.pki.roots(),
            Some(identity),
        )
    }

    /// So many calls, over these replicas in turn. One that another replica has room for is made again.
    async fn call(&self, count: usize, replicas: &[usize]) {
        let clients: Vec<Client> = replicas.iter().map(|replica| self.client(*replica)).collect();
        for client in clients.iter().cycle().take(count) {
            let mut tries = 0;
            loop {
                let answer = client.get("/up/x").await;
                if answer.status == 200 {
                    break;
                }
                assert_eq!(answer.header("x-tollgate-reason"), "budget_held", "{answer:?}");
                tries += 1;
                assert!(tries < 50, "{answer:?}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }

    fn sum(&self, metric: &str, labels: &[&str]) -> f64 {
        self.gateways.iter().map(|gateway| gateway.metrics().sum(metric, labels)).sum()
    }

    /// The messages that came, by id: how often, and what the last says. Each is verified.
    fn messages(&self) -> BTreeMap<String, (usize, Value)> {
        let mut messages = BTreeMap::new();
        for seen in self.receiver.seen() {
            let (id, message) = verified(&seen, &self.key);
            let known = messages.entry(id).or_insert((0, Value::Null));
            *known = (known.0 + 1, message);
        }
        messages
    }

    fn thresholds(&self) -> Vec<String> {
        let mut told: Vec<_> =
            self.messages().values().map(|(_, message)| message["data"]["threshold"].to_string()).collect();
        told.sort();
        told
    }
}

fn budget(spec: &str) -> String {
    format!(
        "apiVersion: tollgate.dev/v1alpha1\nkind: Budget\nmetadata: {{name: team}}\nspec: {{appliesTo: All, {spec}}}\n"
    )
}

/// The id of a message and what it says, where its signature is that of the Standard Webhooks specification.
fn verified(seen: &Seen, key: &str) -> (String, Value) {
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", HOOK));
    assert_eq!(seen.header("content-type"), "application/json");
    let (id, timestamp) = (seen.header("webhook-id"), seen.header("webhook-timestamp"));
    let age = jiff::Timestamp::now().as_second() - timestamp.parse::<i64>().expect("seconds");
    assert!((0..300).contains(&age), "{timestamp}");
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &seen.body[..]].concat();
    let signature = seen.header("webhook-signature").strip_prefix("v1,").expect("the version");
    let signature = STANDARD.decode(signature).expect("base64");
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    hmac::verify(&key, &signed, &signature).expect("the signature of id, time and body");
    let message = seen.json();
    assert_eq!((&message["type"], &message["data"]["id"]), (&"budget.threshold".into(), &id.into()));
    (id.to_owned(), message)
}

/// What `tollgate budget ls` says was spent.
fn spent(gateway: &Gateway) -> Value {
    let admin = gateway.admin().to_string();
    let output = gateway.tollgate(&["budget", "ls", "--format", "json", "--admin", &admin]);
    let listed: Value = serde_json::from_slice(&output.stdout).expect("a list");
    listed[0]["spent"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_threshold_over_three_replicas_is_told_once_and_all_of_them_say_what_is_spent() {
    needs!(Redis::installed());
    let failures = Arc::new(AtomicUsize::new(0));
    let failed = failures.clone();
    // It is down for the first two.
    let answer = move |_: &Seen| match failed.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Reply::status(500),
        _ => Reply::status(204),
    };
    let mut replicas = Replicas::start(3, "limits: [{requests: 20, per: day}]", answer).await;
    replicas.call(16, &[0, 1, 2]).await;
    eventually("two are told", || replicas.thresholds() == ["50", "80"]).await;
    // The last calls are made over two of them: the third has to know all the same.
    replicas.call(4, &[0, 1]).await;
    eventually("three are told", || replicas.sum("tollgate_alerts_total", &["result=\"delivered\""]) == 3.0)
        .await;
    assert_eq!(replicas.thresholds(), ["100", "50", "80"]);
    for (_, message) in replicas.messages().values() {
        let data = &message["data"];
        assert_eq!(
            (&data["budget"], &data["limit"], &data["amount"]),
            (&"team".into(), &LIMIT.into(), &20.into())
        );
        assert!(data["spent"].as_u64() >= data["threshold"].as_u64().map(|percent| percent / 5), "{data}");
    }
    let by_all = |gateway: &Gateway| {
        gateway.metrics().sum("tollgate_limit_spent_by_all", &[&format!("limit=\"{LIMIT}\"")])
    };
    eventually("all replicas know it", || replicas.gateways.iter().all(|gateway| by_all(gateway) == 20.0))
        .await;
    for gateway in &replicas.gateways {
        assert_eq!(spent(gateway), 20);
        let used = gateway.metrics().sum("tollgate_budget_used_ratio", &[]);
        assert!((used - 1.0).abs() < 1e-9, "{used}");
    }
    assert_eq!(replicas.sum("tollgate_budget_thresholds_total", &["budget=\"team\""]), 3.0);

    let requests = replicas.receiver.count();
    assert_eq!(requests, 5, "two of them failed");
    for gateway in &mut replicas.gateways {
        gateway.stop();
        gateway.restart().await;
    }
    eventually("all replicas know it again", || {
        replicas.gateways.iter().all(|gateway| by_all(gateway) == 20.0)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(replicas.receiver.count(), requests, "a restart tells nothing again");
    replicas.plan.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_threshold_whose_replica_is_killed_before_it_is_delivered_is_told_by_another_under_its_id() {
    needs!(Redis::installed());
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = requests.clone();
    let answer = move |_: &Seen| match seen.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::status(204).wait(Duration::from_secs(60)),
        _ => Reply::status(204),
    };
    let mut replicas =
        Replicas::start(2, "thresholds: [50], limits: [{requests: 10, per: day}]", answer).await;
    replicas.call(5, &[0, 1]).await;
    eventually("one tells it", || requests.load(Ordering::SeqCst) == 1).await;
    let tells = |gateway: &Gateway| gateway.metrics().sum("tollgate_budget_thresholds_total", &[]) == 1.0;
    let teller = replicas.gateways.iter().position(tells).expect("one of them tells it");
    replicas.gateways[teller].kill();
    eventually("the other one tells it", || {
        let other = &replicas.gateways[1 - teller];
        other.metrics().sum("tollgate_alerts_total", &["result=\"delivered\""]) == 1.0
    })
    .await;
    let messages = replicas.messages();
    assert_eq!(messages.values().map(|(count, _)| *count).collect::<Vec<_>>(), [2], "{messages:?}");
    replicas.gateways[teller].restart().await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(requests.load(Ordering::SeqCst), 2, "who comes back tells nothing again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_threshold_of_one_replica_is_told_once_also_over_a_crash() {
    let answer = |_: &Seen| Reply::status(200);
    let spec = "thresholds: [10, forecast], limits: [{requests: 100, per: day}]";
    let mut replicas = Replicas::start(1, spec, answer).await;
    replicas.call(12, &[0]).await;
    eventually("it is told", || replicas.thresholds().contains(&"10".to_owned())).await;
    let begun = jiff::Timestamp::now().as_second() % 86_400;
    let is_foreseen = |thresholds: &[String]| thresholds.contains(&"\"forecast\"".to_owned());
    replicas.call(80, &[0]).await;
    // Nothing is foreseen in the first tenth of the day. Then 92 of 100 lead past the amount until 92 of 100 of the day are over.
    match begun {
        8_640..78_000 => eventually("it is foreseen", || is_foreseen(&replicas.thresholds())).await,
        8_000..8_640 | 78_000..80_000 => tokio::time::sleep(Duration::from_secs(6)).await,
        _ => {
            tokio::time::sleep(Duration::from_secs(6)).await;
            assert!(!is_foreseen(&replicas.thresholds()));
        }
    }
    // What is known to be delivered is written down.
    let delivered = || replicas.sum("tollgate_alerts_total", &["result=\"delivered\""]);
    eventually("all is delivered", || delivered() == replicas.messages().len() as f64).await;
    let requests = replicas.receiver.count();
    replicas.gateways[0].kill();
    replicas.gateways[0].restart().await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(replicas.receiver.count(), requests, "a restart tells nothing again");
    assert_eq!(replicas.messages().len(), requests);
}
