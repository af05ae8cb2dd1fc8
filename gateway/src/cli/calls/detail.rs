//! One call, by everything that is known of it.

use std::io::{self, Write};

use serde_json::Value;
use tollgate_policy::limit::{LimitId, Unit};

use super::many::milliseconds;
use crate::ledger::{Call, Object};
use crate::report::usd;
use crate::table::{BOLD, DIM, Page, RED, counted, grouped, visible};

/// Characters before what is said.
const INDENT: usize = 14;

/// Members of a record that a line here says in its own words; every other member is shown by its name.
const SAID: [&str; 28] = [
    "id",
    "at",
    "duration_us",
    "first_byte_us",
    "caller",
    "proof",
    "method",
    "host",
    "port",
    "path",
    "destination",
    "model",
    "model_answered",
    "status",
    "outcome",
    "reason",
    "grant",
    "credential",
    "alias",
    "credential_version",
    "source",
    "peer",
    "attempts",
    "bytes_in",
    "bytes_out",
    "units",
    "usage_source",
    "charges",
];
const SAID_TOO: [&str; 4] = ["cost", "unpriced", "price_version", "held_at"];

pub(super) fn write(call: &Call, out: &mut impl Write, page: Page) -> io::Result<()> {
    let mut lines = Lines { out, page };
    lines.title(&format!("Call {}", call.id))?;
    let Some(record) = &call.record else {
        lines.line("begun", &call.at.to_string())?;
        lines.line("outcome", "under way, or cut off by the end of its process: there is no record yet")?;
        return held(call, &mut lines);
    };
    how_it_went(call, &mut lines)?;
    with_what(call, &mut lines)?;
    what_it_used(call, &mut lines)?;
    for (name, value) in record {
        if !SAID.contains(&name.as_str()) && !SAID_TOO.contains(&name.as_str()) {
            lines.line(name, &plain(value))?;
        }
    }
    held(call, &mut lines)?;
    charged(record, &mut lines)?;
    attempts(record, &mut lines)?;
    corrections(call, &mut lines)
}

fn how_it_went(call: &Call, lines: &mut Lines<'_, impl Write>) -> io::Result<()> {
    let took = milliseconds(call, "duration_us").unwrap_or_default();
    let first =
        milliseconds(call, "first_byte_us").map(|ms| format!(", first byte after {} ms", grouped(&ms)));
    lines.line("at", &format!("{}, for {} ms{}", call.at, grouped(&took), first.unwrap_or_default()))?;
    let proof = some(call.text("proof"), |proof| format!(" (proven by {proof})"));
    lines.line("caller", &format!("{}{proof}", call.text("caller")))?;
    let port = call.number("port").map_or_else(String::new, |port| format!(":{port}"));
    let asked = format!("{} {}{port}{}", call.text("method"), call.text("host"), call.text("path"));
    lines.line("asked", &asked)?;
    lines.line("destination", call.text("destination"))?;
    let answered = some(call.text("model_answered"), |model| format!(", answered by {model}"));
    lines.line("model", &format!("{}{answered}", call.text("model")))?;
    let status = call.number("status").filter(|status| *status != 0);
    let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
    let reason = some(call.text("reason"), |reason| format!(": {reason}"));
    let failed = call.text("outcome") != "completed" || !status.starts_with(['2', '3']);
    let text = format!("{status}, {}{reason}", call.text("outcome"));
    let said = if failed { lines.page.paint(&text, RED).into_owned() } else { text };
    lines.painted("status", &said)
}

fn with_what(call: &Call, lines: &mut Lines<'_, impl Write>) -> io::Result<()> {
    lines.line("grant", call.text("grant"))?;
    let alias = some(call.text("alias"), |alias| format!(", key {alias}"));
    let version = some(call.text("credential_version"), |version| format!(", version {version}"));
    lines.line("credential", &format!("{}{alias}{version}", call.text("credential")))?;
    let peer = some(call.text("peer"), |peer| format!(" to {peer}"));
    lines.line("went from", &format!("{}{peer}", call.text("source")))
}

fn what_it_used(call: &Call, lines: &mut Lines<'_, impl Write>) -> io::Result<()> {
    let bytes = |name: &str| grouped(&call.number(name).unwrap_or_default().to_string());
    lines.line("body bytes", &format!("{} in, {} out", bytes("bytes_in"), bytes("bytes_out")))?;
    let units = call.record.as_ref().and_then(|record| record.get("units")?.as_object());
    let units = units.into_iter().flatten().map(|(name, count)| format!("{name} {}", grouped(&plain(count))));
    let units: Vec<String> = units.collect();
    let units = if units.is_empty() { String::new() } else { format!(": {}", units.join(", ")) };
    lines.line("usage", &format!("{}{units}", call.text("usage_source")))?;
    let price = some(call.text("price_version"), |price| format!(" (price {price})"));
    let is_unpriced = call.record.as_ref().is_some_and(|record| record.contains_key("unpriced"));
    let cost = match call.number("cost") {
        Some(nanos) => format!("{} USD{price}", usd(nanos.into(), 2)),
        None if is_unpriced => "unknown: there is no price for it".to_owned(),
        None => String::new(),
    };
    lines.line("cost", &cost)
}

