//! Approval as people do it: an app applies a Grant, security reads what it amounts to and applies the Approval.

use serde_json::{Value, json};
use tollgate_tests::cluster::Cluster;
use tollgate_tests::gateway::eventually;
use tollgate_tests::{Gateway, Protocol, needs};

use super::consents::{begun, breaks_off, grant_of_shop, respond, shop};
use super::{APP, EGRESS, SECURITY, World, answers, condition, path, rights};

const OF_SHOP: &str = "/apis/tollgate.dev/v1alpha1/namespaces/shop/grants/shop-up";

/// The app's team may write Grants in its namespace, security Approvals in the gateway's; nobody else may write them.
async fn roles(world: &World) {
    let writes = |resource: &str| {
        let verbs = ["get", "list", "create", "patch", "update", "delete"];
        json!([{"apiGroups": ["tollgate.dev"], "resources": [resource], "verbs": verbs}])
    };
    world.cluster.allow(APP, Some("shop"), &writes("grants")).await;
    world.cluster.allow(SECURITY, Some(EGRESS), &writes("approvals")).await;
}

/// What a command of the gateway's pod prints, as its JSON or its text.
fn printed(gateway: &Gateway, arguments: &[&str]) -> String {
    let output = gateway.tollgate(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What `access list` says of the app's grant: its state, or nothing where it is not known yet.
fn state(gateway: &Gateway) -> Option<String> {
    let listed: Value =
        serde_json::from_str(&printed(gateway, &["access", "list", "--namespace", "shop", "--json"]))
            .unwrap();
    listed[0]["state"].as_str().map(str::to_owned)
}

/// Waits until the status says that the grant is not approved; its hash.
async fn not_approved(world: &World) -> String {
    let waits = |grant: &Value| {
        condition(grant, "Approved")["status"] == "False"
            && condition(grant, "Programmed")["reason"] == "NotApproved"
            && condition(grant, "Approved")["observedGeneration"] == grant["metadata"]["generation"]
    };
    let grant = world.cluster.until(OF_SHOP, waits).await;
    assert_eq!(condition(&grant, "Accepted")["status"], "True", "{grant}");
    grant["status"]["hash"].as_str().expect("a hash").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_asks_with_a_grant_and_security_approves_it_with_kubectl() {
    needs!(Cluster::installed());
    let world = World::answering(&rights(), respond).await;
    world.cluster.namespace("shop", &Value::Null, &[]).await;
    roles(&world).await;
    let gateway = world.start().await;
    let consents = "  allowedNamespaces: {names: [shop]}\n";
    let objects = world
        .objects
        .replace("  hosts: [", &format!("  approval: required\n{consents}  hosts: ["))
        .replace("  destinations: [", &format!("{consents}  destinations: ["));
    world.cluster.apply(&objects).await;

    // The app asks. It cannot say yes to itself.
    let grant = grant_of_shop(&world);
    world.cluster.try_apply(APP, &grant, &[]).await.unwrap();
    let client = shop(&world, &gateway);
    answers(&client, 403).await;
    let first = not_approved(&world).await;
    let refused = client.get("/up/x").await;
    refused.assert_refused(403, "not_approved");
    assert!(refused.text().contains("grant shop/shop-up is not approved"), "{}", refused.text());
    assert_eq!(world.upstream.count(), 0);

    // Security sees who waits, reads what it amounts to, and applies what is printed.
    eventually("the gateway's pod knows the grant", || state(&gateway).is_some()).await;
    assert_eq!(state(&gateway).as_deref(), Some("not approved"));
    let approval = printed(&gateway, &["access", "approve", "shop/shop-up"]);
    assert!(approval.contains("namespace: egress") && approval.contains(&first), "{approval}");
    let of_app = world.cluster.try_apply(APP, &approval, &[]).await.expect_err("the app has no right to it");
    assert!(of_app.contains("cannot") && of_app.contains("approvals.tollgate.dev"), "{of_app}");
    world.cluster.try_apply(SECURITY, &approval, &[]).await.unwrap();
    answers(&client, 200).await;
    world.condition(OF_SHOP, "Approved", "True").await;
    world.condition(OF_SHOP, "Programmed", "True").await;
    eventually("the list says so", || state(&gateway).as_deref() == Some("approved")).await;

    // A changed grant waits again, though less is asked; what was approved is approved still.
    world.cluster.try_apply(APP, &grant.replace("GET, POST, PUT", "GET, POST"), &[]).await.unwrap();
    answers(&client, 403).await;
    client.get("/up/x").await.assert_refused(403, "not_approved");
    assert_ne!(not_approved(&world).await, first);
    let name = approval.split("name: ").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    let of_approval = path("approvals", name);
    let said = world.condition(&of_approval, "Programmed", "False").await;
    assert_eq!(said["reason"], "NoEffect", "{said}");
    world.cluster.try_apply(APP, &grant, &[]).await.unwrap();
    answers(&client, 200).await;

    // Withdrawn, it is inert at once, and what is open ends.
    let open = begun(&client, Protocol::H2).await;
    world.cluster.try_kubectl(SECURITY, &["delete", "approval", "-n", EGRESS, name]).await.unwrap();
    breaks_off(open).await;
    client.get("/up/x").await.assert_refused(403, "not_approved");
    assert_eq!(not_approved(&world).await, first);

    // Said by a namespace that the destination is not in, yes means nothing.
    world.cluster.apply(&approval.replace("namespace: egress", "namespace: shop")).await;
    let elsewhere = format!("/apis/tollgate.dev/v1alpha1/namespaces/shop/approvals/{name}");
    let said = world.condition(&elsewhere, "Programmed", "False").await;
    assert_eq!(said["reason"], "NoEffect", "{said}");
    assert!(said["message"].as_str().unwrap().contains("has to be in the namespace `egress`"), "{said}");
    client.get("/up/x").await.assert_refused(403, "not_approved");
    world.leave().await;
}
