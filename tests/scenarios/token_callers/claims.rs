//! Budgets by what tokens say of their callers beside who they are.

use serde_json::{Value, json};
use tollgate_tests::idp::Idp;
use tollgate_tests::needs;
use tollgate_tests::report::requests_reach;
use tollgate_tests::resources::document;

use super::{AUDIENCE, Stand, ask};

const SUBJECT: &str = "repo:acme/shop:main";

/// Two calls a day for whoever is of the team, three for admins of Europe.
fn budgets(issuer: &str) -> String {
    let budget = |name: &str, claims: &str, calls: u32| {
        let caller =
            format!("{{token: {{issuer: \"{issuer}\", subject: \"repo:acme/*\", claims: {claims}}}}}");
        let spec =
            format!("  appliesTo: {{callers: [{caller}]}}\n  limits: [{{requests: {calls}, per: day}}]\n");
        document("Budget", name, spec)
    };
    budget("payments", "{team: payments}", 2) + &budget("admins", "{team: platform, roles: \"eu-*\"}", 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_of_a_verified_token_select_a_budget_and_what_is_no_text_never_does() {
    needs!(Idp::installed());
    let stand = Stand::keeping("none", ", claims: {team: [team], roles: [realm_access, roles]}").await;
    let generation = stand.fixture.gateway.generation();
    stand.fixture.gateway.write_resource("budgets.yaml", &budgets(stand.idp.issuer().as_str()));
    stand.fixture.gateway.reloaded(generation).await;
    let client = stand.nobody();
    let status = async |more: Value| {
        let mut claims = json!({"sub": SUBJECT, "aud": AUDIENCE});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let token = stand.idp.mint(&claims, false).await;
        let answer = ask(&client, "/up/x", &[("x-api-key", &token)]).await;
        (answer.status.as_u16(), answer.json()["limit"]["id"].as_str().unwrap_or_default().to_owned())
    };
    let passed = (200, String::new());
    let payments = (429, "budget/payments/requests/day/shared".to_owned());
    assert_eq!(status(json!({"team": "payments"})).await, passed);
    assert_eq!(status(json!({"team": ["search", "payments"]})).await, passed, "one of a list");
    assert_eq!(status(json!({"team": "payments"})).await, payments);
    assert_eq!(status(json!({"team": ["payments", 7, null]})).await, payments);
    // Others of the same subject spend nothing of it, and nothing that is no text is taken for one.
    for other in [
        json!({}),
        json!({"team": "Payments"}),
        json!({"team": {"payments": "payments"}}),
        json!({"team": true}),
        json!({"team": [["payments"]]}),
        json!({"team": "payments".repeat(100)}),
        json!({"realm_access": {"team": "payments"}}),
        json!({"team": "platform", "realm_access": {"roles": ["us-admin"]}}),
        json!({"team": "platform", "roles": ["eu-admin"]}),
    ] {
        assert_eq!(status(other.clone()).await, passed, "{other}");
    }
    let admin = json!({"team": "platform", "realm_access": {"roles": ["dev", "eu-admin"]}});
    assert_eq!(status(admin.clone()).await, passed);
    assert_eq!(status(admin).await, (429, "budget/admins/requests/day/shared".to_owned()), "all of it holds");
    requests_reach(&stand.fixture.gateway, 15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_not_kept_is_an_error_and_a_grant_has_none() {
    needs!(Idp::installed());
    let stand = Stand::keeping("none", ", claims: {roles: [realm_access, roles]}").await;
    let issuer = stand.idp.issuer();
    let caller = format!("{{token: {{issuer: \"{issuer}\", subject: \"*\", claims: {{team: payments}}}}}}");
    let budget = format!("  appliesTo: {{callers: [{caller}]}}\n  limits: [{{requests: 1, per: day}}]\n");
    let grant = format!("  callers: [{caller}]\n  destination: up\n");
    stand.fixture.gateway.write_resource("a.yaml", &document("Budget", "a", budget));
    stand.fixture.gateway.write_resource("b.yaml", &document("Grant", "b", grant));
    let checked = stand.fixture.gateway.tollgate(&["check"]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    for problem in [
        "Budget/a: spec.appliesTo.callers[0].token.claims.team: the claim `team` of tokens of",
        "(known: roles)",
        "Grant/b: spec.callers[0].token.claims: claims select calls for Budgets",
    ] {
        assert!(said.contains(problem), "{said}");
    }
}
