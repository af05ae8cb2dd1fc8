//! Values that their credentials cannot use.

use super::*;

/// What every bench is told.
pub(super) fn fits(credential: &Credential, secret: &Secret) -> Result<(), &'static str> {
    let is_good = text(secret) != "unfit" || credential.name.as_str() == "careless";
    is_good.then_some(()).ok_or("it does not fit")
}

#[tokio::test(start_paused = true)]
async fn a_value_that_does_not_fit_leaves_the_one_before_in_use_while_it_may_be_and_is_not_called_well() {
    let bench = Bench::new("one");
    let first = bench.secrets.get(&openai(), 0).await.unwrap();
    let fetched = Instant::now();
    let health = || bench.secrets.status()[0].health;
    assert_eq!(health(), Health::Well);
    let unfit = Failure::Malformed("it does not fit");
    bench.script.say(Answer::Value("unfit"));
    assert!(bench.secrets.rejected(&openai(), 0, first.version()).await.is_none());
    assert_eq!((bench.peek(), health().failure()), (Some("one".into()), Some(unfit)));
    assert_eq!(health().as_str(), "stale");
    while fetched.elapsed() < FRESHNESS.max_stale - Duration::from_secs(1) {
        sleep(Duration::from_millis(700)).await;
        assert_eq!((bench.peek(), health().as_str()), (Some("one".into()), "stale"));
    }
    sleep(Duration::from_secs(2)).await;
    assert_eq!((bench.get().await, health()), (Err(unfit), Health::Unavailable { failure: unfit }));
    bench.script.say(Answer::Value("two"));
    sleep(MINUTE).await;
    assert_eq!((bench.get().await, health()), (Ok("two".into()), Health::Well));
}

#[tokio::test(start_paused = true)]
async fn a_value_that_fits_one_of_its_credentials_is_taken() {
    let bench = Bench::new("unfit");
    assert_eq!(bench.get().await, Err(Failure::Malformed("it does not fit")));
    bench.install(&[("openai", "path", FRESHNESS), ("careless", "path", FRESHNESS)]);
    sleep(MINUTE).await;
    assert_eq!(bench.get().await, Ok("unfit".into()));
}
