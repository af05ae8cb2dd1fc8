//! Replicas that are gone, some with their disks: what they had spent is known by the ledger's database, and what they had not is given back.

use std::fs;

use tollgate_tests::postgres::Postgres;

use super::*;
use crate::postgres_ledger::Database;

const AMOUNT: u64 = 60_000;
/// What a call holds at most, and may strand.
const HOLD: u64 = 6_000;

async fn replicas(
    database: &Database,
    names: &[&str],
    cost: impl Fn(u64) -> u64 + Send + Sync + 'static,
) -> Replicas {
    let plan = Plan::openai(&format!("{CHAT_ONLY}  limits: [{{tokens: {AMOUNT}, per: day}}]\n"));
    let redis = Redis::start(&plan.sandbox).await;
    let (way, password) =
        (format!("addresses: [\"127.0.0.1:{}\"]", redis.port()), redis.password().to_owned());
    let ledgers: Vec<_> = names.iter().map(|name| database.settings(&plan.sandbox, name)).collect();
    let replicas = Replicas::with(plan, redis, (&way, &password), &ledgers, cost).await;
    replicas.granting().await;
    replicas
}

/// Makes so many calls, each again while another replica has what it needs.
async fn spend(replicas: &Replicas, replica: usize, calls: usize) {
    let client = replicas.client(replica);
    for _ in 0..calls {
        let begun = Instant::now();
        while {
            let answer = client.post(CHAT, &chat(100)).await;
            let is_held = answer.header("x-tollgate-reason") == "budget_held";
            assert!(is_held || answer.status == 200, "{}", answer.status);
            is_held
        } {
            assert!(begun.elapsed() < Duration::from_secs(20), "it is held for too long");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Spends what there is, and returns what the provider has billed in all.
async fn exhaust(replicas: &Replicas, replica: usize) -> u64 {
    let answers = Arc::new(Answers::default());
    let insisting = insist(replicas.client(replica), answers.clone(), Arc::default());
    tokio::time::timeout(Duration::from_secs(60), insisting)
        .await
        .unwrap_or_else(|_| panic!("it is not exhausted: {answers:?}"));
    replicas.billed.load(Ordering::SeqCst)
}

fn said(gateway: &Gateway, what: &str) -> bool {
    gateway.log().iter().any(|line| line.to_string().contains(what))
}

fn run(gateway: &Gateway, arguments: &[&str]) -> (bool, String) {
    let output = gateway.tollgate(arguments);
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_replicas_with_an_empty_redis_know_what_those_before_have_spent() {
    needs!(Redis::installed() && Postgres::installed());
    let database = Database::start().await;
    let mut replicas = replicas(&database, &["a", "b"], |_| 1_000).await;
    spend(&replicas, 0, 20).await;
    spend(&replicas, 1, 15).await;
    let paid = "select count(*) from tollgate.records where record->>'status' = '200'";
    eventually("the database has all calls", || database.ask(paid) == "35").await;
    assert!(replicas.gateways[0].stop().success());
    replicas.gateways[1].kill();
    for gateway in &replicas.gateways {
        fs::remove_dir_all(gateway.home().join("data")).expect("its disk");
    }
    replicas.redis.kill();
    replicas.redis.restart().await;
    for gateway in &mut replicas.gateways {
        gateway.restart().await;
    }
    replicas.granting().await;
    assert!(said(&replicas.gateways[0], "is told what the ledger's database says of other replicas"));
    let by_all = || {
        replicas.gateways[1].metrics().sum("tollgate_limit_spent_by_all", &[&format!("limit=\"{LIMIT}\"")])
    };
    eventually("both know it", || by_all() == 35_000.0).await;
    let billed = exhaust(&replicas, 0).await;
    assert!(billed <= AMOUNT && AMOUNT - billed < HOLD, "{billed}");
    replicas.plan.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_killed_replica_had_leased_is_given_back_once_its_disk_is_taken_in() {
    needs!(Redis::installed() && Postgres::installed());
    let database = Database::start().await;
    let slow = |call: u64| {
        if call == 3 {
            tokio::task::block_in_place(|| std::thread::sleep(Duration::from_secs(8)));
        }
        1_000
    };
    let mut replicas = replicas(&database, &["a", "b"], slow).await;
    spend(&replicas, 0, 3).await;
    eventually("the database has them", || database.records() == 3).await;
    let client = replicas.client(0);
    let under_way = tokio::spawn(async move {
        client.open(Protocol::H1).await.unwrap().send(client.json(CHAT, &chat(100))).await
    });
    eventually("a call is under way", || replicas.upstream.count() == 4).await;
    let gateway = &replicas.gateways[0];
    let (leased, held) = (
        gateway.metrics().sum("tollgate_limit_leased", &[]) as u64,
        gateway.metrics().sum("tollgate_limit_held", &[]) as u64,
    );
    assert!(leased > 3_000 + held && held > 1_000, "{leased} leased, {held} held");
    replicas.gateways[0].kill();
    assert!(under_way.await.unwrap().is_err());
    tokio::time::sleep(LEASE * 2).await;
    let billed = exhaust(&replicas, 1).await;
    assert!(billed + leased - 4_000 <= AMOUNT, "{billed} beside the dead one's {leased}");

    // As if it were a while ago: until then its calls could be under way.
    database.ask("update tollgate.replicas set last_seen = last_seen - interval '1 hour' where name = 'a'");
    let data = replicas.gateways[0].home().join("data").display().to_string();
    let (good, text) = run(&replicas.gateways[1], &["ledger", "replay", "--data", &data]);
    assert!(good && text.contains("1 call left open") && text.contains("1 record taken in"), "{text}");
    eventually("what it had not used is given back", || {
        said(&replicas.gateways[1], "had leased and not spent is given back")
    })
    .await;
    // The call that was under way counts as all that it held.
    let billed = exhaust(&replicas, 1).await;
    let counted = billed - 1_000 + held;
    assert!(counted <= AMOUNT && AMOUNT - counted < HOLD, "{counted}: {billed} with {held} presumed");
    let (good, text) = run(&replicas.gateways[1], &["ledger", "replay", "--data", &data]);
    assert!(good && text.contains("0 records taken in"), "{text}");
    // A directory that is served is not touched: what is open there is under way.
    replicas.gateways[0].restart().await;
    let (good, text) = run(&replicas.gateways[1], &["ledger", "replay", "--data", &data]);
    assert!(good && text.contains("a gateway has"), "{text}");
    eventually("the database has each record once", || {
        database.ask("select count(*) - count(distinct id) from tollgate.records") == "0"
            && database.counts().iter().all(|count| *count == database.records().to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_disk_is_lost_counts_whole_until_somebody_says_so() {
    needs!(Redis::installed() && Postgres::installed());
    let database = Database::start().await;
    let mut replicas = replicas(&database, &["a", "b"], |_| 1_000).await;
    spend(&replicas, 0, 3).await;
    eventually("the database has them", || database.records() == 3).await;
    let leased = replicas.gateways[0].metrics().sum("tollgate_limit_leased", &[]) as u64;
    replicas.gateways[0].kill();
    fs::remove_dir_all(replicas.gateways[0].home().join("data")).expect("its disk");
    tokio::time::sleep(LEASE * 2).await;
    let billed = exhaust(&replicas, 1).await;
    assert!(billed + leased - 3_000 <= AMOUNT, "{billed} beside the dead one's {leased}");
    let forget = ["ledger", "replicas", "--forget", "a"];
    let (good, text) = run(&replicas.gateways[1], &forget);
    assert!(!good && text.contains("was not left behind"), "{text}");
    database.ask("update tollgate.replicas set last_seen = last_seen - interval '1 hour' where name = 'a'");
    let (good, text) = run(&replicas.gateways[1], &["ledger", "replicas"]);
    assert!(good && text.contains("left behind"), "{text}");
    let (good, text) = run(&replicas.gateways[1], &forget);
    assert!(good && text.contains("gone for good"), "{text}");
    let (good, text) = run(&replicas.gateways[1], &["ledger", "replicas"]);
    assert!(good && text.contains("forgotten"), "{text}");
    assert_ne!(database.ask("select forgotten_by from tollgate.replicas where name = 'a'"), "");
    eventually("what it had not used is given back", || {
        said(&replicas.gateways[1], "had leased and not spent is given back")
    })
    .await;
    let billed = exhaust(&replicas, 1).await;
    assert!(billed <= AMOUNT && AMOUNT - billed < HOLD, "{billed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_database_replicas_go_on_by_what_they_know_and_say_so() {
    needs!(Redis::installed() && Postgres::installed());
    let mut database = Database::start().await;
    let mut replicas = replicas(&database, &["a", "b"], |_| 1_000).await;
    spend(&replicas, 0, 3).await;
    eventually("the database has them", || database.records() == 3).await;
    database.stop();
    replicas.redis.kill();
    replicas.redis.restart().await;
    let silent = "does not say what replicas have spent that are gone";
    eventually("it is said", || replicas.gateways.iter().all(|gateway| said(gateway, silent))).await;
    replicas.granting().await;
    spend(&replicas, 1, 3).await;
    let billed = exhaust(&replicas, 0).await;
    assert!(billed <= AMOUNT && AMOUNT - billed < HOLD, "{billed}");
    let lines = replicas.gateways[0].log();
    let count = lines.iter().filter(|line| line.to_string().contains(silent)).count();
    assert_eq!(count, 1, "one line for each time that the store has lost something");
}
