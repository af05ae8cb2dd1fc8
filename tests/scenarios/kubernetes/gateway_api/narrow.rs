//! Each right that the Gateway API needs by itself: without it something says which one is missing.

use serde_json::json;
use tollgate_tests::cluster::Cluster;
use tollgate_tests::gateway::eventually;
use tollgate_tests::{Sandbox, needs};

use super::super::rights::{has_error, less};
use super::super::{EGRESS, USER, answers};
use super::{CLASS, GATEWAY, Routed, all_rights, all_say_so, installed, route};

const KINDS: [&str; 4] = ["gatewayclasses", "gateways", "httproutes", "xbackends"];

#[tokio::test(flavor = "multi_thread")]
async fn each_right_that_the_gateway_api_needs_is_named_where_it_is_missing() {
    needs!(Cluster::installed(), installed());
    let routed = Routed::new().await;
    routed.install("1.7.0").await;
    let (world, cluster) = (&routed.world, &routed.world.cluster);
    let objects = format!("{}{}", routed.backend("1.7"), route((EGRESS, "up"), "api.up.test"));
    cluster.apply(&format!("{CLASS}{GATEWAY}{objects}{}", routed.others())).await;
    for kind in KINDS {
        for verb in ["list", "watch"] {
            cluster.allow(USER, None, &less(&all_rights(), verb, kind)).await;
            let gateway = world.launch(&Sandbox::new()).await;
            let named = format!("cannot {verb} resource \"{kind}\"");
            let mut told = (0, String::new());
            eventually(&named, || {
                told = gateway.admin_get("/readyz");
                told.1.contains(&named)
            })
            .await;
            // What cannot be listed may have said anything; what was listed serves.
            assert_eq!(told.0 == 503, verb == "list", "{told:?}");
        }
    }
    let mut none = all_rights();
    none.as_array_mut().unwrap().retain(|rule| rule["verbs"] == json!(["list", "watch"]));
    cluster.allow(USER, None, &none).await;
    let gateway = world.start().await;
    answers(&world.checkout(&gateway), 200).await;
    for kind in KINDS {
        let named = format!("cannot patch resource \"{kind}/status\"");
        eventually(&named, || has_error(&gateway, &named)).await;
    }
    cluster.allow(USER, None, &all_rights()).await;
    all_say_so(&routed).await;
    routed.leave().await;
}
