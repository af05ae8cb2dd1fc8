//! The gateway under test: the real binary with generated settings, watched from outside.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::ca::Identity;
use crate::process::{Process, free_port};
use crate::sandbox::{Sandbox, target_dir};

/// How long a graceful end may take before it counts as hung.
const DRAIN: Duration = Duration::from_secs(20);

/// What `tollgate.yaml` and the resources directory say.
#[derive(Clone)]
pub struct Settings {
    /// Authorities that are the gateway's own.
    pub names: Vec<String>,
    /// Trust domains and their bundles.
    pub trust: Vec<(String, PathBuf)>,
    /// The gateway's own certificate.
    pub certificate: Identity,
    /// Whether callers show a certificate: `required`, `optional` or `none`.
    pub client_certificate: &'static str,
    /// Further listeners, each as YAML in flow form.
    pub listeners: Vec<String>,
    /// Issuers whose tokens prove callers, each as YAML in flow form.
    pub tokens: Vec<String>,
    /// File name and text of each resource file.
    pub resources: Vec<(String, String)>,
    /// Ranges that may be dialled though private.
    pub private_ranges: Vec<String>,
    /// Environment variables on top of the test's own.
    pub environment: Vec<(String, String)>,
    /// Further members of `egress`, as YAML.
    pub egress: String,
    /// Further members of `ledger`, as YAML.
    pub ledger: String,
    /// Further top-level members of `tollgate.yaml`.
    pub extra: String,
}

impl Settings {
    /// Names `localhost` and `tollgate.test`, loopback dialled, logs as loud as they get.
    pub fn new(certificate: &Identity) -> Self {
        Self {
            names: vec!["localhost".to_owned(), "tollgate.test".to_owned()],
            trust: Vec::new(),
            certificate: certificate.clone(),
            client_certificate: "required",
            listeners: Vec::new(),
            tokens: Vec::new(),
            resources: Vec::new(),
            private_ranges: vec!["127.0.0.0/8".to_owned()],
            environment: vec![("RUST_LOG".to_owned(), "trace".to_owned())],
            egress: String::new(),
            ledger: String::new(),
            extra: String::new(),
        }
    }

    /// Adds or replaces a resource file.
    pub fn resource(mut self, file: &str, text: impl Into<String>) -> Self {
        self.resources.retain(|(name, _)| name != file);
        self.resources.push((file.to_owned(), text.into()));
        self
    }

    /// Trusts a bundle for a trust domain.
    pub fn trusting(mut self, domain: &str, bundle: &Path) -> Self {
        self.trust.push((domain.to_owned(), bundle.to_owned()));
        self
    }

    fn yaml(&self, admin_token: &Path, seal_key: &Path) -> String {
        let mut trust = String::new();
        for (domain, bundle) in &self.trust {
            let _ = writeln!(trust, "    {domain}: {{bundleFile: {}}}", bundle.display());
        }
        format!(
            "listeners: [{{name: mesh, address: \"127.0.0.1:0\", protocols: [h2, http/1.1], clientCertificate: {}}}{}]\n\
             names: [{}]\n\
             identity:\n  certificate: {{certFile: {}, keyFile: {}}}\n  tokens: [{}]\n  trustDomains:\n{trust}\
             resources: ./resources\n\
             dataDir: ./data\n\
             admin: {{address: \"127.0.0.1:0\", tokenFile: {}}}\n\
             egress: {{privateRanges: [{}]{}}}\n\
             ledger: {{sealKeyFile: {}{}}}\n\
             drain: {{delay: 100ms, timeout: 10s}}\n{}",
            self.client_certificate,
            self.listeners.iter().map(|listener| format!(", {listener}")).collect::<String>(),
            self.names.join(", "),
            self.certificate.cert.display(),
            self.certificate.key.display(),
            self.tokens.join(", "),
            admin_token.display(),
            self.private_ranges.join(", "),
            if self.egress.is_empty() { String::new() } else { format!(", {}", self.egress) },
            seal_key.display(),
            if self.ledger.is_empty() { String::new() } else { format!(", {}", self.ledger) },
            self.extra,
        )
    }
}

