//! The size of an image, read from the head of its base64.
//!
//! Only what every decoder goes by is read: where that is further in than a few hops, or anything is unusual, the size is unknown.
//!
//! Formats: PNG (W3C PNG, 11.2.1), JPEG (ITU-T T.81, B.2.2), GIF (GIF89a, 18 to 20), WebP (RFC 9649).

use std::cell::Cell;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Segments and blocks that are passed over before the size is.
const HOPS: usize = 128;

/// Standard base64, whether its padding is there or not.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Width and height in pixels.
pub(super) fn size(base64: &str) -> Option<(u32, u32)> {
    let read = Cell::new(0);
    let file = File(base64.as_bytes(), &read);
    let size = sides(file)?;
    // Whoever passes over what is no base64 would read another file.
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    base64.as_bytes().iter().take(read.get()).all(is_plain).then_some(size)
}

fn sides(file: File<'_>) -> Option<(u32, u32)> {
    match file.bytes::<4>(0)? {
        [0x89, b'P', b'N', b'G'] => png(file),
        [0xff, 0xd8, ..] => jpeg(file),
        [b'G', b'I', b'F', b'8'] => gif(file),
        [b'R', b'I', b'F', b'F'] => webp(file),
        _ => None,
    }
}

/// A file of which any byte can be read without decoding the rest, and how many characters were gone over for it.
#[derive(Clone, Copy)]
struct File<'a>(&'a [u8], &'a Cell<usize>);

impl File<'_> {
    fn bytes<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        for (offset, byte) in bytes.iter_mut().enumerate() {
            *byte = self.byte(at.checked_add(offset)?)?;
        }
        Some(bytes)
    }

    fn byte(self, at: usize) -> Option<u8> {
        let quantum = (at / 3).checked_mul(4)?;
        let group = self.0.get(quantum..)?;
        self.1.set(self.1.get().max(quantum + 4));
        let mut three = [0; 3];
        let length = BASE64.decode_slice(group.get(..4).unwrap_or(group), &mut three).ok()?;
        three.get(..length)?.get(at % 3).copied()
    }

    fn little(self, at: usize) -> Option<u32> {
        self.bytes(at).map(|two| u32::from(u16::from_le_bytes(two)))
    }

    fn big(self, at: usize) -> Option<u32> {
        self.bytes(at).map(|two| u32::from(u16::from_be_bytes(two)))
    }
}

fn png(file: File<'_>) -> Option<(u32, u32)> {
    let is_first = file.bytes(12)? == *b"IHDR";
    let side = |at| file.bytes(at).map(u32::from_be_bytes);
    is_first.then_some((side(16)?, side(20)?))
}

fn jpeg(file: File<'_>) -> Option<(u32, u32)> {
    let mut at = 2;
    for _ in 0..HOPS {
        let [mark, kind] = file.bytes(at)?;
        match (mark, kind) {
            (0xff, 0xff) => at += 1,
            (0xff, 0x01 | 0xd0..=0xd7) => at += 2,
            // Start of a frame; three of these codes are tables.
            (0xff, 0xc0..=0xcf) if !matches!(kind, 0xc4 | 0xc8 | 0xcc) => {
                let (height, width) = (file.big(at + 5)?, file.big(at + 7)?);
                return (height > 0).then_some((width, height));
            }
            (0xff, 0xda) => return None,
            (0xff, 0xc0..) => at += 2 + file.big(at + 2)? as usize,
            _ => return None,
        }
    }
    None
}

/// A decoder may make the screen as large as its first picture.
fn gif(file: File<'_>) -> Option<(u32, u32)> {
    let screen = (file.little(6)?, file.little(8)?);
    let table = |packed: u8| if packed & 0x80 == 0 { 0 } else { 3 << ((packed & 7) + 1) };
    let mut at = 13 + table(file.byte(10)?);
    let mut is_block = false;
    for _ in 0..HOPS {
        match (is_block, file.byte(at)?) {
            (true, 0) => (is_block, at) = (false, at + 1),
            (true, length) => at += 1 + usize::from(length),
            (false, 0x21) => (is_block, at) = (true, at + 2),
            (false, 0x2c) => {
                let width = file.little(at + 1)? + file.little(at + 5)?;
                let height = file.little(at + 3)? + file.little(at + 7)?;
                return Some((screen.0.max(width), screen.1.max(height)));
            }
            _ => return None,
        }
    }
    None
}

