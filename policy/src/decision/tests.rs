use jiff::Timestamp;

use super::*;
use crate::caller::assumed;
use crate::compile::{Environment, compile_files};
use crate::denial::Reason;
use crate::model::SourceFile;
use crate::operation::{RequestLine, Upgrade};
use crate::policy::Policy;

const CATALOG: [&str; 2] = [
    "dialect: llm
provider: llm
endpoints:
  - on: [POST /chat]
    class: use
    request: {model: model}
    response: {usage: [{at: usage.in, unit: input}]}
  - {on: [GET /models], class: use, free: true}
  - {on: [POST /image], class: use}
",
    "prices: llm
source: made up for tests
standard: [default]
snapshots: []
models:
  - {model: cheap, prices: [{valid_from: 2025-01-01, rates: {input: 1, output: 1}}]}
  - {model: dear, prices: [{valid_from: 2025-01-01, rates: {input: 9, output: 9}}]}
",
];

fn environment() -> Environment {
    let files = CATALOG.map(|text| SourceFile { path: "catalog.yaml".into(), text: text.to_owned() });
    let trust_domains = vec!["prod.acme".parse().unwrap()];
    Environment {
        catalog: Arc::new(Catalog::parse(&files).unwrap()),
        trust_domains,
        ..Environment::default()
    }
}

fn grant(name: &str, spec: &str) -> String {
    let head = "---\napiVersion: tollgate.dev/v1alpha1\nkind: Grant\n";
    format!(
        "{head}metadata: {{name: {name}}}\nspec: {{callers: [{{spiffe: \"spiffe://prod.acme/web\"}}], destination: llm{spec}}}\n"
    )
}

const DESTINATION: &str = "apiVersion: tollgate.dev/v1alpha1\nkind: Destination\nmetadata: {name: llm}\nspec: {hosts: [llm.example], dialect: llm}\n";

fn policy(grants: &[String]) -> Policy {
    let file = SourceFile { path: "a.yaml".into(), text: format!("{DESTINATION}{}", grants.concat()) };
    compile_files(&[file], &environment()).unwrap().policy
}

fn caller_of(text: &str) -> Caller {
    assumed(text.parse().unwrap())
}

fn caller() -> Caller {
    caller_of("spiffe://prod.acme/web")
}

fn admit(policy: &Policy, method: &str, path: &str) -> Result<Admission, Denial> {
    let line = RequestLine { authority: "llm.example", method, path, query: None };
    let (target, request) = policy.resolve(&line)?;
    policy.admit(&policy.grants_of(&caller()), target, Operation::Http(request))
}

fn permit(policy: &Policy, method: &str, path: &str, model: &str) -> Result<Permit, Reason> {
    let model = (!model.is_empty()).then(|| Arc::from(model));
    let facts = Facts { model, ..Facts::default() };
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let admission = admit(policy, method, path).map_err(|denial| denial.reason)?;
    admission.permit(&facts, now).map_err(|denial| denial.reason)
}

#[test]
fn a_call_goes_on_with_another_protocol_only_where_the_grant_that_decides_lists_it() {
    let websocket = |policy: &Policy, path: &str| {
        let line = RequestLine { authority: "llm.example", method: "GET", path, query: None };
        let (target, request) = policy.resolve(&line).map_err(|denial| denial.reason)?;
        let operation = request.upgrading(Some(Upgrade::Websocket)).into();
        let grants = policy.grants_of(&caller());
        let decided = policy
            .admit(&grants, target, operation)
            .and_then(|admission| admission.permit(&Facts::default(), Timestamp::now()));
        decided.map(|permit| permit.grant().name.to_string()).map_err(|denial| denial.reason)
    };
    let listed = grant("listed", ", allow: {methods: [GET], paths: [/ws], upgrades: [websocket]}");
    assert_eq!(websocket(&policy(std::slice::from_ref(&listed)), "/ws").unwrap(), "listed");
    assert_eq!(websocket(&policy(&[grant("a", "")]), "/ws"), Err(Reason::UpgradeRefused));
    let unlisted = grant("unlisted", ", allow: {methods: [GET], paths: [/ws]}");
    assert_eq!(websocket(&policy(&[unlisted]), "/ws"), Err(Reason::UpgradeRefused));
    // A narrower grant without it is not passed over for a broader one that has it.
    let narrow = grant("narrow", ", allow: {methods: [GET], paths: [/models]}");
    let broad = grant("broad", ", allow: {methods: [GET], paths: [\"/*\"], upgrades: [websocket]}");
    let both = policy(&[narrow, broad]);
    assert_eq!(websocket(&both, "/models"), Err(Reason::UpgradeRefused));
    assert!(permit(&both, "GET", "/models", "").is_ok());
    // Nobody can say what a session costs, whatever the endpoint is without one.
    let limited = grant("limited", ", allow: {upgrades: [websocket]}, limits: [{requests: 9, per: day}]");
    assert_eq!(websocket(&policy(std::slice::from_ref(&limited)), "/models").unwrap(), "limited");
    let problem = |spec: &str| {
        let text = format!("{}{}", DESTINATION, grant("a", spec));
        let file = SourceFile { path: "a.yaml".into(), text };
        compile_files(&[file], &environment()).unwrap_err().remove(0).to_string()
    };
    let tokens = problem(", allow: {upgrades: [websocket]}, limits: [{tokens: 9, per: day}]");
    assert!(tokens.contains("spec.allow.upgrades: models, tokens or spend are limited"), "{tokens}");
}

