//! What the search finds, and that it finds what breaks a rule.

use super::*;

const STEPS: [Step; 30] = [
    Step::Hold(0),
    Step::Hold(1),
    Step::Settle(0),
    Step::Settle(1),
    Step::Sync(0, 0),
    Step::Sync(1, 0),
    Step::Sync(0, CALL),
    Step::Sync(1, CALL),
    Step::Renew(0),
    Step::Renew(1),
    Step::ReplyLost(0),
    Step::ReplyLost(1),
    Step::Linger(0),
    Step::Linger(1),
    Step::Arrive(0),
    Step::Arrive(1),
    Step::Crash(0),
    Step::Crash(1),
    Step::Restart(0),
    Step::Restart(1),
    Step::Restore(0),
    Step::Restore(1),
    Step::Tick,
    Step::Copy,
    Step::FailOver,
    Step::LoseAll,
    Step::Recall(0),
    Step::Recall(1),
    Step::Close(0),
    Step::Close(1),
];

const TWO_STORES: [Step; 12] = [
    Step::Hold(0),
    Step::Hold(1),
    Step::Settle(0),
    Step::Sync(0, CALL),
    Step::Sync(1, CALL),
    Step::Renew(0),
    Step::Renew(1),
    Step::Tick,
    Step::Part,
    Step::Follow,
    Step::Heal,
    Step::FailBack,
];

const TWO_PROCESSES: [Step; 11] = [
    Step::Hold(0),
    Step::Hold(1),
    Step::Hold(2),
    Step::Settle(0),
    Step::Settle(2),
    Step::Sync(0, CALL),
    Step::Sync(1, 0),
    Step::Sync(2, CALL),
    Step::Renew(0),
    Step::Tick,
    Step::Duplicate,
];

const BEGUN: [Step; 4] = [Step::Sync(0, 0), Step::Hold(0), Step::Sync(1, 0), Step::Sync(0, 0)];

#[test]
fn no_order_of_steps_spends_more_than_there_is() {
    let worlds = explore(World::new(), &STEPS, 5);
    assert!(worlds > 10_000, "{worlds} worlds");
}

#[test]
fn nor_does_one_from_where_things_have_begun_to_go_wrong() {
    for wrong in [
        &[Step::LoseAll][..],
        &[Step::Copy, Step::Sync(0, CALL), Step::FailOver],
        &[Step::Crash(0), Step::Tick, Step::Tick],
        &[Step::Crash(0), Step::Restart(0), Step::Sync(0, 0)],
        &[
            Step::Sync(1, 0),
            Step::Crash(0),
            Step::LoseAll,
            Step::Restart(0),
            Step::Sync(0, 0),
            Step::Sync(1, 0),
        ],
        &[Step::Linger(0), Step::ReplyLost(0)],
        &[Step::Tick, Step::Renew(0), Step::Tick, Step::Renew(0), Step::Tick],
        &[Step::Tick, Step::Tick, Step::LoseAll],
        &[Step::LoseAll, Step::Sync(1, 0), Step::Tick],
        &[Step::LoseAll, Step::Sync(0, 0), Step::Sync(1, 0), Step::Tick, Step::Tick],
        &[Step::Crash(0), Step::Close(0), Step::Tick, Step::Tick, Step::Sync(1, 0)],
        &[Step::Sync(1, 0), Step::Crash(0), Step::LoseAll, Step::Recall(0), Step::Sync(1, 0), Step::Tick],
        &[Step::LoseAll, Step::Recall(0), Step::Recall(1), Step::Sync(0, 0), Step::Tick],
    ] {
        let world = World::new().after_all(&BEGUN).after_all(wrong);
        let worlds = explore(world, &STEPS, 4);
        assert!(worlds > 1_000, "{worlds} worlds after {wrong:?}");
    }
}

