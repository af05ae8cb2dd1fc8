//! A cluster's control plane: what the scenarios about Kubernetes conclude from it holds.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::{Value, json};
use tollgate_tests::cluster::{Cluster, Verb};
use tollgate_tests::{Sandbox, needs};

/// One of the two parts of a token that can be read: 0 is its head, 1 what it says.
fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_gets_tokens_for_any_audience_and_the_issuer_publishes_their_keys() {
    needs!(Cluster::installed());
    let sandbox = Sandbox::new();
    let mut cluster = Cluster::start(&sandbox, &[]).await;
    cluster.namespace("shop", &json!({"team": "checkout"}), &["web"]).await;
    let token = cluster.token_request("shop", "web", "tollgate", 600).await;
    let said = part(&token, 1);
    assert_eq!(said["aud"], json!(["tollgate"]));
    assert_eq!(said["iss"], cluster.url());
    assert_eq!(said["sub"], "system:serviceaccount:shop:web");
    assert_eq!(said["exp"].as_u64().unwrap() - said["iat"].as_u64().unwrap(), 600);
    let discovery = cluster.get("/.well-known/openid-configuration").await;
    assert_eq!(discovery["issuer"], cluster.url());
    let keys = |jwks: Value| -> Vec<Value> {
        jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect()
    };
    let before = keys(cluster.get("/openid/v1/jwks").await);
    assert_eq!(before, [part(&token, 0)["kid"].clone()]);

    cluster.rotate_service_account_key(true).await;
    let newer = cluster.token_request("shop", "web", "tollgate", 600).await;
    assert_ne!(part(&newer, 0)["kid"], part(&token, 0)["kid"]);
    assert_eq!(keys(cluster.get("/openid/v1/jwks").await).len(), 2);
    cluster.rotate_service_account_key(false).await;
    assert_eq!(keys(cluster.get("/openid/v1/jwks").await).len(), 1, "the old keys are gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_may_do_what_rbac_says_and_what_is_stored_outlives_the_api_server() {
    needs!(Cluster::installed());
    let sandbox = Sandbox::new();
    let mut cluster = Cluster::start(&sandbox, &["dev"]).await;
    cluster.namespace("shop", &json!({}), &["gateway"]).await;
    let key = sandbox.canary("cluster");
    cluster.secret("shop", "provider", "api_key", &key).await;
    let read = ["get", "secret", "-n", "shop", "provider", "-o", "name"];
    let refused = cluster.try_kubectl("dev", &read).await.unwrap_err();
    assert!(refused.contains("forbidden"), "{refused}");
    let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
    cluster.allow("dev", Some("shop"), &rules).await;
    assert_eq!(cluster.try_kubectl("dev", &read).await.unwrap(), "secret/provider\n");
    cluster.allow("dev", Some("shop"), &json!([])).await;
    assert!(cluster.try_kubectl("dev", &read).await.is_err());

    // A service account, as a pod has it.
    let account = "system:serviceaccount:shop:gateway";
    cluster.allow(account, None, &rules).await;
    let token = cluster.token_request("shop", "gateway", &cluster.url(), 600).await;
    let secret = "/api/v1/namespaces/shop/secrets/provider";
    assert_eq!(cluster.call_with(&token, Verb::Get, secret, &Value::Null).await.status, StatusCode::OK);
    let list = "/api/v1/namespaces/shop/secrets";
    let told = cluster.call_with(&token, Verb::Get, list, &Value::Null).await;
    assert_eq!(told.status, StatusCode::FORBIDDEN, "{}", told.body);

    cluster.stop_server();
    cluster.start_server().await;
    assert!(cluster.get(secret).await["data"]["api_key"].is_string());
    cluster.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one, namespace: shop}\n").await;
    assert!(cluster.get("/api/v1/namespaces/shop/configmaps/one").await["metadata"]["uid"].is_string());
}
