//! How each entry point is taken: one call, or something that stays open.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tollgate_tests::client::{Body, Connection, Failure, full};
use tollgate_tests::forward;
use tollgate_tests::hbone::HboneClient;
use tollgate_tests::{Answer, Client, Protocol};

use super::stand::{Caller, Stand};
use super::table::{EntryPoint, Row, Traffic};
use crate::proxies::{SPIFFE_TLV, header};
use crate::websocket::{echoed, frame};

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a caller asks for, and what it says of itself wherever there are fields.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) path: &'a str,
    pub(crate) fields: &'a [(&'static str, String)],
    /// What it sends where nobody looks.
    pub(crate) bytes: &'a str,
}

impl Ask<'_> {
    pub(crate) const fn path(path: &str) -> Ask<'_> {
        Ask { path, fields: &[], bytes: "word" }
    }

    fn add(&self, fields: &mut HeaderMap) {
        for (name, value) in self.fields {
            fields.insert(*name, value.parse().unwrap());
        }
    }
}

/// What became of a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// What the destination said.
    Through(String),
    /// The gateway refused it.
    Refused(u16, String),
    /// The connection broke.
    Cut(String),
}

impl From<Failure> for Said {
    fn from(failure: Failure) -> Self {
        Self::Cut(failure.to_string())
    }
}

impl From<std::io::Error> for Said {
    fn from(error: std::io::Error) -> Self {
        Self::Cut(error.to_string())
    }
}

/// How what was open ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As if all had been said; with what was said.
    Whole(String),
    /// In a way that nobody takes for the whole.
    Cut,
    /// With a close frame.
    Closed(u16, String),
}

pub(crate) trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Carrier for S {}

type Io = Box<dyn Carrier>;

/// What is open on an entry point, with the connection that it is on.
pub(crate) enum Open {
    Answer { body: Incoming, _on: Connection },
    Bytes(Io),
    Messages { io: TokioIo<Upgraded>, _on: Connection },
}

impl Open {
    /// Whether it still carries what is said each way.
    pub(crate) async fn carries(&mut self) -> bool {
        let carried = async {
            match self {
                Self::Answer { body, .. } => matches!(body.frame().await, Some(Ok(_))),
                Self::Bytes(io) => {
                    let mut back = [0; 2];
                    io.write_all(b"ab").await.is_ok()
                        && io.read_exact(&mut back).await.is_ok()
                        && back == *b"ab"
                }
                Self::Messages { io, .. } => echoed(io, b"ab").await == (0x81, b"ab".to_vec()),
            }
        };
        timeout(PATIENCE, carried).await == Ok(true)
    }

    /// How it ends, if it does within that time.
    pub(crate) async fn end(&mut self, within: Duration) -> Option<End> {
        let end = async {
            match self {
                Self::Answer { body, .. } => {
                    body.collect().await.map_or(End::Cut, |all| whole(&all.to_bytes()))
                }
                Self::Bytes(io) => {
                    let mut rest = Vec::new();
                    io.read_to_end(&mut rest).await.map_or(End::Cut, |_| whole(&rest))
                }
                Self::Messages { io, .. } => last_words(io).await.unwrap_or(End::Cut),
            }
        };
        timeout(within, end).await.ok()
    }
}

/// A connection that the same is asked on, again and again.
pub(crate) struct Kept {
    http: Connection,
    head: http::request::Parts,
}

impl Kept {
    pub(crate) async fn ask(&mut self, stand: &Stand) -> Result<(), Said> {
        let request = Request::from_parts(self.head.clone(), full(""));
        let answer = permitted(stand, self.http.start(request).await?).await?;
        Answer::read(&stand.sandbox, answer).await?;
        Ok(())
    }
}

/// What a close frame of a server says.
async fn last_words(io: &mut TokioIo<Upgraded>) -> std::io::Result<End> {
    let (opcode, length) = (io.read_u8().await?, io.read_u8().await?);
    let mut content = vec![0; usize::from(length)];
    io.read_exact(&mut content).await?;
    assert_eq!(opcode, 0x88, "a close frame");
    let (code, reason) = content.split_at(2);
    Ok(End::Closed(u16::from_be_bytes([code[0], code[1]]), String::from_utf8_lossy(reason).into_owned()))
}

fn whole(bytes: &[u8]) -> End {
    End::Whole(String::from_utf8_lossy(bytes).into_owned())
}

impl Row {
    /// Makes one call to its end.
    pub(crate) async fn call(&self, stand: &Stand, caller: &Caller, ask: Ask<'_>) -> Said {
        let called = timeout(PATIENCE, self.try_call(stand, caller, ask)).await;
        match called.unwrap_or_else(|_| Err(Said::Cut("nothing came".to_owned()))) {
            Ok(text) => Said::Through(text),
            Err(said) => said,
        }
    }

