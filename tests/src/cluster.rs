//! A cluster's control plane: etcd and the real API server of Kubernetes, with RBAC. Nothing schedules or runs pods.
//!
//! [`Cluster::start`] makes an administrator and the further users that it is given, each with a token of its own and no
//! rights but those of [`Cluster::allow`]. Service accounts get theirs from [`Cluster::token_request`], signed with a key
//! that [`Cluster::rotate_service_account_key`] changes.

mod api;
mod credentials;
mod faulty;
mod kubectl;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::{Value, json};

use self::api::Api;
pub use self::api::{Told, Verb};
pub use self::credentials::ADMIN;
use self::credentials::{Credentials, SigningKeys};
pub use self::faulty::{Fault, FaultyServer};
use crate::process::{PATIENCE, Process, free_port, local, tail};
use crate::sandbox::{Sandbox, parts_dir, random};

/// etcd and an API server; both end when dropped, and what they hold goes with the scenario's folder.
pub struct Cluster {
    sandbox: Sandbox,
    folder: PathBuf,
    etcd_port: u16,
    api: Api,
    credentials: Credentials,
    keys: SigningKeys,
    server: Option<Process>,
    _etcd: Process,
}

impl Cluster {
    /// Whether the API server, etcd and kubectl are installed.
    pub fn installed() -> bool {
        api_server().is_file() && etcd().is_some() && kubectl::installed()
    }

    /// The kubectl of the parts.
    pub fn kubectl_program() -> PathBuf {
        kubectl::program()
    }

    /// Starts both and waits until the API server is ready, which takes about five seconds. `users` are known besides
    /// [`ADMIN`] and have no rights yet.
    pub async fn start(sandbox: &Sandbox, users: &[&str]) -> Self {
        let port = free_port();
        // A scenario may have several.
        let folder = sandbox.inputs().join(format!("cluster-{port}"));
        let credentials = Credentials::new(sandbox, &folder, port, users);
        let etcd_port = free_port();
        let etcd = start_etcd(sandbox, &folder, etcd_port).await;
        let api = Api::new(port, credentials.roots(), credentials.token(ADMIN));
        let keys = SigningKeys::new(&folder);
        let mut cluster = Self {
            sandbox: sandbox.clone(),
            folder,
            etcd_port,
            api,
            credentials,
            keys,
            server: None,
            _etcd: etcd,
        };
        cluster.start_server().await;
        cluster
    }

    /// `https://127.0.0.1:port`, which is also the issuer of its service accounts' tokens.
    pub fn url(&self) -> String {
        format!("https://{}", self.address())
    }

    /// Where the API server listens; the same after a restart.
    pub fn address(&self) -> SocketAddr {
        self.api.address()
    }

    /// The file with the CA certificate of the API server.
    pub fn ca(&self) -> &Path {
        self.credentials.ca()
    }

    /// The token of a user that was named when it was started, or of [`ADMIN`].
    pub fn token(&self, user: &str) -> &str {
        self.credentials.token(user)
    }

