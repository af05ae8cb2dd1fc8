//! Counts under a policy that changes, and after a restart.

use tollgate_policy::policy::Policy;

use super::*;

fn registry(limits: &[Limit]) -> Registry {
    Registry::default().next(limits.iter(), now())
}

fn hold(registry: &mut Registry, limits: &[Limit], most: Demand) -> Result<Hold, Denial> {
    let id: Identity = WEB.parse().unwrap();
    Hold::take(&Arc::new(registry.plan(limits)), (&Keys::of(&id), HoldTerms::at_once(None)), &most, now())
}

fn charge(limit: &Limit, key: &str, amount: u64) -> Charge {
    Charge { limit: Arc::clone(&limit.id), key: key.into(), amount }
}

#[test]
fn an_edit_of_an_amount_keeps_what_is_counted() {
    let mut old = registry(&[tokens(100), concurrency(1)]);
    let _open = hold(&mut old, &[tokens(100), concurrency(1)], demand(80, 0)).unwrap();
    let edited = [tokens(120), concurrency(2)];
    let mut new = old.next(edited.iter(), now());
    let _second = hold(&mut new, &edited, demand(40, 0)).unwrap();
    assert!(hold(&mut new, &edited, demand(0, 0)).is_err(), "both slots are taken");
    let lines = new.usage(now());
    let line = lines.iter().find(|line| line.unit == Unit::Tokens).unwrap();
    assert_eq!((line.amount, line.spent, line.held), (120, 0, 120));
}

#[test]
fn a_cap_lowered_under_what_is_held_refuses_until_it_fits_again() {
    let mut old = registry(&[tokens(100)]);
    let open = hold(&mut old, &[tokens(100)], demand(80, 0)).unwrap();
    let mut new = old.next([tokens(50)].iter(), now());
    assert_eq!(hold(&mut new, &[tokens(50)], demand(1, 0)).unwrap_err().reason, Reason::BudgetHeld);
    let _ = open.settle(&demand(49, 0));
    hold(&mut new, &[tokens(50)], demand(1, 0)).unwrap().release();
}

#[test]
fn a_rate_whose_numbers_change_starts_full_and_others_do_not() {
    let mut old = registry(&[hourly(1, 1)]);
    hold(&mut old, &[hourly(1, 1)], demand(0, 0)).unwrap().release();
    let mut same = old.next([hourly(1, 1)].iter(), now());
    assert!(hold(&mut same, &[hourly(1, 1)], demand(0, 0)).is_err());
    let mut edited = old.next([hourly(2, 1)].iter(), now());
    hold(&mut edited, &[hourly(2, 1)], demand(0, 0)).unwrap().release();
}

#[test]
fn a_call_let_through_under_an_earlier_policy_is_held_to_the_amounts_in_force() {
    let by_caller = |amount, burst| Limit { key: LimitKey::Caller, ..hourly(amount, burst) };
    let old = registry(&[by_caller(100, 50), tokens(100)]);
    let edited = [by_caller(1, 1), tokens(10)];
    let mut new = old.next(edited.iter(), now());
    let late = [by_caller(100, 50), tokens(100)];
    assert_eq!(hold(&mut new, &late, demand(11, 0)).unwrap_err().reason, Reason::BudgetExhausted);
    hold(&mut new, &late, demand(1, 0)).unwrap().release();
    // The caller's rate began to count with that call, and with the numbers of now.
    assert_eq!(hold(&mut new, &edited, demand(1, 0)).unwrap_err().reason, Reason::RateLimited);
}

#[test]
fn plans_share_the_limits_that_they_have_in_common() {
    let mut registry = registry(&[tokens(100), spend(100)]);
    let (one, other) = (registry.plan(&[tokens(100), spend(100)]), registry.plan(&[tokens(100)]));
    let known = registry.known_plan(&[tokens(100)]).expect("it counts already");
    let is_it = |item: &Arc<Item>| Arc::ptr_eq(item, &other.items[0]);
    assert!(one.items.iter().any(is_it) && is_it(&known.items[0]));
}

#[test]
fn a_limit_no_longer_named_is_forgotten_only_when_nothing_of_it_counts() {
    let mut old = registry(&[tokens(100), concurrency(1)]);
    let open = hold(&mut old, &[tokens(100), concurrency(1)], demand(80, 0)).unwrap();
    let none = || [].iter();
    assert_eq!(old.next(none(), now()).len(), 2, "the call is still under way");
    let _ = open.settle(&demand(10, 0));
    assert_eq!(old.next(none(), now()).len(), 1, "the day is not over");
    let back = old.next(none(), now()).next([tokens(100)].iter(), now());
    assert_eq!(back.usage(now())[0].spent, 10);
    let tomorrow = now() + SignedDuration::from_hours(24);
    assert_eq!(old.next(none(), tomorrow).len(), 0);
}

#[test]
fn a_limit_that_a_call_holds_is_kept_even_past_its_window() {
    let mut old = registry(&[tokens(100)]);
    let open = hold(&mut old, &[tokens(100)], demand(80, 0)).unwrap();
    let tomorrow = now() + SignedDuration::from_hours(24);
    assert_eq!(old.next([].iter(), tomorrow).len(), 1);
    open.release();
    assert_eq!(old.next([].iter(), tomorrow).len(), 0);
}

#[test]
fn a_call_admitted_by_another_generation_counts_with_the_rest() {
    let world = World::new(&[tokens(100)]);
    let _open = world.hold(WEB, demand(80, 0)).unwrap();
    let id: Identity = WEB.parse().unwrap();
    let late = world.quota.plan(&[tokens(100)]);
    let refused = Hold::take(&late, (&Keys::of(&id), HoldTerms::at_once(None)), &demand(80, 0), now());
    assert_eq!(refused.unwrap_err().reason, Reason::BudgetHeld);
    world.quota.adopt(&Policy::default(), now());
    assert_eq!(world.usage(Unit::Tokens), (0, 80));
}

#[test]
fn what_the_ledger_says_was_charged_counts_after_a_restart() {
    let keyed = limit(Unit::Spend, 100, day(), LimitKey::Caller);
    let limits = [tokens(100), keyed.clone()];
    let mut counts = registry(&limits);
    let yesterday = now() - SignedDuration::from_hours(24);
    counts.restore([
        (yesterday, charge(&tokens(0), "", 90)),
        (now() - SignedDuration::from_hours(1), charge(&tokens(0), "", 30)),
        (now(), charge(&tokens(0), "", 30)),
        (now(), charge(&keyed, WEB, 100)),
        (now(), charge(&keyed, API, 1)),
        (now(), charge(&spend(0), "", 5)),
    ]);
    let mut lines: Vec<_> = counts.usage(now()).into_iter().map(|line| (line.key, line.spent)).collect();
    lines.sort();
    assert_eq!(lines, [("".into(), 60), (API.into(), 1), (WEB.into(), 100)]);
    assert_eq!(hold(&mut counts, &limits, demand(40, 1)).unwrap_err().reason, Reason::BudgetExhausted);
    hold(&mut counts, &[tokens(100)], demand(40, 0)).unwrap().release();
}
