//! Signed requests, checked by what others wrote.

mod hiding;
mod judge;
mod templates;

use std::fs;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tollgate_tests::client::Body;
use tollgate_tests::fixture::CHECKOUT;
use tollgate_tests::gateway::eventually;
use tollgate_tests::haproxy::Haproxy;
use tollgate_tests::moto::{Moto, REGION};
use tollgate_tests::resources::{credential, destination, file_store, grant};
use tollgate_tests::{
    Answer, Client, Fixture, Gateway, Plan, Protocol, Reply, SecretKind, Upstream, ledger, needs, python,
};

use self::judge::Judge;

const SIGNED: &str =
    "{sigv4: {accessKeyId: id, secretAccessKey: key, regions: [eu-central-1], services: [s3, sts, bedrock]}}";
const CALLERS: &str = "spiffe://prod.acme/ns/checkout/sa/*";
/// What names its action does so at the root.
const ACTIONS: &str =
    "  allow: {methods: [GET, POST], paths: [/, \"/service/**\"], actions: [GetCallerIdentity, \"List*\"]}\n";
/// What a caller's own signature looks like.
const NOBODY: &str = "AWS4-HMAC-SHA256 Credential=AKIAWRONGWRONGWRONG0/20260101/eu-central-1/s3/aws4_request, SignedHeaders=host, Signature=0";

#[tokio::test(flavor = "multi_thread")]
async fn an_sdk_with_a_wrong_key_is_signed_for_in_every_payload_form() {
    needs!(Moto::installed(), Haproxy::installed());
    let plan = Plan::new();
    let moto = Moto::start(&plan.sandbox).await;
    let user = moto.user(&plan.sandbox, "tollgate", &["s3:*", "sts:*", "bedrock:*"]);
    plan.sandbox.stands_for(&user.secret, &[SecretKind::File, SecretKind::SigV4]);
    plan.sandbox.input("keys/aws", json!({"id": user.id, "key": user.secret}).to_string());
    let front = Haproxy::front(&plan.sandbox, &plan.server, moto.socket()).await;
    let allow = "  allow: {methods: [GET, HEAD, PUT, POST], paths: [\"/**\"]}\n";
    let resources = destination("up", "api.up.test", front.port(), plan.pki.bundle(), "http")
        + &file_store("files", &plan.sandbox.inputs().join("keys"))
        + &credential("aws", "up", "{store: files, path: aws, fields: [id, key]}", SIGNED)
        + &grant("checkout-aws", CALLERS, "up", "aws", allow)
        + &grant("checkout-actions", CALLERS, "up", "aws", ACTIONS);
    let settings = plan.settings.clone().resource("fixture.yaml", resources);
    moto.enforce(true);
    let mut gateway = Gateway::start(&plan.sandbox, &settings).await;
    let identity = plan.prod.svid(&plan.sandbox, CHECKOUT);
    let client = Client::new(&plan.sandbox, gateway.address(), plan.pki.roots(), Some(identity));
    let said =
        python::run(&plan.sandbox, "aws_calls.py", &client, plan.pki.bundle(), &json!({"region": REGION}))
            .await;
    assert_eq!(
        said["done"],
        json!({"hashed": "ok", "unsigned": "ok", "trailer": "ok", "chunked": "ok"}),
        "{said}"
    );
    assert_eq!(
        said["same"],
        json!(["chunked", "hashed/ü +&=~.txt", "trailer/ü +&=~.txt", "unsigned/ü +&=~.txt"]),
        "{said}"
    );
    assert!(said["identity"].as_str().unwrap().ends_with("user/tollgate"), "{said}");
    assert_eq!(said["model"], "ResourceNotFoundException", "signed, and not there: {said}");
    assert_eq!(said["foreign"], "no_grant", "a service that is not listed: {said}");
    assert!(gateway.stop().success());
    plan.sandbox.assert_swept();
}

