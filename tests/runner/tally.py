"""What a run counted, and its closing lines."""

import re

RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", re.M)
FAILED = re.compile(r"^test (\S+) \.\.\. FAILED", re.M)


class Tally:
    """Sums over all steps; every failure and every skip is named at the end, after what steps have to say."""

    def __init__(self):
        self.passed = 0
        self.failed = []
        self.skipped = []
        self.said = []

    def fail(self, what):
        self.failed.append(what)

    def skip(self, what):
        self.skipped.append(what)

    def say(self, lines):
        self.said += lines

    def count(self, problems, name):
        """One check: passed when it found no problem."""
        if problems:
            self.fail(f"{name}: {problems[0]}")
        else:
            self.passed += 1

    def close(self, strict):
        """Prints the closing lines and returns the exit code."""
        for line in self.said:
            print(line)
        for what in self.failed:
            print(f"failed: {what}")
        for what in self.skipped:
            print(f"skipped: {what}")
        nothing = not self.passed and not self.failed
        print(f"{self.passed} passed, {len(self.failed)} failed, {len(self.skipped)} skipped", flush=True)
        return 1 if self.failed or nothing or (strict and self.skipped) else 0


def cargo_tests(tally, step, succeeded, log, skipped=0):
    """Counts what `cargo test` reported; a run that built nothing to report is one failure."""
    text = log.read_text(errors="replace")
    results = [tuple(map(int, found)) for found in RESULT.findall(text)]
    failures = FAILED.findall(text)
    tally.passed += sum(passed for passed, _, _ in results) - skipped
    for name in failures:
        tally.fail(f"{step}: {name}, see {log}")
    for _ in range(sum(ignored for _, _, ignored in results)):
        tally.fail(f"{step}: an ignored test, see {log}")
    if not succeeded and not failures:
        tally.fail(f"{step} did not build or was cut off, see {log}")
    if succeeded and not sum(passed for passed, _, _ in results):
        tally.fail(f"{step} ran no test, see {log}")
        return False
    return succeeded


def count_skips(tally, path):
    """Scenarios that ended early for want of a part wrote a line each; they are no passes."""
    lines = path.read_text().splitlines() if path.exists() else []
    for line in lines:
        tally.skip(line)
    return len(lines)
