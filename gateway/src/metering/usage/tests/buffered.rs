use super::*;

const CHAT: &str = r#"{
  "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT", "object": "chat.completion", "created": 1741569952,
  "model": "gpt-5-mini-2025-08-07",
  "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello! How can I \"help\" you {today}?",
    "refusal": null, "annotations": []}, "logprobs": null, "finish_reason": "stop"}],
  "usage": {"prompt_tokens": 1900, "completion_tokens": 310, "total_tokens": 2210,
    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0, "cache_write_tokens": 256},
    "completion_tokens_details": {"reasoning_tokens": 192, "audio_tokens": 0,
      "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}},
  "service_tier": "default", "system_fingerprint": null}
"#;

const RESPONSE: &str = r#"{"id":"resp_67cc","object":"response","created_at":1741476777,"status":"completed","background":false,
"error":null,"incomplete_details":null,"instructions":null,"max_output_tokens":null,"model":"gpt-5.4-2026-03-05",
"output":[{"type":"reasoning","id":"rs_1","summary":[]},
{"type":"web_search_call","id":"ws_1","status":"completed","action":{"type":"search","query":"usage"}},
{"type":"web_search_call","id":"ws_2","status":"completed","action":{"type":"search","query":"\"type\":\"web_search_call\""}},
{"type":"file_search_call","id":"fs_1","status":"completed","queries":["a"],"results":null},
{"type":"code_interpreter_call","id":"ci_1","container_id":"cntr_1"},{"type":"code_interpreter_call","id":"ci_2","container_id":"cntr_1"},
{"type":"message","id":"msg_1","status":"completed","role":"assistant","content":[{"type":"output_text","text":"ok","annotations":[]}]}],
"service_tier":"priority","store":true,"tools":[{"type":"web_search"}],
"usage":{"input_tokens":5000,"input_tokens_details":{"cached_tokens":2000,"cache_write_tokens":1500,
"cache_write_tokens_details":{"ttl_30m_tokens":500,"ttl_12h_tokens":1000}},
"output_tokens":87,"output_tokens_details":{"reasoning_tokens":60},"total_tokens":5087},"user":null,"metadata":{}}"#;

const MESSAGE: &str = r#"{"model":"claude-opus-5-5-20260901","id":"msg_01XFDUDYJgAACzvnptvVoYEL","type":"message","role":"assistant",
"content":[{"type":"text","text":"Hi! My name is Claude."},{"type":"tool_use","id":"toolu_1","name":"f","input":{"usage":{"input_tokens":1}}}],
"stop_reason":"end_turn","stop_sequence":null,
"usage":{"input_tokens":2095,"cache_creation_input_tokens":3000,"cache_read_input_tokens":700,
"cache_creation":{"ephemeral_5m_input_tokens":1000,"ephemeral_1h_input_tokens":2000},
"output_tokens":503,"output_tokens_details":{"thinking_tokens":400},"server_tool_use":{"web_search_requests":2,"web_fetch_requests":1},
"service_tier":"standard","inference_geo":"us","speed":"fast"}}"#;

#[test]
fn a_chat_completion_tells_disjoint_units() {
    let reading = buffered(&chat(), CHAT);
    let units = Units {
        input: 620,
        cache_read: 1024,
        cache_write_5m: 256,
        output: 118,
        reasoning: 192,
        requests: 1,
        ..Units::default()
    };
    assert_eq!(reading.units, Some(units));
    assert_eq!(units.tokens(), 2210);
    assert_eq!(reading.model.as_deref(), Some("gpt-5-mini-2025-08-07"));
    assert_eq!(reading.tier.as_deref(), Some("default"));
    assert!(!reading.error_event);
    assert_eq!(reading.output_bytes, CHAT.len() as u64);
}

