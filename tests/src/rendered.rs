//! A gateway on settings that the chart renders: what a pod has as volumes and a service account stands in a scenario's folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::gateway::{Gateway, binary};

/// What a pod would find under the paths of its settings.
pub struct Pod<'a> {
    /// The kubeconfig of its service account.
    pub kubeconfig: &'a Path,
    /// The URL of the API server, which is also the issuer of tokens.
    pub api_server: &'a str,
    /// The CA certificate of the API server.
    pub api_ca: &'a Path,
    /// The token of its service account.
    pub token: PathBuf,
    /// The bundle of every trust domain.
    pub bundle: &'a Path,
}

impl Pod<'_> {
    /// Replaces the gateway's settings by these, as they would be in this pod but for ports, which are free ones. The first listener is
    /// called `mesh`.
    pub fn run_on(&self, gateway: &Gateway, settings: &str) {
        let authority = authority(gateway);
        if settings.contains("caKeyFile:") && !authority.exists() {
            let mut command = Command::new(binary());
            command.args(["ca", "init", "--host", "api.example.com", "--out"]).arg(&authority);
            assert!(command.output().expect("the binary runs").status.success());
        }
        let mut text = String::new();
        let mut is_named = false;
        for line in settings.lines() {
            let (begin, key, value) = parts(line);
            if key == "kubernetes" {
                text += &format!("{line}\n{begin}  kubeconfig: {}\n", self.kubeconfig.display());
                continue;
            }
            let changed = match key {
                "name" if !is_named && begin.len() <= 2 => {
                    is_named = true;
                    Some("mesh".to_owned())
                }
                _ => self.replaced(gateway, key, value),
            };
            text += &changed.map_or_else(|| line.to_owned(), |value| format!("{begin}{key}: {value}"));
            text.push('\n');
        }
        let ranges = "  privateRanges:\n";
        if text.contains(ranges) {
            text = text.replacen(ranges, "  privateRanges:\n  - 127.0.0.0/8\n", 1);
        } else {
            assert!(!text.contains("\negress:"), "{text}");
            text.push_str("egress: {privateRanges: [127.0.0.0/8]}\n");
        }
        gateway.write_settings(&text);
    }

    fn replaced(&self, gateway: &Gateway, key: &str, value: &str) -> Option<String> {
        let certificate = &gateway.settings().certificate;
        let path = |path: &Path| Some(path.display().to_string());
        match key {
            "certFile" => path(&certificate.cert),
            "keyFile" => path(&certificate.key),
            "bundleFile" => path(self.bundle),
            "caFile" => path(self.api_ca),
            "caCertFile" => path(&authority(gateway).join("ca.pem")),
            "caKeyFile" => path(&authority(gateway).join("ca.key")),
            "tokenFile" if value.starts_with("/var/run/") => path(&self.token),
            "tokenFile" => path(&gateway.inputs().join("admin.token")),
            "file" if value.starts_with("/etc/tollgate/telemetry/") => {
                path(&gateway.inputs().join("admin.token"))
            }
            "sealKeyFile" => path(&gateway.inputs().join("seal.key")),
            "dataDir" => Some("./data".to_owned()),
            "resources" if !value.is_empty() => Some("./resources".to_owned()),
            "address" if value.trim_matches('"').parse::<SocketAddr>().is_ok() => {
                Some("127.0.0.1:0".to_owned())
            }
            "issuer" if value.contains("kubernetes.default") => Some(self.api_server.to_owned()),
            "url" if value.contains("kubernetes.default") => {
                Some(format!("{}/openid/v1/jwks", self.api_server))
            }
            _ => None,
        }
    }
}

/// Where the authority of a proxy's tunnels is.
fn authority(gateway: &Gateway) -> PathBuf {
    gateway.inputs().join("interception")
}

/// Indentation with the dash of a list, key, value.
fn parts(line: &str) -> (&str, &str, &str) {
    let begin = line.len() - line.trim_start_matches([' ', '-']).len();
    let (begin, rest) = line.split_at(begin);
    match rest.split_once(':') {
        Some((key, value)) => (begin, key, value.trim()),
        None => (begin, "", rest),
    }
}
