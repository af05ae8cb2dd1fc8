//! What holds of every path and every set of grants.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is a test")]

#[path = "support/assumed.rs"]
mod assumed;
#[path = "support/read.rs"]
mod read;

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use tollgate_policy::compile::{Environment, compile_files};
use tollgate_policy::decision::Facts;
use tollgate_policy::denial::Reason;
use tollgate_policy::dialect::Catalog;
use tollgate_policy::model::SourceFile;
use tollgate_policy::operation::{Operation, RequestLine};
use tollgate_policy::pattern::PathPattern;
use tollgate_policy::policy::Policy;

const HEAD: &str = "apiVersion: tollgate.dev/v1alpha1\nkind:";

const DESTINATIONS: &str = r#"
apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {name: strict}
spec: {hosts: [strict.example]}
---
apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {name: lenient}
spec: {hosts: [lenient.example], encodedPath: ["%2F", "%5C", "%25", ";"]}
---
apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {name: literal}
spec: {hosts: [literal.example], encodedPath: ["%2F", "%5C", "%25", ";", "//", "..", "%09"]}
---
apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {name: llm}
spec: {hosts: [llm.example], dialect: openai}
"#;

/// `None`: the grants tie.
fn policy(grants: &[String]) -> Option<Policy> {
    static CATALOG: LazyLock<Arc<Catalog>> = LazyLock::new(read::catalog);
    let text = format!("{DESTINATIONS}{}", grants.concat());
    let environment = Environment {
        catalog: Arc::clone(&CATALOG),
        gateway_names: vec!["tollgate:8443".parse().unwrap()],
        trust_domains: vec!["prod.acme".parse().unwrap(), "dev.acme".parse().unwrap()],
        ..Environment::default()
    };
    match compile_files(&[SourceFile { path: "a.yaml".into(), text }], &environment) {
        Ok(compiled) => Some(compiled.policy),
        Err(problems) => {
            assert!(problems.iter().all(|problem| problem.message.contains("ties")), "{problems:?}");
            None
        }
    }
}

