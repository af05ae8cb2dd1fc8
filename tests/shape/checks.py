"""The shape of the source tree. Each check takes the tree's root and returns a list of problems."""

import json
import re
import subprocess
from pathlib import Path

from . import imports, rust
from .docs import documents_have_short_lines, links_lead_somewhere, readme_is_a_page

FILE_LINES = 400
REQUEST_LINES = 90
MODULE_DOC_LINES = 15
ARGUMENTS = 6
CORPUS_FILES = 60
CORPUS_BYTES = 300_000
CRATES = ["policy", "secrets", "gateway", "tests"]
PACKAGES = dict(zip(CRATES, ["tollgate-policy", "tollgate-secrets", "tollgate", "tollgate-tests"]))

# Where a secret's bytes may be read, and which types may be declared to prove a caller: the definitions and these.
EXPOSE = ["secrets/src/secret.rs", "secrets/src/store.rs", "secrets/src/store/", "secrets/src/mint.rs", "secrets/src/mint/",
          "gateway/src/injection.rs", "gateway/src/injection/", "gateway/src/upstream/certificate.rs"]
PROVEN = ["gateway/src/identity/", "policy/src/caller/assumed.rs"]
ASSUMED = ["gateway/src/cli/explain.rs", "gateway/src/cli/access/diff.rs"]
TOKENS = ["gateway/src/identity/credentials.rs", "gateway/src/injection/template.rs"]
ANYHOW = ["gateway/src/main.rs", "gateway/src/app.rs", "gateway/src/app/", "gateway/src/cli.rs", "gateway/src/cli/"]
NOT_IN_POLICY = {"tokio", "hyper", "hyper-util", "kube", "reqwest", "rustls", "tracing", "rusqlite", "zeroize"}

# Where the kinds of each group stand in the model.
KINDS = [("store", "store.rs", "StoreSpec"), ("mint", "mint.rs", "MintSpec"), ("inject", "credential.rs", "InjectSpec")]

# What clap's derive calls the parts of every command.
CLAP = re.compile(r"Command|Format|\w+Args")

UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b|\b(?:todo|unimplemented)!|#\[ignore\b|#!?\[allow\(")
DEVELOPMENT = re.compile(
    r"\bissues? #?\d+\b|\bsub-?agents?\b|\bCEO\b|\bthe brief\b|/work/|/tmp/plan|\bCONTRACT\.md\b|\bDESIGN\.md\b"
    r"|\bshared/reference\b|\bin a later (?:issue|change|step)\b|\bas (?:asked|requested|instructed)\b"
    r"|\bcoming soon\b|\bplaceholder\b|\bwork in progress\b|\bAI[- ](?:generated|assistant)\b",
    re.I,
)
TEXT = {".rs", ".py", ".md", ".toml", ".yaml", ".yml", ".sh", ".json", ".lua", ".cfg"}


def run(root):
    """(name, problems) of every check over a tree."""
    for check in (file_length, no_mod_rs, request_fits_a_screen, module_docs, secrets_stay_put, callers_are_proven, callers_tokens_stay_put,
                  anyhow_at_the_edge, nothing_unfinished, expectations_have_reasons, no_development_talk, one_command,
                  attacks, canary_kinds, fuzz_targets, import_circles, hidden_arguments, type_names,
                  links_lead_somewhere, readme_is_a_page, documents_have_short_lines):
        yield check.__name__, check(Path(root))
    yield "crate_direction", crate_direction(metadata(root), tree(root))
    yield "dependencies_allowed", dependencies_allowed(metadata(root), (Path(root) / "deny.toml").read_text())


def rust_files(root):
    for crate in CRATES:
        for path in sorted((root / crate).rglob("*.rs")):
            name = path.relative_to(root).as_posix()
            if not name.startswith("tests/fuzz/target/"):
                yield path, name


def is_test(name):
    """A file of tests: a crate's tests folder, or the sibling of a module."""
    return name.startswith("tests/") or "/tests/" in name or name.endswith("/tests.rs") or "/benches/" in name


def file_length(root):
    return [f"{name}: {count} lines of code, at most {FILE_LINES}"
            for path, name in rust_files(root)
            if (count := rust.lines_of_code(path.read_text())) > FILE_LINES]


def no_mod_rs(root):
    return [f"{name}: write it as {path.parent.name}.rs" for path, name in rust_files(root) if path.name == "mod.rs"]


def request_fits_a_screen(root):
    path = root / "gateway/src/request.rs"
    if not path.exists():
        return ["gateway/src/request.rs is missing: the route of one request stands there"]
    count = rust.lines_of_code(path.read_text())
    return [f"gateway/src/request.rs: {count} lines of code, at most {REQUEST_LINES}"] if count > REQUEST_LINES else []


