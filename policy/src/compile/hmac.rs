//! HMAC signatures: templates that are whole, sign what differs from call to call, and put it where it cannot break the message; never the
//! key that signs.

use std::collections::BTreeMap;

use super::Scope;
use super::placement::{check_header, check_parameter};
use crate::model::{HmacSpec, HmacWord, KeyEncodingWord, SignatureWord};
use crate::resource::{Hmac, HmacAlgorithm, Injection, Key, KeyEncoding, Piece, SignatureEncoding};

pub(super) fn hmac(path: &str, written: &HmacSpec, scope: &mut Scope<'_>) -> Option<Hmac> {
    let message = message(&format!("{path}.message"), written, scope);
    let header = |name: &str| {
        let name = name.to_ascii_lowercase();
        check_header(&name).map_err(|message| format!("`{name}` {message}"))?;
        Ok(name)
    };
    let headers = placed(&format!("{path}.headers"), &written.headers, header, scope);
    let parameter = |name: &str| check_parameter(name).map(|()| name.to_owned()).map_err(str::to_owned);
    let queries = placed(&format!("{path}.query"), &written.query, parameter, scope);
    let (message, headers, queries) = (message?, headers?, queries?);
    let hmac = Hmac {
        algorithm: written.algorithm.map(Into::into).unwrap_or_default(),
        key_encoding: written.key_encoding.map(Into::into).unwrap_or_default(),
        message,
        encoding: written.encoding.map(Into::into).unwrap_or_default(),
        headers,
        queries,
    };
    if !hmac.placed().any(|piece| *piece == Piece::Signature) {
        scope.problem(
            path,
            "the signature is put nowhere: `{signature}` has to stand in `headers` or `query`",
        );
    }
    if hmac.message.contains(&Piece::Nonce) && !hmac.placed().any(|piece| *piece == Piece::Nonce) {
        let message = "`{nonce}` is signed and sent nowhere, so that nobody could check the signature";
        scope.problem(&format!("{path}.message"), message);
    }
    Some(hmac)
}

fn message(path: &str, written: &HmacSpec, scope: &mut Scope<'_>) -> Option<Vec<Piece>> {
    let what = "what is signed, as in `\"{timestamp}{method}{target}{body}\"`";
    let text = scope.required(path, written.message.as_ref(), what)?;
    let pieces = pieces(path, text, scope)?;
    if pieces.contains(&Piece::Signature) {
        scope.problem(path, "the signature is made of this, and cannot be in it");
    } else if !pieces.iter().any(Piece::varies) {
        let message = "this is the same for every call, and so would be the signature: sign a time, the path, the query or the body";
        scope.problem(path, message);
    }
    Some(pieces)
}

/// The key that signs is put nowhere. Signed it may be: no message can be had back from its signature.
pub(super) fn check_key(path: &str, injection: &Injection, keys: &[Key], scope: &mut Scope<'_>) {
    let Some(hmac) = injection.hmac() else { return };
    let signs = |field: &str| match &injection.field {
        Some(key) => key == field,
        None => keys.iter().any(|key| matches!(&*key.from.fields, [only] if only == field)),
    };
    for (part, placed) in [("headers", &hmac.headers), ("query", &hmac.queries)] {
        let fields = placed.iter().flat_map(|(name, pieces)| pieces.iter().map(move |piece| (name, piece)));
        for (name, piece) in fields {
            if let Piece::Field(field) = piece
                && signs(field)
            {
                let message = format!(
                    "`{name}` would send `{field}`, the key that signs: put `{{signature}}` there, or another field"
                );
                scope.problem(&format!("{path}.hmac.{part}"), message);
            }
        }
    }
}

/// The templates by the names that `name` makes of those written; not the same one twice.
fn placed(
    path: &str,
    written: &BTreeMap<String, String>,
    name: impl Fn(&str) -> Result<String, String>,
    scope: &mut Scope<'_>,
) -> Option<Vec<(String, Vec<Piece>)>> {
    let before = scope.problems.len();
    let mut placed: Vec<(String, Vec<Piece>)> = Vec::new();
    for (key, text) in written {
        let path = format!("{path}.{key}");
        let pieces = pieces(&path, text, scope);
        match name(key) {
            Err(message) => scope.problem(&path, message),
            Ok(name) if placed.iter().any(|(other, _)| same(other, &name)) => {
                scope.problem(&path, format!("`{name}` is named twice"));
            }
            Ok(name) => {
                if let Some(pieces) = pieces {
                    check_value(&path, &pieces, scope);
                    placed.push((name, pieces));
                }
            }
        }
    }
    (scope.problems.len() == before).then_some(placed)
}

/// Many read `_` as `-`.
fn same(one: &str, other: &str) -> bool {
    one.replace('_', "-").eq_ignore_ascii_case(&other.replace('_', "-"))
}

/// What the request says already, its receiver reads there.
fn check_value(path: &str, pieces: &[Piece], scope: &mut Scope<'_>) {
    if pieces.is_empty() {
        scope.problem(path, "this is empty");
    }
    if pieces.iter().any(Piece::is_said) {
        let message =
            "method, host, path, query and body are in the request already: they are for `message` alone";
        scope.problem(path, message);
    }
    let is_plain = |text: &String| text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    let is_fixed = |piece: &Piece| matches!(piece, Piece::Text(text) if !is_plain(text));
    let is_padded =
        |piece: Option<&Piece>, at: fn(&str) -> bool| matches!(piece, Some(Piece::Text(text)) if at(text));
    if pieces.iter().any(is_fixed)
        || is_padded(pieces.first(), |text| text.starts_with(' '))
        || is_padded(pieces.last(), |text| text.ends_with(' '))
    {
        scope.problem(path, "the text of a value is visible ASCII, without spaces at its ends");
    }
}

fn pieces(path: &str, text: &str, scope: &mut Scope<'_>) -> Option<Vec<Piece>> {
    match Piece::all_of(text) {
        Ok(pieces) => Some(pieces),
        Err(error) => {
            scope.problem(path, error.to_string());
            None
        }
    }
}

impl From<HmacWord> for HmacAlgorithm {
    fn from(word: HmacWord) -> Self {
        match word {
            HmacWord::Sha1 => Self::Sha1,
            HmacWord::Sha256 => Self::Sha256,
            HmacWord::Sha512 => Self::Sha512,
        }
    }
}

impl From<KeyEncodingWord> for KeyEncoding {
    fn from(word: KeyEncodingWord) -> Self {
        match word {
            KeyEncodingWord::Raw => Self::Raw,
            KeyEncodingWord::Base64 => Self::Base64,
            KeyEncodingWord::Hex => Self::Hex,
        }
    }
}

impl From<SignatureWord> for SignatureEncoding {
    fn from(word: SignatureWord) -> Self {
        match word {
            SignatureWord::Hex => Self::Hex,
            SignatureWord::Base64 => Self::Base64,
        }
    }
}
