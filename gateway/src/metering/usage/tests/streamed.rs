use super::*;

/// What OpenAI sends for `stream_options: {include_usage: true}`.
const CHAT: &str = concat!(
    r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1694268190,"model":"gpt-5-mini-2025-08-07","service_tier":"default","system_fingerprint":"fp_44","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"abc"}"#,
    "\n\n",
    r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1694268190,"model":"gpt-5-mini-2025-08-07","service_tier":"default","system_fingerprint":"fp_44","choices":[{"index":0,"delta":{"content":"Hello {\"usage\":"},"logprobs":null,"finish_reason":null}],"usage":null}"#,
    "\n\n",
    r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1694268190,"model":"gpt-5-mini-2025-08-07","service_tier":"default","system_fingerprint":"fp_44","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}"#,
    "\n\n",
    r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1694268190,"model":"gpt-5-mini-2025-08-07","service_tier":"default","system_fingerprint":"fp_44","choices":[],"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":2,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}"#,
    "\n\n",
    "data: [DONE]\n\n",
);

const MESSAGE: &str = concat!(
    "event: message_start\n",
    r#"data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],"model":"claude-sonnet-5-5","stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":472,"cache_creation_input_tokens":100,"cache_read_input_tokens":50,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":100},"output_tokens":2,"service_tier":"standard","inference_geo":"global"}}}"#,
    "\n\n",
    "event: content_block_start\n",
    r#"data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
    "\n\n",
    "event: ping\n",
    r#"data: {"type": "ping"}"#,
    "\n\n",
    "event: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Okay, let's check {\"usage\":{\"output_tokens\":1}}"}}"#,
    "\n\n",
    "event: content_block_stop\n",
    r#"data: {"type":"content_block_stop","index":0}"#,
    "\n\n",
    "event: message_delta\n",
    r#"data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":40}}"#,
    "\n\n",
    "event: message_delta\n",
    r#"data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":10682,"cache_creation_input_tokens":400,"output_tokens":510,"server_tool_use":{"web_search_requests":1}}}"#,
    "\n\n",
    "event: message_stop\n",
    r#"data: {"type":"message_stop"}"#,
    "\n\n",
);

/// The last event of a response repeats all of its output.
fn response(output: &str, kind: &str) -> String {
    let body = format!(
        r#"{{"id":"resp_1","object":"response","status":"{kind}","error":null,"model":"gpt-5.4-2026-03-05","output":[{{"type":"web_search_call","id":"ws_1"}},{{"id":"msg_1","type":"message","role":"assistant","content":[{{"type":"output_text","text":"{output}","annotations":[]}}]}}],"service_tier":"default","usage":{{"input_tokens":37,"input_tokens_details":{{"cached_tokens":7}},"output_tokens":11,"output_tokens_details":{{"reasoning_tokens":1}},"total_tokens":48}}}}"#
    );
    [
        "event: response.created\n",
        r#"data: {"type":"response.created","sequence_number":0,"response":{"id":"resp_1","object":"response","status":"in_progress","error":null,"model":"gpt-5.4-2026-03-05","output":[],"usage":null}}"#,
        "\n\nevent: response.output_text.delta\n",
        r#"data: {"type":"response.output_text.delta","sequence_number":5,"item_id":"msg_1","output_index":0,"content_index":0,"delta":"Hi"}"#,
        &format!("\n\nevent: response.{kind}\ndata: {{\"type\":\"response.{kind}\",\"sequence_number\":9,\"response\":{body}}}\n\n"),
    ]
    .concat()
}

fn chat_units() -> Units {
    Units { input: 15, cache_read: 4, output: 8, reasoning: 2, requests: 1, ..Units::default() }
}

fn chunks(stream: &str) -> Vec<&str> {
    stream.split_inclusive("\n\n").collect()
}

