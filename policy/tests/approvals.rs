//! Approvals: what a grant's hash says, and what a grant without one may do.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is a test")]

#[path = "support/assumed.rs"]
mod assumed;
#[path = "support/read.rs"]
mod read;

use jiff::Timestamp;
use serde_json::json;
use tollgate_policy::compile::{Compiled, Environment, HomeCluster, compile_each, compile_files};
use tollgate_policy::consent::{Consents, ReferenceGrant};
use tollgate_policy::decision::Facts;
use tollgate_policy::denial::Denial;
use tollgate_policy::model::SourceFile;
use tollgate_policy::operation::RequestLine;
use tollgate_policy::policy::Policy;

/// One grant with everything that it may refer to. Each line is one place that a test changes.
const WHOLE: &str = r#"
kind: Destination
metadata: {name: openai, namespace: platform}
spec:
  hosts: [api.openai.com, eu.openai.com]
  port: 443
  addresses: [192.0.2.1, 192.0.2.2]
  sourceAddress: 192.0.2.9
  dialect: openai
  scrub: all
  encodedPath: ["%2F"]
  tls: {verify: {caFile: openai.pem}, clientCertificate: shown}
  timeouts: {idle: 9s}
  approval: required
---
kind: Destination
metadata: {name: tokens, namespace: platform}
spec: {hosts: [tokens.openai.com], tls: {verify: {caFile: tokens.pem}}}
---
kind: SecretStore
metadata: {name: bao, namespace: platform}
spec: {vault: {address: "https://bao:8200", auth: {token: {file: token}}}}
---
kind: Credential
metadata: {name: shown, namespace: platform}
spec:
  destinations: [openai]
  from: {store: bao, path: tls, fields: [chain, key]}
  inject: {clientCertificate: {certificate: chain, key: key}}
  refresh: 2m
---
kind: Credential
metadata: {name: prod, namespace: platform}
spec:
  destinations: [openai, tokens]
  from: {store: bao, path: llm/openai, field: secret, version: 3}
  mint: {endpoint: {destination: tokens, path: /token}, clientCredentials: {clientId: tollgate}, scope: use}
  inject: {bearer: {}}
---
kind: Grant
metadata: {name: web, namespace: shop}
spec:
  callers: [{spiffe: "spiffe://prod.acme/ns/shop/sa/web"}, {spiffe: "spiffe://prod.acme/ns/shop/sa/api"}]
  destination: platform/openai
  credential: platform/prod
  allow:
    methods: [GET, POST]
    paths: [/v1/chat/completions, /v1/models]
    models: [gpt-5-mini, "gpt-4*"]
    classes: [accountState]
    responseHeaders: [set-cookie, refresh]
    range: false
  limits:
    - {tokens: 1000, per: day, timezone: Europe/Berlin}
    - {requests: 10, per: minute, burst: 2}
    - {concurrency: 3, key: caller}
  defaultOutputCap: 100
  assume: {inputTokens: 10, outputTokens: 20}
  unpriced: dearest
"#;

fn versioned(text: &str) -> String {
    text.replace("kind: ", "apiVersion: tollgate.dev/v1alpha1\nkind: ")
}

fn environment() -> Environment {
    Environment {
        catalog: read::catalog(),
        trust_domains: vec!["prod.acme".parse().unwrap()],
        ..Environment::default()
    }
}

fn compile_at(path: &str, text: &str) -> Compiled {
    let file = SourceFile { path: path.into(), text: versioned(text) };
    let problems = |problems: Vec<_>| -> Compiled { panic!("{problems:#?}\n{text}") };
    compile_files(&[file], &environment()).unwrap_or_else(problems)
}

fn hash_of(policy: &Policy, grant: &str) -> String {
    let grant = policy.grants().find(|it| it.name.as_str() == grant).unwrap();
    policy.hash(grant).to_string()
}

fn hash(text: &str) -> String {
    hash_of(&compile_at("resources/a.yaml", text).policy, "shop/web")
}

/// What stands in the text, and what stands there instead.
fn changed((from, to): (&str, &str)) -> String {
    assert!(WHOLE.contains(from), "{from}");
    WHOLE.replacen(from, to, 1)
}

