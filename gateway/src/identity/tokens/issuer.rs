//! One issuer: what its tokens have to be, and its keys.
//!
//! **Invariant:** what is cheap to refuse is refused before a signature is verified, and nothing is believed before one was.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, Validation};
use serde::de::IgnoredAny;
use tokio::sync::Notify;
use tollgate_policy::caller::{
    AccountName, Identity, Issuer, ServiceAccount, SpiffeId, TokenSubject, TrustDomain,
};
use tollgate_policy::name::Name;

use super::claims::ClaimPath;
use super::keys::{KeySet, Thumbprint};
use super::refusal::TokenRefusal;
use super::settings::{IssuerKind, SignatureWord, TokenIssuerSettings};
use crate::identity::jwt::{TokenClaims, UnverifiedJwt};

/// Seconds between two fetches that tokens with unknown keys ask for.
const ASKED_EVERY: i64 = 60;
/// How long whoever comes with the same unknown key is told to try again.
const FETCHING: i64 = 3;
/// Keys that a token without a key's name is tried with.
const MOST_TRIED: usize = 4;

/// An issuer of the settings.
#[derive(Debug)]
pub(super) struct TokenIssuer {
    pub(super) title: String,
    iss: Option<Issuer>,
    pub(super) audience: String,
    vouching: Vouching,
    pub(super) claims: Vec<ClaimPath>,
    algorithms: Vec<Algorithm>,
    pub(super) source: KeySource,
    keys: ArcSwapOption<KeySet>,
    /// When it last said its keys, in seconds since 1970; 0: never.
    said: AtomicI64,
    pub(super) failures: AtomicU64,
    /// Why it could not be asked the last time.
    pub(super) fault: ArcSwapOption<String>,
    /// When a token last asked for its keys.
    asked: AtomicI64,
    pub(super) wanted: Notify,
}

/// Whom its tokens prove.
#[derive(Debug)]
enum Vouching {
    ServiceAccounts(Name),
    Subjects(Issuer),
    Workloads(TrustDomain),
}

/// Where its keys are.
#[derive(Debug)]
pub(super) enum KeySource {
    File(PathBuf),
    WorkloadApi,
    Url(HttpsSource),
    /// The issuer's name, below which its configuration is.
    Discovery(String, HttpsSource),
}

/// How a server that has keys is asked.
#[derive(Debug)]
pub(super) struct HttpsSource {
    /// Of a discovery: not known yet.
    pub(super) url: String,
    pub(super) ca: Option<PathBuf>,
    pub(super) token: Option<PathBuf>,
    /// The servers that are shown the token: those that the settings name.
    pub(super) shown_to: Vec<String>,
}

/// How an issuer does.
#[derive(Debug)]
pub(crate) struct IssuerStanding {
    pub(crate) issuer: String,
    pub(crate) kind: IssuerKind,
    pub(crate) audience: String,
    pub(crate) cluster: Option<String>,
    pub(crate) keys: usize,
    /// Since it last said its keys; `None`: it never did.
    pub(crate) age: Option<Duration>,
    pub(crate) failures: u64,
    pub(crate) fault: Option<Arc<String>>,
}

impl IssuerStanding {
    /// Whether its keys are those that it says now.
    pub(crate) const fn is_up(&self) -> bool {
        self.fault.is_none() && self.age.is_some()
    }
}

impl TokenIssuer {
    /// `None` for settings that are refused anyway.
    pub(super) fn new(settings: &TokenIssuerSettings, base: &Path) -> Option<Self> {
        let vouching = match settings.kind {
            IssuerKind::Kubernetes => Vouching::ServiceAccounts(settings.cluster()?),
            IssuerKind::Oidc => Vouching::Subjects(settings.issuer.clone()?),
            IssuerKind::Spiffe => Vouching::Workloads(settings.trust_domain.clone()?),
        };
        let at = |file: &PathBuf| base.join(file);
        let https = |url: &str| HttpsSource {
            url: url.to_owned(),
            ca: settings.ca_file.as_ref().map(at),
            token: settings.token_file.as_ref().map(at),
            shown_to: settings.token_servers(),
        };
        let source = match (&settings.keys.file, &settings.keys.url) {
            (Some(file), _) => KeySource::File(at(file)),
            (None, Some(url)) => KeySource::Url(https(url)),
            (None, None) if settings.keys.workload_api.is_some() => KeySource::WorkloadApi,
            (None, None) => KeySource::Discovery(settings.issuer.as_ref()?.to_string(), https("")),
        };
        let words: &[SignatureWord] =
            if settings.algorithms.is_empty() { &SignatureWord::DEFAULT } else { &settings.algorithms };
        let issuer = Self {
            title: settings.title(),
            iss: settings.issuer.clone(),
            audience: settings.audience.clone(),
            vouching,
            claims: settings.claims.clone().into_iter().collect(),
            algorithms: words.iter().map(|word| word.algorithm()).collect(),
            source,
            keys: ArcSwapOption::empty(),
            said: AtomicI64::new(0),
            failures: AtomicU64::new(0),
            fault: ArcSwapOption::empty(),
            asked: AtomicI64::new(0),
            wanted: Notify::new(),
        };
        issuer.first();
        Some(issuer)
    }

