//! The Gateway API: an XBackend that an HTTPRoute leads to is a Destination, and every object says what became of it.

mod ambient;
mod example;
mod forged;
mod holds;
mod lacking;
mod namespaces;
mod narrow;

use serde_json::{Value, json};
use tollgate_tests::cluster::Cluster;
use tollgate_tests::gateway::eventually;
use tollgate_tests::network::Dns;
use tollgate_tests::sandbox::parts_dir;
use tollgate_tests::{Client, Gateway, needs};

use super::{EGRESS, World, answers, condition, rights};

const GROUP: &str = "/apis/gateway.networking.k8s.io/v1";
const BACKENDS: &str = "/apis/gateway.networking.x-k8s.io/v1alpha1/namespaces";

/// Where callers find the gateway, as the settings of these scenarios say.
const ADDRESS: &str = "tollgate.egress.svc";

pub(super) const CLASS: &str = "---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: tollgate}
spec: {controllerName: tollgate.dev/egress}
";

const GATEWAY: &str = "---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {namespace: egress, name: egress}
spec:
  gatewayClassName: tollgate
  listeners:
    - name: mesh
      port: 443
      protocol: HTTPS
      tls: {options: {tollgate.dev/certificate: own}}
      allowedRoutes: {namespaces: {from: All}}
";

/// A backend of this namespace and name for the host.
fn backend(version: &str, id: (&str, &str), host: &str, port: u16) -> String {
    let (namespace, name) = id;
    let number = if version.starts_with("1.6") { "port" } else { "number" };
    format!(
        "---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {{namespace: {namespace}, name: {name}}}
spec:
  type: ExternalHostname
  externalHostname: {{hostname: {host}}}
  port: {{{number}: {port}}}
  protocol: HTTP11
  tls: {{mode: ServerOnly, validation: {{hostname: {host}, wellKnownCACertificates: System}}}}
"
    )
}

/// A route that leads to the backend of its name, for this host.
fn route((namespace, name): (&str, &str), host: &str) -> String {
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{namespace: {namespace}, name: {name}}}
spec:
  parentRefs: [{{namespace: egress, name: egress}}]
  hostnames: [{host}]
  rules: [{{backendRefs: [{{group: gateway.networking.x-k8s.io, kind: XBackend, name: {name}}}]}}]
"
    )
}

/// Every right that the gateway needs for this.
fn all_rights() -> Value {
    let kinds = ["gatewayclasses", "gateways", "httproutes"];
    let status = kinds.map(|kind| format!("{kind}/status"));
    let (stable, experimental) = ("gateway.networking.k8s.io", "gateway.networking.x-k8s.io");
    let mut rights = rights();
    rights.as_array_mut().unwrap().extend([
        json!({"apiGroups": [stable], "resources": kinds, "verbs": ["list", "watch"]}),
        json!({"apiGroups": [stable], "resources": status, "verbs": ["patch"]}),
        json!({"apiGroups": [experimental], "resources": ["xbackends"], "verbs": ["list", "watch"]}),
        json!({"apiGroups": [experimental], "resources": ["xbackends/status"], "verbs": ["patch"]}),
    ]);
    rights
}

/// Whether the part is installed.
pub(super) fn installed() -> bool {
    parts_dir().join("gateway-api.stamp").exists()
}

/// A cluster whose gateway serves the Gateway API, with a resolver that knows the upstream; without its definitions.
pub(super) struct Routed {
    pub(super) world: World,
    dns: Dns,
}

impl Routed {
    pub(super) async fn new() -> Self {
        let mut world = World::new(&all_rights()).await;
        let zone = json!({"api.up.test": {"A": ["127.0.0.1"]}, "plain.up.test": {"A": ["127.0.0.1"]}});
        let dns = Dns::start(&world.plan.sandbox, &zone).await;
        world.settings.egress = dns.egress();
        // An XBackend is verified by the system's authorities.
        let authorities = world.plan.pki.bundle().display().to_string();
        world.settings.environment.push(("SSL_CERT_FILE".to_owned(), authorities));
        world.members = ", gatewayApi: {addresses: [tollgate.egress.svc]}";
        Self { world, dns }
    }