#[test]
fn a_grants_hash_changes_with_whatever_matters() {
    let before = hash(WHOLE);
    for change in [
        ("metadata: {name: web,", "metadata: {name: web2,"),
        ("/sa/web", "/sa/*"),
        (", {spiffe: \"spiffe://prod.acme/ns/shop/sa/api\"}", ""),
        ("methods: [GET, POST]", "methods: [GET]"),
        ("methods: [GET, POST]", "methods: [\"*\"]"),
        ("/v1/models]", "/v1/*]"),
        ("models: [gpt-5-mini, \"gpt-4*\"]", "models: [gpt-5-mini]"),
        ("classes: [accountState]", "classes: [accountState, administers]"),
        ("responseHeaders: [set-cookie, refresh]", "responseHeaders: [set-cookie]"),
        ("range: false", "range: true"),
        ("tokens: 1000", "tokens: 1001"),
        ("Europe/Berlin", "Europe/Paris"),
        ("burst: 2", "burst: 3"),
        ("    - {concurrency: 3, key: caller}\n", ""),
        ("key: caller", "key: namespace"),
        ("defaultOutputCap: 100", "defaultOutputCap: 200"),
        ("outputTokens: 20", "outputTokens: 19"),
        ("unpriced: dearest", "unpriced: flag"),
        ("hosts: [api.openai.com,", "hosts: [api2.openai.com,"),
        ("port: 443", "port: 8443"),
        ("addresses: [192.0.2.1,", "addresses: [192.0.2.7,"),
        ("sourceAddress: 192.0.2.9", "sourceAddress: 192.0.2.8"),
        ("encodedPath: [\"%2F\"]", "encodedPath: [\"%2F\", \"%25\"]"),
        ("caFile: openai.pem", "caFile: other.pem"),
        ("verify: {caFile: openai.pem}", "verify: system"),
        (", clientCertificate: shown", ""),
        ("path: tls, fields", "path: tls2, fields"),
        ("destinations: [openai, tokens]", "destinations: [openai]"),
        ("path: llm/openai", "path: llm/other"),
        ("version: 3", "version: 4"),
        ("field: secret", "field: other"),
        ("inject: {bearer: {}}", "inject: {header: {name: x-key}}"),
        ("path: /token}", "path: /tokens}"),
        ("clientCredentials: {clientId: tollgate}", "clientCredentials: {clientId: other}"),
        ("scope: use", "scope: administer"),
        ("tokens.openai.com", "tokens2.openai.com"),
        ("caFile: tokens.pem", "caFile: other.pem"),
    ] {
        let text = changed(change);
        let compiled = compile_at("resources/a.yaml", &text);
        let (_, after) =
            compiled.policy.grants().map(|grant| (&grant.name, compiled.policy.hash(grant))).next().unwrap();
        assert_ne!(before, after.to_string(), "{change:?}");
    }
}

#[test]
fn the_hash_covers_what_a_source_pool_does_and_not_what_it_is_called() {
    let pooled = |name: &str, spec: &str| {
        let pool =
            format!("kind: SourcePool\nmetadata: {{namespace: platform, name: {name}}}\nspec: {spec}\n---\n");
        hash(&(pool + &changed(("sourceAddress: 192.0.2.9", &format!("sourcePool: {name}")))))
    };
    assert_eq!(hash(WHOLE), pooled("one", "{addresses: [192.0.2.9]}"), "it does what `sourceAddress` does");
    let spread = "{addresses: [192.0.2.9, 192.0.2.8], order: spread}";
    assert_eq!(pooled("one", spread), pooled("two", "{addresses: [192.0.2.8, 192.0.2.9], order: spread}"));
    let others = [
        "{addresses: [192.0.2.9, 192.0.2.8]}",
        "{addresses: [192.0.2.8, 192.0.2.9]}",
        spread,
        "{addresses: [192.0.2.9, 192.0.2.8], order: spread, stickyBy: credential}",
        "{addresses: [192.0.2.9, 192.0.2.8], order: spread, failover: none}",
        "{addresses: [192.0.2.9, 192.0.2.8], order: spread, freebind: true}",
        "{addresses: [192.0.2.9, 192.0.2.8], failover: none}",
    ];
    let hashes: std::collections::BTreeSet<_> = others.iter().map(|spec| pooled("one", spec)).collect();
    assert_eq!(hashes.len(), others.len());
}

#[test]
fn where_a_key_is_masked_and_whether_there_is_one_is_part_of_the_hash() {
    let without_range = changed(("    range: false\n", ""));
    assert_ne!(hash(&without_range), hash(&without_range.replace("  credential: platform/prod\n", "")));
    assert_ne!(hash(&without_range), hash(&without_range.replace("scrub: all", "scrub: headers")));
}

#[test]
fn what_calls_may_go_on_with_is_part_of_the_hash() {
    let unmetered = WHOLE
        .replace("    models: [gpt-5-mini, \"gpt-4*\"]\n", "")
        .replace("    - {tokens: 1000, per: day, timezone: Europe/Berlin}\n", "");
    let upgraded = unmetered.replace("    range: false\n", "    upgrades: [websocket]\n");
    assert_ne!(hash(&unmetered), hash(&upgraded));
}

