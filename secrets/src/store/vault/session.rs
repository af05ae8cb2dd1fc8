//! The gateway's own login at a vault, and how it is kept alive.
//!
//! **Invariant:** however many fetches need a token, one login is made for all of them. A token is renewed, or a new
//! one taken, after two thirds of its life, while the old one still serves.
//!
//! Deliberately lacks: renewing a token that came from a file, which is its writer's.

use std::path::PathBuf;
use std::sync::{Arc, Mutex as StdMutex, PoisonError, Weak};
use std::time::Duration;

use reqwest::header::HeaderValue;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::{self, Instant};
use tollgate_policy::policy::VaultAuth;
use vaultrs::api::auth::approle::requests::LoginWithApproleRequest;
use vaultrs::api::token::requests::RenewTokenSelfRequest;
use zeroize::Zeroizing;

use super::answer::{self, Grant};
use super::client::{Client, Question};
use crate::cache::jittered;
use crate::error::Failure;
use crate::store::read::login_file;

/// A token younger than this is not replaced because it was refused: it is the right that is missing.
const YOUNG: Duration = Duration::from_secs(5);

pub(super) struct Session {
    auth: VaultAuth,
    client: Arc<Client>,
    current: Mutex<Option<Arc<Token>>>,
    keeper: StdMutex<Option<AbortHandle>>,
}

pub(super) struct Token {
    header: HeaderValue,
    obtained: Instant,
    ttl: Option<Duration>,
    renewable: bool,
    /// The life that the login gave; a renewal that grants much less is near the token's maximum.
    first_ttl: Option<Duration>,
}

#[derive(Serialize)]
struct AppRoleLogin<'a> {
    role_id: &'a str,
    secret_id: &'a str,
}

impl Token {
    pub(super) const fn header(&self) -> &HeaderValue {
        &self.header
    }

    fn new(grant: Grant, first_ttl: Option<Duration>) -> Arc<Self> {
        let Grant { header, ttl, renewable } = grant;
        Arc::new(Self { header, obtained: Instant::now(), ttl, renewable, first_ttl: first_ttl.or(ttl) })
    }

    fn expired(&self) -> bool {
        self.ttl.is_some_and(|ttl| self.obtained.elapsed() >= ttl)
    }

    fn renew_at(&self) -> Option<Instant> {
        self.ttl.map(|ttl| self.obtained + jittered(ttl * 2 / 3))
    }
}

impl Session {
    pub(super) fn new(auth: VaultAuth, client: Arc<Client>) -> Self {
        Self { auth, client, current: Mutex::new(None), keeper: StdMutex::new(None) }
    }

    /// A token that is not known to be expired, after logging in where there is none.
    pub(super) async fn token(self: &Arc<Self>) -> Result<Arc<Token>, Failure> {
        let mut current = self.current.lock().await;
        match &self.auth {
            // Read each time: whoever keeps the file replaces it when it likes, and fetches are rare.
            VaultAuth::Token { file } => {
                let read = token_file(file.clone()).await?;
                Ok(adopt(&mut current, read))
            }
            VaultAuth::AppRole { .. } => match current.as_ref().filter(|token| !token.expired()) {
                Some(token) => Ok(Arc::clone(token)),
                None => self.log_in(&mut current).await,
            },
        }
    }

    /// Another token than `refused`, if there can be one.
    pub(super) async fn replacement(
        self: &Arc<Self>,
        refused: &Arc<Token>,
    ) -> Result<Option<Arc<Token>>, Failure> {
        let mut current = self.current.lock().await;
        if let Some(newer) = current.as_ref().filter(|token| !Arc::ptr_eq(token, refused)) {
            return Ok(Some(Arc::clone(newer)));
        }
        match &self.auth {
            VaultAuth::Token { file } => {
                let read = token_file(file.clone()).await?;
                let token = adopt(&mut current, read);
                Ok((!Arc::ptr_eq(&token, refused)).then_some(token))
            }
            VaultAuth::AppRole { .. } if refused.obtained.elapsed() < YOUNG => Ok(None),
            VaultAuth::AppRole { .. } => self.log_in(&mut current).await.map(Some),
        }
    }

