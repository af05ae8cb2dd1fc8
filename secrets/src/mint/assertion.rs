//! Signed assertions (RFC 7515, 7523) and the private keys that sign them.
//!
//! **Invariant:** decoded keys live in zeroized buffers, and in aws-lc, which wipes its own; an assertion holds for minutes only.

use std::time::Duration;

use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::rsa::KeyPair as RsaKey;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair as EcKey, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};
use tollgate_policy::policy::{Algorithm, Signer};
use zeroize::Zeroizing;

use super::unix_seconds;
use crate::error::Failure;
use crate::pem::{self, Label};
use crate::value::Hidden;

/// What an assertion says.
pub(super) struct Claims<'a> {
    pub(super) issuer: &'a str,
    pub(super) subject: Option<&'a str>,
    pub(super) audience: Option<&'a str>,
    pub(super) scope: Option<&'a str>,
}

/// How far back an assertion is dated, and how far ahead it ends.
#[derive(Clone, Copy)]
pub(super) struct Window {
    back: Duration,
    ahead: Duration,
}

/// For clients: Keycloak takes an assertion for a minute from its `iat` on, Auth0 none that lasts over five minutes.
pub(super) const SHORT: Window = Window { back: Duration::from_secs(5), ahead: Duration::from_secs(120) };
/// For GitHub, which advises 60 seconds against clock drift and allows ten minutes.
pub(super) const BACKDATED: Window =
    Window { back: Duration::from_secs(60), ahead: Duration::from_secs(300) };
pub(super) const RS256: Signer = Signer { algorithm: Some(Algorithm::Rs256), key_id: None };

/// A JWT with these claims, signed with the PEM key.
pub(super) fn signed(
    claims: &Claims<'_>,
    window: Window,
    signer: &Signer,
    pem: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let key = Key::read(pem, signer.algorithm)?;
    let mut header = Map::new();
    header.insert("alg".to_owned(), key.word().into());
    header.insert("typ".to_owned(), "JWT".into());
    if let Some(id) = &signer.key_id {
        header.insert("kid".to_owned(), id.as_str().into());
    }
    let now = unix_seconds()?;
    let mut body = Map::new();
    body.insert("iss".to_owned(), claims.issuer.into());
    for (name, value) in [("sub", claims.subject), ("aud", claims.audience), ("scope", claims.scope)] {
        if let Some(value) = value {
            body.insert(name.to_owned(), value.into());
        }
    }
    body.insert("iat".to_owned(), now.saturating_sub(window.back.as_secs()).into());
    body.insert("exp".to_owned(), now.saturating_add(window.ahead.as_secs()).into());
    body.insert("jti".to_owned(), unique()?.into());
    let [header, body] = [header, body].map(|part| URL_SAFE_NO_PAD.encode(Value::Object(part).to_string()));
    // An RSA signature of 8192 bits in base64 is 1366 characters, so that the buffer never grows.
    let mut token = Zeroizing::new(Vec::with_capacity(header.len() + body.len() + 2 + 1400));
    token.extend_from_slice(header.as_bytes());
    token.push(b'.');
    token.extend_from_slice(body.as_bytes());
    let signature = Zeroizing::new(URL_SAFE_NO_PAD.encode(key.sign(&token)?));
    token.push(b'.');
    token.extend_from_slice(signature.as_bytes());
    Ok(token)
}

/// The JSON key of a Google service account.
#[derive(Deserialize)]
pub(super) struct ServiceAccount {
    client_email: String,
    private_key: Hidden,
    private_key_id: Option<String>,
}

impl ServiceAccount {
    pub(super) fn read(json: &[u8]) -> Result<Self, Failure> {
        let foreign =
            "it is not the JSON key of a service account; for a PEM key the mint names its `issuer`";
        serde_json::from_slice(json).map_err(|_| Failure::Malformed(foreign))
    }

    /// <https://developers.google.com/identity/protocols/oauth2/service-account#authorizingrequests>
    pub(super) fn assertion(
        &self,
        subject: Option<&str>,
        audience: &str,
        scope: Option<&str>,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let claims = Claims { issuer: &self.client_email, subject, audience: Some(audience), scope };
        let signer = Signer { key_id: self.private_key_id.clone(), ..RS256 };
        signed(&claims, SHORT, &signer, self.private_key.expose())
    }
}

enum Key {
    Rsa(Box<RsaKey>, &'static dyn RsaEncoding, &'static str),
    Ec(EcKey),
}

impl Key {
    fn read(pem: &[u8], algorithm: Option<Algorithm>) -> Result<Self, Failure> {
        let foreign = Failure::Malformed("it is not a private key in PEM, or one that a passphrase protects");
        let (label, der) = pem::private_key(pem).ok_or(foreign)?;
        let rsa = || match label {
            Label::Pkcs8 => RsaKey::from_pkcs8(&der).ok(),
            Label::Pkcs1 => RsaKey::from_der(&der).ok(),
            Label::Sec1 => None,
        };
        let ec = || match label {
            Label::Pkcs8 => EcKey::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).ok(),
            Label::Sec1 => EcKey::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).ok(),
            Label::Pkcs1 => None,
        };
        let read = match algorithm {
            Some(Algorithm::Ps256) => rsa().map(|key| Self::Rsa(Box::new(key), &RSA_PSS_SHA256, "PS256")),
            Some(Algorithm::Rs256) => rsa().map(|key| Self::Rsa(Box::new(key), &RSA_PKCS1_SHA256, "RS256")),
            Some(Algorithm::Es256) => ec().map(Self::Ec),
            None => rsa()
                .map(|key| Self::Rsa(Box::new(key), &RSA_PKCS1_SHA256, "RS256"))
                .or_else(|| ec().map(Self::Ec)),
        };
        read.ok_or(Failure::Malformed(match algorithm {
            Some(Algorithm::Ps256 | Algorithm::Rs256) => "it is not an RSA key of 2048 to 8192 bits",
            Some(Algorithm::Es256) => "it is not a key on P-256",
            None => "it is neither an RSA key of 2048 to 8192 bits nor one on P-256",
        }))
    }

    const fn word(&self) -> &'static str {
        match self {
            Self::Rsa(_, _, word) => word,
            Self::Ec(_) => "ES256",
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key, encoding, _) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(*encoding, &random, message, &mut signature).map_err(|_| Failure::Internal)?;
                Ok(signature)
            }
            Self::Ec(key) => key
                .sign(&random, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| Failure::Internal),
        }
    }
}

fn unique() -> Result<String, Failure> {
    let mut random = [0; 16];
    rand::fill(&mut random).map_err(|_| Failure::Internal)?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

#[cfg(test)]
pub(crate) mod tests;
