use std::collections::HashSet;
use std::sync::Mutex as StdMutex;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tollgate_policy::policy::{KvVersion, SecretId, VaultStore};

use super::*;

/// A vault that knows the tokens of its logins until it is told otherwise.
#[derive(Default)]
struct Vault {
    logins: usize,
    /// Those that were refused too.
    tried: usize,
    refuses_logins: bool,
    known: HashSet<String>,
    denied: HashSet<&'static str>,
    /// What it answers to `lookup-self`, if not what is so.
    looks_up: Option<u16>,
}

impl Vault {
    fn answer(&mut self, head: &str) -> (u16, String) {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let token = head.lines().find_map(|line| line.strip_prefix("x-vault-token: ")).unwrap_or_default();
        let is_known = self.known.contains(token);
        match path {
            "/v1/auth/approle/login" if self.refuses_logins => {
                self.tried += 1;
                (400, "{}".into())
            }
            "/v1/auth/approle/login" => {
                self.tried += 1;
                self.logins += 1;
                let token = format!("s.{}", self.logins);
                self.known.insert(token.clone());
                let auth =
                    format!(r#"{{"client_token": "{token}", "lease_duration": 3600, "renewable": true}}"#);
                (200, format!(r#"{{"auth": {auth}}}"#))
            }
            "/v1/auth/token/lookup-self" => {
                (self.looks_up.unwrap_or(if is_known { 200 } else { 403 }), "{}".into())
            }
            path if is_known && !self.denied.contains(path) => (200, token.into()),
            _ => (403, "{}".into()),
        }
    }
}

struct Stand {
    vault: Arc<StdMutex<Vault>>,
    session: Arc<Session>,
    files: TempDir,
}

impl Stand {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let vault = Arc::<StdMutex<Vault>>::default();
        let serving = Arc::clone(&vault);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, Arc::clone(&serving)));
            }
        });
        let files = TempDir::new().unwrap();
        let file = |name: &str| {
            std::fs::write(files.path().join(name), name).unwrap();
            files.path().join(name)
        };
        let auth = VaultAuth::AppRole {
            mount: "approle".into(),
            role_id_file: file("role-id"),
            secret_id: SecretId::File(file("secret-id")),
        };
        let definition = VaultStore {
            address,
            mount: "secret".into(),
            kv: KvVersion::V2,
            namespace: None,
            ca: None,
            client_certificate: None,
            auth: auth.clone(),
        };
        let client = Arc::new(Client::new(&definition, Arc::new(|_| true)));
        Self { vault, session: Arc::new(Session::new(auth, client, SvidSource::default())), files }
    }

    fn vault(&self) -> std::sync::MutexGuard<'_, Vault> {
        self.vault.lock().unwrap()
    }

    /// The token that the question at `path` was answered to.
    async fn ask(&self, path: &str) -> Result<String, Failure> {
        let question = Question::get(&self.session.client, path).unwrap();
        let (_, answer) = self.session.ask(&question).await?;
        assert_eq!(answer.status, 200);
        Ok(String::from_utf8(answer.body.to_vec()).unwrap())
    }
}

async fn serve(mut connection: TcpStream, vault: Arc<StdMutex<Vault>>) {
    let (mut head, mut buffer) = (String::new(), [0; 4096]);
    while !head.contains("\r\n\r\n") {
        let count = connection.read(&mut buffer).await.unwrap();
        assert!(count > 0);
        head += std::str::from_utf8(&buffer[..count]).unwrap();
    }
    let (status, body) = vault.lock().unwrap().answer(&head);
    let answer =
        format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    connection.write_all(answer.as_bytes()).await.unwrap();
}

/// From here on the token is not one that was taken a moment ago.
async fn grow_old() {
    time::pause();
    time::advance(YOUNG * 2).await;
    time::resume();
}

#[tokio::test]
async fn a_path_that_is_denied_costs_no_login_and_leaves_the_one_there_is() {
    let stand = Stand::new().await;
    assert_eq!(stand.ask("kept").await, Ok("s.1".into()));
    stand.vault().denied.insert("/v1/lost");
    for refuses_logins in [false, true] {
        stand.vault().refuses_logins = refuses_logins;
        grow_old().await;
        for _ in 0..3 {
            assert_eq!(stand.ask("lost").await, Err(Failure::Denied));
        }
        assert_eq!(stand.ask("kept").await, Ok("s.1".into()));
    }
    assert_eq!(stand.vault().logins, 1);
}

