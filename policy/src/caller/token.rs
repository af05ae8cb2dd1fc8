//! Whom a JWT is about: its issuer and its subject.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;

use super::IdentityError;

/// What of a subject stands for itself in the text of a [`TokenSubject`]; all else is escaped, `*` and `#` included.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'/')
    .remove(b'@')
    .remove(b'|')
    .remove(b'+')
    .remove(b'=');

/// The issuer and the subject of a JWT (RFC 7519, sections 4.1.1 and 4.1.2), written `jwt:ISSUER#SUBJECT`. Cheap to clone.
///
/// Whatever of the subject is no letter, digit or one of `-._~:/@|+=` is percent-encoded there, as UTF-8 and in upper case.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TokenSubject(Arc<str>);

/// The `iss` of tokens: 1 to 512 letters, digits and `-._~:/@%`. Cheap to clone; equal bytes are the only equal issuers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Issuer(Arc<str>);

/// Why a text is no issuer or no subject of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Empty, longer than 512 bytes, or with a character outside the set: a query, a fragment or a wildcard included.
    #[error(
        "an issuer is 1 to 512 letters, digits and `-._~:/@%`, as in `https://issuer.example`, without a wildcard"
    )]
    Issuer,
    /// Empty, or longer than 255 bytes (OpenID Connect Core 1.0, section 2).
    #[error("the subject of a token has 1 to 255 bytes")]
    Subject,
    /// Not written as [`TokenSubject`] writes it.
    #[error(
        "a token's subject is written `jwt:ISSUER#SUBJECT`, where all but letters, digits and `-._~:/@|+=` is percent-encoded in upper case"
    )]
    Text,
}

impl Issuer {
    /// The `iss` itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Issuer {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let valid = (1..=512).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~:/@%".contains(&b));
        if valid { Ok(Self(text.into())) } else { Err(TokenError::Issuer) }
    }
}

impl TryFrom<String> for Issuer {
    type Error = TokenError;

    fn try_from(text: String) -> Result<Self, TokenError> {
        text.parse()
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `subject`, or the beginning of one, as the text of an identity has it. What begins with another still does so there.
pub(crate) fn escaped(subject: &str) -> String {
    utf8_percent_encode(subject, ESCAPED).to_string()
}

/// Whether a token may have a subject of this many bytes.
pub(crate) fn check_subject(subject: &str) -> Result<(), TokenError> {
    if (1..=255).contains(&subject.len()) { Ok(()) } else { Err(TokenError::Subject) }
}

impl TokenSubject {
    pub(crate) const SCHEME: &str = "jwt:";

    /// Whom a token of `issuer` is about, `subject` being its `sub`.
    ///
    /// # Errors
    /// [`TokenError::Subject`] where it is empty or too long.
    pub fn new(issuer: &Issuer, subject: &str) -> Result<Self, TokenError> {
        check_subject(subject)?;
        Ok(Self(format!("{}{issuer}#{}", Self::SCHEME, escaped(subject)).into()))
    }

    /// The issuer that vouches for it.
    pub fn issuer(&self) -> &str {
        self.parts().0
    }

    /// The subject as it is written in the whole identity.
    pub fn escaped_subject(&self) -> &str {
        self.parts().1
    }

    /// The whole identity, `jwt:…`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parts(&self) -> (&str, &str) {
        self.0.get(Self::SCHEME.len()..).and_then(|rest| rest.split_once('#')).unwrap_or_default()
    }
}

impl FromStr for TokenSubject {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let rest = text.strip_prefix(Self::SCHEME).ok_or(IdentityError::Scheme)?;
        let (issuer, subject) = rest.split_once('#').ok_or(TokenError::Text)?;
        let subject = percent_decode_str(subject).decode_utf8().map_err(|_| TokenError::Text)?;
        let read = Self::new(&issuer.parse()?, &subject)?;
        if read.as_str() == text { Ok(read) } else { Err(TokenError::Text.into()) }
    }
}

impl fmt::Display for TokenSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TokenSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(issuer: &str, subject: &str) -> Result<TokenSubject, TokenError> {
        TokenSubject::new(&issuer.parse()?, subject)
    }

    #[test]
    fn issuer_and_subject_stand_in_one_text() {
        for (sub, text) in [
            (
                "repo:acme/shop:ref:refs/heads/main",
                "jwt:https://ci.example#repo:acme/shop:ref:refs/heads/main",
            ),
            ("auth0|0123", "jwt:https://ci.example#auth0|0123"),
            ("a#b*c d%", "jwt:https://ci.example#a%23b%2Ac%20d%25"),
            ("é\u{1b}[31m", "jwt:https://ci.example#%C3%A9%1B%5B31m"),
        ] {
            let token = subject("https://ci.example", sub).unwrap();
            assert_eq!(token.as_str(), text);
            assert_eq!(token.issuer(), "https://ci.example");
            assert_eq!(text.parse::<TokenSubject>().unwrap(), token);
        }
    }

    #[test]
    fn an_issuer_has_nothing_that_could_end_it_or_stand_for_several() {
        for issuer in [
            "",
            "https://a.example/#x",
            "https://a.example/?x",
            "https://*.example",
            "a b",
            "é",
            &"a".repeat(513),
        ] {
            assert_eq!(subject(issuer, "x").unwrap_err(), TokenError::Issuer, "{issuer}");
        }
        for sub in ["", &"a".repeat(256)] {
            assert_eq!(subject("https://a.example", sub).unwrap_err(), TokenError::Subject, "{sub}");
        }
    }

    #[test]
    fn an_identity_has_no_second_spelling() {
        for text in [
            "jwt:a",
            "jwt:#b",
            "jwt:a#",
            "jwt:a#b c",
            "jwt:a#b#c",
            "jwt:a#%c3%a9",
            "jwt:a#%61",
            "jwt:a#%",
            "jwt:a#%FF",
            "JWT:a#b",
        ] {
            assert!(text.parse::<TokenSubject>().is_err(), "{text}");
        }
    }
}
