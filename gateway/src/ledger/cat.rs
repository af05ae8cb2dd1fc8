//! The journal as people read it: every entry as one line of JSON.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Deserialize;

use super::batch::{BatchEntry, Batches, Damaged, EntryKind};
use super::entry::write_json;
use super::json::{Calendar, Json};
use super::payload::{self, Unreadable};
use super::{LedgerError, chain, segment};

/// A segment to print.
#[derive(Debug)]
pub struct Printed {
    path: PathBuf,
    /// Entries of it that count.
    entries: u64,
}

/// Why something of a segment was not printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unprinted {
    /// The end of a batch that a crash cut off, or that is being written.
    Torn(String),
    /// It is damaged, or cannot be read.
    Damaged(String),
}

impl Printed {
    /// All of a segment, wherever it is.
    pub const fn file(path: PathBuf) -> Self {
        Self { path, entries: u64::MAX }
    }

    /// The segments of a data directory that were written to since then, with what counts of them.
    pub fn journal(data_dir: &Path, since: Timestamp) -> Result<Vec<Self>, LedgerError> {
        if !segment::directory(data_dir).is_dir() {
            return Err(LedgerError::Missing(data_dir.to_owned()));
        }
        let left = segment::left_behind(data_dir)?;
        let mut segments = Vec::new();
        for name in segment::list(data_dir)? {
            if segment::written(data_dir, &name)?.is_some_and(|(_, last)| last >= since) {
                let entries = left.get(&name).copied().unwrap_or(u64::MAX);
                segments.push(Self { path: segment::file(data_dir, &name), entries });
            }
        }
        Ok(segments)
    }

    /// Writes `{"record":{…}}` and the like for each entry since then, and says in `unprinted` what it leaves out. Fails where `out` does.
    pub fn write(
        &self,
        since: Timestamp,
        out: &mut impl Write,
        unprinted: &mut Vec<Unprinted>,
    ) -> io::Result<()> {
        let file = self.path.display();
        let mut damaged = |what: String| unprinted.push(Unprinted::Damaged(format!("{file}: {what}")));
        let mut batches = match Batches::open(&self.path, 0) {
            Ok(batches) => batches,
            Err(error) => {
                damaged(chain(&error));
                return Ok(());
            }
        };
        let (mut count, mut calendar) = (0, Calendar::default());
        while count < self.entries {
            let batch = match batches.next_batch() {
                Ok(Some(batch)) => batch,
                Ok(None) => break,
                Err(error) => {
                    damaged(error.to_string());
                    return Ok(());
                }
            };
            if batch.passed_over > 0 {
                let from = batch.start - batch.passed_over;
                damaged(format!("bytes {from} to {}, behind entry {count}, are damaged", batch.start));
            }
            for (number, entry) in (count + 1..).zip(batch.entries()) {
                match entry {
                    Ok(entry) if is_older(&entry, since) => {}
                    Ok(entry) => match line(&entry, &mut calendar) {
                        Ok(line) => out.write_all(&line)?,
                        Err(error) => {
                            damaged(format!(
                                "entry {number}, at byte {}, cannot be read: {error}",
                                entry.offset
                            ));
                        }
                    },
                    Err(Damaged { offset }) => {
                        damaged(format!("entry {number}, at byte {offset}, is damaged"));
                    }
                }
            }
            count += batch.count;
        }
        if batches.rest() > 0 && count < self.entries {
            let (offset, rest) = (batches.offset(), batches.rest());
            let what = format!(
                "{file}: torn behind entry {count}: {rest} bytes from byte {offset} on are no whole batch"
            );
            unprinted.push(Unprinted::Torn(what));
        }
        Ok(())
    }
}

/// When a segment was begun, or what an entry of the audit trail tells happened.
#[derive(Deserialize)]
struct DatedEntry {
    at: Timestamp,
}

fn is_older(entry: &BatchEntry<'_>, since: Timestamp) -> bool {
    let at = || match entry.kind? {
        EntryKind::Hold | EntryKind::Record => payload::read(entry).ok().map(|row| row.at),
        EntryKind::Segment | EntryKind::Audit => {
            serde_json::from_slice::<DatedEntry>(entry.payload).ok().map(|dated| dated.at)
        }
        EntryKind::Texts => None,
    };
    since > Timestamp::MIN && at().is_some_and(|at| at < since)
}