#[test]
fn a_grants_hash_stays_with_whatever_does_not_matter() {
    let before = hash(WHOLE);
    for change in [
        ("kind: Grant", "# for the web shop\nkind: Grant"),
        (
            "[{spiffe: \"spiffe://prod.acme/ns/shop/sa/web\"}, {spiffe: \"spiffe://prod.acme/ns/shop/sa/api\"}]",
            "[{spiffe: \"spiffe://prod.acme/ns/shop/sa/api\"}, {spiffe: \"spiffe://prod.acme/ns/shop/sa/web\"}]",
        ),
        ("[GET, POST]", "[POST, GET]"),
        ("[/v1/chat/completions, /v1/models]", "[/v1/models, /v1/chat/completions, /v1/models]"),
        ("[gpt-5-mini, \"gpt-4*\"]", "[\"gpt-4*\", gpt-5-mini]"),
        ("[set-cookie, refresh]", "[Refresh, Set-Cookie]"),
        ("    range: false\n", ""),
        ("{tokens: 1000, per: day,", "{per: day, tokens: 1000, key: shared,"),
        ("    - {concurrency: 3, key: caller}\n", ""),
        ("[api.openai.com, eu.openai.com]", "[eu.openai.com, API.openai.com]"),
        ("  port: 443\n", ""),
        ("  scrub: all\n", ""),
        ("timeouts: {idle: 9s}", "timeouts: {idle: 8s}"),
        ("[openai, tokens]", "[tokens, platform/openai]"),
        ("  refresh: 2m\n", "  refresh: 3m\n"),
        ("https://bao:8200", "https://bao:8201"),
        ("  destination: platform/openai\n", "  suspended: under review\n  destination: platform/openai\n"),
    ] {
        let mut text = changed(change);
        if change.0.contains("concurrency") {
            text = text.replacen("  limits:\n", "  limits:\n    - {key: caller, concurrency: 3}\n", 1);
        }
        assert_eq!(before, hash(&text), "{change:?}");
    }
    for path in ["b.yaml", "/etc/tollgate/resources/team/b.yaml"] {
        assert_eq!(before, hash_of(&compile_at(path, WHOLE).policy, "shop/web"), "{path}");
    }
    let mut documents: Vec<&str> = WHOLE.split("---\n").collect();
    documents.reverse();
    assert_eq!(before, hash(&documents.join("---\n")));
}

#[test]
fn a_grants_hash_is_the_same_in_every_version() {
    assert_eq!(
        hash(WHOLE),
        "sha256:0e370c8afb48865b7032c0ef64a4f2d1dfd539253ec88cc7b0581c47253cc917",
        "approvals that were given before would be void"
    );
}

fn approval(namespace: &str, grant: &str, hash: &str) -> String {
    format!(
        "---\nkind: Approval\nmetadata: {{name: web, namespace: {namespace}}}\nspec: {{grant: {grant}, hash: \"{hash}\"}}\n"
    )
}

fn call(policy: &Policy) -> Result<String, Denial> {
    let caller = assumed::caller("spiffe://prod.acme/ns/shop/sa/web");
    let line = RequestLine {
        authority: "api.openai.com",
        method: "POST",
        path: "/v1/chat/completions",
        query: None,
    };
    let (target, request) = policy.resolve(&line)?;
    let facts = Facts { model: Some("gpt-5-mini".into()), ..Facts::default() };
    let admission = policy.admit(&policy.grants_of(&caller), target, request.into())?;
    let permit = admission.permit(&facts, Timestamp::UNIX_EPOCH)?;
    Ok(permit.grant().name.to_string())
}

