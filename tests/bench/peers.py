"""Three proxies of the benchmark (haproxy.py has the fourth), set up to do the same: mutual TLS with a SPIFFE id checked, one key
injected, a request limit, a JSON access log, TLS to the upstream with its name verified. Tollgate also holds and settles a spend
limit and keeps its ledger."""

import json
from dataclasses import dataclass, field

import granted
import settings

# By this name the provider is what connections are passed through to.
PASSED = "passed.openai.test"
# How the ids of those begin that are served.
SERVED = "spiffe://prod.acme/ns/checkout/sa/"


@dataclass
class Door:
    """A listener for tunnels, and what the load has to be told to go through it."""

    port: int
    flags: dict


@dataclass
class Peer:
    """A running proxy."""

    name: str
    port: int
    pid: int
    authority: str
    server_name: str = "localhost"
    # The cases it takes part in; all where there are none.
    cases: tuple = ()
    doors: dict = field(default_factory=dict)
    # What the load has to be told for this proxy alone.
    flags: dict = field(default_factory=dict)


def doors(upstream, host, key, ports):
    """One for HTTP with upgrades, and both kinds of tunnels. In a tunnel that is passed through the caller shows its own key, in TLS of its own."""
    passed = {"connect": f"{PASSED}:{upstream}", "inside": host, "bearer": key}
    mesh, hbone, proxy = ports
    return {
        "websocket": Door(mesh, {"websocket": 1}),
        "hbone": Door(hbone, {"hbone": f"{host}:{upstream}"}),
        "connect": Door(proxy, passed),
    }


# Keys of a pool; all of them hold what the provider takes.
POOL = ("a", "b", "c", "d")


def tollgate(bench, work, upstream, host, key, port, wait_for, program, name="tollgate", cases=(), scrub="all", keys=("openai",), redis=None,
             grants=None, flags=None, cores=None):
    """With several `keys` the credential is a pool of them; with `redis`, the port of one, limits are shared there; `grants` stand in place
    of those of all cases. It serves on as many cores as the run says, or on the first `cores` of them."""
    home = work / name
    for folder in ("resources", "keys"):
        (home / folder).mkdir(parents=True)
    for path in keys:
        (home / "keys" / path).write_text(key)
    pool = ", ".join(f"{{alias: {path}, store: files, path: {path}}}" for path in keys)
    source = f"[{pool}]" if len(keys) > 1 else f"{{store: files, path: {keys[0]}}}"
    pki = bench.pki
    ports = port, bench.free_port(), bench.free_port()
    listeners = [
        f'{{name: mesh, address: "127.0.0.1:{port}", protocols: [h2, http/1.1]}}',
        f'{{name: tunnels, kind: hbone, address: "127.0.0.1:{ports[1]}"}}',
        f'{{name: proxy, kind: forward, address: "127.0.0.1:{ports[2]}"}}',
    ]
    shared = f', redis: {{addresses: ["127.0.0.1:{redis}"]}}' if redis else ""
    # The load has few callers: the default would refuse most of their connections.
    more = f"cores: {cores or bench.cores}\nlimits: {{connectionsPerCaller: 100000{shared}}}"
    (home / "tollgate.yaml").write_text(settings.text(pki, listeners, more=more))
    (home / "resources/bench.yaml").write_text(f"""
apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {{name: openai}}
spec: {{hosts: [{host}], port: {upstream}, addresses: [127.0.0.1], dialect: openai, scrub: {scrub}, http: 2,
  tls: {{verify: {{caFile: {pki}/pki.pem}}}}}}
---
apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {{name: passed}}
spec: {{hosts: [{PASSED}], port: {upstream}, protocol: tcp, addresses: [127.0.0.1]}}
---
apiVersion: tollgate.dev/v1alpha1
kind: SecretStore
metadata: {{name: files}}
spec: {{file: {{root: {home}/keys}}}}
---
apiVersion: tollgate.dev/v1alpha1
kind: Credential
metadata: {{name: openai-prod}}
spec: {{destinations: [openai], from: {source}, inject: {{bearer: {{}}}}}}
{grants or granted.everything()}""")
    child = bench.start(name, [program, "serve", "--config", "tollgate.yaml"], bench.first(cores or bench.cores), cwd=home)
    wait_for(port, child, name)
    return Peer(name, port, child.pid, f"{host}:{upstream}", cases=cases, doors=doors(upstream, host, key, ports), flags=flags or {})


def bare(bench, work, upstream, host, key, port, wait_for, program, name="bare", cases=()):
    pki = bench.pki
    child = bench.start(name, [
        program, "--listen", f"127.0.0.1:{port}", "--cert", pki / "gateway.crt", "--key",
        pki / "gateway.key", "--callers", pki / "prod.acme.pem", "--upstream", f"127.0.0.1:{upstream}", "--upstream-name", host,
        "--ca", pki / "pki.pem", "--bearer", key, "--log", work / f"{name}.access.log"], bench.own)
    wait_for(port, child, name)
    return Peer(name, port, child.pid, f"{host}:{upstream}", cases=cases)


