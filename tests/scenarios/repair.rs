//! A key that its provider refuses: where people see it, and how soon the one that they store instead is used. And by what name a version
//! is known, also after a restart.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use tollgate_tests::bao::Bao;
use tollgate_tests::fixture::CHAT_ONLY;
use tollgate_tests::gateway::{eventually, field};
use tollgate_tests::provider::{self, chat};
use tollgate_tests::resources::{credential, destination, grant, vault_store};
use tollgate_tests::{Fixture, Gateway, Plan, Upstream, needs};

const CHAT: &str = "/up/v1/chat/completions";
const REJECTED: &str = "rejected by its provider";

fn admin(gateway: &Gateway, arguments: &[&str]) -> (bool, String) {
    let address = gateway.admin().to_string();
    let output = gateway.tollgate(&[arguments, &["--admin", &address]].concat());
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

fn listed(gateway: &Gateway) -> Value {
    let (good, said) = admin(gateway, &["credential", "ls", "--format", "json"]);
    assert!(good, "{said}");
    serde_json::from_str::<Value>(&said).expect("a list")[0].clone()
}

fn health(gateway: &Gateway, state: &str) -> f64 {
    let labels = ["credential=\"up-key\"", &format!("state=\"{state}\"")];
    gateway.metrics().sum("tollgate_credential_health", &labels)
}

fn warnings(gateway: &Gateway) -> usize {
    let is_about = |line: &&Value| {
        line["level"] == "WARN"
            && field(line, "message").as_str().is_some_and(|text| text.starts_with(REJECTED))
    };
    gateway.log().iter().filter(is_about).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_key_is_seen_everywhere_and_the_next_call_after_it_was_stored_again_is_good() {
    let plan = Plan::openai(CHAT_ONLY);
    let file = plan.key_file();
    fs::write(&file, plan.sandbox.canary("wrong")).unwrap();
    let fixture = plan.start_openai(9, 2).await;
    let (client, gateway) = (fixture.checkout(), &fixture.gateway);
    for _ in 0..5 {
        client.post(CHAT, &chat(50)).await.assert_refused(502, "credential_rejected");
    }
    let row = listed(gateway);
    assert_eq!(row["health"], "rejected", "{row}");
    assert!(row["rejected_seconds"].is_u64(), "{row}");
    let (_, table) = admin(gateway, &["credential", "ls"]);
    assert!(table.contains("rejected by provider for "), "{table}");
    assert_eq!((health(gateway, "rejected"), health(gateway, "well")), (1.0, 0.0));
    let ready = gateway.admin_get_with("/readyz", "");
    assert_eq!(ready, (200, "ready; 1 of 1 credentials are rejected by their provider\n".into()));
    eventually("it is in the log", || warnings(gateway) == 1).await;

    fs::write(&file, &fixture.key).unwrap();
    client.post(CHAT, &chat(50)).await.assert_status(200);
    assert_eq!(listed(gateway)["health"], "well");
    assert_eq!((health(gateway, "rejected"), health(gateway, "well")), (0.0, 1.0));
    assert_eq!(gateway.admin_get_with("/readyz", ""), (200, "ready\n".into()));
    assert_eq!(warnings(gateway), 1, "once for a version");
    fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_missing_is_seen_and_one_that_is_put_there_is_used_at_once() {
    let plan = Plan::openai(CHAT_ONLY);
    let file = plan.key_file();
    fs::remove_file(&file).unwrap();
    let fixture = plan.start_openai(9, 2).await;
    let client = fixture.checkout();
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        client.post(CHAT, &chat(50)).await.assert_refused(503, "secret_unavailable");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let ready = fixture.gateway.admin_get_with("/readyz", "");
    assert_eq!(ready, (200, "ready; 1 of 1 credentials cannot be had\n".into()));
    fs::write(&file, &fixture.key).unwrap();
    let written = std::time::Instant::now();
    while client.post(CHAT, &chat(50)).await.status != 200 {
        assert!(written.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fixture.sandbox.assert_swept();
}

/// The fixture with its key in OpenBao, which is not looked at for an hour unless there is a reason. The key there is a wrong one.
async fn in_bao(plan: Plan, bao: &Bao) -> Fixture {
    bao.put("llm/up", "api_key", &plan.sandbox.canary("wrong")).await;
    let token = bao.reader_token(&plan.sandbox).await;
    let upstream = Upstream::http(&plan.server, &["http/1.1"], provider::openai(&plan.key, 9, 2)).await;
    let from = "{store: bao, path: llm/up, field: api_key}\n  refresh: 1h";
    let text = destination("up", "api.up.test", upstream.port(), plan.pki.bundle(), "openai")
        + &vault_store("bao", &bao.address(), bao.ca(), &token)
        + &credential("up-key", "up", from, "{bearer: {}}")
        + &grant("checkout-up", "spiffe://prod.acme/ns/checkout/sa/*", "up", "up-key", CHAT_ONLY);
    let settings = plan.settings.clone().resource("fixture.yaml", text);
    Plan { settings, ..plan }.start_with(upstream).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_stored_in_a_vault_instead_of_a_rejected_one_is_used_within_seconds_or_when_an_operator_says_so()
 {
    needs!(Bao::installed());
    for is_told in [false, true] {
        let plan = Plan::openai(CHAT_ONLY);
        let bao = Bao::start(&plan.sandbox).await;
        let fixture = in_bao(plan, &bao).await;
        let (client, gateway) = (fixture.checkout(), &fixture.gateway);
        for _ in 0..2 {
            client.post(CHAT, &chat(50)).await.assert_refused(502, "credential_rejected");
        }
        bao.put("llm/up", "api_key", &fixture.key).await;
        if is_told {
            let (good, said) = admin(gateway, &["credential", "refresh", "up-key"]);
            assert!(good && said.contains("up-key: version 1 → 2"), "{said}");
            client.post(CHAT, &chat(50)).await.assert_status(200);
            let (good, said) = admin(gateway, &["credential", "refresh", "up-key"]);
            assert!(good && said.contains("up-key: version 2, as before"), "{said}");
            let (good, said) = admin(gateway, &["credential", "refresh", "other"]);
            assert!(!good && said.contains("has no such credential"), "{said}");
            bao.delete("llm/up").await;
            let (good, said) = admin(gateway, &["credential", "refresh", "up-key"]);
            assert!(!good && said.contains("FAILED: the store has no such secret"), "{said}");
            assert_eq!(gateway.admin_get_with("/credentials/up-key/refresh", "").0, 405, "only by POST");
        } else {
            let written = std::time::Instant::now();
            while client.post(CHAT, &chat(50)).await.status != 200 {
                assert!(written.elapsed() < Duration::from_secs(12));
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        fixture.sandbox.assert_swept();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_has_one_name_in_list_test_trail_and_after_a_restart_and_a_hangup_takes_another() {
    let plan = Plan::openai(CHAT_ONLY);
    let file = plan.key_file();
    let mut fixture = plan.start_openai(9, 2).await;
    let client = fixture.checkout();
    client.post(CHAT, &chat(50)).await.assert_status(200);
    let name = listed(&fixture.gateway)["version"].as_str().unwrap().to_owned();
    assert_eq!(name.len(), 12, "{name}");
    let said = |gateway: &Gateway, arguments: &[&str]| {
        String::from_utf8_lossy(&gateway.tollgate(arguments).stdout).into_owned()
    };
    let tested = said(&fixture.gateway, &["credential", "test", "up-key"]);
    assert!(tested.lines().any(|line| line.split_whitespace().eq(["ok", "version", &name])), "{tested}");
    assert!(said(&fixture.gateway, &["audit", "list"]).contains(&name));

    assert!(fixture.gateway.stop().success());
    fixture.gateway.restart().await;
    let client = fixture.checkout();
    client.post(CHAT, &chat(50)).await.assert_status(200);
    assert_eq!(listed(&fixture.gateway)["version"], name.as_str(), "after a restart");

    fs::write(&file, fixture.sandbox.canary("another")).unwrap();
    fixture.gateway.hang_up();
    eventually("it is read again", || listed(&fixture.gateway)["version"] != name.as_str()).await;
    fs::write(&file, &fixture.key).unwrap();
    fixture.gateway.hang_up();
    eventually("it is the same again", || listed(&fixture.gateway)["version"] == name.as_str()).await;

    // Whoever has not the key has another name for it.
    assert!(fixture.gateway.stop().success());
    fs::remove_file(fixture.gateway.home().join("data/version.key")).unwrap();
    let alone = said(&fixture.gateway, &["credential", "test", "up-key"]);
    assert!(alone.contains("of this test alone") && !alone.contains(&name), "{alone}");
    fixture.gateway.restart().await;
    let client = fixture.checkout();
    client.post(CHAT, &chat(50)).await.assert_status(200);
    assert_ne!(listed(&fixture.gateway)["version"], name.as_str());
    fixture.sandbox.assert_swept();
}
