//! A pod with nothing but its token, of the real API server.

use serde_json::{Value, json};
use tollgate_tests::aimock::TEXT;
use tollgate_tests::cluster::Cluster;
use tollgate_tests::gateway::{Settings, eventually};
use tollgate_tests::haproxy::Haproxy;
use tollgate_tests::moto::{Moto, REGION};
use tollgate_tests::provider::{ANTHROPIC_MODEL, OPENAI_MODEL};
use tollgate_tests::report::report;
use tollgate_tests::resources::{credential, destination, document, file_store};
use tollgate_tests::{Client, FullStack, Gateway, Plan, Reply, Sandbox, SecretKind, Upstream, needs, python};

use super::{AUDIENCE, ask, bearer, projected};

/// The issuer of a cluster's service accounts, as the settings of a gateway in it have it.
async fn issuer(cluster: &Cluster, sandbox: &Sandbox) -> String {
    cluster.namespace("tollgate", &json!({}), &["gateway"]).await;
    let own = cluster.token_request("tollgate", "gateway", &cluster.url(), 3600).await;
    let token = sandbox.input("own/token", own);
    format!(
        "{{kind: kubernetes, issuer: \"{}\", audience: {AUDIENCE}, keys: {{discovery: {{}}}}, caFile: {}, tokenFile: {}}}",
        cluster.url(),
        cluster.ca().display(),
        token.display()
    )
}

fn account(name: &str, destination: &str, credential: &str, allow: &str) -> String {
    document(
        "Grant",
        name,
        format!(
            "  callers: [{{serviceAccount: {{namespace: shop, name: web}}}}]\n  destination: {destination}\n  \
             credential: {credential}\n  allow: {allow}\n"
        ),
    )
}

async fn has_keys(gateway: &Gateway) {
    let up = || gateway.metrics().sum("tollgate_token_issuer_up", &[]) == 1.0;
    eventually("the keys of the cluster are there", up).await;
}

