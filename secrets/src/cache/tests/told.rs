//! What the observer is told, in which order, and what happens without its word.

use super::*;
use crate::observe::{Event, Observation, Observations, Observer, What};
use crate::{CredentialStatus, Health};

/// A cache whose observer writes everything down, unless it is told not to.
struct Told {
    bench: Bench,
    events: Arc<Mutex<Vec<Event>>>,
    writes: Arc<std::sync::atomic::AtomicBool>,
}

impl Told {
    fn new(value: &'static str) -> Self {
        let (observer, observations) = Observer::channel();
        let bench = Bench::over(value, observer);
        let events = Arc::new(Mutex::new(Vec::new()));
        let writes = Arc::new(std::sync::atomic::AtomicBool::new(true));
        tokio::spawn(write(observations, Arc::clone(&events), Arc::clone(&writes)));
        Self { bench, events, writes }
    }

    /// What was told since the last time: words, and whether the secret or its store is meant.
    async fn take(&self) -> Vec<String> {
        sleep(Duration::from_millis(20)).await;
        let events = std::mem::take(&mut *self.events.lock().unwrap());
        events.iter().map(word).collect()
    }
}

async fn write(
    observations: Observations,
    events: Arc<Mutex<Vec<Event>>>,
    writes: Arc<std::sync::atomic::AtomicBool>,
) {
    loop {
        sleep(Duration::from_millis(10)).await;
        while let Some(Observation { event, written }) = observations.ready() {
            let writes = writes.load(Ordering::SeqCst);
            if writes || written.is_none() {
                events.lock().unwrap().push(event);
            }
            if let Some(written) = written.filter(|_| writes) {
                let _ = written.send(());
            }
        }
    }
}

fn word(event: &Event) -> String {
    let what = match &event.what {
        What::Fetched { .. } => "fetched".to_owned(),
        What::Rotated { from, to } if from != to => "rotated".to_owned(),
        What::Rotated { .. } => "rotated to itself".to_owned(),
        What::Rejected { .. } => "rejected".to_owned(),
        What::Revoked { failure, .. } => format!("revoked: {}", failure.as_str()),
        What::Unavailable { ended, failure } => {
            format!("unavailable{}: {}", if ended.is_some() { " and ended" } else { "" }, failure.as_str())
        }
        What::Recovered => "recovered".to_owned(),
        What::Withdrawn { .. } => "withdrawn".to_owned(),
    };
    let names: Vec<_> = event.credentials.iter().map(ResourceId::as_str).collect();
    match &event.secret {
        Some(secret) => format!("{secret} of {} {what}", names.join("+")),
        None => format!("{} {what}", event.store),
    }
}