/// A folder with settings and resources, and the binary to run on it.
pub struct Gateway {
    sandbox: Sandbox,
    home: PathBuf,
    settings: Settings,
    token: String,
    running: Option<Running>,
}

struct Running {
    process: Process,
    mesh: SocketAddr,
    admin: SocketAddr,
}

impl Gateway {
    /// Writes settings and resources without starting anything: for `check` and `explain`.
    pub fn prepare(sandbox: &Sandbox, settings: &Settings) -> Self {
        let home = sandbox.sinks().join("gateway");
        for folder in ["resources", "data", "tmp"] {
            fs::create_dir_all(home.join(folder)).expect("gateway folder");
        }
        let token = sandbox.canary("admin");
        let token_file = sandbox.input("admin.token", &token);
        let seal = sandbox.canary("seal");
        let seal_file = sandbox.input("seal.key", &seal);
        fs::write(home.join("tollgate.yaml"), settings.yaml(&token_file, &seal_file)).expect("tollgate.yaml");
        let gateway =
            Self { sandbox: sandbox.clone(), home, settings: settings.clone(), token, running: None };
        for (file, text) in &settings.resources {
            gateway.write_resource(file, text);
        }
        gateway
    }

    /// Starts the gateway and waits until it is ready.
    pub async fn start(sandbox: &Sandbox, settings: &Settings) -> Self {
        let mut gateway = Self::prepare(sandbox, settings);
        gateway.launch().await;
        gateway.ready().await;
        gateway
    }

    /// Starts the gateway on what its folder holds and waits until it listens.
    pub async fn launch(&mut self) {
        let offset = fs::metadata(self.sandbox.sinks().join("tollgate.stdout")).map_or(0, |meta| meta.len());
        let mut process = Process::spawn(
            "tollgate",
            &self.sandbox.sinks(),
            self.command().args(["serve", "--config", "tollgate.yaml"]),
        );
        let (mesh, admin) = process
            .ready(|process| {
                let log = process.stdout_from(offset);
                Some((listening(&log, "mesh")?, listening(&log, "admin")?))
            })
            .await;
        let arguments = fs::read(format!("/proc/{}/cmdline", process.id())).expect("its arguments");
        fs::write(self.sandbox.sinks().join("proc-cmdline"), arguments).expect("proc copy");
        fs::write(self.sandbox.sinks().join("proc-environ"), self.environ(process.id())).expect("proc copy");
        self.running = Some(Running { process, mesh, admin });
    }

    /// The environment that the process has, without the variables that an environment store reads: they are that store, and what
    /// else holds them is to be found.
    fn environ(&self, pid: u32) -> Vec<u8> {
        // Only root may read it of a process that keeps its memory private. Nothing but what it was given can be in it: changing
        // one's own environment takes `unsafe`.
        let given = || {
            let variables = std::env::vars().chain(self.settings.environment.iter().cloned());
            variables.map(|(name, value)| format!("{name}={value}\0")).collect::<String>().into_bytes()
        };
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_else(|_| given());
        let entries = environ.split_inclusive(|byte| *byte == 0);
        entries.filter(|entry| !entry.starts_with(b"TOLLGATE_SECRET_")).flatten().copied().collect()
    }

    /// Waits until `/readyz` says 200.
    pub async fn ready(&mut self) {
        let admin = self.running().admin;
        let running = self.running.as_mut().expect("a running gateway");
        running.process.ready(|_| (admin_get(admin, "/readyz", "").ok()?.0 == 200).then_some(())).await;
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("a running gateway")
    }

    /// Where callers connect.
    pub fn address(&self) -> SocketAddr {
        self.running().mesh
    }

    /// Where another listener of the settings listens.
    pub fn listener(&self, name: &str) -> SocketAddr {
        let log = fs::read_to_string(self.sandbox.sinks().join("tollgate.stdout")).unwrap_or_default();
        // The last start's.
        let mut begun = log.lines().rev().filter(|line| line.contains("listening"));
        begun.find_map(|line| listening(line, name)).expect("a listener of this name")
    }

