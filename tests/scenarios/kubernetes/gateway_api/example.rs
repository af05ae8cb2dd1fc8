//! The example of the Gateway API, as it stands in `examples`.

use std::path::Path;

use serde_json::{Value, json};
use tollgate_tests::cluster::Cluster;
use tollgate_tests::gateway::eventually;
use tollgate_tests::{SecretKind, Upstream, needs, provider};

use super::super::{EGRESS, USER};
use super::{Routed, installed, shop};

/// A file of the example, with this scenario's namespace and caller.
pub(super) fn example(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.replace("namespace: tollgate", "namespace: egress")
        .replace("tollgate/openai", "egress/openai")
        .replace("tollgate.tollgate.svc", "localhost")
        .replace("name: https\n", "name: mesh\n")
        .replace("serviceAccount: {namespace: shop, name: web}", "spiffe: spiffe://prod.acme/ns/shop/sa/web")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_the_gateway_api_leads_a_chat_to_its_provider() {
    needs!(Cluster::installed(), installed());
    let routed = Routed::new().await;
    routed.install("1.7.0").await;
    let plan = &routed.world.plan;
    let rules = json!([
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["openai"], "verbs": ["get", "watch"]},
    ]);
    routed.world.cluster.allow(USER, Some(EGRESS), &rules).await;
    plan.sandbox.stands_for(&plan.key, &[SecretKind::Kubernetes, SecretKind::Bearer]);
    routed.world.cluster.secret(EGRESS, "openai", "key", &plan.key).await;
    let server = plan.pki.server(&plan.sandbox, &["api.openai.com"]);
    let upstream = Upstream::http(&server, &["http/1.1"], provider::openai(&plan.key, 9, 2)).await;
    routed.dns.now_says(&json!({"api.openai.com": {"A": ["127.0.0.1"]}}));
    routed.world.cluster.namespace("shop", &json!({}), &[]).await;
    // The provider is on this machine; the rest is the example's.
    let routes =
        example("gateway-api/routes.yaml").replace("number: 443", &format!("number: {}", upstream.port()));
    let objects =
        [routes, example("gateway-api/platform.yaml"), example("kubernetes/shop.yaml")].join("\n---\n");
    routed.world.cluster.apply(&objects).await;
    let gateway = routed.world.start().await;
    let of_shop = "/apis/tollgate.dev/v1alpha1/namespaces/shop/grants/openai";
    routed.world.condition(of_shop, "Programmed", "True").await;
    let chat = json!({"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Say hello."}]});
    let answer = shop(&routed, &gateway).post("/openai/v1/chat/completions", &chat).await;
    answer.assert_status(200);
    // What it used is read, as the annotation says how.
    let spent = |grant: &Value| grant["status"]["limits"].to_string().contains("USD");
    routed.world.cluster.until(of_shop, spent).await;
    eventually("its tokens are counted", || {
        gateway.metrics().sum("tollgate_usage_total", &["type=\"input\""]) > 0.0
    })
    .await;
    routed.leave().await;
}
