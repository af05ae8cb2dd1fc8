//! HTTP/1.1 and HTTP/2 on a verified connection, as ALPN chose.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use jiff::Timestamp;

use super::{Connection, TlsStream};
use crate::drain::Phase;
use crate::request;

const HEAD_LIMIT: Duration = Duration::from_secs(30);
const HEAD_BYTES: usize = 64 << 10;
const HEADERS: usize = 128;
const STREAMS: u32 = 256;

/// Serves requests until the peer leaves, its proof ends, or the drain says so.
pub(super) async fn serve(stream: TlsStream, connection: Arc<Connection>) {
    let io = TokioIo::new(stream);
    let served = Arc::clone(&connection);
    let service = service_fn(move |request: Request<Incoming>| {
        let connection = Arc::clone(&served);
        async move { Ok::<_, Infallible>(request::handle(connection, request).await) }
    });
    if connection.http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEAD_BYTES as u32)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        watch(builder.serve_connection(io, service), &connection, |c| c.graceful_shutdown()).await;
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .max_buf_size(HEAD_BYTES)
            .max_headers(HEADERS)
            .pipeline_flush(true);
        watch(builder.serve_connection(io, service), &connection, |c| c.graceful_shutdown()).await;
    }
}

/// Drives a connection. When its proof ends or the drain closes, it finishes the answers under way and takes no more.
async fn watch<C>(served: C, connection: &Connection, close: impl Fn(Pin<&mut C>))
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut served = pin!(served);
    let mut ended = pin!(proof_ended(connection));
    let mut closing = connection.core.shared.drain.watch();
    let mut cutting = closing.clone();
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            result = served.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(peer = %connection.address, %error, "connection ended");
                }
                return;
            }
            () = ended.as_mut(), if !told => {
                told = true;
                close(served.as_mut());
            }
            () = closing.reached(Phase::Closing), if !told => {
                told = true;
                close(served.as_mut());
            }
            () = cutting.reached(Phase::Cutting), if told => return,
        }
    }
}

/// Ready when the chain expires or a new bundle does not verify it.
async fn proof_ended(connection: &Connection) {
    let mut bundles = connection.core.shared.trust.subscribe();
    loop {
        let left = connection.expires().duration_since(Timestamp::now());
        let left = Duration::try_from(left).unwrap_or(Duration::ZERO).min(Duration::from_secs(86_400));
        tokio::select! {
            () = tokio::time::sleep(left) => {}
            changed = bundles.changed() => if changed.is_err() { return },
        }
        if !connection.still_verifies() {
            return;
        }
    }
}