#[test]
fn a_response_tells_disjoint_units_and_the_calls_of_its_tools() {
    let reading = buffered(&responses(), RESPONSE);
    let units = Units {
        input: 1500,
        cache_read: 2000,
        cache_write_5m: 500,
        cache_write_1h: 1000,
        output: 27,
        reasoning: 60,
        web_searches: 2,
        file_searches: 1,
        code_sessions: 1,
        requests: 1,
        ..Units::default()
    };
    assert_eq!(reading.units, Some(units));
    assert_eq!(units.tokens(), 5087);
    assert_eq!(
        (reading.model.as_deref(), reading.tier.as_deref()),
        (Some("gpt-5.4-2026-03-05"), Some("priority"))
    );
}

#[test]
fn a_message_tells_disjoint_units_and_how_it_was_served() {
    let reading = buffered(&messages(), MESSAGE);
    let units = Units {
        input: 2095,
        cache_read: 700,
        cache_write_5m: 1000,
        cache_write_1h: 2000,
        output: 103,
        reasoning: 400,
        web_searches: 2,
        requests: 1,
        ..Units::default()
    };
    assert_eq!(reading.units, Some(units));
    assert_eq!(reading.model.as_deref(), Some("claude-opus-5-5-20260901"));
    assert_eq!(reading.tier.as_deref(), Some("standard+fast+us"));
}

#[test]
fn an_embedding_tells_what_it_read() {
    let body = r#"{"object":"list","data":[{"object":"embedding","embedding":[0.0023,-0.009],"index":0}],
        "model":"text-embedding-3-small","usage":{"prompt_tokens":8,"total_tokens":8}}"#;
    let reading = buffered(&endpoint("openai", "/v1/embeddings"), body);
    assert_eq!(reading.units, Some(Units { input: 8, requests: 1, ..Units::default() }));
}

#[test]
fn audio_is_told_from_text() {
    let body = r#"{"model":"gpt-audio","usage":{"prompt_tokens":100,"completion_tokens":50,
        "prompt_tokens_details":{"audio_tokens":60,"cached_tokens":20},
        "completion_tokens_details":{"audio_tokens":30}}}"#;
    let units = Units {
        input: 20,
        cache_read: 20,
        audio_in: 60,
        output: 20,
        audio_out: 30,
        requests: 1,
        ..Units::default()
    };
    assert_eq!(buffered(&chat(), body).units, Some(units));
}

#[test]
fn details_that_exceed_their_total_never_exceed_it_in_units() {
    let body = r#"{"usage":{"prompt_tokens":100,"completion_tokens":50,
        "prompt_tokens_details":{"audio_tokens":70,"cached_tokens":90},
        "completion_tokens_details":{"reasoning_tokens":80}}}"#;
    let units = buffered(&chat(), body).units.unwrap();
    assert_eq!((units.audio_in, units.cache_read, units.input), (70, 30, 0));
    assert_eq!((units.reasoning, units.output), (50, 0));
    assert_eq!(units.tokens(), 150);
}

#[test]
fn the_iterations_of_a_message_are_summed_where_its_totals_leave_them_out() {
    let body = r#"{"model":"claude-opus-5-5","usage":{"input_tokens":100,"output_tokens":10,
        "cache_creation_input_tokens":0,"cache_read_input_tokens":5,
        "iterations":[{"type":"compaction","input_tokens":5000,"output_tokens":400,"cache_read_input_tokens":0,
            "cache_creation_input_tokens":30,"cache_creation":{"ephemeral_1h_input_tokens":30,"ephemeral_5m_input_tokens":0}},
          {"type":"message","input_tokens":100,"output_tokens":10,"cache_read_input_tokens":5,"cache_creation_input_tokens":0}]}}"#;
    let units = Units {
        input: 5100,
        cache_read: 5,
        cache_write_1h: 30,
        output: 410,
        requests: 1,
        ..Units::default()
    };
    assert_eq!(buffered(&messages(), body).units, Some(units));
}

#[test]
fn an_error_is_an_error_and_reports_nothing() {
    let body = r#"{"error":{"message":"Rate limit reached","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#;
    let reading = buffered(&chat(), body);
    assert!(reading.error_event && reading.units.is_none() && reading.partial.is_none());
    let body =
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_1"}"#;
    assert!(buffered(&messages(), body).error_event);
}