    async fn try_call(&self, stand: &Stand, caller: &Caller, ask: Ask<'_>) -> Result<String, Said> {
        match self.traffic {
            Traffic::Requests => {
                let (mut http, request) = self.http(stand, caller, ask).await?;
                let answer = permitted(stand, http.start(request).await?).await?;
                let answer = Answer::read(&stand.sandbox, answer).await?;
                Ok(format!("{:?}\n{}", answer.headers, answer.text()))
            }
            Traffic::Bytes => {
                let mut io = self.bytes(stand, caller, ask).await?;
                io.write_all(ask.bytes.as_bytes()).await?;
                let mut back = vec![0; ask.bytes.len()];
                io.read_exact(&mut back).await?;
                io.shutdown().await?;
                io.read_to_end(&mut Vec::new()).await?;
                Ok(String::from_utf8_lossy(&back).into_owned())
            }
            Traffic::Messages => {
                let (mut io, _http) = self.messages(stand, caller, ask).await?;
                let first = if ask.path == "/key" { frame(&mut io).await.1 } else { Vec::new() };
                stand.sandbox.answered(&first);
                let (_, back) = echoed(&mut io, ask.bytes.as_bytes()).await;
                assert_eq!(back, ask.bytes.as_bytes());
                // A client's close frame is masked; this one says nothing.
                io.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await?;
                io.read_to_end(&mut Vec::new()).await?;
                Ok(String::from_utf8_lossy(&[first, back].concat()).into_owned())
            }
        }
    }

    /// Opens what goes on until somebody ends it.
    pub(crate) async fn open(&self, stand: &Stand, caller: &Caller, path: &str) -> Result<Open, Said> {
        let ask = Ask::path(path);
        Ok(match self.traffic {
            Traffic::Requests => {
                let (mut http, request) = self.http(stand, caller, ask).await?;
                let answer = permitted(stand, http.start(request).await?).await?;
                Open::Answer { body: answer.into_body(), _on: http }
            }
            Traffic::Bytes => Open::Bytes(self.bytes(stand, caller, ask).await?),
            Traffic::Messages => {
                let (io, http) = self.messages(stand, caller, ask).await?;
                Open::Messages { io, _on: http }
            }
        })
    }

    /// Opens a connection for requests, and makes the first.
    pub(crate) async fn keep(&self, stand: &Stand, caller: &Caller, path: &str) -> Result<Kept, Said> {
        let (http, request) = self.http(stand, caller, Ask::path(path)).await?;
        let mut kept = Kept { http, head: request.into_parts().0 };
        kept.ask(stand).await?;
        Ok(kept)
    }

    /// HTTP on this entry point, and what is asked in it.
    async fn http(
        &self,
        stand: &Stand,
        caller: &Caller,
        ask: Ask<'_>,
    ) -> Result<(Connection, Request<Body>), Said> {
        let host = format!("{}.test", if self.destination == "up" { "api.up" } else { self.destination });
        let direct = caller.client.at(stand.gateway.address());
        let named = caller.client.naming(&host);
        let mut request = named.request(Method::GET, ask.path, "");
        ask.add(request.headers_mut());
        let http = match self.entry_point {
            EntryPoint::Http1ByBaseUrl | EntryPoint::WebSocketHttp1 => {
                let path = format!("/{}{}", self.destination, ask.path);
                *request.uri_mut() = direct.request(Method::GET, &path, "").into_parts().0.uri;
                direct.open(Protocol::H1).await?
            }
            EntryPoint::Http2ByHost | EntryPoint::WebSocketHttp2 => {
                direct.naming(&host).open(Protocol::H2).await?
            }
            EntryPoint::HboneHttp | EntryPoint::DoubleHboneHttp => {
                let tunnel = self.hbone(stand, caller, ask, &format!("{host}:80")).await?;
                Connection::over(&named, tunnel, Protocol::H1).await?
            }
            EntryPoint::ForwardAbsolute => {
                *request.uri_mut() = format!("http://{host}{}", ask.path).parse().unwrap();
                proxy(stand, caller).open(Protocol::H1).await?
            }
            EntryPoint::ForwardClear => {
                let tunnel = connect(stand, caller, ask, (&format!("{host}:80"), Protocol::H1)).await?;
                Connection::over(&named, tunnel, Protocol::H1).await?
            }
            EntryPoint::ForwardIntercepted => {
                let tunnel = connect(stand, caller, ask, (&format!("{host}:443"), Protocol::H1)).await?;
                let inside = forward::tls(tunnel, &host, stand.interception.clone(), &["http/1.1"]).await?;
                Connection::over(&named, inside, Protocol::H1).await?
            }
            EntryPoint::Sandwich => {
                let mut stream = TcpStream::connect(stand.gateway.listener("sandwich")).await?;
                stream.write_all(&header(&[(0x02, &host), (SPIFFE_TLV, &caller.id)])).await?;
                Connection::over(&named, stream, Protocol::H1).await?
            }
            other => unreachable!("{other:?} carries bytes"),
        };
        Ok((http, request))
    }

