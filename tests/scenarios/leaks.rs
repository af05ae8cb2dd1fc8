//! The leak sweep's own scenario: panics at every stage, refused reloads, failures, all sinks, and decoys in each of them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use http::{HeaderValue, Method};
use serde_json::json;
use tollgate_tests::fixture::CHAT_ONLY;
use tollgate_tests::gateway::eventually;
use tollgate_tests::provider::{self, chat};
use tollgate_tests::report::requests_reach;
use tollgate_tests::{Fixture, Plan, Protocol, Sandbox};

const CHAT: &str = "/up/v1/chat/completions";
const STAGES: [&str; 12] = [
    "identity", "target", "admit", "facts", "permit", "template", "hold", "secret", "connect", "inject",
    "send", "scrub",
];

fn limited() -> Plan {
    Plan::openai(&format!("{CHAT_ONLY}  limits: [{{tokens: 9000000, per: day}}, {{concurrency: 50}}]\n"))
}

async fn faulty(
    fixture: &Fixture,
    protocol: Protocol,
    stage: &str,
    stream: bool,
) -> Result<tollgate_tests::Answer, tollgate_tests::client::Failure> {
    let client = fixture.checkout();
    let mut body = chat(40);
    body["stream"] = stream.into();
    let mut request = client.json(CHAT, &body);
    request
        .headers_mut()
        .insert("x-tollgate-fault", HeaderValue::from_str(&format!("panic@{stage}")).unwrap());
    client.send(protocol, request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_at_any_stage_is_one_refused_call_and_one_record() {
    let fixture = limited().start_openai(9, 2).await;
    let mut calls = 0;
    for protocol in Protocol::BOTH {
        for stage in STAGES {
            let answer = faulty(&fixture, protocol, stage, false).await.unwrap();
            answer.assert_refused(500, "internal");
            assert!(
                !answer.text().contains("panic") && !answer.text().contains(stage),
                "{stage}: {}",
                answer.text()
            );
            calls += 1;
        }
        fixture.checkout().post(CHAT, &chat(40)).await.assert_status(200);
        calls += 1;
    }
    // A panic before the caller is known leaves none.
    let unproven = 2;
    requests_reach(&fixture.gateway, calls - unproven).await;
    eventually("nothing stays held", || fixture.gateway.metrics().sum("tollgate_limit_held", &[]) == 0.0)
        .await;
    assert_eq!(fixture.gateway.metrics().sum("tollgate_requests_in_flight", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_body_cuts_the_stream_and_settles_the_hold() {
    let fixture = limited().start_openai(9, 2).await;
    for protocol in Protocol::BOTH {
        let cut = faulty(&fixture, protocol, "body", true).await;
        assert!(cut.is_err() || cut.unwrap().status == 500);
    }
    fixture.checkout().post(CHAT, &chat(40)).await.assert_status(200);
    requests_reach(&fixture.gateway, 3).await;
    eventually("nothing stays held", || fixture.gateway.metrics().sum("tollgate_limit_held", &[]) == 0.0)
        .await;
}

/// Everything that goes wrong, on one gateway.
async fn misery(fixture: &Fixture) {
    let client = fixture.checkout();
    for stage in STAGES.iter().chain(&["body"]) {
        for stream in [false, true] {
            let _ = faulty(fixture, Protocol::H1, stage, stream).await;
        }
    }
    client.post(CHAT, &chat(40)).await;
    client.post(CHAT, &json!({"model": "gpt-5-mini", "mode\u{6c}": 1, "messages": []})).await;
    fixture.caller("spiffe://prod.acme/ns/billing/sa/web").get("/up/x").await;
    fixture.stranger(None).refusal().await;
    client.raw(b"GET /up/x HTTP/1.1\r\nhost: localhost\r\nhost: x\r\n\r\n").await;
    let mut request = client.request(Method::GET, "/up/x", "");
    request.headers_mut().insert("authorization", HeaderValue::from_str(&fixture.key).unwrap());
    let _ = client.send(Protocol::H2, request).await;
    let (file, text) = fixture.gateway.settings().resources[0].clone();
    let generation = fixture.gateway.generation();
    fixture.gateway.write_resource(&file, &text.replace("kind: Grant", "kind: Grand"));
    let failed = || fixture.gateway.metrics().sum("tollgate_config_reload_failures_total", &[]) > 0.0;
    eventually("the broken configuration is refused", failed).await;
    assert_eq!(fixture.gateway.generation(), generation);
    fixture.gateway.write_resource(&file, &text);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_found_in_any_sink_and_every_decoy_is() {
    let plan = limited();
    let respond = provider::openai(&plan.key, 9, 2);
    let key = plan.key.clone();
    let mut fixture = plan
        .start(move |seen| respond(seen).header("x-echo", &key).header("set-cookie", &format!("k={key}")))
        .await;
    misery(&fixture).await;
    fixture.gateway.kill();
    fixture.gateway.restart().await;
    misery_of_the_key(&fixture).await;
    for arguments in [
        &["check"][..],
        &["report", "--by", "caller,model"],
        &["report", "--by", "caller", "--format", "csv"],
        &["report", "--by", "day"],
        &["calls"],
        &["calls", "--format", "json"],
        &["calls", "--format", "csv"],
        &["ledger", "list"],
        &["ledger", "cat"],
        &["ledger", "verify"],
        &["audit", "verify"],
        &["audit", "list"],
        &["credential", "ls"],
        &["credential", "test", "--all"],
    ] {
        fixture.gateway.tollgate(arguments);
    }
    assert!(fixture.gateway.stop().success());
    let sinks = fixture.sandbox.sinks();
    for sink in [
        "tollgate.stdout",
        "tollgate.stderr",
        "proc-cmdline",
        "proc-environ",
        "admin-metrics",
        "admin-debug-snapshot",
        "admin-debug-credentials",
        "cli.txt",
        "gateway/data/ledger.sqlite",
        "gateway/data/audit/journal",
    ] {
        assert!(sinks.join(sink).exists(), "{sink} was not captured");
    }
    fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_pasted_into_a_resource_is_not_repeated_when_that_is_refused() {
    let mut fixture = Plan::new().start_openai(9, 2).await;
    let pasted = fixture.sandbox.canary("pasted");
    let (file, text) = fixture.gateway.settings().resources[0].clone();
    let mut failures = 0.0;
    for (place, wrong) in [
        ("from: {store: files, path: up}", format!("from: {pasted}")),
        ("inject: {bearer: {}}", format!("inject: {{bearer: {pasted}}}")),
        ("inject: {bearer: {}}", format!("inject: {pasted}")),
        ("inject: {bearer: {}}", format!("inject: [{pasted}]")),
        ("inject: {bearer: {}}", format!("inject: {{bearer: {{}}}}\n  mint: {pasted}")),
        ("  file: {", format!("  vault: {{address: \"https://127.0.0.1:1\", auth: {pasted}}}\n  file: {{")),
        (
            "  file: {",
            format!("  vault: {{address: \"https://127.0.0.1:1\", auth: {{token: {pasted}}}}}\n  file: {{"),
        ),
    ] {
        assert!(text.contains(place), "{text}");
        fixture.gateway.write_resource(&file, &text.replace(place, &wrong));
        let refused =
            || fixture.gateway.metrics().sum("tollgate_config_reload_failures_total", &[]) > failures;
        eventually("it is refused", refused).await;
        failures = fixture.gateway.metrics().sum("tollgate_config_reload_failures_total", &[]);
        let checked = fixture.gateway.tollgate(&["check"]);
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(!checked.status.success() && said.contains("not text"), "{said}");
    }
    // The file itself is the one place where it was written down.
    fixture.gateway.write_resource(&file, &text);
    fixture.checkout().get("/up/x").await.assert_status(200);
    assert!(fixture.gateway.stop().success());
    fixture.sandbox.assert_swept();
}

/// What `--whole` says of a run.
fn swept_whole(run: &Path) -> (bool, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("runner/sweep.py");
    let output = Command::new("python3").arg(script).arg(run).arg("--whole").output().expect("Python runs");
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_sweep_without_one_kind_of_sink_or_of_secret_fails() {
    let sandbox = Sandbox::new();
    let run = sandbox.inputs().join("run");
    let sinks = run.join("scenarios/made/sinks");
    let write = |path: &str, text: &str| {
        fs::create_dir_all(run.join(path).parent().unwrap()).unwrap();
        fs::write(run.join(path), text).unwrap();
    };
    write("kinds.txt", "store file\ninject bearer\n");
    write("kinds/made.txt", "inject bearer\nstore file\n");
    write("needles/made.txt", &format!("{}\n", sandbox.canary("made")));
    fs::create_dir_all(sinks.join("gateway/tmp")).unwrap();
    let files = [
        ("tollgate.stdout", "standard output"),
        ("tollgate.stderr", "standard error"),
        ("answers/0.bin", "answers"),
        ("admin-metrics", "metrics"),
        ("admin-readyz", "admin"),
        ("proc-cmdline", "arguments"),
        ("proc-environ", "environment"),
        ("cli.txt", "commands"),
        ("gateway/data/audit/journal", "audit trail"),
        ("gateway/data/ledger.sqlite", "store"),
        ("gateway/data/journal-0", "journal"),
        ("gateway/data/lock", "data"),
    ];
    let line = r#"{"level":"TRACE"}"#;
    for (file, _) in files {
        write(&format!("scenarios/made/sinks/{file}"), line);
    }
    let (good, said) = swept_whole(&run);
    assert!(good && said.contains("13 haystacks, ") && said.ends_with("\n0 problems\n"), "{said}");

    let fails = |what: &str| {
        let (good, said) = swept_whole(&run);
        assert!(
            !good && said.starts_with(&format!("{what}\n")) && said.ends_with("\n1 problems\n"),
            "{said}"
        );
    };
    for (file, sink) in files.into_iter().skip(1) {
        fs::remove_file(sinks.join(file)).unwrap();
        fails(&format!("no haystack: {sink}"));
        fs::write(sinks.join(file), line).unwrap();
    }
    fs::remove_dir(sinks.join("gateway/tmp")).unwrap();
    fails("no haystack: temporary");
    fs::create_dir(sinks.join("gateway/tmp")).unwrap();
    fs::write(sinks.join("tollgate.stdout"), "quiet").unwrap();
    fails("no haystack: standard output at its loudest");
    fs::write(sinks.join("tollgate.stdout"), line).unwrap();
    write("kinds/made.txt", "inject bearer\n");
    fails("no canary: store file");
}

/// The key goes away, comes back broken, and comes back.
async fn misery_of_the_key(fixture: &Fixture) {
    let file = fixture.sandbox.inputs().join("keys/up");
    let good = fs::read(&file).unwrap();
    for bad in [b"".to_vec(), b"line\nbreak".to_vec(), vec![b'k'; 100_000], [&good[..], b"\0\xff"].concat()] {
        fs::write(&file, bad).unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        fixture.checkout().post(CHAT, &chat(40)).await;
    }
    fs::remove_file(&file).unwrap();
    fixture.checkout().post(CHAT, &chat(40)).await;
    fs::write(&file, good).unwrap();
}