    pub(super) const fn kind(&self) -> IssuerKind {
        match self.vouching {
            Vouching::ServiceAccounts(_) => IssuerKind::Kubernetes,
            Vouching::Subjects(_) => IssuerKind::Oidc,
            Vouching::Workloads(_) => IssuerKind::Spiffe,
        }
    }

    /// Whether a token names it as its `iss`.
    pub(super) fn is_named_by(&self, claims: &TokenClaims) -> bool {
        self.iss.as_ref().is_some_and(|own| claims.iss.as_deref() == Some(own.as_str()))
    }

    /// Whether it is the issuer of tokens that need not name one: JWT-SVIDs of its trust domain.
    pub(super) fn vouches_for(&self, claims: &TokenClaims) -> bool {
        let Vouching::Workloads(domain) = &self.vouching else { return false };
        let id = claims.sub.as_deref().and_then(|sub| sub.parse::<SpiffeId>().ok());
        self.iss.is_none() && id.is_some_and(|id| id.trust_domain() == domain)
    }

    /// The trust domain whose workloads its tokens prove.
    pub(super) const fn trust_domain(&self) -> Option<&TrustDomain> {
        match &self.vouching {
            Vouching::Workloads(domain) => Some(domain),
            _ => None,
        }
    }

    pub(super) fn has_key(&self, key: &Thumbprint) -> bool {
        self.keys.load().as_ref().is_some_and(|keys| keys.has(key))
    }

    /// Takes what it says that its keys are now; says whether they are others than before.
    pub(super) fn take(&self, keys: KeySet, now: Timestamp) -> bool {
        self.said.store(now.as_second(), Ordering::Relaxed);
        self.fault.store(None);
        let is_new = self.keys.load().as_deref() != Some(&keys);
        if is_new {
            self.keys.store(Some(Arc::new(keys)));
        }
        is_new
    }

    /// Its keys are as they were.
    pub(super) fn confirm(&self, now: Timestamp) {
        self.said.store(now.as_second(), Ordering::Relaxed);
    }

    pub(super) fn standing(&self, now: Timestamp) -> IssuerStanding {
        let said = self.said.load(Ordering::Relaxed);
        let age = u64::try_from(now.as_second().saturating_sub(said)).unwrap_or_default();
        IssuerStanding {
            issuer: self.title.clone(),
            kind: self.kind(),
            audience: self.audience.clone(),
            cluster: match &self.vouching {
                Vouching::ServiceAccounts(cluster) => Some(cluster.to_string()),
                _ => None,
            },
            keys: self.keys.load().as_ref().map_or(0, |keys| keys.len()),
            age: (said > 0).then(|| Duration::from_secs(age)),
            failures: self.failures.load(Ordering::Relaxed),
            fault: self.fault.load_full(),
        }
    }

    /// Whom `token` proves, until when, and by which key.
    pub(super) fn verify(
        &self,
        token: &[u8],
        read: &UnverifiedJwt,
        now: Timestamp,
        skew: Duration,
    ) -> Result<(Identity, Timestamp, Thumbprint), TokenRefusal> {
        let UnverifiedJwt { header, claims } = read;
        if !claims.aud.as_ref().is_some_and(|aud| aud.contains(&self.audience)) {
            return Err(TokenRefusal::Audience);
        }
        if header.is_critical {
            return Err(TokenRefusal::Critical);
        }
        // JWT-SVID, section 2.3.
        let is_svid = |typ: &str| typ == "JWT" || typ == "JOSE";
        if self.kind() == IssuerKind::Spiffe && !header.typ.as_deref().is_none_or(is_svid) {
            return Err(TokenRefusal::Type);
        }
        let algorithm = header.alg.parse().ok().filter(|named| self.algorithms.contains(named));
        let algorithm = algorithm.ok_or(TokenRefusal::Algorithm)?;
        let expires = validity(claims, now, skew)?;
        let key = self.verified_by(token, (header.kid.as_deref(), algorithm), now, skew)?;
        let identity = self.identity(claims)?;
        Ok((identity, expires, key))
    }

