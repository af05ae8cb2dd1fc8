//! Values that end by themselves, made by a token endpoint whose answers are scripted.

use tollgate_policy::policy::{Client, ClientAuth, Mint, TokenGrant};

use super::*;
use crate::mint::tests::{endpoint, mint};
use crate::reference::Minting;

const LIFE: Duration = MINUTE;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

struct Mints {
    bench: Bench,
    script: Arc<Script>,
    issuer: Arc<Issuer>,
}

fn minting() -> Arc<Mint> {
    let client = Client { id: Some("tollgate".to_owned()), auth: ClientAuth::Basic };
    Arc::new(mint(endpoint(), TokenGrant::ClientCredentials(client)))
}

fn minted() -> Reference {
    Reference { mint: Some(Minting { mint: minting(), client: None }), ..reference("path") }
}

fn credential() -> Credential {
    credential_for("salesforce", &minted(), Freshness { refresh: DAY, max_stale: DAY })
}

impl Mints {
    fn new() -> Self {
        let (bench, script) = (Bench::new("s3cret"), Script::new("unused"));
        script.say(Answer::Mints(LIFE));
        let issuer = Arc::new(Issuer::scripted(endpoint(), Arc::clone(&script)));
        let slots = Slots { issuers: vec![Arc::clone(&issuer)], ..Slots::default() };
        bench.secrets.slots.store(Arc::new(slots));
        let mints = Self { bench, script, issuer };
        mints.install();
        mints
    }

    fn install(&self) {
        let credential = credential();
        let wanted = Wanted {
            description: credential.reference(&credential.keys[0]),
            credential: Arc::new(credential),
            alias: None,
            reference: minted(),
            freshness: Freshness { refresh: DAY, max_stale: DAY },
        };
        self.bench.secrets.install(vec![Arc::clone(&self.bench.store)], vec![wanted]);
    }

    async fn get(&self) -> Result<String, Failure> {
        let got = self.bench.secrets.get(&credential(), 0).await;
        got.map(|secret| text(&secret)).map_err(|error| error.failure())
    }

    fn peek(&self) -> Option<String> {
        self.bench.secrets.peek(&credential(), 0).map(|secret| text(&secret))
    }

