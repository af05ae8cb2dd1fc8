//! What budgets cost as they grow: compiling and publishing them, the grants of a caller, and what a call holds and settles. No network.
//!
//! Prints JSON, times in nanoseconds. What calls cost is the median of rounds in which all policies take turns: one budget and one caller;
//! three levels of one budget each and one caller; three levels of many budgets and many callers, in an order that no cache foresees.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and ends where it cannot be set up"
)]

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use serde_json::json;
use tollgate::quota::{Demand, Quota};
use tollgate_policy::caller::{Caller, assumed};
use tollgate_policy::compile::{Environment, HomeCluster, compile_each};
use tollgate_policy::consent::Consents;
use tollgate_policy::decision::{CallerGrants, Facts, Permit};
use tollgate_policy::dialect::Catalog;
use tollgate_policy::model::SourceFile;
use tollgate_policy::operation::RequestLine;
use tollgate_policy::policy::Policy;

const GATEWAY: &str = "tollgate";
/// Budgets of services for each one of a team.
const SERVICES: usize = 49;
const ROUNDS: usize = 15;
const LIMITS: &str = r#"[{"requests":1000000000000,"per":"day"},{"concurrency":1000000}]"#;
const HTTP: &str = include_str!("../../gateway/catalog/dialects/http.yaml");

/// That of the program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A policy that is in force, and a call of each caller that was let through.
struct World {
    quota: Arc<Quota>,
    callers: Vec<Caller>,
    permits: Vec<Permit>,
    /// For the order of calls: xorshift.
    state: u64,
}

