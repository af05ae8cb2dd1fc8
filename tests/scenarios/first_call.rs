//! The chart's README, followed as a new user would: block by block, with kubectl and Helm against the real API server. There are no
//! pods: what the gateway's would run runs here, on what Helm installed and with its account's rights, and so does the app's.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::process::Command;
use tollgate_tests::cluster::{ADMIN, Cluster, Verb};
use tollgate_tests::gateway::binary;
use tollgate_tests::prometheus::Prometheus;
use tollgate_tests::provider;
use tollgate_tests::rendered::Pod;
use tollgate_tests::{Gateway, Plan, Sandbox, SecretKind, Upstream, helm, needs, panels};

/// What stands for the kubelet's part of kubectl.
const KUBECTL: &str = r#"#!/bin/bash
words=" $* "
after() { while [ "$1" != -- ]; do shift; done; shift; "$@"; }
case "$words" in
  *" rollout status "*) echo "rolled out" ;;
  *" exec tollgate-0 -- "*) after "$@" ;;
  *" exec deploy/web -- sh -c "*) sh -c "${@: -1}" ;;
  *) exec REAL "$@" ;;
esac
"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The blocks of commands of the section.
fn blocks() -> Vec<String> {
    let readme = fs::read_to_string(root().join("charts/tollgate/README.md")).expect("the README");
    let section = readme.split_once("## From nothing to a first call\n").expect("the section").1;
    let section = section.split_once("\n## ").expect("another section").0;
    section.split("```\n").skip(1).step_by(2).map(str::to_owned).collect()
}

/// A shell of somebody who has the repository, kubectl and Helm.
struct Shell {
    folder: PathBuf,
    variables: Vec<(&'static str, String)>,
}

impl Shell {
    fn new(plan: &Plan, cluster: &Cluster) -> Self {
        let folder = plan.sandbox.inputs().join("user");
        fs::create_dir_all(folder.join("bin")).expect("a folder");
        for name in ["charts", "examples"] {
            symlink(root().join(name), folder.join(name)).expect("a link");
        }
        symlink(binary(), folder.join("bin/tollgate")).expect("a link");
        let kubectl = Cluster::kubectl_program().display().to_string();
        let client = root().join("tests/clients/helm.py");
        let helm =
            format!("#!/bin/sh\nexec {} {} \"$@\"\n", helm::program("python").display(), client.display());
        for (name, text) in [("kubectl", KUBECTL.replace("REAL", &kubectl)), ("helm", helm)] {
            let path = folder.join("bin").join(name);
            fs::write(&path, text).expect("a script");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a script");
        }
        let path = format!("{}:{}", folder.join("bin").display(), std::env::var("PATH").unwrap_or_default());
        let home = plan.sandbox.providers().display().to_string();
        let kubeconfig = cluster.kubeconfig(ADMIN).display().to_string();
        Self { folder, variables: vec![("PATH", path), ("HOME", home), ("KUBECONFIG", kubeconfig)] }
    }

    /// Runs a block to its end; what it said.
    async fn run(&self, block: &str) -> String {
        let mut command = Command::new("bash");
        command.args(["-exuo", "pipefail", "-c", block]).current_dir(&self.folder).stdin(Stdio::null());
        let output = command.envs(self.variables.clone()).output().await.expect("bash runs");
        let said = String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{block}\n{said}");
        said
    }
}

/// The Secret that cert-manager makes of the Certificate.
async fn issue(cluster: &Cluster, plan: &Plan) {
    let read = |path: &Path| fs::read_to_string(path).expect("a certificate");
    let own = plan.pki.server(&plan.sandbox, &["localhost"]);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tollgate-tls", "namespace": "tollgate"},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": read(&own.cert), "tls.key": read(&own.key), "ca.crt": read(plan.pki.bundle())},
    });
    cluster.apply(&secret.to_string()).await;
}

