"""Resident memory: idle, for each connection that asks every few seconds, for each that asks for nothing, and for each stream."""

import json
import subprocess
import time
from pathlib import Path

STREAMS = 1000
# After so many seconds without a request a connection counts as idle. Allocators give back what is free some time after that.
REST = 30


def resident(pid):
    """Resident KiB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


def measure(bench, proxies, connections):
    """By figure and peer; a figure is left out where some connections were not set up."""
    figures = {}
    for peer in (peer for peer in proxies if not peer.cases):
        empty = resident(peer.pid)
        figures[("memory", "idle_mib", peer.name)] = empty / 1024
        # A call on each connection, and one more four seconds later.
        flags = {"connections": connections, "rate": connections // 4, "millis": 6000, "rest": REST * 1000}
        held = during(bench, peer, flags, {"kib_per_connection": 5, "kib_per_idle": 8 + REST * 0.8})
        held |= during(bench, peer, {"connections": STREAMS, "sse": 1, "millis": 12_000}, {"kib_per_stream": 9})
        for figure, kib in held.items():
            of = STREAMS if figure == "kib_per_stream" else connections
            figures[("memory", figure, peer.name)] = (kib - empty) / of
    return figures


def during(bench, peer, flags, moments):
    """What is resident so many seconds after such a load has begun, in KiB; nothing where some of it failed."""
    command = bench.load_command(peer, **flags)
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    begun, held = time.monotonic(), {}
    for figure, seconds in moments.items():
        time.sleep(max(0, begun + seconds - time.monotonic()))
        held[figure] = resident(peer.pid)
    result = json.loads(holder.communicate()[0])
    if result["errors"]:
        print(f"{peer.name}: {result['errors']} of {flags['connections']} connections failed", flush=True)
        return {}
    return held
