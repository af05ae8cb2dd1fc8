//! Digests, and bytes in hex, as signatures and versions write them.

use aws_lc_rs::digest;

/// SHA-256, in hex.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Lower-case digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = vec![0; bytes.len() * 2];
    crate::hex::encode(bytes, &mut text);
    String::from_utf8(text).unwrap_or_default()
}