def module_docs(root):
    found = []
    for path, name in rust_files(root):
        count = sum(1 for line in path.read_text().splitlines() if line.startswith("//!"))
        if count > MODULE_DOC_LINES:
            found.append(f"{name}: a module doc of {count} lines, at most {MODULE_DOC_LINES}")
        if not count and not is_test(name):
            found.append(f"{name}: no module doc")
    return found


def only_in(root, pattern, places, what):
    found = []
    for path, name in rust_files(root):
        if is_test(name) or any(name == place or place.endswith("/") and name.startswith(place) for place in places):
            continue
        code = rust.without_tests(rust.code_only(path.read_text()))
        found += [f"{name}:{line}: {text}: {what}" for line, text in rust.matches(pattern, code)]
    return found


def secrets_stay_put(root):
    return only_in(root, r"(?:\.|Secret::)\s*expose\b", EXPOSE, "a secret's bytes are read only in the listed modules")


def callers_are_proven(root):
    found = only_in(root, r"\bProven\s+(?:for|as)\b", PROVEN, "only what a verifier of `identity` makes is a proof of a caller")
    return found + only_in(root, r"\bcaller::(?:assumed\b|\{[^}]*\bassumed\b)", ASSUMED, "a caller is assumed to be proven by commands that explain alone")


def callers_tokens_stay_put(root):
    return only_in(root, r"\bpassed_on\b", TOKENS, "a caller's own token is read only by injection")


def anyhow_at_the_edge(root):
    found = only_in(root, r"\banyhow\b", ANYHOW, "`anyhow` only in main, app and cli")
    for crate in ("policy", "secrets"):
        manifest = root / crate / "Cargo.toml"
        if manifest.exists() and re.search(r"^anyhow\b", manifest.read_text(), re.M):
            found.append(f"{crate}/Cargo.toml: `anyhow` only in main, app and cli")
    return found


def nothing_unfinished(root):
    found = []
    for path, name in rust_files(root):
        found += [f"{name}:{line}: {text}" for line, text in rust.matches(UNFINISHED, path.read_text())]
    return found


def expectations_have_reasons(root):
    found = []
    for path, name in rust_files(root):
        code = rust.code_only(path.read_text())
        found += [f"{name}:{line}: #[expect] without a reason"
                  for line, text in rust.matches(r"#!?\[expect\([^\]]*\]", code) if "reason" not in text]
    return found


def no_development_talk(root):
    """What a reader of the product has no use for: how, when and by whom it is made."""
    found = []
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        hidden = path.relative_to(root).parts[0] in {"target", ".git"}
        if hidden or name.startswith("tests/shape/") or not path.is_file() or path.suffix not in TEXT:
            continue
        found += [f"{name}:{line}: {text!r}"
                  for line, text in rust.matches(DEVELOPMENT, path.read_text(errors="replace"))]
    return found


def attacks(root):
    """Every test that the map of attacks names is a test."""
    path = root / "tests/ATTACKS.md"
    if not path.exists():
        return []
    rows = [line.split("|")[2] for line in path.read_text().splitlines() if line.startswith("| ") and "`" in line]
    named = {name for row in rows for name in re.findall(r"`([a-z0-9_]+)`", row)}
    tests = "\n".join(path.read_text(errors="replace") for path, _ in rust_files(root))
    return [f"tests/ATTACKS.md: no test {name}" for name in sorted(named) if not re.search(rf"fn {name}\(\)", tests)]


def canary_kinds(root):
    """Every way to keep, mint and inject a secret that resources can name is one that a canary of some scenario has to go through."""
    path = root / "tests/src/secret_kinds.rs"
    named = set(re.findall(r'"(\w+ \w+)"', path.read_text())) if path.exists() else set()
    found = []
    for group, file, struct in KINDS:
        path = root / "policy/src/model" / file
        body = re.search(rf"struct {struct} {{(.*?)\n}}", path.read_text() if path.exists() else "", re.S)
        member = r'(?:rename = "(\w+)"\)\]\s+)?pub\(crate\) (\w+): Option<(?!EndpointSpec)\w+Spec>'
        words = [word or camel(name) for word, name in re.findall(member, body[1])] if body else []
        found += [f"tests/src/secret_kinds.rs: no kind {group} {word}" for word in words if f"{group} {word}" not in named]
    return found


def fuzz_targets(root):
    """Every fuzz target has a corpus, which is small, and which a test replays."""
    fuzz, replay = root / "tests/fuzz", root / "gateway/src/fuzz.rs"
    replayed = replay.read_text() if replay.exists() else ""
    found, total = [], 0
    for target in sorted(path.stem for path in fuzz.glob("fuzz_targets/*.rs")):
        inputs = [path.stat().st_size for path in (fuzz / "corpus" / target).glob("*")]
        total += sum(inputs)
        if not 0 < len(inputs) <= CORPUS_FILES:
            found.append(f"tests/fuzz/corpus/{target}: {len(inputs)} inputs, from 1 to {CORPUS_FILES}")
        if f'replay("{target}"' not in replayed:
            found.append(f"gateway/src/fuzz.rs: nothing replays tests/fuzz/corpus/{target}")
    return found + ([f"tests/fuzz/corpus: {total} bytes, at most {CORPUS_BYTES}"] if total > CORPUS_BYTES else [])


