//! Waiting for a Secret to change, by a watch of its metadata alone.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use kube::client::Body;
use tokio::time;
use tracing::info;
use zeroize::Zeroizing;

use super::NamespaceSecrets;
use super::answer::WatchLine;
use crate::error::Failure;
use crate::jitter::jittered;

/// Annotations may repeat all of a Secret, as those of `kubectl apply` do.
const LINE_LIMIT: usize = 2 * 1024 * 1024;
/// Before it is asked again after it broke off.
const PAUSE: Duration = Duration::from_secs(2);
/// A Secret that changes more often is not read more often.
const CALM: Duration = Duration::from_millis(200);
/// Nothing of the values, which `data` has.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// How a watch ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The Secret is another one than it was, or nobody knows.
    Changed,
    /// It is to be watched again, from the version that was seen last.
    BrokeOff,
    /// The right `watch` is missing.
    Refused,
}

/// Ends when the Secret is another one than it was at `version`. It never does where the gateway must not watch it: then it
/// is read anew as often as its credential says.
pub(super) async fn until_changed(secrets: &NamespaceSecrets, name: &str, mut version: String) {
    loop {
        match watched(secrets, name, &mut version).await {
            End::Changed => return time::sleep(CALM).await,
            End::BrokeOff => time::sleep(jittered(PAUSE)).await,
            End::Refused => {
                if !secrets.unwatched.swap(true, Ordering::Relaxed) {
                    let namespace = secrets.namespace.as_str();
                    info!(namespace, name, "no right to watch this Secret: it is read anew every `refresh`");
                }
                return std::future::pending().await;
            }
        }
    }
}

async fn watched(secrets: &NamespaceSecrets, name: &str, version: &mut String) -> End {
    let query = format!(
        "?watch=true&allowWatchBookmarks=true&fieldSelector=metadata.name%3D{name}&resourceVersion={version}"
    );
    let mut request = secrets.request(name, &query);
    if let Some(headers) = request.headers_mut() {
        headers.insert(http::header::ACCEPT, http::HeaderValue::from_static(METADATA));
    }
    let Ok(request) = request.body(Body::empty()) else { return End::Refused };
    let response = match secrets.send(request).await {
        Ok(response) => response,
        Err(Failure::Misconfigured(_)) => return End::Refused,
        Err(_) => return End::BrokeOff,
    };
    match response.status() {
        StatusCode::OK => {}
        StatusCode::FORBIDDEN => return End::Refused,
        // What was seen is too old to go on from.
        StatusCode::GONE => return End::Changed,
        _ => return End::BrokeOff,
    }
    let mut frames = response.into_body();
    let mut rest = Zeroizing::new(Vec::new());
    while let Some(Ok(frame)) = frames.frame().await {
        let Some(chunk) = frame.data_ref() else { continue };
        if rest.len() + chunk.len() > LINE_LIMIT {
            return End::Changed;
        }
        let mut grown = Zeroizing::new(Vec::with_capacity(rest.len() + chunk.len()));
        grown.extend_from_slice(&rest);
        grown.extend_from_slice(chunk);
        rest = grown;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            if is_change(rest.get(..end).unwrap_or_default(), version) {
                return End::Changed;
            }
            rest = Zeroizing::new(rest.get(end + 1..).unwrap_or_default().to_vec());
        }
    }
    End::BrokeOff
}

/// Whether a line says that the Secret is another one. A bookmark only says how far the watch has come.
fn is_change(line: &[u8], version: &mut String) -> bool {
    let Some(line) = WatchLine::parse(line) else { return true };
    match (&*line.kind, line.version()) {
        ("BOOKMARK", Some(seen)) => {
            seen.clone_into(version);
            false
        }
        (_, Some(seen)) => seen != version,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bookmark_moves_the_watch_on_and_all_else_is_a_change() {
        let mut version = "17".to_owned();
        let line = |kind: &str, version: &str| {
            format!(
                "{{\"type\": \"{kind}\", \"object\": {{\"metadata\": {{\"resourceVersion\": \"{version}\"}}}}}}"
            )
        };
        assert!(!is_change(line("BOOKMARK", "18").as_bytes(), &mut version));
        assert_eq!(version, "18");
        for kind in ["ADDED", "MODIFIED", "DELETED"] {
            assert!(is_change(line(kind, "19").as_bytes(), &mut version), "{kind}");
        }
        assert!(!is_change(line("ADDED", "18").as_bytes(), &mut version), "what was read already");
        assert!(is_change(br#"{"type": "ERROR", "object": {"code": 410}}"#, &mut version));
        assert!(is_change(b"no JSON", &mut version));
    }
}
