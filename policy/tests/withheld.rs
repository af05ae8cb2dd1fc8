//! What is withheld denies itself: its host falls to no other, and its grants let nothing through there and only there.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is a test")]

#[path = "support/assumed.rs"]
mod assumed;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/read.rs"]
mod read;

use cluster::{GATEWAY, compile, decide, resource};
use serde_json::{Value, json};
use tollgate_policy::denial::Reason;
use tollgate_policy::policy::Policy;

const CALLER: &str = "spiffe://prod.acme/ns/shop/sa/web";

fn withheld(id: (&str, &str), hosts: &[&str], yields: bool) -> Value {
    let mut resource = destination(id, hosts);
    resource["withheld"] = json!({"because": "no accepted route leads to it"});
    if yields {
        resource["withheld"]["yields"] = json!(true);
    }
    resource
}

fn destination(id: (&str, &str), hosts: &[&str]) -> Value {
    resource("Destination", id, &json!({ "hosts": hosts }))
}

fn grant(id: (&str, &str), destination: &str) -> Value {
    resource("Grant", id, &json!({"callers": [{"spiffe": CALLER}], "destination": destination}))
}

fn call(policy: &Policy, host: &'static str) -> Result<String, Reason> {
    decide(policy, (CALLER, host, "/x", "GET"))
}

#[test]
fn the_host_of_what_is_withheld_falls_to_no_wildcard_and_its_grants_are_denied_there_alone() {
    for yields in [false, true] {
        for grants_namespace in [GATEWAY, "shop"] {
            let (id, reference) = match grants_namespace {
                GATEWAY => ((GATEWAY, "api"), "api"),
                _ => (("shop", "api"), "api"),
            };
            let resources = [
                destination((GATEWAY, "any"), &["*.up.example"]),
                grant((GATEWAY, "any"), "any"),
                withheld((GATEWAY, "held"), &["api.up.example"], yields),
                withheld(id, &["api.other.example"], yields),
                grant((grants_namespace, "api"), reference),
                destination((GATEWAY, "more"), &["more.example"]),
                grant((GATEWAY, "more"), "more"),
            ];
            let compiled = compile(&resources, &[]);
            let said: Vec<String> = compiled.problems.iter().map(ToString::to_string).collect();
            let held = format!("Destination {GATEWAY}/held: withheld: no accepted route leads to it");
            assert!(said.contains(&held) && said.len() == 2, "{said:?}");
            let policy = &compiled.policy;
            assert_eq!(call(policy, "api.up.example"), Err(Reason::BrokenConfiguration));
            assert_eq!(call(policy, "api.other.example"), Err(Reason::BrokenConfiguration));
            assert_eq!(call(policy, "b.up.example"), Ok(format!("{GATEWAY}/any")));
            assert_eq!(call(policy, "more.example"), Ok(format!("{GATEWAY}/more")));
        }
    }
}

#[test]
fn what_yields_takes_its_host_from_no_other_owner_and_what_only_is_withheld_keeps_it() {
    let of = |yields: bool| {
        let resources = [
            withheld(("web", "api"), &["api.example"], yields),
            destination(("shop", "api"), &["api.example"]),
            grant(("shop", "api"), "api"),
        ];
        call(&compile(&resources, &[]).policy, "api.example")
    };
    assert_eq!(of(true), Ok("shop/api".to_owned()));
    assert_eq!(of(false), Err(Reason::BrokenConfiguration));
}

#[test]
fn what_is_withheld_without_a_host_blocks_none() {
    let resources = [
        destination((GATEWAY, "any"), &["*.up.example"]),
        grant((GATEWAY, "any"), "any"),
        withheld((GATEWAY, "pods"), &[], true),
        grant((GATEWAY, "pods"), "pods"),
    ];
    let compiled = compile(&resources, &[]);
    assert_eq!(compiled.problems.len(), 1, "{:?}", compiled.problems);
    assert_eq!(call(&compiled.policy, "api.up.example"), Ok(format!("{GATEWAY}/any")));
}

#[test]
fn what_was_not_read_may_have_any_host_also_where_it_is_withheld() {
    for is_withheld in [false, true] {
        let mut unread = json!({
            "apiVersion": "tollgate.dev/v1alpha1", "kind": "Destination",
            "metadata": {"namespace": "shop", "name": "large"}, "unreadable": "this has 300 KiB",
        });
        if is_withheld {
            unread["withheld"] = json!({"because": "this has 300 KiB"});
        }
        let resources = [
            destination((GATEWAY, "any"), &["*.up.example"]),
            grant((GATEWAY, "any"), "any"),
            destination((GATEWAY, "more"), &["more.example"]),
            grant((GATEWAY, "more"), "more"),
            unread,
            grant(("shop", "large"), "large"),
        ];
        let compiled = compile(&resources, &[]);
        // Its host may be one that would fall to the wildcard.
        assert_eq!(call(&compiled.policy, "api.up.example"), Err(Reason::BrokenConfiguration));
        assert_eq!(call(&compiled.policy, "more.example"), Ok(format!("{GATEWAY}/more")));
    }
    let unread = json!({
        "apiVersion": "tollgate.dev/v1alpha1", "kind": "Grant",
        "metadata": {"namespace": "shop", "name": "large"}, "unreadable": "this has 300 KiB",
    });
    let resources =
        [destination((GATEWAY, "more"), &["more.example"]), grant((GATEWAY, "more"), "more"), unread];
    // Whom it names is not known, and where they may not call.
    assert_eq!(call(&compile(&resources, &[]).policy, "more.example"), Err(Reason::BrokenConfiguration));
}
