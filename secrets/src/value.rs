//! The bytes of a secret before they are one: what a store holds, field by field.
//!
//! **Invariant:** every buffer here is zeroized when it is dropped.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::error::Failure;

/// One field: its name, and its bytes.
pub(crate) type Field = (Box<str>, Zeroizing<Vec<u8>>);

/// What a secret consists of: one value, or several that belong together, each with the name of its field.
pub(crate) struct Value(Vec<Field>);

impl Value {
    /// Fields in their order. Not none.
    pub(crate) const fn of(fields: Vec<Field>) -> Self {
        Self(fields)
    }

    /// The bytes, where there is one field.
    pub(crate) fn only(mut self) -> Option<Zeroizing<Vec<u8>>> {
        let (_, bytes) = self.0.pop()?;
        self.0.is_empty().then_some(bytes)
    }

    /// The same, where it stays.
    pub(crate) fn sole(&self) -> Option<&[u8]> {
        match &*self.0 {
            [(_, bytes)] => Some(bytes),
            _ => None,
        }
    }

    /// The bytes of one field.
    pub(crate) fn field(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(field, _)| **field == *name).map(|(_, bytes)| &***bytes)
    }

    /// The bytes of each field.
    pub(crate) fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|(_, bytes)| &***bytes)
    }

    /// The same, of base64 with padding (RFC 4648 section 4).
    pub(crate) fn decoded(self) -> Result<Self, Failure> {
        let decode = |(name, text): Field| {
            let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
            let length = BASE64_STANDARD.decode_slice(&**text, &mut bytes);
            bytes.truncate(length.map_err(|_| Failure::Malformed("it is no base64"))?);
            Ok((name, bytes))
        };
        self.0.into_iter().map(decode).collect::<Result<_, _>>().map(Self)
    }

    /// Whether some field has nothing in it.
    pub(crate) fn has_gap(&self) -> bool {
        self.0.is_empty() || self.0.iter().any(|(_, bytes)| bytes.is_empty())
    }
}

#[cfg(test)]
impl Value {
    pub(crate) fn texts(&self) -> Vec<String> {
        self.0.iter().map(|(_, bytes)| String::from_utf8(bytes.to_vec()).unwrap()).collect()
    }
}

impl From<Zeroizing<Vec<u8>>> for Value {
    fn from(value: Zeroizing<Vec<u8>>) -> Self {
        Self(vec![("".into(), value)])
    }
}

/// A JSON string that is or holds a secret, copied once into a zeroized buffer.
pub(crate) struct Hidden(Zeroizing<Vec<u8>>);

impl Hidden {
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn into_inner(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Hidden;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, text: &str) -> Result<Hidden, E> {
                Ok(Hidden(Zeroizing::new(text.as_bytes().to_vec())))
            }
        }

        json.deserialize_str(Text)
    }
}
