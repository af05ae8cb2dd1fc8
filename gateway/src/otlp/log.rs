//! Log records: lines of the access log from the records of calls, and the other lines from their events.

use std::fmt;

use jiff::Timestamp;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::attribute::{self as name, Attributes, LOG_FIELD};
use super::nanos;
use super::queue::Queue;
use super::span;
use crate::ledger::Record;

/// Bytes of a message or of one field; the rest is cut off.
const MOST_BYTES: usize = 4 << 10;
/// Fields of one line.
const MOST_FIELDS: usize = 32;
/// The name of a record of the access log.
const ACCESS: &str = "tollgate.access";

/// A line that waits.
#[derive(Debug)]
pub(crate) enum LogLine {
    /// A call, and whether it was recorded as a trace.
    Access(Box<Record>),
    /// Anything else.
    Event { at: Timestamp, level: Level, target: &'static str, message: String, fields: Vec<KeyValue> },
}

impl LogLine {
    pub(super) fn into_record(self) -> LogRecord {
        match self {
            Self::Access(record) => access(&record),
            Self::Event { at, level, target, message, fields } => {
                let (number, text) = severity(level);
                let mut attributes = Attributes(fields);
                attributes.text(name::LOG_TARGET, target);
                LogRecord {
                    time_unix_nano: nanos(at),
                    observed_time_unix_nano: nanos(at),
                    severity_number: number.into(),
                    severity_text: text.to_owned(),
                    body: Some(AnyValue { value: Some(Value::StringValue(message)) }),
                    attributes: attributes.0,
                    ..LogRecord::default()
                }
            }
        }
    }
}

fn access(record: &Record) -> LogRecord {
    let mut attributes = span::of_record(record);
    span::usage(record, &mut attributes);
    let (number, text) = severity(Level::INFO);
    LogRecord {
        time_unix_nano: nanos(record.at),
        observed_time_unix_nano: nanos(Timestamp::now()),
        severity_number: number.into(),
        severity_text: text.to_owned(),
        event_name: ACCESS.to_owned(),
        attributes: attributes.0,
        trace_id: record.trace.map_or_else(Vec::new, |trace| trace.as_bytes().to_vec()),
        ..LogRecord::default()
    }
}

fn severity(level: Level) -> (SeverityNumber, &'static str) {
    match level {
        Level::ERROR => (SeverityNumber::Error, "ERROR"),
        Level::WARN => (SeverityNumber::Warn, "WARN"),
        Level::INFO => (SeverityNumber::Info, "INFO"),
        Level::DEBUG => (SeverityNumber::Debug, "DEBUG"),
        Level::TRACE => (SeverityNumber::Trace, "TRACE"),
    }
}

/// Puts the lines of the log into a queue.
#[derive(Debug)]
pub(crate) struct LogLayer(pub(crate) Queue<LogLine>);

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.0.put(|| {
            let mut seen = EventFields::default();
            event.record(&mut seen);
            let (level, target) = (*event.metadata().level(), event.metadata().target());
            LogLine::Event { at: Timestamp::now(), level, target, message: seen.message, fields: seen.fields }
        });
    }
}

/// What an event says.
#[derive(Default)]
struct EventFields {
    message: String,
    fields: Vec<KeyValue>,
}

impl EventFields {
    fn take(&mut self, field: &Field, mut value: String) {
        let most = (0..=MOST_BYTES).rev().find(|at| value.is_char_boundary(*at));
        value.truncate(most.unwrap_or_default());
        if field.name() == "message" {
            self.message = value;
        } else if self.fields.len() < MOST_FIELDS {
            self.fields.push(name::text(&format!("{LOG_FIELD}{}", field.name()), &value));
        }
    }
}

impl Visit for EventFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn a_line_is_its_message_and_its_fields_and_both_are_bounded() {
        let (queue, mut lines) = Queue::new(8, Arc::default());
        let subscriber = tracing_subscriber::registry().with(LogLayer(queue));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(destination = "default/up", calls = 3, "{}", "ä".repeat(5_000));
        });
        let record = lines.try_recv().unwrap().into_record();
        let Some(Value::StringValue(message)) = record.body.unwrap().value else { panic!("no message") };
        assert_eq!((message.len(), record.severity_text.as_str()), (MOST_BYTES, "WARN"));
        let fields: Vec<_> = record.attributes.iter().map(|pair| pair.key.as_str()).collect();
        assert_eq!(
            fields,
            ["tollgate.log.field.destination", "tollgate.log.field.calls", "tollgate.log.target"]
        );
    }
}
