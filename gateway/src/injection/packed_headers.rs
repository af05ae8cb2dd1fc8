//! Header fields in one piece, for an attempt that is rarely made.

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

/// The fields of a request without its secret. Packing copies bytes and nothing else: cheaper than a second map for every call.
#[derive(Debug)]
pub(super) struct PackedHeaders(Vec<u8>);

impl PackedHeaders {
    pub(super) fn pack(headers: &HeaderMap) -> Self {
        let mut packed = Vec::with_capacity(1024);
        for (name, value) in headers {
            push(&mut packed, name.as_str().as_bytes());
            push(&mut packed, value.as_bytes());
        }
        Self(packed)
    }

    /// The same fields again; `None` would be a bug of [`PackedHeaders::pack`].
    pub(super) fn unpack(&self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        let mut rest = &*self.0;
        while !rest.is_empty() {
            let name = HeaderName::from_bytes(pull(&mut rest)?).ok()?;
            headers.append(name, HeaderValue::from_bytes(pull(&mut rest)?).ok()?);
        }
        Some(headers)
    }
}

fn push(packed: &mut Vec<u8>, part: &[u8]) {
    packed.extend_from_slice(&part.len().to_ne_bytes());
    packed.extend_from_slice(part);
}

fn pull<'a>(packed: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = packed.split_first_chunk()?;
    let (part, rest) = rest.split_at_checked(usize::from_ne_bytes(*length))?;
    *packed = rest;
    Some(part)
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
