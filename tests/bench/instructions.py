"""User-space instructions of one call, counted by callgrind: what stays the same whatever else the machine does.

Two runs of one kept connection, a short and a long one, are counted; the difference is of calls alone, without start and
handshake. Only the thread that serves is counted: what the control plane does follows the clock, not the calls. Valgrind offers no SHA
instructions, so SHA-256 is dearer here than anywhere else and stands apart. jemalloc looks through its caches every 10 ms of use, which under
valgrind is every other call: it is told not to.

Needs `valgrind` (a Debian package).
"""

import re
import shutil
import subprocess
import sys
import time
from collections import Counter

SHORT, LONG, WARM = 4, 16, 3
DIGEST = re.compile(r"sha256|sha512_block|sha256_block", re.I)
# What C code is of, by how its functions are called.
C_CODE = (("aws_lc", "aws-lc"), ("aes", "aws-lc"), ("gcm", "aws-lc"), ("CRYPTO", "aws-lc"), ("EVP", "aws-lc"), ("mem", "libc"), ("str", "libc"),
          ("malloc", "libc"), ("free", "libc"), ("_int_", "libc"), ("realloc", "libc"), ("calloc", "libc"), ("clock_gettime", "libc"))


# For jemalloc: it looks through a thread's caches after so many bytes.
MALLOC = {"_RJEM_MALLOC_CONF": "tcache_gc_incr_bytes:1073741824"}


def command(work, name, program):
    """The command that runs a program under callgrind, counting nothing until it is told."""
    if not shutil.which("valgrind"):
        sys.exit("valgrind is missing: apt-get install valgrind")
    return ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes", "--compress-strings=no",
            f"--callgrind-out-file={work}/{name}.callgrind", "--quiet", program]


def control(pid, flag, *value):
    done = subprocess.run(["callgrind_control", flag, *value, str(pid)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"callgrind_control {flag}: {done.stdout}{done.stderr}")


def of_one_call(bench, work, peer, flags):
    """Instructions of one call of this peer, by function."""
    bench.load(peer, connections=1, millis=WARM * 1000, **flags)
    control(peer.pid, "-i", "on")
    bench.load(peer, connections=1, millis=WARM * 1000, **flags)
    counted = []
    for seconds in (SHORT, LONG):
        control(peer.pid, "-z")
        calls = bench.load(peer, connections=1, millis=seconds * 1000, **flags)["calls"]
        before = set(work.glob(f"{peer.name}.callgrind*"))
        control(peer.pid, "-d")
        threads = [functions(path) for path in written(work, peer.name) - before]
        if not threads:
            raise SystemExit(f"{peer.name}: callgrind left no counts in {work}")
        counted.append((calls, max(threads, key=Counter.total)))
    (few, short), (many, long) = counted
    if many - few < 100:
        raise SystemExit(f"{peer.name}: only {many - few} calls were counted")
    return {name: (long[name] - short[name]) / (many - few) for name in long | short}


def written(work, name):
    """The files of counts, once they grow no more: callgrind writes them when its program next has something to do."""
    def sizes():
        return {path: path.stat().st_size for path in work.glob(f"{name}.callgrind*")}

    before, now = None, sizes()
    while before != now:
        time.sleep(2)
        before, now = now, sizes()
    return set(now)


def functions(path):
    """Instructions of each function itself, without those that it calls."""
    counts, name, is_callee = Counter(), None, False
    for line in path.read_text(errors="replace").splitlines():
        if line.startswith("fn="):
            name = line[3:]
        elif line.startswith("calls="):
            is_callee = True
        elif line and (line[0].isdigit() or line[0] in "+-*"):
            if not is_callee and name:
                counts[name] += int(line.split()[1])
            is_callee = False
    return counts


def module(function):
    """The crate that a function is of, and of our own crates the module; C code by its library."""
    if DIGEST.search(function):
        return "SHA-256"
    names = [found for found in re.findall(r"([a-z_][a-z0-9_]*)::([a-z_0-9]+)?", function)]
    for crate, inner in names:
        if crate in ("tollgate", "tollgate_policy", "tollgate_secrets"):
            return f"{crate}::{inner}" if inner else crate
    if names:
        crates = [crate for crate, _ in names if crate not in ("core", "alloc", "std")]
        return crates[0] if crates else "std"
    return next((library for start, library in C_CODE if function.lstrip("_").startswith(start)), "C code")


def show(figures, most=40):
    """A table by module, dearest first; `figures` has the functions of each peer."""
    names = list(figures)
    by_module = {name: Counter() for name in names}
    for name, counts in figures.items():
        for function, count in counts.items():
            by_module[name][module(function)] += count
    modules = sorted(set().union(*by_module.values()), key=lambda one: -max(by_module[name][one] for name in names))
    print(f"\n{'instructions a call':40}" + "".join(f"{name:>14}" for name in names))
    for one in modules[:most]:
        print(f"{one:40}" + "".join(f"{by_module[name][one]:14,.0f}" for name in names))
    for title, skipped in (("all", ()), ("SHA-256 aside", ("SHA-256",))):
        sums = [sum(count for one, count in by_module[name].items() if one not in skipped) for name in names]
        print(f"{title:40}" + "".join(f"{total:14,.0f}" for total in sums))
