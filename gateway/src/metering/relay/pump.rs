//! Frames of one side on their way to the other.
//!
//! **Invariant:** what waits to be written are whole frames, so that a frame of our own may follow at any time. No more waits than one read
//! brings, and what [`Pump::has_room`] lets others cause.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::tap::Tap;
use crate::caller_occupancy::BufferReservation;
use crate::injection::Scrubber;
use crate::metering::realtime::{ClientMessage, ServerReader, SessionEvent, whole};
use crate::metering::reauthorize::Reauthorizer;
use crate::metering::traffic::Traffic;
use crate::session::WriteProgress;
use crate::websocket::{Decoder, FramePiece, FrameRules, MaskKeys, Opcode, Violation, close_payload, encode};

/// Room for one read.
const READ: usize = 16 << 10;
/// With more bytes that wait to be written, nobody may cause others.
const FULL: usize = 64 << 10;
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
    /// What came last is to be judged first: see [`Pump::take_client`] and [`Pump::take_server`]. Or there is room again.
    Event,
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
    tap: Tap,
    /// Where in `out` the close frame begins.
    close_at: Option<usize>,
    /// Messages of our own, which have to wait for the end of another.
    queued: VecDeque<BytesMut>,
    /// Nobody takes what is written.
    is_mute: bool,
    /// Of the caller, who has to take what it is sent.
    progress: Option<&'a WriteProgress>,
    /// Bytes in `out` that it has not been told of.
    fresh: usize,
    /// Somebody waits for room.
    awaits_room: bool,
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
            tap: Tap::Closed,
            close_at: None,
            queued: VecDeque::new(),
            is_mute: false,
            progress: None,
            fresh: 0,
            awaits_room: false,
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
            tap: Tap::Closed,
            close_at: None,
            queued: VecDeque::new(),
            is_mute: false,
            progress: Some(progress),
            fresh: 0,
            awaits_room: false,
        }
    }

    /// What messages are read by from now on.
    pub(super) fn tap(&mut self, tap: Tap) {
        self.tap = tap;
        self.awaits_room = false;
    }

    /// Passes frames on until there are no more. Dropped and begun again it goes on where it was.
    pub(super) async fn run(&mut self, reauthorizer: &Reauthorizer) -> PumpEnd {
        loop {
            while !self.tap.waits() {
                match self.decoder.next(&mut self.buffer) {
                    Ok(None) => break,
                    Ok(Some(piece)) => {
                        let is_close = piece.opcode == Opcode::Close;
                        if is_close {
                            self.close_at = Some(self.out.len());
                        }
                        let passed = match self.tap.take(piece) {
                            Ok(Some(piece)) => self.pass(piece),
                            Ok(None) => Ok(()),
                            Err(violation) => return PumpEnd::Violation(violation),
                        };
                        if passed.is_err() {
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
            if self.tap.waits() || (self.awaits_room && self.has_room()) {
                return PumpEnd::Event;
            }
            self.buffer.reserve(READ);
            match self.from.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return PumpEnd::Ended,
                Ok(_) if reauthorizer.is_withdrawn() => return PumpEnd::Withdrawn,
                Ok(_) => {}
            }
        }
    }

    /// A piece that may go on, and what of our own has waited for the end of its message.
    pub(super) fn pass(&mut self, piece: FramePiece) -> io::Result<()> {
        let ends = piece.last && !piece.opcode.is_control();
        if let Some(piece) = self.messages.clean(piece) {
            self.put(&piece)?;
        }
        if ends { self.put_queued() } else { Ok(()) }
    }

    /// A message of our own, as soon as it may stand there.
    pub(super) fn say(&mut self, message: &[u8]) -> io::Result<()> {
        self.queued.push_back(BytesMut::from(message));
        if self.tap.is_between() { self.put_queued() } else { Ok(()) }
    }

    /// Whether all that was to be said waits to be written at most.
    pub(super) fn is_said(&self) -> bool {
        self.queued.is_empty()
    }

    /// Whether so little waits that others may cause more. Where that is not so, [`Pump::run`] ends when it is.
    pub(super) fn has_room(&mut self) -> bool {
        let queued: usize = self.queued.iter().map(BytesMut::len).sum();
        self.awaits_room = self.out.len() + queued > FULL;
        !self.awaits_room
    }

    /// What is said next occupies this until it is written.
    pub(super) fn keep(&mut self, room: BufferReservation) {
        self.tap.keep(room);
    }

    /// The event that is to be judged names a message as the client does.
    pub(super) fn rename(&mut self, own: &str, theirs: &str) {
        self.tap.rename(own, theirs);
    }

    fn put_queued(&mut self) -> io::Result<()> {
        while let Some(message) = self.queued.pop_front() {
            self.put(&whole(message))?;
        }
        Ok(())
    }

    /// A message of the client that is to be judged.
    pub(super) fn take_client(&mut self) -> Option<ClientMessage> {
        self.tap.take_client()
    }

    /// How many tokens have gone on that nobody had to judge.
    pub(super) fn take_tokens(&mut self) -> u64 {
        self.tap.take_tokens()
    }

    /// What is to be judged of the provider.
    pub(super) fn take_server(&mut self) -> Option<(SessionEvent, &mut ServerReader)> {
        self.tap.event()
    }

    /// The event was judged: its last piece goes on.
    pub(super) fn pass_event(&mut self) -> io::Result<()> {
        self.tap.take_piece().map_or(Ok(()), |piece| self.pass(piece))
    }

    /// Takes back the close frame that waits to be written.
    pub(super) fn take_close(&mut self) -> BytesMut {
        self.close_at.take().map_or_else(BytesMut::new, |at| self.out.split_off(at.min(self.out.len())))
    }

    /// Puts it where it was.
    pub(super) fn put_close(&mut self, close: BytesMut) {
        self.out.unsplit(close);
    }

    /// What comes from now on is read and goes nowhere.
    pub(super) fn mute(&mut self) {
        self.is_mute = true;
        self.out.clear();
        self.fresh = 0;
    }

    /// A frame that waits to be written.
    fn put(&mut self, piece: &FramePiece) -> io::Result<()> {
        if self.is_mute {
            return Ok(());
        }
        let mask = match &mut self.masks {
            Some(masks) => Some(masks.take().ok_or_else(|| io::Error::other("no randomness"))?),
            None => None,
        };
        let before = self.out.len();
        encode(&mut self.out, piece, mask);
        let added = self.out.len() - before;
        self.fresh += added;
        self.bytes.fetch_add(added as u64, Ordering::Relaxed);
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.out.has_remaining() {
            return Ok(());
        }
        // What was handed over before, and is not taken yet, gives the caller no more time.
        let fresh = std::mem::take(&mut self.fresh);
        if let Some(progress) = self.progress.filter(|_| fresh > 0) {
            progress.handed(fresh);
        }
        self.to.write_all_buf(&mut self.out).await?;
        self.to.flush().await?;
        if let Some(progress) = self.progress {
            progress.waits();
        }
        self.tap.written();
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
