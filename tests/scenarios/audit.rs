//! What happened to secrets can be told afterwards, and that cannot be changed unseen.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tollgate_tests::bao::Bao;
use tollgate_tests::gateway::eventually;
use tollgate_tests::ledger::Segment;
use tollgate_tests::provider::{self, chat};
use tollgate_tests::resources::{credential, destination, grant, vault_store};
use tollgate_tests::stand::{CHAT_ONLY, CHECKOUT};
use tollgate_tests::{Client, Gateway, Plan, Reply, Stand, Upstream, needs};

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

fn files(stand: &Stand) -> Vec<PathBuf> {
    let folder = stand.gateway.home().join("data/audit/journal");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn assert_good(stand: &Stand) {
    let output = stand.gateway.tollgate(&["audit", "verify"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn assert_noticed(stand: &Stand, what: &str) {
    let output = stand.gateway.tollgate(&["audit", "verify"]);
    assert!(!output.status.success(), "{what} went unnoticed: {}", String::from_utf8_lossy(&output.stdout));
}

/// A stand whose key is in OpenBao, and is read anew every second. The provider takes any key, until it refuses all.
async fn stand(bao: &Bao, plan: Plan, refuses: Arc<AtomicBool>) -> Stand {
    bao.put("llm/up", "api_key", &plan.key).await;
    let token = bao.reader_token(&plan.world).await;
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
    let settings = plan.settings.clone().resource("stand.yaml", text);
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
    let bao = Bao::start(&plan.world).await;
    let (next, refuses) = (plan.world.canary("next"), Arc::new(AtomicBool::new(false)));
    let mut stand = stand(&bao, plan, refuses.clone()).await;
    let client = stand.checkout();
    client.post(CHAT, &chat(50)).await.assert_status(200);
    assert_eq!(words(&trail(&stand.gateway)), ["fetched"], "written before its first use");

    bao.put("llm/up", "api_key", &next).await;
    told(&stand.gateway, "rotated").await;
    bao.seal().await;
    // The value in use is ended by its age, which is a line of its own behind that of the store.
    eventually("the value ends", || turns(&trail(&stand.gateway)).len() == 4).await;
    client.post(CHAT, &chat(50)).await.assert_refused(503, "secret_unavailable");
    bao.unseal().await;
    until_answered(&client).await;
    refuses.store(true, Ordering::SeqCst);
    client.post(CHAT, &chat(50)).await.assert_refused(502, "credential_rejected");
    refuses.store(false, Ordering::SeqCst);
    bao.delete("llm/up").await;
    told(&stand.gateway, "revoked").await;

    let entries = trail(&stand.gateway);
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

    assert!(stand.gateway.stop().success());
    let uses: Vec<Value> =
        trail(&stand.gateway).into_iter().filter(|entry| entry["count"].is_u64()).collect();
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
    assert_good(&stand);
    stand.world.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_that_was_changed_cut_or_removed_is_noticed_also_after_a_kill() {
    let mut stand = Plan::new().start(|_| Reply::status(200)).await;
    stand.checkout().get("/up/x").await.assert_status(200);
    stand.gateway.kill();
    assert_eq!(words(&trail(&stand.gateway)), ["fetched"], "a crash does not lose it");
    stand.gateway.restart().await;
    stand.checkout().get("/up/x").await.assert_status(200);
    assert!(stand.gateway.stop().success());
    assert_eq!(words(&trail(&stand.gateway)), ["fetched", "fetched", "injected"]);
    assert_good(&stand);
    for path in files(&stand) {
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
            assert_noticed(&stand, what);
        }
        fs::remove_file(&path).unwrap();
        assert_noticed(&stand, "a missing segment");
        whole.write(&path);
    }
    assert_good(&stand);
    fs::rename(stand.gateway.home().join("data/audit"), stand.gateway.home().join("tmp/audit")).unwrap();
    assert_noticed(&stand, "a trail that is gone");
}