def envoy(bench, work, upstream, host, key, port, wait_for, folder):
    config = work / "envoy.json"
    ports = port, bench.free_port(), bench.free_port()
    config.write_text(json.dumps(envoy_config(bench.pki, work, upstream, host, key, ports), indent=1))
    binary = next(path for path in folder.glob("**/envoy") if path.is_file())
    binary.chmod(0o755)
    command = [binary, "-c", config, "--concurrency", bench.cores, "--disable-hot-restart", "-l", "warn"]
    child = bench.start("envoy", command, bench.own)
    wait_for(port, child, "envoy")
    return Peer("envoy", port, child.pid, f"{host}:{upstream}", doors=doors(upstream, host, key, ports))


def envoy_config(pki, work, upstream, host, key, ports):
    port, hbone, connect = ports
    tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
    downstream = {
        "@type": tls + "DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificates": [pair(pki / "gateway.crt", pki / "gateway.key")],
            "validation_context": {
                "trusted_ca": {"filename": str(pki / "prod.acme.pem")},
                "match_typed_subject_alt_names": [
                    {"san_type": "URI", "matcher": {"prefix": SERVED}}
                ],
            },
        },
    }
    to_upstream = {
        "@type": tls + "UpstreamTlsContext",
        "sni": host,
        "common_tls_context": {
            "alpn_protocols": ["http/1.1"],
            "validation_context": {
                "trusted_ca": {"filename": str(pki / "pki.pem")},
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": host}}],
            },
        },
    }
    manager = {
        "@type": MANAGER,
        "stat_prefix": "mesh",
        "codec_type": "AUTO",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [limit(), injector(), router()],
        "route_config": {"virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "request_headers_to_remove": ["x-api-key", "cookie", "forwarded", "baggage", "x-forwarded-client-cert"],
            "routes": [{"match": {"prefix": "/"}, "route": {
                "cluster": "upstream", "timeout": "0s", "host_rewrite_literal": host}}],
        }]},
        "access_log": [access_log(work / "envoy-access.log")],
    }
    only_h2 = json.loads(json.dumps(downstream))
    only_h2["common_tls_context"]["alpn_protocols"] = ["h2"]
    only_h1 = json.loads(json.dumps(downstream))
    only_h1["common_tls_context"]["alpn_protocols"] = ["http/1.1"]
    log = [access_log(work / "envoy-tunnels.log")]
    return {
        # What comes in a tunnel of the mesh is read by a listener inside, as a waypoint does.
        "bootstrap_extensions": [{"name": "envoy.bootstrap.internal_listener", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"}}],
        "static_resources": {
            "secrets": [{"name": "key", "generic_secret": {"secret": {"inline_string": f"Bearer {key}"}}}],
            "listeners": [
                listener("mesh", port, manager, downstream),
                listener("tunnels", hbone, ends("inside", []), only_h2),
                listener("proxy", connect, ends("passed", log), only_h1),
                {"name": "inside", "internal_listener": {}, "filter_chains": [chain(manager)]},
            ],
            "clusters": [
                cluster("upstream", socket_address(upstream), to_upstream),
                cluster("passed", socket_address(upstream)),
                cluster("inside", {"envoy_internal_address": {"server_listener_name": "inside"}}),
            ],
        }
    }


MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def ends(cluster, log):
    """Ends CONNECT, and passes on what comes in it."""
    return {
        "@type": MANAGER,
        "stat_prefix": f"to-{cluster}",
        "codec_type": "AUTO",
        "http2_protocol_options": {"allow_connect": True},
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "http_filters": [limit(), router()],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{
            "match": {"connect_matcher": {}},
            "route": {"cluster": cluster, "timeout": "0s", "upgrade_configs": [
                {"upgrade_type": "CONNECT", "connect_config": {}}]},
        }]}]},
        "access_log": log,
    }


def listener(name, port, manager, tls):
    return {"name": name, "address": socket_address(port), "filter_chains": [chain(manager, tls)]}


def chain(manager, tls=None):
    secured = {"transport_socket": {"name": "tls", "typed_config": tls}} if tls else {}
    return {**secured, "filters": [{"name": "http", "typed_config": manager}]}


def cluster(name, address, tls=None):
    secured = {"transport_socket": {"name": "tls", "typed_config": tls}} if tls else {}
    return {
        "name": name, "type": "STATIC", "connect_timeout": "3s",
        "circuit_breakers": {"thresholds": [{"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 4096}]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]},
        **secured,
    }


def socket_address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def pair(cert, key):
    return {"certificate_chain": {"filename": str(cert)}, "private_key": {"filename": str(key)}}


def limit():
    bucket = {"max_tokens": 1000000, "tokens_per_fill": 1000000, "fill_interval": "1s"}
    everything = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {"name": "limit", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "limit", "token_bucket": bucket, "filter_enabled": everything, "filter_enforced": everything}}


def injector():
    generic = {
        "@type": "type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic",
        "credential": {"name": "key"},
        "header": "authorization",
    }
    return {"name": "inject", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
        "overwrite": True,
        "credential": {"name": "envoy.http.injected_credentials.generic", "typed_config": generic},
    }}


def router():
    return {"name": "router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}


def access_log(path):
    fields = {"method": "%REQ(:METHOD)%", "path": "%REQ(:PATH)%", "status": "%RESPONSE_CODE%", "bytes": "%BYTES_SENT%",
              "caller": "%DOWNSTREAM_PEER_URI_SAN%", "millis": "%DURATION%"}
    return {"name": "file", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": str(path), "log_format": {"json_format": fields}}}
