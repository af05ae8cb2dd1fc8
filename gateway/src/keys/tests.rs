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
pub(crate) struct Bench {
    files: TempDir,
    policy: Policy,
    secrets: Arc<Secrets>,
    keys: Keys,
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
    compile_files(&[SourceFile { path: "a.yaml".into(), text }], &environment).unwrap().0
}

impl Bench {
    pub(crate) fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            std::fs::write(files.path().join(name), format!("sk-{name}-1")).unwrap();
        }
        let policy = policy(files.path(), &["a", "b"]);
        let secrets = Secrets::new(Handle::current(), Arc::new(|_| true));
        secrets.apply(&policy);
        let keys = Keys::default();
        keys.apply(&policy);
        Self { files, policy, secrets, keys }
    }

    pub(crate) fn pool(&self) -> &Arc<Credential> {
        self.policy.credentials().find(|credential| credential.is_pool()).unwrap()
    }

    pub(crate) async fn chosen(&self, key: usize) -> Chosen {
        let alias = self.pool().keys[key].alias.clone();
        Chosen { key, alias, secret: self.secrets.get(self.pool(), key).await.unwrap() }
    }

    /// Puts another value in the place of a key, as after a rotation.
    pub(crate) async fn rotated(&self, key: usize) -> Chosen {
        let before = self.chosen(key).await;
        std::fs::write(self.files.path().join(before.alias.as_ref().unwrap().as_str()), "sk-another")
            .unwrap();
        let secret = self.secrets.rejected(self.pool(), key, before.secret.version()).await.unwrap();
        Chosen { secret, ..before }
    }

    fn out(&self, chosen: &Chosen, now: Instant) -> Option<Duration> {
        let secret = || Some(Arc::clone(&chosen.secret));
        self.keys.out(self.pool(), chosen.key, secret, now).map(|(_, until)| until - now)
    }

    fn states(&self, now: Instant) -> [&'static str; 2] {
        let status = self.keys.status(&self.policy, &self.secrets, now);
        assert!(status.iter().all(|status| status.credential.as_str() == "pool"), "one key needs no state");
        [status[0].state, status[1].state]
    }
}

#[tokio::test]
async fn a_dead_key_is_benched_for_half_a_minute_and_for_twice_as_long_each_time() {
    let bench = Bench::new();
    let key = bench.chosen(0).await;
    let mut now = Instant::now();
    for seconds in [30, 60, 120, 240, 480, 600, 600] {
        assert!(bench.keys.bench(bench.pool(), &key, None, now));
        assert_eq!(bench.out(&key, now), Some(SECOND * seconds));
        assert!(
            !bench.keys.bench(bench.pool(), &key, None, now + SECOND),
            "a call that was under way is no news"
        );
        assert_eq!(bench.out(&key, now + SECOND), Some(SECOND * (seconds - 1)));
        now += SECOND * seconds;
        assert_eq!(bench.out(&key, now), None);
    }
    assert_eq!(bench.keys.status(&bench.policy, &bench.secrets, now)[0].benchings, 7);
    bench.keys.answered_well(bench.pool(), &key, 1, now);
    assert!(bench.keys.bench(bench.pool(), &key, None, now));
    assert_eq!(bench.out(&key, now), Some(SECOND * 30), "a good answer makes it as good as new");
}

#[tokio::test]
async fn of_the_calls_that_find_a_bench_over_one_tries_the_key() {
    let bench = Bench::new();
    let (key, now) = (bench.chosen(0).await, Instant::now());
    bench.keys.bench(bench.pool(), &key, None, now);
    let over = now + SECOND * 30;
    bench.keys.taken(bench.pool(), 0, over);
    assert_eq!(bench.out(&key, over), Some(SECOND * 2));
    assert_eq!(bench.states(over), ["benched", "usable"]);
    assert_eq!(bench.out(&key, over + SECOND * 2), None, "it may have come to nothing");
    bench.keys.taken(bench.pool(), 0, over + SECOND * 2);
    assert!(bench.keys.bench(bench.pool(), &key, None, over + SECOND * 3));
    assert_eq!(bench.out(&key, over + SECOND * 3), Some(MINUTE));
}

