use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::super::needles::Pair;
use super::super::needles::tests::{SECRET, escaped, reflections};
use super::*;

fn scrubber(secret: &[u8]) -> Scrubber {
    Scrubber::new(Arc::new(Needles::new(&[secret], &[]))).unwrap()
}

/// What comes out after each of these chunks, and at the end.
fn pieces<'a>(secret: &[u8], chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    pieces_of(scrubber(secret), chunks)
}

fn pieces_of<'a>(mut scrubber: Scrubber, chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let mut took = 0;
    let mut given = 0;
    let mut drain = |scrubber: &mut Scrubber, took: usize| {
        let mut piece = Vec::new();
        while let Some(bytes) = scrubber.pop() {
            piece.extend_from_slice(&bytes);
        }
        given += piece.len();
        assert_eq!(scrubber.waiting(), took - given);
        out.push(piece);
    };
    for chunk in chunks {
        scrubber.feed(Bytes::copy_from_slice(chunk), false);
        took += chunk.len();
        drain(&mut scrubber, took);
    }
    scrubber.finish();
    drain(&mut scrubber, took);
    assert_eq!(scrubber.waiting(), 0);
    out
}

fn whole(secret: &[u8], text: &[u8]) -> Vec<u8> {
    let mut scrubber = scrubber(secret);
    scrubber.feed(Bytes::copy_from_slice(text), true);
    scrubber.pop().unwrap_or_default().to_vec()
}

/// `text` in pieces whose lengths are `cuts`, over and over.
fn cut<'a>(text: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = text;
    let mut chunks = Vec::new();
    for length in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, tail) = rest.split_at((*length).min(rest.len()));
        chunks.push(chunk);
        rest = tail;
    }
    chunks
}

#[test]
fn a_reflected_secret_is_masked_across_every_border_and_byte_by_byte() {
    for (name, form) in reflections(SECRET) {
        let text = format!("data: {{\"echo\":\"{form}\", \"next\": 1}}\n\n");
        let expected = whole(SECRET, text.as_bytes());
        assert!(
            expected.starts_with(b"data: {\"echo\":\"****") && expected.ends_with(b"\", \"next\": 1}\n\n"),
            "{name}"
        );
        for border in 1..text.len() {
            let out = pieces(SECRET, [&text.as_bytes()[..border], &text.as_bytes()[border..]]).concat();
            assert_eq!(
                String::from_utf8_lossy(&out),
                String::from_utf8_lossy(&expected),
                "{name} at {border}"
            );
        }
        assert_eq!(pieces(SECRET, text.as_bytes().chunks(1)).concat(), expected, "{name}");
    }
}

/// A key and what may come back of it: each form with its name, and how many of its characters depend on the key alone.
struct Reflected {
    needles: Arc<Needles>,
    forms: Vec<(String, String, usize)>,
}

impl Reflected {
    fn of(parts: &[&[u8]], pairs: &[Pair<'_>]) -> Self {
        let mut forms = Vec::new();
        for part in parts.iter().copied().chain(pairs.iter().map(|pair| pair.text)) {
            for (name, form) in reflections(part) {
                // Of base64 the last character may hold bits of what follows.
                let free = if name.starts_with("base64") { 2 } else { 0 };
                forms.push((name.to_owned(), form.clone(), form.len() - free));
            }
            for (offset, before) in ["", "u", "us"].into_iter().enumerate() {
                for alphabet in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                    let form = alphabet.encode([before.as_bytes(), part, b"tail"].concat());
                    forms.push((format!("base64 at {offset}"), form, part.len() * 8 / 6 - 1));
                }
            }
        }
        for text in pairs.iter().map(|pair| pair.encoded) {
            forms.push(("sent".to_owned(), String::from_utf8_lossy(text).into_owned(), text.len()));
        }
        Self { needles: Arc::new(Needles::new(parts, pairs)), forms }
    }

    /// A key that is the password of a pair.
    fn pair(secret: &[u8]) -> Self {
        let pair = [b"me:", secret].concat();
        let sent = STANDARD.encode(&pair);
        Self::of(&[secret], &[Pair { secret, text: &pair, encoded: sent.as_bytes() }])
    }

    fn scrubber(&self) -> Scrubber {
        Scrubber::new(Arc::clone(&self.needles)).unwrap()
    }

    /// What is left of `text` when it comes whole, which has to be a mask of at least `stars` characters.
    fn left(&self, text: &str, stars: usize) -> Vec<u8> {
        let left = pieces_of(self.scrubber(), [text.as_bytes()]).concat();
        let masked = left.iter().filter(|byte| **byte == b'*').count();
        assert!(masked >= stars, "{text}: {}", String::from_utf8_lossy(&left));
        left
    }
}

