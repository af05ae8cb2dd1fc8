//! A provider on loopback: speaks as OpenAI's chat completions do, and answers 401 to any key but its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

const WORDS: [&str; 6] = ["A ", "key ", "that ", "nobody ", "has ", "cannot leak."];

/// Starts it on a thread of its own, which lives as long as the process.
pub(super) fn start(
    chain: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    secret: &str,
) -> anyhow::Result<SocketAddr> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let expected = Arc::new(Zeroizing::new(format!("Bearer {secret}").into_bytes()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("provider".into()).spawn(move || {
        // An accept that fails ends the demo's provider, and the next call says so.
        let _ = runtime.block_on(serve(listener, TlsAcceptor::from(Arc::new(config)), expected));
    })?;
    Ok(address)
}

async fn serve(
    listener: std::net::TcpListener,
    tls: TlsAcceptor,
    expected: Arc<Zeroizing<Vec<u8>>>,
) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (tls, expected) = (tls.clone(), Arc::clone(&expected));
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = service_fn(|request| answer(request, &expected));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, expected: &[u8]) -> Result<Response<Full<Bytes>>, Infallible> {
    let sent = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    if verify_slices_are_equal(sent, expected).is_err() {
        let error =
            json!({"error": {"message": "Incorrect API key provided.", "type": "invalid_request_error"}});
        return Ok(reply(StatusCode::UNAUTHORIZED, "application/json", error.to_string()));
    }
    let body = Limited::new(request.into_body(), 1 << 20)
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let usage = json!({"prompt_tokens": 24, "completion_tokens": 180, "total_tokens": 204});
    if asked["stream"] == true {
        return Ok(reply(StatusCode::OK, "text/event-stream", events(&usage)));
    }
    let whole = json!({
        "id": "chatcmpl-demo", "object": "chat.completion", "model": "gpt-5-mini-2025-08-07",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": WORDS.concat()}}],
        "usage": usage,
    });
    Ok(reply(StatusCode::OK, "application/json", whole.to_string()))
}

fn events(usage: &Value) -> String {
    let chunk = |choices: Value, usage: Value| {
        let data = json!({
            "id": "chatcmpl-demo", "object": "chat.completion.chunk", "model": "gpt-5-mini-2025-08-07",
            "choices": choices, "usage": usage,
        });
        format!("data: {data}\n\n")
    };
    let words =
        WORDS.iter().map(|word| chunk(json!([{"index": 0, "delta": {"content": word}}]), Value::Null));
    let mut events: String = words.collect();
    events.push_str(&chunk(json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]), Value::Null));
    events.push_str(&chunk(json!([]), usage.clone()));
    events.push_str("data: [DONE]\n\n");
    events
}

fn reply(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
