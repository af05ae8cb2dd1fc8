//! One watch: a list of the objects, what changes since, and both again, for ever.
//!
//! **Invariant:** an API server is asked again only after a pause, whatever it did: said no, said nothing, or ended at once what it had
//! begun. What is too long ago for it is listed anew.
//!
//! `kube`'s own watcher waits without end for a list, begins a watch that was ended at once anew without a pause, and asks for ever for a
//! version that it was answered 410 for.

use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Status;
use kube::runtime::watcher::Event;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::Scope;
use crate::kubernetes::client::{RetryAfter, chain};
use crate::kubernetes::raw::RawObject;

/// Objects of one page of a list.
const PAGE: u32 = 50;
/// How long a page may take, and the head of a watch.
const PATIENCE: Duration = Duration::from_secs(30);
/// A watch that ends sooner was ended for no good reason.
const QUICK: Duration = Duration::from_secs(5);
/// The pause after a fault: it doubles up to the longer one, until none came for [`CALM`].
const LEAST_PAUSE: Duration = Duration::from_millis(250);
const MOST_PAUSE: Duration = Duration::from_secs(10);
const CALM: Duration = Duration::from_secs(60);

/// What a watch says; `None`: it holds, and there is nothing new.
pub(super) type Update = (Scope, Result<Option<Event<RawObject>>, WatchFault>);

/// Why a list or a watch ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchFault {
    #[error("{}: {}", .0.code, .0.message)]
    Refused(Box<Status>),
    #[error("{}", chain(.0))]
    Client(kube::Error),
    #[error("it does not answer within {} s", PATIENCE.as_secs())]
    Late,
    #[error("it ends each watch at once")]
    Ended,
    #[error("its list has no `resourceVersion`")]
    NoVersion,
}

impl From<kube::Error> for WatchFault {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused(status),
            other => Self::Client(other),
        }
    }
}

impl WatchFault {
    /// The status that it was refused with.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Refused(status) => Some(status.code),
            _ => None,
        }
    }
}

/// Why there is nothing more to say.
enum WatchEnd {
    Fault(WatchFault),
    /// Nobody listens.
    Unheard,
}

impl<E: Into<WatchFault>> From<E> for WatchEnd {
    fn from(error: E) -> Self {
        Self::Fault(error.into())
    }
}

/// Follows one watch for ever, in the first of these versions that the API server knows. Where that says when it is to be asked again, it
/// is not asked before.
pub(super) async fn follow(
    apis: Vec<Api<RawObject>>,
    scope: Scope,
    updates: mpsc::Sender<Update>,
    retry_after: RetryAfter,
) {
    let news = News { scope, updates };
    let mut version: Option<String> = None;
    let mut pause = Pause { next: LEAST_PAUSE, last: None };
    let mut at = 0;
    loop {
        let Some(api) = apis.get(at) else { return };
        let ended = match &mut version {
            None => list(api, &news).await.map(|listed| version = Some(listed)),
            Some(version) => watch(api, version, &news).await,
        };
        let fault = match ended {
            Ok(()) => continue,
            Err(WatchEnd::Unheard) => return,
            Err(WatchEnd::Fault(fault)) => fault,
        };
        // What was listed of a kind that is not known is forgotten after a while.
        if matches!(fault.code(), Some(404 | 410)) {
            version = None;
        }
        if fault.code() == Some(404) && apis.len() > 1 {
            at = (at + 1) % apis.len();
            // Only after the last of them is it known that the kind is not there.
            if at > 0 {
                continue;
            }
        }
        if news.tell(Err(fault)).await.is_err() {
            return;
        }
        tokio::time::sleep(pause.after_fault().max(retry_after.left())).await;
    }
}

/// Lists all of them; the version that a watch goes on from.
async fn list(api: &Api<RawObject>, news: &News) -> Result<String, WatchEnd> {
    news.event(Event::Init).await?;
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let listed = timeout(PATIENCE, api.list(&page)).await.map_err(|_| WatchFault::Late)??;
        for object in listed.items {
            news.event(Event::InitApply(object)).await?;
        }
        page.continue_token = listed.metadata.continue_.filter(|token| !token.is_empty());
        if page.continue_token.is_none() {
            let version = listed.metadata.resource_version.filter(|version| !version.is_empty());
            let version = version.ok_or(WatchFault::NoVersion)?;
            news.event(Event::InitDone).await?;
            return Ok(version);
        }
    }
}

