//! Bodies that may hold a key.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use percent_encoding::percent_decode;

use super::needles::{Needles, Pair};
use super::stream::Scrubber;
use crate::fuzz::input::{FuzzInput, cuts};

/// Keys that are nobody's, of different classes; the last one is the password of a pair.
const KEYS: [&[u8]; 4] = [
    b"sk-live/0123+456789=abc",
    b"0123456789abcdef0123456789abcdef",
    b"a key, with \"marks\" & more",
    b"k/0123+45=ab",
];
const USER: &[u8] = b"me:";

/// A key does not come out in any form that is looked for, however the body is cut; every other byte comes out as it came, and none is
/// looked at more than a few times.
///
/// How: the key (2 bits), the form in which it is put into the body (4 bits), and where (2 bits).
pub fn scrub(data: &[u8]) {
    let Some(input) = FuzzInput::of(data) else { return };
    let key = KEYS[usize::from(input.how & 3)];
    let form = form(key, input.how >> 2 & 15, input.lengths);
    let at = input.bytes.len() * usize::from(input.how >> 6) / 3;
    let (before, after) = input.bytes.split_at(at);
    let body = [before, &form, after].concat();
    let needles = needles(key);
    let put_in = FuzzInput { how: input.how, lengths: input.lengths, bytes: &body };
    let [whole, cut, bytes] = cuts(&put_in, &body).map(|pieces| scrubbed(&needles, &pieces));
    assert_eq!(String::from_utf8_lossy(&whole), String::from_utf8_lossy(&cut));
    assert_eq!(String::from_utf8_lossy(&whole), String::from_utf8_lossy(&bytes));
    assert_eq!(whole.len(), body.len());
    assert!(
        whole.iter().zip(&body).all(|(out, came)| out == came || *out == b'*'),
        "nothing else is written"
    );
    for reading in readings(&whole) {
        assert!(!holds(&reading, key), "{}", String::from_utf8_lossy(&whole));
    }
    let has_marks = body.iter().any(|byte| b"%\\&".contains(byte));
    assert!(whole == body || has_marks || holds(&body, key), "{}", String::from_utf8_lossy(&body));
}

fn needles(key: &[u8]) -> Arc<Needles> {
    if key != KEYS[3] {
        return Arc::new(Needles::new(&[key], &[]));
    }
    let pair = [USER, key].concat();
    let encoded = STANDARD.encode(&pair);
    Arc::new(Needles::new(&[key], &[Pair { secret: key, text: &pair, encoded: encoded.as_bytes() }]))
}

fn scrubbed(needles: &Arc<Needles>, pieces: &[&[u8]]) -> Vec<u8> {
    let Some(mut scrubber) = Scrubber::new(Arc::clone(needles)) else { return Vec::new() };
    let mut out = Vec::new();
    for piece in pieces {
        scrubber.feed(Bytes::copy_from_slice(piece), false);
        while let Some(bytes) = scrubber.pop() {
            out.extend_from_slice(&bytes);
        }
    }
    scrubber.finish();
    while let Some(bytes) = scrubber.pop() {
        out.extend_from_slice(&bytes);
    }
    assert_eq!(scrubber.waiting(), 0);
    assert!(scrubber.searched <= 4 * out.len(), "{} of {}", scrubber.searched, out.len());
    out
}

