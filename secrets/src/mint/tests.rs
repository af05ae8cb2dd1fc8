use std::collections::BTreeMap;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tollgate_policy::policy::{SecretRef, Signer};

use super::assertion::tests::{ec, rsa, verified};
use super::*;

pub(crate) fn endpoint() -> TokenEndpoint {
    TokenEndpoint {
        destination: "idp".parse().unwrap(),
        host: "idp.example".into(),
        port: 443,
        path: "/oauth2/token".to_owned(),
        addresses: Vec::new(),
        source_address: None,
        tls: TlsVerify::System,
        connect: Duration::from_secs(3),
        first_byte: Duration::from_secs(60),
    }
}

pub(crate) fn mint(endpoint: TokenEndpoint, grant: TokenGrant) -> Mint {
    Mint {
        endpoint,
        grant,
        scope: None,
        audience: None,
        resource: None,
        parameters: Vec::new(),
        lifetime: None,
    }
}

fn value(text: &str) -> Value {
    Zeroizing::new(text.as_bytes().to_vec()).into()
}

struct Asked {
    request: Request,
    form: BTreeMap<String, String>,
}

impl Asked {
    fn header(&self, name: &str) -> &str {
        self.request.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn body(&self) -> &[u8] {
        self.request.body().unwrap().as_bytes().unwrap()
    }
}

fn asked(mint: &Mint, stored: &str, client: Option<&str>) -> Asked {
    let issuer = Issuer::new(mint.endpoint.clone(), &(Arc::new(|_| true) as Dialable));
    let request = issuer.request(mint, &value(stored), client.map(str::as_bytes)).unwrap();
    assert_eq!((request.method(), request.url().as_str()), (&Method::POST, mint.endpoint.url().as_str()));
    let mut asked = Asked { request, form: BTreeMap::new() };
    if asked.header("content-type") == FORM {
        let mut url = Url::parse("https://x").unwrap();
        url.set_query(Some(std::str::from_utf8(asked.body()).unwrap()));
        asked.form = url.query_pairs().into_owned().collect();
    }
    asked
}

fn client(auth: ClientAuth) -> Client {
    Client { id: Some("tollgate".to_owned()), auth }
}

fn by(auth: ClientAuth) -> Mint {
    mint(endpoint(), TokenGrant::ClientCredentials(client(auth)))
}

fn signer() -> Signer {
    Signer { algorithm: None, key_id: None }
}

/// The whole form, as text to compare with.
fn form(asked: &Asked) -> String {
    let pairs: Vec<String> = asked.form.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("\n")
}

#[test]
fn a_client_secret_goes_where_the_endpoint_wants_it_and_not_elsewhere() {
    let basic = asked(&by(ClientAuth::Basic), "s3cret\n", None);
    assert_eq!(form(&basic), "grant_type=client_credentials");
    let authorization = basic.header("authorization").strip_prefix("Basic ").unwrap();
    assert_eq!(STANDARD.decode(authorization).unwrap(), b"tollgate:s3cret");
    let post = asked(&by(ClientAuth::Post), "s3cret\n", None);
    assert_eq!(form(&post), "client_id=tollgate\nclient_secret=s3cret\ngrant_type=client_credentials");
    assert_eq!(post.header("authorization"), "");
    assert_eq!((post.header("accept"), post.header("user-agent")), ("application/json", "tollgate"));
    assert!(format!("{:?}{:?}", basic.request, post.request).find("s3cret").is_none());
}

#[test]
fn what_the_token_is_for_and_every_extra_parameter_is_asked_for() {
    let mint = Mint {
        scope: Some("read write".to_owned()),
        audience: Some("https://api".to_owned()),
        resource: Some("urn:r".to_owned()),
        parameters: vec![("tenant".to_owned(), "a&b".to_owned())],
        ..by(ClientAuth::Basic)
    };
    let expected =
        "audience=https://api\ngrant_type=client_credentials\nresource=urn:r\nscope=read write\ntenant=a&b";
    assert_eq!(form(&asked(&mint, "s", None)), expected);
}

#[test]
fn a_private_key_signs_an_assertion_and_stays() {
    let key = ec();
    let mint = by(ClientAuth::PrivateKeyJwt { signer: signer(), audience: None });
    let asked = asked(&mint, &key.pkcs8, None);
    assert_eq!(asked.form["client_assertion_type"], "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    assert_eq!(asked.form["client_id"], "tollgate");
    let assertion = asked.form["client_assertion"].as_bytes();
    let (_, claims) = verified(assertion, &ECDSA_P256_SHA256_FIXED, &key.public);
    let said = ["iss", "sub", "aud"].map(|name| claims[name].as_str().unwrap());
    assert_eq!(said, ["tollgate", "tollgate", "https://idp.example/oauth2/token"]);
    assert!(!std::str::from_utf8(asked.body()).unwrap().contains("PRIVATE"));
}

#[test]
fn a_jwt_of_somebody_else_is_shown_as_it_is() {
    for (auth, kind) in [(ClientAuth::Jwt, "jwt-bearer"), (ClientAuth::SpiffeJwt, "jwt-spiffe")] {
        let mint = mint(endpoint(), TokenGrant::ClientCredentials(Client { id: None, auth }));
        let expected = format!(
            "client_assertion=e30.e30.x\nclient_assertion_type=urn:ietf:params:oauth:client-assertion-type:{kind}\ngrant_type=client_credentials"
        );
        assert_eq!(form(&asked(&mint, "e30.e30.x\n", None)), expected);
    }
}

#[test]
fn a_subject_token_is_exchanged_with_or_without_a_client() {
    let from = SecretRef {
        store: "s".parse().unwrap(),
        path: "p".to_owned(),
        fields: Vec::new(),
        version: None,
        stage: None,
        version_id: None,
        dynamic: false,
    };
    let grant = |client| TokenGrant::TokenExchange {
        subject_token_type: "urn:jwt".to_owned(),
        requested_token_type: Some("urn:access".to_owned()),
        client,
    };
    let alone = "grant_type=urn:ietf:params:oauth:grant-type:token-exchange\nrequested_token_type=urn:access\nsubject_token=subject\nsubject_token_type=urn:jwt";
    let asked_alone = asked(&mint(endpoint(), grant(None)), "subject\n", None);
    assert_eq!((form(&asked_alone).as_str(), asked_alone.header("authorization")), (alone, ""));
    let with =
        asked(&mint(endpoint(), grant(Some((client(ClientAuth::Post), from)))), "subject\n", Some("s3cret"));
    assert_eq!(form(&with), format!("client_id=tollgate\nclient_secret=s3cret\n{alone}"));
}

#[test]
fn a_jwt_bearer_grant_is_signed_by_a_service_account_or_by_a_named_issuer() {
    let key = rsa();
    let bearer = |issuer: Option<&str>| Mint {
        scope: Some("a b".to_owned()),
        ..mint(
            endpoint(),
            TokenGrant::JwtBearer { issuer: issuer.map(str::to_owned), subject: None, signer: signer() },
        )
    };
    let json = serde_json::json!({"client_email": "sa@p", "private_key": key.pkcs8}).to_string();
    let google = asked(&bearer(None), &json, None);
    assert_eq!(google.form.keys().collect::<Vec<_>>(), ["assertion", "grant_type"]);
    assert_eq!(google.form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let (_, claims) = verified(google.form["assertion"].as_bytes(), &RSA_PKCS1_2048_8192_SHA256, &key.public);
    assert_eq!(
        (&claims["iss"], &claims["scope"], &claims["sub"]),
        (&"sa@p".into(), &"a b".into(), &serde_json::Value::Null)
    );
    assert_eq!(claims["aud"], "https://idp.example/oauth2/token");

    let named = Mint { audience: Some("https://login".to_owned()), ..bearer(Some("3MVG9")) };
    let named = asked(&named, &key.pkcs8, None);
    assert_eq!(named.form.keys().collect::<Vec<_>>(), ["assertion", "grant_type", "scope"]);
    let (_, claims) = verified(named.form["assertion"].as_bytes(), &RSA_PKCS1_2048_8192_SHA256, &key.public);
    assert_eq!(
        (&claims["iss"], &claims["sub"], &claims["aud"]),
        (&"3MVG9".into(), &"3MVG9".into(), &"https://login".into())
    );
}

#[test]
fn an_app_asks_for_an_installation_token_in_its_own_name() {
    let key = rsa();
    let grant = |repositories: &[&str], permissions: &[(&str, &str)]| TokenGrant::GithubApp {
        app_id: 77,
        installation_id: 88,
        repositories: repositories.iter().map(ToString::to_string).collect(),
        permissions: permissions.iter().map(|(name, level)| (name.to_string(), level.to_string())).collect(),
    };
    let endpoint = TokenEndpoint { path: "/app/installations/88/access_tokens".to_owned(), ..endpoint() };
    let all = asked(&mint(endpoint.clone(), grant(&[], &[])), &key.traditional, None);
    assert_eq!((all.body(), all.header("accept")), (b"{}".as_slice(), "application/vnd.github+json"));
    let bearer = all.header("authorization").strip_prefix("Bearer ").unwrap();
    let (_, claims) = verified(bearer.as_bytes(), &RSA_PKCS1_2048_8192_SHA256, &key.public);
    assert_eq!(claims["iss"], "77");
    let life = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
    assert!(life <= 600, "{claims}");
    let some = asked(&mint(endpoint, grant(&["web"], &[("contents", "read")])), &key.pkcs8, None);
    let body: serde_json::Value = serde_json::from_slice(some.body()).unwrap();
    assert_eq!(body, serde_json::json!({"repositories": ["web"], "permissions": {"contents": "read"}}));
    assert!(!format!("{:?}", some.request).contains("eyJ"), "the assertion is not printed");
}

#[tokio::test]
async fn a_stored_secret_that_cannot_be_used_is_not_the_endpoints_fault() {
    let mint = by(ClientAuth::PrivateKeyJwt { signer: signer(), audience: None });
    let issuer = Issuer::new(mint.endpoint.clone(), &(Arc::new(|_| true) as Dialable));
    let refused = issuer.mint(&mint, &value("no key"), None).await.err().unwrap();
    assert!(matches!(refused.failure, Failure::Malformed(_)));
    let health = issuer.health();
    assert_eq!((health.mints, health.failures, health.error), (0, 0, None));
}

#[tokio::test]
async fn an_endpoint_at_an_address_that_may_not_be_dialled_is_shown_nothing() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for (host, addresses) in
        [("127.0.0.1", vec![]), ("localhost", vec![]), ("idp.example", vec!["127.0.0.1".parse().unwrap()])]
    {
        let endpoint = TokenEndpoint { host: host.into(), port, addresses, ..endpoint() };
        let issuer = Issuer::new(endpoint, &(Arc::new(|_| false) as Dialable));
        let outcome = issuer.mint(&by(ClientAuth::Basic), &value("s3cret"), None).await;
        let outcome = outcome.map_err(|refused| refused.failure);
        assert_eq!(outcome.err(), Some(Failure::AddressRefused), "{host}");
        assert_eq!(issuer.health().error, Some("address_refused"));
    }
    assert!(
        tokio::time::timeout(Duration::from_millis(50), listener.accept()).await.is_err(),
        "nothing connected"
    );
}
