//! Answers in the shapes of the providers, for upstreams of our own.

use serde_json::{Value, json};

use crate::upstream::{Reply, Seen};

/// A model of the catalog with known limits, used wherever the model does not matter.
pub const OPENAI_MODEL: &str = "gpt-5-mini";

/// The same for Anthropic.
pub const ANTHROPIC_MODEL: &str = "claude-sonnet-4-5";

/// An OpenAI chat completion with this usage.
pub fn chat_completion(prompt: u64, completion: u64) -> Value {
    json!({
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_763_000_000,
        "model": OPENAI_MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    })
}

/// One content chunk of an OpenAI stream.
pub fn chat_chunk(text: &str) -> String {
    json!({
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_763_000_000,
        "model": OPENAI_MODEL,
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}],
        "usage": null,
    })
    .to_string()
}

/// The chunk with the usage, which OpenAI sends only when `stream_options.include_usage` asks for it.
pub fn chat_usage_chunk(prompt: u64, completion: u64) -> String {
    json!({
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_763_000_000,
        "model": OPENAI_MODEL,
        "choices": [],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    })
    .to_string()
}

/// Answers as OpenAI's chat completions do, streamed or not, with this usage; 401 unless the bearer token is `key`.
pub fn openai(key: &str, prompt: u64, completion: u64) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    let expected = format!("Bearer {key}");
    move |seen| {
        if seen.header("authorization") != expected {
            return wrong_key();
        }
        let body = seen.json();
        if body["stream"] != true {
            return Reply::json(&chat_completion(prompt, completion));
        }
        let mut reply = Reply::events([chat_chunk("Hel").as_str(), chat_chunk("lo.").as_str()]);
        if body["stream_options"]["include_usage"] == true {
            reply = reply.event(&chat_usage_chunk(prompt, completion));
        }
        reply.event("[DONE]")
    }
}

/// What a provider says to a key that it does not know.
pub fn wrong_key() -> Reply {
    let error = json!({"error": {"message": "Incorrect API key provided", "type": "invalid_request_error", "code": "invalid_api_key"}});
    Reply::status(401).header("content-type", "application/json").data(error.to_string())
}

/// A chat request with a cap on its output.
pub fn chat(max_completion_tokens: u64) -> Value {
    json!({
        "model": OPENAI_MODEL,
        "messages": [{"role": "user", "content": "hello"}],
        "max_completion_tokens": max_completion_tokens,
    })
}
