use kube::core::Status;
use serde_json::json;

use super::*;

fn scope(kind: ObjectKind) -> Scope {
    Scope { kind, namespace: None }
}

fn collector(kinds: &[ObjectKind]) -> Collector {
    let collector = Collector {
        scopes: kinds.iter().map(|kind| (scope(*kind), Listed::default())).collect(),
        states: Arc::default(),
    };
    kinds.iter().for_each(|kind| collector.states.expect(&scope(*kind)));
    collector
}

fn object(name: &str, hosts: &str) -> RawObject {
    serde_json::from_value(json!({
        "apiVersion": "tollgate.dev/v1alpha1", "kind": "Grant",
        "metadata": {"namespace": "shop", "name": name, "uid": name}, "spec": {"destination": hosts},
    }))
    .unwrap()
}

fn refused(code: u16, message: &str) -> WatchFault {
    let status = Status { code, message: message.to_owned(), ..Status::default() };
    WatchFault::Refused(Box::new(status))
}

fn names(collector: &Collector, kind: ObjectKind) -> Vec<String> {
    let listed = &collector.scopes[&scope(kind)];
    assert!(listed.is_whole);
    listed.current.keys().map(|key| key.name.clone()).collect()
}

#[test]
fn a_list_counts_when_it_is_whole_and_one_that_breaks_off_changes_nothing() {
    let mut collector = collector(&[ObjectKind::Grant]);
    let grants = scope(ObjectKind::Grant);
    let mut take = |event| collector.take(&grants, event);
    assert!(!take(Ok(Some(Event::Init))));
    assert!(!take(Ok(Some(Event::InitApply(object("a", "x"))))));
    assert!(!take(Ok(Some(Event::InitApply(object("b", "x"))))));
    assert!(take(Ok(Some(Event::InitDone))));
    assert!(take(Ok(Some(Event::Apply(object("c", "x"))))));
    assert!(take(Ok(Some(Event::Delete(object("b", "x"))))));
    assert!(!take(Ok(Some(Event::Delete(object("b", "x"))))));
    // A list that breaks off after its first page.
    take(Ok(Some(Event::Init)));
    take(Ok(Some(Event::InitApply(object("z", "x")))));
    take(Err(refused(500, "etcd is down")));
    assert_eq!(names(&collector, ObjectKind::Grant), ["a", "c"]);
    assert_eq!(collector.states.failure().unwrap(), "500: etcd is down");
    let mut take = |event| collector.take(&grants, event);
    take(Ok(Some(Event::Init)));
    take(Ok(Some(Event::InitApply(object("d", "x")))));
    assert!(take(Ok(Some(Event::InitDone))));
    assert_eq!(names(&collector, ObjectKind::Grant), ["d"]);
    assert_eq!(collector.states.failure(), None);
}

#[test]
fn a_version_that_is_too_old_is_listed_anew_and_is_no_failure() {
    let mut collector = collector(&[ObjectKind::Grant]);
    let grants = scope(ObjectKind::Grant);
    collector.take(&grants, Ok(Some(Event::InitDone)));
    collector.take(&grants, Err(refused(410, "too old resource version")));
    assert_eq!(collector.states.failure(), None);
    let status = collector.states.status();
    let grants = status.iter().find(|status| status.resource == "grants").unwrap();
    assert_eq!((grants.is_synced, grants.errors), (true, 1));
    collector.take(&scope(ObjectKind::Grant), Err(refused(429, "too many requests")));
    assert_eq!(collector.states.failure().unwrap(), "429: too many requests");
}

#[test]
fn what_is_missing_is_named_with_what_would_help() {
    let said = |code| in_words(ObjectKind::Grant, &refused(code, "grants.tollgate.dev is forbidden"));
    assert_eq!(said(403), "grants.tollgate.dev is forbidden: the gateway's role needs list and watch on it");
    assert!(said(404).contains("the API server knows no Grant of tollgate.dev/v1alpha1: install the CRDs"));
    assert!(said(401).contains("does not know who the gateway is"));
}

