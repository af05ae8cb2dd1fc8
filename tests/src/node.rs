//! Callers on Node's own HTTP stack, run as scripts of `tests/clients`.

use std::path::Path;

use serde_json::Value;

use crate::client::Client;
use crate::python::{argument, finish};
use crate::sandbox::Sandbox;

/// Runs `tests/clients/<script>` as [`crate::python::run`] does.
pub async fn run(sandbox: &Sandbox, script: &str, client: &Client, ca: &Path, call: &Value) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    let mut command = tokio::process::Command::new("node");
    command.arg(path).arg(argument(client, ca, call).to_string());
    finish(sandbox, script, command).await
}
