use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;
use tollgate_policy::compile::{Compiled, compile_files};
use tollgate_secrets::AgeFile;

use super::*;
use crate::app;

const SETTINGS: &str = "
listeners: [{name: mesh, address: '127.0.0.1:0'}]
identity: {certificate: {certFile: a, keyFile: b}, trustDomains: {prod.acme: {bundleFile: c}}}
resources: res
dataDir: data
admin: {tokenFile: run/token}
egress: {privateRanges: [10.7.0.0/16]}
";

struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn settings(&self, text: &str) -> Settings {
        std::fs::write(self.at("tollgate.yaml"), text).unwrap();
        Settings::read(&self.at("tollgate.yaml"), |_| None).unwrap()
    }

    fn warnings(&self, resources: &[&str]) -> Vec<String> {
        let settings = self.settings(SETTINGS);
        let known = Some(&settings);
        let files: Vec<SourceFile> = resources
            .iter()
            .map(|text| SourceFile { path: self.at("a.yaml"), text: (*text).to_owned() })
            .collect();
        let Compiled { policy, .. } = compile_files(&files, &app::environment(&settings).unwrap()).unwrap();
        let warnings = self.said(&super::resources(&policy, known));
        let nothing = nothing(&policy, &files, settings.resources.directory().unwrap(), known);
        warnings.into_iter().chain(nothing.map(|nothing| self.short(&nothing))).collect()
    }

    fn said(&self, warnings: &[Problem]) -> Vec<String> {
        warnings.iter().map(|warning| self.short(&warning.to_string())).collect()
    }

    fn short(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.path().display()), "")
    }
}

const GRANT: &str = "apiVersion: tollgate.dev/v1alpha1
kind: Grant
metadata: {name: web}
spec:
  callers: [{spiffe: 'spiffe://prod.acme/web'}]
  destination: api
---
";

#[test]
fn addresses_that_the_settings_refuse_are_named() {
    let destination = "apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {name: api}
spec:
  hosts: [api.example]
  addresses:
    - 10.7.0.1
    - 127.0.0.1
    - 169.254.169.254
";
    let said = Bench::new().warnings(&[&format!("{GRANT}{destination}")]);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].starts_with("a.yaml:15: Destination/api: spec.addresses[1]: `127.0.0.1` is private"),
        "{said:?}"
    );
    assert!(
        said[1].starts_with("a.yaml:16: Destination/api: spec.addresses[2]: `169.254.169.254` is link-local"),
        "{said:?}"
    );
}

#[test]
fn a_proxy_that_is_never_dialled_and_a_source_address_that_this_machine_lacks_are_named() {
    let destination = "apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {name: api}
spec:
  hosts: [api.example]
  proxy: {address: '127.0.0.1:3128'}
  sourceAddress: 192.0.2.1
";
    let said = Bench::new().warnings(&[&format!("{GRANT}{destination}")]);
    assert_eq!(said.len(), 2, "{said:?}");
    let begins = |line: &str| said.iter().any(|said| said.starts_with(line));
    assert!(begins("a.yaml:13: Destination/api: spec.proxy.address: `127.0.0.1` is private"), "{said:?}");
    assert!(begins("a.yaml:14: Destination/api: spec.sourceAddress: this machine does not have"), "{said:?}");
}

