//! Resources that are objects of a cluster: the real API server, and the gateway as a user that has the rights it needs and no others.

mod approvals;
mod budgets;
mod conformance;
mod consents;
mod examples;
mod faults;
mod gateway_api;
mod hosts;
mod narrow;
mod nested;
mod others;
mod rights;
mod secrets;
mod unwritten;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate_tests::cluster::Cluster;
use tollgate_tests::fixture::CHECKOUT;
use tollgate_tests::gateway::{eventually, field};
use tollgate_tests::{Client, Gateway, Plan, Reply, Sandbox, Seen, Settings, Upstream, needs};

/// The user that the gateway is.
const USER: &str = "gateway";
/// Who writes the Grants of an app, and who the Approvals.
const APP: &str = "app";
const SECURITY: &str = "security";
/// The gateway's namespace.
const EGRESS: &str = "egress";
const GRANT: &str = "/apis/tollgate.dev/v1alpha1/namespaces/egress/grants/checkout-up";

/// A cluster with the CRDs, an upstream, and what a gateway needs that serves both.
struct World {
    plan: Plan,
    cluster: Cluster,
    upstream: Upstream,
    settings: Settings,
    objects: String,
    /// Further members of `resources.kubernetes`, each after a comma.
    members: &'static str,
}

impl World {
    /// The gateway may what `rules` say in all namespaces; in its own it may have the Lease.
    async fn new(rules: &Value) -> Self {
        Self::answering(rules, |_| Reply::status(200)).await
    }

    /// The same, with an upstream that answers so.
    async fn answering(rules: &Value, respond: fn(&Seen) -> Reply) -> Self {
        let mut plan = Plan::new();
        plan.grant += "  limits: [{requests: 1000, per: day}]\n";
        let cluster = Cluster::start(&plan.sandbox, &[USER, APP, SECURITY]).await;
        install_crds(&cluster).await;
        cluster.namespace(EGRESS, &json!({}), &[]).await;
        cluster.allow(USER, None, rules).await;
        cluster.allow(USER, Some(EGRESS), &lease_rights()).await;
        let upstream = Upstream::http(&plan.server, &["http/1.1"], respond).await;
        let mut settings = plan.complete(upstream.port());
        let objects = settings.resources.pop().expect("the fixture's resources").1;
        let objects = objects.replace("metadata: {name", &format!("metadata: {{namespace: {EGRESS}, name"));
        Self { plan, cluster, upstream, settings, objects, members: "" }
    }

    /// A gateway that does not run yet, with a folder of its own.
    fn prepare(&self, sandbox: &Sandbox) -> Gateway {
        self.prepare_at(sandbox, &self.cluster.kubeconfig(USER))
    }

    /// The same, with a way of its own to the API server.
    fn prepare_at(&self, sandbox: &Sandbox, kubeconfig: &Path) -> Gateway {
        let gateway = Gateway::prepare(sandbox, &self.settings);
        let kubernetes =
            format!("{{kubeconfig: {}, gatewayNamespace: {EGRESS}{}}}", kubeconfig.display(), self.members);
        gateway.edit_settings("resources: ./resources", &format!("resources: {{kubernetes: {kubernetes}}}"));
        gateway
    }

    /// The same, once it listens.
    async fn launch(&self, sandbox: &Sandbox) -> Gateway {
        let mut gateway = self.prepare(sandbox);
        gateway.launch().await;
        gateway
    }

    /// The same, once it is ready.
    async fn start(&self) -> Gateway {
        let mut gateway = self.launch(&self.plan.sandbox).await;
        gateway.ready().await;
        gateway
    }

    /// Leaves everything that the gateway wrote into the cluster to the sweep, beside the objects themselves.
    async fn leave(&self) {
        let all = "destinations,secretstores,credentials,grants,approvals,sourcepools,budgets,leases,events.events.k8s.io,events";
        let text = self.cluster.kubectl(&["get", all, "--all-namespaces", "--output=json"]).await;
        assert!(text.contains("\"conditions\""), "{text}");
        std::fs::write(self.plan.sandbox.sinks().join("cluster.json"), text)
            .expect("the objects of the cluster");
    }

    fn checkout(&self, gateway: &Gateway) -> Client {
        let identity = self.plan.prod.svid(&self.plan.sandbox, CHECKOUT);
        Client::new(&self.plan.sandbox, gateway.address(), self.plan.pki.roots(), Some(identity))
    }

    /// Waits until every object is accepted and in force.
    async fn all_programmed(&self) {
        let all = [
            ("destinations", "up"),
            ("secretstores", "files"),
            ("credentials", "up-key"),
            ("grants", "checkout-up"),
        ];
        for (kind, name) in all {
            for condition in ["Accepted", "ResolvedRefs", "Programmed"] {
                self.condition(&path(kind, name), condition, "True").await;
            }
        }
    }

