//! Holds against the counts they are taken from; what needs no policy to be shown.

use std::time::Duration;

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use tollgate_policy::caller::Identity;
use tollgate_policy::denial::Reason;
use tollgate_policy::limit::{LimitKey, LimitKind, OnExhausted, Owner, Per, StoreFailure, Window};
use tollgate_policy::price::NanoUsd;

use super::*;

mod contention;
mod edits;
mod hierarchy;
mod leases;
mod pieces;

const WEB: &str = "spiffe://prod.acme/ns/shop/sa/web";
const API: &str = "spiffe://prod.acme/ns/shop/sa/api";
const OTHER: &str = "spiffe://prod.acme/ns/other/sa/web";

fn now() -> Timestamp {
    "2026-07-01T12:00Z".parse().unwrap()
}

fn day() -> LimitKind {
    LimitKind::Counted(Window::Calendar { per: Per::Day, timezone: TimeZone::UTC })
}

fn limit(unit: Unit, amount: u64, kind: LimitKind, key: LimitKey) -> Limit {
    let owner = Owner::Grant("test".parse().unwrap());
    let id = format!("{owner}/{unit}/day/{key}").into();
    let (on_exhausted, store_failure) = (OnExhausted::Deny, StoreFailure::of(unit));
    Limit { id, owner, unit, amount, kind, key, on_exhausted, raises: Arc::default(), store_failure }
}

fn tokens(amount: u64) -> Limit {
    limit(Unit::Tokens, amount, day(), LimitKey::Shared)
}

fn spend(amount: u64) -> Limit {
    limit(Unit::Spend, amount, day(), LimitKey::Shared)
}

fn concurrency(amount: u64) -> Limit {
    limit(Unit::Concurrency, amount, LimitKind::Concurrent, LimitKey::Shared)
}

fn hourly(amount: u64, burst: u32) -> Limit {
    limit(
        Unit::Requests,
        amount,
        LimitKind::Gcra { per: Duration::from_secs(3_600), burst },
        LimitKey::Shared,
    )
}

/// One request of so many tokens and nano-USD.
fn demand(tokens: u64, spend: u64) -> Demand {
    let tokens = TokenDemand { all: tokens, ..TokenDemand::default() };
    Demand { requests: 1, tokens, spend: NanoUsd(spend), bytes: 0, seconds: 0 }
}

/// Counts with one grant's limits.
struct World {
    quota: Arc<Quota>,
    plan: Arc<Plan>,
}

impl World {
    fn new(limits: &[Limit]) -> Self {
        let quota = Quota::new();
        let plan = quota.plan(limits);
        Self { quota, plan }
    }

    fn hold(&self, caller: &str, demand: Demand) -> Result<Hold, Denial> {
        let id: Identity = caller.parse().unwrap();
        Hold::take(&self.plan, (&Keys::of(&id), HoldTerms::at_once(None)), &demand, now())
    }

    /// Spent and held of the only key of the unit's limit.
    fn usage(&self, unit: Unit) -> (u64, u64) {
        let lines = self.quota.usage(now());
        let lines: Vec<_> = lines.iter().filter(|line| line.unit == unit).collect();
        assert_eq!(lines.len(), 1);
        (lines[0].spent, lines[0].held)
    }

    fn refusal(&self, caller: &str, demand: Demand) -> Denial {
        self.hold(caller, demand).expect_err("refused")
    }
}

#[test]
fn what_has_begun_without_a_hold_is_charged_past_the_cap_and_said_to_exceed() {
    let world = World::new(&[spend(1_000), tokens(100), concurrency(1), hourly(1, 1)]);
    let held = world.hold(WEB, demand(100, 900)).unwrap();
    let id: Identity = WEB.parse().unwrap();
    let mut nothing = Hold::nothing(&world.plan, &Keys::of(&id), now());
    assert_eq!((world.usage(Unit::Tokens), world.usage(Unit::Concurrency)), ((0, 100), (0, 1)));
    nothing.sent();
    let settled = nothing.settle(&demand(60, 600));
    assert!(settled.exceeded);
    assert_eq!(settled.charges.iter().map(|charge| charge.amount).collect::<Vec<_>>(), [600, 60]);
    assert_eq!((world.usage(Unit::Tokens), world.usage(Unit::Spend)), ((60, 100), (600, 900)));
    held.release();
    assert_eq!((world.usage(Unit::Tokens), world.usage(Unit::Concurrency)), ((60, 0), (0, 0)));
}

