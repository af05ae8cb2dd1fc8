//! Logs: JSON lines on standard output, and the access log beside them.
//!
//! **Invariant:** what other crates log is capped at `warn` whatever the environment asks for: at `debug` and `trace` HTTP and TLS
//! libraries print what they send. AWS's SDK is silent: its warnings quote answers. A panic is logged by its place alone.

use std::io::Write;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry};

/// The target of access lines.
pub(crate) const ACCESS: &str = "tollgate::access";
/// What the targets of AWS's SDK begin with.
const SDK: &str = "aws_";
const FLUSH_EVERY: Duration = Duration::from_millis(100);
const FLUSH_AT: usize = 256 << 10;

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TelemetryError {
    #[error("logs are set up already: {0}")]
    Installed(#[from] TryInitError),
    #[error("the thread that writes logs: {0}")]
    Thread(#[from] std::io::Error),
}

/// Installs the subscriber for the process. `level` is a level or a list of directives, as in `RUST_LOG`.
///
/// # Errors
/// Where a subscriber is installed already.
pub(crate) fn install(level: &str) -> Result<Flush, TelemetryError> {
    let out = Flush(Arc::default());
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer({
            let out = out.clone();
            move || out.clone()
        })
        .with_filter(capped(level).with_target(ACCESS, LevelFilter::OFF));
    let access = Access(out.clone()).with_filter(Targets::new().with_target(ACCESS, LevelFilter::INFO));
    Registry::default().with(lines).with(access).try_init()?;
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
            _ if target.starts_with(SDK) => LevelFilter::OFF,
            _ => LevelFilter::WARN,
        };
        capped = capped.with_target(target, level.min(most));
    }
    capped.with_target(SDK, LevelFilter::OFF)
}

/// Standard output behind a buffer, so that no core waits for whoever reads it.
#[derive(Clone, Debug)]
pub(crate) struct Flush(Arc<Buffers>);

#[derive(Debug, Default)]
struct Buffers {
    filling: Mutex<Vec<u8>>,
    /// The one that was written last, for its memory.
    written: Mutex<Vec<u8>>,
}

impl Flush {
    /// Writes what is buffered.
    pub(crate) fn flush_all(&self) {
        let mut lines = self.0.written.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *lines, &mut *self.filling());
        if !lines.is_empty() {
            // Nobody is left to tell where standard output is gone.
            let _ = std::io::stdout().lock().write_all(&lines);
            lines.clear();
            lines.shrink_to(2 * FLUSH_AT);
        }
    }

    fn filling(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, parts: [&[u8]; 3]) {
        let mut buffer = self.filling();
        for part in parts {
            buffer.extend_from_slice(part);
        }
        let full = buffer.len() >= FLUSH_AT;
        drop(buffer);
        if full {
            self.flush_all();
        }
    }
}

impl Write for Flush {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.append([line, b"", b""]);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Writes access lines as they are: what is said of a record is JSON already, but for its closing brace.
struct Access(Flush);

impl<S: Subscriber> Layer<S> for Access {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut Line(&self.0));
    }
}

struct Line<'a>(&'a Flush);

impl Visit for Line<'_> {
    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        if field.name() == "record" {
            self.0.append([
                b"{\"level\":\"INFO\",\"target\":\"tollgate::access\",\"record\":",
                value,
                b"}}\n",
            ]);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

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
        for asked in ["trace", "aws_config=trace", "aws_smithy_runtime::client=warn"] {
            for theirs in
                ["aws_config::meta::credentials", "aws_smithy_runtime::client::orchestrator", "aws_sdk_sts"]
            {
                assert!(!capped(asked).would_enable(theirs, &Level::ERROR), "{asked}: {theirs}");
            }
        }
        assert!(capped("trace").would_enable("tollgate::request", &Level::TRACE));
        assert!(capped("tollgate_secrets=trace").would_enable("tollgate_secrets::cache", &Level::TRACE));
        assert!(capped("info").would_enable("hyper", &Level::WARN));
    }
}
