use std::fs;

use proptest::prelude::*;

use super::tamper::parse;
use super::*;
use crate::ledger::samples::directory;

fn batch(previous: ChainHead, payloads: &[&str]) -> (Vec<u8>, ChainHead) {
    let mut batch = NewBatch::default();
    for payload in payloads {
        batch.append(EntryKind::Record, &[], |out| out.extend_from_slice(payload.as_bytes()));
    }
    let head = batch.close(previous);
    (batch.bytes().to_vec(), head)
}

/// A segment of three batches of two entries each.
fn six() -> Vec<u8> {
    let (first, head) = batch(ChainHead::NONE, &["a1", "a2"]);
    let (second, head) = batch(head, &["b1", "b2"]);
    let (third, _) = batch(head, &["c1", "c2"]);
    [&MAGIC[..], &first, &second, &third].concat()
}

/// What is read of a segment: the payloads that hold, how many entries are damaged, bytes passed over, and torn ones.
fn read(bytes: &[u8]) -> (Vec<String>, usize, u64, u64) {
    let directory = directory();
    let path = directory.path().join("segment");
    fs::write(&path, bytes).unwrap();
    let mut batches = Batches::open(&path, 0).unwrap();
    let (mut payloads, mut damaged, mut passed_over) = (Vec::new(), 0, 0);
    while let Some(batch) = batches.next_batch().unwrap() {
        passed_over += batch.passed_over;
        for entry in batch.entries() {
            match entry {
                Ok(entry) => payloads.push(String::from_utf8(entry.payload.to_vec()).unwrap()),
                Err(_) => damaged += 1,
            }
        }
    }
    (payloads, damaged, passed_over, batches.rest())
}

#[test]
fn what_was_written_is_read_back_and_chained() {
    let bytes = six();
    let (payloads, damaged, passed_over, rest) = read(&bytes);
    assert_eq!(payloads, ["a1", "a2", "b1", "b2", "c1", "c2"]);
    assert_eq!((damaged, passed_over, rest), (0, 0, 0));
    assert_eq!(parse(&bytes).entries().len(), 6);
}

#[test]
fn a_cut_at_any_byte_leaves_all_batches_before_it_and_a_torn_tail() {
    let bytes = six();
    let ends = parse(&bytes).ends();
    for length in 0..=bytes.len() {
        let whole = ends.iter().filter(|end| **end <= length).count();
        let (payloads, damaged, passed_over, rest) = read(&bytes[..length]);
        let last =
            ends[..whole].last().copied().unwrap_or(if length < MAGIC.len() { 0 } else { MAGIC.len() });
        assert_eq!((payloads.len(), damaged, passed_over), (2 * whole, 0, 0), "{length}");
        assert_eq!(rest, (length - last) as u64);
    }
}

#[test]
fn any_changed_byte_costs_at_most_its_own_batch_and_is_seen() {
    let bytes = six();
    let ends = parse(&bytes).ends();
    for at in MAGIC.len()..bytes.len() {
        for bit in [1, 0x80] {
            let mut bad = bytes.clone();
            bad[at] ^= bit;
            let (payloads, damaged, passed_over, rest) = read(&bad);
            assert!(damaged as u64 + passed_over + rest > 0, "byte {at} is not seen");
            let own = ends.iter().filter(|end| **end <= at).count();
            for (index, name) in ["a1", "b1", "c1"].into_iter().enumerate().filter(|(index, _)| *index != own)
            {
                assert!(payloads.contains(&name.to_owned()), "byte {at} hides batch {index}");
            }
        }
    }
}

#[test]
fn a_payload_that_is_damaged_hides_no_other_entry() {
    let mut bytes = six();
    let at = memchr::memmem::find(&bytes, b"b1").unwrap();
    bytes[at] = b'x';
    assert_eq!(read(&bytes), (["a1", "a2", "b2", "c1", "c2"].map(String::from).to_vec(), 1, 0, 0));
}

#[test]
fn what_a_disk_made_of_a_batch_in_the_middle_is_passed_over_and_at_the_end_it_is_torn() {
    let bytes = six();
    let ends = parse(&bytes).ends();
    let zeroed = |from: usize, to: usize| {
        let mut bad = bytes.clone();
        bad[from..to].fill(0);
        read(&bad)
    };
    let (payloads, damaged, passed_over, rest) = zeroed(ends[0], ends[1]);
    assert_eq!((payloads.len(), damaged, passed_over, rest), (4, 0, (ends[1] - ends[0]) as u64, 0));
    let (payloads, damaged, passed_over, rest) = zeroed(ends[1], ends[2]);
    assert_eq!((payloads.len(), damaged, passed_over, rest), (4, 0, 0, (ends[2] - ends[1]) as u64));
}

#[test]
fn a_batch_is_found_behind_a_gap_that_is_longer_than_what_is_looked_through_at_first() {
    let bytes = six();
    let ends = parse(&bytes).ends();
    // Also where the gap begins like a batch that would go on to the end, or behind it.
    for claimed in [0_u32, 300_000, u32::MAX] {
        let mut gap = vec![7; 200_000];
        gap[..4].copy_from_slice(&MARKER);
        gap[4..8].copy_from_slice(&claimed.to_le_bytes());
        let bad = [&bytes[..ends[0]], &gap, &bytes[ends[0]..ends[1]], &gap, &bytes[ends[1]..]].concat();
        let (payloads, damaged, passed_over, rest) = read(&bad);
        assert_eq!((payloads.len(), damaged, passed_over, rest), (6, 0, 400_000, 0));
    }
}

