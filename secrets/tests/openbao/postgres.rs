//! A PostgreSQL of its own for one test, and a vault's database engine on it.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::bao::{Bao, free_port};

const PASSWORD: &str = "superuser-of-a-test";

pub(crate) struct Postgres {
    programs: PathBuf,
    port: u16,
    server: Child,
    _directory: TempDir,
}

impl Postgres {
    /// `None`, after saying so, where there is no PostgreSQL to start.
    pub(crate) fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            eprintln!("skipped: there is no PostgreSQL below /usr/lib/postgresql");
            return None;
        };
        let directory = TempDir::new().unwrap();
        let (data, password) = (directory.path().join("data"), directory.path().join("password"));
        fs::create_dir(&data).unwrap();
        fs::write(&password, PASSWORD).unwrap();
        // PostgreSQL refuses to run as root.
        let owner = nix::unistd::geteuid()
            .is_root()
            .then(|| nix::unistd::User::from_name("postgres").unwrap().unwrap());
        if let Some(owner) = &owner {
            for path in [directory.path(), &data, &password] {
                chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw())).unwrap();
            }
        }
        let command = |program: &str| {
            let mut command =
                Command::new(if owner.is_some() { "setpriv".into() } else { programs.join(program) });
            if let Some(owner) = &owner {
                let (user, group) = (format!("--reuid={}", owner.uid), format!("--regid={}", owner.gid));
                command.args([&user, &group, "--clear-groups"]).arg(programs.join(program));
            }
            command.current_dir(directory.path()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let made = command("initdb")
            .args(["--auth=scram-sha-256", "--username=postgres", "--no-sync", "--pwfile"])
            .args([&password, Path::new("-D"), &data])
            .status();
        assert!(made.unwrap().success(), "initdb failed");
        let port = free_port();
        let server = command("postgres")
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"])
            .args([Path::new("-k"), directory.path(), Path::new("-D"), &data])
            .spawn()
            .unwrap();
        let postgres = Self { programs, port, server, _directory: directory };
        let began = Instant::now();
        while postgres.ask("postgres", PASSWORD, "select 1").is_none() {
            assert!(began.elapsed() < Duration::from_secs(20), "PostgreSQL does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(postgres)
    }

    /// What a query answers; `None` where the user is not let in, or it fails.
    pub(crate) fn ask(&self, user: &str, password: &str, query: &str) -> Option<String> {
        let output = Command::new(self.programs.join("psql"))
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "-U",
                user,
                "-d",
                "postgres",
                "-AtXc",
                query,
            ])
            .env("PGPASSWORD", password)
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }

    /// The users that an engine made and that may log in now.
    pub(crate) fn users(&self) -> Vec<String> {
        let query = "select rolname from pg_roles where rolname like 'v-%' and rolvaliduntil > now()";
        self.ask("postgres", PASSWORD, query).unwrap().lines().map(Into::into).collect()
    }

    /// Has the vault make users here for the role `reader`, whose leases have these times.
    pub(crate) fn engine(&self, bao: &Bao, times: &[&str]) {
        bao.run(&["secrets", "enable", "database"]);
        let url = format!(
            "postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/postgres?sslmode=disable",
            self.port
        );
        bao.run(&[
            "write",
            "database/config/postgres",
            "plugin_name=postgresql-database-plugin",
            "allowed_roles=reader",
            "username=postgres",
            &format!("connection_url={url}"),
            &format!("password={PASSWORD}"),
        ]);
        let create = "creation_statements=CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';";
        bao.run(&[&["write", "database/roles/reader", "db_name=postgres", create], times].concat());
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    versions.map(|version| version.path().join("bin")).find(|programs| programs.join("initdb").exists())
}