#[test]
fn a_cluster_without_reference_grants_has_none_and_one_that_forgets_them_for_a_moment_keeps_them() {
    let mut collector = collector(&[ObjectKind::ReferenceGrant, ObjectKind::Grant]);
    let grants = scope(ObjectKind::ReferenceGrant);
    assert!(collector.take(&grants, Err(refused(404, "page not found"))));
    assert!(names(&collector, ObjectKind::ReferenceGrant).is_empty());
    assert_eq!(collector.states.failure(), None);
    assert!(collector.states.lock().watches[&grants].is_lacking);
    collector.take(&grants, Ok(Some(Event::Apply(object("a", "x")))));
    assert!(!collector.states.lock().watches[&grants].is_lacking);
    assert!(!collector.take(&grants, Err(refused(404, "page not found"))));
    assert_eq!(names(&collector, ObjectKind::ReferenceGrant), ["a"]);
    // Of what stands for Destinations it is told, until it is listed.
    let mut collector = self::collector(&[ObjectKind::Backend, ObjectKind::Grant]);
    let backends = scope(ObjectKind::Backend);
    assert!(collector.take(&backends, Err(refused(404, "page not found"))));
    assert!(collector.listed().consents().lacks_destinations);
    assert!(collector.take(&backends, Ok(Some(Event::InitDone))));
    assert!(!collector.listed().consents().lacks_destinations);
    assert!(!collector.take(&backends, Err(refused(404, "page not found"))));
    assert!(!collector.listed().consents().lacks_destinations);
    // Of a resource it is a failure: its definition is missing.
    assert!(!collector.take(&scope(ObjectKind::Grant), Err(refused(404, "page not found"))));
    assert!(collector.states.failure().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_a_kind_had_is_forgotten_once_it_is_missing_for_minutes_whatever_was_listed_before() {
    let backends = scope(ObjectKind::Backend);
    let miss = |collector: &mut Collector| collector.take(&backends, Err(refused(404, "page not found")));
    let mut old = collector(&[ObjectKind::Backend]);
    old.take(&backends, Ok(Some(Event::InitApply(object("a", "x")))));
    assert!(old.take(&backends, Ok(Some(Event::InitDone))));
    let mut new = collector(&[ObjectKind::Backend]);
    assert!(!miss(&mut old) && miss(&mut new));
    // It may be there again in a moment: nothing is made of what is not there.
    for collector in [&old, &new] {
        assert!(collector.listed().is_unsettled());
    }
    assert_eq!(names(&old, ObjectKind::Backend), ["a"]);
    tokio::time::advance(FORGET_AFTER / 2).await;
    assert!(!miss(&mut old) && !miss(&mut new));
    tokio::time::advance(FORGET_AFTER / 2).await;
    for collector in [&mut old, &mut new] {
        assert!(miss(collector) && !miss(collector));
        let listed = collector.listed();
        assert!(names(collector, ObjectKind::Backend).is_empty());
        assert!(listed.lacks_destinations() && !listed.is_unsettled());
    }
    // It comes back, and is missed from then on.
    old.take(&backends, Ok(Some(Event::Init)));
    old.take(&backends, Ok(Some(Event::InitApply(object("a", "x")))));
    assert!(old.take(&backends, Ok(Some(Event::InitDone))));
    assert!(!old.listed().lacks_destinations() && !old.listed().is_unsettled());
    assert!(!miss(&mut old));
    assert_eq!(names(&old, ObjectKind::Backend), ["a"]);
    // One that says nothing new settles what was in doubt.
    assert!(old.listed().is_unsettled());
    old.take(&backends, Ok(Some(Event::InitApply(object("a", "x")))));
    assert!(old.take(&backends, Ok(Some(Event::InitDone))));
    assert!(!old.listed().is_unsettled());
}

#[tokio::test(start_paused = true)]
async fn hosts_that_no_status_says_are_told_of_once_there_was_time_to_write_them() {
    let states = WatchStates::default();
    let key = |name: &str| ObjectKey {
        kind: ObjectKind::Destination,
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    };
    states.unwritten([key("a"), key("b")]);
    assert_eq!(states.unwritten_hosts(), 0);
    tokio::time::advance(WRITTEN_WITHIN).await;
    assert_eq!(states.unwritten_hosts(), 2);
    // Each has its own time.
    states.unwritten([key("b"), key("c")]);
    assert_eq!(states.unwritten_hosts(), 1);
    states.unwritten([]);
    states.unwritten([key("b")]);
    assert_eq!(states.unwritten_hosts(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_leads_to_no_destination_leaves_who_holds_a_host_in_no_doubt() {
    let consents = scope(ObjectKind::ReferenceGrant);
    let miss = |collector: &mut Collector| collector.take(&consents, Err(refused(404, "page not found")));
    let mut without = collector(&[ObjectKind::Destination, ObjectKind::ReferenceGrant]);
    assert!(miss(&mut without) && !without.listed().is_unsettled());
    // Gateways refer by them.
    let mut with = collector(&[ObjectKind::Gateway, ObjectKind::ReferenceGrant]);
    assert!(miss(&mut with) && with.listed().is_unsettled());
}
