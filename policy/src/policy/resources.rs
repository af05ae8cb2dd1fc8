//! Resources after compilation: every name resolved, every value in the form that the route uses.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::dialect::{Class, Dialect};
use crate::limit::{Limit, Unit};
use crate::model::Source;
use crate::name::Name;
use crate::pattern::{ActionPattern, HostPattern, MethodPattern, ModelPattern, PathPattern, SpiffePattern};
use crate::policy::{Hmac, Key, Mint, SourcePool, VaultStore};
use crate::target::EncodedForms;

/// What is outside, and how to reach it. Always over TLS.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Its name, which is also its first path segment at the gateway.
    pub name: Name,
    /// The hosts that are this destination; at least one.
    pub hosts: Vec<HostPattern>,
    /// The port that is dialled.
    pub port: u16,
    /// Dialled instead of what DNS says; empty: DNS decides.
    pub addresses: Vec<IpAddr>,
    /// The local addresses that connections leave from.
    pub sources: SourcePool,
    /// Whom the destination's certificate has to be verified by.
    pub tls: TlsVerify,
    /// The credential that is its client certificate; [`crate::policy::Policy::client_certificate`] has it.
    pub client_certificate: Option<Name>,
    /// How usage is read.
    pub dialect: Arc<Dialect>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// Which HTTP it is spoken to in.
    pub http: HttpVersion,
    /// Path forms that are matched and sent encoded, instead of being refused.
    pub encoded_path: EncodedForms,
    /// Where in an answer a key that was put on the call is looked for.
    pub scrub: Scrub,
    /// Where it was written.
    pub origin: Source,
}

/// Where in an answer a key that was put on the call is looked for, to be masked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Scrub {
    /// In headers and bodies.
    #[default]
    All,
    /// In headers only: bodies pass as they are, in any encoding.
    Headers,
}

/// Which HTTP a destination is spoken to in. It has the last word: HTTP/2 is spoken only where its TLS agrees to that (RFC 7301).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// HTTP/1.1, but for gRPC, which there is over HTTP/2 only.
    #[default]
    Auto,
    /// HTTP/1.1 always.
    Http1,
    /// HTTP/2, where the destination has it.
    Http2,
}

/// Which certificate authorities a destination is verified with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TlsVerify {
    /// Those of the operating system.
    System,
    /// Those in this PEM file and no other; absolute, or relative to the working directory.
    Bundle(PathBuf),
}

/// How long to wait for a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// For the connection, TLS included. 3 s unless written otherwise.
    pub connect: Duration,
    /// From the request's last byte to the answer's first. What the dialect says unless written otherwise, else 60 s.
    pub first_byte: Duration,
    /// Between two bytes of the answer. What the dialect says unless written otherwise, else 300 s.
    pub idle: Duration,
}

/// Where keys live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Its name.
    pub name: Name,
    /// What it is and where.
    pub kind: StoreKind,
}

/// The kinds of secret stores. Relative paths are absolute, or relative to the working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreKind {
    /// Plain files below `root`, one secret each.
    File {
        /// No secret is read from outside of it, after symbolic links.
        root: PathBuf,
    },
    /// One file of secrets, encrypted with age.
    Age {
        /// The encrypted file.
        file: PathBuf,
        /// The age identity that decrypts it.
        identity_file: PathBuf,
    },
    /// OpenBao or Vault.
    Vault(VaultStore),
    /// AWS Secrets Manager.
    Aws(AwsStore),
    /// Variables of the process's own environment.
    Env {
        /// What the names of all of them begin with. No setting of the gateway, and nothing that it logs in with, does.
        prefix: String,
    },
}

/// How to reach and log in to AWS Secrets Manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsStore {
    /// The region that the secrets are in.
    pub region: String,
    /// `https://host:port` instead of the region's own endpoint; `http` only on loopback.
    pub endpoint: Option<String>,
    /// The certificate authorities that verify it, in PEM; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Access keys, in the form of `~/.aws/credentials`; then nothing else is looked at for them.
    pub credentials_file: Option<PathBuf>,
    /// The profile of that file, or of the SDK's own files. Where neither is named, its whole chain is gone through.
    pub profile: Option<String>,
    /// A role to assume with these.
    pub role_arn: Option<String>,
}

/// A key, or several that do the same: where they come from, where they may go, and how one is put on a call.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Its name.
    pub name: Name,
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

