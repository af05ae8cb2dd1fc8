//! The leak sweep: searches all that a gateway left behind for the canaries of its scenario, in every encoding in which a
//! secret can hide, and proves on decoys that it would have found them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use memchr::memmem::{Finder, find_iter};

/// The shortest random run of a canary that counts as a leak by itself.
const RUN: usize = 12;

/// How deep compressed data inside compressed data is followed.
const DEPTH: usize = 3;

/// A secret found where it must not be.
#[derive(Debug, PartialEq, Eq)]
pub struct Leak {
    /// The file, or a table of a database in it.
    pub place: String,
    /// How it was written, e.g. `base64+1`.
    pub encoding: String,
    /// The first characters of the needle.
    pub needle: String,
}

/// The strings whose presence gives a secret away: the secret itself and each long run of letters and digits in it.
pub fn needles_of(secret: &str) -> Vec<String> {
    let runs = secret.split(|c: char| !c.is_ascii_alphanumeric()).filter(|run| run.len() >= RUN);
    let mut needles: Vec<_> = runs.map(str::to_owned).collect();
    if needles.is_empty() {
        needles.push(secret.to_owned());
    }
    needles
}

/// Every form of a needle that is searched for, by name. Compression is undone instead.
pub fn encodings(needle: &str) -> BTreeMap<String, Vec<u8>> {
    let bytes = needle.as_bytes();
    let each =
        |form: &dyn Fn(u8) -> String| bytes.iter().map(|byte| form(*byte)).collect::<String>().into_bytes();
    let mut forms = BTreeMap::from([
        ("raw".to_owned(), bytes.to_vec()),
        ("upper case".to_owned(), needle.to_ascii_uppercase().into_bytes()),
        ("percent".to_owned(), each(&|byte| format!("%{byte:02X}"))),
        ("percent, lower".to_owned(), each(&|byte| format!("%{byte:02x}"))),
        ("JSON escapes".to_owned(), each(&|byte| format!("\\u{byte:04x}"))),
        ("JSON escapes, upper".to_owned(), each(&|byte| format!("\\u{byte:04X}"))),
        ("HTML entities".to_owned(), each(&|byte| format!("&#{byte};"))),
        ("hex".to_owned(), each(&|byte| format!("{byte:02x}"))),
        ("hex, upper".to_owned(), each(&|byte| format!("{byte:02X}"))),
        ("hex, spaced".to_owned(), each(&|byte| format!("{byte:02x} ")).trim_ascii_end().to_vec()),
        ("byte list".to_owned(), each(&|byte| format!("{byte}, ")).trim_ascii_end().to_vec()),
        ("UTF-16".to_owned(), bytes.iter().flat_map(|byte| [*byte, 0]).collect()),
    ]);
    for offset in 0..3 {
        forms.insert(format!("base64+{offset}"), base64_inside(&STANDARD_NO_PAD, bytes, offset));
        forms.insert(format!("base64url+{offset}"), base64_inside(&URL_SAFE_NO_PAD, bytes, offset));
    }
    forms
}

/// The characters that depend on nothing but `bytes` when these stand `offset` bytes into base64-encoded data.
fn base64_inside(engine: &impl Engine, bytes: &[u8], offset: usize) -> Vec<u8> {
    let padded = [&[0; 2][..offset], bytes].concat();
    let text = engine.encode(&padded);
    let first = (offset * 8).div_ceil(6);
    text.as_bytes()[first..padded.len() * 8 / 6].to_vec()
}

