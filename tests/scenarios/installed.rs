//! The chart in a cluster: the real API server takes what it renders, Helm installs it, and the gateway gets its rights and no other.

use std::collections::BTreeSet;
use std::{fs, path};

use serde_json::{Value, json};
use tollgate_tests::cluster::{ADMIN, Cluster, Verb};
use tollgate_tests::rendered::Pod;
use tollgate_tests::{Gateway, Plan, Sandbox, helm, needs};

/// Value sets whose pods need a namespace that allows more than the Pod Security Standard `restricted`.
const PRIVILEGED: [&str; 1] = ["daemonset"];
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

async fn judge(sandbox: &Sandbox, argument: Value) -> Value {
    helm::run(sandbox, "chart.py", &argument).await
}

/// A cluster that knows the resources of other projects that the chart can make.
async fn cluster(sandbox: &Sandbox) -> Cluster {
    let cluster = Cluster::start(sandbox, &[]).await;
    for entry in fs::read_dir(helm::definitions()).expect("the definitions") {
        let path = entry.expect("an entry").path();
        let name = path.to_string_lossy().into_owned();
        if ["cert-manager.io_certificates", "servicemonitors", "prometheusrules"]
            .iter()
            .any(|part| name.contains(part))
        {
            cluster.kubectl(&["apply", "--server-side", "-f", &name]).await;
        }
    }
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]).await;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_every_value_set_and_pod_security_its_pods() {
    needs!(helm::installed(), Cluster::installed());
    let sandbox = Sandbox::new();
    let cluster = cluster(&sandbox).await;
    cluster.namespace("tollgate", &json!({ENFORCE: "restricted"}), &["tollgate", "egress", "existing"]).await;
    for namespace in ["shop", "research"] {
        cluster.namespace(namespace, &json!({}), &[]).await;
    }
    let sets = judge(&sandbox, json!({"job": "objects"})).await["sets"].clone();
    for (name, made) in sets.as_object().expect("sets") {
        let text = |part: &str| made[part].as_str().expect("YAML").to_owned();
        let flags = ["--dry-run=server", "--validate=strict"];
        let said = cluster.try_apply(ADMIN, &text("objects"), &flags).await;
        let said = said.unwrap_or_else(|said| panic!("{name}: {said}"));
        assert!(said.contains("created (server dry run)"), "{name}: {said}");
        let pods = cluster.try_apply(ADMIN, &text("pods"), &flags).await;
        if !PRIVILEGED.contains(&name.as_str()) {
            pods.unwrap_or_else(|said| panic!("{name}: {said}"));
            continue;
        }
        let said = pods.expect_err("it needs more");
        assert!(
            said.contains("violates PodSecurity \"restricted") && said.contains("host namespaces"),
            "{name}: {said}"
        );
        cluster
            .kubectl(&["label", "--overwrite", "namespace", "tollgate", &format!("{ENFORCE}=privileged")])
            .await;
        cluster.try_apply(ADMIN, &text("pods"), &flags).await.unwrap_or_else(|said| panic!("{name}: {said}"));
        cluster
            .kubectl(&["label", "--overwrite", "namespace", "tollgate", &format!("{ENFORCE}=restricted")])
            .await;
    }
}

/// What the account of the gateway in `home` may do in a namespace, one line for each right; without what every account may.
async fn rights(cluster: &Cluster, home: &str, namespace: &str) -> BTreeSet<String> {
    let token = cluster.token_request(home, "tollgate", &cluster.url(), 600).await;
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let told = cluster.call_with(&token, Verb::Post, path, &json!({"spec": {"namespace": namespace}})).await;
    let status = told.expect(path)["status"].clone();
    let of_all = ["authorization.k8s.io", "authentication.k8s.io"];
    let words = |rule: &Value, field: &str| -> Vec<String> {
        let all = rule[field].as_array().cloned().unwrap_or_default();
        all.iter().map(|word| word.as_str().expect("a word").to_owned()).collect()
    };
    let mut found = BTreeSet::new();
    for rule in status["resourceRules"].as_array().expect("rules") {
        for group in words(rule, "apiGroups").iter().filter(|group| !of_all.contains(&group.as_str())) {
            for resource in words(rule, "resources") {
                for verb in words(rule, "verbs") {
                    let names = words(rule, "resourceNames").join(",");
                    found.insert(format!("{verb} {group}/{resource} {names}").trim_end().to_owned());
                }
            }
        }
    }
    found
}

/// One line for each of these verbs.
fn lines(verbs: &[&str], resources: &[&str]) -> BTreeSet<String> {
    resources.iter().flat_map(|resource| verbs.iter().map(move |verb| format!("{verb} {resource}"))).collect()
}

