//! Minted credentials: a token endpoint that is a destination, and a stored secret that goes there and nowhere else.

mod aws;
mod bound;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::Scope;
use super::from::{check_alone, secret_ref};
use crate::model::{
    AlgorithmWord, AwsAssumeRoleSpec, AwsWebIdentitySpec, ClientAuthSpec, CredentialSpec, FromSpec, Froms,
    GithubAppSpec, Interval, JwtBearerSpec, MintSpec, Model, TokenExchangeSpec,
};
use crate::name::ResourceId;
use crate::policy::Parts;
use crate::resource::{Algorithm, Client, ClientAuth, Destination, Mint, Signer, TokenEndpoint, TokenGrant};

/// A minted value is made anew at least this often, whatever life its endpoint gives it: a stored secret that was rotated or taken away
/// is noticed by then.
pub(super) const LONGEST_USE: Duration = Duration::from_secs(24 * 3600);

/// Parameters that the grants themselves are made of (RFC 6749, 7521, 8693, 8707).
const OWN_PARAMETERS: &[&str] = &[
    "actor_token",
    "actor_token_type",
    "assertion",
    "audience",
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "grant_type",
    "requested_token_type",
    "resource",
    "scope",
    "subject_token",
    "subject_token_type",
];

enum WrittenMint<'a> {
    ClientCredentials(&'a Option<String>, &'a Option<ClientAuthSpec>),
    TokenExchange(&'a TokenExchangeSpec),
    JwtBearer(&'a JwtBearerSpec),
    GithubApp(&'a GithubAppSpec),
    AwsAssumeRole(&'a AwsAssumeRoleSpec),
    AwsWebIdentity(&'a AwsWebIdentitySpec),
}

pub(super) use self::aws::makes_session;

pub(super) fn mint(
    (name, spec): (&ResourceId, &CredentialSpec),
    written: &MintSpec,
    known: (&Model, &Parts),
    scope: &mut Scope<'_>,
) -> Option<Mint> {
    for (path, is_written) in
        [("spec.refresh", spec.refresh.is_some()), ("spec.maxStale", spec.max_stale.is_some())]
    {
        if is_written {
            scope.problem(
                path,
                "a minted value lives as long as its endpoint says, and is renewed ahead of that",
            );
        }
    }
    let froms = spec.from.as_ref().map(Froms::each).unwrap_or_default();
    for (at, from) in &froms {
        check_consumed((at, from), written.aws_assume_role.is_some(), scope);
    }
    let fields = [
        (
            "clientCredentials",
            written
                .client_credentials
                .as_ref()
                .map(|c| WrittenMint::ClientCredentials(&c.client_id, &c.auth)),
        ),
        ("tokenExchange", written.token_exchange.as_ref().map(WrittenMint::TokenExchange)),
        ("jwtBearer", written.jwt_bearer.as_ref().map(WrittenMint::JwtBearer)),
        ("githubApp", written.github_app.as_ref().map(WrittenMint::GithubApp)),
        ("awsAssumeRole", written.aws_assume_role.as_ref().map(WrittenMint::AwsAssumeRole)),
        ("awsWebIdentity", written.aws_web_identity.as_ref().map(WrittenMint::AwsWebIdentity)),
    ];
    let grant = scope.exactly_one("spec.mint", fields);
    let default_path = match &grant {
        Some(WrittenMint::GithubApp(app)) => app.installation_id.map(installation_path),
        Some(WrittenMint::AwsAssumeRole(_) | WrittenMint::AwsWebIdentity(_)) => Some("/".to_owned()),
        _ => None,
    };
    let endpoint = endpoint(written, default_path, known, scope);
    let grant = match grant? {
        WrittenMint::ClientCredentials(id, auth) => {
            client(("spec.mint.clientCredentials", id, auth), scope).map(TokenGrant::ClientCredentials)
        }
        WrittenMint::TokenExchange(exchange) => token_exchange(exchange, known, scope),
        WrittenMint::JwtBearer(bearer) => jwt_bearer(bearer, scope),
        WrittenMint::GithubApp(app) => github_app(app, scope),
        WrittenMint::AwsAssumeRole(role) => aws::assume_role((name, role), &froms, endpoint.as_ref(), scope),
        WrittenMint::AwsWebIdentity(role) => aws::web_identity((name, role), scope),
    };
    let asked = [("scope", &written.scope), ("audience", &written.audience), ("resource", &written.resource)];
    for (field, value) in asked {
        text(scope, &format!("spec.mint.{field}"), value.as_deref());
    }
    parameters(&written.parameters, scope);
    if written.github_app.is_some() {
        none_of_oauth(
            "GitHub takes none for an app; `githubApp` has `repositories` and `permissions`",
            scope,
        );
    }
    if written.aws_assume_role.is_some() || written.aws_web_identity.is_some() {
        none_of_oauth("AWS takes none for a role; a session has `sessionPolicy` and `duration`", scope);
    }
    Some(Mint {
        endpoint: endpoint?,
        grant: grant?,
        scope: written.scope.clone(),
        audience: written.audience.clone(),
        resource: written.resource.clone(),
        parameters: written.parameters.clone().into_iter().collect(),
        lifetime: written.lifetime.map(|Interval(lifetime)| lifetime),
    })
}

/// What the grants of OAuth have in common, and others do not take.
fn none_of_oauth(message: &str, scope: &mut Scope<'_>) {
    for field in ["scope", "audience", "resource", "parameters", "lifetime"] {
        let path = format!("spec.mint.{field}");
        if scope.source.has(&path) {
            scope.problem(&path, message);
        }
    }
}

/// A token is made of one value, which has to be there longer than for one mint; only an access key has two halves.
fn check_consumed((at, from): (&str, &FromSpec), is_key: bool, scope: &mut Scope<'_>) {
    if !is_key && from.fields.written().is_some_and(|written| written > 1) {
        scope.problem(&format!("{at}.fields"), "a token is made of one field: name it in `field`");
    }
    if from.dynamic == Some(true) {
        let message = "a token cannot be made of a dynamic secret: its lease would end with the mint, and the token may outlive it";
        scope.problem(&format!("{at}.dynamic"), message);
    }
}

fn installation_path(id: u64) -> String {
    format!("/app/installations/{id}/access_tokens")
}

fn endpoint(
    written: &MintSpec,
    default_path: Option<String>,
    (model, parts): (&Model, &Parts),
    scope: &mut Scope<'_>,
) -> Option<TokenEndpoint> {
    let what = "who makes the token, as in `{destination: idp, path: /oauth2/token}`";
    let endpoint = scope.required("spec.mint.endpoint", written.endpoint.as_ref(), what)?;
    let path = endpoint
        .path
        .clone()
        .or_else(|| default_path.filter(|_| !scope.source.claims("spec.mint.endpoint.path")));
    let is_github = written.github_app.is_some();
    let path = match path {
        // Where it is missing for an app, the installation id is, which is reported there.
        None if is_github => None,
        path => scope.required(
            "spec.mint.endpoint.path",
            path,
            "the path of the token endpoint, as in `/oauth2/token`",
        ),
    };
    if path.as_deref().is_some_and(|path| !is_path(path)) {
        let message = "a path begins with `/` and has no query, no `.`, `..` or empty segment, and nothing that needs an escape";
        scope.problem("spec.mint.endpoint.path", message);
    }
    let at = "spec.mint.endpoint.destination";
    let reference =
        scope.required(at, endpoint.destination.as_ref(), "the Destination that the token endpoint is")?;
    let known = (model.destinations.as_slice(), model.incomplete);
    let destination = scope.resolve((at, reference), known, &parts.destinations)?;
    let name = &destination.name;
    if destination.client_certificate.is_some() {
        scope.problem(at, "a token endpoint is shown no client certificate");
    }
    if destination.proxy.is_some() {
        scope.problem(
            at,
            "a token endpoint is asked directly, and this Destination is reached through a proxy",
        );
    }
    let Some(host) = destination.only_host() else {
        scope.problem(
            at,
            format!("Destination/{name} has to have exactly one host, and no wildcard: a secret goes there"),
        );
        return None;
    };
    if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() && !destination.addresses.is_empty() {
        scope.problem(
            at,
            format!("the host of Destination/{name} is an address itself, so `addresses` cannot hold for it"),
        );
    }
    let Some(http) = destination.http() else {
        scope.problem(at, format!("Destination/{name} does not speak HTTP, as a token endpoint does"));
        return None;
    };
    let Destination { port, addresses, sources, tls, timeouts, .. } = &*destination;
    Some(TokenEndpoint {
        destination: destination.name.clone(),
        host: host.clone(),
        port: *port,
        path: path?,
        addresses: addresses.clone(),
        source_address: sources.first(),
        tls: tls.clone(),
        connect: timeouts.connect,
        first_byte: http.first_byte,
    })
}

fn is_path(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:@!$&'()*+,;=".contains(&b);
    let segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(plain);
    path.strip_prefix('/').is_some_and(|path| path.is_empty() || path.split('/').all(segment))
}

fn client(
    (path, id, auth): (&str, &Option<String>, &Option<ClientAuthSpec>),
    scope: &mut Scope<'_>,
) -> Option<Client> {
    let auth = match auth {
        None if scope.source.claims(&format!("{path}.auth")) => None,
        None => Some(ClientAuth::Basic),
        Some(auth) => client_auth(&format!("{path}.auth"), auth, scope),
    };
    let id_path = format!("{path}.clientId");
    text(scope, &id_path, id.as_deref());
    if !matches!(auth, Some(ClientAuth::Jwt | ClientAuth::SpiffeJwt)) {
        scope.required(&id_path, id.as_ref(), "the id that the client is registered under");
    }
    Some(Client { id: id.clone(), auth: auth? })
}

fn client_auth(path: &str, auth: &ClientAuthSpec, scope: &mut Scope<'_>) -> Option<ClientAuth> {
    let fields = [
        ("basic", auth.basic.as_ref().map(|_| ClientAuth::Basic)),
        ("post", auth.post.as_ref().map(|_| ClientAuth::Post)),
        (
            "privateKeyJwt",
            auth.private_key_jwt.as_ref().map(|key| ClientAuth::PrivateKeyJwt {
                signer: signer(key.algorithm, key.key_id.as_ref()),
                audience: key.audience.clone(),
            }),
        ),
        ("jwt", auth.jwt.as_ref().map(|_| ClientAuth::Jwt)),
        ("spiffeJwt", auth.spiffe_jwt.as_ref().map(|_| ClientAuth::SpiffeJwt)),
    ];
    if let Some(key) = &auth.private_key_jwt {
        text(scope, &format!("{path}.privateKeyJwt.keyId"), key.key_id.as_deref());
        text(scope, &format!("{path}.privateKeyJwt.audience"), key.audience.as_deref());
    }
    scope.exactly_one(path, fields)
}

fn signer(algorithm: Option<AlgorithmWord>, key_id: Option<&String>) -> Signer {
    let algorithm = algorithm.map(|word| match word {
        AlgorithmWord::Rs256 => Algorithm::Rs256,
        AlgorithmWord::Ps256 => Algorithm::Ps256,
        AlgorithmWord::Es256 => Algorithm::Es256,
    });
    Signer { algorithm, key_id: key_id.cloned() }
}

fn token_exchange(
    exchange: &TokenExchangeSpec,
    (model, parts): (&Model, &Parts),
    scope: &mut Scope<'_>,
) -> Option<TokenGrant> {
    let at = "spec.mint.tokenExchange";
    let subject = exchange.subject_token_type.as_deref().unwrap_or("jwt");
    let subject = token_type(&format!("{at}.subjectTokenType"), subject, scope);
    let requested = exchange.requested_token_type.as_deref();
    let requested = requested.map(|word| token_type(&format!("{at}.requestedTokenType"), word, scope));
    let client = match &exchange.client {
        None => None,
        Some(written) => {
            let client = client((&format!("{at}.client"), &written.client_id, &written.auth), scope);
            let from_path = format!("{at}.client.from");
            let what = "where the client's own secret is, as `spec.from` says where the subject token is";
            let from = scope.required(&from_path, written.from.as_ref(), what)?;
            let known = (model.stores.as_slice(), model.incomplete);
            let store = from
                .store
                .as_ref()
                .and_then(|name| scope.resolve((&format!("{from_path}.store"), name), known, &parts.stores));
            check_alone((&from_path, from), scope);
            check_consumed((&from_path, from), false, scope);
            let from = secret_ref((&from_path, from), store.as_deref(), scope);
            Some((client?, from?))
        }
    };
    Some(TokenGrant::TokenExchange {
        subject_token_type: subject?,
        requested_token_type: requested.flatten(),
        client,
    })
}

/// The URI of a token type, by its name in RFC 8693 section 3 or as it is.
fn token_type(path: &str, written: &str, scope: &mut Scope<'_>) -> Option<String> {
    match written {
        "access_token" | "refresh_token" | "id_token" | "saml1" | "saml2" | "jwt" => {
            Some(format!("urn:ietf:params:oauth:token-type:{written}"))
        }
        _ if written.contains(':') && written.bytes().all(|b| b.is_ascii_graphic()) => {
            Some(written.to_owned())
        }
        _ => {
            let message = "write one of access_token, refresh_token, id_token, saml1, saml2, jwt, or the URI of another type";
            scope.problem(path, message);
            None
        }
    }
}

fn jwt_bearer(bearer: &JwtBearerSpec, scope: &mut Scope<'_>) -> Option<TokenGrant> {
    let at = "spec.mint.jwtBearer";
    for (field, value) in
        [("issuer", &bearer.issuer), ("subject", &bearer.subject), ("keyId", &bearer.key_id)]
    {
        text(scope, &format!("{at}.{field}"), value.as_deref());
    }
    if bearer.issuer.is_none() && !scope.source.claims(&format!("{at}.issuer")) {
        for field in ["algorithm", "keyId"] {
            let path = format!("{at}.{field}");
            if scope.source.has(&path) {
                let message = "without an `issuer` the secret is the JSON key of a service account, which says this itself";
                scope.problem(&path, message);
            }
        }
    }
    let signer = signer(bearer.algorithm, bearer.key_id.as_ref());
    Some(TokenGrant::JwtBearer { issuer: bearer.issuer.clone(), subject: bearer.subject.clone(), signer })
}

fn github_app(app: &GithubAppSpec, scope: &mut Scope<'_>) -> Option<TokenGrant> {
    let at = "spec.mint.githubApp";
    let app_id = scope.required(&format!("{at}.appId"), app.app_id, "the number of the app");
    let what = "the number of the installation that the token is for";
    let installation_id = scope.required(&format!("{at}.installationId"), app.installation_id, what);
    for (index, repository) in app.repositories.iter() {
        let path = format!("{at}.repositories[{index}]");
        text(scope, &path, Some(repository));
        if repository.contains('/') {
            scope.problem(&path, "a repository is its name without its owner, which the installation has");
        }
    }
    for (name, level) in &app.permissions {
        if !matches!(level.as_str(), "read" | "write" | "admin") {
            scope.problem(&format!("{at}.permissions.{name}"), "a permission is one of read, write, admin");
        }
    }
    Some(TokenGrant::GithubApp {
        app_id: app_id?,
        installation_id: installation_id?,
        repositories: app.repositories.values().cloned().collect(),
        permissions: app.permissions.clone().into_iter().collect(),
    })
}

fn parameters(written: &BTreeMap<String, String>, scope: &mut Scope<'_>) {
    for (name, value) in written {
        let path = format!("spec.mint.parameters.{name}");
        if OWN_PARAMETERS.contains(&name.as_str()) {
            scope.problem(&path, "the grant has this parameter itself; a field of `mint` says what it is");
        } else if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
            scope.problem(&path, "a parameter has a name of visible ASCII");
        }
        text(scope, &path, Some(value));
    }
}

/// What is written out in a request: something, and in one line.
fn text(scope: &mut Scope<'_>, path: &str, value: Option<&str>) {
    let is_text = |value: &str| !value.trim().is_empty() && !value.chars().any(char::is_control);
    if value.is_some_and(|value| !is_text(value)) {
        scope.problem(path, "this cannot be empty or have control characters");
    }
}