#[tokio::test]
async fn a_key_rests_as_long_as_it_was_told_to_and_resting_ends_no_bench() {
    let bench = Bench::new();
    let (key, now) = (bench.chosen(1).await, Instant::now());
    bench.keys.cool(bench.pool(), &key, SECOND * 7, now);
    bench.keys.cool(bench.pool(), &key, SECOND * 3, now);
    assert_eq!((bench.out(&key, now), bench.states(now)), (Some(SECOND * 7), ["usable", "cooling"]));
    bench.keys.taken(bench.pool(), 1, now + SECOND * 7);
    assert_eq!(bench.out(&key, now + SECOND * 7), None, "everybody may use it again");
    bench.keys.bench(bench.pool(), &key, None, now);
    bench.keys.cool(bench.pool(), &key, SECOND, now);
    assert_eq!((bench.out(&key, now), bench.states(now)), (Some(SECOND * 30), ["usable", "benched"]));
}

#[tokio::test]
async fn a_new_version_starts_with_nothing_against_it_and_the_old_one_is_forgotten() {
    let bench = Bench::new();
    let (old, now) = (bench.chosen(0).await, Instant::now());
    bench.keys.answered_well(bench.pool(), &old, 1, now);
    bench.keys.bench(bench.pool(), &old, None, now);
    assert_eq!(bench.states(now), ["benched", "usable"]);
    let new = bench.rotated(0).await;
    assert_ne!(old.secret.version(), new.secret.version());
    assert_eq!((bench.out(&new, now), bench.states(now)), (None, ["usable", "usable"]));
    assert!(bench.keys.bench(bench.pool(), &new, None, now), "its first signal");
    assert_eq!(bench.out(&new, now), Some(SECOND * 30));
    assert!(
        !bench.keys.speaks_for_itself(bench.pool(), 0, 2, now),
        "what the old one answered is no word for it"
    );
}

#[tokio::test]
async fn a_key_speaks_for_itself_by_what_it_answered_others_within_a_minute() {
    let bench = Bench::new();
    let (key, now) = (bench.chosen(0).await, Instant::now());
    let speaks = |accuser, now| bench.keys.speaks_for_itself(bench.pool(), 0, accuser, now);
    assert!(!speaks(1, now));
    bench.keys.answered_well(bench.pool(), &key, 1, now);
    assert!(!speaks(1, now) && speaks(2, now));
    bench.keys.answered_well(bench.pool(), &key, 2, now + SECOND);
    assert!(speaks(1, now + SECOND) && speaks(2, now + SECOND));
    // However often the accuser is answered, the other is not forgotten.
    for second in 2..50 {
        bench.keys.answered_well(bench.pool(), &key, 2, now + SECOND * second);
    }
    assert!(speaks(2, now + SECOND * 50));
    assert!(!speaks(2, now + MINUTE) && speaks(1, now + MINUTE));
}

#[tokio::test]
async fn what_is_known_of_a_key_outlives_a_change_of_the_policy() {
    let bench = Bench::new();
    let (key, now) = (bench.chosen(0).await, Instant::now());
    bench.keys.bench(bench.pool(), &key, None, now);
    std::fs::write(bench.files.path().join("c"), "sk-c-1").unwrap();
    let policy = policy(bench.files.path(), &["c", "b", "a"]);
    bench.keys.apply(&policy);
    bench.secrets.apply(&policy);
    let states: Vec<_> =
        bench.keys.status(&policy, &bench.secrets, now).iter().map(|key| key.state).collect();
    assert_eq!(states, ["usable", "usable", "benched"]);
    assert_eq!(bench.out(&key, now), Some(SECOND * 30), "calls of the policy before find it by its alias");
}

#[tokio::test]
async fn what_one_caller_alone_says_of_a_key_is_doubted_by_others_until_one_of_them_says_so_too() {
    let bench = Bench::new();
    let (key, now) = (bench.chosen(0).await, Instant::now());
    let doubtful = |caller| bench.keys.is_doubtful(bench.pool(), 0, caller);
    assert!(!doubtful(1) && !doubtful(2));
    bench.keys.bench(bench.pool(), &key, Some(1), now);
    bench.keys.bench(bench.pool(), &key, Some(1), now + SECOND);
    assert!(!doubtful(1) && doubtful(2));
    assert!(!bench.keys.bench(bench.pool(), &key, Some(2), now + SECOND), "it is benched, but now by two");
    assert!(!doubtful(1) && !doubtful(2) && !doubtful(3));
    bench.keys.answered_well(bench.pool(), &key, 3, now);
    bench.keys.bench(bench.pool(), &key, None, now);
    assert!(!doubtful(1), "another key did better");
}