fn held(call: &Call, lines: &mut Lines<'_, impl Write>) -> io::Result<()> {
    let Some(hold) = &call.hold else { return Ok(()) };
    let at = hold.get("at").map(plain).unwrap_or_default();
    lines.title(&format!("Held before it was sent, at {at}"))?;
    limits(hold, lines)
}

fn charged(record: &Object, lines: &mut Lines<'_, impl Write>) -> io::Result<()> {
    if record.get("charges").is_none() {
        return Ok(());
    }
    let windows =
        record.get("held_at").map_or_else(String::new, |at| format!(", in the windows of {}", plain(at)));
    lines.title(&format!("Charged{windows}"))?;
    limits(record, lines)
}

/// What each limit holds or was charged, in its unit.
fn limits(from: &Object, lines: &mut Lines<'_, impl Write>) -> io::Result<()> {
    for charge in from.get("charges").and_then(Value::as_array).into_iter().flatten() {
        let limit = plain(&charge["limit"]);
        let key = some(charge["key"].as_str().unwrap_or_default(), |key| format!(" of {key}"));
        let amount = charge["amount"].as_i64().unwrap_or_default();
        let amount = match LimitId::read(&limit).map(|id| id.unit) {
            Some(Unit::Spend) => format!("{} USD", usd(amount.into(), 2)),
            Some(unit) => format!("{} {unit}", grouped(&amount.to_string())),
            None => grouped(&amount.to_string()),
        };
        lines.bare(&format!("{limit}{key}: {amount}"))?;
    }
    Ok(())
}

fn attempts(record: &Object, lines: &mut Lines<'_, impl Write>) -> io::Result<()> {
    let Some(attempts) = record.get("attempts").and_then(Value::as_array) else { return Ok(()) };
    lines.title(&counted(attempts.len(), "attempt"))?;
    for attempt in attempts {
        // What is that of the record is not repeated on its line.
        let own = |name: &str| attempt.get(name).or_else(|| record.get(name)).map(plain).unwrap_or_default();
        let peer = attempt
            .get("peer")
            .filter(|peer| !peer.is_null())
            .map_or_else(|| "not connected".to_owned(), plain);
        let from = some(&own("source"), |source| format!(" from {source}"));
        let key = some(&own("alias"), |alias| format!(", key {alias}"));
        let version = some(&own("credential_version"), |version| format!(", version {version}"));
        let of_it = |name: &str| attempt.get(name).map(plain).unwrap_or_default();
        let status = some(&of_it("status"), |status| format!(": {status}"));
        let reason = some(&of_it("reason"), |reason| format!(": {reason}"));
        lines.bare(&format!("{peer}{from}{key}{version}{status}{reason}"))?;
    }
    Ok(())
}

fn corrections(call: &Call, lines: &mut Lines<'_, impl Write>) -> io::Result<()> {
    let Some(original) = &call.original else { return Ok(()) };
    lines.title(&format!("{}; what its record says:", counted(call.corrections.len(), "correction")))?;
    let cost = original.get("cost").and_then(Value::as_i64);
    let cost = cost.map_or_else(|| "no cost".to_owned(), |nanos| format!("{} USD", usd(nanos.into(), 2)));
    let units = original.get("units").map(plain).unwrap_or_default();
    lines
        .bare(&format!("{}, {units}, {cost}", original.get("usage_source").map(plain).unwrap_or_default()))?;
    for correction in &call.corrections {
        let text = |name: &str| correction.get(name).map(plain).unwrap_or_default();
        let by = some(&text("by"), |by| format!(" by {by}"));
        let note = some(&text("note"), |note| format!(": {note}"));
        let cost = correction.get("cost").and_then(Value::as_i64).unwrap_or_default();
        lines.bare(&format!("{}{by}, {} USD{note}", text("at"), usd(cost.into(), 2)))?;
    }
    Ok(())
}

/// `with` of what is there, nothing of what is not.
fn some(text: &str, with: impl FnOnce(&str) -> String) -> String {
    if text.is_empty() { String::new() } else { with(text) }
}

/// Text as it is, all else as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

struct Lines<'a, W> {
    out: &'a mut W,
    page: Page,
}

impl<W: Write> Lines<'_, W> {
    fn title(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{}", self.page.paint(&visible(text), BOLD))
    }

    /// A name and what is said of it, where there is anything.
    fn line(&mut self, name: &str, text: &str) -> io::Result<()> {
        if text.trim().is_empty() { Ok(()) } else { self.painted(name, &visible(text)) }
    }

    fn painted(&mut self, name: &str, text: &str) -> io::Result<()> {
        let name = format!("{name:<INDENT$}");
        writeln!(self.out, "  {}{text}", self.page.paint(&visible(&name), DIM))
    }

    fn bare(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "  {}", visible(text))
    }
}
