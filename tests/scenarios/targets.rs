//! What is matched is what is sent: paths, authorities, methods.

use http::{HeaderName, Method};
use tollgate_tests::{Fixture, Plan, Protocol, Reply};

async fn fixture() -> Fixture {
    Plan::new().start(|seen| Reply::status(200).data(seen.target.clone())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ambiguous_path_is_400_and_goes_nowhere() {
    let fixture = fixture().await;
    let client = fixture.checkout();
    for path in [
        "/up/a/../b",
        "/up/./a",
        "/up/a/..",
        "/up/%2e%2e/b",
        "/up/%2E./b",
        "/up/.%2e/b",
        "/up//a",
        "/up/a//",
        "/up/a%5cb",
        "/up/a\\b",
        "/up/a%00b",
        "/up/a%0d%0ab",
        "/up/a%2",
        "/up/a%zz",
        "/up/a%2fb",
        "/up/a%2Fb",
        "/up/a%25b",
        "/up/a;x=1",
        "/up/..;/b",
        "/up/%252e%252e/b",
        "//evil.test/up/a",
        "/up/a%7f",
        "/up/%c0%ae%c0%ae/b",
        "/%75p/..%2fx",
    ] {
        let raw = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", client.authority());
        let answer = client.raw(raw.as_bytes()).await;
        assert_eq!(answer.statuses(), [400], "{path}: {}", String::from_utf8_lossy(&answer.bytes));
    }
    assert_eq!(fixture.upstream.count(), 0);
    let canonical = [
        ("/a%20b?x=%2e%2e", "/a%20b?x=%2e%2e"),
        ("/a.b/..c", "/a.b/..c"),
        ("/%41%e2%82%ac", "/A%E2%82%AC"),
        ("/a/", "/a/"),
    ];
    for (path, sent) in canonical {
        let answer = client.get(&format!("/up{path}")).await;
        answer.assert_status(200);
        assert_eq!(answer.text(), sent, "the bytes matched are the bytes sent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_authorities_must_agree() {
    let fixture = fixture().await;
    let client = fixture.checkout();
    let own = client.authority();
    for (raw, statuses) in [
        (format!("GET /up/x HTTP/1.1\r\nhost: {own}\r\nhost: evil.test\r\nconnection: close\r\n\r\n"), [400]),
        (format!("GET /up/x HTTP/1.1\r\nhost: {own}\r\nhost: {own}\r\nconnection: close\r\n\r\n"), [400]),
        (format!("GET https://{own}/up/x HTTP/1.1\r\nhost: evil.test\r\nconnection: close\r\n\r\n"), [400]),
        (format!("GET https://user@{own}/up/x HTTP/1.1\r\nhost: {own}\r\nconnection: close\r\n\r\n"), [400]),
        ("GET /up/x HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(), [400]),
        ("GET /up/x HTTP/1.1\r\nhost: \r\nconnection: close\r\n\r\n".to_owned(), [400]),
        (format!("GET /up/x HTTP/1.1\r\nhost: {own}, evil.test\r\nconnection: close\r\n\r\n"), [400]),
        (format!("GET /up/x HTTP/1.1\r\nhost: {own}@evil.test\r\nconnection: close\r\n\r\n"), [400]),
        ("GET /up/x HTTP/1.1\r\nhost: evil.test\r\nconnection: close\r\n\r\n".to_owned(), [421]),
    ] {
        let answer = client.raw(raw.as_bytes()).await;
        assert_eq!(answer.statuses(), statuses, "{raw}: {}", String::from_utf8_lossy(&answer.bytes));
    }
    assert_eq!(fixture.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_is_named_by_host_or_by_the_first_segment_under_our_own_name_only() {
    let fixture = fixture().await;
    let client = fixture.checkout();
    for protocol in Protocol::BOTH {
        let get = |client: &tollgate_tests::Client, path: &str| client.request(Method::GET, path, "");
        let port = fixture.upstream.port();
        for host in [format!("api.up.test:{port}"), format!("API.UP.TEST:{port}")] {
            let by_host = client.naming(&host);
            let answer = by_host.send(protocol, get(&by_host, "/x?y=1")).await.unwrap();
            assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "/x?y=1"), "{host}");
        }
        let by_host = client.naming(&format!("api.up.test:{port}"));
        let answer = by_host.send(protocol, get(&by_host, "/up/x")).await.unwrap();
        assert_eq!(answer.text(), "/up/x", "a path is a path when the host names the destination");
        for other in ["api.up.test:1", "xapi.up.test", "api.up.test.evil.test", "127.0.0.1"] {
            let stranger = client.naming(other);
            stranger
                .send(protocol, get(&stranger, "/up/x"))
                .await
                .unwrap()
                .assert_refused(421, "unknown_host");
        }
        let own = client.send(protocol, get(&client, "/nobody/x")).await.unwrap();
        assert_eq!(
            (own.status.as_u16(), own.header("x-tollgate-reason")),
            (421, "unknown_host"),
            "{}",
            own.text()
        );
        client
            .naming("tollgate.test")
            .send(protocol, get(&client.naming("tollgate.test"), "/up/x"))
            .await
            .unwrap()
            .assert_status(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_that_are_never_forwarded_whatever_a_grant_says() {
    let grant = "  allow: {methods: [\"*\"], paths: [/v1/things]}\n".to_owned();
    let fixture = Plan { grant, ..Plan::new() }.start(|_| Reply::status(200)).await;
    let client = fixture.checkout();
    for method in ["TRACE", "TRAcE", "TRACK", "CONNECT", "Connect"] {
        let target = if method == "CONNECT" { "evil.test:443" } else { "/up/v1/things" };
        let raw = format!(
            "{method} {target} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            client.authority()
        );
        let answer = client.raw(raw.as_bytes()).await;
        assert!(
            matches!(answer.statuses()[..], [400 | 403 | 405 | 501]),
            "{method}: {}",
            String::from_utf8_lossy(&answer.bytes)
        );
    }
    assert_eq!(fixture.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn overrides_of_the_method_decide_nothing() {
    let grant = "  allow: {methods: [GET], paths: [/v1/things]}\n".to_owned();
    let fixture =
        Plan { grant, ..Plan::new() }.start(|seen| Reply::status(200).data(seen.method.clone())).await;
    let client = fixture.checkout();
    for header in [
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
        "x-original-host",
    ] {
        let mut request = client.request(Method::GET, "/up/v1/things", "");
        request.headers_mut().insert(HeaderName::from_static(header), "DELETE".parse().unwrap());
        client.send(Protocol::H2, request).await.unwrap().assert_status(200);
        let seen = fixture.upstream.seen().pop().unwrap();
        assert!(seen.method == "GET" && !seen.everything().contains("DELETE"), "{seen:#?}");
    }
    let delete =
        client.send(Protocol::H1, client.request(Method::DELETE, "/up/v1/things", "")).await.unwrap();
    assert_eq!(delete.header("x-tollgate-reason"), "method_not_allowed", "{}", delete.text());
    client.get("/up/v1/things/1").await.assert_refused(403, "path_not_allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_host_binds_no_reusable_key_unless_its_owner_says_so() {
    let plan = Plan::new();
    let text = |spec: &str| {
        tollgate_tests::resources::document("Destination", "azure", spec)
            + &tollgate_tests::resources::file_store("files", &plan.sandbox.inputs().join("keys"))
            + &tollgate_tests::resources::credential(
                "key",
                "azure",
                "{store: files, path: up}",
                "{bearer: {}}",
            )
            + &tollgate_tests::resources::grant(
                "all",
                "spiffe://prod.acme/ns/checkout/sa/*",
                "azure",
                "key",
                "  allow: {methods: [GET], paths: [\"/**\"]}\n",
            )
    };
    for (hosts, accepted) in
        [("[\"*.openai.azure.com\"]", false), ("[\"*.up.test\"]", false), ("[api.up.test]", true)]
    {
        let settings = plan
            .settings
            .clone()
            .resource("fixture.yaml", text(&format!("  hosts: {hosts}\n  port: 443\n  dialect: http\n")));
        let gateway = tollgate_tests::Gateway::prepare(&plan.sandbox, &settings);
        let output = gateway.tollgate(&["check"]);
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), accepted, "{hosts}: {said}");
        assert!(accepted || said.contains("fixture.yaml:"), "{hosts}: {said}");
    }
}
