"""The cases of the benchmark: what the load does in each, and what is measured."""

import granted


def per_call(result):
    return {"cpu_us": result["cpu"] / result["calls"] / 1e3, "per_s": result["calls"] / result["seconds"]}


def latency(result):
    return {"cpu_us": result["cpu"] / result["calls"] / 1e3, "p50_us": result["p50"], "p99_us": result["p99"]}


def per_chunk(result):
    return {"cpu_us": result["cpu"] / result["chunks"] / 1e3, "stream_p50_us": result["p50"]}


def per_gigabyte(result):
    moved = result["bytes"] if result["bytes"] > 1 << 20 else result["calls"] * (10 << 20)
    return {"cpu_s": result["cpu"] / moved}


CONNECTIONS, STREAMS = 32, 16
# Each case: name, what it says, flags of the load, what is measured.
CASES = {
    "h1": ("HTTP/1.1, saturated", {"connections": CONNECTIONS}, per_call),
    "h2": ("HTTP/2, saturated", {"connections": 4, "streams": STREAMS, "h2": 1}, per_call),
    "rate": ("500 requests a second", {"connections": 8, "rate": 500}, latency),
    "sse": ("SSE, 100 streams, per chunk", {"connections": 100, "sse": 1}, per_chunk),
    "websocket": ("2,000 WebSocket messages a second", {"connections": 100, "rate": 2000, "path": "/ws", "door": "websocket"}, latency),
    "down": ("10 MB down, per GB", {"connections": 2, "path": "/big"}, per_gigabyte),
    "up": ("10 MB up, per GB", {"connections": 2, "path": "/upload", "upload": 10 << 20}, per_gigabyte),
    "handshake": ("full mTLS set-up and one call", {"connections": 4, "fresh": 1, "no_resumption": 1}, per_call),
    "hbone": ("HTTP in tunnels of a mesh", {"connections": 4, "streams": STREAMS, "door": "hbone"}, per_call),
    "connect": ("calls in tunnels passed through", {"connections": CONNECTIONS, "door": "connect"}, per_call),
    "connect-new": ("a new tunnel and one call in it", {"connections": 4, "fresh": 1, "door": "connect"}, per_call),
    "connect-down": ("10 MB down in a tunnel, per GB", {"connections": 2, "path": "/big", "door": "connect"}, per_gigabyte),
    "resumed": ("resumed set-up and one call", {"connections": 4, "fresh": 1}, per_call),
    "scrub-1k": ("1 KiB of JSON, per call", {"connections": CONNECTIONS}, per_call),
    "scrub-json": ("10 MB of JSON, per GB", {"connections": 2, "path": "/big/json"}, per_gigabyte),
    "scrub-base64": ("10 MB like base64, per GB", {"connections": 2, "path": "/big/base64"}, per_gigabyte),
    "scrub-escapes": ("10 MB of JSON escapes, per GB", {"connections": 2, "path": "/big/escapes"}, per_gigabyte),
    "scrub-percent": ("10 MB of percent escapes, per GB", {"connections": 2, "path": "/big/percent"}, per_gigabyte),
    "many": ("64 grants, 500 callers", {"connections": granted.CALLERS, "no_resumption": 1}, per_call),
    "pool": ("four keys, per call", {"connections": CONNECTIONS}, per_call),
    "shared": ("limits in Redis, saturated", {"connections": CONNECTIONS}, per_call),
    "shared-rate": ("limits in Redis, 500 a second", {"connections": 8, "rate": 500}, latency),
}
# Cases that compare two of our own: which does more, which less, and the ratio that is allowed.
PAIRS = {
    "scrub-1k": ("tollgate", "headers", 1.05),
    "scrub-json": ("tollgate", "headers", 1.15),
    "scrub-base64": ("tollgate", "headers", None),
    "scrub-escapes": ("tollgate", "headers", None),
    "scrub-percent": ("tollgate", "headers", None),
    "many": ("many", "one", None),
    "pool": ("pool", "tollgate", None),
    "shared": ("shared", "tollgate", 1.10),
    "shared-rate": ("shared", "tollgate", 1.10),
}
MAIN = [case for case in CASES if case not in PAIRS]
DEFAULT = [case for case in CASES if case not in ("pool", "shared", "shared-rate")]