fn nasty_path() -> impl Strategy<Value = String> {
    let pieces = vec![
        "/", "/", "/", ".", "..", "%2e", "%2E", "%252e", "%25", "25", "2e", "%2f", "%2F", "%5c", "\\", ";",
        "%3b", "a", "b", "%61", "%7e", "%00", "%0a", "%", "é", "%c3%a9", "//", " ", "%20", "*", "**", "?",
        "#", "openai", "lenient", "@", ":",
    ];
    vec(select(pieces), 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// Every reading of a path by one who decodes it any number of times.
fn readings(path: &str) -> Vec<Vec<u8>> {
    let mut readings = vec![path.as_bytes().to_vec()];
    loop {
        let last = readings.last().unwrap();
        let next: Vec<u8> = percent_encoding::percent_decode(last).collect();
        if next == *last {
            return readings;
        }
        readings.push(next);
    }
}

#[derive(Debug, Clone)]
struct Rule {
    caller: &'static str,
    destination: &'static str,
    methods: Vec<&'static str>,
    paths: Vec<&'static str>,
    models: Vec<&'static str>,
}

#[derive(Debug, Clone)]
struct Call {
    caller: &'static str,
    destination: &'static str,
    method: &'static str,
    path: &'static str,
    model: Option<&'static str>,
}

impl Rule {
    fn yaml(&self, name: &str) -> String {
        let Self { caller, destination, methods, paths, models } = self;
        let models = if models.is_empty() { String::new() } else { format!(", models: {models:?}") };
        format!(
            "---\n{HEAD} Grant\nmetadata: {{name: {name}}}\nspec:\n  callers: [{{spiffe: {caller:?}}}]\n  destination: {destination}\n  \
             allow: {{methods: {methods:?}, paths: {paths:?}{models}}}\n",
        )
    }

    /// The words of the documentation once more, without the machinery of the crate.
    fn matches(&self, call: &Call) -> bool {
        let model = |pattern: &&str| match (call.model, pattern.strip_suffix('*')) {
            (None, _) => call.path == "/v1/models",
            (Some(model), Some(beginning)) => model.starts_with(beginning),
            (Some(model), None) => model == *pattern,
        };
        self.destination == call.destination
            && wildcard(self.caller, call.caller)
            && self.methods.iter().any(|method| *method == "*" || *method == call.method)
            && self.paths.iter().any(|path| wildcard(path, call.path))
            && (self.models.is_empty() || self.models.iter().any(model))
    }
}

fn wildcard(pattern: &str, text: &str) -> bool {
    match (pattern.split_once('/'), text.split_once('/')) {
        _ if pattern == "**" => true,
        (None, None) => pattern == text || (pattern == "*" && !text.is_empty()),
        (Some((first, pattern)), Some((segment, text))) => {
            (first == segment || (first == "*" && !segment.is_empty())) && wildcard(pattern, text)
        }
        _ => false,
    }
}

fn some<T: Clone + std::fmt::Debug + 'static>(of: Vec<T>) -> impl Strategy<Value = Vec<T>> {
    let len = of.len();
    subsequence(of, 1..=len)
}

fn rule() -> impl Strategy<Value = Rule> {
    let callers = vec![
        "spiffe://prod.acme/ns/web/sa/a",
        "spiffe://prod.acme/ns/web/sa/*",
        "spiffe://prod.acme/ns/*/sa/a",
        "spiffe://prod.acme/ns/web/**",
        "spiffe://prod.acme/**",
    ];
    let paths = vec!["/v1/models", "/v1/chat/completions", "/v1/*", "/v1/*/completions", "/v1/**", "/**"];
    let models = prop_oneof![Just(vec![]), some(vec!["gpt-5-mini", "gpt-5*", "gpt-*"])];
    (select(callers), some(vec!["GET", "POST", "*"]), some(paths), models).prop_map(
        |(caller, methods, paths, models)| Rule { caller, destination: "llm", methods, paths, models },
    )
}

fn call() -> impl Strategy<Value = Call> {
    let callers = vec![
        "spiffe://prod.acme/ns/web/sa/a",
        "spiffe://prod.acme/ns/web/sa/b",
        "spiffe://prod.acme/ns/shop/sa/a",
        "spiffe://prod.acme/x",
    ];
    let models = vec![None, Some("gpt-5-mini"), Some("gpt-5"), Some("gpt-4.1"), Some("o3")];
    // Only calls that the dialect lists as use: classes and meters are the golden corpus's matter.
    let calls = vec![("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("POST", "/v1/embeddings")];
    (select(callers), select(calls), select(models)).prop_map(|(caller, (method, path), model)| Call {
        caller,
        destination: "llm",
        method,
        path,
        model,
    })
}

/// The name of the grant that decides.
fn decide(policy: &Policy, call: &Call) -> Result<String, Reason> {
    let authority = format!("{}.example", call.destination);
    let line = RequestLine { authority: &authority, method: call.method, path: call.path, query: None };
    let caller = assumed::caller(call.caller);
    let facts = Facts { model: call.model.map(Into::into), ..Facts::default() };
    let (target, request) = policy.resolve(&line).map_err(|denial| denial.reason)?;
    let admission = policy
        .admit(&policy.grants_of(&caller), target, Operation::Http(request))
        .map_err(|denial| denial.reason)?;
    let permit = admission.permit(&facts, Timestamp::UNIX_EPOCH).map_err(|denial| denial.reason)?;
    Ok(permit.grant().name.to_string())
}

fn written(rules: &[Rule]) -> Vec<String> {
    rules.iter().enumerate().map(|(index, rule)| rule.yaml(&format!("g{index}"))).collect()
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_accepted_path_is_its_own_canonical_form_and_holds_no_dot_segment_in_any_reading(paths in vec(nasty_path(), 64)) {
        let policy = policy(&[]).unwrap();
        for (path, authority) in paths.iter().flat_map(|path| [(path, "strict.example"), (path, "lenient.example")]) {
            let line = RequestLine { authority, method: "GET", path, query: None };
            let Ok((_, request)) = policy.resolve(&line) else { continue };
            let (_, again) = policy.resolve(&RequestLine { path: request.path(), ..line }).unwrap();
            prop_assert_eq!(request.path(), again.path());
            for reading in readings(request.path()) {
                prop_assert!(!reading.iter().any(u8::is_ascii_control), "{} from {}", request.path(), path);
                for segment in reading.split(|b| b"/\\".contains(b)) {
                    let name = segment.split(|b| *b == b';').next().unwrap();
                    prop_assert!(name != b"." && name != b"..", "{} from {}", request.path(), path);
                }
            }
            prop_assert!(!request.path().contains("//") && request.path().is_ascii());
        }
    }

    #[test]
    fn whatever_a_destination_allows_no_reading_of_a_path_leaves_the_part_that_its_grant_names(
        paths in vec(nasty_path(), 64),
    ) {
        let policy = policy(&[]).unwrap();
        let below: PathPattern = "/a/**".parse().unwrap();
        let resolve = |path: &[u8], skips: bool| {
            let mut kept: Vec<&[u8]> = Vec::new();
            for segment in path.split(|b| b"/\\".contains(b)).skip(1) {
                match segment {
                    b"." => {}
                    b"" if skips => {}
                    b".." => drop(kept.pop()),
                    segment => kept.push(segment),
                }
            }
            kept.into_iter().find(|segment| !segment.is_empty()).map(<[u8]>::to_vec)
        };
        let spelt = paths.iter().flat_map(|path| [path.clone(), format!("/a{path}")]);
        for path in spelt {
            let line = RequestLine { authority: "literal.example", method: "GET", path: &path, query: None };
            let Ok((_, request)) = policy.resolve(&line) else { continue };
            let (_, again) = policy.resolve(&RequestLine { path: request.path(), ..line }).unwrap();
            prop_assert_eq!(again.path(), request.path());
            if !below.matches(request.path()) {
                continue;
            }
            for reading in readings(request.path()) {
                for skips in [false, true] {
                    let first = resolve(&reading, skips);
                    prop_assert!(first.as_deref().is_none_or(|first| first == b"a"), "{} from {}", request.path(), path);
                }
            }
        }
    }

    #[test]
    fn a_path_behind_a_gateway_name_is_the_path_of_its_destination(paths in vec(nasty_path(), 64)) {
        let policy = policy(&[]).unwrap();
        for path in &paths {
            let at = |authority, path: &str| {
                let line = RequestLine { authority, method: "GET", path, query: None };
                let found = policy.resolve(&line).map_err(|denial| denial.reason);
                found.map(|(target, request)| (target.host().to_owned(), request.path().to_owned()))
            };
            prop_assert_eq!(at("tollgate:8443", &format!("/lenient{path}")), at("lenient.example", path));
            prop_assert_eq!(at("tollgate:8443", &format!("/literal{path}")), at("literal.example", path));
        }
    }

    #[test]
    fn a_call_that_no_grant_matches_is_refused_and_another_goes_to_one_that_matches(
        rules in vec(rule(), 0..5),
        calls in vec(call(), 16),
    ) {
        let Some(policy) = policy(&written(&rules)) else { return Ok(()) };
        for call in &calls {
            let matching: Vec<usize> = (0..rules.len()).filter(|index| rules[*index].matches(call)).collect();
            match decide(&policy, call) {
                Ok(name) => prop_assert!(matching.iter().any(|index| name == format!("g{index}")), "{name} for {call:?} of {rules:?}"),
                Err(reason) if matching.is_empty() => prop_assert_ne!(reason, Reason::Internal),
                Err(reason) => prop_assert!(false, "{reason} for {call:?} of {rules:?}"),
            }
        }
    }

    #[test]
    fn the_order_in_the_files_decides_nothing(rules in vec(rule(), 1..5), calls in vec(call(), 16)) {
        let mut grants = written(&rules);
        let forward = policy(&grants);
        grants.reverse();
        let backward = policy(&grants);
        prop_assert_eq!(forward.is_some(), backward.is_some());
        let (Some(forward), Some(backward)) = (forward, backward) else { return Ok(()) };
        for call in &calls {
            prop_assert_eq!(decide(&forward, call), decide(&backward, call));
        }
    }

    #[test]
    fn a_grant_for_others_changes_no_decision(rules in vec(rule(), 0..4), other in rule(), calls in vec(call(), 16)) {
        let mut grants = written(&rules);
        let Some(before) = policy(&grants) else { return Ok(()) };
        let elsewhere = Rule { destination: "strict", models: vec![], ..other.clone() };
        let others = Rule { caller: "spiffe://dev.acme/**", ..other };
        grants.extend([elsewhere.yaml("elsewhere"), others.yaml("others")]);
        let after = policy(&grants).expect("they are for others, so nothing ties");
        for call in &calls {
            prop_assert_eq!(decide(&before, call), decide(&after, call));
        }
    }

    #[test]
    fn without_grants_nothing_is_allowed(calls in vec(call(), 16)) {
        let policy = policy(&[]).unwrap();
        for call in &calls {
            prop_assert_eq!(decide(&policy, call), Err(Reason::NoGrant));
        }
    }
}
