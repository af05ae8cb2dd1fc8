//! Many calls: a row, an object or a line of CSV for each.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, Write};

use anstyle::Style;
use serde_json::{Value, json};
use tollgate_policy::price::Item;

use super::Format;
use crate::ledger::{Call, Dimension, Object};
use crate::report::{cell, record, usd};
use crate::table::{Column, Cut, GREEN, Page, RED, Table, YELLOW, grouped, visible};

const COLUMNS: [Column; 14] = [
    Column::text("when (UTC)", Cut::Never),
    Column::text("id", Cut::Never),
    Column::text("status", Cut::Never).tinted(tint),
    Column::text("caller", Cut::Start),
    Column::text("to", Cut::End),
    Column::text("method", Cut::Never).spare(8),
    Column::text("path", Cut::Start).spare(7),
    Column::text("model", Cut::End).spare(3),
    Column::text("reason", Cut::End).spare(2),
    Column::text("usage", Cut::Never).spare(9),
    Column::number("in").spare(5),
    Column::number("out").spare(4),
    Column::number("cost USD").spare(1),
    Column::number("ms").spare(6),
];

fn tint(status: &str) -> Option<Style> {
    Some(match status.as_bytes().first()? {
        b'2' | b'3' => GREEN,
        b'4' => YELLOW,
        _ => RED,
    })
}

fn row(call: &Call) -> Vec<String> {
    let text = |name: &str| visible(call.text(name));
    let sum = |items: &[Item]| {
        let sum = items.iter().fold(0, |sum: i64, item| sum.saturating_add(call.unit(item.as_str())));
        if sum == 0 { "-".to_owned() } else { grouped(&sum.to_string()) }
    };
    let model = match call.text("model") {
        "" => call.text("model_answered"),
        asked => asked,
    };
    let status = call.number("status").filter(|status| *status != 0);
    vec![
        call.at.strftime("%m-%d %H:%M:%S").to_string(),
        call.id.to_string(),
        status.map_or_else(|| "-".to_owned(), |status| status.to_string()),
        text("caller"),
        text("destination"),
        text("method"),
        text("path"),
        visible(model),
        text(if call.text("reason").is_empty() && !is_answered(call) { "outcome" } else { "reason" }),
        text("usage_source"),
        sum(&Item::READ),
        sum(&Item::WRITTEN),
        cost(call),
        milliseconds(call, "duration_us").map_or_else(|| "-".to_owned(), |ms| grouped(&ms)),
    ]
}

fn is_answered(call: &Call) -> bool {
    call.text("outcome") == "completed"
}

fn cost(call: &Call) -> String {
    match call.number("cost") {
        Some(nanos) => usd(nanos.into(), 2),
        None => "-".to_owned(),
    }
}

/// A member that is in microseconds, in milliseconds with three digits behind the point, or none where it is long.
pub(super) fn milliseconds(call: &Call, name: &str) -> Option<String> {
    let micros = call.number(name)?;
    Some(if micros >= 10_000 {
        format!("{}", micros / 1000)
    } else {
        format!("{}.{:03}", micros / 1000, micros % 1000)
    })
}

pub(super) fn write_table(calls: &[Call], out: &mut impl Write, page: Page) -> io::Result<()> {
    if calls.is_empty() {
        return writeln!(out, "No calls.");
    }
    let mut table = Table::new(COLUMNS);
    calls.iter().for_each(|call| table.row(row(call)));
    table.write(out, page).map(drop)
}

/// What a record says, as it says it, and what became of it since.
pub(super) fn object(call: &Call) -> Value {
    let mut object = call.record.clone().unwrap_or_else(|| under_way(call));
    if let Some(nanos) = call.number("cost") {
        object.insert("cost_usd".to_owned(), usd(nanos.into(), 0).into());
    }
    let mut put = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
    if let Some(original) = &call.original {
        put("original", original.clone().into());
        put("corrections", call.corrections.iter().map(correction).collect());
    }
    if let Some(hold) = &call.hold {
        let held = |name: &str| hold.get(name).cloned().unwrap_or_default();
        put("hold", json!({"at": held("at"), "charges": held("charges"), "cost": held("cost")}));
    }
    object.into()
}

fn under_way(call: &Call) -> Object {
    let mut object = call.hold.clone().unwrap_or_default();
    object.insert("outcome".to_owned(), "under_way".into());
    for name in ["charges", "cost"] {
        object.remove(name);
    }
    object
}

