//! The OpenTelemetry collector: it takes what the gateway exports and writes it to a file, which is swept.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::process::{Process, free_port, local};
use crate::sandbox::{Sandbox, parts_dir};

/// A running collector; it ends when dropped.
pub struct Collector {
    port: u16,
    file: PathBuf,
    process: Process,
}

/// A span, or a record of a log, as it arrived.
#[derive(Clone, Debug)]
pub struct Item {
    /// All of it.
    pub json: Value,
    /// Its attributes by name: the type's name in OTLP's JSON, and the value.
    pub attributes: BTreeMap<String, (String, Value)>,
}

impl Item {
    fn of(json: &Value) -> Self {
        Self { json: json.clone(), attributes: attributes(json) }
    }

    /// A member, as text.
    pub fn text(&self, member: &str) -> &str {
        self.json[member].as_str().unwrap_or_default()
    }

    /// An attribute's text; empty where there is none.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).and_then(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// Whether it is a span of the gateway as a server; the others are of it as a client.
    pub fn is_server(&self) -> bool {
        self.json["kind"] == 2
    }
}

/// A metric as it arrived.
#[derive(Clone, Debug)]
pub struct Points {
    /// `sum`, `gauge` or `histogram`.
    pub kind: String,
    /// Its points.
    pub points: Vec<Item>,
}

impl Collector {
    /// Whether the collector is installed.
    pub fn installed() -> bool {
        binary().exists()
    }

    /// Starts one that takes OTLP over HTTP.
    pub async fn start(sandbox: &Sandbox) -> Self {
        let (port, file) = (free_port(), sandbox.sinks().join("collector.jsonl"));
        let settings = format!(
            "receivers: {{otlp: {{protocols: {{http: {{endpoint: \"127.0.0.1:{port}\"}}}}}}}}\n\
             exporters: {{file: {{path: {}, append: true, flush_interval: 50ms}}}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n\
             \x20   traces: &all {{receivers: [otlp], exporters: [file]}}\n    metrics: *all\n    logs: *all\n",
            file.display()
        );
        let settings = sandbox.input("collector.yaml", settings);
        let mut command = Command::new(binary());
        command.arg("--config").arg(format!("file:{}", settings.display())).env("HOME", sandbox.providers());
        let mut process = Process::spawn("collector", &sandbox.sinks(), &mut command);
        process.listening(local(port)).await;
        Self { port, file, process }
    }

    /// What `telemetry.otlp.endpoint` is set to.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Stops it where it stands, so that it takes connections and answers nothing, or lets it go on.
    pub fn hang(&self, hangs: bool) {
        self.process.signal(if hangs { Signal::SIGSTOP } else { Signal::SIGCONT });
    }

    fn all(&self, outer: &str, scope: &str, inner: &str) -> Vec<Value> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
        let resources = lines.flat_map(|line| list(&line, outer));
        let scopes = resources.flat_map(|resource| list(&resource, scope));
        scopes.flat_map(|scope| list(&scope, inner)).collect()
    }

    /// The spans so far.
    pub fn spans(&self) -> Vec<Item> {
        self.all("resourceSpans", "scopeSpans", "spans").iter().map(Item::of).collect()
    }

    /// The log records so far.
    pub fn logs(&self) -> Vec<Item> {
        self.all("resourceLogs", "scopeLogs", "logRecords").iter().map(Item::of).collect()
    }

    /// The metrics by name, as they came last.
    pub fn metrics(&self) -> BTreeMap<String, Points> {
        let metrics = self.all("resourceMetrics", "scopeMetrics", "metrics");
        let points = metrics.iter().filter_map(|metric| {
            let kind = ["sum", "gauge", "histogram"].into_iter().find(|kind| metric[*kind].is_object())?;
            let points = metric[kind]["dataPoints"].as_array()?.iter().map(Item::of).collect();
            Some((metric["name"].as_str()?.to_owned(), Points { kind: kind.to_owned(), points }))
        });
        points.collect()
    }

    /// The attributes of the resources.
    pub fn resource(&self) -> BTreeMap<String, (String, Value)> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let spans = lines.filter_map(|line| line["resourceSpans"][0]["resource"].as_object().cloned());
        spans.flat_map(|resource| attributes(&Value::Object(resource))).collect()
    }
}

fn attributes(of: &Value) -> BTreeMap<String, (String, Value)> {
    let pairs = of["attributes"].as_array().into_iter().flatten();
    let pairs = pairs.filter_map(|pair| {
        let (kind, value) = pair["value"].as_object()?.iter().next()?;
        Some((pair["key"].as_str()?.to_owned(), (kind.clone(), value.clone())))
    });
    pairs.collect()
}

fn binary() -> PathBuf {
    parts_dir().join("otel-collector")
}
