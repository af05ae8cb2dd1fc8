//! moto: AWS Secrets Manager, IAM and STS, which check signatures and rights when told to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::process::{Process, free_port, local};
use crate::sandbox::{Sandbox, parts_dir};

/// Where everything is.
pub const REGION: &str = "eu-central-1";

/// A running moto; it ends when dropped, and forgets everything.
pub struct Moto {
    address: SocketAddr,
    _process: Process,
}

/// The access key of a user, or of a session.
pub struct AccessKey {
    /// The public half.
    pub id: String,
    /// The secret half, which is searched for.
    pub secret: String,
    /// What makes it a session's; empty for a user.
    pub token: String,
}

impl AccessKey {
    fn new(sandbox: &Sandbox, xml: &str, token: String) -> Self {
        let key = Self { id: element(xml, "AccessKeyId"), secret: element(xml, "SecretAccessKey"), token };
        sandbox.needle(&key.secret);
        key
    }

    /// A profile of a credentials file.
    pub fn profile(&self, name: &str) -> String {
        format!("[{name}]\naws_access_key_id = {}\naws_secret_access_key = {}\n", self.id, self.secret)
    }
}

impl Moto {
    /// Whether moto is installed.
    pub fn installed() -> bool {
        binary().exists() && parts_dir().join("python.stamp").exists()
    }

    /// Starts a server that lets everybody do everything.
    pub async fn start(sandbox: &Sandbox) -> Self {
        let address = local(free_port());
        let mut command = Command::new(binary());
        command.args(["-H", "127.0.0.1", "-p", &address.port().to_string()]).env("HOME", sandbox.providers());
        // Buckets are named in paths.
        command.env("S3_IGNORE_SUBDOMAIN_BUCKETNAME", "true");
        let mut process = Process::spawn("moto", &sandbox.providers(), &mut command);
        process.listening(address).await;
        Self { address, _process: process }
    }

    /// Where it listens, with plain HTTP.
    pub const fn socket(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:port`, for every service.
    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on signatures and rights are checked, or no longer.
    pub fn enforce(&self, enforced: bool) {
        let free = if enforced { "0" } else { "1000000000" };
        self.post("/moto-api/reset-auth", "content-type: text/plain\r\n", free);
    }

    /// Makes a secret, whose first version has this id; returns its ARN.
    pub fn create(&self, name: &str, version: &str, value: &str) -> String {
        let made = self.secrets(
            "CreateSecret",
            &json!({"Name": name, "SecretString": value, "ClientRequestToken": version}),
        );
        made["ARN"].as_str().expect("an ARN").to_owned()
    }

    /// Makes a secret of bytes.
    pub fn create_bytes(&self, name: &str, bytes: &[u8]) {
        self.secrets("CreateSecret", &json!({"Name": name, "SecretBinary": STANDARD.encode(bytes)}));
    }

    /// A new version with only this stage.
    pub fn put(&self, name: &str, version: &str, value: &str, stage: &str) {
        let version = json!({"SecretId": name, "ClientRequestToken": version, "SecretString": value, "VersionStages": [stage]});
        self.secrets("PutSecretValue", &version);
    }

    /// Makes another version the current one.
    pub fn promote(&self, name: &str, from: &str, to: &str) {
        let stage = json!({"SecretId": name, "VersionStage": "AWSCURRENT", "RemoveFromVersionId": from, "MoveToVersionId": to});
        self.secrets("UpdateSecretVersionStage", &stage);
    }

    /// Marks a secret for deletion.
    pub fn delete(&self, name: &str) {
        self.secrets("DeleteSecret", &json!({"SecretId": name}));
    }

    /// Takes the mark away again.
    pub fn restore(&self, name: &str) {
        self.secrets("RestoreSecret", &json!({"SecretId": name}));
    }

    /// A user that may do these actions, and its key.
    pub fn user(&self, sandbox: &Sandbox, name: &str, actions: &[&str]) -> AccessKey {
        self.query("iam", &[("Action", "CreateUser"), ("UserName", name)]);
        let policy = rights(actions);
        let put = [
            ("Action", "PutUserPolicy"),
            ("UserName", name),
            ("PolicyName", "rights"),
            ("PolicyDocument", &policy),
        ];
        self.query("iam", &put);
        let made = self.query("iam", &[("Action", "CreateAccessKey"), ("UserName", name)]);
        AccessKey::new(sandbox, &made, String::new())
    }

    /// A session of a role.
    pub fn assume(&self, sandbox: &Sandbox, role: &str) -> AccessKey {
        let made =
            self.query("sts", &[("Action", "AssumeRole"), ("RoleArn", role), ("RoleSessionName", "agent")]);
        let token = element(&made, "SessionToken");
        sandbox.needle(&token);
        AccessKey::new(sandbox, &made, token)
    }

    /// Takes every right from a user.
    pub fn disarm(&self, user: &str) {
        let delete = [("Action", "DeleteUserPolicy"), ("UserName", user), ("PolicyName", "rights")];
        self.query("iam", &delete);
    }

    /// A role that everybody may assume, and that may do these actions; returns its ARN.
    pub fn role(&self, name: &str, actions: &[&str]) -> String {
        let anybody = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]});
        let anybody = anybody.to_string();
        let create = [("Action", "CreateRole"), ("RoleName", name), ("AssumeRolePolicyDocument", &*anybody)];
        let made = self.query("iam", &create);
        let policy = rights(actions);
        let put = [
            ("Action", "PutRolePolicy"),
            ("RoleName", name),
            ("PolicyName", "rights"),
            ("PolicyDocument", &policy),
        ];
        self.query("iam", &put);
        element(&made, "Arn")
    }

    fn secrets(&self, action: &str, parameters: &Value) -> Value {
        let headers = format!(
            "content-type: application/x-amz-json-1.1\r\nx-amz-target: secretsmanager.{action}\r\n{}",
            unsigned("secretsmanager")
        );
        let answer = self.post("/", &headers, &parameters.to_string());
        serde_json::from_str(&answer).expect("JSON")
    }

    fn query(&self, service: &str, parameters: &[(&str, &str)]) -> String {
        let headers = format!("content-type: application/x-www-form-urlencoded\r\n{}", unsigned(service));
        let version = if service == "sts" { "2011-06-15" } else { "2010-05-08" };
        let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let body: Vec<_> =
            parameters.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        self.post("/", &headers, &format!("Version={version}&{}", body.join("&")))
    }

    fn post(&self, path: &str, headers: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).expect("moto");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let head = format!(
            "POST {path} HTTP/1.0\r\nhost: {}\r\n{headers}content-length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).expect("moto");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer of moto");
        let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
        assert!(head.contains(" 200 "), "{path}: {answer}");
        body.to_owned()
    }
}

/// By its scope moto knows the service; it is no signature.
fn unsigned(service: &str) -> String {
    format!(
        "authorization: AWS4-HMAC-SHA256 Credential=ADMIN/20260101/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=0\r\n"
    )
}

fn rights(actions: &[&str]) -> String {
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]})
        .to_string()
}

fn element(xml: &str, name: &str) -> String {
    let (_, rest) = xml.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name} in {xml}"));
    rest.split('<').next().unwrap_or_default().to_owned()
}

fn binary() -> PathBuf {
    parts_dir().join("venv/bin/moto_server")
}
