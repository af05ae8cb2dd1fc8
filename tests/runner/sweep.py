"""The leak sweep: searches what scenarios left behind for their canary secrets, in every form in which a secret can hide, and
proves on decoys that it would have found them.

    python3 tests/runner/sweep.py RUN [SCENARIO] [--whole]    every scenario of a run, or one; exit 1 when something is wrong

A run's folder holds `scenarios/NAME/sinks`, `needles/NAME.txt`, one secret per line, and `kinds/NAME.txt`, what they stand for;
`kinds.txt` lists all that a secret can stand for. A whole run has to have searched every kind of sink for every kind of secret.
"""

import argparse
import base64
import gzip
import re
import shutil
import sqlite3
import sys
import tempfile
import zlib
from collections import Counter, defaultdict
from pathlib import Path

SHORTEST = 12  # a run of letters and digits of a secret that counts as a leak by itself
DEPTH = 3  # compressed data inside compressed data
LARGEST = 64 << 20  # of one decompressed piece
SQLITE = b"SQLite format 3\0"
DEFLATED = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]")
DECOY = "7d0c5ab1e94f3862"
# Lines that are only written when the log is as loud as it gets.
LOUD = re.compile(rb'"level":"(?:DEBUG|TRACE)"')
OTHER = "other files"
# Kinds of sinks by their paths; the first that matches counts. Of each a whole run has at least one.
SINKS = {
    "standard output": r"tollgate\.stdout",
    "standard error": r"tollgate\.stderr",
    "answers": r"answers/.+",
    "metrics": r"admin-metrics",
    "admin": r"admin-.+",
    "arguments": r"proc-cmdline",
    "environment": r"proc-environ",
    "commands": r"cli\.txt",
    "audit trail": r"gateway/data/audit/.+",
    "store": r"gateway/data/ledger\.sqlite.*",
    "journal": r"gateway/data/journal.*",
    "data": r"gateway/data/.+",
    "temporary": r"gateway/tmp(/.+)?",
}


def needles_of(secret):
    """What gives a secret away: each long run of letters and digits in it, else the whole."""
    runs = [run for run in re.split(r"[^A-Za-z0-9]+", secret) if len(run) >= SHORTEST]
    return runs or [secret]


