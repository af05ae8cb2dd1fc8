//! `spec.mint` of `kind: Credential`, as it is written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::field::{Interval, List};
use super::from::FromSpec;
use crate::name::Reference;

/// How a token is made: exactly one of the ways, an endpoint, and what is sent besides.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["endpoint"], "oneOf" = [
    {"required": ["clientCredentials"]},
    {"required": ["tokenExchange"]},
    {"required": ["jwtBearer"]},
    {"required": ["githubApp"]},
    {"required": ["awsAssumeRole"]},
    {"required": ["awsWebIdentity"]},
]))]
pub(crate) struct MintSpec {
    /// Where the token is made.
    pub(crate) endpoint: Option<EndpointSpec>,
    /// OAuth 2.0 client credentials. `from` names what `auth` says.
    pub(crate) client_credentials: Option<ClientCredentialsSpec>,
    /// OAuth 2.0 token exchange (RFC 8693). `from` names the subject token.
    pub(crate) token_exchange: Option<TokenExchangeSpec>,
    /// A signed assertion (RFC 7523). `from` names the JSON key of a Google service account, or with `issuer` a PEM key.
    pub(crate) jwt_bearer: Option<JwtBearerSpec>,
    /// The installation of a GitHub App. `from` names the app's PEM key.
    pub(crate) github_app: Option<GithubAppSpec>,
    /// The session of a role at AWS STS. `from` names an access key, in two fields.
    pub(crate) aws_assume_role: Option<AwsAssumeRoleSpec>,
    /// The same, for a JWT: a JWT-SVID or the token of a service account.
    pub(crate) aws_web_identity: Option<AwsWebIdentitySpec>,
    /// Sent as it stands. Of the three OAuth ways only, like the next three and `lifetime`.
    pub(crate) scope: Option<String>,
    /// Sent as it stands.
    pub(crate) audience: Option<String>,
    /// Sent as it stands.
    pub(crate) resource: Option<String>,
    /// More parameters of the request, by name.
    pub(crate) parameters: BTreeMap<String, String>,
    /// How long a token lives whose endpoint does not say.
    pub(crate) lifetime: Option<Interval>,
}

/// A token endpoint.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    deny_unknown_fields,
    default,
    rename_all = "camelCase",
    expecting = "a mapping of fields, as in `{destination: idp, path: /oauth2/token}`"
)]
#[schemars(extend("required" = ["destination"]))]
pub(crate) struct EndpointSpec {
    /// A Destination with one exact host. It needs no grant.
    pub(crate) destination: Option<Reference>,
    /// The path there. Without it `/` for the two AWS ways, and GitHub's own for `githubApp`. Required for the others.
    pub(crate) path: Option<String>,
}

/// OAuth 2.0 client credentials.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct ClientCredentialsSpec {
    /// The client id. Required unless `auth` is `jwt` or `spiffeJwt`.
    pub(crate) client_id: Option<String>,
    /// How the client proves itself. Without it `basic`.
    pub(crate) auth: Option<ClientAuthSpec>,
}

/// How a client proves itself: exactly one of the fields.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(crate) struct ClientAuthSpec {
    /// `from` names a client secret, which goes into the `Authorization` header.
    pub(crate) basic: Option<NothingSpec>,
    /// `from` names a client secret, which goes into the body.
    pub(crate) post: Option<NothingSpec>,
    /// `from` names a PEM key, which signs an assertion.
    pub(crate) private_key_jwt: Option<PrivateKeyJwtSpec>,
    /// `from` names a signed assertion that somebody keeps in a file.
    pub(crate) jwt: Option<NothingSpec>,
    /// The same, with a JWT-SVID.
    pub(crate) spiffe_jwt: Option<NothingSpec>,
}

/// Nothing more to say.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NothingSpec {}

