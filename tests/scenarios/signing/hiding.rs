//! What of a signing key, of a session and of the caller's own signature may not be seen on either side.

use http::{HeaderValue, Method, header};
use serde_json::json;
use tollgate_tests::resources::{credential, destination, file_store, grant};
use tollgate_tests::{Plan, Protocol, Reply, SecretKind, Seen, Upstream};

use super::{CALLERS, SIGNED};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_sent_has_the_signing_key_or_a_signature_of_the_callers() {
    let plan = Plan::new();
    let key = plan.sandbox.canary("aws");
    plan.sandbox.stands_for(&key, &[SecretKind::File, SecretKind::SigV4]);
    plan.sandbox.input("keys/aws", json!({"id": "AKIAOURS", "key": key}).to_string());
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200)).await;
    let allow = "  allow: {methods: [GET], paths: [\"/**\"]}\n";
    let resources = destination("up", "api.up.test", upstream.port(), plan.pki.bundle(), "http")
        + &file_store("files", &plan.sandbox.inputs().join("keys"))
        + &credential("aws", "up", "{store: files, path: aws, fields: [id, key]}", SIGNED)
        + &grant("checkout-aws", CALLERS, "up", "aws", allow);
    let settings = plan.settings.clone().resource("fixture.yaml", resources);
    let mut fixture = Plan { settings, ..plan }.start_with(upstream).await;
    let client = fixture.checkout();
    let mut request = client.request(Method::GET, "/up/bucket/object?x=1", "");
    for (name, value) in [
        (
            "authorization",
            "AWS4-HMAC-SHA256 Credential=AKIATHEIRS/20260101/eu-central-1/s3/aws4_request, SignedHeaders=host, Signature=0f0f0f",
        ),
        ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
        ("x-amz-date", "20260101T000000Z"),
        ("x-amz-security-token", "theirs"),
        ("x-forwarded-for", "10.9.8.7"),
    ] {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    client.send(Protocol::H1, request).await.unwrap().assert_status(200);
    let seen = fixture.upstream.only();
    let (sent, signed) = (seen.everything(), seen.header("authorization"));
    assert!(
        signed.starts_with("AWS4-HMAC-SHA256 Credential=AKIAOURS/") && !signed.contains("20260101"),
        "{sent}"
    );
    assert!(signed.contains("/eu-central-1/s3/aws4_request"), "{signed}");
    assert!(
        signed.contains("host;") && seen.authority.starts_with("api.up.test"),
        "the host of the provider: {sent}"
    );
    for theirs in [key.as_str(), "AKIATHEIRS", "theirs", "0f0f0f", "10.9.8.7", "x-forwarded-for"] {
        assert!(!sent.contains(theirs), "{theirs}: {sent}");
    }
    assert!(fixture.gateway.stop().success());
    fixture.sandbox.assert_swept();
}

const SESSION: &str = "{sigv4: {accessKeyId: id, secretAccessKey: key, sessionToken: token, regions: [eu-central-1], services: [s3]}}";

/// Names the session token as S3 does in its errors, or answers with what is stored.
fn storage(seen: &Seen) -> Reply {
    let named = format!("<Error><Token-0>{}</Token-0></Error>", seen.header("x-amz-security-token"));
    match seen.target.as_str() {
        "/denied" => Reply::status(403).header("content-type", "application/xml").data(named),
        "/echo" => Reply::status(200).data(named),
        "/hidden" => Reply::status(400).header("content-encoding", "gzip").data("\u{1f}compressed"),
        "/stored.gz" => Reply::status(200).header("content-encoding", "gzip").data("\u{1f}compressed"),
        "/part" if seen.header("range") == "bytes=2-5" => {
            Reply::status(206).header("content-range", "bytes 2-5/8").data("2345")
        }
        _ => Reply::status(404),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_token_is_masked_in_bodies_and_stored_objects_come_as_they_are() {
    let mut plan = Plan::new();
    let token = plan.sandbox.canary("session");
    let stored = json!({"id": "AKIAIOSFODNN7EXAMPLE", "key": plan.sandbox.canary("aws"), "token": token});
    plan.sandbox.input("keys/aws", stored.to_string());
    let upstream = Upstream::http(&plan.server, &["http/1.1"], storage).await;
    let resources = destination("up", "api.up.test", upstream.port(), plan.pki.bundle(), "http")
        + &file_store("files", &plan.sandbox.inputs().join("keys"))
        + &credential("aws", "up", "{store: files, path: aws, fields: [id, key, token]}", SESSION)
        + &grant("checkout-aws", CALLERS, "up", "aws", &plan.grant);
    plan.settings = plan.settings.resource("fixture.yaml", resources);
    let fixture = plan.start_with(upstream).await;
    let client = fixture.checkout();
    for (path, status) in [("/up/denied", 403), ("/up/echo", 200)] {
        let answer = client.get(path).await;
        answer.assert_status(status);
        let masked = "*".repeat(token.len());
        assert_eq!(answer.text(), format!("<Error><Token-0>{masked}</Token-0></Error>"), "{path}");
    }
    let object = client.get("/up/stored.gz").await;
    object.assert_status(200);
    assert_eq!((object.text().as_str(), object.header("content-encoding")), ("\u{1f}compressed", "gzip"));
    let mut part = client.request(Method::GET, "/up/part", "");
    part.headers_mut().insert(header::RANGE, HeaderValue::from_static("bytes=2-5"));
    let part = client.send(Protocol::H1, part).await.unwrap();
    assert_eq!((part.status.as_u16(), part.text().as_str()), (206, "2345"));
    client.get("/up/hidden").await.assert_refused(502, "encoded_answer");
    assert!(fixture.upstream.seen().iter().all(|seen| seen.header("x-amz-security-token") == token));
}
