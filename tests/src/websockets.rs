//! WebSocket as Python's `websockets` speaks it, on both sides of the gateway: a script of `tests/clients` in an environment of its own.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::ca::Identity;
use crate::client::Client;
use crate::process::{Process, free_port, local};
use crate::python::{argument, finish};
use crate::sandbox::{Sandbox, parts_dir};

/// Whether the part is installed.
pub fn installed() -> bool {
    interpreter().exists() && parts_dir().join("websockets.stamp").exists()
}

/// Runs `tests/clients/websocket.py` as [`crate::python::run`] does.
pub async fn run(sandbox: &Sandbox, client: &Client, ca: &Path, call: &Value) -> Value {
    run_script(sandbox, "websocket.py", client, ca, call).await
}

/// The same for another script.
pub async fn run_script(sandbox: &Sandbox, script: &str, client: &Client, ca: &Path, call: &Value) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    let mut command = Command::new(interpreter());
    command.arg(path).arg(argument(client, ca, call).to_string());
    finish(sandbox, script, command).await
}

fn interpreter() -> PathBuf {
    parts_dir().join("websockets/bin/python")
}

/// A provider that sends back what it is sent, and says first what it was shown at `/key`; it ends when dropped.
pub struct Provider {
    port: u16,
    process: Process,
}

impl Provider {
    /// Starts `tests/clients/websocket_provider.py`.
    pub async fn start(sandbox: &Sandbox, identity: &Identity) -> Self {
        let port = free_port();
        let argument = json!({"port": port, "cert": identity.cert, "key": identity.key});
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/websocket_provider.py");
        let mut command = std::process::Command::new(interpreter());
        command.arg(path).arg(argument.to_string());
        let mut process = Process::spawn("websocket-provider", &sandbox.providers(), &mut command);
        process.listening(local(port)).await;
        Self { port, process }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The fields of each handshake that arrived.
    pub fn seen(&self) -> Vec<String> {
        let fields = |line: &str| line.strip_prefix("handshake ").map(str::to_owned);
        self.process.stdout().lines().filter_map(fields).collect()
    }
}