    async fn log_in(self: &Arc<Self>, current: &mut Option<Arc<Token>>) -> Result<Arc<Token>, Failure> {
        *current = None;
        let token = Token::new(self.app_role().await?, None);
        *current = Some(Arc::clone(&token));
        if token.ttl.is_some() {
            let keeper = tokio::spawn(keep(Arc::downgrade(self), Arc::clone(&token))).abort_handle();
            let before = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).replace(keeper);
            if let Some(before) = before {
                before.abort();
            }
        }
        Ok(token)
    }

    async fn app_role(&self) -> Result<Grant, Failure> {
        let VaultAuth::AppRole { role_id_file, secret_id_file, mount } = &self.auth else {
            return Err(Failure::Internal);
        };
        let role_id = login_file(role_id_file.clone(), "the role id file cannot be read").await?;
        let secret_id = login_file(secret_id_file.clone(), "the secret id file cannot be read").await?;
        let text =
            |file| std::str::from_utf8(file).map_err(|_| Failure::Login("role id or secret id is not text"));
        let login = AppRoleLogin { role_id: text(&role_id)?, secret_id: text(&secret_id)? };
        // Room for every byte escaped, so that the buffer never grows.
        let mut body = Zeroizing::new(Vec::with_capacity(64 + 6 * (role_id.len() + secret_id.len())));
        serde_json::to_writer(&mut *body, &login).map_err(|_| Failure::Internal)?;
        // The endpoint type would copy the ids into strings that nobody zeroizes, so it only gives the path.
        let endpoint = LoginWithApproleRequest {
            mount: mount.clone(),
            role_id: String::new(),
            secret_id: String::new(),
        };
        let answer = self.client.ask(&Question::new(&self.client, &endpoint)?, None, Some(body)).await?;
        match answer.status {
            200 => answer::grant(&answer.body),
            400 | 403 => Err(Failure::Login("the vault refuses the role id or the secret id")),
            404 => Err(Failure::Login("the vault has no AppRole login at that mount")),
            503 => Err(Failure::Sealed),
            status => Err(Failure::Status(status)),
        }
    }

    /// What takes the place of a token that is nearing its end.
    async fn prolonged(&self, token: &Token) -> Option<Arc<Token>> {
        match self.renewed(token).await {
            Some(renewed) => Some(renewed),
            None => self.app_role().await.ok().map(|grant| Token::new(grant, None)),
        }
    }

    /// The same token with a longer life; `None` where only a new login helps.
    async fn renewed(&self, token: &Token) -> Option<Arc<Token>> {
        if !token.renewable {
            return None;
        }
        let question = Question::new(&self.client, &RenewTokenSelfRequest { increment: None }).ok()?;
        let answer = self.client.ask(&question, Some(token.header()), None).await.ok()?;
        if answer.status != 200 {
            return None;
        }
        let grant = answer::grant(&answer.body).ok()?;
        let near_maximum = grant.ttl.zip(token.first_ttl).is_some_and(|(ttl, first)| ttl < first / 2);
        (!near_maximum).then(|| Token::new(grant, token.first_ttl))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            keeper.abort();
        }
    }
}

/// Renews `token`, and what it becomes, for as long as it is the session's. Where that fails, a new login is made;
/// where that fails too, the token is left to its end and the next fetch logs in and says why it cannot.
async fn keep(session: Weak<Session>, mut token: Arc<Token>) {
    while let Some(at) = token.renew_at() {
        time::sleep_until(at).await;
        let Some(session) = session.upgrade() else { return };
        // Not under the lock: the token is still good, and nobody should wait for a vault that is slow to renew it.
        let Some(next) = session.prolonged(&token).await else { return };
        let mut current = session.current.lock().await;
        if !current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &token)) {
            return;
        }
        *current = Some(Arc::clone(&next));
        token = next;
    }
}

/// `read`, or the token that is current already where the file still holds it.
fn adopt(current: &mut Option<Arc<Token>>, read: HeaderValue) -> Arc<Token> {
    if let Some(token) = current.as_ref().filter(|token| token.header == read) {
        return Arc::clone(token);
    }
    let token = Token::new(Grant { header: read, ttl: None, renewable: false }, None);
    *current = Some(Arc::clone(&token));
    token
}

async fn token_file(path: PathBuf) -> Result<HeaderValue, Failure> {
    answer::header(login_file(path, "the token file cannot be read").await?)
}