    /// Waits until the status of an object says so, and gives the condition.
    async fn condition(&self, path: &str, kind: &str, status: &str) -> Value {
        let wanted = |object: &Value| condition(object, kind)["status"] == status;
        condition(&self.cluster.until(path, wanted).await, kind).clone()
    }
}

/// The gateway's own kinds, as rights and paths name them.
const OWN_KINDS: [&str; 7] =
    ["destinations", "secretstores", "credentials", "grants", "approvals", "sourcepools", "budgets"];

/// Every right that the gateway needs in all namespaces.
fn rights() -> Value {
    let kinds = OWN_KINDS;
    let status = kinds.map(|kind| format!("{kind}/status"));
    json!([
        {"apiGroups": ["tollgate.dev"], "resources": kinds, "verbs": ["list", "watch"]},
        {"apiGroups": ["tollgate.dev"], "resources": status, "verbs": ["patch"]},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list", "watch"]},
        {
            "apiGroups": ["gateway.networking.k8s.io"], "resources": ["referencegrants"],
            "verbs": ["list", "watch"],
        },
    ])
}

/// Every right that the gateway needs in its own namespace.
fn lease_rights() -> Value {
    let (group, verbs) = ("coordination.k8s.io", ["get", "create", "update"]);
    json!([{"apiGroups": [group], "resources": ["leases"], "verbs": verbs}])
}

async fn install_crds(cluster: &Cluster) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/tollgate/crds");
    cluster.kubectl(&["apply", "--server-side", "-f", &folder.display().to_string()]).await;
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]).await;
    for kind in OWN_KINDS {
        cluster.served(&format!("/apis/tollgate.dev/v1alpha1/{kind}")).await;
    }
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

fn path(kind: &str, name: &str) -> String {
    format!("/apis/tollgate.dev/v1alpha1/namespaces/egress/{kind}/{name}")
}

/// Whether every kind that a gateway watches without the Gateway API is followed.
fn is_all_followed(gateway: &Gateway) -> bool {
    let metrics = gateway.metrics();
    let is_followed =
        |kind: &&str| metrics.sum("tollgate_kubernetes_synced", &[&format!("resource=\"{kind}\"")]) == 1.0;
    OWN_KINDS.iter().chain(&["namespaces", "referencegrants"]).all(is_followed)
}

fn said(gateway: &Gateway, message: &str) -> usize {
    gateway
        .log()
        .iter()
        .filter(|line| field(line, "message").as_str().is_some_and(|it| it.contains(message)))
        .count()
}

