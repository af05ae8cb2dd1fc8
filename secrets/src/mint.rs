//! Values that are made of a stored secret at a token endpoint: what is asked, how the answer is judged, how the endpoint does.
//!
//! **Invariant:** a token's life counts from the moment it was asked for, less a margin; an answer that is not plainly a bearer token,
//! or an AWS session, with a life is refused. What an endpoint says is never taken over into an error; what may be told of it besides,
//! [`answer::said`] decides.
//!
//! Deliberately lacks: caching and renewal, which are the cache's.

mod answer;
mod assertion;
mod form;
mod sts;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use reqwest::{Method, Request, Url};
use tokio::time::Instant;
use tollgate_policy::policy::{Client, ClientAuth, Mint, TlsVerify, TokenEndpoint, TokenGrant};
use tracing::{info, warn};
use zeroize::Zeroizing;

use self::assertion::Claims;
use self::form::Form;
use crate::dial::Dialable;
use crate::error::Failure;
use crate::http::{Http, Reach, TlsFiles};
use crate::store::Fetched;
use crate::store::state::{Line, State};
use crate::value::Value;

/// No answer is waited for longer, whatever the destination allows its calls.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);
const AGENT: HeaderValue = HeaderValue::from_static("tollgate");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
/// RFC 7523, section 2.2.
const JWT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// draft-ietf-oauth-spiffe-client-auth, section 4.1.
const SPIFFE_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";
/// RFC 7523, section 2.1.
const JWT_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// RFC 8693, section 2.1.
const EXCHANGE_GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// One token endpoint, for every credential that is minted there.
pub(crate) struct Issuer {
    endpoint: TokenEndpoint,
    http: Http,
    state: Mutex<State>,
    mints: AtomicU64,
    failures: AtomicU64,
    #[cfg(test)]
    script: Option<Arc<crate::cache::tests::Script>>,
}

impl Issuer {
    pub(crate) fn new(endpoint: TokenEndpoint, dialable: &Dialable) -> Self {
        let read = endpoint.first_byte.min(LONGEST_ANSWER);
        let ca = match &endpoint.tls {
            TlsVerify::System => None,
            TlsVerify::Bundle(file) => Some(file.clone()),
        };
        let http = Http::new(Reach {
            tls: TlsFiles { ca, shown: None },
            dialable: Arc::clone(dialable),
            addresses: endpoint.addresses.as_slice().into(),
            source_address: endpoint.source_address,
            connect: endpoint.connect,
            read,
            total: endpoint.connect + read,
        });
        Self {
            endpoint,
            http,
            state: Mutex::new(State::new()),
            mints: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            #[cfg(test)]
            script: None,
        }
    }

    #[cfg(test)]
    pub(crate) fn scripted(endpoint: TokenEndpoint, script: Arc<crate::cache::tests::Script>) -> Self {
        Self { script: Some(script), ..Self::new(endpoint, &(Arc::new(|_| true) as Dialable)) }
    }

    pub(crate) const fn endpoint(&self) -> &TokenEndpoint {
        &self.endpoint
    }

    /// A token made of `stored`, which is what the credential's store holds. `client` is the client's own secret, where the grant
    /// takes one beside it. Notes how the endpoint did; a stored secret that cannot be used is not its fault.
    pub(crate) async fn mint(
        &self,
        mint: &Mint,
        stored: &Value,
        client: Option<&[u8]>,
    ) -> Result<Fetched, Refused> {
        let request = self.request(mint, stored, client)?;
        self.mints.fetch_add(1, Ordering::Relaxed);
        let shown: Vec<&[u8]> = stored.values().chain(client).collect();
        let token = self.ask(mint, request, &shown).await;
        self.note(token.as_ref().err().map(|refused| refused.failure));
        token
    }

    async fn ask(&self, mint: &Mint, request: Request, shown: &[&[u8]]) -> Result<Fetched, Refused> {
        #[cfg(test)]
        if let Some(script) = &self.script {
            return Ok(script.answer().await?);
        }
        // Before it is sent: the life that the answer tells began later than this.
        let asked = Instant::now();
        let answer = self.http.send(request).await.map_err(|failure| match failure {
            Failure::Foreign(why) => Failure::MintNonsense(why),
            failure => failure,
        })?;
        let token = match &mint.grant {
            TokenGrant::AwsAssumeRole { .. } | TokenGrant::AwsWebIdentity(_) => sts::session(&answer, asked),
            _ => answer::token(&answer, mint, asked),
        };
        token.map_err(|failure| match failure {
            Failure::MintRefused(_) => Refused { failure, said: answer::said(&answer, shown).map(Arc::from) },
            failure => failure.into(),
        })
    }

