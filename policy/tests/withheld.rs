//! Who has a host. What is withheld denies itself: its host falls to no other, and its grants let nothing through there and only there.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is a test")]

#[path = "support/assumed.rs"]
mod assumed;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/read.rs"]
mod read;

use std::collections::BTreeMap;

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

/// The same, known to hold these hosts.
fn holding(mut destination: Value, hosts: &[&str]) -> Value {
    destination["heldHosts"] = json!(hosts);
    destination
}

#[test]
fn an_older_destination_that_names_a_host_only_now_takes_it_from_nobody_who_has_had_it() {
    let older = |hosts: &[&str]| holding(destination(("web", "old"), hosts), &["old.example"]);
    let of = |others: &[Value]| compile(&[others, &[grant(("shop", "api"), "api")]].concat(), &[]);
    let names = |policy: &Policy, id: &str| -> Vec<String> {
        policy.held_hosts(&id.parse().unwrap()).iter().map(ToString::to_string).collect()
    };

    // Whoever comes first, as long as nobody is known to have had it.
    let younger = destination(("shop", "api"), &["api.example"]);
    let compiled = of(&[older(&["old.example", "api.example"]), younger.clone()]);
    assert_eq!(names(&compiled.policy, "web/old"), ["api.example", "old.example"]);
    assert!(names(&compiled.policy, "shop/api").is_empty());

    let younger = holding(younger, &["api.example"]);
    let compiled = of(&[older(&["old.example", "api.example"]), younger.clone()]);
    let said: Vec<String> = compiled.problems.iter().map(ToString::to_string).collect();
    let taken = "Destination web/old: spec.hosts[1]: `api.example` belongs to the namespace `shop`, where a Destination has it already";
    assert!(said.iter().any(|it| it.starts_with(taken)), "{said:?}");
    assert_eq!(call(&compiled.policy, "api.example"), Ok("shop/api".to_owned()));
    // What is broken keeps the hosts that are its own.
    assert_eq!(names(&compiled.policy, "web/old"), ["old.example"]);

    // In one namespace, too, where the same owner would be told of it.
    let own = holding(destination(("shop", "old"), &["old.example", "api.example"]), &["old.example"]);
    let compiled = of(&[own, younger.clone()]);
    assert_eq!(call(&compiled.policy, "api.example"), Ok("shop/api".to_owned()));

    // One that is broken by something else keeps what it had.
    let broken = resource(
        "Destination",
        ("shop", "api"),
        &json!({"hosts": ["api.example"], "timeouts": {"connect": "soon"}}),
    );
    let compiled = of(&[older(&["old.example", "api.example"]), holding(broken, &["api.example"])]);
    assert_eq!(names(&compiled.policy, "shop/api"), ["api.example"]);
    assert_eq!(call(&compiled.policy, "api.example"), Err(Reason::BrokenConfiguration));

    // What it no longer names it has no more.
    let moved = holding(destination(("shop", "api"), &["other.example"]), &["api.example"]);
    let compiled = of(&[older(&["old.example", "api.example"]), moved]);
    assert_eq!(names(&compiled.policy, "web/old"), ["api.example", "old.example"]);

    // The gateway's namespace comes before all.
    let gateways = destination((GATEWAY, "gateways"), &["api.example"]);
    let compiled = of(&[younger, gateways, grant((GATEWAY, "gateways"), "gateways")]);
    assert_eq!(call(&compiled.policy, "api.example"), Ok(format!("{GATEWAY}/gateways")));
}

/// What stays known of hosts while objects change: each step is compiled from what the step before left in the status.
struct Steps(BTreeMap<String, Vec<String>>);

impl Steps {
    fn take(&mut self, resources: &[Value]) -> Policy {
        let id = |it: &Value| {
            let of = |member: &str| it["metadata"][member].as_str().unwrap().to_owned();
            format!("{}/{}", of("namespace"), of("name"))
        };
        let with_hosts = |it: &Value| match self.0.get(&id(it)) {
            Some(hosts) => holding(it.clone(), &hosts.iter().map(String::as_str).collect::<Vec<_>>()),
            None => it.clone(),
        };
        let known: Vec<Value> = resources.iter().map(with_hosts).collect();
        let policy = compile(&known, &[]).policy;
        let destinations = resources.iter().filter(|it| it["kind"] == "Destination");
        self.0 = destinations
            .map(|it| {
                let held = policy.held_hosts(&id(it).parse().unwrap());
                (id(it), held.iter().map(ToString::to_string).collect())
            })
            .collect();
        policy
    }

    fn of(&self, id: &str) -> &[String] {
        &self.0[id]
    }
}

