//! A database of the ledger that is slow, or full: calls go on as if it were not there, and it has each of them once in the end.

use std::time::{Duration, Instant};

use tollgate_tests::gateway::eventually;
use tollgate_tests::namespace::has_namespaces;
use tollgate_tests::needs;
use tollgate_tests::postgres::Postgres;
use tollgate_tests::report::{assert_verified, report, requests};

use crate::postgres_ledger::{Database, call, up};

/// How long a batch takes: longer than a call may.
const SLEEP: u64 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_database_holds_up_no_call_and_has_each_once() {
    needs!(Postgres::installed());
    let database = Database::start().await;
    let mut fixture = database.replica("one").await;
    call(&fixture, 5).await;
    eventually("the first are in", || database.records() == 5).await;
    database.ask(&format!(
        "create function public.sleep() returns trigger language plpgsql as \
         $$ begin perform pg_sleep({SLEEP}); return null; end $$"
    ));
    database.ask(
        "create trigger slow before insert on tollgate.records for each statement execute function public.sleep()",
    );
    let (begun, mut calls) = (Instant::now(), 5);
    while begun.elapsed() < Duration::from_secs(SLEEP + 2) {
        call(&fixture, 20).await;
        calls += 20;
        if begun.elapsed() > Duration::from_secs(2) && begun.elapsed() < Duration::from_secs(SLEEP / 2) {
            assert_eq!(database.records(), 5, "it keeps up, so nothing is shown");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(up(&fixture), 1.0, "slow is not down");
    // A report waits for no batch, and reads in the journal at hand what the database has not.
    let begun = Instant::now();
    let seen = requests(&report(&fixture.gateway, "destination"));
    assert_eq!(seen, calls as u64);
    assert!(begun.elapsed() < Duration::from_secs(SLEEP / 2), "the report waited");
    database.ask("drop trigger slow on tollgate.records");
    eventually("the rest is in", || database.records() >= calls).await;
    assert_eq!(database.counts(), std::array::from_fn(|_| calls.to_string()));
    assert_verified(&fixture.gateway);
    assert!(fixture.gateway.stop().success());
    fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_database_holds_up_no_call_and_has_each_once_there_is_room() {
    needs!(Postgres::installed() && has_namespaces() && Postgres::has_mounts());
    let database = Database::on_small_disk(24).await;
    let mut fixture = database.replica("one").await;
    call(&fixture, 5).await;
    eventually("the first are in", || database.records() == 5).await;
    database.ask("create table filler (text text)");
    database.ask("alter table filler alter column text set storage plain");
    let fill = "insert into filler select repeat('x', 7000) from generate_series(1, 100)";
    let full = (0..100).map(|_| database.psql(fill)).find(|output| !output.status.success());
    let full = String::from_utf8_lossy(&full.expect("its disk is never full").stderr).into_owned();
    assert!(full.contains("No space left on device"), "{full}");
    call(&fixture, 300).await;
    eventually("the metric says that it is down", || up(&fixture) == 0.0).await;
    let told = |what: &str| fixture.gateway.log().iter().any(|line| line.to_string().contains(what));
    eventually("it is said why", || told("No space left on device")).await;
    call(&fixture, 20).await;
    assert!(database.records() < 325);
    database.ask("drop table filler");
    eventually("the rest is in", || database.records() >= 325).await;
    assert_eq!(database.counts(), ["325"; 4].map(str::to_owned));
    eventually("the metric says that it is up", || up(&fixture) == 1.0).await;
    assert_eq!(requests(&report(&fixture.gateway, "destination")), 325);
    assert_verified(&fixture.gateway);
    assert!(fixture.gateway.stop().success());
    fixture.sandbox.assert_swept();
}
