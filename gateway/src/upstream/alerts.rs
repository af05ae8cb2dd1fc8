//! What the other side says when it refuses a connection that seemed to be open: in TLS 1.3 it judges our certificate when the handshake is
//! over for us. HTTP/2 tells a request only that its connection is gone, so it is kept here. So is whether it said anything at all.
//!
//! **Invariant:** nothing is changed of what passes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::AlertDescription as Alert;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection_state::ConnectionState;

/// A TLS stream that records the alert by which it ends.
#[derive(Debug)]
pub(crate) struct AlertRecorder<S> {
    pub(super) stream: S,
    pub(super) state: Arc<ConnectionState>,
}

/// The alert that `error` is.
pub(super) fn alert(error: &io::Error) -> Option<Alert> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// What the other side said of our certificate, or that it wants one (RFC 8446, section 6.2).
pub(super) fn refusal(error: &io::Error) -> Option<Alert> {
    let alert = alert(error)?;
    let is_refusal = matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired
    );
    is_refusal.then_some(alert)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AlertRecorder<S> {
    fn record<T>(&self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &done
            && let Some(alert) = refusal(error)
        {
            self.state.refuse(alert);
        }
        done
    }

    /// The same where writing failed because the connection is over: what was said before waits to be read, or soon will.
    fn ask_why<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &done
            && matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        {
            let mut rest = [0; 64];
            let said = Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut rest));
            if self.record(said).is_pending() {
                return Poll::Pending;
            }
        }
        done
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for AlertRecorder<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let done = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if done.is_ready() {
            self.state.moved(buffer.filled().len() - before);
        }
        self.record(done)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for AlertRecorder<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.state.moved(0);
        self.ask_why(cx, done)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(cx);
        self.ask_why(cx, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.state.moved(0);
        self.ask_why(cx, done)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::upstream::health::EndpointSlot;

    /// A socket that cannot be written to any more, and whose alert arrives late.
    struct Refusing {
        alert: Alert,
        is_late: bool,
    }

    impl AsyncRead for Refusing {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if std::mem::replace(&mut self.is_late, false) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(Err(io::Error::other(rustls::Error::AlertReceived(self.alert))))
        }
    }

    impl AsyncWrite for Refusing {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn recorded(alert: Alert) -> Option<Alert> {
        let remote: SocketAddr = "192.0.2.1:443".parse().unwrap();
        let place = crate::upstream::source::SourceSlot::of_system(remote.ip());
        let state =
            Arc::new(ConnectionState::new("api.up.test".into(), remote, place, EndpointSlot::sample(remote)));
        let stream = Refusing { alert, is_late: true };
        let mut stream = AlertRecorder { stream, state: Arc::clone(&state) };
        let failed = stream.write_all(b"a request").await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::BrokenPipe);
        state.refusal()
    }

    #[tokio::test]
    async fn a_refusal_is_recorded_though_writing_failed_before_it_was_read() {
        assert_eq!(recorded(Alert::CertificateRevoked).await, Some(Alert::CertificateRevoked));
        assert_eq!(recorded(Alert::InternalError).await, None, "it says nothing of the certificate");
    }
}