    async fn version(&self) -> Version {
        self.bench.secrets.get(&credential(), 0).await.unwrap().version().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_minted_once_per_life_ahead_of_its_end_and_nobody_waits() {
    let mints = Mints::new();
    assert_eq!((mints.peek(), mints.script.fetches()), (None, 0));
    mints.script.delay(SECOND);
    let mut callers = JoinSet::new();
    for _ in 0..1000 {
        let secrets = Arc::clone(&mints.bench.secrets);
        callers.spawn(async move { secrets.get(&credential(), 0).await.map(|secret| text(&secret)) });
    }
    while let Some(answer) = callers.join_next().await {
        assert_eq!(answer.unwrap().unwrap(), "token-1");
    }
    assert_eq!(mints.script.fetches(), 1);
    for _ in 0..600 {
        sleep(SECOND).await;
        assert!(mints.peek().is_some());
    }
    // Two thirds of a minute less the second that it took, and the jitter.
    assert!((600 / 46..=1 + 600 / 35).contains(&mints.script.fetches()), "{}", mints.script.fetches());
    assert_eq!(mints.bench.script.fetches(), mints.script.fetches(), "the stored secret is read for each");
}

#[tokio::test(start_paused = true)]
async fn a_token_serves_while_its_endpoint_is_down_and_never_past_its_end() {
    let mints = Mints::new();
    mints.script.delay(SECOND * 3);
    let asked = Instant::now();
    assert_eq!(mints.get().await, Ok("token-1".into()));
    mints.script.say(Answer::Failure(Failure::Unreachable("connection refused")));
    while asked.elapsed() < LIFE {
        assert_eq!(mints.peek(), Some("token-1".into()), "{:?}", asked.elapsed());
        sleep(Duration::from_millis(50)).await;
    }
    for _ in 0..1000 {
        assert_eq!(mints.peek(), None, "{:?}", asked.elapsed());
        assert!(mints.get().await.is_err());
        sleep(Duration::from_millis(50)).await;
    }
    let health = &mints.bench.secrets.issuers()[0];
    assert_eq!((health.error, health.tokens, health.unavailable), (Some("unreachable"), 1, 1));
    assert_eq!(health.endpoint, "idp/oauth2/token");
    assert!((4..=16).contains(&health.failures), "{}", health.failures);
    assert_eq!(mints.bench.secrets.health()[0].error, None, "the store works");

    mints.script.say(Answer::Mints(LIFE));
    sleep(SECOND * 17).await;
    assert!(mints.get().await.is_ok());
    assert_eq!(mints.bench.secrets.issuers()[0].error, None);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ends_while_it_is_on_its_way_is_not_used() {
    let mints = Mints::new();
    mints.script.say(Answer::Mints(SECOND));
    mints.script.delay(SECOND);
    assert_eq!(mints.get().await, Err(Failure::Malformed("it was over before it came")));
    assert_eq!(mints.peek(), None);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_talks_nonsense_is_asked_once_per_back_off() {
    let failure = Failure::MintNonsense("expires_in is 0");
    let mints = Mints::new();
    mints.script.say(Answer::Failure(failure));
    let began = Instant::now();
    while began.elapsed() < MINUTE {
        assert_eq!(mints.get().await, Err(failure));
        sleep(Duration::from_millis(10)).await;
    }
    assert!((8..=10).contains(&mints.script.fetches()), "{}", mints.script.fetches());
    assert_eq!(mints.issuer.health().error, Some("mint_nonsense"));
}

#[tokio::test(start_paused = true)]
async fn a_client_secret_that_was_refused_is_not_shown_again_and_another_is_within_seconds() {
    let failure = Failure::MintRefused("invalid_client");
    let mints = Mints::new();
    mints.script.say(Answer::Failure(failure));
    let began = Instant::now();
    while began.elapsed() < MINUTE * 3 {
        assert_eq!(mints.get().await, Err(failure));
        sleep(SECOND / 10).await;
    }
    assert_eq!(mints.script.fetches(), 1, "shown once");
    assert_eq!(mints.issuer.health().error, None, "a refusal concerns one credential only");
    mints.bench.script.say(Answer::Value("another"));
    mints.script.say(Answer::Mints(LIFE));
    let written = Instant::now();
    while mints.get().await.is_err() {
        sleep(SECOND / 10).await;
    }
    assert!(written.elapsed() < SECOND * 6, "{:?}", written.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_secret_that_was_made_good_at_the_endpoint_is_taken_in_minutes_or_when_an_operator_says_so()
{
    for is_told in [false, true] {
        let mints = Mints::new();
        mints.script.say(Answer::Failure(Failure::MintRefused("invalid_client")));
        assert!(mints.get().await.is_err());
        mints.script.say(Answer::Mints(LIFE));
        let mended = Instant::now();
        if is_told {
            let done = mints.bench.secrets.refresh(&credential(), 0).await.unwrap();
            assert!(done.failure.is_none() && done.now.is_some());
        }
        while mints.get().await.is_err() {
            sleep(SECOND / 10).await;
        }
        assert!(mended.elapsed() < if is_told { SECOND } else { MINUTE * 5 }, "{:?}", mended.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_rejects_every_token_cannot_force_more_than_one_mint_in_30_seconds() {
    let mints = Mints::new();
    let first = mints.version().await;
    let fresh = mints.bench.secrets.rejected(&credential(), 0, &first).await.unwrap();
    assert_eq!(text(&fresh), "token-2");
    for _ in 0..1000 {
        let latest = mints.version().await;
        assert!(mints.bench.secrets.rejected(&credential(), 0, &latest).await.is_none());
    }
    assert_eq!(mints.script.fetches(), 2);
    let again = mints.bench.secrets.rejected(&credential(), 0, &first).await;
    assert_eq!(again.map(|secret| text(&secret)), Some("token-2".into()), "one that came late still gets it");
    advance(SECOND * 31).await;
    assert!(mints.bench.secrets.rejected(&credential(), 0, fresh.version()).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_stored_secret_that_is_taken_away_ends_the_token_and_is_no_fault_of_the_endpoint() {
    let mints = Mints::new();
    mints.get().await.unwrap();
    mints.bench.script.say(Answer::Failure(Failure::NotFound));
    sleep(LIFE * 3 / 4).await;
    assert_eq!(mints.peek(), None);
    assert_eq!(mints.get().await, Err(Failure::NotFound));
    assert_eq!((mints.script.fetches(), mints.issuer.health().failures), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_unrelated_edit_keeps_token_and_endpoint_and_another_mint_gets_none_of_it() {
    let mints = Mints::new();
    mints.get().await.unwrap();
    mints.install();
    assert_eq!(mints.peek(), Some("token-1".into()));
    let mut other = credential();
    other.mint = Some(Arc::new(Mint { scope: Some("admin".to_owned()), ..minting().as_ref().clone() }));
    assert!(mints.bench.secrets.peek(&other, 0).is_none());
    other.mint = None;
    assert!(mints.bench.secrets.peek(&other, 0).is_none(), "nor one who would take the stored secret itself");
}

#[tokio::test(start_paused = true)]
async fn versions_tell_tokens_apart_and_nothing_about_them() {
    let mints = Mints::new();
    let first = mints.version().await;
    sleep(LIFE).await;
    let second = mints.version().await;
    assert_ne!(first, second);
    for version in [first, second] {
        assert!(
            version.as_str().len() == 12 && version.as_str().bytes().all(|byte| byte.is_ascii_hexdigit())
        );
    }
}
