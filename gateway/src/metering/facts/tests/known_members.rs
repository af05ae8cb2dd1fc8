//! The request members that the providers' own SDKs know: openai 3.54.0 and anthropic 2.12.0 for Python.

use super::*;

const CHAT: &[&str] = &[
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "modalities",
    "model",
    "moderation",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
];

const RESPONSES: &[&str] = &[
    "access_programs",
    "background",
    "background_options",
    "context_management",
    "conversation",
    "image",
    "include",
    "input",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "model",
    "moderation",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
];

const EMBEDDINGS: &[&str] = &["dimensions", "encoding_format", "input", "model", "user"];

const MESSAGES: &[&str] = &[
    "billing_policy",
    "cache_control",
    "compaction",
    "container",
    "context_management",
    "diagnostics",
    "fallback_credit_token",
    "fallbacks",
    "inference_geo",
    "max_tokens",
    "mcp_servers",
    "messages",
    "metadata",
    "model",
    "output_config",
    "output_format",
    "service_tier",
    "speed",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "thread",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
];

/// What other clients send to it, and OpenAI's own API refuses or leaves aside.
const SAMPLING: &[&str] = &["min_p", "repetition_penalty", "top_a", "top_k", "typical_p"];

#[test]
fn every_member_that_an_sdk_sends_has_a_class() {
    let cases = [
        (chat(), CHAT),
        (responses(), RESPONSES),
        (endpoint("openai", "/v1/embeddings"), EMBEDDINGS),
        (messages(), MESSAGES),
    ];
    for (endpoint, members) in cases {
        for member in members {
            assert!(endpoint.request.member(member).is_some(), "{}: {member}", endpoint.path);
        }
        for (member, _) in endpoint.request.members() {
            let is_sampling = SAMPLING.contains(&member);
            assert!(is_sampling || members.contains(&member), "{}: no SDK sends {member}", endpoint.path);
        }
    }
}
