use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::*;

const TEXTS: [&str; 6] = [
    r#"{"a":[1,-0,2.50,1e3,-1E-7,0.0e+2],"b":{"c":null,"d":[true,false]},"":{}}"#,
    r#"[ [ ] , { } , [ [ { "x" : [ ] } ] ] , "" , "é😀" ]"#,
    r#"{"a":"\"\\\/\b\f\n\r\t\u0041\ud83d\ude00","\u006bey":"\u00e9 and more text than one word has"}"#,
    r#"{"messages":[{"role":"user","content":"A text that is longer than a whole block of thirty-two bytes."}]}"#,
    r#"["\ud83d","\ude00","\ud83d\n","\ud83d\u0041","\udfff\ud800"]"#,
    "[123456789012345678901234567890,1e308,1e309,-1e999,0e999,1e-999]",
];
const PIECES: [&str; 28] = [
    "{", "}", "[", "]", ":", ",", "\"", "\\", "\\u", "\\u00", "\\ud83d", "\\ude00", "\\x", "\n", "\t",
    "\u{1}", "\u{1f}", "\u{7f}", " ", "0", "9", "-", "+", ".", "e", "null", "tru", "é",
];

fn is_passed(text: &str) -> bool {
    let mut reader = Reader::new(text);
    reader.value().is_ok_and(|value| value == text.trim()) && reader.end().is_ok()
}

fn is_read(text: &str) -> bool {
    fn read(reader: &mut Reader<'_>) -> Result<(), Halt> {
        match reader.peek()? {
            b'{' => reader.members(|reader, _| read(reader)),
            b'[' => reader.items(read),
            _ => reader.scalar(),
        }
    }
    let mut reader = Reader::new(text);
    read(&mut reader).is_ok() && reader.end().is_ok()
}

#[test]
fn what_is_looked_at_nests_up_to_a_limit_and_what_is_passed_over_does_not() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(is_read(&nested(DEPTH_MAX)) && !is_read(&nested(DEPTH_MAX + 1)));
    assert!(is_passed(&nested(100_000)));
}

#[test]
fn a_name_is_read_without_its_escapes() {
    let mut names = Vec::new();
    let read = Reader::new(r#"{"a\u0062":1, "\ud83d\ude00" :2}"#).members(|reader, name| {
        names.push((name.into_owned(), reader.value()?));
        Ok(())
    });
    assert!(read.is_ok());
    assert_eq!(names, [("ab".to_owned(), "1"), ("😀".to_owned(), "2")]);
}

#[test]
fn the_position_is_that_of_the_first_byte_that_does_not_fit() {
    for (text, position) in [("{x", (1, 2)), ("{\n \"a\":1,\n}", (3, 1)), ("{\"a\"", (1, 4)), ("", (1, 0))] {
        let mut reader = Reader::new(text);
        assert!(reader.value().is_err());
        assert_eq!(reader.position(), position, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn it_takes_what_serde_json_takes(
        text in prop::sample::select(&TEXTS[..]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3_usize, prop::sample::select(&PIECES[..])), 0..4),
    ) {
        let mut text: Vec<char> = text.chars().collect();
        for (at, removed, piece) in edits {
            let at = at.index(text.len() + 1);
            let to = text.len().min(at + removed);
            text.splice(at..to, piece.chars());
        }
        let text: String = text.into_iter().collect();
        prop_assert_eq!(is_passed(&text), serde_json::from_str::<IgnoredAny>(&text).is_ok(), "{}", text);
        prop_assert_eq!(is_read(&text), serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
    }
}
