//! The shapes in which a secret goes on the wire. Every buffer made here is zeroized when its last user drops it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderValue;
use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use zeroize::Zeroizing;

/// What a query value may hold unescaped (RFC 3986, section 2.3).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `prefix` and the secret as one sensitive header value; `None` where a header cannot hold it.
pub(super) fn header(prefix: &str, secret: &[u8]) -> Option<HeaderValue> {
    let mut text = Zeroizing::new(Vec::with_capacity(prefix.len() + secret.len()));
    text.extend_from_slice(prefix.as_bytes());
    text.extend_from_slice(secret);
    sensitive(text)
}

/// HTTP Basic (RFC 7617) with the secret as the password.
pub(super) fn basic(username: &str, secret: &[u8]) -> Option<HeaderValue> {
    let (_, encoded) = basic_pair(username, secret);
    header("Basic ", &encoded)
}

/// `username:secret`, and the same in base64.
pub(super) fn basic_pair(username: &str, secret: &[u8]) -> (Zeroizing<Vec<u8>>, Zeroizing<Vec<u8>>) {
    let mut pair = Zeroizing::new(Vec::with_capacity(username.len() + 1 + secret.len()));
    pair.extend_from_slice(username.as_bytes());
    pair.push(b':');
    pair.extend_from_slice(secret);
    let encoded = Zeroizing::new(STANDARD.encode(&*pair).into_bytes());
    (pair, encoded)
}

/// `name=secret`, percent-encoded, for a query.
pub(super) fn pair(name: &str, secret: &[u8]) -> Bytes {
    let mut text = Zeroizing::new(Vec::with_capacity(name.len() + 1 + secret.len() * 3));
    for part in percent_encode(name.as_bytes(), UNRESERVED) {
        text.extend_from_slice(part.as_bytes());
    }
    text.push(b'=');
    for part in percent_encode(secret, UNRESERVED) {
        text.extend_from_slice(part.as_bytes());
    }
    Bytes::from_owner(text)
}

/// `name=secret` for `Cookie`; `None` where the secret has what a cookie cannot hold (RFC 6265, section 4.1.1).
pub(super) fn cookie(name: &str, secret: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let holds = |b: &u8| b.is_ascii_graphic() && !b"\",;\\".contains(b);
    if !secret.iter().all(holds) {
        return None;
    }
    let mut text = Zeroizing::new(Vec::with_capacity(name.len() + 1 + secret.len()));
    text.extend_from_slice(name.as_bytes());
    text.push(b'=');
    text.extend_from_slice(secret);
    Some(text)
}

/// All cookies in one header.
pub(super) fn cookies<'a>(pairs: impl Iterator<Item = &'a [u8]> + Clone) -> Option<HeaderValue> {
    let mut text = Zeroizing::new(Vec::with_capacity(pairs.clone().map(|pair| pair.len() + 2).sum()));
    for pair in pairs {
        if !text.is_empty() {
            text.extend_from_slice(b"; ");
        }
        text.extend_from_slice(pair);
    }
    sensitive(text)
}

/// `path` with `pair` as one more parameter.
pub(super) fn with_pair(path: &PathAndQuery, pair: &Bytes) -> Option<PathAndQuery> {
    let mut text = Zeroizing::new(Vec::with_capacity(path.as_str().len() + 1 + pair.len()));
    text.extend_from_slice(path.as_str().as_bytes());
    text.push(if path.query().is_some() { b'&' } else { b'?' });
    text.extend_from_slice(pair);
    PathAndQuery::from_maybe_shared(Bytes::from_owner(text)).ok()
}

fn sensitive(text: Zeroizing<Vec<u8>>) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_what_its_standard_says_and_hides_itself() {
        let bearer = header("Bearer ", b"sk-1").unwrap();
        assert_eq!(bearer.as_bytes(), b"Bearer sk-1");
        assert_eq!(format!("{bearer:?}"), "Sensitive");
        // The example of RFC 7617, section 2.
        let basic = basic("Aladdin", b"open sesame").unwrap();
        assert_eq!(basic.as_bytes(), b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        let cookies = ["a=1", "b=2"].map(|pair| Zeroizing::new(pair.as_bytes().to_vec()));
        assert_eq!(super::cookies(cookies.iter().map(|pair| &***pair)).unwrap().as_bytes(), b"a=1; b=2");
        assert_eq!(cookie("session", b"abc").unwrap().as_slice(), b"session=abc");
        assert!(cookie("session", b"a; admin=1").is_none() && cookie("session", b"a b").is_none());
        let path = PathAndQuery::from_static("/v1?x=1");
        assert_eq!(with_pair(&path, &pair("key", b"a/b+c d")).unwrap(), "/v1?x=1&key=a%2Fb%2Bc%20d");
        assert_eq!(with_pair(&PathAndQuery::from_static("/"), &pair("k", b"v")).unwrap(), "/?k=v");
    }

    #[test]
    fn a_secret_that_would_split_the_header_is_not_put_on() {
        assert!(header("Bearer ", b"sk\r\nx-admin: 1").is_none());
        assert!(header("Bearer ", b"sk\0").is_none());
    }
}
