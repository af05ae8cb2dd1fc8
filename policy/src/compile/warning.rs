//! What is no error, and still probably not meant.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;

use crate::decision::class_word;
use crate::dialect::Class;
use crate::giving_way::giving_way;
use crate::limit::Unit;
use crate::model::{Model, Problem, Source};
use crate::name::ResourceId;
use crate::pattern::{MethodPattern, ModelPattern};
use crate::policy::Parts;
use crate::price::{NanoUsd, Price};
use crate::resource::{Budget, Credential, Destination, Grant, StoreKind, Unpriced};

pub(super) fn warnings(model: &Model, parts: &Parts) -> Vec<Problem> {
    let mut warnings = Vec::new();
    let granted: HashSet<&ResourceId> = parts.grants.values().map(|grant| &grant.destination.name).collect();
    for resource in &model.destinations {
        let mints = |credential: &Arc<Credential>| {
            credential.mint.as_ref().is_some_and(|mint| mint.endpoint.destination == resource.id)
        };
        if !granted.contains(&resource.id) && !parts.credentials.values().any(mints) {
            warnings
                .push(resource.source.problem("", "no grant is for this destination, so nobody can call it"));
        }
    }
    for resource in &model.source_pools {
        let leaves = |to: &Arc<Destination>| {
            to.sources.rules().is_some_and(|rules| rules.name.as_ref() == Some(&resource.id))
        };
        if !parts.destinations.values().any(leaves) {
            warnings.push(resource.source.problem("", "no destination has this source pool"));
        }
    }
    for resource in &model.budgets {
        let is_above = |budget: &Arc<Budget>| budget.parent.as_ref() == Some(&resource.id);
        if resource.spec.applies_to.is_none() && !parts.budgets.values().any(is_above) {
            let message = "no call is held to this: say in `appliesTo` which are, or name it as the `parent` of a Budget";
            warnings.push(resource.source.problem("", message));
        }
    }
    for resource in &model.stores {
        let reads = |credential: &Arc<Credential>| {
            let client = credential.mint.as_ref().and_then(|mint| mint.client_secret());
            let mut secrets = credential.keys.iter().map(|key| &key.from).chain(client);
            secrets.any(|secret| secret.store == resource.id)
        };
        if !parts.credentials.values().any(reads) {
            warnings.push(resource.source.problem("", "no credential reads this store"));
        }
        if parts.stores.get(&resource.id).is_some_and(|store| matches!(store.kind, StoreKind::Env { .. })) {
            let message = "the environment of a process is shown by whatever started it, and by /proc to whoever may: files or a vault are better";
            warnings.push(resource.source.problem("spec.env", message));
        }
    }
    let credentials = parts.grants.values().filter_map(|grant| grant.credential.as_ref());
    let used: HashSet<&ResourceId> = credentials.map(|credential| &credential.name).collect();
    for resource in giving_way(&model.credentials) {
        let is_certificate =
            parts.credentials.get(&resource.id).is_some_and(|key| key.client_certificate().is_some());
        let shows = |to: &Arc<Destination>| to.client_certificate.as_ref() == Some(&resource.id);
        if is_certificate && !parts.destinations.values().any(shows) {
            warnings.push(resource.source.problem("", "no destination is shown this client certificate"));
        } else if !is_certificate && !used.contains(&resource.id) {
            warnings.push(resource.source.problem("", "no grant uses this credential"));
        }
    }
    for resource in giving_way(&model.grants) {
        if let Some(grant) = parts.grants.get(&resource.id) {
            warnings.extend(unnamed_classes(grant, &resource.source));
            warnings.extend(overspend(grant, &resource.source, parts));
            warnings.extend(unpriced(grant, &resource.source, parts));
        }
    }
    warnings
}

/// Paths that are named exactly and still never match, because their class is not named.
fn unnamed_classes(grant: &Grant, source: &Source) -> Vec<Problem> {
    let mut warnings = Vec::new();
    let Some(http) = grant.destination.http() else { return warnings };
    for path in grant.allow.paths.iter().filter(|path| path.is_exact()) {
        for method in &grant.allow.methods {
            let MethodPattern::Exact(method) = method else { continue };
            let Some(endpoint) = http.dialect.endpoint(method, &path.to_string()) else { continue };
            if endpoint.class != Class::Use && !grant.allow.classes.contains(&endpoint.class) {
                let class = class_word(endpoint.class);
                let message = format!(
                    "{method} {path} is of class {class}: it is refused unless `classes` has {class}"
                );
                warnings.push(source.problem("spec.allow.paths", message));
            }
        }
    }
    warnings
}

/// A limit on spend over models that have no price.
fn unpriced(grant: &Grant, source: &Source, parts: &Parts) -> Option<Problem> {
    let provider = grant.destination.http()?.dialect.provider();
    let prices = parts.catalog.prices();
    let has_price = |pattern: &ModelPattern| match pattern {
        ModelPattern::Exact(model) => prices.price(provider, model, Timestamp::MAX).is_some(),
        ModelPattern::Prefix(beginning) => prices.may_begin(provider, beginning),
    };
    let models = &grant.allow.models;
    if !grant.limits_unit(Unit::Spend) || models.is_empty() || models.iter().any(has_price) {
        return None;
    }
    let what = match grant.unpriced {
        Unpriced::Deny => {
            "so every call is refused: allow a model with a price, or say in `unpriced` what becomes of others"
        }
        Unpriced::Flag => "so the limit on spend never counts anything",
        Unpriced::Dearest => return None,
    };
    let message = format!("spend is limited, and none of these models has a price for {provider}, {what}");
    Some(source.problem("spec.allow.models", message))
}

/// By how much a call that nothing bounds may exceed what `assume` holds for it.
fn overspend(grant: &Grant, source: &Source, parts: &Parts) -> Option<Problem> {
    let assume = grant.assume?;
    let (input, output) = (assume.input_tokens, assume.output_tokens);
    let provider = grant.destination.http()?.dialect.provider();
    let price = |pattern: &ModelPattern| match pattern {
        ModelPattern::Exact(model) => parts.catalog.prices().price(provider, model, Timestamp::MAX),
        ModelPattern::Prefix(_) => None,
    };
    let prices: Option<Vec<_>> = grant.allow.models.iter().map(price).collect();
    let prices = prices.filter(|prices| !prices.is_empty());
    let over = |price: &Price| -> Option<NanoUsd> {
        let full = price.ceiling(price.context_window()?, price.max_output()?, None);
        Some(full.saturating_sub(price.ceiling(input, output, None)))
    };
    let most: Option<Vec<NanoUsd>> =
        prices.and_then(|prices| prices.iter().map(|price| over(price)).collect());
    let bound = match most.and_then(|most| most.into_iter().max()) {
        Some(most) => format!("one that fills its model's window once costs up to {most} more"),
        None => "by how much is not known, because not every model that it allows has a price and a window"
            .to_owned(),
    };
    let message = format!(
        "a call that nothing bounds is held at {input} tokens in and {output} out, and may exceed every token and spend limit: {bound}",
    );
    Some(source.problem("spec.assume", message))
}
