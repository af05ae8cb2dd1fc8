//! Counts that replicas share, with a store that the test plays.

use tollgate_policy::limit::slices::keeper::SliceTerms;

use super::*;

/// A world of one limit whose replica has `ceiling` of it for as long as the test takes.
fn leased(limit: Limit, terms: Option<SliceTerms>) -> (World, Arc<Replicas>) {
    let replicas = Replicas::new(Duration::from_secs(60), Duration::ZERO);
    let quota = Quota::shared(Arc::clone(&replicas));
    let plan = quota.plan(&[limit]);
    let world = World { quota, plan };
    if let Some(terms) = terms {
        replicas.extend(u64::MAX);
        agree(&world, terms);
    }
    (world, replicas)
}

fn agree(world: &World, terms: SliceTerms) {
    let item = &world.plan.items[0];
    let cell = item.counts.cell("", &item.limit, now());
    cell.lease.as_ref().expect("a shared count").agree(terms);
}

fn terms(ceiling: u64, others_spent: u64) -> SliceTerms {
    SliceTerms { ceiling, others_spent, refill_at: Some(ceiling / 2), is_dry: false }
}

#[test]
fn a_slice_is_spent_and_no_more_and_the_refusal_says_whether_another_may_have_the_rest() {
    let (world, replicas) = leased(tokens(1_000), Some(terms(100, 200)));
    let held = world.hold(WEB, demand(40, 0)).unwrap();
    assert!(replicas.take_asks().is_empty(), "half of the slice is left");
    let _more = world.hold(WEB, demand(40, 0)).unwrap();
    assert_eq!(replicas.take_asks().len(), 1, "more is asked for ahead of time");

    let refused = world.refusal(WEB, demand(40, 0));
    assert_eq!((refused.reason, refused.retry_after), (Reason::BudgetHeld, Some(Duration::from_secs(1))));
    for words in
        ["200 tokens of 1000 tokens used", "80 tokens held", "other replicas have set aside what is left"]
    {
        assert!(refused.detail.contains(words), "{refused}");
    }
    assert_eq!(world.refusal(WEB, demand(801, 0)).reason, Reason::BudgetExhausted, "others have spent 200");
    assert_eq!(world.refusal(WEB, demand(1_001, 0)).retry_after, None, "it fits at no time");
    assert!(replicas.take_asks().is_empty(), "one ask is under way already");
    assert_eq!(replicas.status().lacked, 1, "the others would have found it nowhere");

    let headers = held.rate_headers(now()).unwrap().limit;
    assert!(headers.to_str().unwrap().contains(";r=720;"), "{headers:?}");
    agree(&world, terms(200, 200));
    world.hold(WEB, demand(40, 0)).unwrap().release();
}

#[test]
fn a_count_that_nothing_is_leased_of_asks_for_what_the_call_needs() {
    let (world, replicas) = leased(tokens(1_000), None);
    assert_eq!(world.refusal(WEB, demand(40, 0)).reason, Reason::BudgetHeld);
    let asks = replicas.take_asks();
    assert_eq!(asks.iter().map(|ask| &*ask.limit).collect::<Vec<_>>(), ["grant/test/tokens/day/shared"]);
    let need = world.quota.look(&asks[0], |_, cell| cell.lease.as_ref().map(|lease| lease.take_lack().0));
    assert_eq!(need, Some(40));
}

#[test]
fn a_call_does_not_wait_for_a_store_that_has_just_had_nothing() {
    let (world, replicas) = leased(tokens(1_000), Some(SliceTerms { is_dry: true, ..terms(0, 0) }));
    assert_eq!(world.refusal(WEB, demand(40, 0)).reason, Reason::BudgetHeld);
    assert!(replicas.take_asks().is_empty());
}

#[test]
fn without_the_store_a_limit_denies_or_each_replica_has_its_even_part() {
    for (store_failure, fits) in [(StoreFailure::Deny, 0), (StoreFailure::Local, 250)] {
        let (world, replicas) = leased(Limit { store_failure, ..tokens(1_000) }, Some(terms(1_000, 300)));
        replicas.extend(0);
        replicas.hear(4);
        assert_eq!(
            world.refusal(WEB, demand(1, 0)).reason,
            Reason::BudgetHeld,
            "the store answers, and will"
        );
        replicas.set_up(false);
        let holds: Vec<_> = (0..1_000).map_while(|_| world.hold(WEB, demand(1, 0)).ok()).collect();
        assert_eq!(holds.len(), fits);
        let refused = world.refusal(WEB, demand(1, 0)).reason;
        let expected = if fits == 0 { Reason::LimitsUnavailable } else { Reason::BudgetHeld };
        assert_eq!(refused, expected);
    }
}

#[test]
fn a_process_that_another_has_superseded_spends_nothing_whatever_the_limit_says() {
    for store_failure in [StoreFailure::Deny, StoreFailure::Local] {
        let (world, replicas) = leased(Limit { store_failure, ..tokens(1_000) }, Some(terms(1_000, 0)));
        world.hold(WEB, demand(40, 0)).unwrap().release();
        assert!(!replicas.supersede() && replicas.supersede());
        replicas.set_up(false);
        assert_eq!(world.refusal(WEB, demand(1, 0)).reason, Reason::LimitsUnavailable);
    }
}

