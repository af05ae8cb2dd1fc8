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
}

/// Exactly one of the fields.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct AuthSpec {
    pub(crate) token: Option<TokenSpec>,
    pub(crate) app_role: Option<AppRoleSpec>,
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
