//! The cache over a store whose answers are scripted, in paused time.

mod ahead;
mod rejected;
mod told;

use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, advance, sleep};
use tollgate_policy::policy::StoreKind;
use zeroize::Zeroizing;

use super::*;
use crate::read::FileStamp;
use crate::reference::tests::{credential_for, reference_to};
use crate::store::Fetched;

const MINUTE: Duration = Duration::from_secs(60);
const FRESHNESS: Freshness = Freshness { refresh: MINUTE, max_stale: Duration::from_secs(600) };

/// A store that answers what it was last told to, after a delay. The answer is the one at the start of the fetch.
pub(crate) struct Script {
    answer: Mutex<Answer>,
    delay: Mutex<Duration>,
    fetches: AtomicUsize,
    /// As of a file, where it is to be one.
    stamp: Mutex<Option<FileStamp>>,
}

#[derive(Clone)]
enum Answer {
    Value(&'static str),
    /// Another value each time, with this much life.
    Mints(Duration),
    Failure(Failure),
    Panic,
}

impl Script {
    fn new(value: &'static str) -> Arc<Self> {
        let answer = Mutex::new(Answer::Value(value));
        let (delay, fetches) = (Mutex::new(Duration::ZERO), AtomicUsize::new(0));
        Arc::new(Self { answer, delay, fetches, stamp: Mutex::default() })
    }

    pub(crate) fn stamp(&self) -> Option<FileStamp> {
        self.stamp.lock().unwrap().clone()
    }

    /// Changes the file.
    fn touch(&self, state: u64) {
        *self.stamp.lock().unwrap() = Some(vec![Some((state, 0, 0, 0))]);
    }

