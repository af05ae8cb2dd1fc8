//! The canonical request: the form in which both sides sign what is sent.

use http::{HeaderMap, Request};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_decode_str, percent_encode};

use crate::upstream::OutBody;

pub(super) const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const PATH: &AsciiSet = &ENCODED.remove(b'/');

/// The canonical request, and the names of the headers in it.
pub(super) fn request(
    request: &Request<OutBody>,
    host: &str,
    payload: &str,
    is_s3: bool,
) -> (String, String) {
    let (headers, signed) = headers(request.headers(), host);
    let path = path(request.uri().path(), is_s3);
    let query = request.uri().query().map(query).unwrap_or_default();
    let method = request.method();
    (format!("{method}\n{path}\n{query}\n{headers}\n{signed}\n{payload}"), signed)
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
fn headers(headers: &HeaderMap, host: &str) -> (String, String) {
    let is_signed = |name: &str| {
        matches!(name, "content-type" | "content-md5")
            || name.starts_with("x-amz-")
            || name.starts_with("x-amzn-")
    };
    let mut names: Vec<&str> =
        headers.keys().map(http::HeaderName::as_str).filter(|name| is_signed(name)).collect();
    names.push("host");
    names.sort_unstable();
    let mut lines = String::new();
    for name in &names {
        lines.push_str(name);
        lines.push(':');
        if *name == "host" {
            lines.push_str(host);
        } else {
            let values = headers.get_all(*name).iter().map(|value| folded(value.as_bytes()));
            lines.push_str(&values.collect::<Vec<_>>().join(","));
        }
        lines.push('\n');
    }
    (lines, names.join(";"))
}

/// Without white space around it, and one space wherever there is some in it.
fn folded(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    text.split(' ').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ").trim().to_owned()
}
