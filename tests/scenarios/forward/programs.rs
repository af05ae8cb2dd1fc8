//! Programs as they come, which have a proxy and an authority in their environment and no key, at servers that demand one.

use std::fs;
use std::path::Path;
use std::process::Command as StdCommand;

use serde_json::{Value, json};
use tollgate_tests::haproxy::Haproxy;
use tollgate_tests::idp::Idp;
use tollgate_tests::moto::{Moto, REGION};
use tollgate_tests::process::{Process, free_port, local};
use tollgate_tests::resources::{credential, destination};
use tollgate_tests::sandbox::parts_dir;
use tollgate_tests::{Plan, Reply, SecretKind, Upstream, needs, python};

use super::{Stand, to_program};

const S3: &str = "s3.eu-central-1.amazonaws.com";

/// Python of the parts.
fn interpreter() -> String {
    parts_dir().join("venv/bin/python").display().to_string()
}

fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name).display().to_string()
}

fn is_there(program: &str) -> bool {
    StdCommand::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// The undici that npm brings along.
fn undici() -> Option<String> {
    let output = StdCommand::new("npm").args(["root", "-g"]).output().ok()?;
    let root = String::from_utf8(output.stdout).ok()?;
    let entry = Path::new(root.trim()).join("npm/node_modules/undici/index.js");
    entry.exists().then(|| entry.display().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn python_and_node_call_through_a_proxy_without_a_key() {
    needs!(Idp::installed(), python::installed());
    let stand = Stand::start().await;
    let argument = json!({"url": "https://api.up.test/one"}).to_string();
    let (local, over_tls) = (stand.local(), stand.over_tls());
    let said = stand.run(&local, &interpreter(), &[&script("forward.py"), &argument]).await;
    let answers: Value =
        serde_json::from_str(said.text.lines().last().unwrap_or_default()).expect(&said.text);
    let all = answers.as_object().expect("an object");
    assert!(all.len() == 5 && all.values().all(|text| text == "fine"), "{answers}");
    // urllib alone speaks to its proxy in the clear only.
    let said = stand.run(&over_tls, &interpreter(), &[&script("forward.py"), &argument]).await;
    assert!(said.text.contains("\"requests\": \"fine\""), "{}", said.text);
    let mut calls = 6 + 5;
    if let Some(undici) = undici() {
        let argument = json!({"undici": undici, "url": "https://api.up.test/one"}).to_string();
        for proxy in [&local, &over_tls] {
            let said = stand.run(proxy, "node", &[&script("forward.mjs"), &argument]).await;
            assert_eq!(said.text.matches("fine").count(), 3, "{}", said.text);
            calls += 3;
        }
    } else {
        tollgate_tests::sandbox::skip("undici");
    }
    let seen = stand.fixture.upstream.seen();
    assert_eq!(seen.len(), calls);
    for seen in seen {
        assert_eq!(seen.header("authorization"), format!("Bearer {}", stand.fixture.key));
        assert!(!seen.everything().contains(&stand.token));
    }
}

/// A server that demands a key of everybody, for three hosts.
struct Closed {
    stand: Stand,
    _servers: Process,
    seen: std::path::PathBuf,
}

impl Closed {
    async fn start() -> Self {
        let plan = Plan::new();
        let (password, bearer) = (plan.sandbox.canary("password"), plan.sandbox.canary("bearer"));
        plan.sandbox.input("keys/password", &password);
        plan.sandbox.input("keys/bearer", &bearer);
        plan.sandbox.stands_for(&password, &[SecretKind::File, SecretKind::of_injection("{basic: {}}")]);
        plan.sandbox.stands_for(&bearer, &[SecretKind::File, SecretKind::of_injection("{bearer: {}}")]);
        let git = repository(plan.sandbox.providers().as_path());
        let hosts = ["git.up.test", "pypi.up.test", "npm.up.test"];
        let server = plan.pki.server(&plan.sandbox, &hosts);
        let (port, seen) = (free_port(), plan.sandbox.providers().join("seen.jsonl"));
        let argument = json!({
            "port": port, "cert": server.cert, "key": server.key, "git": git, "basic": format!("machine:{password}"),
            "bearer": bearer, "seen": seen,
        });
        let mut servers = python::start(&plan.sandbox, "servers", "forward_servers.py", &argument);
        servers.listening(local(port)).await;
        let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200)).await;
        let more = |plan: &Plan, issuer: &str| {
            let one = |name: &str, from: &str, inject: &str| {
                destination(name, &format!("{name}.up.test"), port, plan.pki.bundle(), "http")
                    + &credential(
                        &format!("{name}-key"),
                        name,
                        &format!("{{store: files, path: {from}}}"),
                        inject,
                    )
                    + &to_program(issuer, name, &format!("{name}-key"))
            };
            one("git", "password", "{basic: {username: machine}}")
                + &one("pypi", "password", "{basic: {username: machine}}")
                + &one("npm", "bearer", "{bearer: {}}")
        };
        let stand = Stand::before(plan, upstream, &hosts, more).await;
        Self { stand, _servers: servers, seen }
    }

    /// All that has come, of which nothing may be the program's own proof.
    fn assert_hidden(&self, host: &str) {
        let seen = fs::read_to_string(&self.seen).expect("what was seen");
        assert!(seen.contains(host), "{seen}");
        assert!(
            !seen.contains(&self.stand.token) && !seen.to_lowercase().contains("proxy-authorization"),
            "{seen}"
        );
        self.stand.fixture.sandbox.assert_swept();
    }
}

/// A bare repository with one commit.
fn repository(folder: &Path) -> std::path::PathBuf {
    let (work, root) = (folder.join("work"), folder.join("repositories"));
    let git = |arguments: &[&str]| {
        let author = ["-c", "user.name=a", "-c", "user.email=a@b.test", "-c", "init.defaultBranch=main"];
        let output = StdCommand::new("git").args(author).args(arguments).output().expect("git runs");
        assert!(output.status.success(), "{output:?}");
    };
    let (work_text, bare) = (work.display().to_string(), root.join("shop.git").display().to_string());
    git(&["init", "-q", &work_text]);
    fs::write(work.join("read-me"), "cloned without a key\n".repeat(5_000)).expect("a file");
    git(&["-C", &work_text, "add", "."]);
    git(&["-C", &work_text, "commit", "-q", "-m", "first"]);
    git(&["clone", "-q", "--bare", &work_text, &bare]);
    root
}

#[tokio::test(flavor = "multi_thread")]
async fn git_clones_through_a_proxy_from_a_server_that_demands_a_password() {
    needs!(Idp::installed(), python::installed(), is_there("git"));
    let closed = Closed::start().await;
    let trust = format!("http.proxySSLCAInfo={}", closed.stand.trusted.display());
    for (at, proxy) in [closed.stand.local(), closed.stand.over_tls()].iter().enumerate() {
        let into = format!("clone-{at}");
        let url = "https://git.up.test/shop.git";
        let said = closed.stand.run(proxy, "git", &["-c", &trust, "clone", "-q", url, &into]).await;
        assert!(said.is_well, "{}", said.text);
        let file = closed.stand.fixture.sandbox.providers().join(into).join("read-me");
        assert!(fs::read_to_string(file).expect("a clone").starts_with("cloned without a key"));
    }
    closed.assert_hidden("git.up.test");
}

#[tokio::test(flavor = "multi_thread")]
async fn pip_and_npm_install_through_a_proxy_from_registries_that_demand_a_key() {
    needs!(Idp::installed(), python::installed(), is_there("npm"));
    let closed = Closed::start().await;
    let (local, into) = (closed.stand.local(), closed.stand.fixture.sandbox.providers());
    let index = "https://pypi.up.test/simple/";
    let arguments = [
        "-m",
        "pip",
        "install",
        "-q",
        "--no-cache-dir",
        "--index-url",
        index,
        "--target",
        "packages",
        "tollgate-probe",
    ];
    let said = closed.stand.run(&local, &interpreter(), &arguments).await;
    assert!(said.is_well && into.join("packages/tollgate_probe/__init__.py").exists(), "{}", said.text);
    let arguments = [
        "install",
        "--prefix",
        "modules",
        "--cache",
        "npm-cache",
        "--no-audit",
        "--no-fund",
        "--registry",
        "https://npm.up.test/",
        "tollgate-probe@1.0.0",
    ];
    let said = closed.stand.run(&local, "npm", &arguments).await;
    let installed = into.join("modules/node_modules/tollgate-probe/package.json");
    assert!(said.is_well && installed.exists(), "{}", said.text);
    closed.assert_hidden("npm.up.test");
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_calls_aws_by_its_own_names_through_a_proxy_and_is_signed_for() {
    needs!(Idp::installed(), Moto::installed(), Haproxy::installed());
    let plan = Plan::new();
    let moto = Moto::start(&plan.sandbox).await;
    let user = moto.user(&plan.sandbox, "tollgate", &["s3:*"]);
    plan.sandbox.stands_for(&user.secret, &[SecretKind::File, SecretKind::SigV4]);
    plan.sandbox.input("keys/aws", json!({"id": user.id, "key": user.secret}).to_string());
    let server = plan.pki.server(&plan.sandbox, &[S3]);
    let front = Haproxy::front(&plan.sandbox, &server, moto.socket()).await;
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200)).await;
    let signed = "{sigv4: {accessKeyId: id, secretAccessKey: key, regions: [eu-central-1], services: [s3]}}";
    let more = |plan: &Plan, issuer: &str| {
        destination("s3", S3, front.port(), plan.pki.bundle(), "http")
            + &credential("aws", "s3", "{store: files, path: aws, fields: [id, key]}", signed)
            + &to_program(issuer, "s3", "aws")
    };
    let mut stand = Stand::before(plan, upstream, &[S3], more).await;
    moto.enforce(true);
    let argument = json!({"region": REGION}).to_string();
    let said = stand.run(&stand.local(), &interpreter(), &[&script("forward_aws.py"), &argument]).await;
    let answer: Value = serde_json::from_str(said.text.lines().last().unwrap_or_default()).expect(&said.text);
    assert_eq!(answer, json!({"read": "kept", "keys": ["a/ü.txt"]}));
    assert!(stand.fixture.gateway.stop().success());
    stand.fixture.sandbox.assert_swept();
}
