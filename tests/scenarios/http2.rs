//! Attacks in HTTP/2 frames, made by hand with Python's hyperframe and hpack.

use serde_json::{Value, json};
use tollgate_tests::{Fixture, Plan, Reply, needs, python};

async fn attack(fixture: &Fixture, name: &str) -> Value {
    let call = json!({"attack": name, "path": "/up/x"});
    python::run(&fixture.sandbox, "h2_attack.py", &fixture.checkout(), fixture.pki.bundle(), &call).await
}

const FLOODS: [&str; 4] = ["rapid_reset", "continuation_flood", "settings_flood", "ping_flood"];

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_request_is_refused_and_nothing_of_it_is_forwarded() {
    needs!(python::installed());
    let fixture = Plan::new().start(|_| Reply::status(200)).await;
    let attacks = attack(&fixture, "list").await;
    let attacks: Vec<_> =
        attacks["attacks"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    assert!(attacks.len() > 20);
    let mut offences = Vec::new();
    for name in attacks.iter().filter(|name| !FLOODS.contains(&name.as_str())) {
        fixture.upstream.clear();
        let said = attack(&fixture, name).await;
        let refused = said["statuses"].as_array().unwrap().iter().all(|status| status.as_u64() >= Some(400));
        let noticed = said["statuses"] != json!([])
            || said["resets"] != 0
            || !said["goaway"].is_null()
            || said["closed"] == true;
        // What arrives is the well-behaved request that follows each attack, and nothing else.
        if !refused || !noticed || said["after"] != 200 || fixture.upstream.count() != 1 {
            offences.push(format!("{name}: {said}, {} reached the upstream", fixture.upstream.count()));
        }
    }
    assert!(offences.is_empty(), "{offences:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_frames_ends_its_own_connection_and_nobody_elses() {
    needs!(python::installed());
    let fixture = Plan::new().start(|_| Reply::status(200)).await;
    let bystander = fixture.checkout();
    let mut open = bystander.open(tollgate_tests::Protocol::H2).await.unwrap();
    for name in FLOODS {
        let said = attack(&fixture, name).await;
        assert_eq!(said["after"], 200, "{name}: {said}");
        if name != "settings_flood" && name != "ping_flood" {
            assert!(!said["goaway"].is_null() || said["closed"] == true, "{name}: {said}");
        }
        open.send(bystander.request(http::Method::GET, "/up/x", "")).await.unwrap().assert_status(200);
    }
    // CVE-2023-44487 is about work done for streams that are gone: not one in ten may have got as far as the upstream.
    assert!(fixture.upstream.count() < 500, "{}", fixture.upstream.count());
}
