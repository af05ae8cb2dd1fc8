//! The answer without what must not reach the caller.
//!
//! **Invariant:** a secret that was put on the call, in any form listed at [`Needles`], does not pass in a header, nor in a body where the
//! destination has `scrub: all`. It is replaced by `*` at equal length. What the provider says about connections, sessions and other services
//! of its own stays behind as well.

mod class;
mod escape;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod needles;
mod stream;

use http::header::{self, HeaderName, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode, response};
use tollgate_policy::decision::Permit;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::operation::HttpRequest;

use self::needles::Finds;
pub(super) use self::needles::{Needles, Pair};
pub(crate) use self::stream::Scrubber;
use super::InjectionCache;
use crate::key_health::SelectedKey;

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

/// Digests of a body (RFC 9530, RFC 3230, RFC 1864): with them a guess at what was masked could be proven.
static DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// How the messages inside a body are encoded (the gRPC and Connect protocols).
static MESSAGE_ENCODINGS: [HeaderName; 2] =
    [HeaderName::from_static("grpc-encoding"), HeaderName::from_static("connect-content-encoding")];

/// What became of a body when its head leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is passed as it came: it was looked at whole, or is none to look at.
    Unchanged,
    /// A key was masked in it.
    Changed,
    /// It is still to come.
    NotYet,
}

/// Cleans the head of an answer to a call that `permit` let through. `Some`: its body has to go through this.
///
/// # Errors
/// `encoded_answer` for a body in which a key could not be seen.
pub(crate) fn answer_head(
    parts: &mut response::Parts,
    has_body: bool,
    permit: &Permit,
    key: Option<&SelectedKey>,
    prepared: &InjectionCache,
) -> Result<Option<Scrubber>, Denial> {
    let keyed = permit.credential().zip(key);
    let is_encoded = keyed.is_some() && is_encoded(&parts.headers);
    let whole = keyed.is_some() && is_searched(parts.status, is_encoded, permit);
    if whole && has_body && is_encoded {
        return Err(Denial::new(
            Reason::EncodedAnswer,
            "the destination encoded its answer unasked, so that a reflected credential could not be seen in it",
        ));
    }
    // The reason phrase is the provider's own text, and travels beside the headers.
    parts.extensions.clear();
    let allowed = &permit.grant().allow.response_headers;
    withhold(&mut parts.headers, |name| allowed.iter().any(|a| a.eq_ignore_ascii_case(name.as_str())));
    if let Some(prefix) = permit.http().and_then(HttpRequest::path_prefix) {
        relocate(&mut parts.headers, permit.target().host(), prefix);
    }
    let Some((credential, key)) = keyed else { return Ok(None) };
    let needles = prepared.needles(credential, key).ok_or_else(|| super::bug("no needles"))?;
    scrub(&needles, &mut parts.headers);
    Ok(if whole { Scrubber::new(needles) } else { None })
}

/// Cleans the trailers of an answer to a call that `permit` let through with `key`, as its head was cleaned.
///
/// # Errors
/// `internal` where nothing is known of how the key looks: such trailers go nowhere.
pub(crate) fn answer_trailers(
    trailers: &mut HeaderMap,
    permit: &Permit,
    key: Option<&SelectedKey>,
    prepared: &InjectionCache,
) -> Result<(), Denial> {
    withhold(trailers, |_| false);
    // What frames or describes the content was decided on before it came (RFC 9110, section 6.5.1); a digest may be one of a key.
    let describes = |name: &HeaderName| name.as_str().starts_with("content-") || DIGESTS.contains(name);
    let gone: Vec<HeaderName> = trailers.keys().filter(|name| describes(name)).cloned().collect();
    for name in gone {
        while trailers.remove(&name).is_some() {}
    }
    let Some((credential, key)) = permit.credential().zip(key) else { return Ok(()) };
    let needles = prepared.needles(credential, key).ok_or_else(|| super::bug("no needles"))?;
    scrub(&needles, trailers);
    Ok(())
}

/// Takes out of the head what says which bytes the body had. A digest of a body that is still to come may be one of a key, so it always goes.
/// An `ETag` goes with a body that was changed; else it is the provider's name for a version, which `If-Match` needs.
pub(crate) fn forget_digests(headers: &mut HeaderMap, seen: Seen) {
    if seen == Seen::Unchanged {
        return;
    }
    for name in &DIGESTS {
        headers.remove(name);
    }
    if seen == Seen::Changed {
        headers.remove(header::ETAG);
    }
}

