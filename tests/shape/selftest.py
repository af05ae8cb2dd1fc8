"""Plants one violation per check in a tree of its own and expects it to be found, and a clean tree to pass."""

import tempfile
from pathlib import Path

from . import checks, docs, rust

CLEAN = {
    "policy/src/caller.rs": "//! Callers.\npub trait Proven {}\n",
    "gateway/src/request.rs": "//! The route.\nfn forward() {}\n",
    "gateway/src/injection.rs": "//! Puts keys on.\nfn f(s: Secret) { s.expose(); }\n",
    "gateway/src/identity/certificate.rs": "//! SVIDs.\nimpl Proven for Verified {}\n",
    "gateway/src/main.rs": "//! The binary.\nfn main() -> anyhow::Result<()> { Ok(()) }\n",
    "secrets/src/lib.rs": "//! Values; they `expose` nothing.\nconst S: &str = \"x.expose()\";\n"
    "#[cfg(test)]\nmod tests { fn f(s: Secret) { s.expose(); } }\n",
    "policy/src/model/store.rs": "//! S.\nstruct StoreSpec {\n    pub(crate) file: Option<FileSpec>,\n}\n",
    "policy/src/model/mint.rs": "//! M.\nstruct MintSpec {\n    pub(crate) endpoint: Option<EndpointSpec>,\n}\n",
    "policy/src/model/credential.rs": "//! C.\nstruct InjectSpec {\n    #[serde(rename = \"sigv4\")]\n"
    "    pub(crate) sig_v4: Option<SigV4Spec>,\n}\n",
    "tests/src/secret_kinds.rs": "//! K.\nkinds! { File: \"store file\"; SigV4: \"inject sigv4\"; }\n",
    "README.md": "# Tollgate\n[a](policy/README.md#of-limits), [b](#tollgate), [c](https://example.com/#d)\n",
    "policy/README.md": "# Policy\n## Of `limits`\n| " + "a table " * 20 + "|\n```\n[code](nowhere) " + "long " * 30 + "\n```\n",
    # A module and those below it import each other, and what imports from them is not imported by them.
    "policy/src/parent.rs": "//! P.\nmod child;\nmod sibling;\npub use child::Child;\npub fn common((a, b): (u8, u8), c: u8, d: u8, e: u8, f: u8) {}\n",
    "policy/src/parent/child.rs": "//! C.\nuse super::common;\n#[cfg(test)]\nmod tests { use crate::other; }\n",
    "policy/src/parent/sibling.rs": "//! S.\nuse super::{child::{Child, self}, common};\n",
    "policy/src/facade.rs": "//! F.\npub use crate::parent::Child;\n",
    "policy/src/other.rs": "//! O.\nuse crate::facade::Child;\nuse crate::parent;\n",
    # One name in a function, in tests, in another crate, and clap's words.
    "policy/src/one.rs": "//! O.\npub(crate) struct Part<T>(T);\nimpl Trait for Part<u8> {\n    type Part = u8;\n}\n",
    "policy/src/two.rs": "//! T.\n// struct Part;\nfn f() {\n    struct Part;\n}\n#[cfg(test)]\nmod tests {\nstruct Part;\n}\n",
    "policy/tests/part.rs": "struct Part;\n",
    "secrets/src/part.rs": "//! P.\nstruct Part;\n",
    "gateway/src/cli/one.rs": "//! O.\nenum Command {}\npub struct ListArgs {}\n",
    "gateway/src/cli/two.rs": "//! T.\nenum Command {}\npub struct ListArgs {}\n",
    "tests/fuzz/fuzz_targets/sse.rs": "#![no_main]\n",
    "tests/fuzz/corpus/sse/one": "data: 1\n",
    "gateway/src/fuzz.rs": "//! F.\nfn sse() { replay(\"sse\", super::sse); }\n",
    ".ci/run": "#!/usr/bin/env bash\nexec \"$(dirname \"$0\")/../tests/run\"\n",
}
PLANTED = [
    ("file_length", "policy/src/long.rs", "//! Long.\n" + "fn f() {}\n" * (checks.FILE_LINES + 1)),
    ("no_mod_rs", "policy/src/model/mod.rs", "//! A module.\n"),
    ("request_fits_a_screen", "gateway/src/request.rs", "//! R.\n" + "fn f() {}\n" * (checks.REQUEST_LINES + 1)),
    ("module_docs", "policy/src/talk.rs", "//! words\n" * (checks.MODULE_DOC_LINES + 1)),
    ("module_docs", "policy/src/silent.rs", "fn f() {}\n"),
    ("secrets_stay_put", "gateway/src/reply.rs", "//! R.\nfn f(s: &Secret) { log(s.expose()); }\n"),
    ("secrets_stay_put", "gateway/src/reply.rs", "//! R.\nlet f = Secret::expose;\n"),
    ("callers_are_proven", "gateway/src/request.rs", "//! R.\nimpl caller::Proven for Head {}\n"),
    ("callers_are_proven", "gateway/src/request.rs", "//! R.\nuse tollgate_policy::caller::{Issuer, assumed};\n"),
    ("callers_tokens_stay_put", "gateway/src/request.rs", "//! R.\nlet t = head.credentials.passed_on(&permit, now);\n"),
    ("anyhow_at_the_edge", "gateway/src/quota.rs", "//! Q.\nuse anyhow::Context;\n"),
    ("anyhow_at_the_edge", "policy/Cargo.toml", "anyhow.workspace = true\n"),
    ("nothing_unfinished", "policy/src/a.rs", "//! A.\n// TO" "DO: later\n"),
    ("nothing_unfinished", "policy/src/a.rs", "//! A.\nfn f() { to" "do!() }\n"),
    ("nothing_unfinished", "policy/src/a.rs", "//! A.\n#[al" "low(dead_code)]\nfn f() {}\n"),
    ("nothing_unfinished", "policy/src/a.rs", "//! A.\n#[ig" "nore]\nfn f() {}\n"),
    ("expectations_have_reasons", "policy/src/a.rs", "//! A.\n#[expect(dead_code)]\nfn f() {}\n"),
    ("no_development_talk", "README.md", "As issue 7 asked.\n"),
    ("no_development_talk", "policy/src/a.rs", "//! See DESIGN.md.\n"),
    ("one_command", ".ci/run", "cargo test\n"),
    ("attacks", "tests/ATTACKS.md", "| an attack | `a_test_that_is_not_there` |\n"),
    ("canary_kinds", "policy/src/model/store.rs", "//! S.\nstruct StoreSpec {\n    pub(crate) a_b: Option<AbSpec>,\n}\n"),
    ("links_lead_somewhere", "README.md", "[a](policy/NOWHERE.md)\n"),
    ("links_lead_somewhere", "README.md", "[a](policy/README.md#of-nothing)\n"),
    ("links_lead_somewhere", "tests/README.md", "# Tests\n[a](#of-nothing)\n"),
    ("readme_is_a_page", "README.md", "a line\n" * (docs.README_LINES + 1)),
    ("documents_have_short_lines", "SECURITY.md", "word " * 30 + "\n"),
    ("canary_kinds", "tests/src/secret_kinds.rs", "//! K.\nkinds! { File: \"store file\"; }\n"),
    ("fuzz_targets", "tests/fuzz/fuzz_targets/new.rs", "#![no_main]\n"),
    ("fuzz_targets", "gateway/src/fuzz.rs", "//! F.\n"),
    ("fuzz_targets", "tests/fuzz/corpus/sse/two", "x" * (checks.CORPUS_BYTES + 1)),
    ("import_circles", "policy/src/parent/child.rs", "//! C.\nuse crate::other::Other;\n"),
    ("import_circles", "policy/src/parent/child.rs", "//! C.\nuse super::sibling::Sibling;\n"),
    ("import_circles", "policy/src/parent/child.rs", "//! C.\nfn f() { crate::other::f(); }\n"),
    ("import_circles", "policy/src/parent.rs", "//! P.\nuse crate::other::{self, Other as _};\n"),
    ("type_names", "policy/src/two.rs", "//! T.\nenum Part {}\n"),
    ("type_names", "policy/src/two/deep.rs", "//! T.\npub(crate) type Part = u8;\n"),
    ("hidden_arguments", "policy/src/a.rs", "//! A.\nfn f<T: Fn(u8) -> u8>(a: T, (b, (c, d)): X<u8, u8>, e: &[u8], (f, g): (u8, u8)) {}\n"),
]
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"


