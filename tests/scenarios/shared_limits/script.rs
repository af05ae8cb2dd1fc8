//! The script inside Redis against the arithmetic of the policy crate, which is the one that is explored.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use tollgate_policy::limit::slices::{Ask, Asker, Entry, Holder, Life, PoolName, PoolStore, Reply, Share};
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

fn told(known: &BTreeMap<Holder, Share>) -> String {
    let share = |(holder, share): (&Holder, &Share)| {
        let Share { ceiling, spent, resets_at, counts_for, .. } = share;
        format!("{holder},{ceiling},{spent},{resets_at},{counts_for};")
    };
    known.iter().map(share).collect()
}

fn named(life: Life) -> String {
    format!("r{}:{}", life.run, life.begun)
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}

/// The answer of the policy crate, as the script puts it.
fn expected(reply: &Reply) -> Vec<String> {
    let flag = |is: bool| if is { "1" } else { "0" };
    match reply {
        Reply::Refused(Entry::Superseded { latest }) => vec!["superseded".to_owned(), latest.to_string()],
        Reply::Refused(Entry::Overtaken { latest }) => vec!["overtaken".to_owned(), latest.to_string()],
        Reply::Refused(Entry::Taken(_)) => unreachable!("it is not refused"),
        Reply::Taken { standing, grants, wanted } => {
            let word = if standing.rebuilding { "rebuilding" } else { "granting" };
            let mut lines = vec![
                word.to_owned(),
                named(standing.life),
                standing.lapses.to_string(),
                flag(standing.heard).to_owned(),
                standing.live.to_string(),
                standing.ended.to_string(),
                wanted.len().to_string(),
            ];
            lines.extend(sorted(wanted.iter().map(ToString::to_string).collect()));
            for grant in grants {
                let wanted = if grant.preceded { "p" } else { flag(grant.wanted) };
                let others = told(&grant.others);
                let others = sorted(others.split_terminator(';').map(str::to_owned).collect());
                lines.extend([grant.more.to_string(), wanted.to_owned(), grant.others_spent.to_string()]);
                lines.push(others.join(";"));
            }
            lines
        }
    }
}

fn answered(text: &str, counts: usize) -> Vec<String> {
    let mut lines: Vec<_> = text.strip_suffix('\n').unwrap_or(text).split('\n').map(str::to_owned).collect();
    if lines.len() == 2 {
        return lines;
    }
    let grants = lines.split_off(lines.len() - 4 * counts);
    let wanted = lines.split_off(7);
    lines.extend(sorted(wanted));
    for grant in grants.chunks(4) {
        let others = sorted(grant[3].split_terminator(';').map(str::to_owned).collect());
        lines.extend_from_slice(&grant[..3]);
        lines.push(others.join(";"));
    }
    lines
}

/// One process, as it knows the store.
struct Process {
    holder: Holder,
    turn: u64,
    life: Option<Life>,
    lapses: u64,
}

impl Process {
    fn new(replica: &str, process: u64) -> Self {
        Self { holder: Holder { replica: replica.into(), process }, turn: 0, life: None, lapses: 0 }
    }
}

fn random_ask(random: &mut Random, processes: &[Process], now: u64) -> Ask {
    let mut known = BTreeMap::new();
    if random.below(8) == 0 {
        let holder = &processes[random.below(processes.len() as u64) as usize].holder;
        let resets_at = if random.below(2) == 0 { 0 } else { now + random.below(5_000) };
        let (ceiling, spent, counts_for) = (random.below(90), random.below(40), random.below(5_000));
        known.insert(holder.clone(), Share { ceiling, spent, resets_at, counts_for, told_at: 0 });
    }
    Ask {
        cap: 400 + random.below(3) * 100,
        keep: random.below(120),
        spent: random.below(60),
        need: random.below(3) * random.below(150),
        want: random.below(300),
        resets_in: random.below(2) * random.below(3_000),
        counts_for: random.below(4_000),
        known,
    }
}