def forms_of(needle):
    """Every form of a needle that is searched for, by name. Compression is undone instead."""
    raw = needle.encode()

    def each(form):
        return "".join(form(byte) for byte in raw).encode()

    forms = {
        "raw": raw,
        "upper case": raw.upper(),
        "percent": each(lambda b: f"%{b:02X}"),
        "percent, lower": each(lambda b: f"%{b:02x}"),
        "JSON": each(lambda b: f"\\u{b:04x}"),
        "JSON, upper": each(lambda b: f"\\u{b:04X}"),
        "HTML": each(lambda b: f"&#{b};"),
        "HTML, hex": each(lambda b: f"&#x{b:x};"),
        "hex": raw.hex().encode(),
        "hex, upper": raw.hex().upper().encode(),
        "hex, spaced": raw.hex(" ").encode(),
        "octal": each(lambda b: f"\\{b:03o}"),
        "byte list": ", ".join(str(b) for b in raw).encode(),
        "UTF-16": needle.encode("utf-16-le"),
        "reversed": raw[::-1],
    }
    for offset in range(3):
        for name, altchars in (("base64", None), ("base64url", b"-_")):
            # Only the characters that depend on nothing but the needle when it stands at this offset.
            text = base64.b64encode(b"\0" * offset + raw, altchars)
            forms[f"{name}+{offset}"] = text[-(-offset * 8 // 6):(offset + len(raw)) * 8 // 6]
    return forms


class Account:
    """What was searched, and for what."""

    def __init__(self):
        self.scenarios = self.secrets = self.forms = self.bytes = self.loud = 0
        self.haystacks = Counter()
        self.kinds = defaultdict(set)

    def folder(self, place):
        """A folder for temporary files in which none was left is searched as well."""
        if sink_of(place) == "temporary":
            self.haystacks["temporary"] += 1

    def file(self, place, content):
        sink = sink_of(place)
        self.haystacks[sink] += 1
        self.loud += sink == "standard output" and LOUD.search(content) is not None

    def lacking(self, kinds):
        """What a whole run has to have had and this one had not."""
        found = [f"no haystack: {sink}" for sink in SINKS if not self.haystacks[sink]]
        if not self.loud:
            found.append("no haystack: standard output at its loudest")
        return found + [f"no canary: {kind}" for kind in kinds if not self.kinds[kind]]

    def lines(self, kinds):
        sinks = ", ".join(f"{sink} {self.haystacks[sink]}" for sink in [*SINKS, OTHER])
        yield f"swept: {self.secrets} secrets in {self.forms} forms, {self.scenarios} scenarios"
        yield f"swept: {sum(self.haystacks.values())} haystacks, {self.bytes} bytes: {sinks}; of the first {self.loud} at their loudest"
        for group in dict.fromkeys(kind.split()[0] for kind in kinds):
            words = (f"{kind.split()[1]} {len(self.kinds[kind])}" for kind in kinds if kind.split()[0] == group)
            yield f"swept: scenarios with canaries by {group}: {', '.join(words)}"


def sink_of(place):
    return next((sink for sink, pattern in SINKS.items() if re.fullmatch(pattern, place)), OTHER)


class Needles:
    """The forms of some secrets, to search for."""

    def __init__(self, secrets):
        needles = {needle for secret in secrets for needle in needles_of(secret)}
        self.forms = [(needle, name, form) for needle in needles for name, form in forms_of(needle).items()]

    def search(self, folder, account):
        """(place, form, first characters) of every leak in a folder and everything under it."""
        leaks = []
        for path in folders(folder):
            place = str(path.relative_to(folder))
            account.folder(place)
            self.bytes(place.encode(), f"the name {place}", leaks, account)
        for path in files(folder):
            place = str(path.relative_to(folder))
            self.bytes(place.encode(), f"the name {place}", leaks, account)
            content = path.read_bytes()
            account.file(place, content)
            self.bytes(content, place, leaks, account)
            if content.startswith(SQLITE):
                for table, cells in tables(path):
                    self.bytes(cells, f"{place}, table {table}", leaks, account)
        return leaks

    def bytes(self, content, place, leaks, account, depth=0):
        account.bytes += len(content)
        leaks += [(place, name, needle[:6]) for needle, name, form in self.forms if form in content]
        if depth < DEPTH:
            for start, inner in inflated(content):
                self.bytes(inner, f"{place} (compressed at {start})", leaks, account, depth + 1)


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def folders(folder):
    return sorted(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())


def inflated(content):
    """Whatever inflates at a gzip or zlib signature."""
    for found in DEFLATED.finditer(content):
        try:
            inner = zlib.decompressobj(wbits=47).decompress(content[found.start():], LARGEST)
        except zlib.error:
            continue
        if len(inner) >= SHORTEST:
            yield found.start(), inner


def tables(path):
    """A value longer than a page lies in pieces in a database file, so its cells are read as well."""
    with tempfile.TemporaryDirectory() as folder:
        for sibling in path.parent.glob(path.name + "*"):
            shutil.copy2(sibling, folder)
        database = sqlite3.connect(Path(folder) / path.name)
        database.text_factory = bytes
        names = [row[0].decode() for row in database.execute("select name from sqlite_master where type = 'table'")]
        for name in names:
            cells = [cell for row in database.execute(f'select * from "{name}"') for cell in row]
            yield name, b"\n".join(cell for cell in cells if isinstance(cell, bytes))
        database.close()


def missed_decoys(sinks):
    """Plants a decoy in a copy of every sink in every form; returns what the search did not find again."""
    planted = dict(forms_of(DECOY))
    planted["gzip"] = gzip.compress(f"before {DECOY} after".encode())
    planted["zlib over base64"] = zlib.compress(base64.b64encode(f"x{DECOY}".encode()))
    needles, missed = Needles([DECOY]), []
    for path in files(sinks):
        for name, form in planted.items():
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / path.name
                plant(path, copy, form)
                if not needles.search(Path(folder), Account()):
                    missed.append(f"{name} in {path.relative_to(sinks)}")
    return missed


def plant(sink, copy, form):
    """A database gets the decoy as a value over several pages, any other file in its middle."""
    content = sink.read_bytes()
    if content.startswith(SQLITE):
        shutil.copy2(sink, copy)
        database = sqlite3.connect(copy)
        database.execute("create table decoy (value blob)")
        database.execute("insert into decoy values (?)", [b" " * 4090 + form + b" " * 4090])
        database.commit()
        database.close()
        return
    middle = len(content) // 2
    copy.write_bytes(content[:middle] + form + content[middle:])


def lines_of(path):
    return [line for line in path.read_text().splitlines() if line] if path.exists() else []


def sweep(run, only, whole):
    """(what is wrong, the account's lines)."""
    problems, account, fullest = [], Account(), (0, None)
    kinds = lines_of(run / "kinds.txt")
    for folder in sorted((run / "scenarios").glob(only or "*")):
        secrets = set(lines_of(run / "needles" / f"{folder.name}.txt"))
        sinks = folder / "sinks"
        if not secrets:
            continue
        needles = Needles(secrets)
        account.scenarios += 1
        account.secrets += len(secrets)
        account.forms += len(needles.forms)
        for kind in lines_of(run / "kinds" / f"{folder.name}.txt"):
            account.kinds[kind].add(folder.name)
        for place, form, start in needles.search(sinks, account):
            problems.append(f"{folder.name}: {place}: a secret as {form}, starting {start}")
        distinct = len({path.relative_to(sinks).parts[-1] for path in files(sinks)})
        fullest = max(fullest, (distinct, sinks), key=lambda pair: pair[0])
    if fullest[1]:
        problems += [f"a decoy was not found: {what}" for what in missed_decoys(fullest[1])]
    if not account.scenarios:
        problems.append("nothing to search: no scenario left sinks behind")
    if whole:
        problems += account.lacking(kinds) if kinds else ["no kinds.txt: nothing says what canaries stand for"]
    return problems, account.lines(kinds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("scenario", nargs="?", metavar="SCENARIO")
    parser.add_argument("--whole", action="store_true", help="every kind of sink and of secret has to be there")
    args = parser.parse_args()
    found, lines = sweep(args.run, args.scenario, args.whole)
    print("\n".join([*found, *lines, f"{len(found)} problems"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
