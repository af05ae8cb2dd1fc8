//! Broken configurations: each file in `broken/` says in its comments every problem that it has, and has no other.
//!
//! A comment is `# expect: line N: FIELD: PART`, where the problem stands in line N, is about exactly this field, and PART occurs in
//! its message. The trust domain is `prod.acme`, the gateway's name `tollgate:8443`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is a test")]

#[path = "support/read.rs"]
mod read;

use tollgate_policy::compile::{Environment, compile_files};
use tollgate_policy::model::{Problem, SourceFile};

#[test]
fn every_problem_is_named_by_file_line_and_field() {
    let files = read::files(&read::tests().join("broken"));
    assert!(files.len() >= 20);
    let wrong: String = files.iter().map(compare).collect();
    assert!(wrong.is_empty(), "{wrong}");
}

fn compare(file: &SourceFile) -> String {
    let environment = Environment {
        catalog: read::catalog(),
        gateway_names: vec!["tollgate:8443".parse().unwrap()],
        trust_domains: vec!["prod.acme".parse().unwrap()],
        own_files: [("ledger.sealKeyFile", "/etc/tollgate/seal.key"), ("dataDir", "/var/lib/tollgate")]
            .map(|(setting, path)| (setting.to_owned(), path.into()))
            .into(),
        ..Environment::default()
    };
    let mut problems = compile_files(std::slice::from_ref(file), &environment).err().unwrap_or_default();
    let mut wrong = String::new();
    for expected in file.text.lines().filter_map(|line| line.strip_prefix("# expect: line ")) {
        match problems.iter().position(|problem| problem.file == file.path && is_expected(problem, expected))
        {
            Some(index) => drop(problems.remove(index)),
            None => wrong += &format!("{}: missing: line {expected}\n", file.path.display()),
        }
    }
    for problem in problems {
        wrong += &format!("unexpected: {problem}\n");
    }
    wrong
}

fn is_expected(problem: &Problem, expected: &str) -> bool {
    let rest = expected.strip_prefix(&format!("{}: {}: ", problem.line, problem.field));
    rest.is_some_and(|part| problem.message.contains(part))
}
