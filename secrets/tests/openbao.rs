//! The vault store against a real OpenBao over TLS. Runs where `TOLLGATE_TEST_BAO` names its binary, else says that it
//! was skipped.

#[cfg(test)]
#[path = "openbao/bao.rs"]
mod bao;
#[cfg(test)]
#[path = "openbao/leases.rs"]
mod leases;
#[cfg(test)]
#[path = "openbao/logins.rs"]
mod logins;
#[cfg(test)]
#[path = "openbao/postgres.rs"]
mod postgres;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tollgate_policy::policy::Credential;
use tollgate_secrets::{Failure, Secret, Secrets};

use bao::{Bao, Setup};

const SECOND: Duration = Duration::from_secs(1);

async fn value(secrets: &Secrets, credential: &Credential) -> Result<String, Failure> {
    secrets.get(credential, 0).await.map(|secret| text(&secret)).map_err(|error| error.failure())
}

fn text(secret: &Secret) -> String {
    String::from_utf8_lossy(secret.expose(None).unwrap_or_default()).into_owned()
}

/// Asks until the answer is as wanted; false after `limit`.
async fn becomes(
    secrets: &Secrets,
    credential: &Credential,
    wanted: Result<&str, Failure>,
    limit: Duration,
) -> bool {
    let began = Instant::now();
    while began.elapsed() < limit {
        if value(secrets, credential).await.as_deref().map_err(|failure| *failure) == wanted {
            return true;
        }
        sleep(SECOND / 20).await;
    }
    false
}

#[tokio::test]
async fn a_key_is_read_with_its_version_and_what_cannot_be_read_says_why() {
    let Some(bao) = Bao::start() else { return };
    bao.app_role("token_ttl=1m");
    bao.run(&["kv", "put", "secret/llm/openai", "api_key=sk-1"]);
    bao.run(&["kv", "put", "secret/llm/openai", "api_key=sk-2", "other=x"]);
    bao.run(&["kv", "put", "secret/llm/deleted", "api_key=sk-gone"]);
    bao.run(&["kv", "delete", "secret/llm/deleted"]);
    bao.run(&["kv", "put", "secret/hidden/key", "api_key=sk-hidden"]);
    let mut setup = Setup::new(&bao);
    let current = setup.credential("current", "llm/openai", "api_key", None);
    let pinned = setup.credential("pinned", "llm/openai", "api_key", Some(1));
    let fieldless = setup.credential("fieldless", "llm/openai", "absent", None);
    let absent = setup.credential("absent", "llm/absent", "api_key", None);
    let deleted = setup.credential("deleted", "llm/deleted", "api_key", None);
    let unborn = setup.credential("unborn", "llm/openai", "api_key", Some(9));
    let hidden = setup.credential("hidden", "hidden/key", "api_key", None);
    let secrets = setup.secrets();

    let secret = secrets.get(&current, 0).await.unwrap();
    assert_eq!((text(&secret).as_str(), secret.version().as_str()), ("sk-2", "2"));
    assert_eq!(secret.reference(), "bao:llm/openai#api_key");
    assert!(Arc::ptr_eq(&secret, &secrets.peek(&current, 0).unwrap()));
    assert_eq!(value(&secrets, &pinned).await, Ok("sk-1".into()));
    assert_eq!(value(&secrets, &fieldless).await, Err(Failure::FieldMissing));
    assert_eq!(value(&secrets, &absent).await, Err(Failure::NotFound));
    assert_eq!(value(&secrets, &deleted).await, Err(Failure::NotFound));
    assert_eq!(value(&secrets, &unborn).await, Err(Failure::NotFound));
    assert_eq!(value(&secrets, &hidden).await, Err(Failure::Denied));
    assert_eq!(secrets.health()[0].error, None, "none of these is a fault of the store");
}

#[tokio::test]
async fn version_1_of_the_kv_engine_is_read_and_not_mistaken_for_version_2() {
    let Some(bao) = Bao::start() else { return };
    bao.app_role("token_ttl=1m");
    bao.run(&["secrets", "enable", "-path=kv1", "-version=1", "kv"]);
    bao.run(&["kv", "put", "kv1/llm/openai", "api_key=sk-1"]);
    bao.run(&["kv", "put", "secret/llm/openai", "api_key=sk-2"]);
    let mut setup = Setup::new(&bao).with("kvVersion: 1").with("mount: kv1");
    let current = setup.credential("current", "llm/openai", "api_key", None);
    let absent = setup.credential("absent", "llm/absent", "api_key", None);
    let hidden = setup.credential("hidden", "hidden", "api_key", None);
    let secrets = setup.secrets();
    assert_eq!(value(&secrets, &current).await, Ok("sk-1".into()));
    assert_eq!(value(&secrets, &absent).await, Err(Failure::NotFound));
    assert_eq!(value(&secrets, &hidden).await, Err(Failure::Denied));
    bao.run(&["kv", "put", "kv1/llm/openai", "api_key=sk-3"]);
    assert!(becomes(&secrets, &current, Ok("sk-3"), SECOND * 3).await);

    bao.write_token("root");
    let mut setup = Setup::new(&bao).token_file(&bao).with("kvVersion: 1");
    let misread = setup.credential("misread", "llm/openai", "api_key", None);
    let failure = value(&setup.secrets(), &misread).await;
    assert_eq!(
        failure,
        Err(Failure::Misconfigured("the mount is version 2 of the KV engine: `kvVersion: 2`"))
    );
}

