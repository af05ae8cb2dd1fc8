use std::os::unix::fs::symlink;
use std::process::Command;

use tempfile::TempDir;
use tollgate_policy::policy::StoreKind;

use super::*;
use crate::reference::tests::reference_to;

fn reference(root: &Path, path: &str, field: Option<&str>) -> Reference {
    reference_to(StoreKind::File { root: root.to_owned() }, path, field)
}

async fn fetch(root: &Path, path: &str, field: Option<&str>) -> Result<String, Failure> {
    let fetched = FileStore::new(root.to_owned()).fetch(&reference(root, path, field)).await?;
    Ok(fetched.value.texts().concat())
}

#[tokio::test]
async fn the_value_is_the_whole_file_without_one_trailing_newline() {
    let root = TempDir::new().unwrap();
    fs::create_dir(root.path().join("llm")).unwrap();
    for (text, value) in [("sk-1", "sk-1"), ("sk-1\n", "sk-1"), ("sk-1\r\n", "sk-1"), ("a\nb\n\n", "a\nb\n")]
    {
        fs::write(root.path().join("llm/key"), text).unwrap();
        assert_eq!(fetch(root.path(), "llm/key", None).await, Ok(value.into()));
    }
}

#[tokio::test]
async fn a_field_is_a_member_of_the_files_json_object() {
    let root = TempDir::new().unwrap();
    fs::write(root.path().join("keys.json"), r#"{"api_key": "sk-1", "other": "x"}"#).unwrap();
    assert_eq!(fetch(root.path(), "keys.json", Some("api_key")).await, Ok("sk-1".into()));
    assert_eq!(fetch(root.path(), "keys.json", Some("absent")).await, Err(Failure::FieldMissing));
}

#[tokio::test]
async fn a_mounted_volume_with_its_data_links_is_read_and_follows_a_rotation() {
    let root = TempDir::new().unwrap();
    for (generation, key) in [("..2026_01", "old"), ("..2026_02", "new")] {
        fs::create_dir(root.path().join(generation)).unwrap();
        fs::write(root.path().join(generation).join("api_key"), key).unwrap();
    }
    symlink("..2026_01", root.path().join("..data")).unwrap();
    symlink("..data/api_key", root.path().join("api_key")).unwrap();
    assert_eq!(fetch(root.path(), "api_key", None).await, Ok("old".into()));
    symlink("..2026_02", root.path().join("..data_tmp")).unwrap();
    fs::rename(root.path().join("..data_tmp"), root.path().join("..data")).unwrap();
    assert_eq!(fetch(root.path(), "api_key", None).await, Ok("new".into()));
}

#[tokio::test]
async fn nothing_outside_the_root_can_be_read_by_name() {
    let outer = TempDir::new().unwrap();
    let root = outer.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(outer.path().join("token"), "gateway's own").unwrap();
    let absolute = outer.path().join("token");
    for path in ["../token", "a/../../token", "./token", "", "a//b", "a\0b", absolute.to_str().unwrap()] {
        assert!(matches!(fetch(&root, path, None).await, Err(Failure::PathRefused(_))), "{path}");
    }
}

#[tokio::test]
async fn nothing_outside_the_root_can_be_read_through_a_link() {
    let outer = TempDir::new().unwrap();
    let root = outer.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(outer.path().join("token"), "gateway's own").unwrap();
    symlink("../token", root.join("relative")).unwrap();
    symlink(outer.path().join("token"), root.join("absolute")).unwrap();
    symlink("..", root.join("up")).unwrap();
    for path in ["relative", "absolute", "up/token"] {
        let refused = Err(Failure::PathRefused("it leads out of the store's directory"));
        assert_eq!(fetch(&root, path, None).await, refused, "{path}");
    }
}

#[tokio::test]
async fn a_directory_or_a_pipe_is_refused_without_opening_it() {
    let root = TempDir::new().unwrap();
    fs::create_dir(root.path().join("directory")).unwrap();
    assert!(Command::new("mkfifo").arg(root.path().join("pipe")).status().unwrap().success());
    for path in ["directory", "pipe"] {
        let refused = Err(Failure::PathRefused("it is not a regular file"));
        assert_eq!(fetch(root.path(), path, None).await, refused, "{path}");
    }
}

#[tokio::test]
async fn a_file_over_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let root = TempDir::new().unwrap();
    fs::write(root.path().join("fits"), "x".repeat(VALUE_LIMIT)).unwrap();
    fs::write(root.path().join("large"), "x".repeat(VALUE_LIMIT + 1)).unwrap();
    assert_eq!(fetch(root.path(), "fits", None).await.unwrap().len(), VALUE_LIMIT);
    assert!(matches!(fetch(root.path(), "large", None).await, Err(Failure::Malformed(_))));
}

#[tokio::test]
async fn a_missing_file_is_not_found_but_a_missing_root_is_a_fault_of_the_store() {
    let root = TempDir::new().unwrap();
    let missing = fetch(root.path(), "absent", None).await.unwrap_err();
    assert_eq!(missing, Failure::NotFound);
    assert!(missing.spares_store());
    let rootless = fetch(&root.path().join("nowhere"), "absent", None).await.unwrap_err();
    assert!(!rootless.spares_store());
}

#[tokio::test]
async fn a_world_readable_file_is_noted_once() {
    let root = TempDir::new().unwrap();
    let path = root.path().join("key");
    fs::write(&path, "sk-1").unwrap();
    let store = FileStore::new(root.path().to_owned());
    for (mode, noted) in [(0o400, false), (0o444, true), (0o444, true), (0o440, false)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        store.fetch(&reference(root.path(), "key", None)).await.unwrap();
        assert_eq!(store.exposed.lock().unwrap().contains("key"), noted, "{mode:o}");
    }
}