#[test]
fn the_body_is_read_only_where_something_in_it_counts() {
    let unlimited = policy(&[grant("a", "")]);
    assert!(admit(&unlimited, "POST", "/chat").unwrap().reads_body());
    assert!(!admit(&unlimited, "GET", "/models").unwrap().reads_body());
    assert!(!admit(&unlimited, "POST", "/image").unwrap().reads_body());
}

#[test]
fn a_call_is_charged_by_its_model() {
    let policy = policy(&[grant("a", ", limits: [{spend: 1 USD, per: day}]")]);
    assert!(
        matches!(permit(&policy, "POST", "/chat", "cheap").unwrap().price(), Priced::At(price) if price.model() == "cheap")
    );
    assert!(matches!(permit(&policy, "GET", "/models", "").unwrap().price(), Priced::Free));
    assert_eq!(permit(&policy, "POST", "/chat", "unknown").unwrap_err(), Reason::UnpricedModel);
    assert_eq!(permit(&policy, "POST", "/chat", "").unwrap_err(), Reason::UnpricedModel);
    assert_eq!(permit(&policy, "POST", "/image", "cheap").unwrap_err(), Reason::UnmeteredEndpoint);
}

#[test]
fn an_unpriced_model_is_never_free() {
    let price = |rule: &str, model: &str| {
        let policy = policy(&[grant("a", rule)]);
        permit(&policy, "POST", "/chat", model).unwrap().price().clone()
    };
    assert!(matches!(price("", "unknown"), Priced::Unpriced));
    assert!(matches!(
        price(", unpriced: flag, limits: [{spend: 1 USD, per: day}]", "unknown"),
        Priced::Unpriced
    ));
    let dearest = price(", unpriced: dearest, limits: [{spend: 1 USD, per: day}]", "unknown");
    let Priced::Dearest(dearest) = dearest else { panic!("{dearest:?}") };
    let Priced::At(dear) = price("", "dear") else { panic!("dear has a price") };
    assert_eq!(dearest.ceiling(1000, 1000, None), dear.ceiling(1000, 1000, None));
}

#[test]
fn a_grant_that_decides_and_refuses_hands_nothing_down() {
    let limited =
        grant("limited", ", allow: {methods: [POST], paths: [/image]}, limits: [{tokens: 1, per: day}]");
    let policy = policy(&[limited, grant("open", "")]);
    assert_eq!(permit(&policy, "POST", "/image", "cheap").unwrap_err(), Reason::UnmeteredEndpoint);
    assert_eq!(permit(&policy, "POST", "/chat", "cheap").unwrap().grant().name.as_str(), "open");
}

#[test]
fn a_grant_whose_models_do_not_match_does_not_decide() {
    let narrow = grant("narrow", ", allow: {methods: [POST], paths: [/chat], models: [cheap]}");
    let policy = policy(&[narrow, grant("open", "")]);
    assert_eq!(permit(&policy, "POST", "/chat", "cheap").unwrap().grant().name.as_str(), "narrow");
    assert_eq!(permit(&policy, "POST", "/chat", "dear").unwrap().grant().name.as_str(), "open");
    assert_eq!(permit(&policy, "POST", "/chat", "").unwrap().grant().name.as_str(), "open");
}