#[tokio::test]
async fn a_token_that_is_none_any_more_is_replaced_once_for_all_who_ask() {
    let stand = Stand::new().await;
    assert_eq!(stand.ask("kept").await, Ok("s.1".into()));
    stand.vault().known.clear();
    assert_eq!(stand.ask("kept").await, Err(REFUSED), "another one would not be better so soon");
    grow_old().await;
    let (one, other) = tokio::join!(stand.ask("kept"), stand.ask("kept"));
    assert_eq!((one, other), (Ok("s.2".into()), Ok("s.2".into())));
    stand.vault().denied.insert("/v1/kept");
    stand.vault().known.clear();
    grow_old().await;
    assert_eq!(stand.ask("kept").await, Err(Failure::Denied), "the new one is good and has no right either");
    assert_eq!(stand.vault().logins, 3);
}

#[tokio::test]
async fn a_login_that_fails_takes_nothing_from_the_token_that_is_there() {
    let stand = Stand::new().await;
    assert_eq!(stand.ask("kept").await, Ok("s.1".into()));
    grow_old().await;
    let known = std::mem::take(&mut stand.vault().known);
    stand.vault().refuses_logins = true;
    assert!(matches!(stand.ask("kept").await, Err(Failure::Login(_))));
    // As a vault does whose storage was away for a moment.
    stand.vault().known = known;
    assert_eq!(stand.ask("kept").await, Ok("s.1".into()));
}

#[tokio::test]
async fn what_the_vault_does_not_say_of_a_token_is_no_denial_and_no_reason_to_log_in() {
    let stand = Stand::new().await;
    assert_eq!(stand.ask("kept").await, Ok("s.1".into()));
    stand.vault().denied.insert("/v1/lost");
    grow_old().await;
    for (status, failure) in
        [(503, Failure::Sealed), (500, Failure::Status(500)), (429, Failure::Status(429))]
    {
        stand.vault().looks_up = Some(status);
        assert_eq!(stand.ask("lost").await, Err(failure));
    }
    stand.vault().looks_up = None;
    assert_eq!(stand.ask("lost").await, Err(Failure::Denied));
    assert_eq!(stand.vault().logins, 1);
}

/// As if so much time had gone by.
async fn wait(time: Duration) {
    time::pause();
    time::advance(time).await;
    time::resume();
}

#[tokio::test]
async fn a_secret_id_that_was_refused_is_not_shown_again_and_another_is_at_once() {
    let stand = Stand::new().await;
    stand.vault().refuses_logins = true;
    let refused = |got: &Result<String, Failure>| matches!(got, Err(Failure::Login(why)) if why.contains("write a good one"));
    for _ in 0..50 {
        let got = stand.ask("kept").await;
        assert!(refused(&got), "{got:?}");
        wait(Duration::from_secs(15)).await;
    }
    assert_eq!(stand.vault().tried, 1, "a vault locks the role at the fifth in 15 minutes");
    std::fs::write(stand.files.path().join("secret-id"), "another").unwrap();
    assert!(refused(&stand.ask("kept").await));
    assert_eq!(stand.vault().tried, 2);
    // Also one that was refused before the last.
    std::fs::write(stand.files.path().join("secret-id"), "secret-id").unwrap();
    assert!(refused(&stand.ask("kept").await));
    assert_eq!(stand.vault().tried, 2);
    stand.vault().refuses_logins = false;
    std::fs::write(stand.files.path().join("secret-id"), "good").unwrap();
    assert_eq!(stand.ask("kept").await, Ok("s.1".into()));
}

#[tokio::test]
async fn a_secret_id_that_was_made_good_at_the_vault_is_shown_again_after_a_long_time_or_when_an_operator_says_so()
 {
    for is_told in [false, true] {
        let stand = Stand::new().await;
        stand.vault().refuses_logins = true;
        assert!(stand.ask("kept").await.is_err());
        stand.vault().refuses_logins = false;
        assert!(stand.ask("kept").await.is_err());
        if is_told {
            stand.session.open();
        } else {
            wait(Duration::from_secs(18 * 60)).await;
        }
        assert_eq!(stand.ask("kept").await, Ok("s.1".into()));
    }
}

#[tokio::test]
async fn a_token_from_a_file_that_was_refused_is_not_shown_again_for_the_same_secret() {
    let stand = Stand::new().await;
    let file = stand.files.path().join("token");
    std::fs::write(&file, "dead").unwrap();
    let client = Arc::clone(&stand.session.client);
    let session =
        Arc::new(Session::new(VaultAuth::Token { file: file.clone() }, client, SvidSource::default()));
    let stand = Stand { session, ..stand };
    assert_eq!(stand.ask("kept").await, Err(REFUSED));
    // Known to nobody but the vault, which would take it now.
    stand.vault().known.insert("dead".into());
    assert_eq!(stand.ask("kept").await, Err(REFUSED));
    assert_eq!(
        stand.ask("other").await,
        Ok("dead".into()),
        "a token may be good for one and not for another"
    );
    stand.vault().known.insert("alive".into());
    std::fs::write(&file, "alive").unwrap();
    assert_eq!(stand.ask("kept").await, Ok("alive".into()));
}
