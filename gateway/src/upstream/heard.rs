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

use super::pool::Verified;

/// A verified stream that keeps the alert by which it ends.
pub(super) struct Heard<S> {
    pub(super) stream: S,
    pub(super) verified: Arc<Verified>,
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

impl<S: AsyncRead + AsyncWrite + Unpin> Heard<S> {
    fn hear<T>(&self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &done
            && let Some(alert) = refusal(error)
        {
            // The first that was said is the reason.
            let _ = self.verified.refused.set(alert);
        }
        done
    }

    /// The same where writing failed because the connection is over: what was said before waits to be read, or soon will.
    fn ask<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &done
            && matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        {
            let mut rest = [0; 64];
            let said = Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut rest));
            if self.hear(said).is_pending() {
                return Poll::Pending;
            }
        }
        done
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let done = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if done.is_ready() {
            self.verified.moved(buffer.filled().len() - before);
        }
        self.hear(done)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.verified.moved(0);
        self.ask(cx, done)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(cx);
        self.ask(cx, done)
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
        self.verified.moved(0);
        self.ask(cx, done)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;
    use std::sync::atomic::AtomicU64;

    use http::HeaderValue;
    use tokio::io::AsyncWriteExt;
    use tokio::sync::Notify;

    use super::*;
    use crate::ledger::{Gate, Ledger, samples};

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

    async fn heard(alert: Alert) -> Option<Alert> {
        let directory = samples::directory();
        let (ledger, _) = Ledger::open(directory.path(), None, 1).unwrap();
        let verified = Arc::new(Verified {
            host: "api.up.test".into(),
            authority: ("api.up.test".parse().unwrap(), HeaderValue::from_static("api.up.test")),
            remote: "192.0.2.1".into(),
            source: "192.0.2.1".into(),
            gate: Arc::new(Gate::new(&ledger.journal(0).unwrap())),
            refused: OnceLock::new(),
            heard: AtomicU64::new(0),
            moves: Notify::new(),
        });
        let mut stream = Heard { stream: Refusing { alert, is_late: true }, verified: Arc::clone(&verified) };
        let failed = stream.write_all(b"a request").await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::BrokenPipe);
        verified.refused.get().copied()
    }

    #[tokio::test]
    async fn a_refusal_is_heard_though_writing_failed_before_it_was_read() {
        assert_eq!(heard(Alert::CertificateRevoked).await, Some(Alert::CertificateRevoked));
        assert_eq!(heard(Alert::InternalError).await, None, "it says nothing of the certificate");
    }
}
