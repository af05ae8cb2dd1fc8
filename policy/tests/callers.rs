//! Identities of every kind: their one text, and the grants that name them where something proves such callers.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is a test")]

#[path = "support/assumed.rs"]
mod assumed;
#[path = "support/read.rs"]
mod read;

use std::sync::{Arc, LazyLock};

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;
use tollgate_policy::caller::{Identity, Issuer, ServiceAccount, TokenSubject};
use tollgate_policy::compile::{Environment, compile_files};
use tollgate_policy::dialect::Catalog;
use tollgate_policy::model::SourceFile;
use tollgate_policy::policy::{Grant, Policy};

const DESTINATION: &str = "apiVersion: tollgate.dev/v1alpha1\nkind: Destination\nmetadata: {name: api}\nspec: {hosts: [api.example]}\n";

/// Compiles grants for one destination, each by its name and callers, where two issuers and two clusters are proven.
fn compile(grants: &[(&str, &str)]) -> Result<Policy, Vec<String>> {
    let grants = grants.iter().map(|(name, callers)| grant(name, callers, "api"));
    compile_text(format!("{DESTINATION}{}", grants.collect::<String>()))
}

fn grant(name: &str, callers: &str, destination: &str) -> String {
    format!(
        "---\napiVersion: tollgate.dev/v1alpha1\nkind: Grant\nmetadata: {{name: {name}}}\n\
         spec: {{callers: [{callers}], destination: {destination}}}\n"
    )
}