/// Compiled needles.
pub struct Needles(Vec<(String, String, Finder<'static>)>);

impl Needles {
    /// The needles of these secrets.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut finders = Vec::new();
        for needle in secrets.into_iter().filter(|secret| !secret.is_empty()).flat_map(needles_of) {
            for (name, form) in encodings(&needle) {
                finders.push((needle.clone(), name, Finder::new(&form).into_owned()));
            }
        }
        Self(finders)
    }

    /// Searches a folder and everything under it.
    pub fn search(&self, folder: &Path) -> Vec<Leak> {
        let mut leaks = Vec::new();
        for path in files(folder) {
            let place = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
            self.search_bytes(place.as_bytes(), &format!("name of {place}"), 0, &mut leaks);
            let Ok(bytes) = fs::read(&path) else { continue };
            self.search_bytes(&bytes, &place, 0, &mut leaks);
            if bytes.starts_with(b"SQLite format 3\0") {
                self.search_database(&path, &place, &mut leaks);
            }
        }
        leaks
    }

    fn search_bytes(&self, bytes: &[u8], place: &str, depth: usize, leaks: &mut Vec<Leak>) {
        for (needle, encoding, finder) in &self.0 {
            if finder.find(bytes).is_some() {
                let needle = needle.chars().take(6).collect();
                leaks.push(Leak { place: place.to_owned(), encoding: encoding.clone(), needle });
            }
        }
        if depth < DEPTH {
            for (start, content) in compressed(bytes) {
                self.search_bytes(&content, &format!("{place} (compressed at {start})"), depth + 1, leaks);
            }
        }
    }

    /// A value longer than a page lies in pieces in the file, so the cells are read as well.
    fn search_database(&self, path: &Path, place: &str, leaks: &mut Vec<Leak>) {
        for (table, cells) in cells(path) {
            self.search_bytes(&cells, &format!("{place}, table {table}"), 0, leaks);
        }
    }
}

fn cells(path: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(database) = rusqlite::Connection::open(path) else { return Vec::new() };
    let Ok(mut names) = database.prepare("select name from sqlite_master where type = 'table'") else {
        return Vec::new();
    };
    let names: Vec<String> =
        names.query_map([], |row| row.get(0)).expect("tables").filter_map(Result::ok).collect();
    let table = |name: String| {
        let mut rows = database.prepare(&format!("select * from \"{name}\"")).expect("a table");
        let columns = rows.column_count();
        let mut text = Vec::new();
        let mut rows = rows.query([]).expect("rows");
        while let Ok(Some(row)) = rows.next() {
            for column in 0..columns {
                use rusqlite::types::ValueRef::{Blob, Text};
                if let Ok(Text(bytes) | Blob(bytes)) = row.get_ref(column) {
                    text.extend_from_slice(bytes);
                    text.push(b'\n');
                }
            }
        }
        (name, text)
    };
    names.into_iter().map(table).collect()
}

/// Whatever inflates at a gzip or zlib signature.
fn compressed(bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut found = Vec::new();
    let mut inflate = |start: usize, mut reader: Box<dyn Read + '_>| {
        let mut content = Vec::new();
        let _ = reader.by_ref().take(64 << 20).read_to_end(&mut content);
        if content.len() >= RUN {
            found.push((start, content));
        }
    };
    for start in find_iter(bytes, b"\x1f\x8b\x08") {
        inflate(start, Box::new(MultiGzDecoder::new(&bytes[start..])));
    }
    for signature in [b"\x78\x01", b"\x78\x9c", b"\x78\xda"] {
        for start in find_iter(bytes, signature) {
            inflate(start, Box::new(ZlibDecoder::new(&bytes[start..])));
        }
    }
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
            let kind = entry.file_type();
            if kind.as_ref().is_ok_and(fs::FileType::is_dir) {
                folders.push(entry.path());
            } else if kind.is_ok_and(|kind| kind.is_file()) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// Copies every sink into `decoys`, plants a decoy in each copy in each encoding, and returns what was not found again.
/// Nothing returned means that the search can be believed.
pub fn missed_decoys(sinks: &Path, decoys: &Path) -> Vec<String> {
    let decoy = format!("{:016x}", crate::world::random());
    let needles = Needles::new([decoy.as_str()]);
    let mut missed = Vec::new();
    for path in files(sinks) {
        let place = path.strip_prefix(sinks).unwrap_or(&path);
        for (encoding, form) in plantings(&decoy) {
            let folder = decoys.join("one");
            let _ = fs::remove_dir_all(&folder);
            let copy = folder.join(place);
            fs::create_dir_all(copy.parent().expect("a file has a folder")).expect("decoy folder");
            plant(&path, &copy, &form);
            if needles.search(&folder).is_empty() {
                missed.push(format!("{} in {}", encoding, place.display()));
            }
        }
    }
    let _ = fs::remove_dir_all(decoys);
    missed
}

fn plantings(decoy: &str) -> BTreeMap<String, Vec<u8>> {
    let mut forms = encodings(decoy);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(format!("before {decoy} after").as_bytes()).expect("gzip");
    forms.insert("gzip".to_owned(), gzip.finish().expect("gzip"));
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    zlib.write_all(STANDARD_NO_PAD.encode(format!("x{decoy}")).as_bytes()).expect("zlib");
    forms.insert("zlib over base64".to_owned(), zlib.finish().expect("zlib"));
    forms
}

/// A database gets the decoy as a value over several pages, any other file in its middle.
fn plant(sink: &Path, copy: &Path, form: &[u8]) {
    let bytes = fs::read(sink).expect("a sink");
    if bytes.starts_with(b"SQLite format 3\0") {
        fs::write(copy, &bytes).expect("a copy");
        let long = [vec![b' '; 4090], form.to_vec(), vec![b' '; 4090]].concat();
        let database = rusqlite::Connection::open(copy).expect("a database");
        database.execute_batch("create table decoy (value blob)").expect("a table");
        database.execute("insert into decoy values (?1)", [long]).expect("a row");
        return;
    }
    let (before, after) = bytes.split_at(bytes.len() / 2);
    fs::write(copy, [before, form, after].concat()).expect("a copy");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_of_a_needle_is_found_anywhere_in_a_file() {
        let folder = std::env::temp_dir().join(format!("sweep-{:016x}", crate::world::random()));
        fs::create_dir_all(folder.join("sinks")).unwrap();
        fs::write(folder.join("sinks/log"), vec![b'.'; 5000]).unwrap();
        fs::write(folder.join("sinks/empty"), b"").unwrap();
        let database = rusqlite::Connection::open(folder.join("sinks/ledger.db")).unwrap();
        database.execute_batch("create table records (line text); insert into records values ('x')").unwrap();
        drop(database);
        assert_eq!(missed_decoys(&folder.join("sinks"), &folder.join("decoys")), Vec::<String>::new());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn base64_is_recognised_at_every_offset_and_next_to_anything() {
        let needle = "0123456789abcdef";
        for before in ["", "k", "ky", "key"] {
            for after in ["", "z", "zz"] {
                let text = STANDARD_NO_PAD.encode(format!("{before}{needle}{after}"));
                let mut leaks = Vec::new();
                Needles::new([needle]).search_bytes(text.as_bytes(), "text", 0, &mut leaks);
                assert!(!leaks.is_empty(), "{before}|{after}");
            }
        }
    }

    #[test]
    fn a_part_of_a_secret_is_a_leak() {
        let needles = needles_of("sk-up.0123456789abcdef/fedcba9876543210+0011223344556677~=");
        assert_eq!(needles, ["0123456789abcdef", "fedcba9876543210", "0011223344556677"]);
    }
}
