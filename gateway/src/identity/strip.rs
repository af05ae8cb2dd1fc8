//! What a caller's head may not carry to a third party.
//!
//! **Invariant:** names are compared as a provider might read them: case folded, `_` equal to `-`, and in queries percent-decoded. Of what
//! is listed here nothing leaves, whatever the policy says, but the one token that a grant's `callerToken` passes on.

mod names;

use std::borrow::Cow;
use std::sync::LazyLock;

use http::HeaderMap;
use http::header::{CONNECTION, HeaderName};
use percent_encoding::percent_decode_str;
use smallvec::SmallVec;

use self::names::{AMBIGUOUS, ASSERTIONS, CREDENTIALS, FAMILIES, FRAMING, HOP, QUERY};
use crate::swar;

const SLOTS: usize = 1 << 10;
const BEGINNING_SLOTS: usize = 1 << 11;

/// The listed names by length and last letter: of one slot there are few, and of most none.
static LISTED: LazyLock<Vec<Vec<&str>>> = LazyLock::new(|| {
    let mut slots = vec![Vec::new(); SLOTS];
    for name in CREDENTIALS.iter().chain(ASSERTIONS).chain(HOP) {
        slots[slot(name)].push(*name);
    }
    slots
});

fn slot(name: &str) -> usize {
    let last = name.bytes().next_back().unwrap_or_default();
    (name.len() << 5 | usize::from(last & 0x1f)) % SLOTS
}

/// The families by their telling bytes.
static BEGINNINGS: LazyLock<Vec<Vec<&'static str>>> = LazyLock::new(|| {
    let of = |bytes| FAMILIES.iter().copied().filter(|family| telling(family) == bytes).collect();
    (0..BEGINNING_SLOTS).map(of).collect()
});

/// No key is shorter; codes of countries, currencies and lines of code are.
const AMBIGUOUS_BYTES: usize = 16;

/// Removes from `headers` what may not travel on.
pub(crate) fn headers(headers: &mut HeaderMap) {
    Withheld::of(headers).remove_from(headers);
}

/// The names in a head that may not travel on: there are few, and all that is looked for in one is among them.
#[derive(Default)]
pub(super) struct Withheld(SmallVec<[HeaderName; 6]>);

impl Withheld {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut withheld = Self::default();
        for name in headers.keys() {
            withheld.takes(name);
        }
        withheld
    }

    /// Notes a name that stays behind, and says whether it does.
    pub(super) fn takes(&mut self, name: &HeaderName) -> bool {
        let stays = is_withheld(name.as_str());
        if stays {
            self.0.push(name.clone());
        }
        stays
    }

    pub(super) fn has(&self, name: &HeaderName) -> bool {
        self.0.contains(name)
    }

    /// Removes them from their head, and what its `Connection` names.
    pub(super) fn remove_from(self, headers: &mut HeaderMap) {
        let named = if self.has(&CONNECTION) { connection_named(headers) } else { Vec::new() };
        for name in self.0.iter().chain(&named) {
            headers.remove(name);
        }
    }
}

/// Whether a header of this name stays behind.
pub(crate) fn is_withheld(name: &str) -> bool {
    if swar::has_byte(name, b'_') {
        let dashed = name.replace('_', "-");
        // A second reader may take it for the field that the first one goes by.
        let is_double = dashed.starts_with("content-") || FRAMING.contains(&dashed.as_str());
        return is_double || is_withheld_dashed(&dashed);
    }
    is_withheld_dashed(name)
}

fn is_withheld_dashed(name: &str) -> bool {
    LISTED.get(slot(name)).is_some_and(|listed| listed.contains(&name))
        || BEGINNINGS.get(telling(name)).is_some_and(|families| families.iter().any(|f| name.starts_with(f)))
}

/// Where the first two bytes lead to, or those behind the `x-` that many names have; the two are told apart.
fn telling(name: &str) -> usize {
    let of = |first: u8, second: u8| usize::from(first & 0x1f) << 5 | usize::from(second & 0x1f);
    match name.as_bytes() {
        [b'x', b'-', first, second, ..] => 1 << 10 | of(*first, *second),
        [first, second, ..] => of(*first, *second),
        _ => 0,
    }
}

