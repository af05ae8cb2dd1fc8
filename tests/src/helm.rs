//! Helm's own engine, Kubernetes' schemas and those of other projects: scripts of `tests/clients` in an environment of their own.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::process::Command;

use crate::python::finish;
use crate::sandbox::{Sandbox, parts_dir};

/// Whether the part is installed, with the definitions of other projects' resources.
pub fn installed() -> bool {
    interpreter().exists() && ["helm", "definitions"].iter().all(|part| stamp(part).exists())
}

/// The folder of the definitions.
pub fn definitions() -> PathBuf {
    parts_dir().join("definitions")
}

/// Runs `tests/clients/<script>` with a JSON object as its one argument and returns the JSON object that it prints last.
pub async fn run(sandbox: &Sandbox, script: &str, argument: &Value) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    let mut command = Command::new(interpreter());
    command.arg(path).arg(argument.to_string());
    finish(sandbox, script, command).await
}

fn interpreter() -> PathBuf {
    parts_dir().join("helm/bin/python")
}

fn stamp(part: &str) -> PathBuf {
    parts_dir().join(format!("{part}.stamp"))
}
