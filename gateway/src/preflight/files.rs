//! Whether the files that are there can be read, by us and by nobody else, and hold what they should.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use tollgate_policy::model::Problem;
use tollgate_policy::name::ResourceId;
use tollgate_policy::policy::{AwsStore, Policy, SecretId, StoreKind, VaultAuth, VaultStore};
use tollgate_secrets::{AgeFile, AgeFileError};

use crate::settings::Settings;

/// What a file of a secret store is not, by field. Files that are not there are told elsewhere.
pub(crate) fn of_store(kind: &StoreKind) -> Vec<(&'static str, String)> {
    let mut wrong = unusable(kind);
    wrong.extend(keys(kind).into_iter().filter_map(|(field, file)| Some((field, exposed(file)?))));
    wrong
}

/// What of it cannot be used.
fn unusable(kind: &StoreKind) -> Vec<(&'static str, String)> {
    let mut wrong: Vec<_> =
        files(kind).into_iter().filter_map(|(field, file)| Some((field, unreadable(file)?))).collect();
    if wrong.is_empty()
        && let StoreKind::Age { file, identity_file } = kind
        && let Err(AgeFileError::Unusable { path, failure }) = AgeFile::new(file, identity_file).list()
    {
        let field = if path == *identity_file { "spec.age.identityFile" } else { "spec.age.file" };
        wrong.push((field, format!("{}: {failure}", path.display())));
    }
    wrong
}

/// The secrets of a policy in files that this user cannot read, or every user can.
pub(super) fn of_credentials(policy: &Policy) -> Vec<Problem> {
    let mut files: BTreeMap<PathBuf, &ResourceId> = BTreeMap::new();
    for key in policy.credentials().flat_map(|credential| &credential.keys) {
        let store = &key.from.store;
        if let Some(StoreKind::File { root }) = policy.store(store.as_str()).map(|store| &store.kind) {
            files.insert(root.join(&key.from.path), store);
        }
    }
    let wrong = files.into_iter().filter_map(|(file, store)| {
        let message = unreadable(&file).or_else(|| exposed(&file))?;
        Some(policy.store_origin(store.as_str())?.problem("spec.file.root", message))
    });
    wrong.collect()
}

/// The same of the files that the settings name.
pub(super) fn of_settings(settings: &Settings, base: &Path) -> Vec<Problem> {
    let named = [
        (
            "identity.certificate.keyFile",
            settings.identity.certificate.as_ref().map(|files| base.join(&files.key_file)),
        ),
        ("interception.caKeyFile", settings.interception.as_ref().map(|ca| base.join(&ca.ca_key_file))),
        ("admin.tokenFile", Some(settings.admin.token_file.clone())),
        ("ledger.sealKeyFile", settings.ledger.seal_key_file.clone()),
        (
            "ledger.postgres.passwordFile",
            settings.ledger.postgres.as_ref().map(|postgres| postgres.password_file.clone()),
        ),
        (
            "limits.redis.passwordFile",
            settings.limits.redis.as_ref().and_then(|redis| redis.password_file.clone()),
        ),
        (
            "alerts.webhook.secretFile",
            settings.alerts.webhook.as_ref().map(|webhook| webhook.secret_file.clone()),
        ),
    ];
    let named = named.into_iter().map(|(field, file)| (field.to_owned(), file));
    let headers = settings.telemetry.header_files().map(|(field, file)| (field, file.cloned()));
    let named = named.chain(headers).filter_map(|(field, file)| Some((field, file?)));
    let wrong = named.filter_map(|(field, file)| {
        unreadable(&file).or_else(|| exposed(&file)).map(|message| settings.problem(&field, message))
    });
    wrong.chain(unwritable(&settings.data_dir).map(|message| settings.problem("dataDir", message))).collect()
}

/// What cannot be written in a data directory that is there.
fn unwritable(data_dir: &Path) -> Option<String> {
    let below = std::fs::read_dir(data_dir).ok()?.flatten().map(|entry| entry.path());
    let mut all = std::iter::once(data_dir.to_path_buf()).chain(below);
    let path = all.find(|path| access(path, AccessFlags::W_OK).is_err())?;
    let mode = mode(&path)?;
    let path = path.display();
    Some(format!(
        "{path}: this user may not write it (mode {mode:04o}): chmod u+w {path}, or chown it to the user that serves"
    ))
}

