//! What never crosses: the caller's credentials outward, the provider's key and cookies inward.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tollgate_tests::fixture::CHAT_ONLY;
use tollgate_tests::provider::{self, chat};
use tollgate_tests::{Plan, Protocol, Reply, Upstream};

#[tokio::test(flavor = "multi_thread")]
async fn the_callers_own_credentials_never_reach_the_provider() {
    let plan = Plan::new();
    let own = format!("{:016x}", tollgate_tests::sandbox::random());
    plan.sandbox.needle(&own);
    let upstream = Upstream::http(&plan.server, &["h2", "http/1.1"], |_| Reply::status(200)).await;
    let fixture = plan.start_with(upstream).await;
    let client = fixture.checkout();
    let headers = [
        "authorization",
        "proxy-authorization",
        "cookie",
        "x-api-key",
        "X_Api_Key",
        "api-key",
        "x-goog-api-key",
        "x-amz-security-token",
        "x-auth-token",
        "x-vault-token",
        "private-token",
        "x-forwarded-client-cert",
        "baggage",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-authorization",
        "x-http-method-override",
        "x-original-url",
        "x-tollgate-fault-note",
        "x-goog-user-project",
        "x-envoy-original-path",
        "x-jwt-assertion",
    ];
    let path = format!("/up/x?a=1&key={own}&%6bey={own}&access_token={own}&API_KEY={own}&b=2");
    for protocol in Protocol::BOTH {
        fixture.upstream.clear();
        let mut request = client.request(Method::GET, &path, "");
        for name in headers {
            request.headers_mut().append(
                http::HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()).unwrap(),
                own.parse().unwrap(),
            );
        }
        request.headers_mut().append("x-kept", "kept".parse().unwrap());
        client.send(protocol, request).await.unwrap().assert_status(200);
        let seen = fixture.upstream.only();
        assert!(!seen.everything().contains(&own), "{seen:#?}");
        let keys: Vec<_> = seen.headers.get_all("authorization").iter().collect();
        assert_eq!(keys, [format!("Bearer {}", fixture.key).as_str()], "exactly one key");
        assert_eq!(seen.header("x-kept"), "kept");
        assert!(
            seen.target.starts_with("/x?") && seen.target.contains("a=1") && seen.target.contains("b=2"),
            "{}",
            seen.target
        );
        assert!(seen.authority.starts_with("api.up.test"), "{}", seen.authority);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_connection_names_and_trailers_do_not_travel_on() {
    let fixture = Plan::new().start(|_| Reply::status(200)).await;
    let client = fixture.checkout();
    let raw = format!(
        "POST /up/x HTTP/1.1\r\nhost: {}\r\nconnection: close, x-internal, authorization\r\nx-internal: 1\r\nte: trailers\r\n\
         trailer: authorization\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nauthorization: Bearer mine\r\nx-api-key: mine\r\n\r\n",
        client.authority()
    );
    let answer = client.raw(raw.as_bytes()).await;
    assert_eq!(answer.statuses(), [200], "{}", String::from_utf8_lossy(&answer.bytes));
    let seen = fixture.upstream.only();
    assert!(!seen.everything().contains("mine") && seen.header("x-internal").is_empty(), "{seen:#?}");
    assert_eq!(seen.header("authorization"), format!("Bearer {}", fixture.key));
    assert_eq!(&seen.body[..], b"hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_travel_over_http_2_without_what_may_not() {
    let plan = Plan { inject: "{header: {name: x-key}}", ..Plan::new() };
    let upstream = Upstream::http(&plan.server, &["h2"], |_| Reply::status(200)).await;
    let fixture = plan.start_with(upstream).await;
    let client = fixture.checkout();
    let mut request = client.request(Method::POST, "/up/x", "");
    let trailers = [
        ("x-checksum", "fine"),
        ("authorization", "Bearer mine"),
        ("x_api_key", "mine"),
        ("x-key", "mine"),
        ("x_key", "mine"),
        ("cookie", "mine"),
        ("content-type", "mine"),
        ("x-tollgate-reason", "mine"),
        ("x-http-method-override", "mine"),
        ("host", "mine"),
    ];
    let trailers = trailers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    let body = http_body_util::Full::new(bytes::Bytes::from("hi"));
    let last = async move { Some(Ok(http::HeaderMap::from_iter(trailers))) };
    *request.body_mut() = body.with_trailers(last).map_err(|never| match never {}).boxed();
    client.send(Protocol::H2, request).await.unwrap().assert_status(200);
    let seen = fixture.upstream.only();
    let arrived = seen.trailers.clone().unwrap_or_default();
    assert_eq!(arrived.keys().map(http::HeaderName::as_str).collect::<Vec<_>>(), ["x-checksum"], "{seen:#?}");
    assert!(!seen.everything().contains("mine"), "{seen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn account_selectors_of_the_caller_do_not_move_the_bill() {
    let fixture = Plan::openai(CHAT_ONLY).start_openai(9, 2).await;
    let client = fixture.checkout();
    let mut request = client.json("/up/v1/chat/completions", &chat(50));
    for name in ["openai-organization", "openai-project", "OpenAI_Organization"] {
        request.headers_mut().append(
            http::HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()).unwrap(),
            "org-mine".parse().unwrap(),
        );
    }
    client.send(Protocol::H1, request).await.unwrap().assert_status(200);
    assert!(!fixture.upstream.only().everything().contains("org-mine"));
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_and_what_else_binds_a_session_stay_with_the_gateway() {
    let fixture = Plan::new()
        .start(|_| {
            let dropped = [
                "set-cookie",
                "set-cookie2",
                "alt-svc",
                "authentication-info",
                "proxy-authentication-info",
                "refresh",
                "www-authenticate",
                "clear-site-data",
                "strict-transport-security",
                "x-tollgate-reason",
                "x-tollgate-anything",
                "connection",
                "keep-alive",
                "proxy-connection",
            ];
            let reply =
                dropped.iter().fold(Reply::status(200), |reply, name| reply.header(name, "session=1"));
            reply.header("x-request-cost", "3").header("content-type", "text/plain").data("fine")
        })
        .await;
    for protocol in Protocol::BOTH {
        let client = fixture.checkout();
        let answer = client.send(protocol, client.request(Method::GET, "/up/x", "")).await.unwrap();
        assert_eq!(answer.text(), "fine");
        assert_eq!(answer.header("x-request-cost"), "3");
        for name in [
            "set-cookie",
            "set-cookie2",
            "alt-svc",
            "authentication-info",
            "proxy-authentication-info",
            "refresh",
            "x-tollgate-reason",
            "x-tollgate-anything",
            "keep-alive",
        ] {
            assert!(!answer.headers.contains_key(name), "{name}: {:?}", answer.headers);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_reflected_in_a_response_header_is_removed_in_every_form() {
    let plan = Plan::new();
    let key = plan.key.clone();
    let fixture = plan
        .start(move |seen| {
            let percent: String = key.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let hex: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
            Reply::status(200)
                .header("x-echo", seen.header("authorization"))
                .header("x-debug", &format!("key={key}; next"))
                .header("x-base64", &STANDARD.encode(&key))
                .header("x-base64-inside", &STANDARD.encode(format!("Bearer {key}")))
                .header("x-percent", &percent)
                .header("x-hex", &hex)
                .header(
                    "location",
                    &format!(
                        "https://api.up.test/?key={}",
                        key.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D")
                    ),
                )
                .header("x-fine", "fine")
        })
        .await;
    let answer = fixture.checkout().get("/up/x").await;
    assert_eq!(answer.header("x-fine"), "fine");
    let runs: Vec<_> =
        fixture.key.split(|c: char| !c.is_ascii_alphanumeric()).filter(|run| run.len() == 16).collect();
    assert_eq!(runs.len(), 3);
    for (name, value) in &answer.headers {
        let value = value.to_str().unwrap();
        let decoded = percent_decoded(value);
        for run in &runs {
            let hex: String = run.bytes().map(|byte| format!("{byte:02x}")).collect();
            let forms = [(*run).to_owned(), STANDARD.encode(run)[..20].to_owned(), hex];
            assert!(!forms.iter().any(|form| value.contains(form.as_str())), "{name}: {value}");
            assert!(!decoded.contains(run), "{name}: {value}");
        }
        assert!(!decoded_base64(value).contains(runs[0]), "{name}: {value}");
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let byte = tail
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn decoded_base64(text: &str) -> String {
    STANDARD.decode(text).map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_providers_401_about_our_key_is_502_and_says_nothing_of_it() {
    let plan = Plan::new();
    let key = plan.key.clone();
    let fixture = plan
        .start(move |_| {
            let error = json!({"error": {"message": format!("Incorrect API key provided: {key}")}});
            Reply::status(401).header("www-authenticate", "Bearer realm=\"up\"").data(error.to_string())
        })
        .await;
    let answer = fixture.checkout().get("/up/x").await;
    answer.assert_refused(502, "credential_rejected");
    assert!(!answer.headers.contains_key("www-authenticate"));
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_passed_on_not_followed_and_rewritten_in_path_form() {
    let plan = Plan::new();
    let other = Upstream::http(&plan.pki.server(&plan.sandbox, &["other.test"]), &["http/1.1"], |_| {
        Reply::status(200)
    })
    .await;
    let port = other.port();
    let fixture = plan
        .start(move |seen| match seen.target.as_str() {
            "/own" => Reply::status(302).header("location", "https://api.up.test/there?x=1"),
            "/relative" => Reply::status(307).header("location", "/there"),
            _ => Reply::status(302).header("location", &format!("https://other.test:{port}/grab")),
        })
        .await;
    let client = fixture.checkout();
    client.get("/up/away").await.assert_status(302);
    let own = client.get("/up/own").await;
    let expected = format!("https://{}/up/there?x=1", client.authority());
    assert!([expected.as_str(), "/up/there?x=1"].contains(&own.header("location")), "{:?}", own.headers);
    assert_eq!(client.get("/up/relative").await.header("location"), "/up/there");
    assert_eq!((fixture.upstream.count(), other.connections()), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_goes_to_one_host_in_the_form_the_credential_says() {
    for (inject, header, expected) in [
        ("{bearer: {}}", "authorization", "Bearer KEY"),
        ("{header: {name: x-api-key}}", "x-api-key", "KEY"),
        ("{header: {name: authorization, prefix: \"Token \"}}", "authorization", "Token KEY"),
        ("{basic: {username: robot}}", "authorization", "Basic BASE64"),
        ("{cookie: {name: session}}", "cookie", "session=KEY"),
    ] {
        let fixture = Plan { inject, ..Plan::new() }.start(|_| Reply::status(200)).await;
        fixture.checkout().get("/up/x").await.assert_status(200);
        let basic = STANDARD.encode(format!("robot:{}", fixture.key));
        let expected = expected.replace("KEY", &fixture.key).replace("BASE64", &basic);
        fixture.sandbox.needle(&basic);
        assert_eq!(fixture.upstream.only().header(header), expected);
    }
    let fixture = Plan { inject: "{query: {name: key}}", ..Plan::new() }.start(|_| Reply::status(200)).await;
    fixture.checkout().get("/up/x?a=1&key=mine").await.assert_status(200);
    let seen = fixture.upstream.only();
    let encoded = fixture.key.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D");
    let forms = [format!("/x?a=1&key={encoded}"), format!("/x?a=1&key={}", encoded.replace('~', "%7E"))];
    assert!(forms.contains(&seen.target), "{}", seen.target);
    assert!(seen.headers.get("authorization").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_looks_like_a_reference_is_sent_as_it_is() {
    let mut plan = Plan::new();
    plan.sandbox.input("keys/other", plan.sandbox.canary("other"));
    plan.key = format!("{}${{HOME}}{{{{files:other}}}}$(id)%24%s$1\\u0041&amp;", plan.key);
    std::fs::write(plan.key_file(), &plan.key).unwrap();
    let fixture = plan.start(|_| Reply::status(200)).await;
    fixture.checkout().get("/up/x").await.assert_status(200);
    assert_eq!(fixture.upstream.only().header("authorization"), format!("Bearer {}", fixture.key));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_in_the_store_is_refused_by_the_provider_and_never_shown() {
    let plan = Plan::openai(CHAT_ONLY);
    std::fs::write(plan.key_file(), plan.sandbox.canary("wrong")).unwrap();
    let respond = provider::openai(&plan.key, 9, 2);
    let fixture = plan.start(respond).await;
    fixture
        .checkout()
        .post("/up/v1/chat/completions", &chat(50))
        .await
        .assert_refused(502, "credential_rejected");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_callers_travels_beside_the_injected_name() {
    let fixture =
        Plan { inject: "{header: {name: x-shop-token}}", ..Plan::new() }.start(|_| Reply::status(200)).await;
    let client = fixture.checkout();
    let mut request = client.request(Method::GET, "/up/x", "");
    for name in ["x-shop-token", "x_shop_token", "x-shop_token"] {
        request.headers_mut().append(name, "theirs".parse().unwrap());
    }
    client.send(Protocol::H1, request).await.unwrap().assert_status(200);
    let seen = fixture.upstream.only();
    assert!(!seen.everything().contains("theirs"), "{seen:#?}");
    assert_eq!(seen.header("x-shop-token"), fixture.key);

    let fixture =
        Plan { inject: "{query: {name: app_id}}", ..Plan::new() }.start(|_| Reply::status(200)).await;
    fixture
        .checkout()
        .get("/up/x?app_id=theirs&APP-ID=theirs&app%5Fi%64=theirs&a=1")
        .await
        .assert_status(200);
    let seen = fixture.upstream.only();
    assert!(!seen.everything().contains("theirs"), "{seen:#?}");
    assert!(seen.target.starts_with("/x?a=1&app_id="), "{}", seen.target);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_the_reason_phrase_stays_with_the_gateway() {
    let plan = Plan::new();
    let key = plan.key.clone();
    let upstream = Upstream::raw(&plan.server, &["http/1.1"], None, move |mut stream, _| {
        let answer = format!("HTTP/1.1 403 Invalid key {key}\r\ncontent-length: 0\r\n\r\n");
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { return };
                head.push(byte);
            }
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.flush().await;
        }
    })
    .await;
    let fixture = plan.start_with(upstream).await;
    let client = fixture.checkout();
    let raw = format!("GET /up/x HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", client.authority());
    let answer = client.raw(raw.as_bytes()).await;
    assert_eq!(answer.statuses(), [403]);
    let text = String::from_utf8_lossy(&answer.bytes);
    assert!(!text.contains(&fixture.key) && !text.contains("Invalid key"), "{text}");
}
