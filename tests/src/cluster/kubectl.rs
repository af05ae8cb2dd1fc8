//! kubectl, as people run it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::sandbox::{Sandbox, parts_dir};

pub(super) fn installed() -> bool {
    program().is_file()
}

/// Standard output, or what it said where it failed.
pub(super) async fn run(
    sandbox: &Sandbox,
    kubeconfig: &Path,
    arguments: &[&str],
    input: &str,
) -> Result<String, String> {
    let mut child = Command::new(program())
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(arguments)
        // What it learns of an API server is kept there.
        .env("HOME", sandbox.providers())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("kubectl is installed");
    let mut stdin = child.stdin.take().expect("standard input");
    stdin.write_all(input.as_bytes()).await.expect("kubectl reads");
    drop(stdin);
    let output = child.wait_with_output().await.expect("kubectl ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

pub(super) fn program() -> PathBuf {
    parts_dir().join("kubectl/bin/kubectl")
}
