//! Budgets: which calls they are for, and what is above them.
//!
//! **Invariant:** what could not be read of a selector selects every call of whoever the budget may be for, so that what is broken
//! denies no less than it would have limited.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::own::{callers_of, check_allowed, check_selector};
use super::{Compiler, Environment, Scope};
use crate::limit::{Limit, LimitKind, OnExhausted, Owner, Window};
use crate::model::{
    AppliesTo, BudgetSpec, CallSelectorSpec, DowngradeSpec, List, OnExhaustedSpec, Resource, ThresholdSpec,
};
use crate::name::{Name, Reference, ResourceId};
use crate::pattern::{CallerPattern, OneOrAny, ServiceAccountPattern};
use crate::resource::{Budget, CallSelector};

const PATH: &str = "spec.appliesTo";
/// More levels than an organisation has, and few enough to hold each call to all of them.
const MOST_LEVELS: usize = 8;
const USUAL_THRESHOLDS: [u8; 3] = [50, 80, 100];

impl Compiler<'_> {
    pub(super) fn budgets(&mut self) {
        for resource in &self.model.budgets {
            let budget = self.budget(resource);
            self.parts.budgets.insert(resource.id.clone(), Arc::new(budget));
        }
        for resource in &self.model.budgets {
            if let Some(message) = self.misplaced(&resource.id) {
                self.problems.push(resource.source.problem("spec.parent", message));
            }
        }
    }

    fn budget(&mut self, resource: &Resource<BudgetSpec>) -> Budget {
        let spec = &resource.spec;
        let mut scope = Scope::new(resource, self.namespaces, &mut self.problems);
        if let Some(parent) = &spec.parent {
            let known = (self.model.budgets.as_slice(), self.model.incomplete);
            scope.resolve(("spec.parent", parent), known, &self.parts.budgets);
        }
        let what = "how much may be used, as in `[{spend: 500 USD, per: month}]`";
        scope.at_least_one("spec.limits", &spec.limits, what);
        check_allowed(spec.allowed_namespaces.as_ref(), &mut scope);
        let mut limits =
            super::limit::limits((&Owner::Budget(resource.id.clone()), &spec.limits), &mut scope);
        let on_exhausted = on_exhausted(spec.on_exhausted.as_ref(), &mut scope);
        limits.iter_mut().for_each(|limit| limit.on_exhausted = on_exhausted.clone());
        let raises = super::raise::raises(&spec.raises, &mut limits, &mut scope);
        let (thresholds, tells_forecast) = thresholds(&spec.thresholds, &limits, &mut scope);
        let parent = spec.parent.as_ref().map(|parent| scope.id(parent));
        let is_all = resource.source.claims(PATH) || resource.source.is_withheld();
        let applies_to = match &spec.applies_to {
            Some(AppliesTo::Some(calls)) => Some(self.selector(calls, resource)),
            Some(AppliesTo::All) => Some(every_call(&scope, self.environment)),
            None if is_all => Some(every_call(&scope, self.environment)),
            None => None,
        };
        Budget {
            name: resource.id.clone(),
            applies_to,
            parent,
            limits,
            thresholds,
            tells_forecast,
            raises,
            is_broken: !resource.is_whole,
        }
    }

    fn selector(&mut self, calls: &CallSelectorSpec, resource: &Resource<BudgetSpec>) -> CallSelector {
        let mut scope = Scope::new(resource, self.namespaces, &mut self.problems);
        let CallSelectorSpec { destinations, credentials, callers: _, namespaces: _, namespace_selector: _ } =
            calls;
        let fields = ["destinations", "credentials", "callers", "namespaces", "namespaceSelector"];
        if !fields.iter().any(|field| scope.source.claims(&format!("{PATH}.{field}"))) {
            scope.problem(PATH, "this selects by nothing: write `appliesTo: All` if every call is meant");
        }
        for (index, reference) in destinations.iter() {
            let known = (self.model.destinations.as_slice(), self.model.incomplete);
            scope.resolve(
                (&format!("{PATH}.destinations[{index}]"), reference),
                known,
                &self.parts.destinations,
            );
        }
        for (index, reference) in credentials.iter() {
            let known = (self.model.credentials.as_slice(), self.model.incomplete);
            scope.resolve(
                (&format!("{PATH}.credentials[{index}]"), reference),
                known,
                &self.parts.credentials,
            );
        }
        CallSelector {
            callers: callers(calls, self.environment, &mut scope),
            destinations: ids("destinations", destinations, &mut scope),
            credentials: ids("credentials", credentials, &mut scope),
        }
    }

    /// Why a budget cannot be where it is among the others.
    fn misplaced(&self, id: &ResourceId) -> Option<String> {
        let parent = |id: &ResourceId| self.parts.budgets.get(id)?.parent.as_ref();
        let mut above = vec![id];
        while let Some(next) = parent(above.last()?) {
            if next == id {
                let way: Vec<&str> = above.into_iter().chain([id]).map(ResourceId::as_str).collect();
                return Some(format!("a budget cannot be above itself: {}", way.join(" → ")));
            }
            // A circle above it is told of those that are in it.
            if above.contains(&next) {
                return None;
            }
            above.push(next);
        }
        (above.len() > MOST_LEVELS)
            .then(|| format!("there are at most {MOST_LEVELS} levels, and this is on level {}", above.len()))
    }
}

