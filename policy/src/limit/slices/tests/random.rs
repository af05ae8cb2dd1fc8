//! Many replicas in many random orders of many steps.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Hold(usize, u64),
    Settle(usize, u64),
    Sync(usize, u64),
    Renew(usize),
    ReplyLost(usize),
    Wait(u64),
    Crash(usize),
}

fn steps(nodes: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..nodes, 1_u64..60).prop_map(|(node, amount)| Step::Hold(node, amount)),
        4 => (0..nodes, 0_u64..=100).prop_map(|(node, percent)| Step::Settle(node, percent)),
        4 => (0..nodes, 0_u64..60).prop_map(|(node, need)| Step::Sync(node, need)),
        3 => (0..nodes).prop_map(Step::Renew),
        1 => (0..nodes).prop_map(Step::ReplyLost),
        1 => prop_oneof![1_u64..2_000, 5_000_u64..30_000].prop_map(Step::Wait),
        1 => (0..nodes).prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 1..300)
}

proptest! {
    #[test]
    fn many_replicas_never_come_to_more_than_the_amount(nodes in 2_usize..12, steps in steps(12)) {
        let rules = Rules { cap: 500, want: 80, ..RULES };
        let (mut server, mut nodes, mut now) = settled(rules, nodes);
        let (count, mut process) = (nodes.len(), 1);
        for step in steps {
            match step {
                Step::Hold(node, amount) => drop(nodes[node % count].hold(amount, now)),
                Step::Settle(node, percent) => {
                    let node = &mut nodes[node % count];
                    node.spent += node.held * percent / 100;
                    node.held = 0;
                }
                Step::Sync(node, need) => drop(round(&mut server, &mut nodes[node % count], rules, need, now)),
                Step::Renew(node) => {
                    let sent = nodes[node % count].renew(rules.lease);
                    let reply = server.batch(&sent, now);
                    nodes[node % count].take(&sent, reply, now);
                }
                Step::ReplyLost(node) => {
                    let asked = nodes[node % count].ask(rules, 20, 0, now);
                    drop(server.batch(&asked, now));
                }
                Step::Wait(time) => {
                    let before = now;
                    now += time;
                    if before / rules.window != now / rules.window {
                        nodes.iter_mut().for_each(|node| (node.spent, node.held) = (0, 0));
                    }
                }
                // What was held is presumed to have been spent.
                Step::Crash(node) => {
                    process += 1;
                    nodes[node % count] = nodes[node % count].successor(process);
                }
            }
            let most: u64 = nodes.iter().map(|node| node.most(now)).sum();
            prop_assert!(most <= rules.cap, "{most} at {now}");
        }
    }

    /// Calls at once: nothing is spent, a call ends with its process, and one of a replica that is cut off may last for a window.
    #[test]
    fn no_more_calls_are_under_way_than_there_are_places(nodes in 2_usize..8, steps in steps(8)) {
        let rules = Rules { cap: 20, want: 3, window: 60_000, ..RULES };
        let (mut server, mut nodes, mut now) = settled(rules, nodes);
        let (count, mut process) = (nodes.len(), 1);
        let mut begun = vec![0; count];
        for step in steps {
            match step {
                Step::Hold(node, _) => {
                    let at = node % count;
                    let first = nodes[at].held == 0;
                    if nodes[at].hold(1, now) && first {
                        begun[at] = now;
                    }
                }
                Step::Settle(node, _) => nodes[node % count].held = 0,
                Step::Sync(node, need) => {
                    let node = &mut nodes[node % count];
                    let mut sent = node.ask(rules, need % 3, need % 5, now);
                    if let Some(ask) = &mut sent.ask {
                        (ask.resets_in, ask.counts_for) = (0, rules.window);
                    }
                    let reply = server.batch(&sent, now);
                    node.take(&sent, reply, now);
                }
                Step::Renew(node) => {
                    let sent = nodes[node % count].renew(rules.lease);
                    let reply = server.batch(&sent, now);
                    nodes[node % count].take(&sent, reply, now);
                }
                Step::ReplyLost(node) => {
                    let sent = nodes[node % count].renew(rules.lease);
                    drop(server.batch(&sent, now));
                }
                Step::Wait(time) => {
                    now += time;
                    for (node, begun) in nodes.iter_mut().zip(&begun) {
                        node.held = if now >= begun + rules.window { 0 } else { node.held };
                    }
                }
                Step::Crash(node) => {
                    process += 1;
                    nodes[node % count].held = 0;
                    nodes[node % count] = nodes[node % count].successor(process);
                }
            }
            let most: u64 = nodes.iter().map(|node| node.most(now)).sum();
            prop_assert!(most <= rules.cap, "{most} at {now}");
        }
    }

    /// The bound on refusals: who is refused gets it as soon as each other one has asked twice, unless it is used.
    #[test]
    fn nobody_is_refused_for_longer_than_two_rounds_while_what_it_needs_is_unused(
        holds in prop::collection::vec((0_u64..200, 0_u64..200), 2..12), need in 1_u64..400,
    ) {
        let rules = Rules { cap: 1_000, want: 300, ..RULES };
        let (mut server, mut nodes, now) = settled(rules, holds.len());
        for (node, (leased, held)) in nodes.iter_mut().zip(holds) {
            round(&mut server, node, rules, leased, now);
            node.hold(held, now);
        }
        let used = |nodes: &[Node]| nodes.iter().map(Node::used).sum::<u64>();
        if round(&mut server, &mut nodes[0], rules, need, now) < need {
            for _ in 0..2 {
                for node in nodes.iter_mut().skip(1) {
                    round(&mut server, node, rules, 0, now);
                }
            }
            let fits = used(&nodes) + need <= rules.cap;
            prop_assert_eq!(round(&mut server, &mut nodes[0], rules, need, now) >= need, fits);
        }
    }
}
