use proptest::prelude::*;

use super::*;

const ROBOT: Pair<'_> = Pair { secret: b"hunter2", text: b"robot:hunter2", encoded: b"cm9ib3Q6aHVudGVyMg==" };
pub(in crate::injection::scrub) const SECRET: &[u8] = b"sk-live/0123+456789=abc";

fn hex(text: &[u8]) -> String {
    text.iter().map(|b| format!("{b:02x}")).collect()
}

/// `secret` as an encoder might write it: `choices` says how each byte is.
pub(in crate::injection::scrub) fn escaped(secret: &[u8], family: u8, choices: &[u8]) -> String {
    let mut text = String::new();
    for (byte, choice) in secret.iter().zip(choices.iter().cycle()) {
        let c = char::from(*byte);
        let must = !c.is_ascii_alphanumeric();
        let escape = match (family % 4, choice % 4) {
            (0, 0) => format!("%{byte:02x}"),
            (0, 1) => format!("%{byte:02X}"),
            (1, 0) => format!("\\u{byte:04x}"),
            (1, 1) => format!("\\u{byte:04X}"),
            (1, 2) if c == '/' => "\\/".into(),
            (2, 0) => format!("&#{byte};"),
            (2, 1) => format!("&#x{byte:X};"),
            (2, 2) if c == '/' => "&sol;".into(),
            (0, _) if must => format!("%{byte:02X}"),
            _ => c.to_string(),
        };
        text.push_str(&escape);
    }
    text
}

/// Every form in which `secret` may come back, by name.
pub(in crate::injection::scrub) fn reflections(secret: &[u8]) -> Vec<(&'static str, String)> {
    let raw = String::from_utf8_lossy(secret).into_owned();
    let every = |pattern: fn(u8) -> String| secret.iter().map(|b| pattern(*b)).collect::<String>();
    let base64 = STANDARD_NO_PAD.encode(secret);
    vec![
        ("raw", raw.clone()),
        (
            "percent",
            every(|b| if b.is_ascii_alphanumeric() { char::from(b).into() } else { format!("%{b:02X}") }),
        ),
        ("percent, all", every(|b| format!("%{b:02x}"))),
        ("percent, twice", every(|b| format!("%25{b:02x}"))),
        ("json slashes", raw.replace('/', "\\/")),
        ("json slashes, twice", raw.replace('/', "\\\\\\/")),
        ("json, all", every(|b| format!("\\u{b:04X}"))),
        ("html names", raw.replace('/', "&sol;").replace('+', "&plus;").replace('=', "&equals;")),
        ("html decimal", every(|b| format!("&#{b};"))),
        ("html hex", every(|b| format!("&#x{b:x};"))),
        ("hex", hex(secret)),
        ("HEX", hex(secret).to_uppercase()),
        ("base64", base64.clone()),
        ("base64 in json", base64.replace('/', "\\/").replace('+', "\\u002b")),
        ("base64 url", URL_SAFE_NO_PAD.encode(secret)),
    ]
}

fn stars(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'*').count()
}

#[test]
fn a_reflected_secret_is_masked_at_equal_length_in_every_form() {
    let needles = Needles::new(&[SECRET], &[]);
    let mut finds = Finds::new();
    for (name, form) in reflections(SECRET) {
        for (before, after) in
            [("", ""), ("key=", "&x=1"), ("\"a\\n", "\\n\""), ("\\\\", ""), ("%", "%"), ("<b>&amp;", "&lt;")]
        {
            let text = format!("{before}{form}{after}");
            let clean =
                needles.masked(text.as_bytes(), &mut finds).unwrap_or_else(|| panic!("{name}: {text}"));
            assert_eq!(clean.len(), text.len());
            // Of base64 the last character holds bits of what follows.
            let least = if name.starts_with("base64") { form.len() - 2 } else { form.len() };
            assert!(stars(&clean) >= least, "{name}: {}", String::from_utf8_lossy(&clean));
            assert!(clean.starts_with(before.as_bytes()) && clean.ends_with(after.as_bytes()), "{name}");
        }
    }
    assert!(needles.masked(b"nothing of the kind in here, at all", &mut finds).is_none());
}

#[test]
fn an_escape_cut_off_before_it_hides_nothing_of_it() {
    for secret in [&b"abcd/0123+456789=efg"[..], b"abcd/0123+45"] {
        cut_off_before(secret);
    }
}

fn cut_off_before(secret: &[u8]) {
    let needles = Needles::new(&[secret], &[]);
    for (name, form) in reflections(secret) {
        for before in
            ["%", "%2", "\\u", "\\u0", "\\u00", "\\u002", "\\x", "\\x2", "&#", "&#x2", "%%%", "\\\\u"]
        {
            let text = format!("{before}{form}");
            let clean = needles
                .masked(text.as_bytes(), &mut Finds::new())
                .unwrap_or_else(|| panic!("{name}: {text}"));
            assert!(stars(&clean) + 2 >= form.len(), "{name}: {text}: {}", String::from_utf8_lossy(&clean));
            assert!(clean.starts_with(before.as_bytes()), "{name}: {text}");
        }
    }
}

#[test]
fn inside_a_longer_base64_text_it_is_masked_at_every_offset() {
    let needles = Needles::new(&[SECRET], &[]);
    for before in ["", "u", "us", "user:"] {
        for alphabet in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let text = [before.as_bytes(), SECRET, b"tail"].concat();
            let encoded = alphabet.encode(text);
            let clean = needles.masked(encoded.as_bytes(), &mut Finds::new()).unwrap();
            assert_eq!(clean.len(), encoded.len());
            assert!(stars(&clean) >= 28, "{before}: {}", String::from_utf8_lossy(&clean));
        }
    }
}

