//! Replicas that share limits in Redis: what all of them spend together stays under the amount, whatever happens to one of them or to Redis.

mod copied;
mod gone;
mod load;
mod places;
mod rolling;
mod script;
mod stores;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tollgate_tests::fixture::{CHAT_ONLY, CHECKOUT};
use tollgate_tests::gateway::{Settings, eventually};
use tollgate_tests::provider::{chat, chat_completion};
use tollgate_tests::redis::Redis;
use tollgate_tests::{Client, Gateway, Plan, Protocol, Reply, Sandbox, Seen, Upstream, needs};

const CHAT: &str = "/up/v1/chat/completions";
const LIMIT: &str = "grant/checkout-up/tokens/day/shared";
const LEASE: Duration = Duration::from_secs(2);

/// Gateways before one provider, with one store.
struct Replicas<S = Redis> {
    plan: Plan,
    redis: S,
    upstream: Upstream,
    gateways: Vec<Gateway>,
    /// Tokens that the provider has billed.
    billed: Arc<AtomicU64>,
}

impl Replicas {
    /// Each call costs the tokens that its number in the order of arrival leads to.
    async fn start(count: usize, limits: &str, cost: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Self {
        let plan = Plan::openai(&format!("{CHAT_ONLY}  limits: {limits}\n"));
        let redis = Redis::start(&plan.sandbox).await;
        let address = format!("addresses: [\"127.0.0.1:{}\"]", redis.port());
        let password = redis.password().to_owned();
        let replicas =
            Self::with(plan, redis, (&address, &password), &vec![String::new(); count], cost).await;
        replicas.granting().await;
        replicas
    }
}

impl<S> Replicas<S> {
    /// Replicas with this store, which the settings of Redis lead to, each with these settings of its ledger.
    async fn with(
        plan: Plan,
        redis: S,
        way: (&str, &str),
        ledgers: &[String],
        cost: impl Fn(u64) -> u64 + Send + Sync + 'static,
    ) -> Self {
        let billed = Arc::new(AtomicU64::new(0));
        let (sum, calls) = (billed.clone(), AtomicU64::new(0));
        let respond = move |_: &Seen| {
            let tokens = cost(calls.fetch_add(1, Ordering::SeqCst));
            sum.fetch_add(tokens, Ordering::SeqCst);
            Reply::json(&chat_completion(0, tokens)).wait(Duration::from_millis(tokens % 7))
        };
        Self { billed, ..Self::answering(plan, redis, way, ledgers, respond).await }
    }

    /// Replicas before a provider that answers so.
    async fn answering(
        mut plan: Plan,
        redis: S,
        (way, password): (&str, &str),
        ledgers: &[String],
        respond: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let password = plan.sandbox.input("redis.password", password);
        plan.settings.extra =
            format!("limits: {{redis: {{{way}, passwordFile: {}, lease: 2s}}}}\n", password.display());
        plan.settings.environment = vec![("RUST_LOG".to_owned(), "warn,tollgate=info".to_owned())];
        let upstream = Upstream::http(&plan.server, &["http/1.1"], respond).await;
        let settings = plan.complete(upstream.port());
        let mut gateways = Vec::new();
        for ledger in ledgers {
            let settings = Settings { ledger: ledger.clone(), ..settings.clone() };
            let mut gateway = Gateway::prepare(&Sandbox::new(), &settings);
            gateway.keep_ports();
            gateway.restart().await;
            gateways.push(gateway);
        }
        Self { plan, redis, upstream, gateways, billed: Arc::default() }
    }

    fn client(&self, replica: usize) -> Client {
        let identity = self.plan.prod.svid(&self.plan.sandbox, CHECKOUT);
        Client::new(
            &self.plan.sandbox,
            self.gateways[replica].address(),
            self.plan.pki.roots(),
            Some(identity),
        )
    }

    fn sum(&self, metric: &str) -> f64 {
        let label = format!("limit=\"{LIMIT}\"");
        self.gateways.iter().map(|gateway| gateway.metrics().sum(metric, &[&label])).sum()
    }

