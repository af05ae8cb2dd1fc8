//! The ledgers of several replicas in one PostgreSQL: reports see all of them, and no call waits for it.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;
use tollgate_tests::gateway::eventually;
use tollgate_tests::ledger::{Segment, records, segments};
use tollgate_tests::postgres::Postgres;
use tollgate_tests::report::{assert_verified, report, requests};
use tollgate_tests::{Authority, Fixture, Gateway, Plan, Reply, Sandbox, needs};

/// A server with TLS, and the authority that verifies it.
pub(crate) struct Database {
    server: Postgres,
    pki: Authority,
}

impl Database {
    pub(crate) async fn start() -> Self {
        Self::with_disk(None).await
    }

    /// One whose tables are on a disk of so many MiB.
    pub(crate) async fn on_small_disk(size: u32) -> Self {
        let database = Self::with_disk(Some(size)).await;
        let disk = database.server.small_disk();
        database.ask(&format!("create tablespace small location '{}'", disk.display()));
        database.ask("alter role shop set default_tablespace = small");
        database
    }

    async fn with_disk(size: Option<u32>) -> Self {
        let sandbox = Sandbox::new();
        let pki = Authority::new(&sandbox, "database");
        let identity = pki.server(&sandbox, &["localhost"]);
        Self { server: Postgres::with_disk(&sandbox, Some(&identity), size).await, pki }
    }

    /// The member of the settings for a sandbox, whose sweep then looks for the password.
    pub(crate) fn settings(&self, sandbox: &Sandbox, name: &str) -> String {
        sandbox.needle(self.server.password());
        let password = sandbox.input("ledger.password", self.server.password());
        self.settings_with(name, &password, self.pki.bundle())
    }

    fn settings_with(&self, name: &str, password: &Path, bundle: &Path) -> String {
        format!(
            "replica: {name}, postgres: {{address: \"localhost:{}\", database: postgres, user: shop, \
             passwordFile: {}, tls: {{caFile: {}}}}}",
            self.server.port(),
            password.display(),
            bundle.display()
        )
    }

    pub(crate) fn stop(&mut self) {
        self.server.stop();
    }

    pub(crate) fn psql(&self, query: &str) -> Output {
        self.server.psql(SocketAddr::from(([127, 0, 0, 1], self.server.port())), "require", query)
    }

