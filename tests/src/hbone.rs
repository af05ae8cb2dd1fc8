//! A client of a mesh that does what Istio's ztunnel does.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::client::{Client, Connection, Failure, Protocol};
use crate::h2_tap::{Tapped, Wire};

/// A connection to the listener for tunnels, as ztunnel opens it: TLS 1.3 of the workload itself, which names no server, and its windows and
/// frames.
pub struct HboneClient {
    sender: http2::SendRequest<Empty<Bytes>>,
    wire: Wire,
}

impl HboneClient {
    /// Opens it with the workload's own certificate.
    pub async fn connect(workload: &Client) -> Self {
        Self::dial(workload).await.expect("a connection")
    }

    /// The same, where the gateway may turn the workload away.
    pub async fn dial(workload: &Client) -> Result<Self, Failure> {
        Self::over(workload, workload.dial().await?, None).await
    }

    /// The same with a PING so often, between the frames that it writes.
    pub async fn pinging(workload: &Client, every: Duration) -> Self {
        let stream = workload.dial().await.expect("a connection");
        Self::over(workload, stream, Some(every)).await.expect("a connection")
    }

    /// Opens it in an outer tunnel, as to another network of the mesh.
    pub async fn within<S>(workload: &Client, outer: S) -> Result<Self, Failure>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::over(workload, outer, None).await
    }

    async fn over<S>(workload: &Client, stream: S, every: Option<Duration>) -> Result<Self, Failure>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let connector = TlsConnector::from(workload.mesh_tls(&["h2"]));
        let mut stream = connector.connect(ServerName::try_from("localhost")?, stream).await?;
        // With TLS 1.3 only the first answer says whether the certificate was taken.
        stream.flush().await?;
        let stream = Tapped::new(stream, every);
        let wire = stream.wire();
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .max_frame_size(1 << 20)
            .keep_alive_interval(Some(Duration::from_secs(1)))
            .keep_alive_timeout(Duration::from_secs(20));
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, wire })
    }

    /// What passes on the connection.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Asks for a tunnel, with what a ztunnel says of its workload.
    pub async fn ask(&mut self, authority: &str) -> Response<Incoming> {
        let request = Request::connect(authority)
            .header("baggage", "k8s.namespace.name=payments,k8s.deployment.name=web")
            .header("forwarded", "for=\"10.1.2.3:4567\";host=api.elsewhere.test")
            .body(Empty::new())
            .expect("a request");
        self.ask_with(request).await
    }

    /// Asks for a tunnel in these words.
    pub async fn ask_with(&mut self, request: Request<Empty<Bytes>>) -> Response<Incoming> {
        self.try_ask(request).await.expect("an answer")
    }

    /// The same, where the gateway may have turned the workload away.
    pub async fn try_ask(&mut self, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, Failure> {
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Asks for a tunnel inside another, with the network that a ztunnel says it comes from; why there is no answer.
    pub async fn ask_inside(&mut self, authority: &str) -> Result<Response<Incoming>, Failure> {
        let request = Request::connect(authority).header("x-forwarded-network", "west").body(Empty::new())?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Opens a tunnel.
    pub async fn tunnel(&mut self, authority: &str) -> TokioIo<Upgraded> {
        let answer = self.ask(authority).await;
        assert_eq!(answer.status(), 200, "{authority}");
        TokioIo::new(hyper::upgrade::on(answer).await.expect("a tunnel"))
    }

    /// HTTP of the workload in a tunnel of its own.
    pub async fn inside(&mut self, workload: &Client, authority: &str, protocol: Protocol) -> Connection {
        let tunnel = self.tunnel(authority).await;
        Connection::over(workload, tunnel, protocol).await.expect("HTTP in a tunnel")
    }

    /// Whether it takes another request for a tunnel.
    pub async fn is_open(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }
}
