//! Logs: lines on standard output, as JSON or for people, and the access log among them.
//!
//! **Invariant:** what other crates log is capped at `warn` whatever the environment asks for: at `debug` and `trace` HTTP and TLS
//! libraries print what they send. AWS's SDK and `kube` are silent: their warnings quote answers. A panic is logged by its place alone.

mod text;

use std::io::{IsTerminal, Write};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry};

use crate::ledger::Fields;
use crate::ledger::json::{Calendar, Json};
use crate::otlp::LogLayer;

/// Where access lines go once logs are set up: there is no more to ask of each whether somebody wants it.
static ACCESS: OnceLock<AccessLog> = OnceLock::new();
/// What the targets of AWS's SDK and of the Kubernetes client begin with: what fails there is said by whoever asked.
const SILENT: [&str; 2] = ["aws_", "kube_"];
const FLUSH_EVERY: Duration = Duration::from_millis(100);
const FLUSH_AT: usize = 256 << 10;

/// Says what an access line has of a record.
pub(crate) fn access(record: &Fields<'_>) {
    if let Some(log) = ACCESS.get() {
        log.write(record);
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LogSettings {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`), or directives as in `RUST_LOG`. Other crates than Tollgate's log `warn` at most.
    pub level: String,
    /// The form of log lines. Without it `text` on a terminal, else `json`.
    pub format: Option<LogFormat>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".into(), format: None }
    }
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// One object a line.
    Json,
    /// For people.
    Text,
}

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TelemetryError {
    #[error("logs are set up already: {0}")]
    Installed(#[from] TryInitError),
    #[error("the thread that writes logs: {0}")]
    Thread(#[from] std::io::Error),
}

/// Installs the subscriber for the process. Lines go to `exported` too.
///
/// # Errors
/// Where a subscriber is installed already.
pub(crate) fn install(settings: &LogSettings, exported: Option<LogLayer>) -> Result<Flush, TelemetryError> {
    let stdout = std::io::stdout();
    let format = settings
        .format
        .unwrap_or_else(|| if stdout.is_terminal() { LogFormat::Text } else { LogFormat::Json });
    let colour = anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
    let out = Flush(Arc::default());
    let writer = {
        let out = out.clone();
        move || out.clone()
    };
    let filter = || capped(&settings.level);
    let json = (format == LogFormat::Json).then(|| {
        let lines = tracing_subscriber::fmt::layer().json().flatten_event(true);
        lines.with_current_span(false).with_span_list(false).with_writer(writer.clone()).with_filter(filter())
    });
    let text = (format == LogFormat::Text).then(|| {
        let lines = tracing_subscriber::fmt::layer().with_ansi(colour).with_target(false);
        lines.with_writer(writer.clone()).with_filter(filter())
    });
    let exported = exported.map(|lines| lines.with_filter(filter()));
    Registry::default().with(json).with(text).with(exported).try_init()?;
    ACCESS
        .get_or_init(|| AccessLog { out: out.clone(), text: (format == LogFormat::Text).then_some(colour) });
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(|| "unknown".into(), ToString::to_string);
        tracing::error!(place, "panic");
    }));
    let background = out.clone();
    std::thread::Builder::new().name("log".into()).spawn(move || {
        loop {
            std::thread::sleep(FLUSH_EVERY);
            background.flush_all();
        }
    })?;
    Ok(out)
}

/// Whether this says what to log. A word alone is a level or one of our targets: anything else is a level misspelt.
pub(crate) fn is_level(directives: &str) -> bool {
    let is_known = |word: &str| LevelFilter::from_str(word).is_ok() || word.starts_with("tollgate");
    Targets::from_str(directives).is_ok()
        && directives.split(',').all(|part| part.contains('=') || is_known(part))
}

/// The directives for our crates as given, everything else at `warn` at most.
fn capped(directives: &str) -> Targets {
    let asked =
        Targets::from_str(directives).unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let general = asked.default_level().unwrap_or(LevelFilter::INFO);
    let mut capped =
        Targets::new().with_default(general.min(LevelFilter::WARN)).with_target("tollgate", general);
    for (target, level) in asked.iter().filter(|(target, _)| !target.is_empty()) {
        let ours =
            target == "tollgate" || target.starts_with("tollgate_") || target.starts_with("tollgate::");
        let most = match target {
            _ if ours => level,
            _ if SILENT.iter().any(|silent| target.starts_with(silent)) => LevelFilter::OFF,
            _ => LevelFilter::WARN,
        };
        capped = capped.with_target(target, level.min(most));
    }
    SILENT.iter().fold(capped, |capped, silent| capped.with_target(*silent, LevelFilter::OFF))
}

/// Standard output behind a buffer, so that no core waits for whoever reads it.
#[derive(Clone, Debug)]
pub(crate) struct Flush(Arc<Buffers>);

#[derive(Debug, Default)]
struct Buffers {
    filling: Mutex<Filling>,
    /// The one that was written last, for its memory.
    written: Mutex<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Filling {
    lines: Vec<u8>,
    /// For the times of access lines, most of which share a second with the one before.
    calendar: Calendar,
}

impl Flush {
    /// Writes what is buffered.
    pub(crate) fn flush_all(&self) {
        let mut lines = self.0.written.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *lines, &mut self.filling().lines);
        if !lines.is_empty() {
            // Nobody is left to tell where standard output is gone.
            let _ = std::io::stdout().lock().write_all(&lines);
            lines.clear();
            lines.shrink_to(2 * FLUSH_AT);
        }
    }

    fn filling(&self) -> MutexGuard<'_, Filling> {
        self.0.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, write: impl FnOnce(&mut Filling)) {
        let mut filling = self.filling();
        write(&mut filling);
        let full = filling.lines.len() >= FLUSH_AT;
        drop(filling);
        if full {
            self.flush_all();
        }
    }

    /// An access line.
    fn access(&self, record: &Fields<'_>) {
        self.append(|Filling { lines, calendar }| {
            let mut json = Json::new(lines, calendar);
            json.time("{\"timestamp\":", record.ended());
            json.raw(",\"level\":\"INFO\",\"target\":\"tollgate::access\",\"record\":");
            record.write_access(&mut json);
            json.raw("}}\n");
        });
    }
}

impl Write for Flush {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.append(|filling| filling.lines.extend_from_slice(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Writes access lines.
#[derive(Debug)]
struct AccessLog {
    out: Flush,
    /// For people, and whether in colours.
    text: Option<bool>,
}

impl AccessLog {
    fn write(&self, record: &Fields<'_>) {
        match self.text {
            None => self.out.access(record),
            Some(colour) => {
                let line = text::access(record, record.ended(), colour);
                self.out.append(|filling| filling.lines.extend_from_slice(line.as_bytes()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tollgate_policy::price::NanoUsd;
    use tracing::Level;

    use super::*;
    use crate::ledger::{Bounded, Record, RecordId};

    #[test]
    fn an_access_line_says_when_its_call_was_over() {
        let out = Flush(Arc::default());
        let before: Timestamp = "2026-07-01T12:00:00Z".parse().unwrap();
        let mut record = Record::new(RecordId::new(), before, Bounded::new("GET"));
        record.duration = 1_500_000;
        out.access(&record.fields());
        let text = String::from_utf8(out.filling().lines.clone()).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        let at: Timestamp = line["timestamp"].as_str().unwrap().parse().unwrap();
        assert_eq!(at.as_millisecond() - before.as_millisecond(), 1_500, "{text}");
        assert_eq!((&line["level"], &line["record"]["id"]), (&"INFO".into(), &record.id.to_string().into()));
        record.units.input = 1;
        record.cost = Some(NanoUsd(u64::MAX));
        out.access(&record.fields());
        let text = String::from_utf8(out.filling().lines.clone()).unwrap();
        assert!(
            text.ends_with(",\"units\":{\"input\":1},\"cost_nano_usd\":9223372036854775807}}\n"),
            "{text}"
        );
    }

    #[test]
    fn other_crates_stay_at_warn_whatever_is_asked_for() {
        for asked in [
            "trace",
            "hyper=trace,tollgate=debug",
            "rustls=debug",
            "tollgate_secrets=trace",
            "h2::codec=trace",
        ] {
            let targets = capped(asked);
            for theirs in
                ["hyper::proto", "rustls::client", "h2::codec::framed_read", "vaultrs::client", "tollgatexyz"]
            {
                assert!(
                    !targets.would_enable(theirs, &Level::INFO) || theirs == "tollgatexyz",
                    "{asked}: {theirs}"
                );
            }
        }
        for asked in ["trace", "aws_config=trace", "aws_smithy_runtime::client=warn", "kube_client=debug"] {
            for theirs in [
                "aws_config::meta::credentials",
                "aws_smithy_runtime::client::orchestrator",
                "aws_sdk_sts",
                "kube_client::client",
                "kube_runtime::watcher",
            ] {
                assert!(!capped(asked).would_enable(theirs, &Level::ERROR), "{asked}: {theirs}");
            }
        }
        assert!(capped("trace").would_enable("tollgate::request", &Level::TRACE));
        assert!(capped("tollgate_secrets=trace").would_enable("tollgate_secrets::cache", &Level::TRACE));
        assert!(capped("info").would_enable("hyper", &Level::WARN));
    }
}
