use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Handle;
use tollgate_policy::compile::compile_files;
use tollgate_policy::model::SourceFile;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A pool of two keys in files, and a credential of one.
pub(crate) struct KeyFixture {
    files: TempDir,
    policy: Policy,
    secrets: Arc<Secrets>,
    keys: KeyPools,
}

fn policy(root: &Path, aliases: &[&str]) -> Policy {
    let resource = |kind: &str, name: &str, spec: &str| {
        format!(
            "---\napiVersion: tollgate.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
        )
    };
    let entry = |alias: &&str| format!("{{alias: {alias}, store: files, path: {alias}}}");
    let from = aliases.iter().map(entry).collect::<Vec<_>>().join(", ");
    let text = resource("Destination", "up", "hosts: [up.example]")
        + &resource("SecretStore", "files", &format!("file: {{root: {root:?}}}"))
        + &resource(
            "Credential",
            "pool",
            &format!("destinations: [up], from: [{from}], inject: {{bearer: {{}}}}, refresh: 1h"),
        )
        + &resource(
            "Credential",
            "single",
            "destinations: [up], from: {store: files, path: a}, inject: {bearer: {}}",
        );
    let environment = crate::app::environment_of(&[], &[]).unwrap();
    compile_files(&[SourceFile { path: "a.yaml".into(), text }], &environment).unwrap().policy
}

impl KeyFixture {
    pub(crate) fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            std::fs::write(files.path().join(name), format!("sk-{name}-1")).unwrap();
        }
        let policy = policy(files.path(), &["a", "b"]);
        let secrets = Secrets::new(Handle::current(), Arc::new(|_| true));
        secrets.apply(&policy);
        let keys = KeyPools::default();
        keys.apply(&policy);
        Self { files, policy, secrets, keys }
    }

    pub(crate) fn pool(&self) -> &Arc<Credential> {
        self.policy.credentials().find(|credential| credential.is_pool()).unwrap()
    }

    pub(crate) async fn chosen(&self, key: usize) -> SelectedKey {
        let alias = self.pool().keys[key].alias.clone();
        SelectedKey { key, alias, secret: self.secrets.get(self.pool(), key).await.unwrap() }
    }

    /// Puts another value in the place of a key, as after a rotation.
    pub(crate) async fn rotated(&self, key: usize) -> SelectedKey {
        let before = self.chosen(key).await;
        std::fs::write(self.files.path().join(before.alias.as_ref().unwrap().as_str()), "sk-another")
            .unwrap();
        let secret = self.secrets.rejected(self.pool(), key, before.secret.version()).await.unwrap();
        SelectedKey { secret, ..before }
    }

    /// For how long this caller is kept from the key.
    fn out(&self, chosen: &SelectedKey, whose: &str, now: Instant) -> Option<Duration> {
        self.exclusion(chosen, whose, now).map(|exclusion| exclusion.until - now)
    }

    fn exclusion(&self, chosen: &SelectedKey, whose: &str, now: Instant) -> Option<Exclusion> {
        let secret = || Some(Arc::clone(&chosen.secret));
        self.keys.exclusion(self.pool(), chosen.key, &caller(whose), secret, now)
    }

    fn bench(&self, chosen: &SelectedKey, whose: &str, now: Instant) -> bool {
        self.keys.bench(self.pool(), chosen, &caller(whose), now)
    }

    fn cool(&self, chosen: &SelectedKey, whose: &str, rest: Duration, now: Instant) {
        self.keys.cool(self.pool(), chosen, &caller(whose), rest, now);
    }

    fn did_worse(&self, chosen: &SelectedKey, whose: &str, now: Instant) {
        self.keys.did_worse(self.pool(), chosen, &caller(whose), now);
    }

    /// A call that left at `left` was answered well at `now`.
    fn well(&self, chosen: &SelectedKey, whose: &str, left: Instant, now: Instant) {
        self.keys.answered_well(self.pool(), chosen, &caller(whose), left, now);
    }

    fn states(&self, now: Instant) -> [&'static str; 2] {
        let status = self.keys.status(&self.policy, &self.secrets, now);
        assert!(status.iter().all(|status| status.credential.as_str() == "pool"), "one key needs no state");
        [status[0].state, status[1].state]
    }
}

fn caller(name: &str) -> Identity {
    format!("spiffe://prod.acme/ns/{name}/sa/app").parse().unwrap()
}

#[tokio::test]
async fn a_dead_key_is_benched_for_half_a_minute_and_for_twice_as_long_each_time() {
    let fixture = KeyFixture::new();
    let key = fixture.chosen(0).await;
    let mut now = Instant::now();
    for seconds in [30, 60, 120, 240, 480, 600, 600] {
        assert!(fixture.bench(&key, "one", now));
        assert_eq!(fixture.out(&key, "one", now), Some(SECOND * seconds));
        assert!(!fixture.bench(&key, "one", now + SECOND), "a call that was under way is no news");
        assert_eq!(fixture.out(&key, "one", now + SECOND), Some(SECOND * (seconds - 1)));
        now += SECOND * seconds;
        assert_eq!(fixture.out(&key, "one", now), None);
    }
    assert_eq!(fixture.keys.status(&fixture.policy, &fixture.secrets, now)[0].benchings, 7);
    fixture.well(&key, "one", now, now);
    assert!(fixture.bench(&key, "one", now));
    assert_eq!(fixture.out(&key, "one", now), Some(SECOND * 30), "a good answer makes it as good as new");
}

