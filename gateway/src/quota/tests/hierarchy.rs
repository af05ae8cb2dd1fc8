//! Three levels of budgets above many callers, in random orders of holding, settling and releasing: nobody ever goes past any of them.

use proptest::prelude::*;

use super::*;

/// What each limit of the hierarchy may count.
const ORGANISATION: u64 = 400;
const TEAM: u64 = 250;
const SERVICE: u64 = 160;
const TEAMS: usize = 2;
const SERVICES: usize = 2;

#[derive(Debug, Clone)]
enum Step {
    /// A caller of a team and a service asks for so much.
    Hold(usize, usize, u64),
    /// The n-th open hold is settled at this many percent of it.
    Settle(usize, u64),
    Release(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0..TEAMS, 0..SERVICES, 0_u64..120).prop_map(|(team, service, amount)| Step::Hold(team, service, amount)),
        3 => (any::<usize>(), 0_u64..=100).prop_map(|(n, percent)| Step::Settle(n, percent)),
        1 => any::<usize>().prop_map(Step::Release),
    ];
    prop::collection::vec(step, 1..120)
}

fn of(budget: &str, amount: u64) -> Limit {
    let owner = Owner::Budget(budget.parse().unwrap());
    Limit { id: format!("{owner}/spend/day/shared").into(), owner, ..spend(amount) }
}

/// The limits of one service, its team and the organisation, with those of a grant.
fn limits(team: usize, service: usize) -> Vec<Limit> {
    vec![
        spend(10_000),
        of("organisation", ORGANISATION),
        of(&format!("service-{team}-{service}"), SERVICE),
        of(&format!("team-{team}"), TEAM),
    ]
}

/// The open holds, and what was settled; who each is of.
#[derive(Default)]
struct Books {
    open: Vec<(usize, usize, u64, Hold)>,
    spent: Vec<(usize, usize, u64)>,
}

impl Books {
    /// What is held and spent of those whom `is_of` picks.
    fn sum(&self, is_of: impl Fn(usize, usize) -> bool) -> u64 {
        let open = self.open.iter().map(|(team, service, amount, _)| (*team, *service, *amount));
        let all = open.chain(self.spent.iter().copied());
        all.filter(|(team, service, _)| is_of(*team, *service)).map(|(_, _, amount)| amount).sum()
    }

    fn fits(&self, team: usize, service: usize, amount: u64) -> bool {
        self.sum(|_, _| true) + amount <= ORGANISATION
            && self.sum(|of, _| of == team) + amount <= TEAM
            && self.sum(|of, at| (of, at) == (team, service)) + amount <= SERVICE
    }
}

fn take(quota: &Quota, (team, service): (usize, usize), amount: u64) -> Result<Hold, Denial> {
    // One caller, whom nobody shares with: shares have tests of their own.
    let id: Identity = "spiffe://prod.acme/ns/shop/sa/web".parse().unwrap();
    let plan = quota.plan(&limits(team, service));
    Hold::take(&plan, (&Keys::of(&id), HoldTerms::at_once(None)), &demand(0, amount), now())
}

proptest! {
    #[test]
    fn nobody_goes_past_any_level_and_nobody_is_refused_while_all_levels_have_room(steps in steps()) {
        let quota = Quota::new();
        let mut books = Books::default();
        for step in steps {
            match step {
                Step::Hold(team, service, amount) => {
                    let fits = books.fits(team, service, amount);
                    let taken = take(&quota, (team, service), amount);
                    prop_assert_eq!(taken.is_ok(), fits);
                    if let Ok(hold) = taken {
                        books.open.push((team, service, amount, hold));
                    }
                }
                Step::Settle(n, percent) if !books.open.is_empty() => {
                    let at = n % books.open.len();
                    let (team, service, amount, hold) = books.open.swap_remove(at);
                    let actual = amount * percent / 100;
                    prop_assert!(!hold.settle(&demand(0, actual)).exceeded);
                    books.spent.push((team, service, actual));
                }
                Step::Release(n) if !books.open.is_empty() => {
                    let at = n % books.open.len();
                    books.open.swap_remove(at).3.release();
                }
                Step::Settle(..) | Step::Release(_) => {}
            }
            for line in quota.usage(now()) {
                prop_assert!(line.spent + line.held <= line.amount, "{:?}", line);
            }
            let organisation = quota.usage(now()).into_iter().find(|line| *line.limit == *"budget/organisation/spend/day/shared");
            if let Some(line) = organisation {
                prop_assert_eq!(line.spent + line.held, books.sum(|_, _| true));
            }
        }
    }
}

