//! Load over mutual TLS: closed loop, or a fixed rate with each latency counted from when its call was due. Prints one JSON
//! object: completed calls, errors, bytes, chunks, seconds, and percentiles in microseconds.

mod frames;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tollgate_tests::wire::{self, Flags};

/// How many connections are set up at once: the gateway closes the oldest where one address has more than 256.
const SET_UP: usize = 128;

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Job {
    address: SocketAddr,
    authority: String,
    server: ServerName<'static>,
    path: String,
    body: Bytes,
    /// As whom connections are opened, in turn.
    callers: Vec<Arc<ClientConfig>>,
    opened: AtomicUsize,
    setting_up: Semaphore,
    tunnel: Option<Tunnel>,
    bearer: String,
    h2: bool,
    fresh: bool,
    websocket: bool,
    end: Instant,
    /// How long connections are kept after it, asking for nothing.
    rest: Duration,
    calls: AtomicU64,
    errors: AtomicU64,
    bytes: AtomicU64,
    chunks: AtomicU64,
}

/// Where calls go through a tunnel, as `HOST:PORT`.
enum Tunnel {
    /// One stream of an HTTP/2 connection each, with HTTP in the clear inside.
    Hbone(String),
    /// A connection over HTTP/1.1 each, with TLS inside for this server.
    Connect(String, ServerName<'static>, Arc<ClientConfig>),
}

enum Sender {
    H1(http1::SendRequest<Full<Bytes>>),
    H2(http2::SendRequest<Full<Bytes>>),
}

fn main() {
    let flags = Flags::read();
    wire::runtime(&flags).block_on(run(&flags));
}

async fn run(flags: &Flags) {
    let h2 = flags.has("h2");
    let of_http1: &[&str] = &["http/1.1"];
    let is_in_h2 = h2 || flags.has("hbone");
    let callers = callers(flags, if is_in_h2 { &["h2"] } else { of_http1 });
    let tunnel = if flags.has("hbone") {
        Some(Tunnel::Hbone(flags.text("hbone").to_owned()))
    } else {
        flags.has("connect").then(|| {
            let server = ServerName::try_from(flags.text("inside").to_owned()).expect("a name");
            let inside = Arc::new(wire::client(flags.text("ca"), None, of_http1));
            Tunnel::Connect(flags.text("connect").to_owned(), server, inside)
        })
    };
    let body =
        if flags.has("upload") { vec![b'x'; flags.number("upload", 0) as usize].into() } else { chat(flags) };
    let job = Arc::new(Job {
        address: flags.text("address").parse().expect("an address"),
        authority: flags.text("authority").to_owned(),
        server: ServerName::try_from(flags.text("name").to_owned()).expect("a name"),
        path: flags.text("path").to_owned(),
        body,
        callers,
        opened: AtomicUsize::new(0),
        setting_up: Semaphore::new(SET_UP),
        tunnel,
        bearer: format!("Bearer {}", if flags.has("bearer") { flags.text("bearer") } else { "unused" }),
        h2,
        fresh: flags.has("fresh"),
        websocket: flags.has("websocket"),
        end: Instant::now() + Duration::from_secs_f64(flags.number("millis", 3000) as f64 / 1000.0),
        rest: Duration::from_millis(flags.number("rest", 0)),
        calls: AtomicU64::new(0),
        errors: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        chunks: AtomicU64::new(0),
    });
    let connections = flags.number("connections", 1);
    let rate = flags.number("rate", 0) as f64 / connections as f64;
    let begun = Instant::now();
    let workers: Vec<_> = (0..connections)
        .map(|number| {
            tokio::spawn(worker(
                job.clone(),
                flags.number("streams", 1),
                rate,
                number as f64 / connections as f64,
            ))
        })
        .collect();
    let mut latencies = Vec::new();
    for worker in workers {
        latencies.extend(worker.await.expect("a worker"));
    }
    report(&job, latencies, begun.elapsed());
}

/// The caller of `--cert`, or those of the folder `--callers`: `0.crt` with `0.key`, and so on.
fn callers(flags: &Flags, protocols: &[&str]) -> Vec<Arc<ClientConfig>> {
    let client = |own: Option<(&str, &str)>| {
        let mut tls = wire::client(flags.text("ca"), own, protocols);
        if flags.has("no-resumption") {
            tls.resumption = rustls::client::Resumption::disabled();
        }
        Arc::new(tls)
    };
    if !flags.has("callers") {
        return vec![client(flags.has("cert").then(|| (flags.text("cert"), flags.text("key"))))];
    }
    let folder = flags.text("callers");
    let file = |number: usize, kind: &str| format!("{folder}/{number}.{kind}");
    let callers: Vec<_> = (0..)
        .map(|number| (file(number, "crt"), file(number, "key")))
        .take_while(|(cert, _)| Path::new(cert).exists())
        .map(|(cert, key)| client(Some((cert.as_str(), key.as_str()))))
        .collect();
    assert!(!callers.is_empty(), "no callers in {folder}");
    callers
}

/// 550 bytes of request with a cap, streamed or not.
fn chat(flags: &Flags) -> Bytes {
    let stream = if flags.has("sse") { "true" } else { "false" };
    let text = "x".repeat(300);
    format!(
        "{{\"model\":\"gpt-5-mini\",\"stream\":{stream},\"max_completion_tokens\":100,\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}"
    )
    .into()
}

async fn worker(job: Arc<Job>, streams: u64, rate: f64, phase: f64) -> Vec<u64> {
    if job.fresh {
        let mut latencies = Vec::new();
        while Instant::now() < job.end {
            let due = Instant::now();
            let called = async { call(&job, &mut open(&job).await?).await };
            note(&job, &called.await, due, &mut latencies);
        }
        return latencies;
    }
    if job.websocket {
        return messages(&job, rate, phase).await.unwrap_or_else(|_| {
            job.errors.fetch_add(1, Ordering::Relaxed);
            Vec::new()
        });
    }
    let mut tasks = Vec::new();
    let Ok(senders) = of_one_connection(&job, streams as usize).await else {
        job.errors.fetch_add(1, Ordering::Relaxed);
        return Vec::new();
    };
    for sender in senders {
        tasks.push(tokio::spawn(repeat(job.clone(), sender, rate / streams as f64, phase)));
    }
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("a task"));
    }
    latencies
}

