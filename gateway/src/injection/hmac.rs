//! HMAC signatures (RFC 2104) by template, with a key that the caller never had.
//!
//! **Invariant:** signed last, over what is sent to the host that the peer was verified for. Time and nonce are the gateway's own, the
//! same wherever they stand in one request and new for every attempt. The key only makes signatures.

use std::borrow::Cow;
use std::fmt;

use aws_lc_rs::{digest, hmac, rand};
use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::HeaderName;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request};
use jiff::Timestamp;
use tollgate_policy::denial::Denial;
use tollgate_policy::policy::{Hmac, HmacAlgorithm, KeyEncoding, Piece, SignatureEncoding};
use tollgate_secrets::Secret;
use tollgate_secrets::digest::{hex, sha256};
use zeroize::Zeroizing;

use super::{bug, form, put};
use crate::upstream::OutBody;

/// Keys are written with padding or without.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// The most that a piece which is no text is written with: a SHA-512 in hex.
const LONGEST: usize = 128;

/// One version of a signing key, and the templates with the secret's fields in them.
pub(super) struct HmacSigner {
    key: hmac::Key,
    encoding: SignatureEncoding,
    message: Vec<MessagePart>,
    headers: Vec<(HeaderName, Vec<MessagePart>)>,
    /// The parameters that are signed, then those that have the signature.
    queries: [Vec<(Box<str>, Vec<MessagePart>)>; 2],
}

enum MessagePart {
    Text(Zeroizing<Vec<u8>>),
    Piece(Piece),
}

/// What the pieces of one request are read off.
struct SignedCall<'a> {
    method: &'a str,
    host: &'a str,
    body: &'a OutBody,
    now: Timestamp,
    nonce: String,
}

impl fmt::Debug for HmacSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HmacSigner").finish_non_exhaustive()
    }
}

impl HmacSigner {
    /// `None` where the secret lacks a field, the key is not in its encoding, or a field could not stand in a header.
    pub(super) fn new(field: Option<&str>, wanted: &Hmac, secret: &Secret) -> Option<Self> {
        Self::of(wanted, secret.expose(field)?, |name| secret.expose(Some(name)))
    }

    fn of<'a>(wanted: &Hmac, written: &[u8], field: impl Fn(&str) -> Option<&'a [u8]>) -> Option<Self> {
        let algorithm = match wanted.algorithm {
            HmacAlgorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            HmacAlgorithm::Sha256 => hmac::HMAC_SHA256,
            HmacAlgorithm::Sha512 => hmac::HMAC_SHA512,
        };
        let key = key(wanted.key_encoding, written)?;
        let parts = |pieces: &[Piece]| -> Option<Vec<MessagePart>> {
            pieces.iter().map(|piece| MessagePart::of(piece, &field)).collect()
        };
        let header = |(name, pieces): &(String, Vec<Piece>)| {
            let parts = parts(pieces)?;
            let fits = |part: &MessagePart| match part {
                MessagePart::Text(text) => HeaderValue::from_bytes(text).is_ok(),
                MessagePart::Piece(_) => true,
            };
            parts.iter().all(fits).then_some((name.parse().ok()?, parts))
        };
        let (mut signed, mut last) = (Vec::new(), Vec::new());
        for (name, pieces) in &wanted.queries {
            let queries = if pieces.contains(&Piece::Signature) { &mut last } else { &mut signed };
            queries.push((name.as_str().into(), parts(pieces)?));
        }
        Some(Self {
            key: hmac::Key::new(algorithm, &key),
            encoding: wanted.encoding,
            message: parts(&wanted.message)?,
            headers: wanted.headers.iter().map(header).collect::<Option<_>>()?,
            queries: [signed, last],
        })
    }

    /// Signs a request that is otherwise complete, for `host` as the provider will read it; gives back `path` with its parameters.
    pub(super) fn sign(
        &self,
        request: &mut Request<OutBody>,
        path: PathAndQuery,
        host: &str,
        now: Timestamp,
    ) -> Result<PathAndQuery, Denial> {
        let mut random = [0; 16];
        rand::fill(&mut random).map_err(|_| bug("no random bytes"))?;
        let mut headers = std::mem::take(request.headers_mut());
        let call = SignedCall {
            method: request.method().as_str(),
            host,
            body: request.body(),
            now,
            nonce: hex(&random),
        };
        let [signed, last] = &self.queries;
        let path = with_queries(signed, path, &call, "")?;
        let signature = self.signature(&path, &call)?;
        let path = with_queries(last, path, &call, &signature)?;
        for (name, parts) in &self.headers {
            let value = form::header("", &written(parts, &call, &signature)?);
            put(&mut headers, name, value.ok_or_else(|| bug("a signed header cannot be written"))?)?;
        }
        *request.headers_mut() = headers;
        Ok(path)
    }

    fn signature(&self, path: &PathAndQuery, call: &SignedCall<'_>) -> Result<String, Denial> {
        let mut context = hmac::Context::with_key(&self.key);
        for part in &self.message {
            match part {
                MessagePart::Text(text) => context.update(text),
                MessagePart::Piece(Piece::Path) => context.update(path.path().as_bytes()),
                MessagePart::Piece(Piece::Target) => context.update(path.as_str().as_bytes()),
                MessagePart::Piece(Piece::Query) => {
                    context.update(path.query().unwrap_or_default().as_bytes());
                }
                MessagePart::Piece(Piece::Body) => context.update(call.bytes()?),
                MessagePart::Piece(piece) => context.update(call.said(piece, "")?.as_bytes()),
            }
        }
        let tag = context.sign();
        Ok(match self.encoding {
            SignatureEncoding::Hex => hex(tag.as_ref()),
            SignatureEncoding::Base64 => STANDARD.encode(tag.as_ref()),
        })
    }
}

