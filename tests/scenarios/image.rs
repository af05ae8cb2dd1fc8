//! What is shipped beside the program: the list of what it is made of.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tollgate_tests::needs;
use tollgate_tests::sandbox::target_dir;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// What `.ci/sbom` needs, and installs where it is not there.
fn cargo_cyclonedx() -> PathBuf {
    target_dir().join("tools/bin/cargo-cyclonedx")
}

/// Names and versions of all packages that the lock file has.
fn locked() -> BTreeSet<(String, String)> {
    let text = fs::read_to_string(root().join("Cargo.lock")).expect("the lock file");
    let value = |line: Option<&str>, field: &str| {
        line.and_then(|line| line.strip_prefix(field)).map(|value| value.trim_matches('"').to_owned())
    };
    let packages = text.split("[[package]]\n").skip(1).map(|package| {
        let mut lines = package.lines();
        let name = value(lines.next(), "name = ").expect("a name");
        (name, value(lines.next(), "version = ").expect("a version"))
    });
    packages.collect()
}

#[test]
fn the_image_runs_as_whom_and_on_what_the_chart_says() {
    let read = |file: &str| fs::read_to_string(root().join(file)).expect("a file");
    let (dockerfile, pod) = (read("Dockerfile"), read("charts/tollgate/templates/_pod.tpl"));
    let word = |line: &str| {
        let found = dockerfile.lines().find_map(|text| text.strip_prefix(line));
        found.unwrap_or_else(|| panic!("no {line}")).trim().to_owned()
    };
    let user = word("USER ");
    let (user, group) = user.split_once(':').expect("a user and a group");
    assert!(pod.contains(&format!("runAsUser: {user}\n")) && pod.contains(&format!("runAsGroup: {group}\n")));
    let variables = word("ENV ");
    let settings = variables.split("TOLLGATE_CONFIG=").nth(1).expect("the settings");
    assert!(pod.contains(&format!("{{name: TOLLGATE_CONFIG, value: {settings}}}")), "{settings}");
    let (folder, _) = settings.rsplit_once('/').expect("a folder");
    assert!(pod.contains(&format!("mountPath: {folder}, readOnly: true")), "{folder}");
    assert_eq!(word("ENTRYPOINT "), r#"["/usr/bin/tollgate"]"#);
    assert_eq!(word("CMD "), r#"["serve"]"#);
    assert!(pod.contains("args: [serve]"));
    // The compiler of the image is one that the workspace is for, and the last stage has nothing but what is copied.
    let compiler = word("ARG RUST=");
    let least = read("Cargo.toml");
    let least = least.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("a version");
    let minor = |version: &str| -> u32 {
        version.trim_matches('"').split(['.', '-']).nth(1).and_then(|it| it.parse().ok()).expect("a version")
    };
    assert!(minor(&compiler) >= minor(least), "{compiler} is older than {least}");
    assert!(dockerfile.contains("\nFROM scratch\n"));
    for line in dockerfile.lines().filter(|line| line.contains("tests/")) {
        let script = line.split_whitespace().find(|word| word.starts_with("tests/")).expect("a script");
        assert!(root().join(script).is_file(), "{script}");
    }
}

#[test]
fn the_bill_of_materials_is_cyclonedx_and_lists_what_the_lock_file_has_and_the_program_needs() {
    needs!(cargo_cyclonedx().is_file());
    let output = Command::new(root().join(".ci/sbom"))
        .env("CARGO_TARGET_DIR", target_dir())
        .env("CARGO_NET_OFFLINE", "true")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.lines().last(), Some("gateway/tollgate.cdx.json"));
    let text = fs::read_to_string(root().join("gateway/tollgate.cdx.json")).expect("the file");
    assert!(!text.contains(&root().display().to_string()), "it says where it was made");
    let bill: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    assert_eq!(bill["metadata"]["component"]["name"], "tollgate");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let locked = locked();
    let mut names = BTreeSet::new();
    for component in bill["components"].as_array().expect("components") {
        let (name, version) = (text(&component["name"]), text(&component["version"]));
        let package = format!("pkg:cargo/{name}@{version}");
        assert!(text(&component["purl"]).starts_with(&package), "{component}");
        let is_own = name.starts_with("tollgate");
        assert!(is_own || component["licenses"].is_array(), "{name} has no licence");
        let from_registry = component["hashes"][0]["alg"] == "SHA-256";
        assert!(is_own || from_registry, "{name} has no checksum");
        assert!(locked.contains(&(name.clone(), version)), "{component}");
        names.insert(name);
    }
    for needed in ["tollgate-policy", "tollgate-secrets", "tokio", "hyper", "rustls", "kube", "jsonwebtoken"]
    {
        assert!(names.contains(needed), "{needed}");
    }
    // What only tests need is not in the program.
    assert!(!names.contains("tollgate-tests") && !names.contains("s3s"));
    let depended: usize = bill["dependencies"]
        .as_array()
        .expect("dependencies")
        .iter()
        .filter(|it| it["ref"].is_string())
        .count();
    assert!(depended > names.len(), "each has its dependencies, and so has the program");
}
