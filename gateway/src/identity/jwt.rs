//! A JWT as it is written: what it says, before anything of it is believed.
//!
//! **Invariant:** two readers read the same in it: a member that decides something and occurs twice is an error, and so is an array where an
//! object belongs. Nothing here verifies a signature.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// The most bytes of a token that are looked into: those of Kubernetes have about 1,000.
pub(super) const MOST_BYTES: usize = 8 << 10;

/// Header and claims of a token.
#[derive(Debug)]
pub(super) struct UnverifiedJwt {
    pub(super) header: JoseHeader,
    pub(super) claims: TokenClaims,
}

/// What of a header is read (RFC 7515, section 4.1). `jku`, `jwk`, `x5u` and `x5c` never are: the keys are the settings'.
#[derive(Debug, Deserialize)]
pub(super) struct JoseHeader {
    pub(super) alg: String,
    pub(super) kid: Option<String>,
    pub(super) typ: Option<String>,
    /// It has extensions that a reader must understand.
    #[serde(default, rename = "crit", deserialize_with = "is_there")]
    pub(super) is_critical: bool,
}

/// What of the claims decides who calls (RFC 7519, section 4.1).
#[derive(Debug, Deserialize)]
pub(super) struct TokenClaims {
    pub(super) iss: Option<String>,
    pub(super) sub: Option<String>,
    pub(super) aud: Option<Audiences>,
    /// Seconds since 1970.
    pub(super) exp: Option<f64>,
    /// Seconds since 1970.
    pub(super) nbf: Option<f64>,
    #[serde(rename = "kubernetes.io")]
    pub(super) kubernetes: Option<KubernetesClaim>,
}

/// Whom a token is for.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Audiences {
    One(String),
    Several(Vec<String>),
}

/// What Kubernetes says of a service account besides the subject.
#[derive(Debug, Deserialize)]
pub(super) struct KubernetesClaim {
    pub(super) namespace: Option<String>,
    pub(super) serviceaccount: Option<NamedClaim>,
}

/// An object of Kubernetes that a token is bound to.
#[derive(Debug, Deserialize)]
pub(super) struct NamedClaim {
    pub(super) name: Option<String>,
}

fn is_there<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

impl Audiences {
    /// Whether `audience` is one of them.
    pub(super) fn contains(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Several(all) => all.iter().any(|one| one == audience),
        }
    }
}

impl UnverifiedJwt {
    /// What `token` says; `None` where it does not say it plainly.
    pub(super) fn read(token: &[u8]) -> Option<Self> {
        let [header, claims, _] = parts(token).filter(|_| token.len() <= MOST_BYTES)?;
        let header = serde_json::from_slice(&object(header)?).ok()?;
        Some(Self { header, claims: serde_json::from_slice(&object(claims)?).ok()? })
    }
}

/// Header, claims and signature in compact form (RFC 7515, section 7.1). The signature may be empty, which makes it an unsigned one.
pub(super) fn parts(token: &[u8]) -> Option<[&[u8]; 3]> {
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_".contains(b);
    let mut parts = token.split(|b| *b == b'.');
    let found = [parts.next()?, parts.next()?, parts.next()?];
    let is_whole = parts.next().is_none() && !found[0].is_empty() && !found[1].is_empty();
    (is_whole && found.iter().all(|part| part.iter().all(is_plain))).then_some(found)
}

/// The JSON in one part, which is an object: serde would take an array for the members of one.
pub(super) fn object(part: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let json = Zeroizing::new(URL_SAFE_NO_PAD.decode(part).ok()?);
    (json.trim_ascii_start().first() == Some(&b'{')).then_some(json)
}
