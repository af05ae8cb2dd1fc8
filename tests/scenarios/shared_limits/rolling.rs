//! Replicas behind a balancer, which are stopped and started one after the other while calls go on.

use std::collections::BTreeSet;
use std::error::Error as _;

use tollgate_tests::client::Failure;
use tollgate_tests::haproxy::Haproxy;
use tollgate_tests::postgres::Postgres;

use super::*;
use crate::postgres_ledger::Database;

/// How long calls go on before and after each replica's turn.
const PAUSE: Duration = Duration::from_secs(2);

/// Calls over this protocol until it is told to stop, and returns the ids of what was answered. No call is made twice; over a connection
/// that was closed none is made at all.
async fn caller(client: Client, protocol: Protocol, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut ids = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let mut connection = client.open(protocol).await.expect("a connection");
        while !stop.load(Ordering::SeqCst) && !connection.closed() {
            let answer = match connection.send(client.json(CHAT, &chat(100))).await {
                Ok(answer) => answer,
                // Over HTTP/2 a connection may say that it goes away while a request is made for it, which then is not processed.
                Err(error) if protocol == Protocol::H2 && was_not_processed(&error) => break,
                Err(error) => panic!("over {protocol:?}: {error:?}"),
            };
            answer.assert_status(200);
            ids.push(answer.header("x-tollgate-request-id").to_owned());
            if answer.header("connection") == "close" {
                break;
            }
        }
    }
    ids
}

/// Whether the gateway did not process the request: its connection took none any more, or a GOAWAY says so (RFC 9113, section 6.8). One
/// that was processed all the same has a record that nobody waits for.
fn was_not_processed(error: &Failure) -> bool {
    let Some(error) = error.downcast_ref::<hyper::Error>() else { return false };
    let gone = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    let is_told = gone.is_some_and(|error| {
        error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
    });
    is_told || error.is_canceled() || error.is_closed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_behind_a_balancer_are_rolled_without_a_call_or_a_record_lost() {
    needs!(Redis::installed() && Postgres::installed() && Haproxy::installed());
    // What was spent stays in a rolling window, also at midnight.
    let limit = "{tokens: 1000000000, per: day, window: rolling}";
    let plan = Plan::openai(&format!("{CHAT_ONLY}  limits: [{limit}]\n"));
    let redis = Redis::start(&plan.sandbox).await;
    let database = Database::start().await;
    let way = format!("addresses: [\"127.0.0.1:{}\"]", redis.port());
    let password = redis.password().to_owned();
    let ledgers = ["a", "b", "c"].map(|name| database.settings(&plan.sandbox, name));
    let mut replicas =
        Replicas::with(plan, redis, (&way, &password), &ledgers, |call| 100 + call % 100).await;
    replicas.granting().await;
    for gateway in &mut replicas.gateways {
        // The balancer has to see that a replica is not ready before it takes no more connections.
        gateway.edit_settings("drain: {delay: 100ms", "drain: {delay: 1s");
        gateway.stop();
        gateway.restart().await;
    }
    replicas.granting().await;
    let behind: Vec<_> =
        replicas.gateways.iter().map(|gateway| (gateway.address(), gateway.admin())).collect();
    let balancer = Haproxy::balancing(&replicas.plan.sandbox, &behind).await;
    tokio::time::sleep(Duration::from_secs(1)).await;

    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..12)
        .map(|n| {
            let client = replicas.client(n % 3).at(balancer.address());
            let protocol = if n % 2 == 0 { Protocol::H1 } else { Protocol::H2 };
            tokio::spawn(caller(client, protocol, stop.clone()))
        })
        .collect();
    for gateway in &mut replicas.gateways {
        tokio::time::sleep(PAUSE).await;
        gateway.begin_drain();
        let ended = gateway.ended().await;
        assert!(ended.success(), "{ended}");
        gateway.restart().await;
    }
    tokio::time::sleep(PAUSE).await;
    stop.store(true, Ordering::SeqCst);
    let mut answered = Vec::new();
    for caller in callers {
        answered.extend(caller.await.expect("a caller that was answered each time"));
    }
    println!("{} calls were answered while three replicas were rolled", answered.len());
    let wanted: BTreeSet<String> = answered.iter().cloned().collect();
    assert_eq!(wanted.len(), answered.len());
    eventually("the database has each call", || database.records() == answered.len()).await;
    let seen: BTreeSet<String> = database
        .ask("select replace(id::text, '-', '') from tollgate.records")
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(seen, wanted);
    let count = answered.len().to_string();
    assert_eq!(database.counts(), [(); 4].map(|()| count.clone()));
    assert_eq!(replicas.billed.load(Ordering::SeqCst), replicas.sum("tollgate_limit_spent") as u64);
}
