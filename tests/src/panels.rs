//! The chart's dashboard as people see it: its panels drawn into a picture, from a Prometheus that scrapes a gateway.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::prometheus::Prometheus;
use crate::python::finish;
use crate::sandbox::{Sandbox, parts_dir};

/// Names a folder where the pictures stay, so that somebody can look at them.
const KEEP: &str = "TOLLGATE_PICTURES";
const SCRIPT: &str = "panels.py";

/// Whether what draws is installed.
pub fn installed() -> bool {
    interpreter().exists() && parts_dir().join("plot.stamp").exists()
}

/// Draws the panels of the row for clusters, or of all others: how many they are (`count`), and what of them cannot be read (`wrong`).
pub async fn draw(sandbox: &Sandbox, prometheus: &Prometheus, is_cluster: bool) -> Value {
    let folder = std::env::var_os(KEEP).map_or_else(|| sandbox.inputs(), PathBuf::from);
    let name = if is_cluster { "cluster.png" } else { "dashboard.png" };
    let argument = json!({
        "cluster": is_cluster, "prometheus": prometheus.address().to_string(), "picture": folder.join(name),
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(SCRIPT);
    let mut command = Command::new(interpreter());
    command.arg(script).arg(argument.to_string()).env("MPLCONFIGDIR", sandbox.inputs());
    finish(sandbox, SCRIPT, command).await
}

fn interpreter() -> PathBuf {
    parts_dir().join("plot/bin/python")
}