fn on_exhausted(written: Option<&OnExhaustedSpec>, scope: &mut Scope<'_>) -> OnExhausted {
    match written {
        None | Some(OnExhaustedSpec::Deny) => OnExhausted::Deny,
        Some(OnExhaustedSpec::Flag) => OnExhausted::Flag,
        Some(OnExhaustedSpec::Downgrade(DowngradeSpec { downgrade })) => {
            let path = "spec.onExhausted.downgrade";
            let model = scope.required(path, downgrade.as_deref(), "the model that is asked for instead");
            let is_name = |model: &&str| {
                !model.is_empty()
                    && model.len() <= 128
                    && model.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\*".contains(&b))
            };
            if model.is_some_and(|model| !is_name(&model)) {
                scope.problem(
                    path,
                    "this is no model's name: write it as its provider spells it, without `*`",
                );
            }
            model.filter(is_name).map_or(OnExhausted::Deny, |model| OnExhausted::Downgrade(model.into()))
        }
    }
}

/// Percents in their order, each once, and whether a forecast is told.
fn thresholds(written: &List<ThresholdSpec>, limits: &[Limit], scope: &mut Scope<'_>) -> (Box<[u8]>, bool) {
    if written.written().is_none() {
        return (Box::new(USUAL_THRESHOLDS), false);
    }
    let has_an_end = |limit: &Limit| matches!(&limit.kind, LimitKind::Counted(Window::Calendar { .. }));
    let (mut percents, mut tells_forecast) = (Vec::new(), false);
    for (index, threshold) in written.iter() {
        let path = format!("spec.thresholds[{index}]");
        match threshold {
            ThresholdSpec::Percent(percent) => match u8::try_from(*percent) {
                Ok(percent @ 1..=100) => percents.push(percent),
                _ => scope.problem(&path, "a threshold is a percent of the amount, from 1 to 100"),
            },
            ThresholdSpec::Forecast => {
                tells_forecast = true;
                if !limits.is_empty() && !limits.iter().any(has_an_end) {
                    let message = "no window of these limits ends, so there is nothing to forecast: a limit with `window: calendar` has one";
                    scope.problem(&path, message);
                }
            }
        }
    }
    (super::grant::sorted(percents).into(), tells_forecast)
}

fn every_call(scope: &Scope<'_>, environment: &Environment) -> CallSelector {
    CallSelector { callers: all_callers(scope, environment), ..CallSelector::default() }
}

/// All whom a budget may be for: an app's is for callers of its own namespace.
fn all_callers(scope: &Scope<'_>, environment: &Environment) -> Option<Vec<CallerPattern>> {
    scope.app_namespace().map(|namespace| callers_of(namespace, &environment.home))
}

