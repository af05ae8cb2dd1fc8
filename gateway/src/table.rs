//! Tables for people: aligned, as wide as the terminal is, and coloured where that helps.
//!
//! **Invariant:** what somebody else chose reaches a terminal only through [`visible`]. Where nobody says how wide the page is, nothing is cut.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};

use crate::ledger::record::shows;

/// No text is cut to less than this many characters.
const LEAST: usize = 8;
/// Between two columns.
const GAP: usize = 2;

/// What a table is printed on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Page {
    /// Characters in a line; as many as it takes where nobody says.
    pub(crate) width: Option<usize>,
    /// Whether it shows colours.
    pub(crate) colour: bool,
}

impl Page {
    /// Standard output: as wide as `COLUMNS` says, else as its terminal is. Coloured on a terminal, unless `NO_COLOR` is set.
    pub(crate) fn stdout() -> Self {
        let out = io::stdout();
        let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.trim().parse().ok());
        let terminal = || {
            let size = terminal_size::terminal_size_of(&out)?;
            Some(usize::from(size.0.0))
        };
        let width = said.filter(|width| *width > 0).or_else(|| terminal().filter(|_| out.is_terminal()));
        Self { width, colour: anstream::AutoStream::choice(&out) != anstream::ColorChoice::Never }
    }

    pub(crate) fn paint<'a>(self, text: &'a str, style: Style) -> Cow<'a, str> {
        if self.colour { Cow::Owned(format!("{style}{text}{style:#}")) } else { Cow::Borrowed(text) }
    }
}

/// Headings.
pub(crate) const BOLD: Style = Style::new().bold();
/// What stands between.
pub(crate) const DIM: Style = Style::new().dimmed();
/// What went wrong.
pub(crate) const RED: Style = AnsiColor::Red.on_default();
/// What was refused, or wants a look.
pub(crate) const YELLOW: Style = AnsiColor::Yellow.on_default();
/// What went well.
pub(crate) const GREEN: Style = AnsiColor::Green.on_default();

/// How a column gives way where the page is narrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Not at all.
    Never,
    /// At its beginning: the ends of ids and paths tell them apart.
    Start,
    /// At its end.
    End,
}

/// One column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    heading: &'static str,
    number: bool,
    cut: Cut,
    spare: u8,
    tint: Option<fn(&str) -> Option<Style>>,
}

impl Column {
    /// Text, to the left.
    pub(crate) const fn text(heading: &'static str, cut: Cut) -> Self {
        Self { heading, number: false, cut, spare: 0, tint: None }
    }

    /// Numbers, to the right.
    pub(crate) const fn number(heading: &'static str) -> Self {
        Self { heading, number: true, cut: Cut::Never, spare: 0, tint: None }
    }

    /// May be left out where the page is narrow, those with greater numbers first.
    pub(crate) const fn spare(mut self, order: u8) -> Self {
        self.spare = order;
        self
    }

    /// In what colour each cell is.
    pub(crate) const fn tinted(mut self, tint: fn(&str) -> Option<Style>) -> Self {
        self.tint = Some(tint);
        self
    }
}