/// The gateway, on the ConfigMap that Helm installed and with the rights of its account.
async fn gateway(cluster: &Cluster, plan: &Plan) -> Gateway {
    let map = cluster.get("/api/v1/namespaces/tollgate/configmaps/tollgate").await;
    let text = map["data"]["tollgate.yaml"].as_str().expect("the settings").to_owned();
    let kubeconfig = cluster.kubeconfig_of_account("tollgate", "tollgate").await;
    let token = cluster.token_request("tollgate", "tollgate", &cluster.url(), 3600).await;
    let pod = Pod {
        kubeconfig: &kubeconfig,
        api_server: &cluster.url(),
        api_ca: cluster.ca(),
        token: plan.sandbox.input("account.token", &token),
        bundle: plan.prod.bundle(),
    };
    let mut gateway = Gateway::prepare(&plan.sandbox, &plan.settings);
    pod.run_on(&gateway, &text.replace("names:\n", "names:\n- localhost\n"));
    gateway.launch().await;
    gateway.ready().await;
    gateway
}

/// What a kubelet does with the pod of `helm test`: runs its command with its volumes, and says how it ended. What the command has said.
async fn run_test_pod(cluster: &Cluster, plan: &Plan, gateway: &Gateway, shell: &Shell) -> String {
    let path = "/api/v1/namespaces/tollgate/pods/tollgate-test";
    let pod = cluster.until(path, |pod| pod["metadata"]["uid"].is_string()).await;
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let container = &pod["spec"]["containers"][0];
    let mut script = text(&container["args"][0]);
    let volume = |name: &Value| {
        let all = pod["spec"]["volumes"].as_array().expect("volumes");
        all.iter().find(|volume| volume["name"] == *name).expect("its volume").clone()
    };
    for mount in container["volumeMounts"].as_array().expect("mounts") {
        let volume = volume(&mount["name"]);
        let place = shell.folder.join("pod").join(text(&mount["name"]));
        fs::create_dir_all(&place).expect("a folder");
        let token = &volume["projected"]["sources"][0]["serviceAccountToken"];
        if let (Some(audience), Some(seconds)) =
            (token["audience"].as_str(), token["expirationSeconds"].as_u64())
        {
            let account = text(&pod["spec"]["serviceAccountName"]);
            let token_of = cluster.token_request("tollgate", &account, audience, seconds).await;
            fs::write(place.join(text(&token["path"])), token_of).expect("a token");
        }
        if let Some(secret) = volume["secret"]["secretName"].as_str() {
            let found = cluster.get(&format!("/api/v1/namespaces/tollgate/secrets/{secret}")).await;
            for item in volume["secret"]["items"].as_array().expect("items") {
                let value = BASE64_STANDARD.decode(text(&found["data"][text(&item["key"])])).expect("base64");
                fs::write(place.join(text(&item["path"])), value).expect("a file");
            }
        }
        // Not what is below the folder of another mount.
        let at = format!("{}/", text(&mount["mountPath"]));
        script = script.replace(&format!(" {at}"), &format!(" {}/", place.display()));
    }
    let here = format!("connect-to = \"tollgate.tollgate.svc:8443:{}\"\n", gateway.address());
    fs::write(shell.folder.join(".curlrc"), here).expect("curl's settings");
    let mut command = Command::new("sh");
    command.args(["-euc", &script]).env("CURL_HOME", &shell.folder).stdin(Stdio::null());
    let output = command.output().await.expect("sh runs");
    let said = String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned();
    plan.sandbox.answered(said.as_bytes());
    let phase = if output.status.success() { "Succeeded" } else { "Failed" };
    let status = json!({"status": {"phase": phase}});
    cluster.call(Verb::Merge, &format!("{path}/status"), &status).await.expect(path);
    said
}