#[test]
fn every_form_of_a_key_and_of_its_parts_is_masked_at_every_two_borders() {
    // The shortest that is looked for in bodies: how many places there are for two borders grows with its square.
    let reflected = Reflected::pair(b"k/0123+45=ab");
    for (name, form, stars) in &reflected.forms {
        let text = format!("\"{form}\"");
        let (bytes, expected) = (text.as_bytes(), reflected.left(&text, *stars));
        for (first, second) in (1..bytes.len()).flat_map(|at| (at..bytes.len()).map(move |to| (at, to))) {
            let chunks = [&bytes[..first], &bytes[first..second], &bytes[second..]];
            let out = pieces_of(reflected.scrubber(), chunks).concat();
            assert_eq!(out, expected, "{name} at {first} and {second}: {}", String::from_utf8_lossy(&out));
        }
    }
}

#[test]
fn every_form_of_a_key_and_of_its_parts_is_masked_in_any_pieces() {
    let reflected = Reflected::pair(SECRET);
    proptest!(|(
        index in any::<prop::sample::Index>(),
        before in "[ -~\n]{0,40}",
        cuts in prop::collection::vec(1_usize..9, 1..40),
    )| {
        let (_, form, stars) = index.get(&reflected.forms);
        let text = format!("{before}\n{form}\n");
        let expected = reflected.left(&text, *stars);
        prop_assert_eq!(pieces_of(reflected.scrubber(), cut(text.as_bytes(), &cuts)).concat(), expected);
    });
}

