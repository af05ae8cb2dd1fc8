//! gRPC by Google's own implementation on both sides.

use serde_json::json;
use tollgate_tests::process::free_port;
use tollgate_tests::{Plan, Upstream, needs, python};

#[tokio::test(flavor = "multi_thread")]
async fn all_four_kinds_of_calls_work_as_without_the_gateway() {
    needs!(python::installed());
    let plan = Plan {
        grant: "  allow: {methods: [POST], paths: [\"/tollgate.test.Echo/*\"]}\n".to_owned(),
        ..Plan::new()
    };
    let port = free_port();
    let settings = plan.complete(port);
    let unused = Upstream::http(&plan.server, &["h2"], |_| tollgate_tests::Reply::status(500)).await;
    let (cert, key) = (plan.server.cert.clone(), plan.server.key.clone());
    let fixture = Plan { settings, ..plan }.start_with(unused).await;
    let call = json!({"host": "api.up.test", "port": port, "server_cert": cert, "server_key": key});
    let said =
        python::run(&fixture.sandbox, "grpc_calls.py", &fixture.checkout(), fixture.pki.bundle(), &call)
            .await;
    assert_eq!(said["unary"], "echo hi", "{said}");
    assert_eq!(said["trailing"]["x-trailing"], "t-hi", "{said}");
    let masked = format!("Bearer {}", "*".repeat(fixture.key.len()));
    assert_eq!(said["trailing"]["x-echo"], masked, "the key came back in a trailer: {said}");
    assert_eq!(said["failed"], json!({"code": "FAILED_PRECONDITION", "details": "said no"}));
    assert_eq!(said["bug"]["code"], "UNKNOWN", "{said}");
    assert_eq!(said["unknown"]["code"], "UNIMPLEMENTED", "{said}");
    assert_eq!(said["refused"]["code"], "PERMISSION_DENIED", "{said}");
    assert_eq!(said["server_stream"], json!({"items": ["item 0", "item 1"]}));
    let lost = json!({"items": ["item 0", "item 1", "item 2"], "code": "DATA_LOSS", "details": "three is not enough"});
    assert_eq!(said["stream_fails"], lost);
    assert_eq!(said["client_stream"], "a+b+c");
    assert_eq!(said["both"], json!(["re 0", "re 1", "re 2", "re 3"]));
    assert_eq!(said["large"], 3_000_005);
    assert_eq!(said["deadline"], "DEADLINE_EXCEEDED", "{said}");
    assert_eq!((&said["deadline_seen"], &said["cancel_seen"]), (&json!(true), &json!(true)), "{said}");
}