pub(super) fn unreadable(file: &Path) -> Option<String> {
    let mode = mode(file)?;
    let error = File::open(file).err()?;
    let path = file.display();
    Some(format!(
        "{path}: this user cannot read it (mode {mode:04o}, {error}): chmod 600 {path}, or chown it to the user that serves"
    ))
}

pub(super) fn exposed(file: &Path) -> Option<String> {
    let mode = mode(file).filter(|mode| mode & 0o007 != 0)?;
    let path = file.display();
    Some(format!("{path}: every user of this machine can use it (mode {mode:04o}): chmod 600 {path}"))
}

/// `None` where there is no such file.
fn mode(file: &Path) -> Option<u32> {
    std::fs::metadata(file).ok().map(|metadata| metadata.permissions().mode() & 0o7777)
}

/// Everything that a store reads, by field.
fn files(kind: &StoreKind) -> Vec<(&'static str, &Path)> {
    match kind {
        StoreKind::File { root } => vec![("spec.file.root", root)],
        StoreKind::Age { file, identity_file } => {
            vec![("spec.age.file", file), ("spec.age.identityFile", identity_file)]
        }
        StoreKind::Vault(vault) => super::vault_files(vault),
        StoreKind::Aws(AwsStore { ca, credentials_file, .. }) => {
            let ca = ca.iter().map(|ca| ("spec.aws.caFile", ca.as_path()));
            ca.chain(credentials_file.iter().map(|file| ("spec.aws.credentialsFile", file.as_path())))
                .collect()
        }
        StoreKind::Env { .. } | StoreKind::Kubernetes | StoreKind::Svid { .. } => Vec::new(),
    }
}

/// What only its owner may read. A token that Kubernetes mounts can be read by all in its container, and is no mistake.
fn keys(kind: &StoreKind) -> Vec<(&'static str, &Path)> {
    match kind {
        StoreKind::Age { identity_file, .. } => vec![("spec.age.identityFile", identity_file)],
        StoreKind::Vault(vault) => vault_keys(vault),
        StoreKind::Aws(AwsStore { credentials_file, .. }) => {
            credentials_file.iter().map(|file| ("spec.aws.credentialsFile", file.as_path())).collect()
        }
        StoreKind::File { .. } | StoreKind::Env { .. } | StoreKind::Kubernetes | StoreKind::Svid { .. } => {
            Vec::new()
        }
    }
}

fn vault_keys(vault: &VaultStore) -> Vec<(&'static str, &Path)> {
    let mut keys: Vec<(&'static str, &Path)> = Vec::new();
    if let Some(shown) = &vault.client_certificate {
        let field = match vault.auth {
            VaultAuth::Certificate { .. } => "spec.vault.auth.certificate.keyFile",
            _ => "spec.vault.clientCertificate.keyFile",
        };
        keys.push((field, &shown.key));
    }
    match &vault.auth {
        VaultAuth::Token { file } => keys.push(("spec.vault.auth.token.file", file)),
        VaultAuth::AppRole { secret_id: SecretId::File(file), .. } => {
            keys.push(("spec.vault.auth.appRole.secretIdFile", file));
        }
        VaultAuth::AppRole { secret_id: SecretId::Wrapped(file), .. } => {
            keys.push(("spec.vault.auth.appRole.wrappedSecretIdFile", file));
        }
        VaultAuth::Kubernetes(_)
        | VaultAuth::Jwt(_)
        | VaultAuth::JwtSvid { .. }
        | VaultAuth::Certificate { .. } => {}
    }
    keys
}

/// Which file of a store, or the one that a reference names, cannot be used, and what would help; for a test of one credential.
pub(crate) fn of_reference(kind: &StoreKind, path: &str) -> Option<String> {
    let file: Option<PathBuf> = match kind {
        StoreKind::File { root } => Some(root.join(path)),
        _ => None,
    };
    let of_store = unusable(kind).into_iter().next().map(|(_, message)| message);
    of_store.or_else(|| file.as_deref().and_then(unreadable))
}
