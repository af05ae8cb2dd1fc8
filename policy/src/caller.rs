//! Who is calling: identities, and the proof that came with one.
//!
//! **Invariant:** an [`Identity`] has one text, and no two share one. A [`Caller`] is made of what a verifier made of a proof, and of
//! nothing else: see [`Proven`].

use std::fmt;
use std::str::FromStr;

mod assumed;
mod claims;
mod service_account;
mod spiffe;
mod token;

pub use assumed::assumed;
pub use claims::Claims;
pub use service_account::{AccountName, AccountNameError, ServiceAccount};
pub use spiffe::{SpiffeError, SpiffeId, TrustDomain};
pub(crate) use spiffe::{check_segment, split};
pub use token::{Issuer, TokenError, TokenSubject};
pub(crate) use token::{check_subject, escaped};

/// Who somebody is, whatever shows it. Cheap to clone.
///
/// Its text is what journals, reports and filters have: `spiffe://DOMAIN/PATH`, `jwt:ISSUER#SUBJECT` or `k8s:CLUSTER/NAMESPACE/NAME`. It is
/// made of visible ASCII, and reads back as the same identity.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A workload of a SPIFFE trust domain.
    Spiffe(SpiffeId),
    /// The subject of an issuer's tokens. Not a SPIFFE ID, even where the subject looks like one: only its own trust domain vouches for that.
    Token(TokenSubject),
    /// A Kubernetes service account.
    ServiceAccount(ServiceAccount),
}

/// Why a text is no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It begins as none does.
    #[error("a caller is `spiffe://DOMAIN/PATH`, `jwt:ISSUER#SUBJECT` or `k8s:CLUSTER/NAMESPACE/NAME`")]
    Scheme,
    /// No SPIFFE ID.
    #[error(transparent)]
    Spiffe(#[from] SpiffeError),
    /// No subject of a token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// No service account.
    #[error(
        "a service account is `k8s:CLUSTER/NAMESPACE/NAME`, all three in the characters that Kubernetes has for names"
    )]
    ServiceAccount,
}

/// How a caller's identity was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Proof {
    /// An X.509-SVID, verified against the bundle of its own trust domain.
    MutualTls,
    /// A signed token, verified against the keys of its issuer.
    Token,
    /// The word of a proxy that the operator has listed for it, in the PROXY protocol. That proxy has verified the workload.
    ListedProxy,
}

/// An identity that a verifier has seen proven.
///
/// Whoever implements this declares its values to be proofs: it belongs to types that nothing but a verifier can make, their fields private
/// to it. All that is decided later trusts them.
pub trait Proven {
    /// Who it is.
    fn identity(&self) -> &Identity;

    /// What has shown it.
    fn proof(&self) -> Proof;

    /// What it says of the caller besides.
    fn claims(&self) -> Claims {
        Claims::default()
    }
}

/// A proven caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    id: Identity,
    proof: Proof,
    claims: Claims,
}

impl Identity {
    /// The whole identity.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Spiffe(id) => id.as_str(),
            Self::Token(token) => token.as_str(),
            Self::ServiceAccount(account) => account.as_str(),
        }
    }

    /// The Kubernetes namespace.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Spiffe(id) => id.namespace(),
            Self::Token(_) => None,
            Self::ServiceAccount(account) => Some(account.namespace()),
        }
    }

    /// The Kubernetes service account, by its name within the namespace.
    pub fn service_account(&self) -> Option<&str> {
        match self {
            Self::Spiffe(id) => id.service_account(),
            Self::Token(_) => None,
            Self::ServiceAccount(account) => Some(account.name()),
        }
    }

    /// Who vouches for it, as the beginning of its text: `spiffe://DOMAIN`, `jwt:ISSUER` or `k8s:CLUSTER`.
    pub fn domain(&self) -> &str {
        let (scheme, name) = match self {
            Self::Spiffe(id) => (SpiffeId::SCHEME, id.trust_domain().as_str()),
            Self::Token(token) => (TokenSubject::SCHEME, token.issuer()),
            Self::ServiceAccount(account) => (ServiceAccount::SCHEME, account.cluster()),
        };
        self.beginning(scheme.len() + name.len())
    }

    /// The namespace within its domain, as the beginning of its text: `spiffe://DOMAIN/ns/NAMESPACE` or `k8s:CLUSTER/NAMESPACE`. No other
    /// namespace has the same. `None`: it is in none.
    pub fn domain_and_namespace(&self) -> Option<&str> {
        let between = match self {
            Self::Spiffe(_) => "/ns/",
            Self::Token(_) | Self::ServiceAccount(_) => "/",
        };
        Some(self.beginning(self.domain().len() + between.len() + self.namespace()?.len()))
    }

    fn beginning(&self, length: usize) -> &str {
        self.as_str().get(..length).unwrap_or(self.as_str())
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        if text.starts_with(SpiffeId::SCHEME) {
            Ok(Self::Spiffe(text.parse()?))
        } else if text.starts_with(TokenSubject::SCHEME) {
            text.parse().map(Self::Token)
        } else {
            text.parse().map(Self::ServiceAccount)
        }
    }
}