#[test]
fn a_stream_holds_only_while_the_same_grant_decides() {
    let before = policy(&[grant("open", "")]);
    let permit = permit(&before, "POST", "/chat", "cheap").unwrap();
    let holds = |after: &Policy| after.reauthorize(&after.grants_of(&caller()), &permit, Some("cheap"));
    assert!(holds(&before));
    assert!(
        holds(&policy(&[grant("open", ", limits: [{tokens: 1, per: day}]")])),
        "limits are not a matter of who decides"
    );
    assert!(!holds(&policy(&[])));
    assert!(!holds(&policy(&[grant("renamed", "")])));
    assert!(!holds(&policy(&[grant("open", ""), grant("narrow", ", allow: {paths: [/chat]}")])));
    assert!(!holds(&policy(&[grant("open", ", allow: {models: [dear]}")])));
    let other = caller_of("spiffe://prod.acme/other");
    assert!(!before.reauthorize(&before.grants_of(&other), &permit, Some("cheap")));
}

#[test]
fn a_stream_does_not_outlive_its_host_or_key() {
    let before = policy(&[grant("open", "")]);
    let permit = permit(&before, "POST", "/chat", "cheap").unwrap();
    let holds = |resources: &str| {
        let file = SourceFile { path: "a.yaml".into(), text: format!("{resources}{}", grant("open", "")) };
        let after = compile_files(&[file], &environment()).unwrap().policy;
        after.reauthorize(&after.grants_of(&caller()), &permit, Some("cheap"))
    };
    let destination = "apiVersion: tollgate.dev/v1alpha1\nkind: Destination\nmetadata: {name: llm}\n";
    assert!(holds(&format!("{destination}spec: {{hosts: [new.example, llm.example], dialect: llm}}\n")));
    assert!(!holds(&format!("{destination}spec: {{hosts: [new.example], dialect: llm}}\n")));
    assert!(!holds(&format!("{destination}spec: {{hosts: [llm.example], port: 8443, dialect: llm}}\n")));
}

#[test]
fn a_stream_does_not_outlive_the_client_certificate_of_its_connection() {
    let shows = |name: &str| {
        let destination = "apiVersion: tollgate.dev/v1alpha1\nkind: Destination\nmetadata: {name: llm}\n";
        let store = "---\napiVersion: tollgate.dev/v1alpha1\nkind: SecretStore\nmetadata: {name: files}\nspec: {file: {root: /run/secrets}}\n";
        let certificate = |name: &str| {
            format!(
                "---\napiVersion: tollgate.dev/v1alpha1\nkind: Credential\nmetadata: {{name: {name}}}\nspec: {{destinations: [llm], \
                 from: {{store: files, path: {name}, fields: [c, k]}}, inject: {{clientCertificate: {{certificate: c, key: k}}}}}}\n"
            )
        };
        let tls =
            if name.is_empty() { String::new() } else { format!(", tls: {{clientCertificate: {name}}}") };
        let text = [
            format!("{destination}spec: {{hosts: [llm.example], dialect: llm{tls}}}\n"),
            store.to_owned(),
            certificate("one"),
            certificate("other"),
            grant("open", ", allow: {methods: [POST], paths: [/chat]}"),
        ];
        compile_files(&[SourceFile { path: "a.yaml".into(), text: text.concat() }], &environment())
            .unwrap()
            .policy
    };
    let permit = permit(&shows("one"), "POST", "/chat", "cheap").unwrap();
    for (name, holds) in [("one", true), ("other", false), ("", false)] {
        let after = shows(name);
        assert_eq!(after.reauthorize(&after.grants_of(&caller()), &permit, Some("cheap")), holds, "{name}");
    }
}

#[test]
fn a_denial_tells_the_caller_what_stands_in_the_way_in_bounded_visible_text() {
    let policy = policy(&[grant("a", ", allow: {methods: [POST], paths: [/chat], models: [cheap]}")]);
    let model = format!("<b>\u{1b}[31m{}", "x".repeat(10_000));
    let facts = Facts { model: Some(model.into()), ..Facts::default() };
    let denial = admit(&policy, "POST", "/chat").unwrap().permit(&facts, Timestamp::UNIX_EPOCH).unwrap_err();
    assert_eq!(denial.reason, Reason::ModelNotAllowed);
    assert!(denial.detail.len() < 300 && denial.detail.chars().all(|c| !c.is_control()), "{}", denial.detail);
}