    fn say(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn delay(&self, delay: Duration) {
        *self.delay.lock().unwrap() = delay;
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    pub(crate) async fn fetch(&self, _: &Reference) -> Result<Fetched, Failure> {
        self.answer().await
    }

    pub(crate) async fn answer(&self) -> Result<Fetched, Failure> {
        let (asked, number) = (Instant::now(), 1 + self.fetches.fetch_add(1, Ordering::SeqCst));
        let (answer, delay) = (self.answer.lock().unwrap().clone(), *self.delay.lock().unwrap());
        sleep(delay).await;
        match answer {
            Answer::Value(value) => Ok(Fetched {
                value: Zeroizing::new(value.as_bytes().to_vec()).into(),
                version: None,
                lease: None,
                expires: None,
            }),
            Answer::Mints(life) => Ok(Fetched {
                value: Zeroizing::new(format!("token-{number}").into_bytes()).into(),
                version: None,
                lease: None,
                expires: Some(asked + life),
            }),
            Answer::Failure(failure) => Err(failure),
            Answer::Panic => panic!("scripted"),
        }
    }
}

struct Bench {
    secrets: Arc<Secrets>,
    script: Arc<Script>,
    store: Arc<Store>,
}

impl Bench {
    fn new(value: &'static str) -> Self {
        Self::over(value, Observer::nobody())
    }

    fn over(value: &'static str, observer: Observer) -> Self {
        let script = Script::new(value);
        let definition = reference("path").store;
        let store = Arc::new(Store::scripted(definition, Arc::clone(&script)));
        let (handle, fits) = (Handle::current(), Arc::new(fit::fits));
        let versions = VersionKey::random();
        let secrets = Secrets::observed(handle, Arc::new(|_| true), observer, fits, versions);
        let bench = Self { secrets, script, store };
        bench.install(&[("openai", "path", FRESHNESS)]);
        bench
    }

    fn install(&self, credentials: &[(&str, &str, Freshness)]) {
        let wanted = credentials.iter().map(|(name, path, freshness)| Wanted {
            alias: None,
            credential: Arc::new(credential_for(name, &reference(path), *freshness)),
            description: format!("store:{path}"),
            reference: reference(path),
            freshness: *freshness,
        });
        self.secrets.install(vec![Arc::clone(&self.store)], wanted.collect());
    }

    async fn get(&self) -> Result<String, Failure> {
        let got = self.secrets.get(&openai(), 0).await;
        got.map(|secret| text(&secret)).map_err(|error| error.failure())
    }

    fn peek(&self) -> Option<String> {
        self.secrets.peek(&openai(), 0).map(|secret| text(&secret))
    }
}

fn reference(path: &str) -> Reference {
    reference_to(StoreKind::File { root: "/scripted".into() }, path, None)
}

fn openai() -> Credential {
    credential_for("openai", &reference("path"), FRESHNESS)
}

fn text(secret: &Secret) -> String {
    String::from_utf8(secret.expose(None).unwrap().to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn callers_that_ask_together_wait_for_one_fetch() {
    let bench = Bench::new("one");
    bench.script.delay(Duration::from_secs(1));
    let mut callers = JoinSet::new();
    for _ in 0..1000 {
        let secrets = Arc::clone(&bench.secrets);
        callers.spawn(async move { secrets.get(&openai(), 0).await.map(|secret| text(&secret)) });
    }
    while let Some(answer) = callers.join_next().await {
        assert_eq!(answer.unwrap().unwrap(), "one");
    }
    assert_eq!(bench.script.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_does_not_end_the_fetch_of_the_others() {
    let bench = Bench::new("one");
    bench.script.delay(Duration::from_secs(2));
    let impatient = time::timeout(Duration::from_secs(1), bench.get()).await;
    assert!(impatient.is_err());
    assert_eq!(bench.get().await, Ok("one".into()));
    assert_eq!(bench.script.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_used_value_is_refreshed_before_it_is_too_old_and_nobody_waits() {
    let bench = Bench::new("one");
    bench.get().await.unwrap();
    bench.script.say(Answer::Value("two"));
    // Two thirds of a minute, and the jitter: once a rotation has had 44 seconds it is seen.
    for second in 1..=600 {
        sleep(Duration::from_secs(1)).await;
        let value = bench.peek().unwrap();
        assert!(second <= 45 || value == "two", "second {second}: {value}");
    }
    let fetches = bench.script.fetches();
    assert!((600 / 45..=1 + 600 / 36).contains(&fetches), "{fetches}");
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_value_keeps_its_owner_so_that_nothing_is_made_anew() {
    let bench = Bench::new("one");
    let first = bench.secrets.get(&openai(), 0).await.unwrap();
    sleep(MINUTE * 5).await;
    assert!(bench.script.fetches() > 1);
    assert!(Arc::ptr_eq(&first, &bench.secrets.peek(&openai(), 0).unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_value_outlives_its_store_up_to_its_bound_and_not_a_moment_longer() {
    let bench = Bench::new("one");
    bench.get().await.unwrap();
    let fetched = Instant::now();
    bench.script.say(Answer::Failure(Failure::Sealed));
    while fetched.elapsed() < FRESHNESS.max_stale - Duration::from_secs(1) {
        sleep(Duration::from_millis(700)).await;
        assert_eq!(bench.peek(), Some("one".into()), "{:?}", fetched.elapsed());
    }
    sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.peek(), None);
    assert_eq!(bench.get().await, Err(Failure::Sealed));
}

#[tokio::test(start_paused = true)]
async fn an_expired_value_is_let_go_of_though_nobody_asks() {
    let bench = Bench::new("one");
    let held: Weak<Secret> = Arc::downgrade(&bench.secrets.get(&openai(), 0).await.unwrap());
    bench.script.say(Answer::Failure(Failure::Timeout));
    sleep(FRESHNESS.max_stale + MINUTE).await;
    assert!(held.upgrade().is_none());
    let fetches = bench.script.fetches();
    sleep(MINUTE * 10).await;
    assert_eq!(bench.script.fetches(), fetches, "a value that is not held is not retried unasked");
}

#[tokio::test(start_paused = true)]
async fn a_held_value_recovers_by_itself_when_the_store_does() {
    let bench = Bench::new("one");
    bench.get().await.unwrap();
    bench.script.say(Answer::Failure(Failure::Sealed));
    sleep(MINUTE * 3).await;
    bench.script.say(Answer::Value("two"));
    sleep(Duration::from_secs(17)).await;
    assert_eq!(bench.peek(), Some("two".into()));
}

#[tokio::test(start_paused = true)]
async fn a_failing_store_is_asked_once_per_back_off_however_many_ask() {
    let bench = Bench::new("one");
    bench.script.say(Answer::Failure(Failure::Unreachable("connection refused")));
    let began = Instant::now();
    while began.elapsed() < MINUTE {
        for _ in 0..100 {
            assert!(bench.get().await.is_err());
        }
        sleep(Duration::from_millis(10)).await;
    }
    // 0.5 + 1 + 2 + 4 + 8 seconds, then 15 each.
    assert!((8..=10).contains(&bench.script.fetches()), "{}", bench.script.fetches());
    bench.script.say(Answer::Value("one"));
    sleep(Duration::from_secs(17)).await;
    assert_eq!(bench.get().await, Ok("one".into()));
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_the_store_no_longer_has_or_denies_ends_at_once() {
    for revoked in [Failure::NotFound, Failure::Denied, Failure::FieldMissing] {
        let bench = Bench::new("one");
        bench.get().await.unwrap();
        bench.script.say(Answer::Failure(revoked));
        sleep(MINUTE).await;
        assert_eq!(bench.peek(), None);
        assert_eq!(bench.get().await, Err(revoked));
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_cannot_be_read_for_now_does_not_end_the_one_that_is_held() {
    let bench = Bench::new("one");
    bench.get().await.unwrap();
    bench.script.say(Answer::Value(""));
    sleep(MINUTE * 2).await;
    assert_eq!(bench.peek(), Some("one".into()));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_is_a_timeout() {
    let bench = Bench::new("one");
    bench.script.delay(MINUTE * 60);
    let began = Instant::now();
    assert_eq!(bench.get().await, Err(Failure::Timeout));
    assert!(began.elapsed() < MINUTE);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_fetch_is_a_failure_and_not_the_end_of_the_secret() {
    let bench = Bench::new("one");
    bench.script.say(Answer::Panic);
    assert_eq!(bench.get().await, Err(Failure::Internal));
    for _ in 0..100 {
        assert_eq!(bench.get().await, Err(Failure::Internal));
    }
    assert!(bench.script.fetches() <= 2);
    bench.script.say(Answer::Value("one"));
    sleep(MINUTE).await;
    assert_eq!(bench.get().await, Ok("one".into()));
}

mod fit;
mod minted;

mod new_policy {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_unrelated_edit_keeps_the_value() {
        let bench = Bench::new("one");
        bench.get().await.unwrap();
        bench.install(&[("openai", "path", FRESHNESS), ("anthropic", "other", FRESHNESS)]);
        assert_eq!(bench.peek(), Some("one".into()));
        assert_eq!(bench.script.fetches(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_credential_that_left_is_let_go_of_and_its_tasks_end() {
        let bench = Bench::new("one");
        let secret = bench.secrets.get(&openai(), 0).await.unwrap();
        let held = Arc::downgrade(&secret);
        bench.install(&[]);
        assert_eq!(bench.peek(), None);
        assert_eq!(bench.get().await, Err(Failure::Withdrawn));
        drop(secret);
        assert!(held.upgrade().is_none(), "only the request that used it kept it");
        sleep(MINUTE * 10).await;
        assert_eq!(bench.script.fetches(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_credential_that_left_during_its_fetch_is_not_kept() {
        let bench = Bench::new("one");
        bench.script.delay(Duration::from_secs(5));
        let waiting = {
            let secrets = Arc::clone(&bench.secrets);
            tokio::spawn(async move { secrets.get(&openai(), 0).await.map(|secret| Arc::downgrade(&secret)) })
        };
        sleep(Duration::from_secs(1)).await;
        bench.install(&[]);
        let answered = waiting.await.unwrap().unwrap();
        assert!(answered.upgrade().is_none());
        sleep(MINUTE * 10).await;
        assert_eq!(bench.script.fetches(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_of_an_older_policy_never_gets_another_secret_than_it_names() {
        let bench = Bench::new("one");
        bench.get().await.unwrap();
        bench.install(&[("openai", "other", FRESHNESS)]);
        assert_eq!(bench.peek(), None);
        assert_eq!(bench.get().await, Err(Failure::Withdrawn));
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_that_share_a_secret_share_its_fetch_and_the_stricter_freshness() {
        let bench = Bench::new("one");
        let short = Freshness { refresh: Duration::from_secs(6), max_stale: Duration::from_secs(12) };
        bench.install(&[("openai", "path", FRESHNESS), ("also-openai", "path", short)]);
        bench.get().await.unwrap();
        let also = credential_for("also-openai", &reference("path"), short);
        assert!(bench.secrets.peek(&also, 0).is_some());
        sleep(MINUTE).await;
        assert!(bench.script.fetches() >= 13, "{}", bench.script.fetches());
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_life_applies_to_the_value_that_is_held() {
        let bench = Bench::new("one");
        bench.get().await.unwrap();
        let short = Freshness { refresh: Duration::from_secs(6), max_stale: Duration::from_secs(12) };
        bench.script.say(Answer::Value("two"));
        bench.install(&[("openai", "path", short)]);
        assert_eq!(bench.peek(), Some("one".into()));
        sleep(Duration::from_secs(5)).await;
        assert_eq!(bench.peek(), Some("two".into()));
    }
}

#[tokio::test(start_paused = true)]
async fn health_tells_stale_and_unavailable_secrets_of_a_failing_store() {
    let bench = Bench::new("one");
    bench.install(&[("openai", "path", FRESHNESS), ("anthropic", "other", FRESHNESS)]);
    bench.get().await.unwrap();
    let healthy = &bench.secrets.health()[0];
    assert_eq!((healthy.failing_for, healthy.error, healthy.secrets), (None, None, 2));

    bench.script.say(Answer::Failure(Failure::Sealed));
    let anthropic = credential_for("anthropic", &reference("other"), FRESHNESS);
    let error = bench.secrets.get(&anthropic, 0).await.unwrap_err();
    assert_eq!(error.to_string(), "credential anthropic: the vault is sealed or not ready");
    sleep(MINUTE * 2).await;
    let failing = &bench.secrets.health()[0];
    assert_eq!((failing.error, failing.stale, failing.unavailable), (Some("sealed"), 1, 1));
    assert!(failing.failing_for.unwrap() >= MINUTE * 2);
    assert!(failing.failures > 2 && failing.fetches > failing.failures);
}
