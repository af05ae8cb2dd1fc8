//! The same of credentials: where a key is read, what is made of it, and how it is put on a call.

use serde_json::{Value, json};

use super::{Referred, reached, set, texts};
use crate::resource::credential::{Credential, Inject, Injection, Key, SigV4};
use crate::resource::hmac::{Hmac, HmacAlgorithm, KeyEncoding, Piece, SignatureEncoding};
use crate::resource::mint::{
    Algorithm, AwsKey, AwsSession, Client, ClientAuth, Mint, Signer, TokenEndpoint, TokenGrant,
};
use crate::resource::store::SecretRef;

impl Referred<'_> {
    pub(super) fn credential(&self, credential: &Credential) -> Value {
        let Credential { name, destinations, keys, inject, refresh: _, max_stale: _, prefetch: _, mint } =
            credential;
        let keys = keys.iter().map(|Key { alias: _, weight: _, from }| secret(from));
        json!({
            "name": name.as_str(),
            "destinations": texts(destinations.iter().map(|destination| &destination.name)),
            "keys": set(keys),
            "inject": set(inject.iter().map(injection)),
            "mint": mint.as_deref().map(|mint| self.mint(mint)),
        })
    }

    fn mint(&self, mint: &Mint) -> Value {
        let Mint { endpoint, grant, scope, audience, resource, parameters, lifetime: _ } = mint;
        json!({
            "endpoint": self.endpoint(endpoint),
            "grant": token_grant(grant),
            "scope": scope,
            "audience": audience,
            "resource": resource,
            "parameters": pairs(parameters),
        })
    }

    fn endpoint(&self, endpoint: &TokenEndpoint) -> Value {
        let TokenEndpoint {
            destination,
            path,
            // All of them are the destination's.
            host: _,
            port: _,
            addresses: _,
            source_address: _,
            tls: _,
            connect: _,
            first_byte: _,
        } = endpoint;
        let reached = self.destinations.get(destination).map(|destination| reached(destination));
        json!({ "destination": destination.as_str(), "path": path, "reached": reached })
    }
}

fn secret(from: &SecretRef) -> Value {
    let SecretRef { store, path, fields, version, stage, version_id, dynamic } = from;
    json!({
        "store": store.as_str(),
        "path": path,
        "fields": texts(fields),
        "version": version,
        "stage": stage,
        "versionId": version_id,
        "dynamic": dynamic,
    })
}

fn injection(injection: &Injection) -> Value {
    let Injection { field, way } = injection;
    let way = match way {
        Inject::Bearer => json!("bearer"),
        Inject::Header { name, prefix } => json!({ "header": [name, prefix] }),
        Inject::Basic { username } => json!({ "basic": username }),
        Inject::Query { name } => json!({ "query": name }),
        Inject::Cookie { name } => json!({ "cookie": name }),
        Inject::ClientCertificate { certificate, key } => json!({ "clientCertificate": [certificate, key] }),
        Inject::SigV4(SigV4 { access_key_id, secret_access_key, session_token, regions, services }) => {
            json!({
                "sigv4": [access_key_id, secret_access_key, session_token],
                "regions": texts(regions),
                "services": texts(services),
            })
        }
        Inject::Hmac(hmac) => self::hmac(hmac),
    };
    json!({ "field": field, "way": way })
}

fn hmac(hmac: &Hmac) -> Value {
    let Hmac { algorithm, key_encoding, message, encoding, headers, queries } = hmac;
    let algorithm = match algorithm {
        HmacAlgorithm::Sha1 => "sha1",
        HmacAlgorithm::Sha256 => "sha256",
        HmacAlgorithm::Sha512 => "sha512",
    };
    let key_encoding = match key_encoding {
        KeyEncoding::Raw => "raw",
        KeyEncoding::Base64 => "base64",
        KeyEncoding::Hex => "hex",
    };
    let encoding = match encoding {
        SignatureEncoding::Hex => "hex",
        SignatureEncoding::Base64 => "base64",
    };
    let placed = |placed: &[(String, Vec<Piece>)]| {
        set(placed.iter().map(|(name, template)| json!([name, pieces(template)])))
    };
    json!({
        "hmac": [algorithm, key_encoding, encoding],
        "message": pieces(message),
        "headers": placed(headers),
        "queries": placed(queries),
    })
}

fn pieces(template: &[Piece]) -> Vec<Value> {
    let piece = |piece: &Piece| match piece {
        Piece::Text(text) => json!({ "text": text }),
        Piece::Field(name) => json!({ "field": name }),
        other => json!(other.word()),
    };
    template.iter().map(piece).collect()
}

fn token_grant(grant: &TokenGrant) -> Value {
    match grant {
        TokenGrant::ClientCredentials(client) => json!({ "clientCredentials": self::client(client) }),
        TokenGrant::TokenExchange { subject_token_type, requested_token_type, client } => {
            let client = client.as_ref().map(|(client, from)| json!([self::client(client), secret(from)]));
            json!({ "tokenExchange": [subject_token_type, requested_token_type], "client": client })
        }
        TokenGrant::JwtBearer { issuer, subject, signer } => {
            json!({ "jwtBearer": [issuer, subject], "signer": self::signer(signer) })
        }
        TokenGrant::GithubApp { app_id, installation_id, repositories, permissions } => json!({
            "githubApp": [app_id, installation_id],
            "repositories": texts(repositories),
            "permissions": pairs(permissions),
        }),
        TokenGrant::AwsAssumeRole {
            key: AwsKey { access_key_id, secret_access_key },
            region,
            external_id,
            session,
        } => {
            json!({
                "awsAssumeRole": [access_key_id, secret_access_key, region],
                "externalId": external_id,
                "session": self::session(session),
            })
        }
        TokenGrant::AwsWebIdentity(session) => json!({ "awsWebIdentity": self::session(session) }),
    }
}

fn session(session: &AwsSession) -> Value {
    let AwsSession { role_arn, name, policy, duration } = session;
    json!({ "roleArn": role_arn, "name": name, "policy": policy, "seconds": duration.map(|time| time.as_secs()) })
}

fn client(client: &Client) -> Value {
    let Client { id, auth } = client;
    let auth = match auth {
        ClientAuth::Basic => json!("basic"),
        ClientAuth::Post => json!("post"),
        ClientAuth::PrivateKeyJwt { signer, audience } => {
            json!({ "privateKeyJwt": self::signer(signer), "audience": audience })
        }
        ClientAuth::Jwt => json!("jwt"),
        ClientAuth::SpiffeJwt => json!("spiffeJwt"),
    };
    json!({ "id": id, "auth": auth })
}

fn signer(signer: &Signer) -> Value {
    let Signer { algorithm, key_id } = signer;
    let algorithm = algorithm.map(|algorithm| match algorithm {
        Algorithm::Rs256 => "RS256",
        Algorithm::Ps256 => "PS256",
        Algorithm::Es256 => "ES256",
    });
    json!({ "algorithm": algorithm, "keyId": key_id })
}

fn pairs(pairs: &[(String, String)]) -> Value {
    set(pairs.iter().map(|pair| json!(pair)))
}
