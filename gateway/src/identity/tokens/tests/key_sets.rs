//! Which keys verify what, and where they may come from.

use super::super::settings::SignatureWord;
use super::*;

#[test]
fn alg_none_and_a_public_key_as_a_shared_secret_prove_nobody() {
    let signer = Signer::rsa("one");
    let issuers = Issuers::of(&[&signer]);
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let message =
            format!("{}.{}", part(json!({"alg": alg, "kid": "one"}).to_string()), part(web().to_string()));
        for signature in ["", "AAAA"] {
            let token = format!("{message}.{signature}");
            assert_eq!(issuers.name(&token), Err(TokenRefusal::Algorithm), "{alg}.{signature}");
        }
    }
    // The public key in every form that somebody may take for a secret.
    let jwk = signer.jwk();
    let modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
    let forms = [modulus, jwk["n"].as_str().unwrap().into(), jwk.to_string().into_bytes()];
    for (form, alg) in forms.iter().zip([Algorithm::HS256, Algorithm::HS384, Algorithm::HS512]) {
        let forger = Signer { kid: "one", algorithm: alg, key: EncodingKey::from_secret(form).unwrap() };
        assert_eq!(issuers.name(&forger.sign(&web())), Err(TokenRefusal::Algorithm), "{alg:?}");
    }
    // A key of one type is not tried with the algorithm of another.
    let header = json!({"alg": "ES256", "kid": "one"}).to_string();
    assert_eq!(issuers.name(&signer.sign_text(&header, &web().to_string())), Err(TokenRefusal::Algorithm));
    let shared =
        json!({"keys": [{"kty": "oct", "kid": "one", "k": part("secret"), "alg": "HS256"}]}).to_string();
    assert!(KeySet::read(shared.as_bytes(), IssuerKind::Oidc).is_err());
}

#[test]
fn an_algorithm_that_the_settings_or_the_key_do_not_name_proves_nobody() {
    let mut signer = Signer::rsa("one");
    let issuers = Issuers::of(&[&signer]);
    signer.algorithm = Algorithm::RS512;
    assert_eq!(issuers.name(&signer.sign(&web())), Err(TokenRefusal::Algorithm), "the key says RS256");
    let unpinned = without(signer.jwk(), "alg");
    let keys = json!({"keys": [unpinned]}).to_string();
    issuers.issuers.all[0].take(KeySet::read(keys.as_bytes(), IssuerKind::Kubernetes).unwrap(), now());
    assert_eq!(issuers.name(&signer.sign(&web())).unwrap(), "k8s:local/shop/web");
    let only: Vec<TokenIssuerSettings> = serde_json::from_value(json!([
        {"kind": "kubernetes", "issuer": ISSUER, "audience": AUDIENCE, "keys": {"file": "keys.json"}, "algorithms": ["ES256"]}
    ]))
    .unwrap();
    fs::write(issuers.folder.path().join("keys.json"), keys).unwrap();
    let pinned = TokenIssuers::new(&only, issuers.folder.path(), Duration::ZERO, HomeCluster::default());
    let token = signer.sign(&web());
    let read = UnverifiedJwt::read(token.as_bytes()).unwrap();
    assert_eq!(pinned.verify(token.as_bytes(), &read, now()).unwrap_err(), TokenRefusal::Algorithm);
    for word in ["none", "HS256", "HS512", "rs256"] {
        assert!(serde_json::from_value::<SignatureWord>(word.into()).is_err(), "{word}");
    }
}

#[test]
fn keys_that_a_token_brings_along_are_not_read() {
    let (signer, forger) = (Signer::ec("one"), Signer::ec("mine"));
    let issuers = Issuers::of(&[&signer]);
    for (name, value) in [
        ("jwk", forger.jwk()),
        ("jku", json!("https://evil.example/keys.json")),
        ("x5u", json!("https://evil.example/cert.pem")),
        ("x5c", json!(["AAAA"])),
    ] {
        let header = with(forger.header(), name, value);
        let refused = issuers.name(&forger.sign_text(&header.to_string(), &web().to_string()));
        assert!(matches!(refused, Err(TokenRefusal::UnknownKey { .. })), "{name}: {refused:?}");
        let header = with(header, "kid", "one");
        assert_eq!(
            issuers.name(&forger.sign_text(&header.to_string(), &web().to_string())),
            Err(TokenRefusal::Signature)
        );
    }
}

#[test]
fn a_token_without_a_kid_is_tried_with_the_keys_that_there_are() {
    let signers = ["a", "b", "c"].map(Signer::ec);
    let issuers = Issuers::of(&signers.each_ref());
    let header = json!({"alg": "ES256"}).to_string();
    assert!(issuers.name(&signers[2].sign_text(&header, &web().to_string())).is_ok());
    assert_eq!(
        issuers.name(&Signer::ec("a").sign_text(&header, &web().to_string())),
        Err(TokenRefusal::Signature)
    );
}

#[test]
fn a_jwt_svid_of_another_trust_domain_and_a_key_that_is_not_for_svids_prove_nobody() {
    let signer = Signer::ec("one");
    let issuers = Issuers::of(&[&signer]);
    let svid = |sub: &str| signer.sign(&json!({"sub": sub, "aud": AUDIENCE, "exp": now().as_second() + 300}));
    for sub in
        ["spiffe://other.test/web", "spiffe://PROD.acme/web", "spiffe://prod.acme.evil/web", "spiffe://"]
    {
        assert_eq!(issuers.name(&svid(sub)), Err(TokenRefusal::UnknownIssuer), "{sub}");
    }
    // An issuer of another kind vouches for no workload.
    let posing = with(with(web(), "iss", CI), "sub", "spiffe://prod.acme/web");
    assert_eq!(issuers.name(&signer.sign(&posing)).unwrap(), "jwt:https://ci.example#spiffe://prod.acme/web");
    let read = |usage: Value| {
        let mut jwk = signer.jwk();
        jwk["use"] = usage;
        KeySet::read(json!({"keys": [jwk]}).to_string().as_bytes(), IssuerKind::Spiffe).map(|keys| keys.len())
    };
    assert_eq!(read(json!("jwt-svid")), Ok(1));
    for usage in [json!("x509-svid"), json!("sig"), json!("enc"), json!(null)] {
        assert!(read(usage.clone()).is_err(), "{usage}");
    }
}

