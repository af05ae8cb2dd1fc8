//! Attack and conformance tools by others, against a TLS listener that asks for a client certificate: `h2spec`, `sslyze`, `slowhttptest`.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;
use tokio::process::Command;

use crate::ca::Identity;
use crate::sandbox::{Sandbox, parts_dir};

/// What `sslyze` is asked to look at.
const SCANS: [&str; 12] = [
    "sslv2",
    "sslv3",
    "tlsv1",
    "tlsv1_1",
    "tlsv1_2",
    "tlsv1_3",
    "heartbleed",
    "openssl_ccs",
    "compression",
    "reneg",
    "early_data",
    "robot",
];

/// Whether all of them are installed.
pub fn installed() -> bool {
    h2spec_binary().exists() && sslyze_binary().exists() && slow_binary().is_some()
}

/// What `h2spec` says in strict mode of requests for a path: how many cases it tried, and those that failed as `section: case` with what came.
pub async fn h2spec(
    sandbox: &Sandbox,
    port: u16,
    path: &str,
    shown: &Identity,
) -> (usize, Vec<(String, String)>) {
    let report = sandbox.providers().join(format!("h2spec-{port}.xml"));
    let mut command = Command::new(h2spec_binary());
    command.arg(port.to_string()).arg(path).args([&shown.cert, &shown.key, &report]).kill_on_drop(true);
    let output = command.output().await.expect("h2spec runs");
    let text = fs::read_to_string(&report)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let cases: Vec<&str> = text.split("<testcase ").skip(1).collect();
    let attribute = |case: &str, name: &str| {
        let from = case.split(&format!("{name}=\"")).nth(1).unwrap_or_default();
        from.split('"').next().unwrap_or_default().to_owned()
    };
    let is_bad = |case: &&&str| case.contains("<failure") || case.contains("<error");
    let failed = cases.iter().filter(is_bad).map(|case| {
        let text =
            case.split("</failure").next().and_then(|rest| rest.split("</error").next()).unwrap_or_default();
        let text = text.replace("&#xA;", "\n");
        let came = text.trim_end_matches("]]>").lines().next_back().unwrap_or_default();
        let (section, what) = (attribute(case, "package"), attribute(case, "classname"));
        (format!("{section}: {what}"), came.to_owned())
    });
    (cases.len(), failed.collect())
}

/// What `sslyze` says of a server, as JSON.
pub async fn sslyze(address: SocketAddr, shown: &Identity) -> Value {
    let mut command = Command::new(sslyze_binary());
    command.args(["--json_out=-", "--mozilla_config=disable"]).args(SCANS.map(|scan| format!("--{scan}")));
    command.arg("--cert").arg(&shown.cert).arg("--key").arg(&shown.key);
    command.arg(format!("localhost:{}", address.port())).kill_on_drop(true);
    let output = command.output().await.expect("sslyze runs");
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str::<Value>(&said)
        .unwrap_or_else(|error| panic!("{error}: {said}{}", String::from_utf8_lossy(&output.stderr)))["server_scan_results"]
        [0]
    .take()
}

/// Runs `slowhttptest` in the clear against what adds TLS; returns what it says at its end.
pub async fn slow(url: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(slow_binary().expect("it is installed"));
    command.args(arguments).args(["-u", url]).kill_on_drop(true);
    let output = command.output().await.expect("slowhttptest runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn h2spec_binary() -> PathBuf {
    parts_dir().join("h2spec")
}

fn sslyze_binary() -> PathBuf {
    parts_dir().join("sslyze/bin/sslyze")
}

fn slow_binary() -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').map(|folder| PathBuf::from(folder).join("slowhttptest")).find(|path| path.is_file())
}
