//! What a vault lends the gateway, up to the gateway's end. The vault is one of ours, so that its secrets are known.

use serde_json::json;
use tollgate_tests::resources::{credential, destination, document, grant};
use tollgate_tests::{Gateway, Plan, Reply, SecretKind, Seen, Upstream};

fn paths(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(|seen| seen.target.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leased_password_leaks_nowhere_and_is_given_back_when_the_gateway_stops() {
    let plan = Plan::new();
    let canaries = ["jwt", "login", "lease", "password"].map(|what| plan.sandbox.canary(what));
    let [jwt, login, lease, password] = canaries.clone();
    plan.sandbox.stands_for(&password, &[SecretKind::Vault, SecretKind::Bearer]);
    let vault = Upstream::http(&plan.pki.server(&plan.sandbox, &["localhost"]), &["http/1.1"], move |seen| {
        let [_, login, lease, password] = &canaries;
        match seen.target.as_str() {
            "/v1/auth/jwt/login" => Reply::json(
                &json!({"auth": {"client_token": login, "lease_duration": 3600, "renewable": true}}),
            ),
            "/v1/database/creds/reader" => Reply::json(&json!({
                "lease_id": lease, "lease_duration": 3600, "renewable": true,
                "data": {"username": "reader", "password": password},
            })),
            _ => Reply::status(204),
        }
    })
    .await;
    let token = plan.sandbox.input("svid.jwt", &jwt);
    let store = format!(
        "  vault:\n    address: https://127.0.0.1:{}\n    caFile: {}\n    auth: {{jwt: {{role: tollgate, tokenFile: {}}}}}\n",
        vault.port(),
        plan.pki.bundle().display(),
        token.display()
    );
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::json(&json!({}))).await;
    let from = "{store: bao, path: database/creds/reader, field: password, dynamic: true}";
    let text = destination("up", "api.up.test", upstream.port(), plan.pki.bundle(), "http")
        + &document("SecretStore", "bao", store)
        + &credential("up-key", "up", from, "{bearer: {}}")
        + &grant("checkout-up", "spiffe://prod.acme/ns/checkout/sa/*", "up", "up-key", &plan.grant);
    let settings = plan.settings.clone().resource("fixture.yaml", text);
    let mut fixture = Plan { settings, ..plan }.start_with(upstream).await;
    let client = fixture.checkout();
    for _ in 0..3 {
        client.get("/up/v1/rows").await.assert_status(200);
    }
    for seen in fixture.upstream.seen() {
        assert_eq!(seen.header("authorization"), format!("Bearer {password}"));
    }
    assert_eq!(
        paths(&vault.seen()),
        ["/v1/auth/jwt/login", "/v1/database/creds/reader"],
        "one login, one lease"
    );
    assert_eq!(vault.seen()[0].json(), json!({"role": "tollgate", "jwt": jwt}));
    vault.clear();

    let test = fixture.gateway.tollgate(&["credential", "test", "up-key"]);
    let said = String::from_utf8_lossy(&test.stdout).into_owned();
    assert!(test.status.success() && said.contains("can be put on a call"), "{said}");
    assert_eq!(
        paths(&vault.seen()),
        [
            "/v1/auth/jwt/login",
            "/v1/database/creds/reader",
            "/v1/sys/leases/revoke",
            "/v1/auth/token/revoke-self"
        ],
        "a test gives back what it was lent"
    );
    vault.clear();

    assert_eq!(fixture.gateway.stop().code(), Some(0));
    let seen = vault.seen();
    assert_eq!(paths(&seen), ["/v1/sys/leases/revoke", "/v1/auth/token/revoke-self"]);
    assert_eq!(seen[0].json(), json!({"lease_id": lease}));
    assert!(seen.iter().all(|seen| seen.header("x-vault-token") == login));
    fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_of_a_credential_uses_up_no_wrapping_token() {
    let plan = Plan::new();
    let vault = Upstream::http(&plan.pki.server(&plan.sandbox, &["localhost"]), &["http/1.1"], |_| {
        Reply::status(403)
    })
    .await;
    let wrapping = plan.sandbox.canary("wrapping");
    let (role, wrapped) =
        (plan.sandbox.input("role-id", "tollgate"), plan.sandbox.input("wrapped", &wrapping));
    let store = format!(
        "  vault:\n    address: https://127.0.0.1:{}\n    caFile: {}\n    auth: {{appRole: {{roleIdFile: {}, wrappedSecretIdFile: {}}}}}\n",
        vault.port(),
        plan.pki.bundle().display(),
        role.display(),
        wrapped.display()
    );
    let good = plan.complete(443);
    let minted = "  mint:\n    endpoint: {destination: idp, path: /token}\n    tokenExchange: \
                  {client: {clientId: a, from: {store: bao, path: idp/client, field: key}}}\n";
    let text = good.resources[0].1.clone()
        + &document("SecretStore", "bao", store)
        + &destination("idp", "idp.up.test", 443, plan.pki.bundle(), "http")
        + &credential("wrapped", "up", "{store: bao, path: llm/up, field: key}", "{bearer: {}}")
        + &credential("exchanged", "up", "{store: files, path: subject}", "{bearer: {}}")
        + minted;
    let gateway = Gateway::prepare(&plan.sandbox, &good.resource("fixture.yaml", text));
    for name in ["wrapped", "exchanged"] {
        let test = gateway.tollgate(&["credential", "test", name]);
        let said = String::from_utf8_lossy(&test.stdout).into_owned();
        assert_eq!(test.status.code(), Some(2), "{said}{}", String::from_utf8_lossy(&test.stderr));
        assert!(said.contains("SKIP    login    not tried: the wrapping token"), "{said}");
    }
    let all = gateway.tollgate(&["credential", "test", "--all"]);
    let said = String::from_utf8_lossy(&all.stdout).into_owned();
    assert_eq!((all.status.code(), said.matches("SKIP").count()), (Some(2), 2), "{said}");
    assert!(said.contains("can be put on a call as bearer"), "the others are tested: {said}");
    assert_eq!(vault.count(), 0, "the vault was not asked");
    plan.sandbox.assert_swept();
}
