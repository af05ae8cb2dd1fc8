//! Sessions of AWS roles, made at STS: by a server that others wrote, and by one that can be told to fail.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::json;
use tollgate_tests::fixture::CHECKOUT;
use tollgate_tests::gateway::eventually;
use tollgate_tests::haproxy::Haproxy;
use tollgate_tests::moto::{Moto, REGION};
use tollgate_tests::resources::{credential, destination, file_store, grant};
use tollgate_tests::{Client, Fixture, Gateway, Plan, Reply, SecretKind, Seen, Upstream, needs, python};

const CALLERS: &str = "spiffe://prod.acme/ns/checkout/sa/*";
const ALLOW: &str = "  allow: {methods: [GET, HEAD, PUT, POST], paths: [\"/**\"]}\n";
const ACTIONS: &str = "  allow: {methods: [POST], paths: [/], actions: [GetCallerIdentity, \"List*\"]}\n";

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// How a session that is made like this is put on calls to these services.
fn minted(services: &str, mint: &str) -> String {
    format!(
        "{{sigv4: {{regions: [{REGION}], services: [{services}]}}}}\n  mint:\n    endpoint: {{destination: sts}}\n    {mint}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_key_assumes_a_role_whose_session_signs_what_an_sdk_sends() {
    needs!(Moto::installed(), Haproxy::installed());
    let plan = Plan::new();
    let moto = Moto::start(&plan.sandbox).await;
    let user = moto.user(&plan.sandbox, "tollgate", &["sts:AssumeRole"]);
    let role = moto.role("reader", &["s3:*", "sts:*", "bedrock:*"]);
    plan.sandbox.input("keys/aws", json!({"id": user.id, "key": user.secret}).to_string());
    let jwt = plan.sandbox.canary("jwt");
    plan.sandbox.input("keys/jwt", format!("{jwt}\n"));
    plan.sandbox.stands_for(&user.secret, &[SecretKind::File, SecretKind::SigV4, SecretKind::AwsAssumeRole]);
    plan.sandbox.stands_for(&jwt, &[SecretKind::File, SecretKind::SigV4, SecretKind::AwsWebIdentity]);
    let names = ["api.up.test", "web.up.test", "sts.test"];
    let front = Haproxy::front(&plan.sandbox, &plan.pki.server(&plan.sandbox, &names), moto.socket()).await;
    let assume = format!(
        "awsAssumeRole: {{accessKeyId: id, secretAccessKey: key, region: {REGION}, roleArn: \"{role}\", externalId: acme, duration: 15m}}"
    );
    let web = format!("awsWebIdentity: {{roleArn: \"{role}\", sessionName: agent-1}}");
    let ca = plan.pki.bundle();
    let resources = destination("up", names[0], front.port(), ca, "http")
        + &destination("web", names[1], front.port(), ca, "http")
        + &destination("sts", names[2], front.port(), ca, "http")
        + &file_store("files", &plan.sandbox.inputs().join("keys"))
        + &credential(
            "aws",
            "up",
            "{store: files, path: aws, fields: [id, key]}",
            &minted("s3, sts, bedrock", &assume),
        )
        + &credential("aws-web", "web", "{store: files, path: jwt}", &minted("sts", &web))
        + &grant("checkout-aws", CALLERS, "up", "aws", ALLOW)
        + &grant("checkout-actions", CALLERS, "up", "aws", ACTIONS)
        + &grant("checkout-web", CALLERS, "web", "aws-web", ACTIONS);
    let settings = plan.settings.clone().resource("fixture.yaml", resources);
    let mut gateway = Gateway::prepare(&plan.sandbox, &settings);
    let tested = gateway.tollgate(&["credential", "test", "--all"]);
    let said = String::from_utf8_lossy(&tested.stdout);
    assert!(tested.status.success() && said.matches("ok      mint").count() == 2, "{said}");
    gateway.launch().await;
    let identity = plan.prod.svid(&plan.sandbox, CHECKOUT);
    let client = Client::new(&plan.sandbox, gateway.address(), plan.pki.roots(), Some(identity));
    let whoami = async || {
        let body = "Action=GetCallerIdentity&Version=2011-06-15";
        let mut request = client.request(http::Method::POST, "/web/", body);
        let form = http::HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert("content-type", form);
        client.send(tollgate_tests::Protocol::H1, request).await.unwrap()
    };
    // Moto wants a signature of every call once it checks any, and this one has none.
    whoami().await.assert_status(200);
    moto.enforce(true);
    let known = whoami().await;
    assert!(known.text().contains(":assumed-role/reader/agent-1"), "{}", known.text());

    let argument = json!({"region": REGION});
    let said = python::run(&plan.sandbox, "aws_calls.py", &client, plan.pki.bundle(), &argument).await;
    assert!(said["identity"].as_str().unwrap().ends_with(":assumed-role/reader/tollgate-aws"), "{said}");
    let done = json!({"hashed": "ok", "unsigned": "ok", "trailer": "ok", "chunked": "ok"});
    assert_eq!(said["done"], done, "{said}");
    assert_eq!(said["same"].as_array().unwrap().len(), 4, "{said}");
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("tollgate_token_endpoint_up", &["endpoint=\"sts/\""]), 1.0);
    assert!(gateway.stop().success());
    plan.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_the_key_may_not_assume_is_named_by_its_code_and_no_call_leaves() {
    needs!(Moto::installed(), Haproxy::installed());
    let plan = Plan::new();
    let moto = Moto::start(&plan.sandbox).await;
    let user = moto.user(&plan.sandbox, "tollgate", &["s3:*"]);
    let role = moto.role("reader", &["s3:*"]);
    moto.enforce(true);
    let names = ["api.up.test", "sts.test"];
    let front = Haproxy::front(&plan.sandbox, &plan.pki.server(&plan.sandbox, &names), moto.socket()).await;
    let mint = format!(
        "awsAssumeRole: {{accessKeyId: id, secretAccessKey: key, region: {REGION}, roleArn: \"{role}\"}}"
    );
    for (secret, code) in [(user.secret.as_str(), "AccessDenied"), ("another", "SignatureDoesNotMatch")] {
        plan.sandbox.input("keys/aws", json!({"id": user.id, "key": secret}).to_string());
        let resources = destination("up", names[0], front.port(), plan.pki.bundle(), "http")
            + &destination("sts", names[1], front.port(), plan.pki.bundle(), "http")
            + &file_store("files", &plan.sandbox.inputs().join("keys"))
            + &credential("aws", "up", "{store: files, path: aws, fields: [id, key]}", &minted("s3", &mint))
            + &grant("checkout-aws", CALLERS, "up", "aws", ALLOW);
        let settings = plan.settings.clone().resource("fixture.yaml", resources);
        let tested = Gateway::prepare(&plan.sandbox, &settings).tollgate(&["credential", "test", "aws"]);
        let said = String::from_utf8_lossy(&tested.stdout);
        assert!(!tested.status.success() && said.contains("FAILED  mint") && said.contains(code), "{said}");
    }
    plan.sandbox.assert_swept();
}

/// A session that was made: the id of its key, its token, and when it ends, in milliseconds since 1970.
struct Made {
    id: String,
    token: String,
    ends: u64,
}

/// An STS whose sessions live for ten seconds.
async fn sts(plan: &Plan, made: &Arc<Mutex<Vec<Made>>>, is_down: &Arc<AtomicBool>) -> Upstream {
    let (made, is_down, sandbox) = (Arc::clone(made), Arc::clone(is_down), plan.sandbox.clone());
    let server = plan.pki.server(&plan.sandbox, &["sts.test"]);
    Upstream::http(&server, &["http/1.1"], move |_| {
        if is_down.load(Ordering::SeqCst) {
            return Reply::status(503);
        }
        let mut made = made.lock().unwrap();
        let id = format!("ASIA{:016}", made.len());
        let plain = |canary: String| canary.replace(|c: char| !c.is_ascii_alphanumeric(), "");
        let (secret, token) = (plain(sandbox.canary("secret")), plain(sandbox.canary("token")));
        sandbox.needle(&secret);
        sandbox.needle(&token);
        let answer = format!(
            "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
             <SessionToken>{token}</SessionToken><Expiration>2026-11-24T20:00:10Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
        );
        made.push(Made { id, token, ends: now() + 10_000 });
        Reply::status(200).header("date", "Tue, 24 Nov 2026 20:00:00 GMT").data(answer)
    })
    .await
}

/// The id of the key that signed it, and the token beside it.
fn signed_by(seen: &Seen) -> (String, String) {
    let authorization = seen.header("authorization").strip_prefix("AWS4-HMAC-SHA256 Credential=");
    let id = authorization.and_then(|rest| rest.split('/').next()).unwrap_or_default();
    (id.to_owned(), seen.header("x-amz-security-token").to_owned())
}

/// What a call was signed by, and when it arrived, in milliseconds since 1970.
type Arrival = ((String, String), u64);

/// Every call was signed by a session of the endpoint, with its token, before its end.
fn assert_none_expired(made: &[Made], arrivals: &[Arrival]) {
    for ((id, token), at) in arrivals {
        let session = made.iter().find(|made| made.id == *id).expect("a session of the endpoint");
        assert_eq!(session.token, *token);
        assert!(*at < session.ends, "a session signed {} ms after its end", at - session.ends);
    }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_made_once_per_life_and_with_sts_down_nothing_expired_signs() {
    let plan = Plan::new();
    let key = plan.sandbox.canary("key");
    plan.sandbox.input("keys/aws", json!({"id": "AKIAIOSFODNN7EXAMPLE", "key": key}).to_string());
    let (made, is_down) = (Arc::<Mutex<Vec<Made>>>::default(), Arc::<AtomicBool>::default());
    let sts = sts(&plan, &made, &is_down).await;
    let arrivals = Arc::<Mutex<Vec<Arrival>>>::default();
    let arrived = Arc::clone(&arrivals);
    let upstream = Upstream::http(&plan.server, &["http/1.1"], move |seen| {
        arrived.lock().unwrap().push((signed_by(seen), now()));
        Reply::status(200)
    })
    .await;
    let mint = "awsAssumeRole: {accessKeyId: id, secretAccessKey: key, region: eu-central-1, roleArn: \"arn:aws:iam::123456789012:role/reader\"}";
    let ca = plan.pki.bundle();
    let resources = destination("up", "api.up.test", upstream.port(), ca, "http")
        + &destination("sts", "sts.test", sts.port(), ca, "http")
        + &file_store("files", &plan.sandbox.inputs().join("keys"))
        + &credential("aws", "up", "{store: files, path: aws, fields: [id, key]}", &minted("s3", mint))
        + &grant("checkout-aws", CALLERS, "up", "aws", ALLOW);
    let settings = plan.settings.clone().resource("fixture.yaml", resources);
    let fixture: Fixture = Plan { settings, ..plan }.start_with(upstream).await;

    let (began, stop) = (now(), Arc::new(AtomicBool::new(false)));
    let loads: Vec<_> = (0..4).map(|_| tokio::spawn(load(fixture.checkout(), Arc::clone(&stop)))).collect();
    eventually("three sessions", || made.lock().unwrap().len() >= 3).await;
    stop.store(true, Ordering::SeqCst);
    let mut calls = 0;
    for load in loads {
        calls += load.await.expect("no call failed");
    }
    // Two thirds of nine seconds, less the jitter.
    let (count, lives) = (made.lock().unwrap().len() as u64, (now() - began) / 5000);
    assert!(
        count <= 1 + lives && calls > 100,
        "{count} sessions in {lives} times half their life, {calls} calls"
    );

    is_down.store(true, Ordering::SeqCst);
    fixture.assert_serves_until_it_ends().await;
    is_down.store(false, Ordering::SeqCst);
    fixture.assert_recovers().await;

    assert_none_expired(&made.lock().unwrap(), &arrivals.lock().unwrap());
    let asked = &sts.seen()[0];
    let form = String::from_utf8(asked.body.to_vec()).unwrap();
    assert!(form.starts_with("Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Freader&RoleSessionName=tollgate-aws"), "{form}");
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/"));
    assert_eq!(signed_by(asked).0, "AKIAIOSFODNN7EXAMPLE");
    fixture.sandbox.assert_swept();
}
