//! The canonical request: the form in which both sides sign what is sent.

use http::{HeaderMap, Request};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_decode_str, percent_encode};
use zeroize::Zeroizing;

use crate::upstream::OutBody;

pub(super) const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const PATH: &AsciiSet = &ENCODED.remove(b'/');

/// The canonical request, and the names of the headers in it. A session token is one of them, so the text is zeroized, and its buffer never
/// grows.
pub(super) fn request(
    request: &Request<OutBody>,
    host: &str,
    payload: &str,
    is_s3: bool,
) -> (Zeroizing<String>, String) {
    let names = signed(request.headers());
    let query = request.uri().query().map(query).unwrap_or_default();
    let path = path(request.uri().path(), is_s3);
    let (method, signed) = (request.method().as_str(), names.join(";"));
    let values: usize = request.headers().values().map(|value| value.len() + 1).sum();
    let room =
        method.len() + path.len() + query.len() + 2 * signed.len() + values + host.len() + payload.len();
    let mut text = Zeroizing::new(String::with_capacity(room + 2 * names.len() + 8));
    for part in [method, "\n", &path, "\n", &query, "\n"] {
        text.push_str(part);
    }
    for name in names {
        text.push_str(name);
        text.push(':');
        value(request.headers(), name, host, &mut text);
        text.push('\n');
    }
    for part in ["\n", &signed, "\n", payload] {
        text.push_str(part);
    }
    (text, signed)
}

/// S3 encodes a key once, every other service what is sent once more.
fn path(path: &str, is_s3: bool) -> String {
    if !is_s3 {
        return percent_encode(path.as_bytes(), PATH).to_string();
    }
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    percent_encode(&decoded, PATH).to_string()
}

/// Sorted by name, then by value, as they are encoded. `+` is a space, as those read it who decode forms.
fn query(query: &str) -> String {
    let encode = |text: &str| {
        let spaced = text.replace('+', " ");
        let decoded: Vec<u8> = percent_decode(spaced.as_bytes()).collect();
        percent_encode(&decoded, ENCODED).to_string()
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(String, String)> = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encode(name), encode(value)))
        .collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// The host, what describes the body, and all of AWS's own: what others on the way may touch is not signed.
fn signed(headers: &HeaderMap) -> Vec<&str> {
    let is_signed = |name: &str| {
        matches!(name, "content-type" | "content-md5")
            || name.starts_with("x-amz-")
            || name.starts_with("x-amzn-")
    };
    let mut names: Vec<&str> =
        headers.keys().map(http::HeaderName::as_str).filter(|name| is_signed(name)).collect();
    names.push("host");
    names.sort_unstable();
    names
}

/// All values of a header: without white space around each, and one space wherever there is some in it.
fn value(headers: &HeaderMap, name: &str, host: &str, text: &mut String) {
    if name == "host" {
        return text.push_str(host);
    }
    for (index, value) in headers.get_all(name).iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        // What is not text, a signer of the other side cannot read either.
        let value = std::str::from_utf8(value.as_bytes()).unwrap_or_default().trim();
        for (index, word) in value.split(' ').filter(|word| !word.is_empty()).enumerate() {
            if index > 0 {
                text.push(' ');
            }
            text.push_str(word);
        }
    }
}
