//! What the settings say of the tokens that prove callers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jsonwebtoken::Algorithm;
use schemars::JsonSchema;
use serde::Deserialize;
use tollgate_policy::caller::{Issuer, TrustDomain};
use tollgate_policy::name::Name;

/// An issuer whose tokens prove callers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenIssuerSettings {
    /// What its tokens prove: a Kubernetes service account, the subject of an issuer (`oidc`), or a SPIFFE id (JWT-SVID).
    pub kind: IssuerKind,
    /// The `aud` that its tokens have to have, among others or alone: a name of this gateway that nothing else goes by.
    pub audience: String,
    /// The `iss` of its tokens, byte for byte. Required but for `spiffe`.
    #[serde(default)]
    pub issuer: Option<Issuer>,
    /// For `kubernetes`: what grants and reports call this cluster. The first cluster is the gateway's own.
    #[serde(default)]
    #[schemars(extend("default" = "local"))]
    pub cluster: Option<Name>,
    /// For `spiffe`: the trust domain whose ids its tokens may say. Required there.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub trust_domain: Option<TrustDomain>,
    /// For `oidc`: the claims that Budgets select calls by, each by a name of its own, with the keys that lead to it in the token, as in
    /// `{team: [team], roles: [realm_access, roles]}`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Vec<String>>")]
    pub claims: BTreeMap<Name, Vec<String>>,
    /// Where the keys are that verify its tokens.
    pub keys: KeySettings,
    /// The algorithms that its tokens may be signed with.
    #[serde(default)]
    #[schemars(extend("default" = ["RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "PS384", "PS512"]))]
    pub algorithms: Vec<SignatureWord>,
    /// The PEM file with the certificate authorities that verify the server that has the keys. Without it those of the system.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The file with the token that the gateway shows that server. Without it none.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Further hosts that this token is shown to, as `HOST` or `HOST:PORT`, where `discovery` says that the keys are there. Without it the issuer's own.
    #[serde(default)]
    pub token_hosts: Vec<String>,
}

/// What tokens prove.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum IssuerKind {
    /// The service account of a cluster.
    Kubernetes,
    /// The subject of an issuer.
    Oidc,
    /// A workload of a trust domain.
    Spiffe,
}

impl IssuerKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Oidc => "oidc",
            Self::Spiffe => "spiffe",
        }
    }
}

/// Where the keys of an issuer are: exactly one of the fields.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct KeySettings {
    /// Where the issuer's own `/.well-known/openid-configuration` says.
    pub discovery: Option<DiscoverySettings>,
    /// At this https URL, as a JSON Web Key Set.
    pub url: Option<String>,
    /// In this file, as a JSON Web Key Set; for `spiffe` the bundle of the trust domain as JSON.
    pub file: Option<PathBuf>,
    /// For `spiffe`: as the Workload API at `identity.workloadApi` says them.
    pub workload_api: Option<DiscoverySettings>,
}

/// Nothing more is to be said of it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiscoverySettings {}

/// An algorithm of signatures (RFC 7518, section 3.1; RFC 8037). None that needs a shared secret, and not `none`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, JsonSchema)]
pub enum SignatureWord {
    RS256,
    RS384,
    RS512,
    ES256,
    ES384,
    PS256,
    PS384,
    PS512,
    EdDSA,
}

impl SignatureWord {
    /// What is taken where the settings say nothing.
    pub(super) const DEFAULT: [Self; 8] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::ES256,
        Self::ES384,
        Self::PS256,
        Self::PS384,
        Self::PS512,
    ];

    pub(super) const fn algorithm(self) -> Algorithm {
        match self {
            Self::RS256 => Algorithm::RS256,
            Self::RS384 => Algorithm::RS384,
            Self::RS512 => Algorithm::RS512,
            Self::ES256 => Algorithm::ES256,
            Self::ES384 => Algorithm::ES384,
            Self::PS256 => Algorithm::PS256,
            Self::PS384 => Algorithm::PS384,
            Self::PS512 => Algorithm::PS512,
            Self::EdDSA => Algorithm::EdDSA,
        }
    }
}

/// What is wrong with a list of issuers: field and message.
pub(crate) fn problems(all: &[TokenIssuerSettings]) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    for (at, issuer) in all.iter().enumerate() {
        let before = all.get(..at).unwrap_or_default();
        let found = issuer.wrong(before).into_iter();
        problems.extend(
            found.map(|(field, message)| (format!("identity.tokens[{at}]{field}"), message.to_owned())),
        );
    }
    problems
}

impl TokenIssuerSettings {
    fn wrong(&self, before: &[Self]) -> Vec<(&'static str, &'static str)> {
        let mut problems = self.wrong_tokens(before);
        problems.extend(self.wrong_keys());
        problems
    }

