//! Prometheus itself, scraping a gateway's admin port with its token.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::gateway::Gateway;
use crate::process::{Process, free_port, local};
use crate::sandbox::Sandbox;

/// A server that scrapes twice a second; it ends when dropped.
pub struct Prometheus {
    address: SocketAddr,
    _process: Process,
}

impl Prometheus {
    /// Whether server and `promtool` are installed.
    pub fn installed() -> bool {
        ["prometheus", "promtool"].iter().all(|program| {
            let mut command = Command::new(program);
            command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        })
    }

    /// Scrapes this gateway as the pod `tollgate-0`, as the chart's ServiceMonitor has it scraped.
    pub async fn scraping(sandbox: &Sandbox, gateway: &Gateway) -> Self {
        let token = sandbox.input("prometheus.token", gateway.token());
        let config = format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 500ms}}\n\
             scrape_configs:\n\
             - job_name: tollgate\n\
             \x20 honor_labels: true\n\
             \x20 authorization: {{credentials_file: {}}}\n\
             \x20 static_configs: [{{targets: [\"{}\"], labels: {{pod: tollgate-0, pod_namespace: tollgate}}}}]\n",
            token.display(),
            gateway.admin(),
        );
        let config = sandbox.input("prometheus.yaml", config);
        let address = local(free_port());
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", sandbox.providers().join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"));
        let mut process = Process::spawn("prometheus", &sandbox.providers(), &mut command);
        process.listening(address).await;
        Self { address, _process: process }
    }

    /// Where it answers queries.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
