//! Why a token proves nobody, and what its bearer is told.

use std::time::Duration;

use tollgate_policy::denial::{Denial, Reason};

/// Why a token proves nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenRefusal {
    Malformed,
    TooLong,
    Expired,
    NotYetValid,
    Audience,
    UnknownIssuer,
    /// Its header has extensions that have to be understood.
    Critical,
    Type,
    Algorithm,
    /// No key of this name is known; whether the issuer's keys are being fetched because of it.
    UnknownKey {
        is_asked: bool,
    },
    /// The key that it was verified by is no longer the issuer's.
    KeyGone,
    Signature,
    /// The keys of its issuer were never there.
    NoKeys,
    /// It is good, and its subject is none that its issuer may vouch for.
    Subject,
    /// Its claims contradict each other.
    Contradiction,
    /// What was shown besides names somebody else.
    Disagreement,
    /// Its caller has as many connections as one caller may.
    TooMany,
}

impl From<TokenRefusal> for Denial {
    fn from(refusal: TokenRefusal) -> Self {
        let (reason, detail) = refusal.said();
        let denial = Self::new(reason, detail);
        match refusal {
            TokenRefusal::UnknownKey { is_asked: true } => {
                denial.repeatable(true).retry_after(Duration::from_secs(1))
            }
            TokenRefusal::NoKeys => denial.retry_after(Duration::from_secs(5)),
            TokenRefusal::TooMany => denial.retry_after(Duration::from_secs(1)),
            _ => denial,
        }
    }
}

impl TokenRefusal {
    const fn said(self) -> (Reason, &'static str) {
        match self {
            Self::Malformed => (Reason::TokenInvalid, "the token is not one that is read in one way only"),
            Self::TooLong => (Reason::TokenInvalid, "the token is longer than 8 KiB"),
            Self::Expired => (Reason::TokenExpired, "the token has expired"),
            Self::NotYetValid => (Reason::TokenInvalid, "the token is not valid yet"),
            Self::Audience => (
                Reason::TokenAudience,
                "the token is for another audience: ask its issuer for one of this gateway",
            ),
            Self::UnknownIssuer => {
                (Reason::TokenIssuerUnknown, "the token is of an issuer that this gateway does not know")
            }
            Self::Critical => {
                (Reason::TokenInvalid, "the token demands an extension (crit), and none is understood here")
            }
            Self::Type => (Reason::TokenInvalid, "the token is of a type (typ) that proves no caller"),
            Self::Algorithm => (
                Reason::TokenInvalid,
                "the token is signed with an algorithm that is not taken of its issuer",
            ),
            Self::UnknownKey { .. } => {
                (Reason::TokenInvalid, "the token is signed with a key that its issuer has not published")
            }
            Self::KeyGone => {
                (Reason::TokenInvalid, "the token is signed with a key that its issuer publishes no longer")
            }
            Self::Signature => (Reason::TokenInvalid, "the token's signature does not verify"),
            Self::NoKeys => {
                (Reason::TokenKeysUnavailable, "the keys of the token's issuer could not be had yet")
            }
            Self::Subject => {
                (Reason::TokenInvalid, "the token's subject is none that its issuer may vouch for here")
            }
            Self::Contradiction => (Reason::TokenInvalid, "the token's claims contradict each other"),
            Self::Disagreement => (
                Reason::ProofsDisagree,
                "what the request shows of its caller (certificate, tokens) does not name one and the same",
            ),
            Self::TooMany => (Reason::ConcurrencyLimited, "this workload has too many connections at once"),
        }
    }
}
