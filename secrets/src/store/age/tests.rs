use std::fs;

use tempfile::TempDir;
use tollgate_policy::policy::StoreKind;

use super::*;
use crate::reference::tests::reference_to;

struct Bench {
    directory: TempDir,
    file: AgeFile,
}

impl Bench {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let identity = directory.path().join("identity.txt");
        AgeFile::create_identity(&identity).unwrap();
        let file = AgeFile::new(directory.path().join("secrets.age"), identity);
        Self { directory, file }
    }

    fn set(&self, path: &str, field: &str, value: &str) -> Result<bool, AgeFileError> {
        self.file.set(path, field, Zeroizing::new(value.to_owned()))
    }

    async fn fetch(&self, path: &str, field: Option<&str>) -> Result<String, Failure> {
        let AgeLocation { file, identity } = self.file.location.clone();
        let reference = reference_to(StoreKind::Age { file, identity_file: identity }, path, field);
        let fetched = AgeStore::new(self.file.location.clone()).fetch(&reference).await?;
        Ok(fetched.value.texts().concat())
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn what_was_set_is_fetched_and_what_was_removed_is_not_found() {
    let bench = Bench::new();
    assert!(!bench.set("llm/openai", "api_key", "sk-1").unwrap());
    assert!(!bench.set("llm/openai", "organisation", "acme \"quoted\"\n").unwrap());
    assert!(bench.set("llm/openai", "api_key", "sk-2").unwrap());
    assert_eq!(bench.fetch("llm/openai", Some("api_key")).await, Ok("sk-2".into()));
    assert_eq!(bench.fetch("llm/openai", Some("organisation")).await, Ok("acme \"quoted\"\n".into()));
    assert_eq!(bench.fetch("llm/openai", None).await, Err(Failure::FieldMissing));
    assert_eq!(bench.fetch("llm/anthropic", None).await, Err(Failure::NotFound));

    bench.file.remove("llm/openai", Some("organisation")).unwrap();
    assert_eq!(bench.fetch("llm/openai", None).await, Ok("sk-2".into()));
    bench.file.remove("llm/openai", Some("api_key")).unwrap();
    assert_eq!(bench.fetch("llm/openai", None).await, Err(Failure::NotFound));
    assert!(matches!(bench.file.remove("llm/openai", None), Err(AgeFileError::Absent)));
}

#[test]
fn the_list_names_paths_and_fields() {
    let bench = Bench::new();
    let missing = bench.file.list().unwrap_err().to_string();
    assert!(missing.ends_with("secrets.age: no such file; `tollgate secret set` makes one"), "{missing}");
    bench.set("b", "k", "v").unwrap();
    bench.set("a/c", "y", "v").unwrap();
    bench.set("a/c", "x", "v").unwrap();
    let list = bench.file.list().unwrap();
    assert_eq!(list, [("a/c".into(), vec!["x".into(), "y".into()]), ("b".into(), vec!["k".into()])]);
}

#[test]
fn both_files_are_their_owners_alone_and_no_temporary_file_stays() {
    let bench = Bench::new();
    bench.set("a", "k", "sk-canary").unwrap();
    assert_eq!(mode(&bench.file.location.file), 0o600);
    assert_eq!(mode(&bench.file.location.identity), 0o600);
    let ciphertext = fs::read(&bench.file.location.file).unwrap();
    assert!(!ciphertext.windows(9).any(|bytes| bytes == b"sk-canary"));
    assert_eq!(fs::read_dir(bench.directory.path()).unwrap().count(), 2);
}

#[test]
fn an_identity_is_never_overwritten() {
    let bench = Bench::new();
    let before = fs::read(&bench.file.location.identity).unwrap();
    assert!(AgeFile::create_identity(&bench.file.location.identity).is_err());
    assert_eq!(fs::read(&bench.file.location.identity).unwrap(), before);
}

#[tokio::test]
async fn an_identity_that_every_user_can_read_opens_nothing() {
    let bench = Bench::new();
    bench.set("a", "k", "v").unwrap();
    fs::set_permissions(&bench.file.location.identity, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(bench.fetch("a", None).await, Err(Failure::Misconfigured(_))));
    assert!(bench.set("a", "k", "w").is_err());
}

#[tokio::test]
async fn another_identity_cannot_decrypt_and_cannot_overwrite() {
    let mut bench = Bench::new();
    bench.set("a", "k", "v").unwrap();
    let own = bench.file.location.identity.clone();
    bench.file.location.identity = bench.directory.path().join("other.txt");
    AgeFile::create_identity(&bench.file.location.identity).unwrap();
    assert_eq!(bench.fetch("a", None).await, Err(Failure::Decrypt));
    assert!(bench.set("b", "k", "v").is_err());
    bench.file.location.identity = own;
    assert_eq!(bench.fetch("a", None).await, Ok("v".into()));
}

#[tokio::test]
async fn a_damaged_file_is_the_stores_fault_and_is_not_overwritten() {
    let bench = Bench::new();
    bench.set("a", "k", "v").unwrap();
    let mut damaged = fs::read(&bench.file.location.file).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&bench.file.location.file, &damaged).unwrap();
    let failure = bench.fetch("a", None).await.unwrap_err();
    assert_eq!(failure, Failure::Decrypt);
    assert!(!failure.revokes());
    assert!(bench.set("b", "k", "v").is_err());
    assert_eq!(fs::read(&bench.file.location.file).unwrap(), damaged);
}

#[test]
fn writers_at_the_same_time_lose_nothing() {
    let bench = Bench::new();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let bench = &bench;
            scope.spawn(move || bench.set(&format!("path/{writer}"), "k", "v").unwrap());
        }
    });
    assert_eq!(bench.file.list().unwrap().len(), 8);
}

#[test]
fn a_path_that_no_reference_can_name_or_an_empty_value_is_refused() {
    let bench = Bench::new();
    for path in ["", "/a", "a/../b", "a//b"] {
        assert!(matches!(bench.set(path, "k", "v"), Err(AgeFileError::Path { .. })), "{path}");
    }
    assert!(bench.set("a", "k", "").is_err());
}

#[test]
fn an_identity_that_is_missing_is_named_with_the_command_that_makes_it() {
    let bench = Bench::new();
    fs::remove_file(bench.directory.path().join("identity.txt")).unwrap();
    for missing in [bench.file.list().unwrap_err(), bench.set("a", "b", "c").unwrap_err()] {
        let said = missing.to_string();
        assert!(said.ends_with("identity.txt: no such file; `tollgate secret init` makes one"), "{said}");
    }
}
