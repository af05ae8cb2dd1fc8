//! What a provider refuses one caller is that caller's matter, until it shows that it is the key's.

use http::Method;
use serde_json::{Value, json};
use tollgate_tests::provider::chat;
use tollgate_tests::resources::{credential, destination, document, file_store};
use tollgate_tests::{Plan, Protocol, Reply, Upstream};

use super::{CHAT, Mood, Pool, benchings, state};
use crate::tokens::{AUDIENCE, in_seconds, jwt};

const VILLAIN: &str = "spiffe://prod.acme/ns/dark/sa/villain";

fn chat_with(word: &str) -> Value {
    let mut body = chat(50);
    body["messages"][0]["content"] = json!(word);
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn one_caller_that_provokes_rejections_benches_nobodys_keys() {
    let pool = Pool::start(&[("a", ""), ("b", ""), ("c", "")]).await;
    let callers = pool.callers(12);
    let mut before = Vec::new();
    for caller in &callers {
        before.push(pool.used(caller).await);
    }
    let villain = pool.fixture.caller(VILLAIN);
    pool.fixture.upstream.clear();
    for _ in 0..20 {
        let answer = villain.post(CHAT, &chat_with("poison")).await;
        answer.assert_refused(502, "credential_rejected");
        assert!(!answer.text().contains("Incorrect API key"));
    }
    assert_eq!(pool.fixture.upstream.count(), 3, "its calls have met each key once");
    for (caller, alias) in callers.iter().zip(before) {
        assert_eq!(pool.used(caller).await, alias);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_one_caller_alone_found_dead_serve_the_others() {
    let pool = Pool::start(&[("a", ""), ("b", "")]).await;
    pool.fixture
        .caller(VILLAIN)
        .post(CHAT, &chat_with("poison"))
        .await
        .assert_refused(502, "credential_rejected");
    let gateway = &pool.fixture.gateway;
    assert!(state(gateway, "a", "benched") && state(gateway, "b", "benched"), "nobody else was asked");
    assert_eq!(benchings(gateway), 2.0);
    for caller in pool.callers(6) {
        caller.post(CHAT, &chat(50)).await.assert_status(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_too_large_for_every_keys_limits_cool_nobody_elses_keys() {
    let pool = Pool::start(&[("a", ""), ("b", ""), ("c", "")]).await;
    let callers = pool.callers(12);
    let mut before = Vec::new();
    for caller in &callers {
        before.push(pool.used(caller).await);
    }
    let villain = pool.fixture.caller(VILLAIN);
    pool.fixture.upstream.clear();
    villain.post(CHAT, &chat_with("bulk")).await.assert_status(429);
    for _ in 0..20 {
        villain.post(CHAT, &chat_with("bulk")).await.assert_refused(429, "keys_cooling");
    }
    assert_eq!(pool.fixture.upstream.count(), 3, "its calls have met each key once");
    for (caller, alias) in callers.iter().zip(before) {
        assert_eq!(pool.used(caller).await, alias);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_identities_of_one_team_take_no_keys_from_others() {
    let pool = Pool::start(&[("a", ""), ("b", "")]).await;
    for n in 0..6 {
        let villain = pool.fixture.caller(&format!("{VILLAIN}-{n}"));
        let word = if n % 2 == 0 { "bulk" } else { "poison" };
        assert!(!villain.post(CHAT, &chat_with(word)).await.status.is_success());
    }
    for caller in pool.callers(6) {
        caller.post(CHAT, &chat(50)).await.assert_status(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_every_key_refused_by_its_limits_the_providers_word_is_passed_on_and_then_ours() {
    let pool = Pool::start(&[("a", ""), ("b", "")]).await;
    pool.mood("a", Mood::Limited(40));
    pool.mood("b", Mood::Limited(3600));
    for caller in pool.callers(3) {
        pool.fixture.upstream.clear();
        let theirs = caller.post(CHAT, &chat(50)).await;
        theirs.assert_status(429);
        assert_eq!(
            theirs.json()["error"]["code"],
            "rate_limit_exceeded",
            "whole, though it was read for its words"
        );
        assert_eq!(theirs.header("x-tollgate-reason"), "");
        assert_eq!(pool.fixture.upstream.count(), 2, "each key was tried");
        let ours = caller.post(CHAT, &chat(50)).await;
        ours.assert_refused(429, "keys_cooling");
        let wait: u64 = ours.header("retry-after").parse().expect("seconds");
        assert!((1..=40).contains(&wait), "until the first is free: {wait}");
        assert_eq!(pool.fixture.upstream.count(), 2, "nobody was asked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_through_three_keys_at_most() {
    let keys = ["a", "b", "c", "d", "e"];
    let pool = Pool::start(&keys.map(|alias| (alias, ""))).await;
    for alias in keys {
        pool.mood(alias, Mood::Limited(60));
    }
    let caller = pool.callers(1).remove(0);
    for (arrived, passed_on) in [(3, true), (5, true), (5, false)] {
        let answer = caller.post(CHAT, &chat(50)).await;
        answer.assert_status(429);
        assert_eq!(answer.header("x-tollgate-reason").is_empty(), passed_on);
        assert_eq!(pool.fixture.upstream.count(), arrived);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_said_of_the_callers_own_token_is_not_held_against_the_gateways_key() {
    for aliases in [&["a"][..], &["a", "b"]] {
        let plan = Plan::new();
        let grant = format!(
            "  callers: [{{spiffe: \"spiffe://prod.acme/**\"}}]\n  destination: up\n  credential: pool\n  \
             callerToken: {{audience: \"{AUDIENCE}\"}}\n  allow: {{methods: [POST], paths: [\"/**\"]}}\n"
        );
        let mut from = Vec::new();
        for alias in aliases {
            let key = plan.sandbox.canary(alias);
            plan.sandbox.input(&format!("keys/{alias}"), &key);
            from.push(format!("{{alias: {alias}, store: files, path: {alias}}}"));
        }
        let from = match aliases {
            [one] => format!("{{store: files, path: {one}}}"),
            _ => format!("[{}]", from.join(", ")),
        };
        let good = jwt(&plan.sandbox, &json!({"aud": AUDIENCE, "exp": in_seconds(600)}));
        let known = format!("Bearer {good}");
        let upstream = Upstream::http(&plan.server, &["http/1.1"], move |seen| {
            let status = if seen.header("authorization") == known { 200 } else { 401 };
            Reply::status(status).data(format!("token {status}"))
        })
        .await;
        let text = destination("up", "api.up.test", upstream.port(), plan.pki.bundle(), "http")
            + &file_store("files", &plan.sandbox.inputs().join("keys"))
            + &credential("pool", "up", &from, "{header: {name: x-api-key}}")
            + &document("Grant", "both", grant);
        let settings = plan.settings.clone().resource("fixture.yaml", text);
        let mut fixture = Plan { settings, ..plan }.start_with(upstream).await;
        let client = fixture.checkout();
        let ask = async |token: &str| {
            let mut request = client.request(Method::POST, "/up/x", "body");
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
            client.send(Protocol::H1, request).await.unwrap()
        };
        let withdrawn = jwt(&fixture.sandbox, &json!({"aud": AUDIENCE, "exp": in_seconds(601)}));
        for _ in 0..3 {
            fixture.upstream.clear();
            let answer = ask(&withdrawn).await;
            answer.assert_status(401);
            assert_eq!(answer.text(), "token 401", "the destination's own word");
            assert_eq!(fixture.upstream.count(), 1, "no other key was tried");
        }
        ask(&good).await.assert_status(200);
        if aliases.len() > 1 {
            assert!(state(&fixture.gateway, "a", "usable") && state(&fixture.gateway, "b", "usable"));
        }
        assert!(fixture.gateway.stop().success());
        let output = fixture.gateway.tollgate(&["audit", "list", "--credential", "pool", "--format", "json"]);
        let trail: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a list");
        assert!(trail.iter().any(|entry| entry["what"] == "fetched"), "{trail:#?}");
        assert!(trail.iter().all(|entry| entry["what"] != "rejected"), "{trail:#?}");
    }
}