/// Where a secret is read. [`crate::policy::Policy::store`] has the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretRef {
    /// The store's name.
    pub store: Name,
    /// The path in the store; relative, without `.` and `..`.
    pub path: String,
    /// The fields of the secret, each once. None: the whole value, where the store has such;
    /// elsewhere members of the JSON that it is.
    pub fields: Vec<String>,
    /// A fixed version; only for version 2 of Vault's KV engine. `None`: the newest.
    pub version: Option<u64>,
    /// The staging label of the version; only for AWS. `None`: `AWSCURRENT`, unless `version_id` says otherwise.
    pub stage: Option<String>,
    /// A fixed version by its id; only for AWS, and not beside `stage`.
    pub version_id: Option<String>,
    /// Made by an engine of a Vault for this gateway alone, and leased; `path` then begins with the engine's mount.
    pub dynamic: bool,
}

impl fmt::Display for SecretRef {
    /// `store:path#field,field@version`, for operators; a stage or a version id stands where a version does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.store, self.path)?;
        if !self.fields.is_empty() {
            write!(f, "#{}", self.fields.join(","))?;
        }
        if let Some(label) = self.stage.as_ref().or(self.version_id.as_ref()) {
            write!(f, "@{label}")?;
        }
        self.version.map_or(Ok(()), |version| write!(f, "@{version}"))
    }
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

/// Who may call what, with which key, how much.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Its name.
    pub name: Name,
    /// Whom it is for; at least one.
    pub callers: Vec<SpiffePattern>,
    /// What may be called.
    pub destination: Arc<Destination>,
    /// The key that is put on the call; `None`: none is.
    pub credential: Option<Arc<Credential>>,
    /// The caller's own token is passed on that is for this audience and no other; `None`: none is.
    pub caller_token: Option<Box<str>>,
    /// Which calls.
    pub allow: Allow,
    /// How much, in the order of their ids.
    pub limits: Vec<Limit>,
    /// Output tokens written into a call that names no cap.
    pub default_output_cap: Option<u64>,
    /// What a call that nothing bounds is held at; `None`: it is refused.
    pub assume: Option<Assume>,
    /// What becomes of a model without a price.
    pub unpriced: Unpriced,
}

/// Which calls a grant allows. Methods, paths and models are in the order of specificity.
#[derive(Debug, Clone)]
pub struct Allow {
    /// At least one.
    pub methods: Vec<MethodPattern>,
    /// At least one.
    pub paths: Vec<PathPattern>,
    /// Empty: models are not limited.
    pub models: Vec<ModelPattern>,
    /// Classes of endpoints besides [`Class::Use`].
    pub classes: Vec<Class>,
    /// The actions of an AWS service, where its requests name them; only beside a key that signs. Empty: none that is named.
    pub actions: Vec<ActionPattern>,
    /// Response headers that are passed on though they can carry credentials; in lower case.
    pub response_headers: Vec<Box<str>>,
    /// Whether `Range` and `If-Range` are passed on beside a key: two ranges could split one that is reflected.
    pub range: bool,
}

/// The tokens that a call is held at which nothing bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assume {
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
}

/// What becomes of a call to a model without a price.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Unpriced {
    /// Refused where spend is limited.
    #[default]
    Deny,
    /// Charged as the provider's dearest model.
    Dearest,
    /// Let through, and marked as unpriced.
    Flag,
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

impl Destination {
    /// Whether this is one of its hosts; `host` is in canonical spelling.
    pub fn has_host(&self, host: &str) -> bool {
        self.hosts.iter().any(|pattern| pattern.matches(host))
    }

    /// The only host, where there is exactly one and it is exact: what the destination means when it is named by path.
    pub fn only_host(&self) -> Option<&Arc<str>> {
        match self.hosts.as_slice() {
            [HostPattern::Exact(host)] => Some(host),
            _ => None,
        }
    }
}

impl Timeouts {
    /// Those of a destination that names none.
    pub fn of(dialect: &Dialect) -> Self {
        let patience = dialect.patience();
        Self {
            connect: Duration::from_secs(3),
            first_byte: patience.first_byte.unwrap_or(Duration::from_secs(60)),
            idle: patience.idle.unwrap_or(Duration::from_secs(300)),
        }
    }
}

impl Grant {
    /// Whether it limits this unit.
    pub fn limits_unit(&self, unit: Unit) -> bool {
        self.limits.iter().any(|limit| limit.unit == unit)
    }

    /// Whether what the call asks for decides: models are limited, or tokens or spend are.
    pub fn limits_content(&self) -> bool {
        !self.allow.models.is_empty() || self.limits_unit(Unit::Tokens) || self.limits_unit(Unit::Spend)
    }
}
