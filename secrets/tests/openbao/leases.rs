//! Users of a real PostgreSQL that a real OpenBao makes and lends.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tollgate_policy::policy::Credential;
use tollgate_secrets::{Failure, Secrets};

use crate::bao::{Bao, Setup};
use crate::postgres::Postgres;
use crate::{SECOND, becomes, text, value};

const PATH: &str = "database/creds/reader";

fn started(login: &str, times: &[&str]) -> Option<(Bao, Postgres)> {
    let (bao, postgres) = (Bao::start()?, Postgres::start()?);
    bao.app_role(login);
    postgres.engine(&bao, times);
    Some((bao, postgres))
}

/// Uses the user for this long; gives all that were served. None of them was one that the database does not let in.
async fn used(
    secrets: &Secrets,
    user: &Credential,
    postgres: &Postgres,
    time: Duration,
) -> Vec<(String, Instant)> {
    let mut served: Vec<(String, Instant)> = Vec::new();
    let began = Instant::now();
    while began.elapsed() < time {
        let name = value(secrets, user).await.unwrap();
        assert!(postgres.users().contains(&name), "{name} was served after its lease");
        if served.last().is_none_or(|(last, _)| *last != name) {
            served.push((name, Instant::now()));
        }
        sleep(SECOND / 5).await;
    }
    served
}

async fn are_gone(postgres: &Postgres, names: &HashSet<String>, limit: Duration) -> bool {
    let began = Instant::now();
    while began.elapsed() < limit {
        if postgres.users().iter().all(|user| !names.contains(user)) {
            return true;
        }
        sleep(SECOND / 5).await;
    }
    false
}

#[tokio::test]
async fn a_lease_is_renewed_and_replaced_before_its_maximum_without_a_failed_call() {
    let Some((bao, postgres)) = started("token_ttl=1h", &["default_ttl=4s", "max_ttl=12s"]) else { return };
    let mut setup = Setup::new(&bao);
    let user = setup.dynamic("user", PATH, "username");
    let password = setup.dynamic("password", PATH, "password");
    let secrets = setup.secrets();
    let first = secrets.get(&user, 0).await.unwrap();
    let word = value(&secrets, &password).await.unwrap();
    assert_eq!(
        postgres.ask(&text(&first), &word, "select 41 + 1").as_deref(),
        Some("42"),
        "both of one lease"
    );
    assert_eq!(postgres.users().len(), 1);
    assert_eq!(first.reference(), "bao:database/creds/reader#username");

    let served = used(&secrets, &user, &postgres, SECOND * 28).await;
    let names: HashSet<&String> = served.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), served.len(), "none comes back");
    assert!(
        (2..=5).contains(&served.len()),
        "{} users: neither renewed nor replaced as it should",
        served.len()
    );
    for pair in served.windows(2) {
        let life = pair[1].1 - pair[0].1;
        assert!(life > SECOND * 5, "replaced after {life:?}, though its lease could be renewed");
    }
    assert_eq!(secrets.health()[0].failures, 0);
    assert!(bao.app_role_tokens() <= 1);
}

#[tokio::test]
async fn a_lease_ends_with_the_login_that_it_was_taken_with_and_is_replaced_before() {
    let login = "token_ttl=4s token_max_ttl=9s";
    let Some((bao, postgres)) = started(login, &["default_ttl=1h", "max_ttl=24h"]) else { return };
    let mut setup = Setup::new(&bao);
    let user = setup.dynamic("user", PATH, "username");
    let secrets = setup.secrets();
    let served = used(&secrets, &user, &postgres, SECOND * 22).await;
    assert!((2..=8).contains(&served.len()), "{} users", served.len());

    // A token from a file tells nothing of its life; the vault does.
    let token = ["token", "create", "-policy=egress", "-field=token", "-explicit-max-ttl=6s"];
    bao.write_token(&bao.run(&token));
    let mut setup = Setup::new(&bao).token_file(&bao);
    let user = setup.dynamic("user", PATH, "username");
    let secrets = setup.secrets();
    for _ in 0..3 {
        used(&secrets, &user, &postgres, SECOND * 2).await;
        bao.write_token(&bao.run(&token));
    }
    used(&secrets, &user, &postgres, SECOND * 2).await;
}