/// Rows under headings. Every row has a cell for each column.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    total: Option<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: impl Into<Vec<Column>>) -> Self {
        Self { columns: columns.into(), rows: Vec::new(), total: None }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// A last row, under a rule.
    pub(crate) fn total(&mut self, cells: Vec<String>) {
        self.total = Some(cells);
    }

    /// Writes it, and gives the headings of what there was no room for.
    pub(crate) fn write(&self, out: &mut impl Write, page: Page) -> io::Result<Vec<&'static str>> {
        let (shown, widths) = self.layout(page.width.unwrap_or(usize::MAX));
        let headings: Vec<String> = self.columns.iter().map(|column| column.heading.to_owned()).collect();
        let rule = widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().join("  ");
        let line = |cells: &[String], tinted: bool| self.line(cells, (&shown, &widths), page, tinted);
        writeln!(out, "{}", page.paint(&line(&headings, false), BOLD))?;
        writeln!(out, "{}", page.paint(&rule, DIM))?;
        for row in &self.rows {
            writeln!(out, "{}", line(row, true))?;
        }
        if let Some(total) = &self.total {
            writeln!(out, "{}", page.paint(&rule, DIM))?;
            writeln!(out, "{}", page.paint(&line(total, false), BOLD))?;
        }
        let left_out = (0..self.columns.len()).filter(|index| !shown.contains(index));
        Ok(left_out.map(|index| self.columns[index].heading).collect())
    }

    /// Which columns are shown, and how wide each of them is.
    fn layout(&self, page: usize) -> (Vec<usize>, Vec<usize>) {
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let full: Vec<usize> = shown.iter().map(|index| self.widest(*index)).collect();
        loop {
            let least = |index: usize| match self.columns[index].cut {
                Cut::Never => full[index],
                _ => full[index].min(LEAST.max(self.columns[index].heading.len())),
            };
            let taken =
                |widths: &[usize]| widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
            let leasts: Vec<usize> = shown.iter().map(|index| least(*index)).collect();
            let order = |place: &usize| self.columns[shown[*place]].spare;
            let spare = (0..shown.len()).filter(|place| order(place) > 0).max_by_key(order);
            if taken(&leasts) > page
                && let Some(spare) = spare
            {
                shown.remove(spare);
                continue;
            }
            let mut widths: Vec<usize> = shown.iter().map(|index| full[*index]).collect();
            let mut excess = taken(&widths).saturating_sub(page);
            while excess > 0 {
                // The widest that still can gives way, so that no short text is cut for a long one.
                let room = |place: &usize| widths[*place] > leasts[*place];
                let Some(widest) = (0..widths.len()).filter(room).max_by_key(|place| widths[*place]) else {
                    break;
                };
                widths[widest] -= 1;
                excess -= 1;
            }
            return (shown, widths);
        }
    }

    fn widest(&self, index: usize) -> usize {
        let cells = self.rows.iter().chain(&self.total).filter_map(|row| row.get(index));
        let cells = cells.map(|cell| cell.chars().count()).max().unwrap_or_default();
        cells.max(self.columns[index].heading.chars().count())
    }

    fn line(
        &self,
        row: &[String],
        (shown, widths): (&[usize], &[usize]),
        page: Page,
        tinted: bool,
    ) -> String {
        let mut line = String::new();
        for (place, (index, width)) in shown.iter().zip(widths).enumerate() {
            let column = &self.columns[*index];
            let cell = row.get(*index).map_or("", String::as_str);
            let style = column.tint.filter(|_| tinted).and_then(|tint| tint(cell));
            let cut = shorten(cell, *width, column.cut);
            let is_last = place + 1 == shown.len();
            let padded = match column.number {
                true => format!("{cut:>width$}"),
                false if is_last => cut.into_owned(),
                false => format!("{cut:<width$}"),
            };
            line.push_str(&style.map_or(Cow::Borrowed(&*padded), |style| page.paint(&padded, style)));
            if !is_last {
                line.push_str("  ");
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// At most `width` characters of it; what was cut is a `…`.
pub(crate) fn shorten(text: &str, width: usize, cut: Cut) -> Cow<'_, str> {
    let count = text.chars().count();
    if count <= width || cut == Cut::Never {
        return Cow::Borrowed(text);
    }
    let kept = width.saturating_sub(1);
    Cow::Owned(match cut {
        Cut::Start => std::iter::once('…').chain(text.chars().skip(count - kept)).collect(),
        _ => text.chars().take(kept).chain(['…']).collect(),
    })
}

/// Text that cannot act on the terminal. Records are clean when they are written; a store that somebody else wrote need not be.
pub(crate) fn visible(text: &str) -> String {
    let text: String = text.chars().filter(|char| shows(*char)).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

/// A whole number with thousands separated by commas, or one with a point, before which they are.
pub(crate) fn grouped(number: &str) -> String {
    let (whole, fraction) = number.split_at(number.find('.').unwrap_or(number.len()));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut text = String::with_capacity(number.len() + digits.len() / 3);
    text.push_str(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + fraction
}

/// So many of a thing, in words that fit the number: `1 file`, `2 files`.
pub(crate) fn counted(count: usize, thing: &str) -> String {
    let count_said = grouped(&count.to_string());
    match (count, thing.strip_suffix('y')) {
        (1, _) => format!("{count_said} {thing}"),
        (_, Some(stem)) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{count_said} {stem}ies"),
        _ => format!("{count_said} {thing}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new([
            Column::text("caller", Cut::Start),
            Column::text("model", Cut::End),
            Column::number("calls"),
            Column::number("reasoning").spare(1),
            Column::number("cost USD"),
        ]);
        for (name, model) in [("web", "gpt-5-mini"), ("invoices", "claude-sonnet-5-20260801")] {
            let caller = format!("spiffe://prod.acme/ns/checkout/sa/{name}");
            table.row(vec![caller, model.to_owned(), "12".to_owned(), "1,234".to_owned(), "0.50".to_owned()]);
        }
        table.total(["total", "", "24", "2,468", "1.00"].map(str::to_owned).to_vec());
        table
    }

    fn written(width: Option<usize>) -> (String, Vec<&'static str>) {
        let mut out = Vec::new();
        let left_out = table().write(&mut out, Page { width, colour: false }).unwrap();
        (String::from_utf8(out).unwrap(), left_out)
    }

    #[test]
    fn nothing_is_cut_where_nobody_says_how_wide_the_page_is() {
        let (text, left_out) = written(None);
        assert!(
            text.contains("spiffe://prod.acme/ns/checkout/sa/invoices  claude-sonnet-5-20260801"),
            "{text}"
        );
        assert_eq!(left_out, [""; 0]);
    }

    #[test]
    fn a_narrow_page_is_never_wrapped_and_ends_of_ids_stay() {
        for width in [80, 60, 50, 44] {
            let (text, _) = written(Some(width));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}\n{text}");
            assert!(text.contains("nvoices") && text.contains("cost USD"), "{width}\n{text}");
        }
        assert_eq!(written(Some(80)).1, [""; 0]);
        assert_eq!(written(Some(44)).1, ["reasoning"]);
    }

    #[test]
    fn a_page_too_narrow_for_anything_still_has_the_columns_that_count() {
        let (text, left_out) = written(Some(10));
        assert!(text.starts_with("caller") && text.contains("calls"), "{text}");
        assert_eq!(left_out, ["reasoning"]);
    }

    #[test]
    fn colours_are_on_the_page_only_where_it_shows_them() {
        let page = Page { width: None, colour: true };
        let mut out = Vec::new();
        table().write(&mut out, page).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("\u{1b}[1m"));
        assert!(!written(None).0.contains('\u{1b}'));
    }

    #[test]
    fn thousands_are_separated_before_the_point_only() {
        for (number, text) in
            [("0", "0"), ("999", "999"), ("1000", "1,000"), ("-1234567.0123", "-1,234,567.0123")]
        {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn terminal_escapes_do_not_reach_the_terminal() {
        assert_eq!(visible("\x1b[2Jx\u{202e}y\r\n"), "[2Jxy");
        assert_eq!(visible("\x07"), "-");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!(
            [
                counted(0, "file"),
                counted(1, "file"),
                counted(2, "file"),
                counted(2, "query"),
                counted(3, "key")
            ],
            ["0 files", "1 file", "2 files", "2 queries", "3 keys"]
        );
    }
}
