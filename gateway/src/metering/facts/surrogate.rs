//! Halves of surrogate pairs: `\ud83d` without the other half is no character (RFC 8259, section 8.2).

use tollgate_policy::denial::{Denial, Reason};

/// Refuses half a pair, wherever in the body it stands. `text` is JSON, so that a backslash is within a string.
pub(super) fn check(text: &str) -> Result<(), Denial> {
    let bytes = text.as_bytes();
    let mut from = 0;
    while let Some(at) = memchr::memchr(b'\\', bytes.get(from..).unwrap_or_default()).map(|at| from + at) {
        match unit(bytes, at) {
            Some(0xd800..=0xdbff) if matches!(unit(bytes, at + 6), Some(0xdc00..=0xdfff)) => from = at + 12,
            Some(0xd800..=0xdfff) => return Err(refusal(text, at)),
            _ => from = at + 2,
        }
    }
    Ok(())
}

/// The code unit of the escape that begins here; `None` where it is another escape, or none.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    let digits =
        std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u16::from_str_radix(digits, 16).ok()
}

fn refusal(text: &str, at: usize) -> Denial {
    let before = text.get(..at).unwrap_or_default();
    let line = memchr::memchr_iter(b'\n', before.as_bytes()).count() + 1;
    let column = at - before.rfind('\n').map_or(0, |end| end + 1) + 1;
    let detail = format!(
        "the body has half of a surrogate pair at line {line}, column {column}: an escape from \\ud800 to \\udfff that has no other half \
        is no character (was a text with an emoji cut in two?)"
    );
    Denial::new(Reason::BodyInvalid, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_surrogate_pair_is_found_wherever_it_stands() {
        for whole in
            ["", r"\ud83d\ude00", r"\\ud83d", r"\u00e9\n\uD83D\uDE00", r"\u", r"\ud8", "\\", r"\ude0"]
        {
            assert_eq!(check(whole), Ok(()), "{whole}");
        }
        for half in [
            r"\ud83d",
            r"\ude00",
            r"\ud83d\ud83d\ude00",
            r"\ud83dx",
            r"\\\ud83d",
            r"\ud83d\n",
            r"\uDE00\uD83D",
        ] {
            let denial = check(&format!("{{\n\"a\":\"é{half}\"}}")).unwrap_err();
            assert_eq!(denial.reason, Reason::BodyInvalid);
            assert!(denial.detail.contains("surrogate pair at line 2, column "), "{}", denial.detail);
        }
    }
}