#[tokio::test]
async fn a_lease_is_revoked_when_the_policy_drops_it_and_nobody_uses_it_any_more() {
    let Some((bao, postgres)) = started("token_ttl=1h", &["default_ttl=1h", "max_ttl=24h"]) else { return };
    let mut setup = Setup::new(&bao);
    let empty = setup.policy();
    let user = setup.dynamic("user", PATH, "username");
    let secrets = setup.secrets();
    let call = secrets.get(&user, 0).await.unwrap();
    let names = HashSet::from([text(&call)]);
    secrets.apply(&setup.policy());
    assert!(Arc::ptr_eq(&call, &secrets.get(&user, 0).await.unwrap()), "an unrelated edit keeps it");

    secrets.apply(&empty);
    assert_eq!(value(&secrets, &user).await, Err(Failure::Withdrawn));
    sleep(SECOND * 7).await;
    assert!(postgres.users().contains(&text(&call)), "a call under way still uses it");
    drop(call);
    assert!(are_gone(&postgres, &names, SECOND * 10).await);

    // A store that is defined anew takes none of the old one's leases along.
    secrets.apply(&setup.policy());
    let names = HashSet::from([value(&secrets, &user).await.unwrap()]);
    secrets.apply(&setup.with("mount: elsewhere").policy());
    assert!(are_gone(&postgres, &names, SECOND * 10).await);
}

#[tokio::test]
async fn what_an_operator_revoked_is_replaced_when_it_is_rejected() {
    let Some((bao, postgres)) = started("token_ttl=1h", &["default_ttl=1h", "max_ttl=24h"]) else { return };
    let mut setup = Setup::new(&bao);
    let user = setup.dynamic("user", PATH, "username");
    let secrets = setup.secrets();
    let old = secrets.get(&user, 0).await.unwrap();
    sleep(SECOND * 2).await;
    assert!(
        secrets.rejected(&user, 0, old.version()).await.is_none(),
        "its lease is good: another would be no better"
    );
    drop(secrets);
    let secrets = setup.secrets();
    let old = secrets.get(&user, 0).await.unwrap();
    bao.run(&["lease", "revoke", "-prefix", "-sync", PATH]);
    sleep(SECOND * 2).await;
    let new = secrets.rejected(&user, 0, old.version()).await.unwrap();
    assert_ne!(text(&old), text(&new));
    assert_eq!(postgres.users(), [text(&new)]);
}

#[tokio::test]
async fn leases_and_login_are_given_back_on_shutdown() {
    let Some((bao, postgres)) = started("token_ttl=1h", &["default_ttl=1h", "max_ttl=24h"]) else { return };
    let mut setup = Setup::new(&bao);
    let user = setup.dynamic("user", PATH, "username");
    let secrets = setup.secrets();
    let names = HashSet::from([value(&secrets, &user).await.unwrap()]);
    assert_eq!((postgres.users().len(), bao.app_role_tokens()), (1, 1));
    let began = Instant::now();
    secrets.close(SECOND * 5).await;
    assert!(began.elapsed() < SECOND * 5);
    assert!(are_gone(&postgres, &names, SECOND * 5).await);
    assert_eq!(bao.app_role_tokens(), 0);
    assert_eq!(value(&secrets, &user).await, Err(Failure::Withdrawn));

    let secrets = setup.secrets();
    value(&secrets, &user).await.unwrap();
    bao.run(&["operator", "seal"]);
    let began = Instant::now();
    secrets.close(SECOND * 2).await;
    assert!(began.elapsed() < SECOND * 4, "a vault that does not answer keeps nobody");
}