#[tokio::test]
async fn everybodys_bench_grows_whoever_finds_the_key_dead_again() {
    let fixture = KeyFixture::new();
    let (key, now) = (fixture.chosen(0).await, Instant::now());
    fixture.bench(&key, "one", now);
    fixture.did_worse(&key, "one", now);
    assert_eq!(fixture.out(&key, "other", now), Some(SECOND * 30));
    assert!(!fixture.bench(&key, "other", now + SECOND), "it was under way");
    assert_eq!(fixture.out(&key, "third", now + SECOND), Some(SECOND * 29));
    let over = now + SECOND * 30;
    assert!(fixture.bench(&key, "third", over));
    fixture.did_worse(&key, "third", over);
    assert_eq!(fixture.out(&key, "one", over), Some(MINUTE));
}

#[tokio::test]
async fn of_the_calls_that_find_a_bench_over_one_tries_the_key() {
    let fixture = KeyFixture::new();
    let (key, now) = (fixture.chosen(0).await, Instant::now());
    fixture.bench(&key, "one", now);
    fixture.did_worse(&key, "one", now);
    let over = now + SECOND * 30;
    fixture.keys.taken(fixture.pool(), 0, &caller("other"), over);
    assert_eq!(fixture.out(&key, "one", over), Some(SECOND * 2));
    assert_eq!(fixture.states(over), ["benched", "usable"]);
    assert_eq!(fixture.out(&key, "one", over + SECOND * 2), None, "it may have come to nothing");
    fixture.keys.taken(fixture.pool(), 0, &caller("one"), over + SECOND * 2);
    assert!(fixture.bench(&key, "one", over + SECOND * 3));
    assert_eq!(fixture.out(&key, "one", over + SECOND * 3), Some(MINUTE));
}

#[tokio::test]
async fn a_key_rests_as_long_as_it_was_told_to_and_resting_ends_no_fixture() {
    let fixture = KeyFixture::new();
    let (key, now) = (fixture.chosen(1).await, Instant::now());
    fixture.cool(&key, "one", SECOND * 7, now);
    assert_eq!(
        (fixture.out(&key, "one", now), fixture.states(now)),
        (Some(SECOND * 7), ["usable", "cooling"])
    );
    fixture.keys.taken(fixture.pool(), 1, &caller("one"), now + SECOND * 7);
    assert_eq!(fixture.out(&key, "one", now + SECOND * 7), None, "all its calls may use it again");
    fixture.bench(&key, "one", now);
    fixture.cool(&key, "one", SECOND, now);
    assert_eq!(
        (fixture.out(&key, "one", now), fixture.states(now)),
        (Some(SECOND * 30), ["usable", "benched"])
    );
}

#[tokio::test]
async fn a_key_that_has_to_rest_when_its_bench_is_over_rests() {
    let fixture = KeyFixture::new();
    let (key, now) = (fixture.chosen(0).await, Instant::now());
    fixture.bench(&key, "one", now);
    let over = now + SECOND * 30;
    fixture.keys.taken(fixture.pool(), 0, &caller("one"), over);
    fixture.cool(&key, "one", SECOND * 40, over + SECOND);
    assert_eq!(fixture.out(&key, "one", over + SECOND * 3), Some(SECOND * 38));
    assert_eq!(fixture.states(over + SECOND * 3), ["cooling", "usable"]);
}

#[tokio::test]
async fn what_one_callers_calls_were_refused_keeps_nobody_else_from_a_key() {
    let fixture = KeyFixture::new();
    let (key, now) = (fixture.chosen(0).await, Instant::now());
    for _ in 0..9 {
        fixture.cool(&key, "one", SECOND * 600, now);
    }
    assert_eq!(fixture.out(&key, "one", now), Some(SECOND * 600));
    assert_eq!(fixture.out(&key, "other", now), None, "one too large for its limits is");
    fixture.bench(&key, "one", now);
    assert_eq!(fixture.out(&key, "other", now), None);
    fixture.well(&key, "other", now + SECOND, now + SECOND);
    assert!(
        fixture.out(&key, "one", now + SECOND).is_some(),
        "that others are answered says nothing of its calls"
    );
}

#[tokio::test]
async fn everybody_leaves_a_key_that_two_callers_were_refused_or_that_did_worse_than_another() {
    for is_met in [true, false] {
        let fixture = KeyFixture::new();
        let (key, now) = (fixture.chosen(0).await, Instant::now());
        fixture.cool(&key, "one", SECOND * 20, now);
        if is_met {
            fixture.cool(&key, "other", SECOND * 20, now);
        } else {
            fixture.did_worse(&key, "one", now);
        }
        assert_eq!(fixture.out(&key, "third", now), Some(SECOND * 20));
        assert_eq!(fixture.out(&key, "third", now + SECOND * 20), None);
    }
}

