//! The framing of server-sent events, read as their bytes pass by.
//!
//! **Invariant:** the pieces do not depend on how the bytes were cut, except that a long value comes in several.
//! Line ends are LF, CRLF or CR, as the HTML standard (section 9.2.6) has them; a byte-order mark is passed over.
//!
//! Deliberately absent: any copy of the data; ids and retry times.

use memchr::memchr2;

/// The longest event name that is kept.
const NAME_MAX: usize = 64;
const BOM: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// The state of reading one stream.
#[derive(Debug)]
pub struct Framer {
    line: SseLine,
    /// The start of the line that may still become `event` or `data`.
    field: [u8; 5],
    field_len: usize,
    name: [u8; NAME_MAX],
    name_len: usize,
    has_name: bool,
    /// The event has a field, so that a blank line completes it.
    is_open: bool,
    /// A CR ended the last chunk's line; an LF that follows belongs to it.
    after_cr: bool,
    /// Bytes of a byte-order mark seen at the very start; 3 when there is no more to expect.
    bom: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SseLine {
    /// At the first byte of a line.
    Start,
    /// In the name of a field.
    Field,
    /// After `data:` or `event:`, where one space is passed over.
    BeforeData,
    BeforeName,
    Data,
    Name,
    /// In a comment or a field of no interest.
    Other,
}

/// What the next bytes of a chunk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A part of a data line: these bytes of the chunk. An event's data is all of it, with an LF between lines.
    Data {
        /// Its first byte.
        from: usize,
        /// After its last byte.
        to: usize,
    },
    /// A data line ended.
    DataEnd,
    /// The event's name is known: [`Framer::name`].
    Named,
    /// The event is complete.
    End,
    /// Between events: what came since the last one, if anything, was a comment, a blank line or the rest of a CRLF.
    Between,
}

impl Framer {
    /// At the start of a stream.
    pub fn new() -> Self {
        Self {
            line: SseLine::Start,
            field: [0; 5],
            field_len: 0,
            name: [0; NAME_MAX],
            name_len: 0,
            has_name: false,
            is_open: false,
            after_cr: false,
            bom: 0,
        }
    }

    /// The name of the event that is being read, where it has one of at most 64 bytes.
    pub fn name(&self) -> Option<&str> {
        let name = self.name.get(..self.name_len).filter(|_| self.has_name)?;
        std::str::from_utf8(name).ok()
    }

    /// Whether an event was begun and not completed.
    pub const fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether the last line end was a CR at the end of its chunk, which an LF may follow.
    pub const fn may_go_on(&self) -> bool {
        self.after_cr
    }

    /// The next piece of the chunk from this byte on, and where it ends; `None` where the chunk has no more of them.
    pub fn next(&mut self, chunk: &[u8], from: usize) -> Option<(Piece, usize)> {
        let mut at = from;
        while let Some(&byte) = chunk.get(at) {
            if self.after_cr {
                self.after_cr = false;
                if byte == b'\n' {
                    at += 1;
                    if !self.is_open {
                        return Some((Piece::Between, at));
                    }
                    continue;
                }
            }
            match self.line {
                SseLine::Start => match self.start(chunk, at) {
                    Ok(next) => at = next,
                    Err(found) => return Some(found),
                },
                SseLine::Field => match self.field_name(byte, chunk, at) {
                    Ok(next) => at = next,
                    Err(found) => return Some(found),
                },
                SseLine::BeforeData | SseLine::BeforeName => {
                    self.line = if self.line == SseLine::BeforeData { SseLine::Data } else { SseLine::Name };
                    at += usize::from(byte == b' ');
                }
                SseLine::Data | SseLine::Name | SseLine::Other => {
                    let stop = memchr2(b'\n', b'\r', &chunk[at..]).map_or(chunk.len(), |found| at + found);
                    let is_part = stop > at;
                    if self.line == SseLine::Data && is_part {
                        return Some((Piece::Data { from: at, to: stop }, stop));
                    }
                    if self.line == SseLine::Name {
                        self.push_name(&chunk[at..stop]);
                    }
                    if stop == chunk.len() {
                        return None;
                    }
                    let next = self.line_end(chunk, stop);
                    if let Some(piece) = self.ended() {
                        return Some((piece, next));
                    }
                    at = next;
                }
            }
        }
        None
    }

