//! The handshake: the caller's is read, one of our own is sent, and the provider's answer to it is verified before the caller gets one.
//!
//! **Invariant:** nothing is switched that was not asked for: a 101 answers only a key that was made here, with the accept value of that key, a
//! subprotocol that was offered and no extension that was not.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, request, response};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use tollgate_policy::denial::{Denial, Reason};

use super::protocols::{deflate_chosen, deflate_offered, offered};

/// What a key is made an accept value with (RFC 6455, section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const VERSION: &[u8] = b"13";
/// Bytes of a key before base64.
const KEY: usize = 16;
static WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// All fields of a handshake but `Connection` and `Upgrade`.
static FIELDS: [HeaderName; 5] = [
    SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_VERSION,
    SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_EXTENSIONS,
];

/// What a caller asks for.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    /// `None` over HTTP/2, which needs none.
    key: Option<HeaderValue>,
    protocols: Vec<Box<str>>,
    deflate: Option<HeaderValue>,
}

/// What the provider is asked for, and the caller is to be answered.
#[derive(Debug)]
pub(crate) struct Handshake {
    offer: Offer,
    /// Made here.
    key: String,
}

/// A handshake that the provider has agreed to.
#[derive(Debug)]
pub(crate) struct Switched {
    /// The connection to it, as soon as HTTP lets go of it.
    pub(crate) provider: OnUpgrade,
    /// Messages may be compressed.
    pub(crate) is_deflated: bool,
    /// What the caller's own key is answered with; `None` over HTTP/2.
    accept: Option<HeaderValue>,
}

/// The method that is asked for: over HTTP/2 WebSocket comes as a CONNECT, and is a GET everywhere else (RFC 8441, section 5).
pub(crate) fn asked_method<B>(request: &Request<B>) -> &Method {
    let is_extended = request.extensions().get::<Protocol>().is_some();
    if is_extended && request.method() == Method::CONNECT { &Method::GET } else { request.method() }
}

impl Offer {
    /// What the head asks for instead of HTTP; `None`: nothing that matters. Another version of HTTP, or TLS, may be wished for and not given
    /// (RFC 9110, section 7.8).
    ///
    /// # Errors
    /// `upgrade_refused` for another protocol or another version of this one, `bad_request` for a handshake that two readers could take for
    /// two different things.
    pub(crate) fn read(parts: &request::Parts) -> Result<Option<Self>, Denial> {
        let request::Parts { method, headers, version, extensions, .. } = parts;
        if let Some(protocol) = extensions.get::<Protocol>() {
            return match protocol.as_str().to_ascii_lowercase().as_str() {
                "websocket" => Self::of(headers, None).map(Some),
                _ => Err(other()),
            };
        }
        // Of HTTP/1.0 it is to be ignored, and over HTTP/2 there is none.
        if *version != Version::HTTP_11 || !is_wished(headers)? {
            return Ok(None);
        }
        if *method != Method::GET {
            return Err(bad("a WebSocket begins with a GET"));
        }
        let length = headers.get(CONTENT_LENGTH);
        if length.is_some_and(|length| length != "0") || headers.contains_key(TRANSFER_ENCODING) {
            return Err(bad("a request that begins a WebSocket has no body"));
        }
        let key = single(headers, &SEC_WEBSOCKET_KEY).filter(|key| is_key(key));
        let key = key.ok_or_else(|| bad("Sec-WebSocket-Key is not one value of 16 bytes in base64"))?;
        Self::of(headers, Some(key.clone())).map(Some)
    }

    fn of(headers: &HeaderMap, key: Option<HeaderValue>) -> Result<Self, Denial> {
        if single(headers, &SEC_WEBSOCKET_VERSION).is_none_or(|version| version.as_bytes() != VERSION) {
            let detail = "the only version of WebSocket is 13 (Sec-WebSocket-Version)";
            return Err(Denial::new(Reason::UpgradeRefused, detail));
        }
        let protocols = offered(headers, &SEC_WEBSOCKET_PROTOCOL)
            .ok_or_else(|| bad("Sec-WebSocket-Protocol is not a list of different tokens"))?;
        let deflate = deflate_offered(headers, &SEC_WEBSOCKET_EXTENSIONS);
        Ok(Self { key, protocols, deflate })
    }

    /// What to ask the provider for; `may_deflate`: nothing has to be read in messages.
    ///
    /// # Errors
    /// `internal` where there is no randomness.
    pub(crate) fn ask(mut self, may_deflate: bool) -> Result<Handshake, Denial> {
        self.deflate = self.deflate.filter(|_| may_deflate);
        let mut key = [0; KEY];
        aws_lc_rs::rand::fill(&mut key)
            .map_err(|_| Denial::new(Reason::Internal, "no randomness for a WebSocket key"))?;
        Ok(Handshake { offer: self, key: STANDARD.encode(key) })
    }
}

