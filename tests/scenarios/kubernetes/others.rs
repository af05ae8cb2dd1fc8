//! What other controllers say of an object.

use serde_json::{Value, json};
use tollgate_tests::cluster::{Cluster, Verb};
use tollgate_tests::needs;

use super::{GRANT, World, condition, rights};

#[tokio::test(flavor = "multi_thread")]
async fn what_another_controller_says_of_an_object_stays_beside_what_the_gateway_says() {
    needs!(Cluster::installed());
    let world = World::new(&rights()).await;
    let _gateway = world.start().await;
    world.cluster.apply(&world.objects).await;
    world.condition(GRANT, "Programmed", "True").await;
    let synced = json!({
        "type": "example.com/Synced", "status": "True", "reason": "Synced", "message": "as in the repository",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let said = json!({
        "apiVersion": "tollgate.dev/v1alpha1", "kind": "Grant", "metadata": {"name": "checkout-up"},
        "status": {"conditions": [synced]},
    });
    world.cluster.call(Verb::Apply, &format!("{GRANT}/status"), &said).await.expect("a condition of another");

    // The gateway says something else of it, and then the first again.
    for (credential, accepted) in [("nobody", "False"), ("up-key", "True")] {
        let objects = world.objects.replace("credential: up-key", &format!("credential: {credential}"));
        world.cluster.apply(&objects).await;
        world.condition(GRANT, "Accepted", accepted).await;
        let object = world.cluster.get(GRANT).await;
        assert_eq!(condition(&object, "example.com/Synced")["message"], "as in the repository", "{object:#}");
    }
    // Each owns what it said.
    let fields = world.cluster.get(GRANT).await["metadata"]["managedFields"].clone();
    let owns = |manager: &str, kind: &str| {
        let of_manager = |entry: &&Value| entry["manager"] == manager && entry["subresource"] == "status";
        let mut entries = fields.as_array().unwrap().iter().filter(of_manager);
        entries.any(|entry| entry["operation"] == "Apply" && entry["fieldsV1"].to_string().contains(kind))
    };
    assert!(owns("tests", "example.com/Synced") && owns("tollgate", "Accepted"), "{fields:#}");
    assert!(!owns("tests", "Accepted") && !owns("tollgate", "example.com/Synced"), "{fields:#}");
    world.leave().await;
}
