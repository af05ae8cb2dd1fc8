//! From a call that is over to its spans: one of the gateway as a server, and below it one for each attempt as a client.
//!
//! Names and attributes are those of OpenTelemetry's semantic conventions for HTTP and for generative AI, and `TELEMETRY.md` has them all.

use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use tollgate_policy::price::{Item, Units};

use super::attribute::{self as name, Attributes};
use super::nanos;
use crate::ledger::{Bounded, Outcome, Record, UsageSource};
use crate::trace::{AttemptTrace, RecordedCall};

/// The flags of a span whose context is sampled and whose parent is known to be elsewhere (`SpanFlags`).
const SAMPLED: u32 = 1;
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// A call that was recorded and is over.
#[derive(Debug)]
pub(crate) struct FinishedCall {
    pub(super) record: Record,
    pub(super) call: Box<RecordedCall>,
    /// `gen_ai.provider.name`, where the destination's API is one of models.
    pub(super) provider: Option<Box<str>>,
}

impl FinishedCall {
    /// The spans of the call, that of the gateway first.
    pub(super) fn into_spans(self) -> Vec<Span> {
        let attempts = self.call.attempts();
        let last = attempts.len().saturating_sub(1);
        let mut spans = vec![self.server()];
        spans.extend(attempts.iter().enumerate().map(|(at, attempt)| self.client(attempt, at, at == last)));
        spans
    }

    fn server(&self) -> Span {
        let record = &self.record;
        let method = known_method(&record.method);
        let name = match &record.destination {
            Some(destination) => format!("{} {destination}", if method == OTHER { "HTTP" } else { method }),
            None => method.to_owned(),
        };
        let mut attributes = of_record(record);
        attributes.integer(name::ATTEMPTS, Some(self.call.attempts().len() as u64));
        let is_error =
            record.status >= 500 || matches!(record.outcome, Outcome::Panicked | Outcome::UpstreamFailed);
        let parent = self.call.parent();
        let remote = if parent.is_some() { HAS_IS_REMOTE | IS_REMOTE } else { HAS_IS_REMOTE };
        Span {
            parent_span_id: parent.map_or_else(Vec::new, |parent| parent.as_bytes().to_vec()),
            flags: SAMPLED | remote,
            span_id: self.call.span().as_bytes().to_vec(),
            kind: SpanKind::Server.into(),
            ..self.span(name, (0, record.duration), attributes, is_error)
        }
    }

    fn client(&self, attempt: &AttemptTrace, at: usize, is_last: bool) -> Span {
        let record = &self.record;
        let method = known_method(&record.method);
        let model = record.model.as_ref().map_or("", Bounded::as_str);
        let name = match record.operation.as_deref() {
            Some(operation) => format!("{operation} {model}").trim_end().to_owned(),
            None if method == OTHER => "HTTP".to_owned(),
            None => method.to_owned(),
        };
        let mut attributes = Attributes::default();
        attributes.text(name::HTTP_METHOD, method);
        attributes.text(name::SERVER_ADDRESS, record.host.as_ref().map_or("", Bounded::as_str));
        attributes.integer(name::SERVER_PORT, record.port.map(u64::from));
        if let Some(connection) = &attempt.connection {
            if let Some((address, port)) = connection.peer.rsplit_once(':') {
                attributes.text(name::PEER_ADDRESS, address.trim_start_matches('[').trim_end_matches(']'));
                attributes.integer(name::PEER_PORT, port.parse().ok());
            }
            attributes.text(name::LOCAL_ADDRESS, &connection.source);
            attributes.text(name::PROTOCOL_VERSION, if connection.is_http2 { "2" } else { "1.1" });
        }
        attributes.integer(name::HTTP_STATUS, attempt.status.map(|status| status.as_u16().into()));
        attributes.integer(name::HTTP_RESENDS, Some(at as u64).filter(|at| *at > 0));
        // What broke off in the middle is the last attempt's failure.
        let reason = attempt.reason.or_else(|| record.reason.filter(|_| is_last && attempt.status.is_some()));
        let refused = attempt.status.filter(|status| status.as_u16() >= 400);
        let error = reason.map(|reason| reason.as_str().to_owned());
        let error = error.or_else(|| refused.map(|status| status.as_u16().to_string()));
        attributes.text(name::ERROR_TYPE, error.as_deref().unwrap_or_default());
        attributes.text(name::DESTINATION, record.destination.as_ref().map_or("", |name| name.as_str()));
        attributes.text(name::CREDENTIAL, record.credential.as_ref().map_or("", |name| name.as_str()));
        if let Some(operation) = record.operation.as_deref() {
            attributes.text(name::OPERATION, operation);
            attributes.text(name::PROVIDER, self.provider.as_deref().unwrap_or_default());
            attributes.text(name::REQUEST_MODEL, model);
        }
        if is_last {
            usage(record, &mut attributes);
        }
        let ended = attempt.ended.unwrap_or(record.duration);
        Span {
            span_id: attempt.span.as_bytes().to_vec(),
            parent_span_id: self.call.span().as_bytes().to_vec(),
            flags: SAMPLED | HAS_IS_REMOTE,
            kind: SpanKind::Client.into(),
            events: self.events(attempt),
            ..self.span(name, (attempt.begun, ended), attributes, error.is_some())
        }
    }

