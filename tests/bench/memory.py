"""Resident memory: idle (`idle_mib`), for each connection that asks every few seconds (`kib_per_connection`), for each that asks for nothing
(`kib_per_idle`), and for each of 1,000 streams (`kib_per_stream`), which are more than one core keeps up with."""

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

STREAMS = 1000
# First calls a second: more would be a load. The last connection has to ask within the 30 s that gateways wait for a first request.
RATE = 500
# Connections that ask less often count as idle.
OFTEN = 5
# So many seconds after its last request a connection is measured. Pools of connections to providers are empty by then, and allocators have
# given back what is free.
REST = 80


def resident(pid):
    """Resident KiB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


def measure(bench, proxies, connections):
    """By figure and peer; a figure is left out where some connections were not set up."""
    proxies = [peer for peer in proxies if not peer.cases]
    empty = {peer.name: resident(peer.pid) for peer in proxies}
    figures = {("memory", "idle_mib", name): kib / 1024 for name, kib in empty.items()}
    # A call on each connection, one by one; then one or two more.
    spread = max(4, connections // RATE)
    flags = {"connections": connections, "rate": connections // spread, "millis": (spread + 2) * 1000, "rest": (REST + 10) * 1000}
    moments = {"kib_per_connection": spread + 1} if spread < OFTEN else {}
    moments["kib_per_idle"] = 2 * spread + REST

    def one(number, peer):
        # They ask one after the other, and rest together.
        time.sleep(number * (spread + 4))
        held = during(bench, peer, flags, moments)
        return {("memory", figure, peer.name): (kib - empty[peer.name]) / connections for figure, kib in held.items()}

    with ThreadPoolExecutor(len(proxies)) as threads:
        for of_one in threads.map(one, range(len(proxies)), proxies):
            figures |= of_one
    for peer in proxies:
        held = during(bench, peer, {"connections": STREAMS, "sse": 1, "millis": 12_000}, {"kib_per_stream": 9})
        figures |= {("memory", figure, peer.name): (kib - empty[peer.name]) / STREAMS for figure, kib in held.items()}
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
        print(f"{peer.name}: {result['errors']} errors on {flags['connections']} connections", flush=True)
        return {}
    return held
