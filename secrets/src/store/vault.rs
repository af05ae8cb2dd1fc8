//! OpenBao and HashiCorp Vault: the KV version 2 engine. `vaultrs` knows the endpoints; requests are sent, bounded
//! and read here, so that its own logging and error types never see a body.
//!
//! **Invariant:** a refused token is replaced and tried again once. `Denied` is said only when the vault itself
//! confirms that the token is good, so that a login gone stale is never mistaken for a secret taken away.
//!
//! Deliberately lacks: writing to the vault.

mod answer;
pub(super) mod client;
mod session;

use std::sync::Arc;

use tollgate_policy::policy::VaultStore;
use vaultrs::api::kv2::requests::ReadSecretRequest;
use vaultrs::api::token::requests::LookupTokenSelfRequest;

use self::client::{Client, Question};
use self::session::{Session, Token};
use super::read::downward;
use super::{Dialable, Fetched};
use crate::error::Failure;
use crate::reference::Reference;

pub(super) struct Vault {
    mount: String,
    client: Arc<Client>,
    session: Arc<Session>,
}

impl Vault {
    pub(super) fn new(definition: VaultStore, dialable: Dialable) -> Self {
        let VaultStore { address, mount, namespace, ca, auth } = definition;
        let client = Arc::new(Client::new(address, namespace, ca, dialable));
        let session = Arc::new(Session::new(auth, Arc::clone(&client)));
        Self { mount, client, session }
    }

    /// The field at the pinned version, or the current one.
    pub(super) async fn fetch(&self, reference: &Reference) -> Result<Fetched, Failure> {
        downward(&reference.secret.path)?;
        let question = Question::new(
            &self.client,
            &ReadSecretRequest::builder()
                .mount(self.mount.as_str())
                .path(reference.secret.path.as_str())
                .version(reference.secret.version)
                .build()
                .map_err(|_| Failure::Internal)?,
        )?;
        let token = self.session.token().await?;
        let token = match self.read(&question, &token, reference).await {
            Err(Failure::Denied) => match self.session.replacement(&token).await? {
                Some(newer) => newer,
                None => return Err(self.why_denied(&token).await),
            },
            other => return other,
        };
        match self.read(&question, &token, reference).await {
            Err(Failure::Denied) => Err(self.why_denied(&token).await),
            other => other,
        }
    }

    async fn read(
        &self,
        question: &Question,
        token: &Token,
        reference: &Reference,
    ) -> Result<Fetched, Failure> {
        let answer = self.client.ask(question, Some(token.header()), None).await?;
        match answer.status {
            200 => answer::secret(&answer.body, &reference.secret.fields),
            403 => Err(Failure::Denied),
            404 => Err(Failure::NotFound),
            503 => Err(Failure::Sealed),
            status => Err(Failure::Status(status)),
        }
    }

    /// The vault says 403 both to a token that is no longer one and to a good token without the right.
    async fn why_denied(&self, token: &Token) -> Failure {
        let lookup = Question::new(&self.client, &LookupTokenSelfRequest {});
        let answer = match lookup {
            Ok(lookup) => self.client.ask(&lookup, Some(token.header()), None).await,
            Err(failure) => Err(failure),
        };
        match answer.map(|answer| answer.status) {
            Ok(200) => Failure::Denied,
            Ok(503) => Failure::Sealed,
            Ok(_) => Failure::Login(
                "the vault refuses the token; is it expired, revoked or without `lookup-self`?",
            ),
            Err(failure) => failure,
        }
    }
}
