use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use tollgate_policy::dialect::{Catalog, ResponseRules};
use tollgate_policy::model::SourceFile;

use super::*;

const DIALECT: &str = r#"
dialect: test
provider: test
endpoints:
  - on: [POST /]
    class: use
    response:
      usage:
        - {at: usage.input, unit: input}
        - {at: usage.details.cached, unit: cache_read}
        - {at: "list[].count", unit: output}
        - {at: "list[].kind", counts: search, unit: web_searches}
      model: model
      error: error
      stream:
        terminal: {data: end}
        at: ""
        text: [text, "list[].text"]
        empty: list
"#;

fn rules() -> Arc<ResponseRules> {
    let file = SourceFile { path: PathBuf::from("test.yaml"), text: DIALECT.to_owned() };
    let catalog = Catalog::parse(&[file]).unwrap();
    catalog.dialect("test").unwrap().endpoint("POST", "/").unwrap().response.clone()
}

/// Everything that the places of the dialect hold.
#[derive(Debug, PartialEq)]
struct Seen {
    input: SlotValue,
    cached: SlotValue,
    sum: SlotValue,
    searches: SlotValue,
    model: Option<String>,
    is_error: bool,
    text: SlotValue,
    is_empty: Option<u64>,
    is_done: bool,
}

fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let rules = rules();
    let (_, places) = rules.streamed.as_ref().unwrap();
    let (mut scanner, mut slots) = (Scanner::new(), Slots::new(&places.tree));
    for piece in pieces {
        scanner.scan(&places.tree, &mut slots, piece);
    }
    let usage = |index: usize| slots.number(places.usage[index].closing);
    Seen {
        input: usage(0),
        cached: usage(1),
        sum: usage(2),
        searches: usage(3),
        model: slots.text(places.model[0]).map(str::to_owned),
        is_error: slots.number_now(places.error.unwrap()).is_some(),
        text: slots.number(places.text.unwrap()),
        is_empty: slots.number_now(places.empty.unwrap()),
        is_done: scanner.is_done(),
    }
}

fn scan_text(text: &str) -> Seen {
    scan([text.as_bytes()])
}

#[test]
fn values_are_taken_at_their_places_only() {
    let text = r#"{"id":"a","usage":{"input":7,"details":{"cached":3,"input":99},"n":[1,{"input":5}]},
        "model":"m-1","list":[{"kind":"search","count":2,"text":"abc"},{"kind":"other","count":40}],
        "text":"de","input":1,"other":{"usage":{"input":1000}}}"#;
    let seen = scan_text(text);
    assert_eq!(
        (seen.input, seen.cached, seen.sum),
        (SlotValue::Number(7), SlotValue::Number(3), SlotValue::Number(42))
    );
    assert_eq!(
        (seen.searches, seen.model.as_deref(), seen.text),
        (SlotValue::Number(1), Some("m-1"), SlotValue::Number(5))
    );
    assert_eq!((seen.is_error, seen.is_empty, seen.is_done), (false, Some(0), true));
}

