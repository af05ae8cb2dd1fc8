//! The caller's own token: passed on only where a grant says so, for that audience alone, and seen nowhere else.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::{Value, json};
use tollgate_tests::resources::{credential, destination, document, file_store};
use tollgate_tests::{Plan, Protocol, Reply, Sandbox, SecretKind, Upstream, ledger};

pub(super) const AUDIENCE: &str = "https://api.up.test";

/// A JWT of nobody's; it is looked for in every sink, whole and by its signature.
pub(super) fn jwt(sandbox: &Sandbox, claims: &Value) -> String {
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    let signature = part(sandbox.canary("signature"));
    let token =
        format!("{}.{}.{signature}", part(json!({"alg": "ES256"}).to_string()), part(claims.to_string()));
    sandbox.needle(&signature);
    sandbox.stands_for(&token, &[SecretKind::CallerToken]);
    token
}

pub(super) fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() + seconds
}

fn resources(plan: &Plan, port: u16) -> String {
    let grant = |name: &str, path: &str, rest: &str| {
        let spec = format!(
            "  callers: [{{spiffe: \"spiffe://prod.acme/ns/checkout/sa/*\"}}]\n  destination: up\n  \
             allow: {{methods: [GET, POST], paths: [\"{path}/**\"]}}\n{rest}"
        );
        document("Grant", name, spec)
    };
    let token = format!("  callerToken: {{audience: \"{AUDIENCE}\"}}\n");
    destination("up", "api.up.test", port, plan.pki.bundle(), "http")
        + &file_store("files", &plan.sandbox.inputs().join("keys"))
        + &credential("up-key", "up", "{store: files, path: up}", "{header: {name: x-api-key}}")
        + &grant("passes", "/own", &token)
        + &grant("passes-beside-a-key", "/both", &format!("{token}  credential: up-key\n"))
        + &grant("strips", "/none", "")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_token_leaves_for_the_audience_of_its_grant_alone_and_shows_nowhere() {
    for upstream in ["http/1.1", "h2"] {
        let plan = Plan::new();
        let upstream = Upstream::http(&plan.server, &[upstream], |_| Reply::status(200)).await;
        let settings = plan.settings.clone().resource("fixture.yaml", resources(&plan, upstream.port()));
        let mut fixture = Plan { settings, ..plan }.start_with(upstream).await;
        let client = fixture.checkout();
        let sandbox = &fixture.sandbox;
        let good = jwt(sandbox, &json!({"aud": AUDIENCE, "exp": in_seconds(600)}));
        let ask = async |protocol: Protocol, path: &str, tokens: &[&str]| {
            let mut request = client.request(Method::POST, path, "body");
            for token in tokens {
                request.headers_mut().append("authorization", format!("Bearer {token}").parse().unwrap());
            }
            request.headers_mut().insert("x-forwarded-authorization", good.parse().unwrap());
            client.send(protocol, request).await.unwrap()
        };
        for protocol in Protocol::BOTH {
            fixture.upstream.clear();
            ask(protocol, "/up/own/x", &[&good]).await.assert_status(200);
            assert_eq!(fixture.upstream.only().header("authorization"), format!("Bearer {good}"));
            fixture.upstream.clear();
            ask(protocol, "/up/both/x", &[&good]).await.assert_status(200);
            let seen = fixture.upstream.only();
            assert_eq!(seen.header("authorization"), format!("Bearer {good}"));
            assert_eq!(seen.header("x-api-key"), fixture.key);
            fixture.upstream.clear();
            ask(protocol, "/up/none/x", &[&good]).await.assert_status(200);
            assert!(!fixture.upstream.only().everything().contains(&good));
        }
        fixture.upstream.clear();
        let mesh = jwt(sandbox, &json!({"aud": "https://tollgate.test", "exp": in_seconds(600)}));
        let both = jwt(sandbox, &json!({"aud": [AUDIENCE, "https://tollgate.test"], "exp": in_seconds(600)}));
        let expired = jwt(sandbox, &json!({"aud": AUDIENCE, "exp": in_seconds(-1)}));
        let endless = jwt(sandbox, &json!({"aud": AUDIENCE}));
        let refused: [&[&str]; 7] =
            [&[], &[&mesh], &[&both], &[&expired], &[&endless], &[&good, &good], &["sk-no-token"]];
        for tokens in refused {
            for path in ["/up/own/x", "/up/both/x"] {
                ask(Protocol::H1, path, tokens).await.assert_refused(403, "caller_token");
            }
        }
        assert_eq!(fixture.upstream.count(), 0);
        assert!(fixture.gateway.stop().success());
        let reasons = ledger::column(&fixture.gateway, "reason");
        assert_eq!(reasons.iter().filter(|reason| *reason == "caller_token").count(), 2 * refused.len());
        fixture.sandbox.assert_swept();
    }
}
