//! The hash chain through the batches of one segment.
//!
//! The hash of a batch is the SHA-256 of the hash before it (32 zeros before the first), its length and count, and its entries.
//!
//! **Invariant:** one changed, missing, added or moved entry makes every later hash of its segment wrong.

use aws_lc_rs::digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tollgate_secrets::hex;

/// The hash of a batch: it stands for this batch and all before it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ChainHead([u8; 32]);

impl ChainHead {
    /// What the first batch of a segment follows.
    pub(crate) const NONE: Self = Self([0; 32]);

    /// The head behind a batch, by how its frame says it is made up, and its entries.
    pub(crate) fn next(self, made_up: &[u8], entries: &[u8]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&self.0);
        context.update(made_up);
        context.update(entries);
        Self::from_bytes(context.finish().as_ref()).unwrap_or(Self::NONE)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// `None` unless there are 32.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl std::fmt::Display for ChainHead {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = [0; 64];
        hex::encode(&self.0, &mut text);
        out.write_str(str::from_utf8(&text).unwrap_or_default())
    }
}

impl std::fmt::Debug for ChainHead {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, out)
    }
}

impl Serialize for ChainHead {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChainHead {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        let mut head = [0; 32];
        hex::decode(text.as_bytes(), &mut head)
            .ok_or_else(|| serde::de::Error::custom("a chain hash has 64 hex digits"))?;
        Ok(Self(head))
    }
}
