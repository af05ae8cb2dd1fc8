//! What somebody adds who has no key: the chain takes none.

use super::*;
use crate::ledger::payload;
use crate::ledger::segment::ProcessEpoch;

/// Appends a batch with a record to a segment, and chains it: that takes no key.
fn append(path: &Path) {
    edit(path, |segment| {
        let mut batch = NewBatch::at(segment.bytes().len() as u64);
        let record = record(&hold(RecordId::new()));
        payload::append(&mut batch, EntryKind::Record, &record.fields());
        batch.close(segment.head());
        segment.batches.push(batch.bytes().to_vec());
    });
}

#[test]
fn batches_behind_the_last_seal_of_a_segment_that_was_over_are_found_and_those_of_a_running_one_are_not() {
    let bed = Bed::new();
    let path = &bed.segments()[0];
    let entries = segment(path).entries().len() as u64 + TEXTS;
    append(path);
    append(path);
    bed.is_found_at(path, entries + 1);
    let finding = &bed.verify().findings[0];
    assert!(finding.what.contains("2 batches behind the last seal"), "{finding}");

    let bed = Bed::new();
    let ledger = bed.open();
    ledger.sync();
    ledger.seal();
    bed.calls(&ledger, 0, 1);
    assert_eq!(bed.verify().findings, []);
}

#[test]
fn a_segment_that_claims_to_go_on_before_what_is_sealed_is_found() {
    let bed = Bed::new();
    let ledger = bed.open();
    bed.calls(&ledger, 0, 3);
    ledger.close().unwrap();
    let left = ledger.journal(0).unwrap().end().segment;
    let whole = segment(&segment::file(bed.data.path(), &left));
    // Its core left it behind after the first hold, says somebody: the record of that call does not count.
    let kept = Segment { batches: whole.batches[..2].to_vec() };
    let head = SegmentEnd { segment: left, entries: 5, head: kept.head() };
    let epoch = ProcessEpoch::begin(bed.data.path(), Timestamp::now()).unwrap();
    let (_, added, _) = epoch.go_on("000", Timestamp::now(), head).unwrap();
    let (with, without) = bed.found();
    for findings in [with, without] {
        let found = |finding: &Finding| {
            finding.file.ends_with(&*added.segment) && finding.what.contains("does not count")
        };
        assert!(findings.iter().any(found), "{findings:?}");
    }
}

#[test]
fn an_added_segment_is_found() {
    let bed = Bed::new();
    let name = "20200101T000000.000000Z-000.journal";
    let header = format!(
        "{{\"name\":\"{name}\",\"epoch\":\"20200101T000000.000000Z\",\"pid\":1,\"at\":\"2020-01-01T00:00:00Z\",\"previous\":[]}}"
    );
    let mut first = NewBatch::default();
    first.append(EntryKind::Segment, &[], |out| out.extend_from_slice(header.as_bytes()));
    first.close(ChainHead::NONE);
    fs::write(segment::file(bed.data.path(), name), [&MAGIC, first.bytes()].concat()).unwrap();
    let findings = bed.verify().findings;
    assert!(findings.iter().any(|finding| finding.what.contains("added")), "{findings:?}");
}
