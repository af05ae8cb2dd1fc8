//! Keys, and how they are put on calls: credentials after compilation.

use std::sync::Arc;
use std::time::Duration;

use super::destination::Destination;
use super::hmac::Hmac;
use super::mint::Mint;
use super::store::SecretRef;
use crate::name::{Name, ResourceId};

/// A key, or several that do the same: where they come from, where they may go, and how one is put on a call.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Its name.
    pub name: ResourceId,
    /// The only destinations that it may be sent to.
    pub destinations: Vec<Arc<Destination>>,
    /// One, or a pool of which each call gets one; at least one.
    pub keys: Vec<Key>,
    /// How it is put on a call: at least one way, and no two in the same place.
    pub inject: Vec<Injection>,
    /// How old the value may become before it is read again. 5 min unless written otherwise; a day where it is minted,
    /// whatever longer life it has.
    pub refresh: Duration,
    /// How old the value may become while its store is out of reach; never below `refresh`. 1 h unless written otherwise.
    pub max_stale: Duration,
    /// It is fetched when the policy is taken over, so that no first call waits for it.
    pub prefetch: bool,
    /// How its value is made from what is read there; `None`: it is what is read.
    pub mint: Option<Arc<Mint>>,
}

/// One key of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// What records, reports and metrics call it; `None`: it is the credential's only one.
    pub alias: Option<Name>,
    /// Its part of the callers, against the other keys'. 0: it stands by, for when no other can be used.
    pub weight: u32,
    /// Where its value is read. No two keys of a credential are read in the same place.
    pub from: SecretRef,
}

/// One way in which a secret is put on a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// Which field of the secret; `None`: the only one that it has.
    pub field: Option<String>,
    /// Where it is put.
    pub way: Inject,
}

/// Where a secret is put on a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inject {
    /// `Authorization: Bearer <secret>`.
    Bearer,
    /// `<name>: <prefix><secret>`.
    Header {
        /// In lower case; never one that frames the message.
        name: String,
        /// Put before the secret as it stands; may be empty.
        prefix: String,
    },
    /// `Authorization: Basic <base64(username:secret)>`.
    Basic {
        /// Without a colon; may be empty.
        username: String,
    },
    /// `?<name>=<secret>`.
    Query {
        /// Unreserved characters only, so it needs no encoding.
        name: String,
    },
    /// The request is signed: AWS Signature Version 4.
    SigV4(SigV4),
    /// The request is signed as templates say; the key is never sent.
    Hmac(Hmac),
    /// It is no part of a call: a certificate that connections show, named by their destination.
    ClientCertificate {
        /// The field with the chain in PEM, its own certificate first.
        certificate: String,
        /// The field with the private key in PEM.
        key: String,
    },
    /// `Cookie: <name>=<secret>`.
    Cookie {
        /// A token (RFC 6265, section 4.1.1).
        name: String,
    },
}

/// How requests are signed for AWS. The first three are names of fields of the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigV4 {
    /// The access key's id.
    pub access_key_id: String,
    /// The secret access key, which never leaves.
    pub secret_access_key: String,
    /// Where the credentials are temporary.
    pub session_token: Option<String>,
    /// The regions that may be signed for; at least one.
    pub regions: Vec<String>,
    /// The services that may be signed for, by their signing names (`s3`, `bedrock`); at least one.
    pub services: Vec<String>,
}

impl SigV4 {
    /// Whether it signs for nothing but S3.
    pub fn is_for_s3(&self) -> bool {
        self.services.iter().all(|service| is_s3(service))
    }
}

/// Whether this is a signing name of S3, which has no actions and signs paths and payloads its own way.
pub fn is_s3(service: &str) -> bool {
    service == "s3" || service.starts_with("s3-") || service == "s3express"
}

impl Injection {
    /// The fields of the secret that it names; none: the only one.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        let keys = match &self.way {
            Inject::SigV4(aws) => {
                [Some(&aws.access_key_id), Some(&aws.secret_access_key), aws.session_token.as_ref()]
            }
            Inject::ClientCertificate { certificate, key } => [Some(certificate), Some(key), None],
            _ => [self.field.as_ref(), None, None],
        };
        let more = self.hmac().into_iter().flat_map(Hmac::fields);
        keys.into_iter().flatten().map(String::as_str).chain(more)
    }

    /// The headers of its own, in lower case, besides those that no caller can set.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        let one = match &self.way {
            Inject::Header { name, .. } => Some(name),
            _ => None,
        };
        let several = self.hmac().map(|hmac| &hmac.headers);
        one.into_iter().chain(several.into_iter().flatten().map(|(name, _)| name)).map(String::as_str)
    }

    /// The parameters of its own.
    pub fn queries(&self) -> impl Iterator<Item = &str> {
        let one = match &self.way {
            Inject::Query { name } => Some(name),
            _ => None,
        };
        let several = self.hmac().map(|hmac| &hmac.queries);
        one.into_iter().chain(several.into_iter().flatten().map(|(name, _)| name)).map(String::as_str)
    }

    /// Whether it sets `Authorization`.
    pub(crate) fn sets_authorization(&self) -> bool {
        matches!(self.way, Inject::Bearer | Inject::Basic { .. } | Inject::SigV4(_))
            || self.headers().any(|name| name == "authorization")
    }

    /// How it signs requests with an HMAC, if it does.
    pub fn hmac(&self) -> Option<&Hmac> {
        match &self.way {
            Inject::Hmac(hmac) => Some(hmac),
            _ => None,
        }
    }

    /// Whether the secret itself, or a field of it, goes on the wire.
    fn is_sent(&self) -> bool {
        match &self.way {
            Inject::SigV4(_) | Inject::ClientCertificate { .. } => false,
            Inject::Hmac(hmac) => hmac.sends_field(),
            _ => true,
        }
    }

    /// Whether what one host is shown is good for another.
    pub(crate) fn is_reusable(&self) -> bool {
        match &self.way {
            Inject::ClientCertificate { .. } => false,
            Inject::Hmac(hmac) => hmac.is_reusable(),
            _ => true,
        }
    }
}

impl Credential {
    /// Where the value of this key of it comes from, for operators: the stored secret, and what is made of it where something is.
    pub fn reference(&self, key: &Key) -> String {
        match &self.mint {
            Some(mint) => format!("{} > {mint}", key.from),
            None => key.from.to_string(),
        }
    }

    /// Whether the key itself goes on the wire, and not only what was signed with it.
    pub fn is_sent(&self) -> bool {
        self.inject.iter().any(Injection::is_sent)
    }

    /// Whether a signature takes the body of a request; `has_digest`: its head names one, which AWS takes instead.
    pub fn signs_body(&self, has_digest: bool) -> bool {
        (self.sigv4().is_some() && !has_digest)
            || self.inject.iter().filter_map(Injection::hmac).any(Hmac::reads_body)
    }

    /// The fields with certificate chain and private key, if that is what it is.
    pub fn client_certificate(&self) -> Option<(&str, &str)> {
        self.inject.iter().find_map(|injection| match &injection.way {
            Inject::ClientCertificate { certificate, key } => Some((certificate.as_str(), key.as_str())),
            _ => None,
        })
    }

    /// Whether a session token goes on the wire beside what was signed.
    pub fn sends_session(&self) -> bool {
        self.sigv4().is_some_and(|aws| aws.session_token.is_some())
    }

    /// How it signs requests for AWS, if it does.
    pub fn sigv4(&self) -> Option<&SigV4> {
        self.inject.iter().find_map(|injection| match &injection.way {
            Inject::SigV4(aws) => Some(aws),
            _ => None,
        })
    }
}