impl MessagePart {
    fn of<'a>(piece: &Piece, field: impl Fn(&str) -> Option<&'a [u8]>) -> Option<Self> {
        Some(match piece {
            Piece::Text(text) => Self::Text(Zeroizing::new(text.as_bytes().to_vec())),
            Piece::Field(name) => Self::Text(Zeroizing::new(field(name)?.to_vec())),
            piece => Self::Piece(piece.clone()),
        })
    }
}

impl SignedCall<'_> {
    fn bytes(&self) -> Result<&[u8], Denial> {
        match self.body {
            OutBody::Whole(bytes) => Ok(bytes),
            _ => Err(bug("the body cannot be signed")),
        }
    }

    /// A piece that says something of the call in a few words.
    fn said<'a>(&'a self, piece: &Piece, signature: &'a str) -> Result<Cow<'a, str>, Denial> {
        let dated = |form: &str| Cow::Owned(self.now.strftime(form).to_string());
        Ok(match piece {
            Piece::Signature => signature.into(),
            Piece::Timestamp => self.now.as_second().to_string().into(),
            Piece::TimestampMillis => self.now.as_millisecond().to_string().into(),
            Piece::Date => dated("%a, %d %b %Y %H:%M:%S GMT"),
            Piece::DateTime => dated("%Y-%m-%dT%H:%M:%SZ"),
            Piece::DateTimeMillis => dated("%Y-%m-%dT%H:%M:%S.%3fZ"),
            Piece::Nonce => self.nonce.as_str().into(),
            Piece::Method => self.method.into(),
            Piece::Host => self.host.into(),
            Piece::BodySha256 => sha256(self.bytes()?).into(),
            Piece::BodySha256Base64 => {
                STANDARD.encode(digest::digest(&digest::SHA256, self.bytes()?).as_ref()).into()
            }
            Piece::Text(_) | Piece::Field(_) | Piece::Path | Piece::Target | Piece::Query | Piece::Body => {
                return Err(bug("a piece of a template is where it cannot be"));
            }
        })
    }
}

/// In a buffer that never grows: what it held before would stay behind.
fn written(
    parts: &[MessagePart],
    call: &SignedCall<'_>,
    signature: &str,
) -> Result<Zeroizing<Vec<u8>>, Denial> {
    let room = |part: &MessagePart| match part {
        MessagePart::Text(text) => text.len(),
        MessagePart::Piece(_) => LONGEST,
    };
    let mut value = Zeroizing::new(Vec::with_capacity(parts.iter().map(room).sum()));
    for part in parts {
        match part {
            MessagePart::Text(text) => value.extend_from_slice(text),
            MessagePart::Piece(piece) => value.extend_from_slice(call.said(piece, signature)?.as_bytes()),
        }
    }
    Ok(value)
}

fn with_queries(
    queries: &[(Box<str>, Vec<MessagePart>)],
    mut path: PathAndQuery,
    call: &SignedCall<'_>,
    signature: &str,
) -> Result<PathAndQuery, Denial> {
    for (name, parts) in queries {
        let pair = form::pair(name, &written(parts, call, signature)?);
        path = form::with_pair(&path, &pair).ok_or_else(|| bug("the query is too long"))?;
    }
    Ok(path)
}

fn key(encoding: KeyEncoding, written: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let key = match encoding {
        KeyEncoding::Raw => Zeroizing::new(written.to_vec()),
        KeyEncoding::Base64 => {
            let mut key = Zeroizing::new(vec![0; base64::decoded_len_estimate(written.len())]);
            let length = LENIENT.decode_slice(written, &mut key).ok()?;
            key.truncate(length);
            key
        }
        KeyEncoding::Hex => {
            let digit = |b: u8| char::from(b).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            let mut key = Zeroizing::new(Vec::with_capacity(written.len() / 2));
            for pair in written.chunks(2) {
                let [high, low] = pair else { return None };
                key.push(digit(*high)? << 4 | digit(*low)?);
            }
            key
        }
    };
    (!key.is_empty()).then_some(key)
}

#[cfg(test)]
mod tests;
