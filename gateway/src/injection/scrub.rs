//! The head of the answer without what must not reach the caller.
//!
//! **Invariant:** a secret that was put on the call, in any form listed at [`Needles`], does not pass in a header. It is replaced by `*` at
//! equal length. What the provider says about connections, sessions and other services of its own stays behind as well.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::header::{self, HeaderName, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode, response};
use memchr::memchr_iter;
use tollgate_policy::decision::Permit;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_secrets::Secret;
use zeroize::Zeroizing;

use super::Prepared;
use super::prepared::Ready;

/// Connection-bound fields (RFC 9110, section 7.6.1) and announcements of other routes and sessions.
static WITHHELD: [HeaderName; 14] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::ALT_SVC,
    header::SET_COOKIE,
    header::REFRESH,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("authentication-info"),
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("set-cookie2"),
];

/// Cleans the head of an answer to a call that `permit` let through.
///
/// # Errors
/// `unsupported_upgrade` for a 101 that nobody asked for.
pub(crate) fn answer_head(
    parts: &mut response::Parts,
    permit: &Permit,
    secret: Option<&Arc<Secret>>,
    prepared: &Prepared,
) -> Result<(), Denial> {
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Denial::new(Reason::UnsupportedUpgrade, "the destination switched protocols unasked"));
    }
    // The reason phrase is the provider's own text, and travels beside the headers.
    parts.extensions.clear();
    let allowed = &permit.grant().allow.response_headers;
    withhold(&mut parts.headers, |name| allowed.iter().any(|a| a.eq_ignore_ascii_case(name.as_str())));
    if let Some(prefix) = permit.target().path_prefix() {
        relocate(&mut parts.headers, permit.target().host(), prefix);
    }
    if let Some((credential, secret)) = permit.credential().zip(secret) {
        let needles = prepared.needles(credential, secret).ok_or_else(|| super::bug("no needles"))?;
        needles.scrub(&mut parts.headers);
    }
    Ok(())
}

fn withhold(headers: &mut HeaderMap, allowed: impl Fn(&HeaderName) -> bool) {
    let ours = |name: &HeaderName| name.as_str().starts_with("x-tollgate-");
    let gone: Vec<HeaderName> = headers
        .keys()
        .filter(|name| ours(name) || (WITHHELD.contains(name) && !allowed(name)))
        .cloned()
        .collect();
    for name in gone {
        while headers.remove(&name).is_some() {}
    }
}

/// In path form a `Location` on the destination's own host is reached through the gateway again.
fn relocate(headers: &mut HeaderMap, host: &str, prefix: &str) {
    let Some(location) = headers.get(LOCATION).and_then(|value| value.to_str().ok()) else { return };
    let path = match location.strip_prefix("https://") {
        Some(absolute) => {
            let (authority, path) =
                absolute.split_at(absolute.find(['/', '?', '#']).unwrap_or(absolute.len()));
            let named = authority.rsplit_once(':').map_or(authority, |(name, _)| name);
            if !named.eq_ignore_ascii_case(host) {
                return;
            }
            path
        }
        None if location.starts_with('/') && !location.starts_with("//") => location,
        None => return,
    };
    if let Ok(value) = HeaderValue::try_from(format!("{prefix}{path}")) {
        headers.insert(LOCATION, value);
    }
}

/// The forms of one secret version to look for, percent-encoded or not: raw, base64 at the three offsets at which it can lie inside a longer
/// text, hex, and what was sent, whole.
pub(super) struct Needles {
    forms: Vec<Zeroizing<Vec<u8>>>,
    shortest: usize,
}

impl fmt::Debug for Needles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Needles").finish_non_exhaustive()
    }
}

impl Needles {
    pub(super) fn new<'a>(secret: impl Iterator<Item = &'a [u8]>, sent: &[Ready]) -> Self {
        let mut text: Vec<_> = secret.flat_map(forms).collect();
        for sent in sent {
            match sent {
                Ready::Header(_, value) => {
                    let whole = value.as_bytes();
                    let start = whole.iter().rposition(|b| *b == b' ').map_or(0, |at| at + 1);
                    text.push(Zeroizing::new(whole[start..].to_vec()));
                }
                Ready::Query(pair) => text.push(Zeroizing::new(pair.to_vec())),
                Ready::Cookie(pair) => text.push(pair.clone()),
                Ready::SigV4(_) => {}
            }
        }
        text.retain(|form| !form.is_empty());
        text.sort_unstable_by(|a, b| a.as_slice().cmp(b.as_slice()));
        text.dedup();
        let shortest = text.iter().map(|form| form.len()).min().unwrap_or(usize::MAX);
        Self { forms: text, shortest }
    }

    /// Overwrites every occurrence in the values of `headers`; names that hold one go altogether.
    fn scrub(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut().filter(|value| value.len() >= self.shortest) {
            if let Some(clean) = self.masked(value.as_bytes()) {
                // `*` is a legal byte wherever the needle was.
                *value = HeaderValue::from_bytes(&clean).unwrap_or(HeaderValue::from_static("*"));
            }
        }
        let named = |name: &HeaderName| {
            name.as_str().len() >= self.shortest && self.masked(name.as_str().as_bytes()).is_some()
        };
        let gone: Vec<HeaderName> = headers.keys().filter(|name| named(name)).cloned().collect();
        for name in gone {
            while headers.remove(&name).is_some() {}
        }
    }

    fn masked(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut clean: Option<Vec<u8>> = None;
        for form in &self.forms {
            for at in occurrences(form, text) {
                clean.get_or_insert_with(|| text.to_vec())[at..at + form.len()].fill(b'*');
            }
        }
        if text.contains(&b'%') {
            // However many of its characters were escaped, and in whichever case.
            let (decoded, places) = unescaped(text);
            for form in &self.forms {
                for at in occurrences(form, &decoded) {
                    let range = places[at]..places[at + form.len()];
                    clean.get_or_insert_with(|| text.to_vec())[range].fill(b'*');
                }
            }
        }
        clean
    }
}

