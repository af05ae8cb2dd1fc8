//! A look at the heads of HTTP/1.1 requests as they come, for what the parser takes and a proxy in front may take for something else: a line
//! that ends in a bare line feed, a length that stands twice, beside a transfer coding or is not written plainly, another coding than
//! `chunked` (RFC 9112, sections 2.2, 6.1 and 6.3).
//!
//! It also tells whether anything is under way, for who parks connections.
//!
//! **Invariant:** nothing but the line feed at which a line is refused is changed, and never a byte of a body. It becomes a NUL, which no
//! parser takes in a head: the request is answered with 400, and the connection closes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::session::HeaderDeadline;

/// Of a line that comes in pieces so much is kept: more than the fields that matter can have.
const KEPT: usize = 256;

/// A stream whose reader sees no request that is framed in an unclear way.
#[derive(Debug)]
pub(super) struct Strict<S> {
    stream: S,
    look: FramingScan,
    /// Is told whether what has come ends where a request does, and whether what was written has left.
    deadline: Arc<HeaderDeadline>,
}

impl<S> Strict<S> {
    pub(super) fn new(stream: S, deadline: Arc<HeaderDeadline>) -> Self {
        Self { stream, look: FramingScan::default(), deadline }
    }

    /// Of a proxy's connection: what follows the head of a CONNECT belongs to the tunnel. One that is refused has to be the last on its
    /// connection.
    pub(super) fn of_proxy(stream: S, deadline: Arc<HeaderDeadline>) -> Self {
        Self { stream, look: FramingScan { opens_tunnels: true, ..FramingScan::default() }, deadline }
    }

    /// Whether what was read so far ends where a request does.
    pub(super) fn is_between_requests(&self) -> bool {
        self.look.is_between_requests()
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

/// How far the look has come.
#[derive(Debug, Default)]
struct FramingScan {
    place: FramingState,
    /// Bytes of a body before the next line.
    skip: u64,
    /// What came of the present line before, its first bytes and its last one.
    begun: Vec<u8>,
    last: Option<u8>,
    framing: Framing,
    opens_tunnels: bool,
    /// The present head asks for one.
    is_connect: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FramingState {
    /// Before a request line.
    #[default]
    Start,
    Head,
    ChunkSize,
    Trailers,
    /// The parser stops here as well.
    Refused,
    /// Behind the head of a CONNECT: no HTTP that is to be judged here.
    Tunnel,
}

/// What the head says of the body so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Framing {
    #[default]
    Nothing,
    Length(u64),
    Chunked,
}

/// The line is refused.
struct Unclear;

impl FramingScan {
    fn is_between_requests(&self) -> bool {
        self.place == FramingState::Start && self.skip == 0 && self.last.is_none()
    }

    fn at(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() && !matches!(self.place, FramingState::Refused | FramingState::Tunnel) {
            if self.skip > 0 {
                let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
                self.skip -= skipped as u64;
                bytes = &mut bytes[skipped..];
                continue;
            }
            let Some(end) = memchr(b'\n', bytes) else {
                self.keep(bytes);
                return;
            };
            let (line, rest) = bytes.split_at_mut(end);
            let Some((feed, rest)) = rest.split_first_mut() else { return };
            if self.line(line).is_err() {
                self.place = FramingState::Refused;
                *feed = 0;
            }
            bytes = rest;
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = KEPT.saturating_sub(self.begun.len()).min(bytes.len());
        self.begun.extend_from_slice(&bytes[..room]);
        self.last = bytes.last().copied().or(self.last);
    }

    /// Judges a line, without its line feed.
    #[inline]
    fn line(&mut self, line: &[u8]) -> Result<(), Unclear> {
        if self.last.is_none() {
            let line = line.strip_suffix(b"\r").ok_or(Unclear)?;
            let is_field = self.place == FramingState::Head && !line.is_empty();
            return if is_field { self.field(line) } else { self.judge(line) };
        }
        self.keep(line);
        let mut begun = std::mem::take(&mut self.begun);
        if self.last.take() != Some(b'\r') {
            return Err(Unclear);
        }
        if begun.len() < KEPT {
            begun.pop();
        }
        let judged = self.judge(&begun);
        begun.clear();
        self.begun = begun;
        judged
    }

    fn judge(&mut self, line: &[u8]) -> Result<(), Unclear> {
        match self.place {
            // Empty lines before a request are passed over (RFC 9112, section 2.2).
            FramingState::Start if line.is_empty() => {}
            FramingState::Start => {
                self.place = FramingState::Head;
                self.is_connect = self.opens_tunnels && line.starts_with(b"CONNECT ");
            }
            FramingState::Head if line.is_empty() => {
                self.place = FramingState::Start;
                match std::mem::take(&mut self.framing) {
                    Framing::Nothing | Framing::Length(0) if self.is_connect => {
                        self.place = FramingState::Tunnel;
                    }
                    Framing::Nothing => {}
                    Framing::Length(length) => self.skip = length,
                    Framing::Chunked => self.place = FramingState::ChunkSize,
                }
            }
            FramingState::Head => self.field(line)?,
            FramingState::ChunkSize => match chunk_size(line).ok_or(Unclear)? {
                0 => self.place = FramingState::Trailers,
                size => self.skip = size.checked_add(2).ok_or(Unclear)?,
            },
            FramingState::Trailers if line.is_empty() => self.place = FramingState::Start,
            FramingState::Trailers | FramingState::Refused | FramingState::Tunnel => {}
        }
        Ok(())
    }

    #[inline]
    fn field(&mut self, line: &[u8]) -> Result<(), Unclear> {
        // One byte tells most fields from those two that matter.
        match line.first() {
            Some(b'c' | b'C' | b't' | b'T') => self.framing_field(line),
            _ => Ok(()),
        }
    }

    fn framing_field(&mut self, line: &[u8]) -> Result<(), Unclear> {
        let value = |name: &str| {
            let (head, rest) = line.split_at_checked(name.len())?;
            rest.strip_prefix(b":").filter(|_| head.eq_ignore_ascii_case(name.as_bytes()))
        };
        let coding =
            |value: &[u8]| value.trim_ascii().eq_ignore_ascii_case(b"chunked").then_some(Framing::Chunked);
        let framing = value("content-length").map(|value| length(value).map(Framing::Length));
        let framing = framing.or_else(|| value("transfer-encoding").map(coding));
        let Some(framing) = framing else { return Ok(()) };
        if self.framing != Framing::Nothing || line.len() >= KEPT {
            return Err(Unclear);
        }
        self.framing = framing.ok_or(Unclear)?;
        Ok(())
    }
}

/// A number as everybody writes it.
fn length(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    let is_plain = matches!(digits, b"0" | [b'1'..=b'9', ..]) && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_plain)?.parse().ok()
}

/// The hexadecimal number that a line begins with; what follows is for the parser to judge.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    u64::from_str_radix(std::str::from_utf8(line.get(..end)?).ok()?, 16).ok()
}

impl<S: AsyncRead + Unpin> AsyncRead for Strict<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if let Some(fresh) = buf.filled_mut().get_mut(before..) {
            self.look.at(fresh);
            self.deadline.set_between_requests(self.look.is_between_requests());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Strict<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.deadline.set_flushed(false);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.deadline.set_flushed(false);
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.deadline.set_flushed(flushed.is_ready());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.deadline.set_flushed(false);
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of `bytes` that come in these pieces.
    fn looked(bytes: &[u8], borders: &[usize]) -> Vec<u8> {
        let mut look = FramingScan::default();
        let mut bytes = bytes.to_vec();
        let mut begin = 0;
        for end in borders.iter().copied().chain([bytes.len()]) {
            look.at(&mut bytes[begin..end]);
            begin = end;
        }
        bytes
    }

