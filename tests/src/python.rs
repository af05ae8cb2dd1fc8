//! Callers written by others: the providers' own SDKs and Python's HTTP stacks, run as scripts of `tests/clients`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::client::Client;
use crate::process::Process;
use crate::sandbox::{Sandbox, parts_dir};

/// Whether the Python parts are installed.
pub fn installed() -> bool {
    interpreter().exists() && parts_dir().join("python.stamp").exists()
}

/// Runs `tests/clients/<script>` with a JSON object as its one argument and returns the JSON object that it prints last.
/// `argument` is given the gateway's port, the CA file and the caller's certificate and key.
pub async fn run(sandbox: &Sandbox, script: &str, client: &Client, ca: &Path, call: &Value) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    let mut command = Command::new(interpreter());
    command.arg(path).arg(argument(client, ca, call).to_string());
    finish(sandbox, script, command).await
}

/// The same for a script that calls nobody, with `argument` alone.
pub async fn run_alone(sandbox: &Sandbox, script: &str, argument: &Value) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    let mut command = Command::new(interpreter());
    command.arg(path).arg(argument.to_string());
    finish(sandbox, script, command).await
}

/// The one argument of a script: `call`, and where the gateway is and what it is shown.
pub(crate) fn argument(client: &Client, ca: &Path, call: &Value) -> Value {
    let mut full = json!({
        "authority": client.authority(),
        "ca": ca,
        "cert": client.identity().cert,
        "key": client.identity().key,
    });
    for (name, value) in call.as_object().expect("an object") {
        full[name] = value.clone();
    }
    full
}

/// Runs a script to its end and returns the JSON object that it prints last.
pub(crate) async fn finish(sandbox: &Sandbox, script: &str, mut command: Command) -> Value {
    command.stdin(Stdio::null()).kill_on_drop(true);
    for variable in [
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_FILE",
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "HTTPS_PROXY",
        "https_proxy",
    ] {
        command.env_remove(variable);
    }
    let output = command.output().await.expect("a script runs");
    sandbox.answered(&output.stdout);
    sandbox.answered(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    last.unwrap_or_else(|| {
        panic!("{script}: {}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr))
    })
}

/// Starts `tests/clients/<script>` as a part that goes on, with a JSON object as its one argument.
pub fn start(sandbox: &Sandbox, name: &str, script: &str, argument: &Value) -> Process {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    let mut command = std::process::Command::new(interpreter());
    Process::spawn(name, &sandbox.providers(), command.arg(path).arg(argument.to_string()))
}

fn interpreter() -> PathBuf {
    parts_dir().join("venv/bin/python")
}
