//! gRPC to the Workload API, over its Unix socket.

use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;

use super::WorkloadSocket;
use super::message::{
    JwtBundlesRequest, JwtBundlesResponse, JwtSvidRequest, JwtSvidResponse, X509SvidRequest, X509SvidResponse,
};

/// How long the API has to take a connection and to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// What every request has to show (SPIFFE Workload Endpoint, section 6): a page that made a browser or a proxy ask cannot add it.
const SECURITY_HEADER: &str = "workload.spiffe.io";

/// Why the API does not say anything.
#[derive(Debug, thiserror::Error)]
pub(in crate::identity) enum ApiFault {
    #[error("it cannot be connected to: {0}")]
    Connect(std::io::Error),
    #[error("it speaks no HTTP/2: {0}")]
    Handshake(hyper::Error),
    #[error("it does not answer within {} s", PATIENCE.as_secs())]
    Late,
    #[error("it has no identity for this process: register an entry whose selectors match it ({0})")]
    NoIdentity(String),
    #[error("{0}")]
    Status(String),
    #[error("it ended its answer")]
    Ended,
    #[error("{0}")]
    Unusable(String),
}

impl From<Status> for ApiFault {
    fn from(status: Status) -> Self {
        // Another process's words: bounded, and on one line.
        let said: String = status.message().chars().filter(|c| !c.is_control()).take(200).collect();
        match status.code() {
            Code::PermissionDenied => Self::NoIdentity(said),
            code => Self::Status(format!("{code}: {said}")),
        }
    }
}

/// A connection to the API.
#[derive(Clone)]
struct Channel(SendRequest<Body>);

impl tower::Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, hyper::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.send_request(request).boxed()
    }
}

/// One that asks the API.
pub(super) struct ApiClient(Grpc<Channel>);

impl ApiClient {
    pub(super) async fn connect(socket: &WorkloadSocket) -> Result<Self, ApiFault> {
        let connected = async {
            let stream = UnixStream::connect(socket.path()).await.map_err(ApiFault::Connect)?;
            let (sender, connection) =
                handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(ApiFault::Handshake)?;
            // It ends with its last request; what goes wrong with it, that says.
            tokio::spawn(connection);
            Ok(Self(Grpc::with_origin(Channel(sender), Uri::from_static("http://localhost"))))
        };
        tokio::time::timeout(PATIENCE, connected).await.map_err(|_| ApiFault::Late)?
    }

    /// Asks for SVIDs and bundles, now and whenever they change.
    pub(super) async fn x509_svids(&mut self) -> Result<Streaming<X509SvidResponse>, ApiFault> {
        self.stream("/SpiffeWorkloadAPI/FetchX509SVID", X509SvidRequest {}).await
    }

    /// Asks for the keys of trust domains, now and whenever they change.
    pub(super) async fn jwt_bundles(&mut self) -> Result<Streaming<JwtBundlesResponse>, ApiFault> {
        self.stream("/SpiffeWorkloadAPI/FetchJWTBundles", JwtBundlesRequest {}).await
    }

    /// Asks for JWT-SVIDs for an audience.
    pub(super) async fn jwt_svid(&mut self, audience: String) -> Result<JwtSvidResponse, ApiFault> {
        let path = PathAndQuery::from_static("/SpiffeWorkloadAPI/FetchJWTSVID");
        let codec = ProstCodec::<JwtSvidRequest, JwtSvidResponse>::default();
        let request = secured(JwtSvidRequest { audience: vec![audience], spiffe_id: String::new() });
        let asked = async {
            self.0.ready().await.map_err(ApiFault::Handshake)?;
            Ok(self.0.unary(request, path, codec).await?.into_inner())
        };
        tokio::time::timeout(PATIENCE, asked).await.map_err(|_| ApiFault::Late)?
    }

    async fn stream<T, U>(&mut self, path: &'static str, request: T) -> Result<Streaming<U>, ApiFault>
    where
        T: prost::Message + 'static,
        U: prost::Message + Default + 'static,
    {
        let path = PathAndQuery::from_static(path);
        let asked = async {
            self.0.ready().await.map_err(ApiFault::Handshake)?;
            let answer = self.0.server_streaming(secured(request), path, ProstCodec::<T, U>::default()).await;
            Ok(answer?.into_inner())
        };
        tokio::time::timeout(PATIENCE, asked).await.map_err(|_| ApiFault::Late)?
    }
}

fn secured<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert(SECURITY_HEADER, MetadataValue::from_static("true"));
    request
}
