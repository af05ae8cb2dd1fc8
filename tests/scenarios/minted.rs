//! Tokens that the gateway has made at a token endpoint: one per life, renewed ahead, and never used past their end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::json;
use tollgate_tests::fixture::CHAT_ONLY;
use tollgate_tests::gateway::eventually;
use tollgate_tests::idp::{self, Idp};
use tollgate_tests::provider::{self, chat};
use tollgate_tests::resources::{credential, destination, file_store, grant};
use tollgate_tests::{Client, Fixture, Plan, Reply, SecretKind, Seen, Upstream, needs};

/// What arrived at the provider: the token, and when, in milliseconds since 1970.
type Arrivals = Arc<Mutex<Vec<(String, u64)>>>;

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn bearer(seen: &Seen) -> String {
    seen.header("authorization").strip_prefix("Bearer ").unwrap_or_default().to_owned()
}

/// The fixture's destination, called with a token of `idp`. `grant_line` is the mint's own.
fn resources(plan: &Plan, upstream: &Upstream, idp: &Idp, dialect: &str, grant_line: &str) -> String {
    let ca = plan.pki.bundle();
    let mint = format!(
        "{{bearer: {{}}}}\n  mint:\n    endpoint: {{destination: idp, path: {}}}\n    {grant_line}\n    scope: api",
        idp::TOKEN
    );
    destination("up", "api.up.test", upstream.port(), ca, dialect)
        + &destination("idp", idp::HOST, idp.port(), ca, "http")
        + &file_store("files", &plan.sandbox.inputs().join("keys"))
        + &credential("up-key", "up", "{store: files, path: client}", &mint)
        + &grant("checkout-up", "spiffe://prod.acme/ns/checkout/sa/*", "up", "up-key", &plan.grant)
}

async fn start(plan: Plan, upstream: Upstream, resources: String) -> Fixture {
    let settings = plan.settings.clone().resource("fixture.yaml", resources);
    Plan { settings, ..plan }.start_with(upstream).await
}

