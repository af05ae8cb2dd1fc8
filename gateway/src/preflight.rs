//! What a good configuration still needs from around it: files that are there, addresses that may be dialled, grants at all.
//!
//! **Invariant:** nothing here refuses a configuration: what is missing may come yet, and until then the calls that need it fail alone.

pub(crate) mod files;
mod interception;
mod listeners;
mod tokens;

pub(crate) use self::interception::unsigned;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tollgate_policy::model::{Problem, SourceFile};
use tollgate_policy::policy::{AwsStore, Destination, Policy, SecretId, StoreKind, VaultAuth, VaultStore};

use crate::alerts::secret_problem;
use crate::settings::Settings;
use crate::snapshot::Snapshot;
use crate::upstream::{DialRules, lacking};

/// What the resources need and do not have. `settings`: where they are known.
pub(crate) fn resources(policy: &Policy, settings: Option<&Settings>) -> Vec<Problem> {
    let rules = settings.map(|settings| DialRules::new(settings.egress.private_ranges.clone()));
    let mut warnings = Vec::new();
    for destination in policy.destinations() {
        if let Some(rules) = &rules {
            undialled(destination, rules, &mut warnings);
        }
    }
    warnings.extend(homeless(policy));
    for store in policy.stores() {
        let Some(origin) = policy.store_origin(store.name.as_str()) else { continue };
        let missing = missing(&store.kind);
        let wrong = missing.into_iter().chain(files::of_store(&store.kind));
        warnings.extend(wrong.map(|(field, message)| origin.problem(field, message)));
        if let (Some((field, url)), Some(rules)) = (url(&store.kind), &rules)
            && let Some(message) = literal(url).and_then(|address| refused(address, rules))
        {
            warnings.push(origin.problem(field, message));
        }
    }
    warnings.extend(files::of_credentials(policy));
    warnings.extend(settings.into_iter().flat_map(|settings| untold(policy, settings)));
    warnings.extend(settings.into_iter().flat_map(|settings| listeners::idle(policy, settings)));
    warnings
}

/// Which of the certificates that destinations are verified with are out of date, or soon will be.
pub(crate) fn authorities(snapshot: &Snapshot, now: Timestamp) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for destination in snapshot.policy.destinations() {
        let said =
            snapshot.dated(destination).into_iter().filter_map(|dated| dated.warning(now, Duration::ZERO));
        warnings.extend(said.map(|message| destination.origin.problem("spec.tls.verify", message)));
    }
    warnings
}

/// Why nobody can call anything.
pub(crate) fn nothing(
    policy: &Policy,
    files: &[SourceFile],
    directory: &Path,
    settings: Option<&Settings>,
) -> Option<String> {
    let what = match policy.grants().next() {
        Some(_) => return None,
        None if files.is_empty() => "there is no file in it that ends in .yaml or .yml",
        None => "there is no Grant in it",
    };
    let message = format!("{}: {what}, so every call is refused", directory.display());
    Some(match settings.filter(|settings| settings.resources.directory() == Some(directory)) {
        Some(settings) => settings.problem("resources", message).to_string(),
        None => message,
    })
}

/// Destinations that are to be told of traces, and are none.
fn untold(policy: &Policy, settings: &Settings) -> Vec<Problem> {
    let told = settings.telemetry.propagate.iter().enumerate();
    let unknown =
        told.filter(|(_, name)| !policy.destinations().any(|destination| destination.name == **name));
    unknown
        .map(|(at, name)| {
            let message =
                format!("`{name}` is no destination of the resources: nobody is told of its traces");
            settings.problem(&format!("telemetry.propagate[{at}]"), message)
        })
        .collect()
}

/// Addresses that are written out, whose every call would be refused.
fn undialled(destination: &Destination, rules: &DialRules, warnings: &mut Vec<Problem>) {
    for (index, address) in destination.addresses.iter().enumerate() {
        if let Some(message) = refused(*address, rules) {
            warnings.push(destination.origin.problem(&format!("spec.addresses[{index}]"), message));
        }
    }
    let proxy = destination.proxy.as_ref().and_then(|proxy| bare(&proxy.host));
    let refused_proxy = proxy.and_then(|address| refused(address, rules));
    warnings.extend(refused_proxy.map(|message| destination.origin.problem("spec.proxy.address", message)));
    if !destination.addresses.is_empty() {
        return;
    }
    for (index, host) in destination.hosts.iter().enumerate() {
        if let Some(message) = bare(&host.to_string()).and_then(|address| refused(address, rules)) {
            warnings.push(destination.origin.problem(&format!("spec.hosts[{index}]"), message));
        }
    }
}