def camel(name):
    return re.sub(r"_(\w)", lambda found: found[1].upper(), name)


def import_circles(root):
    """No file imports, by way of others, one that imports it; but a module and those below it."""
    found = []
    for crate in CRATES:
        files = {name: path.read_text() for path, name in rust_files(root)
                 if name.startswith(f"{crate}/src/") and not is_test(name) and not name.endswith("/main.rs")}
        names = {imports.module(name): name for name in files}
        circles = [[names[module] for module in circle] for circle in imports.circles(imports.edges(files))]
        found += ["these import each other: " + ", ".join(circle) for circle in circles]
    return found


def hidden_arguments(root):
    """No function takes more than six things, the elements of its tuples counted."""
    return [f"{name}:{line}: {function} takes {count} arguments, at most {ARGUMENTS}"
            for path, name in rust_files(root) if not is_test(name)
            for line, function, count in imports.arguments(path.read_text())
            if count > ARGUMENTS]


def type_names(root):
    """No name of a type stands for two things in one crate; but in tests, in functions, and for clap's words in `cli`."""
    found = []
    for crate in CRATES:
        places = {}
        for path, name in rust_files(root):
            if not name.startswith(f"{crate}/") or is_test(name):
                continue
            code = rust.without_tests(rust.code_only(path.read_text()))
            for kind in re.findall(r"^(?:pub(?:\([^)]*\))? )?(?:struct|enum|trait|union|type) (\w+)", code, re.M):
                if not ("/src/cli" in name and CLAP.fullmatch(kind)):
                    places.setdefault(kind, []).append(name)
        found += [f"{kind} stands for several things: " + ", ".join(names) for kind, names in sorted(places.items()) if len(names) > 1]
    return found


def one_command(root):
    path = root / ".ci/run"
    lines = [line for line in (path.read_text() if path.exists() else "").splitlines()
             if line.strip() and not line.startswith("#")]
    good = len(lines) == 1 and "tests/run" in lines[0]
    return [] if good else [".ci/run: calls tests/run and nothing else"]


def crate_direction(meta, policy_tree):
    """Each crate depends only on crates to its left; `policy` on nothing that does I/O or holds a value."""
    found = []
    order = {PACKAGES[crate]: place for place, crate in enumerate(CRATES)}
    for package in meta["packages"]:
        for dependency in package["dependencies"]:
            if package["name"] in order and order.get(dependency["name"], -1) >= order[package["name"]]:
                found.append(f"{package['name']} depends on {dependency['name']}")
    banned = NOT_IN_POLICY & {line.split()[0] for line in policy_tree.splitlines() if line.strip()}
    return found + [f"tollgate-policy depends on {name}" for name in sorted(banned)]


def dependencies_allowed(meta, deny):
    """The two rules of deny.toml that need no database: licences, and where a crate comes from."""
    allowed = set(re.findall(r'"([^"]+)"', re.search(r"^allow\s*=\s*\[(.*?)\]", deny, re.M | re.S).group(1)))
    found = []
    for package in meta["packages"]:
        source = package["source"]
        if source is None:
            continue
        if source != "registry+https://github.com/rust-lang/crates.io-index":
            found.append(f"{package['name']}: comes from {source}")
        if not licence_allowed(package["license"] or "", allowed):
            found.append(f"{package['name']}: licence {package['license']!r} is not in deny.toml")
    return found


def licence_allowed(expression, allowed):
    """An SPDX expression holds when some choice of its ORs leaves only allowed licences."""
    expression = re.sub(r"\s*/\s*", " OR ", expression)
    words = re.findall(r"\(|\)|[^\s()]+", re.sub(r"\s+WITH\s+", "~", expression))
    python = " ".join(
        {"OR": "or", "AND": "and", "(": "(", ")": ")"}.get(word) or str(word.replace("~", " WITH ") in allowed)
        for word in words
    )
    return bool(words) and bool(eval(python, {"__builtins__": {}}))  # only True, False, and, or, brackets


def metadata(root):
    return json.loads(cargo(root, "metadata", "--format-version=1", "--locked"))


def tree(root):
    return cargo(root, "tree", "--locked", "-p", "tollgate-policy", "-e", "normal", "--prefix", "none")


def cargo(root, *arguments):
    done = subprocess.run(["cargo", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"cargo {arguments[0]}: {done.stderr}")
    return done.stdout
