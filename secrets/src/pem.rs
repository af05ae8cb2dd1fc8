//! Private keys in PEM (RFC 7468), decoded here because the parsers of TLS libraries leave copies of them behind.
//!
//! **Invariant:** all that is made of the text is in buffers that are zeroized.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// In which form a key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// `PRIVATE KEY` (RFC 5958).
    Pkcs8,
    /// `RSA PRIVATE KEY` (RFC 8017).
    Pkcs1,
    /// `EC PRIVATE KEY` (RFC 5915).
    Sec1,
}

const LABELS: [(Label, &str, &str); 3] = [
    (Label::Pkcs8, "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"),
    (Label::Pkcs1, "-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"),
    (Label::Sec1, "-----BEGIN EC PRIVATE KEY-----", "-----END EC PRIVATE KEY-----"),
];

/// The first private key of a text, in DER; `None` where there is none, or a passphrase protects it.
#[must_use]
pub fn private_key(pem: &[u8]) -> Option<(Label, Zeroizing<Vec<u8>>)> {
    let text = std::str::from_utf8(pem).ok()?;
    let (label, inner) = LABELS.iter().find_map(|(label, begin, end)| {
        let (_, rest) = text.split_once(begin)?;
        Some((*label, rest.split_once(end)?.0))
    })?;
    let mut packed = Zeroizing::new(Vec::with_capacity(inner.len()));
    packed.extend(inner.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    let mut der = Zeroizing::new(vec![0; packed.len().div_ceil(4) * 3]);
    let length = STANDARD.decode_slice(&*packed, &mut der).ok()?;
    der.truncate(length);
    Some((label, der))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_label_among_other_text() {
        for (label, word) in [(Label::Pkcs8, ""), (Label::Pkcs1, "RSA "), (Label::Sec1, "EC ")] {
            let text = format!(
                "a key:\r\n-----BEGIN {word}PRIVATE KEY-----\r\na2\r\n V5\n-----END {word}PRIVATE KEY-----"
            );
            let (found, der) = private_key(text.as_bytes()).unwrap();
            assert_eq!((found, der.as_slice()), (label, b"key".as_slice()));
        }
    }

    #[test]
    fn what_is_cut_garbled_or_protected_is_no_key() {
        let framed =
            |label: &str, inner: &str| format!("-----BEGIN {label}-----\n{inner}\n-----END {label}-----");
        for text in [
            String::new(),
            framed("ENCRYPTED PRIVATE KEY", "a2V5"),
            framed("CERTIFICATE", "a2V5"),
            framed("PRIVATE KEY", "a2V*"),
            framed("PRIVATE KEY", "a2V5a"),
            framed("PRIVATE KEY", "a2V5").replace("-----END", "-----"),
        ] {
            assert!(private_key(text.as_bytes()).is_none(), "{text}");
        }
        assert!(private_key(b"\xff-----BEGIN PRIVATE KEY-----a2V5-----END PRIVATE KEY-----").is_none());
    }
}
