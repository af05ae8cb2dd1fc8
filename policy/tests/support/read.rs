//! The files of test data, and the catalog.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tollgate_policy::dialect::Catalog;
use tollgate_policy::model::SourceFile;

pub(crate) fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// The files of a directory, by name.
pub(crate) fn files(directory: &Path) -> Vec<SourceFile> {
    let entries =
        std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let yaml = paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    yaml.map(|path| SourceFile { text: std::fs::read_to_string(&path).unwrap(), path }).collect()
}

/// The catalog of these tests, or the one in `TOLLGATE_TEST_CATALOG`.
pub(crate) fn catalog() -> Arc<Catalog> {
    let directory =
        std::env::var_os("TOLLGATE_TEST_CATALOG").map_or_else(|| tests().join("catalog"), PathBuf::from);
    let problems = |problems: Vec<_>| -> Catalog { panic!("{problems:#?}") };
    Arc::new(Catalog::parse(&files(&directory)).unwrap_or_else(problems))
}