async fn repeat(job: Arc<Job>, mut sender: Sender, rate: f64, phase: f64) -> Vec<u64> {
    let mut latencies = Vec::new();
    let begun = Instant::now();
    let mut number = phase;
    while Instant::now() < job.end {
        let due = turn(begun, rate, &mut number).await;
        let called = call(&job, &mut sender).await;
        if called.is_err() {
            match open(&job).await {
                Ok(fresh) => sender = fresh,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        note(&job, &called, due, &mut latencies);
    }
    tokio::time::sleep(job.rest).await;
    latencies
}

/// When the next call is due: at once, or by the rate.
async fn turn(begun: Instant, rate: f64, number: &mut f64) -> Instant {
    if rate <= 0.0 {
        return Instant::now();
    }
    let due = begun + Duration::from_secs_f64(*number / rate);
    *number += 1.0;
    tokio::time::sleep_until(due.into()).await;
    due
}

/// Messages of one WebSocket, each of which comes back. A message counts as a call.
async fn messages(job: &Job, rate: f64, phase: f64) -> Result<Vec<u64>, Failure> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(secured(job).await?)).await?;
    tokio::spawn(connection.with_upgrades());
    let request = Request::get(&job.path)
        .header(header::HOST, &job.authority)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==");
    let answer = sender.send_request(request.body(Full::<Bytes>::default())?).await?;
    if answer.status() != 101 {
        return Err(format!("no WebSocket: {}", answer.status()).into());
    }
    let mut stream = TokioIo::new(hyper::upgrade::on(answer).await?);
    let message = [b'x'; 100];
    let (begun, mut number, mut latencies) = (Instant::now(), phase, Vec::new());
    while Instant::now() < job.end {
        let due = turn(begun, rate, &mut number).await;
        frames::write(&mut stream, frames::TEXT, &message, Some([1, 2, 3, 4])).await?;
        let (opcode, echo) = frames::read(&mut stream).await?;
        if (opcode, echo.as_slice()) != (frames::TEXT, &message[..]) {
            return Err("another message came back".into());
        }
        note(job, &Ok(()), due, &mut latencies);
    }
    Ok(latencies)
}

fn note(job: &Job, called: &Result<(), Failure>, due: Instant, latencies: &mut Vec<u64>) {
    if called.is_ok() {
        job.calls.fetch_add(1, Ordering::Relaxed);
        latencies.push(due.elapsed().as_micros() as u64);
    } else {
        job.errors.fetch_add(1, Ordering::Relaxed);
    }
}