def run():
    """Problems with the checks themselves."""
    problems = []
    clean = findings(CLEAN)
    problems += [f"self-test: {name} complains about a clean tree: {found[0]}" for name, found in clean.items() if found]
    for name, path, text in PLANTED:
        if not findings({**CLEAN, path: text})[name]:
            problems.append(f"self-test: {name} misses what was planted in {path}: {text[:60]!r}")
    return problems + metadata_checks() + lexer()


def findings(files):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        names = {name for name, _, _ in PLANTED}
        return {name: getattr(checks, name)(root) for name in names}


def metadata_checks():
    good = {"packages": [
        {"name": "tollgate", "source": None, "license": "Apache-2.0", "dependencies": [{"name": "tollgate-policy"}]},
        {"name": "serde", "source": REGISTRY, "license": "MIT/Apache-2.0", "dependencies": []},
        {"name": "bits", "source": REGISTRY, "license": "(MIT OR GPL-3.0) AND ISC", "dependencies": []},
    ]}
    back = {"packages": [dict(good["packages"][0], name="tollgate-policy", dependencies=[{"name": "tollgate"}])]}
    copyleft = {"packages": [dict(good["packages"][1], license="MIT AND GPL-3.0")]}
    fork = {"packages": [dict(good["packages"][1], source="git+https://example.org/serde")]}
    deny = '[licenses]\nallow = ["MIT", "ISC", "Apache-2.0"]\n'
    expectations = [
        ("a clean graph", checks.crate_direction(good, "tollgate-policy v1\nserde v1\n"), False),
        ("an arrow that points back", checks.crate_direction(back, ""), True),
        ("tokio under policy", checks.crate_direction(good, "tollgate-policy v1\ntokio v1.0\n"), True),
        ("allowed licences", checks.dependencies_allowed(good, deny), False),
        ("a copyleft licence", checks.dependencies_allowed(copyleft, deny), True),
        ("a crate from a fork", checks.dependencies_allowed(fork, deny), True),
    ]
    return [f"self-test: {what}: found {found}" for what, found, expected in expectations if bool(found) != expected]


def lexer():
    source = 'let a = "// no"; // yes\n/* /* nested */ */ let b = r#"x " y"#; let c: &\'a str = \'"\'; // z\n\n'
    code = rust.code_only(source)
    good = rust.lines_of_code(source) == 2 and "yes" not in code and "no" not in code and "&'a str" in code
    return [] if good and "nested" not in code and "z" not in code else [f"self-test: the lexer says {code!r}"]
