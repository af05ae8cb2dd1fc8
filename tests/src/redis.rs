//! Redis as a database whose clients know its password.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::process::{Process, free_port, local};
use crate::sandbox::Sandbox;

/// A running server; it ends when dropped.
pub struct Redis {
    address: SocketAddr,
    password: String,
    config: PathBuf,
    logs: PathBuf,
    process: Option<Process>,
}

impl Redis {
    /// Whether the server and its client are installed.
    pub fn installed() -> bool {
        program("redis-server").is_some() && program("redis-cli").is_some()
    }

    /// Starts a server that keeps nothing and wants a password.
    pub async fn start(sandbox: &Sandbox) -> Self {
        let password = sandbox.canary("cache");
        Self::with(sandbox, password, "").await
    }

    /// Starts one with this password, whose configuration has these lines too.
    pub async fn with(sandbox: &Sandbox, password: String, lines: &str) -> Self {
        let address = local(free_port());
        let config = format!(
            "bind 127.0.0.1\nport {}\nrequirepass \"{password}\"\nmasterauth \"{password}\"\nsave \"\"\n\
             appendonly no\ndir {}\n{lines}",
            address.port(),
            sandbox.providers().display()
        );
        let config = sandbox.input(&format!("redis-{}.conf", address.port()), config);
        let mut redis = Self { address, password, config, logs: sandbox.providers(), process: None };
        redis.restart().await;
        redis
    }

    /// SIGKILL: it forgets everything.
    pub fn kill(&mut self) {
        self.process.take().expect("a running server").kill();
    }

    /// Whether it was started and not killed.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Signals it.
    pub fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("a running server").signal(signal);
    }

    /// Starts it at the same port, with nothing in it.
    pub async fn restart(&mut self) {
        let mut command = Command::new(program("redis-server").expect("Redis is installed"));
        let name = format!("redis-{}", self.address.port());
        let mut process = Process::spawn(&name, &self.logs, command.arg(&self.config));
        process.listening(self.address).await;
        self.process = Some(process);
    }

    /// Its password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// What `redis-cli` answers.
    pub fn ask(&self, arguments: &[&str]) -> String {
        let output = self.client(self.address).args(arguments).output().expect("redis-cli runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `redis-cli` with the password, at an address that is the server's or leads there. Its arguments are added.
    pub fn client(&self, address: SocketAddr) -> Command {
        let mut command = Command::new(program("redis-cli").expect("Redis is installed"));
        command.env("REDISCLI_AUTH", &self.password);
        command.args(["-h", "127.0.0.1", "-p", &address.port().to_string()]);
        command
    }
}

pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').map(|folder| PathBuf::from(folder).join(name)).find(|path| path.is_file())
}
