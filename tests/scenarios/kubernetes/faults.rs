//! An API server that answers as it should not, or not at all: what it said last serves, and one line of the log says so.

use std::time::{Duration, Instant};

use serde_json::Value;
use tollgate_tests::cluster::{Cluster, Fault, FaultyServer};
use tollgate_tests::gateway::{eventually, field};
use tollgate_tests::{Client, Gateway, needs};

use super::{EGRESS, USER, World, answers, is_all_followed, rights, settled};

/// A gateway that reaches its cluster through a server that fails as it is told, with the fixture's objects in force.
struct Faulty {
    world: World,
    server: FaultyServer,
    gateway: Gateway,
    client: Client,
}

impl Faulty {
    async fn new() -> Self {
        let mut world = World::new(&rights()).await;
        world.objects = world.objects.replace("requests: 1000", "requests: 1000000");
        let server = FaultyServer::start(&world.cluster, USER).await;
        world.cluster.apply(&world.objects).await;
        let mut gateway = world.prepare_at(&world.plan.sandbox, server.kubeconfig());
        gateway.launch().await;
        gateway.ready().await;
        let client = world.checkout(&gateway);
        answers(&client, 200).await;
        world.all_programmed().await;
        settled(&gateway).await;
        Self { world, server, gateway, client }
    }

    fn errors(&self) -> f64 {
        self.gateway.metrics().sum("tollgate_kubernetes_watch_errors_total", &[])
    }

    /// What was said of the API server, and whatever else of weight, since so many lines.
    fn said(&self, since: usize) -> Vec<String> {
        let log = self.gateway.log();
        let is_told = |line: &&Value| line["level"] == "WARN" || line["level"] == "ERROR";
        log.iter().skip(since).filter(is_told).map(|line| field(line, "message").to_string()).collect()
    }

    /// Fails so for a while. What was in force serves, the gateway stays ready, and `lines` lines of the log say something.
    async fn serves_through(&self, fault: Fault, seconds: u64, lines: usize) {
        let (generation, errors, since) =
            (self.gateway.generation(), self.errors(), self.gateway.log().len());
        self.server.fail(fault);
        if fault == Fault::Cut {
            // Something to say, which breaks off in the middle each time.
            let label = format!("tried=t{}", self.gateway.log().len());
            self.world
                .cluster
                .kubectl(&["label", "--overwrite", "grant", "-n", EGRESS, "checkout-up", &label])
                .await;
        }
        let begun = Instant::now();
        eventually("the metric says so", || self.errors() > errors).await;
        while begun.elapsed() < Duration::from_secs(seconds) {
            self.client.get("/up/x").await.assert_status(200);
            assert_eq!(self.gateway.admin_get("/readyz").0, 200, "{fault:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(self.gateway.generation(), generation, "{fault:?}");
        let said = self.said(since);
        assert_eq!(said.len(), lines, "{fault:?}: {said:#?}");
        let asked = self.server.asked("/grants?").len();
        assert!(asked <= 12, "{fault:?}: asked {asked} times for grants in {seconds} s");
    }

    /// It no longer fails: changes are followed, and nothing is left of what was wrong.
    async fn recovers(&self) {
        self.server.fail(Fault::None);
        let changed = self.world.objects.replace("methods: [GET, POST", "methods: [PUT, POST");
        self.world.cluster.apply(&changed).await;
        answers(&self.client, 403).await;
        self.world.cluster.apply(&self.world.objects).await;
        answers(&self.client, 200).await;
        eventually("all watches are whole", || is_all_followed(&self.gateway)).await;
        let (_, ready) = self.gateway.admin_get("/readyz");
        assert!(!ready.contains("cannot be watched"), "{ready}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_refuses_or_breaks_off_is_told_of_once_and_what_it_said_last_serves() {
    needs!(Cluster::installed());
    let faulty = Faulty::new().await;
    faulty.serves_through(Fault::Status(429, Some(4)), 9, 1).await;
    let asked = faulty.server.asked("/grants?");
    let told = asked.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(asked.len() >= 2, "{asked:?}");
    assert!(told.clone().all(|pause| pause >= Duration::from_millis(3900)), "{:?}", told.collect::<Vec<_>>());
    faulty.recovers().await;
    for fault in [Fault::Status(500, None), Fault::Status(503, None), Fault::Cut] {
        faulty.serves_through(fault, 8, 1).await;
        faulty.recovers().await;
    }
    faulty.world.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_gone_is_listed_anew_without_a_word_whichever_way_it_is_said() {
    needs!(Cluster::installed());
    let faulty = Faulty::new().await;
    // Watches break off when the fault begins, which is one line.
    for fault in [Fault::GoneEvent, Fault::GoneWatch] {
        faulty.serves_through(fault, 8, 1).await;
        // Lists say what changes, as no watch does.
        let changed = faulty.world.objects.replace("methods: [GET, POST", "methods: [PUT, POST");
        faulty.world.cluster.apply(&changed).await;
        answers(&faulty.client, 403).await;
        assert!(faulty.server.asked("/grants?").len() < 24, "{fault:?}");
        faulty.world.cluster.apply(&faulty.world.objects).await;
        answers(&faulty.client, 200).await;
        faulty.recovers().await;
    }
    faulty.serves_through(Fault::GoneList, 5, 1).await;
    faulty.recovers().await;
    faulty.world.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_hangs_is_noticed_and_a_start_without_it_serves_what_was_persisted() {
    needs!(Cluster::installed());
    let mut faulty = Faulty::new().await;
    faulty.serves_through(Fault::Hang, 3, 1).await;
    let says_why = || faulty.gateway.admin_get("/readyz").1.contains("it does not answer within 30 s");
    let begun = Instant::now();
    while !says_why() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", faulty.gateway.admin_get("/readyz").1);
        faulty.client.get("/up/x").await.assert_status(200);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    faulty.recovers().await;

    let file = faulty.gateway.home().join("data/objects.json");
    for (round, fault) in [Fault::Hang, Fault::Cut].into_iter().enumerate() {
        faulty.server.fail(fault);
        assert!(faulty.gateway.stop().success());
        faulty.gateway.restart().await;
        faulty.client = faulty.world.checkout(&faulty.gateway);
        faulty.client.get("/up/x").await.assert_status(200);
        assert!(!faulty.gateway.snapshot()["persisted"].is_null());
        faulty.recovers().await;
        let is_live = || faulty.gateway.snapshot()["persisted"].is_null();
        eventually("the objects of the API server serve", is_live).await;
        // What compiles like the last that was written is not written anew.
        let latest = (1_000_001 + round).to_string();
        let objects = faulty.world.objects.replace("1000000", &latest);
        faulty.world.cluster.apply(&objects).await;
        let persisted = || std::fs::read_to_string(&file).is_ok_and(|text| text.contains(&latest));
        eventually("what serves now is on the disk before the next start", persisted).await;
    }
    faulty.world.leave().await;
}
