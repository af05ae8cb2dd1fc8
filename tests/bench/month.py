"""How long reports over a month of ten million calls take, and how much memory: in SQLite, and in PostgreSQL where its server is here.

The gateway makes the tables. They are filled with what it would have added up: calls of 1,000 combinations of caller, destination and
model, spread over every minute of 30 days.
"""

import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import settings

CALLS, DAYS, COMBINATIONS = 10_000_000, 30, 1_000
# Seconds of a report, and KiB that it may take.
LONGEST, MOST = 2.0, 200 << 10
REPORTS = (
    ["--by", "caller,destination,model"],
    ["--by", "namespace"],
    ["--by", "day"],
    ["--by", "day,caller", "--timezone", "Europe/Berlin"],
    ["--by", "hour,model"],
    ["--by", "month,status", "--format", "json"],
)
FILL = """
CREATE TEMPORARY TABLE calls AS
  WITH RECURSIVE m(minute) AS (SELECT CAST({first} AS BIGINT) UNION ALL SELECT minute + 1 FROM m WHERE minute < {last} - 1),
                 j(number) AS (SELECT 0 UNION ALL SELECT number + 1 FROM j WHERE number < {each} - 1)
  SELECT minute, 1 + (minute * 7919 + number * 31) % {combinations} AS dimensions FROM m, j;
INSERT INTO {schema}sums (minute, dimensions, status, requests, unpriced, bytes_in, bytes_out, cost{replica})
  SELECT minute, dimensions, 200, 1, 0, 900, 4000, 1000000 + dimensions{one} FROM calls ORDER BY 1, 2;
INSERT INTO {schema}usage (minute, dimensions, status, unit, amount{replica})
  SELECT minute, dimensions, 200, u.unit, 100 + dimensions{one} FROM calls
  CROSS JOIN (SELECT 'input' AS unit UNION ALL SELECT 'output') u ORDER BY 1, 2;
{longer}"""
# The same by longer units of time.
FILL_LONGER = """
INSERT INTO {schema}sums_by_{unit} ({unit}, dimensions, status, requests, unpriced, bytes_in, bytes_out, cost{replica})
  SELECT minute / {minutes}, dimensions, status, sum(requests), 0, sum(bytes_in), sum(bytes_out), sum(cost){one} FROM {schema}sums GROUP BY 1, 2, 3;
INSERT INTO {schema}usage_by_{unit} ({unit}, dimensions, status, unit, amount{replica})
  SELECT minute / {minutes}, dimensions, status, unit, sum(amount){one} FROM {schema}usage GROUP BY 1, 2, 3, 4;
"""


def combination(number):
    caller, destination, model = number % 50, number // 50 % 4, number // 200
    return {
        "caller": f"spiffe://prod.acme/ns/team-{caller % 10}/sa/app-{caller}", "destination": f"default/provider-{destination}",
        "host": f"api.provider-{destination}.test", "grant": f"team-{caller % 10}/provider-{destination}", "model": f"model-{model}",
        "outcome": "completed", "usage_source": "provider",
    }