#[tokio::test]
async fn who_was_not_refused_itself_may_try_whatever_so_many_others_found() {
    let fixture = KeyFixture::new();
    let (key, now) = (fixture.chosen(0).await, Instant::now());
    let is_own = |name: &str| fixture.exclusion(&key, name, now).map(|exclusion| exclusion.is_own);
    for n in 0..300 {
        fixture.cool(&key, &format!("villain-{n}"), MINUTE, now);
        fixture.bench(&key, &format!("villain-{n}"), now);
        fixture.did_worse(&key, &format!("villain-{n}"), now);
    }
    assert_eq!((is_own("villain-299"), is_own("honest")), (Some(true), Some(false)));
    fixture.well(&key, "honest", now + SECOND, now + SECOND);
    assert_eq!(is_own("honest"), None, "it is as good as ever");
    assert_eq!(is_own("villain-299"), Some(true));
    fixture.bench(&key, "honest", now + SECOND);
    assert_eq!(is_own("honest"), Some(true), "once");
}

#[tokio::test]
async fn a_caller_is_kept_from_a_key_for_no_longer_than_its_own_calls_say() {
    let fixture = KeyFixture::new();
    let (key, now) = (fixture.chosen(0).await, Instant::now());
    for (n, villain) in ["one", "other", "one"].into_iter().enumerate() {
        fixture.cool(&key, villain, MINUTE * 10, now);
        fixture.bench(&key, villain, now + SECOND * 30 * u32::try_from(n).unwrap());
    }
    let now = now + SECOND * 60;
    let is_own = |at: Instant| fixture.exclusion(&key, "honest", at).map(|exclusion| exclusion.is_own);
    fixture.cool(&key, "honest", SECOND, now);
    assert_eq!((is_own(now), is_own(now + SECOND)), (Some(true), Some(false)));
    fixture.bench(&key, "honest", now);
    assert_eq!((is_own(now + SECOND), is_own(now + SECOND * 30)), (Some(true), Some(false)));
    assert_eq!(fixture.out(&key, "honest", now + SECOND * 30), Some(SECOND * 510), "the others have");
}

#[tokio::test]
async fn the_answer_to_a_call_that_left_before_the_key_was_refused_ends_nothing() {
    let fixture = KeyFixture::new();
    let (key, now) = (fixture.chosen(0).await, Instant::now());
    let (left, later) = (now, now + SECOND * 3);
    fixture.bench(&key, "one", now + SECOND);
    fixture.cool(&key, "one", MINUTE, now + SECOND);
    fixture.well(&key, "one", left, later);
    assert_eq!(fixture.out(&key, "one", later), Some(SECOND * 28));
    fixture.well(&key, "one", now + SECOND * 2, later);
    assert_eq!((fixture.out(&key, "one", later), fixture.states(later)), (None, ["usable", "usable"]));
}

#[tokio::test]
async fn a_new_version_starts_with_nothing_against_it_and_the_old_one_is_forgotten() {
    let fixture = KeyFixture::new();
    let (old, now) = (fixture.chosen(0).await, Instant::now());
    fixture.bench(&old, "one", now);
    assert_eq!(fixture.states(now), ["benched", "usable"]);
    let new = fixture.rotated(0).await;
    assert_ne!(old.secret.version(), new.secret.version());
    assert_eq!((fixture.out(&new, "one", now), fixture.states(now)), (None, ["usable", "usable"]));
    assert!(fixture.bench(&new, "other", now), "its first signal");
    assert_eq!(fixture.out(&new, "other", now), Some(SECOND * 30));
    assert_eq!(fixture.out(&new, "third", now), None, "what the old one answered is no strike against it");
}

#[tokio::test]
async fn a_key_whose_value_is_gone_is_asked_for_though_it_was_benched() {
    let fixture = KeyFixture::new();
    let (key, now) = (fixture.chosen(0).await, Instant::now());
    fixture.bench(&key, "one", now);
    assert!(fixture.keys.exclusion(fixture.pool(), 0, &caller("one"), || None, now).is_none());
    assert!(fixture.out(&key, "one", now).is_some(), "and is left alone where the store has no other");
}

#[tokio::test]
async fn what_is_known_of_a_key_outlives_a_change_of_the_policy() {
    let fixture = KeyFixture::new();
    let (key, now) = (fixture.chosen(0).await, Instant::now());
    fixture.bench(&key, "one", now);
    std::fs::write(fixture.files.path().join("c"), "sk-c-1").unwrap();
    let policy = policy(fixture.files.path(), &["c", "b", "a"]);
    fixture.keys.apply(&policy);
    fixture.secrets.apply(&policy);
    let states: Vec<_> =
        fixture.keys.status(&policy, &fixture.secrets, now).iter().map(|key| key.state).collect();
    assert_eq!(states, ["usable", "usable", "benched"]);
    assert_eq!(
        fixture.out(&key, "one", now),
        Some(SECOND * 30),
        "calls of the policy before find it by its alias"
    );
}