    /// The key that has signed `token`.
    fn verified_by(
        &self,
        token: &[u8],
        (kid, algorithm): (Option<&str>, Algorithm),
        now: Timestamp,
        skew: Duration,
    ) -> Result<Thumbprint, TokenRefusal> {
        let keys = self.keys.load();
        let Some(keys) = &*keys else {
            self.ask(now);
            return Err(TokenRefusal::NoKeys);
        };
        let mut validation = Validation::new(algorithm);
        validation.leeway = skew.as_secs() + 1;
        validation.validate_nbf = true;
        validation.set_audience(&[&self.audience]);
        let mut required = vec!["exp", "aud", "sub"];
        if let Some(iss) = &self.iss {
            validation.set_issuer(&[iss]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        let mut refusal = match kid {
            Some(kid) if keys.has_name(kid) => TokenRefusal::Algorithm,
            _ => TokenRefusal::UnknownKey { is_asked: false },
        };
        for key in keys.matching(kid, algorithm).take(MOST_TRIED) {
            match jsonwebtoken::decode::<IgnoredAny>(token, &key.key, &validation) {
                Ok(_) => return Ok(key.thumbprint),
                Err(_) => refusal = TokenRefusal::Signature,
            }
        }
        Err(match refusal {
            TokenRefusal::UnknownKey { .. } => TokenRefusal::UnknownKey { is_asked: self.ask(now) },
            refusal => refusal,
        })
    }

    /// Has its keys fetched, once a minute at the most; says whether they are being fetched. It waits for nothing.
    fn ask(&self, now: Timestamp) -> bool {
        let (now, last) = (now.as_second(), self.asked.load(Ordering::Relaxed));
        if now.saturating_sub(last) < ASKED_EVERY {
            return now.saturating_sub(last) < FETCHING;
        }
        // Of several that ask at once, one is heard.
        if self.asked.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.wanted.notify_one();
        }
        true
    }

    fn identity(&self, claims: &TokenClaims) -> Result<Identity, TokenRefusal> {
        let subject = claims.sub.as_deref().ok_or(TokenRefusal::Subject)?;
        match &self.vouching {
            Vouching::ServiceAccounts(cluster) => service_account(cluster, subject, claims),
            Vouching::Subjects(issuer) => {
                TokenSubject::new(issuer, subject).map(Identity::Token).map_err(|_| TokenRefusal::Subject)
            }
            Vouching::Workloads(domain) => {
                let id = subject.parse::<SpiffeId>().map_err(|_| TokenRefusal::Subject)?;
                if id.trust_domain() == domain { Ok(id.into()) } else { Err(TokenRefusal::Subject) }
            }
        }
    }
}

/// `system:serviceaccount:NAMESPACE:NAME`, which what Kubernetes says besides has to repeat.
fn service_account(cluster: &Name, subject: &str, claims: &TokenClaims) -> Result<Identity, TokenRefusal> {
    let account = subject.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let (namespace, name) = account.ok_or(TokenRefusal::Subject)?;
    if let Some(said) = &claims.kubernetes {
        let other = |said: Option<&String>, own: &str| said.is_some_and(|said| said != own);
        let account = said.serviceaccount.as_ref().and_then(|account| account.name.as_ref());
        if other(said.namespace.as_ref(), namespace) || other(account, name) {
            return Err(TokenRefusal::Contradiction);
        }
    }
    let namespace: Name = namespace.parse().map_err(|_| TokenRefusal::Subject)?;
    let name: AccountName = name.parse().map_err(|_| TokenRefusal::Subject)?;
    Ok(Identity::ServiceAccount(ServiceAccount::new(cluster, &namespace, &name)))
}

/// Until when a token is valid, with the clocks' difference, if it is.
fn validity(claims: &TokenClaims, now: Timestamp, skew: Duration) -> Result<Timestamp, TokenRefusal> {
    let skew = SignedDuration::try_from(skew).unwrap_or(SignedDuration::MAX);
    let expires = instant(claims.exp.ok_or(TokenRefusal::Malformed)?);
    let expires = expires.checked_add(skew).unwrap_or(Timestamp::MAX);
    if now >= expires {
        return Err(TokenRefusal::Expired);
    }
    let begins = claims.nbf.map(instant);
    let is_early = |begins: Timestamp| begins.checked_sub(skew).is_ok_and(|begins| begins > now);
    if begins.is_some_and(is_early) { Err(TokenRefusal::NotYetValid) } else { Ok(expires) }
}

/// A time of a token, to the millisecond. What is further away than a calendar goes is there.
#[expect(clippy::cast_possible_truncation, reason = "a cast from a float stops at the ends of the range")]
fn instant(seconds: f64) -> Timestamp {
    let far = if seconds > 0.0 { Timestamp::MAX } else { Timestamp::MIN };
    Timestamp::from_millisecond((seconds * 1_000.0) as i64).unwrap_or(far)
}
