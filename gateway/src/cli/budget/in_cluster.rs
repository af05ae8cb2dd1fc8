//! A raise of a Budget that is an object.

use anyhow::{Context, anyhow};
use serde_json::{Value, json};
use tollgate_policy::compile::compile_files;
use tollgate_policy::model::SourceFile;
use tollgate_policy::name::ResourceId;
use tollgate_policy::policy::{BudgetRaise, Policy};

use super::outcome::added;
use crate::app;
use crate::kubernetes::BudgetObject;
use crate::settings::KubernetesSettings;

/// Applies a raise, given as YAML, once the compiler has judged it; `is_trial`: has the API server judge it alone.
///
/// # Errors
/// What the compiler or the API server says against it.
pub(super) fn raise(
    cluster: &KubernetesSettings,
    (id, item): (&ResourceId, &str),
    is_trial: bool,
) -> anyhow::Result<(Policy, BudgetRaise)> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let raise: Value = serde_saphyr::from_str(item).context("the raise cannot be read")?;
    let object = runtime.block_on(BudgetObject::read(cluster, id))?;
    let spec = object.with(&raise);
    let before = compiled(id, &object.spec).context("the Budget has problems already")?;
    let after = compiled(id, &spec)?;
    let raise = added(id, &before, &after).ok_or_else(|| anyhow!("it raises nothing"))?;
    runtime.block_on(object.apply(&spec, is_trial))?;
    Ok((after, raise))
}

/// A Budget with its limits and raises alone: nothing else says what a raise is of.
fn compiled(id: &ResourceId, spec: &Value) -> anyhow::Result<Policy> {
    let text = json!({
        "apiVersion": "tollgate.dev/v1alpha1", "kind": "Budget",
        "metadata": { "name": id.name(), "namespace": id.namespace() },
        "spec": { "limits": spec["limits"], "raises": spec.get("raises").cloned().unwrap_or_else(|| json!([])) },
    });
    let file = SourceFile { path: "the object".into(), text: text.to_string() };
    let compiled = compile_files(&[file], &app::environment_of(&[], &[])?);
    Ok(compiled.map_err(|problems| anyhow!("{}", app::lines(&problems)))?.policy)
}