#[test]
fn a_set_of_keys_is_taken_whole_and_leaves_out_what_verifies_nothing() {
    let signer = Signer::ec("one");
    let read = |keys: Value| {
        KeySet::read(json!({"keys": keys}).to_string().as_bytes(), IssuerKind::Oidc).map(|keys| keys.len())
    };
    assert_eq!(read(json!([])), Ok(0), "an issuer that has withdrawn its keys");
    assert_eq!(
        read(json!([{"kty": "new"}, signer.jwk(), 7, {"kty": "EC", "crv": "P-521", "x": "A", "y": "A"}])),
        Ok(1)
    );
    assert!(read(json!([{"kty": "RSA", "n": part([1; 128]), "e": "AQAB"}])).is_err(), "1,024 bits");
    assert!(read(json!([with(signer.jwk(), "use", "enc")])).is_err());
    assert!(read(json!([with(signer.jwk(), "key_ops", json!(["sign"]))])).is_err());
    for text in ["", "[]", "{}", "{\"keys\": {}}", "<html>"] {
        assert!(KeySet::read(text.as_bytes(), IssuerKind::Oidc).is_err(), "{text}");
    }
}

#[test]
fn an_issuer_without_keys_is_told_from_a_bad_token() {
    let signer = Signer::ec("one");
    let folder = tempfile::tempdir().unwrap();
    let settings: Vec<TokenIssuerSettings> = serde_json::from_value(json!([
        {"kind": "kubernetes", "issuer": ISSUER, "audience": AUDIENCE, "keys": {"discovery": {}}}
    ]))
    .unwrap();
    let issuers = TokenIssuers::new(&settings, folder.path(), Duration::ZERO, HomeCluster::default());
    let token = signer.sign(&web());
    let read = UnverifiedJwt::read(token.as_bytes()).unwrap();
    assert_eq!(issuers.verify(token.as_bytes(), &read, now()).unwrap_err(), TokenRefusal::NoKeys);
    assert_eq!(issuers.standing(now())[0].age, None);
}

#[test]
fn a_workload_and_its_service_account_are_one_in_the_gateways_own_cluster_alone() {
    let issuers = Issuers::of(&[&Signer::ec("one")]).issuers;
    let are_one = |certificate: &str, token: &str| {
        issuers.is_one_workload(&certificate.parse().unwrap(), &token.parse().unwrap())
    };
    assert!(are_one("spiffe://prod.acme/ns/shop/sa/web", "k8s:local/shop/web"));
    assert!(are_one("spiffe://prod.acme/web", "spiffe://prod.acme/web"));
    for (certificate, token) in [
        ("spiffe://prod.acme/ns/shop/sa/web", "k8s:eu-1/shop/web"),
        ("spiffe://partner.example/ns/shop/sa/web", "k8s:local/shop/web"),
        ("spiffe://prod.acme/ns/shop/sa/web", "k8s:local/shop/we"),
        ("spiffe://prod.acme/ns/shop/sa/web", "k8s:local/sho/web"),
        ("spiffe://prod.acme/ns/shop/sa/web/x", "k8s:local/shop/web"),
        ("spiffe://prod.acme/x/ns/shop/sa/web", "k8s:local/shop/web"),
        ("spiffe://prod.acme/web", "spiffe://prod.acme/api"),
        ("spiffe://prod.acme/ns/shop/sa/web", "jwt:https://ci.example#spiffe://prod.acme/ns/shop/sa/web"),
    ] {
        assert!(!are_one(certificate, token), "{certificate} {token}");
    }
}

#[test]
fn settings_that_could_prove_the_wrong_caller_are_refused() {
    let wrong = |entries: Value| {
        let settings: Vec<TokenIssuerSettings> = serde_json::from_value(entries).unwrap();
        let found = problems(&settings).into_iter().map(|(field, _)| field);
        found.collect::<Vec<_>>()
    };
    let good =
        json!({"kind": "kubernetes", "issuer": ISSUER, "audience": AUDIENCE, "keys": {"discovery": {}}});
    assert_eq!(wrong(json!([good])), [""; 0]);
    for (name, value, field) in [
        ("issuer", json!(null), "issuer"),
        ("audience", json!(ISSUER), "audience"),
        ("audience", json!(""), "audience"),
        ("trustDomain", json!("prod.acme"), "trustDomain"),
        ("keys", json!({}), "keys"),
        ("keys", json!({"discovery": {}, "file": "a"}), "keys"),
        ("keys", json!({"url": "http://issuer.example/keys"}), "keys.url"),
        ("issuer", json!("http://issuer.example"), "keys.discovery"),
        ("issuer", json!("issuer"), "keys.discovery"),
    ] {
        let found = wrong(json!([with(good.clone(), name, value.clone())]));
        assert!(found.contains(&format!("identity.tokens[0].{field}")), "{name} {value}: {found:?}");
    }
    let twice = wrong(json!([good.clone(), with(good, "audience", "other")]));
    assert_eq!(twice, ["identity.tokens[1].issuer", "identity.tokens[1].cluster"]);
}