    /// Notes how a mint ended, and logs when the endpoint begins or ceases to fail.
    pub(crate) fn note(&self, failure: Option<Failure>) {
        if failure.is_some() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        let broken = failure.filter(|failure| !failure.spares_store());
        let (_, line) = self.state.lock().unwrap_or_else(PoisonError::into_inner).note(broken);
        let endpoint = &self.endpoint;
        match line {
            None => {}
            Some(Line::Fails(error)) => {
                warn!(%endpoint, %error, "token endpoint fails; tokens that it made are used while they last");
            }
            Some(Line::FailsOtherwise(error)) => {
                warn!(%endpoint, %error, "token endpoint still fails, for another reason");
            }
            Some(Line::Works(after)) => {
                info!(%endpoint, seconds = after.as_secs(), "token endpoint works again");
            }
        }
    }

    pub(crate) fn health(&self) -> IssuerHealth {
        let failing = self.state.lock().unwrap_or_else(PoisonError::into_inner).failing();
        IssuerHealth {
            endpoint: self.endpoint.to_string(),
            failing_for: failing.map(|failing| failing.since.elapsed()),
            error: failing.map(|failing| failing.failure.as_str()),
            mints: self.mints.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            tokens: 0,
            unavailable: 0,
        }
    }

    fn request(&self, mint: &Mint, stored: &Value, client: Option<&[u8]>) -> Result<Request, Failure> {
        let url = self.endpoint.url();
        let parsed = Url::parse(&url).map_err(|_| Failure::Misconfigured("the endpoint is not a URL"))?;
        let mut request = Request::new(Method::POST, parsed);
        request.headers_mut().insert(USER_AGENT, AGENT);
        // A token is made of secrets with one field, which a policy sees to.
        let only = || stored.sole().ok_or(Failure::Internal);
        let body = match &mint.grant {
            TokenGrant::GithubApp { app_id, repositories, permissions, .. } => {
                github_headers(request.headers_mut(), *app_id, only()?)?;
                github_body(repositories, permissions)?
            }
            TokenGrant::AwsAssumeRole { key, region, external_id, session } => {
                sts::describe(&mut request);
                let body = sts::assume_role(session, external_id.as_deref());
                sts::sign(&mut request, &body, (key, region), stored, Timestamp::now())?;
                body
            }
            TokenGrant::AwsWebIdentity(session) => {
                sts::describe(&mut request);
                sts::web_identity(session, only()?)
            }
            _ => {
                request.headers_mut().insert(ACCEPT, JSON);
                request.headers_mut().insert(CONTENT_TYPE, FORM);
                self.form(mint, only()?, client, request.headers_mut())?
            }
        };
        *request.body_mut() = Some(Bytes::from_owner(body).into());
        Ok(request)
    }

    /// The parameters of an OAuth grant.
    fn form(
        &self,
        mint: &Mint,
        stored: &[u8],
        client: Option<&[u8]>,
        headers: &mut HeaderMap,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let mut form = Form::default();
        let mut scope_is_claim = false;
        match &mint.grant {
            TokenGrant::ClientCredentials(client) => {
                form.add("grant_type", "client_credentials");
                self.authenticate(client, stored, &mut form, headers)?;
            }
            TokenGrant::TokenExchange { subject_token_type, requested_token_type, client: asks } => {
                form.add("grant_type", EXCHANGE_GRANT);
                form.add("subject_token_type", subject_token_type);
                form.add_secret("subject_token", trimmed(stored));
                form.add_some("requested_token_type", requested_token_type.as_deref());
                if let Some((asks, _)) = asks {
                    self.authenticate(asks, client.ok_or(Failure::Internal)?, &mut form, headers)?;
                }
            }
            TokenGrant::JwtBearer { issuer, subject, signer } => {
                form.add("grant_type", JWT_GRANT);
                let audience = mint.audience.clone().unwrap_or_else(|| self.endpoint.url());
                let assertion = match issuer {
                    Some(issuer) => {
                        let subject = subject.as_deref().unwrap_or(issuer);
                        let claims =
                            Claims { issuer, subject: Some(subject), audience: Some(&audience), scope: None };
                        assertion::signed(&claims, assertion::SHORT, signer, stored)?
                    }
                    None => {
                        scope_is_claim = true;
                        let account = assertion::ServiceAccount::read(stored)?;
                        account.assertion(subject.as_deref(), &audience, mint.scope.as_deref())?
                    }
                };
                form.add_owned("assertion", assertion);
            }
            TokenGrant::GithubApp { .. }
            | TokenGrant::AwsAssumeRole { .. }
            | TokenGrant::AwsWebIdentity(_) => return Err(Failure::Internal),
        }
        form.add_some("scope", mint.scope.as_deref().filter(|_| !scope_is_claim));
        let is_claim = matches!(mint.grant, TokenGrant::JwtBearer { .. });
        form.add_some("audience", mint.audience.as_deref().filter(|_| !is_claim));
        form.add_some("resource", mint.resource.as_deref());
        for (name, value) in &mint.parameters {
            form.add(name, value);
        }
        Ok(form.encoded())
    }

