//! Credentials whose value is made from a stored secret at a token endpoint.
//!
//! **Invariant:** two equal [`Mint`]s ask the same endpoint for the same thing, so that what one obtained may serve for the other.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::destination::TlsVerify;
use super::store::SecretRef;
use crate::name::ResourceId;

/// How a value is made from a stored secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mint {
    /// Who makes it.
    pub endpoint: TokenEndpoint,
    /// By which grant.
    pub grant: TokenGrant,
    /// What it is for, as the endpoint names it: scopes with spaces between them.
    pub scope: Option<String>,
    /// Whom it is for; in a JWT bearer grant the audience of the assertion.
    pub audience: Option<String>,
    /// The URI of what it is for (RFC 8707).
    pub resource: Option<String>,
    /// More parameters of the request, by name.
    pub parameters: Vec<(String, String)>,
    /// How long a token lives where the endpoint does not say; `None`: it has to say.
    pub lifetime: Option<Duration>,
}

/// A token endpoint: one path of a destination, reached as that destination is. Always over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEndpoint {
    /// The destination's name.
    pub destination: ResourceId,
    /// Its only host, in canonical spelling.
    pub host: Arc<str>,
    /// The port that is dialled.
    pub port: u16,
    /// From the first slash on; no query.
    pub path: String,
    /// Dialled instead of what DNS says; empty: DNS decides.
    pub addresses: Vec<IpAddr>,
    /// The local address that connections leave from; `None`: the system's choice.
    pub source_address: Option<IpAddr>,
    /// Whom its certificate has to be verified by.
    pub tls: TlsVerify,
    /// How long to wait for the connection.
    pub connect: Duration,
    /// How long to wait for an answer to begin.
    pub first_byte: Duration,
}

/// The ways to ask for a token. In each, the credential's own secret is what is named first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenGrant {
    /// What the client authenticates with (RFC 6749 section 4.4).
    ClientCredentials(Client),
    /// A subject token (RFC 8693).
    TokenExchange {
        /// A URI of RFC 8693 section 3, or another.
        subject_token_type: String,
        /// The same; `None`: the endpoint decides.
        requested_token_type: Option<String>,
        /// Who asks, and where its own secret is; `None`: the subject token is all that is shown.
        client: Option<(Client, SecretRef)>,
    },
    /// A private key that signs an assertion (RFC 7523 section 2.1).
    JwtBearer {
        /// `None`: the secret is the JSON key of a Google service account, which names issuer and key id itself.
        issuer: Option<String>,
        /// On whose behalf; `None`: the issuer's own.
        subject: Option<String>,
        /// How it is signed.
        signer: Signer,
    },
    /// The private key of a GitHub App.
    GithubApp {
        /// The app.
        app_id: u64,
        /// Where it is installed.
        installation_id: u64,
        /// Names of the only repositories that the token is for; empty: all of the installation.
        repositories: Vec<String>,
        /// The only permissions of the token, by name; empty: all of the installation.
        permissions: Vec<(String, String)>,
    },
    /// An access key that signs for `AssumeRole` of AWS STS.
    AwsAssumeRole {
        /// Which fields it is.
        key: AwsKey,
        /// The region of the endpoint, which is signed for.
        region: String,
        /// What the role's trust policy may ask for beside the key.
        external_id: Option<String>,
        /// What is asked for.
        session: AwsSession,
    },
    /// A JWT, for `AssumeRoleWithWebIdentity` of AWS STS.
    AwsWebIdentity(AwsSession),
}

/// The fields of a stored access key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsKey {
    /// Has its id.
    pub access_key_id: String,
    /// Has its secret half.
    pub secret_access_key: String,
}

/// The session of a role. What is made of it has the fields of [`AwsSession::FIELDS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsSession {
    /// The role.
    pub role_arn: String,
    /// What AWS's own records call the session.
    pub name: String,
    /// JSON that narrows what the role may do; `None`: all that it may.
    pub policy: Option<String>,
    /// How long it lasts, 15 min to 12 h; `None`: AWS decides, which is 1 h.
    pub duration: Option<Duration>,
}

/// A client of a token endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its id; always there but for the two kinds of assertion that name the client themselves.
    pub id: Option<String>,
    /// How it proves to be that client.
    pub auth: ClientAuth,
}

/// What the client's secret is, and how the endpoint is shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// A client secret, in HTTP Basic (RFC 6749 section 2.3.1).
    Basic,
    /// A client secret, as `client_secret` in the body.
    Post,
    /// A private key that signs an assertion (RFC 7523 section 2.2).
    PrivateKeyJwt {
        /// How it is signed.
        signer: Signer,
        /// `None`: the endpoint's URL.
        audience: Option<String>,
    },
    /// A JWT that somebody else signed, as the assertion of RFC 7523 section 2.2.
    Jwt,
    /// A JWT-SVID, as the assertion of draft-ietf-oauth-spiffe-client-auth.
    SpiffeJwt,
}

/// How an assertion is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// `None`: RS256 with an RSA key, ES256 with one on P-256.
    pub algorithm: Option<Algorithm>,
    /// The `kid` of its header.
    pub key_id: Option<String>,
}

/// Signature algorithms (RFC 7518 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

impl AwsSession {
    /// The access key's id, its secret half, and the session token.
    pub const FIELDS: [&str; 3] = ["accessKeyId", "secretAccessKey", "sessionToken"];
}

impl Mint {
    /// The other secret that it takes, beside the credential's own.
    pub fn client_secret(&self) -> Option<&SecretRef> {
        match &self.grant {
            TokenGrant::TokenExchange { client: Some((_, from)), .. } => Some(from),
            _ => None,
        }
    }
}

impl TokenEndpoint {
    /// `https://host/path`, with the port where it is not 443.
    pub fn url(&self) -> String {
        match self.port {
            443 => format!("https://{}{}", self.host, self.path),
            port => format!("https://{}:{port}{}", self.host, self.path),
        }
    }
}

impl fmt::Display for TokenEndpoint {
    /// `destination/path`, for operators.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.destination, self.path)
    }
}

impl fmt::Display for Mint {
    /// What is asked of whom, for operators. Without `parameters`: nobody knows what is in them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (grant, who) = match &self.grant {
            TokenGrant::ClientCredentials(client) => ("clientCredentials", client.id.clone()),
            TokenGrant::TokenExchange { client, .. } => {
                ("tokenExchange", client.as_ref().and_then(|(client, _)| client.id.clone()))
            }
            TokenGrant::JwtBearer { issuer, subject, .. } => {
                ("jwtBearer", subject.clone().or_else(|| issuer.clone()))
            }
            TokenGrant::GithubApp { app_id, installation_id, .. } => {
                ("githubApp", Some(format!("{app_id}/{installation_id}")))
            }
            TokenGrant::AwsAssumeRole { session, .. } => ("awsAssumeRole", Some(session.role_arn.clone())),
            TokenGrant::AwsWebIdentity(session) => ("awsWebIdentity", Some(session.role_arn.clone())),
        };
        write!(f, "{}:{grant}", self.endpoint)?;
        let asked = [
            ("for", &who),
            ("scope", &self.scope),
            ("audience", &self.audience),
            ("resource", &self.resource),
        ];
        for (name, value) in asked.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))) {
            write!(f, " {name}={value}")?;
        }
        if let TokenGrant::GithubApp { repositories, permissions, .. } = &self.grant {
            for repository in repositories {
                write!(f, " repository={repository}")?;
            }
            for (name, level) in permissions {
                write!(f, " {name}={level}")?;
            }
        }
        Ok(())
    }
}
