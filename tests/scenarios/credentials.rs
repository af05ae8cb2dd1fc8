//! `tollgate credential`: what people see of credentials, beside a running gateway and where none runs.

use std::fs;
use std::process::Output;

use serde_json::Value;
use tollgate_tests::bao::Bao;
use tollgate_tests::gateway::eventually;
use tollgate_tests::resources::{credential, destination, document, file_store, vault_store};
use tollgate_tests::{Fixture, Gateway, Plan, Reply, needs};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn listed(gateway: &Gateway) -> Vec<Value> {
    let admin = gateway.admin().to_string();
    let output = gateway.tollgate(&["credential", "ls", "--admin", &admin, "--format", "json"]);
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).expect("a list")
}

/// The mark and the step of each line of a test, e.g. `ok store`; the last two are those of the failure and its help.
fn steps(output: &Output) -> Vec<String> {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = said.lines().filter(|line| line.starts_with("  "));
    lines.map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect()
}

/// Tests a credential and expects this to be its last step, for this reason.
fn assert_fails_at(gateway: &Gateway, name: &str, step: &str, reason: &str) {
    let output = gateway.tollgate(&["credential", "test", name]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let steps = steps(&output);
    let [.., failed, help] = steps.as_slice() else { panic!("{said}") };
    assert_eq!(*failed, format!("FAILED {step}"), "{said}");
    assert!(help.starts_with("help"), "{said}");
    assert!(said.contains(reason), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_a_file_is_tested_and_listed_and_never_shown() {
    let plan = Plan::new();
    let good = plan.complete(443);
    for (name, content) in [("empty", ""), ("broken", "line\r\nx-admin: 1")] {
        plan.sandbox.input(&format!("keys/{name}"), content);
    }
    let text = good.resources[0].1.clone()
        + &credential("missing-key", "up", "{store: files, path: nothing}", "{query: {name: key}}")
        + &credential("empty-key", "up", "{store: files, path: empty}", "{bearer: {}}")
        + &credential("broken-key", "up", "{store: files, path: broken}", "{header: {name: x-api-key}}")
        + &credential("homeless-key", "up", "{store: gone, path: up}", "{basic: {username: me}}")
        + &file_store("gone", &plan.sandbox.inputs().join("gone"));
    let settings = good.resource("fixture.yaml", text);
    let mut gateway = Gateway::prepare(&plan.sandbox, &settings);

    let output = gateway.tollgate(&["credential", "test", "up-key"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(steps(&output), ["ok store", "ok secret", "ok value", "ok form", "ok version", "ok goes"]);
    assert!(said(&output).contains("api.up.test"));
    assert_fails_at(&gateway, "missing-key", "secret", "the store has no such secret");
    assert_fails_at(&gateway, "empty-key", "value", "it is empty");
    assert_fails_at(&gateway, "broken-key", "form", "cannot be put on a call");
    assert_fails_at(&gateway, "homeless-key", "store", "cannot read file");
    let output = gateway.tollgate(&["credential", "test", "upkey"]);
    assert!(!output.status.success() && said(&output).contains("did you mean up-key?"), "{}", said(&output));
    let output = gateway.tollgate(&["credential", "test", "--all"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        steps(&output).iter().filter(|step| step.starts_with("FAILED")).count(),
        4,
        "{}",
        said(&output)
    );

    let output = gateway.tollgate(&["credential", "ls"]);
    assert!(output.status.success());
    let (table, note) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(note.contains("no gateway answers") && note.contains("resources alone"), "{note}");
    assert_eq!(table.lines().count(), 2 + 5, "{table}");
    for words in ["files:up", "header x-api-key", "query key", "bearer"] {
        assert!(table.contains(words), "{words}: {table}");
    }

    gateway.restart().await;
    assert!(gateway.tollgate(&["credential", "test", "up-key"]).status.success(), "beside a running gateway");
    let healths = listed(&gateway);
    assert!(healths.iter().all(|listed| listed["health"] == "unused"), "{healths:#?}");
    assert!(gateway.stop().success());
    plan.sandbox.assert_swept();
}

/// Credentials in OpenBao: a good one, and what goes wrong with one.
async fn in_bao(bao: &Bao, plan: Plan) -> Fixture {
    bao.put("llm/up", "api_key", &plan.key).await;
    let token = bao.reader_token(&plan.sandbox).await;
    let stale = plan.sandbox.input("stale.token", plan.sandbox.canary("stale"));
    let upstream = tollgate_tests::Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200)).await;
    let elsewhere = format!(
        "  vault:\n    address: {}\n    caFile: {}\n    mount: elsewhere\n    auth: {{token: {{file: {}}}}}\n",
        bao.address(),
        bao.ca().display(),
        token.display()
    );
    let from =
        |store: &str, path: &str, field: &str| format!("{{store: {store}, path: {path}, field: {field}}}");
    let up = from("bao", "llm/up", "api_key") + "\n  refresh: 1s\n  maxStale: 1h";
    let text = destination("up", "api.up.test", upstream.port(), plan.pki.bundle(), "http")
        + &vault_store("bao", &bao.address(), bao.ca(), &token)
        + &vault_store("stale-login", &bao.address(), bao.ca(), &stale)
        + &vault_store("untrusted", &bao.address(), plan.pki.bundle(), &token)
        + &vault_store("nowhere", "https://127.0.0.1:1", bao.ca(), &token)
        + &document("SecretStore", "elsewhere", elsewhere)
        + &credential("up-key", "up", &up, "{bearer: {}}")
        + &credential("missing", "up", &from("bao", "llm/none", "api_key"), "{bearer: {}}")
        + &credential("fieldless", "up", &from("bao", "llm/up", "other"), "{bearer: {}}")
        + &credential("denied", "up", &from("elsewhere", "llm/up", "api_key"), "{bearer: {}}")
        + &credential("stale", "up", &from("stale-login", "llm/up", "api_key"), "{bearer: {}}")
        + &credential("untrusted", "up", &from("untrusted", "llm/up", "api_key"), "{bearer: {}}")
        + &credential("unreachable", "up", &from("nowhere", "llm/up", "api_key"), "{bearer: {}}")
        + &tollgate_tests::resources::grant(
            "checkout-up",
            "spiffe://prod.acme/ns/checkout/sa/*",
            "up",
            "up-key",
            &plan.grant,
        );
    let settings = plan.settings.clone().resource("fixture.yaml", text);
    Plan { settings, ..plan }.start_with(upstream).await
}

fn of<'a>(listed: &'a [Value], name: &str) -> &'a Value {
    listed.iter().find(|listed| listed["name"] == name).unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_key_in_openbao_is_said_at_its_step_and_in_the_list() {
    needs!(Bao::installed());
    let plan = Plan::new();
    let bao = Bao::start(&plan.sandbox).await;
    let mut fixture = in_bao(&bao, plan).await;
    let gateway = &fixture.gateway;
    let output = gateway.tollgate(&["credential", "test", "up-key"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(
        steps(&output),
        ["ok store", "ok login", "ok secret", "ok value", "ok form", "ok version", "ok goes"]
    );
    assert!(said(&output).lines().any(|line| line.split_whitespace().eq(["ok", "version", "1"])));
    assert_fails_at(gateway, "missing", "secret", "the store has no such secret");
    assert_fails_at(gateway, "fieldless", "value", "the secret has no field `other`");
    assert_fails_at(gateway, "denied", "secret", "denies this path");
    assert_fails_at(gateway, "stale", "login", "login failed");
    assert_fails_at(gateway, "untrusted", "store", "TLS failed");
    assert_fails_at(gateway, "unreachable", "store", "not reachable");

    fixture.checkout().get("/up/x").await.assert_status(200);
    eventually("its use is seen", || !of(&listed(gateway), "up-key")["last_use"].is_null()).await;
    let healthy = listed(gateway);
    let up = of(&healthy, "up-key");
    assert_eq!((&up["health"], &up["version"]), (&"well".into(), &"1".into()));
    assert!(up["age_seconds"].is_u64() && up["refresh_in_seconds"].is_u64(), "{up}");
    assert_eq!(of(&healthy, "missing")["health"], "unused");
    let health = |state: &str| {
        let labels = ["credential=\"up-key\"", &format!("state=\"{state}\"")];
        gateway.metrics().sum("tollgate_credential_health", &labels)
    };
    assert_eq!((health("well"), health("stale")), (1.0, 0.0));

    bao.seal().await;
    assert_fails_at(gateway, "up-key", "store", "sealed");
    eventually("it is stale", || of(&listed(gateway), "up-key")["health"] == "stale").await;
    assert_eq!(of(&listed(gateway), "up-key")["reason"], "sealed");
    assert_eq!((health("well"), health("stale")), (0.0, 1.0));
    let (status, ready) = gateway.admin_get_with("/readyz", "");
    assert_eq!((status, ready.as_str()), (200, "ready; 1 of 5 secret stores fail\n"));
    fixture.checkout().get("/up/x").await.assert_status(200);
    let output = gateway.tollgate(&["credential", "ls", "--admin", &gateway.admin().to_string()]);
    assert!(said(&output).contains("stale for "), "{}", said(&output));

    let token = fixture.sandbox.inputs().join("admin.token");
    let right = fs::read(&token).unwrap();
    fs::write(&token, "another token that is long enough").unwrap();
    let output = gateway.tollgate(&["credential", "ls", "--admin", &gateway.admin().to_string()]);
    assert!(
        !output.status.success() && said(&output).contains("has another token than"),
        "{}",
        said(&output)
    );
    fs::write(&token, right).unwrap();
    assert!(fixture.gateway.stop().success());
    fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_a_store_with_many_keys_is_one_line_in_the_log() {
    needs!(Bao::installed());
    let plan = Plan::new();
    let bao = Bao::start(&plan.sandbox).await;
    let token = bao.reader_token(&plan.sandbox).await;
    bao.put("llm/up", "api_key", &plan.key).await;
    let upstream = tollgate_tests::Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200)).await;
    let mut text = destination("up", "api.up.test", upstream.port(), plan.pki.bundle(), "http")
        + &vault_store("bao", &bao.address(), bao.ca(), &token);
    const KEYS: usize = 30;
    for number in 0..KEYS {
        bao.put(&format!("llm/up{number}"), "api_key", &plan.sandbox.canary("many")).await;
        let from = format!("{{store: bao, path: llm/up{number}, field: api_key}}\n  refresh: 1s");
        let name = format!("key{number}");
        text += &credential(&name, "up", &from, "{bearer: {}}");
        let allow = format!("  allow: {{methods: [GET], paths: [/v{number}]}}\n");
        let caller = "spiffe://prod.acme/ns/checkout/sa/*";
        text += &tollgate_tests::resources::grant(&format!("grant{number}"), caller, "up", &name, &allow);
    }
    let settings = plan.settings.clone().resource("fixture.yaml", text);
    let fixture = Plan { settings, ..plan }.start_with(upstream).await;
    let client = fixture.checkout();
    for number in 0..KEYS {
        client.get(&format!("/up/v{number}")).await.assert_status(200);
    }
    bao.seal().await;
    let stale = || listed(&fixture.gateway).iter().filter(|listed| listed["health"] == "stale").count();
    eventually("every key is stale", || stale() == KEYS).await;
    bao.unseal().await;
    eventually("every key is well", || {
        listed(&fixture.gateway).iter().all(|listed| listed["health"] == "well")
    })
    .await;
    let log = fixture.gateway.log();
    let lines = |words: &str| {
        log.iter()
            .filter(|line| line.to_string().contains(words) && line["target"] != "tollgate::access")
            .count()
    };
    assert_eq!((lines("secret store fails"), lines("secret store works again")), (1, 1));
    assert_eq!(lines("secret not available"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_wanted_ahead_is_there_before_the_first_call() {
    let plan = Plan::new();
    let good = plan.complete(443);
    for name in ["ahead", "later"] {
        plan.sandbox.input(&format!("keys/{name}"), plan.sandbox.canary(name));
    }
    let text = good.resources[0].1.clone()
        + &credential("ahead-key", "up", "{store: files, path: ahead}", "{bearer: {}}\n  prefetch: true")
        + &credential("later-key", "up", "{store: files, path: later}", "{bearer: {}}");
    let gateway = Gateway::start(&plan.sandbox, &good.resource("fixture.yaml", text)).await;
    let has_version = |name: &str| of(&listed(&gateway), name)["version"].is_string();
    eventually("it was fetched", || has_version("ahead-key")).await;
    assert!(!has_version("later-key"), "nobody has asked for it");
    plan.sandbox.assert_swept();
}