#[tokio::test]
async fn a_login_that_expires_is_renewed_and_replaced_without_a_failed_call() {
    let Some(bao) = Bao::start() else { return };
    bao.app_role("token_ttl=5s token_max_ttl=12s");
    bao.run(&["kv", "put", "secret/llm/openai", "api_key=sk-0"]);
    let mut setup = Setup::new(&bao);
    let credential = setup.credential("openai", "llm/openai", "api_key", None);
    let secrets = setup.secrets();
    for round in 0..18 {
        let written = format!("sk-{round}");
        bao.run(&["kv", "put", "secret/llm/openai", &format!("api_key={written}")]);
        if round == 9 {
            // As an operator does in an emergency: every token of the login method is dead at once.
            bao.run(&["token", "revoke", "-mode", "path", "auth/approle"]);
        }
        let began = Instant::now();
        while began.elapsed() < SECOND {
            value(&secrets, &credential).await.unwrap();
            sleep(SECOND / 50).await;
        }
    }
    assert!(becomes(&secrets, &credential, Ok("sk-17"), SECOND * 10).await);
    assert!(bao.app_role_tokens() <= 3, "{} tokens left behind", bao.app_role_tokens());
}

#[tokio::test]
async fn a_right_that_is_taken_away_ends_its_key_and_costs_no_login() {
    let Some(bao) = Bao::start() else { return };
    bao.app_role("token_ttl=1h");
    bao.run(&["kv", "put", "secret/llm/openai", "api_key=sk-lost"]);
    bao.run(&["kv", "put", "secret/llm/other", "api_key=sk-kept"]);
    let mut setup = Setup::new(&bao);
    let lost = setup.credential("lost", "llm/openai", "api_key", None);
    let kept = setup.credential("kept", "llm/other", "api_key", None);
    let secrets = setup.secrets();
    assert_eq!(value(&secrets, &lost).await, Ok("sk-lost".into()));
    assert_eq!(value(&secrets, &kept).await, Ok("sk-kept".into()));
    // The token is not a new one any more, and another could not be had.
    sleep(SECOND * 6).await;
    bao.write("secret-id", "7a2d0f0e-0000-0000-0000-000000000000");
    bao.deny("secret/data/llm/openai");
    assert!(becomes(&secrets, &lost, Err(Failure::Denied), SECOND * 3).await);
    bao.run(&["kv", "put", "secret/llm/other", "api_key=sk-new"]);
    assert!(becomes(&secrets, &kept, Ok("sk-new"), SECOND * 3).await, "the login is as good as before");
    assert_eq!(secrets.health()[0].error, None);
    assert_eq!(bao.app_role_tokens(), 1);
    bao.policy("-namespace=");
    assert!(becomes(&secrets, &lost, Ok("sk-lost"), SECOND * 20).await);
}

#[tokio::test]
async fn a_rotation_is_seen_within_the_refresh_time_and_at_once_when_the_old_key_is_rejected() {
    let Some(bao) = Bao::start() else { return };
    bao.app_role("token_ttl=1m");
    bao.run(&["kv", "put", "secret/llm/openai", "api_key=sk-1"]);
    let mut setup = Setup::new(&bao);
    let soon = setup.credential("soon", "llm/openai", "api_key", None);
    let secrets = setup.secrets();
    assert_eq!(value(&secrets, &soon).await, Ok("sk-1".into()));
    bao.run(&["kv", "put", "secret/llm/openai", "api_key=sk-2"]);
    assert!(becomes(&secrets, &soon, Ok("sk-2"), SECOND * 3).await);

    let mut setup = Setup::new(&bao).refresh("10m");
    let late = setup.credential("late", "llm/openai", "api_key", None);
    let secrets = setup.secrets();
    let old = secrets.get(&late, 0).await.unwrap();
    assert!(secrets.rejected(&late, 0, old.version()).await.is_none());
    drop(secrets);
    let secrets = setup.secrets();
    let old = secrets.get(&late, 0).await.unwrap();
    bao.run(&["kv", "put", "secret/llm/openai", "api_key=sk-3"]);
    assert_eq!(value(&secrets, &late).await, Ok("sk-2".into()));
    let new = secrets.rejected(&late, 0, old.version()).await.unwrap();
    assert_eq!((text(&new).as_str(), new.version().as_str()), ("sk-3", "3"));
}

