//! The catalog that the gateway ships: dialects and prices, as data beside the code.
//!
//! **Invariant:** every price names its source and the day from which it holds.
//!
//! Deliberately absent: anything fetched at run time.

use std::path::PathBuf;

use tollgate_policy::dialect::Catalog;
use tollgate_policy::model::{Problem, SourceFile};

const FILES: [(&str, &str); 6] = [
    ("catalog/dialects/anthropic.yaml", include_str!("../../catalog/dialects/anthropic.yaml")),
    ("catalog/dialects/google.yaml", include_str!("../../catalog/dialects/google.yaml")),
    ("catalog/dialects/http.yaml", include_str!("../../catalog/dialects/http.yaml")),
    ("catalog/dialects/openai.yaml", include_str!("../../catalog/dialects/openai.yaml")),
    ("catalog/prices/anthropic.yaml", include_str!("../../catalog/prices/anthropic.yaml")),
    ("catalog/prices/openai.yaml", include_str!("../../catalog/prices/openai.yaml")),
];

/// The catalog that was compiled in. It has no problems in any build that passed its tests.
pub fn shipped() -> Result<Catalog, Vec<Problem>> {
    let files = FILES.map(|(path, text)| SourceFile { path: PathBuf::from(path), text: text.to_owned() });
    Catalog::parse(&files)
}

#[cfg(test)]
mod tests;
