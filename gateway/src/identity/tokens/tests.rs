//! Attacks on tokens, by name, and the tokens that are good.

mod key_sets;

use std::fs;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::SignedDuration;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::keys::KeySet;
use super::*;
use crate::identity::call_proof::over;

const ISSUER: &str = "https://kubernetes.default.svc";
const CI: &str = "https://ci.example";
const AUDIENCE: &str = "tollgate";

fn now() -> Timestamp {
    Timestamp::now()
}

fn part(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

struct Signer {
    kid: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Signer {
    fn ec(kid: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let der = pair.to_pkcs8v1().unwrap();
        Self { kid, algorithm: Algorithm::ES256, key: EncodingKey::from_ec_der(der.as_ref()) }
    }

    fn rsa(kid: &'static str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
        // Of PKCS#8 the key itself, as PKCS#1 has it.
        let key = EncodingKey::from_rsa_der(der.as_ref().get(26..).unwrap());
        Self { kid, algorithm: Algorithm::RS256, key }
    }

    fn jwk(&self) -> Value {
        let mut jwk =
            serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap()).unwrap();
        jwk["kid"] = self.kid.into();
        jwk
    }

    /// As written, so that what no library would write can be signed too.
    fn sign_text(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", part(header), part(claims));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }

    fn header(&self) -> Value {
        json!({"alg": format!("{:?}", self.algorithm), "kid": self.kid, "typ": "JWT"})
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_text(&self.header().to_string(), &claims.to_string())
    }
}

/// The claims of a projected token of Kubernetes 1.34.
fn web() -> Value {
    let at = now().as_second();
    json!({
        "iss": ISSUER, "sub": "system:serviceaccount:shop:web", "aud": [AUDIENCE],
        "exp": at + 600, "nbf": at - 5, "iat": at - 5,
        "kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "web", "uid": "1"}, "pod": {"name": "web-0"}},
    })
}

fn with(mut claims: Value, name: &str, value: impl Into<Value>) -> Value {
    claims[name] = value.into();
    claims
}

fn without(mut claims: Value, name: &str) -> Value {
    claims.as_object_mut().unwrap().remove(name);
    claims
}

struct Issuers {
    folder: TempDir,
    issuers: TokenIssuers,
}

impl Issuers {
    /// A cluster, an issuer and a trust domain, all three with the keys of `signers`.
    fn of(signers: &[&Signer]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
        let svid = |mut key: Value| {
            key["use"] = "jwt-svid".into();
            key
        };
        let bundle: Vec<Value> = keys.iter().cloned().map(svid).collect();
        fs::write(folder.path().join("keys.json"), json!({"keys": keys}).to_string()).unwrap();
        fs::write(folder.path().join("bundle.json"), json!({"keys": bundle}).to_string()).unwrap();
        let settings: Vec<TokenIssuerSettings> = serde_json::from_value(json!([
            {"kind": "kubernetes", "issuer": ISSUER, "audience": AUDIENCE, "keys": {"file": "keys.json"}},
            {"kind": "oidc", "issuer": CI, "audience": AUDIENCE, "keys": {"file": "keys.json"}},
            {"kind": "spiffe", "trustDomain": "prod.acme", "audience": AUDIENCE, "keys": {"file": "bundle.json"}},
        ]))
        .unwrap();
        assert_eq!(problems(&settings), []);
        let home = HomeCluster {
            gateway_namespace: None,
            trust_domain: Some("prod.acme".parse().unwrap()),
            name: Some("local".parse().unwrap()),
        };
        let issuers = TokenIssuers::new(&settings, folder.path(), Duration::from_secs(5), home);
        Self { folder, issuers }
    }

    fn verify(&self, token: &str) -> Result<VerifiedToken, TokenRefusal> {
        let read = UnverifiedJwt::read(token.as_bytes()).ok_or(TokenRefusal::Malformed)?;
        self.issuers.verify(token.as_bytes(), &read, now())
    }

    fn name(&self, token: &str) -> Result<String, TokenRefusal> {
        self.verify(token).map(|token| token.identity().to_string())
    }

    /// Whether something was told to fetch keys.
    fn is_asked(&self) -> bool {
        let mut wanted = std::pin::pin!(self.issuers.all[0].wanted.notified());
        wanted.as_mut().enable()
    }
}

#[test]
fn a_token_proves_the_caller_of_its_issuers_kind() {
    for signer in [Signer::ec("one"), Signer::rsa("one")] {
        let issuers = Issuers::of(&[&signer]);
        assert_eq!(issuers.name(&signer.sign(&web())).unwrap(), "k8s:local/shop/web");
        let ci = with(with(web(), "iss", CI), "sub", "repo:acme/shop:ref:refs/heads/main");
        assert_eq!(
            issuers.name(&signer.sign(&without(ci, "kubernetes.io"))).unwrap(),
            "jwt:https://ci.example#repo:acme/shop:ref:refs/heads/main"
        );
        let svid = json!({"sub": "spiffe://prod.acme/ns/shop/sa/web", "aud": AUDIENCE, "exp": now().as_second() + 300});
        assert_eq!(issuers.name(&signer.sign(&svid)).unwrap(), "spiffe://prod.acme/ns/shop/sa/web");
    }
}

#[test]
fn a_token_ends_with_its_time_and_with_its_key() {
    let (old, new) = (Signer::ec("old"), Signer::ec("new"));
    let issuers = Issuers::of(&[&old]);
    let verified = issuers.verify(&old.sign(&web())).unwrap();
    let all = &issuers.issuers;
    assert_eq!(all.check_current(&verified, now()), Ok(()));
    let later = now() + SignedDuration::from_secs(606);
    assert_eq!(
        all.check_current(&verified, later),
        Err(TokenRefusal::Expired),
        "600 s and 5 s of difference"
    );
    let both = json!({"keys": [old.jwk(), new.jwk()]}).to_string();
    assert!(all.all[0].take(KeySet::read(both.as_bytes(), IssuerKind::Kubernetes).unwrap(), now()));
    assert_eq!(all.check_current(&verified, now()), Ok(()), "another key beside it changes nothing");
    assert_eq!(issuers.name(&new.sign(&web())).unwrap(), "k8s:local/shop/web", "a rotated key is followed");
    let gone = json!({"keys": [new.jwk()]}).to_string();
    assert!(all.all[0].take(KeySet::read(gone.as_bytes(), IssuerKind::Kubernetes).unwrap(), now()));
    assert_eq!(all.check_current(&verified, now()), Err(TokenRefusal::KeyGone));
    assert!(matches!(issuers.verify(&old.sign(&web())), Err(TokenRefusal::UnknownKey { .. })));
}

#[test]
fn what_is_under_way_ends_a_minute_after_its_token_was_withdrawn_or_expired_whichever_attempt_asks() {
    let (old, new) = (Signer::ec("old"), Signer::ec("new"));
    let issuers = Issuers::of(&[&old]);
    let (withdrawn, expired) = (old.sign(&web()), old.sign(&web()));
    let (withdrawn, expired) = (issuers.verify(&withdrawn).unwrap(), issuers.verify(&expired).unwrap());
    let all = &issuers.issuers;
    let begun = now();
    let after = |seconds| begun + SignedDuration::from_secs(seconds);
    assert!(over(&withdrawn, all, begun).is_none());
    let end = |seconds| expired.expires + SignedDuration::from_secs(seconds);
    assert!(over(&expired, all, end(60)).is_none() && over(&expired, all, end(61)).is_some());

    let gone = json!({"keys": [new.jwk()]}).to_string();
    assert!(all.all[0].take(KeySet::read(gone.as_bytes(), IssuerKind::Kubernetes).unwrap(), now()));
    // Each attempt asks anew, and the first has found it.
    assert!(over(&withdrawn, all, after(10)).is_none());
    assert!(over(&withdrawn, all, after(70)).is_none());
    assert!(over(&withdrawn, all, after(71)).is_some());
}

#[test]
fn a_forged_signature_or_changed_claims_prove_nobody() {
    let (signer, forger) = (Signer::ec("one"), Signer::ec("one"));
    let issuers = Issuers::of(&[&signer]);
    assert_eq!(issuers.name(&forger.sign(&web())), Err(TokenRefusal::Signature));
    let good = signer.sign(&web());
    let [header, _, signature] = [0, 1, 2].map(|at| good.split('.').nth(at).unwrap());
    let other = part(with(web(), "sub", "system:serviceaccount:shop:admin").to_string());
    assert_eq!(
        issuers.name(&format!("{header}.{other}.{signature}")),
        Err(TokenRefusal::Contradiction).or(Err(TokenRefusal::Signature))
    );
}

#[test]
fn an_audience_that_is_not_ours_proves_nobody_and_ours_may_be_one_of_several() {
    let signer = Signer::ec("one");
    let issuers = Issuers::of(&[&signer]);
    for aud in [
        json!("api"),
        json!([]),
        json!(["api", ISSUER]),
        json!("tollgate2"),
        json!("Tollgate"),
        json!(["toll", "gate"]),
    ] {
        assert_eq!(
            issuers.name(&signer.sign(&with(web(), "aud", aud.clone()))),
            Err(TokenRefusal::Audience),
            "{aud}"
        );
    }
    assert_eq!(issuers.name(&signer.sign(&without(web(), "aud"))), Err(TokenRefusal::Audience));
    for aud in [json!("tollgate"), json!(["api", "tollgate"])] {
        assert_eq!(issuers.name(&signer.sign(&with(web(), "aud", aud))).unwrap(), "k8s:local/shop/web");
    }
    for aud in [json!({"tollgate": 1}), json!(1), json!([["tollgate"]])] {
        assert_eq!(
            issuers.name(&signer.sign(&with(web(), "aud", aud.clone()))),
            Err(TokenRefusal::Malformed),
            "{aud}"
        );
    }
}

#[test]
fn a_token_that_is_expired_or_not_valid_yet_proves_nobody() {
    let signer = Signer::ec("one");
    let issuers = Issuers::of(&[&signer]);
    let at = now().as_second();
    for (claim, value, refusal) in [
        ("exp", json!(at - 6), TokenRefusal::Expired),
        ("exp", json!(0), TokenRefusal::Expired),
        ("exp", json!(-1e300), TokenRefusal::Expired),
        ("exp", json!("9999999999"), TokenRefusal::Malformed),
        ("exp", json!(null), TokenRefusal::Malformed),
        ("nbf", json!(at + 60), TokenRefusal::NotYetValid),
        ("nbf", json!(1e300), TokenRefusal::NotYetValid),
        ("nbf", json!("0"), TokenRefusal::Malformed),
    ] {
        assert_eq!(
            issuers.name(&signer.sign(&with(web(), claim, value.clone()))),
            Err(refusal),
            "{claim}: {value}"
        );
    }
    assert_eq!(issuers.name(&signer.sign(&without(web(), "exp"))), Err(TokenRefusal::Malformed));
    for (claim, value) in [
        ("exp", json!(at - 3)),
        ("exp", json!(1e11)),
        ("exp", json!(at as f64 + 0.5)),
        ("nbf", json!(at + 4)),
    ] {
        assert!(issuers.name(&signer.sign(&with(web(), claim, value.clone()))).is_ok(), "{claim}: {value}");
    }
}

#[test]
fn an_unknown_kid_asks_for_keys_once_a_minute_and_waits_for_nothing() {
    let (known, unknown) = (Signer::ec("one"), Signer::ec("two"));
    let issuers = Issuers::of(&[&known]);
    assert!(!issuers.is_asked());
    assert_eq!(issuers.name(&unknown.sign(&web())), Err(TokenRefusal::UnknownKey { is_asked: true }));
    assert!(issuers.is_asked(), "the task that keeps the keys is told");
    for kid in ["../../etc/passwd", "one' OR '1'='1", "https://evil.example/keys.json", "", "one\u{0}"] {
        let header = json!({"alg": "ES256", "kid": kid}).to_string();
        let refused = issuers.name(&unknown.sign_text(&header, &web().to_string()));
        assert!(matches!(refused, Err(TokenRefusal::UnknownKey { .. })), "{kid}: {refused:?}");
    }
    assert!(!issuers.is_asked(), "one a minute, whatever comes");
    let token = unknown.sign(&web());
    let read = UnverifiedJwt::read(token.as_bytes()).unwrap();
    let later = now() + SignedDuration::from_secs(61);
    let refused = issuers.issuers.verify(token.as_bytes(), &read, later).unwrap_err();
    assert_eq!(refused, TokenRefusal::UnknownKey { is_asked: true });
    assert!(issuers.is_asked());
}

#[test]
fn what_two_readers_could_read_differently_proves_nobody() {
    let signer = Signer::ec("one");
    let issuers = Issuers::of(&[&signer]);
    let (header, claims) = (signer.header().to_string(), web().to_string());
    let twice = |text: &str, member: &str| format!("{{{member},{}", &text[1..]);
    for member in [
        "\"sub\":\"system:serviceaccount:shop:admin\"",
        "\"iss\":\"https://ci.example\"",
        "\"aud\":\"tollgate\"",
        "\"exp\":9999999999",
        "\"nbf\":0",
        "\"kubernetes.io\":{}",
        "\"s\\u0075b\":\"system:serviceaccount:shop:admin\"",
    ] {
        let token = signer.sign_text(&header, &twice(&claims, member));
        assert_eq!(issuers.name(&token), Err(TokenRefusal::Malformed), "{member}");
    }
    for member in ["\"alg\":\"none\"", "\"kid\":\"two\"", "\"crit\":[],\"crit\":[]"] {
        let token = signer.sign_text(&twice(&header, member), &claims);
        assert_eq!(issuers.name(&token), Err(TokenRefusal::Malformed), "{member}");
    }
    for (header, claims) in
        [("[]", &*claims), (&*header, "[]"), ("{}", &*claims), (&*header, "x"), (&*header, "{} {}")]
    {
        assert!(issuers.name(&signer.sign_text(header, claims)).is_err(), "{header} {claims}");
    }
}

#[test]
fn what_demands_an_extension_or_is_no_svid_by_its_type_proves_nobody() {
    let signer = Signer::ec("one");
    let issuers = Issuers::of(&[&signer]);
    for crit in [json!(["b64"]), json!([]), json!(["exp"]), json!(null)] {
        let header = with(with(signer.header(), "crit", crit.clone()), "b64", true).to_string();
        assert_eq!(
            issuers.name(&signer.sign_text(&header, &web().to_string())),
            Err(TokenRefusal::Critical),
            "{crit}"
        );
    }
    let header = with(signer.header(), "b64", false).to_string();
    assert_eq!(issuers.name(&signer.sign_text(&header, &web().to_string())), Err(TokenRefusal::Signature));
    let svid =
        json!({"sub": "spiffe://prod.acme/web", "aud": AUDIENCE, "exp": now().as_second() + 300}).to_string();
    for (typ, is_good) in [("JWT", true), ("JOSE", true), ("at+jwt", false), ("logout+jwt", false)] {
        let header = with(signer.header(), "typ", typ).to_string();
        assert_eq!(issuers.name(&signer.sign_text(&header, &svid)).is_ok(), is_good, "{typ}");
    }
}

#[test]
fn an_oversized_token_is_not_looked_into() {
    let signer = Signer::ec("one");
    let large = signer.sign(&with(web(), "note", "x".repeat(8 << 10)));
    assert!(UnverifiedJwt::read(large.as_bytes()).is_none());
    let fits = signer.sign(&with(web(), "note", "x".repeat(4 << 10)));
    assert!(Issuers::of(&[&signer]).name(&fits).is_ok());
}

#[test]
fn another_clusters_issuer_is_not_known() {
    let signer = Signer::ec("one");
    let issuers = Issuers::of(&[&signer]);
    for iss in
        ["https://other.cluster", "https://kubernetes.default.svc/", "https://KUBERNETES.default.svc", ""]
    {
        assert_eq!(
            issuers.name(&signer.sign(&with(web(), "iss", iss))),
            Err(TokenRefusal::UnknownIssuer),
            "{iss}"
        );
    }
    assert_eq!(issuers.name(&signer.sign(&without(web(), "iss"))), Err(TokenRefusal::UnknownIssuer));
    let several = with(web(), "iss", json!([ISSUER, "https://other.cluster"]));
    assert_eq!(issuers.name(&signer.sign(&several)), Err(TokenRefusal::Malformed));
    // Another cluster by the same name has other keys.
    assert_eq!(issuers.name(&Signer::ec("one").sign(&web())), Err(TokenRefusal::Signature));
}

#[test]
fn a_cluster_vouches_for_service_accounts_alone_and_for_one_at_a_time() {
    let signer = Signer::ec("one");
    let issuers = Issuers::of(&[&signer]);
    let plain = || without(web(), "kubernetes.io");
    for sub in [
        "system:node:a",
        "system:serviceaccount:shop",
        "system:serviceaccount:shop:web:x",
        "system:serviceaccount::web",
        "system:serviceaccount:shop:",
        "system:serviceaccount:Shop:web",
        "system:serviceaccount:shop:*",
        "spiffe://prod.acme/web",
        "",
    ] {
        assert_eq!(
            issuers.name(&signer.sign(&with(plain(), "sub", sub))),
            Err(TokenRefusal::Subject),
            "{sub}"
        );
    }
    assert!(issuers.name(&signer.sign(&without(plain(), "sub"))).is_err());
    assert_eq!(issuers.name(&signer.sign(&plain())).unwrap(), "k8s:local/shop/web");
    for said in [json!({"namespace": "billing"}), json!({"serviceaccount": {"name": "admin"}})] {
        let token = signer.sign(&with(web(), "kubernetes.io", said.clone()));
        assert_eq!(issuers.name(&token), Err(TokenRefusal::Contradiction), "{said}");
    }
}
