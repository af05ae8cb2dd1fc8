//! Requests that are signed with an HMAC, as templates say: what is signed, and where the signature is put.

use crate::model::nearest;

/// How requests are signed. The key is the field that the [`super::Injection`] names, and never leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hmac {
    /// The hash.
    pub algorithm: HmacAlgorithm,
    /// How the key is written in its store.
    pub key_encoding: KeyEncoding,
    /// What is signed; never the same for all calls, and without the signature.
    pub message: Vec<Piece>,
    /// How the signature is written.
    pub encoding: SignatureEncoding,
    /// Headers by their names in lower case.
    pub headers: Vec<(String, Vec<Piece>)>,
    /// Parameters by their names. Those without the signature are there before it is made.
    pub queries: Vec<(String, Vec<Piece>)>,
}

/// The hash of an HMAC (RFC 2104).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HmacAlgorithm {
    /// SHA-1, where a provider has no other.
    Sha1,
    /// SHA-256.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

/// How a signing key is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyEncoding {
    /// As it is.
    #[default]
    Raw,
    /// In standard base64, with padding or without.
    Base64,
    /// In hex.
    Hex,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SignatureEncoding {
    /// In lower case.
    #[default]
    Hex,
    /// Standard, with padding.
    Base64,
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// As it stands.
    Text(String),
    /// A field of the secret.
    Field(String),
    /// The signature, in its encoding.
    Signature,
    /// Seconds since 1970.
    Timestamp,
    /// Milliseconds since 1970.
    TimestampMillis,
    /// `Tue, 24 Nov 2026 20:58:00 GMT` (RFC 9110, section 5.6.7).
    Date,
    /// `2026-11-24T20:58:00Z` (RFC 3339).
    DateTime,
    /// `2026-11-24T20:58:00.123Z`.
    DateTimeMillis,
    /// 128 random bits in hex, others for every attempt.
    Nonce,
    /// The method.
    Method,
    /// The host as it is sent, with a port other than 443.
    Host,
    /// The path as it is sent.
    Path,
    /// The path and, if there is a query, `?` and the query.
    Target,
    /// The query as it is sent, but for parameters that have the signature; empty if there is none.
    Query,
    /// The body.
    Body,
    /// SHA-256 of the body, in hex.
    BodySha256,
    /// SHA-256 of the body, in base64.
    BodySha256Base64,
}

/// The text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("there is no piece `{{{0}}}`; {1}")]
    Unknown(String, String),
    #[error(
        "a brace is not closed or was not opened: pieces are written `{{name}}`, braces themselves twice"
    )]
    Brace,
    #[error("`{{field:}}` needs the name of a field")]
    NoField,
}

impl Piece {
    const WORDS: [(&str, Self); 15] = [
        ("signature", Self::Signature),
        ("timestamp", Self::Timestamp),
        ("timestampMillis", Self::TimestampMillis),
        ("date", Self::Date),
        ("dateTime", Self::DateTime),
        ("dateTimeMillis", Self::DateTimeMillis),
        ("nonce", Self::Nonce),
        ("method", Self::Method),
        ("host", Self::Host),
        ("path", Self::Path),
        ("target", Self::Target),
        ("query", Self::Query),
        ("body", Self::Body),
        ("bodySha256", Self::BodySha256),
        ("bodySha256Base64", Self::BodySha256Base64),
    ];

