//! Secrets in the form in which they go on a call, made once per core and version.
//!
//! **Invariant:** a form is used for the version it was made from only; a new version replaces it, a new policy empties all, and what is no
//! longer in force is forgotten also where no call asks for it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderName};
use tollgate_policy::map::Map;
use tollgate_policy::name::ResourceId;
use tollgate_policy::policy::{Credential, Destination, Inject, Injection, Scrub};
use tollgate_secrets::{Secret, Version};
use zeroize::Zeroizing;

use super::scrub::{Needles, Pair};
use super::{form, hmac, sigv4};
use crate::key_health::SelectedKey;

/// What is added to a request.
#[derive(Clone)]
pub(super) enum PreparedPart {
    Header(HeaderName, HeaderValue),
    Query(Bytes),
    Cookie(Zeroizing<Vec<u8>>),
    Signer(RequestSigner),
}

/// What signs a request; of a credential it is one at most.
#[derive(Clone)]
pub(super) enum RequestSigner {
    SigV4(Arc<sigv4::SigV4Signer>),
    Hmac(Arc<hmac::HmacSigner>),
}

impl std::fmt::Debug for PreparedPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(name, _) => f.debug_tuple("Header").field(name).finish_non_exhaustive(),
            Self::Query(_) => f.debug_tuple("Query").finish_non_exhaustive(),
            Self::Signer(_) => f.debug_tuple("Signer").finish_non_exhaustive(),
            Self::Cookie(_) => f.debug_tuple("Cookie").finish_non_exhaustive(),
        }
    }
}

#[derive(Debug)]
struct CachedInjection {
    credential: Arc<Credential>,
    key: usize,
    version: Version,
    parts: Arc<[PreparedPart]>,
    needles: Arc<Needles>,
}

/// The forms that one core has ready.
#[derive(Debug, Default)]
pub(crate) struct InjectionCache {
    /// Of each credential, those of its keys.
    entries: Mutex<Map<ResourceId, Vec<CachedInjection>>>,
    warned: Arc<ShortKeyWarnings>,
}

/// Of which version of each key the log has said that it is short. All cores share it.
#[derive(Debug, Default)]
pub(crate) struct ShortKeyWarnings(Mutex<Map<(ResourceId, usize), Version>>);

impl ShortKeyWarnings {
    fn say(&self, credential: &Credential, key: &SelectedKey) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let version = key.secret.version();
        let last = said.insert((credential.name.clone(), key.key), version.clone());
        if last.as_ref() != Some(version) {
            let name = &credential.name;
            let alias = key.alias.as_ref().map(|alias| alias.as_str());
            tracing::warn!(
                credential = %name,
                alias,
                "a part of this key has fewer than 12 bytes: it is masked in the headers of answers, but not in their bodies"
            );
        }
    }
}

impl InjectionCache {
    pub(crate) fn new(warned: Arc<ShortKeyWarnings>) -> Self {
        Self { entries: Mutex::default(), warned }
    }

    /// The secret of `key` in the forms that `credential` wants; `None` where it is not that key's, or cannot take one of them.
    pub(super) fn parts(
        &self,
        credential: &Arc<Credential>,
        key: &SelectedKey,
    ) -> Option<Arc<[PreparedPart]>> {
        self.with(credential, key, |entry| Arc::clone(&entry.parts))
    }

    /// What to look for in answers to calls with the secret of `key`.
    pub(super) fn needles(&self, credential: &Arc<Credential>, key: &SelectedKey) -> Option<Arc<Needles>> {
        self.with(credential, key, |entry| Arc::clone(&entry.needles))
    }

    /// Forgets everything: the policy changed.
    pub(crate) fn clear(&self) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Forgets the forms of which `current` says that their version is not the one in force: rotated, revoked, or too old.
    pub(crate) fn retain(&self, current: impl Fn(&Credential, usize) -> Option<Arc<Secret>>) {
        let is_current = |entry: &CachedInjection| {
            current(&entry.credential, entry.key).is_some_and(|secret| *secret.version() == entry.version)
        };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.values_mut().for_each(|own| own.retain(is_current));
        entries.retain(|_, own| !own.is_empty());
    }