#[test]
fn threads_at_once_never_go_past_any_level() {
    let quota = Quota::new();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..8_usize {
            let (quota, over) = (&quota, &over);
            scope.spawn(move || {
                for round in 0..400_u64 {
                    let amount = (round * 37 + thread as u64 * 13) % 90;
                    let taken = take(quota, (thread % TEAMS, (thread / TEAMS) % SERVICES), amount);
                    if quota.usage(now()).iter().any(|line| line.spent + line.held > line.amount) {
                        over.store(true, std::sync::atomic::Ordering::SeqCst);
                    }
                    match taken {
                        Ok(hold) if round % 50 == 0 => drop(hold.settle(&demand(0, amount / 10))),
                        Ok(hold) => hold.release(),
                        Err(_) => {}
                    }
                }
            });
        }
    });
    assert!(!over.load(std::sync::atomic::Ordering::SeqCst));
    let spent = |id: &str| quota.usage(now()).iter().find(|line| *line.limit == *id).unwrap().spent;
    assert!(spent("budget/organisation/spend/day/shared") > 0);
    let teams = spent("budget/team-0/spend/day/shared") + spent("budget/team-1/spend/day/shared");
    assert_eq!(spent("budget/organisation/spend/day/shared"), teams);
}

#[test]
fn a_refusal_above_gives_back_what_was_held_below_and_names_who_refused() {
    let quota = Quota::new();
    let _most = take(&quota, (0, 0), 150).unwrap();
    let _more = take(&quota, (1, 0), 150).unwrap();
    let _rest = take(&quota, (0, 1), 90).unwrap();
    let denial = take(&quota, (1, 1), 20).unwrap_err();
    assert_eq!(denial.reason, Reason::BudgetHeld);
    assert_eq!(denial.limit.unwrap().owner, Owner::Budget("organisation".parse().unwrap()));
    let held =
        |id: &str| quota.usage(now()).iter().find(|line| *line.limit == *id).map_or(0, |line| line.held);
    assert_eq!(held("budget/team-1/spend/day/shared"), 150);
    assert_eq!(held("budget/service-1-1/spend/day/shared"), 0);
}

#[test]
fn a_call_goes_past_a_budget_that_marks_and_past_one_that_would_have_its_model() {
    let soft = |on_exhausted| Limit { on_exhausted, ..of("soft", 100) };
    for (on_exhausted, model, goes) in [
        (OnExhausted::Deny, Some("cheap"), false),
        (OnExhausted::Flag, None, true),
        (OnExhausted::Downgrade("cheap".into()), Some("cheap"), true),
        (OnExhausted::Downgrade("cheap".into()), Some("dear"), false),
        (OnExhausted::Downgrade("cheap".into()), None, false),
    ] {
        let world = World::new(&[soft(on_exhausted.clone()), of("hard", 250)]);
        let id: Identity = WEB.parse().unwrap();
        let take = |amount| {
            Hold::take(&world.plan, (&Keys::of(&id), HoldTerms::at_once(model)), &demand(0, amount), now())
        };
        let first = take(90).unwrap();
        assert_eq!(first.past(), None, "there was enough");
        let second = take(90);
        assert_eq!(second.is_ok(), goes, "{on_exhausted:?} {model:?}");
        let Ok(second) = second else { continue };
        assert_eq!(second.past().map(|budget| budget.as_str()), Some("soft"));
        assert_eq!(take(90).unwrap_err().limit.unwrap().owner, Owner::Budget("hard".parse().unwrap()));
        let settled = second.settle(&demand(0, 80));
        assert!(!settled.exceeded);
        let booked =
            world.quota.usage(now()).into_iter().find(|line| *line.limit == *"budget/soft/spend/day/shared");
        assert_eq!(booked.map(|line| (line.spent, line.held)), Some((80, 90)));
        first.release();
    }
}

#[test]
fn a_raise_holds_until_its_end_and_no_longer() {
    let until = now() + SignedDuration::from_hours(1);
    let raises = Arc::new([tollgate_policy::limit::Raise { by: 50, until }]);
    let world = World::new(&[Limit { raises, ..of("team", 100) }]);
    let id: Identity = WEB.parse().unwrap();
    let take = |at| Hold::take(&world.plan, (&Keys::of(&id), HoldTerms::at_once(None)), &demand(0, 120), at);
    let raised = take(now()).unwrap();
    let headers = raised.rate_headers(now()).unwrap();
    assert!(headers.policy.to_str().unwrap().contains("q=150"), "{headers:?}");
    assert!(headers.limit.to_str().unwrap().contains("r=30"), "{headers:?}");
    raised.release();
    let denial = take(until).unwrap_err();
    assert_eq!(denial.limit.unwrap().amount, 100);
    assert_eq!(world.quota.usage(now())[0].amount, 150);
    assert_eq!(world.quota.usage(until)[0].amount, 100);
}