fn compile_text(text: String) -> Result<Policy, Vec<String>> {
    static CATALOG: LazyLock<Arc<Catalog>> = LazyLock::new(read::catalog);
    let environment = Environment {
        catalog: Arc::clone(&CATALOG),
        trust_domains: vec!["prod.acme".parse().unwrap()],
        issuers: ["https://ci.example", "https://login.example"].map(|issuer| issuer.parse().unwrap()).into(),
        clusters: ["eu-1", "us-1"].map(|cluster| cluster.parse().unwrap()).into(),
        ..Environment::default()
    };
    let compiled = compile_files(&[SourceFile { path: "a.yaml".into(), text }], &environment);
    compiled
        .map(|compiled| compiled.policy)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[test]
fn a_grant_is_for_the_callers_of_the_kind_that_it_names() {
    let policy = compile(&[
        ("web", "{spiffe: 'spiffe://prod.acme/ns/shop/sa/web'}"),
        ("shop", "{serviceAccount: {namespace: shop, name: '*'}}"),
        ("web-abroad", "{serviceAccount: {cluster: us-1, namespace: '*', name: web}}"),
        ("ci", "{token: {issuer: 'https://ci.example', subject: 'repo:acme/shop:*'}}"),
        ("ci-main", "{token: {issuer: 'https://ci.example', subject: 'repo:acme/shop:main'}}"),
        ("all", "{spiffe: 'spiffe://prod.acme/**'}, {serviceAccount: {namespace: '*', name: '*'}}"),
    ])
    .unwrap();
    for (caller, grants) in [
        ("spiffe://prod.acme/ns/shop/sa/web", &["web", "all"][..]),
        ("k8s:eu-1/shop/web", &["shop", "all"]),
        ("k8s:us-1/shop/web", &["web-abroad"]),
        ("k8s:us-1/shop/api", &[]),
        ("jwt:https://ci.example#repo:acme/shop:main", &["ci-main", "ci"]),
        ("jwt:https://ci.example#repo:acme/shop:fork", &["ci"]),
        ("jwt:https://login.example#repo:acme/shop:main", &[]),
        ("jwt:https://login.example#spiffe://prod.acme/ns/shop/sa/web", &[]),
    ] {
        let named = policy.grants_of(&assumed::caller(caller));
        let names: Vec<&str> = named.iter().map(|grant| grant.name.as_str()).collect();
        assert_eq!(names, grants, "{caller}");
    }
}

#[test]
fn no_grant_passes_on_a_token_that_proves_callers_to_the_gateway() {
    let compile = |audience: &str| {
        let grant = format!(
            "{DESTINATION}---\napiVersion: tollgate.dev/v1alpha1\nkind: Grant\nmetadata: {{name: a}}\n\
             spec: {{callers: [{{spiffe: 'spiffe://prod.acme/x'}}], destination: api, callerToken: {{audience: {audience}}}}}\n"
        );
        let environment = Environment {
            catalog: read::catalog(),
            trust_domains: vec!["prod.acme".parse().unwrap()],
            audiences: vec!["tollgate".to_owned()],
            ..Environment::default()
        };
        compile_files(&[SourceFile { path: "a.yaml".into(), text: grant }], &environment).map(drop)
    };
    assert!(compile("api").is_ok());
    let problems = compile("tollgate").unwrap_err();
    assert!(
        problems[0].to_string().contains("spec.callerToken.audience: tokens for `tollgate`"),
        "{problems:?}"
    );
}

#[test]
fn only_grants_that_name_callers_of_one_kind_alike_can_tie() {
    let ci = "{token: {issuer: 'https://ci.example', subject: 'a*'}}";
    let login = "{token: {issuer: 'https://login.example', subject: 'a*'}}";
    let (shop, abroad) = (
        "{serviceAccount: {namespace: shop, name: '*'}}",
        "{serviceAccount: {cluster: us-1, namespace: shop, name: '*'}}",
    );
    assert!(compile(&[("a", ci), ("b", login), ("c", shop), ("d", abroad)]).is_ok());
    for (caller, text) in [(ci, "jwt:https://ci.example#a*"), (shop, "k8s:eu-1/shop/*")] {
        let problems = compile(&[("a", caller), ("b", caller)]).unwrap_err();
        assert!(
            matches!(&*problems, [one] if one.contains("ties with Grant/a") && one.contains(text)),
            "{problems:?}"
        );
    }
}

#[test]
fn a_caller_whom_nothing_proves_is_a_problem() {
    for (caller, part) in [
        (
            "{token: {issuer: 'https://x.example', subject: a}}",
            "token.issuer: no listener takes tokens of `https://x.example`",
        ),
        ("{token: {subject: a}}", "token.issuer: this is required"),
        ("{token: {issuer: 'https://ci.example'}}", "token.subject: this is required"),
        (
            "{serviceAccount: {cluster: ap-1, namespace: a, name: b}}",
            "serviceAccount.cluster: no listener proves service accounts of `ap-1`",
        ),
        ("{serviceAccount: {name: b}}", "serviceAccount.namespace: this is required"),
        (
            "{serviceAccount: {namespace: a, name: b}, spiffe: 'spiffe://prod.acme/x'}",
            "callers[0]: exactly one of",
        ),
    ] {
        let problems = compile(&[("a", caller)]).unwrap_err();
        assert!(matches!(&*problems, [one] if one.contains(part)), "{caller}: {problems:?}");
    }
}

/// Texts that are cut from each other's pieces, so that what could be read as another identity is.
fn pieces() -> impl Strategy<Value = String> {
    let pieces = vec![
        "spiffe://",
        "jwt:",
        "k8s:",
        "prod.acme",
        "a",
        "b",
        "/ns/",
        "/sa/",
        "/",
        "#",
        "%",
        "%23",
        "%2F",
        ":",
        "*",
        " ",
        "é",
        "\0",
        "\u{202e}",
        "-",
        ".",
    ];
    vec(select(pieces), 1..8).prop_map(|pieces| pieces.concat())
}

fn identity() -> impl Strategy<Value = Identity> {
    let token = ("[a-zA-Z0-9._~:/@%-]{1,24}", prop_oneof![pieces(), any::<String>()]).prop_filter_map(
        "a subject is bounded",
        |(issuer, subject)| {
            let issuer: Issuer = issuer.parse().unwrap();
            TokenSubject::new(&issuer, &subject).ok().map(Identity::Token)
        },
    );
    let label = || "[a-z0-9]([a-z0-9-]{0,4}[a-z0-9])?";
    let account =
        (label(), label(), "[a-z0-9]{1,3}(\\.[a-z0-9]{1,3})?").prop_map(|(cluster, namespace, name)| {
            let account = ServiceAccount::new(
                &cluster.parse().unwrap(),
                &namespace.parse().unwrap(),
                &name.parse().unwrap(),
            );
            Identity::ServiceAccount(account)
        });
    let spiffe = "spiffe://[a-z0-9.]{1,8}(/[a-zA-Z0-9_-]{1,4}){0,4}".prop_map(|text| text.parse().unwrap());
    prop_oneof![token, account, spiffe]
}

/// Identities of few parts, and the callers of grants that may name them.
fn alike() -> (impl Strategy<Value = Identity>, impl Strategy<Value = String>) {
    let issuers = || select(vec!["https://ci.example", "https://login.example"]);
    let clusters = || select(vec!["eu-1", "us-1"]);
    let (segments, subjects) = (vec!["a", "b", "ns", "sa"], vec!["a", "b", ":", "/", "#", "aa"]);
    let path = move |more: &[&'static str]| vec(select([&segments[..], more].concat()), 0..6);
    let subject = vec(select(subjects), 1..5).prop_map(|parts| parts.concat());
    let text = prop_oneof![
        path(&[])
            .prop_map(|path| ["spiffe://prod.acme", &*path.join("/")].join("/").trim_end_matches('/').into()),
        (clusters(), path(&["c"])).prop_map(|(cluster, path)| {
            let part = |at: usize| path.get(at).copied().unwrap_or("a");
            format!("k8s:{cluster}/{}/{}", part(0), part(1))
        }),
        (issuers(), subject.clone()).prop_map(|(issuer, subject)| TokenSubject::new(
            &issuer.parse().unwrap(),
            &subject
        )
        .unwrap()
        .to_string()),
    ];
    let spiffe = (path(&["*"]), any::<bool>()).prop_map(|(mut path, is_open)| {
        path.extend(is_open.then_some("**"));
        let path: String = path.iter().map(|segment| format!("/{segment}")).collect();
        format!("{{spiffe: 'spiffe://prod.acme{path}'}}")
    });
    let names = || select(vec!["a", "b", "ns", "*"]);
    let account = (clusters(), names(), names()).prop_map(|(cluster, namespace, name)| {
        format!("{{serviceAccount: {{cluster: {cluster}, namespace: '{namespace}', name: '{name}'}}}}")
    });
    let token = (issuers(), subject, any::<bool>()).prop_map(|(issuer, subject, is_open)| {
        let star = if is_open { "*" } else { "" };
        format!("{{token: {{issuer: '{issuer}', subject: '{subject}{star}'}}}}")
    });
    (text.prop_map(|text: String| text.parse().unwrap()), prop_oneof![spiffe, account, token])
}

/// The names of the grants that name a caller, found by a look at each.
fn named_one_by_one<'a>(policy: &'a Policy, caller: &Identity) -> Vec<&'a str> {
    let via = |grant: &'a Grant| grant.callers.iter().filter(|pattern| pattern.matches(caller)).min();
    let mut named: Vec<_> =
        policy.grants().filter_map(|grant| Some((via(grant)?, grant.name.as_str()))).collect();
    named.sort();
    named.into_iter().map(|(_, name)| name).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn the_grants_of_a_caller_are_those_that_a_look_at_each_finds(
        callers in vec(alike().0, 8),
        grants in vec(btree_set(alike().1, 1..4), 0..16),
    ) {
        let mut text = DESTINATION.to_owned();
        for (at, callers) in grants.iter().enumerate() {
            text.push_str("---\n");
            text.push_str(&DESTINATION.replace("{name: api}", &format!("{{name: api{at}}}")).replace("api.example", &format!("api{at}.example")));
            let callers: Vec<&str> = callers.iter().map(String::as_str).collect();
            text.push_str(&grant(&format!("g{at}"), &callers.join(", "), &format!("api{at}")));
        }
        let policy = compile_text(text).unwrap();
        for caller in callers {
            let grants = policy.grants_of(&assumed::caller(caller.as_str()));
            let names: Vec<&str> = grants.iter().map(|grant| grant.name.as_str()).collect();
            prop_assert_eq!(names, named_one_by_one(&policy, &caller), "{}", caller);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn an_identity_reads_back_from_its_text_which_is_visible_ascii(id in identity()) {
        let text = id.to_string();
        let read: Identity = text.parse().unwrap();
        prop_assert!(read == id, "{} {}", read, id);
        prop_assert!(text.bytes().all(|b| b.is_ascii_graphic() && !b"*\"<>\\".contains(&b)), "{}", text);
        prop_assert!(text.starts_with(id.domain()));
        if let Some(namespace) = id.domain_and_namespace() {
            prop_assert!(text.starts_with(namespace) && namespace.starts_with(id.domain()));
            prop_assert!(namespace.ends_with(id.namespace().unwrap()));
        }
    }

    #[test]
    fn whatever_reads_as_an_identity_is_its_own_text(text in pieces()) {
        if let Ok(id) = text.parse::<Identity>() {
            prop_assert_eq!(id.as_str(), text);
        }
    }

    #[test]
    fn no_two_identities_share_a_text_or_a_domain_with_another_kind(one in identity(), other in identity()) {
        prop_assert_eq!(one == other, one.as_str() == other.as_str());
        if std::mem::discriminant(&one) != std::mem::discriminant(&other) {
            prop_assert_ne!(one.domain(), other.domain());
        }
    }
}
