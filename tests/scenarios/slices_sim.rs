//! Many replicas and one budget on a virtual clock: the bounds that the rules of slices keep whatever the order of calls.

use tollgate_tests::slices_sim::{Setting, simulate};

const SMALL: Setting =
    Setting { replicas: 20, callers: 400, cap: 550_000, time: 40_000, fewer_at: 10_000, ..Setting::LARGE };

#[test]
fn many_replicas_spend_one_budget_whole_and_ask_for_little() {
    for seed in 1..=5 {
        let setting = Setting { seed, ..SMALL };
        let seen = simulate(setting);
        println!("seed {seed}\n{seen}");
        assert_eq!(seen.overspent, 0, "seed {seed}");
        assert!(seen.last_call < setting.lease + setting.time, "seed {seed}: it is used up before the end");
        assert!(seen.left < 150, "seed {seed}: {} are unused, which a call could have had", seen.left);
        // Near the end what is unused lies in crumbs that no call fits into, until others are settled.
        assert!(seen.starved < 6_000, "seed {seed}: starved for {} ms", seen.starved);
        assert!(seen.refused_while_free * 5 < seen.calls, "seed {seed}: {}", seen.refused_while_free);
        // Unused for five seconds, looked at once in a third of a lease, and told by then.
        assert!(seen.idle < 5_000 + setting.lease / 3 + 1_000, "seed {seed}: idle for {} ms", seen.idle);
        assert!(seen.batches * 1_000 < setting.time * setting.replicas * 6, "seed {seed}: {}", seen.batches);
    }
    assert_eq!(simulate(SMALL).to_string(), simulate(SMALL).to_string(), "a seed says all");
}

#[test]
fn replicas_that_use_nothing_send_next_to_nothing() {
    let setting = Setting { callers: 0, ..SMALL };
    let seen = simulate(setting);
    assert!(
        seen.batches <= setting.replicas * (6 + 3 * (setting.time + setting.lease) / setting.lease),
        "{seen}"
    );
    assert_eq!((seen.asks, seen.slices), (0, 0));
}

#[test]
fn a_store_that_answers_late_has_nobody_refused_while_most_is_free() {
    for seed in 1..=5 {
        let setting = Setting { seed, ..Setting::BUSY };
        let seen = simulate(setting);
        println!("seed {seed}\n{seen}");
        assert_eq!(seen.overspent, 0, "seed {seed}");
        assert!(seen.left < setting.need.1, "seed {seed}: {} are unused", seen.left);
        // The answer may come after two messages that each take as long as a call waits: for those few the first slice is too late.
        assert!(seen.refused_while_slice_free * 50 < seen.calls, "seed {seed}: {seen}");
    }
}