fn arguments(asker: &Asker<'_>, asks: &[(PoolName, Ask)]) -> Vec<String> {
    let flag = |is: bool| if is { "1" } else { "0" }.to_owned();
    let mut all = vec![
        asker.holder.replica.to_string(),
        asker.holder.process.to_string(),
        asker.turn.to_string(),
        asker.lease.to_string(),
        asker.life.map_or_else(|| "-".to_owned(), named),
        asker.lapses.to_string(),
        flag(asker.whole),
        flag(asker.leaving),
        flag(asker.reports),
    ];
    for (_, ask) in asks {
        let Ask { cap, keep, spent, need, want, resets_in, counts_for, known } = ask;
        all.extend([cap, keep, spent, need, want, resets_in, counts_for].map(ToString::to_string));
        all.push(told(known));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_does_what_the_explored_arithmetic_does() {
    needs!(Redis::installed());
    let redis = Redis::start(&Sandbox::new()).await;
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as u64 | 1;
    println!("seed {seed}");
    let (mut random, script) = (Random(seed), script());
    let (mut store, mut run) = (PoolStore::default(), 1_u64);
    let mut processes: Vec<Process> = ["a", "b", "c", "d"].map(|replica| Process::new(replica, 1)).into();
    // Far in the future, so that the server itself lets nothing expire.
    let mut now = 4_000_000_000_000_u64;
    let (mut granted, mut superseded, mut preceded) = (0, 0, 0);
    for step in 0..STEPS {
        now += 1 + random.below(if step % 10 == 0 { 3_000 } else { 150 });
        if random.below(100) == 0 {
            run += 1;
        }
        if random.below(60) == 0 {
            let holder = &processes[random.below(4) as usize].holder;
            processes.push(Process::new(&holder.replica, 2 + step as u64));
        }
        // The latest ones of the four replicas, and now and then any.
        let number = if random.below(6) == 0 { processes.len() as u64 } else { 4 };
        let of = ["a", "b", "c", "d"][random.below(4) as usize];
        let latest = processes.iter().rposition(|process| &*process.holder.replica == of).expect("a process");
        let at = if number == 4 { latest } else { random.below(number) as usize };
        let counts = random.below(3) as usize;
        let names = if random.below(2) == 0 { ["x:y", "z"] } else { ["z", "x:y"] };
        let asks: Vec<(PoolName, Ask)> = names[..counts]
            .iter()
            .map(|name| ((*name).into(), random_ask(&mut random, &processes, now)))
            .collect();
        let process = &mut processes[at];
        process.turn += 1;
        let turn = if random.below(20) == 0 {
            process.turn.saturating_sub(random.below(9)).max(1)
        } else {
            process.turn
        };
        let strange = Life { run: 9, begun: random.below(3) };
        let life = if random.below(80) == 0 { Some(strange) } else { process.life };
        let asker = Asker {
            holder: &process.holder,
            turn,
            life,
            lapses: process.lapses,
            whole: random.below(6) > 0,
            leaving: random.below(30) == 0,
            reports: process.holder.process % 4 == 3,
            lease: LEASE,
        };
        let reply = store.batch(run, asker, &asks, now);
        let keys: Vec<String> = ["t{t}", "t{t}:leases", "t{t}:wanted"].map(str::to_owned).into();
        let keys = keys.into_iter().chain(asks.iter().map(|(name, _)| format!("t{{t}}:{name}")));
        let mut command = vec!["EVAL".to_owned(), script.clone(), (3 + counts).to_string()];
        command.extend(keys.chain(arguments(&asker, &asks)));
        command.extend([format!("r{run}"), now.to_string()]);
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let answer = answered(&redis.ask(&command), counts);
        assert_eq!(answer, expected(&reply), "seed {seed}, step {step}: {asker:?} {asks:?}");
        match reply {
            Reply::Taken { standing, grants, .. } => {
                (process.life, process.lapses) = (Some(standing.life), standing.lapses);
                granted += grants.iter().map(|grant| grant.more).sum::<u64>();
                preceded += usize::from(grants.iter().any(|grant| grant.preceded));
            }
            Reply::Refused(Entry::Superseded { .. }) => superseded += 1,
            Reply::Refused(_) => {}
        }
    }
    println!("granted {granted}, superseded {superseded}, preceded {preceded}");
    assert!(granted > 0 && superseded > 0 && preceded > 0, "seed {seed}: too little happened");
}