fn correction(row: &Object) -> Value {
    let named = ["id", "at", "by", "note", "units", "cost", "charges"];
    let members = named.iter().filter_map(|name| Some(((*name).to_owned(), row.get(*name)?.clone())));
    Value::Object(members.collect())
}

/// Members of a record that are texts or numbers and no dimensions.
const CELLS: [&str; 10] = [
    "proof",
    "method",
    "port",
    "path",
    "operation",
    "credential_version",
    "peer",
    "status",
    "price_version",
    "generation",
];

fn members() -> impl Iterator<Item = &'static str> {
    Dimension::ALL.map(Dimension::as_str).into_iter().chain(CELLS)
}

pub(super) fn write_csv(calls: &[Call], out: &mut impl Write) -> io::Result<()> {
    write_heading(out)?;
    calls.iter().try_for_each(|call| write_cells(call, out))
}

fn write_heading(out: &mut impl Write) -> io::Result<()> {
    let names = ["id", "at", "duration_ms", "first_byte_ms"].into_iter();
    let names = names.chain(members()).chain(Item::ALL.iter().map(|item| item.as_str()));
    let rest = ["body_bytes_in", "body_bytes_out", "cost_usd", "unpriced", "attempts", "corrections"];
    record(out, &names.chain(rest).map(Cow::Borrowed).collect::<Vec<_>>())
}

fn write_cells(call: &Call, out: &mut impl Write) -> io::Result<()> {
    let whole = |name: &str| call.record.as_ref().and_then(|record| record.get(name));
    let text = |name: &str| match whole(name) {
        Some(Value::String(text)) => Cow::Owned(cell(&visible_or_empty(text)).into_owned()),
        Some(other) => Cow::Owned(cell(&other.to_string()).into_owned()),
        None => Cow::Borrowed(""),
    };
    let attempts = whole("attempts").and_then(Value::as_array).map_or(1, Vec::len);
    let sent = if whole("peer").is_some() || whole("attempts").is_some() { attempts } else { 0 };
    let millis = |name: &str| {
        let micros = call.number(name);
        micros
            .map_or(Cow::Borrowed(""), |micros| Cow::Owned(format!("{}.{:03}", micros / 1000, micros % 1000)))
    };
    let mut cells: Vec<Cow<'_, str>> = vec![call.id.to_string().into(), call.at.to_string().into()];
    cells.extend([millis("duration_us"), millis("first_byte_us")]);
    cells.extend(members().map(text));
    cells.extend(Item::ALL.iter().map(|item| Cow::Owned(call.unit(item.as_str()).to_string())));
    cells.extend([text("bytes_in"), text("bytes_out")]);
    cells.push(call.number("cost").map_or(Cow::Borrowed(""), |nanos| usd(nanos.into(), 0).into()));
    cells.push(Cow::Borrowed(if whole("unpriced").is_some() { "1" } else { "0" }));
    cells.extend([sent.to_string().into(), call.corrections.len().to_string().into()]);
    record(out, &cells)
}

fn visible_or_empty(text: &str) -> String {
    if text.is_empty() { String::new() } else { visible(text) }
}

/// Rows that say how wide the columns of the next ones are.
const RECENT: usize = 20;

/// Calls that come one after the other.
#[derive(Debug)]
pub(super) struct Followed {
    format: Format,
    page: Page,
    begun: bool,
    recent: VecDeque<Vec<String>>,
}

impl Followed {
    pub(super) const fn new(format: Format, page: Page) -> Self {
        Self { format, page, begun: false, recent: VecDeque::new() }
    }

    pub(super) fn write(&mut self, calls: &[Call], out: &mut impl Write) -> io::Result<()> {
        match self.format {
            Format::Table if calls.is_empty() => Ok(()),
            Format::Table => self.write_rows(calls, out),
            Format::Json => calls.iter().try_for_each(|call| {
                serde_json::to_writer(&mut *out, &object(call))?;
                out.write_all(b"\n")
            }),
            Format::Csv => {
                if !std::mem::replace(&mut self.begun, true) {
                    write_heading(out)?;
                }
                calls.iter().try_for_each(|call| write_cells(call, out))
            }
        }
    }

