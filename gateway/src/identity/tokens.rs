//! Callers by token: the issuers of the settings, and the verification of what they have signed.
//!
//! **Invariant:** a token is verified by the keys of the one issuer that it names, with an algorithm that is that issuer's and that key's; no
//! token makes the gateway fetch anything (`jku`, `x5u` and the like are not read). What a token proves ends with it, and with its key.

mod claims;
mod issuer;
mod keys;
mod refresh;
mod refusal;
mod settings;

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::Handle;
use tollgate_policy::caller::{Claims, Identity, Proof, Proven};
use tollgate_policy::compile::HomeCluster;

pub(crate) use self::issuer::IssuerStanding;
use self::issuer::{KeySource, TokenIssuer};
use self::keys::Thumbprint;
pub(super) use self::refusal::TokenRefusal;
pub(crate) use self::settings::problems;
pub use self::settings::{IssuerKind, TokenIssuerSettings};
use super::jwt::UnverifiedJwt;
use super::workload_api::JwtBundles;

/// Whom a token proves. Only [`TokenIssuers::verify`] makes one.
#[derive(Debug)]
pub(crate) struct VerifiedToken {
    identity: Identity,
    claims: Claims,
    expires: Timestamp,
    issuer: usize,
    key: Thumbprint,
    /// When its issuer or its key was first found to be gone, by whichever of its calls.
    withdrawn: OnceLock<Timestamp>,
}

impl VerifiedToken {
    /// Since when it proves nobody, which was found out at `now` for the reason `refusal`. One whose key was gone before and came back is
    /// held to the first time.
    pub(super) fn ended_since(&self, refusal: &TokenRefusal, now: Timestamp) -> Timestamp {
        match (refusal, self.withdrawn.get()) {
            (TokenRefusal::Expired, None) => self.expires,
            (TokenRefusal::Expired, Some(withdrawn)) => self.expires.min(*withdrawn),
            _ => *self.withdrawn.get_or_init(|| now),
        }
    }
}

#[cfg(test)]
impl VerifiedToken {
    /// One that proves nobody from `expires` on, whatever issuers there are.
    pub(super) fn ended(expires: Timestamp) -> Self {
        let identity = Identity::Spiffe("spiffe://prod.acme/ns/shop/sa/web".parse().unwrap());
        Self {
            identity,
            claims: Claims::default(),
            expires,
            issuer: 0,
            key: Thumbprint::default(),
            withdrawn: OnceLock::new(),
        }
    }
}

impl Proven for VerifiedToken {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn proof(&self) -> Proof {
        Proof::Token
    }

    fn claims(&self) -> Claims {
        self.claims.clone()
    }
}

/// The issuers whose tokens prove callers.
#[derive(Debug, Default)]
pub(crate) struct TokenIssuers {
    all: Vec<Arc<TokenIssuer>>,
    /// How far the clocks of issuers may be from ours.
    skew: Duration,
    /// The cluster whose workloads may go by either name.
    home: HomeCluster,
}

impl TokenIssuers {
    /// Those of the settings; keys in files are read. Relative paths count from `base`.
    pub(crate) fn new(
        settings: &[TokenIssuerSettings],
        base: &Path,
        skew: Duration,
        home: HomeCluster,
    ) -> Self {
        let all = settings.iter().filter_map(|issuer| TokenIssuer::new(issuer, base)).map(Arc::new);
        Self { all: all.collect(), skew, home }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Keeps their keys up to date on `control` for as long as it runs. `dialable` says where keys may be fetched.
    pub(crate) fn keep(&self, control: &Handle, dialable: &Arc<dyn Fn(IpAddr) -> bool + Send + Sync>) {
        for issuer in &self.all {
            control.spawn(refresh::keep(Arc::clone(issuer), Arc::clone(dialable)));
        }
    }

    /// Whether the keys of one of them are the Workload API's.
    pub(super) fn ask_workload_api(&self) -> bool {
        self.all.iter().any(|issuer| matches!(issuer.source, KeySource::WorkloadApi))
    }

    /// Takes what the Workload API says of keys, or why nothing is heard of it.
    pub(super) fn take_said(&self, said: Result<&JwtBundles, &str>) {
        self.all.iter().for_each(|issuer| issuer.take_said(said));
    }

    /// How each of them does.
    pub(crate) fn standing(&self, now: Timestamp) -> Vec<IssuerStanding> {
        self.all.iter().map(|issuer| issuer.standing(now)).collect()
    }

    /// Whether a token says that it is for this gateway, whoever has made it.
    pub(super) fn is_audience_of(&self, token: &UnverifiedJwt) -> bool {
        let audiences = token.claims.aud.as_ref();
        audiences.is_some_and(|aud| self.all.iter().any(|issuer| aud.contains(&issuer.audience)))
    }

    /// Whether one of them has made a token, as it says itself.
    pub(super) fn is_issuer_of(&self, token: &UnverifiedJwt) -> bool {
        self.of(token).is_some()
    }

    /// Verifies `token`, of which `read` was read.
    pub(super) fn verify(
        &self,
        token: &[u8],
        read: &UnverifiedJwt,
        now: Timestamp,
    ) -> Result<VerifiedToken, TokenRefusal> {
        let (at, issuer) = self.of(read).ok_or(TokenRefusal::UnknownIssuer)?;
        let (identity, expires, key) = issuer.verify(token, read, now, self.skew)?;
        let claims = claims::read(token, &issuer.claims).ok_or(TokenRefusal::Malformed)?;
        Ok(VerifiedToken { identity, claims, expires, issuer: at, key, withdrawn: OnceLock::new() })
    }

    /// Whether a token that was verified still proves its caller.
    pub(super) fn check_current(&self, token: &VerifiedToken, now: Timestamp) -> Result<(), TokenRefusal> {
        if now >= token.expires {
            return Err(TokenRefusal::Expired);
        }
        let issuer = self.all.get(token.issuer).ok_or(TokenRefusal::UnknownIssuer)?;
        if issuer.has_key(&token.key) { Ok(()) } else { Err(TokenRefusal::KeyGone) }
    }

    /// Whether a certificate's caller and a token's are one: the same identity, or one workload of the gateway's own cluster.
    pub(super) fn is_one_workload(&self, certificate: &Identity, token: &Identity) -> bool {
        match (certificate, token) {
            (Identity::Spiffe(id), Identity::ServiceAccount(account)) => {
                self.home.is_one_workload(id, account)
            }
            _ => certificate == token,
        }
    }

    fn of(&self, token: &UnverifiedJwt) -> Option<(usize, &TokenIssuer)> {
        let found = self.all.iter().position(|issuer| issuer.is_named_by(&token.claims));
        let found = found.or_else(|| self.all.iter().position(|issuer| issuer.vouches_for(&token.claims)));
        found.and_then(|at| Some((at, &**self.all.get(at)?)))
    }
}

#[cfg(test)]
mod tests;