/// Source addresses that this machine does not have: each pool is told of once. `check` may run elsewhere than the gateway will.
fn homeless(policy: &Policy) -> Vec<Problem> {
    let mut told = BTreeSet::new();
    let named = |destination: &Destination| destination.sources.rules().and_then(|rules| rules.name.clone());
    let mut warnings = Vec::new();
    for destination in policy.destinations() {
        let pool = named(destination);
        if pool.as_ref().is_some_and(|pool| !told.insert(pool.clone())) {
            continue;
        }
        let field = if pool.is_some() { "spec.sourcePool" } else { "spec.sourceAddress" };
        warnings.extend(lacking(&destination.sources).iter().map(|address| {
            let message =
                format!("this machine does not have {address}; the one that the gateway runs on has to");
            destination.origin.problem(field, message)
        }));
    }
    warnings
}

fn refused(address: IpAddr, rules: &DialRules) -> Option<String> {
    if rules.allows(address) {
        return None;
    }
    let every = ["0.0.0.0/0", "::/0"].iter().filter_map(|range| range.parse().ok());
    Some(match DialRules::new(every.collect()).allows(address) {
        true => format!(
            "`{address}` is private, and no range of `egress.privateRanges` in the settings has it: it is never dialled"
        ),
        false => format!("`{address}` is link-local, reserved or of a metadata service: it is never dialled"),
    })
}

