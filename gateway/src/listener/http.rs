//! HTTP/1.1 and HTTP/2 on a verified connection, as ALPN chose.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use jiff::Timestamp;

use super::open::Order;
use super::{Connection, TlsStream, linger};
use crate::identity::HEAD_BYTES;
use crate::reply::ReplyBody;
use crate::request;

const HEADERS: usize = 128;
const STREAMS: u32 = 256;

/// Serves requests until the peer leaves, its proof ends, or the drain says so.
pub(super) async fn serve(stream: TlsStream, connection: Arc<Connection>) {
    let _drained = connection.core.shared.drain.watch();
    connection.core.open.enter(&connection);
    let io = TokioIo::new(stream);
    let served = Arc::clone(&connection);
    let service = service_fn(move |request: Request<Incoming>| {
        let connection = Arc::clone(&served);
        connection.due.taken();
        // Boxed: hyper moves the future around before it polls it, and this one is large.
        let answer = Box::pin(request::handle(Arc::clone(&connection), Box::new(request)));
        async move {
            let answer = answer.await;
            if let ReplyBody::Full(_) = answer.body() {
                connection.due.over();
            }
            Ok::<_, Infallible>(answer)
        }
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
        let mut served = builder.serve_connection(io, service);
        drive(&mut served, &connection, |c| c.graceful_shutdown()).await;
    } else {
        let mut builder = http1::Builder::new();
        builder
            // Heads are waited for by `Due`: a timer for each request is dear, and would close idle connections as well.
            .header_read_timeout(None)
            .max_buf_size(HEAD_BYTES)
            .max_headers(HEADERS);
        let mut served = builder.serve_connection(io, service);
        if drive(&mut served, &connection, |c| c.graceful_shutdown()).await == End::Close {
            let stream = served.into_parts().io.into_inner();
            tokio::select! {
                () = linger::close(stream) => {}
                () = cut(&connection) => {}
            }
        }
    }
    connection.core.open.leave(&connection);
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// What was answered is to arrive.
    Close,
    /// In the middle of something: no end that its peer could take for a good one.
    Cut,
}

/// Drives a connection. Told to close, it finishes the answers under way and takes no more.
async fn drive<C>(served: &mut C, connection: &Connection, close: impl Fn(Pin<&mut C>)) -> End
where
    C: Future<Output = hyper::Result<()>> + Unpin,
{
    loop {
        tokio::select! {
            biased;
            result = &mut *served => {
                let Err(error) = result else { return End::Close };
                tracing::debug!(peer = %connection.address, %error, "connection ended");
                return if error.is_parse() { End::Close } else { End::Cut };
            }
            order = connection.ear.told() => {
                let is_answered = connection.is_answered_early(Timestamp::now());
                match order {
                    Some(Order::Cut) => return End::Cut,
                    // What hyper has written by now has left: the rest of the request is of no use to anybody.
                    _ if is_answered && connection.due.is_flushed() => return End::Close,
                    Some(Order::Close) => close(Pin::new(&mut *served)),
                    None => {}
                }
            }
        }
    }
}

async fn cut(connection: &Connection) {
    while connection.ear.told().await != Some(Order::Cut) {}
}
