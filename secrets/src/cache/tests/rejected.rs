//! What becomes of a secret that its provider refuses: who sees it, and how soon another is taken.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

async fn rejected(bench: &Bench, version: &Version) -> Option<String> {
    bench.secrets.rejected(&openai(), 0, version).await.map(|secret| text(&secret))
}

fn health(bench: &Bench) -> Health {
    bench.secrets.status()[0].health
}

#[tokio::test(start_paused = true)]
async fn a_file_that_changed_is_read_as_soon_as_its_old_key_is_rejected_and_one_that_did_not_is_left_alone() {
    let bench = Bench::new("one");
    bench.script.touch(1);
    let version = bench.secrets.get(&openai(), 0).await.unwrap().version().clone();
    for _ in 0..1000 {
        assert_eq!(rejected(&bench, &version).await, None);
    }
    assert_eq!(bench.script.fetches(), 2);
    bench.script.say(Answer::Value("two"));
    bench.script.touch(2);
    assert_eq!(rejected(&bench, &version).await, Some("two".into()), "no pause is waited for");
    assert_eq!(bench.script.fetches(), 3);
    let second = bench.secrets.peek(&openai(), 0).unwrap().version().clone();
    // Also where what was put there last cannot be had.
    bench.script.say(Answer::Failure(Failure::Sealed));
    assert_eq!(rejected(&bench, &second).await, None);
    bench.script.say(Answer::Value("three"));
    bench.script.touch(3);
    assert_eq!(rejected(&bench, &second).await, Some("three".into()));
}

#[tokio::test(start_paused = true)]
async fn of_a_file_that_changes_while_it_is_read_the_change_is_seen() {
    let bench = Bench::new("one");
    bench.script.touch(1);
    let version = bench.secrets.get(&openai(), 0).await.unwrap().version().clone();
    bench.script.delay(SECOND);
    let (secrets, asked) = (Arc::clone(&bench.secrets), version.clone());
    let first = tokio::spawn(async move { secrets.rejected(&openai(), 0, &asked).await.is_some() });
    sleep(SECOND / 2).await;
    bench.script.say(Answer::Value("two"));
    bench.script.touch(2);
    assert!(!first.await.unwrap(), "what it read was there before");
    assert_eq!(rejected(&bench, &version).await, Some("two".into()));
}

