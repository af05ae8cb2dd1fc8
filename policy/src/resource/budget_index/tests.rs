use std::sync::Arc;

use jiff::Timestamp;

use super::{BudgetIndex, FEW};
use crate::access::diff;
use crate::caller::{Caller, Claims, assumed};
use crate::compile::{Environment, compile_files};
use crate::dialect::Catalog;
use crate::model::SourceFile;
use crate::policy::Policy;

const HTTP: &str = "dialect: http\nprovider: http\nplain: true\nendpoints: [{on: ['* /**'], class: use}]\n";
const ISSUER: &str = "https://ci.example";
const RESOURCES: &str = "apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {name: api}
spec: {hosts: [api.example]}
---
apiVersion: tollgate.dev/v1alpha1
kind: Grant
metadata: {name: ci}
spec: {callers: [{token: {issuer: 'https://ci.example', subject: 'repo:*'}}], destination: api}
";

/// With a budget for each of these claims of tokens.
fn policy(claims: &[&str]) -> Policy {
    let budgets: String = claims
        .iter()
        .enumerate()
        .map(|(at, claims)| {
            format!(
                "---\napiVersion: tollgate.dev/v1alpha1\nkind: Budget\nmetadata: {{name: budget-{at}}}\n\
                 spec: {{appliesTo: {{callers: [{{token: {{issuer: '{ISSUER}', subject: '*', claims: {claims}}}}}]}}, limits: [{{requests: 5, per: day}}]}}\n"
            )
        })
        .collect();
    let dialect = SourceFile { path: "http.yaml".into(), text: HTTP.to_owned() };
    let environment = Environment {
        catalog: Arc::new(Catalog::parse(&[dialect]).unwrap()),
        issuers: vec![ISSUER.parse().unwrap()],
        claims: ["team", "roles"].map(|name| (ISSUER.parse().unwrap(), name.parse().unwrap())).into(),
        ..Environment::default()
    };
    let file = SourceFile { path: "a.yaml".into(), text: format!("{RESOURCES}{budgets}") };
    compile_files(&[file], &environment).unwrap().policy
}

fn caller(claims: &[(&str, &str)]) -> Caller {
    let claims: Claims = claims.iter().map(|(name, text)| (name.parse().unwrap(), (*text).into())).collect();
    assumed("jwt:https://ci.example#repo:acme".parse().unwrap()).claiming(claims)
}

#[test]
fn a_caller_is_held_to_the_budgets_that_all_its_claims_select() {
    let policy = policy(&["{team: payments}", "{team: payments, roles: 'eu-*'}", "{roles: '*'}"]);
    for (claims, budgets) in [
        (&[][..], &[][..]),
        (&[("team", "payments")], &["budget-0"]),
        (&[("team", "payments"), ("roles", "us-1")], &["budget-0", "budget-2"]),
        (
            &[("team", "payments"), ("roles", "us-1"), ("roles", "eu-1")],
            &["budget-0", "budget-1", "budget-2"],
        ),
        (&[("team", "search")], &[]),
    ] {
        let grants = policy.grants_of(&caller(claims));
        let held: Vec<&str> =
            grants.iter().flat_map(|grant| &*grant.budgets).map(|budget| budget.name.as_str()).collect();
        assert_eq!(held, budgets, "{claims:?}");
    }
}

#[test]
fn a_budget_by_claims_that_goes_is_a_difference() {
    let (with, without) = (policy(&["{team: payments, roles: 'eu-*'}"]), policy(&[]));
    let compared = |old, new| diff(old, new, Timestamp::UNIX_EPOCH, &assumed);
    assert!(format!("{:?}", compared(&with, &without)).contains("budget-0"));
    assert!(!format!("{:?}", compared(&with, &with)).contains("budget-0"));
}

#[test]
fn what_no_caller_has_any_more_is_forgotten_however_many_claims_there_were() {
    const CLAIMS: u32 = 12;
    let claims: Vec<String> = (0..CLAIMS).map(|n| format!("{{roles: 'role-{n}'}}")).collect();
    let policy = policy(&claims.iter().map(String::as_str).collect::<Vec<_>>());
    let budgets = policy.budgets().map(|budget| (budget.name.clone(), Arc::clone(budget))).collect();
    let index = BudgetIndex::new(&budgets);
    let held = |roles: u32| {
        let names: Vec<String> =
            (0..CLAIMS).filter(|n| roles >> n & 1 == 1).map(|n| format!("role-{n}")).collect();
        let claims: Vec<_> = names.iter().map(|name| ("roles", name.as_str())).collect();
        let mut grants: Vec<_> = policy.grants().map(Arc::clone).collect();
        index.hold(&caller(&claims), grants.iter_mut());
        grants
    };
    let kept = held(1);
    for roles in 1..1 << CLAIMS {
        assert_eq!(held(roles)[0].budgets.len(), roles.count_ones() as usize);
    }
    assert!(Arc::ptr_eq(&kept[0], &held(1)[0]), "what a caller still has is another caller's as well");
    let known = index.held.lock().unwrap().grants.len();
    assert!(known <= FEW, "{known} of {}", 1 << CLAIMS);
}
