//! Bodies in signed chunks, signed again as they pass
//! (<https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html>, and `-trailers` of the same).
//!
//! A chunk is `SIZE;chunk-signature=HEX CRLF DATA CRLF`, the last has size 0. Its signature stands before its data, so one chunk is held
//! at a time. Sizes stay as they are written, and signatures have one length: so has the body.
//!
//! **Invariant:** nothing of a chunk leaves before the whole chunk was read and found well-formed.

use std::collections::VecDeque;

use aws_lc_rs::digest;
use bytes::{Buf, Bytes, BytesMut};
use tollgate_secrets::digest::{hex, sha256};
use tollgate_secrets::sigv4::Stamp;

use crate::upstream::{BodyRewriter, MalformedBody};

/// The most that is held: SDKs write chunks of 64 KiB to 1 MiB.
const CHUNK_LIMIT: usize = 8 << 20;
/// A chunk's size in hex, or one line of the trailer.
const LINE_LIMIT: usize = 1024;
const SIGNATURE: &str = ";chunk-signature=";
const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature:";

/// What follows the last chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChunkTrailer {
    Absent,
    Signed,
}

/// Where the next byte belongs.
#[derive(Debug)]
enum ChunkState {
    Size,
    /// `left` bytes of the chunk whose size was written as `size`.
    Data {
        size: String,
        left: usize,
    },
    DataEnd {
        size: String,
    },
    /// The lines between the last chunk and the end, as they are signed.
    ChunkTrailer {
        lines: String,
    },
    Done,
}

/// Signs chunk by chunk.
pub(super) struct Resigner {
    stamp: Stamp,
    previous: String,
    trailer: ChunkTrailer,
    state: ChunkState,
    /// Of a line that is not complete yet.
    line: BytesMut,
    data: VecDeque<Bytes>,
    hash: digest::Context,
}