/// Waits until the hosts that are in the status of Destinations count, which is a generation of its own.
async fn settled(gateway: &Gateway) {
    let file = gateway.home().join("data/objects.json");
    let is_known = || std::fs::read_to_string(&file).is_ok_and(|text| text.contains(r#"\"heldHosts\":["#));
    eventually("the gateway knows what its status says", is_known).await;
}

/// Asks until the answer has this status, for at most half a minute; how long that took.
async fn answers(client: &Client, status: u16) -> Duration {
    let begun = Instant::now();
    loop {
        let answer = client.get("/up/x").await;
        if answer.status.as_u16() == status {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "never {status}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_serve_change_are_refused_by_themselves_and_say_so() {
    needs!(Cluster::installed());
    let world = World::new(&rights()).await;
    let gateway = world.start().await;
    let client = world.checkout(&gateway);
    client.get("/up/x").await.assert_refused(421, "unknown_host");

    world.cluster.apply(&world.objects).await;
    answers(&client, 200).await;
    world.all_programmed().await;
    let grant = world.cluster.get(GRANT).await;
    let limit = &grant["status"]["limits"][0];
    assert!(limit["id"].as_str().unwrap().contains("checkout-up"), "{limit}");
    assert!(limit["resets"].as_str().unwrap().ends_with('Z'), "{limit}");
    let credential = path("credentials", "up-key");
    let used = |credential: &Value| {
        credential["status"]["health"] == "well" && credential["status"]["nextRefresh"].is_string()
    };
    world.cluster.until(&credential, used).await;

    // A change reaches all cores: every connection is a new one, wherever it lands.
    world.cluster.apply(&world.objects.replace("methods: [GET, POST", "methods: [PUT, POST")).await;
    let took = answers(&client, 403).await;
    eprintln!("a change was in force {took:?} after kubectl had ended");
    for _ in 0..16 {
        client.get("/up/x").await.assert_refused(403, "method_not_allowed");
    }

    // One that is broken denies what it granted, says why, and leaves the rest alone.
    let other = world.objects.split("---\n").find(|text| text.contains("kind: Grant")).unwrap().to_owned();
    let other = other.replace("checkout-up", "other").replace("ns/checkout", "ns/billing");
    world
        .cluster
        .apply(&format!(
            "{}\n---\n{other}",
            world.objects.replace("credential: up-key", "credential: nobody")
        ))
        .await;
    let accepted = world.condition(GRANT, "Accepted", "False").await;
    let message = accepted["message"].as_str().unwrap();
    assert!(message.starts_with("spec.credential: there is no Credential `egress/nobody`"), "{accepted}");
    world.condition(GRANT, "ResolvedRefs", "False").await;
    world.condition(GRANT, "Programmed", "False").await;
    assert_eq!(client.get("/up/x").await.status.as_u16(), 403);
    world.condition(&path("grants", "other"), "Programmed", "True").await;
    let billing = world.plan.prod.svid(&world.plan.sandbox, "spiffe://prod.acme/ns/billing/sa/web");
    let billing = Client::new(&world.plan.sandbox, gateway.address(), world.plan.pki.roots(), Some(billing));
    answers(&billing, 200).await;
    let events = "/apis/events.k8s.io/v1/namespaces/egress/events";
    let is_told = |event: &Value| {
        event["regarding"]["name"] == "checkout-up"
            && event["note"].as_str().is_some_and(|note| note.contains("nobody"))
    };
    let told = world
        .cluster
        .until(events, |list| list["items"].as_array().is_some_and(|it| it.iter().any(is_told)))
        .await;
    let event = told["items"].as_array().unwrap().iter().find(|event| is_told(event)).unwrap();
    assert_eq!((&event["type"], &event["reason"]), (&json!("Warning"), &json!("NotAccepted")));
    assert_eq!(gateway.metrics().sum("tollgate_kubernetes_objects_refused", &["resource=\"grants\""]), 1.0);

    // Mended, it serves; gone, it grants nothing.
    world.cluster.apply(&world.objects).await;
    answers(&client, 200).await;
    world.condition(GRANT, "Accepted", "True").await;
    world.cluster.kubectl(&["delete", "grant", "-n", EGRESS, "checkout-up"]).await;
    answers(&client, 403).await;
    client.get("/up/x").await.assert_refused(403, "no_grant");
    world.leave().await;
    drop(world.upstream);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_api_server_the_last_good_objects_serve_and_after_a_restart_the_persisted_ones() {
    needs!(Cluster::installed());
    let mut world = World::new(&rights()).await;
    let mut gateway = world.start().await;
    world.cluster.apply(&world.objects).await;
    let client = world.checkout(&gateway);
    answers(&client, 200).await;
    settled(&gateway).await;
    let generation = gateway.generation();

    world.cluster.stop_server();
    eventually("the watches notice", || !is_all_followed(&gateway)).await;
    for _ in 0..50 {
        client.get("/up/x").await.assert_status(200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (status, ready) = gateway.admin_get("/readyz");
    assert!(status == 200 && ready.contains("the API server cannot be watched"), "{status} {ready}");
    assert!(gateway.metrics().sum("tollgate_kubernetes_watch_errors_total", &[]) > 0.0);
    assert_eq!(gateway.generation(), generation);
    assert_eq!(said(&gateway, "the API server cannot be watched; what it said last serves"), 1);

    // A start without it serves what was persisted, and says how old that is.
    let home = gateway.home().to_owned();
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(home.join("data/objects.json")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    assert!(gateway.stop().success());
    gateway.restart().await;
    let client = world.checkout(&gateway);
    client.get("/up/x").await.assert_status(200);
    let (status, ready) = gateway.admin_get("/readyz");
    assert!(status == 200 && ready.contains("persisted objects serve"), "{status} {ready}");
    assert!(!gateway.snapshot()["persisted"].is_null());
    let age = gateway.metrics().sum("tollgate_kubernetes_persisted_age_seconds", &[]);
    assert!(age > 0.0 && age < 300.0, "{age}");

    // Back, it is followed again.
    world.cluster.start_server().await;
    world.cluster.kubectl(&["delete", "grant", "-n", EGRESS, "checkout-up"]).await;
    answers(&client, 403).await;
    eventually("the objects of the API server serve", || gateway.snapshot()["persisted"].is_null()).await;
    eventually("all watches are whole", || is_all_followed(&gateway)).await;

    // What is damaged is not read: it starts, and is not ready.
    world.cluster.stop_server();
    assert!(gateway.stop().success());
    let file = home.join("data/objects.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("\"kind\"", "\"kine\"", 1)).unwrap();
    gateway.launch().await;
    let (status, ready) = gateway.admin_get("/readyz");
    assert!(status == 503 && ready.contains("no configuration is loaded"), "{status} {ready}");
    world.checkout(&gateway).get("/up/x").await.assert_refused(503, "not_ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_writes_status_and_another_takes_over_when_it_ends() {
    needs!(Cluster::installed());
    let world = World::new(&rights()).await;
    let mut first = world.start().await;
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/{EGRESS}/leases/tollgate-controller");
    let holder = |lease: &Value| lease["spec"]["holderIdentity"].as_str().map(str::to_owned);
    let held = world.cluster.until(&lease, |lease| holder(lease).is_some()).await;
    let others = Sandbox::new();
    let mut second = world.launch(&others).await;
    second.ready().await;
    world.cluster.apply(&world.objects).await;
    world.condition(GRANT, "Programmed", "True").await;
    let leads = |gateway: &Gateway| gateway.metrics().sum("tollgate_kubernetes_leader", &[]);
    assert_eq!((leads(&first), leads(&second)), (1.0, 0.0));

    // It drains, and gives the Lease up at once.
    assert!(first.stop().success());
    let begun = Instant::now();
    world.cluster.until(&lease, |lease| holder(lease).is_some_and(|it| Some(it) != holder(&held))).await;
    eprintln!("taken over {:?} after the end of a drain", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(14), "the Lease was not given up");
    eventually("the second leads", || leads(&second) == 1.0).await;
    world.cluster.apply(&world.objects.replace("credential: up-key", "credential: nobody")).await;
    world.condition(GRANT, "Accepted", "False").await;

    // Killed, it gives nothing up: the Lease ends by itself.
    first.launch().await;
    first.ready().await;
    second.kill();
    world.cluster.apply(&world.objects).await;
    world.condition(GRANT, "Accepted", "True").await;
    assert_eq!(leads(&first), 1.0);
    world.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_is_named() {
    needs!(Cluster::installed());
    let mut less = rights();
    less[0]["resources"] =
        json!(["destinations", "secretstores", "credentials", "approvals", "sourcepools", "budgets"]);
    let world = World::new(&less).await;
    let mut gateway = world.launch(&world.plan.sandbox).await;
    let (status, ready) = gateway.admin_get("/readyz");
    let names = ready.contains("grants.tollgate.dev is forbidden") && ready.contains("needs list and watch");
    assert!(status == 503 && names, "{status} {ready}");
    world.checkout(&gateway).get("/up/x").await.assert_refused(503, "not_ready");

    // With it, it serves; without status' own, it serves and says that nothing is written.
    let mut no_status = rights();
    no_status.as_array_mut().unwrap().remove(1);
    world.cluster.allow(USER, None, &no_status).await;
    world.cluster.apply(&world.objects).await;
    gateway.ready().await;
    answers(&world.checkout(&gateway), 200).await;
    eventually("the log names what is missing", || {
        gateway.log().iter().any(|line| {
            field(line, "message") == "status cannot be written"
                && field(line, "error").as_str().is_some_and(|error| error.contains("cannot patch resource"))
        })
    })
    .await;
    assert!(world.cluster.get(GRANT).await["status"].is_null());
    world.cluster.allow(USER, None, &rights()).await;
    world.condition(GRANT, "Programmed", "True").await;
    world.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_namespace_uses_what_agrees_to_its_labels_and_loses_it_with_them() {
    needs!(Cluster::installed());
    let world = World::new(&rights()).await;
    world.cluster.namespace("shop", &json!({}), &[]).await;
    let gateway = world.start().await;
    let agrees = "  allowedNamespaces: {selector: {matchLabels: {tollgate: tenant}}}\n";
    let objects = ["  hosts: [", "  destinations: ["]
        .iter()
        .fold(world.objects.clone(), |text, member| text.replace(member, &format!("{agrees}{member}")));
    let grant = world.objects.split("---\n").find(|text| text.contains("kind: Grant")).unwrap();
    let grant = grant
        .replace("namespace: egress, name: checkout-up", "namespace: shop, name: shop-up")
        .replace("ns/checkout", "ns/shop")
        .replace("destination: up", "destination: egress/up")
        .replace("credential: up-key", "credential: egress/up-key");
    world.cluster.apply(&format!("{objects}---\n{grant}")).await;
    let of_shop = "/apis/tollgate.dev/v1alpha1/namespaces/shop/grants/shop-up";
    let resolved = world.condition(of_shop, "ResolvedRefs", "False").await;
    assert!(resolved["message"].as_str().unwrap().contains("allowedNamespaces"), "{resolved}");
    let identity = world.plan.prod.svid(&world.plan.sandbox, "spiffe://prod.acme/ns/shop/sa/web");
    let client = Client::new(&world.plan.sandbox, gateway.address(), world.plan.pki.roots(), Some(identity));
    answers(&client, 403).await;

    world.cluster.kubectl(&["label", "namespace", "shop", "tollgate=tenant"]).await;
    answers(&client, 200).await;
    world.condition(of_shop, "Programmed", "True").await;
    world.cluster.kubectl(&["label", "namespace", "shop", "tollgate-"]).await;
    answers(&client, 403).await;
    world.condition(of_shop, "Accepted", "False").await;
    world.leave().await;
}
