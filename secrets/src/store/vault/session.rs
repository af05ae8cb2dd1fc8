//! The gateway's own login at a vault: how it is kept alive, and what is asked with it.
//!
//! **Invariant:** however many fetches need a token, one login is made for all of them. A token is renewed, or a new
//! one taken, after two thirds of its life, while the old one still serves. Where a token is refused, the vault is asked
//! whether it is one: a good token stays, and only then `Denied` is said, so that a login gone stale is never mistaken
//! for a secret taken away; what is none any more is replaced once another login succeeded, and tried again once. A token
//! from a file that was refused is not shown again for that question until the file holds another.
//!
//! Deliberately lacks: renewing a token that came from a file, which is its writer's.

use std::path::PathBuf;
use std::sync::{Arc, Mutex as StdMutex, PoisonError, Weak};
use std::time::Duration;

use reqwest::header::HeaderValue;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::{self, Instant};
use tollgate_policy::policy::VaultAuth;
use vaultrs::api::token::requests::{LookupTokenSelfRequest, RenewTokenSelfRequest};
use zeroize::Zeroizing;

use super::answer::{self, Grant};
use super::client::{Client, Question};
use super::login::Login;
use crate::error::Failure;
use crate::http::Answer;
use crate::jitter::jittered;
use crate::read::login_file;
use crate::refusals::{Input, Refusals};
use crate::svid::SvidSource;

/// A token younger than this is not replaced because it was refused: another one would not be better.
const YOUNG: Duration = Duration::from_secs(5);
/// A vault that does not renew a token is not asked again before.
const RETRY: Duration = Duration::from_secs(1);
/// How long a token from a file rests that was refused: nothing is locked by it, and a vault that was in trouble may know it again.
const REST: Duration = Duration::from_secs(60);
const REFUSED: Failure = Failure::Login(
    "the vault refuses the token; is it expired, revoked or without `lookup-self`? another in its file is tried at once",
);

pub(super) struct Session {
    login: Login,
    client: Arc<Client>,
    current: Mutex<Option<Arc<Token>>>,
    keeper: StdMutex<Option<AbortHandle>>,
    /// Tokens from the file, with what was asked.
    refusals: Refusals,
}

pub(super) struct Token {
    header: HeaderValue,
    obtained: Instant,
    ttl: Option<Duration>,
    renewable: bool,
    /// The life that the login gave; a renewal that grants much less is near the token's maximum.
    first_ttl: Option<Duration>,
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

    fn ends(&self) -> Option<Instant> {
        self.ttl.map(|ttl| self.obtained + ttl)
    }

    fn renew_at(&self) -> Option<Instant> {
        self.ttl.map(|ttl| self.obtained + jittered(ttl * 2 / 3))
    }

    /// After a third of what is left; `None` where that is next to nothing.
    fn retry_at(&self) -> Option<Instant> {
        let now = Instant::now();
        let left = self.ends()?.saturating_duration_since(now);
        (left > RETRY).then(|| now + jittered(left / 3).max(RETRY))
    }
}

impl Session {
    pub(super) fn new(auth: VaultAuth, client: Arc<Client>, svids: SvidSource) -> Self {
        let login = Login::new(auth, Arc::clone(&client), svids);
        let refusals = Refusals::new();
        Self { login, client, current: Mutex::new(None), keeper: StdMutex::new(None), refusals }
    }

