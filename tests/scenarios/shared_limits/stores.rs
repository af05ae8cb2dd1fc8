//! The ways to a Redis: by TLS and a user with few rights, by sentinels, and one that is slow.

use nix::sys::signal::Signal;
use tollgate_tests::Authority;
use tollgate_tests::process::free_port;
use tollgate_tests::redis_cluster::RedisCluster;
use tollgate_tests::resources::document;
use tollgate_tests::sentinel::{PRIMARY, Sentinels};

use super::*;

/// What the reference says that the user needs.
const RIGHTS: &str =
    "~tollgate:* -@all +@hash +@set +@sortedset +@scripting +info +pexpire +pexpireat +pexpiretime +time";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_no_more_rights_than_the_reference_names_shares_limits_over_tls() {
    needs!(Redis::installed());
    let mut plan = Plan::openai(&format!("{CHAT_ONLY}  limits: [{{tokens: 100000, per: day}}]\n"));
    let spec = "  appliesTo: All\n  thresholds: [10]\n  limits: [{requests: 10, per: day, key: caller}]\n";
    plan.settings = plan.settings.clone().resource("budget.yaml", document("Budget", "all", spec));
    let pki = Authority::new(&plan.sandbox, "redis");
    let identity = pki.server(&plan.sandbox, &["localhost"]);
    let port = free_port();
    let password = plan.sandbox.canary("cache-user");
    let lines = format!(
        "tls-port {port}\ntls-cert-file {}\ntls-key-file {}\ntls-auth-clients no\ntls-ca-cert-file {}\n\
         user gateway on >{password} {RIGHTS}\n",
        identity.cert.display(),
        identity.key.display(),
        pki.bundle().display()
    );
    let redis = Redis::with(&plan.sandbox, plan.sandbox.canary("cache"), &lines).await;
    let way = |bundle: &std::path::Path| {
        format!("addresses: [\"localhost:{port}\"], username: gateway, tls: {{caFile: {}}}", bundle.display())
    };
    let stranger = plan.prod.bundle().to_owned();
    let replicas =
        Replicas::with(plan, redis, (&way(pki.bundle()), &password), &vec![String::new(); 2], |_| 1_000)
            .await;
    replicas.granting().await;
    for replica in 0..2 {
        replicas.client(replica).post(CHAT, &chat(100)).await.assert_status(200);
    }
    let granted = |at: usize| replicas.gateways[at].metrics().sum("tollgate_limit_slices_total", &[]);
    assert!(granted(0) > 0.0 && granted(1) > 0.0, "what was spent came from the store");
    let sum = |at: usize, metric: &str, label: &str| replicas.gateways[at].metrics().sum(metric, &[label]);
    for replica in 0..2 {
        eventually("each knows what both have spent", || {
            sum(replica, "tollgate_limit_spent_by_all", "limit=\"budget/all/requests/day/caller\"") == 2.0
        })
        .await;
    }
    let told = || (0..2).map(|at| sum(at, "tollgate_budget_thresholds_total", "budget=\"all\"")).sum::<f64>();
    eventually("one of them has told that a tenth is spent", || told() == 1.0).await;
    // Whoever has a certificate of another authority hears neither the password nor what was spent.
    let mut settings = replicas.gateways[0].settings().clone();
    settings.extra =
        settings.extra.replace(&pki.bundle().display().to_string(), &stranger.display().to_string());
    let deceived = Gateway::start(&Sandbox::new(), &settings).await;
    eventually("the store's certificate is refused", || {
        deceived.metrics().sum("tollgate_limit_store_up", &[]) == 0.0
    })
    .await;
    replicas
        .client(0)
        .at(deceived.address())
        .post(CHAT, &chat(100))
        .await
        .assert_refused(503, "limits_unavailable");
    replicas.plan.sandbox.assert_swept();
}