    /// The kubeconfig of a user that was named when it was started, or of [`ADMIN`].
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.credentials.kubeconfig(user)
    }

    /// A kubeconfig that logs in as a service account, with a token that runs for an hour.
    pub async fn kubeconfig_of_account(&self, namespace: &str, account: &str) -> PathBuf {
        let token = self.token_request(namespace, account, &self.url(), 3600).await;
        self.credentials.write_kubeconfig(&format!("{namespace}-{account}"), &token)
    }

    /// Ends the API server at once and leaves what is stored. Watches break off.
    pub fn stop_server(&mut self) {
        self.server = None;
    }

    /// Starts the API server again at the same address, after [`Self::stop_server`] or in place of the one that runs.
    pub async fn start_server(&mut self) {
        self.server = None;
        let mut command = Command::new(api_server());
        let port = self.address().port();
        command
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port))
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--authorization-mode=RBAC"])
            .arg(format!("--secure-port={port}"))
            .arg(format!("--cert-dir={}", self.folder.join("run").display()))
            .arg(format!("--service-account-issuer={}", self.url()))
            // No controller makes the default accounts that this plugin waits for.
            .args(["--service-cluster-ip-range=10.0.0.0/24", "--disable-admission-plugins=ServiceAccount"])
            .args(self.credentials.flags())
            .args(self.keys.flags())
            .env("HOME", self.sandbox.providers());
        let name = format!("kube-apiserver-{port}");
        let mut process = Process::spawn(&name, &self.sandbox.providers(), &mut command);
        process.listening(local(port)).await;
        while !self.api.is_ready().await {
            assert!(process.ended().is_none(), "{}", tail(&process.stderr()));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.server = Some(process);
    }

    /// Signs the tokens of service accounts with a new key from now on, by a restart. Tokens of the old key are still
    /// good if `keep_old`, as in a planned rotation.
    pub async fn rotate_service_account_key(&mut self, keep_old: bool) {
        self.keys.rotate(keep_old);
        self.start_server().await;
    }

    /// Runs kubectl as [`ADMIN`] and gives its standard output.
    ///
    /// # Panics
    ///
    /// Where it fails, with what it said.
    pub async fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(ADMIN, arguments)
            .await
            .unwrap_or_else(|said| panic!("kubectl {arguments:?}: {said}"))
    }

    /// Runs kubectl as a user: its standard output, or what it said when it failed.
    pub async fn try_kubectl(&self, user: &str, arguments: &[&str]) -> Result<String, String> {
        kubectl::run(&self.sandbox, &self.kubeconfig(user), arguments, "").await
    }

    /// `kubectl apply` of YAML documents as [`ADMIN`].
    ///
    /// # Panics
    ///
    /// Where one is refused, with what was said.
    pub async fn apply(&self, yaml: &str) -> String {
        self.try_apply(ADMIN, yaml, &[]).await.unwrap_or_else(|said| panic!("kubectl apply: {said}\n{yaml}"))
    }

    /// `kubectl apply` of YAML documents as a user, with further flags: its standard output, or what it said when it failed.
    pub async fn try_apply(&self, user: &str, yaml: &str, flags: &[&str]) -> Result<String, String> {
        let arguments = [&["apply", "-f", "-"], flags].concat();
        kubectl::run(&self.sandbox, &self.kubeconfig(user), &arguments, yaml).await
    }

    /// Asks the API itself as [`ADMIN`].
    pub async fn call(&self, verb: Verb, path: &str, body: &Value) -> Told {
        self.api.call(self.credentials.token(ADMIN), verb, path, body).await
    }

    /// Asks the API itself with a token.
    pub async fn call_with(&self, token: &str, verb: Verb, path: &str, body: &Value) -> Told {
        self.api.call(token, verb, path, body).await
    }

    /// What stands at a path of the API, as `/api/v1/namespaces/shop/secrets/key`; null where nothing does.
    pub async fn get(&self, path: &str) -> Value {
        let told = self.call(Verb::Get, path, &Value::Null).await;
        if told.status == StatusCode::NOT_FOUND { Value::Null } else { told.expect(path) }
    }

    /// Waits until what stands at a path is as wanted, and gives it.
    ///
    /// # Panics
    ///
    /// After a minute, with what stands there.
    pub async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.get(path).await;
            if wanted(&found) {
                return found;
            }
            assert!(Instant::now() < deadline, "{path}: {found:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a path is answered: a kind that was just defined gets 429 for a moment, because its storage is being made.
    ///
    /// # Panics
    ///
    /// After a minute.
    pub async fn served(&self, path: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.call(Verb::Get, path, &Value::Null).await.status != StatusCode::OK {
            assert!(Instant::now() < deadline, "{path} is not served");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Makes a namespace with labels, and in it the accounts.
    pub async fn namespace(&self, name: &str, labels: &Value, accounts: &[&str]) {
        let namespace = json!({"metadata": {"name": name, "labels": labels}});
        self.call(Verb::Post, "/api/v1/namespaces", &namespace).await.expect(name);
        for account in accounts {
            let path = format!("/api/v1/namespaces/{name}/serviceaccounts");
            self.call(Verb::Post, &path, &json!({"metadata": {"name": account}})).await.expect(account);
        }
    }

    /// A token of a service account, as a pod's volume would project it. The least that the API server grants is 600
    /// seconds.
    pub async fn token_request(
        &self,
        namespace: &str,
        account: &str,
        audience: &str,
        seconds: u64,
    ) -> String {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let asked = json!({"spec": {"audiences": [audience], "expirationSeconds": seconds}});
        let told = self.call(Verb::Post, &path, &asked).await.expect(&path);
        let token = told["status"]["token"].as_str().expect("a token").to_owned();
        self.sandbox.needle(&token);
        token
    }

    /// A token of the API server as it is an hour after its end.
    pub fn expired(&self, token: &str) -> String {
        let expired = self.keys.expired(token);
        self.sandbox.needle(&expired);
        expired
    }

    /// Writes a Secret with one key, anew if it is there. What it was is something to search for already.
    pub async fn secret(&self, namespace: &str, name: &str, key: &str, value: &str) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace}, "stringData": {key: value},
        });
        let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
        self.call(Verb::Apply, &path, &secret).await.expect(&path);
    }

    /// Lets a user do what `rules` say (of a Role, in JSON) and nothing else: in a namespace, or in all of them. A service
    /// account is the user `system:serviceaccount:NAMESPACE:NAME`. What it was allowed there before ends. It holds when this
    /// returns.
    pub async fn allow(&self, user: &str, namespace: Option<&str>, rules: &Value) {
        let (prefix, place) = match namespace {
            Some(namespace) => ("", format!("namespaces/{namespace}/")),
            None => ("Cluster", String::new()),
        };
        let plural = prefix.to_lowercase();
        // A right that only this version of the role gives: it shows when the API server goes by it.
        let mark = format!("mark-{:x}", random());
        let mut rules = rules.as_array().expect("rules are a list").clone();
        rules.push(json!({
            "apiGroups": ["tests"], "resources": ["marks"], "resourceNames": [mark], "verbs": ["get"],
        }));
        let (group, version) = ("rbac.authorization.k8s.io", "rbac.authorization.k8s.io/v1");
        let role = json!({
            "apiVersion": version, "kind": format!("{prefix}Role"), "metadata": {"name": user}, "rules": rules,
        });
        let binding = json!({
            "apiVersion": version, "kind": format!("{prefix}RoleBinding"), "metadata": {"name": user},
            "roleRef": {"apiGroup": group, "kind": format!("{prefix}Role"), "name": user},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        });
        for (resource, object) in [("roles", role), ("rolebindings", binding)] {
            let path = format!("/apis/{version}/{place}{plural}{resource}/{user}");
            self.call(Verb::Apply, &path, &object).await.expect(&path);
        }
        let mut asked = json!({"group": "tests", "resource": "marks", "name": mark, "verb": "get"});
        if let Some(namespace) = namespace {
            asked["namespace"] = namespace.into();
        }
        let review = json!({"spec": {"user": user, "resourceAttributes": asked}});
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        while self.call(Verb::Post, path, &review).await.expect(path)["status"]["allowed"] != true {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn start_etcd(sandbox: &Sandbox, folder: &Path, port: u16) -> Process {
    let (clients, peers) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", free_port()));
    let mut command = Command::new(etcd().expect("etcd is installed"));
    command
        .arg(format!("--data-dir={}", folder.join("etcd").display()))
        .arg(format!("--listen-client-urls={clients}"))
        .arg(format!("--advertise-client-urls={clients}"))
        .arg(format!("--listen-peer-urls={peers}"))
        .arg(format!("--initial-advertise-peer-urls={peers}"))
        .arg(format!("--initial-cluster=default={peers}"))
        .env("HOME", sandbox.providers());
    let mut process = Process::spawn(&format!("etcd-{port}"), &sandbox.providers(), &mut command);
    process.listening(local(port)).await;
    process
}

fn api_server() -> PathBuf {
    parts_dir().join("kube-apiserver")
}

fn etcd() -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').map(|folder| Path::new(folder).join("etcd")).find(|path| path.is_file())
}
