//! Client certificates whose public part is another than before: those that both sides have in files.
//!
//! Lacks on purpose: what is in a vault or a cluster. A comparison logs in nowhere.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tollgate_policy::access::{Change, Diff, What};
use tollgate_policy::policy::{Destination, Policy, StoreKind};
use tollgate_secrets::digest::sha256;
use tollgate_secrets::read_file_secret;

use crate::upstream;

/// Adds to what a change does, for certificates of the same name that have another content.
pub(super) fn compare(old: &Policy, new: &Policy, diff: &mut Diff) {
    for destination in new.destinations() {
        let Some(before) = old.destination(destination.name.as_str()) else { continue };
        let (now, was) = (of_destination(new, destination), of_destination(old, before));
        if let (Some((name, now)), Some((_, was))) = (now, was)
            && let Some(words) = differ(now, was)
        {
            let words = format!("destination {}: client certificate {name} {words}", destination.name);
            diff.adds.push(change(What::ClientCertificate, words));
        }
    }
    for store in new.stores() {
        let Some(before) = old.store(store.name.as_str()) else { continue };
        if let (Some(now), Some(was)) = (of_login(&store.kind), of_login(&before.kind))
            && let Some(words) = differ(now, was)
        {
            let words = format!("store {}: the certificate that it is shown {words}", store.name);
            diff.adds.push(change(What::Store, words));
        }
    }
}

/// How one certificate differs from another. One that cannot be read may be any.
fn differ(now: Option<String>, was: Option<String>) -> Option<String> {
    match (now, was) {
        (Some(now), Some(was)) => (now != was).then(|| format!("is {now} (before: {was})")),
        (None, _) => Some("cannot be read, so that it may be another".to_owned()),
        (_, None) => Some("could not be read before, so that it may be another".to_owned()),
    }
}

fn change(what: What, words: String) -> Change {
    Change { what, grant: None, words, example: None }
}

/// Name and fingerprint of the certificate in a file that a destination is shown; no fingerprint where it cannot be read.
fn of_destination(policy: &Policy, destination: &Destination) -> Option<(String, Option<String>)> {
    let credential = policy.client_certificate(destination)?;
    let from = &credential.keys.first()?.from;
    let StoreKind::File { root } = &policy.store(from.store.as_str())?.kind else { return None };
    let secret = read_file_secret(root, from).ok();
    let digest = secret.and_then(|secret| upstream::fingerprint(credential, &secret));
    Some((credential.name.to_string(), digest.map(|digest| worded(&digest))))
}

/// The fingerprint of the certificate that a vault is shown, likewise.
fn of_login(store: &StoreKind) -> Option<Option<String>> {
    let StoreKind::Vault(vault) = store else { return None };
    Some(fingerprint_of(&vault.client_certificate.as_ref()?.cert))
}

fn fingerprint_of(file: &Path) -> Option<String> {
    let first = CertificateDer::pem_file_iter(file).ok()?.next()?.ok()?;
    Some(worded(&sha256(&first)))
}

fn worded(digest: &str) -> String {
    format!("sha256:{digest}")
}
