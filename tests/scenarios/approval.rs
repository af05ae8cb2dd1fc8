//! Destinations that demand approval, and what people are told of who has access.

use std::fs;
use std::path::Path;
use std::process::Output;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tollgate_tests::{Fixture, Identity, Plan, Reply};

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

fn parsed(output: &Output) -> Value {
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
    let listed = parsed(&listed);
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
        (vec![&*before, &*elsewhere, "--within", "tmp/boundary.yaml"], 1, "no boundary allows a change of"),
        (vec![&*wider, "--within", "tmp/boundary.yaml"], 1, "! grant checkout-up: spec.callers"),
        (vec![&*wider, &*wider, "--within", "tmp/boundary.yaml"], 0, "0 beyond the boundary"),
    ] {
        let output = diff(&arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(part), "{arguments:?}: {}", said(&output));
    }
    let found = parsed(&diff(&[&before, &wider, "--within", "tmp/boundary.yaml", "--json"]));
    assert_eq!(found["adds"][0]["what"], "caller");
    assert_eq!(found["adds"][0]["grant"], "checkout-up");
    assert!(
        found["adds"][0]["example"]["url"].as_str().unwrap().starts_with("https://api.up.test:"),
        "{found}"
    );
    assert_eq!(found["beyond"][0]["field"], "spec.callers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_reached_otherwise_and_a_certificate_with_another_content_are_said_and_beyond_every_boundary()
{
    let fixture = Plan::new().start(|_| Reply::status(200)).await;
    let (gateway, sandbox) = (&fixture.gateway, &fixture.sandbox);
    let document = |kind: &str, name: &str, spec: &str| {
        format!(
            "---\napiVersion: tollgate.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{spec}"
        )
    };
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let folder = |name: &str, address: &str| {
        let folder = gateway.home().join("tmp").join(name);
        fs::create_dir_all(folder.join("keys")).unwrap();
        let [partner, login] = [(); 2].map(|()| fixture.prod.svid(sandbox, "spiffe://prod.acme/partner"));
        let shown = json!({"chain": read(&partner.cert), "key": read(&partner.key)});
        fs::write(folder.join("keys/partner"), shown.to_string()).unwrap();
        fs::copy(&login.cert, folder.join("me.pem")).unwrap();
        fs::copy(&login.key, folder.join("me.key")).unwrap();
        let vault = format!(
            "  vault: {{address: \"{address}\", auth: {{certificate: {{certFile: me.pem, keyFile: me.key}}}}}}\n"
        );
        let key = "  destinations: [partner]\n  from: {store: files, path: partner, fields: [chain, key]}\n  \
                   inject: {clientCertificate: {certificate: chain, key: key}}\n";
        let grant = "  callers: [{spiffe: \"spiffe://prod.acme/ns/checkout/sa/*\"}]\n  destination: partner\n  \
                     allow: {methods: [GET], paths: [/x]}\n";
        let all = document("SecretStore", "files", "  file: {root: keys}\n")
            + &document("SecretStore", "bao", &vault)
            + &document("Credential", "mtls", key)
            + &document(
                "Destination",
                "partner",
                "  hosts: [partner.test]\n  tls: {clientCertificate: mtls}\n",
            )
            + &document("Grant", "partner", grant);
        fs::write(folder.join("all.yaml"), all).unwrap();
        (format!("tmp/{name}"), partner)
    };
    let (before, old) = folder("first", "https://bao:8200");
    let (after, new) = folder("second", "https://other:8200");
    let fingerprint = |identity: &Identity| {
        let der = CertificateDer::pem_file_iter(&identity.cert).unwrap().next().unwrap().unwrap();
        let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().unwrap();
        let digest = suite.common.hash_provider.hash(&der);
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let boundary = gateway.home().join("tmp/boundary.yaml");
    fs::write(&boundary, BOUNDARY.replace("destinations: [up]", "destinations: [partner]")).unwrap();
    let diff = |arguments: &[&str]| gateway.tollgate(&[&["access", "diff"], arguments].concat());
    let found = diff(&[&before, &after]);
    assert_eq!(found.status.code(), Some(1), "{}", said(&found));
    for part in [
        format!("destination partner: client certificate mtls is sha256:{}", fingerprint(&new)),
        format!("(before: sha256:{})", fingerprint(&old)),
        "+ store: store bao: the certificate that it is shown is sha256:".to_owned(),
        "+ store: store bao: is reached at https://other:8200 (before: https://bao:8200)".to_owned(),
        "3 added, 0 removed".to_owned(),
    ] {
        assert!(said(&found).contains(&part), "{part}: {}", said(&found));
    }
    let same = diff(&[&after, &after]);
    assert!(said(&same).contains("0 added, 0 removed"), "{}", said(&same));
    let within = diff(&[&before, &after, "--within", "tmp/boundary.yaml"]);
    assert_eq!(within.status.code(), Some(1));
    let beyond = said(&within);
    assert_eq!(
        beyond.matches("no boundary allows a change of a destination, a credential or a store").count(),
        3,
        "{beyond}"
    );
    assert!(beyond.contains("3 beyond the boundary"), "{beyond}");
}