    /// Waits until the store grants: a fresh one first hears everybody.
    async fn granting(&self) {
        tokio::time::sleep(LEASE + Duration::from_millis(300)).await;
        eventually("all replicas are known", || {
            let live = |gateway: &Gateway| gateway.metrics().sum("tollgate_limit_replicas", &[]);
            self.gateways.iter().all(|gateway| live(gateway) == self.gateways.len() as f64)
        })
        .await;
    }
}

/// What callers were answered with.
#[derive(Debug, Default)]
struct Answers {
    paid: AtomicU64,
    held: AtomicU64,
    exhausted: AtomicU64,
    other: AtomicU64,
}

/// Calls until the budget is exhausted for good or `stop` is set.
async fn insist(client: Client, answers: Arc<Answers>, stop: Arc<AtomicBool>) {
    let Ok(mut connection) = client.open(Protocol::H1).await else { return };
    while !stop.load(Ordering::SeqCst) {
        let Ok(answer) = connection.send(client.json(CHAT, &chat(100))).await else { return };
        let count = match (answer.status.as_u16(), answer.header("x-tollgate-reason")) {
            (200, _) => &answers.paid,
            (429, "budget_held") => &answers.held,
            (429, "budget_exhausted") => {
                answers.exhausted.fetch_add(1, Ordering::SeqCst);
                return;
            }
            _ => &answers.other,
        };
        count.fetch_add(1, Ordering::SeqCst);
        if answer.status != 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_spend_one_budget_to_its_end_and_not_a_token_more() {
    needs!(Redis::installed());
    const AMOUNT: u64 = 2_000_000;
    let replicas =
        Replicas::start(3, &format!("[{{tokens: {AMOUNT}, per: day}}]"), |call| 100 + call * 7919 % 3000)
            .await;
    let (answers, stop) = (Arc::new(Answers::default()), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..30)
        .map(|n| tokio::spawn(insist(replicas.client(n % 3), answers.clone(), stop.clone())))
        .collect();
    let begun = Instant::now();
    while callers.iter().any(|caller| !caller.is_finished()) {
        let (spent, held) = (replicas.sum("tollgate_limit_spent"), replicas.sum("tollgate_limit_held"));
        assert!(spent + held <= AMOUNT as f64, "spent {spent}, held {held}");
        assert!(begun.elapsed() < Duration::from_secs(120), "{answers:?}, spent {spent}, held {held}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let billed = replicas.billed.load(Ordering::SeqCst);
    println!("billed {billed} of {AMOUNT} over three replicas: {answers:?}");
    assert_eq!(answers.other.load(Ordering::SeqCst), 0, "{answers:?}");
    assert!(billed <= AMOUNT, "{billed}");
    // One call may hold some 4,300 tokens: less than that is left, wherever it was.
    assert!(AMOUNT - billed < 6_000, "{} stranded", AMOUNT - billed);
    assert_eq!(replicas.sum("tollgate_limit_spent") as u64, billed);
    assert_eq!(replicas.upstream.count() as u64, answers.paid.load(Ordering::SeqCst));
    replicas.plan.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_killed_gives_its_slice_back_when_it_returns() {
    needs!(Redis::installed());
    let mut replicas = Replicas::start(2, "[{tokens: 60000, per: day}]", |_| 1_000).await;
    let first = replicas.client(0);
    first.post(CHAT, &chat(100)).await.assert_status(200);
    eventually("the call is settled", || replicas.sum("tollgate_limit_held") == 0.0).await;
    let leased = replicas.gateways[0].metrics().sum("tollgate_limit_leased", &[]);
    assert!(leased > 5_000.0, "a slice is more than what was used: {leased}");
    replicas.gateways[0].kill();
    tokio::time::sleep(LEASE * 2).await;

    // What it had is out of reach, but nothing else is.
    let (answers, stop) = (Arc::new(Answers::default()), Arc::new(AtomicBool::new(false)));
    insist(replicas.client(1), answers.clone(), stop.clone()).await;
    let billed = replicas.billed.load(Ordering::SeqCst);
    assert!(billed as f64 + leased - 1_000.0 <= 60_000.0, "{billed} beside the dead one's {leased}");
    assert!(60_000 - billed < leased as u64 + 6_000, "{billed} beside the dead one's {leased}");

    // Back with its ledger it says what it has spent of it, and the rest is everybody's.
    replicas.gateways[0].restart().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    insist(replicas.client(1), answers, stop).await;
    let billed = replicas.billed.load(Ordering::SeqCst);
    assert!(billed <= 60_000 && 60_000 - billed < 6_000, "{billed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_has_forgotten_everything_hears_all_replicas_before_it_grants() {
    needs!(Redis::installed());
    const AMOUNT: u64 = 1_500_000;
    let mut replicas =
        Replicas::start(3, &format!("[{{tokens: {AMOUNT}, per: day}}]"), |call| 500 + call * 7919 % 3000)
            .await;
    let (answers, stop) = (Arc::new(Answers::default()), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..12)
        .map(|n| tokio::spawn(insist(replicas.client(n % 3), answers.clone(), stop.clone())))
        .collect();
    eventually("a third is spent", || replicas.billed.load(Ordering::SeqCst) > AMOUNT / 3).await;
    replicas.redis.kill();
    replicas.redis.restart().await;
    for caller in callers {
        caller.await.expect("a caller");
    }
    let billed = replicas.billed.load(Ordering::SeqCst);
    println!("billed {billed} of {AMOUNT} with a Redis that was emptied: {answers:?}");
    assert_eq!(answers.other.load(Ordering::SeqCst), 0, "{answers:?}");
    assert!(billed <= AMOUNT && AMOUNT - billed < 6_000, "{billed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_each_limit_does_as_it_says_once_the_lease_has_ended() {
    needs!(Redis::installed());
    for (limits, status, reason) in [
        ("[{tokens: 500000, per: day}]", 503, "limits_unavailable"),
        ("[{tokens: 500000, per: day, onStoreFailure: local}]", 200, ""),
        ("[{requests: 600, per: minute}]", 200, ""),
        ("[{requests: 600, per: minute, onStoreFailure: deny}]", 503, "limits_unavailable"),
    ] {
        let mut replicas = Replicas::start(2, limits, |_| 1_000).await;
        let client = replicas.client(0);
        client.post(CHAT, &chat(100)).await.assert_status(200);
        replicas.redis.kill();
        client.post(CHAT, &chat(100)).await.assert_status(200);
        tokio::time::sleep(LEASE * 2).await;
        let answer = client.post(CHAT, &chat(100)).await;
        match status {
            200 => answer.assert_status(200),
            _ => answer.assert_refused(status, reason),
        }
        let up = |replicas: &Replicas| replicas.gateways[0].metrics().sum("tollgate_limit_store_up", &[]);
        assert_eq!(up(&replicas), 0.0, "{limits}");
        let (ready, said) = replicas.gateways[0].admin_get("/readyz");
        assert_eq!((ready, said.trim()), (200, "ready; the store of shared limits does not answer"));
        replicas.redis.restart().await;
        eventually("the store is back", || up(&replicas) == 1.0).await;
        tokio::time::sleep(LEASE).await;
        assert_eq!(replicas.gateways[0].admin_get("/readyz").1.trim(), "ready");
        client.post(CHAT, &chat(100)).await.assert_status(200);
    }
}