async fn load(client: Client, stop: Arc<AtomicBool>) -> usize {
    let mut calls = 0;
    while !stop.load(Ordering::SeqCst) {
        client.get("/up/x").await.assert_status(200);
        calls += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    calls
}

/// No token arrived after its end; gives how many different ones arrived.
fn assert_none_expired(idp: &Idp, arrivals: &Arrivals) -> usize {
    let asked = idp.asked();
    let mut used = Vec::new();
    for (token, at) in arrivals.lock().unwrap().iter() {
        let made = asked
            .iter()
            .find(|asked| asked.token.as_deref() == Some(token))
            .expect("a token of the endpoint");
        assert!(*at < made.ends, "a token arrived {} ms after its end", at - made.ends);
        if !used.contains(token) {
            used.push(token.clone());
        }
    }
    used.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_made_once_per_life_and_with_its_endpoint_down_nothing_expired_is_sent() {
    needs!(Idp::installed());
    let plan = Plan::new();
    let secret = plan.sandbox.canary("client");
    plan.sandbox.stands_for(&secret, &[SecretKind::File, SecretKind::ClientCredentials]);
    plan.sandbox.input("keys/client", &secret);
    let known = json!({"id": "tollgate", "secret": secret});
    let server = plan.pki.server(&plan.sandbox, &[idp::HOST]);
    let mut idp = Idp::start(&plan.sandbox, server, 10, &known).await;
    let arrivals = Arrivals::default();
    let arrived = Arc::clone(&arrivals);
    let upstream = Upstream::http(&plan.server, &["http/1.1"], move |seen| {
        arrived.lock().unwrap().push((bearer(seen), now()));
        Reply::status(200)
    })
    .await;
    let text = resources(&plan, &upstream, &idp, "http", "clientCredentials: {clientId: tollgate}");
    let fixture = start(plan, upstream, text).await;

    let (began, stop) = (now(), Arc::new(AtomicBool::new(false)));
    let loads: Vec<_> = (0..4).map(|_| tokio::spawn(load(fixture.checkout(), Arc::clone(&stop)))).collect();
    eventually("three tokens", || idp.asked().len() >= 3).await;
    stop.store(true, Ordering::SeqCst);
    let mut calls = 0;
    for load in loads {
        calls += load.await.expect("no call failed");
    }
    let (asked, lives) = (idp.asked(), (now() - began) / 5000);
    assert!(asked.len() as u64 <= 1 + lives, "{} tokens in {lives} times half their life", asked.len());
    assert!(asked.iter().all(|asked| asked.token.is_some() && asked.scope == "api"));
    assert!(calls > 100 && assert_none_expired(&idp, &arrivals) >= 2, "{calls} calls");

    idp.kill();
    fixture.assert_serves_until_it_ends().await;
    assert_none_expired(&idp, &arrivals);
    let endpoint = "endpoint=\"idp/token\"";
    assert_eq!(fixture.gateway.metrics().sum("tollgate_token_endpoint_up", &[endpoint]), 0.0);
    let shown = &fixture.gateway.snapshot()["tokenEndpoints"][0];
    assert_eq!((&shown["error"], &shown["unavailable"]), (&json!("unreachable"), &json!(1)));
    let lines = fixture.gateway.log();
    let said = lines.iter().filter(|line| line.to_string().contains("token endpoint fails"));
    assert_eq!(said.count(), 1);

    idp.launch().await;
    fixture.assert_recovers().await;
    assert_none_expired(&idp, &arrivals);
    assert_eq!(fixture.gateway.metrics().sum("tollgate_token_endpoint_up", &[endpoint]), 1.0);
    fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_signs_is_known_by_its_key_and_a_rejected_token_is_made_anew_once() {
    needs!(Idp::installed());
    let plan = Plan::openai(CHAT_ONLY);
    let key = rcgen::KeyPair::generate().unwrap();
    plan.sandbox.input("keys/client", key.serialize_pem());
    for line in key.serialize_pem().lines().filter(|line| !line.starts_with('-')) {
        plan.sandbox.needle(line);
    }
    let server = plan.pki.server(&plan.sandbox, &[idp::HOST]);
    let mut idp = Idp::start(&plan.sandbox, server, 3600, &json!({})).await;
    let audience = format!("https://{}:{}{}", idp::HOST, idp.port(), idp::TOKEN);
    let known = json!({"id": "tollgate", "publicKey": key.public_key_pem(), "audience": audience});
    idp.tell(3600, &known);

    let rejected = Arc::new(Mutex::new(Vec::<String>::new()));
    let rejecting = Arc::clone(&rejected);
    let upstream = Upstream::http(&plan.server, &["http/1.1"], move |seen| {
        let token = bearer(seen);
        match rejecting.lock().unwrap().iter().any(|rejected| *rejected == token || rejected == "*") {
            true => provider::wrong_key(),
            false => provider::openai(&token, 9, 2)(seen),
        }
    })
    .await;
    let line = "clientCredentials: {clientId: tollgate, auth: {privateKeyJwt: {}}}";
    let text = resources(&plan, &upstream, &idp, "openai", line);
    let fixture = start(plan, upstream, text).await;
    let (client, path) = (fixture.checkout(), "/up/v1/chat/completions");
    client.post(path, &chat(50)).await.assert_status(200);
    let first = idp.asked().pop().and_then(|asked| asked.token).expect("a token");
    rejected.lock().unwrap().push(first);
    for _ in 0..10 {
        client.post(path, &chat(50)).await.assert_status(200);
    }
    assert_eq!(idp.asked().len(), 2, "one fresh token");
    rejected.lock().unwrap().push("*".to_owned());
    for _ in 0..30 {
        client.post(path, &chat(50)).await.assert_refused(502, "credential_rejected");
    }
    assert!(idp.asked().len() <= 3, "{} tokens asked for", idp.asked().len());
    idp.kill();
    fixture.sandbox.assert_swept();
}

/// A token endpoint that answers what it was last told to.
async fn scripted_endpoint(plan: &Plan, told: &Arc<Mutex<Reply>>) -> Upstream {
    let told = Arc::clone(told);
    let server = plan.pki.server(&plan.sandbox, &[idp::HOST]);
    Upstream::http(&server, &["http/1.1"], move |_| told.lock().unwrap().clone()).await
}

fn mint_at(plan: &Plan, upstream: &Upstream, endpoint: &Upstream, mint: &str) -> String {
    let ca = plan.pki.bundle();
    let inject = format!("{{bearer: {{}}}}\n  mint:\n    {mint}");
    destination("up", "api.up.test", upstream.port(), ca, "http")
        + &destination("idp", idp::HOST, endpoint.port(), ca, "http")
        + &file_store("files", &plan.sandbox.inputs().join("keys"))
        + &credential("up-key", "up", "{store: files, path: client}", &inject)
        + &grant("checkout-up", "spiffe://prod.acme/ns/checkout/sa/*", "up", "up-key", &plan.grant)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_that_talks_nonsense_is_named_and_nothing_of_it_is_sent_or_shown() {
    let plan = Plan::new();
    let (secret, page, token) =
        (plan.sandbox.canary("client"), plan.sandbox.canary("page"), plan.sandbox.canary("token"));
    plan.sandbox.input("keys/client", &secret);
    let html = Reply::status(200).header("content-type", "text/html").data(format!("<html>{page}</html>"));
    let told = Arc::new(Mutex::new(html));
    let endpoint = scripted_endpoint(&plan, &told).await;
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200)).await;
    let mint =
        "endpoint: {destination: idp, path: /token}\n    clientCredentials: {clientId: a, auth: {post: {}}}";
    let text = mint_at(&plan, &upstream, &endpoint, mint);
    let fixture = start(plan, upstream, text).await;
    let client = fixture.checkout();
    let error = || fixture.gateway.snapshot()["tokenEndpoints"][0]["error"].clone();
    let answer = |more: &str| {
        Reply::json(&serde_json::from_str(&format!(r#"{{"access_token": "{token}"{more}}}"#)).unwrap())
    };
    for (reply, word) in [
        (None, "mint_nonsense"),
        (Some(answer(r#", "token_type": "Bearer", "expires_in": -1"#)), "mint_nonsense"),
        (Some(Reply::status(302).header("location", "https://localhost/")), "unexpected_status"),
    ] {
        if let Some(reply) = reply {
            *told.lock().unwrap() = reply;
        }
        let (before, began) = (endpoint.count(), now());
        while endpoint.count() == before {
            client.get("/up/x").await.assert_refused(503, "secret_unavailable");
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(now() - began < 60_000, "it is asked again");
        }
        eventually("the failure is shown", || error() == word).await;
    }
    let asked = endpoint.count();
    assert!(asked <= 8, "{asked}: it is asked once per back-off");
    assert_eq!(fixture.upstream.count(), 0);
    *told.lock().unwrap() = answer(r#", "token_type": "bearer", "expires_in": "60""#);
    let served = async {
        while client.get("/up/x").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), served).await.expect("it recovers by itself");
    assert_eq!(bearer(&fixture.upstream.only()), token);
    let form = String::from_utf8(endpoint.seen()[0].body.to_vec()).unwrap();
    assert!(form.starts_with("grant_type=client_credentials&client_secret=sk-client."), "{form}");
    assert!(endpoint.seen().iter().all(|seen| seen.target == "/token"), "no redirect was followed");
    fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_with_status_200_is_named_and_a_client_secret_shown_once_until_it_is_another() {
    let plan = Plan::new();
    let [wrong, right, token] = ["wrong", "right", "token"].map(|name| plan.sandbox.canary(name));
    let file = plan.sandbox.input("keys/client", &wrong);
    // As far as it is the same in a form.
    let (good, given) = (right.split('/').next().unwrap().to_owned(), token.clone());
    let server = plan.pki.server(&plan.sandbox, &[idp::HOST]);
    let endpoint = Upstream::http(&server, &["http/1.1"], move |seen| {
        let form = String::from_utf8_lossy(&seen.body).into_owned();
        Reply::json(&if form.contains(&good) {
            serde_json::json!({"access_token": given, "token_type": "Bearer", "expires_in": 3599.0})
        } else {
            serde_json::json!({"error": "invalid_client", "error_description": "Client authentication failed"})
        })
    })
    .await;
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200)).await;
    let mint =
        "endpoint: {destination: idp, path: /token}\n    clientCredentials: {clientId: a, auth: {post: {}}}";
    let text = mint_at(&plan, &upstream, &endpoint, mint);
    let fixture = start(plan, upstream, text).await;
    let client = fixture.checkout();
    let began = now();
    while now() - began < 7_000 {
        client.get("/up/x").await.assert_refused(503, "secret_unavailable");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(endpoint.count(), 1, "it is not shown again");
    let output = fixture.gateway.tollgate(&["credential", "test", "up-key"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for words in ["FAILED  mint", "invalid_client", "Client authentication failed", "clientId"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!said.contains("lifetime"), "{said}");
    std::fs::write(file, &right).unwrap();
    let written = now();
    while client.get("/up/x").await.status != 200 {
        assert!(now() - written < 15_000, "another is tried within seconds");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(bearer(&fixture.upstream.only()), token);
    fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_calls_with_an_installation_token_and_its_key_stays() {
    let plan = Plan::new();
    let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    plan.sandbox.input("keys/client", key.serialize_pem());
    for line in key.serialize_pem().lines().filter(|line| !line.starts_with('-')) {
        plan.sandbox.needle(line);
    }
    let token = plan.sandbox.canary("hub");
    plan.sandbox.stands_for(&token, &[SecretKind::GithubApp, SecretKind::Bearer]);
    let answer =
        json!({"token": token, "expires_at": "2026-11-24T21:00:00Z", "permissions": {"contents": "read"}});
    let reply = Reply::status(201).header("date", "Tue, 24 Nov 2026 20:00:00 GMT").data(answer.to_string());
    let endpoint = scripted_endpoint(&plan, &Arc::new(Mutex::new(reply))).await;
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200)).await;
    let mint = "endpoint: {destination: idp}\n    githubApp: {appId: 77, installationId: 88, permissions: {contents: read}}";
    let text = mint_at(&plan, &upstream, &endpoint, mint);
    let fixture = start(plan, upstream, text).await;
    for _ in 0..20 {
        fixture.checkout().get("/up/x").await.assert_status(200);
    }
    assert!(fixture.upstream.seen().iter().all(|seen| bearer(seen) == token));
    let asked = endpoint.only();
    assert_eq!(
        (asked.method.as_str(), asked.target.as_str()),
        ("POST", "/app/installations/88/access_tokens")
    );
    assert_eq!(asked.json(), json!({"permissions": {"contents": "read"}}));
    fixture.sandbox.needle(&bearer(&asked));
    fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_token_and_a_signing_key_are_shown_to_their_endpoint_alone() {
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = key.serialize_pem();
    for (kind, mint, parameter) in [
        (SecretKind::TokenExchange, "tokenExchange: {}", "subject_token="),
        (SecretKind::JwtBearer, "jwtBearer: {issuer: tollgate}", "assertion="),
    ] {
        let plan = Plan::new();
        let token = plan.sandbox.canary("minted");
        plan.sandbox.stands_for(&token, &[kind, SecretKind::Bearer]);
        let stored = match kind {
            SecretKind::TokenExchange => plan.sandbox.canary("subject"),
            _ => pem.clone(),
        };
        for line in stored.lines().filter(|line| !line.starts_with('-')) {
            plan.sandbox.stands_for(line, &[SecretKind::File, kind]);
        }
        plan.sandbox.input("keys/client", &stored);
        let granted = json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600});
        let endpoint = scripted_endpoint(&plan, &Arc::new(Mutex::new(Reply::json(&granted)))).await;
        let echoed = token.clone();
        let upstream =
            Upstream::http(&plan.server, &["http/1.1"], move |_| Reply::status(200).data(echoed.clone()))
                .await;
        let mint = format!("endpoint: {{destination: idp, path: /token}}\n    {mint}");
        let text = mint_at(&plan, &upstream, &endpoint, &mint);
        let fixture = start(plan, upstream, text).await;
        for _ in 0..3 {
            let answer = fixture.checkout().get("/up/x").await;
            answer.assert_status(200);
            assert_eq!(answer.text(), "*".repeat(token.len()), "an echo of what was minted is masked");
        }
        for seen in fixture.upstream.seen() {
            assert_eq!(bearer(&seen), token);
            assert!(!seen.everything().contains("client"), "{seen:#?}");
        }
        let asked = String::from_utf8(endpoint.only().body.to_vec()).unwrap();
        let shown = asked.split('&').find_map(|pair| pair.strip_prefix(parameter)).expect("it is shown");
        fixture.sandbox.needle(shown);
        fixture.sandbox.assert_swept();
    }
}