#[test]
fn a_segment_of_another_version_is_refused_and_bytes_that_are_no_segment_have_no_batch() {
    let mut bytes = six();
    bytes[MAGIC.len() - 1] += 1;
    let directory = directory();
    let path = directory.path().join("segment");
    fs::write(&path, &bytes).unwrap();
    let error = crate::ledger::error::chain(&Batches::open(&path, 0).unwrap_err());
    assert!(error.contains("version 4"), "{error}");
    assert_eq!(read(b"{\"segment\":{}}\n{\"record\":{}}\n").0, Vec::<String>::new());
}

#[test]
fn an_entry_is_read_alone_by_its_place() {
    let bytes = six();
    let directory = directory();
    let path = directory.path().join("segment");
    fs::write(&path, &bytes).unwrap();
    let at = |offset: usize| {
        let mut reader = SegmentReader::open(&path).unwrap();
        let entry = reader.entry_at(offset as u64).unwrap();
        entry.map(|entry| entry.payload.to_vec())
    };
    let place = memchr::memmem::find(&bytes, b"b2").unwrap();
    assert_eq!(at(place - ENTRY - 1), Some(b"b2".to_vec()));
    for none in [0, place, bytes.len() - 3, bytes.len(), bytes.len() + 9] {
        assert_eq!(at(none), None);
    }
}

#[test]
fn what_is_retained_of_a_batch_is_the_same_whether_it_was_closed() {
    let mut batch = NewBatch::default();
    for (kind, payload) in
        [(EntryKind::Hold, "h"), (EntryKind::Record, "r1"), (EntryKind::Hold, "h"), (EntryKind::Record, "r2")]
    {
        batch.append(kind, &[], |out| out.extend_from_slice(payload.as_bytes()));
    }
    let mut open = NewBatch::default();
    open.append_all_but(EntryKind::Hold, &batch);
    batch.close(ChainHead::NONE);
    let mut closed = NewBatch::default();
    closed.append_all_but(EntryKind::Hold, &batch);
    assert_eq!((open.count(), closed.count()), (2, 2));
    assert_eq!(open.close(ChainHead::NONE), closed.close(ChainHead::NONE));
}

/// Two batches, each of an entry that names a list of its own and one that both name.
fn named() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    let (mut batch, mut head) = (NewBatch::at(bytes.len() as u64), ChainHead::NONE);
    for own in ["own one", "own two"] {
        let lists = ["shared", own].map(|text| {
            batch.list(0, |out| {
                varint::write(text.len() as u64, out);
                out.extend_from_slice(text.as_bytes());
            })
        });
        batch.append(EntryKind::Record, &lists, |out| out.extend_from_slice(b"payload"));
        head = batch.close(head);
        bytes.extend_from_slice(batch.bytes());
        batch.follow();
    }
    bytes
}

/// The lists that each record names; `None` where one cannot be read.
fn lists(bytes: &[u8]) -> Vec<Option<Vec<String>>> {
    let directory = directory();
    let path = directory.path().join("segment");
    fs::write(&path, bytes).unwrap();
    let (mut batches, mut all) = (Batches::open(&path, 0).unwrap(), Vec::<Option<Vec<String>>>::new());
    while let Some(batch) = batches.next_batch().unwrap() {
        for entry in batch.entries().flatten().filter(|entry| entry.kind == Some(EntryKind::Record)) {
            let texts = (0..2).map(|place| entry.list(place).map(|list| list[0].to_string()));
            all.push(texts.collect());
            assert_eq!(entry.unreadable_list().is_some(), all.last().unwrap().is_none());
        }
    }
    all
}

#[test]
fn a_list_that_is_damaged_takes_with_it_those_who_name_it_and_nobody_else() {
    let bytes = named();
    assert_eq!(memchr::memmem::find_iter(&bytes, "shared").count(), 1, "it is written once");
    let both = |own: &str| Some(vec!["shared".to_owned(), own.to_owned()]);
    assert_eq!(lists(&bytes), [both("own one"), both("own two")]);
    let damaged = |text: &str| {
        let mut bad = bytes.clone();
        bad[memchr::memmem::find(&bytes, text.as_bytes()).unwrap()] ^= 1;
        lists(&bad)
    };
    assert_eq!(damaged("own one"), [None, both("own two")]);
    assert_eq!(damaged("own two"), [both("own one"), None]);
    assert_eq!(damaged("shared"), [None, None]);
}

#[test]
fn a_list_is_written_again_when_it_is_long_ago_or_the_file_is_another() {
    let mut batch = NewBatch::at(8);
    let list = |batch: &mut NewBatch| batch.list(0, |out| out.extend_from_slice(b"\x04text"));
    let first = list(&mut batch);
    assert_eq!(list(&mut batch), first);
    batch.append(EntryKind::Record, &[first], |out| out.resize(out.len() + (1 << 20), 0));
    batch.close(ChainHead::NONE);
    batch.follow();
    let again = list(&mut batch);
    assert!(again > 1 << 20, "{again}");
    batch.restart(8);
    assert_eq!(list(&mut batch), first);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), flips in proptest::collection::vec((0_usize..400, any::<u8>()), 0..4)) {
        read(&bytes);
        let mut bad = six();
        let length = bad.len();
        flips.iter().for_each(|(at, byte)| bad[at % length] = *byte);
        bad[..MAGIC.len()].copy_from_slice(&MAGIC);
        read(&bad);
    }
}