/// `helm test`, which ends well.
async fn helm_test(cluster: &Cluster, plan: &Plan, gateway: &Gateway, shell: &Shell, line: &str) {
    // The account that a cluster's controllers make in each namespace.
    let account = json!({"metadata": {"name": "default"}});
    let accounts = "/api/v1/namespaces/tollgate/serviceaccounts";
    cluster.call(Verb::Post, accounts, &account).await.expect(accounts);
    let (_, said) = tokio::join!(shell.run(line), run_test_pod(cluster, plan, gateway, shell));
    assert!(said.contains("status 421, reason unknown_host"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_user_comes_from_nothing_to_a_first_call_by_the_readme() {
    needs!(helm::installed(), Cluster::installed(), Prometheus::installed(), panels::installed());
    let mut plan = Plan::new();
    plan.settings.certificate = plan.pki.server(&plan.sandbox, &["localhost", "tollgate.tollgate.svc"]);
    let cluster = Cluster::start(&plan.sandbox, &[]).await;
    for definition in ["certificates", "clusterissuers"] {
        let file = format!("github.com_cert-manager_cert-manager_cert-manager.io_{definition}.yaml");
        let file = helm::definitions().join(file).display().to_string();
        cluster.kubectl(&["apply", "--server-side", "-f", &file]).await;
    }
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]).await;
    cluster.namespace("cert-manager", &json!({}), &[]).await;
    plan.sandbox.stands_for(&plan.key, &[SecretKind::Kubernetes, SecretKind::Bearer]);
    let [install, platform, grant, call, watch] = <[String; 5]>::try_from(blocks()).expect("five blocks");
    let mut shell = Shell::new(&plan, &cluster);

    let (install, test) = install.split_once("helm -n tollgate test").expect("the last line");
    shell.run(install).await;
    issue(&cluster, &plan).await;
    let gateway = gateway(&cluster, &plan).await;
    helm_test(&cluster, &plan, &gateway, &shell, &format!("helm -n tollgate test{test}")).await;

    shell.variables.push(("OPENAI_API_KEY", plan.key.clone()));
    shell.run(&platform).await;
    // The provider is on this machine; the rest is what the user wrote.
    let server = plan.pki.server(&plan.sandbox, &["api.openai.com"]);
    let upstream = Upstream::http(&server, &["http/1.1"], provider::openai(&plan.key, 9, 2)).await;
    let here = json!({"spec": {
        "port": upstream.port(), "addresses": ["127.0.0.1"], "tls": {"verify": {"caFile": plan.pki.bundle()}},
    }});
    cluster
        .kubectl(&[
            "patch",
            "-n",
            "tollgate",
            "destination",
            "openai",
            "--type=merge",
            "-p",
            &here.to_string(),
        ])
        .await;
    let said = shell.run(&grant).await;
    assert!(said.contains("tollgate/openai"), "{said}");
    let programmed = |grant: &Value| {
        let conditions = grant["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|it| it["type"] == "Programmed" && it["status"] == "True")
    };
    cluster.until("/apis/tollgate.dev/v1alpha1/namespaces/shop/grants/openai", programmed).await;

    // What the app's pod has.
    let token = cluster.token_request("shop", "web", "tollgate", 3600).await;
    let token = plan.sandbox.input("web.token", &token).display().to_string();
    shell.variables.push(("SSL_CERT_FILE", shell.folder.join("ca.crt").display().to_string()));
    shell
        .variables
        .push(("OPENAI_BASE_URL", format!("https://localhost:{}/openai/v1", gateway.address().port())));
    let said = shell.run(&call.replace("/var/run/secrets/tokens/tollgate", &token)).await;
    assert!(said.contains("chat.completion"), "{said}");
    assert_eq!(upstream.count(), 1);

    let config = gateway.home().join("tollgate.yaml").display().to_string();
    shell.variables.push(("TOLLGATE_CONFIG", config));
    let said = shell.run(&watch).await;
    assert!(said.contains("gpt-5-mini") && said.contains("shop/openai"), "{said}");
    let counted =
        |grant: &Value| grant["status"]["limits"][0]["spent"].as_str().is_some_and(|spent| spent != "0 USD");
    let path = "/apis/tollgate.dev/v1alpha1/namespaces/shop/grants/openai";
    cluster.until(path, counted).await;

    the_dashboard_shows_the_cluster(&plan.sandbox, &gateway).await;
    plan.sandbox.assert_swept();
}

/// Every query of the dashboard's row for clusters answers, and every panel can be read.
async fn the_dashboard_shows_the_cluster(sandbox: &Sandbox, gateway: &Gateway) {
    let prometheus = Prometheus::scraping(sandbox, gateway).await;
    let argument =
        json!({"job": "dashboard", "cluster": true, "prometheus": prometheus.address().to_string()});
    let found = helm::run(sandbox, "monitoring.py", &argument).await;
    assert_eq!(found["silent"], json!([]));
    assert!(found["count"].as_u64() > Some(3), "{found}");
    let drawn = panels::draw(sandbox, &prometheus, true).await;
    assert_eq!(drawn["wrong"], json!([]));
    assert!(drawn["count"].as_u64() > Some(3), "{drawn}");
}
