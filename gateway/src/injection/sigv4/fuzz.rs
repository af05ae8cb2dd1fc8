//! Bodies in signed chunks.

use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::Bytes;
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::chunks::{ChunkTrailer, Resigner};
use super::{AwsScope, SigV4Signer};
use crate::fuzz::input::{FuzzInput, cuts};
use crate::upstream::BodyRewriter;

const SIGNATURE: &str = "chunk-signature=";
const DIGITS: usize = 64;

/// However a body is cut, the same leaves: what came, with other signatures. What is refused has let go of whole chunks only.
///
/// In the input `~` stands for a signature of 64 digits behind `;chunk-signature=`, which nobody guesses.
pub fn sigv4_chunks(data: &[u8]) {
    let Some(input) = FuzzInput::of(data) else { return };
    let written = format!(";{SIGNATURE}{}", "0".repeat(DIGITS));
    let pieces = input.bytes.split(|byte| *byte == b'~').collect::<Vec<_>>();
    let body = pieces.join(written.as_bytes());
    let put_in = FuzzInput { how: input.how, lengths: input.lengths, bytes: &body };
    let trailer = if input.how % 2 == 0 { ChunkTrailer::Absent } else { ChunkTrailer::Signed };
    let [whole, cut, bytes] = cuts(&put_in, &body).map(|pieces| resigned(trailer, &pieces));
    assert_eq!(whole, cut);
    assert_eq!(whole, bytes);
    let (is_good, out) = whole;
    let (came, left) = (without_signatures(&body), without_signatures(&out));
    if is_good {
        assert_eq!(out.len(), body.len());
        assert_eq!(came, left);
    } else {
        assert!(came.starts_with(&left), "what left is the beginning of what came");
    }
    if trailer == ChunkTrailer::Absent {
        assert_eq!(is_good, is_well_formed(&body));
    }
}

/// Whether it was taken, and what left.
fn resigned(trailer: ChunkTrailer, pieces: &[&[u8]]) -> (bool, Vec<u8>) {
    let signer = SigV4Signer {
        id: Zeroizing::new("AKIAIOSFODNN7EXAMPLE".to_owned()),
        secret: Zeroizing::new(b"nobody's".to_vec()),
        token: None,
        keys: Mutex::default(),
    };
    let scope = AwsScope { region: "us-east-1".into(), service: "s3".into() };
    let stamp = signer.stamp(&scope, Timestamp::UNIX_EPOCH);
    assert!(stamp.is_ok());
    let Ok(stamp) = stamp else { return (false, Vec::new()) };
    let mut by = Resigner::new(stamp, "0".repeat(DIGITS), trailer);
    let mut out = VecDeque::new();
    let fed = pieces.iter().all(|piece| by.feed(Bytes::copy_from_slice(piece), &mut out).is_ok());
    (fed && by.end().is_ok(), out.iter().flatten().copied().collect())
}

fn without_signatures(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = body;
    while let Some(at) = memchr::memmem::find(rest, b"-signature") {
        let behind = at + "-signature".len() + 1;
        out.extend_from_slice(rest.get(..behind).unwrap_or(rest));
        let digits = rest.get(behind..).unwrap_or_default();
        let length = digits.iter().take(DIGITS).take_while(|byte| byte.is_ascii_hexdigit()).count();
        rest = digits.get(length..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

/// The grammar, read with the body held whole: chunks, a last one of no bytes, and an empty line.
fn is_well_formed(body: &[u8]) -> bool {
    let mut rest = body;
    loop {
        let Some(end) = memchr::memmem::find(rest, b"\n") else { return false };
        let (line, behind) = rest.split_at(end + 1);
        let line = line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok());
        let Some((size, signature)) = line.and_then(|line| line.split_once(&format!(";{SIGNATURE}"))) else {
            return false;
        };
        let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_signed = signature.len() == DIGITS && is_hex(signature);
        let length = usize::from_str_radix(size, 16).ok().filter(|length| *length <= 8 << 20);
        let Some(length) = length.filter(|_| is_signed && is_hex(size) && size.len() <= 8) else {
            return false;
        };
        if length == 0 {
            return behind == b"\r\n";
        }
        let Some((_, behind)) = behind.split_at_checked(length) else { return false };
        let Some(behind) = behind.strip_prefix(b"\r\n") else { return false };
        rest = behind;
    }
}
