//! Many threads on the same counts.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

const THREADS: u64 = 8;

/// No count may be past its amount, at any time that anybody looks.
fn sample(world: &World) {
    for line in world.quota.usage(now()) {
        assert!(line.spent + line.held <= line.amount, "{line:?}");
    }
}

#[test]
fn spent_and_held_stay_under_every_cap_after_every_operation() {
    let shared = [tokens(20_000), spend(30_000), concurrency(6)];
    let keyed = limit(Unit::Requests, 900, day(), LimitKey::Caller);
    let world = World::new(&[&shared[..], &[keyed]].concat());
    let (booked, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (world, booked, refused) = (&world, &booked, &refused);
            scope.spawn(move || {
                let mut held = Vec::new();
                for step in 0..2_000 {
                    let most = demand(step % 37, step % 53);
                    match world.hold(if thread % 2 == 0 { WEB } else { API }, most) {
                        Ok(mut hold) => {
                            hold.sent();
                            held.push(hold);
                        }
                        Err(_) => drop(refused.fetch_add(1, Ordering::Relaxed)),
                    }
                    sample(world);
                    if held.len() > (step % 3) as usize {
                        let hold = held.remove(0);
                        let tokens = hold.charges().iter().find(|charge| charge.limit.contains("tokens"));
                        let reserved = tokens.map_or(0, |charge| charge.amount);
                        let used = match step % 5 {
                            0 => {
                                hold.release();
                                0
                            }
                            1 => {
                                drop(hold);
                                reserved
                            }
                            _ => {
                                let _ = hold.settle(&demand(reserved / 2, 0));
                                reserved / 2
                            }
                        };
                        booked.fetch_add(used, Ordering::Relaxed);
                        sample(world);
                    }
                }
                held.into_iter().for_each(Hold::release);
            });
        }
    });
    assert_eq!(world.usage(Unit::Tokens), (booked.into_inner(), 0));
    assert_eq!(world.usage(Unit::Concurrency), (0, 0));
    assert!(refused.into_inner() > 0, "nothing was contended");
}

#[test]
fn a_budget_of_a_hundred_calls_affords_exactly_a_hundred() {
    const COST: u64 = 1_000;
    const HOLD: u64 = 20 * COST;
    for _ in 0..10 {
        let world = World::new(&[spend(99 * COST + HOLD)]);
        let (settled, waited) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    loop {
                        match world.hold(WEB, demand(0, HOLD)) {
                            Ok(mut hold) => {
                                hold.sent();
                                sample(&world);
                                std::thread::yield_now();
                                let _ = hold.settle(&demand(0, COST));
                                settled.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(denial) if denial.reason == Reason::BudgetHeld => {
                                waited.fetch_add(1, Ordering::Relaxed);
                                std::thread::yield_now();
                            }
                            Err(denial) => {
                                assert_eq!(denial.reason, Reason::BudgetExhausted);
                                break;
                            }
                        }
                        sample(&world);
                    }
                });
            }
        });
        assert_eq!(settled.into_inner(), 100);
        assert_eq!(world.usage(Unit::Spend), (100 * COST, 0));
    }
}
