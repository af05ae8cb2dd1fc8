//! Secrets in the form in which they go on a call, made once per core and version.
//!
//! **Invariant:** a form is used for the version it was made from only; a new version replaces it, a new policy empties all.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderName};
use tollgate_policy::map::Map;
use tollgate_policy::name::Name;
use tollgate_policy::policy::{Credential, Inject};
use tollgate_secrets::{Secret, Version};

use super::form;
use super::scrub::Needles;

/// What is added to a request.
#[derive(Clone)]
pub(super) enum Ready {
    Header(HeaderName, HeaderValue),
    Query(Bytes),
}

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(name, _) => f.debug_tuple("Header").field(name).finish_non_exhaustive(),
            Self::Query(_) => f.debug_tuple("Query").finish_non_exhaustive(),
        }
    }
}

#[derive(Debug)]
struct Entry {
    credential: Arc<Credential>,
    reference: String,
    version: Version,
    ready: Ready,
    needles: Arc<Needles>,
}

/// The forms that one core has ready.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    entries: Mutex<Map<Name, Entry>>,
}

impl Prepared {
    /// `secret` in the form that `credential` wants; `None` where it is not that credential's, or cannot take that form.
    pub(super) fn ready(&self, credential: &Arc<Credential>, secret: &Secret) -> Option<Ready> {
        self.with(credential, secret, |entry| entry.ready.clone())
    }

    /// What to look for in answers to calls with `secret`.
    pub(super) fn needles(&self, credential: &Arc<Credential>, secret: &Secret) -> Option<Arc<Needles>> {
        self.with(credential, secret, |entry| Arc::clone(&entry.needles))
    }

    /// Forgets everything: the policy changed.
    pub(crate) fn clear(&self) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn with<T>(
        &self,
        credential: &Arc<Credential>,
        secret: &Secret,
        read: impl FnOnce(&Entry) -> T,
    ) -> Option<T> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(&credential.name).filter(|entry| entry.is_for(credential, secret)) {
            return Some(read(entry));
        }
        let reference = credential.from.to_string();
        if reference != secret.reference() {
            return None;
        }
        let ready = ready(&credential.inject, secret)?;
        let needles = Arc::new(Needles::new(secret.expose(), &ready));
        let (credential, version) = (Arc::clone(credential), secret.version().clone());
        let entry = Entry { credential, reference, version, ready, needles };
        let value = read(&entry);
        entries.insert(entry.credential.name.clone(), entry);
        Some(value)
    }
}

impl Entry {
    /// The definition is compared by identity: another generation of the policy may put the same secret on a call in another way.
    fn is_for(&self, credential: &Arc<Credential>, secret: &Secret) -> bool {
        Arc::ptr_eq(&self.credential, credential)
            && self.version == *secret.version()
            && self.reference == secret.reference()
    }
}

pub(super) fn ready(inject: &Inject, secret: &Secret) -> Option<Ready> {
    let value = secret.expose();
    Some(match inject {
        Inject::Bearer => Ready::Header(AUTHORIZATION, form::header("Bearer ", value)?),
        Inject::Header { name, prefix } => Ready::Header(name.parse().ok()?, form::header(prefix, value)?),
        Inject::Basic { username } => Ready::Header(AUTHORIZATION, form::basic(username, value)?),
        Inject::Query { name } => Ready::Query(form::pair(name, value)),
    })
}
