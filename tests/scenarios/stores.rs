//! Stores besides the vault: AWS Secrets Manager by every way to log in to it, and the process's environment.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tollgate_tests::gateway::{eventually, field};
use tollgate_tests::ledger::column;
use tollgate_tests::moto::{AccessKey, Moto, REGION};
use tollgate_tests::resources::{credential, destination, document, grant};
use tollgate_tests::{Client, Fixture, Gateway, Plan, Protocol, Reply, SecretKind, Upstream, needs};

const READ: &str = "secretsmanager:GetSecretValue";
const FIRST: &str = "0f1e2d3c-0000-4000-8000-000000000001";
const SECOND: &str = "0f1e2d3c-0000-4000-8000-000000000002";

/// A store at `moto`; `rest` are further members in YAML flow form.
fn store(name: &str, moto: &Moto, rest: &str) -> String {
    let (address, region) = (moto.address(), REGION);
    document(
        "SecretStore",
        name,
        format_args!("  aws: {{region: {region}, endpoint: \"{address}\"{rest}}}\n"),
    )
}

/// A credential that is put on calls of `/up/NAME`.
fn key(name: &str, from: &str) -> String {
    let allow = format!("  allow: {{methods: [GET], paths: [/{name}]}}\n");
    credential(name, "up", &format!("{{{from}}}\n  refresh: 1s"), "{bearer: {}}")
        + &grant(name, "spiffe://prod.acme/ns/checkout/sa/*", "up", name, &allow)
}

/// A gateway whose own identity is only what `variables` say, before an upstream that takes every key.
async fn fixture(mut plan: Plan, resources: &str, variables: &[(&str, String)]) -> Fixture {
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200)).await;
    let text = destination("up", "api.up.test", upstream.port(), plan.pki.bundle(), "http") + resources;
    let nowhere = plan.sandbox.inputs().join("no-such-file").display().to_string();
    let own = [
        ("AWS_CONFIG_FILE", nowhere.clone()),
        ("AWS_SHARED_CREDENTIALS_FILE", nowhere),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ];
    let variables = own.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), value.clone()));
    plan.settings.environment.extend(variables);
    plan.settings = plan.settings.resource("fixture.yaml", text);
    plan.start_with(upstream).await
}

/// The key that a call of `/up/NAME` arrived with.
async fn sent(fixture: &Fixture, client: &Client, name: &str) -> String {
    fixture.upstream.clear();
    client.get(&format!("/up/{name}")).await.assert_status(200);
    fixture.upstream.only().header("authorization").trim_start_matches("Bearer ").to_owned()
}

/// Whether the log says this of a store or a secret.
fn complained(gateway: &Gateway, about: &str, error: &str) -> bool {
    let says = |line: &serde_json::Value| {
        let of = |name| field(line, name) == about;
        let text = field(line, "error").as_str().unwrap_or_default();
        (of("store") || of("secret")) && text.contains(error)
    };
    gateway.log().iter().any(says)
}

/// A store for each way to log in.
fn logins(moto: &Moto, file: &Path, ca: &Path, role: &str) -> String {
    let (file, ca) = (file.display(), ca.display());
    store("keys", moto, &format!(", credentialsFile: {file}"))
        + &store("poor", moto, &format!(", credentialsFile: {file}, profile: poor"))
        + &store("wrong", moto, &format!(", credentialsFile: {file}, profile: wrong"))
        + &store("chain", moto, &format!(", caFile: {ca}"))
        + &store("role", moto, &format!(", caFile: {ca}, roleArn: \"{role}\""))
}

/// A credential for each way to name a secret, and for each that cannot be had.
fn references(arn: &str) -> String {
    key("name", "store: keys, path: llm/openai, field: api_key")
        + &key("arn", &format!("store: keys, path: \"{arn}\", field: api_key"))
        + &key("previous", "store: keys, path: llm/openai, field: api_key, stage: AWSPREVIOUS")
        + &key("pinned", &format!("store: keys, path: llm/openai, field: api_key, versionId: {FIRST}"))
        + &key("plain", "store: keys, path: llm/plain")
        + &key("bytes", "store: keys, path: llm/bytes")
        + &key("chained", "store: chain, path: llm/openai, field: api_key")
        + &key("assumed", "store: role, path: llm/openai, field: api_key")
        + &key("denied", "store: poor, path: llm/openai, field: api_key")
        + &key("mistaken", "store: wrong, path: llm/openai, field: api_key")
        + &key("absent", "store: keys, path: llm/absent")
        + &key("unstaged", "store: keys, path: llm/openai, field: api_key, stage: NEXT")
        + &key("fieldless", "store: keys, path: llm/openai, field: key")
}

