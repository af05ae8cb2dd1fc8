//! Sending: what waits is taken in batches, and a batch is sent until the collector takes it, refuses it, or has been tried often enough.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prost::Message;
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, sleep};
use tollgate_secrets::PostClient;
use zeroize::Zeroizing;

use super::attribute::text;
use super::log::LogLine;
use super::metric;
use super::queue::{Signal, SignalCounts};
use super::settings::{HeaderFile, OtlpSettings};
use super::span::FinishedCall;
use crate::ledger::RecordId;
use crate::log_throttle::LogThrottle;
use crate::upstream::DialRules;

/// How often queues are looked at: nobody is woken for what is put in.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Items of one request.
const BATCH: usize = 512;
/// How often a batch is sent.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Of what the collector asks for (`Retry-After`), and of our own pauses.
const MOST_PAUSE: Duration = Duration::from_secs(30);
const SCOPE: &str = "tollgate";
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// Where everything goes, and what it is said to come from.
#[derive(Debug)]
pub(super) struct Destination {
    client: PostClient,
    endpoint: String,
    headers: BTreeMap<String, HeaderFile>,
    resource: Vec<KeyValue>,
    said: LogThrottle<(&'static str, String)>,
}

/// Items as a request, and how many of them the answer to it says were not taken.
pub(super) struct Encoded {
    items: usize,
    body: Vec<u8>,
    rejected: fn(&[u8]) -> usize,
}

/// Sends one signal.
pub(super) struct Exporter {
    pub(super) destination: Arc<Destination>,
    pub(super) signal: Signal,
    pub(super) counts: Arc<SignalCounts>,
    pub(super) stopped: watch::Receiver<bool>,
}

/// Why a batch was not taken.
enum Untaken {
    /// It may be sent again, after this long where the collector says so.
    Again(String, Option<Duration>),
    Never(String),
}

impl Destination {
    pub(super) fn new(settings: &OtlpSettings, rules: DialRules) -> Self {
        let ca: Option<PathBuf> = settings.ca_file.clone();
        let client = PostClient::new(ca, Arc::new(move |address| rules.allows(address)));
        let instance = RecordId::new().to_string();
        let own = [
            ("service.name", "tollgate"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("service.instance.id", &instance),
        ];
        let told = settings.resource.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        // What the operator says of the same name counts.
        let own = own.into_iter().filter(|(name, _)| !settings.resource.contains_key(*name));
        Self {
            client,
            endpoint: settings.endpoint.trim_end_matches('/').to_owned(),
            headers: settings.headers.clone(),
            resource: own.chain(told).map(|(name, value)| text(name, value)).collect(),
            said: LogThrottle::default(),
        }
    }

    fn resource(&self) -> Option<Resource> {
        Some(Resource { attributes: self.resource.clone(), ..Resource::default() })
    }

    async fn post(&self, signal: Signal, encoded: &Encoded) -> Result<usize, Untaken> {
        let headers = self.headers().await.map_err(|message| Untaken::Again(message, None))?;
        let url = format!("{}/v1/{}", self.endpoint, signal.as_str());
        let answer = self.client.post(&url, headers, encoded.body.clone()).await;
        let answer = answer.map_err(|failure| Untaken::Again(failure.to_string(), None))?;
        match answer.status {
            200..300 => Ok((encoded.rejected)(&answer.body).min(encoded.items)),
            status @ (429 | 502 | 503 | 504) => {
                Err(Untaken::Again(format!("status {status}"), answer.retry_after))
            }
            status => Err(Untaken::Never(format!("status {status}"))),
        }
    }

    /// The headers, read from their files.
    async fn headers(&self) -> Result<HeaderMap, String> {
        let files = self.headers.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, PROTOBUF);
            for (name, HeaderFile { file }) in &files {
                let text = std::fs::read_to_string(file).map(Zeroizing::new);
                let text = text.map_err(|error| format!("the header {name}: {}: {error}", file.display()))?;
                let value = HeaderValue::from_str(text.trim()).ok();
                let (Some(mut value), Ok(name)) = (value, name.parse::<HeaderName>()) else {
                    return Err(format!("the header {name}: {}: it is no value of a header", file.display()));
                };
                value.set_sensitive(true);
                headers.insert(name, value);
            }
            Ok(headers)
        });
        read.await.unwrap_or_else(|_| Err("the headers could not be read".to_owned()))
    }
}

impl Exporter {
    /// Sends what is put into a queue, until the process ends and the queue is empty.
    pub(super) async fn drain<T>(
        mut self,
        mut queue: Receiver<T>,
        encode: fn(&Destination, Vec<T>) -> Encoded,
    ) {
        loop {
            let is_last = self.is_stopped();
            loop {
                let batch: Vec<T> = std::iter::from_fn(|| queue.try_recv().ok()).take(BATCH).collect();
                if batch.is_empty() {
                    break;
                }
                let encoded = encode(&self.destination, batch);
                self.send(encoded).await;
            }
            if is_last {
                return;
            }
            self.wait(LOOK_EVERY).await;
        }
    }

