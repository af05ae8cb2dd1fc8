"""HAProxy (Debian's `haproxy`), set up to do what the other proxies do."""

import shutil

from peers import SERVED, Door, Peer

BINARY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")


def haproxy(bench, work, upstream, host, key, port, wait_for):
    config = work / "haproxy.cfg"
    shown = work / "haproxy.pem"
    shown.write_text("".join((bench.pki / f"gateway.{part}").read_text() for part in ("crt", "key")))
    config.write_text(settings(bench, shown, upstream, host, key, port))
    # It writes to no file itself: its access log is its output, which is a file here, a line at a time.
    child = bench.start("haproxy", [BINARY, "-db", "-f", config], bench.own)
    wait_for(port, child, "haproxy")
    return Peer("haproxy", port, child.pid, f"{host}:{upstream}", doors={"websocket": Door(port, {"websocket": 1})})


def settings(bench, shown, upstream, host, key, port):
    """HAProxy fetches no URI of a certificate. So once for each connection it looks for the prefix of the id anywhere in the certificate that it
    verified, in hex, as the bare proxy looks for the whole id in bytes. The access log names the caller by the certificate's serial number."""
    pki = bench.pki
    fields = '{"method":"%HM","path":%{+Q}HPO,"status":%ST,"bytes":%B,"caller":"%[var(sess.caller)]","millis":%Ta}'
    return f"""
global
  nbthread {bench.cores}
  maxconn 8192
  log stdout format raw local0 info

defaults
  mode http
  log global
  option dontlognull
  option http-keep-alive
  http-reuse always
  timeout connect 3s
  timeout client 300s
  timeout server 300s
  timeout tunnel 300s

frontend mesh
  bind 127.0.0.1:{port} ssl crt {shown} alpn h2,http/1.1 verify required ca-file {pki}/prod.acme.pem
  tcp-request session reject unless {{ ssl_c_der,hex -m sub {SERVED.encode().hex().upper()} }}
  tcp-request session set-var(sess.caller) ssl_c_serial,hex
  http-request track-sc0 int(1) table limit
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 1000000 }}
  http-request del-header x-api-key
  http-request del-header cookie
  http-request del-header forwarded
  http-request del-header baggage
  http-request del-header x-forwarded-client-cert
  http-request set-header host {host}
  http-request set-header authorization "Bearer {key}"
  log-format '{fields}'
  default_backend provider

backend limit
  stick-table type integer size 16 expire 10s store http_req_rate(1s)

backend provider
  server one 127.0.0.1:{upstream} ssl verify required ca-file {pki}/pki.pem sni str({host}) verifyhost {host} alpn http/1.1
"""