fn together(parts: &[&BTreeSet<String>]) -> BTreeSet<String> {
    parts.iter().flat_map(|part| part.iter().cloned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_installs_the_chart_and_its_account_has_the_rights_that_the_readme_lists_and_no_other() {
    needs!(helm::installed(), Cluster::installed());
    let sandbox = Sandbox::new();
    let cluster = cluster(&sandbox).await;
    for namespace in ["shop", "vaults", "elsewhere"] {
        cluster.namespace(namespace, &json!({}), &[]).await;
    }
    let install = |home: &str, values: Value| json!({"job": "install", "kubeconfig": cluster.kubeconfig(ADMIN), "namespace": home, "values": values});
    let values =
        json!({"resources": {"kubernetes": {"secrets": [{"namespace": "vaults", "names": ["openai"]}]}}});
    let told = judge(&sandbox, install("tollgate", values)).await;
    let installed = told["installed"].as_str().expect("a manifest");
    assert!(installed.contains("kind: StatefulSet"), "{told}");
    assert_eq!(
        told["installed"], told["upgraded"],
        "an upgrade without a change keeps even the admin port's token"
    );

    let kinds =
        ["destinations", "secretstores", "credentials", "grants", "approvals", "sourcepools", "budgets"];
    let kinds: Vec<String> = kinds.iter().map(|kind| format!("tollgate.dev/{kind}")).collect();
    let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
    let status: Vec<String> = kinds.iter().map(|kind| format!("{kind}/status")).collect();
    let status: Vec<&str> = status.iter().map(String::as_str).collect();
    let everywhere = together(&[
        &lines(&["list", "watch"], &kinds),
        &lines(&["list", "watch"], &["gateway.networking.k8s.io/referencegrants", "/namespaces"]),
        &lines(&["patch"], &status),
        &lines(&["create"], &["events.k8s.io/events"]),
    ]);
    let lease = together(&[
        &lines(&["create"], &["coordination.k8s.io/leases"]),
        &lines(&["get", "update"], &["coordination.k8s.io/leases tollgate-controller"]),
    ]);
    let secrets = lines(&["get", "watch"], &["/secrets openai"]);
    assert_eq!(rights(&cluster, "tollgate", "elsewhere").await, everywhere);
    assert_eq!(rights(&cluster, "tollgate", "tollgate").await, together(&[&everywhere, &lease]));
    assert_eq!(rights(&cluster, "tollgate", "vaults").await, together(&[&everywhere, &secrets]));

    // A gateway that looks at one namespace has no right in any other.
    let values = json!({"resources": {"kubernetes": {"namespaces": ["shop"]}}});
    judge(&sandbox, install("egress", values)).await;
    let there: BTreeSet<_> =
        everywhere.into_iter().filter(|right| !right.ends_with(" /namespaces")).collect();
    assert_eq!(rights(&cluster, "egress", "shop").await, there);
    assert_eq!(rights(&cluster, "egress", "egress").await, lease);
    assert_eq!(rights(&cluster, "egress", "elsewhere").await, BTreeSet::new());

    // With the Gateway API it has these more. Classes are of no namespace.
    let values =
        json!({"resources": {"kubernetes": {"namespaces": ["vaults"], "gatewayApi": {"enabled": true}}}});
    judge(&sandbox, install("routes", values)).await;
    let stable = ["gateways", "httproutes"].map(|kind| format!("gateway.networking.k8s.io/{kind}"));
    let kinds = [&stable[0], &stable[1], "gateway.networking.x-k8s.io/xbackends"];
    let status = kinds.map(|kind| format!("{kind}/status"));
    let of_classes = together(&[
        &lines(&["list", "watch"], &["gateway.networking.k8s.io/gatewayclasses"]),
        &lines(&["patch"], &["gateway.networking.k8s.io/gatewayclasses/status"]),
    ]);
    let more = together(&[
        &there,
        &of_classes,
        &lines(&["list", "watch"], &kinds),
        &lines(&["patch"], &status.each_ref().map(String::as_str)),
    ]);
    assert_eq!(rights(&cluster, "routes", "vaults").await, more);
    assert_eq!(rights(&cluster, "routes", "elsewhere").await, of_classes);
}

/// The settings of each value set: `tollgate.yaml`, and files of resources.
async fn settings(sandbox: &Sandbox) -> Vec<(String, Vec<(String, String)>)> {
    let found = judge(sandbox, json!({"job": "settings"})).await["settings"].clone();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let sets = found.as_object().expect("sets").values().map(|files| {
        let files = files.as_object().expect("files");
        let is_resource = |name: &str| name.ends_with(".yaml") && name != "tollgate.yaml";
        let resources =
            files.iter().filter(|(name, _)| is_resource(name)).map(|(name, it)| (name.clone(), text(it)));
        (text(&files["tollgate.yaml"]), resources.collect())
    });
    sets.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_starts_on_the_settings_of_every_value_set() {
    needs!(helm::installed(), Cluster::installed());
    let plan = Plan::new();
    let cluster = cluster(&plan.sandbox).await;
    cluster.kubectl(&["apply", "--server-side", "-f", &crds()]).await;
    for namespace in ["shop", "research"] {
        cluster.namespace(namespace, &json!({}), &[]).await;
    }
    // One of the sets asks for the Gateway API.
    let values = json!({"resources": {"kubernetes": {"gatewayApi": {"enabled": true}}}});
    let install = json!({
        "job": "install", "kubeconfig": cluster.kubeconfig(ADMIN), "namespace": "tollgate", "values": values,
    });
    judge(&plan.sandbox, install).await;
    let kubeconfig = cluster.kubeconfig_of_account("tollgate", "tollgate").await;
    let token = cluster.token_request("tollgate", "tollgate", &cluster.url(), 3600).await;
    let pod = Pod {
        kubeconfig: &kubeconfig,
        api_server: &cluster.url(),
        api_ca: cluster.ca(),
        token: plan.sandbox.input("account.token", &token),
        bundle: plan.prod.bundle(),
    };
    for (text, resources) in settings(&plan.sandbox).await {
        let mut gateway = Gateway::prepare(&Sandbox::new(), &plan.settings);
        for (file, text) in &resources {
            gateway.write_resource(file, text);
        }
        pod.run_on(&gateway, &text);
        gateway.launch().await;
        gateway.ready().await;
        // It would wait before it closes its listeners, as in a pod.
        gateway.kill();
    }
}

/// The folder of the definitions of Tollgate's own resources.
fn crds() -> String {
    path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/tollgate/crds").display().to_string()
}
