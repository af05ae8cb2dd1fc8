//! Checks of a ledger whose calls are in a database of several replicas too: each finds what somebody has changed in the other.

use tollgate_tests::fixture::CHAT_ONLY;
use tollgate_tests::gateway::eventually;
use tollgate_tests::ledger::{Segment, records, segments};
use tollgate_tests::postgres::Postgres;
use tollgate_tests::provider::chat;
use tollgate_tests::{Fixture, Gateway, Plan, needs};

use crate::postgres_ledger::Database;

const CALLS: usize = 12;
const CHAT: &str = "/up/v1/chat/completions";

async fn served(database: &Database, name: &str) -> Fixture {
    let mut plan = Plan::openai(CHAT_ONLY);
    plan.settings.ledger = database.settings(&plan.sandbox, name);
    // What they cost is verified as well.
    let fixture = plan.start_openai(1_000, 500).await;
    let client = fixture.checkout();
    for _ in 0..CALLS {
        client.post(CHAT, &chat(1_000)).await.assert_status(200);
    }
    fixture
}

fn verify(gateway: &Gateway) -> (bool, String) {
    let output = gateway.tollgate(&["ledger", "verify"]);
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn assert_found(gateway: &Gateway, what: &[&str]) {
    let (good, said) = verify(gateway);
    assert!(!good && what.iter().all(|what| said.contains(what)), "{what:?}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_or_a_segment_that_somebody_changed_is_found_and_named() {
    needs!(Postgres::installed());
    let database = Database::start().await;
    let mut one = served(&database, "one").await;
    let two = served(&database, "two").await;
    eventually("the database has all", || database.records() == 2 * CALLS).await;
    for fixture in [&one, &two] {
        let (good, said) = verify(&fixture.gateway);
        assert!(good, "{said}");
        for name in ["one", "two"] {
            let vouches = format!("vouches for {CALLS} records of replica {name} and the chains of");
            assert!(said.contains(&vouches) && said.contains("agrees in number and sum"), "{said}");
        }
    }
    // A row that was removed is missed by each replica, and named by the one that has its record.
    let gone = records(&two.gateway)[5]["id"].as_str().unwrap().to_owned();
    database.ask("create table kept as select * from tollgate.records");
    database.ask(&format!("delete from tollgate.records where id = '{gone}'"));
    assert_found(&one.gateway, &["of replica two", "12 records of", "11 records of"]);
    assert_found(&two.gateway, &["of replica two", &format!("took in its record {gone}")]);
    database.ask(&format!("insert into tollgate.records select * from kept where id = '{gone}'"));
    assert!(verify(&one.gateway).0);
    // One that was added.
    database.ask("insert into tollgate.records select gen_random_uuid(), at, replica, corrects, record from kept limit 1");
    assert_found(&one.gateway, &["and has 13 records of"]);
    database.ask("delete from tollgate.records where id not in (select id from kept)");
    // What a call cost, and what calls add up to.
    let costly = format!(
        "update tollgate.records set record = jsonb_set(record::jsonb, '{{cost}}', '7')::json where id = '{gone}'"
    );
    database.ask(&costly);
    assert_found(
        &one.gateway,
        &["of replica two", "12 records of 15000000 nano-USD", "12 records of 13750007 nano-USD"],
    );
    assert_found(&two.gateway, &[&format!("its record {gone}")]);
    database.ask(&format!(
        "update tollgate.records r set record = k.record from kept k where r.id = k.id and k.id = '{gone}'"
    ));
    for (table, per) in [("sums", "minute"), ("sums_by_hour", "hour"), ("sums_by_day", "day")] {
        database.ask(&format!("update tollgate.{table} set requests = requests + 1 where replica = 1"));
        assert_found(&two.gateway, &[&format!("the sums by the {per} of replica one")]);
        database.ask(&format!("update tollgate.{table} set requests = requests - 1 where replica = 1"));
    }
    assert!(verify(&two.gateway).0);
    // The database has seen what somebody rewrites or cuts off, though no seal has.
    assert!(one.gateway.stop().success());
    let path =
        segments(&one.gateway).into_iter().max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let mut segment = Segment::read(&path);
    segment.batches.pop();
    segment.write(&path);
    assert_found(&one.gateway, &["cut off", "the database of several replicas names entry"]);
    std::fs::write(&path, &whole).unwrap();
    assert!(verify(&one.gateway).0);
    std::fs::remove_file(&path).unwrap();
    assert_found(&one.gateway, &["missing; "]);
}
