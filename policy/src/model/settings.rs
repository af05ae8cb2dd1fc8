//! Files that are one document and no resource: settings and the catalog, read with the same care.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::source::{self, Source};
use super::yaml::{self, Document, Fractions};
use super::{Problem, SourceFile};

/// The one document of a file, and what is wrong with its text.
pub(crate) struct Single {
    document: Document,
    source: Source,
    problems: Vec<Problem>,
}

impl Single {
    pub(crate) fn read(file: &SourceFile, fractions: Fractions) -> Self {
        let mut documents = yaml::read(&file.text, fractions).into_iter();
        let mut document = documents.next().unwrap_or_default();
        let source = Source::new(&file.path, String::new(), std::mem::take(&mut document.lines));
        let faults = std::mem::take(&mut document.faults).into_iter();
        let mut problems: Vec<Problem> =
            faults.map(|fault| source.problem_at(fault.line, &fault.path, fault.message)).collect();
        if documents.next().is_some() {
            problems.push(source.problem("", "there is more than one document in this file"));
        }
        Self { document, source, problems }
    }

    /// Whether something was written there: it tells which kind of file it is.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.source.has(field)
    }

    /// The document as a `T`, beside where each of its fields stands; else every problem that was found.
    pub(crate) fn parse<T: DeserializeOwned>(mut self) -> Result<(T, Source), Vec<Problem>> {
        match source::parse::<Option<T>>(&self.document, &mut self.source, &mut self.problems) {
            Some(value) if self.problems.is_empty() => Ok((value, self.source)),
            None if self.problems.is_empty() => Err(vec![self.source.problem("", "the file is empty")]),
            _ => {
                self.problems.sort();
                Err(self.problems)
            }
        }
    }
}

/// Reads a file that is one document of type `T`, after `edit` had its way with it. Beside it comes where each of its fields stands.
///
/// # Errors
/// Every problem that was found, with its line.
pub fn read_settings<T: DeserializeOwned>(
    file: &SourceFile,
    edit: impl FnOnce(&mut Value),
) -> Result<(T, Source), Vec<Problem>> {
    let mut single = Single::read(file, Fractions::Numbers);
    if single.problems.is_empty() {
        edit(&mut single.document.value);
    }
    single.parse()
}
