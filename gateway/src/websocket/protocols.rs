//! Lists in the fields of a handshake: subprotocols, some of which carry keys, and extensions.

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

/// Subprotocols that carry a key: browsers can send one nowhere else. OpenAI's, Kubernetes', and what many servers took up from these.
const CARRIERS: [&str; 9] = [
    "openai-insecure-api-key.",
    "base64url.bearer.",
    "bearer.",
    "authorization.",
    "access-token.",
    "access_token.",
    "api-key.",
    "token.",
    "jwt.",
];

/// Words after which the next subprotocol is a key.
const ANNOUNCERS: [&str; 8] =
    ["authorization", "bearer", "access_token", "access-token", "token", "api-key", "apikey", "jwt"];

/// How a JWT begins: `{"` in base64.
const JWT: &str = "eyJ";

/// The one extension that is known: it changes no frame but by one bit (RFC 7692).
const DEFLATE: &str = "permessage-deflate";

/// The members of a list that may be spread over several fields; `None` where one is not visible ASCII.
fn members<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Vec<&'a str>> {
    let mut members = Vec::new();
    for value in headers.get_all(name) {
        let text = value.to_str().ok()?;
        members.extend(text.split(',').map(str::trim).filter(|member| !member.is_empty()));
    }
    Some(members)
}

/// A token, as a subprotocol has to be (RFC 6455, section 4.1).
fn is_token(text: &str) -> bool {
    let is_separator = |b: u8| b"()<>@,;:\\\"/[]?={} \t".contains(&b);
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !is_separator(b))
}

/// The subprotocols of a caller's offer that may travel on, in its order; `None` where one is malformed or stands twice.
pub(super) fn offered(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<Box<str>>> {
    let mut kept: Vec<Box<str>> = Vec::new();
    let mut is_announced = false;
    for member in members(headers, name)? {
        if !is_token(member) || kept.iter().any(|other| **other == *member) {
            return None;
        }
        let lower = member.to_ascii_lowercase();
        let is_announcer = ANNOUNCERS.contains(&lower.as_str());
        let is_key = std::mem::replace(&mut is_announced, is_announcer)
            || is_announcer
            || member.starts_with(JWT)
            || CARRIERS.iter().any(|carrier| lower.starts_with(carrier));
        if !is_key {
            kept.push(member.into());
        }
    }
    Some(kept)
}

/// What a caller offers of the one extension that is known, in its own words.
pub(super) fn deflate_offered(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let offers: Vec<&str> = members(headers, name)?.into_iter().filter(|offer| is_deflate(offer)).collect();
    (!offers.is_empty()).then(|| HeaderValue::try_from(offers.join(", ")).ok()).flatten()
}

/// What a provider has chosen: nothing, or the one extension that is known; an error where it is anything else.
pub(super) fn deflate_chosen(headers: &HeaderMap, name: &HeaderName) -> Result<Option<HeaderValue>, ()> {
    match members(headers, name).ok_or(())?.as_slice() {
        [] => Ok(None),
        [chosen] if is_deflate(chosen) => HeaderValue::try_from(*chosen).map(Some).map_err(drop),
        _ => Err(()),
    }
}

fn is_deflate(extension: &str) -> bool {
    extension.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(DEFLATE))
}

#[cfg(test)]
mod tests {
    use http::header::SEC_WEBSOCKET_PROTOCOL;

    use super::*;

    fn of(values: &[&str]) -> Option<Vec<String>> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(SEC_WEBSOCKET_PROTOCOL, value.parse().unwrap());
        }
        let kept = offered(&headers, &SEC_WEBSOCKET_PROTOCOL)?;
        Some(kept.into_iter().map(String::from).collect())
    }

    #[test]
    fn a_subprotocol_that_carries_a_key_stays_behind() {
        for offer in [
            "realtime, openai-insecure-api-key.sk-live-1, openai-beta.realtime-v1",
            "realtime, OpenAI-Insecure-API-Key.sk-live-1, openai-beta.realtime-v1",
            "realtime, base64url.bearer.authorization.k8s.io.c2stMQ, openai-beta.realtime-v1",
            "realtime, Bearer, sk-live-1, openai-beta.realtime-v1",
            "realtime, access_token, sk-live-1, openai-beta.realtime-v1",
            "realtime, eyJhbGciOiJIUzI1NiJ9.e30.c2ln, openai-beta.realtime-v1",
        ] {
            assert_eq!(of(&[offer]).unwrap(), ["realtime", "openai-beta.realtime-v1"], "{offer}");
        }
        assert_eq!(of(&["authorization", "sk-live-1"]).unwrap(), [""; 0]);
        assert_eq!(of(&["graphql-transport-ws", "mqtt,wamp.2.json"]).unwrap().len(), 3);
    }

    #[test]
    fn a_malformed_offer_is_none() {
        assert_eq!(of(&["a, a"]), None);
        assert_eq!(of(&["a b"]), None);
        assert_eq!(of(&["a=b"]), None);
        assert_eq!(of(&["a, , b"]).unwrap(), ["a", "b"]);
        assert_eq!(of(&[]).unwrap(), [""; 0]);
    }

    #[test]
    fn of_extensions_only_compression_is_known() {
        let name = http::header::SEC_WEBSOCKET_EXTENSIONS;
        let headers =
            |text: &str| HeaderMap::from_iter([(name.clone(), HeaderValue::try_from(text).unwrap())]);
        let offer = headers("x-bigger, permessage-deflate; client_max_window_bits, mux");
        assert_eq!(deflate_offered(&offer, &name).unwrap(), "permessage-deflate; client_max_window_bits");
        assert_eq!(deflate_offered(&headers("mux"), &name), None);
        assert_eq!(
            deflate_chosen(&headers("Permessage-Deflate;a=1"), &name).unwrap().unwrap(),
            "Permessage-Deflate;a=1"
        );
        assert_eq!(deflate_chosen(&HeaderMap::new(), &name), Ok(None));
        assert_eq!(deflate_chosen(&headers("mux"), &name), Err(()));
        assert_eq!(deflate_chosen(&headers("permessage-deflate, permessage-deflate"), &name), Err(()));
    }
}
