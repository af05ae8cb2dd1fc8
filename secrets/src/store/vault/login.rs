//! The ways to get a token: AppRole, Kubernetes, JWT, TLS certificate.
//!
//! **Invariant:** files are read again for each login. Of a refusal only its kind is taken, in words of ours. What was refused is not
//! shown again until a file holds another, or, slowly, because it may have been mended at the vault: a vault that locks a role after five
//! refusals within 15 minutes (<https://openbao.org/docs/concepts/user-lockout/>, and so for AppRole) must not be made to.
//!
//! Deliberately lacks: keeping the token alive, which is the session's.

mod wrap;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tollgate_policy::policy::{SecretId, TokenLogin, VaultAuth};
use zeroize::Zeroizing;

use self::wrap::Wrapped;
use super::answer::{self, Grant};
use super::client::{Client, Question, json};
use crate::error::Failure;
use crate::http::Answer;
use crate::read::login_file;
use crate::refusals::Refusals;
use crate::svid::SvidSource;

/// Longer than a vault counts refusals of a role: it forgets them 15 minutes after the last one.
const UNCOUNTED: Duration = Duration::from_secs(16 * 60);
/// Of logins that lock nothing. What was wrong may be mended at the vault.
const REST: Duration = Duration::from_secs(240);
/// Of a role that is locked: asking does not prolong that, and a good secret id is taken soon after.
const LOCKED: Duration = Duration::from_secs(60);

pub(super) struct Login {
    auth: VaultAuth,
    client: Arc<Client>,
    wrapped: Wrapped,
    svids: SvidSource,
    refusals: Refusals,
}

/// What a login shows to the vault.
struct Shown<'a> {
    mount: &'a str,
    body: Zeroizing<Vec<u8>>,
    words: Words,
}

/// What a refusal is called, and how long what was shown rests: the first whose part occurs in the vault's own text, else the last.
type Words = &'static [(&'static str, &'static str, Duration)];

const APP_ROLE: Words = &[
    ("missing client token", "the vault has no AppRole login at that mount", REST),
    ("no handler for route", "the vault has no AppRole login at that mount", REST),
    (
        "permission denied",
        "the vault has locked the role after failed logins (`sys/locked-users` lists it), or lets nobody log in from here; \
         it is tried again every minute",
        LOCKED,
    ),
    (
        "",
        "the vault refuses the role id or the secret id: write a good one to its file and it is tried at once; this one rests for \
         16 minutes, because a vault locks a role that is refused five times in 15",
        UNCOUNTED,
    ),
];
const KUBERNETES: Words = &[
    ("invalid role name", "Kubernetes: the vault has no such role", REST),
    ("name not authorized", "Kubernetes: the role is not for this service account", REST),
    ("namespace not authorized", "Kubernetes: the role is not for this namespace", REST),
    ("is expired", "Kubernetes: the service-account token is expired", REST),
    ("audience", "Kubernetes: the service-account token is for another audience", REST),
    ("could not load backend configuration", "Kubernetes: the login at that mount is not configured", REST),
    (
        "",
        "Kubernetes: the vault or its cluster refuses the service-account token, or no such login is at that mount",
        REST,
    ),
];
const JWT: Words = &[
    ("could not be found", "JWT: the vault has no such role", REST),
    ("is expired", "JWT: the token is expired", REST),
    ("audience", "JWT: the token is for another audience", REST),
    ("issuer", "JWT: the token is of another issuer", REST),
    ("signature", "JWT: the token's signature is of no key that the vault knows", REST),
    ("", "JWT: the vault refuses the token, or has no such login at that mount", REST),
];
const CERTIFICATE: Words = &[
    ("all constraints", "certificate: no role of the vault is for this client certificate", REST),
    ("invalid certificate", "certificate: no role of the vault trusts the client certificate", REST),
    ("", "certificate: the vault refuses the client certificate, or has no such login at that mount", REST),
];

