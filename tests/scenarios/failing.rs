//! Everything fails closed, and says which of us failed.

use std::time::Duration;

use http::Method;
use serde_json::json;
use tollgate_tests::bao::Bao;
use tollgate_tests::fixture::CHAT_ONLY;
use tollgate_tests::process::{free_port, local};
use tollgate_tests::provider::chat_chunk;
use tollgate_tests::resources::{credential, destination, grant, vault_store};
use tollgate_tests::{Authority, Plan, Protocol, Reply, Upstream, needs};

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_is_502_upstream_unreachable() {
    let plan = Plan::new();
    let settings = plan.complete(free_port());
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200)).await;
    let fixture = Plan { settings, ..plan }.start_with(upstream).await;
    for protocol in Protocol::BOTH {
        let client = fixture.checkout();
        let answer = client.send(protocol, client.request(Method::GET, "/up/x", "")).await.unwrap();
        answer.assert_refused(502, "upstream_unreachable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_tls_name_or_issuer_is_502_and_the_key_stays_here() {
    for case in ["name", "issuer", "expired"] {
        let mut plan = Plan::new();
        plan.server = match case {
            "name" => plan.pki.server(&plan.sandbox, &["other.test"]),
            "issuer" => Authority::new(&plan.sandbox, "stranger").server(&plan.sandbox, &["api.up.test"]),
            _ => plan.pki.issue(
                &plan.sandbox,
                "old",
                &tollgate_tests::Leaf {
                    begins_in: -7200,
                    ends_in: -60,
                    ..tollgate_tests::Leaf::server(&["api.up.test"])
                },
            ),
        };
        let fixture = plan.start(|_| Reply::status(200)).await;
        fixture.checkout().get("/up/x").await.assert_refused(502, "upstream_tls");
        assert_eq!(
            (fixture.upstream.count(), fixture.upstream.connections()),
            (0, 0),
            "{case}: nothing was sent before the name was verified"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_address_is_502_unless_the_settings_name_its_range() {
    let mut plan = Plan::new();
    plan.settings.private_ranges = vec!["10.99.0.0/16".to_owned()];
    let fixture = plan.start(|_| Reply::status(200)).await;
    fixture.checkout().get("/up/x").await.assert_refused(502, "address_refused");
    assert_eq!(fixture.upstream.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_and_our_own_ports_can_be_allowed_by_nobody() {
    let mut plan = Plan::new();
    plan.settings.private_ranges = vec!["0.0.0.0/0".to_owned()];
    let fixture = plan.start(|_| Reply::status(200)).await;
    let (_, text) = fixture.gateway.settings().resources[0].clone();
    let port = format!("port: {}", fixture.upstream.port());
    for (what, address, own) in [
        ("metadata", "169.254.169.254", None),
        ("this network", "0.0.0.0", None),
        ("our own listener", "127.0.0.1", Some(fixture.gateway.address().port())),
        ("our own admin port", "127.0.0.1", Some(fixture.gateway.admin().port())),
    ] {
        let generation = fixture.gateway.generation();
        let port_line = own.map_or_else(|| port.clone(), |own| format!("port: {own}"));
        let changed = text
            .replace("addresses: [127.0.0.1]", &format!("addresses: [{address}]"))
            .replace(&port, &port_line);
        fixture.gateway.write_resource("fixture.yaml", &changed);
        // Refused when it is read, or when it is dialled: either way nothing is dialled.
        for _ in 0..40 {
            if fixture.gateway.generation() > generation {
                fixture.checkout().get("/up/x").await.assert_refused(502, "address_refused");
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(fixture.upstream.count(), 0, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_says_nothing_is_504() {
    let plan = Plan::new();
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| {
        Reply::status(200).wait(Duration::from_secs(30)).data("late")
    })
    .await;
    let mut settings = plan.complete(upstream.port());
    let (_, text) = settings.resources.pop().unwrap();
    let text = text.replacen(
        "  dialect: http\n",
        "  dialect: http\n  timeouts: {connect: 2s, firstByte: 1s, idle: 1s}\n",
        1,
    );
    let fixture =
        Plan { settings: settings.resource("fixture.yaml", text), ..plan }.start_with(upstream).await;
    fixture.checkout().get("/up/x").await.assert_refused(504, "upstream_timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_hangs_up_is_502_and_after_the_head_the_stream_is_cut() {
    let plan = Plan::new();
    let upstream = Upstream::raw(&plan.server, &["http/1.1"], None, |mut stream, _| async move {
        let mut head = [0; 1024];
        let read = tokio::io::AsyncReadExt::read(&mut stream, &mut head).await.unwrap_or(0);
        if String::from_utf8_lossy(&head[..read]).contains("/half") {
            let _ = tokio::io::AsyncWriteExt::write_all(
                &mut stream,
                b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
            )
            .await;
            let _ = tokio::io::AsyncWriteExt::flush(&mut stream).await;
        }
    })
    .await;
    let fixture = plan.start_with(upstream).await;
    let client = fixture.checkout();
    for protocol in Protocol::BOTH {
        let answer = client.send(protocol, client.request(Method::GET, "/up/x", "")).await.unwrap();
        answer.assert_refused(502, "upstream_reset");
        let cut = client.send(protocol, client.request(Method::GET, "/up/half", "")).await;
        assert!(cut.is_err(), "a clean end of half an answer: {cut:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_off_never_ends_cleanly_and_is_billed() {
    let fixture = Plan::openai(&format!("{CHAT_ONLY}  limits: [{{tokens: 100000, per: day}}]\n"))
        .start(|_| {
            Reply::events([chat_chunk("a").as_str(), chat_chunk("b").as_str()])
                .wait(Duration::from_millis(50))
                .abort()
        })
        .await;
    let client = fixture.checkout();
    for protocol in Protocol::BOTH {
        let mut body = tollgate_tests::provider::chat(400);
        body["stream"] = true.into();
        let cut = client.send(protocol, client.json("/up/v1/chat/completions", &body)).await;
        assert!(cut.is_err(), "{cut:?}");
    }
    tollgate_tests::report::requests_reach(&fixture.gateway, 2).await;
    assert!(fixture.gateway.metrics().sum("tollgate_limit_spent", &["tokens/day"]) > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_vault_serves_stale_within_its_bound_and_then_503() {
    needs!(Bao::installed());
    let plan = Plan::new();
    let bao = Bao::start(&plan.sandbox).await;
    bao.put("llm/up", "api_key", &plan.key).await;
    let token = bao.reader_token(&plan.sandbox).await;
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200)).await;
    let text = destination("up", "api.up.test", upstream.port(), plan.pki.bundle(), "http")
        + &vault_store("bao", &bao.address(), bao.ca(), &token)
        + &credential(
            "up-key",
            "up",
            "{store: bao, path: llm/up, field: api_key}\n  refresh: 1s\n  maxStale: 4s",
            "{bearer: {}}",
        )
        + &grant(
            "checkout-up",
            "spiffe://prod.acme/ns/checkout/sa/*",
            "up",
            "up-key",
            "  allow: {methods: [GET], paths: [\"/**\"]}\n",
        );
    let settings = plan.settings.clone().resource("fixture.yaml", text);
    let fixture = Plan { settings, ..plan }.start_with(upstream).await;
    let client = fixture.checkout();
    client.get("/up/x").await.assert_status(200);
    bao.seal().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    client.get("/up/x").await.assert_status(200);
    let mut refused = None;
    for _ in 0..40 {
        let answer = client.get("/up/x").await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let refused = refused.expect("the stale key is given up in time");
    refused.assert_refused(503, "secret_unavailable");
    let text = refused.text();
    assert!(!text.contains("llm/up") && !text.contains("bao") && !text.contains("api_key"), "{text}");
    bao.unseal().await;
    for _ in 0..60 {
        if client.get("/up/x").await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("an unsealed vault serves again");
}

#[tokio::test(flavor = "multi_thread")]
async fn our_clients_follow_no_redirect_and_read_no_proxy_variable() {
    let plan = Plan::new();
    let thief = Upstream::http(&plan.pki.server(&plan.sandbox, &["thief.test"]), &["http/1.1"], |_| {
        Reply::json(&json!({}))
    })
    .await;
    let place = format!("https://thief.test:{}/v1/secret/data/llm/up", thief.port());
    let vault = Upstream::http(&plan.pki.server(&plan.sandbox, &["localhost"]), &["http/1.1"], move |_| {
        Reply::status(307).header("location", &place)
    })
    .await;
    let token = plan.sandbox.input("bao.token", plan.sandbox.canary("vault"));
    let proxy = tokio::net::TcpListener::bind(local(free_port())).await.unwrap();
    let proxy_address = proxy.local_addr().unwrap();
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200)).await;
    let text = destination("up", "api.up.test", upstream.port(), plan.pki.bundle(), "http")
        + &vault_store("bao", &format!("https://127.0.0.1:{}", vault.port()), plan.pki.bundle(), &token)
        + &credential("up-key", "up", "{store: bao, path: llm/up, field: api_key}", "{bearer: {}}")
        + &grant(
            "checkout-up",
            "spiffe://prod.acme/ns/checkout/sa/*",
            "up",
            "up-key",
            "  allow: {methods: [GET], paths: [\"/**\"]}\n",
        );
    let mut settings = plan.settings.clone().resource("fixture.yaml", text);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        settings.environment.push((name.to_owned(), format!("http://{proxy_address}")));
    }
    let mut gateway = tollgate_tests::Gateway::prepare(&plan.sandbox, &settings);
    gateway.launch().await;
    let identity = plan.prod.svid(&plan.sandbox, tollgate_tests::fixture::CHECKOUT);
    let client =
        tollgate_tests::Client::new(&plan.sandbox, gateway.address(), plan.pki.roots(), Some(identity));
    client.get("/up/x").await.assert_refused(503, "secret_unavailable");
    assert!(vault.count() > 0, "the vault was asked");
    assert_eq!((thief.connections(), upstream.count()), (0, 0));
    let called = tokio::time::timeout(Duration::from_millis(200), proxy.accept()).await;
    assert!(called.is_err(), "the proxy variable was read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_lasts_longer_than_it_may_altogether_is_refused_or_cut_and_recorded() {
    let plan = Plan::new();
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |seen| {
        if seen.target.contains("/slow") {
            return Reply::status(200).wait(Duration::from_secs(30)).data("late");
        }
        // Something comes all the time.
        let more = |reply: Reply, _| reply.data("drop ").wait(Duration::from_millis(100));
        (0..300).fold(Reply::status(200), more)
    })
    .await;
    let text = plan.complete(upstream.port()).resources[0].1.replacen(
        "  dialect: http\n",
        "  dialect: http\n  timeouts: {total: 2s}\n",
        1,
    );
    let settings = plan.settings.clone().resource("fixture.yaml", text);
    let fixture = Plan { settings, ..plan }.start_with(upstream).await;
    let client = fixture.checkout();
    for protocol in Protocol::BOTH {
        let slow = client.send(protocol, client.request(Method::GET, "/up/slow", "")).await.unwrap();
        slow.assert_refused(504, "upstream_timeout");
        let cut = client.send(protocol, client.request(Method::GET, "/up/steady", "")).await;
        assert!(cut.is_err(), "a clean end of a part of an answer: {cut:?}");
    }
    tollgate_tests::report::requests_reach(&fixture.gateway, 4).await;
    let calls = tollgate_tests::ledger::records(&fixture.gateway);
    assert_eq!(calls.len(), 4, "{calls:?}");
    for call in calls {
        assert_eq!(call["reason"], "upstream_timeout", "{call}");
        let lasted: u64 = call["duration_us"].to_string().trim_matches('"').parse().unwrap();
        assert!(lasted >= 1_900_000, "it had less than its time: {call}");
    }
}