#[test]
fn a_call_whose_action_is_no_longer_listed_does_not_hold() {
    const KEY: &str = "---\napiVersion: tollgate.dev/v1alpha1\nkind: SecretStore\nmetadata: {name: files}\nspec: {file: {root: /run/secrets}}\n\
        ---\napiVersion: tollgate.dev/v1alpha1\nkind: Credential\nmetadata: {name: aws}\nspec: {destinations: [llm], \
        from: {store: files, path: aws, fields: [id, key]}, \
        inject: {sigv4: {accessKeyId: id, secretAccessKey: key, regions: [eu-1], services: [sts]}}}\n";
    let listing = |actions: &str| {
        let spec =
            format!(", credential: aws, allow: {{methods: [GET], paths: [/models], actions: [{actions}]}}");
        policy(&[KEY.to_owned(), grant("web", &spec)])
    };
    let before = listing("GetItem, PutItem");
    let named = |names: &[&str]| {
        let facts = Facts {
            actions: Actions::of(names.iter().map(|name| Arc::from(*name))).unwrap(),
            ..Facts::default()
        };
        let permit = admit(&before, "GET", "/models").unwrap().permit(&facts, Timestamp::UNIX_EPOCH);
        permit.map_err(|denial| denial.reason)
    };
    let permit = named(&["GetItem", "PutItem"]).unwrap();
    for (actions, holds) in [("GetItem, PutItem", true), ("'*'", true), ("GetItem", false)] {
        let after = listing(actions);
        assert_eq!(after.reauthorize(&after.grants_of(&caller()), &permit, None), holds, "{actions}");
    }
    for names in [&[][..], &["DeleteItem"], &["GetItem", "DeleteItem"]] {
        assert_eq!(named(names).err(), Some(Reason::ActionNotAllowed), "{names:?}");
    }
}

#[test]
fn a_suspended_grant_still_matches_and_denies_where_a_broader_one_would_permit() {
    let narrow = grant("narrow", ", allow: {models: [cheap]}, suspended: its credential is broken");
    let broad = grant("broad", "");
    let policy = policy(&[narrow, broad]);
    let facts = |model: &str| Facts { model: Some(model.into()), ..Facts::default() };
    let denial =
        admit(&policy, "POST", "/chat").unwrap().permit(&facts("cheap"), Timestamp::UNIX_EPOCH).unwrap_err();
    assert_eq!(denial.reason, Reason::GrantSuspended);
    assert_eq!(denial.detail, "grant narrow is suspended: its credential is broken");
    let permit =
        admit(&policy, "POST", "/chat").unwrap().permit(&facts("dear"), Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(
        permit.grant().name.as_str(),
        "broad",
        "what the suspended grant does not match is not its own"
    );
}

#[test]
fn where_only_suspended_grants_match_nothing_of_the_body_is_read() {
    let policy = policy(&[grant("only", ", suspended: it is under review")]);
    assert_eq!(admit(&policy, "POST", "/chat").unwrap_err().reason, Reason::GrantSuspended);
}

#[test]
fn a_call_under_way_does_not_outlive_the_suspension_of_its_grant() {
    let before = policy(&[grant("only", "")]);
    let permit =
        admit(&before, "GET", "/models").unwrap().permit(&Facts::default(), Timestamp::UNIX_EPOCH).unwrap();
    assert!(before.reauthorize(&before.grants_of(&caller()), &permit, None));
    let after = policy(&[grant("only", ", suspended: it is under review")]);
    assert!(!after.reauthorize(&after.grants_of(&caller()), &permit, None));
}

fn destination(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: tollgate.dev/v1alpha1\nkind: Destination\nmetadata: {{name: {name}}}\nspec: {{hosts: [{name}.example]{spec}}}\n"
    )
}

/// A destination of each protocol at a port of its own, and a grant for each to the same caller.
fn each_protocol() -> Policy {
    each_protocol_with("")
}