/// The fixture, whose key signs for S3.
async fn signed_stand(plan: Plan, upstream: Upstream, id: &str, secret: &str) -> Fixture {
    plan.sandbox.stands_for(secret, &[SecretKind::File, SecretKind::SigV4]);
    plan.sandbox.input("keys/aws", json!({"id": id, "key": secret}).to_string());
    let allow = "  allow: {methods: [GET, PUT, POST], paths: [\"/**\"]}\n";
    let resources = destination("up", "api.up.test", upstream.port(), plan.pki.bundle(), "http")
        + &file_store("files", &plan.sandbox.inputs().join("keys"))
        + &credential("aws", "up", "{store: files, path: aws, fields: [id, key]}", SIGNED)
        + &grant("checkout-aws", CALLERS, "up", "aws", allow)
        + &grant("checkout-actions", CALLERS, "up", "aws", ACTIONS);
    let settings = plan.settings.clone().resource("fixture.yaml", resources);
    Plan { settings, ..plan }.start_with(upstream).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_payload_form_is_accepted_by_a_judge_that_refuses_a_tampered_chunk() {
    needs!(python::installed());
    let plan = Plan::new();
    let (id, secret) = ("AKIAIOSFODNN7EXAMPLE", plan.sandbox.canary("aws"));
    let judge = Judge::new(id, &secret);
    let server = plan.pki.server(&plan.sandbox, &["api.up.test", "localhost"]);
    let upstream = judge.serve(&server).await;
    let port = upstream.port();
    let fixture = signed_stand(plan, upstream, id, &secret).await;
    let argument =
        json!({"region": REGION, "judge": format!("localhost:{port}"), "id": id, "secret": secret});
    let client = fixture.checkout();
    let said = python::run(&fixture.sandbox, "aws_judged.py", &client, fixture.pki.bundle(), &argument).await;
    let forms = json!({"hashed": "ok", "unsigned": "ok", "trailer": "ok", "chunked": "ok", "trailed": "ok"});
    assert_eq!(said["done"], forms, "{said}");
    let judged = &said["judged"];
    assert_eq!((&judged["right"], &judged["right, trailed"]), (&json!("ok"), &json!("ok")), "{said}");
    for wrong in ["nobody", "signature", "data"] {
        assert!(judged[wrong].as_str().is_some_and(|word| word != "ok"), "{wrong}: {said}");
    }
    for wrong in ["signature", "data"] {
        assert!(judged[wrong].as_str().unwrap().contains("SignatureMismatch"), "{wrong}: {said}");
    }
    let data = b"tollgate ".repeat(20000);
    let taken = judge.taken();
    assert_eq!(taken.len(), 7, "{:?}", taken.keys());
    assert!(taken.values().all(|body| *body == data));
    fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_whose_keys_are_no_tidy_paths_are_signed_and_stored_by_their_very_names() {
    needs!(python::installed());
    let plan = Plan::new();
    let (id, secret) = ("AKIAIOSFODNN7EXAMPLE", plan.sandbox.canary("aws"));
    let judge = Judge::new(id, &secret);
    let server = plan.pki.server(&plan.sandbox, &["api.up.test", "localhost"]);
    let upstream = judge.serve(&server).await;
    plan.sandbox.stands_for(&secret, &[SecretKind::File, SecretKind::SigV4]);
    plan.sandbox.input("keys/aws", json!({"id": id, "key": secret}).to_string());
    let literal = destination("up", "api.up.test", upstream.port(), plan.pki.bundle(), "http")
        .replace("  dialect: http\n", "  encodedPath: [\"//\", \"..\", \"%09\"]\n");
    let allow = "  allow: {methods: [PUT], paths: [\"/tollgate/**\"]}\n";
    let resources = literal
        + &file_store("files", &plan.sandbox.inputs().join("keys"))
        + &credential("aws", "up", "{store: files, path: aws, fields: [id, key]}", SIGNED)
        + &grant("checkout-aws", CALLERS, "up", "aws", allow);
    let settings = plan.settings.clone().resource("fixture.yaml", resources);
    let fixture = Plan { settings, ..plan }.start_with(upstream).await;
    let keys = ["a//b", "/lead", "end//", ".", "a/../b", "a/./b", "a\tb", "..a/b.."];
    let argument = json!({"region": REGION, "keys": keys});
    let client = fixture.checkout();
    let said =
        python::run(&fixture.sandbox, "aws_odd_keys.py", &client, fixture.pki.bundle(), &argument).await;
    for key in keys {
        assert_eq!(said["done"][key], "ok", "{key:?}: {said}");
        assert_eq!(
            judge.taken().get(key).map(Vec::as_slice),
            Some(key.as_bytes()),
            "{key:?}: {:?}",
            judge.taken()
        );
    }
    // Another bucket, if somebody resolved it.
    let request = |path: &str| client.request(Method::PUT, path, Bytes::new());
    for (path, status) in
        [("/up/tollgate/../other/x", 403), ("/up/../other/x", 400), ("/up/tollgate/a%2F..", 400)]
    {
        let answer = client.send(Protocol::H1, request(path)).await.expect("an answer");
        assert_eq!(answer.status, status, "{path}");
    }
    fixture.sandbox.assert_swept();
}

/// A request whose body is announced to be in signed chunks.
fn chunked(client: &Client, length: u64, decoded: u64, body: Body) -> Request<Body> {
    let mut request = client.request(Method::PUT, "/up/bucket/key", Bytes::new());
    for (name, value) in [
        ("authorization", NOBODY),
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        ("x-amz-decoded-content-length", &decoded.to_string()),
        ("content-length", &length.to_string()),
        ("content-encoding", "aws-chunked"),
    ] {
        let (name, value) = (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        request.headers_mut().insert(name, value);
    }
    request.map(|_| body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_in_the_chunks_it_announces_is_400_and_recorded_so() {
    for spoken in ["http/1.1", "h2"] {
        let plan = Plan::new();
        let secret = plan.sandbox.canary("aws");
        let upstream = Upstream::http(&plan.server, &[spoken], |_| Reply::status(200)).await;
        let fixture = signed_stand(plan, upstream, "AKIAIOSFODNN7EXAMPLE", &secret).await;
        let client = fixture.checkout();
        let zeros = "0".repeat(64);
        let good = format!("4;chunk-signature={zeros}\r\nabcd\r\n");
        for rest in [
            "nonsense without a chunk\r\n".to_owned(),
            format!("5;chunk-signature={zeros}\r\nabcdefgh\r\n"),
            format!("4;chunk-signature={zeros}\r\nab"),
        ] {
            for protocol in Protocol::BOTH {
                let body = good.clone() + &rest;
                let length = body.len() as u64;
                let request = chunked(&client, length, 8, tollgate_tests::client::full(body));
                let answer = client.send(protocol, request).await.unwrap();
                answer.assert_refused(400, "body_invalid");
            }
        }
        let recorded = || ledger::records(&fixture.gateway);
        eventually("every refusal is written", || recorded().len() == 6).await;
        for record in &recorded() {
            let said = ["reason", "outcome"].map(|name| record[name].as_str().unwrap_or_default());
            assert_eq!(said, ["body_invalid", "refused"], "{spoken}: {record}");
        }
        assert!(fixture.upstream.seen().is_empty(), "{spoken}: no whole request arrived");
        fixture.sandbox.assert_swept();
    }
}

/// The most memory that a process has had at once, in KiB.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// An upstream that counts the bytes of bodies and keeps none.
async fn counting(plan: &Plan, counted: &Arc<AtomicU64>) -> Upstream {
    let counted = Arc::clone(counted);
    Upstream::raw(&plan.server, &["http/1.1"], None, move |stream, _| {
        let counted = Arc::clone(&counted);
        let service = service_fn(move |request: Request<Incoming>| {
            let counted = Arc::clone(&counted);
            async move {
                let mut body = request.into_body();
                while let Some(frame) = body.frame().await {
                    let length = frame?.data_ref().map_or(0, Bytes::len);
                    counted.fetch_add(length as u64, Ordering::SeqCst);
                }
                Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
            }
        });
        async move {
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await
}

/// Sends this many chunks of 64 KiB, made as they leave; gives the length of the whole body.
async fn send_chunks(client: &Client, count: u64) -> u64 {
    const CHUNK: usize = 64 << 10;
    let zeros = "0".repeat(64);
    let data = Bytes::from(vec![b'a'; CHUNK]);
    let head = Bytes::from(format!("{CHUNK:x};chunk-signature={zeros}\r\n"));
    let last = Bytes::from(format!("0;chunk-signature={zeros}\r\n\r\n"));
    let length = count * (head.len() + CHUNK + 2) as u64 + last.len() as u64;
    let (mut sender, body) = Channel::<Bytes, tollgate_tests::client::Failure>::new(4);
    let request = chunked(client, length, count * CHUNK as u64, body.boxed());
    let client = client.clone();
    let answer = tokio::spawn(async move { client.send(Protocol::H1, request).await });
    for _ in 0..count {
        for part in [head.clone(), data.clone(), Bytes::from_static(b"\r\n")] {
            sender.send_data(part).await.unwrap();
        }
    }
    sender.send_data(last).await.unwrap();
    drop(sender);
    answer.await.unwrap().unwrap().assert_status(200);
    length
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");
/// With a digest a body would stream if it could not be a form.
const DIGEST: (&str, &str) =
    ("x-amz-content-sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");

async fn signed_for_sts(
    client: &Client,
    target: &str,
    headers: &[(&'static str, &str)],
    body: Bytes,
) -> Answer {
    let scope = NOBODY.replace("/s3/", "/sts/");
    let mut request = client.request(Method::POST, target, body);
    for (name, value) in headers.iter().chain(&[("authorization", &*scope)]) {
        request.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
    }
    client.send(Protocol::H1, request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_no_grant_lists_is_403_wherever_it_is_named() {
    let plan = Plan::new();
    let secret = plan.sandbox.canary("aws");
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200)).await;
    let fixture = signed_stand(plan, upstream, "AKIAIOSFODNN7EXAMPLE", &secret).await;
    let client = fixture.checkout();
    let send = async |target: &str, headers: &[(&'static str, &str)], body: &'static str| {
        signed_for_sts(&client, target, headers, Bytes::from(body)).await
    };
    let (form, digest) = ([FORM], DIGEST);
    let target = |action| ("x-amz-target", action);
    send("/up/", &form, "Action=GetCallerIdentity&Version=1").await.assert_status(200);
    send("/up/", &[target("Logs_20140328.ListTagsForResource")], "{}").await.assert_status(200);
    send("/up/?Action=ListUsers", &[], "").await.assert_status(200);
    send("/up/service/S_1/operation/ListMetrics", &[("content-type", "application/cbor")], "")
        .await
        .assert_status(200);
    let before = fixture.upstream.count();
    for (path, headers, body) in [
        ("/up/", &form[..], "Action=AssumeRole"),
        ("/up/", &form, "Action=GetCallerIdentity&Action=AssumeRole"),
        ("/up/", &form, "Version=1&%41ction=AssumeRole"),
        ("/up/", &[form[0], digest], "Action=AssumeRole"),
        ("/up/", &[digest], "Action=AssumeRole"),
        ("/up/", &[("content-type", "application/json"), form[0]], "Action=AssumeRole"),
        ("/up/", &[form[0], target("Logs_20140328.DeleteLogGroup")], "Action=GetCallerIdentity"),
        ("/up/?Action=AssumeRole", &form, "Action=GetCallerIdentity"),
        ("/up/?Action=AssumeRole", &[], ""),
        ("/up/?Version=1;Action=AssumeRole", &form, "Action=GetCallerIdentity"),
        ("/up/", &form, "Action=GetCallerIdentity;Action=AssumeRole"),
        ("/up/", &[target("ListUsers,A.DeleteUser")], "{}"),
        ("/up/service/S_1/operation/DeleteAlarms", &[], ""),
        ("/up/service/S_1/operation/DeleteAlarms?Action=ListUsers", &[target("A.ListUsers")], ""),
        // The grant for every other path lists none.
        ("/up/elsewhere", &form, "Action=GetCallerIdentity"),
        ("/up/v1/service/S_1/operation/ListMetrics", &[], ""),
    ] {
        let refused = send(path, headers, body).await;
        assert_eq!(refused.header("x-tollgate-reason"), "action_not_allowed", "{path} {headers:?} {body}");
        refused.assert_refused(403, "action_not_allowed");
    }
    assert_eq!(fixture.upstream.count(), before);
    fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_whose_actions_only_its_service_could_read_is_refused() {
    let plan = Plan::new();
    let secret = plan.sandbox.canary("aws");
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200)).await;
    let fixture = signed_stand(plan, upstream, "AKIAIOSFODNN7EXAMPLE", &secret).await;
    let client = fixture.checkout();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"Action=AssumeRole").unwrap();
    let gzip = Bytes::from(gzip.finish().unwrap());
    let encoded = ("content-encoding", "gzip");
    let listed = ("x-amz-target", "A.ListUsers");
    let many = Bytes::from("Action=ListUsers&".repeat(17));
    let long = |length: usize| Bytes::from(format!("Action=ListUsers&x={}", "x".repeat(length - 19)));
    signed_for_sts(&client, "/up/", &[FORM], long(1 << 20)).await.assert_status(200);
    let before = fixture.upstream.count();
    for (path, headers, body, (status, reason)) in [
        ("/up/", &[FORM, encoded][..], &gzip, (415, "unsupported_encoding")),
        ("/up/?Action=ListUsers", &[FORM, encoded], &gzip, (415, "unsupported_encoding")),
        ("/up/", &[encoded, DIGEST, listed], &gzip, (415, "unsupported_encoding")),
        // The grant for this path lists none.
        ("/up/elsewhere", &[FORM, encoded], &gzip, (415, "unsupported_encoding")),
        (
            "/up/?Action=ListUsers",
            &[("content-type", "text/plain; charset=ibm037")],
            &gzip,
            (415, "unsupported_media_type"),
        ),
        ("/up/", &[FORM], &many, (400, "ambiguous_body")),
        ("/up/", &[FORM], &long((1 << 20) + 1), (413, "body_too_large")),
    ] {
        let refused = signed_for_sts(&client, path, headers, body.clone()).await;
        assert_eq!(refused.header("x-tollgate-reason"), reason, "{path} {headers:?}");
        refused.assert_refused(status, reason);
    }
    assert_eq!(fixture.upstream.count(), before);
    // What says that it is no form, or is an object of S3, comes as it is.
    let json = [("content-type", "application/json"), encoded, listed];
    signed_for_sts(&client, "/up/", &json, gzip.clone()).await.assert_status(200);
    let mut request = client.request(Method::PUT, "/up/bucket/service/x/operation/y.gz", gzip);
    for (name, value) in [("authorization", NOBODY), encoded] {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    client.send(Protocol::H1, request).await.unwrap().assert_status(200);
    fixture.sandbox.assert_swept();
}

/// 256 MiB, or as many as `TOLLGATE_TEST_UPLOAD_MIB` says.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_upload_in_signed_chunks_passes_through_little_memory() {
    let plan = Plan::new();
    let secret = plan.sandbox.canary("aws");
    let counted = Arc::<AtomicU64>::default();
    let upstream = counting(&plan, &counted).await;
    let fixture = signed_stand(plan, upstream, "AKIAIOSFODNN7EXAMPLE", &secret).await;
    let client = fixture.checkout();
    let mut sent = send_chunks(&client, 64).await;
    let before = peak(fixture.gateway.pid());
    let mebibytes = std::env::var("TOLLGATE_TEST_UPLOAD_MIB").map_or(256, |text| text.parse().unwrap());
    sent += send_chunks(&client, mebibytes * 16).await;
    assert_eq!(counted.load(Ordering::SeqCst), sent);
    let grown = peak(fixture.gateway.pid()) - before;
    println!("{mebibytes} MiB in signed chunks: the gateway grew by {grown} KiB");
    assert!(grown < 32 << 10, "the gateway grew by {grown} KiB");
    fixture.sandbox.assert_swept();
}
