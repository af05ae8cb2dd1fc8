//! Picks values out of JSON texts as their bytes pass by, at given places only, in constant memory.
//!
//! **Invariant:** what is found does not depend on how the bytes were cut, and nothing inside a string is ever taken
//! for structure. What is of no interest is skipped with a counter, however deep and long it is.
//!
//! Deliberately absent: validation of the parts that are skipped, and any copy of what is not asked for.

use tollgate_policy::dialect::tree::{MAX_DEPTH, Node, Take, Tree};

mod bytes;
mod slots;

use bytes::{Buffer, ENDS_SCALAR, NESTS, SPACE, has, number, quote_or_escape, rounded_up, unescaped};
pub use slots::{SlotValue, Slots};

/// The longest member name that a place can have, and the longest string that is kept.
const TEXT_MAX: usize = 128;
/// The longest number or literal that is looked at; a unit's count has 13 digits at most.
const TOKEN_MAX: usize = 24;

/// The state of reading one JSON text.
#[derive(Debug)]
pub struct Scanner {
    state: ScanState,
    /// The next byte of a string belongs to an escape.
    escaped: bool,
    /// The string that is being read has escapes.
    has_escapes: bool,
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
enum ScanState {
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

impl Scanner {
    /// Ready for a JSON text.
    #[inline]
    pub fn new() -> Self {
        Self {
            state: ScanState::Value,
            escaped: false,
            has_escapes: false,
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
        self.state = ScanState::Value;
        self.escaped = false;
        self.depth = 0;
        self.skipped = 0;
        self.place = Some(0);
    }

    /// Whether the bytes so far are not the start of a JSON text.
    pub fn is_broken(&self) -> bool {
        self.state == ScanState::Broken
    }

    /// Whether the text is complete.
    pub fn is_done(&self) -> bool {
        self.state == ScanState::Done
    }

    /// Reads more of the text. What stands at a place of the tree goes to its slots as soon as it is complete.
    pub fn scan(&mut self, tree: &Tree, slots: &mut Slots, bytes: &[u8]) {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            at = match self.state {
                ScanState::Skip => self.skip(tree, bytes, at),
                ScanState::SkipText => self.skip_text(tree, bytes, at),
                ScanState::Name => self.name(tree, bytes, at),
                ScanState::Text => self.string(tree, slots, bytes, at),
                ScanState::Scalar => self.scalar(tree, slots, bytes, at),
                ScanState::Done | ScanState::Broken => return,
                _ if has(byte, SPACE) => at + 1,
                ScanState::Value => self.begin(tree, slots, byte, at),
                ScanState::FirstItem => self.first_item(tree, slots, byte, at),
                ScanState::FirstMember | ScanState::Member if byte == b'"' => self.begin_name(at),
                ScanState::Colon if byte == b':' => {
                    self.state = ScanState::Value;
                    at + 1
                }
                ScanState::AfterValue if byte == b',' => self.next_element(tree, at),
                ScanState::AfterValue | ScanState::FirstMember if byte == b'}' => {
                    self.close(false, tree, bytes, at)
                }
                ScanState::AfterValue if byte == b']' => self.close(true, tree, bytes, at),
                _ => {
                    self.state = ScanState::Broken;
                    return;
                }
            };
        }
    }

    fn begin_name(&mut self, at: usize) -> usize {
        self.text.clear();
        self.has_escapes = false;
        self.state = ScanState::Name;
        at + 1
    }

    /// A value's first byte. Says from where on the rest of the value is read.
    fn begin(&mut self, tree: &Tree, slots: &mut Slots, byte: u8, at: usize) -> usize {
        let node = self.place.and_then(|place| tree.node(place));
        let takes = node.map_or(&[][..], Node::takes);
        match byte {
            b'"' if takes.is_empty() => self.state = ScanState::SkipText,
            b'"' => {
                self.keeps.text = takes.iter().any(|(_, take)| matches!(take, Take::Text | Take::Count(_)));
                self.keeps.length = takes.iter().any(|(_, take)| *take == Take::Length);
                self.text.clear();
                self.has_escapes = false;
                self.state = ScanState::Text;
            }
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                self.token.clear();
                self.state = ScanState::Scalar;
                return at;
            }
            b'{' => self.open(node.is_some_and(Node::has_members), false),
            b'[' => self.open(node.is_some_and(|node| node.each().is_some() || watches_items(node)), true),
            _ => {
                self.state = ScanState::Broken;
                return at;
            }
        }
        for (slot, take) in takes {
            match take {
                Take::Present => slots.set(*slot, 1),
                Take::Number | Take::RoundedUp | Take::Sum => slots.spoil(*slot),
                _ => {}
            }
        }
        at + 1
    }

