//! What connections take of a limit piece by piece.

use super::*;

fn bytes(amount: u64) -> Limit {
    limit(Unit::Bytes, amount, day(), LimitKey::Shared)
}

fn seconds(amount: u64) -> Limit {
    limit(Unit::Seconds, amount, day(), LimitKey::Shared)
}

fn piece(bytes: u64, seconds: u64) -> Demand {
    Demand { requests: 1, bytes, seconds, ..Demand::default() }
}

/// Takes pieces until there are no more; how many, and why not.
fn drain(world: &World, hold: &mut Hold, next: &Demand) -> (usize, Reason) {
    for taken in 0..10_000 {
        if let Err(denial) = world.quota.extend(hold, next, now()) {
            return (taken, denial.reason);
        }
        let (spent, held) = world.usage(Unit::Bytes);
        assert!(spent + held <= 1_000_000, "{spent} {held}");
    }
    panic!("no end")
}

#[test]
fn pieces_become_small_before_the_end_and_never_go_beyond_it() {
    let world = World::new(&[bytes(1_000_000)]);
    let mut one = world.hold(WEB, piece(1 << 20, 60)).unwrap();
    assert_eq!(one.allowance().bytes, Some(250_000));
    assert_eq!(one.allowance().seconds, None);
    let mut other = world.hold(API, piece(1 << 20, 60)).unwrap();
    assert_eq!(other.allowance().bytes, Some(187_500));
    let (taken, reason) = drain(&world, &mut one, &piece(1 << 20, 0));
    assert_eq!(reason, Reason::BudgetHeld, "the other holds the rest");
    assert!((5..60).contains(&taken), "{taken}");
    assert_eq!(one.allowance().bytes, Some(812_500));
    other.sent();
    let settled = other.settle(&piece(100_000, 0));
    assert_eq!(settled.charges[0].amount, 100_000);
    drain(&world, &mut one, &piece(1 << 20, 0));
    assert_eq!(one.allowance().bytes, Some(900_000), "what it gave back is there for the one");
    assert_eq!(world.refusal(WEB, piece(1, 0)).reason, Reason::BudgetHeld);
    one.sent();
    drop(one);
    assert_eq!(world.usage(Unit::Bytes), (1_000_000, 0));
    assert_eq!(world.refusal(WEB, piece(1, 0)).reason, Reason::BudgetExhausted);
}

#[test]
fn a_piece_is_taken_of_every_limit_or_of_none() {
    let world = World::new(&[bytes(1_000_000), seconds(2)]);
    let mut hold = world.hold(WEB, piece(100, 60)).unwrap();
    assert_eq!(hold.allowance().seconds, Some(1));
    world.quota.extend(&mut hold, &piece(0, 60), now()).unwrap();
    assert_eq!((hold.allowance().bytes, hold.allowance().seconds), (Some(100), Some(2)));
    let refused = world.quota.extend(&mut hold, &piece(100, 60), now()).unwrap_err();
    assert_eq!(refused.reason, Reason::BudgetExhausted, "nobody else holds any of it");
    assert_eq!(world.usage(Unit::Bytes), (0, 100), "nothing is left of the piece");
    assert_eq!(hold.charges().iter().map(|charge| charge.amount).collect::<Vec<_>>(), [100, 2]);
    hold.sent();
    let settled = hold.settle(&piece(70, 3));
    assert!(!settled.exceeded);
    assert_eq!(settled.charges.iter().map(|charge| charge.amount).collect::<Vec<_>>(), [70, 2]);
}

#[test]
fn a_connection_lasts_no_longer_than_the_window_in_which_it_counts() {
    let rolling = LimitKind::Counted(Window::rolling(SignedDuration::from_hours(1)));
    let hourly = Limit { id: "grant/test/bytes/hour/shared".into(), kind: rolling, ..bytes(1_000_000) };
    let world = World::new(&[bytes(1_000_000), hourly]);
    let hold = world.hold(WEB, piece(100, 0)).unwrap();
    let lasts = hold.allowance().lasts.unwrap();
    assert!((3_600..3_700).contains(&lasts.as_secs()), "{lasts:?}");
    let daily = World::new(&[bytes(1_000_000)]);
    let mut hold = daily.hold(WEB, piece(100, 0)).unwrap();
    assert_eq!(hold.allowance().lasts, Some(Duration::from_secs(12 * 3_600)));
    let tomorrow = now() + SignedDuration::from_hours(13);
    let refused = daily.quota.extend(&mut hold, &piece(100, 0), tomorrow).unwrap_err();
    assert_eq!(refused.reason, Reason::BudgetExhausted, "its window is over");
    assert_eq!(World::new(&[tokens(1)]).hold(WEB, demand(1, 0)).unwrap().allowance(), Allowance::default());
}
