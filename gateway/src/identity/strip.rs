//! What a caller's head may not carry to a third party.
//!
//! **Invariant:** names are compared as a provider might read them: case folded, `_` equal to `-`, and in queries percent-decoded. Of what
//! is listed here nothing leaves, whatever the policy says, but the one token that a grant's `callerToken` passes on.

use std::borrow::Cow;
use std::sync::LazyLock;

use http::HeaderMap;
use http::header::{CONNECTION, HeaderName};
use percent_encoding::percent_decode_str;

/// Forms in which credentials are carried in headers, by any provider.
const CREDENTIALS: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "cookie",
    "cookie2",
    "api-key",
    "apikey",
    "x-api-key",
    "x-apikey",
    "x-auth-token",
    "x-access-token",
    "x-auth-key",
    "x-auth-email",
    "x-goog-api-key",
    "x-amz-security-token",
    "x-functions-key",
    "private-token",
    "job-token",
    "deploy-token",
    "x-token",
    "x-vault-token",
    "x-csrf-token",
    "ocp-apim-subscription-key",
    "dd-api-key",
    "dd-application-key",
    "x-figma-token",
    "x-shopify-access-token",
    "www-authenticate",
    "x-authorization",
    "authentication",
    "xi-api-key",
    "api-token",
    "x-api-token",
    "x-serverless-authorization",
    "token",
    "access-token",
    "auth-token",
    "session-token",
    "x-session-token",
];

/// What the mesh, other proxies and the caller say about the caller, and overrides of the request that was decided on.
const ASSERTIONS: &[&str] = &[
    "forwarded",
    "baggage",
    "via",
    "x-real-ip",
    "x-client-ip",
    "client-ip",
    "true-client-ip",
    "x-cluster-client-ip",
    "remote-addr",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-method",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-original-host",
    "x-host",
    "x-request-uri",
    "x-override-url",
    "x-jwt-assertion",
    "x-user",
    "x-user-id",
    "x-remote-user",
    "x-spiffe-id",
    "x-client-cert",
    "ssl-client-cert",
    "x-ssl-client-cert",
    "x-goog-iap-jwt-assertion",
    "x-ms-client-principal",
    "x-goog-user-project",
    "x-goog-authenticated-user-email",
];

/// Hop-by-hop fields (RFC 9110, section 7.6.1) and those that we set ourselves.
const HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "host",
    "content-length",
    "expect",
    "proxy-authenticate",
    "max-forwards",
];

/// What follows `x-` in families of names that intermediaries assert.
const EXTENSIONS: &[&str] =
    &["tollgate-", "forwarded-", "envoy-", "istio-", "b3-sampled-by", "auth-request-"];

/// The listed names by length: of one length there are few.
static LISTED: LazyLock<Vec<Vec<&str>>> = LazyLock::new(|| {
    let names = || CREDENTIALS.iter().chain(ASSERTIONS).chain(HOP);
    let longest = names().map(|name| name.len()).max().unwrap_or_default();
    let of = |length| names().copied().filter(|name| name.len() == length).collect();
    (0..=longest).map(of).collect()
});

/// Query parameters that carry credentials.
const QUERY: &[&str] = &[
    "key",
    "api-key",
    "apikey",
    "x-api-key",
    "access-token",
    "auth-token",
    "authorization",
    "bearer-token",
    "oauth-token",
    "client-secret",
    "x-goog-api-key",
    "subscription-key",
    "private-token",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-credential",
    "app-key",
    "application-key",
    "api-token",
    "session-token",
    "refresh-token",
    "id-token",
    "client-assertion",
    "x-auth-token",
    "x-access-token",
    "x-goog-signature",
    "x-goog-credential",
];

/// Query parameters that carry credentials at some providers and something else at others.
const AMBIGUOUS: &[&str] = &["token", "code", "sig", "signature"];
/// No key is shorter; codes of countries, currencies and lines of code are.
const AMBIGUOUS_BYTES: usize = 16;

/// Removes from `headers` what may not travel on.
pub(crate) fn headers(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = connection_named(headers);
    let mut gone: Vec<HeaderName> =
        headers.keys().filter(|name| is_withheld(name.as_str())).cloned().collect();
    gone.extend(named);
    for name in gone {
        headers.remove(&name);
    }
}

/// Whether a header of this name stays behind.
pub(crate) fn is_withheld(name: &str) -> bool {
    if name.bytes().any(|b| b == b'_') {
        return is_withheld_dashed(&name.replace('_', "-"));
    }
    is_withheld_dashed(name)
}

fn is_withheld_dashed(name: &str) -> bool {
    let bytes = name.as_bytes();
    // The last letter tells most names apart without a call.
    let is = |listed: &&str| listed.as_bytes().last() == bytes.last() && *listed == name;
    LISTED.get(name.len()).is_some_and(|listed| listed.iter().any(is))
        || name.starts_with("proxy-")
        || name
            .strip_prefix("x-")
            .is_some_and(|rest| EXTENSIONS.iter().any(|prefix| rest.starts_with(prefix)))
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
    let kept: Vec<&str> = query.split('&').filter(|pair| !suspicious(pair)).collect();
    (!kept.is_empty()).then(|| Cow::Owned(kept.join("&")))
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
        ]);
        assert_eq!(kept, ["traceparent"]);
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