    /// Where the admin port listens.
    pub fn admin(&self) -> SocketAddr {
        self.running().admin
    }

    /// The folder with `tollgate.yaml`, `resources/` and `data/`.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.running().process.id()
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The admin token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Writes a resource file whole, by rename, as an editor or a mounted volume does.
    pub fn write_resource(&self, file: &str, text: &str) {
        let path = self.home.join("resources").join(file);
        let staged = self.home.join("tmp").join(format!("{file}.new"));
        fs::write(&staged, text).expect("resource file");
        fs::rename(staged, path).expect("resource file in place");
    }

    /// Replaces a resource file and waits until it is in force.
    pub async fn replace(&self, file: &str, text: &str) {
        let before = self.generation();
        self.write_resource(file, text);
        self.reloaded(before).await;
    }

    /// The generation being served.
    pub fn generation(&self) -> u64 {
        self.snapshot()["generation"].as_u64().expect("the snapshot says its generation")
    }

    /// Waits until a generation above `after` serves.
    pub async fn reloaded(&self, after: u64) {
        eventually("a new generation serves", || self.generation() > after).await;
    }

    /// SIGHUP: read everything again.
    pub fn hang_up(&self) {
        self.running().process.signal(Signal::SIGHUP);
    }

    /// SIGTERM, not waiting for the end.
    pub fn begin_drain(&self) {
        self.running().process.signal(Signal::SIGTERM);
    }

    /// SIGKILL, not waiting for the end.
    pub fn crash(&self) {
        self.running().process.signal(Signal::SIGKILL);
    }

    /// SIGINT, not waiting for the end.
    pub fn interrupt(&self) {
        self.running().process.signal(Signal::SIGINT);
    }

    /// Waits for an end that it was told of before.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut running = self.running.take().expect("a running gateway");
        eventually("the gateway ends", || running.process.ended().is_some()).await;
        running.process.ended().expect("it has ended")
    }

    /// Has it listen at the same ports whenever it starts.
    pub fn keep_ports(&self) {
        for before in ["{name: mesh, address: \"", "admin: {address: \""] {
            self.edit_settings(
                &format!("{before}127.0.0.1:0"),
                &format!("{before}127.0.0.1:{}", free_port()),
            );
        }
    }

    /// Changes what `tollgate.yaml` says, before a start.
    pub fn edit_settings(&self, from: &str, to: &str) {
        let file = self.home.join("tollgate.yaml");
        let text = fs::read_to_string(&file).expect("tollgate.yaml");
        assert!(text.contains(from), "{from}: {text}");
        fs::write(file, text.replacen(from, to, 1)).expect("tollgate.yaml");
    }

    /// Replaces `tollgate.yaml`, before a start.
    pub fn write_settings(&self, text: &str) {
        fs::write(self.home.join("tollgate.yaml"), text).expect("tollgate.yaml");
    }

    /// The folder with its keys, which is not swept.
    pub fn inputs(&self) -> PathBuf {
        self.sandbox.inputs()
    }

    /// SIGTERM, and the exit status after the drain.
    pub fn stop(&mut self) -> ExitStatus {
        self.capture();
        let mut running = self.running.take().expect("a running gateway");
        let status = running.process.terminate(DRAIN);
        assert!(status.code().is_some(), "the drain hung, or the gateway crashed: {status}");
        status
    }

    /// SIGKILL: what a power cut looks like to the process.
    pub fn kill(&mut self) {
        self.running.take().expect("a running gateway").process.kill();
    }

    /// Starts it again on the same folder; ports change.
    pub async fn restart(&mut self) {
        self.launch().await;
        self.ready().await;
    }

    /// GET on the admin port with the token: status and body.
    pub fn admin_get(&self, path: &str) -> (u16, String) {
        admin_get(self.running().admin, path, &format!("Authorization: Bearer {}\r\n", self.token))
            .expect("an admin answer")
    }

    /// GET on the admin port with these header lines instead of the token's: status and body.
    pub fn admin_get_with(&self, path: &str, headers: &str) -> (u16, String) {
        admin_get(self.running().admin, path, headers).expect("an admin answer")
    }

    /// The metrics.
    pub fn metrics(&self) -> Metrics {
        let (status, text) = self.admin_get("/metrics");
        assert_eq!(status, 200, "{text}");
        Metrics::parse(&text)
    }

    /// The redacted snapshot.
    pub fn snapshot(&self) -> Value {
        let (status, text) = self.admin_get("/debug/snapshot");
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).expect("the snapshot is JSON")
    }

    /// The log so far: JSON lines of standard output.
    pub fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.sandbox.sinks().join("tollgate.stdout")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Runs a subcommand on the same settings. Its output is kept for the sweep.
    pub fn tollgate(&self, arguments: &[&str]) -> Output {
        let output = self
            .command()
            .args(arguments)
            .args(["--config", "tollgate.yaml"])
            .output()
            .expect("the binary runs");
        let log = self.sandbox.sinks().join("cli.txt");
        let mut log = fs::OpenOptions::new().create(true).append(true).open(log).expect("cli log");
        log.write_all(&output.stdout).and_then(|()| log.write_all(&output.stderr)).expect("cli log");
        output
    }

    fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.current_dir(&self.home).env("TMPDIR", self.home.join("tmp"));
        command.envs(self.settings.environment.iter().cloned());
        command
    }

    /// Copies what the admin port shows to the sinks.
    fn capture(&self) {
        let Some(running) = &self.running else { return };
        for path in
            ["/healthz", "/readyz", "/metrics", "/debug/snapshot", "/debug/credentials", "/debug/budgets"]
        {
            let token = format!("Authorization: Bearer {}\r\n", self.token);
            if let Ok((_, body)) = admin_get(running.admin, path, &token) {
                let _ =
                    fs::write(self.sandbox.sinks().join(format!("admin{}", path.replace('/', "-"))), body);
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.capture();
        if let Some(mut running) = self.running.take() {
            running.process.terminate(Duration::from_secs(3));
        }
    }
}

/// The binary under test: `TOLLGATE_BIN`, or the debug build.
pub fn binary() -> PathBuf {
    std::env::var_os("TOLLGATE_BIN").map_or_else(|| target_dir().join("debug/tollgate"), PathBuf::from)
}

/// Asks again until `holds`, for at most half a minute.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never happened: {what}");
}