#[test]
fn a_rate_is_divided_by_the_replicas_and_by_no_more_than_lets_one_through() {
    for (live, burst) in [(1, 10), (2, 5), (4, 2), (20, 1)] {
        let (world, replicas) = leased(hourly(100, 10), None);
        replicas.hear(live);
        let taken = (0..100).take_while(|_| world.hold(WEB, demand(0, 0)).is_ok()).count();
        assert_eq!(taken, burst, "{live} replicas");
    }
    let denying = Limit { store_failure: StoreFailure::Deny, ..hourly(100, 10) };
    let replicas = Replicas::new(Duration::ZERO, Duration::ZERO);
    let quota = Quota::shared(Arc::clone(&replicas));
    let plan = quota.plan(&[denying]);
    let world = World { quota, plan };
    world.hold(WEB, demand(0, 0)).unwrap().release();
    replicas.set_up(false);
    assert_eq!(world.refusal(WEB, demand(0, 0)).reason, Reason::LimitsUnavailable);
}

#[test]
fn what_the_ledger_says_was_spent_is_told_to_the_store() {
    let (world, replicas) = leased(tokens(1_000), None);
    let charge = Charge { limit: "grant/test/tokens/day/shared".into(), key: "".into(), amount: 70 };
    world.quota.table.load().registry.restore([(now(), charge)]);
    assert_eq!(replicas.take_asks().len(), 1);
    assert_eq!(world.usage(Unit::Tokens), (70, 0));
}

#[test]
fn an_amount_is_gone_past_only_once_no_other_replica_has_given_what_is_lacking() {
    let flagged = Limit { on_exhausted: OnExhausted::Flag, ..tokens(1_000) };
    let (world, replicas) = leased(flagged, None);
    let id: Identity = WEB.parse().unwrap();
    let take = |can_wait| {
        let asked = HoldTerms { model: None, can_wait };
        Hold::take(&world.plan, (&Keys::of(&id), asked), &demand(40, 0), now())
    };
    assert_eq!(take(true).unwrap_err().reason, Reason::BudgetHeld, "it may be had elsewhere");
    assert!(take(false).is_ok());
    replicas.extend(u64::MAX);
    agree(&world, terms(100, 990));
    assert!(take(true).is_ok(), "it is used up, whoever is asked");
}

#[test]
fn places_are_taken_of_a_slice_and_the_refusal_asks_for_another() {
    let (world, replicas) = leased(concurrency(10), Some(terms(2, 0)));
    let first = world.hold(WEB, demand(0, 0)).unwrap();
    assert!(replicas.take_asks().is_empty(), "half of the slice is left");
    let _second = world.hold(WEB, demand(0, 0)).unwrap();
    assert_eq!(replicas.take_asks().len(), 1, "more is asked for ahead of time");
    let refused = world.refusal(WEB, demand(0, 0));
    assert_eq!((refused.reason, replicas.status().lacked), (Reason::ConcurrencyLimited, 1));
    assert!(refused.detail.contains("2 of 10 in this replica, and others have the rest"), "{refused}");
    let left = rate_limit_of_refusal(refused.limit.as_deref().unwrap()).unwrap();
    assert!(left.to_str().unwrap().ends_with(";r=0"), "none of those is this replica's to give: {left:?}");
    let headers = first.rate_headers(now()).unwrap().limit;
    assert!(headers.to_str().unwrap().contains(";r=8"), "{headers:?}");
    first.release();
    let _third = world.hold(WEB, demand(0, 0)).unwrap();
    agree(&world, terms(3, 0));
    let _fourth = world.hold(WEB, demand(0, 0)).unwrap();
    replicas.extend(0);
    assert_eq!(
        world.refusal(WEB, demand(0, 0)).reason,
        Reason::ConcurrencyLimited,
        "the store answers, and will"
    );
    replicas.set_up(false);
    replicas.hear(2);
    let alone: Vec<_> = (0..10).map_while(|_| world.hold(WEB, demand(0, 0)).ok()).collect();
    assert_eq!(alone.len(), 2, "an even part of ten is five, and three are held");
    let denying = Limit { store_failure: StoreFailure::Deny, ..concurrency(10) };
    let (world, replicas) = leased(denying, Some(terms(10, 0)));
    replicas.extend(0);
    replicas.set_up(false);
    assert_eq!(world.refusal(WEB, demand(0, 0)).reason, Reason::LimitsUnavailable);
}

#[test]
fn a_place_goes_past_a_budget_only_once_no_other_replica_has_given_one() {
    let (world, _replicas) = leased(Limit { on_exhausted: OnExhausted::Flag, ..concurrency(10) }, None);
    let id: Identity = WEB.parse().unwrap();
    let take = |can_wait| {
        let asked = HoldTerms { model: None, can_wait };
        Hold::take(&world.plan, (&Keys::of(&id), asked), &demand(0, 0), now())
    };
    assert_eq!(take(true).unwrap_err().reason, Reason::ConcurrencyLimited, "it may be had elsewhere");
    assert!(take(false).is_ok());
}
