"""The three proxies of the benchmark, set up to do the same: mutual TLS with a SPIFFE id checked, one key injected, a request
limit, a JSON access log, TLS to the upstream with its name verified. Tollgate also holds and settles a spend limit and keeps
its ledger."""

import json
from dataclasses import dataclass

CALLER = "spiffe://prod.acme/ns/checkout/sa/web"


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


# Keys of a pool; all of them hold what the provider takes.
POOL = ("a", "b", "c", "d")


def tollgate(bench, work, upstream, host, key, port, wait_for, program, name="tollgate", cases=(), scrub="all", keys=("openai",)):
    """With several `keys` the credential is a pool of them."""
    home = work / name
    for folder in ("resources", "keys"):
        (home / folder).mkdir(parents=True)
    for path in keys:
        (home / "keys" / path).write_text(key)
    pool = ", ".join(f"{{alias: {path}, store: files, path: {path}}}" for path in keys)
    source = f"[{pool}]" if len(keys) > 1 else f"{{store: files, path: {keys[0]}}}"
    pki = bench.pki
    (home / "tollgate.yaml").write_text(f"""
listeners: [{{name: mesh, address: "127.0.0.1:{port}", protocols: [h2, http/1.1]}}]
names: [localhost]
identity:
  certificate: {{certFile: {pki}/gateway.crt, keyFile: {pki}/gateway.key}}
  trustDomains: {{prod.acme: {{bundleFile: {pki}/prod.acme.pem}}}}
resources: ./resources
dataDir: ./data
admin: {{address: "127.0.0.1:0", tokenFile: admin.token}}
egress: {{privateRanges: [127.0.0.0/8]}}
ledger: {{sealKeyFile: seal.key}}
cores: 1
""")
    allow = "allow: {methods: [POST], paths: [/v1/chat/completions], models: [gpt-5-mini]}"
    (home / "resources/bench.yaml").write_text(f"""
apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {{name: openai}}
spec: {{hosts: [{host}], port: {upstream}, addresses: [127.0.0.1], dialect: openai, scrub: {scrub}, http: 2,
  tls: {{verify: {{caFile: {pki}/pki.pem}}}}}}
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
---
apiVersion: tollgate.dev/v1alpha1
kind: Grant
metadata: {{name: checkout-openai}}
spec:
  callers: [{{spiffe: "spiffe://prod.acme/ns/checkout/sa/*"}}]
  destination: openai
  credential: openai-prod
  {allow}
  limits: [{{requests: 100000000, per: hour, burst: 10000000}}, {{spend: 90000000 USD, per: month}}]
---
apiVersion: tollgate.dev/v1alpha1
kind: Grant
metadata: {{name: checkout-bodies}}
spec:
  callers: [{{spiffe: "spiffe://prod.acme/ns/checkout/sa/*"}}]
  destination: openai
  credential: openai-prod
  allow: {{methods: [POST], paths: [/big, /big/json, /big/base64, /big/escapes, /big/percent, /upload]}}
""")
    child = bench.start(name, [program, "serve", "--config", "tollgate.yaml"], core=0, cwd=home)
    wait_for(port, child, name)
    return Peer(name, port, child.pid, f"{host}:{upstream}", cases=cases)


def bare(bench, work, upstream, host, key, port, wait_for, program, name="bare", cases=()):
    pki = bench.pki
    child = bench.start(name, [
        program, "--listen", f"127.0.0.1:{port}", "--cert", pki / "gateway.crt", "--key",
        pki / "gateway.key", "--callers", pki / "prod.acme.pem", "--upstream", f"127.0.0.1:{upstream}", "--upstream-name", host,
        "--ca", pki / "pki.pem", "--bearer", key, "--log", work / f"{name}.access.log"], core=0)
    wait_for(port, child, name)
    return Peer(name, port, child.pid, f"{host}:{upstream}", cases=cases)


def envoy(bench, work, upstream, host, key, port, wait_for, folder):
    config = work / "envoy.json"
    config.write_text(json.dumps(envoy_config(bench.pki, work, upstream, host, key, port), indent=1))
    binary = next(path for path in folder.glob("**/envoy") if path.is_file())
    binary.chmod(0o755)
    command = [binary, "-c", config, "--concurrency", "1", "--disable-hot-restart", "-l", "warn"]
    child = bench.start("envoy", command, core=0)
    wait_for(port, child, "envoy")
    return Peer("envoy", port, child.pid, f"{host}:{upstream}")


def envoy_config(pki, work, upstream, host, key, port):
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
                    {"san_type": "URI", "matcher": {"prefix": "spiffe://prod.acme/ns/checkout/sa/"}}
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
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "mesh",
        "codec_type": "AUTO",
        "http_filters": [limit(), injector(), router()],
        "route_config": {"virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "request_headers_to_remove": ["x-api-key", "cookie", "forwarded", "baggage", "x-forwarded-client-cert"],
            "routes": [{"match": {"prefix": "/"}, "route": {
                "cluster": "upstream", "timeout": "0s", "host_rewrite_literal": host}}],
        }]},
        "access_log": [access_log(work / "envoy-access.log")],
    }
    return {
        "static_resources": {
            "secrets": [{"name": "key", "generic_secret": {"secret": {"inline_string": f"Bearer {key}"}}}],
            "listeners": [{
                "name": "mesh",
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                "filter_chains": [{
                    "transport_socket": {"name": "tls", "typed_config": downstream},
                    "filters": [{"name": "http", "typed_config": manager}],
                }],
            }],
            "clusters": [{
                "name": "upstream", "type": "STATIC", "connect_timeout": "3s",
                "circuit_breakers": {"thresholds": [{"max_connections": 4096, "max_pending_requests": 4096,
                                                     "max_requests": 4096}]},
                "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [{"endpoint": {
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": upstream}}}}]}]},
                "transport_socket": {"name": "tls", "typed_config": to_upstream},
            }],
        }
    }


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