    fn open(&mut self, is_of_interest: bool, is_array: bool) {
        let frame = self.place.filter(|_| is_of_interest).map(|place| Frame { place, is_array });
        match (frame, self.frames.get_mut(self.depth)) {
            (Some(frame), Some(top)) => {
                *top = frame;
                self.depth += 1;
                self.state = if is_array { ScanState::FirstItem } else { ScanState::FirstMember };
            }
            _ => {
                self.skipped = 1;
                self.state = ScanState::Skip;
            }
        }
    }

    fn close(&mut self, is_array: bool, tree: &Tree, bytes: &[u8], at: usize) -> usize {
        if self.frame().is_some_and(|frame| frame.is_array == is_array) {
            self.depth -= 1;
            self.after_value(tree, bytes, at + 1)
        } else {
            self.state = ScanState::Broken;
            at + 1
        }
    }

    /// A value has ended before this byte. A comma at hand is read at once.
    fn after_value(&mut self, tree: &Tree, bytes: &[u8], at: usize) -> usize {
        if self.depth == 0 {
            self.state = ScanState::Done;
            return at;
        }
        if bytes.get(at) != Some(&b',') {
            self.state = ScanState::AfterValue;
            return at;
        }
        self.next_element(tree, at)
    }

    /// After the comma at this byte.
    fn next_element(&mut self, tree: &Tree, at: usize) -> usize {
        match self.frame() {
            Some(Frame { is_array: true, place }) => {
                self.place = tree.node(place).and_then(Node::each);
                self.state = ScanState::Value;
            }
            _ => self.state = ScanState::Member,
        }
        at + 1
    }

    fn frame(&self) -> Option<Frame> {
        self.frames.get(self.depth.checked_sub(1)?).copied()
    }

    /// Now it is known whether the array that was just opened has items. It is `place` still; its first item's follows.
    fn first_item(&mut self, tree: &Tree, slots: &mut Slots, byte: u8, at: usize) -> usize {
        let node = self.place.and_then(|place| tree.node(place));
        for (slot, take) in node.map_or(&[][..], Node::takes) {
            if *take == Take::Empty {
                slots.lower(*slot, u64::from(byte == b']'));
            }
        }
        self.place = node.and_then(Node::each);
        self.state = if byte == b']' { ScanState::AfterValue } else { ScanState::Value };
        at
    }

    fn skip(&mut self, tree: &Tree, bytes: &[u8], from: usize) -> usize {
        let mut at = from;
        while let Some(&byte) = bytes.get(at) {
            at += 1;
            if !has(byte, NESTS) {
                continue;
            }
            match byte {
                b'"' => {
                    let (to, ended) = self.string_end(bytes, at);
                    at = to;
                    if !ended {
                        self.state = ScanState::SkipText;
                        return at;
                    }
                }
                b'{' | b'[' => self.skipped += 1,
                _ => {
                    self.skipped -= 1;
                    if self.skipped == 0 {
                        return self.after_value(tree, bytes, at);
                    }
                }
            }
        }
        at
    }

    /// A string of no interest, which is a value or within one.
    fn skip_text(&mut self, tree: &Tree, bytes: &[u8], from: usize) -> usize {
        let (to, ended) = self.string_end(bytes, from);
        if !ended {
            self.state = ScanState::SkipText;
        } else if self.skipped > 0 {
            self.state = ScanState::Skip;
        } else {
            return self.after_value(tree, bytes, to);
        }
        to
    }