/// What so many streams of one connection are called on; over HTTP/1.1 that is one.
async fn of_one_connection(job: &Job, streams: usize) -> Result<Vec<Sender>, Failure> {
    let mut senders = Vec::new();
    if let Some(Tunnel::Hbone(authority)) = &job.tunnel {
        let outer = http2(secured(job).await?).await?;
        while senders.len() < streams {
            senders.push(in_tunnel(outer.clone(), authority).await?);
        }
        return Ok(senders);
    }
    senders.push(open(job).await?);
    while senders.len() < streams {
        let Sender::H2(sender) = &senders[0] else { break };
        senders.push(Sender::H2(sender.clone()));
    }
    Ok(senders)
}

async fn open(job: &Job) -> Result<Sender, Failure> {
    let stream = secured(job).await?;
    match &job.tunnel {
        Some(Tunnel::Hbone(authority)) => in_tunnel(http2(stream).await?, authority).await,
        Some(Tunnel::Connect(authority, server, tls)) => {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection.with_upgrades());
            let request = Request::connect(authority).header(header::HOST, authority);
            let answer = sender.send_request(request.body(Full::<Bytes>::default())?).await?;
            let stream = upgraded(answer).await?;
            let inside = TlsConnector::from(tls.clone()).connect(server.clone(), stream).await?;
            http1(TokioIo::new(inside)).await
        }
        None if job.h2 => Ok(Sender::H2(http2(stream).await?)),
        None => http1(TokioIo::new(stream)).await,
    }
}

async fn secured(job: &Job) -> Result<TlsStream<TcpStream>, Failure> {
    let _turn = job.setting_up.acquire().await?;
    let tcp = TcpStream::connect(job.address).await?;
    tcp.set_nodelay(true)?;
    let number = job.opened.fetch_add(1, Ordering::Relaxed) % job.callers.len();
    Ok(TlsConnector::from(job.callers[number].clone()).connect(job.server.clone(), tcp).await?)
}

async fn http1<S>(io: TokioIo<S>) -> Result<Sender, Failure>
where
    TokioIo<S>: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(io).await?;
    tokio::spawn(connection);
    Ok(Sender::H1(sender))
}

async fn http2(stream: TlsStream<TcpStream>) -> Result<http2::SendRequest<Full<Bytes>>, Failure> {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn in_tunnel(mut outer: http2::SendRequest<Full<Bytes>>, authority: &str) -> Result<Sender, Failure> {
    let answer = outer.send_request(Request::connect(authority).body(Full::default())?).await?;
    http1(TokioIo::new(upgraded(answer).await?)).await
}

async fn upgraded(answer: Response<Incoming>) -> Result<TokioIo<Upgraded>, Failure> {
    if answer.status() != 200 {
        return Err(format!("no tunnel: {}", answer.status()).into());
    }
    Ok(TokioIo::new(hyper::upgrade::on(answer).await?))
}

async fn call(job: &Job, sender: &mut Sender) -> Result<(), Failure> {
    let request = Request::post(if job.h2 {
        format!("https://{}{}", job.authority, job.path)
    } else {
        job.path.clone()
    })
    .header(header::CONTENT_TYPE, "application/json")
    .header(header::ACCEPT, "application/json")
    .header(header::USER_AGENT, "OpenAI/Python 3.54.0")
    .header(header::AUTHORIZATION, &job.bearer)
    .header("x-stainless-lang", "python")
    .header("x-stainless-package-version", "3.54.0")
    .header("x-stainless-os", "Linux")
    .header("x-stainless-arch", "x64")
    .header("x-stainless-runtime", "CPython")
    .header("x-stainless-runtime-version", "3.11.7")
    .header("x-stainless-retry-count", "0");
    let request = if job.h2 { request } else { request.header(header::HOST, &job.authority) };
    let request = request.body(Full::new(job.body.clone()))?;
    let response = match sender {
        Sender::H1(sender) => {
            sender.ready().await?;
            sender.send_request(request).await?
        }
        Sender::H2(sender) => {
            sender.ready().await?;
            sender.send_request(request).await?
        }
    };
    if response.status() != 200 {
        return Err(format!("status {}", response.status()).into());
    }
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let bytes = frame?.into_data().map_or(0, |bytes| bytes.len());
        job.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        job.chunks.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn report(job: &Job, mut latencies: Vec<u64>, elapsed: Duration) {
    latencies.sort_unstable();
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or(0);
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{{\"calls\":{},\"errors\":{},\"bytes\":{},\"chunks\":{},\"seconds\":{:.3},\"p50\":{},\"p90\":{},\"p99\":{}}}",
        read(&job.calls),
        read(&job.errors),
        read(&job.bytes),
        read(&job.chunks),
        elapsed.as_secs_f64(),
        at(0.5),
        at(0.9),
        at(0.99)
    );
}
