use std::sync::Arc;

use jiff::Timestamp;

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
