//! SPIRE: a server with an agent on this machine, for one trust domain.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::ca::{Authority, Identity};
use crate::process::{Process, free_port, local};
use crate::sandbox::{Sandbox, parts_dir, random};

/// How long an agent may take to hear of an entry.
const HEARD: Duration = Duration::from_secs(60);

/// A running server and its agent; both end when dropped.
pub struct Spire {
    sandbox: Sandbox,
    domain: String,
    /// Sockets have short paths.
    sockets: PathBuf,
    data: PathBuf,
    _server: Process,
    agent: Option<Process>,
}

/// What workloads of a program get.
pub struct Entry<'a> {
    /// The path of its SPIFFE id.
    pub path: &'a str,
    /// The program.
    pub program: &'a Path,
    /// DNS names of its SVIDs.
    pub names: &'a [&'a str],
    /// How long they last, in seconds.
    pub seconds: u32,
    /// The trust domain that it is federated with.
    pub federated: Option<&'a str>,
}

impl Spire {
    /// Whether SPIRE is installed.
    pub fn installed() -> bool {
        binary().is_file()
    }

    /// The program of the workloads that [`Spire::svid`] fetches for.
    pub fn client() -> PathBuf {
        binary().canonicalize().expect("SPIRE is installed")
    }

    /// Starts both for a trust domain. Where there is `upstream`, its root signs the server's authorities.
    pub async fn start(sandbox: &Sandbox, domain: &str, upstream: Option<&Authority>) -> Self {
        let sockets = std::env::temp_dir().join(format!("spire-{:016x}", random()));
        fs::create_dir_all(&sockets).expect("folder of sockets");
        let data = sandbox.inputs().join(format!("spire-{domain}"));
        fs::create_dir_all(&data).expect("folder of SPIRE");
        let port = free_port();
        let config = sandbox
            .input(&format!("spire-{domain}/server.conf"), server(domain, port, (&sockets, &data), upstream));
        let mut command = Command::new(binary());
        command.args(["server", "run", "-config"]).arg(config);
        let mut process =
            Process::spawn(&format!("spire-server-{domain}"), &sandbox.providers(), &mut command);
        process.listening(local(port)).await;
        let mut spire = Self {
            sandbox: sandbox.clone(),
            domain: domain.to_owned(),
            sockets,
            data,
            _server: process,
            agent: None,
        };
        let socket = spire.sockets.join("server.sock");
        let began = Instant::now();
        while !socket.exists() {
            assert!(began.elapsed() < HEARD, "no socket of the server");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        fs::write(spire.bundle(), spire.ask(&["bundle", "show"])).expect("bundle");
        spire
            .sandbox
            .input(&format!("spire-{domain}/agent.conf"), agent(domain, port, &spire.sockets, &spire.data));
        let token = spire.ask(&["token", "generate", "-spiffeID", &format!("spiffe://{domain}/agent")]);
        let token = token.trim().strip_prefix("Token: ").expect("a join token").to_owned();
        spire.start_agent(&["-joinToken", &token]).await;
        spire
    }

    /// The authorities of the trust domain, in PEM.
    pub fn bundle(&self) -> PathBuf {
        self.data.join("bundle.pem")
    }

    /// The Workload API.
    pub fn socket(&self) -> PathBuf {
        self.sockets.join("agent.sock")
    }

    /// Trusts what `other` certifies, for the entries that name it.
    pub fn federate(&self, other: &Self) {
        let bundle = self.data.join(format!("{}.json", other.domain));
        fs::write(&bundle, other.ask(&["bundle", "show", "-format", "spiffe"])).expect("bundle");
        let bundle = bundle.display().to_string();
        self.ask(&[
            "bundle",
            "set",
            "-format",
            "spiffe",
            "-id",
            &format!("spiffe://{}", other.domain),
            "-path",
            &bundle,
        ]);
    }

    /// Forgets a trust domain, and every federation with it.
    pub fn part(&self, other: &Self) {
        self.ask(&["bundle", "delete", "-mode", "dissociate", "-id", &format!("spiffe://{}", other.domain)]);
    }

    /// Registers a program of this machine.
    pub fn register(&self, entry: &Entry<'_>) {
        let agent = format!("spiffe://{}/agent", self.domain);
        let id = format!("spiffe://{}{}", self.domain, entry.path);
        let program = entry.program.canonicalize().expect("a program");
        let selector = format!("unix:path:{}", program.display());
        let seconds = entry.seconds.to_string();
        let federated = entry.federated.map(|domain| format!("spiffe://{domain}"));
        let mut arguments = vec![
            "entry",
            "create",
            "-parentID",
            &agent,
            "-spiffeID",
            &id,
            "-selector",
            &selector,
            "-x509SVIDTTL",
            &seconds,
        ];
        arguments.extend(entry.names.iter().flat_map(|name| ["-dns", name]));
        arguments.extend(federated.iter().flat_map(|id| ["-federatesWith", id.as_str()]));
        self.ask(&arguments);
    }

    /// A new SVID of the program [`Spire::client`], once the agent knows of its entry.
    pub async fn svid(&self) -> Identity {
        let folder = self.sandbox.inputs().join(format!("svid-{:08x}", random() as u32));
        fs::create_dir_all(&folder).expect("folder of an SVID");
        let began = Instant::now();
        loop {
            let mut command = Command::new(binary());
            command.args(["agent", "api", "fetch", "x509", "-silent", "-write"]).arg(&folder);
            let output = command.arg("-socketPath").arg(self.socket()).output().expect("SPIRE runs");
            if output.status.success() && folder.join("svid.0.pem").exists() {
                return Identity { cert: folder.join("svid.0.pem"), key: folder.join("svid.0.key") };
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(began.elapsed() < HEARD, "no SVID: {said}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// A JWT-SVID of the program [`Spire::client`], once the agent knows of its entry.
    pub async fn jwt_svid(&self, audience: &str) -> String {
        let began = Instant::now();
        loop {
            let mut command = Command::new(binary());
            command.args(["agent", "api", "fetch", "jwt", "-audience", audience]);
            let output = command.arg("-socketPath").arg(self.socket()).output().expect("SPIRE runs");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            if let Some(token) = said.lines().map(str::trim).find(|line| line.starts_with("eyJ")) {
                self.sandbox.needle(token);
                return token.to_owned();
            }
            assert!(began.elapsed() < HEARD, "no JWT-SVID: {said}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The keys (PEM) that its JWT-SVIDs are signed with, all on P-256.
    pub fn jwt_keys(&self) -> Vec<String> {
        let bundle: Value =
            serde_json::from_str(&self.ask(&["bundle", "show", "-format", "spiffe"])).expect("JSON");
        let keys = bundle["keys"].as_array().expect("keys").iter().filter(|key| key["use"] == "jwt-svid");
        let pem = |key: &Value| {
            let of = |name: &str| {
                URL_SAFE_NO_PAD.decode(key[name].as_str().expect("a coordinate")).expect("base64")
            };
            // SubjectPublicKeyInfo of a key on P-256, up to its point (RFC 5480).
            let mut der = vec![0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
            der.extend([0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04]);
            der.extend(of("x").into_iter().chain(of("y")));
            format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
        };
        keys.map(pem).collect()
    }

    /// Ends the agent as a crash does.
    pub fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill();
        }
    }

    /// Starts the agent again, which is known to the server.
    pub async fn restart_agent(&mut self) {
        self.start_agent(&[]).await;
    }

    async fn start_agent(&mut self, arguments: &[&str]) {
        // What a crashed one leaves behind.
        let _ = fs::remove_file(self.socket());
        let mut command = Command::new(binary());
        command.args(["agent", "run", "-config"]).arg(self.data.join("agent.conf")).args(arguments);
        let name = format!("spire-agent-{}", self.domain);
        let mut process = Process::spawn(&name, &self.sandbox.providers(), &mut command);
        let socket = self.socket();
        process.ready(|_| std::os::unix::net::UnixStream::connect(&socket).ok().map(drop)).await;
        self.agent = Some(process);
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(binary());
        command.arg("server").args(arguments).arg("-socketPath").arg(self.sockets.join("server.sock"));
        let output = command.output().expect("SPIRE runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }
}

impl Drop for Spire {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.sockets);
    }
}

fn binary() -> PathBuf {
    parts_dir().join("spire")
}

fn server(domain: &str, port: u16, (sockets, data): (&Path, &Path), upstream: Option<&Authority>) -> String {
    let upstream = upstream.map_or_else(String::new, |root| {
        let key = data.join("upstream.key");
        fs::write(&key, root.key_pem()).expect("key of the root");
        format!(
            "UpstreamAuthority \"disk\" {{ plugin_data {{ key_file_path = \"{}\" cert_file_path = \"{}\" }} }}",
            key.display(),
            root.bundle().display()
        )
    });
    format!(
        "server {{ bind_address = \"127.0.0.1\" bind_port = \"{port}\" trust_domain = \"{domain}\" log_level = \"INFO\"
           socket_path = \"{sockets}/server.sock\" data_dir = \"{data}\" ca_ttl = \"24h\" jwt_issuer = \"https://{domain}\" }}
         plugins {{
           DataStore \"sql\" {{ plugin_data {{ database_type = \"sqlite3\" connection_string = \"{data}/server.sqlite3\" }} }}
           NodeAttestor \"join_token\" {{ plugin_data {{}} }}
           KeyManager \"memory\" {{ plugin_data {{}} }}
           {upstream}
         }}\n",
        sockets = sockets.display(),
        data = data.display(),
    )
}

fn agent(domain: &str, port: u16, sockets: &Path, data: &Path) -> String {
    format!(
        "agent {{ server_address = \"127.0.0.1\" server_port = \"{port}\" trust_domain = \"{domain}\" log_level = \"INFO\"
           socket_path = \"{sockets}/agent.sock\" data_dir = \"{data}/agent\" trust_bundle_path = \"{data}/bundle.pem\"
           experimental {{ sync_interval = \"1s\" }} }}
         plugins {{
           NodeAttestor \"join_token\" {{ plugin_data {{}} }}
           KeyManager \"disk\" {{ plugin_data {{ directory = \"{data}\" }} }}
           WorkloadAttestor \"unix\" {{ plugin_data {{ discover_workload_path = true }} }}
         }}\n",
        sockets = sockets.display(),
        data = data.display(),
    )
}
