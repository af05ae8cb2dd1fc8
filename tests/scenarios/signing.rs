//! Requests signed for AWS, checked by a server that others wrote.

use serde_json::json;
use tollgate_tests::haproxy::Haproxy;
use tollgate_tests::moto::{Moto, REGION};
use tollgate_tests::resources::{credential, destination, file_store, grant};
use tollgate_tests::stand::CHECKOUT;
use tollgate_tests::{Gateway, Plan, needs, python};

const SIGNED: &str =
    "{sigv4: {accessKeyId: id, secretAccessKey: key, regions: [eu-central-1], services: [s3, sts, bedrock]}}";

#[tokio::test(flavor = "multi_thread")]
async fn an_sdk_with_a_wrong_key_is_signed_for_in_every_payload_form() {
    needs!(Moto::installed(), Haproxy::installed());
    let plan = Plan::new();
    let moto = Moto::start(&plan.world).await;
    let user = moto.user(&plan.world, "tollgate", &["s3:*", "sts:*", "bedrock:*"]);
    plan.world.input("keys/aws", json!({"id": user.id, "key": user.secret}).to_string());
    let front = Haproxy::front(&plan.world, &plan.server, moto.socket()).await;
    let allow = "  allow: {methods: [GET, HEAD, PUT, POST], paths: [\"/**\"]}\n";
    let resources = destination("up", "api.up.test", front.port(), plan.pki.bundle(), "http")
        + &file_store("files", &plan.world.inputs().join("keys"))
        + &credential("aws", "up", "{store: files, path: aws, fields: [id, key]}", SIGNED)
        + &grant("checkout-aws", "spiffe://prod.acme/ns/checkout/sa/*", "up", "aws", allow);
    let settings = plan.settings.clone().resource("stand.yaml", resources);
    moto.enforce(true);
    let mut gateway = Gateway::start(&plan.world, &settings).await;
    let identity = plan.prod.svid(&plan.world, CHECKOUT);
    let client =
        tollgate_tests::Client::new(&plan.world, gateway.address(), plan.pki.roots(), Some(identity));
    let said =
        python::run(&plan.world, "aws_calls.py", &client, plan.pki.bundle(), &json!({"region": REGION}))
            .await;
    assert_eq!(
        said["done"],
        json!({"hashed": "ok", "unsigned": "ok", "trailer": "ok", "chunked": 200}),
        "{said}"
    );
    assert_eq!(said["same"], json!(["chunked", "hashed/ü +&=~.txt", "trailer", "unsigned"]), "{said}");
    assert!(said["identity"].as_str().unwrap().ends_with("user/tollgate"), "{said}");
    assert_eq!(said["model"], "ResourceNotFoundException", "signed, and not there: {said}");
    assert_eq!(said["foreign"], "no_grant", "a service that is not listed: {said}");
    assert!(gateway.stop().success());
    plan.world.assert_swept();
}
