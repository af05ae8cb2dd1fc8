//! What happened to secrets can be told afterwards, and that cannot be changed unseen.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tollgate_tests::bao::Bao;
use tollgate_tests::fixture::{CHAT_ONLY, CHECKOUT};
use tollgate_tests::gateway::eventually;
use tollgate_tests::ledger::Segment;
use tollgate_tests::provider::{self, chat};
use tollgate_tests::resources::{credential, destination, grant, vault_store};
use tollgate_tests::{Client, Fixture, Gateway, Plan, Reply, Upstream, needs};

const CHAT: &str = "/up/v1/chat/completions";

/// What the trail says of a credential, oldest first.
fn trail(gateway: &Gateway) -> Vec<Value> {
    let arguments = ["audit", "list", "--credential", "up-key", "--format", "json"];
    let output = gateway.tollgate(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a list")
}

fn words(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["what"].as_str().unwrap()).collect()
}

/// The same without what calls did: those are written once a minute.
fn turns(entries: &[Value]) -> Vec<&str> {
    words(entries).into_iter().filter(|word| !["injected", "refused"].contains(word)).collect()
}

async fn told(gateway: &Gateway, word: &str) {
    eventually(word, || turns(&trail(gateway)).last() == Some(&word)).await;
}

fn files(fixture: &Fixture) -> Vec<PathBuf> {
    let folder = fixture.gateway.home().join("data/audit/journal");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn assert_good(fixture: &Fixture) {
    let output = fixture.gateway.tollgate(&["audit", "verify"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn assert_noticed(fixture: &Fixture, what: &str) {
    let output = fixture.gateway.tollgate(&["audit", "verify"]);
    assert!(!output.status.success(), "{what} went unnoticed: {}", String::from_utf8_lossy(&output.stdout));
}

/// A fixture whose key is in OpenBao, and is read anew every second. The provider takes any key, until it refuses all.
async fn fixture(bao: &Bao, plan: Plan, refuses: Arc<AtomicBool>) -> Fixture {
    bao.put("llm/up", "api_key", &plan.key).await;
    let token = bao.reader_token(&plan.sandbox).await;
    let upstream =
        Upstream::http(&plan.server, &["http/1.1"], move |_| match refuses.load(Ordering::SeqCst) {
            true => provider::wrong_key(),
            false => Reply::json(&provider::chat_completion(9, 2)),
        })
        .await;
    let from = "{store: bao, path: llm/up, field: api_key}\n  refresh: 1s\n  maxStale: 3s";
    let text = destination("up", "api.up.test", upstream.port(), plan.pki.bundle(), "openai")
        + &vault_store("bao", &bao.address(), bao.ca(), &token)
        + &credential("up-key", "up", from, "{bearer: {}}")
        + &grant("checkout-up", "spiffe://prod.acme/ns/checkout/sa/*", "up", "up-key", CHAT_ONLY);
    let settings = plan.settings.clone().resource("fixture.yaml", text);
    Plan { settings, ..plan }.start_with(upstream).await
}

async fn until_answered(client: &Client) {
    for _ in 0..150 {
        if client.post(CHAT, &chat(50)).await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("calls are never answered again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_an_outage_and_a_revocation_stand_in_the_trail_in_order() {
    needs!(Bao::installed());
    let plan = Plan::openai(CHAT_ONLY);
    let bao = Bao::start(&plan.sandbox).await;
    let (next, refuses) = (plan.sandbox.canary("next"), Arc::new(AtomicBool::new(false)));
    let mut fixture = fixture(&bao, plan, refuses.clone()).await;
    let client = fixture.checkout();
    client.post(CHAT, &chat(50)).await.assert_status(200);
    assert_eq!(words(&trail(&fixture.gateway)), ["fetched"], "written before its first use");

    bao.put("llm/up", "api_key", &next).await;
    told(&fixture.gateway, "rotated").await;
    bao.seal().await;
    // The value in use is ended by its age, which is a line of its own behind that of the store.
    eventually("the value ends", || turns(&trail(&fixture.gateway)).len() == 4).await;
    client.post(CHAT, &chat(50)).await.assert_refused(503, "secret_unavailable");
    bao.unseal().await;
    until_answered(&client).await;
    refuses.store(true, Ordering::SeqCst);
    client.post(CHAT, &chat(50)).await.assert_refused(502, "credential_rejected");
    refuses.store(false, Ordering::SeqCst);
    bao.delete("llm/up").await;
    told(&fixture.gateway, "revoked").await;

    let entries = trail(&fixture.gateway);
    assert_eq!(
        turns(&entries),
        ["fetched", "rotated", "unavailable", "unavailable", "recovered", "fetched", "rejected", "revoked"]
    );
    let turn = |index: usize| entries.iter().filter(|entry| entry["count"].is_null()).nth(index).unwrap();
    assert_eq!((&turn(0)["secret"], &turn(0)["version"]), (&"bao:llm/up#api_key".into(), &"1".into()));
    assert_eq!((&turn(1)["before"], &turn(1)["version"]), (&"1".into(), &"2".into()));
    assert_eq!((&turn(2)["store"], &turn(2)["reason"]), (&"bao".into(), &"sealed".into()));
    assert_eq!((&turn(3)["version"], &turn(3)["reason"]), (&"2".into(), &"sealed".into()));
    assert_eq!((&turn(7)["version"], &turn(7)["reason"]), (&"2".into(), &"not_found".into()));

    assert!(fixture.gateway.stop().success());
    let uses: Vec<Value> =
        trail(&fixture.gateway).into_iter().filter(|entry| entry["count"].is_u64()).collect();
    let use_of = |what: &str, version: &str| {
        let found = uses.iter().find(|entry| entry["what"] == what && entry["version"] == version);
        found.unwrap_or_else(|| panic!("{what} {version}: {uses:#?}"))
    };
    let injected = use_of("injected", "1");
    assert_eq!(injected["count"], 1);
    assert_eq!((&injected["caller"], &injected["host"]), (&CHECKOUT.into(), &"api.up.test".into()));
    assert!(use_of("injected", "2")["count"].as_u64().unwrap() >= 2);
    let reasons: Vec<_> = uses
        .iter()
        .filter(|entry| entry["what"] == "refused")
        .map(|entry| entry["reason"].as_str().unwrap())
        .collect();
    assert!(
        reasons.contains(&"secret_unavailable") && reasons.contains(&"credential_rejected"),
        "{reasons:?}"
    );
    assert_good(&fixture);
    fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_that_was_changed_cut_or_removed_is_noticed_also_after_a_kill() {
    let mut fixture = Plan::new().start(|_| Reply::status(200)).await;
    fixture.checkout().get("/up/x").await.assert_status(200);
    fixture.gateway.kill();
    assert_eq!(words(&trail(&fixture.gateway)), ["fetched"], "a crash does not lose it");
    fixture.gateway.restart().await;
    fixture.checkout().get("/up/x").await.assert_status(200);
    assert!(fixture.gateway.stop().success());
    assert_eq!(words(&trail(&fixture.gateway)), ["fetched", "fetched", "injected"]);
    assert_good(&fixture);
    for path in files(&fixture) {
        let whole = Segment::read(&path);
        let (mut damaged, mut forged) = (whole.clone(), whole.clone());
        assert!(damaged.replace("fetched", "revoked", false));
        assert!(forged.replace("fetched", "revoked", true));
        let (mut cut, mut missing) = (whole.clone(), whole.clone());
        cut.batches.pop();
        missing.batches.remove(0);
        for (what, segment) in [
            ("a changed entry", damaged),
            ("a changed entry with its checksum", forged),
            ("a cut tail", cut),
            ("a missing batch", missing),
        ] {
            segment.write(&path);
            assert_noticed(&fixture, what);
        }
        fs::remove_file(&path).unwrap();
        assert_noticed(&fixture, "a missing segment");
        whole.write(&path);
    }
    assert_good(&fixture);
    fs::rename(fixture.gateway.home().join("data/audit"), fixture.gateway.home().join("tmp/audit")).unwrap();
    assert_noticed(&fixture, "a trail that is gone");
}
