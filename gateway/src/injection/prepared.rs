//! Secrets in the form in which they go on a call, made once per core and version.
//!
//! **Invariant:** a form is used for the version it was made from only; a new version replaces it, a new policy empties all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderName};
use tollgate_policy::name::Name;
use tollgate_policy::policy::{Credential, Inject};
use tollgate_secrets::{Secret, Version};

use super::form;
use super::scrub::Needles;

/// What is added to a request.
#[derive(Clone, Debug)]
pub(super) enum Ready {
    Header(HeaderName, HeaderValue),
    Query(Bytes),
}

#[derive(Debug)]
struct Entry {
    reference: String,
    version: Version,
    ready: Ready,
    needles: Arc<Needles>,
}

/// The forms that one core has ready.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    entries: Mutex<HashMap<Name, Entry>>,
}

impl Prepared {
    /// `secret` in the form that `credential` wants; `None` where it cannot take that form.
    pub(super) fn ready(&self, credential: &Credential, secret: &Secret) -> Option<Ready> {
        self.with(credential, secret, |entry| entry.ready.clone())
    }

    /// Whether `secret` is the one that `credential` names. Found out by name once for each version.
    pub(super) fn is_of(&self, credential: &Credential, secret: &Secret) -> bool {
        let known = |entry: &Entry| {
            entry.version == *secret.version() && entry.reference.as_str() == secret.reference()
        };
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(&credential.name).is_some_and(known) || credential.from.to_string() == secret.reference()
    }

    /// What to look for in answers to calls with `secret`.
    pub(super) fn needles(&self, credential: &Credential, secret: &Secret) -> Option<Arc<Needles>> {
        self.with(credential, secret, |entry| Arc::clone(&entry.needles))
    }

    /// Forgets everything: the policy changed.
    pub(crate) fn clear(&self) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn with<T>(&self, credential: &Credential, secret: &Secret, read: impl FnOnce(&Entry) -> T) -> Option<T> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(&credential.name)
            && entry.version == *secret.version()
            && entry.reference == secret.reference()
        {
            return Some(read(entry));
        }
        let ready = ready(&credential.inject, secret)?;
        let needles = Arc::new(Needles::new(secret.expose(), &ready));
        let entry = Entry {
            reference: credential.from.to_string(),
            version: secret.version().clone(),
            ready,
            needles,
        };
        let value = read(&entry);
        entries.insert(credential.name.clone(), entry);
        Some(value)
    }
}

fn ready(inject: &Inject, secret: &Secret) -> Option<Ready> {
    let value = secret.expose();
    Some(match inject {
        Inject::Bearer => Ready::Header(AUTHORIZATION, form::header("Bearer ", value)?),
        Inject::Header { name, prefix } => Ready::Header(name.parse().ok()?, form::header(prefix, value)?),
        Inject::Basic { username } => Ready::Header(AUTHORIZATION, form::basic(username, value)?),
        Inject::Query { name } => Ready::Query(form::pair(name, value)),
    })
}
