//! Tools of others that look for what is wrong with a listener: its HTTP/2 (`h2spec`), its TLS (`sslyze`), its patience (`slowhttptest`).

use std::time::{Duration, Instant};

use serde_json::Value;
use tollgate_tests::haproxy::Haproxy;
use tollgate_tests::{Client, Fixture, Plan, Protocol, Reply, needs, probes};

use crate::exhaustion::resident_kib;

const LISTENERS: [&str; 4] = ["mesh", "proxy", "tunnels", "cache"];

async fn fixture() -> Fixture {
    let mut plan = Plan::new();
    for listener in ["name: proxy, kind: forward", "name: tunnels, kind: hbone", "name: cache, kind: tcp"] {
        plan.settings.listeners.push(format!("{{{listener}, address: \"127.0.0.1:0\"}}"));
    }
    plan.settings.environment = vec![("RUST_LOG".to_owned(), "info".to_owned())];
    plan.start(|_| Reply::status(200).data(vec![b'x'; 1000])).await
}

fn at(fixture: &Fixture, listener: &str) -> Client {
    let client = fixture.checkout();
    if listener == "mesh" { client } else { client.at(fixture.gateway.listener(listener)) }
}

fn port(client: &Client) -> u16 {
    client.authority().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

/// The cases that were answered otherwise than the specification says, each with what came.
async fn read_by_h2spec(fixture: &Fixture, client: &Client) -> Vec<(String, String)> {
    let (tried, failed) = probes::h2spec(&fixture.sandbox, port(client), "/up/x", client.identity()).await;
    assert!(tried > 140, "{tried} cases");
    eprintln!("{tried} cases, {} answered otherwise", failed.len());
    failed
}

#[tokio::test(flavor = "multi_thread")]
async fn every_listener_of_http2_keeps_to_its_specification_as_h2spec_reads_it() {
    needs!(probes::installed());
    let fixture = fixture().await;
    for listener in ["mesh", "proxy", "tunnels"] {
        let client = at(&fixture, listener);
        let mut wrong = read_by_h2spec(&fixture, &client).await;
        // An answer may overtake the frame that breaks the rule, above all a refusal: what is wrong is so each time.
        for _ in 0..3 {
            if wrong.is_empty() {
                break;
            }
            eprintln!("{listener}: again for {wrong:?}");
            let again = read_by_h2spec(&fixture, &client).await;
            wrong.retain(|(case, _)| again.iter().any(|(other, _)| other == case));
        }
        assert!(wrong.is_empty(), "{listener}: {wrong:#?}");
    }
    fixture.checkout().get("/up/x").await.assert_status(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tls_listener_speaks_new_tls_alone_and_has_no_known_hole_as_sslyze_sees_it() {
    needs!(probes::installed());
    let fixture = fixture().await;
    for listener in LISTENERS {
        let client = at(&fixture, listener);
        let said = probes::sslyze(([127, 0, 0, 1], port(&client)).into(), client.identity()).await;
        assert_eq!(said["scan_status"], "COMPLETED", "{listener}: {said}");
        let result = |name: &str| -> &Value {
            let attempt = &said["scan_result"][name];
            assert_eq!(attempt["status"], "COMPLETED", "{listener}: {name}: {attempt}");
            &attempt["result"]
        };
        for old in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"] {
            let accepted = &result(&format!("{old}_cipher_suites"))["accepted_cipher_suites"];
            assert_eq!(accepted.as_array().map(Vec::len), Some(0), "{listener}: {old}: {accepted}");
        }
        let accepted = |version: &str| {
            let suites = &result(&format!("tls_{version}_cipher_suites"))["accepted_cipher_suites"];
            let names = suites.as_array().unwrap().iter();
            let names = names.map(|suite| suite["cipher_suite"]["name"].as_str().unwrap().to_owned());
            names.collect::<Vec<_>>()
        };
        assert!(!accepted("1_3").is_empty(), "{listener}");
        let weak =
            |name: &String| !name.contains("ECDHE") || !(name.contains("GCM") || name.contains("CHACHA20"));
        let older = accepted("1_2");
        assert!(!older.iter().any(weak), "{listener}: {older:?}");
        assert!(listener != "tunnels" || older.is_empty(), "{older:?}");
        assert_eq!(result("heartbleed")["is_vulnerable_to_heartbleed"], false, "{listener}");
        assert_eq!(result("openssl_ccs_injection")["is_vulnerable_to_ccs_injection"], false, "{listener}");
        assert_eq!(result("tls_compression")["supports_compression"], false, "{listener}");
        let renegotiation = result("session_renegotiation");
        assert_eq!(renegotiation["is_vulnerable_to_client_renegotiation_dos"], false, "{listener}");
        // It is tried with a request over HTTP.
        if listener != "cache" {
            assert_eq!(result("tls_1_3_early_data")["supports_early_data"], false, "{listener}");
        }
        let robot = result("robot")["robot_result"].as_str().unwrap_or_default().to_owned();
        assert!(robot.starts_with("NOT_VULNERABLE"), "{listener}: {robot}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_by_the_hundred_hold_up_nobody_at_any_listener() {
    needs!(probes::installed(), Haproxy::installed());
    let fixture = fixture().await;
    let before = resident_kib(fixture.gateway.pid());
    let mut fronts = Vec::new();
    for (listener, protocol) in [("mesh", "http/1.1"), ("proxy", "http/1.1"), ("tunnels", "h2")] {
        let client = at(&fixture, listener);
        let front = Haproxy::to_tls(&fixture.sandbox, client.identity(), port(&client), protocol).await;
        fronts.push((listener, front));
    }
    // Heads, bodies and answers, each a few bytes at a time.
    let ways: [(&str, &[&str]); 3] = [
        ("heads", &["-H", "-i", "5", "-x", "24"]),
        ("bodies", &["-B", "-i", "5", "-s", "100000", "-x", "10"]),
        ("answers", &["-X", "-w", "10", "-y", "20", "-n", "5", "-z", "5"]),
    ];
    let mut slow = tokio::task::JoinSet::new();
    for (_, front) in &fronts {
        for (_, arguments) in ways {
            let url = format!("http://127.0.0.1:{}/up/x", front.port());
            let common = ["-c", "50", "-r", "25", "-l", "25", "-p", "3"];
            let arguments = [arguments, &common].concat();
            slow.spawn(async move { probes::slow(&url, &arguments).await });
        }
    }
    let other = fixture.caller("spiffe://prod.acme/ns/checkout/sa/other");
    let (begun, mut served) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(20) {
        for protocol in Protocol::BOTH {
            let request = other.request(http::Method::GET, "/up/x", "");
            let answer = tokio::time::timeout(Duration::from_secs(20), other.send(protocol, request)).await;
            answer.expect("others are served meanwhile").unwrap().assert_status(200);
            served += 1;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let after = resident_kib(fixture.gateway.pid());
    while let Some(said) = slow.join_next().await {
        fixture.sandbox.answered(said.unwrap().as_bytes());
    }
    eprintln!("{served} calls of others meanwhile; resident {before} KiB before, {after} KiB at its height");
    assert!(after < before + (150 << 10), "{before} KiB before, {after} KiB after");
}
