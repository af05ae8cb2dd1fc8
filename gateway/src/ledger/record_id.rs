//! Ids of records: ours, unique without a round trip, and sorted by the time they were made.

use std::cell::RefCell;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// 128 bits in the layout of UUID version 7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, 74 random ones. Written as 32
/// lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId([u8; 16]);

/// Not 32 hex digits.
#[derive(Debug, thiserror::Error)]
#[error("a record id has 32 hex digits")]
pub struct ParseRecordIdError;

/// Random bytes are drawn for this many ids at once.
const DRAW: usize = 32;

thread_local! {
    static RANDOM: RefCell<(usize, [u8; DRAW * 10])> = const { RefCell::new((DRAW, [0; DRAW * 10])) };
}

impl RecordId {
    /// A new id, of now.
    pub fn new() -> Self {
        Self::made_at(Timestamp::now())
    }

    /// A new id, of what begins at this moment.
    pub(crate) fn made_at(now: Timestamp) -> Self {
        let millis = u64::try_from(now.as_millisecond()).unwrap_or_default();
        let mut id = [0; 16];
        id[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
        id[6..].copy_from_slice(&random());
        id[6] = id[6] & 0x0f | 0x70;
        id[8] = id[8] & 0x3f | 0x80;
        Self(id)
    }

    /// When it was made, in Unix milliseconds.
    pub fn millis(self) -> u64 {
        self.0[..6].iter().fold(0, |millis, byte| millis << 8 | u64::from(*byte))
    }

    /// The least id that could be made at this many Unix milliseconds: a bound for ranges.
    #[cfg(test)]
    pub(crate) fn least(millis: u64) -> Self {
        let mut id = [0; 16];
        id[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
        Self(id)
    }

    /// Big-endian: sorts as the ids do.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// As it is written.
    pub(crate) fn hex(self) -> [u8; 32] {
        let mut text = [0; 32];
        tollgate_secrets::hex::encode(&self.0, &mut text);
        text
    }
}

fn random() -> [u8; 10] {
    RANDOM.with_borrow_mut(|(used, drawn)| {
        if *used == DRAW {
            if aws_lc_rs::rand::fill(drawn).is_err() {
                // Ids must be unique, not secret: the standard library's own random hash keys are enough.
                for chunk in drawn.chunks_mut(8) {
                    let word = RandomState::new().build_hasher().finish().to_be_bytes();
                    chunk.copy_from_slice(&word[..chunk.len()]);
                }
            }
            *used = 0;
        }
        let mut bytes = [0; 10];
        bytes.copy_from_slice(&drawn[*used * 10..][..10]);
        *used += 1;
        bytes
    })
}

impl From<[u8; 16]> for RecordId {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(str::from_utf8(&self.hex()).unwrap_or_default())
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for RecordId {
    type Err = ParseRecordIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut id = [0; 16];
        tollgate_secrets::hex::decode(text.as_bytes(), &mut id).ok_or(ParseRecordIdError)?;
        Ok(Self(id))
    }
}

impl Serialize for RecordId {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(str::from_utf8(&self.hex()).unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for RecordId {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(input)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let id = RecordId::new();
        assert_eq!(id.to_string().len(), 32);
        assert_eq!(id.to_string().parse::<RecordId>().unwrap(), id);
        assert_eq!(serde_json::from_str::<RecordId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    }

    #[test]
    fn ids_have_the_layout_of_uuid_version_7_and_sort_by_time() {
        let id = RecordId::new();
        assert_eq!(id.to_string().as_bytes()[12], b'7');
        assert_eq!(id.as_bytes()[8] >> 6, 0b10);
        assert!(RecordId::least(id.millis()) <= id);
        assert!(id < RecordId::least(id.millis() + 1));
    }

    #[test]
    fn ten_thousand_ids_differ() {
        let ids: std::collections::HashSet<_> = (0..10_000).map(|_| RecordId::new()).collect();
        assert_eq!(ids.len(), 10_000);
    }

    #[test]
    fn what_is_not_32_hex_digits_is_no_id() {
        for text in ["", "0", &"g".repeat(32), &"0".repeat(31), &"0".repeat(33), &"A".repeat(32)] {
            assert!(text.parse::<RecordId>().is_err(), "{text}");
        }
    }
}
