//! Access lines for people.

use std::fmt::Write;

use anstyle::Style;
use jiff::Timestamp;
use serde_json::Value;

use crate::ledger::Fields;
use crate::ledger::json::{Calendar, Json};
use crate::report::usd;
use crate::table::{DIM, GREEN, Page, RED, YELLOW, grouped, visible};

/// What is said of a record, as one line.
pub(super) fn access(record: &Fields<'_>, now: Timestamp, colour: bool) -> String {
    let mut json = Vec::new();
    record.write_access(&mut Json::new(&mut json, &mut Calendar::default()));
    json.push(b'}');
    line(&json, now, colour)
}

fn line(record: &[u8], now: Timestamp, colour: bool) -> String {
    let page = Page { width: None, colour };
    let record: Value = serde_json::from_slice(record).unwrap_or_default();
    let text = |name: &str| visible(record[name].as_str().unwrap_or_default());
    let mut line = format!("{} ", page.paint(&now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(), DIM));
    let status = record["status"].as_u64().unwrap_or_default();
    let _ = write!(line, "{}", page.paint(&format!("{status:>3}"), tint(status)));
    let _ = write!(line, " {} {}{} {}", text("method"), text("destination"), text("path"), text("caller"));
    for name in ["model", "reason"] {
        if record[name].is_string() {
            let _ = write!(line, " {}", text(name));
        }
    }
    if record["outcome"] != "completed" && !record["reason"].is_string() {
        let _ = write!(line, " {}", text("outcome"));
    }
    let micros = record["duration_us"].as_u64().unwrap_or_default();
    let _ = write!(line, " {} ms", grouped(&format!("{}.{:03}", micros / 1000, micros % 1000)));
    for (name, count) in record["units"].as_object().into_iter().flatten() {
        let _ = write!(line, " {name}={count}");
    }
    if let Some(nanos) = record["cost_nano_usd"].as_i64() {
        let _ = write!(line, " {} USD", usd(nanos.into(), 2));
    }
    let _ = writeln!(line, " {}", page.paint(&format!("id={}", text("id")), DIM));
    line
}

const fn tint(status: u64) -> Style {
    match status {
        200..400 => GREEN,
        400..500 => YELLOW,
        _ => RED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_people_has_what_the_json_line_has_and_no_control_characters() {
        let record = br#"{"id":"01a2","at":"2026-11-28T10:00:00.000000Z","duration_us":812345,"caller":"spiffe://prod.acme/ns/a/sa/b","method":"POST",
            "destination":"openai","path":"/v1/chat\u001b[2J","model":"gpt-5-mini","status":200,"outcome":"completed","bytes_in":1,"bytes_out":2,
            "units":{"input":20,"output":42},"cost_nano_usd":412000}"#;
        let now: Timestamp = "2026-11-28T10:00:01Z".parse().unwrap();
        let shown = line(record, now, false);
        assert_eq!(
            shown,
            "2026-11-28T10:00:01.000000Z 200 POST openai/v1/chat[2J spiffe://prod.acme/ns/a/sa/b gpt-5-mini 812.345 ms input=20 output=42 \
             0.000412 USD id=01a2\n"
        );
        assert!(line(record, now, true).contains("\u{1b}[32m200"));
        let refused = br#"{"id":"01a3","duration_us":90,"method":"GET","status":403,"reason":"no_grant","outcome":"refused","units":{}}"#;
        assert_eq!(
            line(refused, now, false),
            "2026-11-28T10:00:01.000000Z 403 GET -- - no_grant 0.090 ms id=01a3\n"
        );
    }
}
