//! Picks values out of JSON texts as their bytes pass by, at given places only, in constant memory.
//!
//! **Invariant:** what is found does not depend on how the bytes were cut, and nothing inside a string is ever taken
//! for structure. What is of no interest is skipped with a counter, however deep and long it is.
//!
//! Deliberately absent: validation of the parts that are skipped, and any copy of what is not asked for.

use memchr::memchr2;
use tollgate_policy::dialect::tree::{MAX_DEPTH, Node, Take, Tree};

mod slots;

pub use slots::{Found, Slots};

/// The longest member name that a place can have, and the longest string that is kept.
const TEXT_MAX: usize = 128;
/// The longest number or literal that is looked at; a unit's count has 13 digits at most.
const TOKEN_MAX: usize = 24;

/// The state of reading one JSON text.
#[derive(Debug)]
pub struct Scanner {
    state: State,
    /// The next byte of a string belongs to an escape.
    escaped: bool,
    /// The containers of interest that are open, outermost first.
    frames: [Frame; MAX_DEPTH + 2],
    depth: usize,
    /// How many containers of no interest are open.
    skipped: u64,
    /// Where the value that comes next, or is being read, stands in the tree.
    place: Option<usize>,
    text: Buffer<TEXT_MAX>,
    token: Buffer<TOKEN_MAX>,
    keeps: Keeps,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Value,
    /// After `[`: a value or the end.
    FirstItem,
    /// After `{`: a member or the end.
    FirstMember,
    Member,
    Name,
    Colon,
    Text,
    Scalar,
    AfterValue,
    Skip,
    SkipText,
    Done,
    Broken,
}

#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    place: usize,
    is_array: bool,
}

/// What is wanted of the string that is being read.
#[derive(Clone, Copy, Debug, Default)]
struct Keeps {
    text: bool,
    length: bool,
}

/// Bytes that may arrive in pieces, up to a limit.
#[derive(Debug)]
struct Buffer<const MAX: usize> {
    bytes: [u8; MAX],
    used: usize,
    /// More came than fits, so it is none of the words that one looks for.
    overflown: bool,
}

impl<const MAX: usize> Buffer<MAX> {
    const fn new() -> Self {
        Self { bytes: [0; MAX], used: 0, overflown: false }
    }

    fn clear(&mut self) {
        (self.used, self.overflown) = (0, false);
    }

    fn push(&mut self, more: &[u8]) {
        let room = self.bytes.get_mut(self.used..self.used + more.len());
        if let (Some(room), false) = (room, self.overflown) {
            room.copy_from_slice(more);
            self.used += more.len();
        } else {
            self.overflown = true;
        }
    }

    fn get(&self) -> Option<&[u8]> {
        if self.overflown { None } else { self.bytes.get(..self.used) }
    }
}

impl Scanner {
    /// Ready for a JSON text.
    pub fn new() -> Self {
        Self {
            state: State::Value,
            escaped: false,
            frames: [Frame::default(); MAX_DEPTH + 2],
            depth: 0,
            skipped: 0,
            place: Some(0),
            text: Buffer::new(),
            token: Buffer::new(),
            keeps: Keeps::default(),
        }
    }

    /// Ready for the next JSON text, whatever became of the last one.
    pub fn reset(&mut self) {
        self.state = State::Value;
        self.escaped = false;
        self.depth = 0;
        self.skipped = 0;
        self.place = Some(0);
    }

