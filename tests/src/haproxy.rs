//! HAProxy as the TLS front, HTTP/1.1 and HTTP/2, of parts that speak plain HTTP only.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::ca::Identity;
use crate::process::{Process, free_port, local};
use crate::sandbox::Sandbox;

/// A TLS front; it ends when dropped.
pub struct Haproxy {
    address: SocketAddr,
    _process: Process,
}

impl Haproxy {
    /// Whether HAProxy is installed.
    pub fn installed() -> bool {
        binary().is_some()
    }

    /// Terminates TLS with `identity` for what listens at `backend`.
    pub async fn front(sandbox: &Sandbox, identity: &Identity, backend: SocketAddr) -> Self {
        let address = local(free_port());
        let config = format!(
            "global\n  maxconn 4000\n  nbthread 1\n\
             defaults\n  mode http\n  timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n\
             frontend tls\n  bind {address} ssl crt {} alpn h2,http/1.1\n  default_backend plain\n\
             backend plain\n  server one {backend}\n",
            identity.combined().display()
        );
        Self::start(sandbox, address, &config).await
    }

    /// Passes connections on to what listens at `backend`, each with a header of the PROXY protocol before it.
    pub async fn passing(sandbox: &Sandbox, backend: SocketAddr) -> Self {
        let address = local(free_port());
        let config = format!(
            "global\n  maxconn 4000\n  nbthread 1\n\
             defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n\
             listen passed\n  bind {address}\n  server one {backend} send-proxy-v2\n"
        );
        Self::start(sandbox, address, &config).await
    }

    /// Adds TLS with this certificate, and ALPN, before a local port, for programs that know no client certificates.
    pub async fn to_tls(sandbox: &Sandbox, shown: &Identity, port: u16, protocol: &str) -> Self {
        let address = local(free_port());
        let config = format!(
            "global\n  maxconn 4000\n  nbthread 1\n\
             defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n\
             listen plain\n  bind {address}\n  server one 127.0.0.1:{port} ssl verify none crt {} alpn {protocol}\n",
            shown.combined().display()
        );
        Self::start(sandbox, address, &config).await
    }

    /// Spreads connections over gateways, each of which is asked at its second address whether it is ready.
    pub async fn balancing(sandbox: &Sandbox, gateways: &[(SocketAddr, SocketAddr)]) -> Self {
        let address = local(free_port());
        let servers: String = gateways
            .iter()
            .enumerate()
            .map(|(number, (at, asked))| {
                format!(
                    "  server g{number} {at} check addr {} port {} inter 200ms fall 1 rise 1\n",
                    asked.ip(),
                    asked.port()
                )
            })
            .collect();
        let config = format!(
            "global\n  maxconn 4000\n  nbthread 1\n\
             defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n\
             listen all\n  bind {address}\n  balance roundrobin\n  option httpchk GET /readyz\n{servers}"
        );
        Self::start(sandbox, address, &config).await
    }

    async fn start(sandbox: &Sandbox, address: SocketAddr, config: &str) -> Self {
        let name = format!("haproxy-{}", address.port());
        let config = sandbox.input(&format!("{name}.cfg"), config);
        let mut command = Command::new(binary().expect("haproxy is installed"));
        let mut process =
            Process::spawn(&name, &sandbox.providers(), command.arg("-db").arg("-f").arg(config));
        process.listening(address).await;
        Self { address, _process: process }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

fn binary() -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]);
    folders.map(|folder| PathBuf::from(folder).join("haproxy")).find(|path| path.is_file())
}