#[test]
fn a_failed_response_is_billed_what_it_reports() {
    let body = r#"{"id":"resp_1","status":"failed","error":{"code":"server_error","message":"x"},"model":"gpt-5.4",
        "output":[],"usage":{"input_tokens":10,"output_tokens":3}}"#;
    let reading = buffered(&responses(), body);
    assert!(reading.error_event);
    assert_eq!(reading.units, Some(Units { input: 10, output: 3, requests: 1, ..Units::default() }));
}

#[test]
fn an_answer_that_broke_off_reports_no_whole() {
    let at = CHAT.find("\"total_tokens\"").unwrap();
    let reading = buffered(&chat(), &CHAT[..at]);
    assert_eq!(reading.units, None);
    assert_eq!(reading.partial.map(|units| (units.input, units.output)), Some((1900, 310)));
}

#[test]
fn an_endpoint_without_rules_passes_everything_on() {
    let plain = catalog().dialect("http").unwrap().endpoint("GET", "/any/path").unwrap().clone();
    let seen = feed(UsageReader::new(&plain, Announced::Events, false), [&b"data: [DONE]\n\n"[..]]);
    assert_eq!((seen.ready.as_str(), seen.held.as_str(), seen.is_complete), ("data: [DONE]\n\n", "", false));
    assert_eq!((seen.reading.units, seen.reading.output_bytes), (None, 14));
}

fn searched(tool_usage: &str, items: &[&str]) -> u64 {
    let body = format!(
        r#"{{"model":"gpt-5-mini","output":[{}],"usage":{{"input_tokens":1000,"output_tokens":100}}{tool_usage}}}"#,
        items.join(",")
    );
    let units = buffered(&responses(), &body).units.unwrap();
    assert_eq!(units.tokens(), 1100);
    units.web_searches
}