fn bare(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Where a store is reached, and the field that says so.
fn url(kind: &StoreKind) -> Option<(&'static str, &str)> {
    match kind {
        StoreKind::Vault(vault) => Some(("spec.vault.address", &vault.address)),
        StoreKind::Aws(aws) => Some(("spec.aws.endpoint", aws.endpoint.as_deref()?)),
        StoreKind::File { .. }
        | StoreKind::Age { .. }
        | StoreKind::Env { .. }
        | StoreKind::Kubernetes
        | StoreKind::Svid { .. } => None,
    }
}

/// The address in a URL without a path, if it names one.
fn literal(url: &str) -> Option<IpAddr> {
    let (_, authority) = url.split_once("://")?;
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    bare(host)
}

/// The files that a store names and that are not there, by field.
fn missing(kind: &StoreKind) -> Vec<(&'static str, String)> {
    let named: Vec<(&'static str, &Path, &str)> = match kind {
        StoreKind::File { root } => vec![("spec.file.root", root, "no such directory")],
        StoreKind::Age { file, identity_file } => vec![
            ("spec.age.file", file, "no such file; `tollgate secret set` makes one"),
            ("spec.age.identityFile", identity_file, "no such file; `tollgate secret init` makes one"),
        ],
        StoreKind::Vault(vault) => {
            vault_files(vault).into_iter().map(|(field, file)| (field, file, "no such file")).collect()
        }
        StoreKind::Aws(AwsStore { ca, credentials_file, .. }) => {
            let ca = ca.iter().map(|ca| ("spec.aws.caFile", ca.as_path(), "no such file"));
            let login = credentials_file
                .iter()
                .map(|file| ("spec.aws.credentialsFile", file.as_path(), "no such file"));
            ca.chain(login).collect()
        }
        // What `serve` is started with is not what this process was.
        StoreKind::Env { .. } | StoreKind::Kubernetes | StoreKind::Svid { .. } => Vec::new(),
    };
    let absent = |(_, path, _): &(&str, &Path, &str)| !path.exists();
    let said =
        |(field, path, what): (&'static str, &Path, &str)| (field, format!("{}: {what}", path.display()));
    named.into_iter().filter(absent).map(said).collect()
}

fn vault_files(vault: &VaultStore) -> Vec<(&'static str, &Path)> {
    let mut files: Vec<(&'static str, &Path)> =
        vault.ca.iter().map(|ca| ("spec.vault.caFile", ca.as_path())).collect();
    let (cert, key) = match vault.auth {
        VaultAuth::Certificate { .. } => {
            ("spec.vault.auth.certificate.certFile", "spec.vault.auth.certificate.keyFile")
        }
        _ => ("spec.vault.clientCertificate.certFile", "spec.vault.clientCertificate.keyFile"),
    };
    if let Some(shown) = &vault.client_certificate {
        files.extend([(cert, shown.cert.as_path()), (key, shown.key.as_path())]);
    }
    match &vault.auth {
        VaultAuth::Token { file } => files.push(("spec.vault.auth.token.file", file)),
        VaultAuth::AppRole { role_id_file, secret_id, .. } => {
            files.push(("spec.vault.auth.appRole.roleIdFile", role_id_file));
            files.push(match secret_id {
                SecretId::File(file) => ("spec.vault.auth.appRole.secretIdFile", file),
                SecretId::Wrapped(file) => ("spec.vault.auth.appRole.wrappedSecretIdFile", file),
            });
        }
        VaultAuth::Kubernetes(login) => {
            files.push(("spec.vault.auth.kubernetes.tokenFile", &login.token_file));
        }
        VaultAuth::Jwt(login) => files.push(("spec.vault.auth.jwt.tokenFile", &login.token_file)),
        VaultAuth::JwtSvid { .. } | VaultAuth::Certificate { .. } => {}
    }
    files
}

/// What `serve` could not make or read: the places that the settings name.
pub(crate) fn places(settings: &Settings) -> Vec<Problem> {
    let base = settings.origin.file.path.parent().unwrap_or_else(|| Path::new(""));
    let mut warnings = files::of_settings(settings, base);
    warnings.extend(tokens::files(settings, base));
    let mut cannot = |field: &str, path: &Path| {
        // What is there is told of with its mode.
        let is_told = path == settings.data_dir && path.is_dir();
        if let Some(obstacle) = obstacle(path).filter(|_| !is_told) {
            let message = format!("{}: it cannot be made, {obstacle}", path.display());
            warnings.push(settings.problem(field, message));
        }
    };
    cannot("dataDir", &settings.data_dir);
    if let Some(parent) = settings.admin.token_file.parent() {
        cannot("admin.tokenFile", parent);
    }
    let seal_key = settings.ledger.seal_key_file.as_deref().and_then(Path::parent);
    if let Some(parent) = seal_key {
        cannot("ledger.sealKeyFile", parent);
    }
    let rules = DialRules::new(settings.egress.private_ranges.clone());
    let collector = settings.telemetry.address().and_then(|address| refused(address, &rules));
    warnings.extend(collector.map(|message| settings.problem("telemetry.otlp.endpoint", message)));
    warnings.extend(webhook(settings, &rules));
    warnings.extend(database(settings, &rules));
    for (at, address) in settings.limits.redis.iter().flat_map(|redis| redis.addresses.iter().enumerate()) {
        let message = address.host.parse().ok().and_then(|ip| refused(ip, &rules));
        let field = format!("limits.redis.addresses[{at}]");
        warnings.extend(message.map(|message| settings.problem(&field, message)));
    }
    warnings
}

/// What keeps messages from their receiver.
fn webhook(settings: &Settings, rules: &DialRules) -> Vec<Problem> {
    let Some(webhook) = &settings.alerts.webhook else { return Vec::new() };
    let refused = settings.alerts.address().and_then(|address| refused(address, rules));
    let refused = refused.map(|message| ("url", message));
    let named = [("secretFile", Some(&webhook.secret_file)), ("caFile", webhook.ca_file.as_ref())];
    let missing = named.into_iter().filter_map(|(field, file)| {
        let file = file.filter(|file| !file.exists())?;
        Some((field, format!("{}: no such file", file.display())))
    });
    let secret = secret_problem(&webhook.secret_file).map(|message| ("secretFile", message));
    let problems = refused.into_iter().chain(missing).chain(secret);
    problems.map(|(field, message)| settings.problem(&format!("alerts.webhook.{field}"), message)).collect()
}

/// What keeps the ledger from reaching the database of several replicas.
fn database(settings: &Settings, rules: &DialRules) -> Vec<Problem> {
    let Some(postgres) = &settings.ledger.postgres else { return Vec::new() };
    let named =
        [("passwordFile", Some(&postgres.password_file)), ("tls.caFile", postgres.tls.ca_file.as_ref())];
    let missing = named.into_iter().filter_map(|(field, file)| {
        let file = file.filter(|file| !file.exists())?;
        Some((field, format!("{}: no such file", file.display())))
    });
    let address = postgres.host_and_port().and_then(|(host, _)| bare(host));
    let refused = address.and_then(|address| refused(address, rules)).map(|message| ("address", message));
    let problems = missing.chain(refused);
    problems.map(|(field, message)| settings.problem(&format!("ledger.postgres.{field}"), message)).collect()
}

/// Why there can be no directory of this name.
fn obstacle(directory: &Path) -> Option<String> {
    let there = directory.ancestors().find(|path| path.exists())?;
    let metadata = std::fs::metadata(there).ok()?;
    if !metadata.is_dir() {
        return Some(format!("{} is not a directory", there.display()));
    }
    let is_writable = nix::unistd::access(there, nix::unistd::AccessFlags::W_OK).is_ok();
    (!is_writable).then(|| format!("{} may not be written by this user", there.display()))
}

#[cfg(test)]
mod tests;