    /// Where it is refused, the same however it is cut.
    fn refused_at(text: &str) -> Option<usize> {
        let bytes = text.as_bytes();
        let whole = looked(bytes, &[]);
        for border in 0..bytes.len() {
            assert_eq!(looked(bytes, &[border]), whole, "{text:?} at {border}");
        }
        let each: Vec<usize> = (0..bytes.len()).collect();
        assert_eq!(looked(bytes, &each), whole, "{text:?} byte by byte");
        let changed: Vec<usize> = (0..bytes.len()).filter(|at| whole[*at] != bytes[*at]).collect();
        assert!(changed.len() <= 1 && changed.iter().all(|at| bytes[*at] == b'\n' && whole[*at] == 0));
        changed.first().copied()
    }

    fn is_refused(text: &str) -> bool {
        refused_at(text).is_some()
    }

    #[test]
    fn a_request_that_every_reader_reads_alike_passes_as_it_is() {
        for request in [
            "GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
            "\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n".to_owned(),
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na\nbGET / HTTP/1.1\r\ncontent-length:0\r\n\r\n".to_owned(),
            "POST / HTTP/1.1\r\nTransfer-Encoding:\tChunked \r\n\r\n3;a=b\r\n\n\n\n\r\nA\r\n0123456\n89\r\n0\r\nx: y\r\n\r\n\
             GET / HTTP/1.1\r\nx: y\r\n\r\n"
                .to_owned(),
            format!("GET /{} HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(2 * KEPT), "b".repeat(2 * KEPT)),
            "PUT / HTTP/1.1\r\ncontent-lengths: 05\r\ntransfer-encodings: gzip\r\nc:\r\nt:\r\n\r\n".to_owned(),
        ] {
            assert_eq!(refused_at(&request), None, "{request:?}");
        }
    }

    #[test]
    fn a_bare_line_feed_is_refused_wherever_a_line_may_end() {
        for request in [
            "\nGET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\n\nGET / HTTP/1.1\nx: y\r\n\r\n",
        ] {
            assert!(is_refused(request), "{request:?}");
        }
        // One that belongs to a body is nobody's business, and the first behind it is.
        let piped = "POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n\n\n\nGET / HTTP/1.1\r\n\r\n";
        assert_eq!(refused_at(piped), Some(piped.find("\n\n\n").unwrap() + 3));
    }

    #[test]
    fn what_says_where_the_body_ends_is_said_once_and_plainly() {
        for fields in [
            "Content-Length: 05",
            "Content-Length: +5",
            "Content-Length: 5, 5",
            "Content-Length: 5\r\nContent-Length: 5",
            "content-length: 0\r\nCONTENT-LENGTH: 0",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding:",
            "Content-Length: 18446744073709551616",
            "Content-Length:",
        ] {
            assert!(is_refused(&format!("POST / HTTP/1.1\r\n{fields}\r\n\r\nhello")), "{fields}");
        }
        let padded = format!("GET / HTTP/1.1\r\ncontent-length:{}1\r\n\r\n", " ".repeat(KEPT));
        assert!(is_refused(&padded));
        for size in ["", " 3", "g", "11111111111111111", "ffffffffffffffff"] {
            let chunk = format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{size}\r\nabc");
            assert!(is_refused(&chunk), "{size}");
        }
    }
}