    /// What is passed through on this entry point.
    pub(crate) async fn bytes(&self, stand: &Stand, caller: &Caller, ask: Ask<'_>) -> Result<Io, Said> {
        let carrier = self.carrier(stand, caller, ask).await?;
        if self.destination != "named" {
            return Ok(carrier);
        }
        Ok(Box::new(forward::tls(carrier, "named.test", stand.pki.roots(), &[]).await?))
    }

    /// What carries it: where the destination is known by the TLS of its caller, that is still to come.
    pub(crate) async fn carrier(&self, stand: &Stand, caller: &Caller, ask: Ask<'_>) -> Result<Io, Said> {
        let authority = stand.passed_to(self);
        let at = async |listener: &str| {
            let client = caller.client.at(stand.gateway.listener(listener));
            client.handshake(client.tls(&[])).await
        };
        Ok(match self.entry_point {
            EntryPoint::HboneTcp | EntryPoint::DoubleHboneTcp | EntryPoint::HboneTls => {
                Box::new(self.hbone(stand, caller, ask, &authority).await?)
            }
            EntryPoint::ForwardTunnel | EntryPoint::ForwardTls => {
                Box::new(connect(stand, caller, ask, (&authority, Protocol::H1)).await?)
            }
            EntryPoint::ForwardTunnelHttp2 => {
                Box::new(connect(stand, caller, ask, (&authority, Protocol::H2)).await?)
            }
            EntryPoint::SandwichTcp => {
                let mut stream = TcpStream::connect(stand.gateway.listener("sandwich-queue")).await?;
                stream.write_all(&header(&[(0x02, "queue.test"), (SPIFFE_TLV, &caller.id)])).await?;
                Box::new(stream)
            }
            EntryPoint::TcpListener => Box::new(at("queue").await?),
            EntryPoint::TlsByServerName => Box::new(at("named").await?),
            other => unreachable!("{other:?} carries HTTP"),
        })
    }

    /// A WebSocket on this entry point (RFC 6455, RFC 8441).
    async fn messages(
        &self,
        stand: &Stand,
        caller: &Caller,
        ask: Ask<'_>,
    ) -> Result<(TokioIo<Upgraded>, Connection), Said> {
        let (mut http, mut request) = self.http(stand, caller, ask).await?;
        request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
        let answer = if self.entry_point == EntryPoint::WebSocketHttp1 {
            for (name, value) in [
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ] {
                request.headers_mut().insert(name, value.parse().unwrap());
            }
            http.start(request).await?
        } else {
            *request.method_mut() = Method::CONNECT;
            request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
            // The gateway's SETTINGS have to have come.
            tokio::time::sleep(Duration::from_millis(200)).await;
            http.start(request).await?
        };
        Ok((opened(stand, answer).await?, http))
    }

    async fn hbone(
        &self,
        stand: &Stand,
        caller: &Caller,
        ask: Ask<'_>,
        authority: &str,
    ) -> Result<TokioIo<Upgraded>, Said> {
        let mut mesh = match self.entry_point {
            EntryPoint::DoubleHboneHttp | EntryPoint::DoubleHboneTcp => {
                let outer = HboneClient::dial(&stand.carrier()).await?.tunnel(authority).await;
                HboneClient::within(&caller.client, outer).await?
            }
            _ => HboneClient::dial(&caller.client.at(stand.gateway.listener("tunnels"))).await?,
        };
        let mut request = Request::connect(authority).body(Empty::<Bytes>::new()).unwrap();
        ask.add(request.headers_mut());
        opened(stand, mesh.try_ask(request).await?).await
    }
}

fn proxy(stand: &Stand, caller: &Caller) -> Client {
    caller.client.at(stand.gateway.listener("proxy"))
}

/// A tunnel of the proxy.
async fn connect(
    stand: &Stand,
    caller: &Caller,
    ask: Ask<'_>,
    (authority, protocol): (&str, Protocol),
) -> Result<TokioIo<Upgraded>, Said> {
    let mut fields = HeaderMap::new();
    ask.add(&mut fields);
    opened(stand, forward::ask(&proxy(stand, caller), protocol, authority, fields).await?).await
}

async fn opened(stand: &Stand, answer: Response<Incoming>) -> Result<TokioIo<Upgraded>, Said> {
    Ok(forward::tunnel(permitted(stand, answer).await?).await?)
}

/// The answer, unless the gateway refuses.
async fn permitted(stand: &Stand, answer: Response<Incoming>) -> Result<Response<Incoming>, Said> {
    let Some(reason) = answer.headers().get("x-tollgate-reason") else { return Ok(answer) };
    let (status, reason) = (answer.status().as_u16(), reason.to_str().unwrap().to_owned());
    Answer::read(&stand.sandbox, answer).await?;
    Err(Said::Refused(status, reason))
}
