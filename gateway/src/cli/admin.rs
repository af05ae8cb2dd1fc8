//! Asking the running gateway, at its admin port.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use zeroize::Zeroizing;

use crate::admin::NO_CREDENTIAL;

const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// A store, and a token endpoint behind it, may take their time, for each of several keys.
const DONE_LIMIT: Duration = Duration::from_secs(120);
const LONGEST: u64 = 64 << 20;

/// The body of what the gateway answers; `None` where none listens.
pub(super) fn get(address: SocketAddr, token_file: &Path, path: &str) -> anyhow::Result<Option<Vec<u8>>> {
    ask(address, token_file, &format!("GET {path}"), ANSWER_LIMIT)
}

/// The same where it is to do something first.
pub(super) fn post(address: SocketAddr, token_file: &Path, path: &str) -> anyhow::Result<Option<Vec<u8>>> {
    ask(address, token_file, &format!("POST {path}"), DONE_LIMIT)
}

fn ask(
    address: SocketAddr,
    token_file: &Path,
    line: &str,
    limit: Duration,
) -> anyhow::Result<Option<Vec<u8>>> {
    let address = reachable(address);
    let mut stream = match TcpStream::connect_timeout(&address, CONNECT_LIMIT) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("the admin port {address}")),
    };
    let token = std::fs::read_to_string(token_file).map(Zeroizing::new);
    let token = token.with_context(|| format!("admin.tokenFile {}", token_file.display()))?;
    let request = Zeroizing::new(format!(
        "{line} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\nAuthorization: Bearer {}\r\n\r\n",
        token.trim()
    ));
    let mut answer = Vec::new();
    let exchanged = stream.set_read_timeout(Some(limit)).and_then(|()| {
        stream.write_all(request.as_bytes())?;
        stream.take(LONGEST).read_to_end(&mut answer)
    });
    exchanged.with_context(|| format!("asking the admin port {address}"))?;
    let (status, body) = read(&answer).with_context(|| format!("{address} is no admin port of a gateway"))?;
    match status {
        200 => Ok(Some(body.to_vec())),
        401 => bail!("the gateway at {address} has another token than {}", token_file.display()),
        404 if body == NO_CREDENTIAL.as_bytes() => bail!("the gateway at {address} has no such credential"),
        404 => bail!("the gateway at {address} does not know `{line}`: it is of another version"),
        status => bail!("the gateway at {address} answers {status}"),
    }
}

/// Where a listener on every address is reached from here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        ip if ip.is_ipv4() => Ipv4Addr::LOCALHOST.into(),
        _ => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

/// Status and body of an HTTP/1 answer that ends with its connection.
fn read(answer: &[u8]) -> Option<(u16, &[u8])> {
    let head = answer.strip_prefix(b"HTTP/1.")?;
    let status = std::str::from_utf8(head.get(2..5)?).ok()?.parse().ok()?;
    let body = memchr::memmem::find(answer, b"\r\n\r\n")? + 4;
    Some((status, answer.get(body..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_what_is_none_is_refused() {
        assert_eq!(read(b"HTTP/1.0 200 OK\r\na: b\r\n\r\n[]"), Some((200, &b"[]"[..])));
        assert_eq!(read(b"HTTP/1.1 401 Unauthorized\r\n\r\n"), Some((401, &b""[..])));
        for none in [&b""[..], b"SSH-2.0-x\r\n\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 xx\r\n\r\n"] {
            assert_eq!(read(none), None);
        }
    }

    #[test]
    fn a_listener_on_every_address_is_reached_on_loopback() {
        let reached = |address: &str| reachable(address.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:9441"), "127.0.0.1:9441");
        assert_eq!(reached("[::]:9441"), "[::1]:9441");
        assert_eq!(reached("10.0.0.7:9441"), "10.0.0.7:9441");
    }

    #[test]
    fn nobody_there_is_no_error() {
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(get(unused, Path::new("/nonexistent"), "/x").unwrap().is_none());
    }
}