/// Whether two header names are one to a reader that takes `_` for `-`.
pub(crate) fn same_name(one: &str, other: &str) -> bool {
    let folded = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    one.len() == other.len() && one.bytes().map(folded).eq(other.bytes().map(folded))
}

/// The fields that `Connection` names: hop-by-hop by the sender's own word.
fn connection_named(headers: &HeaderMap) -> Vec<HeaderName> {
    let tokens = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    tokens.flat_map(|value| value.split(',')).filter_map(|token| token.trim().parse().ok()).collect()
}

/// The query without parameters whose decoded name carries a credential, or that `extra` names; `None` where nothing is left. Where the call
/// is `keyed`, what may be another key does not go beside the gateway's own.
pub(crate) fn query<'a>(query: &'a str, extra: &[Box<str>], keyed: bool) -> Option<Cow<'a, str>> {
    let is_carrier = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded =
            percent_decode_str(name).decode_utf8_lossy().to_ascii_lowercase().replace(['_', '+', ' '], "-");
        QUERY.contains(&decoded.as_str())
            || (keyed && value.len() >= AMBIGUOUS_BYTES && AMBIGUOUS.contains(&decoded.as_str()))
            || extra.iter().any(|name| name.to_ascii_lowercase().replace('_', "-") == decoded)
    };
    // A semicolon separates parameters for some parsers, so each side of it is judged.
    let suspicious = |pair: &str| is_carrier(pair) || pair.split(';').any(is_carrier);
    if !query.split('&').any(suspicious) {
        return (!query.is_empty()).then_some(Cow::Borrowed(query));
    }
    let kept = query.split('&').filter(|pair| !suspicious(pair)).collect::<Vec<_>>().join("&");
    (!kept.is_empty()).then_some(Cow::Owned(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(pairs: &[(&str, &str)]) -> Vec<String> {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers(&mut map);
        map.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn no_form_of_a_credential_travels_on() {
        let kept = left(&[
            ("authorization", "Bearer sk-1"),
            ("authorization", "Bearer sk-2"),
            ("x_api_key", "k"),
            ("token", "k"),
            ("session_token", "k"),
            ("X-Api-Key", "k"),
            ("cookie", "a=b"),
            ("content-type", "application/json"),
        ]);
        assert_eq!(kept, ["content-type"]);
    }

    #[test]
    fn identity_headers_of_the_mesh_and_overrides_stay_behind() {
        let kept = left(&[
            ("x-forwarded-client-cert", "Hash=1"),
            ("baggage", "k8s.namespace=x"),
            ("forwarded", "for=1.2.3.4"),
            ("x-http-method-override", "DELETE"),
            ("x_http_method_override", "DELETE"),
            ("x-tollgate-reason", "fine"),
            ("x-rewrite-url", "/admin"),
            ("traceparent", "00-1-2-01"),
            ("tracestate", "vendor=1"),
            ("x-request-id", "1"),
        ]);
        assert_eq!(kept, ["x-request-id"]);
        for name in [
            "Client-Cert",
            "Client-Cert-Chain",
            "X-Forwarded",
            "X-Forwarded_For",
            "X-HTTPD-Method",
            "X-Method",
            "X-HTTP-Method",
            "X-Host-Override",
            "X-Backend-Host",
            "X-Request-URL",
            "X-Original-Forwarded-For",
            "X-SSL-Client-S-DN",
            "SSL-Client-Subject-DN",
            "X-Amzn-Mtls-Clientcert-Leaf",
            "X-Amzn-Oidc-Identity",
            "X-Goog-Authenticated-User-Id",
            "X-MS-Client-Principal-Id",
            "X-MS-Client-Principal",
            "X-Consumer-Username",
            "X-Consumer_Groups",
            "X-Authenticated-UserId",
            "Remote-User",
            "Remote_User",
            "X-Remote-Group",
            "Cf-Access-Authenticated-User-Email",
            "Tailscale-User-Login",
            "X-Middleware-Subrequest",
            "X-Accel-Redirect",
            "Proxy_Authorization",
        ] {
            assert!(left(&[(name, "1")]).is_empty(), "{name}");
        }
    }

    #[test]
    fn a_second_spelling_of_what_frames_the_message_stays_behind() {
        for name in [
            "Content_Type",
            "Content_Encoding",
            "Content_Length",
            "Content-Length",
            "Transfer_Encoding",
            "content_md5",
            "Accept_Encoding",
            "If_Range",
        ] {
            assert!(left(&[(name, "1")]).is_empty(), "{name}");
        }
    }

    #[test]
    fn what_providers_and_their_sdks_ask_for_travels_on() {
        for name in [
            "content-type",
            "content-encoding",
            "accept",
            "accept-encoding",
            "user-agent",
            "x-stainless-lang",
            "x-stainless-retry-count",
            "openai-beta",
            "anthropic-version",
            "anthropic-beta",
            "session_id",
            "x-goog-api-client",
            "x-goog-request-params",
            "x-ms-client-request-id",
            "x-ms-version",
            "x-amz-target",
            "x-amz-user-agent",
            "x-amzn-trace-id",
            "amz-sdk-request",
            "x-request-id",
            "x-client-request-id",
            "idempotency-key",
            "x-github-api-version",
            "range",
            "if-none-match",
        ] {
            assert_eq!(left(&[(name, "1")]), [name], "{name}");
        }
    }

    #[test]
    fn an_upgrade_and_its_handshake_stay_behind() {
        let kept = left(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "h2c"),
            ("upgrade", "websocket"),
            ("http2-settings", "AAMAAABkAAQCAAAAAAIAAAAA"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "realtime, openai-insecure-api-key.sk-1"),
            ("sec-websocket-extensions", "permessage-deflate"),
            ("accept", "*/*"),
        ]);
        assert_eq!(kept, ["accept"]);
    }

    #[test]
    fn what_connection_names_is_hop_by_hop() {
        assert_eq!(
            left(&[("connection", "close, X-Internal"), ("x-internal", "1"), ("accept", "*/*")]),
            ["accept"]
        );
    }

    #[test]
    fn a_key_in_the_query_is_removed_under_every_spelling() {
        for with in [
            "key=1",
            "%6bey=1",
            "%6Bey=1",
            "API_KEY=1",
            "access_token=1",
            "a=1;key=2",
            "x%2Dapi%2dkey=1",
            "api+key=1",
        ] {
            assert_eq!(query(&format!("x=1&{with}&y=2"), &[], false).as_deref(), Some("x=1&y=2"), "{with}");
            assert_eq!(query(with, &[], false), None, "{with}");
        }
        assert_eq!(query("key=1&", &[], false), None);
        assert_eq!(query("x=key&monkey=1", &[], false).as_deref(), Some("x=key&monkey=1"));
        assert_eq!(query("sid=1&x=2", &["sid".into()], false).as_deref(), Some("x=2"));
    }

    #[test]
    fn what_may_be_a_key_does_not_travel_beside_the_gateways_own() {
        for name in ["sig", "Signature", "code", "token", "%74oken"] {
            let signed = format!("sv=2024-11-04&{name}=dGhpcyBpcyBhIHNpZ25hdHVyZQ%3D%3D");
            assert_eq!(query(&signed, &[], true).as_deref(), Some("sv=2024-11-04"), "{name}");
            assert_eq!(query(&signed, &[], false).as_deref(), Some(&*signed), "{name}");
        }
        for passes in [
            "code=US&token=7",
            "pageToken=CAUQAAAAAAAAAAAAAAAAAAA",
            "page_token=CAUQAAAAAAAAAAAAAAAAAAA",
            "next_token=eyJ2IjoiMiIsImMiOiJh",
            "nextToken=eyJ2IjoiMiIsImMiOiJh",
            "continuation-token=eyJ2IjoiMiIsImMiOiJh",
            "signature_version=aaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert_eq!(query(passes, &[], true).as_deref(), Some(passes));
        }
        for gone in ["X-Goog-Signature=1", "X-Goog-Credential=1", "api_token=1", "session-token=1"] {
            assert_eq!(query(gone, &[], false), None, "{gone}");
        }
    }
}
