//! A strict reader of JSON, which borrows from the text and copies only what has escapes.
//!
//! **Invariant:** what it takes is JSON as RFC 8259 has it. Values that are only passed over may nest without a bound
//! and hold halves of surrogate pairs and numbers beyond any range, because nobody looks at them.

use std::borrow::Cow;

use crate::metering::scan::plain_prefix;

/// The most containers that may be open where what they hold is looked at.
const DEPTH_MAX: usize = 127;

/// Reading has stopped: the text is no JSON from here on, or the caller has seen enough.
#[derive(Debug)]
pub(super) struct Halt;

/// The state of reading one text.
pub(super) struct Reader<'de> {
    text: &'de str,
    at: usize,
    depth: usize,
}

impl<'de> Reader<'de> {
    pub(super) const fn new(text: &'de str) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    /// The first byte of what comes next, which is still to be read.
    pub(super) fn peek(&mut self) -> Result<u8, Halt> {
        loop {
            match self.byte() {
                Some(b' ' | b'\n' | b'\t' | b'\r') => self.at += 1,
                Some(byte) => return Ok(byte),
                None => return Err(Halt),
            }
        }
    }

    /// Reads an object; `each` reads the value of the member with this name.
    pub(super) fn members(
        &mut self,
        mut each: impl FnMut(&mut Self, Cow<'de, str>) -> Result<(), Halt>,
    ) -> Result<(), Halt> {
        self.open(b'{')?;
        let mut goes_on = !self.takes(b'}')?;
        while goes_on {
            let name = self.string()?;
            self.expect(b':')?;
            each(self, name)?;
            goes_on = self.goes_on(b'}')?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads an array; `each` reads one item.
    pub(super) fn items(&mut self, mut each: impl FnMut(&mut Self) -> Result<(), Halt>) -> Result<(), Halt> {
        self.open(b'[')?;
        let mut goes_on = !self.takes(b']')?;
        while goes_on {
            each(self)?;
            goes_on = self.goes_on(b']')?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads a string.
    pub(super) fn string(&mut self) -> Result<Cow<'de, str>, Halt> {
        self.peek()?;
        let from = self.at;
        if self.quoted(true)? {
            return self.text.get(from..self.at).and_then(unescaped).ok_or(Halt);
        }
        self.text.get(from + 1..self.at - 1).map(Cow::Borrowed).ok_or(Halt)
    }

    /// Reads a value that is no container, which every reader can hold.
    pub(super) fn scalar(&mut self) -> Result<(), Halt> {
        let first = self.peek()?;
        self.atom(first, true)
    }

    /// Passes over a value: this is its text.
    pub(super) fn value(&mut self) -> Result<&'de str, Halt> {
        let first = self.peek()?;
        let from = self.at;
        match first {
            b'{' | b'[' => self.container(first)?,
            _ => self.atom(first, false)?,
        }
        self.text.get(from..self.at).ok_or(Halt)
    }

    /// There is nothing more in the text.
    pub(super) fn end(&mut self) -> Result<(), Halt> {
        if self.peek().is_ok() { Err(Halt) } else { Ok(()) }
    }

    /// Line and column, both from 1, of the byte that is to be read next.
    pub(super) fn position(&self) -> (usize, usize) {
        let read = self.text.as_bytes().get(..=self.at).unwrap_or(self.text.as_bytes());
        let lines = read.split(|byte| *byte == b'\n');
        lines.enumerate().last().map_or((1, 0), |(before, line)| (before + 1, line.len()))
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn takes(&mut self, wanted: u8) -> Result<bool, Halt> {
        let is_there = self.peek()? == wanted;
        self.at += usize::from(is_there);
        Ok(is_there)
    }

    fn expect(&mut self, wanted: u8) -> Result<(), Halt> {
        if self.takes(wanted)? { Ok(()) } else { Err(Halt) }
    }

    fn open(&mut self, bracket: u8) -> Result<(), Halt> {
        self.expect(bracket)?;
        self.depth += 1;
        if self.depth <= DEPTH_MAX { Ok(()) } else { Err(Halt) }
    }

    /// After an element: whether another follows.
    fn goes_on(&mut self, closer: u8) -> Result<bool, Halt> {
        let next = self.peek()?;
        if next != b',' && next != closer {
            return Err(Halt);
        }
        self.at += 1;
        Ok(next == b',')
    }

    /// Passes over a container, which may be of any depth.
    fn container(&mut self, first: u8) -> Result<(), Halt> {
        let mut first = first;
        // The brackets that end what is open.
        let mut closers = Vec::new();
        loop {
            let is_empty = match first {
                b'{' | b'[' => {
                    // In ASCII, each closing bracket is two after the opening one.
                    closers.push(first + 2);
                    self.at += 1;
                    self.peek()? == first + 2
                }
                _ => {
                    self.atom(first, false)?;
                    true
                }
            };
            if is_empty {
                while let Some(&closer) = closers.last()
                    && self.takes(closer)?
                {
                    closers.pop();
                }
                if closers.is_empty() {
                    return Ok(());
                }
                self.expect(b',')?;
            }
            if closers.last() == Some(&b'}') {
                self.peek()?;
                self.quoted(false)?;
                self.expect(b':')?;
            }
            first = self.peek()?;
        }
    }

    /// Passes over a value that is no container. `is_strict`: every reader can hold it.
    fn atom(&mut self, first: u8, is_strict: bool) -> Result<(), Halt> {
        match first {
            b'"' => self.quoted(is_strict).map(|_| ()),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number(is_strict),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), Halt> {
        for byte in word.bytes() {
            if self.byte() != Some(byte) {
                return Err(Halt);
            }
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self, is_strict: bool) -> Result<(), Halt> {
        let from = self.at;
        self.at += usize::from(self.byte() == Some(b'-'));
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), Some(b'+' | b'-')));
            self.digits()?;
        }
        let number = || self.text.get(from..self.at)?.parse::<f64>().ok();
        if is_strict && !number().is_some_and(f64::is_finite) { Err(Halt) } else { Ok(()) }
    }

    fn digits(&mut self) -> Result<(), Halt> {
        let from = self.at;
        while matches!(self.byte(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at > from { Ok(()) } else { Err(Halt) }
    }

    /// Passes over a string with its quotes. Says whether it has escapes.
    #[inline(always)]
    fn quoted(&mut self, is_strict: bool) -> Result<bool, Halt> {
        if self.byte() != Some(b'"') {
            return Err(Halt);
        }
        self.at += 1;
        self.at += plain_prefix(&self.text.as_bytes()[self.at..]);
        if self.byte() == Some(b'"') {
            self.at += 1;
            return Ok(false);
        }
        self.escaped(is_strict).map(|()| true)
    }

    /// Passes over what is left of a string from its first escape on.
    #[inline(never)]
    fn escaped(&mut self, is_strict: bool) -> Result<(), Halt> {
        while self.byte() == Some(b'\\') {
            self.escape(is_strict)?;
            self.at += plain_prefix(&self.text.as_bytes()[self.at..]);
        }
        if self.byte() != Some(b'"') {
            return Err(Halt);
        }
        self.at += 1;
        Ok(())
    }

    fn escape(&mut self, is_strict: bool) -> Result<(), Halt> {
        match self.text.as_bytes().get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => match self.code_unit()? {
                0xDC00..=0xDFFF if is_strict => Err(Halt),
                0xD800..=0xDBFF if is_strict => match self.code_unit()? {
                    0xDC00..=0xDFFF => Ok(()),
                    _ => Err(Halt),
                },
                _ => Ok(()),
            },
            _ => Err(Halt),
        }
    }

    /// Reads `\u` and its four digits.
    fn code_unit(&mut self) -> Result<u32, Halt> {
        let rest = &self.text.as_bytes()[self.at..];
        let Some(digits) = rest.strip_prefix(b"\\u").and_then(|digits| digits.first_chunk::<4>()) else {
            return Err(Halt);
        };
        let mut unit = 0;
        for digit in digits {
            unit = unit * 16 + char::from(*digit).to_digit(16).ok_or(Halt)?;
        }
        self.at += 6;
        Ok(unit)
    }
}

/// The string that is written so, quotes included.
#[inline(never)]
fn unescaped(quoted: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str(quoted).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests;