#[test]
fn a_host_that_something_else_has_for_a_moment_comes_back_to_who_held_it() {
    let parked = destination(("shop", "old"), &["api.up.example"]);
    let own = destination(("web", "api"), &["api.up.example"]);
    let web = resource(
        "Grant",
        ("web", "api"),
        &json!({"callers": [{"spiffe": "spiffe://prod.acme/ns/web/sa/web"}], "destination": "api"}),
    );
    let holder =
        |policy: &Policy| decide(policy, ("spiffe://prod.acme/ns/web/sa/web", "api.up.example", "/x", "GET"));
    let passing = [
        destination((GATEWAY, "own"), &["api.up.example"]),
        destination((GATEWAY, "any"), &["*.up.example"]),
        withheld((GATEWAY, "routed"), &["api.up.example"], false),
    ];
    for other in passing {
        let mut steps = Steps(BTreeMap::new());
        steps.take(&[own.clone(), web.clone()]);
        assert_eq!(steps.of("web/api"), ["api.up.example"]);
        // The parked one is the older of the two from here on.
        steps.take(&[parked.clone(), own.clone(), web.clone(), other]);
        assert_eq!((steps.of("web/api").len(), steps.of("shop/old").len()), (1, 0));
        let policy = steps.take(&[parked.clone(), own.clone(), web.clone()]);
        assert_eq!(holder(&policy), Ok("web/api".to_owned()));
        assert!(steps.of("shop/old").is_empty());
    }

    // A route that breaks for a moment, too: nobody else has the host meanwhile.
    let mut steps = Steps(BTreeMap::new());
    steps.take(&[own.clone(), web.clone()]);
    let unrouted = withheld(("web", "api"), &["api.up.example"], true);
    let policy = steps.take(&[parked.clone(), unrouted.clone(), web.clone()]);
    assert_eq!(holder(&policy), Err(Reason::BrokenConfiguration));
    assert_eq!((steps.of("web/api").len(), steps.of("shop/old").len()), (1, 0));
    assert_eq!(holder(&steps.take(&[parked.clone(), own, web.clone()])), Ok("web/api".to_owned()));

    // One that no route has led to yet holds nothing, and what names the host no more holds it no more.
    let mut steps = Steps(BTreeMap::new());
    steps.take(&[unrouted, web]);
    assert!(steps.of("web/api").is_empty());
    steps.take(&[destination(("web", "api"), &["api.up.example"])]);
    steps.take(&[parked, destination(("web", "api"), &["web.example"])]);
    assert_eq!(
        (steps.of("web/api"), steps.of("shop/old")),
        (&["web.example".to_owned()][..], &["api.up.example".to_owned()][..])
    );
}

#[test]
fn of_two_apps_that_held_a_host_before_the_gateways_namespace_named_it_one_keeps_it() {
    let of = |namespace: &str| holding(destination((namespace, "api"), &["api.example"]), &["api.example"]);
    let compiled = compile(&[of("shop"), of("web"), destination((GATEWAY, "api"), &["api.example"])], &[]);
    let held = |id: &str| compiled.policy.held_hosts(&id.parse().unwrap()).len();
    assert_eq!((held("shop/api"), held("web/api")), (1, 0));
}

#[test]
fn a_grant_of_what_may_not_have_been_listed_denies_what_it_may_mean_and_nothing_elsewhere() {
    let resources = [
        destination((GATEWAY, "more"), &["more.example"]),
        grant((GATEWAY, "more"), "more"),
        destination((GATEWAY, "any"), &["*.up.example"]),
        grant((GATEWAY, "any"), "any"),
        destination(("shop", "own"), &["own.example"]),
        grant(("shop", "own"), "own"),
    ];
    let of = |routed: Value, lacks_destinations: bool| {
        let all = [&resources[..], &[routed]].concat();
        let compiled = compile_with(&all, &Consents { lacks_destinations, ..consents(&[]) });
        assert_eq!(compiled.problems.len(), 1, "{:?}", compiled.problems);
        ["more.example", "api.up.example", "own.example"].map(|host| call(&compiled.policy, host).is_ok())
    };
    // The name may be a wrong one, and the host of an unlisted one may fall to the wildcard.
    assert_eq!(of(grant(("shop", "routed"), "routed"), true), [true, false, false]);
    assert_eq!(of(grant((GATEWAY, "routed"), "routed"), true), [false, false, true]);
    assert_eq!(of(grant(("shop", "routed"), "web/routed"), true), [true, false, true]);
    // Else it may have been meant to say something of each of them.
    assert_eq!(of(grant(("shop", "routed"), "routed"), false), [false; 3]);
    // Others are called as ever.
    let mut foreign = grant(("web", "routed"), "routed");
    foreign["spec"]["callers"] = json!([{"spiffe": "spiffe://prod.acme/ns/web/sa/web"}]);
    assert_eq!(of(foreign, true), [true; 3]);
}
