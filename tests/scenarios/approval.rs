//! Destinations that demand approval, and what people are told of who has access.

use std::fs;
use std::process::Output;

use serde_json::Value;
use tollgate_tests::{Fixture, Plan, Reply};

const BOUNDARY: &str = "apiVersion: tollgate.dev/v1alpha1
kind: Boundary
metadata: {name: checkout}
spec:
  callers: [{spiffe: \"spiffe://prod.acme/ns/checkout/**\"}]
  destinations: [up]
  credentials: [up-key]
";

fn text(fixture: &Fixture) -> String {
    fixture.gateway.settings().resources.iter().find(|(file, _)| file == "fixture.yaml").unwrap().1.clone()
}

/// The same, where the destination demands approval.
fn demanding(text: &str) -> String {
    text.replacen("  dialect: http\n", "  dialect: http\n  approval: required\n", 1)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(output)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_waits_for_its_approval_and_a_changed_one_waits_again() {
    let fixture = Plan::new().start(|_| Reply::status(200)).await;
    let (gateway, caller) = (&fixture.gateway, fixture.checkout());
    let written = demanding(&text(&fixture));
    gateway.replace("fixture.yaml", &written).await;
    let answer = caller.get("/up/x").await;
    answer.assert_refused(403, "not_approved");
    let told = answer.text();
    assert!(
        told.contains("grant checkout-up is not approved: whoever owns destination up has to agree"),
        "{told}"
    );
    assert_eq!(fixture.upstream.seen().len(), 0, "nothing leaves by a grant that is not approved");

    let check = gateway.tollgate(&["check"]);
    assert!(
        check.status.success()
            && said(&check).contains("Grant/checkout-up: spec.destination: this is not approved")
    );
    let explained = gateway.tollgate(&[
        "explain",
        "--caller",
        "spiffe://prod.acme/ns/checkout/sa/web",
        "--url",
        "https://api.up.test/x",
    ]);
    assert!(said(&explained).contains("decides, and refuses: not_approved"), "{}", said(&explained));

    // What is printed is what is written, and what is approved is said beside it.
    let printed = gateway.tollgate(&["access", "approve", "checkout-up"]);
    let approval = String::from_utf8_lossy(&printed.stdout).into_owned();
    let words = String::from_utf8_lossy(&printed.stderr).into_owned();
    assert!(printed.status.success(), "{}", said(&printed));
    for part in [
        "grant checkout-up",
        "spiffe://prod.acme/ns/checkout/sa/*",
        "api.up.test",
        "up-key, read at files:up",
        "put on as",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    let before = gateway.generation();
    let file = gateway.home().join("resources/approval.yaml");
    let done =
        gateway.tollgate(&["access", "approve", "checkout-up", "--write", &file.display().to_string()]);
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!(fs::read_to_string(&file).unwrap(), approval);
    gateway.reloaded(before).await;
    caller.get("/up/x").await.assert_status(200);

    // What narrows it is another grant too; the order of what it says is not.
    gateway.replace("fixture.yaml", &written.replace("/sa/*", "/sa/web")).await;
    caller.get("/up/x").await.assert_refused(403, "not_approved");
    gateway.replace("fixture.yaml", &format!("# written anew\n{written}")).await;
    caller.get("/up/x").await.assert_status(200);
    let is_now = gateway.tollgate(&["check"]);
    assert!(!said(&is_now).contains("not approved"), "{}", said(&is_now));

    // Withdrawn, it is denied at once.
    let generation = gateway.generation();
    fs::remove_file(&file).unwrap();
    gateway.reloaded(generation).await;
    caller.get("/up/x").await.assert_refused(403, "not_approved");
}

#[tokio::test(flavor = "multi_thread")]
async fn access_is_listed_and_a_change_of_it_is_said_and_held_against_a_boundary() {
    let fixture = Plan::new().start(|_| Reply::status(200)).await;
    let gateway = &fixture.gateway;
    let listed =
        gateway.tollgate(&["access", "list", "--caller", "spiffe://prod.acme/ns/checkout/sa/web", "--json"]);
    let listed = json(&listed);
    assert_eq!(
        (&listed[0]["grant"], &listed[0]["credential"], &listed[0]["state"]),
        (&"checkout-up".into(), &"up-key".into(), &"in force".into())
    );
    let nobody = gateway.tollgate(&["access", "list", "--caller", "spiffe://prod.acme/ns/billing/sa/web"]);
    assert_eq!(said(&nobody), "No grants.\n");
    let table = said(&gateway.tollgate(&["access", "list"]));
    assert!(table.contains("checkout-up") && table.contains("1 grant"), "{table}");

    let folder = |name: &str, text: &str| {
        let folder = gateway.home().join("tmp").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("all.yaml"), text).unwrap();
        format!("tmp/{name}")
    };
    let before = folder("before", &text(&fixture));
    let wider = folder("wider", &text(&fixture).replace("/ns/checkout/sa/*", "/**"));
    let narrower = folder("narrower", &text(&fixture).replace("/sa/*", "/sa/web"));
    // What no grant says, and no boundary can allow.
    let elsewhere = folder("elsewhere", &text(&fixture).replace("api.up.test", "api.other.test"));
    let broken = folder("broken", &text(&fixture).replace("credential: up-key", "credential: nobody"));
    let boundary = gateway.home().join("tmp/boundary.yaml");
    fs::write(&boundary, BOUNDARY).unwrap();
    let diff = |arguments: &[&str]| gateway.tollgate(&[&["access", "diff"], arguments].concat());

    for (arguments, code, part) in [
        (vec![&*before, &*before], 0, "0 added, 0 removed"),
        (
            vec![&*before, &*narrower],
            0,
            "- caller: spiffe://prod.acme/ns/checkout/sa/* may no longer call up",
        ),
        (vec![&*before, &*wider], 1, "+ caller: spiffe://prod.acme/** may call up"),
        (vec![&*before, &*broken], 2, "there is no Credential `nobody`"),
        (vec![&*before, "tmp/nowhere"], 2, "tmp/nowhere"),
        (vec![&*before, &*narrower, "--within", "tmp/boundary.yaml"], 0, "0 beyond the boundary"),
        (
            vec![&*before, &*wider, "--within", "tmp/boundary.yaml"],
            1,
            "! grant checkout-up: spec.callers: spiffe://prod.acme/**",
        ),
        (
            vec![&*before, &*elsewhere, "--within", "tmp/boundary.yaml"],
            1,
            "no boundary allows a change of a destination or a credential",
        ),
        (vec![&*wider, "--within", "tmp/boundary.yaml"], 1, "! grant checkout-up: spec.callers"),
        (vec![&*wider, &*wider, "--within", "tmp/boundary.yaml"], 0, "0 beyond the boundary"),
    ] {
        let output = diff(&arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(part), "{arguments:?}: {}", said(&output));
    }
    let found = json(&diff(&[&before, &wider, "--within", "tmp/boundary.yaml", "--json"]));
    assert_eq!(found["adds"][0]["what"], "caller");
    assert_eq!(found["adds"][0]["grant"], "checkout-up");
    assert!(
        found["adds"][0]["example"]["url"].as_str().unwrap().starts_with("https://api.up.test:"),
        "{found}"
    );
    assert_eq!(found["beyond"][0]["field"], "spec.callers");
}
