//! A connection of HTTP/2 seen from its wire: which frames of its own kind came, and PINGs between those of whoever speaks on it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a client says before its first frame (RFC 9113, section 3.4).
const PREFACE: usize = 24;
/// The length of a frame's head.
const HEAD: usize = 9;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
/// What each of our PINGs begins with; its number follows.
const OURS: [u8; 4] = *b"tap ";

/// What has passed so far. Cheap to clone: all see the same connection.
#[derive(Clone, Debug, Default)]
pub struct Wire(Arc<Mutex<Passed>>);

#[derive(Debug, Default)]
struct Passed {
    asked: u32,
    /// The numbers of our PINGs that were answered, in that order.
    answered: Vec<u32>,
    /// The error code of each GOAWAY that came.
    leaving: Vec<u32>,
}

impl Wire {
    /// How many PINGs of ours were sent.
    pub fn pings(&self) -> usize {
        self.passed().asked as usize
    }

    /// Whether each of them was answered, once and in its turn.
    pub fn are_all_answered(&self) -> bool {
        let passed = self.passed();
        passed.answered.iter().copied().eq(0..passed.asked)
    }

    /// The error codes of the GOAWAYs that came (RFC 9113, section 7); 0 is none.
    pub fn leaving(&self) -> Vec<u32> {
        self.passed().leaving.clone()
    }

    fn passed(&self) -> MutexGuard<'_, Passed> {
        self.0.lock().expect("what has passed")
    }

    fn came(&self, kind: u8, flags: u8, body: &[u8]) {
        let number = |at: usize| {
            body.get(at..at + 4).map(|four| u32::from_be_bytes([four[0], four[1], four[2], four[3]]))
        };
        let mut passed = self.passed();
        match kind {
            PING if flags & ACK != 0 && body.starts_with(&OURS) => passed.answered.extend(number(4)),
            GOAWAY => passed.leaving.extend(number(4)),
            _ => {}
        }
    }
}

/// A client's side of a connection.
pub(crate) struct Tapped<S> {
    stream: S,
    wire: Wire,
    sent: Frames,
    came: Frames,
    /// How often there is a PING, as long as the client writes at all.
    every: Option<Duration>,
    last: Instant,
    unsent: Vec<u8>,
}

impl<S> Tapped<S> {
    pub(crate) fn new(stream: S, every: Option<Duration>) -> Self {
        let sent = Frames { preface: PREFACE, ..Frames::default() };
        let (wire, came) = (Wire::default(), Frames::default());
        Self { stream, wire, sent, came, every, last: Instant::now(), unsent: Vec::new() }
    }

    pub(crate) fn wire(&self) -> Wire {
        self.wire.clone()
    }
}

impl<S: AsyncWrite + Unpin> Tapped<S> {
    /// Sends a PING between two frames, where one is due.
    fn poll_ping(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_due = self.every.is_some_and(|every| self.last.elapsed() >= every);
        if is_due && self.unsent.is_empty() && self.sent.are_whole() {
            let number = {
                let mut passed = self.wire.passed();
                passed.asked += 1;
                passed.asked - 1
            };
            self.unsent = [&[0, 0, 8, PING, 0, 0, 0, 0, 0][..], &OURS, &number.to_be_bytes()].concat();
            self.last = Instant::now();
        }
        while !self.unsent.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tapped<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_ping(cx))?;
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.sent.take(&bytes[..written], |_, _, _| {});
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tapped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let Self { came, wire, .. } = &mut *self;
        came.take(&buffer.filled()[before..], |kind, flags, body| wire.came(kind, flags, body));
        Poll::Ready(Ok(()))
    }
}

/// Cuts what passes one way into frames (RFC 9113, section 4.1).
#[derive(Default)]
struct Frames {
    /// Bytes that are still to come before the first.
    preface: usize,
    head: Vec<u8>,
    /// Of those that are looked into.
    body: Vec<u8>,
    left: usize,
    count: usize,
}

impl Frames {
    /// Whether the last one has ended, and there was one.
    fn are_whole(&self) -> bool {
        self.count > 0 && self.head.is_empty()
    }

    fn take(&mut self, mut bytes: &[u8], mut whole: impl FnMut(u8, u8, &[u8])) {
        while !bytes.is_empty() {
            let (room, is_head) = match (self.preface, self.head.len()) {
                (0, HEAD) => (self.left, false),
                (0, begun) => (HEAD - begun, true),
                (preface, _) => (preface, false),
            };
            let (piece, rest) = bytes.split_at(room.min(bytes.len()));
            bytes = rest;
            if self.preface > 0 {
                self.preface -= piece.len();
                continue;
            }
            if is_head {
                self.head.extend_from_slice(piece);
                if self.head.len() < HEAD {
                    return;
                }
                self.left = self.head[..3].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            } else {
                self.left -= piece.len();
                if matches!(self.head[3], PING | GOAWAY) {
                    self.body.extend_from_slice(piece);
                }
            }
            if self.left == 0 {
                whole(self.head[3], self.head[4], &self.body);
                self.head.clear();
                self.body.clear();
                self.count += 1;
            }
        }
    }
}