/// An assertion that the client signs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct PrivateKeyJwtSpec {
    /// The algorithm. Without it the one that fits the key.
    pub(crate) algorithm: Option<AlgorithmWord>,
    /// The `kid` of the assertion. Without it none.
    pub(crate) key_id: Option<String>,
    /// The `aud` of the assertion. Without it the endpoint's URL.
    pub(crate) audience: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum AlgorithmWord {
    Rs256,
    Ps256,
    Es256,
}

/// OAuth 2.0 token exchange.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct TokenExchangeSpec {
    /// The type of the subject token: `jwt`, `access_token`, `id_token` and the like, or a URI.
    #[schemars(extend("default" = "jwt"))]
    pub(crate) subject_token_type: Option<String>,
    /// The type that is asked for. Without it the endpoint chooses.
    pub(crate) requested_token_type: Option<String>,
    /// The client that asks. Without it nobody in particular.
    pub(crate) client: Option<ExchangeClientSpec>,
}

/// The client of a token exchange.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["from"]))]
pub(crate) struct ExchangeClientSpec {
    /// The client id. Required unless `auth` is `jwt` or `spiffeJwt`.
    pub(crate) client_id: Option<String>,
    /// How the client proves itself, as in `clientCredentials`. Without it `basic`.
    pub(crate) auth: Option<ClientAuthSpec>,
    /// Where its own secret is kept, as `spec.from` says where the subject token is.
    pub(crate) from: Option<FromSpec>,
}

/// A signed assertion.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct JwtBearerSpec {
    /// The `iss` of the assertion. Without it `from` is the JSON key of a Google service account, which names it.
    pub(crate) issuer: Option<String>,
    /// The `sub` of the assertion. Without it the issuer.
    pub(crate) subject: Option<String>,
    /// The algorithm. Without it the one that fits the key.
    pub(crate) algorithm: Option<AlgorithmWord>,
    /// The `kid` of the assertion. Without it that of the JSON key, or none.
    pub(crate) key_id: Option<String>,
}

/// The installation of a GitHub App.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["appId", "installationId"]))]
pub(crate) struct GithubAppSpec {
    /// The id of the app.
    pub(crate) app_id: Option<u64>,
    /// The id of the installation.
    pub(crate) installation_id: Option<u64>,
    /// The repositories that the token is for. Without them all of the installation.
    pub(crate) repositories: List<String>,
    /// The permissions of the token: an access for each name. Without them all of the installation.
    pub(crate) permissions: BTreeMap<String, String>,
}

/// The session of a role, with an access key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["accessKeyId", "secretAccessKey", "roleArn"]))]
pub(crate) struct AwsAssumeRoleSpec {
    /// The field of the secret with the access key id.
    pub(crate) access_key_id: Option<String>,
    /// The field with the secret access key.
    pub(crate) secret_access_key: Option<String>,
    /// The region to sign for. Required if the endpoint's host is not AWS's own.
    pub(crate) region: Option<String>,
    /// The external id that the role's trust policy asks for.
    pub(crate) external_id: Option<String>,
    /// The ARN of the role.
    pub(crate) role_arn: Option<String>,
    /// The name of the session. Without it `tollgate-` and the credential's name.
    pub(crate) session_name: Option<String>,
    /// A policy in JSON that narrows the session.
    pub(crate) session_policy: Option<String>,
    /// How long the session lives: `15m` to `12h`. Without it AWS's own.
    pub(crate) duration: Option<Interval>,
}

/// The session of a role, with a JWT.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["roleArn"]))]
pub(crate) struct AwsWebIdentitySpec {
    /// The ARN of the role.
    pub(crate) role_arn: Option<String>,
    /// The name of the session. Without it `tollgate-` and the credential's name.
    pub(crate) session_name: Option<String>,
    /// A policy in JSON that narrows the session.
    pub(crate) session_policy: Option<String>,
    /// How long the session lives: `15m` to `12h`. Without it AWS's own.
    pub(crate) duration: Option<Interval>,
}
