//! Kubernetes Secrets of the store's own namespace, asked for one by one with the client that the gateway reads its
//! resources with.
//!
//! **Invariant:** nothing is asked for outside of that namespace, and never a list of Secrets: the rights `get` and
//! `watch` on single names are enough. An answer is read in place, from the zeroized buffer that it was received in.
//!
//! Deliberately lacks: values of a watch. It is only told that a Secret is another one, which is then read anew.

mod answer;
mod watch;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use tokio::time;
use tollgate_policy::policy::SecretRef;
use zeroize::Zeroizing;

use super::Fetched;
use crate::error::Failure;
use crate::http::tls_word;
use crate::reference::Reference;

/// An API server takes no larger Secret than 1 MiB, which base64 makes longer:
/// <https://kubernetes.io/docs/concepts/configuration/secret/#restriction-data-limit>.
const BODY_LIMIT: usize = 2 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(8);

/// How to ask the API server, from when the gateway says so. Without it there is no cluster.
#[derive(Clone, Default)]
pub(crate) struct Cluster(Arc<OnceLock<Client>>);

impl Cluster {
    /// Takes the client. What it was told first stays.
    pub(crate) fn reach(&self, client: Client) {
        let _ = self.0.set(client);
    }

    fn client(&self) -> Result<&Client, Failure> {
        let without = Failure::Misconfigured(
            "the gateway reads no objects of a cluster, and has no access to its Secrets",
        );
        self.0.get().ok_or(without)
    }
}

/// The Secrets of one namespace.
pub(super) struct NamespaceSecrets {
    namespace: String,
    cluster: Cluster,
    /// The version of the object that each was last read at.
    read: Mutex<HashMap<SecretRef, String>>,
    /// Whether it was said that one cannot be watched.
    unwatched: AtomicBool,
}

impl NamespaceSecrets {
    pub(super) fn new(namespace: &str, cluster: Cluster) -> Self {
        Self {
            namespace: namespace.to_owned(),
            cluster,
            read: Mutex::default(),
            unwatched: AtomicBool::new(false),
        }
    }

    /// The named keys of a Secret, or the only one that it has.
    pub(super) async fn fetch(&self, reference: &Reference) -> Result<Fetched, Failure> {
        let name = reference.secret.path.as_str();
        let request = self.request(name, "").body(Body::empty()).map_err(|_| Failure::Internal)?;
        let answered = time::timeout(PATIENCE, self.receive(request)).await;
        let (status, body) = answered.unwrap_or(Err(Failure::Timeout))?;
        judge(status)?;
        let (value, version) = answer::secret(&body, &reference.secret.fields)?;
        self.read().insert(reference.secret.clone(), version);
        // Its version changes with every label; what the value is, its own digest says.
        Ok(Fetched { value, version: None, lease: None, expires: None })
    }

    /// Ready when the Secret is another one than was last read, or might be. Never where it cannot be watched.
    pub(super) async fn changed(&self, reference: &Reference) {
        let read = self.read().get(&reference.secret).cloned();
        let Some(version) = read else { return std::future::pending().await };
        watch::until_changed(self, &reference.secret.path, version).await;
    }

    /// A request for one Secret; `query` begins with `?` unless it is empty.
    fn request(&self, name: &str, query: &str) -> http::request::Builder {
        let path = match query.is_empty() {
            true => format!("/api/v1/namespaces/{}/secrets/{name}", self.namespace),
            false => format!("/api/v1/namespaces/{}/secrets{query}", self.namespace),
        };
        Request::get(path).header(http::header::ACCEPT, "application/json")
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Failure> {
        self.cluster.client()?.send(request).await.map_err(|error| classify(&error))
    }

    async fn receive(&self, request: Request<Body>) -> Result<(StatusCode, Zeroizing<Vec<u8>>), Failure> {
        let response = self.send(request).await?;
        let status = response.status();
        let mut frames = response.into_body();
        let mut body = Zeroizing::new(Vec::with_capacity(4096));
        while let Some(frame) = frames.frame().await {
            let frame = frame.map_err(|error| classify(&error))?;
            let Some(chunk) = frame.data_ref() else { continue };
            let filled = body.len() + chunk.len();
            if filled > BODY_LIMIT {
                return Err(Failure::Foreign("it is larger than 2 MiB"));
            }
            if filled > body.capacity() {
                // Growing in place would leave a copy that nobody zeroizes.
                let mut larger = Zeroizing::new(Vec::with_capacity(filled.max(2 * body.capacity())));
                larger.extend_from_slice(&body);
                body = larger;
            }
            body.extend_from_slice(chunk);
        }
        Ok((status, body))
    }

    fn read(&self) -> MutexGuard<'_, HashMap<SecretRef, String>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an API server says with a status: <https://kubernetes.io/docs/reference/using-api/api-concepts/>.
fn judge(status: StatusCode) -> Result<(), Failure> {
    match status {
        StatusCode::OK => Ok(()),
        StatusCode::NOT_FOUND => Err(Failure::NotFound),
        StatusCode::FORBIDDEN => Err(Failure::Denied),
        StatusCode::UNAUTHORIZED => {
            Err(Failure::Login("the API server does not take the gateway's own token"))
        }
        StatusCode::TOO_MANY_REQUESTS => Err(Failure::Throttled),
        other => Err(Failure::Status(other.as_u16())),
    }
}

/// Only the kind is taken from an error: its text may quote what was sent or received.
fn classify(error: &kube::Error) -> Failure {
    if matches!(error, kube::Error::Auth(_)) {
        return Failure::Login("the gateway's own token for the API server cannot be had");
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Failure::Tls(tls_word(error));
        }
        cause = match error.downcast_ref::<io::Error>() {
            Some(error) if error.kind() == io::ErrorKind::TimedOut => return Failure::Timeout,
            // `io::Error::source` skips the error that it wraps.
            Some(error) => error.get_ref().map(|wrapped| wrapped as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    Failure::Unreachable("the API server does not answer")
}
