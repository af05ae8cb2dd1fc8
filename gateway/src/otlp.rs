//! OpenTelemetry: traces, metrics and logs over OTLP (HTTP, protobuf), as `TELEMETRY.md` specifies them.
//!
//! **Invariant:** nothing on the route waits for an export. What is told goes into bounded queues, which drop and count what they have no
//! room for; a task of the control runtime for each signal sends it. What is told is made of records and log lines, so no header value,
//! body, query or secret is in it.

mod attribute;
mod export;
mod log;
mod metric;
mod queue;
mod settings;
mod span;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::export::{Destination, Exporter};
pub(crate) use self::log::LogLayer;
use self::log::LogLine;
pub(crate) use self::queue::ExportCounts;
use self::queue::{Queue, Signal};
use self::settings::OtlpSettings;
pub(crate) use self::settings::TelemetrySettings;
use self::span::FinishedCall;
use crate::ledger::Record;
use crate::metrics::ShownFamily;
use crate::trace::RecordedCall;
use crate::upstream::DialRules;

/// How long the end of the process waits for what is queued.
const FLUSH: Duration = Duration::from_secs(5);

/// Where calls and lines are put.
#[derive(Clone, Debug)]
pub(crate) struct Sinks {
    calls: Queue<FinishedCall>,
    lines: Option<Queue<LogLine>>,
    counts: ExportCounts,
}

impl Sinks {
    /// What became of everything.
    pub(crate) fn counts(&self) -> ExportCounts {
        self.counts.clone()
    }

    /// A call that was recorded is over.
    pub(crate) fn call(&self, record: &Record, call: Box<RecordedCall>, provider: Option<&str>) {
        self.calls.put(|| FinishedCall { record: record.clone(), call, provider: provider.map(Box::from) });
    }

    /// A line of the access log.
    pub(crate) fn access(&self, record: &Record) {
        if let Some(lines) = &self.lines {
            lines.put(|| LogLine::Access(Box::new(record.clone())));
        }
    }
}

/// The queues before anything is sent: made first, so that the log has where to go.
#[derive(Debug)]
pub(crate) struct PreparedExport {
    sinks: Sinks,
    calls: tokio::sync::mpsc::Receiver<FinishedCall>,
    lines: tokio::sync::mpsc::Receiver<LogLine>,
    settings: OtlpSettings,
}

impl PreparedExport {
    /// `None` where nothing is exported.
    pub(crate) fn new(settings: &TelemetrySettings) -> Option<Self> {
        let settings = settings.otlp.clone()?;
        let counts = ExportCounts::new();
        let (calls, waiting_calls) = Queue::new(settings.queue, counts.of(Signal::Traces));
        let (lines, waiting_lines) = Queue::new(2 * settings.queue, counts.of(Signal::Logs));
        let sinks = Sinks { calls, lines: settings.logs.then_some(lines), counts };
        Some(Self { sinks, calls: waiting_calls, lines: waiting_lines, settings })
    }

    pub(crate) fn sinks(&self) -> Sinks {
        self.sinks.clone()
    }

    /// What log lines are put in by, where they are exported.
    pub(crate) fn layer(&self) -> Option<LogLayer> {
        self.sinks.lines.clone().map(LogLayer)
    }

    /// Begins to send. `families` gives what a scrape would show.
    pub(crate) fn start(
        self,
        control: &Handle,
        rules: DialRules,
        families: impl Fn() -> Vec<ShownFamily> + Send + 'static,
    ) -> Exports {
        let Self { sinks: Sinks { counts, .. }, calls, lines, settings } = self;
        let destination = Arc::new(Destination::new(&settings, rules));
        let (stop, stopped) = watch::channel(false);
        let exporter = |signal: Signal| Exporter {
            destination: Arc::clone(&destination),
            signal,
            counts: counts.of(signal),
            stopped: stopped.clone(),
        };
        let since = Timestamp::now();
        let mut tasks = vec![
            control.spawn(exporter(Signal::Traces).drain(calls, export::traces)),
            control.spawn(exporter(Signal::Logs).drain(lines, export::logs)),
        ];
        let interval = settings.metrics.interval;
        if !interval.is_zero() {
            let metrics = move || metric::metrics(&families(), since, Timestamp::now());
            tasks.push(control.spawn(exporter(Signal::Metrics).repeat(interval, metrics)));
        }
        Exports { stop, tasks }
    }
}

/// What sends.
#[derive(Debug)]
pub(crate) struct Exports {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Exports {
    /// Sends what waits, for as long as the end of the process may take.
    pub(crate) async fn flush(self) {
        self.stop.send_replace(true);
        let aborts: Vec<_> = self.tasks.iter().map(JoinHandle::abort_handle).collect();
        let all = futures_util::future::join_all(self.tasks);
        if tokio::time::timeout(FLUSH, all).await.is_err() {
            tracing::warn!(
                "telemetry that was still to be sent is lost: the collector did not take it in time"
            );
            aborts.iter().for_each(tokio::task::AbortHandle::abort);
        }
    }
}

/// OTLP's times.
fn nanos(at: Timestamp) -> u64 {
    u64::try_from(at.as_nanosecond()).unwrap_or_default()
}
