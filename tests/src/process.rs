//! Child processes: logged to files, waited for until they are ready, ended by id.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a part may take to become ready on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running child. It stays in the test's process group, so that an interrupt from the terminal or from `tests/run`
/// reaches it too; dropping the handle ends it.
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `<logs>/<name>.stdout` and `.stderr`.
    pub fn spawn(name: &str, logs: &Path, command: &mut Command) -> Self {
        fs::create_dir_all(logs).expect("log folder");
        let stdout = logs.join(format!("{name}.stdout"));
        let stderr = logs.join(format!("{name}.stderr"));
        let append = |path: &Path| File::options().create(true).append(true).open(path).expect("log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(append(&stdout))
            .stderr(append(&stderr))
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {command:?}: {error}"));
        Self { name: name.to_owned(), child, stdout, stderr }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout, 0)
    }

    /// Standard output from a byte offset on.
    pub fn stdout_from(&self, offset: u64) -> String {
        read(&self.stdout, offset)
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr, 0)
    }

    /// The exit status, once it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait")
    }

    /// Waits until `ready` holds, failing at once if the process ends first.
    pub async fn ready<T>(&mut self, mut ready: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = ready(self) {
                return value;
            }
            let ended = self.ended();
            if ended.is_some() || Instant::now() > deadline {
                let what = ended.map_or_else(|| "not ready in time".to_owned(), |status| status.to_string());
                panic!("{}: {what}\n{}\n{}", self.name, tail(&self.stdout()), tail(&self.stderr()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until something accepts TCP connections at `address`.
    pub async fn listening(&mut self, address: SocketAddr) {
        self.ready(|_| TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok()).await;
    }

    /// Sends a signal; a process that has ended already gets none.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.id().cast_signed()), signal);
    }

    /// SIGTERM, then waits for the end; SIGKILL after `patience`.
    pub fn terminate(&mut self, patience: Duration) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            if Instant::now() > deadline {
                return self.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGKILL, and the end.
    pub fn kill(&mut self) -> ExitStatus {
        let _ = self.child.kill();
        self.child.wait().expect("wait")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            self.kill();
        }
    }
}

fn read(path: &Path, offset: u64) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let _ = file.seek(SeekFrom::Start(offset));
        let _ = file.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last lines of a log, for the message of a failure.
pub fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// A free port below the range the kernel hands out by itself, so that no outgoing connection takes it meanwhile. The port
/// after it is left free too: OpenBao takes that for its cluster.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 160) as u16 * 100;
    loop {
        let port = 16_000 + (start + NEXT.fetch_add(2, Ordering::Relaxed)) % 16_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// `127.0.0.1:port`.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
