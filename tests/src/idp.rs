//! oauth2-mock-server over TLS: makes tokens, knows one client, and writes down who asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::ca::Identity;
use crate::gateway::eventually;
use crate::process::{Process, free_port, local};
use crate::sandbox::{Sandbox, parts_dir};

/// The host of its certificate.
pub const HOST: &str = "idp.test";

/// Path of its token endpoint.
pub const TOKEN: &str = "/token";

/// A token endpoint; it ends when dropped.
pub struct Idp {
    sandbox: Sandbox,
    server: Identity,
    port: u16,
    process: Option<Process>,
}

/// One token that was asked for.
pub struct Asked {
    /// `None`: the client was not known.
    pub token: Option<String>,
    /// When it ends, in milliseconds since 1970.
    pub ends: u64,
    /// What it was asked for.
    pub scope: String,
}

impl Idp {
    /// Whether it is installed.
    pub fn installed() -> bool {
        module().exists()
    }

    /// Starts it with a certificate for [`HOST`]. `client` is `{id, secret}` or `{id, publicKey, audience}`.
    pub async fn start(sandbox: &Sandbox, server: Identity, expires_in: u64, client: &Value) -> Self {
        let mut idp = Self { sandbox: sandbox.clone(), server, port: free_port(), process: None };
        fs::create_dir_all(idp.folder()).expect("idp folder");
        idp.tell(expires_in, client);
        idp.launch().await;
        idp
    }

    /// From now on tokens live for `expires_in` seconds, and `client` is the one that is known.
    pub fn tell(&self, expires_in: u64, client: &Value) {
        let told = json!({"expiresIn": expires_in, "client": client});
        let beside = self.folder().join("told.new");
        fs::write(&beside, told.to_string()).expect("told");
        fs::rename(beside, self.folder().join("told.json")).expect("told");
    }

    /// Its name, below which its configuration and its keys are.
    pub fn issuer(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// A token with these claims on top of its own (`iss`, `iat`, `nbf` and `exp`), signed with its newest key. `rotate`: with a new one.
    pub async fn mint(&self, claims: &Value, rotate: bool) -> String {
        let (asked, minted) = (self.folder().join("mint.json"), self.folder().join("minted.txt"));
        let beside = self.folder().join("mint.new");
        fs::write(&beside, json!({"claims": claims, "rotate": rotate}).to_string()).expect("what is asked");
        fs::rename(beside, asked).expect("what is asked");
        eventually("a token is made", || minted.exists()).await;
        let token = fs::read_to_string(&minted).expect("a token");
        fs::remove_file(minted).expect("a token");
        self.sandbox.needle(&token);
        self.sandbox.needle(token.rsplit('.').next().expect("a signature"));
        token
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it at the same port.
    pub async fn launch(&mut self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/idp.mjs");
        let mut command = Command::new("node");
        command.arg(script).arg(module()).arg(self.port.to_string());
        command.args([&self.server.key, &self.server.cert, &self.folder()]);
        let name = format!("idp-{}", self.port);
        let mut process = Process::spawn(&name, &self.sandbox.providers(), &mut command);
        process.listening(local(self.port)).await;
        self.process = Some(process);
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Every token that was asked for, oldest first; each is something to search for from then on.
    pub fn asked(&self) -> Vec<Asked> {
        let text = fs::read_to_string(self.folder().join("asked.jsonl")).unwrap_or_default();
        let asked = text.lines().map(|line| {
            let entry: Value = serde_json::from_str(line).expect("an entry");
            let token = entry["token"].as_str().map(str::to_owned);
            token.iter().for_each(|token| self.sandbox.needle(token));
            let scope = entry["scope"].as_str().unwrap_or_default().to_owned();
            Asked { token, ends: entry["ends"].as_u64().expect("an end"), scope }
        });
        asked.collect()
    }

    fn folder(&self) -> PathBuf {
        self.sandbox.providers().join(format!("idp-{}", self.port))
    }
}

fn module() -> PathBuf {
    parts_dir().join("idp/node_modules/oauth2-mock-server/dist/index.js")
}
