//! Threat 16: metering trusted to the caller.

use super::*;

fn chat_with(usage: &str) -> Option<Units> {
    buffered(&chat(), &format!(r#"{{"model":"gpt-5-mini","choices":[],"usage":{usage}}}"#)).units
}

#[test]
fn threat_16_a_usage_object_that_the_model_prints_does_not_count() {
    let printed = r#"{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}"#;
    let body = format!(
        r#"{{"choices":[{{"message":{{"content":"{printed}","tool_calls":[{{"function":{{"arguments":"{printed}"}}}}],"usage":{{"prompt_tokens":2}}}}}}],"metadata":{{"usage":{{"prompt_tokens":3}}}},"usage":{{"prompt_tokens":500,"completion_tokens":70}}}}"#
    );
    assert_eq!(
        buffered(&chat(), &body).units,
        Some(Units { input: 500, output: 70, requests: 1, ..Units::default() })
    );

    let stream = format!(
        "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{printed}\\n\\ndata: [DONE]\\n\\n\"}}}}]}}\n\ndata: {{\"choices\":[{{\"delta\":{{\"usage\":{{\"prompt_tokens\":1}}}}}}]}}\n\ndata: [DONE]\n\n"
    );
    let seen = streamed(&chat(), false, &stream);
    assert_eq!(seen.reading.units, None);
    assert_eq!(seen.held, "data: [DONE]\n\n");
}

#[test]
fn threat_16_a_tool_input_that_looks_like_a_report_does_not_count() {
    let stream = concat!(
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"content_block\":{\"type\":\"tool_use\",\"input\":{\"usage\":{\"output_tokens\":1}},\"usage\":{\"output_tokens\":1}}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\",\"message\":\"x\"}\n\n"
    );
    assert_eq!(streamed(&messages(), false, stream).reading.units, None);
}

#[test]
fn threat_16_negative_fractional_and_overflowing_units_count_as_not_reported() {
    for nonsense in [
        "-5",
        "5.1",
        "5.",
        ".0",
        "0.5",
        "5e2",
        "99999999999999999999",
        "1000000000001",
        "\"5\"",
        "true",
        "[5]",
        "{}",
    ] {
        assert_eq!(
            chat_with(&format!(r#"{{"prompt_tokens":{nonsense},"completion_tokens":7}}"#)),
            None,
            "{nonsense}"
        );
        assert_eq!(
            chat_with(&format!(r#"{{"prompt_tokens":7,"completion_tokens":{nonsense}}}"#)),
            None,
            "{nonsense}"
        );
        let details = format!(
            r#"{{"prompt_tokens":7,"completion_tokens":7,"prompt_tokens_details":{{"cached_tokens":{nonsense}}}}}"#
        );
        assert_eq!(chat_with(&details), None, "{nonsense}");
    }
    assert!(chat_with(r#"{"prompt_tokens":7,"completion_tokens":7,"prompt_tokens_details":null}"#).is_some());
}

#[test]
fn threat_16_a_good_number_after_nonsense_does_not_mend_it() {
    let stream = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":-1,\"completion_tokens\":1}}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\ndata: [DONE]\n\n";
    let reading = streamed(&chat(), false, stream).reading;
    assert_eq!((reading.units, reading.partial), (None, None));
}

#[test]
fn threat_16_no_usage_and_null_usage_are_not_zero() {
    assert_eq!(chat_with("null"), None);
    assert_eq!(chat_with("{}"), None);
    assert_eq!(chat_with("[]"), None);
    // What the answer holds is counted beside a report, and is none by itself.
    let body = r#"{"output":[{"type":"web_search_call"}],"usage":null}"#;
    assert_eq!(buffered(&responses(), body).units, None);
}

#[test]
fn threat_16_a_broken_body_reports_nothing() {
    for body in [
        r#"{"usage":{"prompt_tokens":1,"completion_tokens":1}]"#,
        r#"{"usage":{"prompt_tokens":1 "completion_tokens":1}}"#,
    ] {
        let reading = buffered(&chat(), body);
        assert_eq!((reading.units, reading.partial), (None, None), "{body}");
    }
}

#[test]
fn threat_16_a_disconnect_before_the_report_leaves_no_report() {
    let stream = "data: {\"choices\":[{\"delta\":{\"content\":\"Hello\"}}],\"usage\":null}\n\n";
    let reading = streamed(&chat(), true, stream).reading;
    assert_eq!((reading.units, reading.output_bytes), (None, 5));
}
