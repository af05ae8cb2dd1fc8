"""Child processes of a run: each in its own process group, logged to a file, ended by id."""

import os
import signal
import subprocess
import sys
import threading
import time

TAIL = 60
HEARTBEAT = 20.0


class Children:
    """Runs commands and ends every process group it started, also on Ctrl-C and SIGTERM."""

    def __init__(self, logs):
        self.logs = logs
        self.groups = set()
        self.lock = threading.Lock()
        signal.signal(signal.SIGTERM, self._interrupted)

    def _interrupted(self, _signal, _frame):
        raise KeyboardInterrupt

    def run(self, name, command, env=None, cwd=None, quiet=False):
        """Runs to its end. Returns (succeeded, log file); prints the log's tail on failure."""
        log = self.logs / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as sink:
            try:
                child = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT,
                    env=env, cwd=cwd, start_new_session=True,
                )
            except OSError as error:
                sink.write(f"{command[0]}: {error}\n".encode())
                return False, log
            with self.lock:
                self.groups.add(child.pid)
            code = self._wait(name, child, log, quiet)
        self._end(child.pid)
        if code != 0 and not quiet:
            self._tail(log)
        return code == 0, log

    def _wait(self, name, child, log, quiet):
        started = time.monotonic()
        while True:
            try:
                return child.wait(timeout=HEARTBEAT)
            except subprocess.TimeoutExpired:
                if not quiet:
                    seconds = time.monotonic() - started
                    print(f"    {name}: {seconds:.0f} s, {last_line(log)}", flush=True)

    def _tail(self, log):
        lines = log.read_text(errors="replace").splitlines()
        print(f"    --- {log} (last {min(TAIL, len(lines))} of {len(lines)} lines)")
        for line in lines[-TAIL:]:
            print(f"    {line}")
        sys.stdout.flush()

    def _end(self, group):
        """Whatever a finished command left behind in its group goes with it."""
        try:
            os.killpg(group, signal.SIGTERM)
            deadline = time.monotonic() + 3
            while time.monotonic() < deadline:
                time.sleep(0.02)
                os.killpg(group, 0)
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        with self.lock:
            self.groups.discard(group)

    def end_all(self):
        for group in list(self.groups):
            self._end(group)


def last_line(log):
    """The newest line of a growing log, shortened."""
    with log.open("rb") as source:
        source.seek(0, os.SEEK_END)
        source.seek(max(0, source.tell() - 2000))
        lines = source.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:120] if lines else "no output yet"
