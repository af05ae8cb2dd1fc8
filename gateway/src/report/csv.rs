//! A report as comma-separated values (RFC 4180, lines end in a line feed).

use std::borrow::Cow;
use std::io::{self, Write};

use super::{Report, usd};

pub(super) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let mut heading: Vec<Cow<'_, str>> = report.query.by.iter().map(|by| by.as_str().into()).collect();
    heading.extend(report.total.columns().into_iter().map(|(name, _)| match name {
        "cost" | "estimated_cost" => Cow::Owned(format!("{name}_usd")),
        name => name.into(),
    }));
    record(out, &heading)?;
    for line in &report.lines {
        let mut cells: Vec<Cow<'_, str>> = line.keys.iter().map(|key| cell(key)).collect();
        cells.extend(line.totals.columns().into_iter().map(|(name, value)| match name {
            "cost" | "estimated_cost" => Cow::Owned(usd(value, 0)),
            _ => value.to_string().into(),
        }));
        record(out, &cells)?;
    }
    Ok(())
}

/// Writes one line of what went through [`cell`], or is a number.
pub(crate) fn record(out: &mut impl Write, cells: &[Cow<'_, str>]) -> io::Result<()> {
    writeln!(out, "{}", cells.join(","))
}

/// Text as a cell: quoted where it has to be, and with a `'` before what a spreadsheet would take for a formula (the full-width forms
/// included, which some of them fold).
pub(crate) fn cell(text: &str) -> Cow<'_, str> {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    if !formula && !text.contains([',', '"', '\n', '\r']) {
        return Cow::Borrowed(text);
    }
    let guard = if formula { "'" } else { "" };
    Cow::Owned(format!("\"{guard}{}\"", text.replace('"', "\"\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_spreadsheet_takes_for_a_formula_begins_with_an_apostrophe() {
        for text in ["=HYPERLINK(\"http://x\")", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"] {
            let cell = cell(text);
            assert!(cell.starts_with("\"'"), "{cell}");
        }
        assert_eq!(cell("=1\"2"), "\"'=1\"\"2\"");
    }

    #[test]
    fn plain_text_stays_and_separators_are_quoted() {
        assert_eq!(cell("gpt-5-mini"), "gpt-5-mini");
        assert_eq!(cell(""), "");
        assert_eq!(cell("a,b"), "\"a,b\"");
        assert_eq!(cell("a\"b"), "\"a\"\"b\"");
    }
}