    /// Whether the bytes so far are not the start of a JSON text.
    pub fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// Whether the text is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Reads more of the text. What stands at a place of the tree goes to its slots as soon as it is complete.
    pub fn scan(&mut self, tree: &Tree, slots: &mut Slots, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            at = match self.state {
                State::Skip => self.skip(bytes, at),
                State::SkipText => self.skip_text(bytes, at),
                State::Name => self.name(tree, bytes, at),
                State::Text => self.string(tree, slots, bytes, at),
                State::Scalar => self.scalar(tree, slots, bytes, at),
                State::Done | State::Broken => bytes.len(),
                _ => self.structure(tree, slots, bytes, at),
            };
        }
    }

    fn structure(&mut self, tree: &Tree, slots: &mut Slots, bytes: &[u8], at: usize) -> usize {
        let Some(&byte) = bytes.get(at) else { return bytes.len() };
        match (self.state, byte) {
            (_, b' ' | b'\n' | b'\t' | b'\r') => {}
            (State::FirstMember | State::Member, b'"') => {
                self.text.clear();
                self.state = State::Name;
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::AfterValue, b',') => match self.frame() {
                Some(Frame { is_array: true, place }) => {
                    self.place = tree.node(place).and_then(Node::each);
                    self.state = State::Value;
                }
                _ => self.state = State::Member,
            },
            (State::AfterValue | State::FirstMember, b'}') => self.close(false),
            (State::AfterValue, b']') => self.close(true),
            (State::FirstItem, b']') => {
                self.note_items(tree, slots, true);
                self.close(true);
            }
            (State::Value | State::FirstItem, _) => self.begin(tree, slots, byte),
            _ => self.state = State::Broken,
        }
        at + 1
    }

    /// A value's first byte.
    fn begin(&mut self, tree: &Tree, slots: &mut Slots, byte: u8) {
        if self.state == State::FirstItem {
            self.note_items(tree, slots, false);
        }
        let node = self.place.and_then(|place| tree.node(place));
        match byte {
            b'{' => self.open(node.is_some_and(Node::has_members), false),
            b'[' => self.open(node.is_some_and(|node| node.each().is_some() || watches_items(node)), true),
            b'"' => {
                let takes = node.map_or(&[][..], Node::takes);
                self.keeps.text = takes.iter().any(|(_, take)| matches!(take, Take::Text | Take::Count(_)));
                self.keeps.length = takes.iter().any(|(_, take)| *take == Take::Length);
                self.text.clear();
                self.state = State::Text;
            }
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                self.token.clear();
                self.token.push(&[byte]);
                self.state = State::Scalar;
                return;
            }
            _ => {
                self.state = State::Broken;
                return;
            }
        }
        for (slot, take) in node.map_or(&[][..], Node::takes) {
            match take {
                Take::Present => slots.set(*slot, 1),
                Take::Number | Take::Sum => slots.spoil(*slot),
                _ => {}
            }
        }
    }

    fn open(&mut self, is_of_interest: bool, is_array: bool) {
        let frame = self.place.filter(|_| is_of_interest).map(|place| Frame { place, is_array });
        match (frame, self.frames.get_mut(self.depth)) {
            (Some(frame), Some(top)) => {
                *top = frame;
                self.depth += 1;
                if is_array {
                    // Looked up anew at the first item: `place` is still the array's own.
                    self.state = State::FirstItem;
                } else {
                    self.state = State::FirstMember;
                }
            }
            _ => {
                self.skipped = 1;
                self.state = State::Skip;
            }
        }
    }

    fn close(&mut self, is_array: bool) {
        if self.frame().is_some_and(|frame| frame.is_array == is_array) {
            self.depth -= 1;
            self.after_value();
        } else {
            self.state = State::Broken;
        }
    }

    fn after_value(&mut self) {
        self.state = if self.depth == 0 { State::Done } else { State::AfterValue };
    }

    fn frame(&self) -> Option<Frame> {
        self.frames.get(self.depth.checked_sub(1)?).copied()
    }

    /// Now it is known whether the array that was just opened has items; the first one's place follows.
    fn note_items(&mut self, tree: &Tree, slots: &mut Slots, is_empty: bool) {
        let Some(node) = self.frame().and_then(|frame| tree.node(frame.place)) else { return };
        for (slot, take) in node.takes() {
            if *take == Take::Empty {
                slots.set(*slot, u64::from(is_empty));
            }
        }
        self.place = node.each();
    }

    fn skip(&mut self, bytes: &[u8], from: usize) -> usize {
        for (index, byte) in bytes.iter().enumerate().skip(from) {
            match byte {
                b'"' => {
                    self.state = State::SkipText;
                    return index + 1;
                }
                b'{' | b'[' => self.skipped += 1,
                b'}' | b']' => {
                    self.skipped -= 1;
                    if self.skipped == 0 {
                        self.after_value();
                        return index + 1;
                    }
                }
                _ => {}
            }
        }
        bytes.len()
    }

    fn skip_text(&mut self, bytes: &[u8], from: usize) -> usize {
        let (to, ended) = self.string_end(bytes, from, |_, _| {});
        if ended {
            self.state = State::Skip;
        }
        to
    }

    fn name(&mut self, tree: &Tree, bytes: &[u8], from: usize) -> usize {
        let (to, ended) = self.string_end(bytes, from, |scanner, part| scanner.text.push(part));
        if ended {
            let node = self.frame().and_then(|frame| tree.node(frame.place));
            let name = self.text.get();
            self.place = match (node, name) {
                (Some(node), Some(name)) if name.contains(&b'\\') => {
                    unescaped(name).and_then(|name| node.member(name.as_bytes()))
                }
                (Some(node), Some(name)) => node.member(name),
                _ => None,
            };
            self.state = State::Colon;
        }
        to
    }

    fn string(&mut self, tree: &Tree, slots: &mut Slots, bytes: &[u8], from: usize) -> usize {
        let keeps = self.keeps.text;
        let (to, ended) = self.string_end(bytes, from, |scanner, part| {
            if keeps {
                scanner.text.push(part);
            }
        });
        let takes = self.place.and_then(|place| tree.node(place)).map_or(&[][..], Node::takes);
        if self.keeps.length {
            let length = to - from - usize::from(ended);
            for (slot, _) in takes.iter().filter(|(_, take)| *take == Take::Length) {
                slots.lengthen(*slot, length as u64);
            }
        }
        if ended {
            if self.keeps.text {
                self.keep_text(takes, slots);
            }
            self.after_value();
        }
        to
    }

    fn keep_text(&self, takes: &[(usize, Take)], slots: &mut Slots) {
        let owned;
        let text = match self.text.get() {
            Some(text) if text.contains(&b'\\') => {
                owned = unescaped(text);
                owned.as_deref()
            }
            Some(text) => std::str::from_utf8(text).ok(),
            None => None,
        };
        for (slot, take) in takes {
            match take {
                Take::Text => slots.set_text(*slot, text),
                Take::Count(word) if text == Some(word) => slots.add(*slot, 1),
                _ => {}
            }
        }
    }

    /// Passes the parts of a string that `keep` may want, and says where it stopped and whether the string ended.
    fn string_end(&mut self, bytes: &[u8], from: usize, keep: impl Fn(&mut Self, &[u8])) -> (usize, bool) {
        let mut at = from;
        if self.escaped && at < bytes.len() {
            self.escaped = false;
            keep(self, &bytes[at..=at]);
            at += 1;
        }
        while let Some(found) = memchr2(b'"', b'\\', &bytes[at..]) {
            let stop = at + found;
            if bytes[stop] == b'"' {
                keep(self, &bytes[at..stop]);
                return (stop + 1, true);
            }
            let to = bytes.len().min(stop + 2);
            self.escaped = to < stop + 2;
            keep(self, &bytes[at..to]);
            at = to;
        }
        keep(self, &bytes[at..]);
        (bytes.len(), false)
    }

    fn scalar(&mut self, tree: &Tree, slots: &mut Slots, bytes: &[u8], from: usize) -> usize {
        let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\t' | b'\r');
        let rest = &bytes[from..];
        let length = rest.iter().position(ends);
        self.token.push(&rest[..length.unwrap_or(rest.len())]);
        let Some(length) = length else { return bytes.len() };
        let takes = self.place.and_then(|place| tree.node(place)).map_or(&[][..], Node::takes);
        let token = self.token.get();
        if token != Some(&b"null"[..]) {
            for (slot, take) in takes {
                match (take, number(token)) {
                    (Take::Present, _) => slots.set(*slot, 1),
                    (Take::Number, Some(number)) => slots.set(*slot, number),
                    (Take::Sum, Some(number)) => slots.add(*slot, number),
                    (Take::Number | Take::Sum, None) => slots.spoil(*slot),
                    _ => {}
                }
            }
        }
        self.after_value();
        from + length
    }
}

fn watches_items(node: &Node) -> bool {
    node.takes().iter().any(|(_, take)| *take == Take::Empty)
}

/// A whole number that is not negative; anything else, `1.0` and `1e3` too, is nonsense where units are counted.
fn number(token: Option<&[u8]>) -> Option<u64> {
    let text = std::str::from_utf8(token?).ok()?;
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn unescaped(text: &[u8]) -> Option<String> {
    let quoted = [b"\"", text, b"\""].concat();
    serde_json::from_slice(&quoted).ok()
}

#[cfg(test)]
mod tests;
