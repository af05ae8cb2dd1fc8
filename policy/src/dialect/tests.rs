use std::path::PathBuf;

use super::*;
use crate::price::Item;

const DIALECT: &str = r#"
dialect: acme
provider: acme
carriers: {headers: [x-key], queries: [key], account_headers: [x-org]}
keys: {dead: [401], spent: [{status: 402, at: error.type, words: [billing]}]}
endpoints:
  - on: [POST /v1/write]
    class: use
    operation: chat
    request:
      model: model
      stream: stream
      usage_option: {member: stream_options, option: include_usage}
      output: {caps: [max_tokens, max_new], budgets: {thinking: budget}, written_to: max_tokens}
      choices: [n]
      tiers: {service_tier: {auto: "", default: default}}
      content: {members: [messages], plain: [text]}
      tools: {members: [tools], call_cap: max_calls, types: {function: {}, "search_*": {outside: true, fee: 0.01 USD}}}
      outside: [previous]
      inert: [temperature]
    response:
      usage:
        - {at: usage.read, unit: input}
        - {at: usage.cached, unit: cache_read, within: input}
        - {at: "output[].type", counts: search, unit: web_searches}
      model: model
      tiers: [{at: tier, not: [standard]}]
      error: error
      stream:
        terminal: {types: [done]}
        opens_at: start
        at: ""
        kind: type
        text: [delta]
  - on: [GET /v1/models, "GET /v1/models/*"]
    class: use
    free: true
  - on: ["* /v1/files/**"]
    class: account-state
  - on: [POST /v1/files/*/share, POST /v1/tokens]
    class: mints-credentials
  - on: [POST /v1/batches]
    class: use
    deferred: true
"#;

fn parse(text: &str) -> Result<Catalog, Vec<Problem>> {
    Catalog::parse(&[SourceFile { path: PathBuf::from("acme.yaml"), text: text.to_owned() }])
}

fn acme() -> Arc<Dialect> {
    parse(DIALECT).unwrap().dialect("acme").unwrap().clone()
}

fn class_of(method: &str, path: &str) -> Option<Class> {
    acme().endpoint(method, path).map(|endpoint| endpoint.class)
}

#[test]
fn an_endpoint_is_found_by_method_and_path() {
    assert_eq!(class_of("POST", "/v1/write"), Some(Class::Use));
    assert_eq!(class_of("GET", "/v1/write"), None);
    assert_eq!(class_of("GET", "/v1/models"), Some(Class::Use));
    assert_eq!(class_of("GET", "/v1/models/one"), Some(Class::Use));
    assert_eq!(class_of("GET", "/v1/models/"), None);
    assert_eq!(class_of("GET", "/v1/models/one/two"), None);
    assert_eq!(class_of("DELETE", "/v1/files"), Some(Class::AccountState));
    assert_eq!(class_of("GET", "/v1/files/a/b/c"), Some(Class::AccountState));
    assert_eq!(class_of("GET", "/v1/filesystem"), None);
}

#[test]
fn the_more_literal_path_wins() {
    assert_eq!(class_of("POST", "/v1/files/a/share"), Some(Class::MintsCredentials));
    assert_eq!(class_of("GET", "/v1/files/a/share"), Some(Class::AccountState));
}

#[test]
fn another_spelling_of_an_endpoint_is_not_use_and_not_less_than_it_is() {
    assert_eq!(class_of("POST", "/v1/Write"), None);
    assert_eq!(class_of("POST", "/v1/write/"), None);
    assert_eq!(class_of("POST", "/v1/Tokens"), Some(Class::MintsCredentials));
    assert_eq!(class_of("POST", "/v1/tokens/"), Some(Class::MintsCredentials));
    assert_eq!(class_of("GET", "/V1/FILES/a"), Some(Class::AccountState));
}

#[test]
fn an_endpoint_says_what_limits_may_ask_of_it() {
    let acme = acme();
    let write = acme.endpoint("POST", "/v1/write").unwrap();
    assert!(write.metered && write.has_facts() && write.forces_usage() && !write.free && !write.deferred);
    assert_eq!(write.operation.as_deref(), Some("chat"));
    let models = acme.endpoint("GET", "/v1/models").unwrap();
    assert!(models.free && !models.metered && !models.has_facts() && !models.forces_usage());
    assert!(acme.endpoint("POST", "/v1/batches").unwrap().deferred);
    assert_eq!(acme.endpoints().count(), 7);
}

#[test]
fn carriers_and_signals_are_data() {
    let acme = acme();
    assert_eq!(acme.carriers().headers, ["x-key".into()]);
    assert_eq!(acme.carriers().queries, ["key".into()]);
    assert_eq!(acme.carriers().account_headers, ["x-org".into()]);
    assert!(acme.keys().dead(401) && !acme.keys().dead(403) && !acme.keys().rate_limited(429));
    assert_eq!(acme.keys().spent(402, br#"{"error": {"type": "billing"}}"#).as_deref(), Some("billing"));
    assert!(!acme.is_plain());
}

#[test]
fn a_member_has_the_class_that_the_file_gives_it() {
    let acme = acme();
    let rules = &acme.endpoint("POST", "/v1/write").unwrap().request;
    assert_eq!(rules.member("model"), Some(&Member::Model));
    assert_eq!(rules.member("max_new"), Some(&Member::Cap));
    assert_eq!(rules.member("thinking"), Some(&Member::Budget("budget".into())));
    assert_eq!(rules.member("previous"), Some(&Member::Outside));
    assert_eq!(rules.member("unheard_of"), None);
    assert!(rules.member("n").is_some_and(Member::is_deciding));
    assert!(!rules.member("temperature").is_some_and(Member::is_deciding));
    assert!(rules.tools.rule(Some("search_2026")).is_some_and(|rule| rule.outside));
    assert_eq!(rules.tools.rule(Some("searching")), None);
    assert_eq!(rules.tools.rule(None), None);
}

#[test]
fn a_stream_reads_its_opening_event_at_a_place_of_its_own() {
    let acme = acme();
    let response = &acme.endpoint("POST", "/v1/write").unwrap().response;
    let buffered: Vec<_> =
        response.buffered.usage.iter().map(|usage| (usage.unit, usage.opening.is_some())).collect();
    assert_eq!(buffered, [(Item::Input, false), (Item::CacheRead, false), (Item::WebSearches, false)]);
    let (rules, streamed) = response.streamed.as_ref().unwrap();
    assert!(streamed.usage.iter().all(|usage| usage.opening.is_some_and(|opening| opening != usage.closing)));
    assert!(matches!(&rules.terminal, Terminal::Types(types) if types.len() == 1));
    let root = streamed.tree.node(0).unwrap();
    assert!(
        root.member(b"start").is_some() && root.member(b"usage").is_some() && root.member(b"other").is_none()
    );
}

#[test]
fn a_file_that_contradicts_itself_is_refused_with_its_line() {
    let cases = [
        ("inert: [temperature]", "inert: [n]", "    request:", "endpoints[0].request", "two classes"),
        ("inert: [temperature]", "inert: [topP]", "    request:", "endpoints[0].request", "lower case"),
        (
            "written_to: max_tokens",
            "written_to: n",
            "    request:",
            "endpoints[0].request",
            "not one of the caps",
        ),
        (
            "on: [POST /v1/batches]",
            "on: [batches]",
            "on: [batches]",
            "endpoints[4].on",
            "a method and a path",
        ),
        ("[POST /v1/batches]", "[POST /v1/tokens]", "endpoints:", "endpoints", "listed twice"),
        (
            "class: account-state",
            "class: state",
            "class: state",
            "endpoints[2].class",
            "`state` is not known here",
        ),
        (
            "    deferred: true",
            "    defered: true",
            "defered",
            "endpoints[4].defered",
            "there is no field `defered` here; did you mean `deferred`?",
        ),
        (
            "at: usage.read",
            "at: usage..read",
            "usage..read",
            "endpoints[0].response.usage[0].at",
            "a path is like",
        ),
        (
            "fee: 0.01 USD",
            "fee: 0.01",
            "fee: 0.01",
            "endpoints[0].request.tools.types.search_*.fee",
            "in quotes",
        ),
    ];
    for (right, wrong, marker, field, message) in cases {
        let text = DIALECT.replace(right, wrong);
        let problems = parse(&text).unwrap_err();
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        let line = text.lines().position(|line| line.contains(marker)).unwrap() + 1;
        assert!(problem.message.contains(message), "{problem:?}");
        assert_eq!((problem.line, &*problem.field), (line, field), "{problem:?}");
    }
}

#[test]
fn one_dialect_is_in_one_file() {
    let file = SourceFile { path: PathBuf::from("acme.yaml"), text: DIALECT.to_owned() };
    let problems = Catalog::parse(&[file.clone(), file]).unwrap_err();
    assert!(problems[0].message.contains("in another file already"));
}
