//! s3s: an S3 that others wrote, which checks the signature of a head and of every chunk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::dto::{PutObjectInput, PutObjectOutput};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError, S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};
use tollgate_tests::{Identity, Upstream};

/// What was accepted, by its path.
type Taken = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// One access key, and whatever was put with it.
pub(crate) struct Judge {
    service: S3Service,
    taken: Taken,
}

struct Objects(Taken);

#[async_trait::async_trait]
impl S3 for Objects {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let PutObjectInput { key, body, .. } = request.input;
        let mut held = Vec::new();
        let mut body = body.ok_or_else(|| S3Error::new(S3ErrorCode::MissingRequestBodyError))?;
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| {
                S3Error::with_message(S3ErrorCode::SignatureDoesNotMatch, error.to_string())
            })?;
            held.extend_from_slice(&piece);
        }
        self.0.lock().unwrap().insert(key, held);
        Ok(S3Response::new(PutObjectOutput::default()))
    }
}

/// The whole body is there before it is judged: who is refused early may still be writing, and would miss the answer.
async fn judged(service: S3Service, request: Request<Incoming>) -> Result<Response<Body>, HttpError> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|error| HttpError::new(error.into()))?.to_bytes();
    service.call(Request::from_parts(head, body.into())).await
}

impl Judge {
    pub(crate) fn new(id: &str, secret: &str) -> Self {
        let taken = Taken::default();
        let mut builder = S3ServiceBuilder::new(Objects(Arc::clone(&taken)));
        builder.set_auth(SimpleAuth::from_single(id, secret));
        Self { service: builder.build(), taken }
    }

    pub(crate) async fn serve(&self, identity: &Identity) -> Upstream {
        let service = self.service.clone();
        Upstream::raw(identity, &["http/1.1"], None, move |stream, _| {
            let service = service.clone();
            let judge = service_fn(move |request: Request<Incoming>| judged(service.clone(), request));
            async move {
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), judge).await;
            }
        })
        .await
    }

    pub(crate) fn taken(&self) -> BTreeMap<String, Vec<u8>> {
        self.taken.lock().unwrap().clone()
    }
}