/// Two replicas with a store that sentinels watch, who take a server that is silent for a second for gone.
async fn watched(amount: u64) -> Replicas<Sentinels> {
    let plan = Plan::openai(&format!("{CHAT_ONLY}  limits: [{{tokens: {amount}, per: day}}]\n"));
    let sentinels = Sentinels::start(&plan.sandbox, Duration::from_secs(1)).await;
    let addresses: Vec<String> = sentinels.addresses().iter().map(|at| format!("\"{at}\"")).collect();
    let way = format!("addresses: [{}], sentinel: {PRIMARY}", addresses.join(", "));
    let password = sentinels.password().to_owned();
    let cost = |call: u64| 500 + call * 7919 % 3000;
    let replicas = Replicas::with(plan, sentinels, (&way, &password), &vec![String::new(); 2], cost).await;
    replicas.granting().await;
    replicas
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_becomes_the_primary_without_the_last_writes_grants_nothing_twice() {
    needs!(Redis::installed());
    const AMOUNT: u64 = 1_500_000;
    let mut replicas = watched(AMOUNT).await;
    let (answers, stop) = (Arc::new(Answers::default()), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..12)
        .map(|n| tokio::spawn(insist(replicas.client(n % 2), answers.clone(), stop.clone())))
        .collect();
    let billed = |replicas: &Replicas<Sentinels>| replicas.billed.load(Ordering::SeqCst);
    eventually("a fifth is spent", || billed(&replicas) > AMOUNT / 5).await;
    let before = replicas.redis.primary();
    replicas.redis.servers[1 - before].signal(Signal::SIGSTOP);
    // What is granted now is known to the primary alone.
    tokio::time::sleep(Duration::from_millis(800)).await;
    replicas.redis.servers[before].kill();
    replicas.redis.servers[1 - before].signal(Signal::SIGCONT);
    replicas.redis.failed_over(before).await;
    replicas.redis.servers[before].restart().await;
    for caller in callers {
        caller.await.expect("a caller");
    }
    let billed = billed(&replicas);
    println!("billed {billed} of {AMOUNT} with a failover that lost writes: {answers:?}");
    assert!(billed <= AMOUNT, "overspent by {}", billed - AMOUNT);
    assert!(AMOUNT - billed < 6_000, "{} stranded", AMOUNT - billed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nodes_of_a_cluster_lead_to_whichever_has_the_counts_also_after_failovers() {
    needs!(Redis::installed());
    const AMOUNT: u64 = 1_500_000;
    let plan = Plan::openai(&format!("{CHAT_ONLY}  limits: [{{tokens: {AMOUNT}, per: day}}]\n"));
    let cluster = RedisCluster::start(&plan.sandbox).await;
    let (way, password) =
        (format!("addresses: [{}], cluster: true", cluster.addresses()), cluster.password().to_owned());
    let cost = |call: u64| 500 + call * 7919 % 3000;
    let mut replicas = Replicas::with(plan, cluster, (&way, &password), &vec![String::new(); 2], cost).await;
    replicas.granting().await;
    let (answers, stop) = (Arc::new(Answers::default()), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..12)
        .map(|n| tokio::spawn(insist(replicas.client(n % 2), answers.clone(), stop.clone())))
        .collect();
    let billed = |replicas: &Replicas<RedisCluster>| replicas.billed.load(Ordering::SeqCst);
    eventually("a fifth is spent", || billed(&replicas) > AMOUNT / 5).await;
    let before = replicas.redis.owner();
    replicas.redis.fail_over().await;
    let paid = billed(&replicas);
    eventually("it goes on with the copy", || billed(&replicas) > paid.max(AMOUNT / 2)).await;
    assert_ne!(replicas.redis.owner(), before);
    replicas.redis.lose_owner().await;
    for caller in callers {
        caller.await.expect("a caller");
    }
    let billed = billed(&replicas);
    println!("billed {billed} of {AMOUNT} with a cluster that failed over twice: {answers:?}");
    assert!(billed <= AMOUNT, "overspent by {}", billed - AMOUNT);
    assert!(AMOUNT - billed < 6_000, "{} stranded", AMOUNT - billed);
    replicas.plan.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_redis_holds_up_no_call_that_a_slice_pays_for() {
    needs!(Redis::installed());
    const AMOUNT: u64 = 900_000;
    let replicas = Replicas::start(2, &format!("[{{tokens: {AMOUNT}, per: day}}]"), |_| 1_000).await;
    let client = replicas.client(0);
    client.post(CHAT, &chat(100)).await.assert_status(200);
    replicas.redis.ask(&["CLIENT", "PAUSE", "4000", "ALL"]);
    let begun = Instant::now();
    client.post(CHAT, &chat(100)).await.assert_status(200);
    assert!(begun.elapsed() < Duration::from_secs(3), "a call has waited for the store");
    let (answers, stop) = (Arc::new(Answers::default()), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> =
        (0..8).map(|n| tokio::spawn(insist(replicas.client(n % 2), answers.clone(), stop.clone()))).collect();
    for caller in callers {
        caller.await.expect("a caller");
    }
    let billed = replicas.billed.load(Ordering::SeqCst);
    assert!(billed <= AMOUNT && AMOUNT - billed < 6_000, "{billed} of {AMOUNT}, {answers:?}");
}