impl Handshake {
    /// Puts it into the head for the provider.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, WEBSOCKET.clone());
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        if let Ok(key) = HeaderValue::try_from(&self.key) {
            headers.insert(SEC_WEBSOCKET_KEY, key);
        }
        if let Ok(protocols) = HeaderValue::try_from(self.offer.protocols.join(", "))
            && !protocols.is_empty()
        {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocols);
        }
        if let Some(deflate) = &self.offer.deflate {
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, deflate.clone());
        }
    }

    /// Whether the provider's answer agrees to it; it becomes the caller's. `None`: it is an error, which stays HTTP.
    ///
    /// # Errors
    /// `unsupported_upgrade` where it is neither.
    fn agreed(&self, head: &mut response::Parts) -> Result<Option<Switched>, Denial> {
        if head.status != StatusCode::SWITCHING_PROTOCOLS {
            // Over HTTP/2 the caller would take any success for the beginning of a WebSocket.
            return match head.status.is_success() {
                true => Err(unsupported("the destination answered, and did not go on with WebSocket")),
                false => Ok(None),
            };
        }
        let headers = &mut head.headers;
        let is_it =
            single(headers, &UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
        let accept = single(headers, &SEC_WEBSOCKET_ACCEPT);
        if !is_it
            || !names_upgrade(headers)
            || accept.is_none_or(|it| it.as_bytes() != accept_of(self.key.as_bytes()).as_bytes())
        {
            return Err(unsupported(
                "the destination switched protocols, and not to the WebSocket that was asked for",
            ));
        }
        let protocol = headers.get(SEC_WEBSOCKET_PROTOCOL).cloned();
        let is_offered =
            |it: &HeaderValue| self.offer.protocols.iter().any(|one| one.as_bytes() == it.as_bytes());
        if headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().any(|it| !is_offered(it)) {
            return Err(unsupported("the destination chose a subprotocol of WebSocket that was not offered"));
        }
        let deflate = deflate_chosen(headers, &SEC_WEBSOCKET_EXTENSIONS);
        let deflate = deflate.ok().filter(|chosen| chosen.is_none() || self.offer.deflate.is_some());
        let deflate = deflate.ok_or_else(|| {
            unsupported("the destination chose an extension of WebSocket that was not offered")
        })?;
        let provider = head.extensions.remove::<OnUpgrade>();
        let provider = provider.ok_or_else(|| unsupported("the connection cannot go on with WebSocket"))?;
        // From here on it is the answer to the caller.
        for name in &FIELDS {
            headers.remove(name);
        }
        if let Some(protocol) = protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        let is_deflated = deflate.is_some();
        if let Some(deflate) = deflate {
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, deflate);
        }
        let accept =
            self.offer.key.as_ref().and_then(|key| HeaderValue::try_from(accept_of(key.as_bytes())).ok());
        Ok(Some(Switched { provider, is_deflated, accept }))
    }

    /// Judges the answer to a request that may have asked for WebSocket; see [`Handshake::agreed`].
    ///
    /// # Errors
    /// `unsupported_upgrade`, also for a 101 that nobody asked for.
    pub(crate) fn judge(
        asked: Option<&Self>,
        head: &mut response::Parts,
    ) -> Result<Option<Switched>, Denial> {
        match asked {
            Some(asked) => asked.agreed(head),
            None if head.status == StatusCode::SWITCHING_PROTOCOLS => {
                Err(unsupported("the destination switched protocols unasked"))
            }
            None => Ok(None),
        }
    }
}

impl Switched {
    /// Makes the cleaned head of an agreement the answer to the caller: over HTTP/2 a plain success.
    pub(crate) fn answer(&self, head: &mut response::Parts) {
        let Some(accept) = &self.accept else {
            head.status = StatusCode::OK;
            return;
        };
        head.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        head.headers.insert(UPGRADE, WEBSOCKET.clone());
        head.headers.insert(SEC_WEBSOCKET_ACCEPT, accept.clone());
    }
}

/// Whether `Upgrade` asks for WebSocket, and for nothing besides.
fn is_wished(headers: &HeaderMap) -> Result<bool, Denial> {
    let mut values = headers.get_all(UPGRADE).iter();
    let protocols = values.by_ref().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let (mut count, mut is_wished) = (0, false);
    for protocol in protocols {
        count += 1;
        let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
        match name.trim_ascii().to_ascii_lowercase().as_slice() {
            b"" | b"h2" | b"h2c" | b"http" | b"tls" => {}
            b"websocket" => is_wished = true,
            _ => return Err(other()),
        }
    }
    if !is_wished {
        return Ok(false);
    }
    if count > 1 {
        let detail = "WebSocket is not forwarded beside another protocol: Upgrade has to name it alone";
        return Err(Denial::new(Reason::UpgradeRefused, detail));
    }
    if !names_upgrade(headers) {
        return Err(bad("the request has Upgrade, and its Connection does not name it"));
    }
    Ok(true)
}

/// Whether `Connection` names `Upgrade`.
fn names_upgrade(headers: &HeaderMap) -> bool {
    let mut tokens =
        headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// The only value of this name.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn is_key(value: &HeaderValue) -> bool {
    STANDARD.decode(value.as_bytes()).is_ok_and(|key| key.len() == KEY)
}

fn accept_of(key: &[u8]) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat()))
}

fn other() -> Denial {
    let detail = "another protocol than HTTP, which the request asks for (Upgrade), is not forwarded";
    Denial::new(Reason::UpgradeRefused, detail)
}

fn bad(detail: &'static str) -> Denial {
    Denial::new(Reason::BadRequest, detail)
}

fn unsupported(detail: &'static str) -> Denial {
    Denial::new(Reason::UnsupportedUpgrade, detail)
}

#[cfg(test)]
mod tests;