    /// What is wrong with what its tokens are to be.
    fn wrong_tokens(&self, before: &[Self]) -> Vec<(&'static str, &'static str)> {
        let mut problems = Vec::new();
        let mut wrong = |is_wrong: bool, field, message| {
            if is_wrong {
                problems.push((field, message));
            }
        };
        let kind = self.kind;
        let is_kubernetes = kind == IssuerKind::Kubernetes;
        let is_spiffe = kind == IssuerKind::Spiffe;
        let issuer = self.issuer.as_ref().map_or("", Issuer::as_str);
        wrong(!is_spiffe && issuer.is_empty(), ".issuer", "this is required: the `iss` of the tokens");
        let known = before.iter().any(|other| other.issuer.is_some() && other.issuer == self.issuer);
        wrong(known, ".issuer", "another entry has the same issuer: one entry is one set of keys");
        let text = self.audience.as_str();
        wrong(text.is_empty() || text.len() > 512, ".audience", "1 to 512 characters, as in `tollgate`");
        wrong(
            !text.is_empty() && text == issuer,
            ".audience",
            "the issuer itself takes tokens of this audience: name one of the gateway's own",
        );
        wrong(!is_kubernetes && self.cluster.is_some(), ".cluster", "only `kubernetes` has a cluster");
        let is_known = |other: &Self| other.kind == kind && other.cluster() == self.cluster();
        wrong(
            is_kubernetes && before.iter().any(is_known),
            ".cluster",
            "another entry has the same cluster: give each its own name",
        );
        wrong(!is_spiffe && self.trust_domain.is_some(), ".trustDomain", "only `spiffe` has a trust domain");
        let is_missing = is_spiffe && self.trust_domain.is_none();
        wrong(is_missing, ".trustDomain", "this is required: whose SPIFFE ids the tokens may say");
        let is_oidc = kind == IssuerKind::Oidc;
        wrong(
            !is_oidc && !self.claims.is_empty(),
            ".claims",
            "only callers of `oidc` are selected by claims",
        );
        let is_nowhere = |keys: &Vec<String>| keys.is_empty() || keys.iter().any(String::is_empty);
        let message = "a claim is at the keys that lead to it, as in `{roles: [realm_access, roles]}`";
        wrong(self.claims.values().any(is_nowhere), ".claims", message);
        let is_known = |other: &Self| other.trust_domain == self.trust_domain;
        wrong(
            self.trust_domain.is_some() && before.iter().any(is_known),
            ".trustDomain",
            "another entry has the same trust domain",
        );
        problems
    }

    /// What is wrong with where its keys are.
    fn wrong_keys(&self) -> Vec<(&'static str, &'static str)> {
        let mut problems = Vec::new();
        let mut wrong = |is_wrong: bool, field, message| {
            if is_wrong {
                problems.push((field, message));
            }
        };
        let issuer = self.issuer.as_ref().map_or("", Issuer::as_str);
        let KeySettings { discovery, url, file, workload_api } = &self.keys;
        let ways = [discovery.is_some(), url.is_some(), file.is_some(), workload_api.is_some()];
        let ways = ways.into_iter().filter(|is| *is).count();
        wrong(
            ways != 1,
            ".keys",
            "exactly one of `discovery: {}`, `url`, `file` and `workloadApi: {}` is required",
        );
        wrong(
            workload_api.is_some() && self.kind != IssuerKind::Spiffe,
            ".keys.workloadApi",
            "the Workload API says the keys of trust domains alone: only with `kind: spiffe`",
        );
        let is_https = |url: &str| url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty());
        wrong(
            url.as_deref().is_some_and(|url| !is_https(url)),
            ".keys.url",
            "keys are fetched over https only, as in `https://issuer.example/keys.json`",
        );
        wrong(
            discovery.is_some() && !is_https(issuer),
            ".keys.discovery",
            "only an issuer whose name is an https URL can be asked for its keys: give them by `url` or `file`",
        );
        let is_fetched = self.keys.file.is_none() && self.keys.workload_api.is_none();
        let is_unused = |file: &Option<PathBuf>| !is_fetched && file.is_some();
        wrong(
            is_unused(&self.ca_file),
            ".caFile",
            "keys in a file and those of the Workload API are not fetched: leave this out",
        );
        wrong(
            !self.token_hosts.is_empty() && (discovery.is_none() || self.token_file.is_none()),
            ".tokenHosts",
            "only with `keys: {discovery: {}}` and a `tokenFile` is there a token for further hosts",
        );
        let is_host = |host: &String| {
            let uri = host.parse::<http::uri::Authority>();
            uri.is_ok_and(|uri| !host.contains('@') && !uri.host().is_empty())
        };
        wrong(
            !self.token_hosts.iter().all(is_host),
            ".tokenHosts",
            "a host is `HOST` or `HOST:PORT`, as in `10.0.0.1:6443`",
        );
        wrong(is_unused(&self.token_file), ".tokenFile", "keys in a file are not fetched: leave this out");
        problems
    }

    /// The name of the cluster whose service accounts its tokens prove.
    pub(crate) fn cluster(&self) -> Option<Name> {
        let local = || "local".parse().ok();
        (self.kind == IssuerKind::Kubernetes).then(|| self.cluster.clone().or_else(local)).flatten()
    }

    /// The URLs of the servers that are shown the token of `tokenFile`.
    pub(super) fn token_servers(&self) -> Vec<String> {
        let named = match &self.keys.url {
            Some(url) => Some(url.clone()),
            None => self.issuer.as_ref().map(ToString::to_string),
        };
        let further = self.token_hosts.iter().map(|host| format!("https://{host}"));
        named.into_iter().chain(further).collect()
    }

    /// Who vouches, for people.
    pub(crate) fn title(&self) -> String {
        match (&self.issuer, &self.trust_domain) {
            (_, Some(domain)) => format!("spiffe://{domain}"),
            (Some(issuer), None) => issuer.to_string(),
            (None, None) => String::new(),
        }
    }
}
