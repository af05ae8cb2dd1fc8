"""What budgets cost as they grow: what the bench target `budgets` of the gateway measures, beside a whole call.

What counts is a call: one that is held to three levels among 5,000 budgets, by one of 50,000 callers, against one that is held to one budget.
"""

import json
import statistics
import subprocess

# How much dearer such a call may be, and how many seconds compiling and publishing the budgets may take.
CALL, PUBLISH = 1.15, 2.0


def show(root, profile, numbers, call):
    """Runs it, alone on core 0, and prints a table; `call` is the CPU time of a call with one budget in microseconds. Whether all is allowed."""
    command = ["cargo", "bench", "-q", "--profile", profile, "-p", "tollgate", "--bench", "budgets"]
    subprocess.run([*command, "--no-run"], cwd=root, check=True)
    done = subprocess.run(["taskset", "-c", "0", *command, "--", *numbers], cwd=root, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    one, chain, many = (found["call"][name] / 1e3 for name in ("one", "chain", "many"))
    reload = found["reload"]
    publish = (found["compile"] + reload["publish"]) / 1e9
    print(f"\n{found['budgets']} budgets, {found['callers']} callers")
    for what, value in (
        ("one budget, one caller: hold and settle, us", one),
        ("three levels of one budget, one caller", chain),
        ("three levels of all budgets, all callers", many),
        ("the grants of a caller, after a reload", reload["grants_of"] / 1e3),
        ("first call of each caller after a reload: mean", reload["first_calls"]["mean"] / 1e3),
        ("the slowest of them", reload["first_calls"]["slowest"] / 1e3),
        ("the call after it: mean", reload["second_calls"]["mean"] / 1e3),
        ("a whole call with one budget", call),
    ):
        print(f"{what:50}{value:10.2f}")
    print(f"\nhold and settle, all budgets against one: {many / one:.2f}; against three levels of one: {many / chain:.2f}")
    bars = (
        ("a call, all budgets against one", (call - one + many) / call, CALL),
        ("compiling and publishing, in seconds", publish, PUBLISH),
    )
    for what, value, bar in bars:
        print(f"{what}: {value:.3f}, {'holds' if value <= bar else 'MISSED'}: at most {bar:.2f}")
    return all(value <= bar for _, value, bar in bars)


def whole_call(bench, peer, rounds, seconds):
    """The CPU time of a call in microseconds."""
    results = [bench.load(peer, millis=int(seconds * 1000), connections=32) for _ in range(rounds)]
    return statistics.median(result["cpu"] / result["calls"] / 1e3 for result in results)
