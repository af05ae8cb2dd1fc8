//! `kind: SecretStore`, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::allowed::AllowedNamespaces;
use super::field::List;

/// A place where keys are kept: exactly one of the kinds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("oneOf" = [
    {"required": ["file"]},
    {"required": ["age"]},
    {"required": ["vault"]},
    {"required": ["aws"]},
    {"required": ["env"]},
    {"required": ["kubernetes"]},
    {"required": ["svid"]},
]))]
pub(crate) struct StoreSpec {
    /// A directory with one file for each secret.
    pub(crate) file: Option<FileSpec>,
    /// An age-encrypted file, which `tollgate secret` keeps.
    pub(crate) age: Option<AgeSpec>,
    /// OpenBao or Vault.
    pub(crate) vault: Option<VaultSpec>,
    /// AWS Secrets Manager.
    pub(crate) aws: Option<AwsSpec>,
    /// Variables of the gateway's own environment.
    pub(crate) env: Option<EnvSpec>,
    /// [Kubernetes Secrets](../secrets/README.md#kubernetes-secrets) of the store's own namespace. Only for objects of a cluster.
    pub(crate) kubernetes: Option<NamespaceSecretsSpec>,
    /// [The gateway's own SVIDs](../secrets/README.md#the-gateways-own-svids).
    pub(crate) svid: Option<SvidSpec>,
    /// The namespaces whose resources may refer to this one, besides its own: `All`, or some. See [namespaces](#namespaces).
    pub(crate) allowed_namespaces: Option<AllowedNamespaces>,
    /// What credentials of other namespaces may read here: these paths and all below them. `{namespace}` in one is the namespace
    /// of the credential. Without it nothing.
    pub(crate) allowed_paths: List<String>,
}

/// One file for each secret.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["root"]))]
pub(crate) struct FileSpec {
    /// The directory. None of the gateway's own files may be in there.
    pub(crate) root: Option<String>,
}

/// An age-encrypted file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["file", "identityFile"]))]
pub(crate) struct AgeSpec {
    /// The encrypted file.
    pub(crate) file: Option<String>,
    /// The file with the age identity that opens it.
    pub(crate) identity_file: Option<String>,
}

/// OpenBao or Vault.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["address", "auth"]))]
pub(crate) struct VaultSpec {
    /// The URL: `https://host:port`. `http` is for loopback addresses only.
    pub(crate) address: Option<String>,
    /// Where the KV engine is mounted.
    #[schemars(extend("default" = "secret"))]
    pub(crate) mount: Option<String>,
    /// The namespace in the vault. Without it the root.
    pub(crate) namespace: Option<String>,
    /// A PEM file with the certificate authorities that may speak for the vault. Without it those of the system.
    pub(crate) ca_file: Option<String>,
    /// How the gateway logs in: exactly one of the fields.
    pub(crate) auth: Option<AuthSpec>,
    /// The version of the KV engine.
    #[schemars(extend("enum" = [1, 2], "default" = 2))]
    pub(crate) kv_version: Option<u64>,
    /// A certificate that every connection to the vault shows.
    pub(crate) client_certificate: Option<CertificateFilesSpec>,
}

/// A client certificate in files.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["certFile", "keyFile"]))]
pub(crate) struct CertificateFilesSpec {
    /// The PEM file with the certificate chain.
    pub(crate) cert_file: Option<String>,
    /// The PEM file with its key.
    pub(crate) key_file: Option<String>,
}

/// A login at a vault: exactly one of the fields.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(crate) struct AuthSpec {
    /// With a token in a file.
    pub(crate) token: Option<TokenSpec>,
    /// With an AppRole.
    pub(crate) app_role: Option<AppRoleSpec>,
    /// With the token of a Kubernetes service account.
    pub(crate) kubernetes: Option<TokenLoginSpec>,
    /// With a JWT, such as a JWT-SVID.
    pub(crate) jwt: Option<TokenLoginSpec>,
    /// With a TLS certificate.
    pub(crate) certificate: Option<CertificateLoginSpec>,
}

/// A login with a token.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["file"]))]
pub(crate) struct TokenSpec {
    /// The file with the token.
    pub(crate) file: Option<String>,
}

/// A login with an AppRole.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["roleIdFile"], "oneOf" = [{"required": ["secretIdFile"]}, {"required": ["wrappedSecretIdFile"]}]))]
pub(crate) struct AppRoleSpec {
    /// Where the method is mounted.
    #[schemars(extend("default" = "approle"))]
    pub(crate) mount: Option<String>,
    /// The file with the role id.
    pub(crate) role_id_file: Option<String>,
    /// The file with the secret id. Either this or the next is required.
    pub(crate) secret_id_file: Option<String>,
    /// The file with a response-wrapping token of the secret id.
    pub(crate) wrapped_secret_id_file: Option<String>,
}

/// A login with a token that somebody else issued.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["role"]))]
pub(crate) struct TokenLoginSpec {
    /// Where the method is mounted. Without it `kubernetes` or `jwt`, like the field.
    pub(crate) mount: Option<String>,
    /// The role to log in for.
    pub(crate) role: Option<String>,
    /// The file with the token. Required for `jwt`. Without it `kubernetes` takes the pod's own.
    pub(crate) token_file: Option<String>,
    /// For `jwt`, instead of a file: the audience of the gateway's own JWT-SVID, which it gets of its Workload API for each login.
    pub(crate) svid_audience: Option<String>,
}

/// A login with a TLS certificate.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["certFile", "keyFile"]))]
pub(crate) struct CertificateLoginSpec {
    /// Where the method is mounted.
    #[schemars(extend("default" = "cert"))]
    pub(crate) mount: Option<String>,
    /// The role to log in for. Without it the vault chooses.
    pub(crate) role: Option<String>,
    /// The PEM file with the certificate chain.
    pub(crate) cert_file: Option<String>,
    /// The PEM file with its key.
    pub(crate) key_file: Option<String>,
}

/// AWS Secrets Manager.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["region"]))]
pub(crate) struct AwsSpec {
    /// The region that the secrets are in.
    pub(crate) region: Option<String>,
    /// Another URL for the service. Without it AWS's own.
    pub(crate) endpoint: Option<String>,
    /// A PEM file with the certificate authorities that are trusted to name the endpoint. Without it those of the system.
    pub(crate) ca_file: Option<String>,
    /// A file with access keys, in the form of `~/.aws/credentials`.
    pub(crate) credentials_file: Option<String>,
    /// The profile to use.
    pub(crate) profile: Option<String>,
    /// The ARN of a role that the gateway takes on after its login.
    pub(crate) role_arn: Option<String>,
}

/// Environment variables.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["prefix"]))]
pub(crate) struct EnvSpec {
    /// Environment variables that begin so are secrets. The rest of the name is the path.
    pub(crate) prefix: Option<String>,
}

/// Nothing more to say: they are those of the store's own namespace.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NamespaceSecretsSpec {}

/// The gateway's own SVIDs. A credential's `path` is `jwt` or `x509`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct SvidSpec {
    /// The `aud` of the JWT-SVIDs: whoever is shown one. Without it there are only X.509-SVIDs.
    pub(crate) audience: Option<String>,
}
