//! Header fields in one piece, for an attempt that is rarely made.

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

/// No name has it, and no value has the other.
const BETWEEN: u8 = b':';
const END: u8 = b'\n';

/// The fields of a request without its secret. Packing copies bytes and nothing else: cheaper than a second map for every call.
#[derive(Debug)]
pub(super) struct PackedHeaders(Vec<u8>);

impl PackedHeaders {
    pub(super) fn pack(headers: &HeaderMap) -> Self {
        let mut packed = Vec::with_capacity(1024);
        for (name, value) in headers {
            packed.extend_from_slice(name.as_str().as_bytes());
            packed.push(BETWEEN);
            packed.extend_from_slice(value.as_bytes());
            packed.push(END);
        }
        Self(packed)
    }

    /// Whether there is a field of this name.
    pub(super) fn has(&self, name: &HeaderName) -> bool {
        let is_it = |field: &[u8]| {
            field.strip_prefix(name.as_str().as_bytes()).is_some_and(|rest| rest.first() == Some(&BETWEEN))
        };
        self.0.split(|byte| *byte == END).any(is_it)
    }

    /// The same fields again; `None` would be a bug of [`PackedHeaders::pack`].
    pub(super) fn unpack(&self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        for field in self.0.split_inclusive(|byte| *byte == END) {
            let (name, value) = field.split_at(field.iter().position(|byte| *byte == BETWEEN)?);
            let value = value.get(1..value.len() - 1)?;
            headers.append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
        }
        Some(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_again() {
        let mut headers = HeaderMap::new();
        assert_eq!(PackedHeaders::pack(&headers).unpack(), Some(headers.clone()));
        headers.append("accept", HeaderValue::from_static("a"));
        headers.append("accept", HeaderValue::from_static("b"));
        headers.append("x-empty", HeaderValue::from_static(""));
        headers.append("x-latin", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        assert_eq!(PackedHeaders::pack(&headers).unpack(), Some(headers));
    }
}