impl std::fmt::Debug for Resigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resigner").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Resigner {
    /// `seed` is the signature of the head.
    pub(super) fn new(stamp: Stamp, seed: String, trailer: ChunkTrailer) -> Self {
        let hash = digest::Context::new(&digest::SHA256);
        let (line, data) = (BytesMut::new(), VecDeque::new());
        Self { stamp, previous: seed, trailer, state: ChunkState::Size, line, data, hash }
    }

    /// The next line without its end, once it is there.
    fn line(&mut self, input: &mut Bytes) -> Result<Option<String>, MalformedBody> {
        let end = input.iter().position(|byte| *byte == b'\n');
        let taken = input.split_to(end.map_or(input.len(), |end| end + 1));
        self.line.extend_from_slice(&taken);
        if self.line.len() > LINE_LIMIT {
            return Err(MalformedBody);
        }
        if end.is_none() {
            return Ok(None);
        }
        let line = self.line.split();
        let text = line.strip_suffix(b"\r\n").ok_or(MalformedBody)?;
        String::from_utf8(text.to_vec()).map(Some).map_err(|_| MalformedBody)
    }

    /// One step; false where more input is needed for it.
    fn step(&mut self, input: &mut Bytes, out: &mut VecDeque<Bytes>) -> Result<bool, MalformedBody> {
        self.state = match std::mem::replace(&mut self.state, ChunkState::Done) {
            ChunkState::Size => {
                let Some(line) = self.line(input)? else { return self.wait(ChunkState::Size) };
                let (size, left) = chunk_size(&line)?;
                if left > 0 {
                    ChunkState::Data { size, left }
                } else {
                    self.emit(&size, out);
                    ChunkState::ChunkTrailer { lines: String::new() }
                }
            }
            ChunkState::Data { size, left } => {
                if input.is_empty() {
                    return self.wait(ChunkState::Data { size, left });
                }
                let piece = input.split_to(left.min(input.len()));
                self.hash.update(&piece);
                let left = left - piece.len();
                self.data.push_back(piece);
                if left > 0 { ChunkState::Data { size, left } } else { ChunkState::DataEnd { size } }
            }
            ChunkState::DataEnd { size } => match self.line(input)?.as_deref() {
                None => return self.wait(ChunkState::DataEnd { size }),
                Some("") => {
                    self.emit(&size, out);
                    ChunkState::Size
                }
                Some(_) => return Err(MalformedBody),
            },
            ChunkState::ChunkTrailer { mut lines } => match self.line(input)? {
                None => return self.wait(ChunkState::ChunkTrailer { lines }),
                Some(line) if line.is_empty() => {
                    out.push_back(Bytes::from_static(b"\r\n"));
                    ChunkState::Done
                }
                Some(line) => {
                    self.trailer_line(&line, &mut lines, out)?;
                    ChunkState::ChunkTrailer { lines }
                }
            },
            ChunkState::Done => return Err(MalformedBody),
        };
        Ok(true)
    }

    fn wait(&mut self, state: ChunkState) -> Result<bool, MalformedBody> {
        self.state = state;
        Ok(false)
    }

    /// The chunk that is held, under its new signature.
    fn emit(&mut self, size: &str, out: &mut VecDeque<Bytes>) {
        let hash = std::mem::replace(&mut self.hash, digest::Context::new(&digest::SHA256)).finish();
        let (before, data) = (sha256(b""), hex(hash.as_ref()));
        let rest = [&*self.previous, &before, &data];
        self.previous = self.stamp.sign("AWS4-HMAC-SHA256-PAYLOAD", &rest);
        out.push_back(format!("{size}{SIGNATURE}{}\r\n", self.previous).into());
        if !self.data.is_empty() {
            out.append(&mut self.data);
            out.push_back(Bytes::from_static(b"\r\n"));
        }
    }

    fn trailer_line(
        &mut self,
        line: &str,
        lines: &mut String,
        out: &mut VecDeque<Bytes>,
    ) -> Result<(), MalformedBody> {
        if self.trailer == ChunkTrailer::Absent || lines.len() > LINE_LIMIT {
            return Err(MalformedBody);
        }
        let named = line.split_at_checked(TRAILER_SIGNATURE.len());
        if let Some((name, signature)) =
            named.filter(|(name, _)| name.eq_ignore_ascii_case(TRAILER_SIGNATURE))
        {
            if !is_signature(signature) {
                return Err(MalformedBody);
            }
            let rest = [&*self.previous, &sha256(lines.as_bytes())];
            let signature = self.stamp.sign("AWS4-HMAC-SHA256-TRAILER", &rest);
            out.push_back(format!("{name}{signature}\r\n").into());
            return Ok(());
        }
        let (name, value) = line.split_once(':').ok_or(MalformedBody)?;
        lines.push_str(&format!("{}:{}\n", name.trim().to_ascii_lowercase(), value.trim()));
        out.push_back(format!("{line}\r\n").into());
        Ok(())
    }
}

impl BodyRewriter for Resigner {
    fn feed(&mut self, mut input: Bytes, out: &mut VecDeque<Bytes>) -> Result<(), MalformedBody> {
        while input.has_remaining() {
            if !self.step(&mut input, out)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), MalformedBody> {
        if matches!(self.state, ChunkState::Done) { Ok(()) } else { Err(MalformedBody) }
    }
}

/// The size as it is written and as a number.
fn chunk_size(line: &str) -> Result<(String, usize), MalformedBody> {
    let (size, signature) = line.split_once(SIGNATURE).ok_or(MalformedBody)?;
    if size.is_empty() || size.len() > 8 || !is_hex(size) || !is_signature(signature) {
        return Err(MalformedBody);
    }
    let length = usize::from_str_radix(size, 16).map_err(|_| MalformedBody)?;
    if length > CHUNK_LIMIT { Err(MalformedBody) } else { Ok((size.to_owned(), length)) }
}

fn is_signature(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
