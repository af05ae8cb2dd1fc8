//! `spec.mint` of `kind: Credential`, as it is written.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::field::{Interval, List};
use super::from::FromSpec;
use crate::name::Reference;

/// Exactly one of the six ways, and what all of them have in common.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct MintSpec {
    pub(crate) endpoint: Option<EndpointSpec>,
    pub(crate) client_credentials: Option<ClientCredentialsSpec>,
    pub(crate) token_exchange: Option<TokenExchangeSpec>,
    pub(crate) jwt_bearer: Option<JwtBearerSpec>,
    pub(crate) github_app: Option<GithubAppSpec>,
    pub(crate) aws_assume_role: Option<AwsAssumeRoleSpec>,
    pub(crate) aws_web_identity: Option<AwsWebIdentitySpec>,
    pub(crate) scope: Option<String>,
    pub(crate) audience: Option<String>,
    pub(crate) resource: Option<String>,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) lifetime: Option<Interval>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    default,
    rename_all = "camelCase",
    expecting = "a mapping of fields, as in `{destination: idp, path: /oauth2/token}`"
)]
pub(crate) struct EndpointSpec {
    pub(crate) destination: Option<Reference>,
    pub(crate) path: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct ClientCredentialsSpec {
    pub(crate) client_id: Option<String>,
    pub(crate) auth: Option<ClientAuthSpec>,
}

/// Exactly one of the fields.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct ClientAuthSpec {
    pub(crate) basic: Option<NothingSpec>,
    pub(crate) post: Option<NothingSpec>,
    pub(crate) private_key_jwt: Option<PrivateKeyJwtSpec>,
    pub(crate) jwt: Option<NothingSpec>,
    pub(crate) spiffe_jwt: Option<NothingSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NothingSpec {}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct PrivateKeyJwtSpec {
    pub(crate) algorithm: Option<AlgorithmWord>,
    pub(crate) key_id: Option<String>,
    pub(crate) audience: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum AlgorithmWord {
    Rs256,
    Ps256,
    Es256,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct TokenExchangeSpec {
    pub(crate) subject_token_type: Option<String>,
    pub(crate) requested_token_type: Option<String>,
    pub(crate) client: Option<ExchangeClientSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct ExchangeClientSpec {
    pub(crate) client_id: Option<String>,
    pub(crate) auth: Option<ClientAuthSpec>,
    pub(crate) from: Option<FromSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct JwtBearerSpec {
    pub(crate) issuer: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) algorithm: Option<AlgorithmWord>,
    pub(crate) key_id: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct GithubAppSpec {
    pub(crate) app_id: Option<u64>,
    pub(crate) installation_id: Option<u64>,
    pub(crate) repositories: List<String>,
    pub(crate) permissions: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct AwsAssumeRoleSpec {
    pub(crate) access_key_id: Option<String>,
    pub(crate) secret_access_key: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) external_id: Option<String>,
    pub(crate) role_arn: Option<String>,
    pub(crate) session_name: Option<String>,
    pub(crate) session_policy: Option<String>,
    pub(crate) duration: Option<Interval>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct AwsWebIdentitySpec {
    pub(crate) role_arn: Option<String>,
    pub(crate) session_name: Option<String>,
    pub(crate) session_policy: Option<String>,
    pub(crate) duration: Option<Interval>,
}
