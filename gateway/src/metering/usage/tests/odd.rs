//! Streams as gateways, proxies and providers in trouble send them.

use super::streamed::with_ends;
use super::*;

const HIDDEN: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":40}}\n\n";

/// A chunk of the answer's text.
fn word(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}],\"usage\":null}}\n\n")
}

#[test]
fn a_dropped_event_takes_its_own_line_end_and_nothing_else_wherever_the_network_cuts() {
    let (a, b) = (word("a"), word("b"));
    for comment in ["", ": ping\n", ": ping\n\n", ":\n", "\n", "\n\n: a\n: b\n\n"] {
        let stream = format!("{a}{HIDDEN}{comment}{b}{HIDDEN}{comment}data: [DONE]\n\n");
        let kept = format!("{a}{comment}{b}{comment}data: [DONE]\n\n");
        for end in ["\n", "\r\n", "\r"] {
            let (stream, kept) = (with_ends(&stream, end), with_ends(&kept, end));
            for one in 0..=stream.len() {
                for other in [one, one + 1, one + 2, one + 7, stream.len()] {
                    let other = other.min(stream.len());
                    let bytes = stream.as_bytes();
                    let pieces = [&bytes[..one], &bytes[one..other], &bytes[other..]];
                    let seen = feed(UsageReader::new(&chat(), Announced::Events, true), pieces);
                    assert_eq!(seen.all(), kept, "{comment:?} {end:?} {one} {other}");
                    assert_eq!(seen.reading.units.map(|units| units.tokens()), Some(140));
                }
            }
            let seen = feed(UsageReader::new(&chat(), Announced::Events, true), stream.as_bytes().chunks(1));
            assert_eq!(seen.all(), kept, "{comment:?} {end:?}, byte by byte");
        }
    }
}

#[test]
fn an_extra_event_whose_numbers_are_none_is_dropped_too() {
    let nonsense = HIDDEN.replace("100", "-1");
    let seen = streamed(&chat(), true, &format!("{}{nonsense}data: [DONE]\n\n", word("a")));
    assert_eq!(seen.all(), format!("{}data: [DONE]\n\n", word("a")));
    assert_eq!(seen.reading.units, None);
}

#[test]
fn whole_numbers_may_have_zeros_behind_a_point() {
    let written = HIDDEN.replace("100", "100.0").replace("40", "40.0");
    let seen = streamed(&chat(), true, &format!("{}{written}data: [DONE]\n\n", word("a")));
    assert_eq!(seen.all(), format!("{}data: [DONE]\n\n", word("a")));
    assert_eq!(seen.reading.units, Some(Units { input: 100, output: 40, requests: 1, ..Units::default() }));
}

fn message(opening: &str, deltas: &[&str]) -> String {
    let start = format!(
        "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\"model\":\"claude-sonnet-4-5\",\"usage\":{opening}}}}}\n\n"
    );
    let delta = |usage: &&str| {
        format!(
            "event: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{}},\"usage\":{usage}}}\n\n"
        )
    };
    let deltas: String = deltas.iter().map(delta).collect();
    format!("{start}{deltas}event: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n")
}

