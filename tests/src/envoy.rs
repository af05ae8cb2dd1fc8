//! Envoy as a workload's side of an ambient mesh: what comes to its port leaves in a tunnel (HTTP/2 CONNECT over mutual TLS). As the
//! sidecar of a workload, whose plain HTTP it passes on over HTTP/2. As the edge of a provider. And as the proxy of a site, through which
//! destinations are reached.

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

/// Which Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The present one.
    Current,
    /// One that says of a stream that broke off behind it `NO_ERROR`, as all did before 1.37 (envoyproxy/envoy#36200).
    Old,
}

impl Release {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Old, Self::Current];

    /// Whether it is installed.
    pub fn installed(self) -> bool {
        self.binary().is_file()
    }

    fn binary(self) -> PathBuf {
        let part = match self {
            Self::Current => "envoy",
            Self::Old => "old-envoy",
        };
        parts_dir().join(part).join("envoy/_bin/envoy")
    }
}

/// One workload's way to the gateway.
pub struct Mesh<'a> {
    /// The gateway's listener.
    pub gateway: SocketAddr,
    /// The SPIFFE id that the gateway has to show.
    pub gateway_id: &'a str,
    /// The authorities of the mesh, in PEM.
    pub bundle: PathBuf,
    /// The workload's own SVID.
    pub workload: &'a Identity,
}

/// The way of one workload's tunnels.
pub struct Tunnel<'a> {
    /// To the gateway's listener for tunnels.
    pub mesh: Mesh<'a>,
    /// Where they lead.
    pub authority: &'a str,
}

impl Envoy {
    /// Whether Envoy is installed.
    pub fn installed() -> bool {
        Release::Current.installed()
    }

    /// Starts it, and waits until it listens.
    pub async fn start(sandbox: &Sandbox, tunnel: &Tunnel<'_>) -> Self {
        let address = local(free_port());
        Self::run(sandbox, Release::Current, address, &configuration(address, tunnel)).await
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
        Self::run(sandbox, Release::Current, address, &forward(address, tls, (allowed, towards), requests))
            .await
    }

    /// Starts it as the sidecar of a workload: HTTP/1.1 that comes to it goes on over HTTP/2, as the workload's.
    pub async fn sidecar(sandbox: &Sandbox, release: Release, towards: &Mesh<'_>) -> Self {
        let address = local(free_port());
        let chain = json!({"filters": [passing("HTTP1", "gateway")]});
        Self::run(sandbox, release, address, &serving(address, &chain, &gateway(towards))).await
    }

    /// Starts it as the edge of a provider: it ends TLS as `own`, and passes HTTP/2 on to `towards` in plain HTTP/1.1.
    pub async fn edge(sandbox: &Sandbox, release: Release, own: &Identity, towards: SocketAddr) -> Self {
        let address = local(free_port());
        let mut chain = json!({"filters": [passing("HTTP2", "towards")]});
        chain["transport_socket"] = ends_tls(own, &["h2"]);
        Self::run(sandbox, release, address, &serving(address, &chain, &plain(towards))).await
    }

    async fn run(sandbox: &Sandbox, release: Release, address: SocketAddr, configuration: &Value) -> Self {
        let name = format!("envoy-{}", address.port());
        let config = sandbox.input(&format!("{name}.json"), configuration.to_string());
        let mut command = Command::new(release.binary());
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

fn address(of: SocketAddr) -> Value {
    json!({"socket_address": {"address": of.ip().to_string(), "port_value": of.port()}})
}

const HTTP: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

fn file(path: &Path) -> Value {
    json!({"filename": path})
}

/// A configuration of one listener and one cluster.
fn serving(listens: SocketAddr, chain: &Value, cluster: &Value) -> Value {
    let listener = json!({"name": "listener", "address": address(listens), "filter_chains": [chain]});
    json!({"static_resources": {"listeners": [listener], "clusters": [cluster]}})
}

fn cluster(name: &str, towards: SocketAddr) -> Value {
    let endpoint = json!({"endpoint": {"address": address(towards)}});
    json!({
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    })
}

/// Where plain HTTP/1.1, or anything else, goes on.
fn plain(towards: SocketAddr) -> Value {
    cluster("towards", towards)
}

/// The gateway, over HTTP/2 and mutual TLS.
fn gateway(towards: &Mesh<'_>) -> Value {
    const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let certificate = json!({
        "certificate_chain": file(&towards.workload.cert), "private_key": file(&towards.workload.key),
    });
    let tls = json!({
        "@type": TLS,
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3",
            },
            "tls_certificates": [certificate],
            "validation_context": {
                "trusted_ca": file(&towards.bundle),
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": towards.gateway_id}}],
            },
        },
    });
    let mut cluster = cluster("gateway", towards.gateway);
    cluster["typed_extension_protocol_options"] = json!({OPTIONS: {
        "@type": format!("type.googleapis.com/{OPTIONS}"),
        "explicit_http_config": {"http2_protocol_options": {
            "connection_keepalive": {"interval": "10s", "timeout": "20s"},
        }},
    }});
    cluster["transport_socket"] = json!({"name": "tls", "typed_config": tls});
    cluster
}

fn ends_tls(own: &Identity, protocols: &[&str]) -> Value {
    const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    let certificate = json!({"certificate_chain": file(&own.cert), "private_key": file(&own.key)});
    let common = json!({"tls_certificates": [certificate], "alpn_protocols": protocols});
    json!({"name": "tls", "typed_config": {"@type": TLS, "common_tls_context": common}})
}

/// All requests of this version go to this cluster.
fn passing(version: &str, cluster: &str) -> Value {
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}});
    json!({"name": "http", "typed_config": {
        "@type": HTTP,
        "stat_prefix": "passing",
        "codec_type": version,
        "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    }})
}

fn forward(
    listens: SocketAddr,
    tls: Option<&Identity>,
    (allowed, towards): (&str, SocketAddr),
    requests: &Path,
) -> Value {
    const LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
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
        chain["transport_socket"] = ends_tls(own, &[]);
    }
    serving(listens, &chain, &plain(towards))
}

fn configuration(listens: SocketAddr, tunnel: &Tunnel<'_>) -> Value {
    const PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    let chain = json!({"filters": [{"name": "tcp", "typed_config": {
        "@type": PROXY,
        "stat_prefix": "tunnel",
        "cluster": "gateway",
        "tunneling_config": {"hostname": tunnel.authority},
    }}]});
    serving(listens, &chain, &gateway(&tunnel.mesh))
}
