//! The examples do what their words say.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tollgate_tests::gateway::binary;
use tollgate_tests::process::{Process, free_port, local};
use tollgate_tests::{Kind, World};

/// Calls as the README does with curl.
const CALL: &str = r#"
import http.client, ssl, sys
port, path = int(sys.argv[1]), sys.argv[2]
context = ssl.create_default_context(cafile="certs/ca.pem")
context.load_cert_chain("certs/web.pem", "certs/web.key")
connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=20)
connection.request("POST", path, '{"model": "gpt-5-mini", "messages": []}', {"content-type": "application/json"})
answer = connection.getresponse()
print(answer.status, answer.headers["x-tollgate-reason"])
"#;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples").join(name)
}

fn said(output: &Output) -> String {
    let text = [&*output.stdout, &*output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_call_is_made_as_its_steps_say() {
    let world = World::new();
    let home = world.inputs().join("first-call");
    fs::create_dir_all(home.join("resources")).unwrap();
    for file in ["certs.sh", "tollgate.yaml", "resources/openai.yaml"] {
        fs::copy(example("first-call").join(file), home.join(file)).unwrap();
    }
    let (port, admin) = (free_port(), free_port());
    let settings = fs::read_to_string(home.join("tollgate.yaml")).unwrap();
    let settings = settings.replace(":8443", &format!(":{port}")).replace(":9441", &format!(":{admin}"));
    fs::write(home.join("tollgate.yaml"), settings).unwrap();
    let run = |program: &Path, arguments: &[&str], input: &str| {
        let mut command = Command::new(program);
        command.current_dir(&home).args(arguments).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        said(&child.wait_with_output().unwrap())
    };
    run(Path::new("./certs.sh"), &[], "");
    run(&binary(), &["secret", "init"], "");
    let key = world.canary("first");
    world.stands_for(&key, &[Kind::Age, Kind::Bearer]);
    run(&binary(), &["secret", "set", "openai", "key"], &key);
    assert!(run(&binary(), &["secret", "list"], "").contains("openai"));
    assert!(run(&binary(), &["check"], "").contains("good"));
    let explain =
        ["explain", "--caller", "spiffe://prod.acme/ns/shop/sa/web", "--model", "gpt-5-mini", "--url"];
    let url = "https://localhost/openai/v1/chat/completions";
    assert!(run(&binary(), &[&explain[..], &[url]].concat(), "").contains("shop-openai"));

    let mut serve = Command::new(binary());
    let mut gateway = Process::spawn("first-call", &world.sinks(), serve.current_dir(&home).arg("serve"));
    gateway.listening(local(port)).await;
    let call = |path: &str| {
        let port = port.to_string();
        run(Path::new("python3"), &["-c", CALL, &port, path], "")
    };
    assert_eq!(call("/openai/v1/models").trim(), "403 path_not_allowed");
    // The provider itself is out of reach here: what is held, decided and put on is the same.
    let reached = call("/openai/v1/chat/completions");
    assert!(
        ["502 upstream_unreachable", "504 upstream_timeout", "401 None"].contains(&reached.trim()),
        "{reached}"
    );
    assert!(gateway.terminate(Duration::from_secs(20)).success());
    let report = run(&binary(), &["report", "--by", "caller,destination"], "");
    assert!(report.contains("spiffe://prod.acme/ns/shop/sa/web") && report.contains("openai"), "{report}");
    world.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_compiles_and_decides_as_it_says() {
    let resources = example("quickstart").join("resources");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.args(arguments).arg(&resources).args(["--trust-domain", "prod.acme", "--name", "tollgate"]);
        command.output().expect("the binary runs")
    };
    let check = run(&["check"]);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let url = "https://tollgate:8443/openai/v1/chat/completions";
    for (caller, decides) in [("checkout", true), ("billing", false)] {
        let caller = format!("spiffe://prod.acme/ns/{caller}/sa/api");
        let explained = run(&["explain", "--caller", &caller, "--url", url, "--model", "gpt-5-mini"]);
        assert_eq!(explained.status.code(), Some(if decides { 0 } else { 2 }), "{caller}");
    }
}
