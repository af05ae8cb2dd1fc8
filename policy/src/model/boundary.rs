//! `kind: Boundary`, as it is written: no resource of a gateway, but what grants are held against.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::field::List;
use super::grant::{AllowSpec, AssumeSpec, CallerSpec, CallerTokenSpec, LimitSpec, UnpricedWord};
use super::source::Source;
use super::yaml::{self, Fractions};
use super::{Problem, Resource, SourceFile, take};
use crate::name::Reference;
use crate::pattern::HostPattern;

/// The broadest grant there may be: what it leaves out has the meaning that it has in a grant.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["callers", "destinations"]))]
pub(crate) struct BoundarySpec {
    /// Whom grants may be for.
    pub(crate) callers: List<CallerSpec>,
    /// The Destinations that they may be for.
    pub(crate) destinations: List<Reference>,
    /// The hosts that these may have. Without it any.
    pub(crate) hosts: List<HostPattern>,
    /// The Credentials that grants may use. Without it none.
    pub(crate) credentials: List<Reference>,
    /// The caller's own token that they may pass on. Without it none.
    pub(crate) caller_token: Option<CallerTokenSpec>,
    /// What they may allow, as in a grant: without `methods`, `paths` or `models` all, without anything else nothing.
    pub(crate) allow: Option<AllowSpec>,
    /// The limits that each grant has to have, or stricter ones. Without it none.
    pub(crate) limits: List<LimitSpec>,
    /// The most that `defaultOutputCap` may be. Without it grants need none.
    pub(crate) default_output_cap: Option<u64>,
    /// The least that `assume` may be. Without it no grant may have one.
    pub(crate) assume: Option<AssumeSpec>,
    /// What may become of a model without a price: `deny`, `dearest` or `flag`, each with those before it. Without it `deny`.
    pub(crate) unpriced: Option<UnpricedWord>,
}

/// The boundaries of a file, and what is wrong with it: it has at least one, and nothing else.
pub(crate) fn read_boundaries(file: &SourceFile) -> (Vec<Resource<BoundarySpec>>, Vec<Problem>) {
    let (mut boundaries, mut index, mut problems) = (Vec::new(), HashMap::new(), Vec::new());
    for mut document in yaml::read(&file.text, Fractions::Numbers) {
        let name = document.value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let source = Source::new(&file.path, format!("Boundary/{name}"), std::mem::take(&mut document.lines));
        let faults = std::mem::take(&mut document.faults).into_iter();
        problems.extend(faults.map(|fault| source.problem_at(fault.line, &fault.path, fault.message)));
        if document.value.is_null() {
            continue;
        }
        if document.value.get("kind").and_then(Value::as_str) != Some("Boundary") {
            problems.push(source.problem("kind", "only a `Boundary` is held against grants"));
            continue;
        }
        take(&document, source, (&mut boundaries, &mut index), &mut problems);
    }
    if boundaries.is_empty() && problems.is_empty() {
        problems.push(
            Source::new(&file.path, String::new(), Default::default())
                .problem("", "there is no `Boundary` in this file"),
        );
    }
    (boundaries, problems)
}
