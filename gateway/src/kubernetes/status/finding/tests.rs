use super::*;

fn standing(kind: &str, status: &str, since: &str) -> Value {
    json!({"conditions": [{"type": kind, "status": status, "lastTransitionTime": since}]})
}

fn accepted(holds: bool, message: &str) -> Condition {
    Condition { kind: "Accepted", holds, reason: "x", message: message.to_owned() }
}

#[test]
fn a_condition_keeps_the_time_of_its_last_transition_until_it_changes() {
    let since = "2026-01-01T00:00:00Z";
    let same = accepted(false, "another message").json(2, &standing("Accepted", "False", since));
    assert_eq!(same["lastTransitionTime"], since);
    let turned = accepted(true, "").json(2, &standing("Accepted", "False", since));
    assert_ne!(turned["lastTransitionTime"], since);
    let other = accepted(false, "").json(2, &standing("Programmed", "False", since));
    assert_ne!(other["lastTransitionTime"], since);
}

#[test]
fn what_others_wrote_into_status_is_not_written_over_and_over() {
    let wanted = json!({"observedGeneration": 1, "conditions": [accepted(true, "").json(1, &Value::Null)]});
    let mut current = wanted.clone();
    current["conditions"].as_array_mut().unwrap().insert(0, json!({"type": "Synced", "status": "True"}));
    current["other"] = json!(1);
    assert!(is_same(&wanted, &current));
    current["observedGeneration"] = json!(2);
    assert!(!is_same(&wanted, &current));
}

#[test]
fn a_message_is_bounded_at_a_whole_character() {
    assert_eq!(bounded("short", 10), "short");
    let long = "ä".repeat(100);
    let cut = bounded(&long, 20);
    assert!(cut.len() <= 20 && cut.ends_with('…') && cut.starts_with("ää"), "{cut}");
}

#[test]
fn problems_of_references_are_told_apart_by_the_field() {
    for path in
        ["spec.destination", "spec.destinations[0]", "spec.from[1].store", "spec.tls.clientCertificate"]
    {
        assert!(is_of_reference(path), "{path}");
    }
    for path in ["spec.hosts[0]", "spec.callers", "", "spec.destination.x"] {
        assert!(!is_of_reference(path), "{path}");
    }
}