/// Steps of which each is possible.
fn led(broken: Broken, steps: &[Step]) -> World {
    // At the beginning of a window.
    let world = World::begun(RULES.window - RULES.lease, broken);
    steps
        .iter()
        .fold(world, |world, step| world.after(*step).unwrap_or_else(|| panic!("{step:?}: {world:#?}")))
}

#[test]
fn two_stores_at_once_never_grant_the_same() {
    for begun in [&[Step::Copy][..], &[Step::Copy, Step::Sync(0, CALL)], &[Step::Sync(0, CALL), Step::Copy]] {
        let parted = World::new().after_all(&BEGUN).after_all(begun);
        let worlds = explore(parted, &TWO_STORES, 7);
        assert!(worlds > 5_000, "{worlds} worlds after {begun:?}");
    }
}

#[test]
fn two_processes_with_one_directory_never_spend_its_share_twice() {
    for begun in [&[][..], &BEGUN[..], &[Step::Sync(0, 0), Step::Sync(1, 0), Step::Hold(0), Step::Settle(0)]]
    {
        let worlds = explore(World::new().after_all(begun), &TWO_PROCESSES, 8);
        assert!(worlds > 5_000, "{worlds} worlds after {begun:?}");
    }
}

#[test]
fn what_is_not_promised_is_reached_by_breaking_a_rule() {
    let finds = |broken: Broken, begun: &[Step], steps: &[Step], depth: usize| {
        let world = led(broken, begun);
        let search = std::panic::AssertUnwindSafe(|| explore(world, steps, depth));
        std::panic::catch_unwind(search).is_err()
    };
    // The replica that has come back says that it has told all before it knows what its ledger says; nobody else's word counts then.
    let lost = [
        Step::Sync(0, 0),
        Step::Hold(0),
        Step::Sync(1, 0),
        Step::Crash(0),
        Step::LoseAll,
        Step::Sync(1, 0),
        Step::Sync(1, 0),
        Step::Restart(0),
        Step::Sync(0, 0),
        Step::Sync(0, 0),
        Step::Tick,
        Step::Sync(1, 0),
        Step::Tick,
    ];
    assert!(finds(Broken::Whole, &lost, &STEPS, 4));
    let parted = [
        Step::Sync(0, 0),
        Step::Hold(0),
        Step::Copy,
        Step::Part,
        Step::Sync(1, 0),
        Step::Sync(1, 0),
        Step::Renew(0),
        Step::Tick,
        Step::Renew(0),
        Step::Sync(1, 0),
        Step::Tick,
    ];
    assert!(finds(Broken::Acknowledgement, &parted, &TWO_STORES, 4));
    let copied = [
        Step::Sync(0, 0),
        Step::Hold(0),
        Step::Sync(0, CALL),
        Step::Duplicate,
        Step::Hold(0),
        Step::Sync(2, CALL),
        Step::Sync(2, CALL),
        Step::Tick,
        Step::Tick,
    ];
    assert!(finds(Broken::Silence, &copied, &TWO_PROCESSES, 4));
    // What is under way when a replica dies is in no ledger before that is told whole.
    let died = [
        Step::Sync(0, CALL),
        Step::Hold(0),
        Step::Crash(0),
        Step::Close(0),
        Step::Tick,
        Step::Tick,
        Step::Sync(1, 0),
    ];
    assert!(finds(Broken::Estate, &died, &STEPS, 4));
    // A store that grants before it has heard everybody.
    let mut world = led(Broken::Nothing, &[Step::Sync(0, 0), Step::Hold(0), Step::LoseAll]);
    let sent = world.ask(1, 0).expect("it asks");
    let mut ask = sent.ask.clone().expect("of its count");
    ask.need = RULES.cap;
    let life = Life { run: 2, begun: 0 };
    let standing = Standing { life, lapses: 0, rebuilding: false, heard: true, live: 2, ended: 0 };
    let granted = Pool::default().sync(&Memory::default(), &sent.holder, &ask, &standing, world.now);
    world.nodes[1].slice.take(granted, false, world.now);
    assert!(world.most() > RULES.cap);
}
