//! The keys of an issuer, as a JSON Web Key Set has them.
//!
//! **Invariant:** a key verifies only the algorithms that its own type has, and of these only the one that it names. A secret that two
//! share is no key here.

use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::settings::IssuerKind;

/// Keys of one set; those behind it are left out.
const MOST_KEYS: usize = 64;
/// Characters of the modulus of an RSA key with 2,048 bits in base64url: a shorter one is not used.
const LEAST_MODULUS: usize = 342;

const NO_SET: &str = "it is no JSON Web Key Set: an object with `keys`";

/// Tells one key from any other.
pub(super) type Thumbprint = [u8; 32];

/// The keys of an issuer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct KeySet(Vec<VerificationKey>);

/// A public key that verifies tokens.
#[derive(Debug)]
pub(super) struct VerificationKey {
    kid: Option<String>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
    pub(super) thumbprint: Thumbprint,
}

impl PartialEq for VerificationKey {
    fn eq(&self, other: &Self) -> bool {
        self.thumbprint == other.thumbprint
    }
}

impl Eq for VerificationKey {}

#[derive(Deserialize)]
struct WrittenSet {
    /// Each for itself: one that nobody understands is no reason to do without the others (RFC 7517, section 5).
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a set. An empty one is good, and verifies nothing.
    ///
    /// # Errors
    /// Where it is none, or none of its keys can be used.
    pub(super) fn read(json: &[u8], kind: IssuerKind) -> Result<Self, &'static str> {
        let written: WrittenSet = serde_json::from_slice(json).map_err(|_| NO_SET)?;
        let keys: Vec<VerificationKey> =
            written.keys.iter().take(MOST_KEYS).filter_map(|key| VerificationKey::read(key, kind)).collect();
        match keys.is_empty() && !written.keys.is_empty() {
            true if kind == IssuerKind::Spiffe => {
                Err("none of its keys has `use: jwt-svid` and an algorithm of RSA or EC")
            }
            true => Err("none of its keys verifies signatures of RSA, EC or Ed25519"),
            false => Ok(Self(keys)),
        }
    }

    /// Reads what the Workload API says of a trust domain: its keys for tokens and no others, which need no `use` (SPIFFE Workload API,
    /// section 6.2.2).
    ///
    /// # Errors
    /// As [`KeySet::read`].
    pub(super) fn of_workload_api(json: &[u8]) -> Result<Self, &'static str> {
        let mut written: Value = serde_json::from_slice(json).map_err(|_| NO_SET)?;
        for key in written.get_mut("keys").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(key) = key.as_object_mut() {
                key.entry("use").or_insert_with(|| "jwt-svid".into());
            }
        }
        Self::read(written.to_string().as_bytes(), IssuerKind::Spiffe)
    }

    /// The keys that may have signed with this algorithm: that of the name, or, where the token names none, all.
    pub(super) fn matching<'a>(
        &'a self,
        kid: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a VerificationKey> {
        let is_it = move |key: &&VerificationKey| {
            kid.is_none_or(|kid| key.kid.as_deref() == Some(kid)) && key.algorithms.contains(&algorithm)
        };
        self.0.iter().filter(is_it)
    }

    /// Whether a key of this name is there.
    pub(super) fn has_name(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.kid.as_deref() == Some(kid))
    }

    pub(super) fn has(&self, thumbprint: &Thumbprint) -> bool {
        self.0.iter().any(|key| key.thumbprint == *thumbprint)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl VerificationKey {
    fn read(written: &Value, kind: IssuerKind) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(written.clone()).ok()?;
        let common = &jwk.common;
        let is_for_tokens = match (&common.public_key_use, kind) {
            // SPIFFE Trust Domain and Bundle, section 4.2.2.
            (Some(PublicKeyUse::Other(word)), IssuerKind::Spiffe) => word == "jwt-svid",
            (None | Some(PublicKeyUse::Signature), IssuerKind::Kubernetes | IssuerKind::Oidc) => true,
            _ => false,
        };
        let verifies = common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        let mut algorithms = algorithms(&jwk.algorithm);
        // A word that is no algorithm of signatures leaves none.
        if let Some(named) = common.key_algorithm {
            algorithms.retain(|algorithm| Algorithm::try_from(named).is_ok_and(|named| named == *algorithm));
        }
        if !is_for_tokens || !verifies || algorithms.is_empty() {
            return None;
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        let thumbprint = digest(&SHA256, written.to_string().as_bytes()).as_ref().try_into().ok()?;
        Some(Self { kid: jwk.common.key_id, algorithms, key, thumbprint })
    }
}

fn algorithms(parameters: &AlgorithmParameters) -> Vec<Algorithm> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    match parameters {
        AlgorithmParameters::RSA(rsa) if rsa.n.len() >= LEAST_MODULUS => {
            vec![RS256, RS384, RS512, PS256, PS384, PS512]
        }
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => vec![ES256],
            EllipticCurve::P384 => vec![ES384],
            _ => Vec::new(),
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => vec![EdDSA],
        _ => Vec::new(),
    }
}
