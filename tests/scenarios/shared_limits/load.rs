//! Much load on one budget while each part of what it rests on fails in turn.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use tollgate_tests::namespace::{has_namespaces, is_inside, run};
use tollgate_tests::postgres::Postgres;
use tollgate_tests::sentinel::{PRIMARY, Sentinels};

use super::*;
use crate::postgres_ledger::Database;

/// How many calls the budget pays for, about; as many as `TOLLGATE_SHARED_CALLS` says.
const CALLS: usize = 3_000;
/// What a call costs at most, in tokens. It is held meanwhile, with what its own text may cost.
const DEAREST: u64 = 3_000;
const HOLD: u64 = 4_400;
/// A slice is at least for so many calls.
const CALLS_OF_A_SLICE: u64 = 8;
const CUT: Duration = Duration::from_secs(10);

/// What calls were answered with, and what is to be known of each.
#[derive(Default)]
struct Tally {
    /// The ids of answered calls.
    paid: Mutex<Vec<String>>,
    under_way: AtomicU64,
    /// Something that the budget rests on fails, or did a short while ago.
    is_troubled: AtomicBool,
    refused_in_trouble: AtomicUsize,
    refused: Mutex<Vec<Refusal>>,
    broken: AtomicUsize,
    other: Mutex<Vec<String>>,
}

/// A refusal in good times.
struct Refusal {
    /// What nobody had spent or held.
    free: u64,
    /// How many calls were answered by then.
    answered: usize,
    reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {} with {} free", self.reason, self.answered, self.free)
    }
}

impl Tally {
    fn answered(&self) -> usize {
        self.paid.lock().unwrap().len()
    }

    /// Nothing was overspent, and nobody was refused for nothing.
    fn judge(&self, billed: u64, amount: u64) {
        let refused = self.refused.lock().unwrap();
        let most_free = refused.iter().map(|refusal| refusal.free).max().unwrap_or(0);
        let early: Vec<_> = refused.iter().filter(|refusal| refusal.free > HOLD * CALLS_OF_A_SLICE).collect();
        println!(
            "{} answered, {} of {amount} tokens billed; refused {} times in trouble, {} times in good times with at most {most_free} \
             free, {} times with more than a few calls' worth; {} broken off; {:?}",
            self.answered(),
            billed,
            self.refused_in_trouble.load(Ordering::SeqCst),
            refused.len(),
            early.len(),
            self.broken.load(Ordering::SeqCst),
            early.iter().step_by(early.len() / 40 + 1).map(ToString::to_string).collect::<Vec<_>>(),
        );
        assert!(self.other.lock().unwrap().is_empty(), "{:?}", self.other.lock().unwrap());
        assert!(billed <= amount, "overspent by {}", billed - amount);
        assert!(
            most_free <= HOLD * CALLS_OF_A_SLICE,
            "a call was refused while {most_free} tokens were free"
        );
        // Only the calls of the replica that was killed have broken off.
        assert!(self.broken.load(Ordering::SeqCst) <= 10);
    }
}

/// What the budget rests on.
enum Fails {
    Replica,
    Redis,
    Primary,
    Network,
}

/// Has it fail, and come back.
async fn fail(replicas: &mut Replicas<Sentinels>, fails: Fails) {
    match fails {
        Fails::Replica => {
            replicas.gateways[2].kill();
            tokio::time::sleep(LEASE).await;
            replicas.gateways[2].restart().await;
        }
        Fails::Redis => {
            let primary = replicas.redis.primary();
            replicas.redis.servers[primary].kill();
            replicas.redis.servers[primary].restart().await;
        }
        Fails::Primary => {
            replicas.redis.fail_over().await;
            // Until it has a copy nobody acknowledges anything, and nothing is granted.
            let primary = replicas.redis.primary();
            eventually("the new primary has a copy", || {
                let copies = replicas.redis.servers[primary].ask(&["INFO", "replication"]);
                copies.contains("connected_slaves:1") && copies.contains("state=online")
            })
            .await;
        }
        Fails::Network => {
            run("nft add table inet cut");
            run("nft add chain inet cut out { type filter hook output priority 0 ; }");
            for server in &replicas.redis.servers {
                run(&format!("nft add rule inet cut out tcp dport {} drop", server.port()));
            }
            tokio::time::sleep(CUT).await;
            run("nft delete table inet cut");
        }
    }
}