    /// The first byte of a line. `Ok`: go on from there.
    fn start(&mut self, chunk: &[u8], at: usize) -> Result<usize, (Piece, usize)> {
        let rest = &chunk[at..];
        if self.bom < BOM.len() {
            if rest[0] == BOM[self.bom] {
                self.bom += 1;
                return Ok(at + 1);
            }
            let is_cut = self.bom > 0;
            self.bom = BOM.len();
            if is_cut {
                self.line = SseLine::Other;
                return Ok(at);
            }
        }
        match rest[0] {
            b'\n' | b'\r' => {
                let next = self.line_end(chunk, at);
                let piece = if self.is_open { Piece::End } else { Piece::Between };
                Err((piece, next))
            }
            b':' => {
                self.line = SseLine::Other;
                Ok(at + 1)
            }
            _ if rest.starts_with(b"data:") => {
                self.is_open = true;
                self.line = SseLine::BeforeData;
                Ok(at + 5)
            }
            _ => {
                self.is_open = true;
                self.field_len = 0;
                self.line = SseLine::Field;
                Ok(at)
            }
        }
    }

    /// Ends the piece of the event: what follows is the next one.
    pub fn next_event(&mut self) {
        self.is_open = false;
        self.has_name = false;
        self.name_len = 0;
    }

    fn field_name(&mut self, byte: u8, chunk: &[u8], at: usize) -> Result<usize, (Piece, usize)> {
        let field = self.field.get(..self.field_len).unwrap_or_default();
        match byte {
            b':' => {
                self.line = match field {
                    b"data" => SseLine::BeforeData,
                    b"event" => {
                        self.name_len = 0;
                        SseLine::BeforeName
                    }
                    _ => SseLine::Other,
                };
                Ok(at + 1)
            }
            // A line without a colon is a field without a value.
            b'\n' | b'\r' => {
                let is_data = field == b"data";
                let next = self.line_end(chunk, at);
                if is_data { Err((Piece::DataEnd, next)) } else { Ok(next) }
            }
            _ => {
                match self.field.get_mut(self.field_len) {
                    Some(place) => {
                        *place = byte;
                        self.field_len += 1;
                    }
                    None => self.line = SseLine::Other,
                }
                Ok(at + 1)
            }
        }
    }

    /// What the end of a line of this kind means; the line is over.
    fn ended(&mut self) -> Option<Piece> {
        match std::mem::replace(&mut self.line, SseLine::Start) {
            SseLine::Data => Some(Piece::DataEnd),
            SseLine::Name => {
                self.has_name = self.name_len <= NAME_MAX;
                Some(Piece::Named)
            }
            _ if !self.is_open => Some(Piece::Between),
            _ => None,
        }
    }

    /// Passes over a line end; the line's kind is kept for [`Self::ended`] unless the line had only a name.
    fn line_end(&mut self, chunk: &[u8], at: usize) -> usize {
        if matches!(self.line, SseLine::Field) {
            self.line = SseLine::Start;
        }
        if chunk.get(at) != Some(&b'\r') {
            return at + 1;
        }
        match chunk.get(at + 1) {
            Some(b'\n') => at + 2,
            Some(_) => at + 1,
            None => {
                self.after_cr = true;
                at + 1
            }
        }
    }

    fn push_name(&mut self, part: &[u8]) {
        if let Some(room) = self.name.get_mut(self.name_len..self.name_len + part.len()) {
            room.copy_from_slice(part);
            self.name_len += part.len();
        } else if !part.is_empty() {
            self.name_len = NAME_MAX + 1;
        }
    }
}

#[cfg(test)]
mod tests;
