use std::time::Duration;

use super::*;
use crate::limit::{LimitKind, Per, Window};
use crate::resource::{
    ClientCertificate, HttpVersion, Inject, Injection, Key, KvVersion, StoreKind, TlsVerify, TokenLogin,
    Unpriced, VaultAuth,
};

const RESOURCES: &str = r#"
apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {name: api}
spec: {hosts: [api.example]}
---
apiVersion: tollgate.dev/v1alpha1
kind: SecretStore
metadata: {name: bao}
spec: {vault: {address: "https://BAO.example:8200/", auth: {appRole: {roleIdFile: role, secretIdFile: secret}}}}
---
apiVersion: tollgate.dev/v1alpha1
kind: Credential
metadata: {name: key}
spec:
  destinations: [api]
  from: {store: bao, path: saas/api, field: key}
  inject: {header: {name: X-Api-Key}}
---
apiVersion: tollgate.dev/v1alpha1
kind: Grant
metadata: {name: web}
spec:
  callers: [{spiffe: "spiffe://prod.acme/web"}]
  destination: api
  credential: key
  allow: {methods: [POST, GET], paths: [/v1/**, /v1/x], responseHeaders: [Set-Cookie]}
"#;

const CATALOG: &str = "dialect: http\nprovider: http\nplain: true\nendpoints: []\n";

const SLOW: &str =
    "dialect: slow\nprovider: http\nplain: true\npatience: {first_byte: 600s, idle: 500s}\nendpoints: []\n";

fn environment() -> Environment {
    let catalog = |text: &str| SourceFile { path: "catalog.yaml".into(), text: text.to_owned() };
    Environment {
        catalog: Arc::new(Catalog::parse(&[catalog(CATALOG), catalog(SLOW)]).unwrap()),
        gateway_names: vec!["Tollgate:8443".parse().unwrap()],
        trust_domains: vec!["prod.acme".parse().unwrap()],
        ..Environment::default()
    }
}

fn compiled(more: &str) -> (Policy, Vec<Problem>) {
    let file = SourceFile { path: "a.yaml".into(), text: format!("{RESOURCES}{more}") };
    let Compiled { policy, warnings, .. } = compile_files(&[file], &environment()).unwrap();
    (policy, warnings)
}

#[test]
fn what_a_dialect_says_of_its_answers_holds_where_the_destination_does_not() {
    let more = |spec: &str| {
        format!(
            "---\napiVersion: tollgate.dev/v1alpha1\nkind: Destination\nmetadata: {{name: slow}}\nspec: {{hosts: [slow.example]{spec}}}\n"
        )
    };
    let slow = |spec: &str| {
        let (policy, _) = compiled(&more(spec));
        let destination = policy.destination("slow").unwrap();
        let http = destination.http().unwrap();
        (http.first_byte.as_secs(), destination.timeouts.idle.as_secs(), http.version)
    };
    assert_eq!(slow(", dialect: slow"), (600, 500, HttpVersion::Auto));
    assert_eq!(slow(", dialect: slow, timeouts: {firstByte: 7s}, http: 2"), (7, 500, HttpVersion::Http2));
    assert_eq!(slow(", http: 1"), (60, 300, HttpVersion::Http1));
    assert_eq!(slow(", http: 1.1"), (60, 300, HttpVersion::Http1));
    assert_eq!(slow(", http: auto"), (60, 300, HttpVersion::Auto));
    let file = SourceFile { path: "a.yaml".into(), text: format!("{RESOURCES}{}", more(", http: 3")) };
    let problems = compile_files(&[file], &environment()).unwrap_err();
    assert!(problems[0].to_string().contains("spec.http: "), "{problems:?}");
}

#[test]
fn a_field_that_does_not_belong_to_the_protocol_is_a_problem_at_its_line() {
    let text = "apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {name: queue}
spec:
  hosts: [queue.example]
  protocol: tcp
  port: 5671
  dialect: slow
  http: 2
  timeouts: {connect: 5s, firstByte: 7s, idle: 9s}
  encodedPath: [\"%2F\"]
  scrub: headers
---
apiVersion: tollgate.dev/v1alpha1
kind: Grant
metadata: {name: queue}
spec:
  callers: [{spiffe: \"spiffe://prod.acme/web\"}]
  destination: queue
  allow:
    methods: [GET]
    paths: [/a]
    models: [m]
    range: true
  callerToken: {audience: \"https://queue.example\"}
  unpriced: flag
  limits: [{tokens: 5, per: day}]
";
    let file = SourceFile { path: "a.yaml".into(), text: text.to_owned() };
    let problems = compile_files(&[file], &environment()).unwrap_err();
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for (line, field) in [
        (8, "spec.dialect"),
        (9, "spec.http"),
        (10, "spec.timeouts.firstByte"),
        (11, "spec.encodedPath"),
        (12, "spec.scrub"),
        (21, "spec.allow.methods"),
        (22, "spec.allow.paths"),
        (23, "spec.allow.models"),
        (24, "spec.allow.range"),
        (25, "spec.callerToken"),
        (26, "spec.unpriced"),
        (27, "spec.limits[0].tokens"),
    ] {
        let is_it = |problem: &String| {
            problem.starts_with(&format!("a.yaml:{line}")) && problem.contains(&format!("{field}: "))
        };
        assert!(problems.iter().any(is_it), "{field}: {problems:#?}");
    }
}

#[test]
fn what_is_not_written_has_the_documented_default() {
    let (policy, warnings) = compiled("");
    assert_eq!(warnings, []);
    let destination = policy.destination("api").unwrap();
    assert_eq!(destination.port, 443);
    assert_eq!(destination.timeouts.connect, Duration::from_secs(3));
    let http = destination.http().unwrap();
    assert_eq!(http.first_byte, Duration::from_secs(60));
    assert_eq!(destination.timeouts.idle, Duration::from_secs(300));
    assert!(http.dialect.is_plain());
    let StoreKind::Vault(vault) = &policy.store("bao").unwrap().kind else { panic!("not a Vault") };
    assert_eq!((vault.address.as_str(), vault.mount.as_str()), ("https://bao.example:8200", "secret"));
    let credential = policy.credentials().next().unwrap();
    assert_eq!(
        (credential.refresh, credential.max_stale),
        (Duration::from_secs(300), Duration::from_secs(3600))
    );
    let way = Inject::Header { name: "x-api-key".to_owned(), prefix: String::new() };
    assert_eq!(credential.inject, [Injection { field: None, way }]);
    let grant = policy.grants().next().unwrap();
    assert_eq!(grant.unpriced, Unpriced::Deny);
    assert_eq!(grant.allow.response_headers, ["set-cookie".into()]);
    let paths: Vec<String> = grant.allow.paths.iter().map(ToString::to_string).collect();
    assert_eq!(paths, ["/v1/x", "/v1/**"], "the most specific first");
}

#[test]
fn a_login_at_a_vault_has_the_documented_defaults() {
    let vault = |auth: &str| {
        let (policy, _) = compiled(&format!(
            "---\napiVersion: tollgate.dev/v1alpha1\nkind: SecretStore\nmetadata: {{name: other}}\nspec: {{vault: {{address: 'https://bao', auth: {auth}}}}}\n"
        ));
        let StoreKind::Vault(vault) = policy.store("other").unwrap().kind.clone() else {
            panic!("not a Vault")
        };
        vault
    };
    let login = vault("{kubernetes: {role: r}}");
    assert_eq!((login.kv, &login.client_certificate), (KvVersion::V2, &None));
    let service_account = TokenLogin {
        mount: "kubernetes".to_owned(),
        role: "r".to_owned(),
        token_file: "/var/run/secrets/kubernetes.io/serviceaccount/token".into(),
    };
    assert_eq!(login.auth, VaultAuth::Kubernetes(service_account));
    let VaultAuth::Jwt(login) = vault("{jwt: {role: r, tokenFile: /t}}").auth else { panic!("not a JWT") };
    assert_eq!(login.mount, "jwt");
    let login = vault("{certificate: {certFile: /c, keyFile: /k}}");
    assert_eq!(login.auth, VaultAuth::Certificate { mount: "cert".to_owned(), role: None });
    let shown = ClientCertificate { cert: "/c".into(), key: "/k".into() };
    assert_eq!(login.client_certificate, Some(shown), "the login's certificate is the connection's");
}

fn limits(written: &str) -> Vec<(String, LimitKind)> {
    let (policy, _) = compiled(&format!("  limits: {written}\n"));
    let grant = policy.grants().next().unwrap().clone();
    grant.limits.iter().map(|limit| (limit.id.to_string(), limit.kind.clone())).collect()
}

#[test]
fn requests_per_second_minute_or_hour_are_a_rate_with_a_tenth_at_once() {
    for (written, expected) in [
        ("[{requests: 600, per: minute}]", (Duration::from_secs(60), 60)),
        ("[{requests: 5, per: second}]", (Duration::from_secs(1), 1)),
        ("[{requests: 5, per: hour, burst: 3}]", (Duration::from_secs(3600), 3)),
    ] {
        let limits = limits(written);
        let LimitKind::Gcra { per, burst } = limits[0].1 else { panic!("{written}: {limits:?}") };
        assert_eq!((per, burst), expected, "{written}");
    }
}

#[test]
fn counted_limits_follow_the_calendar_from_the_day_on() {
    let limits = limits(
        "[{requests: 5, per: day, timezone: Europe/Berlin}, {requests: 5, per: week, window: rolling}, {requests: 5, per: month, key: caller}]",
    );
    let (id, LimitKind::Counted(Window::Calendar { per: Per::Day, timezone })) = &limits[0] else {
        panic!("{limits:?}")
    };
    assert_eq!((id.as_str(), timezone.iana_name()), ("grant/web/requests/day/shared", Some("Europe/Berlin")));
    let (id, LimitKind::Counted(Window::Calendar { per: Per::Month, timezone })) = &limits[1] else {
        panic!("{limits:?}")
    };
    assert_eq!((id.as_str(), timezone.iana_name()), ("grant/web/requests/month/caller", Some("UTC")));
    let (_, LimitKind::Counted(Window::Rolling { length, .. })) = &limits[2] else { panic!("{limits:?}") };
    assert_eq!(length.as_secs(), 7 * 86_400);
}

#[test]
fn the_id_of_a_limit_survives_an_edit_of_its_amount() {
    let id = |written: &str| limits(written)[0].0.clone();
    assert_eq!(id("[{requests: 5, per: day}]"), id("[{requests: 50, per: day, window: rolling}]"));
    assert_eq!(id("[{concurrency: 5}]"), "grant/web/concurrency/shared");
}

#[test]
fn a_minted_credential_is_made_as_its_endpoints_destination_is_reached() {
    let text = RESOURCES.replace(
        "  inject: {header: {name: X-Api-Key}}",
        "  inject: {bearer: {}}\n  mint:\n    endpoint: {destination: idp, path: /token}\n    clientCredentials: {clientId: a}\n    parameters: {x: y}",
    );
    let more = "---\napiVersion: tollgate.dev/v1alpha1\nkind: Destination\nmetadata: {name: idp}\n\
                spec: {hosts: [idp.example], port: 8443, addresses: [192.0.2.7], tls: {verify: {caFile: idp.pem}}}\n";
    let file = SourceFile { path: "a.yaml".into(), text: format!("{text}{more}") };
    let Compiled { policy, warnings, .. } = compile_files(&[file], &environment()).unwrap();
    assert_eq!(warnings, [], "a token endpoint needs no grant");
    let credential = policy.credentials().next().unwrap();
    assert_eq!(
        credential.reference(&credential.keys[0]),
        "bao:saas/api#key > idp/token:clientCredentials for=a"
    );
    assert_eq!(
        (credential.refresh, credential.max_stale),
        (Duration::from_secs(86_400), Duration::from_secs(86_400))
    );
    let endpoint = &credential.mint.as_ref().unwrap().endpoint;
    assert_eq!(endpoint.url(), "https://idp.example:8443/token");
    assert_eq!(endpoint.addresses, ["192.0.2.7".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(endpoint.tls, TlsVerify::Bundle("idp.pem".into()));
}

#[test]
fn what_nobody_uses_is_a_warning() {
    let more = "---\napiVersion: tollgate.dev/v1alpha1\nkind: Destination\nmetadata: {name: orphan}\nspec: {hosts: [b.example]}\n\
                ---\napiVersion: tollgate.dev/v1alpha1\nkind: SecretStore\nmetadata: {name: spare}\nspec: {file: {root: /run}}\n";
    let (_, warnings) = compiled(more);
    let warnings: Vec<&str> = warnings.iter().map(|warning| warning.field.as_str()).collect();
    assert_eq!(warnings, ["Destination/orphan", "SecretStore/spare"]);
}

#[test]
fn a_client_certificate_that_no_destination_is_shown_is_a_warning() {
    let spare = "---\napiVersion: tollgate.dev/v1alpha1\nkind: Credential\nmetadata: {name: spare}\nspec: {destinations: [api], \
                 from: {store: bao, path: tls, fields: [c, k]}, inject: {clientCertificate: {certificate: c, key: k}}}\n";
    let text = RESOURCES.replace(
        "spec: {hosts: [api.example]}",
        "spec: {hosts: [api.example], tls: {clientCertificate: spare}}",
    );
    let compiled = |text: &str| {
        let file = SourceFile { path: "a.yaml".into(), text: format!("{text}{spare}") };
        let Compiled { policy, warnings, .. } = compile_files(&[file], &environment()).unwrap();
        (policy, warnings)
    };
    let (_, warnings) = compiled(RESOURCES);
    assert!(matches!(warnings.as_slice(), [one] if one.message.contains("shown this client certificate")));
    let (policy, warnings) = compiled(&text);
    assert_eq!(warnings, []);
    let shown = policy.client_certificate(policy.destination("api").unwrap()).unwrap();
    assert_eq!(
        (shown.name.as_str(), shown.client_certificate(), shown.is_sent()),
        ("spare", Some(("c", "k")), false)
    );
}

#[test]
fn a_certificate_or_token_that_cannot_be_read_leaves_nothing_without_it() {
    for (right, wrong) in [
        ("spec: {hosts: [api.example]}", "spec: {hosts: [api.example], tls: {clientCertificate: Key!}}"),
        ("  credential: key\n", "  callerToken: x\n"),
    ] {
        let text = RESOURCES.replace(right, wrong);
        assert_ne!(text, RESOURCES, "{right}");
        let file = SourceFile { path: "a.yaml".into(), text };
        let (model, problems) = Model::read_all(&[file]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        let environment = environment();
        let mut compiler = Compiler::new(&model, &environment, Vec::new());
        compiler.destinations();
        compiler.stores();
        compiler.credentials();
        compiler.grants();
        assert!(compiler.parts.grants.is_empty(), "{wrong}");
    }
}

#[test]
fn a_reference_into_a_document_that_could_not_be_read_is_not_called_dangling() {
    let text = RESOURCES.replace("spec: {hosts: [api.example]}", "spec: {hosts: [api.example]");
    let file = SourceFile { path: "a.yaml".into(), text };
    let problems = compile_files(&[file], &environment()).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].message.contains("not YAML"));
}

#[test]
fn a_credential_with_problems_never_leaves_a_grant_without_one() {
    let text = RESOURCES.replace("  credential: key\n", "  credential: Key!\n");
    let file = SourceFile { path: "a.yaml".into(), text };
    let (model, problems) = Model::read_all(&[file]);
    assert_eq!(problems.len(), 1);
    let environment = environment();
    let mut compiler = Compiler::new(&model, &environment, Vec::new());
    compiler.destinations();
    compiler.stores();
    compiler.credentials();
    compiler.grants();
    assert!(compiler.parts.grants.is_empty());
}

#[test]
fn a_limit_on_spend_over_models_without_a_price_is_a_warning() {
    let file = |text: &str| SourceFile { path: "a.yaml".into(), text: text.to_owned() };
    let catalog = [
        file(include_str!("../../tests/catalog/openai.yaml")),
        file(include_str!("../../tests/catalog/openai-prices.yaml")),
        file(CATALOG),
    ];
    let environment = Environment { catalog: Arc::new(Catalog::parse(&catalog).unwrap()), ..environment() };
    let warnings = |models: &str, more: &str| {
        let grant = format!(
            "allow: {{methods: [POST], paths: [/v1/chat/completions], models: [{models}]}}\n  limits: [{{spend: 5 USD, per: day}}]\n{more}"
        );
        let text = RESOURCES.replace("hosts: [api.example]", "hosts: [api.example], dialect: openai");
        let (text, _) = text.split_once("allow:").unwrap();
        let Compiled { warnings, .. } =
            compile_files(&[file(&format!("{text}{grant}"))], &environment).unwrap();
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    for priced in ["gpt-5-mini", "gpt-5-mini-2025-08-07", "gpt-*", "gtp-5, gpt-5", "'*'"] {
        assert!(warnings(priced, "").is_empty(), "{priced}");
    }
    for unpriced in ["gtp-5", "gtp-*", "gtp-5, o9"] {
        let said = warnings(unpriced, "");
        assert!(
            said.len() == 1 && said[0].starts_with("a.yaml:27: Grant/web: spec.allow.models: "),
            "{said:?}"
        );
        assert!(said[0].contains("every call is refused"), "{said:?}");
    }
    assert!(warnings("gtp-5", "  unpriced: dearest\n").is_empty());
    assert!(warnings("gtp-5", "  unpriced: flag\n")[0].contains("never counts"));
}

#[test]
fn one_key_is_a_pool_of_one_and_a_list_has_its_aliases_and_weights() {
    let more = "---
apiVersion: tollgate.dev/v1alpha1
kind: Credential
metadata: {name: pool}
spec:
  destinations: [api]
  from:
    - {alias: team-a, weight: 3, store: bao, path: a, field: key}
    - {alias: team-b, store: bao, path: b, field: key}
    - {alias: spare, weight: 0, store: bao, path: c, field: key}
  inject: {bearer: {}}
";
    let (policy, _) = compiled(more);
    let keys = |name: &str| {
        let credential = policy.credentials().find(|credential| credential.name.as_str() == name).unwrap();
        let key = |key: &Key| {
            let alias = key.alias.as_ref().map_or_else(String::new, ToString::to_string);
            (alias, key.weight, credential.reference(key))
        };
        (credential.is_pool(), credential.keys.iter().map(key).collect::<Vec<_>>())
    };
    assert_eq!(keys("key"), (false, vec![(String::new(), 1, "bao:saas/api#key".to_owned())]));
    let pool = [("team-a", 3, "bao:a#key"), ("team-b", 1, "bao:b#key"), ("spare", 0, "bao:c#key")];
    let pool = pool.map(|(alias, weight, from)| (alias.to_owned(), weight, from.to_owned()));
    assert_eq!(keys("pool"), (true, pool.to_vec()));
}