#[tokio::test]
async fn a_sealed_vault_is_outlived_as_long_as_the_lease_runs_and_not_longer() {
    let Some((bao, postgres)) = started("token_ttl=1h", &["default_ttl=8s", "max_ttl=1h"]) else { return };
    let mut setup = Setup::new(&bao);
    let user = setup.dynamic("user", PATH, "username");
    let secrets = setup.secrets();
    let name = value(&secrets, &user).await.unwrap();
    bao.run(&["operator", "seal"]);
    let sealed = Instant::now();
    while value(&secrets, &user).await.is_ok() {
        assert!(postgres.users().contains(&name), "served after its lease");
        assert!(sealed.elapsed() < SECOND * 9);
        sleep(SECOND / 5).await;
    }
    assert!(sealed.elapsed() > SECOND * 5, "not given up before");
    assert_eq!(value(&secrets, &user).await, Err(Failure::Sealed));
    assert_eq!(secrets.health()[0].error, Some("sealed"));
    bao.run(&["operator", "unseal", bao.unseal_key()]);
    let began = Instant::now();
    while value(&secrets, &user).await.is_err() {
        assert!(began.elapsed() < SECOND * 20);
        sleep(SECOND / 5).await;
    }
    used(&secrets, &user, &postgres, SECOND).await;
}

#[tokio::test]
async fn a_login_that_could_not_be_renewed_is_renewed_later_and_keeps_its_leases() {
    let login = "token_ttl=30s token_max_ttl=1h";
    let Some((bao, postgres)) = started(login, &["default_ttl=1h", "max_ttl=24h"]) else { return };
    let mut setup = Setup::new(&bao);
    let user = setup.dynamic("user", PATH, "username");
    let secrets = setup.secrets();
    let name = value(&secrets, &user).await.unwrap();
    let began = Instant::now();
    // Over the moment of the renewal, which is after 20 seconds ±10 %.
    sleep(SECOND * 16).await;
    bao.run(&["operator", "seal"]);
    while began.elapsed() < SECOND * 45 / 2 {
        assert_eq!(value(&secrets, &user).await.as_ref(), Ok(&name));
        sleep(SECOND / 5).await;
    }
    bao.run(&["operator", "unseal", bao.unseal_key()]);
    let served = used(&secrets, &user, &postgres, SECOND * 15).await;
    assert_eq!(served.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), [name]);
    assert_eq!(secrets.health()[0].error, None);
}

#[tokio::test]
async fn what_no_engine_lends_is_said_to_be_none() {
    let Some((bao, postgres)) = started("token_ttl=1h", &["default_ttl=1h", "max_ttl=24h"]) else { return };
    bao.run(&["secrets", "enable", "-path=kv1", "-version=1", "kv"]);
    bao.run(&["kv", "put", "kv1/llm/openai", "api_key=sk-1"]);
    let mut setup = Setup::new(&bao);
    let plain = setup.dynamic("plain", "kv1/llm/openai", "api_key");
    let absent = setup.dynamic("absent", "database/creds/absent", "username");
    let hidden = setup.dynamic("hidden", "other/creds/reader", "username");
    let fieldless = setup.dynamic("fieldless", PATH, "api_key");
    let user = setup.dynamic("user", PATH, "username");
    let secrets = setup.secrets();
    let unleased = Failure::Malformed("the vault does not lease it; leave `dynamic` out");
    assert_eq!(value(&secrets, &plain).await, Err(unleased));
    assert_eq!(value(&secrets, &absent).await, Err(Failure::NotFound));
    assert_eq!(value(&secrets, &hidden).await, Err(Failure::Denied));
    assert_eq!(value(&secrets, &fieldless).await, Err(Failure::FieldMissing));
    assert!(becomes(&secrets, &fieldless, Err(Failure::FieldMissing), SECOND).await);
    drop(postgres);
    let unable = Failure::Malformed("the vault's engine cannot make one now");
    assert!(becomes(&secrets, &user, Err(unable), SECOND * 5).await);
    assert_eq!(secrets.health()[0].error, None, "none of these is a fault of the store");
}
