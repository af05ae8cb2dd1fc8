use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::super::kind::ObjectKind;
use super::super::raw::RawObject;
use super::*;

fn set(name: &str) -> ObjectSet {
    let found: RawObject = serde_json::from_value(json!({
        "apiVersion": "tollgate.dev/v1alpha1", "kind": "Grant",
        "metadata": {"namespace": "shop", "name": name, "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"destination": "api"}, "status": {"conditions": []},
    }))
    .unwrap();
    ObjectSet::new(ClusterObject::of(ObjectKind::Grant, found).map(Arc::new).into_iter())
}

#[test]
fn what_was_written_is_read_back_whole_and_no_status_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = PersistedObjects::of(directory.path());
    assert!(file.read().unwrap_err().to_string().contains("objects.json"));
    file.write(&set("first")).unwrap();
    file.write(&set("web")).unwrap();
    let mode = fs::metadata(file.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (read, confirmed) = file.read().unwrap();
    assert!(read.is_persisted() && read.compiles_like(&set("web").persisted()));
    assert!(Timestamp::now().duration_since(confirmed).as_secs() < 60);
    assert!(!fs::read_to_string(file.path()).unwrap().contains("conditions"));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    assert!(!read.lacks_destinations());
    file.write(&set("web").lacking_destinations(true)).unwrap();
    assert!(file.read().unwrap().0.lacks_destinations());
}

#[test]
fn what_is_damaged_or_cut_short_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = PersistedObjects::of(directory.path());
    file.write(&set("web")).unwrap();
    let text = fs::read_to_string(file.path()).unwrap();
    for damaged in
        [text.replace("shop", "shot"), text[..text.len() - 1].to_owned(), String::new(), "{}\n[]".to_owned()]
    {
        fs::write(file.path(), damaged).unwrap();
        assert!(file.read().unwrap_err().to_string().contains("damaged"));
    }
}

#[test]
fn what_is_older_than_an_operator_allows_does_not_serve() {
    let directory = tempfile::tempdir().unwrap();
    let unlimited = PersistedObjects::of(directory.path());
    let limited = unlimited.clone().for_at_most(Some(Interval(Duration::from_secs(3600))));
    let ago = |seconds| Timestamp::now() - jiff::SignedDuration::from_secs(seconds);
    assert!(!limited.is_too_old(ago(3500)) && limited.is_too_old(ago(3700)));
    // A clock that was set back.
    assert!(!limited.is_too_old(ago(-1000)));
    assert!(!unlimited.is_too_old(Timestamp::UNIX_EPOCH));
}
