//! PostgreSQL as a database whose clients know its password.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};

use crate::ca::Identity;
use crate::process::{PATIENCE, Process, free_port, local};
use crate::sandbox::Sandbox;

/// A running server with the role `shop` and a database of that name; both end when dropped.
pub struct Postgres {
    address: SocketAddr,
    folder: PathBuf,
    password: String,
    arguments: Vec<String>,
    /// The MiB of [`Postgres::small_disk`], where there is one.
    disk: Option<u32>,
    logs: PathBuf,
    process: Process,
}

impl Postgres {
    /// Whether the server and its client are installed.
    pub fn installed() -> bool {
        programs().is_some_and(|folder| folder.join("psql").is_file())
    }

    /// Whether it can have a disk of its own.
    pub fn has_mounts() -> bool {
        geteuid().is_root()
            && ["mount", "setpriv"].iter().all(|name| Path::new("/usr/bin").join(name).exists())
    }

    /// Starts a server; with `tls`, one that takes nobody without TLS.
    pub async fn start(sandbox: &Sandbox, tls: Option<&Identity>) -> Self {
        Self::with_disk(sandbox, tls, None).await
    }

    /// With a disk of so many MiB for tablespaces, mounted in a namespace of the server's own: that needs root, and is gone with the server.
    pub async fn with_disk(sandbox: &Sandbox, tls: Option<&Identity>, disk: Option<u32>) -> Self {
        let address = local(free_port());
        let folder = std::env::temp_dir().join(format!("tollgate-postgres-{}", address.port()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("the server's folder");
        let password = sandbox.canary("database");
        let own = |name: &str, text: &[u8]| {
            let file = folder.join(name);
            fs::write(&file, text).expect("a file of the server");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its mode");
            give(&file);
            file
        };
        give(&folder);
        let password_file = own("password", password.as_bytes());
        let data = folder.join("data");
        let mut made = server("initdb");
        made.arg("-D").arg(&data).args(["-U", "shop", "-A", "scram-sha-256", "--no-sync", "--pwfile"]);
        let made = made.arg(password_file).output().expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut arguments: Vec<String> =
            ["-D", &data.display().to_string(), "-p", &address.port().to_string()]
                .into_iter()
                .chain(["-h", "127.0.0.1", "-F", "-c", "unix_socket_directories="])
                .map(str::to_owned)
                .collect();
        if let Some(identity) = tls {
            let certificate = own("server.pem", &fs::read(&identity.cert).expect("a certificate"));
            let key = own("server.key", &fs::read(&identity.key).expect("a key"));
            let files = [("ssl_cert_file", certificate), ("ssl_key_file", key)];
            let files = files.map(|(name, file)| format!("{name}={}", file.display()));
            arguments.extend(
                ["ssl=on".to_owned()].into_iter().chain(files).flat_map(|set| ["-c".to_owned(), set]),
            );
            // libpq takes no offer of channel binding on a connection that is plain at its end, which SCRAM over TLS always makes.
            own("data/pg_hba.conf", b"hostssl all all all password\n");
        }
        let logs = sandbox.providers();
        let process = serve(server_on(&folder, disk), address, &arguments, &logs).await;
        Self { address, folder, password, arguments, disk, logs, process }
    }

    /// A folder for a tablespace on a disk of its own.
    pub fn small_disk(&self) -> PathBuf {
        disk_of(&self.folder)
    }

    /// Ends the server and all connections to it, and waits for that.
    pub fn stop(&mut self) {
        self.process.signal(Signal::SIGINT);
        let begun = Instant::now();
        while self.process.ended().is_none() {
            assert!(begun.elapsed() < PATIENCE, "the server does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts it again with what it had.
    pub async fn restart(&mut self) {
        assert!(self.disk.is_none(), "what is on its disk would be gone");
        self.process = serve(server("postgres"), self.address, &self.arguments, &self.logs).await;
    }

    /// The password of the role `shop`.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What `psql` says to a query, at an address that is the server's or leads there.
    pub fn psql(&self, address: SocketAddr, mode: &str, query: &str) -> Output {
        let mut command = Command::new(programs().expect("PostgreSQL is installed").join("psql"));
        let target = format!(
            "host=127.0.0.1 port={} user=shop dbname=postgres sslmode={mode} connect_timeout=10",
            address.port()
        );
        command.args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &target, "-c", query]);
        command.env("PGPASSWORD", &self.password).output().expect("psql runs")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn disk_of(folder: &Path) -> PathBuf {
    folder.join("disk")
}

/// The server itself, which sees the disk if it has one.
fn server_on(folder: &Path, disk: Option<u32>) -> Command {
    let Some(size) = disk else { return server("postgres") };
    let (disk, user) = (disk_of(folder), user());
    fs::create_dir_all(&disk).expect("the place of its disk");
    let mut command = Command::new("unshare");
    // Of a namespace of its own: it is gone with the server, however that ends.
    command.args(["--mount", "sh", "-c"]).arg(format!(
        "mount -t tmpfs -o size={size}m,mode=0700,uid={uid},gid={gid} tmpfs {disk} && \
         exec setpriv --reuid={uid} --regid={gid} --clear-groups \"$@\"",
        uid = user.uid,
        gid = user.gid,
        disk = disk.display(),
    ));
    command.arg("sh").arg(programs().expect("PostgreSQL is installed").join("postgres")).current_dir("/");
    command
}

async fn serve(mut command: Command, address: SocketAddr, arguments: &[String], logs: &Path) -> Process {
    let mut process = Process::spawn(&format!("postgres-{}", address.port()), logs, command.args(arguments));
    process.listening(address).await;
    process
}

fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.map(|version| version.expect("an entry").path().join("bin"));
    folders.filter(|folder| folder.join("initdb").is_file()).max()
}

/// A program of the server's, which refuses to run as root.
fn server(program: &str) -> Command {
    let mut command = Command::new(programs().expect("PostgreSQL is installed").join(program));
    if geteuid().is_root() {
        let user = user();
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command.current_dir("/");
    command
}

fn give(file: &Path) {
    if geteuid().is_root() {
        let user = user();
        chown(file, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("its owner");
    }
}

fn user() -> User {
    User::from_name("postgres").expect("the list of users").expect("the user that Debian's package makes")
}
