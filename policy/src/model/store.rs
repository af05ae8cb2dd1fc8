//! `kind: SecretStore`, as it is written.

use serde::Deserialize;

/// Exactly one of the fields.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct StoreSpec {
    pub(crate) file: Option<FileSpec>,
    pub(crate) age: Option<AgeSpec>,
    pub(crate) vault: Option<VaultSpec>,
    pub(crate) aws: Option<AwsSpec>,
    pub(crate) env: Option<EnvSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct FileSpec {
    pub(crate) root: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct AgeSpec {
    pub(crate) file: Option<String>,
    pub(crate) identity_file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct VaultSpec {
    pub(crate) address: Option<String>,
    pub(crate) mount: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) ca_file: Option<String>,
    pub(crate) auth: Option<AuthSpec>,
    pub(crate) kv_version: Option<u64>,
    pub(crate) client_certificate: Option<ClientCertificateSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct ClientCertificateSpec {
    pub(crate) cert_file: Option<String>,
    pub(crate) key_file: Option<String>,
}

/// Exactly one of the fields.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct AuthSpec {
    pub(crate) token: Option<TokenSpec>,
    pub(crate) app_role: Option<AppRoleSpec>,
    pub(crate) kubernetes: Option<TokenLoginSpec>,
    pub(crate) jwt: Option<TokenLoginSpec>,
    pub(crate) certificate: Option<CertificateLoginSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct TokenSpec {
    pub(crate) file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct AppRoleSpec {
    pub(crate) mount: Option<String>,
    pub(crate) role_id_file: Option<String>,
    pub(crate) secret_id_file: Option<String>,
    pub(crate) wrapped_secret_id_file: Option<String>,
}

/// A login with a token that somebody else issued.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct TokenLoginSpec {
    pub(crate) mount: Option<String>,
    pub(crate) role: Option<String>,
    pub(crate) token_file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct CertificateLoginSpec {
    pub(crate) mount: Option<String>,
    pub(crate) role: Option<String>,
    pub(crate) cert_file: Option<String>,
    pub(crate) key_file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct AwsSpec {
    pub(crate) region: Option<String>,
    pub(crate) endpoint: Option<String>,
    pub(crate) ca_file: Option<String>,
    pub(crate) credentials_file: Option<String>,
    pub(crate) profile: Option<String>,
    pub(crate) role_arn: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct EnvSpec {
    pub(crate) prefix: Option<String>,
}