#[test]
fn files_of_stores_that_are_not_there_are_named_until_they_are() {
    let stores = "apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {name: api}
spec: {hosts: [api.example]}
---
apiVersion: tollgate.dev/v1alpha1
kind: SecretStore
metadata: {name: age}
spec:
  age:
    file: secrets.age
    identityFile: identity.txt
---
apiVersion: tollgate.dev/v1alpha1
kind: SecretStore
metadata: {name: bao}
spec: {vault: {address: 'https://127.0.0.1:8200', caFile: ca.pem, auth: {appRole: {roleIdFile: role, secretIdFile: id}}}}
";
    let bench = Bench::new();
    let text = format!("{GRANT}{stores}");
    let said = bench.warnings(&[&text]);
    assert_eq!(
        said[0],
        "a.yaml:18: SecretStore/age: spec.age.file: secrets.age: no such file; `tollgate secret set` makes one"
    );
    assert_eq!(
        said[1],
        "a.yaml:19: SecretStore/age: spec.age.identityFile: identity.txt: no such file; `tollgate secret init` makes one"
    );
    for (warning, field) in
        said[2..].iter().zip(["caFile", "auth.appRole.roleIdFile", "auth.appRole.secretIdFile", "address"])
    {
        assert!(
            warning.starts_with(&format!("a.yaml:24: SecretStore/bao: spec.vault.{field}: ")),
            "{warning}"
        );
    }
    assert_eq!(said.len(), 6, "{said:?}");
    for name in ["ca.pem", "role", "id"] {
        write(&bench.at(name), "x", 0o600);
    }
    AgeFile::create_identity(&bench.at("identity.txt")).unwrap();
    let age = AgeFile::new(bench.at("secrets.age"), bench.at("identity.txt"));
    age.set("path", "field", "value".to_owned().into()).unwrap();
    assert_eq!(bench.warnings(&[&text]).len(), 1, "only the vault's address is left");
    let exposed = |name: &str| {
        set_mode(&bench.at(name), 0o644);
        let said = bench.warnings(&[&text]);
        set_mode(&bench.at(name), 0o600);
        said.into_iter().find(|said| said.contains("chmod"))
    };
    for (name, field) in [
        ("identity.txt", "a.yaml:19: SecretStore/age: spec.age.identityFile"),
        ("id", "a.yaml:24: SecretStore/bao: spec.vault.auth.appRole.secretIdFile"),
    ] {
        let said = exposed(name).unwrap().replace(&bench.at("").display().to_string(), "");
        let expected =
            format!("{field}: {name}: every user of this machine can use it (mode 0644): chmod 600 {name}");
        assert_eq!(said, expected);
    }
    assert_eq!(exposed("ca.pem"), None);
    write(&bench.at("secrets.age"), "junk", 0o600);
    let said = bench.warnings(&[&text]);
    assert_eq!(
        said[0],
        "a.yaml:18: SecretStore/age: spec.age.file: secrets.age: cannot decrypt with this identity"
    );
}

fn write(file: &Path, text: &str, mode: u32) {
    std::fs::write(file, text).unwrap();
    set_mode(file, mode);
}

fn set_mode(file: &Path, mode: u32) {
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn keys_and_tokens_that_every_user_can_read_are_named_with_their_mode() {
    let bench = Bench::new();
    std::fs::create_dir(bench.at("run")).unwrap();
    let settings = bench.settings(&format!("{SETTINGS}ledger: {{sealKeyFile: seal.key}}\n"));
    let files = [
        ("b", "identity.certificate.keyFile"),
        ("run/token", "admin.tokenFile"),
        ("seal.key", "ledger.sealKeyFile"),
    ];
    files.iter().for_each(|(name, _)| write(&bench.at(name), "x", 0o600));
    assert!(places(&settings).is_empty());
    for (name, field) in files {
        set_mode(&bench.at(name), 0o604);
        let said = bench.said(&places(&settings));
        set_mode(&bench.at(name), 0o600);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].contains(field)
                && said[0].contains("(mode 0604)")
                && said[0].ends_with(&format!("chmod 600 {name}")),
            "{said:?}"
        );
    }
}

#[test]
fn what_an_aws_store_needs_and_does_not_have_is_named() {
    let store = "apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {name: api}
spec: {hosts: [api.example]}
---
apiVersion: tollgate.dev/v1alpha1
kind: SecretStore
metadata: {name: aws}
spec: {aws: {region: eu-central-1, endpoint: 'https://10.9.0.1', caFile: ca.pem, credentialsFile: keys}}
";
    let said = Bench::new().warnings(&[&format!("{GRANT}{store}")]);
    for (warning, field) in
        said.iter().zip(["caFile: ca.pem", "credentialsFile: keys", "endpoint: `10.9.0.1`"])
    {
        assert!(warning.starts_with(&format!("a.yaml:16: SecretStore/aws: spec.aws.{field}")), "{warning}");
    }
    assert_eq!(said.len(), 3, "{said:?}");
}