    fn span(&self, name: String, (begun, ended): (u64, u64), attributes: Attributes, is_error: bool) -> Span {
        let at = nanos(self.record.at);
        let code = if is_error { StatusCode::Error } else { StatusCode::Unset };
        Span {
            trace_id: self.call.trace().as_bytes().to_vec(),
            name,
            start_time_unix_nano: at + begun * 1_000,
            end_time_unix_nano: at + ended.max(begun) * 1_000,
            attributes: attributes.0,
            status: Some(Status { code: code.into(), ..Status::default() }),
            ..Span::default()
        }
    }

    fn events(&self, attempt: &AttemptTrace) -> Vec<Event> {
        let at = nanos(self.record.at);
        let times = [
            ("tollgate.dialled", attempt.dialled),
            ("tollgate.secured", attempt.secured),
            ("tollgate.sent", attempt.sent),
            ("tollgate.first_byte", attempt.first_byte),
        ];
        let event = |(name, micros): (&str, Option<u64>)| {
            let time_unix_nano = at + micros? * 1_000;
            Some(Event { time_unix_nano, name: name.to_owned(), ..Event::default() })
        };
        times.into_iter().filter_map(event).collect()
    }
}

/// What a call is, as its span and its line of the access log say it.
pub(super) fn of_record(record: &Record) -> Attributes {
    let mut attributes = Attributes::default();
    let bounded =
        |text: &Option<Bounded>| text.as_ref().map_or(String::new(), |text| text.as_str().to_owned());
    attributes.text(name::CALL_ID, str::from_utf8(&record.id.hex()).unwrap_or_default());
    attributes.text(name::HTTP_METHOD, known_method(&record.method));
    attributes.text(name::URL_SCHEME, "https");
    attributes.text(name::URL_PATH, &bounded(&record.path));
    attributes.text(name::SERVER_ADDRESS, &bounded(&record.host));
    attributes.integer(name::SERVER_PORT, record.port.map(u64::from));
    attributes.integer(name::HTTP_STATUS, Some(record.status.into()).filter(|status| *status > 0));
    attributes.integer(name::HTTP_REQUEST_SIZE, Some(record.bytes_in));
    attributes.integer(name::HTTP_RESPONSE_SIZE, Some(record.bytes_out));
    attributes.text(name::ERROR_TYPE, record.reason.map_or("", |reason| reason.as_str()));
    if let Some(caller) = &record.caller {
        attributes.text(name::CALLER, caller.as_str());
        attributes.text(name::CALLER_NAMESPACE, caller.namespace().unwrap_or_default());
        attributes.text(name::CALLER_ACCOUNT, caller.service_account().unwrap_or_default());
    }
    attributes.text(name::CALLER_PROOF, record.proof.map_or("", |proof| proof.as_str()));
    for (name, resource) in [
        (name::DESTINATION, &record.destination),
        (name::GRANT, &record.grant),
        (name::CREDENTIAL, &record.credential),
    ] {
        attributes.text(name, resource.as_ref().map_or("", |resource| resource.as_str()));
    }
    attributes.text(name::OUTCOME, record.outcome.as_str());
    attributes.text(name::USAGE_SOURCE, record.usage_source.as_str());
    attributes.fraction(name::COST, record.cost.map(|cost| cost.0 as f64 / 1e9));
    attributes.flag(name::UNPRICED, record.unpriced);
    attributes.integer(name::GENERATION, Some(record.generation));
    attributes.integer(name::COUNT, Some(record.count).filter(|count| *count > 1));
    attributes.text(name::OPERATION, record.operation.as_deref().unwrap_or_default());
    attributes.text(name::REQUEST_MODEL, &bounded(&record.model));
    attributes
}

/// What a model was used for, and which one answered.
pub(super) fn usage(record: &Record, attributes: &mut Attributes) {
    attributes.text(name::RESPONSE_MODEL, record.model_answered.as_ref().map_or("", Bounded::as_str));
    if record.operation.is_none() || record.usage_source == UsageSource::None {
        return;
    }
    let units = &record.units;
    let written = units.cache_write_5m.saturating_add(units.cache_write_1h);
    let read = [Item::CacheRead, Item::CacheReadAudio, Item::CacheReadImage];
    for (name, count) in [
        (name::INPUT_TOKENS, sum(units, &Item::READ)),
        (name::OUTPUT_TOKENS, sum(units, &Item::WRITTEN)),
        (name::CACHE_READ_TOKENS, sum(units, &read)),
        (name::CACHE_WRITE_TOKENS, written),
        (name::REASONING_TOKENS, units.reasoning),
    ] {
        attributes.integer(name, Some(count).filter(|count| *count > 0));
    }
}

fn sum(units: &Units, items: &[Item]) -> u64 {
    items.iter().fold(0, |sum, item| sum.saturating_add(units.get(*item)))
}

/// What the conventions call a method of the caller's own words.
const OTHER: &str = "_OTHER";

fn known_method(method: &Bounded) -> &'static str {
    const KNOWN: [&str; 8] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "QUERY"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or(OTHER)
}