impl Login {
    pub(super) fn new(auth: VaultAuth, client: Arc<Client>, svids: SvidSource) -> Self {
        Self { wrapped: Wrapped::new(Arc::clone(&client)), auth, client, svids, refusals: Refusals::new() }
    }

    /// Somebody says that what was refused may be shown again.
    pub(super) fn open(&self) {
        self.refusals.open();
    }

    /// The file with a token that someone else renews, where that is the login.
    pub(super) const fn token_file(&self) -> Option<&PathBuf> {
        match &self.auth {
            VaultAuth::Token { file } => Some(file),
            _ => None,
        }
    }

    /// A new token.
    pub(super) async fn granted(&self) -> Result<Grant, Failure> {
        let shown = self.shown().await?;
        let stamp = match &self.auth {
            // It is the connection that shows it.
            VaultAuth::Certificate { .. } => format!("{:?}", self.client.stamp().await?),
            _ => String::new(),
        };
        let input = self.refusals.input(&[&shown.body, stamp.as_bytes()]);
        if let Some(failure) = self.refusals.barred(input) {
            return Err(failure);
        }
        let question = Question::post(&self.client, &format!("auth/{}/login", shown.mount))?;
        let answer = self.client.ask(&question, None, Some(shown.body)).await?;
        let (why, rest) = refusal(&answer, shown.words);
        match answer.status {
            200 => {
                self.refusals.taken(input);
                answer::grant(&answer.body)
            }
            503 => Err(Failure::Sealed),
            400 | 403 | 404 => {
                self.refusals.refused(input, Failure::Login(why), rest);
                Err(Failure::Login(why))
            }
            // The vault may not have come as far as to judge it.
            500 => Err(Failure::Login(why)),
            status => Err(Failure::Status(status)),
        }
    }

    async fn shown(&self) -> Result<Shown<'_>, Failure> {
        match &self.auth {
            VaultAuth::Token { .. } => Err(Failure::Internal),
            VaultAuth::AppRole { mount, role_id_file, secret_id } => {
                let role_id = login_file(role_id_file.clone(), "the role id file cannot be read").await?;
                let secret_id = match secret_id {
                    SecretId::File(file) => {
                        login_file(file.clone(), "the secret id file cannot be read").await?
                    }
                    SecretId::Wrapped(file) => self.wrapped.secret_id(mount, file).await?,
                };
                let body = json(&[("role_id", &role_id), ("secret_id", &secret_id)])?;
                Ok(Shown { mount, body, words: APP_ROLE })
            }
            VaultAuth::Kubernetes(login) => {
                with_token(login, KUBERNETES, "the service-account token file cannot be read").await
            }
            VaultAuth::Jwt(login) => with_token(login, JWT, "the JWT file cannot be read").await,
            VaultAuth::JwtSvid { mount, role, audience } => {
                let token = self.svids.svids()?.jwt(audience.clone()).await?.token;
                let body = json(&[("role", role.as_bytes()), ("jwt", &token)])?;
                Ok(Shown { mount, body, words: JWT })
            }
            VaultAuth::Certificate { mount, role } => {
                let body = match role {
                    Some(role) => json(&[("name", role.as_bytes())])?,
                    None => json(&[])?,
                };
                Ok(Shown { mount, body, words: CERTIFICATE })
            }
        }
    }
}

async fn with_token<'a>(
    login: &'a TokenLogin,
    words: Words,
    unreadable: &'static str,
) -> Result<Shown<'a>, Failure> {
    let token = login_file(login.token_file.clone(), unreadable).await?;
    let body = json(&[("role", login.role.as_bytes()), ("jwt", &token)])?;
    Ok(Shown { mount: &login.mount, body, words })
}

fn refusal(answer: &Answer, words: Words) -> (&'static str, Duration) {
    let known = words.iter().find(|(part, ..)| answer.mentions(part));
    known.map_or(("the vault refuses the login", REST), |(_, words, rest)| (*words, *rest))
}
