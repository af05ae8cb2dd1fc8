//! One scenario's folder: what the gateway may show, what it may not, and the canaries that tell them apart.
//!
//! `sinks/` holds everything a leak could reach and is swept; `inputs/` (keys, certificates) and `providers/` (logs of
//! parts that rightly see the key) are not. Canaries are listed outside all three.

use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions};
use std::hash::BuildHasher;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};

use crate::secret_kinds::SecretKind;

/// A scenario's folder. Clones share it; the folder stays for the sweep and is removed with the run's.
#[derive(Clone)]
pub struct Sandbox(Arc<Inner>);

struct Inner {
    name: String,
    root: PathBuf,
    needles: PathBuf,
    kinds: PathBuf,
    answers: AtomicUsize,
}

impl Sandbox {
    /// A sandbox named after the running test, numbered from the second on. Scenarios never share a folder.
    pub fn new() -> Self {
        static MADE: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let thread = std::thread::current();
        let mut name = thread.name().unwrap_or("scenario").replace("::", ".");
        let mut made = MADE.lock().expect("names");
        let again = made.iter().filter(|other| **other == name).count();
        made.push(name.clone());
        drop(made);
        if again > 0 {
            name += &format!("-{again}");
        }
        let run = run_dir();
        let root = run.join("scenarios").join(&name);
        if root.exists() {
            fs::remove_dir_all(&root).expect("the last run's folder");
        }
        let needles = run.join("needles").join(format!("{name}.txt"));
        for folder in [&root.join("inputs"), &root.join("providers"), &root.join("sinks/answers")] {
            fs::create_dir_all(folder).expect("scenario folder");
        }
        let kinds = run.join("kinds").join(format!("{name}.txt"));
        for file in [&needles, &kinds] {
            fs::create_dir_all(file.parent().expect("a file has a folder")).expect("needles folder");
            File::create(file).expect("needles file");
        }
        static LISTED: Once = Once::new();
        LISTED.call_once(|| fs::write(run.join("kinds.txt"), SecretKind::list()).expect("the list of kinds"));
        Self(Arc::new(Inner { name, root, needles, kinds, answers: AtomicUsize::new(0) }))
    }

    /// The scenario's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Keys, certificates, fixtures: may hold secrets, not swept.
    pub fn inputs(&self) -> PathBuf {
        self.0.root.join("inputs")
    }

    /// Logs of parts that rightly see keys: not swept.
    pub fn providers(&self) -> PathBuf {
        self.0.root.join("providers")
    }

    /// Everything in which no secret may be found.
    pub fn sinks(&self) -> PathBuf {
        self.0.root.join("sinks")
    }

    /// A fresh secret, unlike any other string, that survives as a bearer token (RFC 6750 `b64token`). It is made of
    /// three random runs, so that a part of it is found as well as the whole.
    pub fn canary(&self, what: &str) -> String {
        let secret = format!("sk-{what}.{:016x}/{:016x}+{:016x}~=", random(), random(), random());
        self.needle(&secret);
        secret
    }

    /// Makes a secret that somebody else chose something to search for.
    pub fn needle(&self, secret: &str) {
        let mut file = OpenOptions::new().append(true).open(&self.0.needles).expect("needles file");
        writeln!(file, "{secret}").expect("needles file");
    }

    /// Says what kinds of credentials a secret goes through in this scenario. It is something to search for from then on.
    pub fn stands_for(&self, secret: &str, kinds: &[SecretKind]) {
        self.needle(secret);
        let mut file = OpenOptions::new().append(true).open(&self.0.kinds).expect("kinds file");
        let lines: String = kinds.iter().map(|kind| format!("{}\n", kind.words())).collect();
        file.write_all(lines.as_bytes()).expect("kinds file");
    }

    /// The secrets to search for, one per line.
    pub fn needles(&self) -> &Path {
        &self.0.needles
    }

    /// Searches what this scenario left behind so far, by `tests/runner/sweep.py`, and fails when a secret is found or a decoy
    /// is not.
    pub fn assert_swept(&self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("runner/sweep.py");
        let run =
            self.0.root.parent().and_then(Path::parent).expect("a scenario is two folders into its run");
        let output =
            Command::new("python3").arg(script).arg(run).arg(&self.0.name).output().expect("Python runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains(" forms, 1 scenarios\n"), "{said}");
    }

    /// Writes a file under `inputs/` and returns its path.
    pub fn input(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.inputs().join(name);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("inputs folder");
        fs::write(&path, content).expect("input file");
        path
    }

    /// Keeps what a caller was answered, so that the sweep sees it.
    pub fn answered(&self, bytes: &[u8]) {
        let number = self.0.answers.fetch_add(1, Ordering::Relaxed);
        let shard = self.sinks().join("answers").join(format!("{}.bin", number % 16));
        let mut file = OpenOptions::new().create(true).append(true).open(shard).expect("answers file");
        file.write_all(bytes).expect("answers file");
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

/// Where real parts are installed: `TOLLGATE_PARTS`, or where `tests/run` puts them.
pub fn parts_dir() -> PathBuf {
    std::env::var_os("TOLLGATE_PARTS").map_or_else(|| target_dir().join("parts"), PathBuf::from)
}

/// The workspace's target folder.
pub fn target_dir() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from)
}

fn run_dir() -> PathBuf {
    std::env::var_os("TOLLGATE_RUN_DIR").map_or_else(
        || target_dir().join("test-logs").join(format!("run-{}", std::process::id())),
        PathBuf::from,
    )
}

/// Says that the running scenario ends here because a part is not installed. `tests/run` counts it as skipped.
pub fn skip(part: &str) {
    let name = std::thread::current().name().unwrap_or("scenario").to_owned();
    eprintln!("skipped: needs {part}");
    if let Some(path) = std::env::var_os("TOLLGATE_SKIPS") {
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("skips file");
        writeln!(file, "scenario {name}: needs {part}").expect("skips file");
    }
}

/// Ends the running scenario early, counted as skipped, unless all the named parts are installed.
#[macro_export]
macro_rules! needs {
    ($($part:expr),+) => {
        $(if !$part {
            return $crate::sandbox::skip(stringify!($part));
        })+
    };
}

/// 64 bits that no other call returns; the standard library seeds `RandomState` from the operating system.
pub fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
