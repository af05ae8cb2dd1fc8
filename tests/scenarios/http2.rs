//! Attacks in HTTP/2 frames, made by hand with Python's hyperframe and hpack, at every listener that reads them.

use http::Method;
use serde_json::{Value, json};
use tollgate_tests::{Client, Fixture, Plan, Protocol, Reply, needs, python};

use crate::exhaustion::resident_kib;

/// What may be let by, if it harms nobody: frames that RFC 9113 allows, only not so many.
const PATIENT: [&str; 6] =
    ["settings_flood", "ping_flood", "window_flood", "priority_flood", "empty_data_flood", "tiny_windows"];
const FLOODS: [&str; 3] = ["rapid_reset", "continuation_flood", "header_bomb"];
/// What a flood may leave behind, in KiB.
const LEFT: u64 = 48 << 10;

/// A place where HTTP/2 is read, and what a good request says there.
struct Door {
    name: &'static str,
    client: Client,
    asks: Value,
    /// Requests that arrive at the upstream for a good one.
    arrive: usize,
}

async fn fixture() -> (Fixture, [Door; 3]) {
    let mut plan = Plan::new();
    for listener in ["name: proxy, kind: forward", "name: tunnels, kind: hbone"] {
        plan.settings.listeners.push(format!("{{{listener}, address: \"127.0.0.1:0\"}}"));
    }
    let fixture = plan.start(|_| Reply::status(200).data(vec![b'x'; 50_000])).await;
    let at = |listener: &str| fixture.checkout().at(fixture.gateway.listener(listener));
    let absolute = json!({"host": "api.up.test", "scheme": "http", "path": "/x"});
    let doors = [
        Door { name: "server", client: fixture.checkout(), asks: json!({"path": "/up/x"}), arrive: 1 },
        Door { name: "proxy", client: at("proxy"), asks: absolute, arrive: 1 },
        Door { name: "mesh", client: at("tunnels"), asks: json!({"connect": "api.up.test:80"}), arrive: 0 },
    ];
    (fixture, doors)
}

impl Door {
    /// What became of these attacks.
    async fn attack(&self, fixture: &Fixture, attacks: Value) -> Value {
        let mut call = self.asks.clone();
        call["attacks"] = attacks;
        python::run(&fixture.sandbox, "h2_attack.py", &self.client, fixture.pki.bundle(), &call).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_request_is_refused_and_nothing_of_it_is_forwarded() {
    needs!(python::installed());
    let (fixture, doors) = fixture().await;
    let attacks = doors[0].attack(&fixture, json!("list")).await;
    let mut attacks = attacks["attacks"].as_array().unwrap().clone();
    attacks.retain(|name| !PATIENT.iter().chain(&FLOODS).any(|flood| name == flood));
    assert!(attacks.len() > 20);
    let mut offences = Vec::new();
    for door in &doors {
        fixture.upstream.clear();
        let said = door.attack(&fixture, json!(attacks)).await;
        for (name, said) in said.as_object().unwrap() {
            let statuses = said["statuses"].as_array().unwrap();
            let refused = statuses.iter().all(|status| status.as_u64() >= Some(400));
            let noticed = !statuses.is_empty()
                || said["resets"] != 0
                || !said["goaway"].is_null()
                || said["closed"] == true;
            if !refused || !noticed || said["after"] != 200 {
                offences.push(format!("{name} at the {}: {said}", door.name));
            }
        }
        // What arrives is the well-behaved request that follows each attack, and nothing else.
        if fixture.upstream.count() != attacks.len() * door.arrive {
            let seen: Vec<_> = fixture.upstream.seen().iter().map(|seen| seen.everything()).collect();
            offences.push(format!("{} reached the upstream by the {}: {seen:#?}", seen.len(), door.name));
        }
    }
    assert!(offences.is_empty(), "{offences:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_frames_ends_its_own_connection_and_nobody_elses() {
    needs!(python::installed());
    let (fixture, doors) = fixture().await;
    let bystander = fixture.checkout();
    let mut open = bystander.open(Protocol::H2).await.unwrap();
    open.send(bystander.request(Method::GET, "/up/x", "")).await.unwrap().assert_status(200);
    for door in &doors {
        fixture.upstream.clear();
        for name in PATIENT.into_iter().chain(FLOODS) {
            let before = resident_kib(fixture.gateway.pid());
            let said = door.attack(&fixture, json!([name])).await;
            let said = &said[name];
            let place = format!("{name} at the {}: {said}", door.name);
            assert_eq!(said["after"], 200, "{place}");
            let is_refused = said["statuses"] == json!([431]) || said["resets"] == 1;
            let is_ended = !said["goaway"].is_null() || said["closed"] == true;
            assert!(PATIENT.contains(&name) || is_ended || name == "header_bomb" && is_refused, "{place}");
            let after = resident_kib(fixture.gateway.pid());
            assert!(after < before + LEFT, "{place}: {before} KiB before, {after} KiB after");
            open.send(bystander.request(Method::GET, "/up/x", "")).await.unwrap().assert_status(200);
        }
        // CVE-2023-44487 is about work done for streams that are gone: not one in ten may have got as far as the upstream.
        assert!(fixture.upstream.count() < 700, "{} by the {}", fixture.upstream.count(), door.name);
    }
}