    fn with<T>(
        &self,
        credential: &Arc<Credential>,
        key: &SelectedKey,
        read: impl FnOnce(&CachedInjection) -> T,
    ) -> Option<T> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let own = entries.get(&credential.name);
        if let Some(entry) = own.and_then(|own| own.iter().find(|entry| entry.is_for(credential, key))) {
            return Some(read(entry));
        }
        let secret = &*key.secret;
        if credential.reference(credential.keys.get(key.key)?) != secret.reference() {
            return None;
        }
        let parts: Option<Arc<[PreparedPart]>> =
            credential.inject.iter().map(|way| prepare(way, secret)).collect();
        let parts = parts?;
        let needles = Arc::new(needles(&credential.inject, secret)?);
        let scrubs = |to: &Arc<Destination>| to.http().is_some_and(|http| http.scrub == Scrub::All);
        if needles.has_short() && credential.destinations.iter().any(scrubs) {
            self.warned.say(credential, key);
        }
        let (credential, version) = (Arc::clone(credential), secret.version().clone());
        let entry = CachedInjection { credential, key: key.key, version, parts, needles };
        let value = read(&entry);
        let own = entries.entry(entry.credential.name.clone()).or_default();
        own.retain(|known| known.key != entry.key);
        own.push(entry);
        Some(value)
    }
}

impl CachedInjection {
    /// The definition is compared by identity: another generation of the policy may put the same secret on a call in another way. A
    /// version is one of the secret's reference too, so it is of no other key.
    fn is_for(&self, credential: &Arc<Credential>, key: &SelectedKey) -> bool {
        Arc::ptr_eq(&self.credential, credential)
            && self.key == key.key
            && self.version == *key.secret.version()
    }
}

/// The part that `injection` makes of `secret`; `None` where it cannot.
pub(super) fn prepare(injection: &Injection, secret: &Secret) -> Option<PreparedPart> {
    match &injection.way {
        Inject::SigV4(aws) => {
            let signer = sigv4::SigV4Signer::new(aws, secret)?;
            return Some(PreparedPart::Signer(RequestSigner::SigV4(Arc::new(signer))));
        }
        Inject::Hmac(wanted) => {
            let signer = hmac::HmacSigner::new(injection.field.as_deref(), wanted, secret)?;
            return Some(PreparedPart::Signer(RequestSigner::Hmac(Arc::new(signer))));
        }
        _ => {}
    }
    let value = secret.expose(injection.field.as_deref())?;
    Some(match &injection.way {
        Inject::Bearer => PreparedPart::Header(AUTHORIZATION, form::header("Bearer ", value)?),
        Inject::Header { name, prefix } => {
            PreparedPart::Header(name.parse().ok()?, form::header(prefix, value)?)
        }
        Inject::Basic { username } => PreparedPart::Header(AUTHORIZATION, form::basic(username, value)?),
        Inject::Query { name } => PreparedPart::Query(form::pair(name, value)),
        Inject::SigV4(_) | Inject::Hmac(_) | Inject::ClientCertificate { .. } => return None,
        Inject::Cookie { name } => PreparedPart::Cookie(form::cookie(name, value)?),
    })
}

/// What of it may come back: all that is read out of the headers or the query that it was put in.
fn needles(ways: &[Injection], secret: &Secret) -> Option<Needles> {
    let (mut whole, mut pairs) = (Vec::new(), Vec::new());
    for Injection { field, way } in ways {
        match way {
            Inject::SigV4(aws) => {
                // The id of an access key is public, and services name it.
                whole.push(secret.expose(Some(&aws.secret_access_key))?);
                whole.extend(aws.session_token.as_deref().and_then(|token| secret.expose(Some(token))));
            }
            Inject::Basic { username } => {
                let password = secret.expose(field.as_deref())?;
                pairs.push((password, form::basic_pair(username, password)));
                whole.push(password);
            }
            Inject::Hmac(wanted) => {
                whole.push(secret.expose(field.as_deref())?);
                for field in wanted.fields() {
                    whole.push(secret.expose(Some(field))?);
                }
            }
            Inject::ClientCertificate { .. } => {}
            _ => whole.push(secret.expose(field.as_deref())?),
        }
    }
    let pairs: Vec<Pair<'_>> =
        pairs.iter().map(|(secret, (text, encoded))| Pair { secret, text, encoded }).collect();
    Some(Needles::new(&whole, &pairs))
}

#[cfg(test)]
mod tests;