/// Watches what changes since `version`, which follows, until the API server ends that in its time.
async fn watch(api: &Api<RawObject>, version: &mut String, news: &News) -> Result<(), WatchEnd> {
    let begun = Instant::now();
    let params = WatchParams::default();
    let events = timeout(PATIENCE, api.watch(&params, version)).await.map_err(|_| WatchFault::Late)??;
    let mut events = pin!(events);
    let mut holds = false;
    loop {
        let event = tokio::select! {
            event = events.try_next() => event?,
            () = tokio::time::sleep_until(begun + QUICK), if !holds => {
                holds = true;
                news.tell(Ok(None)).await?;
                continue;
            }
        };
        let (event, latest) = match event {
            None if holds => return Ok(()),
            None => return Err(WatchFault::Ended.into()),
            Some(WatchEvent::Error(status)) => return Err(WatchFault::Refused(status).into()),
            Some(WatchEvent::Bookmark(bookmark)) => (None, Some(bookmark.metadata.resource_version)),
            Some(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                let latest = object.metadata.resource_version.clone();
                (Some(Event::Apply(object)), latest)
            }
            Some(WatchEvent::Deleted(object)) => {
                let latest = object.metadata.resource_version.clone();
                (Some(Event::Delete(object)), latest)
            }
        };
        *version = latest.filter(|latest| !latest.is_empty()).ok_or(WatchFault::NoVersion)?;
        news.tell(Ok(event)).await?;
    }
}

/// Where a watch says what it learns.
struct News {
    scope: Scope,
    updates: mpsc::Sender<Update>,
}

impl News {
    async fn tell(&self, said: Result<Option<Event<RawObject>>, WatchFault>) -> Result<(), WatchEnd> {
        self.updates.send((self.scope.clone(), said)).await.map_err(|_| WatchEnd::Unheard)
    }

    async fn event(&self, event: Event<RawObject>) -> Result<(), WatchEnd> {
        self.tell(Ok(Some(event))).await
    }
}

/// How long is waited after a fault.
struct Pause {
    next: Duration,
    last: Option<Instant>,
}

impl Pause {
    fn after_fault(&mut self) -> Duration {
        if self.last.is_none_or(|last| last.elapsed() > CALM) {
            self.next = LEAST_PAUSE;
        }
        self.last = Some(Instant::now());
        let pause = self.next;
        self.next = (pause * 2).min(MOST_PAUSE);
        pause
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;
    use crate::kubernetes::kind::ObjectKind;

    /// Grants of an API server that answers so to the path and query of each request; what it was asked.
    fn grants(answer: fn(&str) -> Value) -> (Api<RawObject>, Arc<Mutex<Vec<String>>>) {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&asked);
        let service = tower::service_fn(move |request: Request<Body>| {
            let target = request.uri().to_string();
            let body = Full::new(Bytes::from(format!("{}\n", answer(&target))));
            seen.lock().unwrap().push(target);
            std::future::ready(Ok::<_, Infallible>(Response::new(body)))
        });
        (Api::all_with(kube::Client::new(service, "egress"), &ObjectKind::Grant.api()), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn a_bookmark_moves_a_watch_on_and_nothing_is_listed_again() {
        let (api, asked) = grants(|target| match target.contains("watch=true") {
            false => json!({
                "apiVersion": "tollgate.dev/v1alpha1", "kind": "GrantList",
                "metadata": {"resourceVersion": "10"}, "items": [],
            }),
            true => json!({"type": "BOOKMARK", "object": {
                "apiVersion": "tollgate.dev/v1alpha1", "kind": "Grant", "metadata": {"resourceVersion": "50"},
            }}),
        });
        let (updates, mut told) = mpsc::channel(64);
        let scope = Scope { kind: ObjectKind::Grant, namespace: None };
        let follower = tokio::spawn(follow(vec![api], scope, updates, RetryAfter::default()));
        // A watch that ends at once is a fault, after which it goes on from where it was.
        let mut faults = 0;
        while faults < 2 {
            faults += usize::from(told.recv().await.expect("an update").1.is_err());
        }
        follower.abort();
        let asked = asked.lock().unwrap().clone();
        assert!(asked[1].contains("allowWatchBookmarks=true") && asked[1].contains("resourceVersion=10"));
        assert!(asked[2].contains("resourceVersion=50"), "{asked:?}");
        assert_eq!(asked.iter().filter(|target| !target.contains("watch=true")).count(), 1, "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_with_faults_and_begin_anew_after_a_calm() {
        let mut pause = Pause { next: LEAST_PAUSE, last: None };
        let mut total = Duration::ZERO;
        for _ in 0..8 {
            let next = pause.after_fault();
            total += next;
            tokio::time::sleep(next).await;
        }
        assert!(total > Duration::from_secs(25), "{total:?}");
        assert_eq!(pause.after_fault(), MOST_PAUSE);
        tokio::time::sleep(CALM + Duration::from_secs(1)).await;
        assert_eq!(pause.after_fault(), LEAST_PAUSE);
    }
}
