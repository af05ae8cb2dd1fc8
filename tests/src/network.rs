//! What lies between the gateway and a provider, written by others: a DNS server (dnslib) and an HTTP/2 server (python-h2), both of which
//! can be told to misbehave.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::ca::Identity;
use crate::process::{Process, free_port, local};
use crate::python;
use crate::sandbox::Sandbox;

/// A DNS server on loopback; it ends when dropped.
pub struct Dns {
    port: u16,
    zone: PathBuf,
    process: Process,
}

impl Dns {
    /// Starts a server that says what `zone` says; `tests/clients/dns_server.py` has its form.
    pub async fn start(sandbox: &Sandbox, zone: &Value) -> Self {
        let (port, zone) = (free_port(), sandbox.input("zone.json", zone.to_string()));
        let argument = json!({"port": port, "zone": zone});
        let mut process = python::start(sandbox, "dns", "dns_server.py", &argument);
        process.ready(|process| process.stdout().contains("listening").then_some(())).await;
        Self { port, zone, process }
    }

    /// The lines of `egress` in the settings that have the gateway ask it.
    pub fn egress(&self) -> String {
        format!("dns: {{servers: [\"127.0.0.1:{}\"]}}", self.port)
    }

    /// From now on it says this.
    pub fn now_says(&self, zone: &Value) {
        let staged = self.zone.with_extension("new");
        std::fs::write(&staged, zone.to_string())
            .and_then(|()| std::fs::rename(staged, &self.zone))
            .expect("zone file");
    }

    /// How often it was asked `question`, as in `A api.up.test`.
    pub fn asked(&self, question: &str) -> usize {
        self.process.stdout().lines().filter(|line| *line == question).count()
    }
}

/// An HTTP/2 provider on loopback; it ends when dropped.
pub struct Http2Provider {
    port: u16,
    process: Process,
}

impl Http2Provider {
    /// Starts one that misbehaves as `mode` says, `times` times; `tests/clients/h2_provider.py` has the modes.
    pub async fn start(sandbox: &Sandbox, identity: &Identity, mode: &str, times: usize) -> Self {
        let port = free_port();
        let argument =
            json!({"port": port, "cert": identity.cert, "key": identity.key, "mode": mode, "times": times});
        let mut process = python::start(sandbox, "h2-provider", "h2_provider.py", &argument);
        process.listening(local(port)).await;
        Self { port, process }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it saw of this kind: `connection`, `request` or `violation`.
    pub fn saw(&self, event: &str) -> Vec<Value> {
        let lines = self.process.stdout();
        let events = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|line| line["event"] == event).collect()
    }
}
