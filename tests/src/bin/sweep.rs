//! `sweep RUN`: searches the sinks of every scenario of a run for that scenario's secrets. Exit 1 when one is found, when
//! a decoy is not, or when there was nothing to search.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use tollgate_tests::sweep::{Needles, missed_decoys};

fn main() -> ExitCode {
    let run = std::env::args().nth(1).expect("usage: sweep RUN");
    let run = Path::new(&run);
    let mut problems = Vec::new();
    let mut searched = 0;
    let mut decoyed = false;
    for entry in fs::read_dir(run.join("scenarios")).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let sinks = entry.path().join("sinks");
        let secrets = fs::read_to_string(run.join("needles").join(format!("{name}.txt"))).unwrap_or_default();
        if secrets.is_empty() {
            continue;
        }
        searched += 1;
        for leak in Needles::new(secrets.lines()).search(&sinks) {
            problems.push(format!(
                "{name}: {}: a secret, {}, starting {}",
                leak.place, leak.encoding, leak.needle
            ));
        }
        if !decoyed && sinks.join("gateway/data").exists() {
            decoyed = true;
            let missed = missed_decoys(&sinks, &run.join("decoys"));
            problems.extend(missed.into_iter().map(|what| format!("{name}: a decoy was not found: {what}")));
        }
    }
    if searched == 0 {
        problems.push("nothing to search: no scenario left sinks behind".to_owned());
    }
    for problem in &problems {
        println!("{problem}");
    }
    println!("{searched} scenarios searched, {} problems", problems.len());
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