async fn sdk(stack: &FullStack, client: &Client, token: &str) -> Value {
    // The cluster's own folder knows it already.
    stack.sandbox.needle(token);
    let argument = json!({
        "authority": client.authority(), "ca": stack.pki.bundle(), "token": projected(&stack.sandbox, token),
        "openai": OPENAI_MODEL, "anthropic": ANTHROPIC_MODEL,
    });
    python::run_alone(&stack.sandbox, "token_sdk.py", &argument).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_nothing_but_its_token_calls_with_the_sdks_of_openai_and_anthropic() {
    needs!(Cluster::installed(), python::installed(), FullStack::possible());
    let sandbox = Sandbox::new();
    let mut cluster = Cluster::start(&sandbox, &[]).await;
    let entry = issuer(&cluster, &sandbox).await;
    let openai = "{methods: [POST], paths: [/v1/chat/completions], models: [gpt-5-mini]}";
    let anthropic = "{methods: [POST], paths: [/v1/messages], models: [claude-sonnet-4-5]}";
    let grants = account("web-openai", "openai", "openai-prod", openai)
        + &account("web-anthropic", "anthropic", "anthropic-prod", anthropic);
    let stack =
        FullStack::start_with("[{tokens: 2000000, per: day}]", async |_, settings: Settings| Settings {
            client_certificate: "none",
            tokens: vec![entry],
            ..settings.resource("tokens.yaml", grants)
        })
        .await;
    has_keys(&stack.gateway).await;
    cluster.namespace("shop", &json!({}), &["web", "other"]).await;
    let client = Client::new(&stack.sandbox, stack.gateway.address(), stack.pki.roots(), None);
    let answered = json!({"openai": TEXT, "anthropic": TEXT});
    let refused = |what: &str| json!({"openai": what, "anthropic": what});

    let token = cluster.token_request("shop", "web", AUDIENCE, 600).await;
    assert_eq!(sdk(&stack, &client, &token).await, answered);
    let journal = serde_json::to_string(&stack.aimock.journal()).unwrap();
    assert!(!journal.contains(&token) && !journal.contains(token.rsplit('.').next().unwrap()));
    let rows = report(&stack.gateway, "namespace,caller");
    assert!(
        rows.iter().all(|row| row["namespace"] == "shop" && row["caller"] == "k8s:local/shop/web"),
        "{rows:#?}"
    );
    let labels = ["namespace=\"shop\"", "service_account=\"web\""];
    assert_eq!(stack.gateway.metrics().sum("tollgate_requests_total", &labels), 2.0);

    let other = cluster.token_request("shop", "other", AUDIENCE, 600).await;
    assert_eq!(sdk(&stack, &client, &other).await, refused("403 no_grant"));
    let expired = cluster.expired(&token);
    assert_eq!(sdk(&stack, &client, &expired).await, refused("401 token_expired"));
    let api = cluster.token_request("shop", "web", &cluster.url(), 600).await;
    assert_eq!(sdk(&stack, &client, &api).await, refused("401 token_audience"));

    // A planned rotation: the keys are fetched because of the first token that is signed with the new one.
    cluster.rotate_service_account_key(true).await;
    let rotated = cluster.token_request("shop", "web", AUDIENCE, 600).await;
    eventually("the new key is followed", || {
        let client = client.clone();
        let token = bearer(&rotated);
        let path = "/openai/v1/chat/completions";
        let asked = async move { ask(&client, path, &[("authorization", &token)]).await.status };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(asked)) != 401
    })
    .await;
    assert_eq!(sdk(&stack, &client, &rotated).await, answered);
    assert_eq!(sdk(&stack, &client, &token).await, answered, "the old key is still published");
    stack.sandbox.assert_swept();
    sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_cluster_is_refused_though_it_says_the_same() {
    needs!(Cluster::installed());
    let plan = Plan::new();
    let cluster = Cluster::start(&plan.sandbox, &[]).await;
    let other = Cluster::start(&plan.sandbox, &[]).await;
    let entry = issuer(&cluster, &plan.sandbox).await;
    let upstream = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(200)).await;
    let resources = destination("up", "api.up.test", upstream.port(), plan.pki.bundle(), "http")
        + &file_store("files", &plan.sandbox.inputs().join("keys"))
        + &credential("up-key", "up", "{store: files, path: up}", "{bearer: {}}")
        + &account("web-up", "up", "up-key", "{methods: [POST], paths: [\"/**\"]}");
    let mut settings = plan.settings.clone().resource("fixture.yaml", resources);
    (settings.client_certificate, settings.tokens) = ("optional", vec![entry]);
    let fixture = Plan { settings, ..plan }.start_with(upstream).await;
    has_keys(&fixture.gateway).await;
    for cluster in [&cluster, &other] {
        cluster.namespace("shop", &json!({}), &["web"]).await;
    }
    let client = fixture.stranger(None);
    let token = bearer(&cluster.token_request("shop", "web", AUDIENCE, 600).await);
    ask(&client, "/up/x", &[("authorization", &token)]).await.assert_status(200);
    let foreign = bearer(&other.token_request("shop", "web", AUDIENCE, 600).await);
    ask(&client, "/up/x", &[("authorization", &foreign)]).await.assert_refused(401, "token_issuer_unknown");
    // The workload of the same name, by its certificate, is the same caller; another is not.
    let web = fixture.caller("spiffe://prod.acme/ns/shop/sa/web");
    ask(&web, "/up/x", &[("authorization", &token)]).await.assert_refused(403, "no_grant");
    let api = fixture.caller("spiffe://prod.acme/ns/shop/sa/api");
    ask(&api, "/up/x", &[("authorization", &token)]).await.assert_refused(401, "proofs_disagree");
    assert_eq!(fixture.upstream.count(), 1);
    fixture.sandbox.assert_swept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_nothing_but_its_token_calls_with_boto3() {
    needs!(Cluster::installed(), Moto::installed(), Haproxy::installed());
    let plan = Plan::new();
    let sandbox = &plan.sandbox;
    let cluster = Cluster::start(sandbox, &[]).await;
    let entry = issuer(&cluster, sandbox).await;
    let moto = Moto::start(sandbox).await;
    let user = moto.user(sandbox, "tollgate", &["s3:*", "sts:*"]);
    sandbox.stands_for(&user.secret, &[SecretKind::File, SecretKind::SigV4]);
    sandbox.input("keys/aws", json!({"id": user.id, "key": user.secret}).to_string());
    let front = Haproxy::front(sandbox, &plan.server, moto.socket()).await;
    moto.enforce(true);
    let said = json!({
        "output": {"message": {"role": "assistant", "content": [{"text": "hello yourself"}]}}, "stopReason": "end_turn",
        "usage": {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}, "metrics": {"latencyMs": 1},
    });
    let bedrock_server = plan.pki.server(sandbox, &["bedrock.up.test"]);
    let bedrock = Upstream::http(&bedrock_server, &["http/1.1"], move |_| Reply::json(&said)).await;
    let signed =
        "{sigv4: {accessKeyId: id, secretAccessKey: key, regions: [eu-central-1], services: [s3, sts]}}";
    let bedrock_signed =
        "{sigv4: {accessKeyId: id, secretAccessKey: key, regions: [eu-central-1], services: [bedrock]}}";
    let allow = "{methods: [GET, HEAD, PUT, POST], paths: [\"/**\"], actions: [\"*\"]}";
    let resources = destination("aws", "api.up.test", front.port(), plan.pki.bundle(), "http")
        + &destination("bedrock", "bedrock.up.test", bedrock.port(), plan.pki.bundle(), "http")
        + &file_store("files", &sandbox.inputs().join("keys"))
        + &credential("aws", "aws", "{store: files, path: aws, fields: [id, key]}", signed)
        + &credential("bedrock", "bedrock", "{store: files, path: aws, fields: [id, key]}", bedrock_signed)
        + &account("web-s3", "aws", "aws", "{methods: [GET, HEAD, PUT, POST], paths: [\"/**\"]}")
        + &account("web-actions", "aws", "aws", &allow.replace("\"/**\"", "/"))
        + &account("web-bedrock", "bedrock", "bedrock", "{methods: [POST], paths: [\"/model/**\"]}");
    let mut settings = plan.settings.clone().resource("fixture.yaml", resources);
    (settings.client_certificate, settings.tokens) = ("none", vec![entry]);
    let mut gateway = Gateway::start(sandbox, &settings).await;
    has_keys(&gateway).await;
    cluster.namespace("shop", &json!({}), &["web"]).await;
    let token = cluster.token_request("shop", "web", AUDIENCE, 600).await;
    let client = Client::new(sandbox, gateway.address(), plan.pki.roots(), None);
    let argument = json!({
        "authority": client.authority(), "ca": plan.pki.bundle(), "token": projected(sandbox, &token), "region": REGION,
    });
    let said = python::run_alone(sandbox, "token_aws.py", &argument).await;
    assert_eq!((&said["bedrock"], &said["s3"]), (&json!("hello yourself"), &json!("hello")), "{said}");
    assert!(said["sts"].as_str().unwrap().ends_with("user/tollgate"), "{said}");
    let seen = bedrock.only();
    assert!(seen.header("authorization").starts_with("AWS4-HMAC-SHA256 Credential="), "{seen:?}");
    assert!(!seen.everything().contains(&token) && seen.header("x-amz-security-token").is_empty());
    assert!(gateway.stop().success());
    sandbox.assert_swept();
}
