//! The answers are written after the shapes that the providers document: the OpenAI API reference (chat completions,
//! responses, embeddings and their streaming events) and Anthropic's (messages, streaming messages).

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tollgate_policy::dialect::{Catalog, Endpoint};
use tollgate_policy::price::Units;

use super::*;
use crate::metering::catalog;

mod buffered;
mod odd;
mod streamed;
mod threats;

fn catalog() -> &'static Catalog {
    static CATALOG: std::sync::OnceLock<Catalog> = std::sync::OnceLock::new();
    CATALOG.get_or_init(|| catalog::shipped().unwrap())
}

fn endpoint(dialect: &str, path: &str) -> Arc<Endpoint> {
    catalog().dialect(dialect).unwrap().endpoint("POST", path).unwrap().clone()
}

fn chat() -> Arc<Endpoint> {
    endpoint("openai", "/v1/chat/completions")
}

fn responses() -> Arc<Endpoint> {
    endpoint("openai", "/v1/responses")
}

fn messages() -> Arc<Endpoint> {
    endpoint("anthropic", "/v1/messages")
}

/// An answer as its bytes went by.
#[derive(Debug, PartialEq)]
struct Seen {
    reading: UsageReading,
    /// What went on at once, and what waited for the record.
    ready: String,
    held: String,
    is_complete: bool,
}

impl Seen {
    fn all(&self) -> String {
        self.ready.clone() + &self.held
    }
}

fn feed<'a>(reader: UsageReader, pieces: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let mut reader = reader;
    let mut output = Output::default();
    for piece in pieces {
        reader.feed(Bytes::copy_from_slice(piece), &mut output);
    }
    let is_complete = output.complete;
    let reading = reader.finish(&mut output);
    let text =
        |parts: &VecDeque<Bytes>| String::from_utf8(parts.iter().flatten().copied().collect()).unwrap();
    Seen { reading, ready: text(&output.ready), held: text(&output.held), is_complete }
}

fn buffered(endpoint: &Endpoint, body: &str) -> UsageReading {
    let seen = feed(UsageReader::new(endpoint, Announced::Either, false), [body.as_bytes()]);
    assert_eq!(seen.ready, body);
    seen.reading
}

fn streamed(endpoint: &Endpoint, hides_usage: bool, body: &str) -> Seen {
    feed(UsageReader::new(endpoint, Announced::Events, hides_usage), [body.as_bytes()])
}

fn cut<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}
