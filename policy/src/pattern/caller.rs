//! Patterns over identities: one kind for each kind of identity.
//!
//! **Invariant:** a pattern matches identities of its own kind alone, of one trust domain, cluster or issuer. So two patterns of different
//! kinds never match the same caller, and never tie; their order among each other decides nothing.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::{ClaimPattern, Segments};
use crate::caller::{
    self, AccountName, Caller, Identity, Issuer, ServiceAccount, SpiffeError, SpiffeId, TokenError,
    TokenSubject, TrustDomain,
};
use crate::name::Name;

/// Whom a grant is for. The order is by specificity within a kind, the most specific first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallerPattern {
    /// Workloads of a SPIFFE trust domain.
    Spiffe(SpiffePattern),
    /// Service accounts of a Kubernetes cluster.
    ServiceAccount(ServiceAccountPattern),
    /// Subjects of an issuer's tokens.
    Token(TokenPattern),
}

impl CallerPattern {
    /// Whether it stands for this caller.
    pub fn names(&self, caller: &Caller) -> bool {
        match (self, caller.id()) {
            (Self::Token(pattern), Identity::Token(token)) => {
                pattern.is_subject(token)
                    && pattern.claims.iter().all(|claim| claim.holds_of(caller.claims()))
            }
            (_, id) => self.matches(id),
        }
    }

    /// Those claims that it asks for besides.
    pub(crate) fn claims(&self) -> &[ClaimPattern] {
        match self {
            Self::Token(pattern) => &pattern.claims,
            Self::Spiffe(_) | Self::ServiceAccount(_) => &[],
        }
    }

    /// The identities that it stands for, whatever it asks for besides.
    pub(crate) fn of_identities(&self) -> Cow<'_, Self> {
        match self {
            Self::Token(pattern) if !pattern.claims.is_empty() => {
                Cow::Owned(Self::Token(TokenPattern::new(pattern.issuer.clone(), pattern.subject.clone())))
            }
            _ => Cow::Borrowed(self),
        }
    }

    /// Whether it stands for whoever has this identity: never where it asks for claims.
    pub fn matches(&self, id: &Identity) -> bool {
        match (self, id) {
            (Self::Spiffe(pattern), Identity::Spiffe(id)) => pattern.matches(id),
            (Self::ServiceAccount(pattern), Identity::ServiceAccount(account)) => pattern.matches(account),
            (Self::Token(pattern), Identity::Token(token)) => pattern.matches(token),
            (Self::Spiffe(_) | Self::ServiceAccount(_) | Self::Token(_), _) => false,
        }
    }
}

impl fmt::Display for CallerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spiffe(pattern) => pattern.fmt(f),
            Self::ServiceAccount(pattern) => pattern.fmt(f),
            Self::Token(pattern) => pattern.fmt(f),
        }
    }
}

/// Identities: a SPIFFE ID in whose path `*` is any one segment and a trailing `**` one or more.
///
/// The trust domain is always literal. The order is by specificity, the most specific first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct SpiffePattern {
    path: Segments,
    trust_domain: TrustDomain,
}

/// Why a text is no pattern over identities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpiffePatternError {
    /// What surrounds the wildcards is not a SPIFFE ID.
    #[error(transparent)]
    Spiffe(#[from] SpiffeError),
    /// The trust domain has a wildcard.
    #[error(
        "the trust domain is literal: a wildcard stands only in the path, as in `spiffe://prod.acme/ns/web/sa/*`"
    )]
    TrustDomain,
    /// A wildcard within a segment, or `**` before the end.
    #[error(
        "`*` stands for a whole segment, and `**` only at the end, as in `spiffe://prod.acme/ns/*/sa/web`"
    )]
    Wildcard,
}

impl SpiffePattern {
    /// The one trust domain whose identities it may match.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Whether all that it matches are workloads of this Kubernetes namespace: `/ns/NAMESPACE/sa/…`.
    pub fn is_in_namespace(&self, namespace: &str) -> bool {
        let rest = self.path.text.strip_prefix("/ns/").and_then(|rest| rest.strip_prefix(namespace));
        rest.is_some_and(|rest| rest.starts_with("/sa/"))
    }

    /// Whether it stands for this identity.
    pub fn matches(&self, id: &SpiffeId) -> bool {
        self.trust_domain == *id.trust_domain() && self.path.matches(id.path())
    }
}

impl FromStr for SpiffePattern {
    type Err = SpiffePatternError;

    fn from_str(text: &str) -> Result<Self, SpiffePatternError> {
        if text.len() > 2048 {
            return Err(SpiffeError::TooLong.into());
        }
        let authority = text.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next());
        if authority.is_some_and(|authority| authority.contains('*')) {
            return Err(SpiffePatternError::TrustDomain);
        }
        let (trust_domain, path) = caller::split(text)?;
        let literal = |part: &str| caller::check_segment(part).map_err(SpiffePatternError::from);
        Ok(Self { path: Segments::parse(path, literal, SpiffePatternError::Wildcard)?, trust_domain })
    }
}

impl TryFrom<String> for SpiffePattern {
    type Error = SpiffePatternError;

