//! What is there before anybody asks.

use super::*;

#[tokio::test(start_paused = true)]
async fn nothing_is_fetched_before_it_is_asked_for() {
    let bench = Bench::new("one");
    advance(MINUTE * 10).await;
    assert_eq!(bench.peek(), None);
    assert_eq!(bench.script.fetches(), 0);
    assert_eq!(bench.get().await, Ok("one".into()));
    assert_eq!(bench.peek(), Some("one".into()));
}

#[tokio::test(start_paused = true)]
async fn what_is_wanted_ahead_is_fetched_once_when_the_policy_is_in_force_and_the_rest_is_not() {
    let bench = Bench::new("one");
    let wanted = |name: &str, path: &str, prefetch| {
        let reference = reference(path);
        let credential = Credential { prefetch, ..credential_for(name, &reference, FRESHNESS) };
        let (alias, description) = (None, format!("store:{path}"));
        Wanted { alias, credential: Arc::new(credential), description, reference, freshness: FRESHNESS }
    };
    let both = || vec![wanted("openai", "path", true), wanted("other", "elsewhere", false)];
    bench.secrets.install(vec![Arc::clone(&bench.store)], both());
    assert_eq!(bench.script.fetches(), 0);
    bench.secrets.prefetch();
    sleep(Duration::from_secs(1)).await;
    assert_eq!((bench.script.fetches(), bench.peek()), (1, Some("one".into())));
    bench.secrets.install(vec![Arc::clone(&bench.store)], both());
    bench.secrets.prefetch();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.script.fetches(), 1, "it is there");
}