#[test]
fn searches_are_what_the_provider_bills_and_else_the_items_that_search() {
    let search =
        r#"{"type":"web_search_call","id":"a","status":"completed","action":{"type":"search","query":"q"}}"#;
    let open =
        r#"{"type":"web_search_call","id":"b","status":"completed","action":{"type":"open_page","url":"u"}}"#;
    let find =
        r#"{"type":"web_search_call","id":"c","action":{"type":"find_in_page","url":"u","pattern":"p"}}"#;
    let untold = r#"{"type":"web_search_call","id":"d","status":"completed"}"#;
    let billed = |count: u64| format!(r#","tool_usage":{{"web_search":{{"num_requests":{count}}}}}"#);
    assert_eq!(searched(&billed(1), &[search, open, find, open]), 1);
    assert_eq!(searched(&billed(3), &[search]), 3);
    assert_eq!(searched(&billed(0), &[search]), 0);
    assert_eq!(searched("", &[search, open, find, open, search]), 2);
    assert_eq!(searched("", &[untold, open]), 1);
    assert_eq!(searched(r#","tool_usage":null"#, &[open, find]), 0);
}

#[test]
fn tokens_of_a_model_that_is_not_named_have_no_price() {
    let body = |total: u64| {
        format!(
            r#"{{"usage":{{"input_tokens":1,"output_tokens":1}},"tool_usage":{{"image_gen":{{"total_tokens":{total}}}}}}}"#
        )
    };
    assert!(buffered(&responses(), &body(4000)).unpriced);
    assert!(!buffered(&responses(), &body(0)).unpriced);
    let drawn =
        r#"{"output":[{"type":"image_generation_call"}],"usage":{"input_tokens":1,"output_tokens":1}}"#;
    let reading = buffered(&responses(), drawn);
    assert_eq!((reading.unpriced, reading.units.map(|units| units.images)), (true, Some(1)));
}

#[test]
fn images_are_told_by_tokens_or_counted() {
    let images = endpoint("openai", "/v1/images/generations");
    let body = r#"{"created":1,"data":[{"b64_json":"aaaa"}],"usage":{"input_tokens":50,"output_tokens":4160,"total_tokens":4210,"input_tokens_details":{"text_tokens":40,"image_tokens":10}}}"#;
    let units =
        Units { input: 40, image_in: 10, image_out: 4160, images: 1, requests: 1, ..Units::default() };
    assert_eq!(buffered(&images, body).units, Some(units));
    let long = "a".repeat(100_000);
    let body = format!(r#"{{"created":1,"data":[{{"url":"u","revised_prompt":"p"}},{{"url":"{long}"}}]}}"#);
    let units = Units { images: 2, requests: 1, ..Units::default() };
    assert_eq!(buffered(&images, &body).units, Some(units));
    let stream = "event: image_generation.partial_image\ndata: {\"type\":\"image_generation.partial_image\",\"b64_json\":\"aa\"}\n\nevent: image_generation.completed\ndata: {\"type\":\"image_generation.completed\",\"b64_json\":\"aaaa\",\"usage\":{\"input_tokens\":50,\"output_tokens\":4160,\"input_tokens_details\":{\"text_tokens\":50,\"image_tokens\":0}}}\n\n";
    let seen = streamed(&images, false, stream);
    let units = Units { input: 50, image_out: 4160, images: 1, requests: 1, ..Units::default() };
    assert_eq!((seen.reading.units, seen.is_complete), (Some(units), true));
}

#[test]
fn sound_is_told_by_tokens_or_by_seconds() {
    let heard = endpoint("openai", "/v1/audio/transcriptions");
    let body = r#"{"text":"a","usage":{"type":"tokens","input_tokens":14,"input_token_details":{"text_tokens":10,"audio_tokens":4},"output_tokens":101,"total_tokens":115}}"#;
    let units = Units { input: 10, audio_in: 4, output: 101, requests: 1, ..Units::default() };
    assert_eq!(buffered(&heard, body).units, Some(units));
    for body in [
        r#"{"text":"a","usage":{"type":"duration","seconds":9}}"#,
        r#"{"text":"a","usage":{"type":"duration","seconds":8.2}}"#,
        r#"{"text":"a","duration":8.470000267028809,"language":"english"}"#,
    ] {
        let units = Units { seconds: 9, requests: 1, ..Units::default() };
        assert_eq!(buffered(&heard, body).units, Some(units), "{body}");
    }
    for body in ["1\n00:00:00,000 --> 00:00:02,000\nHi", "Hi there", r#"{"text":"a"}"#] {
        assert_eq!(buffered(&heard, body).units, None);
    }
    let spoken = endpoint("openai", "/v1/audio/speech");
    let stream = "data: {\"type\":\"speech.audio.delta\",\"audio\":\"aa\"}\n\ndata: {\"type\":\"speech.audio.done\",\"usage\":{\"input_tokens\":14,\"output_tokens\":101,\"total_tokens\":115}}\n\n";
    let units = Units { input: 14, audio_out: 101, requests: 1, ..Units::default() };
    assert_eq!(streamed(&spoken, false, stream).reading.units, Some(units));
}

#[test]
fn completions_and_compactions_tell_what_they_used() {
    let body = r#"{"object":"text_completion","model":"gpt-3.5-turbo-instruct","choices":[{"text":"a"}],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}"#;
    let units = Units { input: 5, output: 7, requests: 1, ..Units::default() };
    assert_eq!(buffered(&endpoint("openai", "/v1/completions"), body).units, Some(units));
    let body = r#"{"id":"r","object":"response.compaction","output":[],"usage":{"input_tokens":139,"input_tokens_details":{"cached_tokens":0},"output_tokens":438,"output_tokens_details":{"reasoning_tokens":64},"total_tokens":577}}"#;
    let units = Units { input: 139, output: 374, reasoning: 64, requests: 1, ..Units::default() };
    assert_eq!(buffered(&endpoint("openai", "/v1/responses/compact"), body).units, Some(units));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_cut_changes_the_reading_or_the_bytes(cuts: Vec<prop::sample::Index>) {
        for (endpoint, body) in [(chat(), CHAT), (responses(), RESPONSE), (messages(), MESSAGE)] {
            let seen = feed(UsageReader::new(&endpoint, Announced::Either, false), cut(body.as_bytes(), &cuts));
            prop_assert_eq!(&seen.reading, &buffered(&endpoint, body));
            prop_assert_eq!((seen.all(), seen.is_complete), (body.to_owned(), false));
        }
    }
}