/// What a list names; `None`: anything, where there is no list or not all of it is known.
fn ids(field: &str, list: &List<Reference>, scope: &mut Scope<'_>) -> Option<BTreeSet<ResourceId>> {
    if list.written() == Some(0) {
        let path = format!("{PATH}.{field}");
        scope.problem(&path, "this list is empty: leave it out, or say which calls are meant");
    }
    let ids: BTreeSet<ResourceId> = list.values().map(|reference| scope.id(reference)).collect();
    let is_readable = list.written().is_some_and(|count| count > 0 && count == list.values().count());
    is_readable.then_some(ids)
}

/// Who makes the calls; `None`: anybody.
fn callers(
    calls: &CallSelectorSpec,
    environment: &Environment,
    scope: &mut Scope<'_>,
) -> Option<Vec<CallerPattern>> {
    let CallSelectorSpec { callers, namespaces, namespace_selector, .. } = calls;
    let fields = ["callers", "namespaces", "namespaceSelector"].map(|field| format!("{PATH}.{field}"));
    let written: Vec<&str> =
        fields.iter().map(String::as_str).filter(|field| scope.source.claims(field)).collect();
    if let [first, others @ ..] = written.as_slice() {
        let first = first.rsplit('.').next().unwrap_or_default();
        for path in others {
            scope.problem(
                path,
                format!("`{first}` says already whose calls are meant: leave one of both out"),
            );
        }
    }
    let before = scope.problems.len();
    let patterns = if callers.written().is_some() {
        super::caller::named(&format!("{PATH}.callers"), callers, environment, scope)
    } else if namespaces.written().is_some() {
        of_namespaces(namespaces, environment, scope)
    } else if let Some(selector) = namespace_selector {
        let path = format!("{PATH}.namespaceSelector");
        check_selector(&path, selector, scope);
        let selected = match (scope.namespaces, scope.app_namespace()) {
            (None, _) => {
                Err("labels of namespaces are read in a cluster: write `namespaces` with their names")
            }
            (_, Some(_)) => {
                Err("a Budget of an app's namespace is for callers of that namespace: leave this out")
            }
            (Some(namespaces), None) => Ok(namespaces.selected(selector)),
        };
        match selected {
            Ok(names) => names.flat_map(|name| in_namespace(name, environment)).collect(),
            Err(message) => {
                scope.problem(&path, message);
                Vec::new()
            }
        }
    } else {
        return all_callers(scope, environment);
    };
    let is_whole = |written: Option<usize>, read: usize| written.is_none_or(|count| count == read);
    let is_readable = scope.problems.len() == before
        && is_whole(callers.written(), callers.values().count())
        && is_whole(namespaces.written(), namespaces.values().count());
    if is_readable { Some(patterns) } else { all_callers(scope, environment) }
}

fn of_namespaces(names: &List<Name>, environment: &Environment, scope: &mut Scope<'_>) -> Vec<CallerPattern> {
    let path = format!("{PATH}.namespaces");
    if names.written() == Some(0) {
        scope.problem(&path, "this list is empty: leave it out, or say which namespaces are meant");
    }
    let app = scope.app_namespace().map(str::to_owned);
    let mut patterns = Vec::new();
    for (index, name) in names.iter() {
        match &app {
            None => patterns.extend(in_namespace(name, environment)),
            Some(own) if name.as_str() == own => patterns.extend(callers_of(own, &environment.home)),
            Some(own) => {
                let message = format!(
                    "a Budget of the namespace `{own}` is for callers of that namespace: only one of the gateway's own namespace names others"
                );
                scope.problem(&format!("{path}[{index}]"), message);
            }
        }
    }
    patterns
}

/// All who are in a namespace of this name, whoever vouches for them.
fn in_namespace(name: &Name, environment: &Environment) -> Vec<CallerPattern> {
    let spiffe = environment.trust_domains.iter().flat_map(|domain| {
        let texts = ["", "/**"].map(|rest| format!("spiffe://{domain}/ns/{name}{rest}"));
        texts.into_iter().filter_map(|text| text.parse().ok().map(CallerPattern::Spiffe))
    });
    let accounts = environment.clusters.iter().map(|cluster| {
        let namespace = OneOrAny::One(name.clone());
        CallerPattern::ServiceAccount(ServiceAccountPattern::new(cluster.clone(), namespace, OneOrAny::Any))
    });
    spiffe.chain(accounts).collect()
}
