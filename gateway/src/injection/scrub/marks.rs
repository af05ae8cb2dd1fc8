//! Where escapes may begin, found many bytes at a time.

/// Bytes that are looked at together.
const BLOCK: usize = 64;
/// How many bytes tell whether an escape is of interest.
const HEAD: usize = 3;

pub(super) const fn is_mark(byte: u8) -> bool {
    (byte == b'%') | (byte == b'&') | (byte == b'\\')
}

/// Whether an escape that begins so may be of a visible character that no text in JSON has to escape. Without branches, and not one too few.
pub(super) const fn is_unforced([mark, second, third]: [u8; HEAD]) -> bool {
    // All that JSON has to escape itself are quotes, backslashes and line ends; what others escape for it is beyond ASCII.
    let of_ascii = (second == b'u') & (third == b'0');
    (mark == b'%') | (mark == b'&') | (mark == b'\\') & ((second == b'/') | (second == b'x') | of_ascii)
}

/// The first place in `text` from `from` on with a mark that is of interest, with the bytes behind it; past the end are zeros.
pub(super) fn first(text: &[u8], from: usize, unforced: bool) -> Option<usize> {
    let at = if unforced { unforced_blocks(text, from) } else { any_blocks(text, from) };
    let head = |at: usize| std::array::from_fn(|byte| text.get(at + byte).copied().unwrap_or_default());
    (at..text.len()).find(|at| is_mark(text[*at]) && (!unforced || is_unforced(head(*at))))
}

#[multiversion::multiversion(targets("x86_64+avx2"))]
fn unforced_blocks(text: &[u8], from: usize) -> usize {
    without(text, from, is_unforced)
}

#[multiversion::multiversion(targets("x86_64+avx2"))]
fn any_blocks(text: &[u8], from: usize) -> usize {
    without(text, from, |[mark, ..]| is_mark(mark))
}

#[inline(always)]
fn without(text: &[u8], from: usize, is: impl Fn([u8; HEAD]) -> bool) -> usize {
    let mut at = from;
    while let Some(block) = text.get(at..at + BLOCK + HEAD - 1) {
        let heads = block.iter().zip(&block[1..]).zip(&block[2..]);
        if heads.fold(false, |any, ((mark, second), third)| any | is([*mark, *second, *third])) {
            break;
        }
        at += BLOCK;
    }
    at
}