    /// The Gateway API's own definitions.
    pub(super) async fn install(&self, version: &str) {
        let folder = parts_dir().join("gateway-api").join(version).display().to_string();
        self.world.cluster.kubectl(&["apply", "--server-side", "-f", &folder]).await;
        self.world
            .cluster
            .kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])
            .await;
    }

    /// The fixture's objects without the Destination.
    fn others(&self) -> String {
        let documents = self.world.objects.split("---\n");
        documents.filter(|text| !text.contains("kind: Destination")).collect::<Vec<_>>().join("---\n")
    }

    fn backend(&self, version: &str) -> String {
        backend(version, (EGRESS, "up"), "api.up.test", self.world.upstream.port())
    }

    /// Waits until the condition of a part of a status is so, and gives it.
    async fn told(&self, path: &str, pointer: &str, kind: &str, status: &str, reason: &str) -> Value {
        let part = |object: &Value| {
            let part = object.pointer(&format!("/status{pointer}")).cloned().unwrap_or_default();
            let found = condition(&json!({"status": part}), kind).clone();
            (found["observedGeneration"] == object["metadata"]["generation"]).then_some(found)
        };
        let wanted = |object: &Value| {
            part(object).is_some_and(|found| found["status"] == status && found["reason"] == reason)
        };
        part(&self.world.cluster.until(path, wanted).await).unwrap()
    }

    /// Leaves what the gateway wrote to the sweep.
    async fn leave(&self) {
        self.world.leave().await;
        let all = "gatewayclasses,gateways,httproutes,xbackends";
        let text = self.world.cluster.kubectl(&["get", all, "--all-namespaces", "--output=json"]).await;
        std::fs::write(self.world.plan.sandbox.sinks().join("gateway-api.json"), text).expect("the objects");
    }
}

fn of_route(namespace: &str, name: &str) -> String {
    format!("{GROUP}/namespaces/{namespace}/httproutes/{name}")
}

fn of_gateway(name: &str) -> String {
    format!("{GROUP}/namespaces/{EGRESS}/gateways/{name}")
}

fn of_backend(namespace: &str, name: &str) -> String {
    format!("{BACKENDS}/{namespace}/xbackends/{name}")
}

fn shop(routed: &Routed, gateway: &Gateway) -> Client {
    let plan = &routed.world.plan;
    let identity = plan.prod.svid(&plan.sandbox, "spiffe://prod.acme/ns/shop/sa/web");
    Client::new(&plan.sandbox, gateway.address(), plan.pki.roots(), Some(identity))
}

