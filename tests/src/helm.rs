//! Helm's own engine, Kubernetes' schemas and those of other projects: scripts of `tests/clients` in an environment of their own.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::process::Command;

use crate::python::finish;
use crate::sandbox::{Sandbox, parts_dir};

/// Whether the part is installed, with the definitions of other projects' resources.
pub fn installed() -> bool {
    program("python").exists() && ["helm", "definitions"].iter().all(|part| stamp(part).exists())
}

/// The folder of the definitions.
pub fn definitions() -> PathBuf {
    parts_dir().join("definitions")
}

/// Runs `tests/clients/<script>` with a JSON object as its one argument and returns the JSON object that it prints last.
pub async fn run(sandbox: &Sandbox, script: &str, argument: &Value) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    let mut command = Command::new(program("python"));
    command.arg(path).arg(argument.to_string());
    finish(sandbox, script, command).await
}

/// A program of the environment.
pub fn program(name: &str) -> PathBuf {
    parts_dir().join("helm/bin").join(name)
}

fn stamp(part: &str) -> PathBuf {
    parts_dir().join(format!("{part}.stamp"))
}