    fn authenticate(
        &self,
        client: &Client,
        secret: &[u8],
        form: &mut Form<'_>,
        headers: &mut HeaderMap,
    ) -> Result<(), Failure> {
        let id = client.id.as_deref();
        match &client.auth {
            ClientAuth::Basic => {
                headers.insert(AUTHORIZATION, form::basic(id.unwrap_or_default(), trimmed(secret))?);
                return Ok(());
            }
            ClientAuth::Post => form.add_owned("client_secret", Zeroizing::new(trimmed(secret).to_vec())),
            ClientAuth::PrivateKeyJwt { signer, audience } => {
                let url = self.endpoint.url();
                let audience = Some(audience.as_deref().unwrap_or(&url));
                let issuer = id.unwrap_or_default();
                let claims = Claims { issuer, subject: id, audience, scope: None };
                form.add("client_assertion_type", JWT_ASSERTION);
                form.add_owned(
                    "client_assertion",
                    assertion::signed(&claims, assertion::SHORT, signer, secret)?,
                );
            }
            ClientAuth::Jwt | ClientAuth::SpiffeJwt => {
                let is_spiffe = client.auth == ClientAuth::SpiffeJwt;
                form.add("client_assertion_type", if is_spiffe { SPIFFE_ASSERTION } else { JWT_ASSERTION });
                form.add_owned("client_assertion", Zeroizing::new(trimmed(secret).to_vec()));
            }
        }
        if let Some(id) = id {
            form.add_owned("client_id", Zeroizing::new(id.as_bytes().to_vec()));
        }
        Ok(())
    }
}

/// Why there is no token.
pub(crate) struct Refused {
    pub(crate) failure: Failure,
    /// What the endpoint said besides, if that may be told.
    pub(crate) said: Option<Arc<str>>,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self { failure, said: None }
    }
}

/// Files end in a newline that no secret has.
fn trimmed(secret: &[u8]) -> &[u8] {
    secret.trim_ascii()
}

/// <https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/authenticating-as-a-github-app-installation>
fn github_headers(headers: &mut HeaderMap, app_id: u64, key: &[u8]) -> Result<(), Failure> {
    const VERSION: HeaderName = HeaderName::from_static("x-github-api-version");
    let issuer = app_id.to_string();
    let claims = Claims { issuer: &issuer, subject: None, audience: None, scope: None };
    let assertion = assertion::signed(&claims, assertion::BACKDATED, &assertion::RS256, key)?;
    headers.insert(AUTHORIZATION, form::sensitive(&[b"Bearer ", &assertion])?);
    headers.insert(ACCEPT, HeaderValue::from_static("application/vnd.github+json"));
    headers.insert(VERSION, HeaderValue::from_static("2022-11-28"));
    headers.insert(CONTENT_TYPE, JSON);
    Ok(())
}

fn github_body(
    repositories: &[String],
    permissions: &[(String, String)],
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut body = serde_json::Map::new();
    if !repositories.is_empty() {
        body.insert("repositories".to_owned(), repositories.into());
    }
    if !permissions.is_empty() {
        let permissions = permissions.iter().map(|(name, level)| (name.clone(), level.as_str().into()));
        body.insert("permissions".to_owned(), serde_json::Value::Object(permissions.collect()));
    }
    serde_json::to_vec(&body).map(Zeroizing::new).map_err(|_| Failure::Internal)
}

/// Seconds since 1970, by the clock that tokens are dated with.
fn unix_seconds() -> Result<u64, Failure> {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map(|since| since.as_secs())
        .map_err(|_| Failure::Internal)
}

/// How one token endpoint does, for readiness and metrics.
#[derive(Clone, Debug)]
pub struct IssuerHealth {
    /// Its destination and path, as in `idp/oauth2/token`.
    pub endpoint: String,
    /// How long it has been failing; `None` while it works or was never asked. A refusal of one credential is no failure.
    pub failing_for: Option<Duration>,
    /// The last failure, one snake_case word (`timeout`, `tls`, `mint_nonsense` …).
    pub error: Option<&'static str>,
    /// Times it was asked for a token.
    pub mints: u64,
    /// How many of them gave none.
    pub failures: u64,
    /// Values of the policy that it makes.
    pub tokens: usize,
    /// How many of them were asked for and cannot be had.
    pub unavailable: usize,
}

#[cfg(test)]
pub(crate) mod tests;
