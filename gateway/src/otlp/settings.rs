//! What the gateway tells of itself to others, and where.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, Uri};
use schemars::JsonSchema;
use serde::Deserialize;
use tollgate_policy::name::ResourceId;

use crate::trace::{Sampling, Tracer};

/// Of calls: they take 2 KB each.
const MOST_QUEUED: usize = 1 << 20;

/// What the gateway tells of itself to others, and where.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TelemetrySettings {
    /// Where traces, metrics and logs go: see [OpenTelemetry](#opentelemetry). Without it nowhere.
    pub otlp: Option<OtlpSettings>,
    /// The destinations that are told of the trace that a call belongs to (`traceparent`, `tracestate`). Without it none.
    #[schemars(with = "Vec<String>")]
    pub propagate: Vec<ResourceId>,
}

/// Where traces, metrics and logs go, and how many.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OtlpSettings {
    /// The URL of a collector that takes OTLP over HTTP, as in `https://otel-collector.monitoring:4318`. `/v1/traces`, `/v1/metrics` and
    /// `/v1/logs` are put behind it. A private address has to be in `egress.privateRanges`.
    pub endpoint: String,
    /// Headers to send, by name. Over `https` only.
    #[serde(default)]
    pub headers: BTreeMap<String, HeaderFile>,
    /// The PEM file with the certificate authorities that verify the collector. Without it the system's.
    pub ca_file: Option<PathBuf>,
    /// Attributes of the resource beside `service.name`, `service.version` and `service.instance.id`.
    #[serde(default)]
    pub resource: BTreeMap<String, String>,
    /// Which calls become traces.
    #[serde(default)]
    pub traces: TraceSettings,
    /// The metrics.
    #[serde(default)]
    pub metrics: MetricSettings,
    /// Whether log lines, those of the access log among them, go there too.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub logs: bool,
    /// How many calls may wait to be sent, and half of how many log lines. What comes then is dropped and counted.
    #[serde(default = "queue")]
    #[schemars(range(min = 1), extend("default" = 8192))]
    pub queue: usize,
}

const fn queue() -> usize {
    8_192
}

/// The value of a header.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderFile {
    /// The file with the value. It is read anew for each export.
    pub file: PathBuf,
}

/// Which calls become traces.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TraceSettings {
    /// The part of the calls, `0` to `1`, of those whose callers say nothing of it.
    #[schemars(range(min = 0, max = 1))]
    pub sample: f64,
    /// Calls a second that are traced because their callers' `traceparent` says so. A call whose `traceparent` says otherwise is not traced.
    /// With `0` the word of callers counts neither way.
    pub callers_per_second: u32,
}

/// The metrics.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MetricSettings {
    /// How often they are sent. With `0s` never.
    #[serde(deserialize_with = "crate::settings::pause")]
    #[schemars(with = "crate::settings::PauseText", extend("default" = "60s"))]
    pub interval: Duration,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self { sample: 0.01, callers_per_second: 100 }
    }
}

impl Default for MetricSettings {
    fn default() -> Self {
        Self { interval: Duration::from_secs(60) }
    }
}

impl TelemetrySettings {
    /// `None` where nothing is traced and nobody is told of traces: then no call's head is looked at for it.
    pub(crate) fn tracer(&self) -> Option<Tracer> {
        let traces = self.otlp.as_ref().map(|otlp| &otlp.traces);
        let sampling = traces.map_or_else(Sampling::default, |traces| Sampling {
            part: traces.sample,
            callers_per_second: traces.callers_per_second,
        });
        let is_needed = traces.is_some() || !self.propagate.is_empty();
        is_needed.then(|| Tracer::new(sampling, self.propagate.iter().cloned()))
    }

    /// Makes the files those of `base`, where they are relative.
    pub(crate) fn based(mut self, base: &Path) -> Self {
        if let Some(otlp) = &mut self.otlp {
            otlp.ca_file = otlp.ca_file.take().map(|file| base.join(file));
            otlp.headers.values_mut().for_each(|header| header.file = base.join(&header.file));
        }
        self
    }

