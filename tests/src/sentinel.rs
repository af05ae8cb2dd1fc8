//! A Redis with a copy of it, and the sentinels that watch both and make the copy the primary when the primary is gone.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::gateway::eventually;
use crate::process::{Process, free_port, local};
use crate::redis::{Redis, program};
use crate::sandbox::Sandbox;

/// What the sentinels call the primary.
pub const PRIMARY: &str = "limits";

/// Two servers and three sentinels; they end when dropped.
pub struct Sentinels {
    /// Whichever is the primary now.
    pub servers: [Redis; 2],
    sentinels: Vec<(SocketAddr, Process)>,
}

impl Sentinels {
    /// Starts all. The sentinels take a server that was silent for `down_after` for gone.
    pub async fn start(sandbox: &Sandbox, down_after: Duration) -> Self {
        let password = sandbox.canary("cache");
        let lines = "repl-diskless-sync-delay 0\nrepl-ping-replica-period 1\n";
        let first = Redis::with(sandbox, password.clone(), lines).await;
        let lines = format!("{lines}replicaof 127.0.0.1 {}\n", first.port());
        let second = Redis::with(sandbox, password.clone(), &lines).await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let address = local(free_port());
            let name = format!("sentinel-{}", address.port());
            let config = format!(
                "bind 127.0.0.1\nport {}\ndir {}\nsentinel monitor {PRIMARY} 127.0.0.1 {} 2\n\
                 sentinel auth-pass {PRIMARY} {password}\nsentinel down-after-milliseconds {PRIMARY} {}\n\
                 sentinel failover-timeout {PRIMARY} 3000\n",
                address.port(),
                sandbox.providers().display(),
                first.port(),
                down_after.as_millis(),
            );
            // It writes what it learns into its configuration.
            let config = sandbox.input(&format!("{name}.conf"), config);
            let mut command = Command::new(program("redis-server").expect("Redis is installed"));
            let mut process =
                Process::spawn(&name, &sandbox.providers(), command.arg(config).arg("--sentinel"));
            process.listening(address).await;
            sentinels.push((address, process));
        }
        let all = Self { servers: [first, second], sentinels };
        eventually("each sentinel knows the copy and the others", || {
            all.sentinels.iter().all(|(at, _)| {
                let known = all.ask(*at, &["SENTINEL", "MASTER", PRIMARY]);
                ["num-slaves\n1\n", "num-other-sentinels\n2\n"].iter().all(|field| known.contains(field))
            })
        })
        .await;
        all
    }

    /// Where the sentinels listen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sentinels.iter().map(|(at, _)| *at).collect()
    }

    /// The password of both servers. The sentinels want none.
    pub fn password(&self) -> &str {
        self.servers[0].password()
    }

    /// Which of `servers` the sentinels name.
    pub fn primary(&self) -> usize {
        let answer = self.ask(self.sentinels[0].0, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", PRIMARY]);
        let port: u16 = answer.lines().nth(1).expect("an address").parse().expect("a port");
        self.servers.iter().position(|server| server.port() == port).expect("one of the two")
    }

    /// Has the copy made the primary while both run, and waits for that.
    pub async fn fail_over(&self) {
        let before = self.primary();
        self.ask(self.sentinels[0].0, &["SENTINEL", "FAILOVER", PRIMARY]);
        self.failed_over(before).await;
    }

    /// Until another server than this one is the primary, and says so itself.
    pub async fn failed_over(&self, before: usize) {
        eventually("the copy is the primary", || {
            self.primary() != before && self.servers[1 - before].ask(&["ROLE"]).starts_with("master")
        })
        .await;
    }

    fn ask(&self, at: SocketAddr, arguments: &[&str]) -> String {
        let mut command = Command::new(program("redis-cli").expect("Redis is installed"));
        command.args(["-h", "127.0.0.1", "-p", &at.port().to_string()]).args(arguments);
        let output = command.output().expect("redis-cli runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }
}