/// Waits until class, Gateway, listener, route and backend say that they serve.
async fn all_say_so(routed: &Routed) {
    let class = format!("{GROUP}/gatewayclasses/tollgate");
    routed.told(&class, "", "Accepted", "True", "Accepted").await;
    let features = routed.world.cluster.get(&class).await["status"]["supportedFeatures"].clone();
    assert!(features.as_array().unwrap().contains(&json!({"name": "HTTPRoute"})), "{features}");
    for kind in ["Accepted", "Programmed"] {
        routed.told(&of_gateway("egress"), "", kind, "True", kind).await;
    }
    for kind in ["Accepted", "Programmed", "ResolvedRefs"] {
        routed.told(&of_gateway("egress"), "/listeners/0", kind, "True", kind).await;
    }
    let status = routed.world.cluster.get(&of_gateway("egress")).await["status"].clone();
    assert_eq!(status["addresses"], json!([{"type": "Hostname", "value": ADDRESS}]));
    assert_eq!(status["listeners"][0]["attachedRoutes"], 1);
    let kinds = json!([{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}]);
    assert_eq!(status["listeners"][0]["supportedKinds"], kinds);
    for kind in ["Accepted", "ResolvedRefs"] {
        routed.told(&of_route(EGRESS, "up"), "/parents/0", kind, "True", kind).await;
    }
    routed.told(&of_backend(EGRESS, "up"), "/ancestors/0", "Accepted", "True", "Accepted").await;
    routed.world.condition(super::GRANT, "Programmed", "True").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_of_the_gateway_api_leads_a_call_with_its_key_and_every_object_says_so() {
    needs!(Cluster::installed(), installed());
    let mut routed = Routed::new().await;
    let mut gateway = routed.world.start().await;
    let client = routed.world.checkout(&gateway);
    routed.world.cluster.apply(&routed.others()).await;
    client.get("/up/x").await.assert_refused(421, "unknown_host");

    // The definitions come later than the gateway.
    routed.install("1.7.0").await;
    let objects =
        format!("{CLASS}{GATEWAY}{}{}", routed.backend("1.7"), route((EGRESS, "up"), "api.up.test"));
    routed.world.cluster.apply(&objects).await;
    answers(&client, 200).await;
    let seen = routed.world.upstream.seen().pop().unwrap();
    assert_eq!(seen.header("authorization"), format!("Bearer {}", routed.world.plan.key));
    // By the host of the route, too.
    client.naming("api.up.test").get("/x").await.assert_status(200);

    all_say_so(&routed).await;

    // Said once, nothing is written again.
    let versions = async || {
        let paths = [
            format!("{GROUP}/gatewayclasses/tollgate"),
            of_gateway("egress"),
            of_route(EGRESS, "up"),
            of_backend(EGRESS, "up"),
        ];
        let mut versions = Vec::new();
        for path in paths {
            versions.push(routed.world.cluster.get(&path).await["metadata"]["resourceVersion"].clone());
        }
        versions
    };
    let before = versions().await;
    routed.world.cluster.apply(&routed.others().replace("methods: [GET, POST", "methods: [PUT, POST")).await;
    answers(&client, 403).await;
    routed.world.cluster.apply(&routed.others()).await;
    answers(&client, 200).await;
    assert_eq!(versions().await, before);

    // Without the API server it is translated from what was persisted.
    let file = gateway.home().join("data/objects.json");
    eventually("the last change is persisted", || {
        std::fs::read_to_string(&file).is_ok_and(|text| text.contains("GET") && text.contains("HTTPRoute"))
    })
    .await;
    routed.world.cluster.stop_server();
    assert!(gateway.stop().success());
    gateway.restart().await;
    routed.world.checkout(&gateway).get("/up/x").await.assert_status(200);
    routed.world.cluster.start_server().await;

    // What is taken away serves no longer, and the status says so.
    let client = routed.world.checkout(&gateway);
    routed.world.cluster.kubectl(&["delete", "httproute", "-n", EGRESS, "up"]).await;
    // Nothing falls past what is not routed any more.
    answers(&client, 403).await;
    client.get("/up/x").await.assert_refused(403, "broken_configuration");
    // It keeps its host, which another route may lead to.
    let accepted =
        routed.told(&of_backend(EGRESS, "up"), "/ancestors/0", "Accepted", "False", "Invalid").await;
    assert_eq!(accepted["message"], "no accepted route leads to it");
    let has_none = |gateway: &Value| gateway["status"]["listeners"][0]["attachedRoutes"] == 0;
    routed.world.cluster.until(&of_gateway("egress"), has_none).await;
    routed.world.condition(super::GRANT, "Programmed", "False").await;
    routed.world.cluster.apply(&objects).await;
    answers(&client, 200).await;
    routed.world.cluster.kubectl(&["delete", "gateway", "-n", EGRESS, "egress"]).await;
    answers(&client, 403).await;
    routed.leave().await;
}

/// Routes that are refused.
async fn routes_say_why(routed: &Routed) {
    // Routes: one that would say what grants say, one to another namespace's backend, one that no listener takes.
    let methods = route((EGRESS, "methods"), "api.up.test")
        .replace("name: methods}]", "name: up}]")
        .replace("rules: [{backendRefs", "rules: [{matches: [{method: GET}], backendRefs");
    let foreign = route(("shop", "foreign"), "api.up.test")
        .replace("name: foreign}]}", "name: up, namespace: egress}]}");
    let nowhere = route(("shop", "nowhere"), "api.up.test")
        .replace("name: egress}]", "name: egress, sectionName: other}]");
    routed.world.cluster.apply(&format!("{methods}{foreign}{nowhere}")).await;
    let path = of_route(EGRESS, "methods");
    routed.told(&path, "/parents/0", "Accepted", "False", "UnsupportedValue").await;
    let path = of_route("shop", "foreign");
    routed.told(&path, "/parents/0", "ResolvedRefs", "False", "RefNotPermitted").await;
    let path = of_route("shop", "nowhere");
    routed.told(&path, "/parents/0", "Accepted", "False", "NoMatchingParent").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_the_gateway_api_that_is_broken_denies_itself_and_says_why() {
    needs!(Cluster::installed(), installed());
    let routed = Routed::new().await;
    routed.install("1.7.0").await;
    let objects = format!(
        "{CLASS}{GATEWAY}{}{}{}",
        routed.backend("1.7"),
        route((EGRESS, "up"), "api.up.test"),
        routed.others()
    );
    routed.world.cluster.apply(&objects).await;
    let gateway = routed.world.start().await;
    let client = routed.world.checkout(&gateway);
    answers(&client, 200).await;
    routed.world.cluster.namespace("shop", &json!({}), &[]).await;
    // Times of creation have seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;

    // A host that is another's, one in the clear, and one of the cluster itself that a key must not go to.
    let port = routed.world.upstream.port();
    let thief =
        backend("1.7", ("shop", "thief"), "api.up.test", port) + &route(("shop", "thief"), "api.up.test");
    let plain = backend("1.7", ("shop", "plain"), "plain.up.test", port);
    let plain = plain.split("  tls:").next().unwrap().to_owned() + &route(("shop", "plain"), "plain.up.test");
    routed.world.cluster.apply(&format!("{thief}{plain}")).await;
    let accepted =
        routed.told(&of_backend("shop", "thief"), "/ancestors/0", "Accepted", "False", "Invalid").await;
    let message = accepted["message"].as_str().unwrap();
    assert!(message.contains("spec.hosts[0]"), "{message}");
    routed.told(&of_backend("shop", "plain"), "/ancestors/0", "Accepted", "False", "UnsupportedValue").await;
    for name in ["thief", "plain"] {
        let path = of_route("shop", name);
        routed.told(&path, "/parents/0", "Accepted", "True", "Accepted").await;
        routed.told(&path, "/parents/0", "ResolvedRefs", "False", "BackendNotAccepted").await;
    }
    let events = "/apis/events.k8s.io/v1/namespaces/shop/events";
    let is_told = |event: &Value| {
        (&event["regarding"]["kind"], &event["regarding"]["name"]) == (&json!("XBackend"), &json!("thief"))
    };
    let has = |list: &Value| list["items"].as_array().is_some_and(|it| it.iter().any(is_told));
    routed.world.cluster.until(events, has).await;
    eventually("the metric counts them", || {
        gateway.metrics().sum("tollgate_kubernetes_objects_refused", &["resource=\"xbackends\""]) == 2.0
    })
    .await;

    routes_say_why(&routed).await;

    // What is another controller's is left alone.
    let other =
        CLASS.replace("name: tollgate", "name: other").replace("tollgate.dev/egress", "example.com/other");
    let of_other = GATEWAY
        .replace("name: egress}", "name: other}")
        .replace("gatewayClassName: tollgate", "gatewayClassName: other");
    routed.world.cluster.apply(&format!("{other}{of_other}")).await;
    // A change after them is told of, and nothing of them.
    routed.world.cluster.apply(&GATEWAY.replace("from: All", "from: Same")).await;
    let path = of_route("shop", "thief");
    routed.told(&path, "/parents/0", "Accepted", "False", "NotAllowedByListeners").await;
    for path in [format!("{GROUP}/gatewayclasses/other"), of_gateway("other")] {
        let object = routed.world.cluster.get(&path).await;
        let known = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        assert!(known.iter().all(|it| it["status"] == "Unknown"), "{object}");
        assert!(object["metadata"]["managedFields"].to_string().find("\"tollgate\"").is_none(), "{object}");
    }
    answers(&client, 200).await;
    assert!(routed.dns.asked("A plain.up.test") == 0);
    routed.leave().await;
}