#[tokio::test(start_paused = true)]
async fn a_key_of_which_nothing_but_refusals_came_is_asked_for_soon_and_one_that_is_taken_between_is_not() {
    for is_taken in [false, true] {
        let bench = Bench::new("one");
        let secret = bench.secrets.get(&openai(), 0).await.unwrap();
        let began = Instant::now();
        while began.elapsed() < MINUTE / 2 {
            assert_eq!(rejected(&bench, secret.version()).await, None);
            if is_taken {
                bench.secrets.taken(&openai(), 0, &secret);
            }
            sleep(SECOND / 10).await;
        }
        let fetches = bench.script.fetches();
        assert!(if is_taken { fetches == 2 } else { (7..=8).contains(&fetches) }, "{is_taken}: {fetches}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_key_is_seen_to_be_until_it_is_taken_or_another_is_there() {
    let bench = Bench::new("one");
    let secret = bench.secrets.get(&openai(), 0).await.unwrap();
    assert_eq!(health(&bench), Health::Well);
    rejected(&bench, secret.version()).await;
    sleep(SECOND * 3).await;
    assert_eq!(health(&bench), Health::Rejected { since: SECOND * 3 });
    assert_eq!(bench.secrets.status()[0].rejected, Some(SECOND * 3));
    assert!(secret.is_rejected());
    bench.secrets.taken(&openai(), 0, &secret);
    assert_eq!(health(&bench), Health::Well);
    rejected(&bench, secret.version()).await;
    // That the store says the same again changes nothing.
    sleep(MINUTE).await;
    assert!(matches!(health(&bench), Health::Rejected { .. }));
    bench.script.say(Answer::Value("two"));
    sleep(MINUTE).await;
    assert_eq!(health(&bench), Health::Well);
    rejected(&bench, secret.version()).await;
    assert_eq!(health(&bench), Health::Well, "what is said of the one before is not said of this one");
}

#[tokio::test(start_paused = true)]
async fn an_operator_has_a_secret_fetched_at_once_and_hears_what_came_of_it() {
    let bench = Bench::new("one");
    let refreshed = async || bench.secrets.refresh(&openai(), 0).await.unwrap();
    let first = refreshed().await;
    assert!(first.before.is_none() && first.changed && first.failure.is_none());
    let same = refreshed().await;
    assert!(same.before == first.now && same.now == first.now && !same.changed);
    bench.script.say(Answer::Failure(Failure::Sealed));
    let failed = refreshed().await;
    assert_eq!(
        (failed.now, failed.failure),
        (first.now, Some(Failure::Sealed)),
        "what there was is still used"
    );
    // No back-off is waited for.
    bench.script.say(Answer::Value("two"));
    let second = refreshed().await;
    assert!(second.changed && second.failure.is_none());
    assert_eq!(bench.peek(), Some("two".into()));
    bench.install(&[]);
    assert!(bench.secrets.refresh(&openai(), 0).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn all_that_was_asked_for_is_read_again_on_request_and_nothing_else() {
    let bench = Bench::new("one");
    bench.secrets.reread();
    sleep(SECOND).await;
    assert_eq!(bench.script.fetches(), 0, "nobody asked for it yet");
    bench.get().await.unwrap();
    bench.script.say(Answer::Value("two"));
    bench.secrets.reread();
    sleep(SECOND).await;
    assert_eq!((bench.peek(), bench.script.fetches()), (Some("two".into()), 2));
}

#[tokio::test(start_paused = true)]
async fn callers_whose_key_was_rejected_together_all_get_the_new_one_from_one_fetch() {
    let bench = Bench::new("one");
    let old = bench.secrets.get(&openai(), 0).await.unwrap().version().clone();
    bench.script.say(Answer::Value("two"));
    bench.script.delay(Duration::from_secs(1));
    let mut callers = JoinSet::new();
    for _ in 0..500 {
        let (secrets, old) = (Arc::clone(&bench.secrets), old.clone());
        callers.spawn(async move { secrets.rejected(&openai(), 0, &old).await.map(|new| text(&new)) });
    }
    while let Some(answer) = callers.join_next().await {
        assert_eq!(answer.unwrap(), Some("two".into()));
    }
    assert_eq!(bench.script.fetches(), 2);
    assert_eq!(rejected(&bench, &old).await, Some("two".into()), "known already");
    assert_eq!(bench.script.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_caller_cannot_force_more_than_one_fetch_per_version_in_30_seconds() {
    let bench = Bench::new("one");
    let version = bench.secrets.get(&openai(), 0).await.unwrap().version().clone();
    for _ in 0..1000 {
        assert_eq!(rejected(&bench, &version).await, None);
    }
    assert_eq!(bench.script.fetches(), 2);
    advance(Duration::from_secs(31)).await;
    bench.script.say(Answer::Value("two"));
    assert_eq!(rejected(&bench, &version).await, Some("two".into()));
    assert_eq!(bench.script.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_began_before_the_rotation_is_not_taken_for_the_answer() {
    let bench = Bench::new("one");
    let version = bench.secrets.get(&openai(), 0).await.unwrap().version().clone();
    bench.script.delay(Duration::from_secs(10));
    // Into the refresh ahead, which has read "one" by now.
    sleep(Duration::from_secs(45)).await;
    assert_eq!(bench.script.fetches(), 2);
    bench.script.say(Answer::Value("two"));
    assert_eq!(rejected(&bench, &version).await, Some("two".into()));
    assert_eq!(bench.script.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_failing_store_is_not_asked_out_of_turn_and_the_value_stays() {
    let bench = Bench::new("one");
    let version = bench.secrets.get(&openai(), 0).await.unwrap().version().clone();
    bench.script.say(Answer::Failure(Failure::Sealed));
    assert_eq!(rejected(&bench, &version).await, None);
    let fetches = bench.script.fetches();
    assert_eq!(rejected(&bench, &version).await, None);
    assert_eq!(bench.script.fetches(), fetches);
    assert_eq!(bench.peek(), Some("one".into()));
}