#[test]
fn a_right_beginning_in_any_form_is_released_like_a_wrong_one_at_every_border() {
    let other = |byte: &u8| match byte {
        b'0'..=b'9' => b'0' + (byte - b'0' + 5) % 10,
        b'a'..=b'z' => b'a' + (byte - b'a' + 13) % 26,
        byte => *byte,
    };
    let wrong: Vec<u8> = SECRET.iter().map(other).collect();
    let reflected = Reflected::pair(SECRET);
    let released = |text: &str, border: usize| {
        let (head, tail) = text.as_bytes().split_at(border);
        let out = pieces_of(reflected.scrubber(), [head, tail]);
        assert_eq!(out.concat(), text.as_bytes(), "only a whole key is masked");
        out.iter().map(Vec::len).collect::<Vec<_>>()
    };
    for known in 1..SECRET.len() {
        for ((name, right), (_, wrong)) in
            reflections(&SECRET[..known]).into_iter().zip(reflections(&wrong[..known]))
        {
            // Numbers of HTML may have a digit more.
            if right.len() == wrong.len() {
                let [right, wrong] = [right, wrong].map(|guess| format!("a {guess}\n"));
                for border in 1..right.len() {
                    assert_eq!(
                        released(&right, border),
                        released(&wrong, border),
                        "{name}, {known} bytes, at {border}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_chunk_in_which_nothing_is_found_goes_on_as_it_is() {
    let mut scrubber = scrubber(SECRET);
    let event = Bytes::from_static(b"data: {\"choices\":[{\"delta\":{\"content\":\"sk-live\"}}]}\n\n");
    scrubber.feed(event.clone(), false);
    assert_eq!(scrubber.pop().unwrap().as_ptr(), event.as_ptr());
    assert!(scrubber.pop().is_none() && scrubber.waiting() == 0 && !scrubber.changed());
    let chunk = Bytes::from_static(b"some words of tex");
    scrubber.feed(chunk.clone(), false);
    assert_eq!(scrubber.pop().unwrap(), chunk.slice(..14));
    assert_eq!(scrubber.waiting(), 3);
    scrubber.feed(Bytes::from_static(b"t, and on"), true);
    assert_eq!(scrubber.pop().unwrap(), "text, and on");
    assert_eq!(scrubber.waiting(), 0);
}

#[test]
fn events_lines_and_json_values_never_wait() {
    let chunks: [&[u8]; 5] =
        [b": ping\n\n", b"data: {\"a\":1}\n\n", b"{\"a\":1}\n", b"[\"sk-live/0123\"]", b"\"sk-live/0123\""];
    for chunk in chunks {
        assert_eq!(pieces(SECRET, [chunk]), [chunk, b""]);
    }
}

#[test]
fn what_waits_goes_out_at_the_end_and_nowhere_when_the_body_breaks_off() {
    let half = &SECRET[..20];
    assert_eq!(pieces(SECRET, [half]), [b"", half]);
    let mut scrubber = scrubber(SECRET);
    scrubber.feed(Bytes::copy_from_slice(b"echo "), false);
    assert_eq!(scrubber.pop().unwrap(), "echo ");
    scrubber.cut();
    scrubber.feed(Bytes::copy_from_slice(half), true);
    assert!(scrubber.pop().is_none());
    scrubber.finish();
    assert!(scrubber.pop().is_none() && scrubber.waiting() == 0);
}

#[test]
fn of_a_run_longer_than_any_form_less_than_one_and_a_half_waits() {
    let run = vec![b'a'; 100_000];
    for size in [1, 100, 1022, 1023, 1024, 5000, 100_000] {
        let mut scrubber = scrubber(SECRET);
        for chunk in run.chunks(size) {
            scrubber.feed(Bytes::copy_from_slice(chunk), false);
            while scrubber.pop().is_some() {}
            assert!(scrubber.waiting() < 1023 + 512, "{}", scrubber.waiting());
            assert!(scrubber.held.capacity() <= 8192, "{}", scrubber.held.capacity());
        }
        assert!(scrubber.waiting() >= 1023, "{}", scrubber.waiting());
    }
}

#[test]
fn however_small_the_pieces_no_byte_is_searched_more_than_a_few_times() {
    let runs = [
        "a".repeat(50_000),
        "%25".repeat(17_000),
        "a ".repeat(25_000),
        format!("{} ", "%2541".repeat(300)).repeat(30),
        format!("{}\n", "a".repeat(1100)).repeat(45),
    ];
    for text in &runs {
        for size in [1, 3, 40, 511, 1022, 1023, 1024, 1535, 1536, 4000] {
            let mut scrubber = scrubber(SECRET);
            for chunk in text.as_bytes().chunks(size) {
                scrubber.feed(Bytes::copy_from_slice(chunk), false);
                while scrubber.pop().is_some() {}
            }
            scrubber.finish();
            let most = 4 * text.len();
            assert!(scrubber.searched <= most, "{} of {} by {size}", scrubber.searched, text.len());
            assert!(scrubber.searched >= text.len());
        }
    }
}

#[test]
fn in_the_middle_of_a_long_run_it_is_found_wherever_the_borders_are() {
    let encoded = STANDARD.encode([&[7; 3000][..], SECRET, &[9; 3000]].concat());
    let percent: String = SECRET.iter().map(|b| format!("%{b:02X}")).collect();
    for text in [encoded, format!("{}{percent}{}", "x=1&".repeat(1000), "&y=2".repeat(1000))] {
        let expected = whole(SECRET, text.as_bytes());
        assert!(expected.windows(26).any(|window| window == [b'*'; 26]), "{text}");
        for size in [1, 7, 500, 1022, 1023, 1024, 1025, 2048, 4000, 4100] {
            assert_eq!(pieces(SECRET, text.as_bytes().chunks(size)).concat(), expected, "{size}");
        }
    }
}

#[test]
fn what_is_masked_does_not_depend_on_the_borders_and_nothing_else_is_touched() {
    proptest!(|(
        family in 0_u8..5,
        choices in prop::collection::vec(any::<u8>(), 1..8),
        before in "[ -~\n]{0,40}",
        middle in "[ -~\n]{0,40}",
        cuts in prop::collection::vec(1_usize..30, 1..20),
    )| {
        let form = match family {
            4 => STANDARD.encode(SECRET),
            _ => escaped(SECRET, family, &choices),
        };
        // A mark before it, or a letter before its base64, would make another text of it.
        let text = format!("{before}\n{form}\"{middle}\n{form}");
        let out = pieces(SECRET, cut(text.as_bytes(), &cuts)).concat();
        let core = form.len() - if family == 4 { 2 } else { 0 };
        let rest = &form[core..];
        let expected = format!("{before}\n{}{rest}\"{middle}\n{}{rest}", "*".repeat(core), "*".repeat(core));
        prop_assert_eq!(String::from_utf8_lossy(&out), expected);
    });
}

#[test]
fn a_right_guess_at_the_key_is_released_like_a_wrong_one() {
    proptest!(|(
        known in 1_usize..SECRET.len(),
        by in 1_u8..10,
        family in 0_u8..4,
        choices in prop::collection::vec(any::<u8>(), 1..8),
        before in "[ -~\n]{0,30}",
        after in "[ -~\n]{0,30}",
        cuts in prop::collection::vec(1_usize..12, 1..20),
    )| {
        // What follows may not complete the key.
        prop_assume!(!after.as_bytes().starts_with(&SECRET[known..]));
        // The same text but for the letters and digits of the guess: those of the key, or others.
        let other = |byte: &u8| match byte {
            b'0'..=b'9' => b'0' + (byte - b'0' + by) % 10,
            b'a'..=b'z' => b'a' + (byte - b'a' + by) % 26,
            byte => *byte,
        };
        let text = |guess: &[u8]| format!("{before}{}{after}", escaped(guess, family, &choices));
        let lengths = |text: &str, secret: &[u8]| -> Vec<usize> {
            pieces(secret, cut(text.as_bytes(), &cuts)).iter().map(Vec::len).collect()
        };
        let right = text(&SECRET[..known]);
        let wrong = text(&SECRET[..known].iter().map(other).collect::<Vec<_>>());
        prop_assert_eq!(pieces(SECRET, cut(right.as_bytes(), &cuts)).concat(), right.as_bytes());
        // Nor does it depend on which key of this class it is.
        prop_assert_eq!(lengths(&right, SECRET), lengths(&right, b"another-key-of-that-sort"));
        if right.len() == wrong.len() {
            prop_assert_eq!(lengths(&right, SECRET), lengths(&wrong, SECRET));
        }
    });
}

proptest! {
    #[test]
    fn any_bytes_pass_unchanged_and_in_order(
        bytes in prop::collection::vec(any::<u8>(), 0..6000),
        cuts in prop::collection::vec(1_usize..3000, 1..20),
    ) {
        prop_assert_eq!(pieces(SECRET, cut(&bytes, &cuts)).concat(), bytes);
    }
}