#[test]
fn nothing_inside_a_string_is_structure() {
    let inner = r#"{\"usage\":{\"input\":1000000}}"#;
    let text = format!(r#"{{"x":"{inner}","y":["{inner}"],"model":"{inner}","usage":{{"input":7}}}}"#);
    assert_eq!(scan_text(&text).input, SlotValue::Number(7));
    let text = format!(r#"{{"x":"\\\"{inner}\\","usage":{{"z":"}}}}","input":7}}}}"#);
    assert_eq!(scan_text(&text).input, SlotValue::Number(7));
    assert_eq!(scan_text(&format!(r#""{inner}""#)).input, SlotValue::Nothing);
}

#[test]
fn escaped_names_and_values_are_what_they_say() {
    let seen = scan_text(r#"{"\u0075sage":{"in\u0070ut":7},"model":"a\/b\u00e9","\uD83D":1}"#);
    assert_eq!((seen.input, seen.model.as_deref()), (SlotValue::Number(7), Some("a/bé")));
}

#[test]
fn what_is_no_count_is_nonsense_and_stays_it() {
    for nonsense in [
        "-1",
        "-1.0",
        "1.5",
        "1.",
        "1.0e1",
        "1e3",
        "18446744073709551616",
        "1000000000001",
        "true",
        "\"7\"",
        "{}",
        "[7]",
        "007x",
    ] {
        let text = format!(r#"{{"usage":{{"input":{nonsense}}}}}"#);
        assert_eq!(scan_text(&text).input, SlotValue::Nonsense, "{nonsense}");
        let text = format!(r#"{{"usage":{{"input":{nonsense},"input":5}}}}"#);
        assert_eq!(scan_text(&text).input, SlotValue::Nonsense, "{nonsense} and then a number");
    }
    assert_eq!(scan_text(r#"{"usage":{"input":null}}"#).input, SlotValue::Nothing);
    assert_eq!(scan_text(r#"{"usage":{"input":100.00}}"#).input, SlotValue::Number(100));
    assert_eq!(scan_text(r#"{"usage":{"input":1000000000000}}"#).input, SlotValue::Number(1_000_000_000_000));
    let sum = r#"{"list":[{"count":999999999999},{"count":2}]}"#;
    assert_eq!(scan_text(sum).sum, SlotValue::Nonsense);
}

#[test]
fn null_is_nothing_and_anything_else_is_something() {
    for (value, is_error) in
        [("null", false), ("\"\"", true), ("{}", true), ("[]", true), ("0", true), ("false", true)]
    {
        let seen = scan_text(&format!(r#"{{"error":{value},"usage":{{"input":7}}}}"#));
        assert_eq!((seen.is_error, seen.input), (is_error, SlotValue::Number(7)), "{value}");
    }
}

#[test]
fn an_empty_list_is_told_from_one_with_items() {
    for (list, is_empty) in
        [("[]", Some(1)), ("[ \n]", Some(1)), ("[{}]", Some(0)), ("[1]", Some(0)), ("{}", None)]
    {
        assert_eq!(scan_text(&format!(r#"{{"list":{list}}}"#)).is_empty, is_empty, "{list}");
    }
    assert_eq!(scan_text("{}").is_empty, None);
}

#[test]
fn what_an_event_says_twice_is_what_could_be_acted_on_first() {
    let long = "m".repeat(129);
    for (text, model) in [
        (r#"{"model":"a","model":"b"}"#.to_owned(), Some("a")),
        (format!(r#"{{"model":"{long}","model":"b"}}"#), None),
    ] {
        assert_eq!(scan_text(&text).model.as_deref(), model, "{text}");
    }
    for lists in [r#"{"list":[],"list":[{}]}"#, r#"{"list":[{}],"list":[]}"#] {
        assert_eq!(scan_text(lists).is_empty, Some(0), "{lists}");
    }
}

#[test]
fn depth_and_length_cost_no_memory() {
    let deep = format!(
        r#"{{"x":{}{},"usage":{{"input":7}}}}"#,
        "[{\"a\":".repeat(50_000),
        "1".to_owned() + &"}]".repeat(50_000)
    );
    assert_eq!(scan_text(&deep).input, SlotValue::Number(7));
    let long = format!(r#"{{"{}":"{}","usage":{{"input":7}}}}"#, "k".repeat(10_000), "v\\\"".repeat(100_000));
    assert_eq!(scan_text(&long).input, SlotValue::Number(7));
    assert!(size_of::<Scanner>() < 512);
}

#[test]
fn a_string_that_is_too_long_for_a_name_is_none() {
    let seen = scan_text(&format!(r#"{{"model":"{}"}}"#, "m".repeat(129)));
    assert_eq!(seen.model, None);
    let seen = scan_text(&format!(r#"{{"model":"{}"}}"#, "m".repeat(128)));
    assert_eq!(seen.model.map(|model| model.len()), Some(128));
}

#[test]
fn what_is_no_json_is_not_read_on() {
    for text in [
        r#"{"usage"{"input":7}}"#,
        r#"{"a":1]"#,
        r#"{"a":1,}{"usage":{"input":7}}"#,
        "<html>",
        r#"{"list":[}"#,
    ] {
        let rules = rules();
        let (_, places) = rules.streamed.as_ref().unwrap();
        let (mut scanner, mut slots) = (Scanner::new(), Slots::new(&places.tree));
        scanner.scan(&places.tree, &mut slots, text.as_bytes());
        assert!(!scanner.is_done(), "{text}");
        assert_eq!(slots.number(places.usage[0].closing), SlotValue::Nothing, "{text}");
    }
    // Only the first of two texts is one.
    assert_eq!(scan_text(r#"{"usage":{"input":7}} {"usage":{"input":8}}"#).input, SlotValue::Number(7));
}

#[test]
fn a_new_event_starts_sums_anew_and_takes_back_no_number() {
    let rules = rules();
    let (_, places) = rules.streamed.as_ref().unwrap();
    let (mut scanner, mut slots) = (Scanner::new(), Slots::new(&places.tree));
    for text in [
        r#"{"list":[{"count":1},{"count":2}],"usage":{"input":5},"text":"ab"}"#,
        r#"{"list":[{"count":4}],"usage":{"input":0},"text":"c"}"#,
    ] {
        scanner.scan(&places.tree, &mut slots, text.as_bytes());
        scanner.reset();
        slots.next_event();
    }
    assert_eq!(slots.number(places.usage[2].closing), SlotValue::Number(4));
    assert_eq!(slots.number(places.usage[0].closing), SlotValue::Number(5));
    assert_eq!(slots.number(places.text.unwrap()), SlotValue::Number(3));
}

/// JSON whose members have the names that the dialect looks for, in the right places and in wrong ones.
fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0_u64..2_000_000_000_000).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z\"\\\\{}\\[\\]:,\u{0}-\u{1f}é😀]{0,12}".prop_map(Value::from),
        Just(json!("search")),
    ];
    let name = prop::sample::select(vec![
        "usage", "input", "details", "cached", "list", "count", "kind", "model", "error", "text", "a\"b\\",
        "é", "",
    ]);
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(name.clone().prop_map(str::to_owned), inner, 0..7)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// What a reader that holds the whole document finds.
fn oracle(document: &Value) -> Seen {
    let number = |value: &Value| match value {
        Value::Null => SlotValue::Nothing,
        // Zeros behind a point are none.
        Value::Number(number) => match number.to_string().trim_end_matches(".0").parse::<u64>().ok() {
            Some(number) if number <= 1_000_000_000_000 => SlotValue::Number(number),
            _ => SlotValue::Nonsense,
        },
        _ => SlotValue::Nonsense,
    };
    let none = Vec::new();
    let items = document["list"].as_array();
    let (mut sum, mut searches) = (SlotValue::Nothing, SlotValue::Nothing);
    let mut text = SlotValue::Nothing;
    let mut add_text = |value: &Value| {
        if let Value::String(string) = value {
            let length = serde_json::to_string(string).unwrap().len() as u64 - 2;
            let SlotValue::Number(before) = text else {
                text = SlotValue::Number(length);
                return;
            };
            text = SlotValue::Number(before + length);
        }
    };
    add_text(&document["text"]);
    for item in items.unwrap_or(&none) {
        sum = match (sum, number(&item["count"])) {
            (SlotValue::Nonsense, _) | (_, SlotValue::Nonsense) => SlotValue::Nonsense,
            (sum, SlotValue::Nothing) => sum,
            (SlotValue::Nothing, count) => count,
            (SlotValue::Number(sum), SlotValue::Number(count)) if sum + count <= 1_000_000_000_000 => {
                SlotValue::Number(sum + count)
            }
            _ => SlotValue::Nonsense,
        };
        if item["kind"] == "search" {
            searches =
                SlotValue::Number(if let SlotValue::Number(before) = searches { before + 1 } else { 1 });
        }
        add_text(&item["text"]);
    }
    Seen {
        input: number(&document["usage"]["input"]),
        cached: number(&document["usage"]["details"]["cached"]),
        sum,
        searches,
        model: document["model"].as_str().map(str::to_owned),
        is_error: !document["error"].is_null(),
        text,
        is_empty: items.map(|items| u64::from(items.is_empty())),
        is_done: true,
    }
}

fn cut<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_found_is_what_a_whole_reader_finds_however_the_bytes_are_cut(
        document in document(),
        pretty: bool,
        cuts: Vec<prop::sample::Index>,
    ) {
        prop_assume!(document.is_object() || document.is_array());
        let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) }.unwrap();
        let expected = oracle(&document);
        prop_assert_eq!(scan_text(&text), oracle(&document));
        prop_assert_eq!(scan(cut(text.as_bytes(), &cuts)), expected);
        prop_assert_eq!(scan(text.as_bytes().chunks(1)), oracle(&document));
    }

    #[test]
    fn no_bytes_make_it_panic_and_no_cut_changes_what_they_are(bytes in "[{}\\[\\]\":,\\\\a1 \n]{0,60}", cuts: Vec<prop::sample::Index>) {
        prop_assert_eq!(scan(cut(bytes.as_bytes(), &cuts)), scan([bytes.as_bytes()]));
    }
}
