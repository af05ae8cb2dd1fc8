//! Envoy as a workload's side of an ambient mesh: what comes to its port leaves in a tunnel (HTTP/2 CONNECT over mutual TLS). And as the
//! proxy of a site, through which destinations are reached.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::ca::Identity;
use crate::process::{Process, free_port, local};
use crate::sandbox::{Sandbox, parts_dir};

/// A running Envoy; it ends when dropped.
pub struct Envoy {
    address: SocketAddr,
    _process: Process,
}

/// One workload's way to the gateway.
pub struct Tunnel<'a> {
    /// The gateway's listener for tunnels.
    pub gateway: SocketAddr,
    /// The SPIFFE id that the gateway has to show.
    pub gateway_id: &'a str,
    /// The authorities of the mesh, in PEM.
    pub bundle: PathBuf,
    /// The workload's own SVID.
    pub workload: &'a Identity,
    /// Where its tunnels lead.
    pub authority: &'a str,
}

impl Envoy {
    /// Whether Envoy is installed.
    pub fn installed() -> bool {
        binary().is_file()
    }

    /// Starts it, and waits until it listens.
    pub async fn start(sandbox: &Sandbox, tunnel: &Tunnel<'_>) -> Self {
        let address = local(free_port());
        Self::run(sandbox, address, &configuration(address, tunnel)).await
    }

    /// Starts it as a site's own proxy, which connects those to `towards` who ask for `allowed`, and refuses all others. With `tls` that is
    /// spoken to it. Each request is a line of `requests`.
    pub async fn forward(
        sandbox: &Sandbox,
        tls: Option<&Identity>,
        (allowed, towards): (&str, SocketAddr),
        requests: &Path,
    ) -> Self {
        let address = local(free_port());
        Self::run(sandbox, address, &forward(address, tls, (allowed, towards), requests)).await
    }

    async fn run(sandbox: &Sandbox, address: SocketAddr, configuration: &Value) -> Self {
        let name = format!("envoy-{}", address.port());
        let config = sandbox.input(&format!("{name}.json"), configuration.to_string());
        let mut command = Command::new(binary());
        command.arg("-c").arg(config).args(["--concurrency", "1", "--disable-hot-restart", "-l", "warn"]);
        let mut process = Process::spawn(&name, &sandbox.providers(), &mut command);
        process.listening(address).await;
        Self { address, _process: process }
    }

    /// Where the workload's own bytes go in.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn binary() -> PathBuf {
    parts_dir().join("envoy/envoy/_bin/envoy")
}

fn address(of: SocketAddr) -> Value {
    json!({"socket_address": {"address": of.ip().to_string(), "port_value": of.port()}})
}

fn forward(
    listens: SocketAddr,
    tls: Option<&Identity>,
    (allowed, towards): (&str, SocketAddr),
    requests: &Path,
) -> Value {
    const HTTP: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    const LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
    const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    let connects = json!({"connect_matcher": {}});
    let passed =
        json!({"cluster": "towards", "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]});
    let line = "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT% %REQ(:METHOD)% %REQ(:AUTHORITY)% %REQ(USER-AGENT)% %REQ(AUTHORIZATION)% %RESPONSE_CODE%\n";
    let mut chain = json!({"filters": [{"name": "http", "typed_config": {
        "@type": HTTP,
        "stat_prefix": "proxy",
        "codec_type": "HTTP1",
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "access_log": [{"name": "log", "typed_config": {
            "@type": LOG, "path": requests, "log_format": {"text_format_source": {"inline_string": line}},
        }}],
        "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
        "route_config": {"virtual_hosts": [
            {"name": "allowed", "domains": [allowed], "routes": [{"match": connects, "route": passed}]},
            {"name": "others", "domains": ["*"], "routes": [{"match": connects, "direct_response": {"status": 403}}]},
        ]},
    }}]});
    if let Some(own) = tls {
        let file = |path: &PathBuf| json!({"filename": path});
        let certificate = json!({"certificate_chain": file(&own.cert), "private_key": file(&own.key)});
        let context = json!({"@type": TLS, "common_tls_context": {"tls_certificates": [certificate]}});
        chain["transport_socket"] = json!({"name": "tls", "typed_config": context});
    }
    let endpoint = json!({"endpoint": {"address": address(towards)}});
    json!({"static_resources": {
        "listeners": [{"name": "proxy", "address": address(listens), "filter_chains": [chain]}],
        "clusters": [{
            "name": "towards",
            "connect_timeout": "5s",
            "load_assignment": {"cluster_name": "towards", "endpoints": [{"lb_endpoints": [endpoint]}]},
        }],
    }})
}

fn configuration(listens: SocketAddr, tunnel: &Tunnel<'_>) -> Value {
    const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    const HTTP: &str = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    const PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    let file = |path: &PathBuf| json!({"filename": path});
    let tls = json!({
        "@type": TLS,
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3",
            },
            "tls_certificates": [{
                "certificate_chain": file(&tunnel.workload.cert), "private_key": file(&tunnel.workload.key),
            }],
            "validation_context": {
                "trusted_ca": file(&tunnel.bundle),
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": tunnel.gateway_id}}],
            },
        },
    });
    let endpoint = json!({"endpoint": {"address": address(tunnel.gateway)}});
    json!({"static_resources": {
        "listeners": [{
            "name": "workload",
            "address": address(listens),
            "filter_chains": [{"filters": [{"name": "tcp", "typed_config": {
                "@type": PROXY,
                "stat_prefix": "tunnel",
                "cluster": "gateway",
                "tunneling_config": {"hostname": tunnel.authority},
            }}]}],
        }],
        "clusters": [{
            "name": "gateway",
            "connect_timeout": "5s",
            "load_assignment": {"cluster_name": "gateway", "endpoints": [{"lb_endpoints": [endpoint]}]},
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": HTTP,
                "explicit_http_config": {"http2_protocol_options": {
                    "connection_keepalive": {"interval": "10s", "timeout": "20s"},
                }},
            }},
            "transport_socket": {"name": "tls", "typed_config": tls},
        }],
    }})
}
