//! The ways to get a token: AppRole, Kubernetes, JWT, TLS certificate.
//!
//! **Invariant:** files are read again for each login. Of a refusal only its kind is taken, in words of ours.
//!
//! Deliberately lacks: keeping the token alive, which is the session's.

mod wrap;

use std::path::PathBuf;
use std::sync::Arc;

use tollgate_policy::policy::{SecretId, TokenLogin, VaultAuth};
use zeroize::Zeroizing;

use self::wrap::Wrapped;
use super::answer::{self, Grant};
use super::client::{Client, Question, json};
use crate::error::Failure;
use crate::http::Answer;
use crate::store::read::login_file;

pub(super) struct Login {
    auth: VaultAuth,
    client: Arc<Client>,
    wrapped: Wrapped,
}

/// What a refusal is called: the first whose part occurs in the vault's own text, else the last.
type Words = &'static [(&'static str, &'static str)];

const APP_ROLE: Words = &[
    ("missing client token", "the vault has no AppRole login at that mount"),
    ("no handler for route", "the vault has no AppRole login at that mount"),
    ("", "the vault refuses the role id or the secret id"),
];
const KUBERNETES: Words = &[
    ("invalid role name", "Kubernetes: the vault has no such role"),
    ("name not authorized", "Kubernetes: the role is not for this service account"),
    ("namespace not authorized", "Kubernetes: the role is not for this namespace"),
    ("is expired", "Kubernetes: the service-account token is expired"),
    ("audience", "Kubernetes: the service-account token is for another audience"),
    ("could not load backend configuration", "Kubernetes: the login at that mount is not configured"),
    (
        "",
        "Kubernetes: the vault or its cluster refuses the service-account token, or no such login is at that mount",
    ),
];
const JWT: Words = &[
    ("could not be found", "JWT: the vault has no such role"),
    ("is expired", "JWT: the token is expired"),
    ("audience", "JWT: the token is for another audience"),
    ("issuer", "JWT: the token is of another issuer"),
    ("signature", "JWT: the token's signature is of no key that the vault knows"),
    ("", "JWT: the vault refuses the token, or has no such login at that mount"),
];
const CERTIFICATE: Words = &[
    ("all constraints", "certificate: no role of the vault is for this client certificate"),
    ("invalid certificate", "certificate: no role of the vault trusts the client certificate"),
    ("", "certificate: the vault refuses the client certificate, or has no such login at that mount"),
];

impl Login {
    pub(super) fn new(auth: VaultAuth, client: Arc<Client>) -> Self {
        Self { wrapped: Wrapped::new(Arc::clone(&client)), auth, client }
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
                self.ask(mount, body, APP_ROLE).await
            }
            VaultAuth::Kubernetes(login) => {
                self.with_token(login, KUBERNETES, "the service-account token file cannot be read").await
            }
            VaultAuth::Jwt(login) => self.with_token(login, JWT, "the JWT file cannot be read").await,
            VaultAuth::Certificate { mount, role } => {
                let body = match role {
                    Some(role) => json(&[("name", role.as_bytes())])?,
                    None => json(&[])?,
                };
                self.ask(mount, body, CERTIFICATE).await
            }
        }
    }

    async fn with_token(
        &self,
        login: &TokenLogin,
        words: Words,
        unreadable: &'static str,
    ) -> Result<Grant, Failure> {
        let token = login_file(login.token_file.clone(), unreadable).await?;
        let body = json(&[("role", login.role.as_bytes()), ("jwt", &token)])?;
        self.ask(&login.mount, body, words).await
    }

    async fn ask(&self, mount: &str, body: Zeroizing<Vec<u8>>, words: Words) -> Result<Grant, Failure> {
        let question = Question::post(&self.client, &format!("auth/{mount}/login"))?;
        let answer = self.client.ask(&question, None, Some(body)).await?;
        match answer.status {
            200 => answer::grant(&answer.body),
            503 => Err(Failure::Sealed),
            400 | 403 | 404 | 500 => Err(Failure::Login(refusal(&answer, words))),
            status => Err(Failure::Status(status)),
        }
    }
}

fn refusal(answer: &Answer, words: Words) -> &'static str {
    let known = words.iter().find(|(part, _)| answer.mentions(part));
    known.map_or("the vault refuses the login", |(_, words)| words)
}
