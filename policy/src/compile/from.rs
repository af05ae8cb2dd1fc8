//! Where keys are read: each in a store that there is, and in a way that its kind of store has.

use super::Scope;
use super::store::check_reference;
use crate::model::{CredentialSpec, FromSpec, Froms, MOST_KEYS, Model, Weight};
use crate::name::Name;
use crate::policy::Parts;
use crate::resource::{Key, KvVersion, SecretRef, Store, StoreKind};

/// Every key, if none has a problem.
pub(super) fn keys(
    spec: &CredentialSpec,
    (model, parts): (&Model, &Parts),
    scope: &mut Scope<'_>,
) -> Option<Vec<Key>> {
    let what = "where the key is read, as in `{store: bao, path: llm/openai, field: api_key}`";
    let froms = scope.required("spec.from", spec.from.as_ref(), what)?;
    let written = froms.each();
    if let Froms::Several(list) = froms {
        scope.at_least_one("spec.from", list, what);
        check_pool(&written, list.written().unwrap_or_default(), scope);
    }
    let mut keys: Vec<Key> = Vec::with_capacity(written.len());
    let before = scope.problems.len();
    for (at, from) in &written {
        if let Froms::One(_) = froms {
            check_alone((at, from), scope);
        }
        let store = from.store.as_ref().and_then(|name| {
            let known = (model.stores.as_slice(), model.incomplete);
            scope.resolve((&format!("{at}.store"), name), known, &parts.stores)
        });
        let secret = secret_ref((at, from), store.as_deref(), scope);
        if let Some(secret) = secret {
            if keys.iter().any(|known| known.from == secret) {
                scope.problem(at, "another key of this list is read in the same place");
            }
            keys.push(Key {
                alias: from.alias.clone(),
                weight: from.weight.map_or(1, |Weight(weight)| weight),
                from: secret,
            });
        }
    }
    let complete = scope.problems.len() == before && keys.len() == froms.written();
    complete.then_some(keys).filter(|keys| !keys.is_empty())
}

/// A list of keys is told apart by aliases, and shares the callers by weights.
fn check_pool(written: &[(String, &FromSpec)], count: usize, scope: &mut Scope<'_>) {
    if count > MOST_KEYS {
        scope.problem("spec.from", format!("a credential has at most {MOST_KEYS} keys"));
    }
    let mut aliases: Vec<&Name> = Vec::with_capacity(written.len());
    for (at, from) in written {
        let path = format!("{at}.alias");
        let what = "a name for this key of the list, which records and reports have";
        if let Some(alias) = scope.required(&path, from.alias.as_ref(), what) {
            if aliases.contains(&alias) {
                scope.problem(&path, format!("another key of this list is called `{alias}` already"));
            }
            aliases.push(alias);
        }
    }
    let stands_by = |(_, from): &(String, &FromSpec)| from.weight == Some(Weight(0));
    if !written.is_empty() && written.iter().all(stands_by) {
        scope.problem("spec.from", "every key has weight 0 and stands by, so none would be in use");
    }
}

/// What only tells keys of a list apart is nothing to say of a single one.
pub(super) fn check_alone((at, from): (&str, &FromSpec), scope: &mut Scope<'_>) {
    for (field, is_written) in [("alias", from.alias.is_some()), ("weight", from.weight.is_some())] {
        if is_written {
            scope.problem(&format!("{at}.{field}"), "only the keys of a list have this; here is one key");
        }
    }
}

/// `at` is where `from` was written, which others than `spec.from` are too.
pub(super) fn secret_ref(
    (at, from): (&str, &FromSpec),
    store: Option<&Store>,
    scope: &mut Scope<'_>,
) -> Option<SecretRef> {
    let field = |field: &str| format!("{at}.{field}");
    let store_name = from.store.as_ref().map(|reference| scope.id(reference));
    let name = scope.required(&field("store"), store_name, "the SecretStore that has the key");
    let path = scope.required(&field("path"), from.path.clone(), "the path of the key in its store");
    if let Some(path) = &path {
        let segment = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && !segment.bytes().any(|b| b.is_ascii_control() || b"\\?#%".contains(&b))
        };
        if !path.split('/').all(segment) {
            let message =
                "a path is relative to the store, without `.`, `..`, empty segments, or any of \\ ? # %";
            scope.problem(&field("path"), message);
        }
    }
    if let (Some(store), Some(path)) = (&name, &path) {
        scope.check_shared_path(&field("path"), store, path);
    }
    let kind = store.map(|store| &store.kind);
    let fields = fields((at, from), kind, scope);
    if from.version == Some(0) {
        scope.problem(&field("version"), "versions count from 1; leave it out for the newest");
    }
    if from.version.is_some() && kind.is_some_and(|kind| !matches!(kind, StoreKind::Vault(_))) {
        scope.problem(&field("version"), "only a Vault store has versions");
    }
    let dynamic = from.dynamic.unwrap_or_default();
    match kind {
        Some(kind) if dynamic => check_dynamic((at, from), kind, scope),
        Some(StoreKind::Vault(vault)) if vault.kv == KvVersion::V1 && from.version.is_some() => {
            let message = "this store has `kvVersion: 1`, and only version 2 of the KV engine keeps versions";
            scope.problem(&field("version"), message);
        }
        _ => {}
    }
    if let Some(kind) = kind {
        check_reference((at, from), kind, scope);
    }
    Some(SecretRef {
        store: name?,
        path: path?,
        fields: fields?,
        version: from.version,
        stage: from.stage.clone(),
        version_id: from.version_id.clone(),
        dynamic,
    })
}

fn check_dynamic((at, from): (&str, &FromSpec), kind: &StoreKind, scope: &mut Scope<'_>) {
    if !matches!(kind, StoreKind::Vault(_)) {
        scope.problem(&format!("{at}.dynamic"), "only a Vault store has engines that make secrets");
        return;
    }
    if from.path.as_ref().is_some_and(|path| !path.contains('/')) {
        let message =
            "the path of a dynamic secret begins with the engine's mount, as in `database/creds/ROLE`";
        scope.problem(&format!("{at}.path"), message);
    }
    if from.version.is_some() {
        scope.problem(&format!("{at}.version"), "a dynamic secret has no versions");
    }
}

/// The fields of `field` or `fields`.
fn fields(
    (at, from): (&str, &FromSpec),
    kind: Option<&StoreKind>,
    scope: &mut Scope<'_>,
) -> Option<Vec<String>> {
    let (one, several) = (format!("{at}.field"), format!("{at}.fields"));
    if scope.source.has(&one) && scope.source.has(&several) {
        scope.problem(&several, "`field` names one field, `fields` several: one of both is enough");
    }
    let Some(written) = from.fields.written() else {
        if matches!(kind, Some(StoreKind::Vault(_) | StoreKind::Age { .. } | StoreKind::Kubernetes)) {
            let what = "a secret of this store has fields, and one is the key";
            scope.required(&one, from.field.as_ref(), what);
        }
        if from.field.as_ref().is_some_and(String::is_empty) {
            scope.problem(&one, "a field needs a name");
        }
        return Some(from.field.iter().cloned().collect());
    };
    if written == 0 {
        scope.problem(&several, "this cannot be empty: the fields that are the key");
    }
    let mut fields: Vec<String> = Vec::with_capacity(written);
    for (index, field) in from.fields.iter() {
        let path = format!("{several}[{index}]");
        if field.is_empty() {
            scope.problem(&path, "a field needs a name");
        } else if fields.contains(field) {
            scope.problem(&path, format!("`{field}` is named twice"));
        }
        fields.push(field.clone());
    }
    Some(fields)
}