#[tokio::test(start_paused = true)]
async fn each_turn_of_a_secrets_life_is_told_once_and_in_order() {
    let told = Told::new("one");
    let bench = &told.bench;
    let old = bench.secrets.get(&openai(), 0).await.unwrap().version().clone();
    assert_eq!(told.take().await, ["store:path of openai fetched"]);
    sleep(MINUTE * 5).await;
    assert!(told.take().await.is_empty(), "the same value again is no news");

    bench.script.say(Answer::Value("two"));
    for _ in 0..3 {
        assert!(bench.secrets.rejected(&openai(), 0, &old).await.is_some());
    }
    assert_eq!(told.take().await, ["store:path of openai rejected", "store:path of openai rotated"]);

    bench.script.say(Answer::Failure(Failure::NotFound));
    sleep(MINUTE).await;
    assert!(bench.get().await.is_err());
    assert_eq!(told.take().await, ["store:path of openai revoked: not_found"]);

    bench.script.say(Answer::Value("three"));
    sleep(MINUTE).await;
    bench.get().await.unwrap();
    assert_eq!(told.take().await, ["store:path of openai fetched"]);

    bench.install(&[]);
    assert_eq!(told.take().await, ["store:path of openai withdrawn"]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_of_the_store_and_of_the_values_that_it_ends() {
    let told = Told::new("one");
    let bench = &told.bench;
    bench.install(&[("openai", "path", FRESHNESS), ("anthropic", "other", FRESHNESS)]);
    let anthropic = credential_for("anthropic", &reference("other"), FRESHNESS);
    bench.get().await.unwrap();
    bench.secrets.get(&anthropic, 0).await.unwrap();
    told.take().await;

    bench.script.say(Answer::Failure(Failure::Sealed));
    sleep(MINUTE * 5).await;
    assert_eq!(told.take().await, ["store unavailable: sealed"]);
    sleep(MINUTE * 10).await;
    let mut ended = told.take().await;
    ended.sort();
    let expected = [
        "store:other of anthropic unavailable and ended: sealed",
        "store:path of openai unavailable and ended: sealed",
    ];
    assert_eq!(ended, expected);

    bench.script.say(Answer::Value("one"));
    bench.get().await.unwrap();
    assert_eq!(told.take().await, ["store recovered", "store:path of openai fetched"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_value_that_cannot_be_written_down_is_not_used_and_the_old_one_lasts() {
    let told = Told::new("one");
    let bench = &told.bench;
    told.writes.store(false, Ordering::SeqCst);
    assert_eq!(bench.get().await, Err(Failure::Unrecorded));
    assert_eq!(bench.secrets.health()[0].error, None, "the store is not to blame");
    assert_eq!(told.take().await, ["store:path of openai unavailable: unrecorded"]);

    told.writes.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.get().await, Ok("one".into()));
    told.writes.store(false, Ordering::SeqCst);
    sleep(MINUTE * 5).await;
    assert_eq!(bench.peek(), Some("one".into()), "what is written down is used on");

    bench.script.say(Answer::Value("two"));
    sleep(MINUTE * 5).await;
    assert_eq!(bench.peek(), Some("one".into()));
    told.writes.store(true, Ordering::SeqCst);
    sleep(MINUTE).await;
    assert_eq!(bench.peek(), Some("two".into()));
    let expected = ["fetched", "unavailable: unrecorded", "rotated"];
    assert_eq!(told.take().await, expected.map(|word| format!("store:path of openai {word}")));
}

#[tokio::test(start_paused = true)]
async fn credentials_that_share_a_secret_are_told_together() {
    let told = Told::new("one");
    told.bench.install(&[("b", "path", FRESHNESS), ("a", "path", FRESHNESS)]);
    assert_eq!(told.take().await, Vec::<String>::new(), "a value that is still used is not withdrawn");
    let shared = credential_for("a", &reference("path"), FRESHNESS);
    told.bench.secrets.get(&shared, 0).await.unwrap();
    assert_eq!(told.take().await, ["store:path of a+b fetched"]);
}

#[tokio::test(start_paused = true)]
async fn the_status_of_a_credential_follows_its_secret() {
    let bench = Bench::new("one");
    let status = || -> CredentialStatus { bench.secrets.status().remove(0) };
    assert_eq!((status().health, status().version, status().age), (Health::Unused, None, None));
    let secret = bench.secrets.get(&openai(), 0).await.unwrap();
    assert_eq!(status().health, Health::Well);
    assert_eq!(status().version.as_deref(), Some(secret.version().as_str()));
    assert!(status().refresh_in.is_some_and(|next| next > MINUTE / 2 && next < MINUTE));
    bench.script.say(Answer::Failure(Failure::Sealed));
    sleep(MINUTE * 3).await;
    let Health::Stale { since, failure } = status().health else { panic!("{:?}", status()) };
    assert_eq!(failure, Failure::Sealed);
    assert!(since >= MINUTE * 2 - Duration::from_secs(1));
    sleep(MINUTE * 10).await;
    assert_eq!(status().health, Health::Unavailable { failure: Failure::Sealed });
    assert_eq!((status().version, status().age), (None, None));
}
