//! Who has a host. What is withheld denies itself: its host falls to no other, and its grants let nothing through there and only there.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is a test")]

#[path = "support/assumed.rs"]
mod assumed;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/read.rs"]
mod read;

use cluster::{GATEWAY, compile, compile_with, consents, decide, resource};
use serde_json::{Value, json};
use tollgate_policy::consent::Consents;
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

/// The same, known to have had these hosts.
fn had(mut destination: Value, hosts: &[&str]) -> Value {
    destination["has"] = json!(hosts);
    destination
}

#[test]
fn an_older_destination_that_names_a_host_only_now_takes_it_from_nobody_who_has_had_it() {
    let older = |hosts: &[&str]| had(destination(("web", "old"), hosts), &["old.example"]);
    let of = |others: &[Value]| compile(&[others, &[grant(("shop", "api"), "api")]].concat(), &[]);
    let names = |policy: &Policy, id: &str| -> Vec<String> {
        policy.hosts_of(&id.parse().unwrap()).iter().map(ToString::to_string).collect()
    };

    // Whoever comes first, as long as nobody is known to have had it.
    let younger = destination(("shop", "api"), &["api.example"]);
    let compiled = of(&[older(&["old.example", "api.example"]), younger.clone()]);
    assert_eq!(names(&compiled.policy, "web/old"), ["old.example", "api.example"]);
    assert!(names(&compiled.policy, "shop/api").is_empty());

    let younger = had(younger, &["api.example"]);
    let compiled = of(&[older(&["old.example", "api.example"]), younger.clone()]);
    let said: Vec<String> = compiled.problems.iter().map(ToString::to_string).collect();
    let taken = "Destination web/old: spec.hosts[1]: `api.example` belongs to the namespace `shop`, where a Destination has it already";
    assert!(said.iter().any(|it| it.starts_with(taken)), "{said:?}");
    assert_eq!(call(&compiled.policy, "api.example"), Ok("shop/api".to_owned()));
    // What is broken keeps the hosts that are its own.
    assert_eq!(names(&compiled.policy, "web/old"), ["old.example"]);

    // In one namespace, too, where the same owner would be told of it.
    let own = had(destination(("shop", "old"), &["old.example", "api.example"]), &["old.example"]);
    let compiled = of(&[own, younger.clone()]);
    assert_eq!(call(&compiled.policy, "api.example"), Ok("shop/api".to_owned()));

    // One that is broken by something else keeps what it had.
    let broken = resource(
        "Destination",
        ("shop", "api"),
        &json!({"hosts": ["api.example"], "timeouts": {"connect": "soon"}}),
    );
    let compiled = of(&[older(&["old.example", "api.example"]), had(broken, &["api.example"])]);
    assert_eq!(names(&compiled.policy, "shop/api"), ["api.example"]);
    assert_eq!(call(&compiled.policy, "api.example"), Err(Reason::BrokenConfiguration));

    // What it no longer names it has no more.
    let moved = had(destination(("shop", "api"), &["other.example"]), &["api.example"]);
    let compiled = of(&[older(&["old.example", "api.example"]), moved]);
    assert_eq!(names(&compiled.policy, "web/old"), ["old.example", "api.example"]);

    // The gateway's namespace comes before all.
    let gateways = destination((GATEWAY, "gateways"), &["api.example"]);
    let compiled = of(&[younger, gateways, grant((GATEWAY, "gateways"), "gateways")]);
    assert_eq!(call(&compiled.policy, "api.example"), Ok(format!("{GATEWAY}/gateways")));
    assert!(names(&compiled.policy, "shop/api").is_empty());
}

#[test]
fn a_grant_of_what_may_not_have_been_listed_denies_nothing_elsewhere() {
    let resources = [
        destination((GATEWAY, "more"), &["more.example"]),
        grant((GATEWAY, "more"), "more"),
        grant((GATEWAY, "routed"), "routed"),
    ];
    let of = |lacks_destinations: bool| {
        let compiled = compile_with(&resources, &Consents { lacks_destinations, ..consents(&[]) });
        assert_eq!(compiled.problems.len(), 1, "{:?}", compiled.problems);
        call(&compiled.policy, "more.example")
    };
    assert_eq!(of(true), Ok(format!("{GATEWAY}/more")));
    // Else it may have been meant to say something of this one.
    assert_eq!(of(false), Err(Reason::BrokenConfiguration));
}
