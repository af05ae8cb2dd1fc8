//! Keeping the keys of an issuer: from its file at every look, from its server now and then, and when a token names a key that is not known.
//!
//! **Invariant:** one task asks for one issuer, so there is one fetch at a time; what it gets replaces what was before, whole, or nothing of it
//! is taken. Until the next good answer, the keys of the last one serve.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use tollgate_secrets::{Failure, FetchToken, Fetcher};

use super::issuer::{HttpsSource, KeySource, TokenIssuer};
use super::keys::KeySet;
use crate::identity::workload_api::JwtBundles;
use crate::stable_file::{Look, StableFile};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two fetches that succeed. So long may a key be used that its issuer has withdrawn.
const FETCH_EVERY: Duration = Duration::from_secs(300);
/// Between two fetches that fail: at first, and at most.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// What a file of keys may have.
const MOST_BYTES: usize = 1 << 20;

/// Why there are no new keys.
#[derive(Debug, thiserror::Error)]
enum KeyFault {
    #[error("{0}")]
    File(String),
    #[error("{0}: {1}")]
    Fetch(String, Failure),
    #[error(
        "{0}: {1}: the token of `tokenFile` is not shown to this host: name it in `tokenHosts` if it may see the token"
    )]
    Unshown(String, Failure),
    #[error("{0}: {1}")]
    Unusable(String, &'static str),
}

/// What of an issuer's configuration is read (OpenID Connect Discovery 1.0, section 3).
#[derive(Deserialize)]
struct DiscoveryDocument {
    issuer: String,
    jwks_uri: String,
}

/// Keeps the keys of `issuer` up to date, for ever.
pub(super) async fn keep(issuer: Arc<TokenIssuer>, dialable: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>) {
    match &issuer.source {
        KeySource::File(file) => keep_file(&issuer, file).await,
        // Whoever follows that hands them over.
        KeySource::WorkloadApi => {}
        KeySource::Url(https) | KeySource::Discovery(_, https) => {
            let servers = || https.shown_to.iter().map(String::as_str);
            let token = https.token.clone().map(|file| FetchToken::new(file, servers()));
            let fetcher = Fetcher::new(https.ca.clone(), token, dialable);
            keep_fetched(&issuer, https, &fetcher).await;
        }
    }
}

impl TokenIssuer {
    /// Reads its keys, where they are in a file, before anything else is done.
    pub(super) fn first(&self) {
        if let KeySource::File(file) = &self.source {
            self.settle(self.of_file(file, read(file)));
        }
    }

    /// Takes what came of asking it, and says what is new of it.
    fn settle(&self, keys: Result<KeySet, KeyFault>) -> bool {
        let issuer = &self.title;
        match keys {
            Ok(keys) => {
                let count = keys.len();
                if self.take(keys, Timestamp::now()) {
                    tracing::info!(%issuer, keys = count, "keys of an issuer of tokens taken");
                }
                true
            }
            Err(fault) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                let said = fault.to_string();
                let is_known = self.fault.load().as_ref().is_some_and(|known| **known == said);
                if !is_known {
                    tracing::error!(%issuer, problem = %said, "the keys of an issuer of tokens cannot be had; until they can, those that it last said serve");
                }
                self.fault.store(Some(Arc::new(said)));
                false
            }
        }
    }

    /// Takes what the Workload API says: the keys of all trust domains, or why nothing is heard of it. One whose keys it says no more has
    /// none.
    pub(super) fn take_said(&self, said: Result<&JwtBundles, &str>) {
        let (KeySource::WorkloadApi, Some(domain)) = (&self.source, self.trust_domain()) else { return };
        let api = || "the Workload API".to_owned();
        let unusable = |problem| KeyFault::Unusable(api(), problem);
        self.settle(match said.map(|bundles| bundles.get(domain)) {
            Ok(Some(keys)) => KeySet::of_workload_api(keys).map_err(unusable),
            Ok(None) => {
                self.take(KeySet::default(), Timestamp::now());
                Err(unusable(
                    "it says no keys of this trust domain: federate the entry of this process with it",
                ))
            }
            Err(problem) => Err(KeyFault::File(format!("{}: {problem}", api()))),
        });
    }

    fn of_file(&self, file: &Path, bytes: Result<Vec<u8>, String>) -> Result<KeySet, KeyFault> {
        let shown = || file.display().to_string();
        let bytes = bytes.map_err(|error| KeyFault::File(format!("{}: {error}", file.display())))?;
        KeySet::read(&bytes, self.kind()).map_err(|problem| KeyFault::Unusable(shown(), problem))
    }

    async fn fetch(&self, https: &HttpsSource, fetcher: &Fetcher) -> Result<KeySet, KeyFault> {
        let get = async |url: &str| {
            fetcher.get(url).await.map_err(|failure| match failure {
                Failure::Status(401 | 403) if fetcher.hides_token(url) => {
                    KeyFault::Unshown(url.to_owned(), failure)
                }
                failure => KeyFault::Fetch(url.to_owned(), failure),
            })
        };
        let url = match &self.source {
            KeySource::Discovery(name, _) => {
                // Section 4: a slash at its end goes before the path is appended.
                let url = format!("{}/.well-known/openid-configuration", name.trim_end_matches('/'));
                let document = get(&url).await?;
                jwks_uri(&document, name).map_err(|problem| KeyFault::Unusable(url, problem))?
            }
            _ => https.url.clone(),
        };
        let keys = get(&url).await?;
        KeySet::read(&keys, self.kind()).map_err(|problem| KeyFault::Unusable(url, problem))
    }
}

/// Where the configuration of the issuer of this name says that its keys are.
fn jwks_uri(document: &[u8], name: &str) -> Result<String, &'static str> {
    let document: DiscoveryDocument = serde_json::from_slice(document)
        .map_err(|_| "it is no configuration of an issuer: an object with `issuer` and `jwks_uri`")?;
    if document.issuer != name {
        return Err("its `issuer` is another one than that of the settings");
    }
    if document.jwks_uri.starts_with("https://") {
        Ok(document.jwks_uri)
    } else {
        Err("its `jwks_uri` is not https")
    }
}

async fn keep_file(issuer: &TokenIssuer, file: &Path) {
    let mut settle = StableFile::new(None);
    loop {
        let bytes = read(file);
        match settle.look(bytes.clone()) {
            Look::Unsettled => {}
            // What is as it was read stands, and is as old as this look.
            Look::Settled => drop(issuer.settle(issuer.of_file(file, bytes))),
            Look::Same if issuer.fault.load().is_none() => issuer.confirm(Timestamp::now()),
            Look::Same => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn keep_fetched(issuer: &TokenIssuer, https: &HttpsSource, fetcher: &Fetcher) {
    let [mut again, most] = AGAIN;
    loop {
        let pause = if issuer.settle(issuer.fetch(https, fetcher).await) {
            [again, _] = AGAIN;
            FETCH_EVERY
        } else {
            let pause = again;
            again = most.min(again * 2);
            pause
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = issuer.wanted.notified() => {}
        }
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
    if bytes.len() > MOST_BYTES { Err("it is larger than 1 MiB".to_owned()) } else { Ok(bytes) }
}
