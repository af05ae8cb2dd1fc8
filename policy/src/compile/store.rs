//! Secret stores: exactly one kind each, reached so that its login cannot be read on the way.

mod aws;
mod environment;

use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Compiler, Scope};
use crate::model::{AuthSpec, AwsSpec, EnvSpec, FromSpec, Resource, StoreSpec, VaultSpec};
use crate::policy::{Store, StoreKind, VaultAuth, VaultStore};
use crate::target::split_authority;

impl Compiler<'_> {
    pub(super) fn stores(&mut self) {
        for resource in &self.model.stores {
            let mut scope = Scope { source: &resource.source, problems: &mut self.problems };
            if let Some(kind) = kind(resource, &mut scope) {
                let store = Store { name: resource.name.clone(), kind };
                self.parts.store_origins.insert(resource.name.clone(), resource.source.clone());
                self.parts.stores.insert(resource.name.clone(), Arc::new(store));
            }
        }
    }
}

enum Written<'a> {
    File(&'a Option<String>),
    Age(&'a Option<String>, &'a Option<String>),
    Vault(&'a VaultSpec),
    Aws(&'a AwsSpec),
    Env(&'a EnvSpec),
}

fn kind(resource: &Resource<StoreSpec>, scope: &mut Scope<'_>) -> Option<StoreKind> {
    let StoreSpec { file, age, vault, aws, env } = &resource.spec;
    let fields = [
        ("file", file.as_ref().map(|file| Written::File(&file.root))),
        ("age", age.as_ref().map(|age| Written::Age(&age.file, &age.identity_file))),
        ("vault", vault.as_ref().map(Written::Vault)),
        ("aws", aws.as_ref().map(Written::Aws)),
        ("env", env.as_ref().map(Written::Env)),
    ];
    Some(match scope.exactly_one("spec", fields)? {
        Written::File(root) => StoreKind::File {
            root: file_path(scope, "spec.file.root", root, "the directory of the secrets")?,
        },
        Written::Age(encrypted, identity) => {
            let encrypted = file_path(scope, "spec.age.file", encrypted, "the encrypted file");
            let identity =
                file_path(scope, "spec.age.identityFile", identity, "the file with the age identity");
            StoreKind::Age { file: encrypted?, identity_file: identity? }
        }
        Written::Vault(vault) => StoreKind::Vault(self::vault(vault, scope)?),
        Written::Aws(aws) => StoreKind::Aws(aws::store(aws, scope)?),
        Written::Env(env) => StoreKind::Env { prefix: environment::prefix(env, scope)? },
    })
}

/// What a store of this kind wants of a reference to it, or cannot use.
pub(super) fn check_reference(from: &FromSpec, kind: &StoreKind, scope: &mut Scope<'_>) {
    match kind {
        StoreKind::Aws(store) => return aws::check_reference(from, store, scope),
        StoreKind::Env { .. } => environment::check_path(from, scope),
        StoreKind::File { .. } | StoreKind::Age { .. } | StoreKind::Vault(_) => {}
    }
    for (path, written) in [("spec.from.stage", &from.stage), ("spec.from.versionId", &from.version_id)] {
        if written.is_some() {
            scope.problem(path, "only an AWS store has stages and version ids");
        }
    }
}

fn file_path(scope: &mut Scope<'_>, path: &str, written: &Option<String>, what: &str) -> Option<PathBuf> {
    let written = scope.required(path, written.as_deref(), what)?;
    if written.is_empty() || written.contains('\0') {
        scope.problem(path, format!("this cannot be empty: {what}"));
        return None;
    }
    Some(scope.source.resolve(written))
}

fn vault(vault: &VaultSpec, scope: &mut Scope<'_>) -> Option<VaultStore> {
    let what = "its URL, as in `https://bao.example.com:8200`";
    let address = scope.required("spec.vault.address", vault.address.as_deref(), what);
    let address = address.map(|address| match vault_address(address) {
        Ok(address) => address,
        Err(message) => {
            scope.problem("spec.vault.address", message);
            String::new()
        }
    });
    let mount = mount(scope, "spec.vault.mount", vault.mount.as_deref(), "secret");
    let namespace = vault.namespace.clone();
    let is_header = |text: &String| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    if namespace.as_ref().is_some_and(|namespace| !is_header(namespace)) {
        scope.problem(
            "spec.vault.namespace",
            "a namespace is visible ASCII without spaces, as in `team-a/llm`",
        );
    }
    let ca = match &vault.ca_file {
        Some(_) => file_path(scope, "spec.vault.caFile", &vault.ca_file, "a file with certificates in PEM"),
        None => None,
    };
    let login = "how to log in: `token` or `appRole`";
    let login = scope
        .required("spec.vault.auth", vault.auth.as_ref(), login)
        .and_then(|auth| self::auth(auth, scope));
    Some(VaultStore { address: address?, mount, namespace, ca, auth: login? })
}

fn auth(auth: &AuthSpec, scope: &mut Scope<'_>) -> Option<VaultAuth> {
    let fields = [("token", auth.token.as_ref().map(Ok)), ("appRole", auth.app_role.as_ref().map(Err))];
    Some(match scope.exactly_one("spec.vault.auth", fields)? {
        Ok(token) => VaultAuth::Token {
            file: file_path(scope, "spec.vault.auth.token.file", &token.file, "the file with the token")?,
        },
        Err(role) => {
            let path = "spec.vault.auth.appRole";
            let mount = mount(scope, &format!("{path}.mount"), role.mount.as_deref(), "approle");
            let id = file_path(
                scope,
                &format!("{path}.roleIdFile"),
                &role.role_id_file,
                "the file with the role id",
            );
            let secret = format!("{path}.secretIdFile");
            let secret = file_path(scope, &secret, &role.secret_id_file, "the file with the secret id");
            VaultAuth::AppRole { mount, role_id_file: id?, secret_id_file: secret? }
        }
    })
}

fn mount(scope: &mut Scope<'_>, path: &str, written: Option<&str>, default: &str) -> String {
    let mount = written.unwrap_or(default);
    let segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    if !mount.split('/').all(segment) {
        scope.problem(path, format!("a mount is a path without slashes at its ends, as in `{default}`"));
    }
    mount.to_owned()
}

/// `https://host[:port]` in canonical spelling. Plain `http` would show the login to the network, unless there is none between.
fn vault_address(written: &str) -> Result<String, &'static str> {
    let (scheme, rest) = written.split_once("://").ok_or("an address begins with `https://`")?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '@']) {
        return Err("an address is `https://host:port` and nothing else");
    }
    let (host, port) =
        split_authority(authority, |_| false).map_err(|_| "the host or port of the address is malformed")?;
    let is_v4 = host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_v6 = v6.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback()));
    match scheme {
        "https" => {}
        "http" if is_v4 || is_v6 || host == "localhost" => {}
        "http" => {
            return Err(
                "`http` shows the login to the network: only a loopback address may use it, else `https`",
            );
        }
        _ => return Err("an address begins with `https://`"),
    }
    let port = port.map_or_else(String::new, |port| format!(":{port}"));
    Ok(format!("{scheme}://{host}{port}"))
}