#[test]
fn a_short_part_is_masked_in_headers_and_not_looked_for_in_bodies() {
    let needles = Needles::new(&[b"hunter2"], &[ROBOT]);
    let mut finds = Finds::new();
    let header =
        needles.masked(b"pw hunter2, %68unter2, 68756e74657232, a robot:hunter2", &mut finds).unwrap();
    assert_eq!(header, b"pw *******, *********, **************, a *************");
    needles.find(b"the hunter2 of robot:hunter2 is cm9ib3Q6aHVudGVyMg==", Where::Body, &mut finds);
    finds.ranges.sort_by_key(|range| range.start);
    assert_eq!(finds.ranges.first(), Some(&(15..28)));
    assert!(finds.ranges.contains(&(32..52)));
    assert!(!Needles::new(&[b"hunter2"], &[]).are_in_bodies());
    // What is sent of a pair that is too short itself.
    let pair = Pair { secret: b"hunter2", text: b"me:hunter2", encoded: b"bWU6aHVudGVyMg==" };
    Needles::new(&[b"hunter2"], &[pair]).find(b"me:hunter2 is bWU6aHVudGVyMg==", Where::Body, &mut finds);
    assert_eq!((finds.ranges.len(), finds.ranges.first()), (1, Some(&(14..30))));
}

#[test]
fn without_vector_instructions_the_same_is_found() {
    let mut needles = Needles::new(&[SECRET], &[]);
    assert!(needles.searcher.is_some(), "tests run where there are some");
    needles.searcher = None;
    for (name, form) in reflections(SECRET) {
        assert!(needles.masked(form.as_bytes(), &mut Finds::new()).is_some(), "{name}");
    }
}

#[test]
fn the_anchors_of_all_forms_are_of_the_same_few_bytes_each_time() {
    let mut places = Vec::new();
    for number in 0..100 {
        let secret = format!("k-{number:03}/0123+456789=abc");
        let secret = secret.as_bytes();
        for user in ["", "me", "a name as long as that of some accounts is"] {
            let text = [user.as_bytes(), b":", secret].concat();
            let encoded = base64::engine::general_purpose::STANDARD.encode(&text);
            let needles =
                Needles::new(&[secret], &[Pair { secret, text: &text, encoded: encoded.as_bytes() }]);
            assert!(
                needles.long.len() >= 12,
                "of both texts, raw, in both kinds of hex and in base64 at three offsets"
            );
            for needle in &needles.long {
                let behind = (needle.form.len() - needle.anchor_at) as f64;
                // In how many characters a byte is written.
                let texts = [secret.len(), text.len()].map(|length| needle.form.len() as f64 / length as f64);
                let near = |width: &f64| (behind / width - from_end(secret) as f64).abs() < 2.0;
                assert!(
                    texts.iter().any(near),
                    "{:?}: {}, {}",
                    needle.form,
                    needle.anchor_at,
                    from_end(secret)
                );
            }
        }
        assert!(from_end(secret) >= ANCHOR && from_end(secret) <= secret.len() - secret.len() / 3);
        places.push(from_end(secret));
    }
    assert!(places.iter().any(|place| *place < 7) && places.iter().any(|place| *place > 12), "{places:?}");
    assert_eq!([&b""[..], b"a", b"abcd", b"hunter"].map(from_end).map(|place| place <= 6), [true; 4]);
}

#[test]
fn debug_prints_nothing_of_it() {
    assert_eq!(format!("{:?}", Needles::new(&[SECRET], &[])), "Needles { .. }");
}

proptest! {
    #[test]
    fn any_key_is_found_however_its_characters_are_escaped(
        secret in prop_oneof!["[ -~]{12,60}", "[A-Za-z0-9/+=_.-]{12,60}"],
        family in 0_u8..4,
        choices in prop::collection::vec(any::<u8>(), 1..8),
        offset in 0_usize..700,
    ) {
        // What an encoder has to escape, or its text would mean another.
        let text = match family {
            0 => escaped(secret.as_bytes(), 0, &choices),
            1 => escaped(secret.replace('\\', "\u{1}").as_bytes(), 1, &choices).replace('\u{1}', "\\\\").replace("\\u0001", "\\\\"),
            2 => escaped(secret.replace('&', "\u{1}").as_bytes(), 2, &choices)
                .replace('\u{1}', "&amp;").replace("&#1;", "&#38;").replace("&#x1;", "&#x26;"),
            _ => secret.clone(),
        };
        let needles = Needles::new(&[secret.as_bytes()], &[]);
        let words = "some words, \n".repeat(60);
        let whole = format!("{}{text}\" {words}", &words[..offset]);
        let mut finds = Finds::new();
        needles.find(whole.as_bytes(), Where::Body, &mut finds);
        let all = offset..offset + text.len();
        prop_assert!(finds.ranges.contains(&all), "{text}: {:?}", finds.ranges);
    }

    #[test]
    fn nothing_is_found_where_nothing_is(text in prop::collection::vec(any::<u8>(), 0..3000)) {
        let needles = Needles::new(&[SECRET], &[]);
        let mut finds = Finds::new();
        needles.find(&text, Where::Body, &mut finds);
        prop_assert!(finds.ranges.is_empty());
    }
}