    fn try_from(text: String) -> Result<Self, SpiffePatternError> {
        text.parse()
    }
}

impl fmt::Display for SpiffePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}{}", self.trust_domain, self.path.text)
    }
}

/// Service accounts of one cluster, by namespace and name. An exact namespace comes before `*`, then an exact name before `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceAccountPattern {
    namespace: OneOrAny<Name>,
    name: OneOrAny<AccountName>,
    cluster: Name,
}

/// One, or `*` for all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "Cow<'_, str>", bound(deserialize = "T: FromStr<Err: fmt::Display>"))]
pub enum OneOrAny<T> {
    /// This one and no other.
    One(T),
    /// Every one.
    Any,
}

impl<T: AsRef<str>> OneOrAny<T> {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::One(one) => one.as_ref() == text,
            Self::Any => true,
        }
    }
}

impl<T: FromStr> TryFrom<Cow<'_, str>> for OneOrAny<T> {
    type Error = T::Err;

    fn try_from(text: Cow<'_, str>) -> Result<Self, T::Err> {
        if text == "*" { Ok(Self::Any) } else { text.parse().map(Self::One) }
    }
}

impl<T: fmt::Display> fmt::Display for OneOrAny<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(one) => one.fmt(f),
            Self::Any => f.write_str("*"),
        }
    }
}

impl ServiceAccountPattern {
    /// The accounts of `cluster` in `namespace` that have this `name`.
    pub fn new(cluster: Name, namespace: OneOrAny<Name>, name: OneOrAny<AccountName>) -> Self {
        Self { namespace, name, cluster }
    }

    /// The one cluster whose accounts it may match.
    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    /// Whether all that it matches are accounts of this namespace.
    pub fn is_in_namespace(&self, namespace: &str) -> bool {
        matches!(&self.namespace, OneOrAny::One(one) if one.as_str() == namespace)
    }

    /// Whether it stands for this account.
    pub fn matches(&self, account: &ServiceAccount) -> bool {
        self.cluster.as_str() == account.cluster()
            && self.namespace.matches(account.namespace())
            && self.name.matches(account.name())
    }
}

impl fmt::Display for ServiceAccountPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}/{}/{}", ServiceAccount::SCHEME, self.cluster, self.namespace, self.name)
    }
}

/// Subjects of one issuer's tokens: one exactly, or all that begin with what stands before a trailing `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenPattern {
    subject: SubjectPattern,
    issuer: Issuer,
    /// All of them hold.
    claims: Box<[ClaimPattern]>,
}

/// A subject, or the beginning of one with a trailing `*`. An exact one comes before a beginning, a longer beginning before a shorter one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct SubjectPattern {
    is_beginning: bool,
    length: Reverse<usize>,
    /// As identities have it in their text, without the `*`.
    escaped: Box<str>,
}

/// The text is no pattern over subjects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubjectPatternError {
    /// No subject is so long.
    #[error(transparent)]
    Subject(#[from] TokenError),
    /// A wildcard before the end.
    #[error("a subject is exact, or the beginning of one followed by a single `*`, as in `repo:acme/shop:*`")]
    Wildcard,
}

impl FromStr for SubjectPattern {
    type Err = SubjectPatternError;

    fn from_str(text: &str) -> Result<Self, SubjectPatternError> {
        let (subject, is_beginning) =
            text.strip_suffix('*').map_or((text, false), |beginning| (beginning, true));
        if subject.contains('*') {
            return Err(SubjectPatternError::Wildcard);
        }
        if !(is_beginning && subject.is_empty()) {
            caller::check_subject(subject)?;
        }
        Ok(Self { is_beginning, length: Reverse(subject.len()), escaped: caller::escaped(subject).into() })
    }
}

impl TryFrom<String> for SubjectPattern {
    type Error = SubjectPatternError;

    fn try_from(text: String) -> Result<Self, SubjectPatternError> {
        text.parse()
    }
}

impl TokenPattern {
    /// The subjects of `issuer` that `subject` stands for.
    pub fn new(issuer: Issuer, subject: SubjectPattern) -> Self {
        Self { subject, issuer, claims: Box::default() }
    }

    /// Those of them whose tokens have these claims.
    #[must_use]
    pub fn with_claims(self, claims: impl IntoIterator<Item = ClaimPattern>) -> Self {
        Self { claims: claims.into_iter().collect(), ..self }
    }

    /// Whether it stands for this subject, whatever its tokens say besides.
    fn matches(&self, token: &TokenSubject) -> bool {
        self.claims.is_empty() && self.is_subject(token)
    }

    fn is_subject(&self, token: &TokenSubject) -> bool {
        let (pattern, subject) = (&*self.subject.escaped, token.escaped_subject());
        let is_one =
            if self.subject.is_beginning { subject.starts_with(pattern) } else { subject == pattern };
        is_one && self.issuer.as_str() == token.issuer()
    }
}

impl fmt::Display for TokenPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.subject.is_beginning { "*" } else { "" };
        write!(f, "{}{}#{}{star}", TokenSubject::SCHEME, self.issuer, self.subject.escaped)?;
        self.claims.iter().try_for_each(|claim| write!(f, " {claim}"))
    }
}