fn webp(file: File<'_>) -> Option<(u32, u32)> {
    if file.bytes(8)? != *b"WEBP" {
        return None;
    }
    match &file.bytes::<4>(12)? {
        b"VP8 " => {
            let is_key = file.bytes(23)? == [0x9d, 0x01, 0x2a];
            is_key.then_some((file.little(26)? & 0x3fff, file.little(28)? & 0x3fff))
        }
        b"VP8L" => {
            let bits = u32::from_le_bytes(file.bytes(21)?);
            Some(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
        }
        b"VP8X" => {
            let [w0, w1, w2, h0, h1, h2] = file.bytes(24)?;
            let side = |three: [u8; 3]| u32::from_le_bytes([three[0], three[1], three[2], 0]) + 1;
            Some((side([w0, w1, w2]), side([h0, h1, h2])))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Option<(u32, u32)> {
        size(&BASE64.encode(bytes))
    }

    fn jpeg_with(segments: &[&[u8]]) -> Vec<u8> {
        [b"\xff\xd8".as_slice(), &segments.concat()].concat()
    }

    #[test]
    fn the_size_of_every_format_that_the_providers_read_is_found() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x04\x00\0\0\x03\x00\x08";
        assert_eq!(of(png), Some((1024, 768)));
        let exif = [b"\xff\xe1\xff\xfe".as_slice(), &[0; 65_532]].concat();
        let frame = b"\xff\xc2\0\x11\x08\x02\x58\x03\x20\x03".as_slice();
        assert_eq!(of(&jpeg_with(&[&exif, b"\xff\xff\xdb\0\x03\0", frame])), Some((800, 600)));
        let gif = |screen: u8| {
            let head = [b"GIF89a".as_slice(), &[screen, 0, screen, 0, 0x80, 0, 0], &[0; 6]].concat();
            [&head, b"\x21\xf9\x04\0\0\0\0\0\x2c\x01\0\x02\0\x40\x01\xf0\0\0".as_slice()].concat()
        };
        assert_eq!(of(&gif(1)), Some((321, 242)), "the picture is larger than the screen");
        assert_eq!(of(&gif(255)), Some((321, 255)));
        let webp = |chunk: &[u8]| of(&[b"RIFF\0\0\0\0WEBP".as_slice(), chunk].concat());
        assert_eq!(webp(b"VP8 \0\0\0\0\0\0\0\x9d\x01\x2a\x40\x01\xf0\0"), Some((320, 240)));
        assert_eq!(webp(b"VP8L\0\0\0\0\x2f\x3f\xc1\x3b\0"), Some((320, 240)));
        assert_eq!(webp(b"VP8X\0\0\0\0\0\0\0\0\x3f\x01\0\xef\0\0"), Some((320, 240)));
    }

    #[test]
    fn what_is_unusual_has_no_size() {
        let cases: [&[u8]; 8] = [
            b"",
            b"\x89PNG\r\n\x1a\n",
            b"\x89PNG\r\n\x1a\n\0\0\0\x0dCgBI\0\0\x04\x00\0\0\x03\x00\x08",
            b"\xff\xd8\xff\xda\0\0",
            b"\xff\xd8\xff\xc0\0\x11\x08\0\0\x03\x20",
            b"GIF89a\x01\0\x01\0\0\0\0;",
            b"RIFF\0\0\0\0WAVE",
            b"<svg/>",
        ];
        for bytes in cases {
            assert_eq!(of(bytes), None, "{bytes:?}");
        }
        let endless = jpeg_with(&[b"\xff\xe0\0\x02".as_slice(); 1000]);
        assert_eq!(of(&endless), None);
        assert_eq!(size("iVBO Rw0K"), None, "not base64");
        assert_eq!(size("????"), None);
    }
}
