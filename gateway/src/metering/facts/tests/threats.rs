//! Threats 7, 8 and 9: a body that is read differently, work that is billed later, a small body that costs much.

use super::*;

#[test]
fn threat_7_a_deciding_member_that_occurs_twice_is_ambiguous() {
    let bodies = [
        r#"{"model":"a","model":"b"}"#,
        r#"{"model":"a","mod\u0065l":"b"}"#,
        r#"{"mod\u0065l":"a","model":"a"}"#,
        r#"{"stream":true,"stream":false}"#,
        r#"{"stream_options":{},"stream_options":{}}"#,
        r#"{"stream_options":{"include_usage":true,"include_usage":false}}"#,
        r#"{"stream_options":{"include_usage":true,"Include_Usage":false}}"#,
        r#"{"stream_options":{"include_usage":true,"include_us\u0061ge":false}}"#,
        r#"{"max_tokens":1,"max_tokens":1000}"#,
        r#"{"n":1,"n":100}"#,
        r#"{"service_tier":"flex","service_tier":"priority"}"#,
        r#"{"messages":[],"messages":[]}"#,
        r#"{"tools":[],"tools":[]}"#,
        r#"{"tools":[{"type":"function","type":"web_search"}]}"#,
        r#"{"tools":[{"type":"function","Type":"web_search"}]}"#,
    ];
    for body in bodies {
        assert_eq!(refusal(&chat(), body).0, Reason::AmbiguousBody, "{body}");
    }
    let bodies = [
        r#"{"thinking":{"budget_tokens":1,"budget_tokens":9}}"#,
        r#"{"tools":[{"type":"web_search_20250305","max_uses":1,"max_uses":9}]}"#,
        r#"{"tools":[{"type":"web_search_20250305","max_uses":1,"MAX_USES":9}]}"#,
    ];
    for body in bodies {
        assert_eq!(refusal(&messages(), body).0, Reason::AmbiguousBody, "{body}");
    }
    assert!(
        read_text(&chat(), r#"{"model":"m","temperature":1,"temperature":2}"#).is_ok(),
        "it decides nothing"
    );
}

#[test]
fn threat_7_a_deciding_member_in_another_letter_case_is_ambiguous() {
    let bodies = [
        r#"{"Model":"a"}"#,
        r#"{"MODEL":"a","model":"a"}"#,
        r#"{"m\u004fdel":"a"}"#,
        r#"{"Max_Tokens":5}"#,
        r#"{"N":5}"#,
        r#"{"Stream":true}"#,
        "{\"\u{17f}tream\":true}",
        "{\"max_to\u{212a}ens\":5}",
        r#"{"\u017Ftream":true}"#,
    ];
    for body in bodies {
        let (reason, detail) = refusal(&chat(), body);
        assert_eq!(reason, Reason::AmbiguousBody, "{body}");
        assert!(detail.contains("in lower case"), "{detail}");
    }
    assert!(read_text(&chat(), r#"{"model":"m","Temperature":2}"#).is_ok());
}

#[test]
fn threat_7_other_encodings_of_the_body_are_refused() {
    let body = br#"{"model":"m"}"#;
    for encoding in ["gzip", "br", "deflate", "zstd", "identity, gzip", "x-gzip", ""] {
        let mut headers = headers("application/json");
        headers.insert(CONTENT_ENCODING, HeaderValue::from_str(encoding).unwrap());
        assert_eq!(
            read(&chat(), &headers, body).unwrap_err().reason,
            Reason::UnsupportedEncoding,
            "{encoding}"
        );
    }
    let mut plain = headers("application/json");
    plain.insert(CONTENT_ENCODING, HeaderValue::from_static("Identity"));
    assert!(read(&chat(), &plain, body).is_ok());
    plain.append(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    assert_eq!(read(&chat(), &plain, body).unwrap_err().reason, Reason::UnsupportedEncoding);
    let utf_16: Vec<u8> = r#"{"model":"m"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(read(&chat(), &headers("application/json"), &utf_16).unwrap_err().reason, Reason::BodyInvalid);
    let form = headers("application/x-www-form-urlencoded");
    assert_eq!(read(&chat(), &form, b"model=m").unwrap_err().reason, Reason::UnsupportedMediaType);
}

#[test]
fn threat_7_a_model_beyond_any_bound_is_still_read() {
    let body =
        format!(r#"{{"messages":[{{"role":"user","content":"{}"}}],"model":"late"}}"#, "x".repeat(5_000_000));
    assert_eq!(read_text(&chat(), &body).unwrap().facts.model.as_deref(), Some("late"));
}

#[test]
fn threat_8_background_work_is_deferred_where_cost_is_limited() {
    let read = read_text(&responses(), r#"{"model":"m","background":true}"#).unwrap();
    assert_eq!(read.within_limits().unwrap_err().reason, Reason::DeferredCost);
    for body in [r#"{"background":false}"#, r#"{"background":null}"#, "{}"] {
        assert!(read_text(&responses(), body).unwrap().within_limits().is_ok());
    }
}

#[test]
fn threat_9_content_from_outside_the_body_is_noticed() {
    let user = |part: Value| json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, part]}]});
    let chat_parts = [
        json!({"type": "image_url", "image_url": {"url": "https://a/b.png"}}),
        json!({"type": "image_url", "image_url": {"url": "HTTPS://a/b.png"}}),
        json!({"type": "image_url", "image_url": "//a/b.png:80"}),
        json!({"type": "image_url"}),
        json!({"type": "file", "file": {"file_id": "file-1"}}),
        json!({"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}}),
        json!({"type": "video", "video": 1}),
        json!({"type": ["text"]}),
        json!({"type": null}),
    ];
    for part in chat_parts {
        // A type that is no string is no request that a provider takes.
        assert!(
            read_text(&chat(), &user(part.clone()).to_string()).map_or(true, |read| read.facts.outside),
            "{part}"
        );
    }
    assert!(
        facts(&chat(), &json!({"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]})).outside
    );
    assert!(facts(&chat(), &json!({"messages": [{"content": "no role"}]})).outside);

    let items = [
        json!({"type": "item_reference", "id": "msg_1"}),
        json!({"id": "msg_1"}),
        json!({"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]}),
        json!({"role": "user", "content": [{"type": "input_file", "file_url": "https://a/b.pdf"}]}),
        json!({"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "image_url": "https://a"}]}),
        json!({"type": "web_search_call", "id": "ws_1"}),
        json!({"type": "file_search_call", "id": "fs_1", "queries": ["q"], "results": null}),
        json!({"type": "shell_call", "environment": {"type": "container_reference", "container_id": "c"}}),
        json!({"type": "unheard_of"}),
    ];
    for item in items {
        assert!(facts(&responses(), &json!({"input": [item.clone()]})).outside, "{item}");
    }
    for (member, value) in [
        ("previous_response_id", json!("resp_1")),
        ("conversation", json!("conv_1")),
        ("conversation", json!({"id": "conv_1"})),
    ] {
        assert!(facts(&responses(), &json!({member: value})).outside, "{member}");
        assert!(!facts(&responses(), &json!({member: null})).outside, "{member}");
    }

    let blocks = [
        json!({"type": "image", "source": {"type": "url", "url": "https://a"}}),
        json!({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}}),
        json!({"type": "document", "source": {"type": "file", "file_id": "file_1"}}),
        json!({"type": "container_upload", "file_id": "file_1"}),
        json!({"type": "document", "source": {"type": "url", "url": "https://a/b.pdf"}}),
        json!({"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": "https://a"}}]}),
    ];
    for block in blocks {
        assert!(
            facts(&messages(), &json!({"messages": [{"role": "user", "content": [block.clone()]}]})).outside,
            "{block}"
        );
    }
    for member in ["mcp_servers", "container", "thread"] {
        assert!(facts(&messages(), &json!({member: [{"x": 1}]})).outside, "{member}");
        assert!(!facts(&messages(), &json!({member: []})).outside, "{member}");
    }
}

#[test]
fn threat_9_an_unknown_member_counts_as_the_whole_window_and_the_maximum_output() {
    for body in [
        json!({"max_tokens": 5, "surprise": null}),
        json!({"max_tokens": 5, "maxTokens": 9}),
        json!({"max_tokens": 5, "prediction": {"type": "content", "content": "x"}}),
    ] {
        let read = facts(&chat(), &body);
        assert!(read.outside, "{body}");
        assert_eq!(read.output_cap, Some(UNIT_MAX), "{body}");
    }
}

#[test]
fn threat_9_of_several_caps_the_largest_counts() {
    assert_eq!(facts(&chat(), &json!({"max_tokens": 5, "max_completion_tokens": 900})).output_cap, Some(900));
    assert_eq!(facts(&chat(), &json!({"max_tokens": 700, "max_completion_tokens": 9})).output_cap, Some(700));
    assert_eq!(facts(&chat(), &json!({"max_tokens": 7, "max_completion_tokens": null})).output_cap, Some(7));
    let nothing = json!({"max_tokens": 7, "max_completion_tokens": 0});
    assert_eq!(facts(&chat(), &nothing).output_cap, Some(UNIT_MAX), "nobody knows whether nothing is a cap");
    let thinking = json!({"max_tokens": 100, "thinking": {"type": "enabled", "budget_tokens": 20_000}});
    assert_eq!(facts(&messages(), &thinking).output_cap, Some(20_000));
    assert_eq!(
        facts(&messages(), &json!({"max_tokens": 100, "thinking": {"type": "adaptive"}})).output_cap,
        Some(100)
    );
    assert_eq!(refusal(&messages(), r#"{"thinking":{"budget_tokens":-1}}"#).0, Reason::BodyInvalid);
}

#[test]
fn threat_9_choices_multiply() {
    assert_eq!(facts(&chat(), &json!({"n": 128})).choices, 128);
    assert_eq!(facts(&chat(), &json!({"n": 0})).choices, 1);
    let read = facts(&chat(), &json!({"n": 4, "web_search_options": {}}));
    assert_eq!((read.outside, read.tool_fees, read.passes), (true, NanoUsd(4 * 25_000_000), 5));
    let embeddings = endpoint("openai", "/v1/embeddings");
    for (input, inputs) in [
        (json!("a"), 1),
        (json!([1, 2, 3]), 1),
        (json!(["a", "b"]), 2),
        (json!([[1], [2], [3]]), 3),
        (json!([]), 1),
    ] {
        assert_eq!(facts(&embeddings, &json!({"input": input})).inputs, inputs, "{input}");
    }
    let predicted =
        facts(&chat(), &json!({"prediction": {"type": "content", "content": "abc"}, "max_tokens": 5}));
    assert_eq!(predicted.predicted, 34);
}

#[test]
fn threat_9_a_tier_that_is_not_known_is_held_at_the_dearest() {
    assert_eq!(facts(&chat(), &json!({"service_tier": "hyperspeed"})).tier.as_deref(), Some("?"));
    assert_eq!(facts(&chat(), &json!({"service_tier": "fast"})).tier.as_deref(), Some("priority"));
    assert_eq!(
        facts(&messages(), &json!({"service_tier": "standard_only", "speed": "fast", "inference_geo": "us"}))
            .tier
            .as_deref(),
        Some("us+standard+fast")
    );
    assert_eq!(facts(&messages(), &json!({"service_tier": "auto", "speed": "standard"})).tier, None);
    assert_eq!(facts(&messages(), &json!({"inference_geo": "mars"})).tier.as_deref(), Some("?"));
}

#[test]
fn threat_9_the_providers_own_tools_are_bounded_or_said_to_be_unbounded() {
    let read =
        |tools: Value, cap: Value| facts(&responses(), &json!({"tools": tools, "max_tool_calls": cap}));
    let search = read(json!([{"type": "web_search"}]), json!(4));
    assert_eq!((search.outside, search.unbounded, search.tool_fees), (true, false, NanoUsd(40_000_000)));
    // One cap counts the calls of all tools, so the dearest of them is charged for each.
    let both = read(
        json!([{"type": "file_search", "vector_store_ids": ["vs"]}, {"type": "web_search_preview_2025_03_11"}]),
        json!(4),
    );
    assert_eq!((both.unbounded, both.tool_fees), (false, NanoUsd(100_000_000)));
    assert!(read(json!([{"type": "web_search"}]), Value::Null).unbounded);
    assert_eq!((search.passes, both.passes), (5, 5));
    assert!(read(json!([{"type": "mcp", "server_url": "https://a"}]), json!(4)).unbounded);
    assert!(read(json!([{"type": "file_search"}]), json!(0)).unbounded, "nobody knows what no calls mean");
    let searched = read(json!([{"type": "tool_search"}]), json!(2));
    assert_eq!((searched.outside, searched.passes), (false, 3));
    assert_eq!(read(json!([{"type": "tool_search", "execution": "client"}]), Value::Null).passes, 1);
    assert!(
        read(json!([{"type": "namespace", "tools": [{"type": "code_interpreter"}]}]), json!(1)).unbounded
    );
    let nested = json!([{"tools": [{"type": "web_search"}, {"type": "function", "name": "f"}], "type": "namespace", "name": "n"}]);
    assert_eq!(read(nested, json!(3)).passes, 4);
    for tool in ["code_interpreter", "image_generation", "shell", "unheard_of"] {
        let read = read(json!([{"type": tool}]), json!(1));
        assert!(read.unbounded && read.outside, "{tool}");
    }
    assert!(read(json!([{"name": "no type"}]), json!(1)).unbounded);

    let read = |tools: Value| facts(&messages(), &json!({"tools": tools}));
    let search = read(json!([{"type": "web_search_20260318", "name": "web_search", "max_uses": 5}]));
    assert_eq!((search.outside, search.unbounded, search.tool_fees), (true, false, NanoUsd(50_000_000)));
    let twice = read(
        json!([{"type": "web_search_20260318", "max_uses": 5}, {"type": "web_search_20250305", "max_uses": 1}]),
    );
    assert_eq!(twice.tool_fees, NanoUsd(60_000_000));
    let passes = |tool: &str, uses: u64| read(json!([{"type": tool, "max_uses": uses}])).passes;
    assert_eq!((passes("web_search_20250305", 5), passes("web_fetch_20250910", 3)), (6, 4));
    assert_eq!((passes("web_search_20260318", 5), passes("web_search_20260318", 20)), (10, 21));
    let found = read(json!([{"type": "tool_search_tool_regex_20251119", "name": "t"}]));
    assert_eq!((found.outside, found.unbounded, found.passes), (false, false, 10));
    for uncapped in [
        json!({"type": "web_fetch_20250910"}),
        json!({"type": "web_search_20250305", "max_uses": 0}),
        json!({"type": "mcp_toolset", "mcp_server_name": "m"}),
    ] {
        assert!(read(json!([uncapped.clone()])).unbounded, "{uncapped}");
    }
    assert!(read(json!([{"type": "web_search_20260318", "name": "web_search"}])).unbounded);
    assert!(read(json!([{"type": "code_execution_20260521", "name": "code_execution"}])).unbounded);
    assert_eq!(
        refusal(&messages(), r#"{"tools":[{"type":"web_search_20260318","max_uses":-5}]}"#).0,
        Reason::BodyInvalid
    );
}

#[test]
fn threat_9_tools_hidden_in_the_content_are_found() {
    assert!(facts(&responses(), &json!({"input": [{"type": "additional_tools", "role": "developer", "tools": [{"type": "web_search"}]}]})).unbounded);
    assert!(facts(&responses(), &json!({"input": [{"type": "compaction_trigger"}]})).unbounded);
    assert!(
        facts(&messages(), &json!({"context_management": {"edits": [{"type": "compact_20260112"}]}}))
            .unbounded
    );
    assert!(facts(&responses(), &json!({"prompt": {"id": "pmpt_1"}})).unbounded);
}

#[test]
fn a_second_model_is_refused_where_anything_is_limited() {
    for body in [
        r#"{"fallbacks":[{"model":"claude-opus-5-5"}]}"#,
        r#"{"fallbacks":"default"}"#,
        r#"{"tools":[{"type":"advisor_20260301","name":"advisor","model":"claude-opus-5-5"}]}"#,
    ] {
        let read = read_text(&messages(), body).unwrap();
        assert_eq!(read.within_limits().unwrap_err().reason, Reason::ModelNotAllowed, "{body}");
    }
    assert!(read_text(&messages(), r#"{"fallbacks":null}"#).unwrap().within_limits().is_ok());
}

#[test]
fn threat_9_odd_things_within_content_count_like_what_nobody_knows() {
    let text = |members: &str| {
        format!(r#"{{"messages":[{{"role":"user","content":[{{"type":"text","text":"x"{members}}}]}}]}}"#)
    };
    for member in [
        r#","Type":"image_url""#,
        r#","type":"image_url""#,
        r#","FILE_ID":"f""#,
        r#","t\u0079pe":"text""#,
        ",\"ima\u{212a}\":1,\"Image_Url\":{}",
    ] {
        let (reason, detail) = refusal(&chat(), &text(member));
        assert_eq!(reason, Reason::AmbiguousBody, "{member}");
        assert!(detail.starts_with("`messages[]."), "{detail}");
    }
    for member in [
        r#","image_url":{"url":"https://a"}"#,
        r#","image_url":{"url":"data:image/png;base64,iVBO"}"#,
        r#","image_url":"iVBO""#,
        r#","surprise":1"#,
        r#","url":{"type":"video"}"#,
    ] {
        let read = read_text(&chat(), &text(member)).unwrap().facts;
        assert!(read.outside && read.causes.outside.is_some(), "{member}");
    }
    assert!(!read_text(&chat(), &text("")).unwrap().facts.outside);
    for item in [json!({"id": "x", "role": null}), json!({"id": "x", "type": null}), json!({"id": "x"})] {
        assert!(facts(&responses(), &json!({"input": [item.clone()]})).outside, "{item}");
    }
    let twice = r#"{"input":[{"type":"reasoning","encrypted_content":"g","encrypted_content":null}]}"#;
    assert_eq!(refusal(&responses(), twice).0, Reason::AmbiguousBody);
    let image = r#"{"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","data":"x"},"source":{"type":"url","url":"https://a"}}]}]}"#;
    assert_eq!(refusal(&messages(), image).0, Reason::AmbiguousBody);
    let tool = facts(&chat(), &json!({"tools": [{"type": "function", "function": {}, "surprise": 1}]}));
    assert!(tool.outside);
}

#[test]
fn threat_7_what_the_body_decides_may_not_stand_in_the_query_too() {
    let facts = facts(&chat(), &json!({"model": "gpt-5-mini", "messages": []}));
    let check = |query: &str| check_query(&chat().request, query, &facts).map_err(|denial| denial.reason);
    for same in [
        "",
        "api-version=2024-10-21",
        "model=gpt-5-mini",
        "mod%65l=gpt%2D5-mini&x",
        "beta=true",
        "temperature=1",
    ] {
        assert_eq!(check(same), Ok(()), "{same}");
    }
    for other in [
        "model=gpt-5",
        "x=1&MODEL=gpt-5",
        "mod%65l=gpt-5",
        "model",
        "model=gpt-5-mini&model=gpt-5",
        "a=1;model=gpt-5",
        "model[]=gpt-5",
        "max_tokens=9",
        "n=5",
        "%6e=5",
        "service_tier=priority",
        "tools=[]",
    ] {
        assert_eq!(check(other), Err(Reason::AmbiguousBody), "{other}");
    }
}

#[test]
fn half_a_surrogate_pair_is_the_same_everywhere() {
    for body in [
        r#"{"messages":[{"role":"user","content":"x \ud83d y"}]}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"text","text":"x \ud83d y"}]}]}"#,
        r#"{"user":"\ude00"}"#,
        r#"{"tools":[{"type":"function","function":{"name":"\ud83d"}}]}"#,
        r#"{"\ud83d":1}"#,
        r#"{"model":"\ud83d"}"#,
    ] {
        let (reason, detail) = refusal(&chat(), body);
        assert_eq!(reason, Reason::BodyInvalid, "{body}");
        assert!(detail.contains("surrogate pair at line 1, column "), "{detail}");
    }
    assert!(read_text(&chat(), r#"{"messages":[{"role":"user","content":"\ud83d\ude00 \\ud83d"}]}"#).is_ok());
}