#[test]
fn a_hold_is_taken_whole_and_settled_at_what_was_used() {
    let world = World::new(&[spend(1_000), tokens(100), concurrency(1)]);
    let mut hold = world.hold(WEB, demand(60, 600)).unwrap();
    assert_eq!(hold.opened(), now());
    let amounts: Vec<_> = hold.charges().iter().map(|charge| (&*charge.limit, charge.amount)).collect();
    assert_eq!(amounts, [("grant/test/spend/day/shared", 600), ("grant/test/tokens/day/shared", 60)]);
    assert_eq!(world.usage(Unit::Concurrency), (0, 1));
    hold.sent();
    let settled = hold.settle(&demand(40, 30));
    assert_eq!(settled.charges.iter().map(|charge| charge.amount).collect::<Vec<_>>(), [30, 40]);
    assert!(!settled.exceeded);
    assert_eq!(world.usage(Unit::Tokens), (40, 0));
    assert_eq!(world.usage(Unit::Spend), (30, 0));
    assert_eq!(world.usage(Unit::Concurrency), (0, 0));
}

#[test]
fn usage_beyond_the_hold_is_booked_and_told() {
    let world = World::new(&[tokens(100)]);
    let settled = world.hold(WEB, demand(60, 0)).unwrap().settle(&demand(130, 0));
    assert!(settled.exceeded);
    assert_eq!(settled.charges[0].amount, 130);
    assert_eq!(world.usage(Unit::Tokens), (130, 0));
}

#[test]
fn a_hold_dropped_before_the_send_is_released() {
    let world = World::new(&[tokens(100), concurrency(1)]);
    drop(world.hold(WEB, demand(60, 0)).unwrap());
    assert_eq!(world.usage(Unit::Tokens), (0, 0));
    assert_eq!(world.usage(Unit::Concurrency), (0, 0));
}

#[test]
fn a_hold_dropped_after_the_send_is_settled_at_the_estimate() {
    let world = World::new(&[tokens(100), concurrency(1)]);
    let mut hold = world.hold(WEB, demand(60, 0)).unwrap();
    hold.sent();
    drop(hold);
    assert_eq!(world.usage(Unit::Tokens), (60, 0));
    assert_eq!(world.usage(Unit::Concurrency), (0, 0));
}

#[test]
fn a_call_that_came_back_unsent_is_released_even_after_the_send() {
    let world = World::new(&[tokens(100)]);
    let mut hold = world.hold(WEB, demand(60, 0)).unwrap();
    hold.sent();
    hold.release();
    assert_eq!(world.usage(Unit::Tokens), (0, 0));
}

#[test]
fn a_panic_while_held_settles_what_was_sent_and_releases_what_was_not() {
    let world = World::new(&[tokens(100), concurrency(2)]);
    for sent in [false, true] {
        let mut hold = world.hold(WEB, demand(30, 0)).unwrap();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            if sent {
                hold.sent();
            }
            panic!("while {hold:?} is held");
        }));
        assert!(caught.is_err());
        assert_eq!(world.usage(Unit::Tokens), (if sent { 30 } else { 0 }, 0));
        assert_eq!(world.usage(Unit::Concurrency), (0, 0));
    }
}

#[test]
fn a_refusal_by_one_limit_gives_back_what_the_others_held() {
    let world = World::new(&[concurrency(5), spend(1_000), tokens(100)]);
    assert_eq!(world.refusal(WEB, demand(101, 10)).reason, Reason::BudgetExhausted);
    assert_eq!(world.usage(Unit::Concurrency), (0, 0));
    assert_eq!(world.usage(Unit::Spend), (0, 0));
    assert_eq!(world.usage(Unit::Tokens), (0, 0));
}

#[test]
fn a_rate_is_not_consumed_by_a_call_that_a_budget_refuses() {
    // By its id the rate would come before the tokens.
    let world = World::new(&[hourly(1, 1), tokens(100)]);
    for _ in 0..10 {
        assert_eq!(world.refusal(WEB, demand(101, 0)).reason, Reason::BudgetExhausted);
    }
    world.hold(WEB, demand(1, 0)).unwrap().release();
    let denial = world.refusal(WEB, demand(1, 0));
    assert_eq!(denial.reason, Reason::RateLimited);
    let wait = denial.retry_after.unwrap();
    assert!(wait > Duration::from_secs(3_500) && wait <= Duration::from_secs(3_600), "{wait:?}");
    assert_eq!(world.usage(Unit::Tokens), (0, 0));
}

