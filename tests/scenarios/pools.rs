//! Credentials with several keys: callers keep theirs, and no key that dies or has to rest is seen by anybody.

mod blame;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tollgate_tests::fixture::CHAT_ONLY;
use tollgate_tests::gateway::eventually;
use tollgate_tests::ledger::records;
use tollgate_tests::moto::{Moto, REGION};
use tollgate_tests::provider::{self, chat, chat_completion};
use tollgate_tests::report::{report, requests_reach, total};
use tollgate_tests::resources::{credential, destination, document, file_store, grant};
use tollgate_tests::{Client, Fixture, Gateway, Plan, Reply, SecretKind, Seen, Upstream, needs};

const CHAT: &str = "/up/v1/chat/completions";

/// What a provider makes of a key.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Good,
    Unknown,
    Spent,
    /// For so many seconds.
    Limited(u64),
}

/// A provider whose mind about each key can be changed. A body with `poison` in it is refused as if its key were unknown, one with `bulk`
/// as too large for every key's limits.
#[derive(Clone, Default)]
struct Moods(Arc<Mutex<BTreeMap<String, Mood>>>);

impl Moods {
    fn set(&self, key: &str, mood: Mood) {
        self.0.lock().unwrap().insert(format!("Bearer {key}"), mood);
    }

    fn answer(&self, seen: &Seen) -> Reply {
        let mood = self.0.lock().unwrap().get(seen.header("authorization")).copied();
        let has = |word: &str| seen.body.windows(word.len()).any(|part| part == word.as_bytes());
        if has("poison") {
            return provider::wrong_key();
        }
        let mood = if has("bulk") { Some(Mood::Limited(600)) } else { mood };
        let limited = |code: &str| {
            let error = json!({"error": {"message": "no", "type": code, "code": code}});
            Reply::status(429).header("content-type", "application/json").data(error.to_string())
        };
        match mood {
            Some(Mood::Good) => Reply::json(&chat_completion(9, 2)),
            Some(Mood::Spent) => limited("insufficient_quota"),
            Some(Mood::Limited(seconds)) => {
                limited("rate_limit_exceeded").header("retry-after", &seconds.to_string())
            }
            Some(Mood::Unknown) | None => provider::wrong_key(),
        }
    }
}

/// A fixture whose credential is a pool of keys in files, with the rest of each entry.
struct Pool {
    fixture: Fixture,
    moods: Moods,
    keys: BTreeMap<&'static str, String>,
}

impl Pool {
    async fn start(entries: &[(&'static str, &str)]) -> Self {
        let plan = Plan::openai(CHAT_ONLY);
        let moods = Moods::default();
        let mut keys = BTreeMap::new();
        for (alias, _) in entries {
            let key = plan.sandbox.canary(alias);
            plan.sandbox.stands_for(&key, &[SecretKind::File, SecretKind::Pool, SecretKind::Bearer]);
            plan.sandbox.input(&format!("keys/{alias}"), &key);
            moods.set(&key, Mood::Good);
            keys.insert(*alias, key);
        }
        let answering = moods.clone();
        let upstream = Upstream::http(&plan.server, &["http/1.1"], move |seen| answering.answer(seen)).await;
        let from = entries
            .iter()
            .map(|(alias, rest)| format!("\n    - {{alias: {alias}, store: files, path: {alias}{rest}}}"));
        let text = destination("up", "api.up.test", upstream.port(), plan.pki.bundle(), "openai")
            + &file_store("files", &plan.sandbox.inputs().join("keys"))
            + &credential("pool", "up", &from.collect::<String>(), "{bearer: {}}\n  refresh: 1s")
            + &grant("all-up", "spiffe://prod.acme/**", "up", "pool", CHAT_ONLY);
        let settings = plan.settings.clone().resource("fixture.yaml", text);
        let fixture = Plan { settings, ..plan }.start_with(upstream).await;
        Self { fixture, moods, keys }
    }

    fn mood(&self, alias: &str, mood: Mood) {
        self.moods.set(&self.keys[alias], mood);
    }

    /// Puts a value that the provider knows in the place of a key.
    fn put_another(&self, alias: &str) {
        let next = self.fixture.sandbox.canary("next");
        self.moods.set(&next, Mood::Good);
        self.fixture.sandbox.input(&format!("keys/{alias}"), &next);
    }

    fn callers(&self, count: usize) -> Vec<Client> {
        let id = |n| format!("spiffe://prod.acme/ns/team-{}/sa/app-{n}", n % 3);
        (0..count).map(|n| self.fixture.caller(&id(n))).collect()
    }

    /// The alias of the key that a call of this client is answered with.
    async fn used(&self, client: &Client) -> &'static str {
        self.fixture.upstream.clear();
        client.post(CHAT, &chat(50)).await.assert_status(200);
        let seen = self.fixture.upstream.seen();
        let bearer = seen.last().expect("a call").header("authorization");
        let known = self.keys.iter().find(|(_, key)| bearer == format!("Bearer {key}"));
        known.map(|(alias, _)| *alias).expect("a key of the pool")
    }
}

/// Calls until one is answered, before a bench is over.
async fn recovered(client: &Client) {
    let answered = async {
        while client.post(CHAT, &chat(50)).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), answered).await.expect("the new version is used");
}