/// Calls until the budget has run out, whatever becomes of its replica meanwhile.
async fn caller(client: Client, tally: Arc<Tally>, billed: Arc<AtomicU64>, amount: u64) {
    loop {
        let Ok(mut connection) = client.open(Protocol::H1).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        loop {
            tally.under_way.fetch_add(1, Ordering::SeqCst);
            let answer = connection.send(client.json(CHAT, &chat(100))).await;
            let under_way = tally.under_way.fetch_sub(1, Ordering::SeqCst) - 1;
            let Ok(answer) = answer else {
                tally.broken.fetch_add(1, Ordering::SeqCst);
                break;
            };
            match (answer.status.as_u16(), answer.header("x-tollgate-reason")) {
                (200, _) => {
                    let id = answer.header("x-tollgate-request-id").to_owned();
                    tally.paid.lock().unwrap().push(id);
                    continue;
                }
                (429, reason @ ("budget_held" | "budget_exhausted"))
                | (503, reason @ "limits_unavailable") => {
                    if tally.is_troubled.load(Ordering::SeqCst) {
                        tally.refused_in_trouble.fetch_add(1, Ordering::SeqCst);
                    } else {
                        let taken = billed.load(Ordering::SeqCst) + under_way * HOLD;
                        let free = amount.saturating_sub(taken);
                        let is_over = reason == "budget_exhausted";
                        let (answered, reason) = (tally.answered(), reason.to_owned());
                        tally.refused.lock().unwrap().push(Refusal { free, answered, reason });
                        if is_over {
                            return;
                        }
                    }
                }
                (status, reason) => tally.other.lock().unwrap().push(format!("{status} {reason}")),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Waits until so many calls were answered, while what is spent and held stays under the amount.
async fn reach(replicas: &Replicas<Sentinels>, tally: &Tally, count: usize, amount: u64) {
    let begun = Instant::now();
    while tally.answered() < count {
        let (spent, held) = (replicas.sum("tollgate_limit_spent"), replicas.sum("tollgate_limit_held"));
        assert!(spent + held <= amount as f64, "spent {spent}, held {held}");
        assert!(
            begun.elapsed() < Duration::from_secs(300),
            "{} of {count} after 5 minutes",
            tally.answered()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// After trouble: the store hears everybody for the length of a lease, then slices are asked for again.
async fn calm(tally: &Tally) {
    tokio::time::sleep(LEASE * 2).await;
    tally.is_troubled.store(false, Ordering::SeqCst);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_overspent_or_lost_while_each_part_fails_in_turn() {
    needs!(Redis::installed() && Postgres::installed() && has_namespaces());
    const NAME: &str = "shared_limits::load::nothing_is_overspent_or_lost_while_each_part_fails_in_turn";
    if !is_inside(NAME) {
        return;
    }
    run("ip link set lo up");
    let calls =
        std::env::var("TOLLGATE_SHARED_CALLS").ok().and_then(|calls| calls.parse().ok()).unwrap_or(CALLS);
    let amount = calls as u64 * DEAREST / 2;
    let plan = Plan::openai(&format!("{CHAT_ONLY}  limits: [{{tokens: {amount}, per: day}}]\n"));
    // A cut is shorter than it takes the sentinels to call a server gone: a failover comes when it is asked for.
    let sentinels = Sentinels::start(&plan.sandbox, CUT * 2).await;
    let database = Database::start().await;
    let addresses: Vec<String> = sentinels.addresses().iter().map(|at| format!("\"{at}\"")).collect();
    let way = format!("addresses: [{}], sentinel: {PRIMARY}", addresses.join(", "));
    let password = sentinels.password().to_owned();
    let ledgers = ["a", "b", "c"].map(|name| database.settings(&plan.sandbox, name));
    let cost = |call: u64| call.wrapping_mul(7919) % DEAREST;
    let mut replicas = Replicas::with(plan, sentinels, (&way, &password), &ledgers, cost).await;
    replicas.granting().await;

    let tally = Arc::new(Tally::default());
    let callers: Vec<_> = (0..30)
        .map(|n| tokio::spawn(caller(replicas.client(n % 3), tally.clone(), replicas.billed.clone(), amount)))
        .collect();
    for (part, fails) in
        [Fails::Replica, Fails::Redis, Fails::Primary, Fails::Network].into_iter().enumerate()
    {
        reach(&replicas, &tally, calls * (part + 1) / 6, amount).await;
        tally.is_troubled.store(true, Ordering::SeqCst);
        fail(&mut replicas, fails).await;
        calm(&tally).await;
    }
    for caller in callers {
        caller.await.expect("a caller");
    }
    tally.judge(replicas.billed.load(Ordering::SeqCst), amount);
    eventually("nothing is held", || replicas.sum("tollgate_limit_held") == 0.0).await;
    let answered: BTreeSet<String> = tally.paid.lock().unwrap().iter().cloned().collect();
    assert_eq!(answered.len(), tally.answered(), "ids are each one call's");
    eventually("the database has every answered call", || {
        let seen: BTreeSet<String> = database
            .ask("select replace(id::text, '-', '') from tollgate.records")
            .lines()
            .map(str::to_owned)
            .collect();
        answered.is_subset(&seen)
    })
    .await;
    assert_eq!(database.ask("select count(*) - count(distinct id) from tollgate.records"), "0");
    let counts = database.counts();
    assert!(counts.iter().all(|count| *count == counts[3]), "sums are those of the records: {counts:?}");
}
