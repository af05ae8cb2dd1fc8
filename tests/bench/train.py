"""Programs with a profile of themselves: built once to count, run under the benchmark's load, built again with what was counted.

What ran lies together in the program then, by how often: pages of what never runs stay out of memory.

Needs `llvm-profdata` of the same compiler: `rustup component add llvm-tools`.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = ("policy", "secrets", "gateway", "tests/bench")
PROGRAMS = {"tollgate": "tollgate", "bench-bare": "tollgate-tests"}
# What the profile is made of: every kind of work, about as often as it is met.
LOADS = (
    {"connections": 32},
    {"connections": 4, "streams": 16, "h2": 1},
    {"connections": 50, "sse": 1},
    {"connections": 2, "path": "/big"},
    {"connections": 2, "path": "/big/json"},
    {"connections": 2, "path": "/upload", "upload": 10 << 20},
    {"connections": 4, "fresh": 1},
    {"connections": 8, "rate": 500},
)
SECONDS = 4


def folder(target, profile):
    """Where cargo puts the programs of a profile, for the triple of CARGO_BUILD_TARGET if there is one."""
    return target / os.environ.get("CARGO_BUILD_TARGET", "") / profile


def programs(target, run, names=tuple(PROGRAMS)):
    """The folder of the trained programs; `run(name, program, loads, seconds)` runs a counting one and ends it."""
    profile = target / "trained/profile.profdata"
    if is_stale(profile):
        counts = target / "trained/counts"
        shutil.rmtree(counts, ignore_errors=True)
        counting = build(target / "counting", "-Cprofile-generate", names)
        os.environ["LLVM_PROFILE_FILE"] = str(counts / "%p.profraw")
        for name in names:
            run(name, counting / name, LOADS, SECONDS)
        del os.environ["LLVM_PROFILE_FILE"]
        merge(counts, profile)
    # Named by its content: cargo builds again what was built with another one.
    named = target / f"trained/{hashlib.sha256(profile.read_bytes()).hexdigest()[:16]}.profdata"
    shutil.copyfile(profile, named)
    flags = [f"-Cprofile-use={named}"]
    # Linkers of C compilers know nothing of an order of functions, but the one that comes with rustc does, for most machines.
    linker = tools() / "gcc-ld"
    if linker.exists():
        order = named.with_suffix(".order")
        order.write_text("".join(f"{name}\n" for name in by_count(named)))
        flags += [f"-Clink-arg={flag}" for flag in ("-fuse-ld=lld", f"-B{linker}", f"-Wl,--symbol-ordering-file={order}", "-Wl,--no-warn-symbol-ordering")]
    return build(target / "trained", " ".join(flags), names)


def by_count(profile):
    """The functions that ran, most often first."""
    text = subprocess.run([tool("llvm-profdata"), "merge", "--text", profile, "-o", "-"], capture_output=True, text=True, check=True).stdout
    counts = {}
    for function in text.split("\n\n"):
        lines = [line for line in function.splitlines() if line and not line.startswith((":", "#"))]
        if len(lines) > 3:
            # Its name, with its file before it where others have the same; a hash; how many counters there are; the counters.
            counts[lines[0].rsplit(";", 1)[-1]] = max(int(line) for line in lines[3 : 3 + int(lines[2])])
    return sorted((name for name, count in counts.items() if count), key=lambda name: -counts[name])


def is_stale(profile):
    """Whether some source is younger."""
    if not profile.exists():
        return True
    files = [path for name in SOURCES for path in (ROOT / name).rglob("*.rs")]
    return any(path.stat().st_mtime > profile.stat().st_mtime for path in [*files, ROOT / "Cargo.lock"])


def build(target, flag, names):
    print(f"building with {flag.split('=')[0]}", flush=True)
    # Build scripts count too; what they leave is nobody's.
    spill = target / "build-%p.profraw"
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target), "RUSTFLAGS": f"{os.environ.get('RUSTFLAGS', '')} {flag}", "LLVM_PROFILE_FILE": str(spill)}
    for name in names:
        command = ["cargo", "build", "--profile", "dist", "-p", PROGRAMS[name], "--bin", name]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return folder(target, "dist")


def tools():
    """Where the compiler keeps its own."""
    found = subprocess.run(["rustc", "--print", "target-libdir"], cwd=ROOT, capture_output=True, text=True, check=True)
    return Path(found.stdout.strip()).parent / "bin"


def tool(name):
    path = tools() / name
    if not path.exists():
        sys.exit(f"{name} is missing: rustup component add llvm-tools (or run with --untrained)")
    return path


def merge(counts, profile):
    raw = sorted(counts.glob("*.profraw"))
    if not raw:
        sys.exit(f"the counting programs left nothing in {counts}")
    subprocess.run([tool("llvm-profdata"), "merge", "-o", profile, *raw], check=True)
