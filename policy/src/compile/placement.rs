//! The names under which something may be put on a call without breaking the message.

/// Unreserved characters only (RFC 3986, section 2.3), so that it needs no encoding.
pub(super) fn check_parameter(name: &str) -> Result<(), &'static str> {
    let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
    let is_name = is_plain && !name.is_empty();
    is_name.then_some(()).ok_or("a parameter is letters, digits, `-`, `.`, `_` and `~`")
}

/// `name` is in lower case. Headers that frame, route or describe the message are the gateway's own.
pub(super) fn check_header(name: &str) -> Result<(), &'static str> {
    const OWN: &[&str] = &[
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "date",
        "expect",
        "forwarded",
        "host",
        "http2-settings",
        "if-range",
        "keep-alive",
        "max-forwards",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
    ];
    if !is_token(name) {
        return Err("is not the name of a header (RFC 9110 section 5.1)");
    }
    let is_own = OWN.contains(&name)
        || ["x-forwarded-", "x-tollgate-", "sec-"].iter().any(|own| name.starts_with(own));
    if is_own { Err("frames or routes the message: a key cannot be put there") } else { Ok(()) }
}

/// RFC 9110, section 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
