"""What a policy costs as it grows: what bench-grants measures, beside what is allowed.

Its own ratios are what counts: a decision among 10,000 grants against one among 10, and the grants of a caller likewise.
"""

import json
import subprocess

# How much dearer 10,000 grants may be than 10, and how many seconds compiling 2,000 may take.
AUTHORISE, GRANTS_OF, COMPILE = 1.10, 2.0, 1.0


def show(program):
    """Runs it, alone on core 0, and prints a table; whether all of it is allowed."""
    done = subprocess.run(["taskset", "-c", "0", str(program)], capture_output=True, text=True, check=True)
    few, some, many = json.loads(done.stdout)
    print(f"\n{'grants':>8}{'compile, s':>14}{'of a caller, us':>18}{'decision, us':>16}")
    for one in (few, some, many):
        print(f"{one['grants']:8}{one['compile_s']:14.3f}{one['grants_of_ns'] / 1e3:18.2f}{one['authorise_ns'] / 1e3:16.2f}")
    bars = (
        ("a decision, of 10,000 against of 10", many["authorise_ns"] / few["authorise_ns"], AUTHORISE),
        ("a caller's grants, of 10,000 against of 10", many["grants_of_ns"] / few["grants_of_ns"], GRANTS_OF),
        ("compiling 2,000, in seconds", some["compile_s"], COMPILE),
    )
    print()
    for what, value, bar in bars:
        print(f"{what}: {value:.2f}, {'holds' if value <= bar else 'MISSED'}: at most {bar:.2f}")
    return all(value <= bar for _, value, bar in bars)
