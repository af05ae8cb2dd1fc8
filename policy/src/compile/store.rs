//! Secret stores: exactly one kind each.

mod aws;
mod environment;
mod kubernetes;
mod svid;
mod vault;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::own::{check_allowed, check_allowed_paths, check_store};
use super::place::normalised;
use super::{Compiler, Scope};
use crate::model::{AwsSpec, EnvSpec, FromSpec, Resource, StoreSpec, SvidSpec, VaultSpec};
use crate::resource::{Store, StoreKind};

impl Compiler<'_> {
    pub(super) fn stores(&mut self) {
        for resource in &self.model.stores {
            let mut scope = Scope::new(resource, self.namespaces, &mut self.problems);
            check_allowed(resource.spec.allowed_namespaces.as_ref(), &mut scope);
            check_allowed_paths(&resource.spec.allowed_paths, &mut scope);
            check_store(&resource.spec, &mut scope);
            if let Some(kind) = kind(resource, &self.environment.audiences, &mut scope) {
                if let StoreKind::File { root } = &kind {
                    check_apart(root, &self.environment.own_files, &mut scope);
                }
                let store = Store { name: resource.id.clone(), kind };
                self.parts.store_origins.insert(resource.id.clone(), resource.source.clone());
                self.parts.stores.insert(resource.id.clone(), Arc::new(store));
            }
        }
    }
}

enum WrittenStore<'a> {
    File(&'a Option<String>),
    Age(&'a Option<String>, &'a Option<String>),
    Vault(&'a VaultSpec),
    Aws(&'a AwsSpec),
    Env(&'a EnvSpec),
    Kubernetes,
    Svid(&'a SvidSpec),
}

fn kind(resource: &Resource<StoreSpec>, audiences: &[String], scope: &mut Scope<'_>) -> Option<StoreKind> {
    let StoreSpec { file, age, vault, aws, env, kubernetes, svid, .. } = &resource.spec;
    let fields = [
        ("file", file.as_ref().map(|file| WrittenStore::File(&file.root))),
        ("age", age.as_ref().map(|age| WrittenStore::Age(&age.file, &age.identity_file))),
        ("vault", vault.as_ref().map(WrittenStore::Vault)),
        ("aws", aws.as_ref().map(WrittenStore::Aws)),
        ("env", env.as_ref().map(WrittenStore::Env)),
        ("kubernetes", kubernetes.as_ref().map(|_| WrittenStore::Kubernetes)),
        ("svid", svid.as_ref().map(WrittenStore::Svid)),
    ];
    Some(match scope.exactly_one("spec", fields)? {
        WrittenStore::File(root) => StoreKind::File {
            root: file_path(scope, "spec.file.root", root, "the directory of the secrets")?,
        },
        WrittenStore::Age(encrypted, identity) => {
            let encrypted = file_path(scope, "spec.age.file", encrypted, "the encrypted file");
            let identity =
                file_path(scope, "spec.age.identityFile", identity, "the file with the age identity");
            StoreKind::Age { file: encrypted?, identity_file: identity? }
        }
        WrittenStore::Vault(vault) => StoreKind::Vault(vault::vault(vault, scope)?),
        WrittenStore::Aws(aws) => StoreKind::Aws(aws::store(aws, scope)?),
        WrittenStore::Env(env) => StoreKind::Env { prefix: environment::prefix(env, scope)? },
        WrittenStore::Kubernetes => kubernetes::store(scope)?,
        WrittenStore::Svid(svid) => {
            svid::store(svid, resource.spec.allowed_namespaces.is_some(), audiences, scope)
        }
    })
}

/// What a store of this kind wants of a reference to it, or cannot use.
pub(super) fn check_reference((at, from): (&str, &FromSpec), kind: &StoreKind, scope: &mut Scope<'_>) {
    match kind {
        StoreKind::Aws(store) => return aws::check_reference((at, from), store, scope),
        StoreKind::Env { .. } => environment::check_path((at, from), scope),
        StoreKind::Kubernetes => kubernetes::check_name((at, from), scope),
        StoreKind::Svid { audience } => svid::check_reference((at, from), audience.as_deref(), scope),
        StoreKind::File { .. } | StoreKind::Age { .. } | StoreKind::Vault(_) => {}
    }
    for (field, written) in [("stage", &from.stage), ("versionId", &from.version_id)] {
        if written.is_some() {
            scope.problem(&format!("{at}.{field}"), "only an AWS store has stages and version ids");
        }
    }
}

/// A store shows none of the gateway's own files, whatever path a credential names.
fn check_apart(root: &Path, own: &[(String, PathBuf)], scope: &mut Scope<'_>) {
    let root = normalised(root);
    let meets = |own: &Path| own.starts_with(&root) || root.starts_with(own);
    if let Some((setting, _)) = own.iter().find(|(_, path)| meets(&normalised(path))) {
        let message = format!(
            "what `{setting}` of the settings names is in there, and is no secret for calls: keep them apart"
        );
        scope.problem("spec.file.root", message);
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
