//! A body as it comes from a peer.
//!
//! **Invariant:** it ends where its peer has said so, or fails. A stream of HTTP/2 that was reset before its end has failed, whatever the
//! reset says.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// A body that hyper reads.
///
/// hyper takes a stream that is reset with `NO_ERROR` for one that has ended, as it has where a server asks for no more of a request
/// (RFC 9113, section 8.1). Envoy before 1.37 resets so whenever what it passes on breaks off (envoyproxy/envoy#36200), later ones with
/// the flag `reset_with_error` off.
#[derive(Debug)]
pub(crate) struct IncomingBody {
    body: Incoming,
    /// hyper knows of streams alone whether they have ended.
    is_http2: bool,
}

/// Why it is not whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IncompleteBody {
    /// The code of a reset is passed on by what this comes from.
    #[error("{0}")]
    Failed(#[source] hyper::Error),
    #[error("the stream was over before its end")]
    Reset,
}

impl IncomingBody {
    /// `version`: of the message.
    pub(crate) fn new(body: Incoming, version: Version) -> Self {
        Self { body, is_http2: version == Version::HTTP_2 }
    }
}

impl Body for IncomingBody {
    type Data = Bytes;
    type Error = IncompleteBody;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, IncompleteBody>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() && self.is_http2 && !self.body.is_end_stream() {
            return Poll::Ready(Some(Err(IncompleteBody::Reset)));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(IncompleteBody::Failed)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::error::Error;
    use std::time::Duration;

    use futures_util::stream;
    use h2::Reason;
    use http::{HeaderMap, Request, Response};
    use http_body_util::{BodyExt, Empty, StreamBody};
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::{DuplexStream, duplex};
    use tokio::sync::mpsc;
    use tokio::time::{sleep, timeout};

    use super::*;

    /// How a peer says that what it sent is all.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum End {
        Unsaid,
        WithData,
        InFrameOfItsOwn,
        WithTrailers,
    }

    /// How a peer ends a stream.
    #[derive(Clone, Copy, Debug)]
    struct Ending {
        end: End,
        reset: Option<Reason>,
    }

    /// What is read, or the code that is passed on.
    type Expected = Result<&'static str, Option<Reason>>;

    const ENDINGS: [(Ending, Expected); 9] = [
        (Ending { end: End::WithData, reset: None }, Ok("a part")),
        (Ending { end: End::WithData, reset: Some(Reason::NO_ERROR) }, Ok("a part")),
        (Ending { end: End::InFrameOfItsOwn, reset: None }, Ok("a part")),
        (Ending { end: End::InFrameOfItsOwn, reset: Some(Reason::NO_ERROR) }, Ok("a part")),
        (Ending { end: End::WithTrailers, reset: None }, Ok("a part")),
        (Ending { end: End::WithTrailers, reset: Some(Reason::NO_ERROR) }, Ok("a part")),
        (Ending { end: End::Unsaid, reset: Some(Reason::NO_ERROR) }, Err(None)),
        (Ending { end: End::Unsaid, reset: Some(Reason::CANCEL) }, Err(Some(Reason::CANCEL))),
        (Ending { end: End::Unsaid, reset: Some(Reason::REFUSED_STREAM) }, Err(Some(Reason::REFUSED_STREAM))),
    ];

    /// After so long what was sent is here.
    const A_MOMENT: Duration = Duration::from_millis(50);

    async fn send(mut stream: h2::SendStream<Bytes>, ending: Ending) {
        stream.send_data("a part".into(), ending.end == End::WithData).unwrap();
        match ending.end {
            End::Unsaid | End::WithData => {}
            End::InFrameOfItsOwn => stream.send_data(Bytes::new(), true).unwrap(),
            End::WithTrailers => stream.send_trailers(HeaderMap::new()).unwrap(),
        }
        // A reset overtakes what waits to be sent.
        sleep(A_MOMENT).await;
        if let Some(reason) = ending.reset {
            stream.send_reset(reason);
        }
    }

    /// The body, read when all has come that comes.
    async fn text(body: IncomingBody) -> Result<String, Option<Reason>> {
        sleep(A_MOMENT * 3).await;
        let bytes = body.collect().await.map_err(|error| code_of(&error))?.to_bytes();
        Ok(String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// As hyper looks for it.
    fn code_of(error: &IncompleteBody) -> Option<Reason> {
        let mut next = error.source();
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<h2::Error>() {
                return error.reason();
            }
            next = error.source();
        }
        None
    }

    async fn provider(stream: DuplexStream, ending: Ending) {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            tokio::spawn(send(respond.send_response(Response::default(), false).unwrap(), ending));
        }
    }

    /// The body of the answer to a call over this connection.
    async fn answer(near: DuplexStream) -> IncomingBody {
        let io = TokioIo::new(near);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        // It does not end, so that a reset is for its stream.
        let upload = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
        let request = Request::post("http://up.test/").body(upload).unwrap();
        IncomingBody::new(sender.send_request(request).await.unwrap().into_body(), Version::HTTP_2)
    }

    #[tokio::test]
    async fn an_answer_is_whole_where_its_end_was_said() {
        for (ending, expected) in ENDINGS {
            let (near, far) = duplex(1 << 16);
            tokio::spawn(provider(far, ending));
            assert_eq!(text(answer(near).await).await, expected.map(str::to_owned), "{ending:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_outlives_that_its_provider_takes_no_more_calls_and_not_the_connection() {
        for is_orderly in [true, false] {
            let (near, far) = duplex(1 << 16);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(far).await.unwrap();
                let (_, mut respond) = connection.accept().await.unwrap().unwrap();
                let ending = Ending { end: End::WithData, reset: None };
                let mut stream = respond.send_response(Response::default(), false).unwrap();
                if is_orderly {
                    connection.graceful_shutdown();
                    tokio::spawn(send(stream, ending));
                } else {
                    stream.send_data("a part".into(), false).unwrap();
                    // What was sent leaves before the connection is over.
                    let _ = timeout(A_MOMENT, connection.accept()).await;
                    connection.abrupt_shutdown(Reason::NO_ERROR);
                }
                while connection.accept().await.is_some() {}
            });
            let expected = if is_orderly { Ok("a part".to_owned()) } else { Err(None) };
            assert_eq!(text(answer(near).await).await, expected, "{is_orderly}");
        }
    }

    #[tokio::test]
    async fn a_request_is_whole_where_its_end_was_said() {
        // One that is reset behind its end has nobody to answer to.
        let has_reader = |ending: &Ending| ending.end == End::Unsaid || ending.reset.is_none();
        for (ending, expected) in ENDINGS.into_iter().filter(|(ending, _)| has_reader(ending)) {
            let (near, far) = duplex(1 << 16);
            let (read, mut bodies) = mpsc::unbounded_channel();
            let service = service_fn(move |request: Request<Incoming>| {
                let read = read.clone();
                async move {
                    let (head, body) = request.into_parts();
                    // Apart, as the connection to a provider reads it.
                    tokio::spawn(async move {
                        read.send(text(IncomingBody::new(body, head.version)).await).unwrap();
                    });
                    std::future::pending::<Result<Response<Empty<Bytes>>, hyper::Error>>().await
                }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(far), service));
            let (sender, connection) = h2::client::handshake(near).await.unwrap();
            tokio::spawn(connection);
            let request = Request::post("http://up.test/").body(()).unwrap();
            let (_answer, stream) = sender.ready().await.unwrap().send_request(request, false).unwrap();
            tokio::spawn(send(stream, ending));
            assert_eq!(bodies.recv().await.unwrap(), expected.map(str::to_owned), "{ending:?}");
        }
    }
}