    fn name(&mut self, tree: &Tree, bytes: &[u8], from: usize) -> usize {
        let (to, ended) = self.string_end(bytes, from);
        if !ended {
            self.text.push(&bytes[from..to]);
            return to;
        }
        let node = self.frame().and_then(|frame| tree.node(frame.place));
        self.place = match (node, self.text.end(&bytes[from..to - 1])) {
            (Some(node), Some(name)) if self.has_escapes => {
                unescaped(name).and_then(|name| node.member(name.as_bytes()))
            }
            (Some(node), Some(name)) => node.member(name),
            _ => None,
        };
        // A colon at hand is read at once.
        let has_colon = bytes.get(to) == Some(&b':');
        self.state = if has_colon { ScanState::Value } else { ScanState::Colon };
        to + usize::from(has_colon)
    }

    fn string(&mut self, tree: &Tree, slots: &mut Slots, bytes: &[u8], from: usize) -> usize {
        let (to, ended) = self.string_end(bytes, from);
        let part = &bytes[from..to - usize::from(ended)];
        let takes = self.place.and_then(|place| tree.node(place)).map_or(&[][..], Node::takes);
        if self.keeps.length {
            for (slot, _) in takes.iter().filter(|(_, take)| *take == Take::Length) {
                slots.lengthen(*slot, part.len() as u64);
            }
        }
        if self.keeps.text && ended {
            keep_text(self.text.end(part), self.has_escapes, takes, slots);
        } else if self.keeps.text {
            self.text.push(part);
        }
        if ended { self.after_value(tree, bytes, to) } else { to }
    }

    /// Passes over the rest of a string. Says where the bytes after it begin, and whether it ended at all.
    #[inline(always)]
    fn string_end(&mut self, bytes: &[u8], from: usize) -> (usize, bool) {
        match quote_or_escape(&bytes[from..]) {
            Some(found) if bytes[from + found] == b'"' && !self.escaped => (from + found + 1, true),
            _ => self.escaped_string_end(bytes, from),
        }
    }

    #[inline(never)]
    fn escaped_string_end(&mut self, bytes: &[u8], from: usize) -> (usize, bool) {
        let mut at = from + usize::from(self.escaped && from < bytes.len());
        self.escaped &= at == from;
        while let Some(found) = quote_or_escape(&bytes[at..]) {
            let stop = at + found;
            if bytes[stop] == b'"' {
                return (stop + 1, true);
            }
            self.has_escapes = true;
            at = bytes.len().min(stop + 2);
            self.escaped = at < stop + 2;
        }
        (bytes.len(), false)
    }

    fn scalar(&mut self, tree: &Tree, slots: &mut Slots, bytes: &[u8], from: usize) -> usize {
        let rest = &bytes[from..];
        let Some(length) = rest.iter().position(|byte| has(*byte, ENDS_SCALAR)) else {
            self.token.push(rest);
            return bytes.len();
        };
        let takes = self.place.and_then(|place| tree.node(place)).map_or(&[][..], Node::takes);
        if !takes.is_empty() {
            take_scalar(self.token.end(&rest[..length]), takes, slots);
        }
        self.after_value(tree, bytes, from + length)
    }
}

fn keep_text(text: Option<&[u8]>, has_escapes: bool, takes: &[(usize, Take)], slots: &mut Slots) {
    let owned;
    let text = if has_escapes {
        owned = text.and_then(unescaped);
        owned.as_deref()
    } else {
        text.and_then(|text| std::str::from_utf8(text).ok())
    };
    for (slot, take) in takes {
        match take {
            Take::Text => slots.set_text(*slot, text),
            Take::Count(word) if **word == *"*" || text == Some(word) => slots.add(*slot, 1),
            _ => {}
        }
    }
}

fn take_scalar(token: Option<&[u8]>, takes: &[(usize, Take)], slots: &mut Slots) {
    if token == Some(b"null") {
        return;
    }
    for (slot, take) in takes {
        match (take, token.and_then(number)) {
            (Take::Present, _) => slots.set(*slot, 1),
            (Take::Number, Some(number)) => slots.raise(*slot, number),
            (Take::Sum, Some(number)) => slots.add(*slot, number),
            (Take::Number | Take::Sum, None) => slots.spoil(*slot),
            (Take::RoundedUp, _) => match token.and_then(rounded_up) {
                Some(number) => slots.raise(*slot, number),
                None => slots.spoil(*slot),
            },
            _ => {}
        }
    }
}

fn watches_items(node: &Node) -> bool {
    node.takes().iter().any(|(_, take)| *take == Take::Empty)
}

#[cfg(test)]
mod tests;
