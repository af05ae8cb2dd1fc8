//! A workload of the demo: a client certificate, and no key.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use http::Request;
use http::header::{CONTENT_TYPE, HOST};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use super::world::DemoWorld;

/// One workload's connection to the gateway.
pub(super) struct Workload {
    sender: Mutex<SendRequest<Full<Bytes>>>,
    host: String,
}

/// What it got.
pub(super) struct DemoAnswer {
    pub(super) status: u16,
    pub(super) reason: String,
    pub(super) text: String,
}

impl Workload {
    pub(super) async fn connect(world: &DemoWorld, name: &str, gateway: SocketAddr) -> anyhow::Result<Self> {
        let connector = TlsConnector::from(Arc::new(world.client(name)?));
        let tcp = TcpStream::connect(gateway).await?;
        let stream = connector
            .connect(ServerName::try_from("localhost")?, tcp)
            .await
            .context("TLS with the gateway")?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender: Mutex::new(sender), host: format!("localhost:{}", gateway.port()) })
    }

    /// One chat completion, as an SDK would ask for it.
    pub(super) async fn chat(&self, stream: bool) -> anyhow::Result<DemoAnswer> {
        let body = json!({
            "model": "gpt-5-mini", "max_completion_tokens": 500, "stream": stream,
            "messages": [{"role": "user", "content": "Say something about keys."}],
        });
        let request = Request::post("/openai/v1/chat/completions")
            .header(HOST, &self.host)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))?;
        let mut sender = self.sender.lock().await;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let reason = response.headers().get("x-tollgate-reason");
        let reason = reason.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let body = response.into_body().collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&body);
        let text = if stream && status == 200 { streamed(&text) } else { whole(&text) };
        Ok(DemoAnswer { status, reason, text })
    }
}

fn whole(body: &str) -> String {
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let content = json["choices"][0]["message"]["content"].as_str();
    content.or_else(|| json["detail"].as_str()).unwrap_or(body).to_owned()
}

fn streamed(body: &str) -> String {
    let events = body.lines().filter_map(|line| line.strip_prefix("data: "));
    let chunks = events.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    chunks.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
}