#[tokio::test]
async fn a_sealed_vault_is_outlived_up_to_the_bound_and_recovered_from() {
    let Some(bao) = Bao::start() else { return };
    bao.app_role("token_ttl=1m");
    bao.run(&["kv", "put", "secret/llm/openai", "api_key=sk-1"]);
    let mut setup = Setup::new(&bao).max_stale("8s");
    let used = setup.credential("used", "llm/openai", "api_key", None);
    let unused = setup.credential("unused", "llm/openai", "api_key", Some(1));
    let secrets = setup.secrets();
    value(&secrets, &used).await.unwrap();
    bao.run(&["operator", "seal"]);
    let sealed = Instant::now();
    while sealed.elapsed() < SECOND * 5 {
        assert_eq!(value(&secrets, &used).await, Ok("sk-1".into()));
        sleep(SECOND / 20).await;
    }
    let health = &secrets.health()[0];
    assert_eq!((health.error, health.stale), (Some("sealed"), 1));
    assert!(health.failing_for.unwrap() > SECOND * 2);
    assert_eq!(value(&secrets, &unused).await, Err(Failure::Sealed));
    assert!(becomes(&secrets, &used, Err(Failure::Sealed), SECOND * 10).await);
    assert!(health.failures < 20, "{} attempts", health.failures);

    bao.run(&["operator", "unseal", bao.unseal_key()]);
    assert!(becomes(&secrets, &used, Ok("sk-1"), SECOND * 20).await);
    assert!(becomes(&secrets, &unused, Ok("sk-1"), SECOND * 20).await);
    assert_eq!(secrets.health()[0].error, None);
}

#[tokio::test]
async fn a_token_from_a_file_is_read_again_and_a_dead_one_is_no_denial() {
    let Some(bao) = Bao::start() else { return };
    bao.run(&["namespace", "create", "team"]);
    bao.run(&["secrets", "enable", "-namespace=team", "-path=secret", "-version=2", "kv"]);
    bao.run(&["kv", "put", "-namespace=team", "secret/llm/openai", "api_key=sk-team"]);
    bao.run(&["kv", "put", "-namespace=team", "secret/hidden/key", "api_key=sk-hidden"]);
    bao.policy("-namespace=team");
    bao.write_token(&bao.token("-namespace=team"));
    let mut setup = Setup::new(&bao).token_file(&bao).namespace("team");
    let credential = setup.credential("openai", "llm/openai", "api_key", None);
    let hidden = setup.credential("hidden", "hidden/key", "api_key", None);
    let secrets = setup.secrets();
    assert_eq!(value(&secrets, &credential).await, Ok("sk-team".into()));
    assert_eq!(value(&secrets, &hidden).await, Err(Failure::Denied));

    let dead = bao.token("-namespace=team");
    bao.run(&["token", "revoke", "-namespace=team", &dead]);
    bao.write_token(&dead);
    let began = Instant::now();
    while began.elapsed() < SECOND * 3 {
        assert_eq!(value(&secrets, &credential).await, Ok("sk-team".into()), "stale, not revoked");
        sleep(SECOND / 20).await;
    }
    assert_eq!(secrets.health()[0].error, Some("login_failed"));

    bao.run(&["kv", "put", "-namespace=team", "secret/llm/openai", "api_key=sk-new"]);
    bao.write_token(&bao.token("-namespace=team"));
    assert!(becomes(&secrets, &credential, Ok("sk-new"), SECOND * 20).await);
}

#[tokio::test]
async fn a_vault_that_is_not_who_it_should_be_or_not_there_gets_no_login() {
    let Some(mut bao) = Bao::start() else { return };
    bao.app_role("token_ttl=1m");
    bao.run(&["kv", "put", "secret/llm/openai", "api_key=sk-1"]);
    bao.forward("127.0.0.2").await;
    for (setup, expected) in [
        (Setup::new(&bao).system_roots(), Failure::Tls("certificate of an unknown issuer")),
        (Setup::new(&bao).host("127.0.0.2"), Failure::Tls("certificate for another name")),
        (Setup::new(&bao).nothing_dialable(), Failure::AddressRefused),
        (Setup::new(&bao).host("localhost").nothing_dialable(), Failure::AddressRefused),
        (Setup::new(&bao).host("bao.invalid"), Failure::Unreachable("name not found")),
        (
            Setup::new(&bao).secret_id(&bao, "7a2d0f0e-0000-0000-0000-000000000000"),
            Failure::Login(
                "the vault refuses the role id or the secret id: write a good one to its file and it is tried at once; this one rests for \
                 16 minutes, because a vault locks a role that is refused five times in 15",
            ),
        ),
    ] {
        let mut setup = setup;
        let credential = setup.credential("openai", "llm/openai", "api_key", None);
        assert_eq!(value(&setup.secrets(), &credential).await, Err(expected));
    }
    let mut setup = Setup::new(&bao);
    let credential = setup.credential("openai", "llm/openai", "api_key", None);
    let secrets = setup.secrets();
    bao.stop();
    let gone = Err(Failure::Unreachable("connection refused"));
    assert_eq!(value(&secrets, &credential).await, gone);
}