    /// The files with the values of headers, by setting.
    pub(crate) fn header_files(&self) -> impl Iterator<Item = (String, Option<&PathBuf>)> {
        let headers = self.otlp.iter().flat_map(|otlp| &otlp.headers);
        headers.map(|(name, header)| (format!("telemetry.otlp.headers.{name}.file"), Some(&header.file)))
    }

    /// The collector's address, where the endpoint writes it out.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        let uri: Uri = self.otlp.as_ref()?.endpoint.parse().ok()?;
        uri.host()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }

    /// Fields that cannot be used, with what is wrong.
    pub(crate) fn problems(&self) -> Vec<(String, String)> {
        let Some(otlp) = &self.otlp else { return Vec::new() };
        let mut problems = Vec::new();
        let mut wrong = |field: &str, message: String| problems.push((format!("otlp.{field}"), message));
        let scheme = match otlp.scheme() {
            Ok(scheme) => Some(scheme),
            Err(message) => {
                wrong("endpoint", message);
                None
            }
        };
        for name in otlp.headers.keys() {
            let field = format!("headers.{name}");
            if name.parse::<HeaderName>().is_err() {
                wrong(&field, format!("`{name}` is no name of a header"));
            }
            if scheme == Some(Scheme::Http) {
                wrong(
                    &field,
                    "over http whoever is between could read it: write an endpoint with https".into(),
                );
            }
        }
        if !(0.0..=1.0).contains(&otlp.traces.sample) {
            wrong("traces.sample", "from 0 to 1".into());
        }
        if !(1..=MOST_QUEUED).contains(&otlp.queue) {
            wrong("queue", format!("from 1 to {MOST_QUEUED}"));
        }
        let interval = otlp.metrics.interval;
        if !interval.is_zero() && interval < Duration::from_secs(1) {
            wrong("metrics.interval", "at least 1s, or 0s for never".into());
        }
        problems
    }
}

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl OtlpSettings {
    fn scheme(&self) -> Result<Scheme, String> {
        let form = "write the URL of a collector, as in https://otel-collector.monitoring:4318";
        let shown = if self.endpoint.contains('@') { "…" } else { &self.endpoint };
        let uri: Uri = self.endpoint.parse().map_err(|_| format!("`{shown}`: {form}"))?;
        let is_plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        match uri.scheme_str() {
            _ if !is_plain || uri.query().is_some() || self.endpoint.contains('#') => {
                Err(format!("{form}, without user, query or fragment"))
            }
            Some("https") => Ok(Scheme::Https),
            Some("http") => Ok(Scheme::Http),
            _ => Err(format!("`{shown}`: {form}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(yaml: serde_json::Value) -> Vec<String> {
        let settings: TelemetrySettings = serde_json::from_value(yaml).unwrap();
        settings.problems().into_iter().map(|(field, message)| format!("{field}: {message}")).collect()
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_field() {
        let of = |otlp: serde_json::Value| problems(serde_json::json!({ "otlp": otlp }));
        assert_eq!(of(serde_json::json!({"endpoint": "https://otel:4318"})), [""; 0]);
        assert_eq!(of(serde_json::json!({"endpoint": "http://127.0.0.1:4318/base"})), [""; 0]);
        for wrong in [
            "otel:4318",
            "grpc://otel:4317",
            "https://user:pass@otel",
            "https://otel?x=1",
            "https://otel/#a",
            "",
        ] {
            let said = of(serde_json::json!({ "endpoint": wrong }));
            assert!(said.len() == 1 && said[0].starts_with("otlp.endpoint: "), "{wrong}: {said:?}");
        }
        let said = of(serde_json::json!({
            "endpoint": "http://otel", "headers": {"authorization": {"file": "token"}, "a b": {"file": "b"}},
            "traces": {"sample": 1.5}, "queue": 0, "metrics": {"interval": "10ms"},
        }));
        let fields: Vec<_> = said.iter().map(|said| said.split(": ").next().unwrap()).collect();
        assert_eq!(
            fields,
            [
                "otlp.headers.a b",
                "otlp.headers.a b",
                "otlp.headers.authorization",
                "otlp.traces.sample",
                "otlp.queue",
                "otlp.metrics.interval"
            ]
        );
    }
}