    pub(crate) fn ask(&self, query: &str) -> String {
        let output = self.psql(query);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// How many records it has; none before a gateway made its tables.
    pub(crate) fn records(&self) -> usize {
        if self.ask("select to_regclass('tollgate.records') is not null") != "t" {
            return 0;
        }
        self.ask("select count(*) from tollgate.records").parse().unwrap()
    }

    /// What the sums by the minute, the hour and the day, and the records each say of how many requests there were.
    pub(crate) fn counts(&self) -> [String; 4] {
        [
            "select sum(requests) from tollgate.sums",
            "select sum(requests) from tollgate.sums_by_hour",
            "select sum(requests) from tollgate.sums_by_day",
            "select sum(coalesce((record->>'count')::bigint, 1)) from tollgate.records",
        ]
        .map(|query| self.ask(query))
    }

    pub(crate) async fn replica(&self, name: &str) -> Fixture {
        let mut plan = Plan::new();
        plan.settings.ledger = self.settings(&plan.sandbox, name);
        plan.start(|_| Reply::status(200).data("fine")).await
    }
}

/// Makes so many calls, each of which has to be answered at once.
pub(crate) async fn call(fixture: &Fixture, calls: usize) {
    let client = fixture.checkout();
    for _ in 0..calls {
        let begun = Instant::now();
        client.get("/up/x").await.assert_status(200);
        assert!(begun.elapsed() < Duration::from_secs(5), "a call waited for the database");
    }
}

fn ids(gateway: &Gateway) -> BTreeSet<String> {
    records(gateway).iter().map(|record| record["id"].as_str().unwrap().to_owned()).collect()
}

fn json(gateway: &Gateway, arguments: &[&str]) -> Value {
    let output = gateway.tollgate(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub(crate) fn up(fixture: &Fixture) -> f64 {
    fixture.gateway.metrics().sum("tollgate_ledger_up", &["part=\"postgres\""])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_any_replica_has_every_call_of_each_once() {
    needs!(Postgres::installed());
    let database = Database::start().await;
    let mut replicas = Vec::new();
    for (name, calls) in [("one", 5), ("two", 7), ("three", 9)] {
        let fixture = database.replica(name).await;
        call(&fixture, calls).await;
        replicas.push(fixture);
    }
    eventually("every record is in the database", || database.records() >= 21).await;
    assert_eq!(database.counts(), ["21"; 4].map(str::to_owned));
    let mut all = BTreeSet::new();
    for fixture in &replicas {
        assert_eq!(requests(&report(&fixture.gateway, "destination")), 21);
        assert_verified(&fixture.gateway);
        all.extend(ids(&fixture.gateway));
    }
    let calls = json(&replicas[0].gateway, &["calls", "--format", "json", "--limit", "100"]);
    let shown: BTreeSet<_> =
        calls.as_array().unwrap().iter().map(|call| call["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!((shown.len(), &shown), (21, &all));
    let other = ids(&replicas[2].gateway).into_iter().next().unwrap();
    let call = json(&replicas[0].gateway, &["calls", &other, "--format", "json"]);
    assert_eq!((&call["id"], &call["destination"]), (&other.as_str().into(), &"up".into()));
    let settle = ["ledger", "settle", &other, "--input", "1", "--output", "1", "--cost", "1 USD"];
    let refused = replicas[0].gateway.tollgate(&settle);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("replica three made this call"), "{said}");
    let alone = replicas[0].gateway.tollgate(&[
        "report",
        "--by",
        "destination",
        "--format",
        "json",
        "--data",
        "data",
    ]);
    let alone: Value = serde_json::from_slice(&alone.stdout).unwrap();
    assert_eq!(alone[0]["requests"], 5, "who names a data directory asks for one replica");
    for fixture in &mut replicas {
        assert!(fixture.gateway.stop().success());
    }
    let states = json(&replicas[0].gateway, &["ledger", "replicas", "--format", "json"]);
    let states: Vec<_> =
        states.as_array().unwrap().iter().map(|it| (it["name"].clone(), it["state"].clone())).collect();
    assert_eq!(states, ["one", "two", "three"].map(|name| (name.into(), "ended".into())));
    for fixture in &replicas {
        fixture.sandbox.assert_swept();
    }
}

/// How long the database is away at least: so many seconds as `TOLLGATE_DATABASE_AWAY` says.
fn away() -> Duration {
    let said = std::env::var("TOLLGATE_DATABASE_AWAY").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(said.unwrap_or(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_holds_up_no_call_and_has_everything_afterwards() {
    needs!(Postgres::installed());
    let mut database = Database::start().await;
    let mut fixture = database.replica("one").await;
    call(&fixture, 20).await;
    eventually("the first are in", || database.records() == 20).await;
    database.server.stop();
    let stopped = Instant::now();
    let mut meanwhile = 0;
    while meanwhile < 200 || stopped.elapsed() < away() {
        call(&fixture, 10).await;
        meanwhile += 10;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eventually("the metric says so", || up(&fixture) == 0.0).await;
    let waiting = || fixture.gateway.metrics().sum("tollgate_ledger_postgres_waiting_bytes", &[]);
    eventually("it is known what waits", || waiting() > 0.0).await;
    let said = fixture.gateway.tollgate(&["report"]);
    let error = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(!said.status.success() && error.contains("ledger.postgres.address"), "{error}");
    // A start does not wait for it either.
    assert!(fixture.gateway.stop().success());
    fixture.gateway.restart().await;
    call(&fixture, 10).await;
    database.server.restart().await;
    call(&fixture, 10).await;
    let all = 20 + meanwhile + 10 + 10;
    println!("{meanwhile} calls were made while the database was away for {:?}", stopped.elapsed());
    eventually("the rest is in", || database.records() >= all).await;
    assert_eq!(database.counts(), std::array::from_fn(|_| all.to_string()));
    assert_eq!(requests(&report(&fixture.gateway, "destination")), all as u64);
    eventually("the metric says so", || up(&fixture) == 1.0).await;
    let lines = fixture.gateway.log();
    let failures =
        lines.iter().filter(|line| line.to_string().contains("the database of the ledger fails")).count();
    assert!((1..=2).contains(&failures), "one line for each start, not for each attempt: {failures}");
    assert!(fixture.gateway.stop().success());
    fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_and_gateways_that_are_killed_count_nothing_twice() {
    needs!(Postgres::installed());
    let database = Database::start().await;
    let mut fixture = database.replica("one").await;
    let cut =
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'tollgate'";
    for round in 0..6 {
        call(&fixture, 25).await;
        database.ask(cut);
        if round % 3 == 2 {
            fixture.gateway.kill();
            fixture.gateway.restart().await;
        }
    }
    call(&fixture, 10).await;
    let count = |fixture: &Fixture| records(&fixture.gateway).len();
    eventually("everything is in", || database.records() == count(&fixture)).await;
    let all = count(&fixture);
    assert!(all >= 160, "{all}");
    assert_eq!(database.counts(), [(); 4].map(|()| all.to_string()));
    // Whatever was taken in before is not taken in again.
    let replay = fixture.gateway.tollgate(&["ledger", "replay"]);
    let said =
        String::from_utf8_lossy(&replay.stdout).into_owned() + &String::from_utf8_lossy(&replay.stderr);
    assert!(replay.status.success() && said.contains("0 records taken in"), "{said}");
    assert_eq!(database.counts(), [(); 4].map(|()| all.to_string()));
    // A database that lost everything is built again.
    assert!(fixture.gateway.stop().success());
    database.ask("drop schema tollgate cascade");
    let replay = fixture.gateway.tollgate(&["ledger", "replay"]);
    assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
    assert_eq!(database.counts(), [(); 4].map(|()| all.to_string()));
    assert_verified(&fixture.gateway);
    // The database has seen what somebody cuts off.
    let path =
        segments(&fixture.gateway).into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut segment = Segment::read(&path);
    segment.batches.pop();
    segment.write(&path);
    let verified = fixture.gateway.tollgate(&["ledger", "verify"]);
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(
        !verified.status.success() && said.contains("the database of several replicas names entry"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_left_behind_is_named_and_can_be_taken_in() {
    needs!(Postgres::installed());
    let mut database = Database::start().await;
    let mut lost = database.replica("lost").await;
    let kept = database.replica("kept").await;
    call(&lost, 3).await;
    eventually("the first are in", || database.records() == 3).await;
    database.server.stop();
    call(&lost, 4).await;
    lost.gateway.kill();
    database.server.restart().await;
    call(&kept, 2).await;
    eventually("the others are in", || database.records() == 5).await;
    // As if it were a while ago.
    database
        .ask("update tollgate.replicas set last_seen = last_seen - interval '1 hour' where name = 'lost'");
    let output = kept.gateway.tollgate(&["report", "--by", "destination", "--format", "json"]);
    let warning = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && warning.contains("replica lost was last seen at"), "{warning}");
    let states = json(&kept.gateway, &["ledger", "replicas", "--format", "json"]);
    assert_eq!((&states[0]["name"], &states[0]["state"]), (&"lost".into(), &"left behind".into()));
    let data = lost.gateway.home().join("data");
    let replay = kept.gateway.tollgate(&["ledger", "replay", "--data", &data.display().to_string()]);
    let said =
        String::from_utf8_lossy(&replay.stdout).into_owned() + &String::from_utf8_lossy(&replay.stderr);
    assert!(replay.status.success() && said.contains("4 records taken in"), "{said}");
    assert_eq!(requests(&report(&kept.gateway, "destination")), 9);
    let states = json(&kept.gateway, &["ledger", "replicas", "--format", "json"]);
    assert_eq!((&states[0]["name"], &states[0]["waiting_bytes"]), (&"lost".into(), &0.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_used_is_told_by_the_setting_and_calls_go_on() {
    needs!(Postgres::installed());
    let database = Database::start().await;
    let mut plan = Plan::new();
    let good = database.settings(&plan.sandbox, "one");
    plan.settings.ledger.clone_from(&good);
    let mut fixture = plan.start(|_| Reply::status(200).data("fine")).await;
    call(&fixture, 1).await;
    eventually("it is in", || database.records() == 1).await;
    assert!(fixture.gateway.stop().success());
    let wrong = fixture.sandbox.input("wrong.password", fixture.sandbox.canary("wrong"));
    let other = Authority::new(&fixture.sandbox, "other");
    let right = fixture.sandbox.inputs().join("ledger.password");
    let absent = fixture.sandbox.inputs().join("absent.password");
    let bundle = database.pki.bundle();
    for (settings, field) in [
        (database.settings_with("one", &wrong, bundle), "ledger.postgres.passwordFile"),
        (database.settings_with("one", &absent, bundle), "ledger.postgres.passwordFile"),
        (database.settings_with("one", &right, other.bundle()), "ledger.postgres.tls.caFile"),
        (good.replace("database: postgres", "database: nowhere"), "ledger.postgres.database"),
    ] {
        fixture.gateway.edit_settings(&good, &settings);
        let said = fixture.gateway.tollgate(&["report"]);
        let error = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success() && error.contains(field), "{field}: {error}");
        fixture.gateway.restart().await;
        call(&fixture, 1).await;
        let told = || fixture.gateway.log().iter().any(|line| line.to_string().contains(field));
        eventually("the log names the setting", told).await;
        assert!(fixture.gateway.stop().success());
        fixture.gateway.edit_settings(&settings, &good);
    }
    database.ask("update tollgate.layout set version = 9");
    let said = fixture.gateway.tollgate(&["report"]);
    let error = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(error.contains("ledger.postgres.database") && error.contains("number 9"), "{error}");
    database.ask("update tollgate.layout set version = 2");
    fixture.gateway.restart().await;
    eventually("what waited is in", || database.records() == 5).await;
    assert_eq!(
        database.counts(),
        [(); 4].map(|()| "5".to_owned()),
        "sums by the day are made of those by the minute"
    );
    assert!(fixture.gateway.stop().success());
    let text = fs::read_to_string(fixture.gateway.home().join("tollgate.yaml")).unwrap();
    assert!(!text.contains(database.server.password()));
    fixture.sandbox.assert_swept();
}
