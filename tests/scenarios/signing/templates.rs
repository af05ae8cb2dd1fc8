//! Requests signed by a template, checked by Python's standard library.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};
use tollgate_tests::fixture::CHECKOUT;
use tollgate_tests::resources::{credential, destination, file_store, grant};
use tollgate_tests::upstream::Seen;
use tollgate_tests::{Client, Gateway, Plan, Protocol, Reply, SecretKind, Upstream, needs, python};

/// How four providers want requests signed, each below a path of its own.
const SCHEMES: [(&str, &str); 4] = [
    (
        "binance",
        r#"{hmac: {field: secret, message: "{query}{body}", headers: {X-MBX-APIKEY: "{field:id}"}, query: {timestamp: "{timestampMillis}", signature: "{signature}"}}}"#,
    ),
    (
        "coinbase",
        r#"{hmac: {field: secret, keyEncoding: base64, encoding: base64, message: "{timestamp}{method}{target}{body}", headers: {CB-ACCESS-KEY: "{field:id}", CB-ACCESS-SIGN: "{signature}", CB-ACCESS-TIMESTAMP: "{timestamp}"}}}"#,
    ),
    (
        "azure",
        r#"{hmac: {field: secret, keyEncoding: base64, encoding: base64, message: "{method}\n{target}\n{date};{host};{bodySha256Base64}", headers: {x-ms-date: "{date}", x-ms-content-sha256: "{bodySha256Base64}", authorization: "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature={signature}"}}}"#,
    ),
    (
        "stripe",
        r#"{hmac: {field: secret, message: "{timestamp}.{body}", headers: {stripe-signature: "t={timestamp},v1={signature}"}}}"#,
    ),
];

/// What the caller sends of its own under names that the scheme's signature has.
fn forged(scheme: &str) -> &'static [&'static str] {
    match scheme {
        "binance" => &["x-mbx-apikey", "x_mbx_apikey"],
        "coinbase" => &["cb-access-sign", "cb_access_timestamp", "cb-access-key"],
        "azure" => &["authorization", "x-ms-date", "x_ms_date", "x-ms-content-sha256"],
        _ => &["stripe-signature", "stripe_signature"],
    }
}

fn schemes(plan: &Plan, port: u16) -> (String, Value) {
    let mut resources = destination("up", "api.up.test", port, plan.pki.bundle(), "http")
        + &file_store("files", &plan.sandbox.inputs().join("keys"));
    let mut keys = json!({});
    for (scheme, inject) in SCHEMES {
        let key = match scheme {
            "coinbase" | "azure" => STANDARD.encode(plan.sandbox.canary(scheme)),
            _ => plan.sandbox.canary(scheme),
        };
        plan.sandbox.stands_for(&key, &[SecretKind::File, SecretKind::Hmac]);
        keys[scheme] = json!(key);
        let has_id = ["binance", "coinbase"].contains(&scheme);
        let id = has_id.then(|| plan.sandbox.canary("id"));
        plan.sandbox.input(&format!("keys/{scheme}"), json!({"id": id, "secret": key}).to_string());
        let fields = if has_id { "[id, secret]" } else { "[secret]" };
        let from = format!("{{store: files, path: {scheme}, fields: {fields}}}");
        let allow = format!("  allow: {{methods: [GET, POST], paths: [\"/{scheme}/**\"]}}\n");
        let callers = "spiffe://prod.acme/ns/checkout/sa/*";
        resources += &credential(scheme, "up", &from, inject);
        resources += &grant(scheme, callers, "up", scheme, &allow);
    }
    (resources, keys)
}

/// A request as the verifier reads it.
fn arrived(seen: &Seen) -> Value {
    let headers: serde_json::Map<String, Value> =
        seen.headers.keys().map(|name| (name.to_string(), json!(seen.header(name.as_str())))).collect();
    json!({
        "scheme": seen.target.split('/').nth(1),
        "method": seen.method,
        "target": seen.target,
        "authority": seen.authority,
        "headers": headers,
        "body": STANDARD.encode(&seen.body),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_signed_by_template_over_what_is_sent_and_pythons_hmac_agrees() {
    needs!(python::installed());
    for protocol in ["http/1.1", "h2"] {
        let plan = Plan::new();
        let upstream = Upstream::http(&plan.server, &[protocol], |seen| {
            let id = format!("{}{}", seen.header("cb-access-key"), seen.header("x-mbx-apikey"));
            Reply::status(200).data(format!("called by [{id}]"))
        })
        .await;
        let (resources, keys) = schemes(&plan, upstream.port());
        let resources = resources.replace("  dialect:", "  http: 2\n  dialect:");
        let settings = plan.settings.clone().resource("fixture.yaml", resources);
        let mut gateway = Gateway::start(&plan.sandbox, &settings).await;
        let identity = plan.prod.svid(&plan.sandbox, CHECKOUT);
        let client = Client::new(&plan.sandbox, gateway.address(), plan.pki.roots(), Some(identity));
        for (scheme, _) in SCHEMES {
            for (method, body) in [(Method::GET, ""), (Method::POST, "symbol=LTCBTC&side=BUY")] {
                let path = format!("/up/{scheme}/order%20x?a=1&b=%C3%BC&signature=00&timestamp=1");
                let mut request = client.request(method, &path, body);
                for &name in forged(scheme) {
                    request.headers_mut().insert(name, "0".parse().unwrap());
                }
                let answer = client.send(Protocol::H1, request).await.unwrap();
                answer.assert_status(200);
                let text = answer.text();
                let masked = text.trim_start_matches("called by [").trim_end_matches(']');
                let has_id = ["binance", "coinbase"].contains(&scheme);
                assert!(masked.bytes().all(|byte| byte == b'*') && masked.is_empty() != has_id, "{text}");
            }
        }
        let seen = upstream.seen();
        assert_eq!(seen.len(), 2 * SCHEMES.len());
        for seen in &seen {
            let forged = seen.headers.iter().find(|(_, value)| *value == "0");
            assert_eq!(forged, None, "{seen:#?}");
        }
        assert!(seen.iter().all(|seen| seen.target.contains("/order%20x?a=1&b=%C3%BC")), "{seen:#?}");
        let argument = json!({
            "keys": keys,
            "wrong": STANDARD.encode("another key"),
            "requests": seen.iter().map(arrived).collect::<Vec<_>>(),
        });
        let said = python::run(&plan.sandbox, "hmac_verify.py", &client, plan.pki.bundle(), &argument).await;
        assert_eq!(said, json!({"right": vec![true; 8], "wrong": vec![false; 8]}));
        assert!(gateway.stop().success());
        plan.sandbox.assert_swept();
    }
}