/// `text` with its percent escapes decoded, and where each byte of that began; one place more than bytes.
fn unescaped(text: &[u8]) -> (Zeroizing<Vec<u8>>, Vec<usize>) {
    let mut decoded = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut places = Vec::with_capacity(text.len() + 1);
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        places.push(at);
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    places.push(at);
    (decoded, places)
}

/// Where `form` lies in `text`. Header values are short: looking for a first byte beats preparing a search.
fn occurrences<'a>(form: &'a [u8], text: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let last = text.len().checked_sub(form.len()).map_or(0, |last| last + 1);
    let first = form.first().copied().unwrap_or_default();
    memchr_iter(first, &text[..last]).filter(move |at| text[*at..].starts_with(form))
}

fn forms(secret: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let hex = |digits: &[u8; 16]| {
        secret.iter().flat_map(|b| [digits[usize::from(b >> 4)], digits[usize::from(b & 15)]]).collect()
    };
    let mut forms: Vec<Vec<u8>> = vec![secret.to_vec(), hex(b"0123456789abcdef"), hex(b"0123456789ABCDEF")];
    for offset in 0..3 {
        let Some(core) = base64_inside(secret, offset) else { continue };
        let url: Vec<u8> = core
            .iter()
            .map(|b| match b {
                b'+' => b'-',
                b'/' => b'_',
                other => *other,
            })
            .collect();
        forms.push(core);
        forms.push(url);
    }
    forms.into_iter().map(Zeroizing::new).collect()
}

/// The characters that depend on the secret alone when it starts `offset` bytes into a base64 group.
fn base64_inside(secret: &[u8], offset: usize) -> Option<Vec<u8>> {
    let mut padded = Zeroizing::new(vec![0; offset]);
    padded.extend_from_slice(secret);
    let encoded = Zeroizing::new(STANDARD_NO_PAD.encode(&*padded));
    let start = [0, 2, 3][offset];
    let whole = padded.len() / 3 * 4 + [0, 1, 2][padded.len() % 3];
    (whole > start + 4).then(|| encoded.as_bytes()[start..whole].to_vec())
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

    use super::*;

    const SECRET: &[u8] = b"sk-live/0123+456789=abc";

    fn scrubbed(value: &[u8]) -> Vec<u8> {
        let sent =
            Ready::Header(header::AUTHORIZATION, super::super::form::header("Bearer ", SECRET).unwrap());
        let mut headers = HeaderMap::new();
        headers.insert("x-echo", HeaderValue::from_bytes(value).unwrap());
        Needles::new([SECRET].into_iter(), &[sent]).scrub(&mut headers);
        headers["x-echo"].as_bytes().to_vec()
    }

    #[test]
    fn a_reflected_secret_is_masked_at_equal_length_in_every_form() {
        let raw = String::from_utf8(SECRET.to_vec()).unwrap();
        assert_eq!(
            scrubbed(format!("got Bearer {raw}!").as_bytes()),
            format!("got Bearer {}!", "*".repeat(23)).as_bytes()
        );
        let percent: String = percent_encode(SECRET, NON_ALPHANUMERIC).collect();
        assert_eq!(scrubbed(percent.as_bytes()), "*".repeat(percent.len()).as_bytes());
        let every: String = SECRET.iter().map(|b| format!("%{b:02x}")).collect();
        assert_eq!(scrubbed(format!("a%20{every}").as_bytes()), format!("a%20{}", "*".repeat(69)).as_bytes());
        for before in ["", "u", "us", "user:"] {
            let encoded = STANDARD_NO_PAD.encode(format!("{before}{raw}tail"));
            let clean = scrubbed(encoded.as_bytes());
            assert_eq!(clean.len(), encoded.len());
            assert!(clean.iter().filter(|b| **b == b'*').count() >= 26, "{before}");
        }
        let hex: String = SECRET.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(scrubbed(hex.as_bytes()), "*".repeat(46).as_bytes());
        assert_eq!(scrubbed(b"nothing of the kind in here, at all"), b"nothing of the kind in here, at all");
    }

    #[test]
    fn cookies_and_alternative_services_stay_behind_unless_allowed() {
        let mut headers = HeaderMap::new();
        for name in [
            "set-cookie",
            "alt-svc",
            "authentication-info",
            "refresh",
            "x-tollgate-reason",
            "connection",
            "etag",
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("x"));
        }
        let mut some = headers.clone();
        withhold(&mut headers, |_| false);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["etag"]);
        withhold(&mut some, |name| name == "set-cookie");
        assert_eq!(some.len(), 2);
    }

    #[test]
    fn a_location_on_the_destination_itself_leads_back_through_the_gateway() {
        let moved = |location: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, HeaderValue::from_static(location));
            relocate(&mut headers, "api.openai.com", "/openai");
            headers[LOCATION].to_str().unwrap().to_owned()
        };
        assert_eq!(moved("https://api.openai.com/v1/x?y"), "/openai/v1/x?y");
        assert_eq!(moved("/v1/x"), "/openai/v1/x");
        assert_eq!(moved("https://evil.example/v1"), "https://evil.example/v1");
        assert_eq!(moved("//evil.example/v1"), "//evil.example/v1");
        assert_eq!(moved("https://api.openai.com.evil.example/"), "https://api.openai.com.evil.example/");
    }
}
