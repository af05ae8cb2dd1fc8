//! How stores are reached and logged in to, for whoever has to agree to a change of that.

use std::path::Path;

use super::change::{Change, Diff, What};
use crate::policy::{Policy, StoreKind};
use crate::resource::{AwsStore, KvVersion, SecretId, Store, TokenLogin, VaultAuth, VaultStore};

/// What stores of both policies are another way than before.
pub(super) fn compare(old: &Policy, new: &Policy, diff: &mut Diff) {
    for store in new.stores() {
        let Some(before) = old.store(store.name.as_str()) else { continue };
        let mut add = |words: String| {
            diff.add(Change::of(What::Store, None, format!("store {}: {words}", store.name)));
        };
        let (now, before_that) = (parts(new, store), parts(old, before));
        if kind(&store.kind) != kind(&before.kind) {
            let all: Vec<String> = now.iter().map(|(what, how)| format!("{what} {how}")).collect();
            add(format!("is {} (before: {}): {}", kind(&store.kind), kind(&before.kind), all.join(", ")));
            continue;
        }
        for (what, how) in &now {
            let was = before_that.iter().find(|(known, _)| known == what).map(|(_, was)| was);
            if was != Some(how) {
                add(format!("{what} {how} (before: {})", was.map_or("nothing was said", String::as_str)));
            }
        }
    }
}

const fn kind(kind: &StoreKind) -> &'static str {
    match kind {
        StoreKind::File { .. } => "files",
        StoreKind::Age { .. } => "a file encrypted with age",
        StoreKind::Vault(_) => "a vault",
        StoreKind::Aws(_) => "AWS Secrets Manager",
        StoreKind::Env { .. } => "the environment",
        StoreKind::Kubernetes => "Kubernetes Secrets",
        StoreKind::Svid { .. } => "the gateway's own SVIDs",
    }
}

/// What there is to say of a store, the same things for each of its kind.
fn parts(policy: &Policy, store: &Store) -> Vec<(&'static str, String)> {
    let origin = policy.store_origin(store.name.as_str());
    let file = |path: &Path| origin.map_or(path, |origin| origin.unresolve(path)).display().to_string();
    match &store.kind {
        StoreKind::File { root } => vec![("reads below", file(root))],
        StoreKind::Age { file: encrypted, identity_file } => {
            vec![("reads", file(encrypted)), ("is decrypted by the identity in", file(identity_file))]
        }
        StoreKind::Vault(vault) => of_vault(vault, file),
        StoreKind::Aws(aws) => of_aws(aws, file),
        StoreKind::Env { prefix } => vec![("reads variables that begin with", prefix.clone())],
        // Its namespace is its name's.
        StoreKind::Kubernetes => Vec::new(),
        StoreKind::Svid { audience } => vec![("has JWT-SVIDs for", or(audience.clone(), "nobody"))],
    }
}

fn of_vault(store: &VaultStore, file: impl Fn(&Path) -> String) -> Vec<(&'static str, String)> {
    let VaultStore { address, mount, kv, namespace, ca, client_certificate, auth } = store;
    let version = match kv {
        KvVersion::V1 => 1,
        KvVersion::V2 => 2,
    };
    let shown = client_certificate.as_ref().map(|shown| {
        format!("the certificate in {} with the key in {}", file(&shown.cert), file(&shown.key))
    });
    vec![
        ("is reached at", address.clone()),
        ("reads below", format!("{mount}, version {version} of the KV engine")),
        ("is asked in the namespace", or(namespace.clone(), "root")),
        ("is verified by", authorities(ca.as_deref(), &file)),
        ("is shown", or(shown, "no certificate")),
        ("is logged in to", login(auth, file)),
    ]
}

fn login(auth: &VaultAuth, file: impl Fn(&Path) -> String) -> String {
    let by_token = |what: &str, login: &TokenLogin| {
        let TokenLogin { mount, role, token_file } = login;
        format!("by {what} at {mount} as {role}, with the token in {}", file(token_file))
    };
    match auth {
        VaultAuth::Token { file: token } => format!("with the token in {}", file(token)),
        VaultAuth::AppRole { mount, role_id_file, secret_id } => {
            let (role, secret) = match secret_id {
                SecretId::File(secret) => (file(role_id_file), format!("the secret id in {}", file(secret))),
                SecretId::Wrapped(token) => {
                    (file(role_id_file), format!("the secret id that the token in {} unwraps", file(token)))
                }
            };
            format!("by AppRole at {mount} with the role id in {role} and {secret}")
        }
        VaultAuth::Kubernetes(login) => by_token("Kubernetes", login),
        VaultAuth::Jwt(login) => by_token("JWT", login),
        VaultAuth::JwtSvid { mount, role, audience } => {
            format!("by JWT at {mount} as {role}, with the gateway's own SVID for {audience}")
        }
        VaultAuth::Certificate { mount, role } => {
            let role = role.as_deref().unwrap_or("whichever role it fits");
            format!("by the certificate at {mount} as {role}")
        }
    }
}

fn of_aws(store: &AwsStore, file: impl Fn(&Path) -> String) -> Vec<(&'static str, String)> {
    let AwsStore { region, endpoint, ca, credentials_file, profile, role_arn } = store;
    vec![
        ("is in the region", region.clone()),
        ("is reached at", or(endpoint.clone(), "the region's own endpoint")),
        ("is verified by", authorities(ca.as_deref(), &file)),
        (
            "takes access keys from",
            or(credentials_file.as_deref().map(&file), "where the AWS SDK finds them"),
        ),
        ("takes them of the profile", or(profile.clone(), "the default one")),
        ("assumes the role", or(role_arn.clone(), "none")),
    ]
}

fn authorities(file: Option<&Path>, name: impl Fn(&Path) -> String) -> String {
    or(file.map(|file| format!("those in {}", name(file))), "the system's certificate authorities")
}

fn or(said: Option<String>, otherwise: &str) -> String {
    said.unwrap_or_else(|| otherwise.to_owned())
}
