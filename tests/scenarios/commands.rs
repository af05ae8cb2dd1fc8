//! What people at the command line are told of calls, while the gateway runs and where none does.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use http::{HeaderValue, Method};
use serde_json::Value;
use tollgate_tests::fixture::{CHAT_ONLY, CHECKOUT};
use tollgate_tests::gateway::{binary, eventually};
use tollgate_tests::provider::chat;
use tollgate_tests::report::{assert_verified, report};
use tollgate_tests::{Answer, Fixture, Gateway, Plan, Protocol, Reply, Sandbox};

const CHAT: &str = "/up/v1/chat/completions";
const BILLING: &str = "spiffe://prod.acme/ns/billing/sa/web";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn calls(gateway: &Gateway, arguments: &[&str]) -> Value {
    let output = gateway.tollgate(&[&["calls", "--format", "json"], arguments].concat());
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).expect("calls are JSON")
}

fn ids(calls: &Value) -> Vec<&str> {
    calls.as_array().expect("a list").iter().map(|call| call["id"].as_str().expect("an id")).collect()
}

fn id(answer: &Answer) -> String {
    answer.header("x-tollgate-request-id").to_owned()
}

async fn limited() -> Fixture {
    Plan::openai(&format!("{CHAT_ONLY}  limits: [{{tokens: 9000000, per: day}}]\n")).start_openai(9, 2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_just_made_is_in_calls_and_report_and_is_found_by_its_request_id() {
    let mut fixture = limited().await;
    for round in 1..=5 {
        let answer = fixture.checkout().post(CHAT, &chat(40)).await;
        answer.assert_status(200);
        // No waiting: what was answered is in the journal.
        let call = calls(&fixture.gateway, &[&id(&answer)]);
        for (name, value) in [
            ("status", "200"),
            ("outcome", "\"completed\""),
            ("caller", &format!("{CHECKOUT:?}")),
            ("method", "\"POST\""),
        ] {
            assert_eq!(call[name].to_string(), value, "{name}: {call}");
        }
        assert_eq!((&call["units"]["input"], &call["units"]["output"]), (&9.into(), &2.into()), "{call}");
        assert_eq!(
            (call["path"].as_str(), call["grant"].as_str()),
            (Some("/v1/chat/completions"), Some("checkout-up"))
        );
        for name in ["credential", "credential_version", "source", "peer", "cost_usd"] {
            assert!(call[name].is_string(), "{name}: {call}");
        }
        assert!(call["hold"]["charges"].is_array() && call["charges"].is_array(), "{call}");
        let lines = report(&fixture.gateway, "caller,day");
        assert_eq!(lines[0]["calls"], round, "{lines:?}");
    }
    let refused = fixture.caller(BILLING).get("/up/x").await;
    refused.assert_refused(403, "no_grant");
    // Nobody waited for its line: the gateway writes it a moment later.
    let shown = || said(&fixture.gateway.tollgate(&["calls", &id(&refused)]));
    eventually("the refusal is found", || shown().contains("403, refused: no_grant")).await;
    assert!(shown().contains(BILLING), "{}", shown());
    assert!(fixture.gateway.stop().success());
    let shown = said(&fixture.gateway.tollgate(&["calls", &id(&refused)]));
    assert!(shown.contains("no_grant"), "where no gateway runs: {shown}");
    assert!(!fixture.gateway.tollgate(&["calls", "01a207d768017b24b761f7d78e801692"]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_picked_by_who_what_and_how_they_ended() {
    let fixture = Plan::new()
        .start(|seen| if seen.target.contains("broken") { Reply::status(500) } else { Reply::status(200) })
        .await;
    let (web, other) = (fixture.checkout(), fixture.caller(BILLING));
    let (good, bad) = (id(&web.get("/up/x").await), id(&web.get("/up/broken").await));
    let refused = id(&other.get("/up/x").await);
    let picks = |arguments: &[&str]| {
        let found = calls(&fixture.gateway, arguments);
        let mut found: Vec<_> = ids(&found).into_iter().map(str::to_owned).collect();
        found.sort();
        found
    };
    let sorted = |mut ids: Vec<&String>| {
        ids.sort();
        ids.into_iter().cloned().collect::<Vec<_>>()
    };
    eventually("all three are written", || picks(&[]).len() == 3).await;
    assert_eq!(picks(&[]), sorted(vec![&good, &bad, &refused]));
    assert_eq!(picks(&["--caller", "*/ns/billing/*"]), sorted(vec![&refused]));
    assert_eq!(picks(&["--destination", "up", "--status", "2xx"]), sorted(vec![&good]));
    assert_eq!(picks(&["--status", "500,403"]), sorted(vec![&bad, &refused]));
    assert_eq!(picks(&["--reason", "no_grant"]), sorted(vec![&refused]));
    assert_eq!(picks(&["--grant", "checkout-up"]), sorted(vec![&good, &bad]));
    assert_eq!(
        picks(&["--since", "1h", "--until", "2000-01-01"].map(|word| if word == "1h" {
            "1999-01-01"
        } else {
            word
        })),
        [""; 0]
    );
    assert_eq!(picks(&["--limit", "1"]), sorted(vec![&refused]));
    let csv = said(&fixture.gateway.tollgate(&["calls", "--format", "csv"]));
    assert!(
        csv.starts_with("id,at,duration_ms,") && csv.contains(&good) && csv.lines().count() == 4,
        "{csv}"
    );
    let total = &report(&fixture.gateway, "destination")[0];
    assert_eq!(
        ["calls", "failed", "refused", "requests"].map(|name| total[name].as_u64().unwrap()),
        [1, 1, 1, 3]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_followed_as_they_end() {
    let fixture = Plan::new().start(|_| Reply::status(200)).await;
    let before = id(&fixture.checkout().get("/up/x").await);
    let out = fixture.sandbox.sinks().join("followed.txt");
    let mut follow = Command::new(binary());
    follow.current_dir(fixture.gateway.home()).args(["calls", "--follow", "--format", "json"]);
    let mut follow = follow.stdout(fs::File::create(&out).unwrap()).stderr(Stdio::inherit()).spawn().unwrap();
    let shown = || fs::read_to_string(&out).unwrap_or_default();
    eventually("what was there is shown", || shown().contains(&before)).await;
    let after = id(&fixture.checkout().get("/up/y").await);
    eventually("what came since is shown", || shown().contains(&after)).await;
    assert!(shown().lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{}", shown());
    follow.kill().unwrap();
    follow.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reported_call_is_settled_by_force_and_with_a_note_and_all_commands_agree() {
    let mut fixture = limited().await;
    let call = id(&fixture.checkout().post(CHAT, &chat(40)).await);
    let settle = |more: &[&str]| {
        let usage = ["ledger", "settle", &call, "--input", "100", "--output", "50", "--cost", "0.5 USD"];
        fixture.gateway.tollgate(&[&usage, more].concat())
    };
    let refused = settle(&[]);
    assert!(!refused.status.success() && said(&refused).contains("--force"), "{}", said(&refused));
    assert!(!settle(&["--force"]).status.success(), "without a note");
    let done = settle(&["--force", "--note", "invoice of November"]);
    assert!(done.status.success(), "{}", said(&done));
    let user = Command::new("id").arg("-un").output().expect("id");
    let user = String::from_utf8(user.stdout).unwrap();
    let agree = |fixture: &Fixture| {
        let shown = calls(&fixture.gateway, &[&call]);
        assert_eq!((&shown["cost"], &shown["units"]["input"]), (&500_000_000.into(), &100.into()), "{shown}");
        let correction = &shown["corrections"][0];
        assert_eq!(
            (correction["by"].as_str(), correction["note"].as_str()),
            (Some(user.trim()), Some("invoice of November"))
        );
        assert!(correction["at"].is_string());
        let list = fixture.gateway.tollgate(&["ledger", "list", "--format", "json"]);
        let list: Value = serde_json::from_slice(&list.stdout).unwrap();
        assert_eq!(
            (&list[0]["cost_nano_usd"], &list[0]["usage_source"]),
            (&500_000_000.into(), &"reported".into())
        );
        let line = &report(&fixture.gateway, "destination")[0];
        assert_eq!(
            (&line["cost_nano_usd"], &line["input"], &line["calls"]),
            (&500_000_000.into(), &100.into(), &1.into())
        );
    };
    agree(&fixture);
    assert!(fixture.gateway.stop().success());
    agree(&fixture);
    assert_verified(&fixture.gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_in_date_order_and_fits_its_terminal() {
    let fixture = limited().await;
    fixture.checkout().post(CHAT, &chat(40)).await.assert_status(200);
    let mut command = Command::new(binary());
    let command =
        command.current_dir(fixture.gateway.home()).args(["report", "--by", "day,caller,destination,model"]);
    let table = said(&command.env("COLUMNS", "80").output().expect("the binary runs"));
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    assert!(
        table.contains("cost USD") && !table.contains("refused") && !table.contains("reasoning"),
        "{table}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn check_never_ends_good_after_an_error() {
    let plan = Plan::new();
    let gateway = Gateway::prepare(&plan.sandbox, &plan.complete(443));
    let good = said(&gateway.tollgate(&["check"]));
    assert!(good.contains("1 file, 1 destination, 1 store, 1 credential, 1 grant: good"), "{good}");
    let settings = fs::read_to_string(gateway.home().join("tollgate.yaml")).unwrap();
    let certificate = plan.settings.certificate.cert.display().to_string();
    fs::write(gateway.home().join("tollgate.yaml"), settings.replace(&certificate, "/nowhere.pem")).unwrap();
    let output = gateway.tollgate(&["check"]);
    let bad = said(&output);
    assert!(!output.status.success() && !bad.contains(": good") && bad.contains("1 problem"), "{bad}");
    let mut nowhere = Command::new(binary());
    let missing = said(&nowhere.current_dir(gateway.home().join("tmp")).arg("check").output().unwrap());
    assert!(missing.contains("tollgate.yaml") && missing.contains("tollgate init"), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_is_refused_in_the_same_words_in_log_and_metric() {
    let fixture = Plan::new().start(|_| Reply::status(200)).await;
    let other = tollgate_tests::Authority::new(&fixture.sandbox, "elsewhere");
    let svid = |id: &str| Some(other.svid(&fixture.sandbox, id));
    let strangers = [None, svid("spiffe://elsewhere.test/x"), svid("spiffe://prod.acme/x")];
    for stranger in strangers {
        fixture.stranger(stranger).refusal().await;
    }
    let logged = || -> Vec<String> {
        let log = fixture.gateway.log();
        let refused = log.iter().filter(|line| {
            line["message"].as_str().is_some_and(|text| text.starts_with("handshake refused"))
        });
        refused.filter_map(|line| line["reason"].as_str().map(str::to_owned)).collect()
    };
    eventually("all three are in the log", || logged().len() >= 3).await;
    let metrics = fixture.gateway.metrics();
    for word in logged() {
        let label = format!("reason=\"{word}\"");
        assert!(metrics.sum("tollgate_tls_handshakes_refused_total", &[&label]) > 0.0, "{word}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn access_lines_have_a_timestamp_and_say_their_units() {
    let fixture = Plan::new().start(|_| Reply::status(200)).await;
    let call = id(&fixture.checkout().get("/up/x").await);
    let line = || {
        let log = fixture.gateway.log();
        log.into_iter().find(|line| line["record"]["id"] == call.as_str())
    };
    eventually("the line is written", || line().is_some()).await;
    let line = line().unwrap();
    assert!(line["timestamp"].as_str().is_some_and(|at| at.ends_with('Z')), "{line}");
    assert!(line["record"]["duration_us"].is_u64() && line["record"]["duration"].is_null(), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_logs_for_people_or_in_what_commands_print() {
    let mut plan = Plan::openai(&format!("{CHAT_ONLY}  limits: [{{tokens: 9000000, per: day}}]\n"));
    plan.settings.environment.push(("TOLLGATE_LOG_FORMAT".to_owned(), "text".to_owned()));
    let mut fixture = plan.start_openai(9, 2).await;
    let client = fixture.checkout();
    let call = id(&client.post(CHAT, &chat(40)).await);
    let mut request = client.request(Method::GET, "/up/x?api_key=1", "");
    request.headers_mut().insert("authorization", HeaderValue::from_str(&fixture.key).unwrap());
    let _ = client.send(Protocol::H2, request).await;
    fixture.caller(BILLING).get("/up/x").await;
    fixture.stranger(None).refusal().await;
    for arguments in [
        &["calls"][..],
        &["calls", &call],
        &["calls", &call, "--format", "json"],
        &["calls", "--format", "csv"],
        &["ledger", "list"],
        &[
            "ledger", "settle", &call, "--input", "1", "--output", "1", "--cost", "1 USD", "--force",
            "--note", "x",
        ],
        &["report", "--by", "day"],
    ] {
        let output = fixture.gateway.tollgate(arguments);
        assert!(output.status.success(), "{}", said(&output));
    }
    assert!(fixture.gateway.stop().success());
    let log = fs::read_to_string(fixture.sandbox.sinks().join("tollgate.stdout")).unwrap();
    assert!(log.contains(&format!("id={call}")) && log.contains("no_certificate"), "{log}");
    fixture.sandbox.assert_swept();
}

#[test]
fn init_makes_a_set_up_that_is_good_and_prints_none_of_its_keys() {
    let sandbox = Sandbox::new();
    let home = sandbox.inputs().join("new");
    let run = |arguments: &[&str], input: &str| {
        let mut command = Command::new(binary());
        command.current_dir(sandbox.inputs()).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary runs");
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let mut sink =
            fs::OpenOptions::new().create(true).append(true).open(sandbox.sinks().join("cli.txt")).unwrap();
        sink.write_all(&[&*output.stdout, &*output.stderr].concat()).unwrap();
        output
    };
    assert!(run(&["init", "new"], "").status.success());
    let identity = fs::read_to_string(home.join("identity.txt")).unwrap();
    sandbox.needle(identity.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap());
    for key in ["gateway.key", "web.key"] {
        let path = home.join("certs").join(key);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        sandbox.needle(fs::read_to_string(path).unwrap().lines().nth(1).unwrap());
    }
    let config = home.join("tollgate.yaml");
    let config = config.to_str().unwrap();
    let secret = |arguments: &[&str], input: &str| {
        let (file, identity) = (home.join("secrets.age"), home.join("identity.txt"));
        let places = ["--file", file.to_str().unwrap(), "--identity", identity.to_str().unwrap()];
        run(&[&["secret"], arguments, &places].concat(), input)
    };
    assert!(secret(&["set", "openai", "key"], &sandbox.canary("new")).status.success());
    let check = run(&["check", "--config", config], "");
    assert!(check.status.success() && said(&check).contains("1 grant: good"), "{}", said(&check));
    let again = run(&["init", "new"], "");
    assert!(!again.status.success() && said(&again).contains("nothing is written over"), "{}", said(&again));
    for arguments in [
        &["prices", "ls"][..],
        &["prices", "show", "gpt-5-mini"],
        &["prices", "ls", "--format", "json"],
        &["completions", "bash"],
        &["man"],
    ] {
        assert!(run(arguments, "").status.success(), "{arguments:?}");
    }
    sandbox.assert_swept();
}
