//! Each right of the gateway by itself: without it something says which one is missing.

use serde_json::{Value, json};
use tollgate_tests::cluster::Cluster;
use tollgate_tests::gateway::{eventually, field};
use tollgate_tests::{Gateway, Sandbox, needs};

use super::{EGRESS, OWN_KINDS, USER, World, answers, rights};

/// All rights but to do one thing with one resource.
pub(super) fn without(verb: &str, resource: &str) -> Value {
    less(&rights(), verb, resource)
}

/// These rights but to do one thing with one resource.
pub(super) fn less(all: &Value, verb: &str, resource: &str) -> Value {
    let words = |rule: &Value, field: &str| rule[field].as_array().unwrap().clone();
    let mut rules = Vec::new();
    for rule in all.as_array().unwrap() {
        for one in words(rule, "resources") {
            let verbs = words(rule, "verbs").into_iter().filter(|it| !(one == resource && it == verb));
            let verbs: Vec<Value> = verbs.collect();
            rules.push(json!({"apiGroups": rule["apiGroups"], "resources": [one], "verbs": verbs}));
        }
    }
    rules.retain(|rule| rule["verbs"] != json!([]));
    rules.into()
}

/// Whether a line of the log has this error.
pub(super) fn has_error(gateway: &Gateway, error: &str) -> bool {
    let says = |line: &Value| field(line, "error").as_str().is_some_and(|it| it.contains(error));
    gateway.log().iter().any(says)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_to_read_is_needed_and_named_where_it_is_missing() {
    needs!(Cluster::installed());
    let world = World::new(&rights()).await;
    world.cluster.apply(&world.objects).await;
    for kind in OWN_KINDS.iter().chain(&["namespaces", "referencegrants"]) {
        for verb in ["list", "watch"] {
            // A cluster without the kind is no error, and this one has no ReferenceGrants.
            if *kind == "referencegrants" && verb == "watch" {
                continue;
            }
            world.cluster.allow(USER, None, &without(verb, kind)).await;
            let gateway = world.launch(&Sandbox::new()).await;
            let named = format!("cannot {verb} resource \"{kind}\"");
            let mut told = (0, String::new());
            eventually(&named, || {
                told = gateway.admin_get("/readyz");
                told.1.contains(&named)
            })
            .await;
            assert!(told.1.contains("the gateway's role needs list and watch on it"), "{}", told.1);
            // What cannot be listed may have said anything; what was listed serves.
            assert_eq!(told.0 == 503, verb == "list", "{told:?}");
        }
    }
    world.cluster.allow(USER, None, &rights()).await;
    let gateway = world.start().await;
    answers(&world.checkout(&gateway), 200).await;
    world.all_programmed().await;
    world.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_to_write_is_named_where_it_is_missing_and_calls_need_none_of_them() {
    needs!(Cluster::installed());
    let world = World::new(&rights()).await;
    let more = "---
apiVersion: tollgate.dev/v1alpha1
kind: Budget
metadata: {namespace: egress, name: team}
spec: {appliesTo: All, limits: [{requests: 1000, per: day}]}
---
apiVersion: tollgate.dev/v1alpha1
kind: SourcePool
metadata: {namespace: egress, name: pool}
spec: {addresses: [127.0.0.1]}
---
apiVersion: tollgate.dev/v1alpha1
kind: Approval
metadata: {namespace: egress, name: approval}
spec:
  grant: checkout-up
  hash: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
";
    // Its status cannot be written, and then of one that is refused no Event.
    world.cluster.apply(&format!("{}{more}", world.objects)).await;
    let mut none = rights();
    none.as_array_mut().unwrap().retain(|rule| rule["verbs"] == json!(["list", "watch"]));
    world.cluster.allow(USER, None, &none).await;
    let mut gateway = world.start().await;
    answers(&world.checkout(&gateway), 200).await;
    for kind in OWN_KINDS {
        let named = format!("cannot patch resource \"{kind}/status\"");
        eventually(&named, || has_error(&gateway, &named)).await;
    }
    world.cluster.allow(USER, None, &without("create", "events")).await;
    let broken = world.objects.replace("credential: up-key", "credential: nobody");
    world.cluster.apply(&broken).await;
    let named = "cannot create resource \"events\"";
    eventually(named, || has_error(&gateway, named)).await;
    world.cluster.apply(&world.objects).await;
    world.cluster.allow(USER, None, &rights()).await;
    world.all_programmed().await;

    // Without the Lease nobody writes.
    for verb in ["get", "create", "update"] {
        assert!(gateway.stop().success());
        world.cluster.kubectl(&["delete", "lease", "-n", EGRESS, "--all"]).await;
        let others = ["get", "create", "update"].into_iter().filter(|it| *it != verb);
        let verbs: Vec<&str> = others.collect();
        let lease = json!([{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs}]);
        world.cluster.allow(USER, Some(EGRESS), &lease).await;
        gateway.restart().await;
        answers(&world.checkout(&gateway), 200).await;
        let named = format!("cannot {verb} resource \"leases\"");
        eventually(&named, || has_error(&gateway, &named)).await;
    }
    world.leave().await;
}