    /// Sends the metrics again and again, and once when the process ends.
    pub(super) async fn repeat(mut self, interval: Duration, metrics: impl Fn() -> Vec<Metric>) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_last = tokio::select! {
                _ = ticks.tick() => false,
                _ = self.stopped.wait_for(|stopped| *stopped) => true,
            };
            let encoded = encode_metrics(&self.destination, metrics());
            self.send(encoded).await;
            if is_last {
                return;
            }
        }
    }

    /// Sends one request, more than once where that helps, and counts what became of it.
    async fn send(&mut self, encoded: Encoded) {
        let items = encoded.items;
        if items == 0 {
            return;
        }
        let mut pause = FIRST_PAUSE;
        for left in (0..TRIES).rev() {
            let (why, asked) = match self.destination.post(self.signal, &encoded).await {
                Ok(rejected) => {
                    SignalCounts::add(&self.counts.sent, items - rejected);
                    SignalCounts::add(&self.counts.failed, rejected);
                    return;
                }
                Err(Untaken::Again(why, asked)) => (why, asked),
                Err(Untaken::Never(why)) => {
                    self.say(&why);
                    break;
                }
            };
            self.say(&why);
            if left > 0 && !self.is_stopped() {
                self.wait(asked.unwrap_or(pause).min(MOST_PAUSE)).await;
                pause *= 2;
            }
        }
        SignalCounts::add(&self.counts.failed, items);
    }

    /// Pauses, but not beyond the end of the process.
    async fn wait(&mut self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            _ = self.stopped.wait_for(|stopped| *stopped) => {}
        }
    }

    /// Whether the process ends, or nobody is left who would say so.
    fn is_stopped(&self) -> bool {
        *self.stopped.borrow() || self.stopped.has_changed().is_err()
    }

    fn say(&self, why: &str) {
        let signal = self.signal.as_str();
        if self.destination.said.is_due((signal, why.to_owned())) {
            let endpoint = &self.destination.endpoint;
            tracing::warn!(
                signal,
                endpoint,
                why,
                "telemetry is not taken by the collector; said once a minute"
            );
        }
    }
}

fn scope() -> Option<InstrumentationScope> {
    let (name, version) = (SCOPE.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    Some(InstrumentationScope { name, version, ..InstrumentationScope::default() })
}

pub(super) fn traces(destination: &Destination, calls: Vec<FinishedCall>) -> Encoded {
    let items = calls.len();
    let spans = calls.into_iter().flat_map(FinishedCall::into_spans).collect();
    let scope_spans = vec![ScopeSpans { scope: scope(), spans, ..ScopeSpans::default() }];
    let resource_spans =
        vec![ResourceSpans { resource: destination.resource(), scope_spans, ..ResourceSpans::default() }];
    let rejected = |body: &[u8]| {
        let answer = ExportTraceServiceResponse::decode(body).ok().and_then(|answer| answer.partial_success);
        answer.map_or(0, |partial| partial.rejected_spans.try_into().unwrap_or_default())
    };
    // A call is counted, not each of its spans: that is what the queue drops.
    let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
    Encoded { items, body, rejected }
}

pub(super) fn logs(destination: &Destination, lines: Vec<LogLine>) -> Encoded {
    let items = lines.len();
    let log_records = lines.into_iter().map(LogLine::into_record).collect();
    let scope_logs = vec![ScopeLogs { scope: scope(), log_records, ..ScopeLogs::default() }];
    let resource_logs =
        vec![ResourceLogs { resource: destination.resource(), scope_logs, ..ResourceLogs::default() }];
    let rejected = |body: &[u8]| {
        let answer = ExportLogsServiceResponse::decode(body).ok().and_then(|answer| answer.partial_success);
        answer.map_or(0, |partial| partial.rejected_log_records.try_into().unwrap_or_default())
    };
    Encoded { items, body: ExportLogsServiceRequest { resource_logs }.encode_to_vec(), rejected }
}

fn encode_metrics(destination: &Destination, metrics: Vec<Metric>) -> Encoded {
    let items = metric::points(&metrics);
    let scope_metrics = vec![ScopeMetrics { scope: scope(), metrics, ..ScopeMetrics::default() }];
    let resource_metrics = vec![ResourceMetrics {
        resource: destination.resource(),
        scope_metrics,
        ..ResourceMetrics::default()
    }];
    let rejected = |body: &[u8]| {
        let answer =
            ExportMetricsServiceResponse::decode(body).ok().and_then(|answer| answer.partial_success);
        answer.map_or(0, |partial| partial.rejected_data_points.try_into().unwrap_or_default())
    };
    Encoded { items, body: ExportMetricsServiceRequest { resource_metrics }.encode_to_vec(), rejected }
}
