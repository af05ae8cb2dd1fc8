//! What the status of an XBackend says that it holds is the gateway's alone to write, whatever rights an app has on it.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tollgate_tests::cluster::{Cluster, Told, Verb};
use tollgate_tests::needs;

use super::super::hosts::{ACCOUNT, policy};
use super::super::{APP, EGRESS, lease_rights};
use super::{CLASS, GATEWAY, Routed, all_rights, backend, installed, of_backend, route};

const HAS_HOST: &str = "tollgate.dev/HasHost";
const OURS: &str = "tollgate.dev/egress";
const SAID: &str = "only the gateway writes the condition `tollgate.dev/HasHost`";

/// An app that may do everything with the XBackends of `shop`, in one version of the Gateway API.
struct App<'a> {
    routed: &'a Routed,
    token: String,
    version: &'static str,
    /// What a status calls its entries, and how one refers to its Gateway.
    words: (&'static str, &'static str),
}

impl App<'_> {
    async fn write(&self, verb: Verb, path: &str, body: &Value) -> Told {
        self.routed.world.cluster.call_with(&self.token, verb, path, body).await
    }

    async fn get(&self, name: &str) -> Value {
        self.routed.world.cluster.get(&of_backend("shop", name)).await
    }

    /// The entries of an object's status.
    async fn entries(&self, name: &str) -> Vec<Value> {
        self.get(name).await["status"][self.words.0].as_array().cloned().unwrap_or_default()
    }

    /// An entry for the Gateway of this name, where a controller says that the host is held.
    fn entry(&self, gateway: &str, controller: &str, host: &str) -> Value {
        let mut condition = json!({
            "type": HAS_HOST, "status": "True", "reason": "Claimed", "message": host,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        condition["observedGeneration"] = 1.into();
        let reference = json!({
            "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": EGRESS, "name": gateway,
        });
        json!({self.words.1: reference, "controllerName": controller, "conditions": [condition]})
    }

    /// Writes these entries in every way that there is: what was answered.
    async fn tries(&self, name: &str, entries: &[Value]) -> Vec<(Verb, Told)> {
        let path = format!("{}/status", of_backend("shop", name));
        let status = json!({ self.words.0: entries });
        let mut replaced = self.get(name).await;
        replaced["status"] = status.clone();
        let applied = json!({
            "apiVersion": replaced["apiVersion"], "kind": "XBackend", "metadata": {"name": name}, "status": status,
        });
        let ways =
            [(Verb::Put, replaced), (Verb::Merge, json!({ "status": status })), (Verb::Apply, applied)];
        let mut told = Vec::new();
        for (verb, body) in ways {
            told.push((verb, self.write(verb, &path, &body).await));
        }
        told
    }

    /// Every way is refused, and changes nothing.
    async fn is_refused(&self, what: &str, name: &str, entries: &[Value]) {
        let before = self.entries(name).await;
        for (verb, told) in self.tries(name, entries).await {
            assert_eq!(told.status, StatusCode::FORBIDDEN, "{what}, {verb:?}: {}", told.body);
            assert!(told.body["message"].as_str().unwrap().contains(SAID), "{what}, {verb:?}: {}", told.body);
        }
        assert_eq!(self.entries(name).await, before, "{what}");
    }

    /// Every way is taken.
    async fn is_taken(&self, what: &str, name: &str, entries: &[Value]) {
        for (verb, told) in self.tries(name, entries).await {
            assert_eq!(told.status, StatusCode::OK, "{what}, {verb:?}: {}", told.body);
        }
    }

    /// Waits until the policy is in force, which takes a moment.
    async fn until_it_holds(&self) {
        let forged = [self.entry("egress", OURS, "forged.test")];
        let path = format!("{}/status", of_backend("shop", "unrouted"));
        let body = json!({"status": {self.words.0: forged}});
        for _ in 0..600 {
            if self.write(Verb::Merge, &path, &body).await.status == StatusCode::FORBIDDEN {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the policy never holds");
    }

    /// What says nothing yet is not to say anything.
    async fn nothing_is_made(&self) {
        let path = of_backend("shop", "made");
        let made = backend(self.version, ("shop", "made"), "llm.test", 443);
        self.routed.world.cluster.try_apply(APP, &made, &[]).await.expect("an XBackend of its own");
        assert!(self.get("made").await["status"].is_null());
        self.is_refused("the first entry", "made", &[self.entry("egress", OURS, "llm.test")]).await;
        // A status that comes with the object is not taken.
        let mut object = self.get("made").await;
        assert_eq!(self.write(Verb::Delete, &path, &Value::Null).await.status, 200);
        object["metadata"] = json!({"namespace": "shop", "name": "made"});
        object["status"] = json!({self.words.0: [self.entry("egress", OURS, "llm.test")]});
        let all = path.strip_suffix("/made").unwrap();
        self.write(Verb::Post, all, &object).await.expect("an XBackend with a status");
        assert!(self.get("made").await["status"].is_null());
        object = self.get("made").await;
        object["metadata"]["labels"] = json!({"written": "yes"});
        object["status"] = json!({self.words.0: [self.entry("egress", OURS, "llm.test")]});
        self.write(Verb::Put, &path, &object).await.expect("an XBackend with a status");
        let after = self.get("made").await;
        assert!(after["status"].is_null() && after["metadata"]["labels"]["written"] == "yes", "{after}");
    }

    /// What the gateway has said stays as it is.
    async fn nothing_is_changed(&self) {
        let entries = self.entries("saas").await;
        let [ours] = entries.as_slice() else { panic!("{entries:?}") };
        let at = ours["conditions"].as_array().unwrap().iter().position(|it| it["type"] == HAS_HOST).unwrap();
        let changed = |change: &dyn Fn(&mut Value)| {
            let mut entry = ours.clone();
            change(&mut entry);
            [entry]
        };
        let host = changed(&|entry| entry["conditions"][at]["message"] = "llm.test".into());
        self.is_refused("another host", "saas", &host).await;
        let denied = changed(&|entry| entry["conditions"][at]["status"] = "False".into());
        self.is_refused("it is not so", "saas", &denied).await;
        let removed = changed(&|entry| drop(entry["conditions"].as_array_mut().unwrap().remove(at)));
        self.is_refused("the condition removed", "saas", &removed).await;
        let bare = changed(&|entry| drop(entry.as_object_mut().unwrap().remove("conditions")));
        self.is_refused("all conditions removed", "saas", &bare).await;
        let other = changed(&|entry| entry["controllerName"] = "example.com/other".into());
        self.is_refused("given to another controller", "saas", &other).await;
        self.is_refused("all entries removed", "saas", &[]).await;
        let more = [ours.clone(), self.entry("other", OURS, "llm.test")];
        self.is_refused("a second entry", "saas", &more).await;
    }

    /// What others have to say they may.
    async fn others_have_their_say(&self) {
        let mut ours = self.entries("saas").await.remove(0);
        ours["conditions"].as_array_mut().unwrap().push(json!({
            "type": "example.com/Probed", "status": "True", "reason": "Probed", "message": "it answers",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }));
        // Of another controller the gateway believes nothing.
        let other = self.entry("egress", "example.com/other", "llm.test");
        self.is_taken("a condition beside", "saas", &[ours.clone()]).await;
        self.is_taken("an entry of another", "saas", &[ours.clone(), other.clone()]).await;
        self.is_taken("an entry before", "saas", &[other, ours]).await;
    }
}

/// In the namespace `shop` an app may do everything with XBackends, and one of `web` holds what it would like to have.
async fn forging(version: &'static str, words: (&'static str, &'static str)) {
    let routed = Routed::new().await;
    routed.install(version).await;
    let cluster = &routed.world.cluster;
    cluster.namespace("tollgate", &json!({}), &["tollgate"]).await;
    cluster.allow(ACCOUNT, None, &all_rights()).await;
    cluster.allow(ACCOUNT, Some(EGRESS), &lease_rights()).await;
    let kubeconfig = cluster.kubeconfig_of_account("tollgate", "tollgate").await;
    let mut gateway = routed.world.prepare_at(&routed.world.plan.sandbox, &kubeconfig);
    gateway.launch().await;
    gateway.ready().await;
    // As the chart has it, for the account that the gateway is.
    cluster.apply(&policy(ACCOUNT)).await;
    cluster.apply(&format!("{}{CLASS}{GATEWAY}", routed.world.objects)).await;
    for namespace in ["shop", "web"] {
        cluster.namespace(namespace, &json!({}), &[]).await;
    }
    let all = json!([{"apiGroups": ["gateway.networking.x-k8s.io"], "resources": ["*"], "verbs": ["*"]}]);
    cluster.allow(APP, Some("shop"), &all).await;
    cluster.apply(&backend(version, ("shop", "unrouted"), "unrouted.test", 443)).await;
    let app = App { routed: &routed, token: cluster.token(APP).to_owned(), version, words };
    app.until_it_holds().await;

    let (entry, claimed) = (format!("/{}/0", words.0), "Claimed");
    let saas = |namespace: &str, host: &str| {
        backend(version, (namespace, "saas"), host, 443) + &route((namespace, "saas"), host)
    };
    for (namespace, host) in [("web", "llm.test"), ("shop", "shop.test")] {
        cluster.apply(&saas(namespace, host)).await;
        routed.told(&of_backend(namespace, "saas"), &entry, HAS_HOST, "True", claimed).await;
    }
    app.nothing_is_made().await;
    app.nothing_is_changed().await;
    app.others_have_their_say().await;

    // The gateway writes as ever beside what others said, and the host is whose it was.
    cluster.apply(&saas("shop", "more.test")).await;
    let second = format!("/{}/1", words.0);
    let has = routed.told(&of_backend("shop", "saas"), &second, HAS_HOST, "True", claimed).await;
    assert_eq!(has["message"], "more.test");
    cluster.apply(&saas("shop", "llm.test")).await;
    routed.told(&of_backend("shop", "saas"), &second, "Accepted", "False", "Invalid").await;
    let has = routed.told(&of_backend("web", "saas"), &entry, HAS_HOST, "True", claimed).await;
    assert_eq!(has["message"], "llm.test");
    routed.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_with_every_right_on_xbackends_does_not_write_which_host_one_holds() {
    needs!(Cluster::installed(), installed());
    forging("1.7.0", ("ancestors", "ancestorRef")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_in_the_older_form_of_the_gateway_api() {
    needs!(Cluster::installed(), installed());
    forging("1.6.3", ("parents", "parentRef")).await;
}