def fill_words(schema, replica):
    last = int(time.time()) // 3600 * 60
    minutes = DAYS * 24 * 60
    names = {"schema": schema, "replica": ", replica" if replica else "", "one": f", {replica}" if replica else ""}
    longer = "".join(FILL_LONGER.format(unit=unit, minutes=length, **names) for unit, length in (("hour", 60), ("day", 24 * 60)))
    return FILL.format(first=last - minutes, last=last, each=CALLS // minutes, combinations=COMBINATIONS, longer=longer, **names)


def prepare(bench, home, ledger):
    home.mkdir(parents=True)
    (home / "resources").mkdir()
    for name in ("admin.token", "seal.key"):
        (home / name).write_text("bench-0123456789abcdef-0123456789abcdef\n")
        (home / name).chmod(0o600)
    listeners = ['{name: mesh, address: "127.0.0.1:0"}']
    (home / "tollgate.yaml").write_text(settings.text(bench.pki, listeners, f"sealKeyFile: seal.key{ledger}"))


def made(bench, name, home, is_there):
    """Runs the gateway until it has made its tables."""
    child = bench.start(name, [bench.binaries / "tollgate", "serve", "--config", "tollgate.yaml"], bench.own, cwd=home)
    for _ in range(300):
        if is_there():
            break
        if child.poll() is not None:
            sys.exit(f"{name} ended; see {home.parent / name}.log")
        time.sleep(0.1)
    else:
        sys.exit(f"{name} has made no tables within 30 s")
    bench.end(child.pid)


def sqlite(bench, work):
    home = work / "month-sqlite"
    prepare(bench, home, "")
    store = home / "data/ledger.sqlite"
    made(bench, "month-sqlite", home, lambda: store.is_file() and has_tables(store))
    with sqlite3.connect(store) as connection:
        for number in range(COMBINATIONS):
            texts = combination(number)
            names = "".join(f', "{name}"' for name in texts)
            connection.execute(
                f"INSERT INTO dimensions (id, hash{names}) VALUES (?, ?{', ?' * len(texts)})",
                (number + 1, number.to_bytes(32, "big"), *texts.values()),
            )
        connection.executescript(fill_words("", None))
    return home


def has_tables(store):
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as connection:
            return connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'usage_by_day'").fetchone()[0] == 1
    except sqlite3.Error:
        return False


def postgres(bench, work, programs):
    folder = Path(f"/tmp/tollgate-month-{os.getpid()}")
    port, user = bench.free_port(), pwd.getpwnam("postgres")
    folder.mkdir()
    os.chown(folder, user.pw_uid, user.pw_gid)
    drop = {"user": user.pw_uid, "group": user.pw_gid, "cwd": "/"} if os.getuid() == 0 else {}
    subprocess.run([programs / "initdb", "-D", folder / "data", "-U", "shop", "-A", "trust", "--no-sync"], check=True,
                   stdout=subprocess.DEVNULL, **drop)
    server = subprocess.Popen([programs / "postgres", "-D", folder / "data", "-p", str(port), "-h", "127.0.0.1", "-F", "-c",
                               "unix_socket_directories=", "-c", "max_wal_size=8GB"], stderr=subprocess.DEVNULL, **drop)

    def psql(text, check=True):
        command = [programs / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(port), "-U", "shop", "postgres"]
        done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
        if check and done.returncode:
            sys.exit(f"psql: {done.stderr}")
        return done.stdout.strip()

    try:
        for _ in range(100):
            if psql("SELECT 1", check=False) == "1":
                break
            time.sleep(0.1)
        home = work / "month-postgres"
        prepare(bench, home, f', replica: month, postgres: {{address: "127.0.0.1:{port}", database: postgres, user: shop, passwordFile: admin.token, tls: {{mode: none}}}}')
        made(bench, "month-postgres", home, lambda: psql("SELECT to_regclass('tollgate.usage_by_day') IS NOT NULL AND EXISTS (SELECT FROM tollgate.replicas)", check=False) == "t")
        rows = []
        for number in range(COMBINATIONS):
            texts = combination(number)
            names, values = "".join(f', "{name}"' for name in texts), "".join(f", '{text}'" for text in texts.values())
            rows.append(f"INSERT INTO tollgate.dimensions (id, hash{names}) OVERRIDING SYSTEM VALUE VALUES ({number + 1}, '\\x{number:064x}'{values});")
        psql("\n".join(rows) + fill_words("tollgate.", "(SELECT min(id) FROM tollgate.replicas)") + "VACUUM ANALYZE;")
        return measured(bench, "postgres", home)
    finally:
        server.terminate()
        server.wait(timeout=60)
        shutil.rmtree(folder)


def measured(bench, store, home):
    """Runs each report three times; whether the fastest of each is within its bounds. A first run reads what no cache has."""
    good = True
    for report in REPORTS:
        seconds, memory = [], 0
        for _ in range(3):
            begun = time.monotonic()
            child = subprocess.Popen([bench.binaries / "tollgate", "report", "--since", f"{DAYS}d", *report], cwd=home,
                                     stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            printed = child.stdout.read()
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            seconds.append(time.monotonic() - begun)
            memory = max(memory, usage.ru_maxrss)
            if child.returncode or not printed:
                sys.exit(f"{' '.join(report)}: status {child.returncode}")
        holds = min(seconds) <= LONGEST and memory <= MOST
        good &= holds
        print(f"{store:10}{' '.join(report):46}{min(seconds):8.2f} s{max(seconds):8.2f} s{memory >> 10:8} MiB  {'holds' if holds else 'MISSED'}", flush=True)
    return good


def show(bench, work):
    """Fills the stores and prints a table of reports; whether each is within its bounds."""
    print(f"\n{'store':10}{'report':46}{'fastest':>10}{'slowest':>10}{'memory':>12}")
    home = sqlite(bench, work)
    good = measured(bench, "sqlite", home)
    shutil.rmtree(home)
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if programs is None:
        print("postgres: not here (a Debian package)")
        return good
    return postgres(bench, work, programs) and good
