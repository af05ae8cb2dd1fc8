//! The examples do what their words say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tollgate_tests::gateway::binary;
use tollgate_tests::process::free_port;
use tollgate_tests::{Sandbox, SecretKind};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples").join(name)
}

/// The first block of commands under this heading of the README.
fn block(heading: &str) -> String {
    let readme = fs::read_to_string(example("first-call").join("../../README.md")).unwrap();
    let section = readme.split_once(heading).expect("the heading").1;
    section.split("```").nth(1).expect("a block").trim_start_matches('\n').to_owned()
}

#[test]
fn the_first_call_of_the_readme_works_when_it_is_pasted_as_one_block() {
    let sandbox = Sandbox::new();
    let (port, admin) = (free_port(), free_port());
    let key = sandbox.canary("first");
    sandbox.stands_for(&key, &[SecretKind::Age, SecretKind::Bearer]);
    let block = block("### A first call of your own\n");
    let (init, rest) = block.split_once('\n').unwrap();
    assert!(init.contains("tollgate init"), "{block}");
    let ports =
        |text: &str| text.replace(":8443", &format!(":{port}")).replace(":9441", &format!(":{admin}"));
    // Ports that are free here, nothing else is changed; at the end what was started is stopped.
    let sed = format!("sed -i 's/:8443/:{port}/; s/:9441/:{admin}/' tollgate.yaml");
    let script = format!("set -x\n{init}\n{sed}\n{}\nkill $!\nwait\n", ports(rest));
    fs::create_dir(sandbox.inputs().join("bin")).unwrap();
    std::os::unix::fs::symlink(binary(), sandbox.inputs().join("bin/tollgate")).unwrap();
    let path = std::env::join_paths(
        std::iter::once(sandbox.inputs().join("bin"))
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let mut bash = Command::new("bash");
    bash.args(["-c", &script])
        .current_dir(sandbox.inputs())
        .env("PATH", path.unwrap())
        .env("OPENAI_API_KEY", &key);
    let output = bash.env("TOLLGATE_LOG", "trace").output().expect("bash runs");
    let said = String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned();
    let home = sandbox.inputs().join("first-call");
    fs::write(sandbox.sinks().join("cli.txt"), &said).unwrap();
    fs::copy(home.join("serve.log"), sandbox.sinks().join("tollgate.stdout")).unwrap();
    assert!(said.contains("1 grant: good"), "{said}");
    // The provider itself is out of reach here: what is held, decided and put on is the same.
    let reached = ["upstream_unreachable", "upstream_timeout", "\"error\""];
    assert!(reached.iter().any(|word| said.contains(word)) && !said.contains("secret_unavailable"), "{said}");
    let lines_with = |word: &str| said.lines().filter(|line| line.contains(word)).count();
    assert!(lines_with("spiffe://prod.acme/ns/shop/sa/web") >= 2, "calls and report have the call: {said}");
    assert!(!said.contains("No calls.") && said.contains("shop-openai"), "{said}");
    assert!(said.contains("tollgate_requests_total"), "{said}");
    sandbox.assert_swept();
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

#[test]
fn the_forward_proxys_example_is_set_up_as_its_readme_says_and_lets_git_read_alone() {
    let sandbox = Sandbox::new();
    let key = sandbox.canary("github");
    sandbox.stands_for(&key, &[SecretKind::Age, SecretKind::Basic]);
    let home = sandbox.inputs().join("forward-proxy");
    fs::create_dir_all(home.join("resources")).unwrap();
    for file in ["tollgate.yaml", "resources/github.yaml"] {
        fs::copy(example("forward-proxy").join(file), home.join(file)).unwrap();
    }
    let readme = fs::read_to_string(example("forward-proxy").join("README.md")).unwrap();
    let block = readme.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let script = block.replace("tollgate serve &\n", "");
    fs::create_dir(sandbox.inputs().join("bin")).unwrap();
    std::os::unix::fs::symlink(binary(), sandbox.inputs().join("bin/tollgate")).unwrap();
    let path = std::env::join_paths(
        std::iter::once(sandbox.inputs().join("bin"))
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let path = path.unwrap();
    fs::write(sandbox.inputs().join("typed"), &key).unwrap();
    let mut bash = Command::new("bash");
    bash.args(["-euxc", &script]).current_dir(&home).env("PATH", &path);
    bash.stdin(fs::File::open(sandbox.inputs().join("typed")).unwrap());
    let output = bash.output().expect("bash runs");
    let said = String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned();
    sandbox.answered(said.as_bytes());
    assert!(output.status.success() && said.contains("1 grant: good"), "{said}");
    // The harness has variables of its own.
    let mut warnings = said.lines().filter(|line| line.starts_with("warning:"));
    assert!(warnings.all(|line| line.contains("nothing reads the variable")), "{said}");
    for (path, method, decides) in [
        ("/acme/shop/info/refs?service=git-upload-pack", "GET", true),
        ("/acme/shop/git-upload-pack", "POST", true),
        ("/acme/shop/git-receive-pack", "POST", false),
        ("/other/shop/git-upload-pack", "POST", false),
    ] {
        let url = format!("https://github.com{path}");
        let caller = "spiffe://prod.acme/ns/shop/sa/web";
        let mut explain = Command::new(binary());
        explain.args(["explain", "--caller", caller, "--method", method, "--url", &url]).current_dir(&home);
        let explained = explain.output().expect("the binary runs");
        assert_eq!(explained.status.code(), Some(if decides { 0 } else { 2 }), "{path}");
    }
    sandbox.assert_swept();
}
