//! The hash chain through the lines of one segment, and how it stands on a line.
//!
//! A line is `BODY,"chain":"HEX"}` where `BODY` is a JSON object that lacks its closing brace and `HEX` the SHA-256 of `BODY` followed
//! by the previous line's 32 bytes (32 zeros before the first). The tail has a fixed length, so that neither writer nor reader
//! parses JSON for it.
//!
//! **Invariant:** one changed, missing, added or moved line makes every later hash of its segment wrong.

use aws_lc_rs::digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::hex;

const BEFORE: &[u8] = b",\"chain\":\"";
const AFTER: &[u8] = b"\"}";
/// Bytes of a line that are not its body, without the newline.
pub(crate) const TAIL: usize = BEFORE.len() + 64 + AFTER.len();

/// The hash of a line: it stands for this line and all before it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Head([u8; 32]);

impl Head {
    /// What the first line of a segment follows.
    pub(crate) const NONE: Self = Self([0; 32]);

    /// Finishes the line whose body is `buffer[start..]`, newline included, and gives the head behind it.
    pub(crate) fn close(self, buffer: &mut Vec<u8>, start: usize) -> Self {
        let end = buffer.len();
        buffer.extend_from_slice(&self.0);
        let next = Self::of(&buffer[start..]);
        buffer.truncate(end);
        let mut text = [0; 64];
        hex::encode(&next.0, &mut text);
        buffer.extend_from_slice(BEFORE);
        buffer.extend_from_slice(&text);
        buffer.extend_from_slice(AFTER);
        buffer.push(b'\n');
        next
    }

    /// Checks a line without its newline; `None` if it does not follow this head.
    pub(crate) fn follow(self, line: &[u8], scratch: &mut Vec<u8>) -> Option<Self> {
        let (body, claimed) = split(line)?;
        scratch.clear();
        scratch.extend_from_slice(body);
        scratch.extend_from_slice(&self.0);
        let next = Self::of(scratch);
        (next == claimed).then_some(next)
    }

    fn of(bytes: &[u8]) -> Self {
        let mut head = [0; 32];
        head.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        Self(head)
    }
}

/// A line without its newline, as its body and the head that it claims. Says nothing about whether that is right.
pub(crate) fn split(line: &[u8]) -> Option<(&[u8], Head)> {
    let (body, tail) = line.split_at(line.len().checked_sub(TAIL)?);
    let text = tail.strip_prefix(BEFORE)?.strip_suffix(AFTER)?;
    let mut head = [0; 32];
    hex::decode(text, &mut head)?;
    Some((body, Head(head)))
}

impl std::fmt::Display for Head {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = [0; 64];
        hex::encode(&self.0, &mut text);
        out.write_str(str::from_utf8(&text).unwrap_or_default())
    }
}

impl std::fmt::Debug for Head {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, out)
    }
}

impl Serialize for Head {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Head {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        let mut head = [0; 32];
        hex::decode(text.as_bytes(), &mut head)
            .ok_or_else(|| serde::de::Error::custom("a chain hash has 64 hex digits"))?;
        Ok(Self(head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bodies: &[&str]) -> Vec<String> {
        let mut buffer = Vec::new();
        let mut head = Head::NONE;
        for body in bodies {
            let start = buffer.len();
            buffer.extend_from_slice(body.as_bytes());
            head = head.close(&mut buffer, start);
        }
        String::from_utf8(buffer).unwrap().lines().map(String::from).collect()
    }

    fn breaks_at(lines: &[String]) -> Option<usize> {
        let mut head = Head::NONE;
        let mut scratch = Vec::new();
        for (number, line) in lines.iter().enumerate() {
            match head.follow(line.as_bytes(), &mut scratch) {
                Some(next) => head = next,
                None => return Some(number),
            }
        }
        None
    }

    #[test]
    fn every_line_is_json_and_follows_the_one_before() {
        let lines = lines(&[r#"{"a":1"#, r#"{"b":{"c":2}"#, r#"{"d":3"#]);
        for line in &lines {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["chain"].as_str().unwrap().len(), 64);
        }
        assert_eq!(breaks_at(&lines), None);
    }

    #[test]
    fn a_changed_missing_added_or_moved_line_breaks_the_chain() {
        let good = lines(&[r#"{"a":1"#, r#"{"a":2"#, r#"{"a":3"#]);
        let mut changed = good.clone();
        changed[1] = changed[1].replace('2', "7");
        assert_eq!(breaks_at(&changed), Some(1));
        let mut missing = good.clone();
        missing.remove(1);
        assert_eq!(breaks_at(&missing), Some(1));
        let mut added = good.clone();
        added.insert(1, good[0].clone());
        assert_eq!(breaks_at(&added), Some(1));
        let mut moved = good;
        moved.swap(0, 1);
        assert_eq!(breaks_at(&moved), Some(0));
    }

    #[test]
    fn a_line_without_a_whole_tail_is_none() {
        assert!(split(b"").is_none());
        assert!(split(&[b'x'; TAIL + 4]).is_none());
    }
}