#[test]
fn the_usage_chunk_is_read_and_shown_to_a_caller_that_asked() {
    let seen = streamed(&chat(), false, CHAT);
    assert_eq!(seen.reading.units, Some(chat_units()));
    assert_eq!(
        (seen.reading.model.as_deref(), seen.reading.tier.as_deref()),
        (Some("gpt-5-mini-2025-08-07"), Some("default"))
    );
    assert_eq!(seen.all(), CHAT);
    assert!(seen.is_complete);
    assert_eq!(seen.reading.output_bytes, r#"Hello {\"usage\":"#.len() as u64);
}

#[test]
fn the_usage_chunk_is_read_and_hidden_from_a_caller_that_did_not_ask() {
    let seen = streamed(&chat(), true, CHAT);
    assert_eq!(seen.reading.units, Some(chat_units()));
    let chunks = chunks(CHAT);
    assert_eq!(seen.ready, chunks[..3].concat());
    assert_eq!(seen.held, "data: [DONE]\n\n");
}

#[test]
fn the_terminal_event_waits_and_what_follows_it_waits_behind_it() {
    let seen = streamed(&chat(), false, &format!("{CHAT}: bye\n\n"));
    assert_eq!(seen.held, "data: [DONE]\n\n: bye\n\n");
    let mut output = Output { held: VecDeque::from([Bytes::from_static(b"a")]), ..Output::default() };
    output.ready.push_back(Bytes::from_static(b"b"));
    output.release();
    assert_eq!((output.ready.len(), output.held.len()), (2, 0));
}

#[test]
fn nothing_but_the_terminal_and_the_undecided_event_is_delayed() {
    for (endpoint, hides, stream) in [
        (chat(), false, CHAT.to_owned()),
        (chat(), true, CHAT.to_owned()),
        (messages(), false, MESSAGE.to_owned()),
        (responses(), false, response("x", "completed")),
    ] {
        let mut reader = UsageReader::new(&endpoint, Announced::Events, hides);
        let mut output = Output::default();
        let chunks = chunks(&stream);
        for (index, chunk) in chunks.iter().enumerate() {
            reader.feed(Bytes::copy_from_slice(chunk.as_bytes()), &mut output);
            let sent: usize = output.ready.drain(..).map(|part| part.len()).sum();
            let is_last = index + 1 == chunks.len();
            let is_hidden = hides && chunk.contains("\"choices\":[]");
            assert_eq!(sent, if is_last || is_hidden { 0 } else { chunk.len() }, "{chunk}");
            assert_eq!(output.complete, is_last);
        }
    }
}

#[test]
fn a_half_of_an_event_goes_on_as_soon_as_it_is_known_not_to_be_hidden() {
    let mut reader = UsageReader::new(&chat(), Announced::Events, true);
    let mut output = Output::default();
    let sent = |output: &mut Output| {
        output.ready.drain(..).map(|part| String::from_utf8(part.to_vec()).unwrap()).collect::<String>()
    };
    reader.feed(Bytes::from_static(br#"data: {"id":"1","choices":"#), &mut output);
    assert_eq!(sent(&mut output), "");
    reader.feed(Bytes::from_static(br#"[{"index":0,"#), &mut output);
    assert_eq!(sent(&mut output), r#"data: {"id":"1","choices":[{"index":0,"#);
    reader.feed(Bytes::from_static(br#""delta":{"con"#), &mut output);
    assert_eq!(sent(&mut output), r#""delta":{"con"#);
}

#[test]
fn a_comment_is_not_delayed_even_half_of_it() {
    let mut reader = UsageReader::new(&chat(), Announced::Events, true);
    let mut output = Output::default();
    reader.feed(Bytes::from_static(b": OPENROUTER PROC"), &mut output);
    assert_eq!(output.ready.len(), 1);
    reader.feed(Bytes::from_static(b"ESSING\n\n"), &mut output);
    assert_eq!(output.ready.len(), 2);
    let seen = feed(reader, [CHAT.as_bytes()]);
    assert_eq!(seen.reading.units, Some(chat_units()));
}

#[test]
fn empty_choices_alone_are_no_usage_chunk() {
    // Azure opens a stream so.
    let first = "data: {\"choices\":[],\"prompt_filter_results\":[{\"prompt_index\":0}],\"usage\":null}\n\n";
    let seen = streamed(&chat(), true, &format!("{first}{CHAT}"));
    assert!(seen.ready.starts_with(first));
    assert_eq!(seen.reading.units, Some(chat_units()));
}

#[test]
fn usage_on_a_chunk_with_choices_is_read_and_passed_on() {
    let stream = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\ndata: [DONE]\n\n";
    let seen = streamed(&chat(), true, stream);
    assert_eq!(seen.all(), stream);
    assert_eq!(seen.reading.units, Some(Units { input: 3, output: 1, requests: 1, ..Units::default() }));
}

#[test]
fn an_event_that_stays_undecided_is_not_held_beyond_its_limit() {
    let filler = "x".repeat(70 * 1024);
    let stream = format!(
        "data: {{\"id\":\"{filler}\",\"choices\":[],\"usage\":{{\"prompt_tokens\":3,\"completion_tokens\":1}}}}\n\n"
    );
    let mut reader = UsageReader::new(&chat(), Announced::Events, true);
    let mut output = Output::default();
    for chunk in stream.as_bytes().chunks(1024) {
        reader.feed(Bytes::copy_from_slice(chunk), &mut output);
    }
    assert_eq!(output.ready.iter().map(Bytes::len).sum::<usize>(), stream.len());
    assert_eq!(reader.reading().units, Some(Units { input: 3, output: 1, requests: 1, ..Units::default() }));
}

#[test]
fn a_message_counts_its_last_numbers_and_keeps_the_first_where_none_follow() {
    let seen = streamed(&messages(), false, MESSAGE);
    let units = Units {
        input: 10682,
        cache_read: 50,
        // All writes were for an hour when the split was told, so what came since is taken to be.
        cache_write_1h: 400,
        output: 510,
        web_searches: 1,
        requests: 1,
        ..Units::default()
    };
    assert_eq!(seen.reading.units, Some(units));
    assert_eq!(
        (seen.reading.model.as_deref(), seen.reading.tier.as_deref()),
        (Some("claude-sonnet-5-5"), Some("standard"))
    );
    assert_eq!(seen.held, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
    assert_eq!(seen.all(), MESSAGE);
}

#[test]
fn a_message_that_breaks_off_tells_what_it_had_read() {
    let at = MESSAGE.find("event: message_delta").unwrap();
    let seen = streamed(&messages(), false, &MESSAGE[..at]);
    assert!(seen.reading.units.is_none() && !seen.is_complete);
    let units = Units { input: 472, cache_read: 50, cache_write_1h: 100, output: 2, ..Units::default() };
    assert_eq!(seen.reading.partial, Some(units));
    assert!(seen.reading.output_bytes > 40);
}

#[test]
fn a_report_that_is_cut_in_the_middle_is_no_report() {
    let at = MESSAGE.find(r#","output_tokens":510"#).unwrap();
    let seen = streamed(&messages(), false, &MESSAGE[..at]);
    assert_eq!(seen.reading.units, None);
    assert_eq!(seen.reading.partial.map(|units| units.output), Some(40));
}

#[test]
fn an_error_after_the_head_is_seen_and_what_was_reported_is_kept() {
    let at = MESSAGE.find("event: content_block_stop").unwrap();
    let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    let seen = streamed(&messages(), false, &format!("{}{error}", &MESSAGE[..at]));
    assert!(seen.reading.error_event && !seen.is_complete);
    assert_eq!(seen.reading.partial.map(|units| units.input), Some(472));
    assert!(seen.ready.ends_with(error));

    let error = "data: {\"error\":{\"message\":\"The server had an error\",\"type\":\"server_error\"}}\n\n";
    let seen = streamed(&chat(), true, &format!("{}{error}", chunks(CHAT)[0]));
    assert!(seen.reading.error_event && seen.reading.units.is_none());
    assert!(seen.ready.ends_with(error));

    let error = "event: error\ndata: {\"type\":\"error\",\"code\":\"server_error\",\"message\":\"x\",\"param\":null}\n\n";
    assert!(streamed(&responses(), false, error).reading.error_event);
}

#[test]
fn a_response_is_read_from_its_last_event_whichever_that_is() {
    for kind in ["completed", "incomplete", "failed"] {
        let stream = response("Hi", kind);
        let seen = streamed(&responses(), false, &stream);
        let units = Units {
            input: 30,
            cache_read: 7,
            output: 10,
            reasoning: 1,
            web_searches: 1,
            requests: 1,
            ..Units::default()
        };
        assert_eq!(seen.reading.units, Some(units), "{kind}");
        assert!(seen.is_complete && seen.held.starts_with(&format!("event: response.{kind}")));
        assert_eq!(seen.all(), stream);
        assert_eq!(seen.reading.error_event, kind == "failed");
        assert_eq!(seen.reading.output_bytes, 2);
    }
}

#[test]
fn a_last_event_of_megabytes_flows_but_for_the_end_without_which_it_is_not_complete() {
    let stream = response(&"word \\\"}]} ".repeat(400_000), "completed");
    let mut reader = UsageReader::new(&responses(), Announced::Events, false);
    let mut output = Output::default();
    let (mut sent, mut most_held) = (Vec::new(), 0);
    for chunk in stream.as_bytes().chunks(16 * 1024) {
        reader.feed(Bytes::copy_from_slice(chunk), &mut output);
        output.ready.drain(..).for_each(|part| sent.extend_from_slice(&part));
        most_held = most_held.max(output.held.iter().map(Bytes::len).sum::<usize>());
    }
    assert!(output.complete);
    assert!(most_held <= 32 * 1024 && sent.len() > stream.len() - 32 * 1024);
    assert!(!sent.ends_with(b"\n"), "the blank line that completes the event waits");
    assert_eq!(reader.reading().units.map(|units| units.tokens()), Some(48));
    let reading = reader.finish(&mut output);
    output.release();
    output.ready.drain(..).for_each(|part| sent.extend_from_slice(&part));
    assert_eq!(sent, stream.as_bytes());
    assert_eq!(reading.model.as_deref(), Some("gpt-5.4-2026-03-05"));
}

#[test]
fn a_type_is_read_from_the_data_where_no_event_line_names_it() {
    let stream: String = response("Hi", "completed")
        .lines()
        .filter(|line| !line.starts_with("event:"))
        .map(|line| format!("{line}\n"))
        .collect();
    let seen = streamed(&responses(), false, &stream);
    assert!(seen.is_complete && seen.reading.units.is_some());
    assert!(seen.held.starts_with("data: {\"type\":\"response.completed\""));
}

#[test]
fn a_json_error_in_place_of_a_stream_passes() {
    let body = "{\"error\":{\"message\":\"x\"}}";
    let seen = streamed(&chat(), true, body);
    assert_eq!((seen.all(), seen.reading.units), (body.to_owned(), None));
}

/// The bytes of the stream with other line ends.
pub(super) fn with_ends(stream: &str, end: &str) -> String {
    stream.replace('\n', end)
}

#[test]
fn an_event_that_only_begins_as_the_last_one_is_not_it_wherever_it_is_cut() {
    let stream = "data: [DONE]x\n\ndata: [DONE]\ndata: y\n\n";
    for size in [stream.len(), 12, 1] {
        let seen = feed(UsageReader::new(&chat(), Announced::Events, false), stream.as_bytes().chunks(size));
        assert_eq!((seen.all().as_str(), seen.is_complete), (stream, false), "{size}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_cut_and_no_line_end_changes_the_reading_or_the_bytes(
        cuts: Vec<prop::sample::Index>,
        end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
    ) {
        let response = response("Hi {\\\"usage\\\":1}", "completed");
        for (endpoint, hides, stream) in [(chat(), false, CHAT), (chat(), true, CHAT), (messages(), false, MESSAGE), (responses(), false, &*response)] {
            let whole = streamed(&endpoint, hides, stream);
            let stream = with_ends(stream, end);
            let seen = feed(UsageReader::new(&endpoint, Announced::Events, hides), cut(stream.as_bytes(), &cuts));
            let kept = chunks(&stream.replace("\r\n", "\n").replace('\r', "\n")).into_iter().filter(|chunk| !(hides && chunk.contains("\"choices\":[]"))).collect::<String>();
            prop_assert_eq!(&seen.reading, &whole.reading);
            prop_assert_eq!(seen.all(), with_ends(&kept, end));
            prop_assert!(seen.is_complete);
            let last = chunks(&kept).pop().unwrap_or_default().to_owned();
            prop_assert!(seen.held.starts_with(&with_ends(last.trim_end(), end)), "{:?}", seen.held);
        }
    }
}
