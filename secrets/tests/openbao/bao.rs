//! A development OpenBao of its own for one test, and a policy that reads from it.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::Handle;
use tollgate_policy::compile::{Environment, compile_files};
use tollgate_policy::dialect::Catalog;
use tollgate_policy::model::SourceFile;
use tollgate_policy::policy::{Credential, Policy};
use tollgate_secrets::Secrets;

const POLICY: &str = r#"
path "secret/data/llm/*" { capabilities = ["read"] }
path "kv1/llm/*" { capabilities = ["read"] }
path "database/creds/*" { capabilities = ["read"] }
path "sys/leases/revoke" { capabilities = ["update"] }
"#;

pub(crate) struct Bao {
    binary: String,
    directory: TempDir,
    port: u16,
    server: Child,
    unseal_key: String,
}

impl Bao {
    /// `None`, after saying so, where there is no OpenBao to start.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(|_| None)
    }

    /// The same with more of a configuration, which is made for the directory.
    pub(crate) fn start_with(more: impl FnOnce(&Path) -> Option<String>) -> Option<Self> {
        let Ok(binary) = std::env::var("TOLLGATE_TEST_BAO") else {
            eprintln!("skipped: TOLLGATE_TEST_BAO does not name an OpenBao binary");
            return None;
        };
        let directory = TempDir::new().unwrap();
        let port = free_port();
        let log = directory.path().join("log");
        let configuration = more(directory.path()).map(|text| {
            let file = directory.path().join("more.hcl");
            fs::write(&file, text).unwrap();
            format!("-config={}", file.display())
        });
        let server = Command::new(&binary)
            .args(["server", "-dev", "-dev-tls", "-dev-root-token-id=root", "-dev-no-store-token"])
            .arg(format!("-dev-tls-cert-dir={}", directory.path().display()))
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"))
            .args(configuration)
            .env("HOME", directory.path())
            .stdout(File::create(&log).unwrap())
            .stderr(File::create(directory.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let mut bao = Self { binary, directory, port, server, unseal_key: String::new() };
        let began = Instant::now();
        while bao.unseal_key.is_empty() {
            assert!(began.elapsed() < Duration::from_secs(20), "OpenBao did not start");
            std::thread::sleep(Duration::from_millis(50));
            let text = fs::read_to_string(&log).unwrap();
            if let Some(line) = text.lines().find_map(|line| line.strip_prefix("Unseal Key: ")) {
                bao.unseal_key = line.trim().to_owned();
            }
        }
        while !bao.try_run(&["status"]).status.success() {
            assert!(began.elapsed() < Duration::from_secs(20), "OpenBao does not answer");
        }
        Some(bao)
    }

    pub(crate) fn try_run(&self, arguments: &[&str]) -> Output {
        Command::new(&self.binary)
            .args(arguments)
            .env("HOME", self.directory.path())
            .env("BAO_ADDR", format!("https://127.0.0.1:{}", self.port))
            .env("BAO_CACERT", self.ca())
            .env("BAO_TOKEN", "root")
            .output()
            .unwrap()
    }

    pub(crate) fn stop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    /// What the `bao` command printed; panics where it failed.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = self.try_run(arguments);
        assert!(output.status.success(), "bao {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The policy `egress`, which may read below `secret/llm` and nothing else.
    pub(crate) fn policy(&self, namespace: &str) {
        let path = self.path("egress.hcl");
        fs::write(&path, POLICY).unwrap();
        self.run(&["policy", "write", namespace, "egress", path.to_str().unwrap()]);
    }

    /// Takes the right to one path out of the policy `egress`.
    pub(crate) fn deny(&self, path: &str) {
        let file =
            self.write("egress.hcl", &format!("{POLICY}path {path:?} {{ capabilities = [\"deny\"] }}\n"));
        self.run(&["policy", "write", "egress", file.to_str().unwrap()]);
    }

    /// An AppRole login with the policy `egress`, its ids in files.
    pub(crate) fn app_role(&self, options: &str) {
        self.policy("-namespace=");
        self.run(&["auth", "enable", "approle"]);
        let mut write = vec!["write", "auth/approle/role/tollgate", "token_policies=egress"];
        write.extend(options.split(' '));
        self.run(&write);
        let role_id = self.run(&["read", "-field=role_id", "auth/approle/role/tollgate/role-id"]);
        let secret_id =
            self.run(&["write", "-f", "-field=secret_id", "auth/approle/role/tollgate/secret-id"]);
        fs::write(self.path("role-id"), role_id + "\n").unwrap();
        fs::write(self.path("secret-id"), secret_id + "\n").unwrap();
    }

    /// Makes a namespace that has the policy `egress` and a key at `secret/llm/openai`; gives the option that names it.
    pub(crate) fn team(&self) -> &'static str {
        self.run(&["namespace", "create", "team"]);
        self.run(&["secrets", "enable", "-namespace=team", "-path=secret", "-version=2", "kv"]);
        self.run(&["kv", "put", "-namespace=team", "secret/llm/openai", "api_key=sk-team"]);
        self.policy("-namespace=team");
        "-namespace=team"
    }

    /// Writes a file that a login reads.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// How many tokens of AppRole logins are alive.
    pub(crate) fn app_role_tokens(&self) -> usize {
        let accessors = self.run(&["list", "auth/token/accessors"]);
        let logins = accessors.lines().skip(2).filter(|accessor| {
            let lookup = self.try_run(&["token", "lookup", "-accessor", accessor]);
            String::from_utf8_lossy(&lookup.stdout).contains("auth/approle/login")
        });
        logins.count()
    }

    pub(crate) fn token(&self, namespace: &str) -> String {
        self.run(&["token", "create", namespace, "-policy=egress", "-field=token"])
    }

    pub(crate) fn write_token(&self, token: &str) {
        fs::write(self.path("token"), token).unwrap();
    }

    /// Makes it answer under another address, which its certificate does not have.
    pub(crate) async fn forward(&self, address: &str) {
        let port = self.port;
        let listener = tokio::net::TcpListener::bind((address, port)).await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let mut to = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            }
        });
    }

    pub(crate) fn unseal_key(&self) -> &str {
        &self.unseal_key
    }

    fn ca(&self) -> PathBuf {
        self.path("vault-ca.pem")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Bao {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A policy with one vault store and credentials that read from it.
pub(crate) struct Setup {
    host: &'static str,
    port: u16,
    ca: Option<PathBuf>,
    namespace: Option<&'static str>,
    login: String,
    more: String,
    refresh: &'static str,
    max_stale: &'static str,
    dialable: bool,
    credentials: String,
}

impl Setup {
    /// With the AppRole login of [`Bao::app_role`], and a refresh every second.
    pub(crate) fn new(bao: &Bao) -> Self {
        Self {
            host: "127.0.0.1",
            port: bao.port,
            ca: Some(bao.ca()),
            namespace: None,
            login: app_role(&bao.path("role-id"), &bao.path("secret-id")),
            more: String::new(),
            refresh: "1s",
            max_stale: "1h",
            dialable: true,
            credentials: String::new(),
        }
    }

    pub(crate) fn refresh(self, refresh: &'static str) -> Self {
        Self { refresh, ..self }
    }

    pub(crate) fn max_stale(self, max_stale: &'static str) -> Self {
        Self { max_stale, ..self }
    }

    pub(crate) fn host(self, host: &'static str) -> Self {
        Self { host, ..self }
    }

    pub(crate) fn namespace(self, namespace: &'static str) -> Self {
        Self { namespace: Some(namespace), ..self }
    }

    /// With another login, as it is written.
    pub(crate) fn login(self, login: String) -> Self {
        Self { login, ..self }
    }

    /// With another field of the store, as it is written.
    pub(crate) fn with(self, field: &str) -> Self {
        Self { more: format!("{}\n    {field}", self.more), ..self }
    }

    /// At another listener, with the authorities that its certificate is of.
    pub(crate) fn listener(self, port: u16, ca: PathBuf) -> Self {
        Self { port, ca: Some(ca), ..self }
    }

    pub(crate) fn system_roots(self) -> Self {
        Self { ca: None, ..self }
    }

    pub(crate) fn nothing_dialable(self) -> Self {
        Self { dialable: false, ..self }
    }

    pub(crate) fn token_file(self, bao: &Bao) -> Self {
        Self { login: format!("{{token: {{file: {:?}}}}}", bao.path("token")), ..self }
    }

    pub(crate) fn secret_id(self, bao: &Bao, secret_id: &str) -> Self {
        let path = bao.path("other-secret-id");
        fs::write(&path, secret_id).unwrap();
        Self { login: app_role(&bao.path("role-id"), &path), ..self }
    }

    /// Adds a credential to the policy.
    pub(crate) fn credential(
        &mut self,
        name: &str,
        path: &str,
        field: &str,
        version: Option<u64>,
    ) -> Credential {
        let version = version.map(|version| format!(", version: {version}")).unwrap_or_default();
        let lives = format!("refresh: {}\n  maxStale: {}", self.refresh, self.max_stale);
        self.add(name, &format!("path: {path}, field: {field}{version}"), &lives)
    }

    /// Adds a credential that an engine makes.
    pub(crate) fn dynamic(&mut self, name: &str, path: &str, field: &str) -> Credential {
        self.add(name, &format!("path: {path}, field: {field}, dynamic: true"), "")
    }

    fn add(&mut self, name: &str, from: &str, lives: &str) -> Credential {
        self.credentials += &format!(
            "---
apiVersion: tollgate.dev/v1alpha1
kind: Credential
metadata: {{name: {name}}}
spec:
  destinations: [openai]
  from: {{store: bao, {from}}}
  inject: {{bearer: {{}}}}
  {lives}
"
        );
        let policy = self.policy();
        policy.credentials().find(|credential| credential.name.as_str() == name).unwrap().as_ref().clone()
    }

    /// An empty cache that serves the policy.
    pub(crate) fn secrets(&self) -> Arc<Secrets> {
        let dialable = self.dialable;
        let secrets = Secrets::new(Handle::current(), Arc::new(move |_| dialable));
        secrets.apply(&self.policy());
        secrets
    }

    pub(crate) fn policy(&self) -> Policy {
        let ca = self.ca.as_ref().map(|ca| format!("\n    caFile: {ca:?}")).unwrap_or_default();
        let namespace = self.namespace.map(|name| format!("\n    namespace: {name}")).unwrap_or_default();
        let Self { host, port, login, more, credentials, .. } = self;
        let text = format!(
            "apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {{name: openai}}
spec: {{hosts: [api.openai.com]}}
---
apiVersion: tollgate.dev/v1alpha1
kind: SecretStore
metadata: {{name: bao}}
spec:
  vault:
    address: https://{host}:{port}{ca}{namespace}{more}
    auth: {login}
{credentials}"
        );
        let source = |path: &str, text: String| SourceFile { path: path.into(), text };
        let dialect = "dialect: http\nprovider: any\nplain: true\nendpoints: []\n".to_owned();
        let catalog = Catalog::parse(&[source("http.yaml", dialect)]).unwrap();
        let environment = Environment { catalog: Arc::new(catalog), ..Environment::default() };
        compile_files(&[source("policy.yaml", text)], &environment).unwrap().policy
    }
}

fn app_role(role_id: &Path, secret_id: &Path) -> String {
    format!("{{appRole: {{roleIdFile: {role_id:?}, secretIdFile: {secret_id:?}}}}}")
}
