//! WebSocket as Python's `websockets` speaks it, on both sides of the gateway: a script of `tests/clients` in an environment of its own.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::process::Command;

use crate::client::Client;
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