#[test]
fn the_files_of_every_login_at_a_vault_are_looked_for() {
    let shown = "certFile: c.crt, keyFile: c.key";
    for (fields, expected) in [
        ("auth: {token: {file: t}}".to_owned(), vec!["auth.token.file"]),
        (
            "auth: {appRole: {roleIdFile: r, wrappedSecretIdFile: w}}".to_owned(),
            vec!["auth.appRole.roleIdFile", "auth.appRole.wrappedSecretIdFile"],
        ),
        ("auth: {kubernetes: {role: r, tokenFile: t}}".to_owned(), vec!["auth.kubernetes.tokenFile"]),
        (
            format!("clientCertificate: {{{shown}}}, auth: {{jwt: {{role: r, tokenFile: t}}}}"),
            vec!["clientCertificate.certFile", "clientCertificate.keyFile", "auth.jwt.tokenFile"],
        ),
        (
            format!("auth: {{certificate: {{{shown}}}}}"),
            vec!["auth.certificate.certFile", "auth.certificate.keyFile"],
        ),
    ] {
        let store = format!(
            "apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {{name: api}}
spec: {{hosts: [api.example]}}
---
apiVersion: tollgate.dev/v1alpha1
kind: SecretStore
metadata: {{name: bao}}
spec: {{vault: {{address: 'https://bao:8200', {fields}}}}}
"
        );
        let bench = Bench::new();
        let said = bench.warnings(&[&format!("{GRANT}{store}")]);
        assert_eq!(said.len(), expected.len(), "{said:?}");
        for (warning, field) in said.iter().zip(expected) {
            assert!(warning.contains(&format!("SecretStore/bao: spec.vault.{field}: ")), "{warning}");
        }
    }
}

#[test]
fn a_configuration_in_which_nobody_may_call_says_so() {
    let bench = Bench::new();
    let said = bench.warnings(&[]);
    assert!(said[0].starts_with("tollgate.yaml:4: resources: res: there is no file"), "{said:?}");
    let said = bench.warnings(&["# nothing\n"]);
    assert!(said[0].contains("there is no Grant"), "{said:?}");
}

#[test]
fn places_that_cannot_be_made_are_named() {
    let bench = Bench::new();
    assert!(places(&bench.settings(SETTINGS)).is_empty(), "serve makes them");
    std::fs::write(bench.at("data"), "").unwrap();
    std::fs::write(bench.at("run"), "").unwrap();
    let with_key = |key: &str| {
        bench.said(&places(&bench.settings(&format!("{SETTINGS}ledger: {{sealKeyFile: {key}}}\n"))))
    };
    assert_eq!(with_key("seal/key").len(), 2, "the key's directory is made with it");
    let said = with_key("run/seal/key");
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[0].starts_with("tollgate.yaml:5: dataDir: data: it cannot be made"), "{said:?}");
    assert!(said[1].starts_with("tollgate.yaml:6: admin.tokenFile: run: it cannot be made"), "{said:?}");
    assert!(
        said[2].starts_with("tollgate.yaml:8: ledger.sealKeyFile: run/seal: it cannot be made"),
        "{said:?}"
    );
}

#[test]
fn two_listeners_of_one_address_are_told_apart() {
    let bench = Bench::new();
    let second = "'127.0.0.1:8443'}, {name: proxy, kind: tcp, destination: x, address: '127.0.0.1:8443'}]";
    let settings = bench.settings(&SETTINGS.replace("'127.0.0.1:0'}]", second));
    let Compiled { policy, .. } = compile_files(&[], &app::environment(&settings).unwrap()).unwrap();
    let said = bench.said(&resources(&policy, Some(&settings)));
    assert!(said[0].contains("listeners[1].address: `mesh` has this address already"), "{said:?}");
}

#[test]
fn a_listener_that_can_lead_nowhere_is_told() {
    let bench = Bench::new();
    let settings = bench.settings(&SETTINGS.replace(
        "'127.0.0.1:0'}]",
        "'127.0.0.1:0'}, {name: a, kind: tcp, destination: cahce, address: '127.0.0.1:0'},
  {name: b, kind: tcp, destination: web, address: '127.0.0.1:0'},
  {name: c, kind: tcp, destination: cache, address: '127.0.0.1:0'},
  {name: d, kind: forward, address: '127.0.0.1:0'}]",
    ));
    let destination = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: tollgate.dev/v1alpha1\nkind: Destination\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
        )
    };
    let text = destination("web", "hosts: [web.example]")
        + &destination("cache", "hosts: [cache.example], protocol: tcp, port: 6379");
    let file = SourceFile { path: bench.at("a.yaml"), text };
    let Compiled { policy, .. } = compile_files(&[file], &app::environment(&settings).unwrap()).unwrap();
    let said = bench.said(&resources(&policy, Some(&settings)));
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[0].contains("listeners[1].destination: there is no Destination `cahce`"), "{said:?}");
    assert!(said[1].contains("listeners[2].destination: `web` speaks HTTP"), "{said:?}");
    assert!(said[2].contains("listeners[4].kind: without `interception`"), "{said:?}");
}