/// The line of an entry; nothing for a list of texts.
fn line(entry: &BatchEntry<'_>, calendar: &mut Calendar) -> Result<Vec<u8>, Unreadable> {
    let mut line = Vec::new();
    match entry.kind {
        Some(EntryKind::Texts) => {}
        Some(kind) => {
            line.extend_from_slice(format!("{{\"{}\":", kind.as_str()).as_bytes());
            write_json(entry, &mut Json::new(&mut line, calendar))?;
            line.extend_from_slice(b"}\n");
        }
        // Of a later version.
        None => {
            let (number, bytes) = (entry.number(), entry.payload.len());
            line.extend_from_slice(format!("{{\"kind\":{number},\"bytes\":{bytes}}}\n").as_bytes());
        }
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;

    use super::*;
    use crate::ledger::samples::{directory, hold, record};
    use crate::ledger::{Ledger, RecordId};

    fn printed(data_dir: &Path, since: Timestamp) -> (Vec<Value>, Vec<Unprinted>) {
        let (mut out, mut unprinted) = (Vec::new(), Vec::new());
        for segment in Printed::journal(data_dir, since).unwrap() {
            segment.write(since, &mut out, &mut unprinted).unwrap();
        }
        let text = String::from_utf8(out).unwrap();
        (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), unprinted)
    }

    #[test]
    fn every_entry_is_a_line_of_json_and_a_torn_tail_is_said() {
        let data = directory();
        let (ledger, _) = Ledger::open(data.path(), None, 1).unwrap();
        let journal = ledger.journal(0).unwrap();
        let call = hold(RecordId::new());
        journal.hold(&call).unwrap();
        journal.record(&record(&call)).unwrap();
        journal.flush();
        let (lines, unprinted) = printed(data.path(), Timestamp::MIN);
        let kinds = lines.iter().flat_map(|line| line.as_object().unwrap().keys()).collect::<Vec<_>>();
        assert_eq!(kinds, ["segment", "hold", "record"]);
        assert_eq!(unprinted, []);
        assert_eq!(lines[2]["record"]["id"], call.id.to_string());
        let soon = Timestamp::now() + jiff::SignedDuration::from_hours(1);
        assert_eq!(printed(data.path(), soon), (vec![], vec![]));

        journal.record(&record(&hold(RecordId::new()))).unwrap();
        journal.flush();
        let path = segment::directory(data.path()).join(&*journal.end().segment);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 7]).unwrap();
        let (lines, unprinted) = printed(data.path(), Timestamp::MIN);
        let [Unprinted::Torn(said)] = &unprinted[..] else { panic!("{unprinted:?}") };
        assert!(lines.len() == 3 && said.contains("torn behind entry 9: "), "{said}");
    }

    /// Where the hold of a call begins.
    fn begins(path: &Path, id: RecordId) -> u64 {
        let mut batches = Batches::open(path, 0).unwrap();
        while let Some(batch) = batches.next_batch().unwrap() {
            for entry in batch.entries().map(Result::unwrap) {
                if entry.kind == Some(EntryKind::Hold) && payload::id_of(entry.payload).unwrap() == id {
                    return entry.offset;
                }
            }
        }
        panic!("{id} is not in it")
    }

    #[test]
    fn a_damaged_entry_is_named_by_its_place_and_hides_no_other() {
        let data = directory();
        let (ledger, _) = Ledger::open(data.path(), None, 1).unwrap();
        let journal = ledger.journal(0).unwrap();
        let calls = [(); 3].map(|()| hold(RecordId::new()));
        for call in &calls {
            journal.hold(call).unwrap();
        }
        journal.flush();
        let path = segment::directory(data.path()).join(&*journal.end().segment);
        let offset = begins(&path, calls[1].id);
        let mut bytes = fs::read(&path).unwrap();
        let at = memchr::memmem::find(&bytes, calls[1].id.as_bytes()).unwrap();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let (lines, unprinted) = printed(data.path(), Timestamp::MIN);
        let ids: Vec<_> = lines[1..].iter().map(|line| line["hold"]["id"].as_str().unwrap()).collect();
        assert_eq!(ids, [calls[0].id.to_string(), calls[2].id.to_string()]);
        let [Unprinted::Damaged(said)] = &unprinted[..] else { panic!("{unprinted:?}") };
        // Behind the first entry, the three lists that they name, and the hold before it.
        let place = format!("{}: entry 6, at byte {offset}, is damaged", path.display());
        assert_eq!(*said, place);
    }
}
