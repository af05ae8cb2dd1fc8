//! The SPIFFE Workload API of a real SPIRE: the gateway's own SVID and the bundles that callers are verified with, while they change.

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tollgate_tests::bao::Bao;
use tollgate_tests::client::Connection;
use tollgate_tests::fixture::CHECKOUT;
use tollgate_tests::gateway::{binary, eventually, field};
use tollgate_tests::resources::{credential, destination, document, grant};
use tollgate_tests::spire::{Entry, Spire};
use tollgate_tests::{
    Authority, Client, Gateway, Identity, Leaf, Plan, Protocol, Reply, Sandbox, SecretKind, Seen, Upstream,
    needs,
};

const PARTNER: &str = "spiffe://partner.example/ns/billing/sa/web";
/// As short as it is renewed every few seconds.
const SECONDS: u32 = 16;

async fn upstream(plan: &Plan) -> Upstream {
    Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200).data("through")).await
}

/// A gateway that knows nothing of its identity but the Workload API, and whom it accepts.
async fn gateway(plan: Plan, spire: &Spire, domains: &[&str]) -> (Gateway, Upstream, Sandbox) {
    let upstream = upstream(&plan).await;
    let mut settings = plan.complete(upstream.port());
    for (_, text) in settings.resources.iter_mut().filter(|_| domains.contains(&"partner.example")) {
        let caller = "{spiffe: \"spiffe://prod.acme/ns/checkout/sa/*\"}";
        assert!(text.contains(caller), "{text}");
        *text = text.replace(caller, &format!("{caller}, {{spiffe: \"{PARTNER}\"}}"));
    }
    let files = |settings: &tollgate_tests::Settings| {
        let own = &settings.certificate;
        format!("certificate: {{certFile: {}, keyFile: {}}}", own.cert.display(), own.key.display())
    };
    let gateway = Gateway::prepare(&plan.sandbox, &settings);
    gateway.edit_settings(&files(&settings), &format!("workloadApi: unix://{}", spire.socket().display()));
    let bundle = format!("    prod.acme: {{bundleFile: {}}}\n", plan.prod.bundle().display());
    let accepted = domains.iter().map(|name| format!("    {name}: {{}}\n")).collect::<String>();
    if domains.len() == 2 {
        let example = include_str!("../../examples/spire/tollgate.yaml");
        assert!(
            example.contains(&format!("  trustDomains:\n{accepted}")),
            "the example says what is tried here"
        );
    }
    gateway.edit_settings(&bundle, &accepted);
    (gateway, upstream, plan.sandbox)
}

/// What the gateway's own program and the callers get.
fn register(spire: &Spire, federated: Option<&str>) {
    let names = ["localhost", "tollgate.test"];
    spire.register(&Entry {
        path: "/ns/egress/sa/tollgate",
        program: &binary(),
        names: &names,
        seconds: SECONDS,
        federated,
    });
    let path = CHECKOUT.strip_prefix("spiffe://prod.acme").unwrap();
    spire.register(&Entry { path, program: &Spire::client(), names: &[], seconds: 3600, federated });
}

fn roots(bundle: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(bundle).unwrap() {
        roots.add(root.unwrap()).unwrap();
    }
    roots
}

fn caller(sandbox: &Sandbox, gateway: &Gateway, spire: &Spire, identity: Identity) -> Client {
    Client::new(sandbox, gateway.address(), roots(&spire.bundle()), Some(identity))
}

/// How many SVIDs the gateway has taken.
fn rotations(gateway: &Gateway) -> usize {
    let log = gateway.log();
    log.iter()
        .filter(|line| {
            field(line, "message").as_str().is_some_and(|said| said.starts_with("SVID spiffe://prod.acme/"))
        })
        .count()
}

