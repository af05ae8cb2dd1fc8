//! Golden pairs: what a change of resources adds and removes, in the words that a reviewer reads, and what goes beyond a boundary.
//!
//! Each folder of `access/` has `old.yaml` and `new.yaml`, or only `new.yaml` where the change is held against `boundary.yaml`, and
//! `expected.txt`. `TOLLGATE_WRITE_GOLDEN=1 cargo test -p tollgate-policy --test access` writes these anew.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is a test")]

#[path = "support/assumed.rs"]
mod assumed;
#[path = "support/read.rs"]
mod read;

use std::path::{Path, PathBuf};

use tollgate_policy::access::{Violation, beyond, changed, diff};
use tollgate_policy::compile::{Environment, compile_boundaries, compile_files};
use tollgate_policy::model::{Problem, SourceFile};
use tollgate_policy::policy::Policy;

fn folders() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(read::tests().join("access")).unwrap();
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn environment() -> Environment {
    Environment {
        catalog: read::catalog(),
        trust_domains: vec!["prod.acme".parse().unwrap()],
        issuers: vec!["https://ci.example".parse().unwrap()],
        clusters: vec!["eu-1".parse().unwrap()],
        ..Environment::default()
    }
}

fn source(path: &Path) -> SourceFile {
    // Problems and CA files are named the same wherever this is built.
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    SourceFile { path: name.into(), text: std::fs::read_to_string(path).unwrap() }
}

fn problems(path: &Path, problems: &[Problem]) -> ! {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    panic!("{}:\n{}", path.display(), lines.join("\n"))
}

fn policy(path: &Path) -> Policy {
    match compile_files(&[source(path)], &environment()) {
        Ok(compiled) => compiled.policy,
        Err(found) => problems(path, &found),
    }
}

fn said(folder: &Path) -> String {
    let new = policy(&folder.join("new.yaml"));
    let mut lines = Vec::new();
    let old = folder.join("old.yaml");
    let old = if old.exists() { policy(&old) } else { Policy::default() };
    let boundary = folder.join("boundary.yaml");
    if boundary.exists() {
        let boundaries = match compile_boundaries(&source(&boundary), &environment()) {
            Ok(boundaries) => boundaries,
            Err(found) => problems(&boundary, &found),
        };
        for Violation { grant, field, words } in
            changed(&old, &new).flat_map(|grant| beyond(grant, &boundaries))
        {
            lines.push(format!("! grant {grant}: {field}: {words}"));
        }
    } else {
        let now = "2026-06-01T00:00:00Z".parse().unwrap();
        let found = diff(&old, &new, now, &|id| assumed::caller(id.as_str()));
        lines.extend(found.adds.iter().map(|change| format!("+ {}: {}", change.what.as_str(), change.words)));
        lines.extend(
            found.removes.iter().map(|change| format!("- {}: {}", change.what.as_str(), change.words)),
        );
    }
    if lines.is_empty() { "nothing\n".to_owned() } else { lines.join("\n") + "\n" }
}

#[test]
fn every_change_is_said_in_the_words_that_are_expected() {
    let (mut pairs, mut bounded, mut wrong) = (0, 0, String::new());
    for folder in folders() {
        if folder.join("boundary.yaml").exists() {
            bounded += 1;
        } else {
            pairs += 1;
        }
        let (found, file) = (said(&folder), folder.join("expected.txt"));
        if std::env::var_os("TOLLGATE_WRITE_GOLDEN").is_some() {
            std::fs::write(&file, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        if found != expected {
            wrong += &format!("{}\nexpected:\n{expected}found:\n{found}\n", folder.display());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(pairs >= 30 && bounded >= 10, "{pairs} pairs and {bounded} boundaries");
}
