//! What operators and app teams write.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use tollgate_policy::compile::{Environment, compile_files};
use tollgate_policy::model::{Problem, SourceFile};

use crate::metering::catalog;
use crate::settings::Settings;

/// Longer files show nothing that shorter ones do not.
const BYTES: usize = 4096;

static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| Environment {
    catalog: Arc::new(catalog::shipped().unwrap_or_default()),
    gateway_names: ["tollgate:8443"].iter().filter_map(|name| name.parse().ok()).collect(),
    trust_domains: ["prod.acme"].iter().filter_map(|name| name.parse().ok()).collect(),
    issuers: ["https://ci.example"].iter().filter_map(|name| name.parse().ok()).collect(),
    clusters: ["eu-1"].iter().filter_map(|name| name.parse().ok()).collect(),
    audiences: vec!["tollgate".to_owned()],
    ..Environment::default()
});

/// Settings where the first byte is even, else resources: every problem names a line that there is.
pub fn yaml(data: &[u8]) {
    let Some((how, text)) = data.split_first() else { return };
    let Some(text) = std::str::from_utf8(text).ok().filter(|text| text.len() <= BYTES) else { return };
    let problems = if how % 2 == 0 { settings(text) } else { resources(text) };
    // As YAML has them (YAML 1.2.2 section 5.4): LF, CRLF or CR ends one.
    let lines = text.replace("\r\n", "\n").split(['\n', '\r']).count();
    for problem in &problems {
        assert!((1..=lines).contains(&problem.line), "{problem}");
        assert!(!problem.message.is_empty(), "{problem}");
    }
    // No line has more to say of it than it has characters.
    assert!(problems.len() <= 64 + 4 * text.len(), "{} problems", problems.len());
}

fn resources(text: &str) -> Vec<Problem> {
    let file = SourceFile { path: "fuzz.yaml".into(), text: text.to_owned() };
    match compile_files(&[file], &ENVIRONMENT) {
        Ok(compiled) => compiled.warnings,
        Err(problems) => {
            assert!(!problems.is_empty(), "it is refused and nothing is said of it");
            problems
        }
    }
}

fn settings(text: &str) -> Vec<Problem> {
    let Ok(mut file) = tempfile::NamedTempFile::new() else { return Vec::new() };
    if file.write_all(text.as_bytes()).is_err() {
        return Vec::new();
    }
    let path: &Path = file.path();
    match Settings::read(path, |_| None) {
        Ok(_) => Vec::new(),
        Err(problems) => {
            assert!(!problems.is_empty(), "it is refused and nothing is said of it");
            problems
        }
    }
}
