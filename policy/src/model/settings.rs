//! Other documents than resources, read with the same care: every problem with its line.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::source::{self, Source};
use super::{Problem, SourceFile, yaml};

/// Reads a file that is one document of type `T`, after `edit` had its way with it. Beside it comes where each of its fields stands.
///
/// # Errors
/// Every problem that was found, with its line.
pub fn read_settings<T: DeserializeOwned>(
    file: &SourceFile,
    edit: impl FnOnce(&mut Value),
) -> Result<(T, Source), Vec<Problem>> {
    let mut documents = yaml::read(&file.text).into_iter();
    let mut document = documents.next().unwrap_or_default();
    let mut source = Source::new(&file.path, String::new(), std::mem::take(&mut document.lines));
    let faults = std::mem::take(&mut document.faults).into_iter();
    let mut problems: Vec<Problem> =
        faults.map(|fault| source.problem_at(fault.line, &fault.path, fault.message)).collect();
    if documents.next().is_some() {
        problems.push(source.problem("", "there is more than one document in this file"));
    }
    if problems.is_empty() {
        edit(&mut document.value);
    }
    match source::parse::<Option<T>>(&document, &mut source, &mut problems) {
        Some(settings) if problems.is_empty() => Ok((settings, source)),
        None if problems.is_empty() => Err(vec![source.problem("", "the file is empty")]),
        _ => {
            problems.sort();
            Err(problems)
        }
    }
}
