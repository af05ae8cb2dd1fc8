//! What a caller's head may hold, and its tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, CONNECTION, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tollgate_policy::caller::Identity;

use super::{CallerCredentials, RequestHead, ShownTo, strip};

const AUDIENCE: &str = "https://api.example.com";
const NOW: i64 = 1_767_225_600;
const SCHEME: &str = "Bearer ";
/// Of those that never travel on.
const NEVER: [&str; 12] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "forwarded",
    "baggage",
    "x-forwarded-client-cert",
    "connection",
    "x-http-method-override",
    "transfer-encoding",
];

/// A head as in HTTP/1.1, `METHOD URI` and then `NAME: VALUE` in lines that end with LF: what is left of it has no credential, in any
/// spelling, and is left as it is by a second look.
pub fn head(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let Some((method, uri)) = lines.next().and_then(|line| std::str::from_utf8(line).ok()?.split_once(' '))
    else {
        return;
    };
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method.as_bytes()), uri.parse::<Uri>()) else { return };
    let mut headers = HeaderMap::new();
    for line in lines {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts.next().and_then(|name| HeaderName::from_bytes(name).ok());
        let value = parts.next().and_then(|value| HeaderValue::from_bytes(value.trim_ascii()).ok());
        if let (Some(name), Some(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let mut request = Request::new(());
    (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, headers);
    *request.version_mut() = Version::HTTP_11;
    let Ok(mut head) = RequestHead::read(request.into_parts().0, 16 * 1024, ShownTo::Proxy) else { return };
    assert!(!["TRACE", "TRACK", "CONNECT"].contains(&head.method.as_str().to_ascii_uppercase().as_str()));
    for name in head.headers.keys() {
        assert!(!NEVER.contains(&&*name.as_str().replace('_', "-")) && !named.contains(name), "{name}");
    }
    if let Some(query) = head.line().query {
        for pair in query.split(['&', ';']) {
            let name = percent_decode_str(pair.split('=').next().unwrap_or_default()).decode_utf8_lossy();
            let name = name.to_ascii_lowercase().replace('_', "-");
            assert!(!["key", "api-key", "access-token"].contains(&&*name), "{query}");
        }
        assert_eq!(strip::query(query, &[], false).as_deref(), Some(query));
    }
    if let Some(scope) = &head.aws_scope {
        assert!(
            scope
                .region
                .bytes()
                .chain(scope.service.bytes())
                .all(|byte| byte == b'-' || byte.is_ascii_alphanumeric())
        );
    }
    let _ = head.upgrade();
    let once = head.headers.clone();
    strip::headers(&mut head.headers);
    assert_eq!(once, head.headers, "nothing is left to strip");
}

/// Where the first byte is even, the rest is the claims of a token, else a whole `Authorization`: what is passed on is for this audience
/// alone and not expired, to whoever reads the same claims. Who is named by a text is named by no other.
pub fn credentials(data: &[u8]) {
    let Some((how, text)) = data.split_first() else { return };
    if let Some(identity) = std::str::from_utf8(text).ok().and_then(|text| text.parse::<Identity>().ok()) {
        assert_eq!(identity.as_str().as_bytes(), text);
    }
    let value = if how % 2 == 0 {
        let part = |text: &[u8]| URL_SAFE_NO_PAD.encode(text);
        let token = format!("{}.{}.{}", part(br#"{"alg":"RS256"}"#), part(text), part(b"signature"));
        HeaderValue::from_str(&format!("{SCHEME}{token}"))
    } else {
        HeaderValue::from_bytes(text).or_else(|_| HeaderValue::from_str(""))
    };
    let (Ok(value), Ok(now)) = (value, Timestamp::from_second(NOW)) else { return };
    let headers = HeaderMap::from_iter([(AUTHORIZATION, value.clone())]);
    let Ok(sent) = CallerCredentials::of(&headers, ShownTo::Proxy).for_audience(AUDIENCE, now) else {
        return;
    };
    assert!(sent.is_sensitive());
    let token = value.as_bytes().get(SCHEME.len()..).unwrap_or_default();
    assert_eq!(sent.as_bytes(), [SCHEME.as_bytes(), token].concat());
    let claims = token.split(|byte| *byte == b'.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims = claims.unwrap_or_default();
    // Of numbers that nobody can hold a reader of the whole makes an error.
    let Ok(claims) = serde_json::from_slice::<Value>(&claims) else { return };
    let audience = &claims["aud"];
    assert!(
        audience == AUDIENCE || audience.as_array().is_some_and(|all| all.len() == 1 && all[0] == AUDIENCE)
    );
    assert!(claims["exp"].as_f64().is_some_and(|until| until > NOW as f64));
}
