//! WebSocket by another implementation on both sides.

use serde_json::{Value, json};
use tollgate_tests::gateway::eventually;
use tollgate_tests::process::free_port;
use tollgate_tests::{Fixture, Plan, Reply, Upstream, ledger, needs, websockets};

const GRANT: &str =
    "  allow: {methods: [GET], paths: [/echo, /key, /head, \"/close/*\", /break], upgrades: [websocket]}\n";

/// A gateway before a port where the script's own provider will be, and what the script is to be told of that.
async fn fixture() -> (Fixture, Value) {
    let plan = Plan { grant: GRANT.to_owned(), ..Plan::new() };
    let port = free_port();
    let settings = plan.complete(port);
    let unused = Upstream::http(&plan.server, &["http/1.1"], |_| Reply::status(500)).await;
    let (cert, key) = (plan.server.cert.clone(), plan.server.key.clone());
    let fixture = Plan { settings, ..plan }.start_with(unused).await;
    (fixture, json!({"port": port, "server_cert": cert, "server_key": key}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_as_without_the_gateway_but_for_its_key() {
    needs!(websockets::installed());
    let (fixture, call) = fixture().await;
    let said = websockets::run(&fixture.sandbox, &fixture.checkout(), fixture.pki.bundle(), &call).await;
    assert_eq!(said["right"], 10_000, "{said}");
    assert_eq!((&said["large"], &said["pong"]), (&json!(true), &json!(true)), "{said}");
    assert_eq!((&said["fragments"], &said["empty"]), (&json!("fragments"), &json!("")), "{said}");
    assert_eq!(
        (&said["extensions"], &said["code"]),
        (&json!([]), &json!(1000)),
        "compression was not left out"
    );
    // The key that was put on the handshake comes back in none of its messages.
    let masked = format!("Bearer {}", "*".repeat(fixture.key.len()));
    let whole = [masked.clone(), masked.clone(), format!("{masked}!"), format!("a {masked}")];
    assert_eq!(said["key"]["got"], json!(whole), "{said}");
    assert_eq!(
        (&said["key"]["code"], said["key"]["reason"].as_str()),
        (&json!(4001), Some(&*masked)),
        "{said}"
    );
    let fields = said["head"]["fields"].to_string().to_lowercase();
    assert!(fields.contains("realtime") && !fields.contains("sk-of-the-caller"), "{fields}");
    assert_eq!(said["head"]["chosen"], "realtime");
    assert_eq!(said["codes"], json!([1000, 1001, 1008, 1011, 3000, 4999]));
    assert_eq!(said["broken"], json!([["before"], null]), "a provider that breaks off is no clean end");
    assert_eq!(said["mine"], 4000);
    assert_eq!(said["elsewhere"], json!([403, "path_not_allowed"]));
    // Ten were opened, each of which is one record, and one was refused.
    let outcomes = || ledger::column(&fixture.gateway, "outcome");
    let count = |outcome: &str| outcomes().iter().filter(|it| *it == outcome).count();
    eventually("all are recorded", || outcomes().len() == 12).await;
    assert_eq!(
        (count("completed"), count("upstream_failed"), count("refused")),
        (10, 1, 1),
        "{:?}",
        outcomes()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_ends_with_its_grant_and_is_told_so() {
    needs!(websockets::installed());
    let (fixture, mut call) = fixture().await;
    let opened = fixture.sandbox.providers().join("opened");
    call["opened"] = json!(opened);
    let (client, withdrawn) = (fixture.checkout(), async {
        eventually("the WebSocket is open", || opened.exists()).await;
        let resources = fixture.gateway.settings().resources.clone();
        let (_, text) = resources.iter().find(|(file, _)| file == "fixture.yaml").unwrap();
        fixture.gateway.replace("fixture.yaml", &text.replace(", upgrades: [websocket]", "")).await;
    });
    let script = websockets::run(&fixture.sandbox, &client, fixture.pki.bundle(), &call);
    let (said, ()) = tokio::join!(script, withdrawn);
    assert_eq!(said, json!({"first": "first", "code": 1008, "reason": "no_grant"}));
    eventually("it is recorded", || ledger::column(&fixture.gateway, "reason") == ["no_grant"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_outlasts_the_drain_is_told_that_the_gateway_goes_away() {
    needs!(websockets::installed());
    let (fixture, mut call) = fixture().await;
    let opened = fixture.sandbox.providers().join("opened");
    call["opened"] = json!(opened);
    let (client, drained) = (fixture.checkout(), async {
        eventually("the WebSocket is open", || opened.exists()).await;
        fixture.gateway.begin_drain();
    });
    let script = websockets::run(&fixture.sandbox, &client, fixture.pki.bundle(), &call);
    let (said, ()) = tokio::join!(script, drained);
    assert_eq!(said, json!({"first": "first", "code": 1001, "reason": "the gateway goes away"}));
}