/// Whether the body is to be searched for the key.
fn is_searched(status: StatusCode, is_encoded: bool, permit: &Permit) -> bool {
    let is_stored = status.is_success() && (status == StatusCode::PARTIAL_CONTENT || is_encoded);
    permit.scrubs_bodies() || (permit.scrubs_plain_bodies() && !is_stored)
}

/// Whether the body is in another form than its readers see.
fn is_encoded(headers: &HeaderMap) -> bool {
    headers.iter().any(|(name, value)| {
        let plain: &[u8] = if *name == header::TRANSFER_ENCODING {
            b"chunked"
        } else if *name == header::CONTENT_ENCODING || MESSAGE_ENCODINGS.contains(name) {
            b"identity"
        } else {
            return false;
        };
        let mut codings = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        codings.any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(plain))
    })
}

/// Overwrites every occurrence in the values of `headers`; names that hold one go altogether.
fn scrub(needles: &Needles, headers: &mut HeaderMap) {
    let mut finds = Finds::new();
    for value in headers.values_mut() {
        if let Some(clean) = needles.masked(value.as_bytes(), &mut finds) {
            // `*` is a legal byte wherever the needle was.
            *value = HeaderValue::from_bytes(&clean).unwrap_or(HeaderValue::from_static("*"));
        }
    }
    let gone: Vec<HeaderName> =
        headers.keys().filter(|name| needles.are_in_name(name.as_str())).cloned().collect();
    for name in gone {
        while headers.remove(&name).is_some() {}
    }
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

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD_NO_PAD;

    use super::*;

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

    #[test]
    fn a_value_is_masked_where_it_holds_the_key_and_a_name_that_does_goes() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-echo", "got Bearer sk-live/0123+456789=abc!"),
            ("x-0123456789abcdef", "1"),
            ("x-fine", "fine"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        scrub(&Needles::new(&[b"sk-live/0123+456789=abc", b"0123456789abcdef"], &[]), &mut headers);
        assert_eq!(headers.len(), 2);
        assert_eq!(headers["x-echo"], format!("got Bearer {}!", "*".repeat(23)));
        assert_eq!(headers["x-fine"], "fine");
    }

    #[test]
    fn a_name_that_holds_the_key_goes_in_whatever_case_it_came() {
        let key: &[u8] = b"Sk-Live.0123+AbCdEf";
        let encoded = |text: &[u8]| STANDARD_NO_PAD.encode(text);
        let names = [
            "x-Sk-Live.0123+AbCdEf-y".to_owned(),
            format!("x-{}", encoded(key)),
            format!("x-{}", encoded(&[b"ab", key].concat())),
            "x-536B2D4C6976652E303132332B416243644566".to_owned(),
            "x-%53k-Live.0123%2BAbCdE%66".to_owned(),
        ];
        for name in names {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("1"));
            headers.insert("x-sk-live-0123-abcdefgh", HeaderValue::from_static("1"));
            scrub(&Needles::new(&[key], &[]), &mut headers);
            assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-sk-live-0123-abcdefgh"], "{name}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("x-shortkey", HeaderValue::from_static("1"));
        scrub(&Needles::new(&[b"ShortKEY"], &[]), &mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn digests_stay_only_with_a_body_that_was_seen_and_not_changed() {
        let mut headers = HeaderMap::new();
        for name in ["digest", "content-digest", "repr-digest", "content-md5", "etag", "x-fine"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("x"));
        }
        let left = |seen| {
            let mut headers = headers.clone();
            forget_digests(&mut headers, seen);
            headers.keys().map(|name| name.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(left(Seen::Unchanged).len(), 6);
        assert_eq!(left(Seen::NotYet), ["etag", "x-fine"]);
        assert_eq!(left(Seen::Changed), ["x-fine"]);
    }

    #[test]
    fn any_coding_but_the_plain_one_is_an_encoded_answer() {
        let encoded = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            is_encoded(&headers)
        };
        assert!(encoded("content-encoding", "gzip") && encoded("content-encoding", "identity, br"));
        assert!(encoded("connect-content-encoding", "gzip"));
        assert!(encoded("grpc-encoding", "deflate") && encoded("transfer-encoding", "gzip, chunked"));
        assert!(!encoded("content-encoding", "") && !encoded("content-encoding", "Identity"));
        assert!(!encoded("grpc-encoding", "identity") && !encoded("transfer-encoding", "chunked"));
    }
}
