//! A test in a network namespace of its own: what it does to addresses and packets is nobody else's.

use std::path::Path;
use std::process::Command;

/// Set for the process that is inside of the namespace.
const INSIDE: &str = "TOLLGATE_INSIDE_NAMESPACE";

/// Runs this very test again without any network but its own, and says whether it is that run.
pub fn is_inside(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("the test itself");
    let mut command = Command::new("unshare");
    command.arg("--net").arg(program).args(["--exact", name, "--nocapture"]).env(INSIDE, "1");
    let output = command.output().expect("unshare");
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    println!("{text}");
    false
}

/// Whether there may be one here, with what is needed inside.
pub fn has_namespaces() -> bool {
    let is_there =
        |name: &str| ["/usr/sbin", "/sbin", "/usr/bin"].iter().any(|at| Path::new(at).join(name).exists());
    nix::unistd::geteuid().is_root() && ["unshare", "nsenter", "ip", "nft"].into_iter().all(is_there)
}

/// Runs a command, whose words stand apart by one space each, and returns what it says.
pub fn run(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output().expect(line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
