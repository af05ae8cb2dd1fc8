//! Images, documents and history that are in the body: what they are, and that they are not taken for content from outside.

use tollgate_policy::price::{Detail, Image};

use super::*;

/// The head of a PNG of this size.
const PNG_800_600: &str = "iVBORw0KGgoAAAANSUhEUgAAAyAAAAJYCAYAAAA=";

fn user(part: &Value) -> Value {
    json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, part]}]})
}

fn images(endpoint: &Endpoint, body: &Value) -> Vec<Image> {
    let facts = facts(endpoint, body);
    assert!(!facts.outside, "{body}: {:?}", facts.causes);
    facts.images
}

fn sized(detail: Detail) -> Vec<Image> {
    vec![Image { size: Some((800, 600)), detail }]
}

#[test]
fn an_image_in_the_body_is_known_by_its_size_and_detail() {
    let url = format!("data:image/png;base64,{PNG_800_600}");
    let part = |image: Value| user(&json!({"type": "image_url", "image_url": image}));
    assert_eq!(images(&chat(), &part(json!({"url": url}))), sized(Detail::Any));
    assert_eq!(images(&chat(), &part(json!({"url": url, "detail": "low"}))), sized(Detail::Low));
    assert_eq!(images(&chat(), &part(json!({"detail": "high", "url": url}))), sized(Detail::High));
    assert_eq!(images(&chat(), &part(json!({"detail": "LOW", "url": url}))), sized(Detail::Any));
    let beside = user(&json!({"type": "image_url", "image_url": {"url": url}, "detail": "low"}));
    assert_eq!(images(&chat(), &beside), sized(Detail::Any), "its place is within");
    let input = |part: Value| json!({"input": [{"role": "user", "content": [part]}]});
    assert_eq!(
        images(&responses(), &input(json!({"type": "input_image", "image_url": url, "detail": "low"}))),
        sized(Detail::Low)
    );
    let screen = json!({"input": [{"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot", "image_url": url}}]});
    assert_eq!(images(&responses(), &screen), sized(Detail::Any));
    let generated = json!({"input": [{"type": "image_generation_call", "id": "ig", "status": "completed", "result": PNG_800_600}]});
    assert_eq!(images(&responses(), &generated), sized(Detail::Any));
    let source = json!({"type": "base64", "media_type": "image/png", "data": PNG_800_600});
    let image = json!({"type": "image", "source": source, "cache_control": {"type": "ephemeral"}});
    assert_eq!(images(&messages(), &user(&image)), sized(Detail::Any));
    let result = json!({"type": "tool_result", "tool_use_id": "t", "content": [image]});
    assert_eq!(images(&messages(), &user(&result)), sized(Detail::Any));
    let document = json!({"type": "document", "source": {"type": "content", "content": [image]}});
    assert_eq!(images(&messages(), &user(&document)), sized(Detail::Any));
}

#[test]
fn an_image_whose_size_is_not_at_its_head_has_none() {
    for data in ["iVBORw0KGgo=", "", "PHN2Zy8+", "iVBO Rw0K"] {
        let source = json!({"type": "base64", "data": data});
        let body = user(&json!({"type": "image", "source": source}));
        assert_eq!(images(&messages(), &body), [Image::default()], "{data}");
    }
    let body = r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image\/png;base64,iVBO"}}]}]}"#;
    assert_eq!(read_text(&chat(), body).unwrap().facts.images, [Image::default()]);
}

#[test]
fn the_bytes_of_an_image_are_no_text() {
    let url = format!("data:image/png;base64,{PNG_800_600}");
    let facts = facts(&chat(), &user(&json!({"type": "image_url", "image_url": {"url": url}})));
    assert_eq!(facts.picture_bytes, PNG_800_600.len() as u64);
}

#[test]
fn more_images_than_anyone_reads_are_the_whole_window() {
    let part = json!({"type": "image", "source": {"type": "base64", "data": ""}});
    let body = json!({"messages": [{"role": "user", "content": vec![part; 2001]}]});
    let facts = facts(&messages(), &body);
    assert!(facts.outside && facts.images.len() == 2000);
}

#[test]
fn a_pdf_counts_its_pages() {
    let pdf = "%PDF-1.4 1 0 obj<</Type/Pages/Kids[2 0 R 3 0 R]>> 2 0 obj<</Type/Page>> 3 0 obj<</Type/Page>>";
    let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pdf);
    let source = json!({"type": "base64", "media_type": "application/pdf", "data": data});
    let facts = facts(&messages(), &user(&json!({"type": "document", "source": source, "title": "t"})));
    assert_eq!((facts.outside, facts.pages, facts.picture_bytes), (false, 2, data.len() as u64));
}

#[test]
fn what_the_providers_tools_brought_in_earlier_turns_is_in_the_body() {
    let content = json!([
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"type": "web_search_result", "url": "https://a", "title": "t",
            "encrypted_content": "E", "page_age": null}]},
        {"type": "web_fetch_tool_result", "tool_use_id": "s", "content": {"type": "web_fetch_result", "url": "https://a", "retrieved_at": "t",
            "content": {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "see https://b"}, "title": "t"}}},
        {"type": "search_result", "source": "https://a", "title": "t", "content": [{"type": "text", "text": "x"}]},
        {"type": "text", "text": "x", "citations": [{"type": "web_search_result_location", "url": "https://a"}]}]);
    let body =
        json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": content}]});
    let read = facts(&messages(), &body);
    assert!(!read.outside && !read.unbounded, "{:?}", read.causes);
    let input = json!([
        {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"type": "open_page", "url": "https://a"}},
        {"type": "file_search_call", "id": "fs", "status": "completed", "queries": ["q"], "results": [{"file_id": "file-1", "text": "t", "score": 1}]},
        {"type": "mcp_list_tools", "id": "l", "server_label": "s", "tools": [{"name": "n", "description": "d", "input_schema": {"type": "object"}}]},
        {"type": "mcp_call", "id": "m", "server_label": "s", "name": "n", "arguments": "{}", "output": "o", "error": null}]);
    let read = facts(&responses(), &json!({"input": input}));
    assert!(!read.outside && !read.unbounded, "{:?}", read.causes);
}

#[test]
fn reasoning_by_its_id_is_what_one_call_writes() {
    let item = json!({"type": "reasoning", "id": "rs_1", "summary": []});
    let read = facts(
        &responses(),
        &json!({"input": [item, {"type": "reasoning", "id": "rs_2", "encrypted_content": null, "summary": []},
        {"type": "reasoning", "id": "rs_3", "encrypted_content": "gAAA", "summary": []}]}),
    );
    assert_eq!((read.outside, read.written_before), (false, 2));
}

#[test]
fn what_only_tunes_the_sampling_costs_nothing() {
    for member in ["top_k", "min_p", "repetition_penalty"] {
        assert!(!facts(&chat(), &json!({"max_tokens": 5, member: 1})).outside, "{member}");
        assert!(!facts(&responses(), &json!({"max_output_tokens": 5, member: 1})).outside, "{member}");
    }
}
