//! The script inside Redis against the arithmetic of the policy crate, which is the one that is explored.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use tollgate_policy::limit::slices::{Ask, Asker, Entry, Granted, Memory, Pool, ReplicaId, Share};
use tollgate_tests::redis::Redis;
use tollgate_tests::{Sandbox, needs};

const STEPS: usize = 1_500;
const LEASE: u64 = 1_000;

/// Numbers that look random; the seed is printed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// The script with its clock and the life of its server as the last two arguments.
fn script() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/src/quota/slice_store/sync.lua");
    let text = std::fs::read_to_string(file).expect("the script");
    let lines = text.lines().map(|line| match line {
        line if line.starts_with("local now = ") => "local now = tonumber(ARGV[#ARGV])",
        line if line.starts_with("local run = ") => "local run = ARGV[#ARGV - 1]",
        line => line,
    });
    let patched: Vec<_> = lines.collect();
    assert_eq!(patched.iter().filter(|line| line.contains("#ARGV")).count(), 2, "the script has changed");
    patched.join("\n")
}

fn told(known: &BTreeMap<ReplicaId, Share>) -> String {
    let share = |(id, share): (&ReplicaId, &Share)| {
        format!("{id},{},{},{};", share.ceiling, share.spent, share.drops_at)
    };
    known.iter().map(share).collect()
}

/// What the script answers, put as the answer of the policy crate.
fn expected(entry: Entry, turn: u64, grant: Option<&Granted>) -> Vec<String> {
    match (entry, grant) {
        (Entry::Overtaken { latest }, _) => vec!["overtaken".to_owned(), latest.to_string()],
        (entry, Some(grant)) => {
            let word = if entry == Entry::Granting { "granting" } else { "rebuilding" };
            let wanted = if grant.wanted { "1" } else { "0" };
            let mut others: Vec<_> = told(&grant.others).split_terminator(';').map(str::to_owned).collect();
            others.sort();
            let numbers = [grant.more.to_string(), wanted.to_owned(), grant.others_spent.to_string()];
            [vec![word.to_owned(), turn.to_string()], numbers.to_vec(), others].concat()
        }
        (_, None) => Vec::new(),
    }
}

fn answered(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    if lines[0] == "overtaken" {
        lines.truncate(2);
        return lines;
    }
    // How many replicas there are is the store's own.
    lines.remove(2);
    let mut others: Vec<_> = lines.split_off(5).concat().split_terminator(';').map(str::to_owned).collect();
    others.sort();
    lines.extend(others);
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_does_what_the_explored_arithmetic_does() {
    needs!(Redis::installed());
    let redis = Redis::start(&Sandbox::new()).await;
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as u64 | 1;
    println!("seed {seed}");
    let (mut random, script) = (Random(seed), script());
    let replicas: [ReplicaId; 4] = ["a", "b", "c", "d"].map(Into::into);
    let (mut memory, mut pool, mut run, mut turn) = (Memory::default(), Pool::default(), 1_u64, 0_u64);
    // Far in the future, so that the server itself lets nothing expire.
    let mut now = 4_000_000_000_000_u64;
    let mut granted = 0;
    for step in 0..STEPS {
        now += random.below(if step % 10 == 0 { 3_000 } else { 150 });
        if random.below(100) == 0 {
            run += 1;
        }
        turn += 1;
        let number = if random.below(20) == 0 { turn.saturating_sub(random.below(9) + 1) } else { turn };
        let replica = &replicas[random.below(4) as usize];
        let known = (random.below(8) == 0).then(|| {
            let share = Share {
                ceiling: random.below(90),
                spent: random.below(40),
                lease_end: 0,
                drops_at: now + random.below(5_000),
            };
            BTreeMap::from([(replicas[random.below(4) as usize].clone(), share)])
        });
        let ask = Ask {
            cap: 400 + random.below(3) * 100,
            keep: random.below(120),
            spent: random.below(60),
            need: random.below(3) * random.below(150),
            want: random.below(300),
            lease: LEASE,
            counts_for: random.below(4_000),
            known: known.unwrap_or_default(),
        };
        let whole = random.below(3) == 0;
        let entry = memory.enter(run, Asker { replica, turn: number, whole, lease: LEASE }, now);
        let grant = match entry {
            Entry::Overtaken { .. } => None,
            entry => Some(pool.sync(&memory, replica, &ask, entry == Entry::Granting, now)),
        };
        granted += grant.as_ref().map_or(0, |grant| grant.more);
        let numbers = [ask.cap, ask.keep, ask.spent, ask.need, ask.want, ask.counts_for]
            .map(|number| number.to_string());
        let (number_text, lease, now_text) = (number.to_string(), LEASE.to_string(), now.to_string());
        let (run_text, known) = (format!("r{run}"), told(&ask.known));
        let mut arguments = vec![
            "EVAL",
            &script,
            "2",
            "t{t}",
            "t{t}:a",
            replica,
            &number_text,
            &lease,
            if whole { "1" } else { "0" },
        ];
        arguments.extend(numbers.iter().map(String::as_str));
        arguments.extend([known.as_str(), &run_text, &now_text]);
        let answer = answered(&redis.ask(&arguments));
        assert_eq!(answer, expected(entry, number, grant.as_ref()), "seed {seed}, step {step}: {ask:?}");
    }
    assert!(granted > 0, "nothing was granted");
}
