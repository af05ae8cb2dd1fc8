//! Operating it: admin port, drain, check, explain, command line.

use std::fs;
use std::net::TcpStream;
use std::time::Duration;

use http::Method;
use tollgate_tests::client::Connection;
use tollgate_tests::fixture::CHECKOUT;
use tollgate_tests::gateway::{binary, eventually};
use tollgate_tests::report::report;
use tollgate_tests::{Gateway, Plan, Protocol, Reply};

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_port_asks_for_a_token_and_for_its_own_host_and_origin() {
    let fixture = Plan::new().start(|_| Reply::status(200)).await;
    let gateway = &fixture.gateway;
    let token = format!("Authorization: Bearer {}\r\n", gateway.token());
    for path in ["/healthz", "/readyz"] {
        assert_eq!(gateway.admin_get_with(path, "").0, 200, "{path}");
    }
    for path in ["/metrics", "/debug/snapshot", "/debug/credentials", "/debug/budgets"] {
        assert_eq!(gateway.admin_get_with(path, "").0, 401, "{path}");
        assert_eq!(gateway.admin_get_with(path, "Authorization: Bearer wrong\r\n").0, 401, "{path}");
        assert_eq!(gateway.admin_get_with(path, "Authorization: Basic Og==\r\n").0, 401, "{path}");
        assert_eq!(gateway.admin_get(path).0, 200, "{path}");
        // A page of another origin, and a name that was pointed at this address.
        assert_eq!(gateway.admin_get_with(path, &format!("{token}Host: evil.test\r\n")).0, 403, "{path}");
        assert_eq!(
            gateway.admin_get_with(path, &format!("{token}Origin: https://evil.test\r\n")).0,
            403,
            "{path}"
        );
    }
    assert_eq!(gateway.admin_get("/nothing").0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_finishes_what_is_under_way_and_takes_no_more() {
    let mut fixture = Plan::new()
        .start(|_| Reply::status(200).data("begun, ").wait(Duration::from_secs(2)).data("done"))
        .await;
    let client = fixture.checkout();
    let calls: Vec<_> = Protocol::BOTH
        .into_iter()
        .map(|protocol| {
            let client = client.clone();
            tokio::spawn(async move {
                client.send(protocol, client.request(Method::GET, "/up/x", "")).await.unwrap().text()
            })
        })
        .collect();
    eventually("both calls are under way", || fixture.upstream.count() == 2).await;
    fixture.gateway.begin_drain();
    eventually("readiness fails", || fixture.gateway.admin_get_with("/readyz", "").0 == 503).await;
    for call in calls {
        assert_eq!(call.await.unwrap(), "begun, done");
    }
    assert!(client.open(Protocol::H1).await.is_err() || client.refusal().await != "answered");
    assert!(fixture.gateway.stop().success());
    assert_eq!(report(&fixture.gateway, "caller").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_opened_before_the_listeners_close_has_its_first_request_answered() {
    let mut fixture = Plan::new().start(|_| Reply::status(200).data("there")).await;
    let client = fixture.checkout();
    let mut opened = Vec::new();
    for protocol in Protocol::BOTH {
        opened.push(client.open(protocol).await.unwrap());
    }
    fixture.gateway.begin_drain();
    eventually("the listeners are closed", || TcpStream::connect(fixture.gateway.address()).is_err()).await;
    // The connections are looked at once a second.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    for mut connection in opened {
        let answer = connection.send(client.request(Method::GET, "/up/x", "")).await.unwrap();
        assert_eq!(answer.text(), "there");
    }
    assert!(fixture.gateway.ended().await.success());
    assert_eq!(report(&fixture.gateway, "caller").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_a_handshake_under_way() {
    let mut fixture = Plan::new().start(|_| Reply::status(200).data("there")).await;
    let client = fixture.checkout();
    let dialled = client.dial().await.unwrap();
    fixture.gateway.begin_drain();
    eventually("the listeners are closed", || TcpStream::connect(fixture.gateway.address()).is_err()).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let late = client.secure(client.tls(&["http/1.1"]), dialled).await.unwrap();
    let mut connection = Connection::over(&client, late, Protocol::H1).await.unwrap();
    let answer = connection.send(client.request(Method::GET, "/up/x", "")).await.unwrap();
    assert_eq!(answer.text(), "there");
    assert!(fixture.gateway.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_gateway_stops_at_once() {
    let mut fixture = Plan::new().start(|_| Reply::status(200)).await;
    let client = fixture.checkout();
    let mut idle = client.open(Protocol::H1).await.unwrap();
    idle.send(client.request(Method::GET, "/up/x", "")).await.unwrap().assert_status(200);
    let begun = std::time::Instant::now();
    assert!(fixture.gateway.stop().success());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// One broken copy of the fixture's resources: what is changed, what must be named.
const BROKEN: [(&str, &str, &str); 20] = [
    ("kind: Grant", "kind: Grand", "Grand"),
    ("apiVersion: tollgate.dev/v1alpha1\nkind: Grant", "apiVersion: tollgate.dev/v9\nkind: Grant", "v9"),
    ("metadata: {name: up}", "metadata: {name: Up_}", "metadata.name"),
    ("hosts: [api.up.test]", "hosts: [\"api..test\"]", "spec.hosts"),
    ("hosts: [api.up.test]", "hosts: []", "spec.hosts"),
    ("  hosts: [api.up.test]\n", "", "hosts"),
    ("dialect: http", "dialect: nobody", "spec.dialect"),
    ("dialect: http", "dialect: http\n  dialekt: http", "dialekt"),
    ("addresses: [127.0.0.1]", "addresses: [localhost]", "spec.addresses"),
    ("tls: {verify:", "tls: {verifi:", "verifi"),
    ("inject: {bearer: {}}", "inject: {bearer: {}, header: {name: x}}", "spec.inject"),
    ("inject: {bearer: {}}", "inject: {header: {name: \"x y\"}}", "spec.inject"),
    ("from: {store: files, path: up}", "from: {store: nobody, path: up}", "spec.from"),
    ("destinations: [up]", "destinations: [down]", "spec.destinations"),
    ("destination: up\n", "destination: down\n", "spec.destination"),
    ("credential: up-key", "credential: nobody", "spec.credential"),
    ("spiffe://prod.acme/ns/checkout/sa/*", "spiffe://prod.acme/ns/ch*ckout/sa/x", "spec.callers"),
    ("spiffe://prod.acme/ns/checkout/sa/*", "https://prod.acme/x", "spec.callers"),
    ("paths: [\"/**\"]", "paths: [\"no-slash\"]", "spec.allow.paths"),
    ("methods: [GET, POST, PUT, DELETE]", "methods: [\"GE T\"]", "spec.allow.methods"),
];

#[tokio::test(flavor = "multi_thread")]
async fn check_names_file_line_and_field_of_twenty_broken_configurations() {
    let plan = Plan::new();
    let good = plan.complete(443);
    let text = good.resources[0].1.clone();
    let gateway = Gateway::prepare(&plan.sandbox, &good);
    assert!(
        gateway.tollgate(&["check"]).status.success(),
        "{}",
        String::from_utf8_lossy(&gateway.tollgate(&["check"]).stderr)
    );
    let mut silent = Vec::new();
    for (from, to, named) in BROKEN {
        let broken = text.replacen(from, to, 1);
        assert_ne!(broken, text, "{from}");
        gateway.write_resource("fixture.yaml", &broken);
        let output = gateway.tollgate(&["check"]);
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        let located = said.lines().any(|line| {
            let number = line
                .split_once("fixture.yaml:")
                .and_then(|(_, rest)| rest.split(':').next()?.parse::<usize>().ok());
            number.is_some_and(|number| number >= 1) && line.contains(named)
        });
        if output.status.success() || !located {
            silent.push(format!("{from} -> {to}: {said}"));
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reports_all_errors_at_once() {
    let plan = Plan::new();
    let good = plan.complete(443);
    let text = good.resources[0]
        .1
        .replace("dialect: http", "dialect: nobody")
        .replace("credential: up-key", "credential: nobody")
        .replace("store: files", "store: elsewhere");
    let gateway = Gateway::prepare(&plan.sandbox, &good.resource("fixture.yaml", text));
    let said = String::from_utf8(gateway.tollgate(&["check"]).stderr).unwrap();
    for word in ["spec.dialect", "spec.credential", "spec.from"] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_what_the_live_gateway_does() {
    let grant = "  allow: {methods: [GET], paths: [/v1/things, \"/v1/open/**\"]}\n".to_owned();
    let fixture = Plan { grant, ..Plan::new() }.start(|_| Reply::status(200)).await;
    let billing = "spiffe://prod.acme/ns/billing/sa/web";
    for (caller, method, path, reason) in [
        (CHECKOUT, "GET", "/v1/things", ""),
        (CHECKOUT, "GET", "/v1/open/a/b", ""),
        (CHECKOUT, "POST", "/v1/things", "method_not_allowed"),
        (CHECKOUT, "GET", "/v1/other", "path_not_allowed"),
        (CHECKOUT, "GET", "/v1/../other", "ambiguous_path"),
        (billing, "GET", "/v1/things", "no_grant"),
    ] {
        let client = fixture.caller(caller);
        let raw = format!(
            "{method} /up{path} HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            client.authority()
        );
        let live = String::from_utf8(client.raw(raw.as_bytes()).await.bytes).unwrap().to_ascii_lowercase();
        let live =
            live.split("x-tollgate-reason: ").nth(1).map_or("", |rest| rest.split('\r').next().unwrap());
        let url = format!("https://localhost/up{path}");
        let output =
            fixture.gateway.tollgate(&["explain", "--caller", caller, "--method", method, "--url", &url]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(live, reason, "{caller} {method} {path}");
        assert_eq!(output.status.success(), reason.is_empty(), "{said}");
        assert!(said.contains(if reason.is_empty() { "checkout-up" } else { reason }), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_start_says_what_is_wrong_and_does_not_listen() {
    let plan = Plan::new();
    let good = plan.complete(443);
    let text = good.resources[0].1.replace("dialect: http", "dialect: nobody");
    let gateway = Gateway::prepare(&plan.sandbox, &good.resource("fixture.yaml", text));
    let output = gateway.tollgate(&["serve"]);
    assert!(!output.status.success());
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("fixture.yaml:") && said.contains("spec.dialect"), "{said}");
    let settings = fs::read_to_string(gateway.home().join("tollgate.yaml")).unwrap();
    fs::write(gateway.home().join("tollgate.yaml"), settings.replace("dataDir", "dataDirectory")).unwrap();
    let output = gateway.tollgate(&["check"]);
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(
        !output.status.success() && said.contains("tollgate.yaml:") && said.contains("dataDirectory"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_the_main_job_and_ends() {
    let demo =
        std::process::Command::new(binary()).args(["demo", "--once"]).output().expect("the binary runs");
    let said = String::from_utf8(demo.stdout).unwrap();
    assert!(demo.status.success(), "{said}{}", String::from_utf8_lossy(&demo.stderr));
    for word in ["checkout  200", "no_grant", "budget_exhausted", "cost USD", "gpt-5-mini"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let total = said.lines().find(|line| line.starts_with("total")).expect("a line of totals");
    assert!(!total.contains("0.000000"), "{total}");
}