fn state(gateway: &Gateway, alias: &str, state: &str) -> bool {
    let labels = ["credential=\"pool\"", &format!("alias=\"{alias}\""), &format!("state=\"{state}\"")];
    gateway.metrics().sum("tollgate_credential_key_state", &labels) == 1.0
}

fn benchings(gateway: &Gateway) -> f64 {
    gateway.metrics().sum("tollgate_credential_key_benched_total", &[])
}

/// Calls until told to stop, none of which may fail; gives their number.
async fn load(client: Client, stop: Arc<AtomicBool>) -> u64 {
    let mut calls = 0;
    while !stop.load(Ordering::SeqCst) {
        client.post(CHAT, &chat(50)).await.assert_status(200);
        calls += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_four_keys_two_die_and_one_rests_under_load_and_no_caller_sees_it() {
    let mut pool = Pool::start(&[("a", ""), ("b", ""), ("c", ", weight: 2"), ("d", "")]).await;
    let gateway = &pool.fixture.gateway;
    let stop = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> =
        pool.callers(24).into_iter().map(|caller| tokio::spawn(load(caller, Arc::clone(&stop)))).collect();
    let used = || {
        let seen = pool.fixture.upstream.seen();
        seen.iter().map(|seen| seen.header("authorization").to_owned()).collect::<BTreeSet<_>>().len()
    };
    eventually("every key is used", || used() == 4).await;
    pool.mood("a", Mood::Unknown);
    pool.mood("b", Mood::Spent);
    eventually("the dead are benched", || state(gateway, "a", "benched") && state(gateway, "b", "benched"))
        .await;
    pool.mood("c", Mood::Limited(5));
    eventually("the third rests", || state(gateway, "c", "cooling")).await;
    assert!(state(gateway, "d", "usable"));
    pool.mood("c", Mood::Good);
    eventually("it is used again", || state(gateway, "c", "usable")).await;
    pool.mood("a", Mood::Good);
    let again = async {
        while !state(gateway, "a", "usable") {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), again).await.expect("a key that is good again comes back");
    eventually("the other is found dead again", || state(gateway, "b", "benched")).await;
    stop.store(true, Ordering::SeqCst);
    let mut calls = 0;
    for load in loads {
        calls += load.await.expect("no call failed");
    }

    requests_reach(gateway, calls).await;
    let rows = report(gateway, "alias");
    for alias in ["a", "b", "c", "d"] {
        assert!(total(&rows, "requests", |row| row["alias"] == alias) > 0, "{alias}: {rows:#?}");
    }
    let repeated: Vec<Value> =
        records(gateway).into_iter().filter(|record| record["attempts"].is_array()).collect();
    assert!(repeated.iter().all(|record| record["status"] == 200), "{repeated:#?}");
    let told = |alias: &str, status: u64| {
        repeated.iter().any(|record| {
            let attempts = record["attempts"].as_array().unwrap();
            attempts.iter().any(|attempt| attempt["alias"] == alias && attempt["status"] == status)
        })
    };
    assert!(told("a", 401) && told("b", 429) && told("c", 429), "{repeated:#?}");

    let output = gateway.tollgate(&["credential", "ls", "--admin", &gateway.admin().to_string()]);
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.contains("c ×2") && table.contains("benched for "), "{table}");
    let output = gateway.tollgate(&["credential", "test", "pool"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("pool a: files:a"), "{said}");
    assert!(pool.fixture.gateway.stop().success());
    let output =
        pool.fixture.gateway.tollgate(&["audit", "list", "--credential", "pool", "--format", "json"]);
    let trail: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a list");
    let benched = |alias: &str, reason: &str| {
        trail.iter().any(|entry| {
            (&entry["what"], &entry["alias"], &entry["reason"])
                == (&json!("benched"), &json!(alias), &json!(reason))
                && entry["caller"]
                    .as_str()
                    .is_some_and(|caller| caller.starts_with("spiffe://prod.acme/ns/team-"))
        })
    };
    assert!(benched("a", "status_401") && benched("b", "insufficient_quota"), "{trail:#?}");
    assert!(trail.iter().any(|entry| entry["what"] == "fetched" && entry["alias"] == "d"), "{trail:#?}");
    assert!(trail.iter().any(|entry| entry["what"] == "injected" && entry["alias"] == "d"), "{trail:#?}");
    pool.fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_keeps_its_key_and_a_standby_is_used_only_without_another() {
    let pool = Pool::start(&[("a", ""), ("b", ""), ("spare", ", weight: 0")]).await;
    let mut by_caller = Vec::new();
    for caller in pool.callers(16) {
        let alias = pool.used(&caller).await;
        assert_eq!(pool.used(&caller).await, alias);
        by_caller.push((caller, alias));
    }
    let aliases: BTreeSet<_> = by_caller.iter().map(|(_, alias)| *alias).collect();
    assert_eq!(aliases, BTreeSet::from(["a", "b"]));
    pool.mood("a", Mood::Limited(60));
    for (caller, alias) in &by_caller {
        assert_eq!(pool.used(caller).await, "b", "had {alias}");
    }
    pool.mood("b", Mood::Limited(60));
    for (caller, _) in &by_caller {
        assert_eq!(pool.used(caller).await, "spare");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn that_our_credit_is_spent_is_not_the_callers_to_know() {
    for entries in [&[("a", "")][..], &[("a", ""), ("b", "")]] {
        let pool = Pool::start(entries).await;
        let caller = pool.callers(1).remove(0);
        entries.iter().for_each(|(alias, _)| pool.mood(alias, Mood::Spent));
        for _ in 0..2 {
            let answer = caller.post(CHAT, &chat(50)).await;
            answer.assert_refused(502, "credential_rejected");
            assert!(!answer.text().contains("insufficient_quota"), "{}", answer.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_keys_are_left_alone_and_a_new_version_in_the_store_is_used_at_once() {
    let pool = Pool::start(&[("a", ""), ("b", "")]).await;
    let caller = pool.callers(1).remove(0);
    for alias in ["a", "b"] {
        pool.mood(alias, Mood::Unknown);
    }
    caller.post(CHAT, &chat(50)).await.assert_refused(502, "credential_rejected");
    assert_eq!(benchings(&pool.fixture.gateway), 2.0, "nobody else had an answer by them");
    let asked = pool.fixture.upstream.count();
    for _ in 0..5 {
        caller.post(CHAT, &chat(50)).await.assert_refused(502, "credential_rejected");
    }
    assert_eq!(
        pool.fixture.upstream.count(),
        asked,
        "a dead key is not asked again before its bench is over"
    );
    pool.put_another("b");
    recovered(&caller).await;
    assert!(state(&pool.fixture.gateway, "b", "usable") && state(&pool.fixture.gateway, "a", "benched"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_benched_key_whose_value_is_gone_is_asked_for_again() {
    let pool = Pool::start(&[("a", ""), ("b", "")]).await;
    let caller = pool.callers(1).remove(0);
    for alias in ["a", "b"] {
        pool.mood(alias, Mood::Unknown);
    }
    caller.post(CHAT, &chat(50)).await.assert_refused(502, "credential_rejected");
    std::fs::remove_file(pool.fixture.sandbox.inputs().join("keys/a")).unwrap();
    eventually("nothing is known of what is gone", || state(&pool.fixture.gateway, "a", "usable")).await;
    caller.post(CHAT, &chat(50)).await.assert_refused(503, "secret_unavailable");
    pool.put_another("a");
    recovered(&caller).await;
    assert!(state(&pool.fixture.gateway, "a", "usable") && state(&pool.fixture.gateway, "b", "benched"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_was_read_for_its_words_reaches_the_caller_whole() {
    let short = json!({"error": {"code": "other", "message": "x".repeat(3000)}}).to_string();
    let long = json!({"error": {"code": "insufficient_quota", "message": "x".repeat(100_000)}}).to_string();
    let (parts, whole) = ((short.clone(), long.clone()), [short, long]);
    let plan = Plan::openai(CHAT_ONLY);
    let fixture = plan
        .start(move |seen| {
            let (short, long) = parts.clone();
            let body = if seen.everything().contains("long") { long } else { short };
            let (one, other) = body.split_at(1000);
            let reply = Reply::status(429).header("content-type", "application/json").data(one.to_owned());
            reply.wait(Duration::from_millis(50)).data(other.to_owned())
        })
        .await;
    let client = fixture.checkout();
    for (word, expected) in ["short", "long"].into_iter().zip(whole) {
        let mut body = chat(50);
        body["messages"][0]["content"] = json!(word);
        let answer = client.post(CHAT, &body).await;
        answer.assert_status(429);
        assert_eq!(answer.text(), expected);
    }
    assert_eq!(fixture.upstream.count(), 2, "an error that is too long to be read says nothing of the key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_its_store_has_not_is_passed_over() {
    let pool = Pool::start(&[("a", ""), ("b", "")]).await;
    let callers = pool.callers(8);
    std::fs::remove_file(pool.fixture.sandbox.inputs().join("keys/a")).unwrap();
    for caller in &callers {
        assert_eq!(pool.used(caller).await, "b");
    }
}

/// A provider that knows one key at a time.
async fn rotating(plan: &Plan, known: Arc<Mutex<String>>) -> Upstream {
    Upstream::http(&plan.server, &["http/1.1"], move |seen| {
        provider::openai(&known.lock().unwrap(), 9, 2)(seen)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_its_provider_learns_of_late_fails_no_call() {
    needs!(Moto::installed());
    const FIRST: &str = "0f1e2d3c-0000-4000-8000-000000000001";
    const SECOND: &str = "0f1e2d3c-0000-4000-8000-000000000002";
    let plan = Plan::openai(CHAT_ONLY);
    let moto = Moto::start(&plan.sandbox).await;
    let (first, second) = (plan.sandbox.canary("first"), plan.sandbox.canary("second"));
    moto.create("llm/openai", FIRST, &first);
    let reader = moto.user(&plan.sandbox, "reader", &["secretsmanager:GetSecretValue"]);
    let file = plan.sandbox.input("aws", reader.profile("default"));
    let known = Arc::new(Mutex::new(first.clone()));
    let upstream = rotating(&plan, Arc::clone(&known)).await;
    let aws = format!(
        "  aws: {{region: {REGION}, endpoint: \"{}\", credentialsFile: \"{}\"}}\n",
        moto.address(),
        file.display()
    );
    let from = "
    - {alias: current, store: aws, path: llm/openai, stage: AWSCURRENT}
    - {alias: previous, store: aws, path: llm/openai, stage: AWSPREVIOUS, weight: 0}
  refresh: 1s";
    let text = destination("up", "api.up.test", upstream.port(), plan.pki.bundle(), "openai")
        + &document("SecretStore", "aws", aws)
        + &credential("pool", "up", from, "{bearer: {}}")
        + &grant("all-up", "spiffe://prod.acme/**", "up", "pool", CHAT_ONLY);
    let settings = plan.settings.clone().resource("fixture.yaml", text);
    let fixture = Plan { settings, ..plan }.start_with(upstream).await;
    let stop = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = ["a", "b"]
        .map(|app| fixture.caller(&format!("spiffe://prod.acme/ns/x/sa/{app}")))
        .map(|caller| tokio::spawn(load(caller, Arc::clone(&stop))))
        .into();
    let sent = |key: &str| {
        let bearer = format!("Bearer {key}");
        fixture.upstream.seen().iter().any(|seen| seen.header("authorization") == bearer)
    };
    eventually("the first version is used", || sent(&first)).await;
    moto.put("llm/openai", SECOND, &second, "AWSCURRENT");
    eventually("the new version is tried at once", || sent(&second)).await;
    fixture.upstream.clear();
    eventually("the one before serves", || sent(&first)).await;
    known.lock().unwrap().clone_from(&second);
    fixture.upstream.clear();
    eventually("the new one serves as soon as the provider knows it", || sent(&second)).await;
    stop.store(true, Ordering::SeqCst);
    for load in loads {
        assert!(load.await.expect("no call failed") > 0);
    }
}