async fn call(connection: &mut Connection, client: &Client) {
    connection.send(client.request(Method::GET, "/up/x", "")).await.unwrap().assert_status(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn svids_of_the_workload_api_change_under_load_and_outlive_the_agent() {
    needs!(Spire::installed());
    let plan = Plan::new();
    let mut spire = Spire::start(&plan.sandbox, "prod.acme", None).await;
    let (mut gateway, upstream, sandbox) = gateway(plan, &spire, &["prod.acme"]).await;
    gateway.launch().await;
    let (status, why) = gateway.admin_get("/readyz");
    assert_eq!(status, 503, "{why}");
    assert!(why.contains("has said no SVID yet"), "{why}");
    register(&spire, None);
    let identity = spire.svid().await;
    gateway.ready().await;
    let client = caller(&sandbox, &gateway, &spire, identity);
    let mut old = client.open(Protocol::H1).await.unwrap();
    call(&mut old, &client).await;
    let (begun, before, mut calls) = (Instant::now(), rotations(&gateway), 0);
    while rotations(&gateway) < before + 2 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the SVID does not change");
        client.get("/up/x").await.assert_status(200);
        calls += 1;
    }
    call(&mut old, &client).await;
    assert!(calls > 20, "{calls} calls, each with a handshake, and none failed");
    spire.kill_agent();
    let killed = Instant::now();
    let mut served = 0;
    while gateway.admin_get("/readyz").0 == 200 {
        assert!(killed.elapsed() < Duration::from_secs(60), "the last SVID never ends");
        if served < 20 {
            client.get("/up/x").await.assert_status(200);
        }
        served += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(served >= 20, "the last SVID serves while it lasts");
    let why = gateway.admin_get("/readyz").1;
    assert!(why.contains("the SVID ended at") && why.contains("cannot be connected to"), "{why}");
    spire.restart_agent().await;
    gateway.ready().await;
    client.get("/up/x").await.assert_status(200);
    assert_eq!(upstream.count(), calls + 20 + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn federated_trust_domains_are_accepted_each_through_its_own_bundle_of_the_workload_api() {
    needs!(Spire::installed());
    let plan = Plan::new();
    let root = Authority::new(&plan.sandbox, "partner-root");
    let prod = Spire::start(&plan.sandbox, "prod.acme", None).await;
    let partner = Spire::start(&plan.sandbox, "partner.example", Some(&root)).await;
    prod.federate(&partner);
    register(&prod, Some("partner.example"));
    let path = PARTNER.strip_prefix("spiffe://partner.example").unwrap();
    partner.register(&Entry { path, program: &Spire::client(), names: &[], seconds: 3600, federated: None });
    let (mut gateway, upstream, sandbox) = gateway(plan, &prod, &["prod.acme", "partner.example"]).await;
    gateway.launch().await;
    gateway.ready().await;
    let client = caller(&sandbox, &gateway, &prod, prod.svid().await);
    client.get("/up/x").await.assert_status(200);
    let partners = client.showing(Some(partner.svid().await));
    partners.get("/up/x").await.assert_status(200);
    // The partner's root is in its own bundle, and speaks for nobody else.
    let forged = root.issue(&sandbox, "forged", &Leaf::svid(CHECKOUT));
    let refusal = client.showing(Some(forged)).refusal().await;
    assert!(refusal.contains("UnknownCA"), "{refusal}");
    let own = root.issue(&sandbox, "own", &Leaf::svid(PARTNER));
    client.showing(Some(own)).get("/up/x").await.assert_status(200);
    let mut open = partners.open(Protocol::H1).await.unwrap();
    call(&mut open, &partners).await;
    assert_eq!(upstream.count(), 4);
    // Federation ends: nobody of the partner's connects, and who is connected asks for nothing more.
    prod.part(&partner);
    let refused = || {
        gateway.metrics().sum(
            "tollgate_identity_file_up",
            &["setting=\"identity.trustDomains.partner.example.bundleFile\""],
        )
    };
    eventually("the bundle is gone", || refused() == 0.0).await;
    let refusal = partners.refusal().await;
    assert!(refusal.contains("UnknownCA"), "{refusal}");
    if let Ok(answer) = open.send(partners.request(Method::GET, "/up/x", "")).await {
        answer.assert_refused(401, "certificate_expired");
    }
    client.get("/up/x").await.assert_status(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn jwt_svids_of_the_workload_api_prove_callers_and_the_gateway_to_its_vault() {
    needs!(Spire::installed(), Bao::installed());
    let mut plan = Plan::new();
    let spire = Spire::start(&plan.sandbox, "prod.acme", None).await;
    register(&spire, None);
    let token = spire.jwt_svid("tollgate").await;
    let bao = Bao::start(&plan.sandbox).await;
    bao.put("up", "key", &plan.key).await;
    let [key] = &spire.jwt_keys()[..] else { panic!("one key signs") };
    bao.jwt_role(key, "spiffe://prod.acme/ns/egress/sa/tollgate", "vault").await;
    plan.settings.client_certificate = "optional";
    let keys = "{kind: spiffe, trustDomain: prod.acme, audience: tollgate, keys: {workloadApi: {}}}";
    plan.settings.tokens.push(keys.to_owned());
    let upstream = upstream(&plan).await;
    let vault = format!(
        "  vault: {{address: \"{}\", caFile: {}, auth: {{jwt: {{role: tollgate, svidAudience: vault}}}}}}\n",
        bao.address(),
        bao.ca().display()
    );
    let resources = destination("up", "api.up.test", upstream.port(), plan.pki.bundle(), "http")
        + &document("SecretStore", "bao", vault)
        + &credential("up-key", "up", "{store: bao, path: up, field: key}", "{bearer: {}}")
        + &grant(
            "checkout-up",
            "spiffe://prod.acme/ns/checkout/sa/*",
            "up",
            "up-key",
            "  allow: {methods: [GET], paths: [\"/**\"]}\n",
        );
    plan.settings = plan.settings.resource("fixture.yaml", resources);
    let key = plan.key.clone();
    plan.sandbox.stands_for(&key, &[SecretKind::Vault, SecretKind::of_injection("{bearer: {}}")]);
    let (mut gateway, _, sandbox) = gateway(plan, &spire, &["prod.acme"]).await;
    gateway.launch().await;
    gateway.ready().await;
    eventually("the keys are there", || gateway.metrics().sum("tollgate_token_issuer_up", &[]) == 1.0).await;
    let nobody = Client::new(&sandbox, gateway.address(), roots(&spire.bundle()), None);
    let ask = |token: &str| {
        let mut request = nobody.request(Method::GET, "/up/x", "");
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        nobody.send(Protocol::H1, request)
    };
    ask(&token).await.unwrap().assert_status(200);
    assert_eq!(upstream.only().header("authorization"), format!("Bearer {key}"));
    // For somebody else, it proves nobody here.
    let other = spire.jwt_svid("elsewhere").await;
    assert_eq!(ask(&other).await.unwrap().status, 401);
    // It is one caller with a certificate of the same workload, and with no other.
    let client = caller(&sandbox, &gateway, &spire, spire.svid().await);
    let mut request = client.request(Method::GET, "/up/x", "");
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    client.send(Protocol::H1, request).await.unwrap().assert_status(200);
    assert_eq!(upstream.count(), 2);
}

/// The claims of a token, as they are written.
fn claims(token: &str) -> Value {
    let claims = token.split('.').nth(1).expect("a token has three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).expect("base64")).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_own_svids_are_shown_to_destinations_and_token_endpoints_and_never_past_their_end() {
    needs!(Spire::installed());
    let plan = Plan::new();
    let spire = Spire::start(&plan.sandbox, "prod.acme", None).await;
    register(&spire, None);
    let identity = spire.svid().await;
    // One destination wants the mesh's certificate and a token for itself, the other a token of the endpoint.
    let answer = |_: &Seen| Reply::status(200);
    let up = Upstream::http_asking(&plan.server, &["http/1.1"], roots(&spire.bundle()), answer).await;
    let server = plan.pki.server(&plan.sandbox, &["api.other.test"]);
    let other = Upstream::http(&server, &["http/1.1"], answer).await;
    let minted = plan.sandbox.canary("minted");
    let granted = json!({"access_token": minted, "token_type": "Bearer", "expires_in": 8});
    let server = plan.pki.server(&plan.sandbox, &["idp.test"]);
    let endpoint = Upstream::http(&server, &["http/1.1"], move |_| Reply::json(&granted)).await;
    let ca = plan.pki.bundle();
    let with_certificate = destination("up", "api.up.test", up.port(), ca, "http")
        .replace("tls: {", "tls: {clientCertificate: own, ");
    let shown = "{clientCertificate: {certificate: certificate, key: key}}";
    let mint = "{bearer: {}}\n  mint:\n    endpoint: {destination: idp, path: /token}\n    \
                clientCredentials: {auth: {spiffeJwt: {}}}";
    let allow = "  allow: {methods: [GET], paths: [\"/**\"]}\n";
    let callers = "spiffe://prod.acme/ns/checkout/sa/*";
    let resources = with_certificate
        + &destination("other", "api.other.test", other.port(), ca, "http")
        + &destination("idp", "idp.test", endpoint.port(), ca, "http")
        + &document("SecretStore", "svid", "  svid: {audience: \"https://api.up.test\"}\n".to_owned())
        + &document("SecretStore", "svid-idp", "  svid: {audience: \"https://idp.test\"}\n".to_owned())
        + &credential("own", "up", "{store: svid, path: x509, fields: [certificate, key]}", shown)
        + &credential("up-token", "up", "{store: svid, path: jwt}", "{bearer: {}}")
        + &credential("minted", "other", "{store: svid-idp, path: jwt}", mint)
        + &grant("checkout-up", callers, "up", "up-token", allow)
        + &grant("checkout-other", callers, "other", "minted", allow);
    let mut plan = plan;
    plan.sandbox.stands_for(&minted, &[SecretKind::Svid, SecretKind::ClientCredentials]);
    plan.settings = plan.settings.resource("fixture.yaml", resources);
    let (mut gateway, _, sandbox) = gateway(plan, &spire, &["prod.acme"]).await;
    gateway.launch().await;
    gateway.ready().await;

    let client = caller(&sandbox, &gateway, &spire, identity);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(u64::from(SECONDS) + 4) {
        client.get("/up/x").await.assert_status(200);
        client.get("/other/x").await.assert_status(200);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seen = up.seen();
    let mut certificates: Vec<_> = seen.iter().map(|seen| seen.certificate.to_vec()).collect();
    certificates.dedup();
    assert!(certificates.len() >= 2, "{} certificates in {} calls", certificates.len(), seen.len());
    for seen in &seen {
        let claims = claims(seen.header("authorization").strip_prefix("Bearer ").expect("a token"));
        assert_eq!(claims["sub"], "spiffe://prod.acme/ns/egress/sa/tollgate");
        assert_eq!(claims["aud"], json!(["https://api.up.test"]));
    }
    let asked = endpoint.seen();
    assert!(asked.len() >= 3, "a token of 8 s is made anew: {}", asked.len());
    for asked in &asked {
        let form = String::from_utf8(asked.body.to_vec()).expect("text");
        assert!(form.contains(
            "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-spiffe"
        ));
        let assertion = form.split('&').find_map(|pair| pair.strip_prefix("client_assertion="));
        let assertion = assertion.expect("an assertion");
        sandbox.needle(assertion);
        assert_eq!(claims(assertion)["aud"], json!(["https://idp.test"]));
    }
    assert!(other.seen().iter().all(|seen| seen.header("authorization") == format!("Bearer {minted}")));
}
