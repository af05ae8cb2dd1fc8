use proptest::prelude::*;

use super::*;

/// An event: its name, its data lines joined by LF.
type Event = (Option<String>, Vec<u8>);

/// Reads a stream in these pieces: the events, the end of each in the whole, and the name and data of what is open.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<(Event, usize)>, Event) {
    let mut framer = Framer::new();
    let (mut events, mut data, mut is_next_line, mut offset) = (Vec::new(), Vec::new(), false, 0);
    for chunk in pieces {
        let mut at = 0;
        while let Some((piece, next)) = framer.next(chunk, at) {
            at = next;
            match piece {
                Piece::Data { from, to } => {
                    if std::mem::take(&mut is_next_line) {
                        data.push(b'\n');
                    }
                    data.extend_from_slice(&chunk[from..to]);
                }
                Piece::DataEnd => {
                    if std::mem::replace(&mut is_next_line, true) {
                        data.push(b'\n');
                    }
                }
                Piece::Named | Piece::Between => {}
                Piece::End => {
                    let name = framer.name().map(str::to_owned);
                    events.push(((name, std::mem::take(&mut data)), offset + at));
                    is_next_line = false;
                    framer.next_event();
                }
            }
        }
        offset += chunk.len();
    }
    (events, (framer.name().map(str::to_owned), data))
}

fn events(stream: &str) -> Vec<(Option<String>, String)> {
    let (events, _) = read([stream.as_bytes()]);
    events.into_iter().map(|((name, data), _)| (name, String::from_utf8(data).unwrap())).collect()
}

fn event(name: &str, data: &str) -> (Option<String>, String) {
    ((!name.is_empty()).then(|| name.to_owned()), data.to_owned())
}

#[test]
fn every_line_end_of_the_standard_is_one() {
    for end in ["\n", "\r\n", "\r"] {
        let stream = ["event: a", "data: 1", "", "data:2", "data: 3", "", ""].join(end);
        // A CR at the very end may be half of a CRLF, but ends its line at once.
        assert_eq!(events(&stream), [event("a", "1"), event("", "2\n3")], "{end:?}");
    }
}

#[test]
fn comments_and_other_fields_are_no_data() {
    let stream = ": ping\n\nid: 7\nretry: 10\ndata: 1\n: data: 2\ndatabase: 3\ndat: 4\n\n:\n\ndata: 5\n\n";
    assert_eq!(events(stream), [event("", "1"), event("", "5")]);
}

#[test]
fn one_space_after_the_colon_is_passed_over() {
    assert_eq!(events("data:  a \nevent:  b\n\n"), [event(" b", " a ")]);
}

#[test]
fn a_byte_order_mark_at_the_start_is_passed_over() {
    assert_eq!(events("\u{feff}data: 1\n\ndata: \u{feff}2\n\n"), [event("", "1"), event("", "\u{feff}2")]);
}

#[test]
fn a_line_without_a_colon_is_a_field_without_a_value() {
    assert_eq!(events("data\n\n"), [event("", "")]);
    assert_eq!(events("data: 1\nevent\n\n"), [event("", "1")]);
}

#[test]
fn the_last_name_counts_and_a_long_one_is_none() {
    assert_eq!(events("event: a\nevent: b\ndata: 1\n\n"), [event("b", "1")]);
    let long = "n".repeat(65);
    assert_eq!(events(&format!("event: {long}\ndata: 1\n\n")), [event("", "1")]);
}

#[test]
fn what_is_not_completed_by_a_blank_line_is_no_event() {
    assert_eq!(events("data: 1\n\ndata: 2\n"), [event("", "1")]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn events_and_their_ends_do_not_depend_on_how_the_bytes_are_cut(
        lines in prop::collection::vec(
            prop::sample::select(vec!["", "", "data: x", "data:y z", "data", "event: name", "event:n", ": note", "id: 1", "e", "datax: 1", "data: "]),
            0..20,
        ),
        ends in prop::collection::vec(prop::sample::select(vec!["\n", "\r\n", "\r"]), 20),
        bom: bool,
        cuts: Vec<prop::sample::Index>,
    ) {
        let lines: String = lines.iter().zip(&ends).map(|(line, end)| format!("{line}{end}")).collect();
        let stream = format!("{}{lines}", if bom { "\u{feff}" } else { "" });
        let bytes = stream.as_bytes();
        let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
        at.sort_unstable();
        let pieces = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
        let (whole, open) = read([bytes]);
        let (cut, still_open) = read(pieces);
        prop_assert_eq!(&open, &still_open);
        prop_assert_eq!(whole.len(), cut.len());
        for ((event, end), (cut_event, cut_end)) in whole.iter().zip(&cut) {
            prop_assert_eq!(event, cut_event);
            // A cut between CR and LF puts the LF behind the event; it is passed on with it.
            prop_assert!(cut_end == end || cut_end + 1 == *end);
        }
    }
}