    /// Somebody says that a login that was refused may be shown again.
    pub(super) fn open(&self) {
        self.login.open();
        self.refusals.open();
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The vault's answer, with the token that it was given to.
    pub(super) async fn ask(self: &Arc<Self>, question: &Question) -> Result<(Arc<Token>, Answer), Failure> {
        self.ask_with(question, || Ok(None)).await
    }

    /// The same for a question with a body.
    pub(super) async fn ask_with(
        self: &Arc<Self>,
        question: &Question,
        body: impl Fn() -> Result<Option<Zeroizing<Vec<u8>>>, Failure>,
    ) -> Result<(Arc<Token>, Answer), Failure> {
        let token = self.token().await?;
        let input = self.shown(question, &token);
        if let Some(failure) = self.refusals.barred(input) {
            return Err(failure);
        }
        let answer = self.client.ask(question, Some(token.header()), body()?).await?;
        if answer.status != 403 {
            return Ok((token, answer));
        }
        if self.is_known(&token).await? {
            return Err(Failure::Denied);
        }
        let Some(newer) = self.replacement(&token).await? else { return Err(self.refused(input)) };
        let answer = self.client.ask(question, Some(newer.header()), body()?).await?;
        match answer.status {
            403 if self.is_known(&newer).await? => Err(Failure::Denied),
            403 => Err(self.refused(self.shown(question, &newer))),
            _ => Ok((newer, answer)),
        }
    }

    fn shown(&self, question: &Question, token: &Token) -> Input {
        self.refusals.input(&[token.header().as_bytes(), question.url()])
    }

    /// Notes that a token was refused, where it is not for us to make another.
    fn refused(&self, input: Input) -> Failure {
        if self.login.token_file().is_some() {
            self.refusals.refused(input, REFUSED, REST);
        }
        REFUSED
    }

    /// A token that is not known to be expired, after logging in where there is none.
    pub(super) async fn token(self: &Arc<Self>) -> Result<Arc<Token>, Failure> {
        let mut current = self.current.lock().await;
        // Read each time: whoever keeps the file replaces it when it likes, and fetches are rare.
        if let Some(file) = self.login.token_file() {
            let read = token_file(file.clone()).await?;
            return Ok(adopt(&mut current, read));
        }
        match current.as_ref().filter(|token| !token.expired()) {
            Some(token) => Ok(Arc::clone(token)),
            None => self.log_in(&mut current).await,
        }
    }

    /// When the vault ends the token, as far as it is known.
    pub(super) async fn end_of(&self, token: &Token) -> Option<Instant> {
        if self.login.token_file().is_none() {
            return token.ends();
        }
        let now = Instant::now();
        let answer = self.look_up(token).await.ok().filter(|answer| answer.status == 200)?;
        answer::remaining(&answer.body).map(|left| now + left)
    }

    /// Ends a login that is this process's own, and with it what hangs on it.
    pub(super) async fn end(&self) {
        let token = self.current.lock().await.take();
        let (Some(token), None) = (token, self.login.token_file()) else { return };
        if let Ok(question) = Question::post(&self.client, "auth/token/revoke-self") {
            // Refused, or not heard, it ends by itself.
            let _ = self.client.ask(&question, Some(token.header()), None).await;
        }
    }

    /// Another token than `refused`, if there can be one.
    async fn replacement(self: &Arc<Self>, refused: &Arc<Token>) -> Result<Option<Arc<Token>>, Failure> {
        let mut current = self.current.lock().await;
        if let Some(newer) = current.as_ref().filter(|token| !Arc::ptr_eq(token, refused)) {
            return Ok(Some(Arc::clone(newer)));
        }
        if let Some(file) = self.login.token_file() {
            let read = token_file(file.clone()).await?;
            let token = adopt(&mut current, read);
            return Ok((!Arc::ptr_eq(&token, refused)).then_some(token));
        }
        if refused.obtained.elapsed() < YOUNG { Ok(None) } else { self.log_in(&mut current).await.map(Some) }
    }

    /// Whether the vault knows the token. It says 403 both to one that it does not know and to a good one without the
    /// right.
    async fn is_known(&self, token: &Token) -> Result<bool, Failure> {
        match self.look_up(token).await?.status {
            200 => Ok(true),
            403 => Ok(false),
            503 => Err(Failure::Sealed),
            status => Err(Failure::Status(status)),
        }
    }

    async fn look_up(&self, token: &Token) -> Result<Answer, Failure> {
        let question = Question::new(&self.client, &LookupTokenSelfRequest {})?;
        self.client.ask(&question, Some(token.header()), None).await
    }

    async fn log_in(self: &Arc<Self>, current: &mut Option<Arc<Token>>) -> Result<Arc<Token>, Failure> {
        let token = Token::new(self.login.granted().await?, None);
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

    /// What takes the place of a token that is nearing its end.
    async fn prolonged(&self, token: &Token) -> Option<Arc<Token>> {
        match self.renewed(token).await {
            Some(renewed) => Some(renewed),
            None => self.login.granted().await.ok().map(|grant| Token::new(grant, None)),
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
/// where that fails too, it is tried again while the token lasts. Then the next fetch logs in, and says why it cannot.
async fn keep(session: Weak<Session>, mut token: Arc<Token>) {
    let mut next = token.renew_at();
    while let Some(at) = next {
        time::sleep_until(at).await;
        let Some(session) = session.upgrade() else { return };
        // Not under the lock: the token is still good, and nobody should wait for a vault that is slow to renew it.
        let Some(longer) = session.prolonged(&token).await else {
            next = token.retry_at();
            continue;
        };
        let mut current = session.current.lock().await;
        if !current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &token)) {
            return;
        }
        *current = Some(Arc::clone(&longer));
        token = longer;
        next = token.renew_at();
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

#[cfg(test)]
mod tests;