impl From<SpiffeId> for Identity {
    fn from(id: SpiffeId) -> Self {
        Self::Spiffe(id)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Proof {
    /// The word in logs and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MutualTls => "mtls",
            Self::Token => "token",
            Self::ListedProxy => "proxy",
        }
    }
}

impl Caller {
    /// Who was proven, and how.
    pub fn of(proven: &impl Proven) -> Self {
        Self { id: proven.identity().clone(), proof: proven.proof(), claims: proven.claims() }
    }

    /// The same with other claims, to ask what it could do with them.
    #[must_use]
    pub(crate) fn claiming(self, claims: Claims) -> Self {
        Self { claims, ..self }
    }

    /// The identity that was proven.
    pub fn id(&self) -> &Identity {
        &self.id
    }

    /// What the proof says of it besides.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// How it was proven.
    pub fn proof(&self) -> Proof {
        self.proof
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Result<Identity, IdentityError> {
        text.parse()
    }

    #[test]
    fn each_kind_says_what_its_callers_have_in_common() {
        for (text, domain, namespace, in_domain, account) in [
            (
                "spiffe://prod.acme/ns/shop/sa/web",
                "spiffe://prod.acme",
                Some("shop"),
                Some("spiffe://prod.acme/ns/shop"),
                Some("web"),
            ),
            ("spiffe://prod.acme/web", "spiffe://prod.acme", None, None, None),
            ("spiffe://prod.acme", "spiffe://prod.acme", None, None, None),
            ("jwt:https://ci.example/a#repo:acme/shop", "jwt:https://ci.example/a", None, None, None),
            ("k8s:eu-1/shop/web.api", "k8s:eu-1", Some("shop"), Some("k8s:eu-1/shop"), Some("web.api")),
        ] {
            let id = id(text).unwrap();
            assert_eq!(
                (id.domain(), id.namespace(), id.domain_and_namespace()),
                (domain, namespace, in_domain)
            );
            assert_eq!(id.service_account(), account, "{text}");
            assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_identity_is_told_by_its_kind() {
        for (text, error) in [
            ("", IdentityError::Scheme),
            ("web", IdentityError::Scheme),
            ("https://prod.acme/web", IdentityError::Scheme),
            ("SPIFFE://prod.acme/web", IdentityError::Scheme),
            ("k8s", IdentityError::Scheme),
            ("spiffe://Prod/x", IdentityError::Spiffe(SpiffeError::TrustDomain)),
            ("jwt:https://ci.example", IdentityError::Token(TokenError::Text)),
            ("k8s:", IdentityError::ServiceAccount),
            ("k8s:shop/web", IdentityError::ServiceAccount),
            ("k8s:eu-1/shop/web/x", IdentityError::ServiceAccount),
            ("k8s:eu-1//web", IdentityError::ServiceAccount),
            ("k8s:eu-1/Shop/web", IdentityError::ServiceAccount),
            ("k8s:eu-1/shop/web.", IdentityError::ServiceAccount),
            ("k8s:eu-1/shop/*", IdentityError::ServiceAccount),
        ] {
            assert_eq!(id(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn a_token_that_says_a_spiffe_id_or_a_service_account_is_neither() {
        let issuer: Issuer = "https://ci.example".parse().unwrap();
        for subject in
            ["spiffe://prod.acme/ns/shop/sa/web", "system:serviceaccount:shop:web", "k8s:eu-1/shop/web"]
        {
            let token = Identity::Token(TokenSubject::new(&issuer, subject).unwrap());
            assert_ne!(id(subject).ok(), Some(token.clone()));
            assert_eq!((token.namespace(), token.service_account()), (None, None));
            assert_eq!(id(token.as_str()).unwrap(), token);
        }
    }
}