/// What gives a container its identity: asked with a token, it says an access key.
async fn agent(plan: &Plan, token: String, key: &AccessKey) -> Upstream {
    let said = json!({"AccessKeyId": key.id, "SecretAccessKey": key.secret, "Token": key.token, "Expiration": "2099-01-01T00:00:00Z"});
    let server = plan.pki.server(&plan.sandbox, &["localhost"]);
    Upstream::http(&server, &["http/1.1"], move |seen| {
        if seen.header("authorization") == token { Reply::json(&said) } else { Reply::status(403) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_aws_is_read_by_name_arn_stage_and_version_with_every_login() {
    needs!(Moto::installed());
    let plan = Plan::new();
    let moto = Moto::start(&plan.sandbox).await;
    let [first, second, plain, bytes] =
        ["first", "second", "plain", "bytes"].map(|what| plan.sandbox.canary(what));
    plan.sandbox.stands_for(&second, &[SecretKind::Aws, SecretKind::Bearer]);
    let object = |key: &str| json!({"api_key": key, "owner": "llm"}).to_string();
    let arn = moto.create("llm/openai", FIRST, &object(&first));
    moto.put("llm/openai", SECOND, &object(&second), "AWSCURRENT");
    moto.create("llm/plain", FIRST, &plain);
    moto.create_bytes("llm/bytes", bytes.as_bytes());
    let reader = moto.user(&plan.sandbox, "reader", &[READ]);
    let poor = moto.user(&plan.sandbox, "poor", &["sts:GetCallerIdentity"]);
    let role = moto.role("tollgate", &[READ]);
    let container = moto.assume(&plan.sandbox, &moto.role("container", &[READ, "sts:AssumeRole"]));
    let wrong =
        format!("[wrong]\naws_access_key_id = {}\naws_secret_access_key = {}\n", reader.id, poor.secret);
    let file = plan.sandbox.input("aws", reader.profile("default") + &poor.profile("poor") + &wrong);
    let resources = logins(&moto, &file, plan.pki.bundle(), &role) + &references(&arn);
    let token = plan.sandbox.canary("agent");
    let agent = agent(&plan, token.clone(), &container).await;
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("https://localhost:{}/login", agent.port())),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", plan.sandbox.input("token", &token).display().to_string()),
        ("AWS_ENDPOINT_URL_STS", moto.address()),
    ];
    moto.enforce(true);
    let mut fixture = fixture(plan, &resources, &variables).await;
    let client = fixture.checkout();
    for (name, value) in [
        ("name", &second),
        ("arn", &second),
        ("previous", &first),
        ("pinned", &first),
        ("plain", &plain),
        ("bytes", &bytes),
        ("chained", &second),
        ("assumed", &second),
    ] {
        assert_eq!(sent(&fixture, &client, name).await, *value, "{name}");
    }
    fixture.upstream.clear();
    for (name, secret, error) in [
        ("absent", "keys:llm/absent", "no such secret"),
        ("unstaged", "keys:llm/openai#api_key@NEXT", "no such secret"),
        ("fieldless", "keys:llm/openai#key", "no such field"),
    ] {
        client.get(&format!("/up/{name}")).await.assert_refused(503, "secret_unavailable");
        eventually(&format!("the log says why {name} fails"), || complained(&fixture.gateway, secret, error))
            .await;
    }
    for name in ["denied", "mistaken"] {
        client.get(&format!("/up/{name}")).await.assert_refused(503, "secret_unavailable");
    }
    assert_eq!(fixture.upstream.count(), 0);
    assert!(fixture.gateway.stop().success());
    let versions = column(&fixture.gateway, "credential_version");
    assert!(versions.contains(&SECOND.to_owned()) && versions.contains(&FIRST.to_owned()), "{versions:?}");
    fixture.sandbox.assert_swept();
}

/// Calls until the answer has this status.
async fn until(client: &Client, path: &str, status: u16) {
    for _ in 0..300 {
        if client.get(path).await.status == status {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{path} never answered {status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_moves_is_followed_without_a_failed_call_and_a_deleted_secret_is_revoked() {
    needs!(Moto::installed());
    let plan = Plan::new();
    let moto = Moto::start(&plan.sandbox).await;
    let (first, second) = (plan.sandbox.canary("first"), plan.sandbox.canary("second"));
    moto.create("llm/openai", FIRST, &first);
    moto.put("llm/openai", SECOND, &second, "AWSPENDING");
    let role = moto.role("tollgate", &[READ]);
    let resources = store("aws", &moto, "") + &key("current", "store: aws, path: llm/openai");
    let token = plan.sandbox.input("web.token", "a token that moto believes");
    let variables = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.display().to_string()),
        ("AWS_ROLE_ARN", role),
        ("AWS_ENDPOINT_URL_STS", moto.address()),
    ];
    let fixture = fixture(plan, &resources, &variables).await;
    let client = fixture.checkout();
    assert_eq!(sent(&fixture, &client, "current").await, first);
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (client, stop) = (client.clone(), Arc::clone(&stop));
        async move {
            let mut connection = client.open(Protocol::H1).await.expect("a connection");
            while !stop.load(Ordering::SeqCst) {
                let call = client.request(http::Method::GET, "/up/current", "");
                connection.send(call).await.expect("an answer").assert_status(200);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    moto.promote("llm/openai", FIRST, SECOND);
    let bearer = format!("Bearer {second}");
    let arrived =
        || fixture.upstream.seen().last().is_some_and(|seen| seen.header("authorization") == bearer);
    eventually("the version that is current now is used", arrived).await;
    stop.store(true, Ordering::SeqCst);
    load.await.expect("no call failed");
    moto.delete("llm/openai");
    until(&client, "/up/current", 503).await;
    moto.restore("llm/openai");
    until(&client, "/up/current", 200).await;
    assert_eq!(sent(&fixture, &client, "current").await, second);
}

/// The metadata service of an instance, in its second version: a token is got first, and shown with every question.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html>
async fn instance(key: AccessKey) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let said = json!({"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": key.id, "SecretAccessKey": key.secret, "Token": key.token,
        "LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2099-01-01T00:00:00Z"});
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap_or_default();
            let head = String::from_utf8_lossy(&head[..read]).to_ascii_lowercase();
            let body = match head.split_whitespace().take(2).collect::<Vec<_>>().as_slice() {
                ["put", "/latest/api/token"] => "session-of-imds".to_owned(),
                _ if !head.contains("x-aws-ec2-metadata-token: session-of-imds\r\n") => String::new(),
                ["get", path] if path.ends_with("/role") => said.to_string(),
                _ => "role".to_owned(),
            };
            let status = if body.is_empty() { "401 Unauthorized" } else { "200 OK" };
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nx-aws-ec2-metadata-token-ttl-seconds: 21600\r\nconnection: close\r\n\r\n"
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_lends_the_gateway_its_role() {
    needs!(Moto::installed());
    let plan = Plan::new();
    let moto = Moto::start(&plan.sandbox).await;
    let value = plan.sandbox.canary("kept");
    moto.create("llm/openai", FIRST, &value);
    let session = moto.assume(&plan.sandbox, &moto.role("instance", &[READ]));
    let resources = store("aws", &moto, "") + &key("kept", "store: aws, path: llm/openai");
    let variables = [
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", instance(session).await),
        ("AWS_EC2_METADATA_DISABLED", "false".to_owned()),
    ];
    moto.enforce(true);
    let mut fixture = fixture(plan, &resources, &variables).await;
    assert_eq!(sent(&fixture, &fixture.checkout(), "kept").await, value);
    assert!(fixture.gateway.stop().success());
    fixture.sandbox.assert_swept();
}

/// moto refuses in XML, so this is AWS as <https://docs.aws.amazon.com/secretsmanager/latest/apireference/CommonErrors.html> has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_taken_away_revokes_the_secret_and_a_login_that_ran_out_does_not() {
    let plan = Plan::new();
    let value = plan.sandbox.canary("kept");
    let code = Arc::new(Mutex::new(None));
    let (said, secret) = (Arc::clone(&code), value.clone());
    let aws = Upstream::http(&plan.pki.server(&plan.sandbox, &["localhost"]), &["http/1.1"], move |seen| {
        assert_eq!(seen.header("x-amz-target"), "secretsmanager.GetSecretValue");
        let elsewhere = || format!("https://localhost/{}", seen.target);
        match *said.lock().unwrap() {
            Some("Redirect") => Reply::status(307).header("location", &elsewhere()),
            None => Reply::json(&json!({"Name": "k", "VersionId": FIRST, "SecretString": secret})),
            Some(code) => Reply::status(400).data(json!({"__type": code, "message": secret}).to_string()),
        }
    })
    .await;
    let resources = document(
        "SecretStore",
        "aws",
        format_args!(
            "  aws: {{region: {REGION}, endpoint: \"https://localhost:{}\", caFile: {}}}\n",
            aws.port(),
            plan.pki.bundle().display()
        ),
    ) + &key("kept", "store: aws, path: k");
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKIA0".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", plan.sandbox.name().to_owned()),
        // Nothing listens there: whoever went through it would get nowhere.
        ("HTTPS_PROXY", "http://127.0.0.1:9".to_owned()),
        ("ALL_PROXY", "http://127.0.0.1:9".to_owned()),
    ];
    let mut fixture = fixture(plan, &resources, &variables).await;
    let client = fixture.checkout();
    let say = |answer: Option<&'static str>| *code.lock().unwrap() = answer;
    assert_eq!(sent(&fixture, &client, "kept").await, value);
    for (answer, error) in [
        ("ExpiredTokenException", "login failed: AWS refuses the credentials"),
        ("ThrottlingException", "asked too often"),
        ("Redirect", "unexpected answer with status 307"),
    ] {
        say(Some(answer));
        // What was refused rests; a signal has it shown once more.
        fixture.gateway.hang_up();
        let cause = || fixture.gateway.snapshot()["stores"].to_string();
        eventually("the store says why it fails", || cause().contains(error)).await;
        assert_eq!(sent(&fixture, &client, "kept").await, value, "it is used while it lasts");
    }
    say(Some("AccessDeniedException"));
    until(&client, "/up/kept", 503).await;
    eventually("the log says why", || complained(&fixture.gateway, "aws:k", "denies")).await;
    say(None);
    until(&client, "/up/kept", 200).await;
    assert!(fixture.gateway.stop().success());
    fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_holds_a_key_and_no_sink_shows_it() {
    let plan = Plan::new();
    let (plain, inner) = (plan.sandbox.canary("plain"), plan.sandbox.canary("inner"));
    plan.sandbox.stands_for(&plain, &[SecretKind::Env, SecretKind::Bearer]);
    let resources = document("SecretStore", "env", "  env: {prefix: TOLLGATE_SECRET_}\n")
        + &key("plain", "store: env, path: PLAIN")
        + &key("member", "store: env, path: OBJECT, field: api_key")
        + &key("absent", "store: env, path: ABSENT");
    let variables = [
        ("TOLLGATE_SECRET_PLAIN", plain.clone()),
        ("TOLLGATE_SECRET_OBJECT", json!({"api_key": inner}).to_string()),
    ];
    let mut fixture = fixture(plan, &resources, &variables).await;
    let client = fixture.checkout();
    assert_eq!(sent(&fixture, &client, "plain").await, plain);
    assert_eq!(sent(&fixture, &client, "member").await, inner);
    client.get("/up/absent").await.assert_refused(503, "secret_unavailable");
    let checked = fixture.gateway.tollgate(&["check"]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(
        checked.status.success() && said.contains("spec.env: the environment of a process is shown"),
        "{said}"
    );
    assert!(!said.contains("variable TOLLGATE_SECRET"), "{said}");
    assert!(fixture.gateway.stop().success());
    fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_core_file_of_the_gateway_is_written() {
    let fixture = Plan::new().start(|_| Reply::status(200)).await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", fixture.gateway.pid())).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
}