#[test]
fn each_refusal_has_its_reason_and_its_time_to_retry() {
    let world = World::new(&[tokens(100)]);
    let first = world.hold(WEB, demand(90, 0)).unwrap();
    let held = world.refusal(WEB, demand(20, 0));
    assert_eq!((held.reason, held.retry_after), (Reason::BudgetHeld, Some(Duration::from_secs(1))));
    let _ = first.settle(&demand(90, 0));
    let exhausted = world.refusal(WEB, demand(20, 0));
    assert_eq!(exhausted.reason, Reason::BudgetExhausted);
    assert_eq!(exhausted.retry_after, Some(Duration::from_secs(12 * 3_600)));
    let never = world.refusal(WEB, demand(101, 0));
    assert_eq!((never.reason, never.retry_after), (Reason::BudgetExhausted, None));
    for word in ["limit grant/test/tokens/day/shared", "101 tokens", "100 tokens", "max_tokens"] {
        assert!(never.detail.contains(word), "{never}");
    }
    for (denial, words) in [
        (
            held,
            ["100 tokens", "0 tokens of 100 tokens used", "90 tokens held", "may take 20 tokens", "in 12 h"],
        ),
        (
            exhausted,
            ["100 tokens", "90 tokens of 100 tokens used", "0 tokens held", "may take 20 tokens", "in 12 h"],
        ),
    ] {
        for word in words.into_iter().chain(["limit grant/test/tokens/day/shared"]) {
            assert!(denial.detail.contains(word), "{word}: {denial}");
        }
    }

    let world = World::new(&[concurrency(1)]);
    let first = world.hold(WEB, demand(1, 0)).unwrap();
    let crowded = world.refusal(WEB, demand(1, 0));
    assert_eq!(
        (crowded.reason, crowded.retry_after),
        (Reason::ConcurrencyLimited, Some(Duration::from_secs(1)))
    );
    first.release();
    world.hold(WEB, demand(1, 0)).unwrap().release();
}

#[test]
fn a_limit_of_nothing_lets_nothing_through() {
    for nothing in
        [hourly(0, 0), concurrency(0), tokens(0), limit(Unit::Requests, 0, day(), LimitKey::Shared)]
    {
        assert!(World::new(&[nothing]).hold(WEB, demand(1, 1)).is_err());
    }
}

#[test]
fn a_key_decides_who_shares_a_count() {
    for (key, api_fits, other_fits) in
        [(LimitKey::Shared, false, false), (LimitKey::Namespace, false, true), (LimitKey::Caller, true, true)]
    {
        let counted = World::new(&[limit(Unit::Tokens, 10, day(), key)]);
        let rate = LimitKind::Gcra { per: Duration::from_secs(3_600), burst: 1 };
        let rate = World::new(&[limit(Unit::Requests, 1, rate, key)]);
        let crowd = World::new(&[limit(Unit::Concurrency, 1, LimitKind::Concurrent, key)]);
        for world in [counted, rate, crowd] {
            let _web = world.hold(WEB, demand(10, 0)).unwrap();
            assert!(world.hold(WEB, demand(10, 0)).is_err());
            assert_eq!(world.hold(API, demand(10, 0)).is_ok(), api_fits, "{key}");
            assert_eq!(world.hold(OTHER, demand(10, 0)).is_ok(), other_fits, "{key}");
        }
    }
}

#[test]
fn idle_keys_are_forgotten_and_held_ones_are_not() {
    let kinds = [
        (Unit::Tokens, day()),
        (Unit::Concurrency, LimitKind::Concurrent),
        (Unit::Requests, LimitKind::Gcra { per: Duration::from_secs(1), burst: 1 }),
    ];
    for (unit, kind) in kinds {
        let world = World::new(&[limit(unit, 10, kind, LimitKey::Caller)]);
        let mut held = vec![world.hold(WEB, demand(10, 0)).unwrap()];
        for caller in 0..5_000 {
            let id: Identity = format!("spiffe://prod.acme/ns/shop/sa/{caller}").parse().unwrap();
            let later = now() + SignedDuration::from_secs(caller * 2);
            let hold =
                Hold::take(&world.plan, (&Keys::of(&id), HoldTerms::at_once(None)), &demand(1, 0), later)
                    .unwrap();
            if caller % 1_000 == 0 { held.push(hold) } else { hold.release() }
        }
        let counts = &world.plan.items[0].counts;
        assert!(counts.cells().len() <= 1_024, "{}", counts.cells().len());
        assert_eq!(counts.cells().iter().filter(|cell| Arc::strong_count(cell) > 2).count(), held.len());
    }
}