/// A grant that would let the same call out if the narrower one did not decide.
const BROADER: &str = r#"---
kind: Destination
metadata: {name: other}
spec: {hosts: [other.example]}
---
kind: Grant
metadata: {name: everybody, namespace: shop}
spec: {callers: [{spiffe: "spiffe://prod.acme/**"}], destination: platform/openai, allow: {methods: ["*"], paths: [/**]}}
"#;

#[test]
fn without_an_approval_a_grant_denies_and_lets_nothing_fall_to_a_broader_one() {
    let hash = hash(WHOLE);
    let old = format!("sha256:{}", "0".repeat(64));
    let refused = |approval: &str| {
        let policy = compile_at("a.yaml", &format!("{WHOLE}{BROADER}{approval}")).policy;
        call(&policy).unwrap_err().to_string()
    };
    let said = "not_approved: grant shop/web is not approved: whoever owns destination platform/openai has to agree to it";
    for approval in [
        String::new(),
        approval("platform", "shop/web", &old),
        approval("shop", "shop/web", &hash),
        approval("platform", "web", &hash),
    ] {
        assert_eq!(refused(&approval), said, "{approval}");
    }
    let approved =
        compile_at("a.yaml", &format!("{WHOLE}{BROADER}{}", approval("platform", "shop/web", &hash)));
    assert_eq!(call(&approved.policy).unwrap(), "shop/web");
    let other = WHOLE.replace("/sa/web", "/sa/*");
    let changed = compile_at("a.yaml", &format!("{other}{}", approval("platform", "shop/web", &hash)));
    assert_eq!(call(&changed.policy).unwrap_err().to_string(), said);
}

/// All that is warned of.
fn all_warnings(approval: &str) -> Vec<String> {
    let compiled = compile_at("a.yaml", &format!("{WHOLE}{BROADER}{approval}"));
    compiled.warnings.iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect()
}

#[test]
fn an_approval_without_effect_and_a_grant_without_an_approval_are_warned_of() {
    let hash = hash(WHOLE);
    let old = format!("sha256:{}", "0".repeat(64));
    let warned = |approval: &str| {
        let compiled = compile_at("a.yaml", &format!("{WHOLE}{BROADER}{approval}"));
        let about = |problem: &&tollgate_policy::model::Problem| {
            problem.message.contains("this has no effect")
                || problem.message.contains("this is not approved")
                || problem.message.contains("approves nothing")
        };
        let said = compiled
            .warnings
            .iter()
            .filter(about)
            .map(|problem| format!("{}: {}", problem.field, problem.message));
        let said: Vec<String> = said.filter(|line| !line.contains("everybody")).collect();
        said
    };
    let unapproved = format!(
        "Grant/shop/web: spec.destination: this is not approved, and refuses every call that it decides: Destination/platform/openai demands an \
         Approval in the namespace `platform`, for {hash} (`tollgate access approve shop/web` writes it)"
    );
    assert_eq!(warned(&approval("platform", "shop/web", &hash)), [""; 0]);
    assert_eq!(warned(""), std::slice::from_ref(&unapproved));
    let old = approval("platform", "shop/web", &old);
    let is_now = format!(
        "Approval/platform/web: spec.hash: this has no effect: Grant/shop/web is not what was approved, and is now {hash} \
         (`tollgate access approve shop/web` says what that is)"
    );
    assert_eq!(warned(&old), [unapproved.clone(), is_now]);
    let stranger =
        "Approval/web/web: spec.grant: this approves nothing: there is no Grant `shop/web` in force";
    let of_stranger = all_warnings(&approval("web", "shop/web", &hash));
    assert!(of_stranger.contains(&stranger.to_owned()), "{of_stranger:?}");
    let nowhere = "Approval/shop/web: this has no effect: Grant/shop/web is for Destination/platform/openai, so its Approval has to be in the \
                   namespace `platform`";
    assert_eq!(warned(&approval("shop", "shop/web", &hash)), [unapproved.clone(), nowhere.to_owned()]);
    let nothing = "Approval/platform/web: spec.grant: this approves nothing: there is no Grant `shop/wob` in force; did you mean `shop/web`?";
    assert_eq!(warned(&approval("platform", "shop/wob", &hash)), [unapproved, nothing.to_owned()]);
}

#[test]
fn a_broken_approval_approves_nothing_and_the_rest_is_in_force() {
    let text = format!("{WHOLE}{}", approval("platform", "shop/web", "sha256:12"));
    let file = SourceFile { path: "a.yaml".into(), text: versioned(&text) };
    let home = HomeCluster {
        gateway_namespace: "platform".parse().ok(),
        trust_domain: "prod.acme".parse().ok(),
        name: None,
    };
    let rule = |kind: &str| json!({"group": "tollgate.dev", "kind": kind});
    let consent = ReferenceGrant::read(&json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "ReferenceGrant",
        "metadata": {"namespace": "platform"},
        "spec": {
            "from": [{"group": "tollgate.dev", "kind": "Grant", "namespace": "shop"}],
            "to": [rule("Destination"), rule("Credential")],
        },
    }));
    let consents = Consents { reference_grants: vec![consent.unwrap()], ..Consents::default() };
    let compiled = compile_each(&[file], &Environment { home, ..environment() }, &consents).unwrap();
    assert_eq!(compiled.problems.len(), 1, "{:?}", compiled.problems);
    assert!(
        compiled.problems[0].to_string().contains("Approval/platform/web: spec.hash: a hash is `sha256:`")
    );
    assert!(call(&compiled.policy).unwrap_err().to_string().starts_with("not_approved"));
    assert!(compiled.warnings.iter().any(|warning| warning.message.contains("this is not approved")));
}
