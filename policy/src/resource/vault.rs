//! OpenBao and HashiCorp Vault after compilation: how one is reached, and the ways to log in.

use std::path::PathBuf;

/// How to reach and log in to OpenBao or Vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultStore {
    /// `https://host:port`; `http` only on loopback. No path and no trailing slash.
    pub address: String,
    /// Where the KV engine is mounted. `secret` unless written otherwise.
    pub mount: String,
    /// Which API that engine has. 2 unless written otherwise.
    pub kv: KvVersion,
    /// The OpenBao or Vault namespace, sent as `X-Vault-Namespace`.
    pub namespace: Option<String>,
    /// The certificate authorities that verify it, in PEM; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// What the gateway shows on each connection; always there where the login is by certificate.
    pub client_certificate: Option<ClientCertificate>,
    /// How to log in.
    pub auth: VaultAuth,
}

/// The two APIs of the KV engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KvVersion {
    /// One value for each path.
    V1,
    /// Values with versions.
    #[default]
    V2,
}

/// A TLS client certificate in two PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The chain, the certificate itself first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The ways to log in to OpenBao or Vault. A `mount` is where the method is mounted; its own name unless written otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultAuth {
    /// A token that someone else renews in a file.
    Token {
        /// The file with the token.
        file: PathBuf,
    },
    /// AppRole.
    AppRole {
        /// `approle` unless written otherwise.
        mount: String,
        /// The file with the role id.
        role_id_file: PathBuf,
        /// Where the secret id is.
        secret_id: SecretId,
    },
    /// A Kubernetes service-account token, which the vault has the cluster review.
    Kubernetes(TokenLogin),
    /// A JWT, such as a JWT-SVID, which the vault checks by its issuer's keys.
    Jwt(TokenLogin),
    /// The gateway's own JWT-SVID, which it gets of its Workload API for each login.
    JwtSvid {
        /// `jwt` unless written otherwise.
        mount: String,
        /// The role to log in as.
        role: String,
        /// The `aud` of the SVID.
        audience: String,
    },
    /// The client certificate of the connection.
    Certificate {
        /// `cert` unless written otherwise.
        mount: String,
        /// The only role to be tried; `None`: whichever the certificate fits.
        role: Option<String>,
    },
}

/// Where the secret id of an AppRole is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretId {
    /// In this file.
    File(PathBuf),
    /// In the vault, for whoever first shows the response-wrapping token of this file.
    Wrapped(PathBuf),
}

/// A login with a token that someone else issues and renews.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenLogin {
    /// Where the method is mounted.
    pub mount: String,
    /// The role to log in as.
    pub role: String,
    /// The file with the token; read again for each login.
    pub token_file: PathBuf,
}