    fn write_rows(&mut self, calls: &[Call], out: &mut impl Write) -> io::Result<()> {
        let mut table = Table::new(COLUMNS);
        self.recent.iter().for_each(|row| table.row(row.clone()));
        // What stands above them is there already.
        let above = if std::mem::replace(&mut self.begun, true) { self.recent.len() + 2 } else { 0 };
        for call in calls {
            let row = row(call);
            self.recent.push_back(row.clone());
            table.row(row);
        }
        while self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        let mut text = Vec::new();
        table.write(&mut text, self.page)?;
        text.split_inclusive(|byte| *byte == b'\n').skip(above).try_for_each(|line| out.write_all(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::RecordId;

    fn call(record: &Value) -> Call {
        Call {
            id: "01a207d768017b24b761f7d78e801692".parse().unwrap_or_else(|_| RecordId::new()),
            at: "2026-11-28T10:00:00.105Z".parse().unwrap(),
            record: record.as_object().cloned(),
            original: None,
            corrections: Vec::new(),
            hold: None,
        }
    }

    fn good() -> Call {
        call(&json!({
            "id": "01a207d768017b24b761f7d78e801692", "at": "2026-11-28T10:00:00.105Z", "duration_us": 812_345, "first_byte_us": 9_001,
            "caller": "spiffe://prod.acme/ns/checkout/sa/api", "method": "POST", "destination": "openai", "host": "api.openai.com",
            "port": 443, "path": "/v1/chat/completions", "grant": "checkout-openai", "model": "gpt-5-mini", "status": 200,
            "outcome": "completed", "peer": "192.0.2.1:443", "source": "10.0.0.7", "credential": "openai-prod", "alias": "team-a",
            "credential_version": "4", "units": {"input": 1200, "cache_read": 34, "output": 56}, "usage_source": "reported",
            "cost": 412_000, "bytes_in": 7, "bytes_out": 9, "served_tier": "priority",
        }))
    }

    fn refused() -> Call {
        call(&json!({
            "duration_us": 90, "caller": "=cmd()", "method": "GET", "status": 403, "outcome": "refused", "reason": "no_grant",
            "model": "@SUM(1)\u{1b}[2J", "usage_source": "none", "units": {}, "bytes_in": 0, "bytes_out": 0,
        }))
    }

    fn text(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_row_says_who_what_how_it_ended_and_what_it_cost() {
        let table = text(|out| write_table(&[good(), refused()], out, Page::default()));
        let lines: Vec<_> = table.lines().collect();
        for word in
            ["11-28 10:00:00", "200", "gpt-5-mini", "1,234", "56", "0.000412", "812", "/v1/chat/completions"]
        {
            assert!(lines[2].contains(word), "{word}\n{table}");
        }
        assert!(
            lines[3].contains("403") && lines[3].contains("no_grant") && lines[3].contains("0.090"),
            "{table}"
        );
        assert!(!table.contains('\u{1b}'));
    }

    #[test]
    fn at_eighty_columns_a_row_is_one_line_with_the_whole_id() {
        let page = Page { width: Some(80), colour: false };
        let table = text(|out| write_table(&[good(), refused()], out, page));
        assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
        assert!(table.contains("01a207d768017b24b761f7d78e801692") && table.contains("sa/api"), "{table}");
    }

    #[test]
    fn an_object_has_every_member_of_the_record_those_of_later_versions_too() {
        let object = object(&good());
        assert_eq!((&object["served_tier"], &object["cost_usd"]), (&"priority".into(), &"0.000412".into()));
        assert_eq!(object["units"]["cache_read"], 34);
    }

    #[test]
    fn csv_has_a_cell_for_every_heading_and_no_formula() {
        let csv = text(|out| write_csv(&[good(), refused()], out));
        let lines: Vec<_> = csv.lines().collect();
        let heading: Vec<_> = lines[0].split(',').collect();
        let cells: Vec<_> = lines[1].split(',').collect();
        assert_eq!(heading.len(), cells.len());
        let of = |name: &str| cells[heading.iter().position(|heading| *heading == name).unwrap()];
        let named = ["duration_ms", "cache_read", "cost_usd", "credential_version", "attempts"].map(of);
        assert_eq!(named, ["812.345", "34", "0.000412", "4", "1"]);
        assert!(lines[2].contains("\"'=cmd()\"") && lines[2].contains("\"'@SUM(1)[2J\""), "{csv}");
    }

    #[test]
    fn calls_that_follow_stand_under_the_heading_of_the_first() {
        let mut followed = Followed::new(Format::Table, Page::default());
        let first = text(|out| followed.write(&[], out).and_then(|()| followed.write(&[good()], out)));
        assert_eq!(first.lines().count(), 3, "{first}");
        let next = text(|out| followed.write(&[refused()], out));
        assert_eq!(next.lines().count(), 1, "{next}");
        assert!(next.contains("no_grant"), "{next}");
    }
}
