//! Integers of one to ten bytes: seven bits in each, the least first, the eighth set in all but the last (LEB128). Signed ones are folded so
//! that small ones are short (zigzag), as in Protocol Buffers.

/// Appends it.
#[inline]
pub(super) fn write(mut integer: u64, out: &mut Vec<u8>) {
    while integer >= 0x80 {
        out.push(integer as u8 | 0x80);
        integer >>= 7;
    }
    out.push(integer as u8);
}

/// Appends it, folded.
#[inline]
pub(super) fn write_signed(integer: i64, out: &mut Vec<u8>) {
    write(zigzag(integer), out);
}

/// Appends a text: its length, and its bytes.
#[inline]
pub(super) fn write_text(text: &str, out: &mut Vec<u8>) {
    write(text.len() as u64, out);
    if !text.is_empty() {
        out.extend_from_slice(text.as_bytes());
    }
}

/// Takes one off the beginning; `None` where there is none.
pub(super) fn read(bytes: &mut &[u8]) -> Option<u64> {
    let mut integer = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        integer |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(integer);
        }
    }
    None
}

/// Takes a text off the beginning: its length, and its bytes.
pub(super) fn read_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::try_from(read(bytes)?).ok()?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    str::from_utf8(text).ok()
}

pub(super) const fn zigzag(integer: i64) -> u64 {
    (integer << 1 ^ integer >> 63).cast_unsigned()
}

pub(super) const fn unzigzag(integer: u64) -> i64 {
    (integer >> 1).cast_signed() ^ -(integer & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_integer_reads_back_and_leaves_what_follows(integer in any::<u64>(), signed in any::<i64>()) {
            let mut bytes = Vec::new();
            write(integer, &mut bytes);
            write_signed(signed, &mut bytes);
            bytes.push(7);
            let mut rest = &*bytes;
            prop_assert_eq!(read(&mut rest), Some(integer));
            prop_assert_eq!(read(&mut rest).map(unzigzag), Some(signed));
            prop_assert_eq!(rest, &[7]);
        }
    }

    #[test]
    fn what_ends_early_or_never_is_no_integer() {
        for bytes in [&[][..], &[0x80], &[0xff; 11]] {
            assert_eq!(read(&mut &*bytes), None);
        }
    }
}
