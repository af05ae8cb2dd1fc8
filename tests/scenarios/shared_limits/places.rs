//! Calls at once, of all replicas together.

use std::sync::Mutex;

use super::*;

const PLACES: usize = 6;
const PLACE: &str = "limit=\"grant/checkout-up/concurrency/shared\"";
/// How long the provider takes for a call.
const CALL: Duration = Duration::from_millis(300);

/// When calls have come to the provider, which each keeps for as long as [`CALL`].
#[derive(Default)]
struct Arrivals(Mutex<Vec<Instant>>);

impl Arrivals {
    /// The most that were there at once, of those that came since then.
    fn most_at_once(&self, since: Instant) -> usize {
        let came: Vec<Instant> = self.0.lock().unwrap().iter().copied().filter(|at| *at >= since).collect();
        let at_once = |at: &Instant| came.iter().filter(|other| *other <= at && *at - **other < CALL).count();
        came.iter().map(at_once).max().unwrap_or(0)
    }
}

/// Calls again and again until it is told to stop, as others hold the places.
async fn call(client: Client, stop: Arc<AtomicBool>, refused: Arc<AtomicU64>) {
    let mut connection = client.open(Protocol::H1).await.expect("a connection");
    while !stop.load(Ordering::SeqCst) {
        let answer = connection.send(client.json(CHAT, &chat(100))).await.expect("an answer");
        if answer.status != 200 {
            answer.assert_refused(429, "concurrency_limited");
            refused.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Has so many callers at each of these replicas for a time. Returns how often they were refused.
async fn crowd(replicas: &Replicas, at: &[usize], callers: usize, time: Duration) -> u64 {
    let (stop, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let crowd: Vec<_> = at
        .iter()
        .flat_map(|replica| std::iter::repeat_n(*replica, callers))
        .map(|replica| tokio::spawn(call(replicas.client(replica), stop.clone(), refused.clone())))
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::SeqCst);
    for caller in crowd {
        caller.await.expect("a caller");
    }
    refused.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_at_once_of_two_replicas_are_never_more_than_the_places_and_idle_places_move() {
    needs!(Redis::installed());
    let plan = Plan::openai(&format!("{CHAT_ONLY}  limits: [{{concurrency: {PLACES}}}]\n"));
    let redis = Redis::start(&plan.sandbox).await;
    let way = format!("addresses: [\"127.0.0.1:{}\"]", redis.port());
    let (password, arrivals) = (redis.password().to_owned(), Arc::new(Arrivals::default()));
    let seen = arrivals.clone();
    let respond = move |_: &Seen| {
        seen.0.lock().unwrap().push(Instant::now());
        Reply::json(&chat_completion(0, 10)).wait(CALL)
    };
    let ledgers = vec![String::new(); 2];
    let mut replicas = Replicas::answering(plan, redis, (&way, &password), &ledgers, respond).await;
    replicas.granting().await;

    let begun = Instant::now();
    let refused = crowd(&replicas, &[0, 1], 8, Duration::from_secs(5)).await;
    let most = arrivals.most_at_once(begun);
    println!("{most} calls at once of two replicas, {refused} refusals");
    assert!(most <= PLACES && most + 1 >= PLACES, "{most}");
    assert!(refused > 0, "sixteen callers have found six places");

    // Nobody calls the first any more: the other gets what it had.
    let begun = Instant::now();
    crowd(&replicas, &[1], 8, Duration::from_secs(4)).await;
    assert_eq!(arrivals.most_at_once(begun), PLACES);

    // One that is killed leaves its places taken: nobody knows whether it is only cut off.
    crowd(&replicas, &[0], 2, Duration::from_secs(2)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let leased = replicas.gateways[0].metrics().sum("tollgate_limit_leased", &[PLACE]) as usize;
    assert!((1..PLACES).contains(&leased), "{leased}");
    replicas.gateways[0].kill();
    tokio::time::sleep(LEASE * 2).await;
    let begun = Instant::now();
    crowd(&replicas, &[1], 8, Duration::from_secs(4)).await;
    assert_eq!(arrivals.most_at_once(begun), PLACES - leased);

    // Back at its directory it has none of them.
    replicas.gateways[0].restart().await;
    tokio::time::sleep(LEASE * 2).await;
    let begun = Instant::now();
    crowd(&replicas, &[1], 8, Duration::from_secs(4)).await;
    assert_eq!(arrivals.most_at_once(begun), PLACES);
    replicas.plan.sandbox.assert_swept();
}
