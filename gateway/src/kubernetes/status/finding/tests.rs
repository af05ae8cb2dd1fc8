use jiff::tz::TimeZone;
use tollgate_policy::limit::{LimitKey, OnExhausted, Owner, Per, StoreFailure, Window};

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
    current["conditions"].as_array_mut().unwrap().push(json!({"type": "Approved", "status": "True"}));
    assert!(!is_same(&wanted, &current), "nobody has to approve it any more");
    current["conditions"].as_array_mut().unwrap().pop();
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

#[test]
fn a_limit_says_what_is_spent_held_and_left_and_of_counts_of_their_own_the_sum_and_the_least_left() {
    let owner = Owner::Grant("shop/web".parse().unwrap());
    let limit = Limit {
        id: "shop/web/spend".into(),
        owner: owner.clone(),
        unit: Unit::Spend,
        amount: 10_000_000_000,
        kind: LimitKind::Counted(Window::Calendar { per: Per::Day, timezone: TimeZone::UTC }),
        key: LimitKey::Caller,
        on_exhausted: OnExhausted::Deny,
        raises: Arc::default(),
        store_failure: StoreFailure::Deny,
    };
    let line = |key: &str, spent: u64, held: u64| LimitUsage {
        limit: Arc::clone(&limit.id),
        owner: owner.clone(),
        key: key.into(),
        unit: Unit::Spend,
        amount: limit.amount,
        spent,
        held,
        others_spent: 0,
        leased: None,
    };
    let usage = |lines: Vec<LimitUsage>| Live {
        usage: HashMap::from([(Arc::clone(&limit.id), lines)]),
        credentials: HashMap::new(),
        now: "2026-07-01T12:00Z".parse().unwrap(),
    };
    let lines = vec![line("a", 1_000_000_000, 500_000_000), line("b", 4_000_000_000, 0)];
    let budget = Arc::new(Budget {
        name: "shop/web".parse().unwrap(),
        applies_to: None,
        parent: None,
        limits: vec![limit.clone()],
        thresholds: Box::from([25, 50]),
        tells_forecast: false,
        raises: Vec::new(),
        is_broken: false,
    });
    let (member, said) = usage(lines).limits(&budget.limits, Some(&budget));
    assert_eq!(member.word(), "limits");
    let usd = |amount: u64| NanoUsd(amount).to_string();
    assert_eq!(
        said,
        json!([{
            "id": "shop/web/spend", "spent": usd(5_000_000_000), "held": usd(500_000_000),
            "left": usd(6_000_000_000), "reached": 25, "resets": "2026-07-02T00:00:00Z",
        }])
    );
    // Of what nobody used all is left, and a rate cannot be asked.
    let (_, said) = usage(Vec::new()).limits(&budget.limits, Some(&budget));
    assert_eq!((&said[0]["left"], &said[0]["held"]), (&json!(usd(10_000_000_000)), &json!(usd(0))));
    let rate = Limit { kind: LimitKind::Gcra { per: Duration::from_secs(1), burst: 1 }, ..limit.clone() };
    assert!(usage(Vec::new()).limits(&[rate], None).1.is_null());
}