fn main() {
    // Cargo adds words of its own.
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let [budgets, callers, calls] = numbers.try_into().unwrap_or([5_000, 50_000, 200_000]);
    let teams = (budgets - 1) / (SERVICES + 1);
    let many = many_budgets(teams);
    let (compile, policy) = timed(|| compile(&many));
    assert_eq!(policy.budgets().count(), 1 + teams * (SERVICES + 1), "every budget is in force");
    let mut world =
        World::new(&policy, (0..callers).map(|number| caller(number, teams * SERVICES)).collect());
    let reload = reload(&mut world, &many);
    let mut one = World::of_one(&[budget("one", r#""appliesTo":"All","#)]);
    let mut chain = World::of_one(&[
        budget("organisation", ""),
        budget("team", r#""parent":"organisation","#),
        budget("service", r#""appliesTo":"All","parent":"team","#),
    ]);
    let mut rounds: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        for (world, figures) in [&mut one, &mut chain, &mut world].into_iter().zip(&mut rounds) {
            figures.push(world.calls(calls));
        }
    }
    let [one, chain, many] = rounds.map(median);
    println!(
        "{}",
        json!({"budgets": budgets, "callers": callers, "compile": compile, "reload": reload, "call": {"one": one, "chain": chain, "many": many}})
    );
}

impl World {
    fn new(policy: &Policy, callers: Vec<Caller>) -> Self {
        let quota = Quota::new();
        quota.apply(policy);
        let permits = callers.iter().map(|caller| permit(policy, &policy.grants_of(caller))).collect();
        Self { quota, callers, permits, state: 0x9e37_79b9_7f4a_7c15 }
    }

    fn of_one(budgets: &[SourceFile]) -> Self {
        let objects: Vec<SourceFile> = shared().into_iter().chain(budgets.iter().cloned()).collect();
        Self::new(&compile(&objects), vec![caller(0, 1)])
    }

    /// What a call takes to be held and settled, on average.
    fn calls(&mut self, calls: usize) -> f64 {
        let begun = Instant::now();
        for _ in 0..calls {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            let count = u64::try_from(self.permits.len()).expect("a number");
            let at = usize::try_from(self.state % count).expect("a place");
            self.call(at);
        }
        nanos(begun) / f64::from(u32::try_from(calls).expect("few"))
    }

    fn call(&self, at: usize) {
        let demand = Demand { requests: 1, ..Demand::default() };
        let mut hold =
            self.quota.hold(&self.permits[at], None, &demand, Timestamp::now()).expect("enough is left");
        hold.sent();
        black_box(hold.rate_headers(Timestamp::now()));
        let _ = black_box(hold.settle(&demand));
    }
}

/// The same policy again: publishing it, and of each caller the first look for its grants and the first call.
fn reload(world: &mut World, objects: &[SourceFile]) -> serde_json::Value {
    let policy = compile(objects);
    let (publish, ()) = timed(|| world.quota.apply(&policy));
    let (grants_of, grants) =
        timed(|| world.callers.iter().map(|caller| policy.grants_of(caller)).collect::<Vec<_>>());
    world.permits = grants.iter().map(|grants| permit(&policy, grants)).collect();
    let calls = |world: &World| {
        let mut each: Vec<f64> = (0..world.permits.len()).map(|at| timed(|| world.call(at)).0).collect();
        each.sort_by(f64::total_cmp);
        let sum: f64 = each.iter().sum();
        json!({"mean": sum / each.len() as f64, "slowest": each.last()})
    };
    let first = calls(world);
    let grants_of = grants_of / world.callers.len() as f64;
    json!({"publish": publish, "grants_of": grants_of, "first_calls": first, "second_calls": calls(world)})
}

fn permit(policy: &Policy, grants: &CallerGrants) -> Permit {
    let line = RequestLine { authority: "api.example", method: "GET", path: "/v1/items/7", query: None };
    let (target, request) = policy.resolve(&line).expect("a target");
    let admission = policy.admit(grants, target, request.into()).expect("an admission");
    admission.permit(&Facts::default(), Timestamp::UNIX_EPOCH).expect("a permit")
}

fn caller(number: usize, services: usize) -> Caller {
    let id = format!("spiffe://prod.acme/ns/service-{}/sa/app-{number}", number % services);
    assumed(id.parse().expect("an identity"))
}

/// A destination, and a grant for everybody.
fn shared() -> Vec<SourceFile> {
    let grant = r#""callers":[{"spiffe":"spiffe://prod.acme/ns/*/sa/*"}],"destination":"api""#;
    vec![object("Destination", "api", r#""hosts":["api.example"]"#), object("Grant", "api", grant)]
}

/// One of the organisation, one for each team, one for the namespace of each service.
fn many_budgets(teams: usize) -> Vec<SourceFile> {
    let mut objects = shared();
    objects.push(budget("organisation", ""));
    for team in 0..teams {
        objects.push(budget(&format!("team-{team}"), r#""parent":"organisation","#));
        for service in team * SERVICES..(team + 1) * SERVICES {
            let mut place = String::new();
            write!(place, r#""appliesTo":{{"namespaces":["service-{service}"]}},"parent":"team-{team}","#)
                .expect("text");
            objects.push(budget(&format!("service-{service}"), &place));
        }
    }
    objects
}

fn budget(name: &str, place: &str) -> SourceFile {
    object("Budget", name, &format!(r#"{place}"limits":{LIMITS}"#))
}

fn object(kind: &str, name: &str, spec: &str) -> SourceFile {
    SourceFile {
        path: "".into(),
        text: format!(
            r#"{{"apiVersion":"tollgate.dev/v1alpha1","kind":"{kind}","metadata":{{"namespace":"{GATEWAY}","name":"{name}"}},"spec":{{{spec}}}}}"#
        ),
    }
}

fn compile(objects: &[SourceFile]) -> Policy {
    let dialect = SourceFile { path: "http.yaml".into(), text: HTTP.to_owned() };
    let environment = Environment {
        catalog: Arc::new(Catalog::parse(&[dialect]).expect("a catalog")),
        trust_domains: vec!["prod.acme".parse().expect("a trust domain")],
        home: HomeCluster {
            gateway_namespace: GATEWAY.parse().ok(),
            trust_domain: "prod.acme".parse().ok(),
            name: None,
        },
        ..Environment::default()
    };
    let compiled = compile_each(objects, &environment, &Consents::default()).expect("a policy");
    assert!(compiled.problems.is_empty(), "{}", compiled.problems[0]);
    compiled.policy
}

fn timed<T>(run: impl FnOnce() -> T) -> (f64, T) {
    let begun = Instant::now();
    let made = black_box(run());
    (nanos(begun), made)
}

fn nanos(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e9
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
