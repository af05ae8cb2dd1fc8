//! Frames of one side on their way to the other.
//!
//! **Invariant:** what waits to be written are whole frames, so that a frame of our own may follow at any time. No more waits than one read
//! brings.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::injection::Scrubber;
use crate::metering::leave::Leave;
use crate::metering::traffic::Traffic;
use crate::session::WriteProgress;
use crate::websocket::{Decoder, FramePiece, FrameRules, MaskKeys, Opcode, Violation, close_payload, encode};

/// Room for one read.
const READ: usize = 16 << 10;
/// How long the last frame to a side may take.
const LAST: Duration = Duration::from_secs(2);

/// Why no more frames come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PumpEnd {
    /// The side has closed. Its close frame waits to be written.
    Closed,
    /// Its connection ended without that.
    Ended,
    /// The other side takes no more.
    Unwritable,
    /// It sent what is not allowed.
    Violation(Violation),
    /// The policy permits it no longer. What came last did not go on.
    Withdrawn,
}

/// The messages of one side, without reflected keys.
#[derive(Debug)]
pub(super) struct CleanMessages {
    scrubber: Option<Scrubber>,
    /// The beginning of a message none of which went on.
    begun: Option<(Opcode, bool)>,
}

impl CleanMessages {
    /// `scrubber`: what messages have to go through.
    pub(super) const fn new(scrubber: Option<Scrubber>) -> Self {
        Self { scrubber, begun: None }
    }

    /// The piece as it may go on; `None`: all of it waits for what comes next, which may make it a key.
    fn clean(&mut self, piece: FramePiece) -> Option<FramePiece> {
        let Some(scrubber) = &mut self.scrubber else { return Some(piece) };
        let FramePiece { opcode, deflated, last, payload } = piece;
        if opcode.is_control() {
            // It stands between the frames of a message, which is searched as if it were not there.
            let payload =
                scrubber.beside().map_or_else(BytesMut::new, |mut own| scrubbed(&mut own, payload, true));
            return Some(FramePiece { opcode, deflated, last, payload });
        }
        if opcode != Opcode::Continuation {
            self.begun = Some((opcode, deflated));
        }
        let payload = scrubbed(scrubber, payload, last);
        if payload.is_empty() && !last {
            return None;
        }
        let (opcode, deflated) = self.begun.take().unwrap_or((Opcode::Continuation, false));
        Some(FramePiece { opcode, deflated, last, payload })
    }
}

fn scrubbed(scrubber: &mut Scrubber, payload: BytesMut, last: bool) -> BytesMut {
    scrubber.feed(payload.freeze(), last);
    let first = scrubber.pop().unwrap_or_default();
    let mut clean = BytesMut::from(first);
    while let Some(more) = scrubber.pop() {
        clean.extend_from_slice(&more);
    }
    clean
}

/// Reads the frames of one side, and writes them to the other.
#[derive(Debug)]
pub(super) struct Pump<'a, R, W> {
    from: R,
    to: W,
    buffer: BytesMut,
    out: BytesMut,
    decoder: Decoder,
    messages: CleanMessages,
    /// Of frames to a provider.
    masks: Option<MaskKeys>,
    bytes: &'a AtomicU64,
    /// Of the caller, who has to take what it is sent.
    progress: Option<&'a WriteProgress>,
}

impl<'a, R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Pump<'a, R, W> {
    /// Frames of the caller.
    pub(super) fn of_caller((from, to): (R, W), rules: FrameRules, traffic: &'a Traffic) -> Self {
        Self {
            from,
            to,
            buffer: BytesMut::new(),
            out: BytesMut::new(),
            decoder: Decoder::new(rules),
            messages: CleanMessages::new(None),
            masks: Some(MaskKeys::new()),
            bytes: &traffic.up,
            progress: None,
        }
    }

    /// Frames of the provider.
    pub(super) fn of_provider(
        (from, to): (R, W),
        rules: FrameRules,
        messages: CleanMessages,
        (traffic, progress): (&'a Traffic, &'a WriteProgress),
    ) -> Self {
        Self {
            from,
            to,
            buffer: BytesMut::new(),
            out: BytesMut::new(),
            decoder: Decoder::new(rules),
            messages,
            masks: None,
            bytes: &traffic.down,
            progress: Some(progress),
        }
    }

    /// Passes frames on until there are no more. Dropped and begun again it goes on where it was.
    pub(super) async fn run(&mut self, leave: &Leave) -> PumpEnd {
        loop {
            loop {
                match self.decoder.next(&mut self.buffer) {
                    Ok(None) => break,
                    Ok(Some(piece)) => {
                        let is_close = piece.opcode == Opcode::Close;
                        if let Some(piece) = self.messages.clean(piece)
                            && self.put(&piece).is_err()
                        {
                            return PumpEnd::Unwritable;
                        }
                        if is_close {
                            return PumpEnd::Closed;
                        }
                    }
                    Err(violation) => return PumpEnd::Violation(violation),
                }
            }
            if self.flush().await.is_err() {
                return PumpEnd::Unwritable;
            }
            self.buffer.reserve(READ);
            match self.from.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return PumpEnd::Ended,
                Ok(_) if leave.is_withdrawn() => return PumpEnd::Withdrawn,
                Ok(_) => {}
            }
        }
    }

    /// A frame that waits to be written.
    fn put(&mut self, piece: &FramePiece) -> io::Result<()> {
        let mask = match &mut self.masks {
            Some(masks) => Some(masks.take().ok_or_else(|| io::Error::other("no randomness"))?),
            None => None,
        };
        let before = self.out.len();
        encode(&mut self.out, piece, mask);
        self.bytes.fetch_add((self.out.len() - before) as u64, Ordering::Relaxed);
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.out.has_remaining() {
            return Ok(());
        }
        if let Some(progress) = self.progress {
            progress.handed(self.out.len());
        }
        self.to.write_all_buf(&mut self.out).await?;
        self.to.flush().await?;
        if let Some(progress) = self.progress {
            progress.waits();
        }
        Ok(())
    }

    /// Writes what waits, if the other side takes it in time.
    pub(super) async fn flush_within(&mut self, time: Duration) {
        // Whoever does not take its last frame does without it.
        let _ = timeout(time, self.flush()).await;
    }

    /// Closes towards the side that frames go to.
    pub(super) async fn close(&mut self, code: u16, reason: &str) {
        let payload = BytesMut::from(&*close_payload(code, reason));
        let close = FramePiece { opcode: Opcode::Close, deflated: false, last: true, payload };
        if self.put(&close).is_ok() {
            self.flush_within(LAST).await;
        }
    }

    /// Ends the connection that frames go to, behind the last one.
    pub(super) async fn end(&mut self) {
        let _ = timeout(LAST, self.to.shutdown()).await;
    }
}

#[cfg(test)]
mod tests;