fn each_protocol_with(more: &str) -> Policy {
    let of = |name: &str| grant(name, more).replace("destination: llm", &format!("destination: {name}"));
    let text = [
        destination("web", ", dialect: llm"),
        destination("queue", ", protocol: tcp, port: 5671"),
        destination("orders", ", protocol: postgres, port: 5432"),
        of("web"),
        of("queue"),
        of("orders"),
    ];
    compile_files(&[SourceFile { path: "a.yaml".into(), text: text.concat() }], &environment())
        .unwrap()
        .policy
}

fn connect(policy: &Policy, host: &str, port: u16, operation: Operation) -> Result<Permit, Reason> {
    let decided = || {
        let target = policy.target(host, port)?;
        let admission = policy.admit(&policy.grants_of(&caller()), target, operation)?;
        assert!(!admission.reads_body() && admission.http().is_none());
        admission.permit(&Facts::default(), Timestamp::UNIX_EPOCH)
    };
    decided().map_err(|denial: Denial| denial.reason)
}

#[test]
fn each_kind_of_operation_is_permitted_only_where_the_destination_speaks_it() {
    use Operation::{DatabaseSession, Tunnel};

    let policy = each_protocol();
    let name = |permit: Result<Permit, Reason>| permit.map(|permit| permit.grant().name.to_string());
    assert_eq!(name(connect(&policy, "queue.example", 5671, Tunnel)), Ok("queue".to_owned()));
    assert_eq!(name(connect(&policy, "orders.example", 5432, DatabaseSession)), Ok("orders".to_owned()));
    for (host, port, operation) in [
        ("web.example", 443, Tunnel),
        ("web.example", 443, DatabaseSession),
        ("queue.example", 5671, DatabaseSession),
        ("orders.example", 5432, Tunnel),
    ] {
        assert_eq!(
            name(connect(&policy, host, port, operation.clone())),
            Err(Reason::NoGrant),
            "{operation:?}"
        );
    }
    for (authority, path) in
        [("queue.example:5671", "/"), ("queue.example", "/"), ("orders.example:5432", "/")]
    {
        let line = RequestLine { authority, method: "GET", path, query: None };
        assert_eq!(policy.resolve(&line).unwrap_err().reason, Reason::UnknownHost, "{authority}");
    }
}

#[test]
fn a_connection_without_a_grant_of_its_caller_is_denied() {
    let policy = each_protocol();
    let grants = policy.grants_of(&caller_of("spiffe://prod.acme/other"));
    for (host, port, operation) in
        [("queue.example", 5671, Operation::Tunnel), ("orders.example", 5432, Operation::DatabaseSession)]
    {
        let target = policy.target(host, port).unwrap();
        assert_eq!(policy.admit(&grants, target, operation).unwrap_err().reason, Reason::NoGrant);
    }
}

#[test]
fn a_connection_is_free_carries_nothing_and_does_not_outlive_its_protocol() {
    let before = each_protocol();
    let permit = connect(&before, "queue.example", 5671, Operation::Tunnel).unwrap();
    assert!(matches!(permit.price(), Priced::Free) && permit.endpoint().is_none() && permit.http().is_none());
    assert!(!permit.scrubs_bodies() && permit.credential().is_none());
    let holds = |spec: &str| {
        let text = [
            destination("queue", spec),
            grant("queue", "").replace("destination: llm", "destination: queue"),
        ];
        let file = SourceFile { path: "a.yaml".into(), text: text.concat() };
        let after = compile_files(&[file], &environment()).unwrap().policy;
        after.reauthorize(&after.grants_of(&caller()), &permit, None)
    };
    assert!(holds(", protocol: tcp, port: 5671"));
    assert!(!holds(", protocol: postgres, port: 5671"));
    for elsewhere in ["addresses: [192.0.2.7]", "sourceAddress: 192.0.2.8"] {
        assert!(!holds(&format!(", protocol: tcp, port: 5671, {elsewhere}")), "{elsewhere}");
    }
    assert!(!holds(", port: 5671, dialect: llm"));
}

#[test]
fn a_suspended_grant_refuses_a_connection_too() {
    let policy = each_protocol_with(", suspended: leaked");
    assert_eq!(
        connect(&policy, "queue.example", 5671, Operation::Tunnel).unwrap_err(),
        Reason::GrantSuspended
    );
}