    /// The pieces of `text`, in their order.
    pub(crate) fn all_of(text: &str) -> Result<Vec<Self>, TemplateError> {
        let (mut pieces, mut plain) = (Vec::new(), String::new());
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
                plain.push_str(&from[..1]);
                rest = after;
                continue;
            }
            let inner = from.strip_prefix('{').and_then(|from| from.split_once('}'));
            let (word, after) = inner.ok_or(TemplateError::Brace)?;
            if !plain.is_empty() {
                pieces.push(Self::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Self::of(word)?);
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Self::Text(plain));
        }
        Ok(pieces)
    }

    fn of(word: &str) -> Result<Self, TemplateError> {
        if let Some(field) = word.strip_prefix("field:") {
            let named = (!field.is_empty()).then(|| Self::Field(field.to_owned()));
            return named.ok_or(TemplateError::NoField);
        }
        if let Some((_, piece)) = Self::WORDS.iter().find(|(known, _)| *known == word) {
            return Ok(piece.clone());
        }
        let words = || Self::WORDS.iter().map(|(word, _)| *word);
        let help = match nearest(word, words()) {
            Some(near) => format!("did you mean `{{{near}}}`?"),
            None => format!("there are field:NAME, {}", words().collect::<Vec<_>>().join(", ")),
        };
        Err(TemplateError::Unknown(word.chars().take(80).collect(), help))
    }

    /// The word that stands for it in a template; empty where it stands for itself.
    pub(crate) fn word(&self) -> &'static str {
        Self::WORDS.iter().find(|(_, piece)| piece == self).map_or("", |(word, _)| word)
    }

    /// Whether it may differ from one call to the next of the same kind.
    pub(crate) const fn varies(&self) -> bool {
        !matches!(self, Self::Text(_) | Self::Field(_) | Self::Signature | Self::Method | Self::Host)
    }

    /// Whether it is read off the request, and said there already.
    pub(crate) const fn is_said(&self) -> bool {
        matches!(self, Self::Method | Self::Host | Self::Path | Self::Target | Self::Query | Self::Body)
    }

    const fn reads_body(&self) -> bool {
        matches!(self, Self::Body | Self::BodySha256 | Self::BodySha256Base64)
    }

    fn field(&self) -> Option<&str> {
        match self {
            Self::Field(name) => Some(name),
            _ => None,
        }
    }
}

impl Hmac {
    /// The pieces of everything that is put on the call.
    pub(crate) fn placed(&self) -> impl Iterator<Item = &Piece> {
        self.headers.iter().chain(&self.queries).flat_map(|(_, pieces)| pieces)
    }

    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.message.iter().chain(self.placed())
    }

    /// The fields of the secret that its templates name.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.pieces().filter_map(Piece::field)
    }

    /// Whether a field of the secret goes on the wire.
    pub fn sends_field(&self) -> bool {
        self.placed().any(|piece| piece.field().is_some())
    }

    /// Whether it takes the body to sign a request.
    pub fn reads_body(&self) -> bool {
        self.pieces().any(Piece::reads_body)
    }

    /// Whether what it puts on a call is good for another host: it sends a part of the secret, or does not sign the host.
    pub(crate) fn is_reusable(&self) -> bool {
        self.sends_field() || !self.message.contains(&Piece::Host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_text_and_pieces_in_their_order() {
        let text = |text: &str| Piece::Text(text.to_owned());
        assert_eq!(
            Piece::all_of("t={timestamp},v1={signature}").unwrap(),
            [text("t="), Piece::Timestamp, text(",v1="), Piece::Signature]
        );
        assert_eq!(
            Piece::all_of("{field:a b}{{{body}}}\n").unwrap(),
            [Piece::Field("a b".to_owned()), text("{"), Piece::Body, text("}\n")]
        );
        assert_eq!(Piece::all_of("").unwrap(), []);
    }

    #[test]
    fn what_is_no_template_is_said() {
        let error = |text: &str| Piece::all_of(text).unwrap_err().to_string();
        assert_eq!(error("{bodySha265}"), "there is no piece `{bodySha265}`; did you mean `{bodySha256}`?");
        assert!(error("{clock of the caller}").ends_with("query, body, bodySha256, bodySha256Base64"));
        assert!(error("{field:}").contains("name of a field"));
        for open in ["{body", "body}", "{", "}", "a{{b}"] {
            assert!(error(open).contains("brace"), "{open}");
        }
    }
}