#[test]
fn of_two_cumulative_numbers_the_larger_counts() {
    for (opening, deltas) in [
        (r#"{"input_tokens":2500,"output_tokens":1}"#, &[r#"{"input_tokens":0,"output_tokens":47}"#][..]),
        (r#"{"input_tokens":0,"output_tokens":0}"#, &[r#"{"input_tokens":2500,"output_tokens":47}"#]),
        (
            r#"{"input_tokens":2500,"output_tokens":1}"#,
            &[r#"{"input_tokens":2500,"output_tokens":47}"#, r#"{"input_tokens":0,"output_tokens":0}"#],
        ),
    ] {
        let seen = streamed(&messages(), false, &message(opening, deltas));
        let units = Units { input: 2500, output: 47, requests: 1, ..Units::default() };
        assert_eq!(seen.reading.units, Some(units), "{opening} {deltas:?}");
    }
}

#[test]
fn cache_writes_of_an_hour_that_only_the_opening_tells_stay_so() {
    let opening = r#"{"input_tokens":15,"cache_creation_input_tokens":4803,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":4803},"output_tokens":1}"#;
    for split in ["", r#""cache_creation":null,"#] {
        let delta = format!(
            r#"{{"input_tokens":15,{split}"cache_creation_input_tokens":4803,"cache_read_input_tokens":0,"output_tokens":47}}"#
        );
        let units = Units { input: 15, cache_write_1h: 4803, output: 47, requests: 1, ..Units::default() };
        assert_eq!(streamed(&messages(), false, &message(opening, &[&*delta])).reading.units, Some(units));
    }
}

#[test]
fn a_form_is_known_by_its_first_bytes_whatever_its_label_says() {
    let json = r#"{"model":"gpt-5-mini","choices":[{"message":{"content":"a"}}],"usage":{"prompt_tokens":100,"completion_tokens":40}}"#;
    let stream = format!("{}{}data: [DONE]\n\n", word("a"), HIDDEN);
    for announced in [Announced::Events, Announced::Either] {
        for before in ["", "\n\n\n", "\r\n", "\u{feff}"] {
            for (body, is_stream) in [(json, false), (&*stream, true)] {
                let body = format!("{before}{body}");
                for size in [1, 2, 3, body.len()] {
                    let reader = UsageReader::new(&chat(), announced, false);
                    let seen = feed(reader, body.as_bytes().chunks(size));
                    assert_eq!(seen.all(), body);
                    assert_eq!(seen.reading.units.map(|units| units.tokens()), Some(140), "{body:?} {size}");
                    assert_eq!(seen.is_complete, is_stream);
                }
            }
        }
    }
    let of = |label: Option<&str>, is_asked| Announced::of(label.map(str::as_bytes), is_asked);
    assert_eq!(of(Some("Text/Event-Stream; charset=utf-8"), false), Announced::Events);
    assert_eq!(of(Some("text/event-streams"), false), Announced::Either);
    assert_eq!(of(Some("application/json"), false), Announced::Either);
    assert_eq!(of(None, false), Announced::Either);
    assert_eq!(of(Some("audio/mpeg"), false), Announced::Other);
    assert_eq!(of(Some("application/octet-stream"), true), Announced::Either);
}

#[test]
fn blank_lines_before_the_json_of_a_slow_answer_pass_at_once() {
    let mut reader = UsageReader::new(&chat(), Announced::Either, false);
    let mut output = Output::default();
    for _ in 0..20 {
        reader.feed(Bytes::from_static(b"\n"), &mut output);
        assert_eq!(output.ready.drain(..).map(|bytes| bytes.len()).sum::<usize>(), 1);
    }
    let body = Bytes::from_static(br#"{"model":"m","usage":{"prompt_tokens":1,"completion_tokens":2}}"#);
    reader.feed(body.clone(), &mut output);
    assert_eq!(output.ready.pop_front(), Some(body));
    assert_eq!(reader.finish(&mut output).units.map(|units| units.tokens()), Some(3));
}

#[test]
fn sound_is_no_stream_of_events_and_is_not_delayed() {
    let speech = endpoint("openai", "/v1/audio/speech");
    let mut reader = UsageReader::new(&speech, Announced::of(Some(b"audio/pcm"), false), false);
    let mut output = Output::default();
    reader.feed(Bytes::from_static(b"data data data"), &mut output);
    assert_eq!(output.ready.len(), 1);
    assert_eq!(reader.finish(&mut output).units, None);
}

const OVERLOADED: &str = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";

#[test]
fn an_error_in_a_stream_is_told_with_what_was_reported_and_written_before_it() {
    let (start, text) = (
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-opus-5\",\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"Hi\"}}\n\n",
    );
    for (before, partial, wrote) in
        [("", None, false), (start, Some((25, 1)), false), (&*format!("{start}{text}"), Some((25, 1)), true)]
    {
        let reading = streamed(&messages(), false, &format!("{before}{OVERLOADED}")).reading;
        assert!(reading.error_event && reading.units.is_none());
        assert_eq!(reading.partial.map(|units| (units.input, units.output)), partial);
        assert_eq!(reading.wrote, wrote);
    }
    for (endpoint, body) in [
        (chat(), "data: {\"error\":{\"message\":\"x\"}}\n\ndata: [DONE]\n\n"),
        (
            responses(),
            "data: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\",\"usage\":null}}\n\n",
        ),
        (responses(), "event: error\ndata: {\"type\":\"error\",\"message\":\"x\"}\n\n"),
        (messages(), OVERLOADED.trim_end()),
    ] {
        let reading = streamed(&endpoint, false, body).reading;
        assert!(reading.error_event && !reading.wrote, "{body}");
        assert_eq!((reading.units, reading.partial), (None, None));
    }
}
