use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED, KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};
use base64::engine::general_purpose::STANDARD;

use super::*;

/// A key in the forms in which it is kept, and its public half.
pub(crate) struct Kept {
    pub(crate) pkcs8: String,
    pub(crate) traditional: String,
    pub(crate) public: Vec<u8>,
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

pub(crate) fn rsa() -> Kept {
    let key = RsaKey::generate(KeySize::Rsa2048).unwrap();
    let pkcs8: Pkcs8V1Der<'_> = key.as_der().unwrap();
    let pkcs8 = pkcs8.as_ref();
    // PKCS #8 is a version, the algorithm, and the traditional form in an octet string.
    let inner = pkcs8.windows(2).position(|window| window == [0x04, 0x82]).unwrap() + 4;
    let public = key.public_key().as_ref().to_vec();
    Kept { pkcs8: pem("PRIVATE KEY", pkcs8), traditional: pem("RSA PRIVATE KEY", &pkcs8[inner..]), public }
}

pub(crate) fn ec() -> Kept {
    let key = EcKey::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let pkcs8 = key.to_pkcs8v1().unwrap();
    let sec1: EcPrivateKeyRfc5915Der<'_> = key.private_key().as_der().unwrap();
    let public = key.public_key().as_ref().to_vec();
    Kept {
        pkcs8: pem("PRIVATE KEY", pkcs8.as_ref()),
        traditional: pem("EC PRIVATE KEY", sec1.as_ref()),
        public,
    }
}

/// Header and claims of a token whose signature is that of `public`.
pub(crate) fn verified(
    token: &[u8],
    algorithm: &'static dyn VerificationAlgorithm,
    public: &[u8],
) -> (Value, Value) {
    let text = std::str::from_utf8(token).unwrap();
    let (message, signature) = text.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    UnparsedPublicKey::new(algorithm, public).verify(message.as_bytes(), &signature).unwrap();
    let (header, claims) = message.split_once('.').unwrap();
    let json = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    (json(header), json(claims))
}

fn claims() -> Claims<'static> {
    Claims { issuer: "tollgate", subject: Some("tollgate"), audience: Some("https://idp/token"), scope: None }
}

fn sign(algorithm: Option<Algorithm>, pem: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let signer = Signer { algorithm, key_id: Some("k1".to_owned()) };
    signed(&claims(), SHORT, &signer, pem.as_bytes())
}

#[test]
fn every_algorithm_signs_with_every_form_of_its_key() {
    let (rsa, ec) = (rsa(), ec());
    let cases: [(Option<Algorithm>, &Kept, &'static dyn VerificationAlgorithm, &str); 5] = [
        (None, &rsa, &RSA_PKCS1_2048_8192_SHA256, "RS256"),
        (Some(Algorithm::Rs256), &rsa, &RSA_PKCS1_2048_8192_SHA256, "RS256"),
        (Some(Algorithm::Ps256), &rsa, &RSA_PSS_2048_8192_SHA256, "PS256"),
        (None, &ec, &ECDSA_P256_SHA256_FIXED, "ES256"),
        (Some(Algorithm::Es256), &ec, &ECDSA_P256_SHA256_FIXED, "ES256"),
    ];
    for (algorithm, key, verifier, word) in cases {
        for pem in [&key.pkcs8, &key.traditional] {
            let before = unix_seconds().unwrap();
            let (header, claims) = verified(&sign(algorithm, pem).unwrap(), verifier, &key.public);
            assert_eq!(header, serde_json::json!({"alg": word, "typ": "JWT", "kid": "k1"}));
            assert_eq!(
                (&claims["iss"], &claims["sub"], &claims["aud"]),
                (&"tollgate".into(), &"tollgate".into(), &"https://idp/token".into())
            );
            let (iat, exp) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
            assert!(iat <= before && before < exp && exp - iat <= 300, "{claims}");
            assert!(claims["jti"].as_str().is_some_and(|id| id.len() == 22));
        }
    }
}

#[test]
fn no_assertion_is_made_twice() {
    let key = ec();
    let id =
        || verified(&sign(None, &key.pkcs8).unwrap(), &ECDSA_P256_SHA256_FIXED, &key.public).1["jti"].clone();
    assert_ne!(id(), id());
}

#[test]
fn what_is_no_such_key_is_named_and_not_repeated() {
    let (rsa, ec) = (rsa(), ec());
    let other = signature::EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let other = pem("PRIVATE KEY", other.to_pkcs8v1().unwrap().as_ref());
    let broken = ec.pkcs8.replace('\n', "!");
    let protected = pem("ENCRYPTED PRIVATE KEY", b"canary");
    for (algorithm, text, expected) in [
        (Some(Algorithm::Es256), rsa.pkcs8.as_str(), "P-256"),
        (Some(Algorithm::Es256), rsa.traditional.as_str(), "P-256"),
        (Some(Algorithm::Rs256), ec.pkcs8.as_str(), "RSA"),
        (Some(Algorithm::Ps256), ec.traditional.as_str(), "RSA"),
        (None, other.as_str(), "neither"),
        (None, broken.as_str(), "PEM"),
        (None, protected.as_str(), "PEM"),
        (None, "canary", "PEM"),
        (None, "-----BEGIN PRIVATE KEY-----canary", "PEM"),
        (None, "-----BEGIN PRIVATE KEY----------END PRIVATE KEY-----", "neither"),
    ] {
        let failure = sign(algorithm, text).err().unwrap();
        assert!(matches!(failure, Failure::Malformed(why) if why.contains(expected)), "{text}: {failure}");
    }
}

#[test]
fn the_key_of_a_service_account_says_who_it_is_itself() {
    let key = rsa();
    let json = serde_json::json!({
        "type": "service_account", "client_email": "sa@p.iam.gserviceaccount.com", "private_key": key.pkcs8,
        "private_key_id": "abc", "token_uri": "https://evil.example/token",
    });
    let account = ServiceAccount::read(json.to_string().as_bytes()).unwrap();
    let token = account.assertion(Some("user@p"), "https://idp/token", Some("a b")).unwrap();
    let (header, claims) = verified(&token, &RSA_PKCS1_2048_8192_SHA256, &key.public);
    assert_eq!(header["kid"], "abc");
    let said = ["iss", "sub", "aud", "scope"].map(|name| claims[name].as_str().unwrap());
    assert_eq!(said, ["sa@p.iam.gserviceaccount.com", "user@p", "https://idp/token", "a b"]);
    for text in [key.pkcs8.as_str(), "{}", r#"{"client_email": "x", "private_key": 7}"#] {
        assert!(matches!(ServiceAccount::read(text.as_bytes()), Err(Failure::Malformed(_))), "{text}");
    }
}
