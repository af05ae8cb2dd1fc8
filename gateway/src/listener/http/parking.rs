//! HTTP/1.1 on a connection, and what is held of it while nothing is asked.
//!
//! hyper keeps its buffers for as long as it has a connection: most of the memory of one that waits. So a connection that asks for nothing is
//! taken out of it, is *parked* until a byte comes, and goes on as a new one would.
//!
//! **Invariant:** a connection is parked only between two requests: all that came was read and answered, and all of the answers
//! has left. Should hyper and the look at what came not agree on that, nothing more is read of it.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1::Parts;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::super::framing::Strict;
use super::super::rewind::Rewind;
use super::{End, drive, http1};
use crate::metering::ReplyBody;
use crate::session::{Session, Shutdown};
use crate::settings::RequestLimits;

/// How a parked connection goes on.
enum Woken {
    /// With the first byte of a request.
    Request(Bytes),
    Close,
    Cut,
}

/// Serves requests until the connection ends. `Some`: its stream, which is to end well or goes on as something else, and what was read of
/// it for that. `None`: it broke off.
pub(in crate::listener) async fn serve_http1<S, V>(
    session: &Session,
    limits: &RequestLimits,
    mut stream: Strict<S>,
    service: V,
) -> Option<(S, Bytes)>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    V: Service<Request<Incoming>, Response = Response<ReplyBody>, Error = Infallible> + Clone,
{
    let mut begun = Bytes::new();
    loop {
        let io = TokioIo::new(Rewind::new(begun, stream));
        let mut served = http1(limits).serve_connection(io, service.clone());
        let end = drive(&mut served, session, |connection| connection.graceful_shutdown()).await;
        if end == End::Cut {
            return None;
        }
        let Parts { io, read_buf: unread, .. } = served.into_parts();
        stream = io.into_inner().into_inner();
        if end == End::Close {
            return Some((stream.into_inner(), unread));
        }
        // Line ends between two requests belong to neither (RFC 9112, section 2.2).
        if !stream.is_between_requests() || !unread.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
            tracing::warn!(peer = %session.address, "a connection that was to be parked had more to read: it is closed");
            return Some((stream.into_inner(), Bytes::new()));
        }
        drop(unread);
        tracing::trace!(peer = %session.address, mode = ?session.mode, "connection parked");
        session.set_parked(true);
        let woken = wait_for_request(&mut stream, session).await;
        session.set_parked(false);
        begun = match woken {
            Woken::Request(byte) => byte,
            Woken::Close => return Some((stream.into_inner(), Bytes::new())),
            Woken::Cut => return None,
        };
    }
}

/// Waits for the next request, or for the end.
async fn wait_for_request<S: AsyncRead + Unpin>(stream: &mut Strict<S>, session: &Session) -> Woken {
    let mut byte = [0];
    loop {
        tokio::select! {
            biased;
            read = stream.read(&mut byte) => return match read {
                Ok(0) => Woken::Close,
                Ok(_) => Woken::Request(Bytes::copy_from_slice(&byte)),
                Err(_) => Woken::Cut,
            },
            order = session.shutdown.received() => match order {
                Some(Shutdown::Abort) => return Woken::Cut,
                Some(Shutdown::Graceful) => return Woken::Close,
                None => {}
            },
        }
    }
}
