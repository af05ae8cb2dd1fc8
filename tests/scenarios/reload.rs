//! Configuration while it runs: taken whole or not at all.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tollgate_tests::fixture::CHAT_ONLY;
use tollgate_tests::gateway::{eventually, field};
use tollgate_tests::provider::chat;
use tollgate_tests::resources::grant;
use tollgate_tests::{Authority, Fixture, Leaf, Plan, Protocol, Reply, Settings};

async fn fixture() -> Fixture {
    Plan::new().start(|_| Reply::status(200)).await
}

fn text(fixture: &Fixture) -> String {
    fixture.gateway.settings().resources.iter().find(|(file, _)| file == "fixture.yaml").unwrap().1.clone()
}

fn failures(fixture: &Fixture) -> f64 {
    fixture.gateway.metrics().sum("tollgate_config_reload_failures_total", &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_configuration_is_refused_whole_named_and_the_last_good_one_serves() {
    let fixture = fixture().await;
    let billing = fixture.caller("spiffe://prod.acme/ns/billing/sa/web");
    let good = text(&fixture);
    let more = grant(
        "billing-up",
        "spiffe://prod.acme/ns/billing/sa/*",
        "up",
        "up-key",
        "  allow: {methods: [GET], paths: [\"/**\"]}\n",
    );
    let broken = [
        ("unknown field", good.replace("dialect: http", "dialekt: http"), "dialekt"),
        ("unknown reference", good.replace("credential: up-key", "credential: nobody"), "nobody"),
        ("not YAML", good.replace("spec:", "spec: ["), "fixture.yaml"),
        ("bad amount", good.replace("paths: [\"/**\"]", "paths: 7"), "paths"),
        (
            "duplicate",
            format!("{good}{}", good.split("---").nth(1).unwrap().to_owned())
                .replace("---apiVersion", "---\napiVersion"),
            "fixture.yaml",
        ),
    ];
    for (what, bad, named) in broken {
        let (generation, before) = (fixture.gateway.generation(), failures(&fixture));
        // The good half of the directory must not be taken either.
        fixture.gateway.write_resource("more.yaml", &more);
        fixture.gateway.write_resource("fixture.yaml", &bad);
        eventually(&format!("{what} is refused"), || failures(&fixture) > before).await;
        fixture.checkout().get("/up/x").await.assert_status(200);
        if fixture.gateway.generation() == generation {
            billing.get("/up/x").await.assert_refused(403, "no_grant");
        }
        let names = |line: &str| line.contains(named) && line.contains("fixture.yaml");
        let logged = || fixture.gateway.log().iter().any(|line| names(&line.to_string()));
        eventually(&format!("{what}: the log names file and field"), logged).await;
        std::fs::remove_file(fixture.gateway.home().join("resources/more.yaml")).unwrap();
        fixture.gateway.write_resource("fixture.yaml", &good);
        tokio::time::sleep(Duration::from_millis(600)).await;
        billing.get("/up/x").await.assert_refused(403, "no_grant");
    }
    let generation = fixture.gateway.generation();
    fixture.gateway.write_resource("more.yaml", &more);
    fixture.gateway.reloaded(generation).await;
    billing.get("/up/x").await.assert_status(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_grant_ends_at_the_next_request_of_an_open_connection() {
    let fixture = fixture().await;
    let client = fixture.checkout();
    let mut connections = Vec::new();
    for protocol in Protocol::BOTH {
        let mut open = client.open(protocol).await.unwrap();
        open.send(client.request(http::Method::GET, "/up/x", "")).await.unwrap().assert_status(200);
        connections.push(open);
    }
    let generation = fixture.gateway.generation();
    fixture
        .gateway
        .write_resource("fixture.yaml", &text(&fixture).replace("ns/checkout/sa/*", "ns/nobody/sa/*"));
    fixture.gateway.reloaded(generation).await;
    for open in &mut connections {
        open.send(client.request(http::Method::GET, "/up/x", ""))
            .await
            .unwrap()
            .assert_refused(403, "no_grant");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_configurations_come_and_go() {
    let fixture = fixture().await;
    let good = text(&fixture);
    let client = fixture.checkout();
    let load = async {
        let mut open = client.open(Protocol::H2).await.unwrap();
        for _ in 0..300 {
            open.send(client.request(http::Method::GET, "/up/x", "")).await.unwrap().assert_status(200);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let churn = async {
        for round in 0..6 {
            let broken = round % 2 == 1;
            let next = if broken {
                good.replace("kind: Grant", "kind: Grand")
            } else {
                format!("{good}# {round}\n")
            };
            fixture.gateway.write_resource("fixture.yaml", &next);
            tokio::time::sleep(Duration::from_millis(200)).await;
            fixture.gateway.hang_up();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::join!(load, churn);
    assert_eq!(fixture.upstream.count(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_reads_everything_again() {
    let fixture = fixture().await;
    let before = fixture.gateway.log().len();
    fixture.gateway.hang_up();
    eventually("the reload is logged", || {
        fixture.gateway.log()[before..].iter().any(|line| {
            field(line, "message")
                .as_str()
                .is_some_and(|text| text.contains("config") || text.contains("reload"))
        })
    })
    .await;
    fixture.checkout().get("/up/x").await.assert_status(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_withdrawn_while_the_body_comes_in_sends_nothing() {
    let fixture = Plan::openai(CHAT_ONLY).start_openai(9, 2).await;
    let client = fixture.checkout();
    let body = chat(50).to_string();
    let (early, late) = body.split_at(body.len() / 2);
    let mut stream = client.handshake(client.tls(&["http/1.1"])).await.unwrap();
    let head = format!(
        "POST /up/v1/chat/completions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        client.authority(),
        body.len()
    );
    stream.write_all(format!("{head}{early}").as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    eventually("the call is under way", || {
        fixture.gateway.metrics().sum("tollgate_requests_in_flight", &[]) == 1.0
    })
    .await;
    let generation = fixture.gateway.generation();
    fixture
        .gateway
        .write_resource("fixture.yaml", &text(&fixture).replace("ns/checkout/sa/*", "ns/nobody/sa/*"));
    fixture.gateway.reloaded(generation).await;
    stream.write_all(late.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = vec![0; 512];
    let read = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("no_grant"), "{answer}");
    assert_eq!(fixture.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_is_being_written_is_not_taken_half_way() {
    let fixture = fixture().await;
    let whole = text(&fixture);
    let file = fixture.gateway.home().join("resources/fixture.yaml");
    let (all_but_the_last, _) = whole.rsplit_once("---").unwrap();
    let client = fixture.checkout();
    for part in ["", all_but_the_last] {
        let before = fixture.gateway.generation();
        std::fs::write(&file, part).unwrap();
        fixture.gateway.hang_up();
        for _ in 0..10 {
            client.get("/up/x").await.assert_status(200);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::fs::write(&file, &whole).unwrap();
        fixture.gateway.reloaded(before).await;
        client.get("/up/x").await.assert_status(200);
    }
    assert_eq!(failures(&fixture), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_configuration_is_a_remark_of_readiness_until_it_is_mended() {
    let fixture = fixture().await;
    let good = text(&fixture);
    let ready = || fixture.gateway.admin_get("/readyz");
    let up = || fixture.gateway.metrics().sum("tollgate_config_up", &[]);
    assert_eq!((ready(), up()), ((200, "ready\n".into()), 1.0));
    fixture.gateway.write_resource("fixture.yaml", &good.replace("credential: up-key", "credential: nobody"));
    fixture.gateway.hang_up();
    let remark = "ready; the configuration on disk is refused, and the last good one serves\n";
    eventually("the remark is there", || ready() == (200, remark.into())).await;
    assert_eq!(up(), 0.0);
    fixture.checkout().get("/up/x").await.assert_status(200);
    fixture.gateway.write_resource("fixture.yaml", &good);
    eventually("the remark is gone", || ready() == (200, "ready\n".into())).await;
    assert_eq!(up(), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_bundle_of_a_destination_is_taken_when_it_changes() {
    let fixture = fixture().await;
    let client = fixture.checkout();
    client.get("/up/x").await.assert_status(200);
    let other = Authority::new(&fixture.sandbox, "other");
    for (ca, status) in [(other.pem(), 502), (fixture.pki.pem(), 200)] {
        let before = fixture.gateway.generation();
        std::fs::write(fixture.pki.bundle(), ca).unwrap();
        fixture.gateway.reloaded(before).await;
        client.get("/up/x").await.assert_status(status);
    }
    let before = fixture.gateway.generation();
    std::fs::write(fixture.pki.bundle(), "").unwrap();
    eventually("an empty bundle is refused", || failures(&fixture) > 0.0).await;
    assert_eq!(fixture.gateway.generation(), before);
    client.get("/up/x").await.assert_status(200);
    std::fs::write(fixture.pki.bundle(), fixture.pki.pem()).unwrap();
    fixture.gateway.reloaded(before).await;
    client.get("/up/x").await.assert_status(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_bundle_of_a_destination_is_taken_while_the_configuration_on_disk_is_refused() {
    let fixture = fixture().await;
    let client = fixture.checkout();
    let other = Authority::new(&fixture.sandbox, "other");
    for broken in ["kind: Grant\n", "kind: {"] {
        let (before, refused) = (fixture.gateway.generation(), failures(&fixture));
        fixture.gateway.write_resource("more.yaml", broken);
        eventually("it is refused", || failures(&fixture) > refused).await;
        assert_eq!(fixture.gateway.generation(), before);
        for (ca, status) in [(other.pem(), 502), (fixture.pki.pem(), 200)] {
            let before = fixture.gateway.generation();
            std::fs::write(fixture.pki.bundle(), ca).unwrap();
            fixture.gateway.reloaded(before).await;
            client.get("/up/x").await.assert_status(status);
        }
        let (status, ready) = fixture.gateway.admin_get("/readyz");
        assert!(ready.contains("refused"), "{status}: {ready}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_end_soon_or_lack_a_name_are_told_of_and_measured() {
    let mut plan = Plan::new();
    let short = Leaf { ends_in: 300, begins_in: -7200, ..Leaf::server(&["localhost"]) };
    let own = plan.pki.issue(&plan.sandbox, "short", &short);
    plan.settings = Settings::new(&own).trusting("prod.acme", plan.prod.bundle());
    let fixture = plan.start(|_| Reply::status(200)).await;
    let checked = fixture.gateway.tollgate(&["check"]);
    assert!(checked.status.success());
    let checked = String::from_utf8_lossy(&checked.stderr).into_owned();
    let logged: Vec<String> = fixture.gateway.log().iter().map(ToString::to_string).collect();
    for said in [
        "identity.certificate.certFile",
        "not for `tollgate.test`",
        "short.crt: the certificate ends soon, on 20",
    ] {
        assert!(checked.contains(said), "{said}: {checked}");
        assert!(logged.iter().any(|line| line.contains(said)), "the log: {said}");
    }
    let metrics = fixture.gateway.metrics();
    let ends =
        |kind: &str| metrics.sum("tollgate_certificate_expiry_seconds", &[&format!("kind=\"{kind}\"")]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now..now + 300.0).contains(&ends("own")), "{} at {now}", ends("own"));
    assert!(ends("bundle") > now && ends("destination") > now);
}