/// The key in a form that an encoder may give it; which of its bytes are escaped is chosen by `choices`.
fn form(key: &[u8], which: u8, choices: &[u8]) -> Vec<u8> {
    let escaped = |escape: fn(u8) -> String| -> Vec<u8> {
        let mut choices = choices.iter().copied().cycle();
        let mut write = |byte: &u8| match byte.is_ascii_alphanumeric()
            && choices.next().is_some_and(|choice| choice % 2 == 0)
        {
            true => vec![*byte],
            false => escape(*byte).into_bytes(),
        };
        key.iter().flat_map(&mut write).collect()
    };
    match which {
        0 => Vec::new(),
        1 => key.to_vec(),
        2 => escaped(|byte| format!("%{byte:02x}")),
        3 => escaped(|byte| format!("%{byte:02X}")),
        4 => escaped(|byte| format!("%25{byte:02x}")),
        5 => escaped(|byte| format!("\\u{byte:04x}")),
        6 => escaped(|byte| format!("\\\\u{byte:04X}")),
        7 => escaped(|byte| format!("&#{byte};")),
        8 => escaped(|byte| format!("&#x{byte:x};")),
        9 => hex(key).into_bytes(),
        10 => hex(key).to_uppercase().into_bytes(),
        11 => STANDARD.encode(key).into_bytes(),
        12 => URL_SAFE_NO_PAD.encode([b"u", key].concat()).into_bytes(),
        13 => STANDARD_NO_PAD.encode([b"us", key, b"tail"].concat()).into_bytes(),
        14 => STANDARD.encode([USER, key].concat()).into_bytes(),
        _ => escaped(|byte| format!("&#{byte};"))
            .iter()
            .flat_map(|byte| match byte {
                b'&' | b'#' | b';' => format!("%{byte:02X}").into_bytes(),
                other => vec![*other],
            })
            .collect(),
    }
}

fn hex(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a text has the key raw, in hex or, but for the characters that may hold bits of its neighbours, in base64 at any offset.
fn holds(text: &[u8], key: &[u8]) -> bool {
    let has = |needle: &[u8]| memchr::memmem::find(text, needle).is_some();
    let base64 = [STANDARD_NO_PAD, URL_SAFE_NO_PAD].iter().any(|alphabet| {
        let encoded = |before: &[u8], skipped: usize| {
            let whole = alphabet.encode([before, key].concat()).into_bytes();
            let whole_characters = (before.len() + key.len()) * 8 / 6;
            whole.get(skipped..whole_characters).is_some_and(has)
        };
        encoded(b"", 0) || encoded(b"u", 2) || encoded(b"us", 3)
    });
    has(key) || has(hex(key).as_bytes()) || has(hex(key).to_uppercase().as_bytes()) || base64
}

/// Undoes one kind of escape.
type Undo = fn(&[u8]) -> Vec<u8>;

/// The text, and what readers make of it who undo one kind of escape once, or twice.
fn readings(text: &[u8]) -> Vec<Vec<u8>> {
    let undo: [Undo; 3] = [|text| percent_decode(text).collect(), json, html];
    let mut readings = vec![text.to_vec()];
    for once in undo {
        let text = once(text);
        readings.push(once(&text));
        readings.push(text);
    }
    readings
}

fn json(text: &[u8]) -> Vec<u8> {
    replaced(text, b'\\', |rest| match rest.first()? {
        b'u' => {
            let digits = std::str::from_utf8(rest.get(1..5)?).ok()?;
            u8::try_from(u16::from_str_radix(digits, 16).ok()?).ok().map(|byte| (byte, 5))
        }
        byte @ (b'"' | b'\\' | b'/') => Some((*byte, 1)),
        _ => None,
    })
}

fn html(text: &[u8]) -> Vec<u8> {
    replaced(text, b'&', |rest| {
        let end = rest.iter().take(8).position(|byte| *byte == b';')?;
        let number = std::str::from_utf8(rest.get(..end)?).ok()?.strip_prefix('#')?;
        let byte = match number.strip_prefix('x') {
            Some(digits) => u8::from_str_radix(digits, 16).ok()?,
            None => number.parse().ok()?,
        };
        Some((byte, end + 1))
    })
}

/// Puts a byte in the place of each escape: `read` gives it for what follows the mark, and how long that is.
fn replaced(text: &[u8], mark: u8, read: impl Fn(&[u8]) -> Option<(u8, usize)>) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let (byte, length) = if *first == mark { read(behind).unwrap_or((*first, 0)) } else { (*first, 0) };
        out.push(byte);
        rest = &behind[length..];
    }
    out
}