#[test]
fn the_headers_name_each_limit_and_what_is_left() {
    let rolling = LimitKind::Counted(Window::rolling(SignedDuration::from_hours(24 * 7)));
    let weekly = limit(Unit::Spend, 1_000_000_000_000_000_000, rolling, LimitKey::Caller);
    let world = World::new(&[hourly(7_200, 10), tokens(100), concurrency(3), weekly]);
    let hold = world.hold(WEB, demand(60, 5)).unwrap();
    let headers = hold.rate_headers(now()).unwrap();
    assert_eq!(
        headers.policy.to_str().unwrap(),
        "\"grant/test/concurrency/day/shared\";q=3;qu=\"concurrent-requests\", \
         \"grant/test/spend/day/caller\";q=999999999999999;qu=\"nano-usd\";w=604800, \
         \"grant/test/tokens/day/shared\";q=100;qu=\"tokens\";w=86400, \
         \"grant/test/requests/day/shared\";q=7200;w=3600"
    );
    let mut parts = headers.limit.to_str().unwrap().split(", ");
    assert_eq!(parts.next(), Some("\"grant/test/concurrency/day/shared\";r=2"));
    assert!(parts.next().unwrap().starts_with("\"grant/test/spend/day/caller\";r=999999999999999;t=6"));
    assert_eq!(parts.next(), Some("\"grant/test/tokens/day/shared\";r=40;t=43200"));
    assert_eq!(parts.next(), Some("\"grant/test/requests/day/shared\";r=9;t=1"));
    assert!(World::new(&[]).hold(WEB, demand(1, 1)).unwrap().rate_headers(now()).is_none());
}

#[test]
fn a_refusal_says_how_its_limit_stands_in_the_limits_unit() {
    let world = World::new(&[spend(5_000_000_000)]);
    let _ = world.hold(WEB, demand(0, 3_500_000_000)).unwrap().settle(&demand(0, 3_250_000_000));
    let _first = world.hold(WEB, demand(0, 1_000_000_000)).unwrap();
    let denial = world.refusal(WEB, demand(0, 800_000_000));
    assert_eq!(denial.reason, Reason::BudgetHeld);
    let state = denial.limit.unwrap();
    assert_eq!((&*state.id, state.unit), ("grant/test/spend/day/shared", Unit::Spend));
    assert_eq!(
        (state.amount, state.used, state.held, state.needed),
        (5_000_000_000, 3_250_000_000, 1_000_000_000, 800_000_000)
    );
    assert_eq!(state.resets_in, Some(Duration::from_secs(12 * 3_600)));
    for words in ["3.25 USD of 5 USD used", "1 USD held", "0.8 USD", "the window resets in 12 h"] {
        assert!(denial.detail.contains(words), "{}", denial.detail);
    }

    let world = World::new(&[concurrency(1)]);
    let _first = world.hold(WEB, demand(1, 0)).unwrap();
    let state = world.refusal(WEB, demand(1, 0)).limit.unwrap();
    assert_eq!((state.amount, state.held, state.needed, state.resets_in), (1, 1, 1, None));

    let world = World::new(&[hourly(10, 2)]);
    for _ in 0..2 {
        world.hold(WEB, demand(0, 0)).unwrap().release();
    }
    let denial = world.refusal(WEB, demand(0, 0));
    for words in ["10 in 1 h", "2 at once", "room for the next in"] {
        assert!(denial.detail.contains(words), "{}", denial.detail);
    }
    let state = denial.limit.unwrap();
    assert_eq!((state.amount, state.burst, state.used, state.needed), (10, Some(2), 2, 1));
    assert_eq!(state.resets_in, denial.retry_after);
}

#[test]
fn of_several_limits_that_refuse_the_one_that_lasts_longest_is_told() {
    let month = LimitKind::Counted(Window::Calendar { per: Per::Month, timezone: TimeZone::UTC });
    let tokens = Limit { kind: month, ..tokens(100) };
    let world = World::new(&[spend(100), tokens]);
    let _ = world.hold(WEB, demand(90, 90)).unwrap().settle(&demand(90, 90));
    let denial = world.refusal(WEB, demand(20, 20));
    assert_eq!(denial.limit.as_ref().unwrap().unit, Unit::Tokens, "{denial}");
    assert!(denial.retry_after.unwrap() > Duration::from_secs(30 * 86_400), "{denial}");
    assert_eq!((world.usage(Unit::Spend), world.usage(Unit::Tokens)), ((90, 0), (90, 0)));
    // A call that fits into no window is told so, whatever else refuses it.
    let denial = world.refusal(WEB, demand(101, 20));
    assert_eq!((denial.limit.unwrap().unit, denial.retry_after), (Unit::Tokens, None));
}
