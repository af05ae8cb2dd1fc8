//! What goes to a token endpoint, encoded as it wants it.
//!
//! **Invariant:** every buffer that holds a secret is allocated once at its full size and zeroized.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

use crate::error::Failure;

/// Parameters of an `application/x-www-form-urlencoded` body.
#[derive(Default)]
pub(super) struct Form<'a> {
    pairs: Vec<(&'a str, FormValue<'a>)>,
}

enum FormValue<'a> {
    Borrowed(&'a [u8]),
    Owned(Zeroizing<Vec<u8>>),
}

impl FormValue<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl<'a> Form<'a> {
    pub(super) fn add(&mut self, name: &'a str, value: &'a str) {
        self.add_secret(name, value.as_bytes());
    }

    pub(super) fn add_some(&mut self, name: &'a str, value: Option<&'a str>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    pub(super) fn add_secret(&mut self, name: &'a str, value: &'a [u8]) {
        self.pairs.push((name, FormValue::Borrowed(value)));
    }

    pub(super) fn add_owned(&mut self, name: &'a str, value: Zeroizing<Vec<u8>>) {
        self.pairs.push((name, FormValue::Owned(value)));
    }

    pub(super) fn encoded(&self) -> Zeroizing<Vec<u8>> {
        let size = |(name, value): &(&str, FormValue<'_>)| 2 + 3 * (name.len() + value.bytes().len());
        let mut encoded = Zeroizing::new(Vec::with_capacity(self.pairs.iter().map(size).sum()));
        for (index, (name, value)) in self.pairs.iter().enumerate() {
            if index > 0 {
                encoded.push(b'&');
            }
            escape(name.as_bytes(), &mut encoded);
            encoded.push(b'=');
            escape(value.bytes(), &mut encoded);
        }
        encoded
    }
}

/// The client's id and secret in HTTP Basic, each form-encoded first (RFC 6749, section 2.3.1).
pub(super) fn basic(id: &str, secret: &[u8]) -> Result<HeaderValue, Failure> {
    let mut pair = Zeroizing::new(Vec::with_capacity(1 + 3 * (id.len() + secret.len())));
    escape(id.as_bytes(), &mut pair);
    pair.push(b':');
    escape(secret, &mut pair);
    let mut encoded = Zeroizing::new(vec![0; pair.len().div_ceil(3) * 4]);
    STANDARD.encode_slice(&*pair, &mut encoded).map_err(|_| Failure::Internal)?;
    sensitive(&[b"Basic ", &encoded])
}

/// One header value of these parts, which is never printed.
pub(super) fn sensitive(parts: &[&[u8]]) -> Result<HeaderValue, Failure> {
    let mut text = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
    for part in parts {
        text.extend_from_slice(part);
    }
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).map_err(|_| Failure::Internal)?;
    value.set_sensitive(true);
    Ok(value)
}

/// A path, each segment of which is encoded.
pub(super) fn path(path: &str) -> String {
    let mut encoded = Vec::with_capacity(3 * path.len());
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            encoded.push(b'/');
        }
        escape(segment.as_bytes(), &mut encoded);
    }
    String::from_utf8(encoded).unwrap_or_default()
}

/// All but the unreserved characters of RFC 3986 as `%XX`, which every reader of forms takes back.
fn escape(bytes: &[u8], into: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or_default();
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            into.push(*byte);
        } else {
            into.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_become_another_parameter() {
        let mut form = Form::default();
        form.add("scope", "a b&client_id=x");
        form.add_owned("client_secret", Zeroizing::new(b"+/=%\xc3\xa9".to_vec()));
        assert_eq!(&*form.encoded(), b"scope=a%20b%26client_id%3Dx&client_secret=%2B%2F%3D%25%C3%A9");
    }

    #[test]
    fn a_client_with_a_colon_in_its_id_is_still_told_from_its_secret() {
        let value = basic("spiffe://a", b"p:w").unwrap();
        let text = STANDARD.decode(value.as_bytes().strip_prefix(b"Basic ").unwrap()).unwrap();
        assert_eq!(text, b"spiffe%3A%2F%2Fa:p%3Aw");
        assert_eq!(format!("{value:?}"), "Sensitive");
    }
}