/// A log line's message: `tracing` nests it under `fields` unless flattened.
pub fn field<'a>(line: &'a Value, name: &str) -> &'a Value {
    if line["fields"][name].is_null() { &line[name] } else { &line["fields"][name] }
}

fn listening(log: &str, listener: &str) -> Option<SocketAddr> {
    // The same in a log for people.
    let (before, named) = (" listening ", format!("listener={listener} "));
    let quoted = format!("listener=\"{listener}\" ");
    let text =
        log.lines().find(|line| line.contains(before) && (line.contains(&named) || line.contains(&quoted)));
    if let Some(address) =
        text.and_then(|line| line.split("address=").nth(1)?.split_whitespace().next()?.parse().ok())
    {
        return Some(address);
    }
    log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|line| {
        let this = field(&line, "message") == "listening" && field(&line, "listener") == listener;
        this.then(|| field(&line, "address").as_str()?.parse().ok())?
    })
}

fn admin_get(address: SocketAddr, path: &str, headers: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let host = if headers.to_ascii_lowercase().contains("host:") {
        String::new()
    } else {
        format!("Host: {address}\r\n")
    };
    stream.write_all(format!("GET {path} HTTP/1.0\r\n{host}{headers}\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned())))
}

/// A Prometheus exposition, as far as scenarios ask.
pub struct Metrics(Vec<(String, f64)>);

impl Metrics {
    fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The sum of all series of `name` whose label text contains every one of `labels`, e.g. `reason="expired"`.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let matches = |series: &str| {
            let (own, text) = series.split_once('{').unwrap_or((series, ""));
            own == name && labels.iter().all(|label| text.contains(label))
        };
        self.0.iter().filter(|(series, _)| matches(series)).map(|(_, value)| value).sum()
    }

    /// Every series, for messages of failures.
    pub fn series(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(series, _)| series.as_str())
    }
}
