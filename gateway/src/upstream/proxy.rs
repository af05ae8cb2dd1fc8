//! Through an HTTP proxy to a destination, by CONNECT (RFC 9110, section 9.3.6).
//!
//! **Invariant:** the proxy is told host and port of the destination, and nothing of the caller or of the call. What it answers with is read
//! up to the end of the head and no further: the rest is the destination's.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tollgate_policy::policy::Proxy;

use super::transport::Transport;

/// Most bytes of the head of its answer.
const HEAD: usize = 16 << 10;

/// Why there is no way through a proxy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("its TLS failed: {0}")]
    Tls(io::Error),
    #[error("it broke off: {0}")]
    Broken(io::Error),
    #[error("it does not answer as an HTTP proxy does")]
    NotHttp,
    #[error("it answered {0}")]
    Refused(u16),
}

impl ProxyError {
    /// Whether the proxy itself, or what is behind it, could not be reached.
    pub(super) const fn is_unreached(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::Broken(_) | Self::Refused(502..=504))
    }
}

/// Makes a way to `host` and `port` through a proxy that `transport` is connected to. `tls`: how it is spoken to the proxy itself.
pub(super) async fn tunnel(
    transport: Transport,
    (proxy, tls): (&Proxy, Option<&Arc<ClientConfig>>),
    (host, port): (&str, u16),
) -> Result<Transport, ProxyError> {
    let mut transport = match (&proxy.tls, transport) {
        (Some(_), Transport::Socket(socket)) => {
            let config =
                tls.ok_or_else(|| ProxyError::Tls(io::Error::other("its CA bundle cannot be used")))?;
            let bare = proxy.host.trim_start_matches('[').trim_end_matches(']');
            let name = ServerName::try_from(bare.to_owned());
            let name = name.map_err(|error| ProxyError::Tls(io::Error::other(error)))?;
            let secured = TlsConnector::from(Arc::clone(config)).connect(name, socket).await;
            Transport::ProxyTls(Box::new(secured.map_err(ProxyError::Tls)?))
        }
        (_, transport) => transport,
    };
    connect(&mut transport, host, port).await?;
    Ok(transport)
}

async fn connect(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    host: &str,
    port: u16,
) -> Result<(), ProxyError> {
    let request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(ProxyError::Broken)?;
    stream.flush().await.map_err(ProxyError::Broken)?;
    let mut head = Vec::with_capacity(256);
    // Byte by byte: what comes after it may be what a server begins to say.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD || (head.len() >= 5 && !head.starts_with(b"HTTP/")) {
            return Err(ProxyError::NotHttp);
        }
        head.push(stream.read_u8().await.map_err(ProxyError::Broken)?);
    }
    match status(&head) {
        Some(200..=299) => Ok(()),
        Some(status) => Err(ProxyError::Refused(status)),
        None => Err(ProxyError::NotHttp),
    }
}

/// The status of a head (RFC 9112, section 4).
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let (version, rest) = line.split_once(' ')?;
    let status = rest.get(..3).filter(|_| matches!(rest.as_bytes().get(3), None | Some(b' ')))?;
    let is_http1 = matches!(version, "HTTP/1.0" | "HTTP/1.1");
    (is_http1 && status.bytes().all(|digit| digit.is_ascii_digit())).then(|| status.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    async fn answered(answer: &str) -> (Result<(), ProxyError>, String, String) {
        let (mut near, mut far) = duplex(32 << 10);
        far.write_all(answer.as_bytes()).await.unwrap();
        let done = connect(&mut near, "api.up.test", 443).await;
        let mut asked = vec![0; 256];
        let count = far.read(&mut asked).await.unwrap();
        far.shutdown().await.unwrap();
        let mut rest = String::new();
        near.read_to_string(&mut rest).await.unwrap();
        (done, String::from_utf8(asked[..count].to_vec()).unwrap(), rest)
    }

    #[tokio::test]
    async fn it_asks_for_host_and_port_alone_and_takes_no_byte_of_the_destination() {
        let answer = "HTTP/1.1 200 Connection established\r\nProxy-Agent: x\r\n\r\n220 mail.test ESMTP";
        let (done, asked, rest) = answered(answer).await;
        done.unwrap();
        assert_eq!(asked, "CONNECT api.up.test:443 HTTP/1.1\r\nHost: api.up.test:443\r\n\r\n");
        assert_eq!(rest, "220 mail.test ESMTP");
    }

    #[tokio::test]
    async fn what_it_refuses_is_told_apart_and_what_is_no_answer_is_none() {
        for (answer, status) in [("HTTP/1.1 407 Proxy\r\n\r\n", 407), ("HTTP/1.0 403\r\n\r\n", 403)] {
            let (done, ..) = answered(answer).await;
            assert!(matches!(done, Err(ProxyError::Refused(seen)) if seen == status), "{done:?}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD));
        for answer in ["SSH-2.0-OpenSSH\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/2 200 OK\r\n\r\n", &long] {
            let (done, ..) = answered(answer).await;
            assert!(matches!(done, Err(ProxyError::NotHttp)), "{answer}: {done:?}");
        }
    }
}
