use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use proptest::prelude::*;
use tollgate_policy::dialect::Catalog;
use tollgate_policy::model::SourceFile;

use super::*;
use crate::metering::catalog;

mod worst;

const PRICES: &str = r#"
prices: test
source: https://test.example
standard: [default]
snapshots: []
models:
  - model: known
    context_window: 100000
    max_output: 8000
    prices:
      - valid_from: 2026-01-01
        rates: {input: 1, cache_read: "0.1", cache_write_5m: 2, output: 10}
        tiers: {priority: {rates: {input: 2, cache_write_5m: 4, output: 20}}}
  - model: vague
    prices:
      - valid_from: 2026-01-01
        rates: {input: 1, output: 10}
"#;

fn price(model: &str) -> Arc<Price> {
    let file = SourceFile { path: PathBuf::from("prices.yaml"), text: PRICES.to_owned() };
    let catalog = Catalog::parse(&[file]).unwrap();
    catalog.prices().price("test", model, "2026-11-01T00:00:00Z".parse::<Timestamp>().unwrap()).unwrap()
}

fn endpoint(method: &str, path: &str) -> Arc<Endpoint> {
    static CATALOG: OnceLock<Catalog> = OnceLock::new();
    let catalog = CATALOG.get_or_init(|| catalog::shipped().unwrap());
    catalog.dialect("openai").unwrap().endpoint(method, path).unwrap().clone()
}

fn chat() -> Arc<Endpoint> {
    endpoint("POST", "/v1/chat/completions")
}

fn known(facts: &Facts) -> Bound {
    bound(facts, &chat(), Some(&price("known")), Terms::default()).unwrap()
}

fn facts(body_bytes: u64) -> Facts {
    Facts { body_bytes, ..Facts::default() }
}

fn usd(text: &str) -> NanoUsd {
    format!("{text} USD").parse().unwrap()
}

#[test]
fn input_is_bounded_by_the_bytes_of_the_body_and_by_the_window() {
    assert_eq!(known(&facts(1000)).input_tokens, 1000 + PROMPT_ALLOWANCE);
    assert_eq!(known(&facts(99_000)).input_tokens, 100_000);
    assert_eq!(known(&facts(5_000_000)).input_tokens, 100_000);
}

#[test]
fn content_from_outside_is_held_at_the_whole_window() {
    assert_eq!(known(&Facts { outside: true, ..facts(100) }).input_tokens, 100_000);
}

#[test]
fn each_run_of_the_model_may_read_its_whole_window() {
    let looped = Facts { outside: true, passes: 6, output_cap: Some(500), ..facts(100) };
    assert_eq!((known(&looped).input_tokens, known(&looped).output_tokens), (600_000, 500));
    // Without content from outside, a run reads what is in the body and what was written before.
    let searched = Facts { passes: 3, output_cap: Some(500), ..facts(100) };
    assert_eq!(known(&searched).input_tokens, 3 * (100 + PROMPT_ALLOWANCE + 500));
}

#[test]
fn many_inputs_are_bounded_by_the_call_and_not_by_one_window() {
    let endpoint = endpoint("POST", "/v1/embeddings");
    let catalog = catalog::shipped().unwrap();
    let now = "2026-11-01T00:00:00Z".parse::<Timestamp>().unwrap();
    let price = catalog.prices().price("openai", "text-embedding-3-small", now).unwrap();
    let input = |facts: &Facts| bound(facts, &endpoint, Some(&price), Terms::default()).unwrap().input_tokens;
    assert_eq!(input(&Facts { inputs: 90, ..facts(1_620_000) }), 300_000);
    assert_eq!(input(&Facts { inputs: 10, ..facts(1_620_000) }), 81_920);
    assert_eq!(input(&facts(1_620_000)), 8192);
    assert_eq!(input(&Facts { inputs: 90, ..facts(1000) }), 1000 + PROMPT_ALLOWANCE);
    assert_eq!(input(&Facts { outside: true, ..facts(10) }), 300_000, "an unknown member");
}

#[test]
fn images_and_pages_are_held_at_what_they_can_cost() {
    let catalog = catalog::shipped().unwrap();
    let now = "2026-11-01T00:00:00Z".parse::<Timestamp>().unwrap();
    let messages = catalog.dialect("anthropic").unwrap().endpoint("POST", "/v1/messages").unwrap().clone();
    let price = catalog.prices().price("anthropic", "claude-sonnet-4-5", now).unwrap();
    let held = |facts: &Facts| bound(facts, &messages, Some(&price), Terms::default()).unwrap();
    let image = Facts {
        images: vec![Image::default()],
        picture_bytes: 50_000,
        output_cap: Some(1000),
        ..facts(50_200)
    };
    assert_eq!(held(&image).input_tokens, 200 + PROMPT_ALLOWANCE + 1641 + 64);
    assert!(held(&image).spend < usd("0.06"), "{:?}", held(&image));
    assert_eq!(held(&Facts { outside: true, ..image }).input_tokens, 1_000_000);
    let pages = Facts { pages: 3, picture_bytes: 50_000, output_cap: Some(1000), ..facts(50_200) };
    assert_eq!(held(&pages).input_tokens, 200 + PROMPT_ALLOWANCE + 3 * (8000 + 1641 + 64));
    // Some models bill images with more tokens than they have in their window.
    let mini = catalog.prices().price("openai", "gpt-4o-mini", now).unwrap();
    let many = Facts { images: vec![Image::default(); 4], output_cap: Some(9), ..facts(500) };
    let held = bound(&many, &chat(), Some(&mini), Terms::default()).unwrap();
    assert_eq!(held.input_tokens, 500 + PROMPT_ALLOWANCE + 4 * (2833 + 8 * 5667 + 64));
    let by_url = bound(&Facts { outside: true, ..many }, &chat(), Some(&mini), Terms::default()).unwrap();
    assert_eq!(by_url.input_tokens, 128_000 + 4 * (2833 + 8 * 5667 + 64));
    let open = catalog.prices().price("openai", "gpt-6-sol", now).unwrap();
    let image = Facts { images: vec![Image::default()], output_cap: Some(9), ..facts(500) };
    let held = bound(&image, &chat(), Some(&open), Terms::default()).unwrap();
    assert_eq!(
        held.input_tokens, 1_050_000,
        "an image that is never scaled down and whose size nobody knows"
    );
    let reasoning = Facts { written_before: 1, output_cap: Some(9), ..facts(500) };
    assert_eq!(known(&reasoning).input_tokens, 500 + PROMPT_ALLOWANCE + 8000);
}

#[test]
fn a_refusal_says_what_makes_a_call_large() {
    let mut heavy = Facts { outside: true, passes: 4, ..facts(10) };
    heavy.causes.outside = Some("an image by URL in `messages`".into());
    let cause = cause(&heavy).unwrap();
    assert!(
        cause.starts_with("an image by URL in `messages` is held at the model's context window")
            && cause.contains("4 times"),
        "{cause}"
    );
    assert_eq!(super::cause(&facts(10)), None);
    heavy.unbounded = true;
    heavy.causes.unbounded = Some("a tool of the provider, `mcp`".into());
    let denial = bound(&heavy, &chat(), Some(&price("known")), Terms::default()).unwrap_err();
    assert!(denial.detail.ends_with("because of a tool of the provider, `mcp`"), "{denial:?}");
}

#[test]
fn output_is_bounded_by_the_cap_times_the_choices() {
    let two = known(&Facts { output_cap: Some(500), choices: 2, ..facts(100) });
    assert_eq!((two.output_tokens, two.write_cap), (1000, None));
    assert_eq!(two.tokens().all, two.input_tokens + 1000);
    let large = known(&Facts { output_cap: Some(1_000_000), ..facts(100) });
    assert_eq!(large.output_tokens, 8000, "no model writes more than its maximum");
}

#[test]
fn a_call_without_a_cap_gets_one_that_is_held_and_written() {
    let terms = Terms { default_output_cap: Some(700), ..Terms::default() };
    let bounded = bound(&Facts { choices: 3, ..facts(100) }, &chat(), Some(&price("known")), terms).unwrap();
    assert_eq!((bounded.output_tokens, bounded.write_cap), (2100, Some(700)));
    let by_model = known(&facts(100));
    assert_eq!((by_model.output_tokens, by_model.write_cap), (8000, Some(8000)));
    let terms = Terms { default_output_cap: Some(9_000_000), ..Terms::default() };
    let clipped = bound(&facts(100), &chat(), Some(&price("known")), terms).unwrap();
    assert_eq!(clipped.write_cap, Some(8000), "what the model cannot write is not asked for");
}

#[test]
fn an_unknown_member_is_held_at_the_maximum_output_whatever_the_cap() {
    let whole = known(&Facts { outside: true, output_cap: Some(UNIT_MAX), ..facts(100) });
    assert_eq!((whole.input_tokens, whole.output_tokens, whole.write_cap), (100_000, 8000, None));
}

#[test]
fn spend_is_the_dearest_way_to_bill_the_bound_and_the_fees() {
    let all = Facts { outside: true, output_cap: Some(1000), tool_fees: usd("0.05"), ..facts(100) };
    assert_eq!(known(&all).spend, usd("0.47"), "priority, as cache writes");
    assert_eq!(known(&Facts { tier: Some("default".into()), ..all }).spend, usd("0.26"));
}

#[test]
fn embeddings_write_nothing() {
    let embeddings = endpoint("POST", "/v1/embeddings");
    let bounded = bound(&facts(1000), &embeddings, Some(&price("known")), Terms::default()).unwrap();
    assert_eq!((bounded.output_tokens, bounded.write_cap), (0, None));
}

#[test]
fn a_free_endpoint_is_bounded_by_nothing_at_all() {
    let models = endpoint("GET", "/v1/models");
    assert_eq!(
        bound(&Facts { outside: true, unbounded: true, ..facts(9) }, &models, None, Terms::default()),
        Ok(Bound::default())
    );
}

#[test]
fn without_a_price_tokens_are_bounded_and_spend_is_not_stated() {
    let capped = Facts { output_cap: Some(50), ..facts(100) };
    let bounded = bound(&capped, &chat(), None, Terms::default()).unwrap();
    assert_eq!((bounded.tokens().all, bounded.spend), (100 + PROMPT_ALLOWANCE + 50, NanoUsd::ZERO));
}

#[test]
fn what_nothing_bounds_is_refused() {
    let vague = price("vague");
    let cases = [
        (
            Facts { unbounded: true, output_cap: Some(5), ..facts(10) },
            "nothing bounds what this call may cost",
        ),
        (Facts { outside: true, output_cap: Some(5), ..facts(10) }, "context window"),
        (facts(10), "caps its output"),
        (Facts { output_cap: Some(UNIT_MAX), ..facts(10) }, "caps its output"),
    ];
    for (facts, detail) in cases {
        let denial = bound(&facts, &chat(), Some(&vague), Terms::default()).unwrap_err();
        assert_eq!(denial.reason, Reason::UnboundedCost);
        assert!(denial.detail.contains(detail), "{denial:?}");
    }
}

#[test]
fn a_grant_that_assumes_holds_what_it_states_and_no_less_than_is_known() {
    let terms =
        Terms { assume: Some(Assume { input_tokens: 20_000, output_tokens: 3000 }), ..Terms::default() };
    let held = |facts: &Facts, model| bound(facts, &chat(), Some(&price(model)), terms).unwrap();
    let outside = held(&Facts { outside: true, output_cap: Some(5), ..facts(10) }, "vague");
    assert_eq!((outside.input_tokens, outside.output_tokens), (20_000, 3000));
    let unbounded = held(&Facts { unbounded: true, output_cap: Some(7000), ..facts(90_000) }, "known");
    assert_eq!((unbounded.input_tokens, unbounded.output_tokens), (94_096, 7000));
    let bounded = held(&Facts { output_cap: Some(5), ..facts(10) }, "known");
    assert_eq!(bounded.output_tokens, 5, "what is bounded needs no assumption");
}

#[test]
fn an_estimate_completes_what_was_reported_from_the_bytes_that_went_by() {
    let reading = UsageReading { output_bytes: 300, ..UsageReading::default() };
    let estimated = estimate(&facts(3000), &chat(), &reading);
    assert_eq!(estimated, Units { input: 1000, output: 100, requests: 1, ..Units::default() });
    let partial = Units { input: 7, cache_read: 900, output: 2, ..Units::default() };
    let estimated = estimate(
        &facts(3000),
        &chat(),
        &UsageReading { partial: Some(partial), output_bytes: 300, ..UsageReading::default() },
    );
    assert_eq!(estimated, Units { input: 7, cache_read: 900, output: 100, requests: 1, ..Units::default() });
    let more = Units { output: 500, ..partial };
    let estimated = estimate(
        &facts(3000),
        &chat(),
        &UsageReading { partial: Some(more), output_bytes: 300, ..UsageReading::default() },
    );
    assert_eq!(estimated.output, 500);
}

proptest! {
    /// A call that reads and writes no more than its bound costs no more than was held, however it is billed.
    #[test]
    fn no_call_within_its_bound_costs_more_than_its_hold(
        body in 0_u64..200_000, cap in 0_u64..20_000, choices in 1_u64..5, outside: bool,
        read in prop::array::uniform3(0_u64..=100), write in 0_u64..=100,
        served in prop::sample::select(vec![None, Some("default"), Some("priority")]),
    ) {
        let facts = Facts { outside, output_cap: Some(cap), choices, ..facts(body) };
        let held = known(&facts);
        let share = |part: u64| held.input_tokens * part / 300;
        let [input, cache_read, cache_write_5m] = read.map(share);
        let units = Units { input, cache_read, cache_write_5m, output: held.output_tokens * write / 100, ..Units::default() };
        prop_assert!(units.read() <= held.input_tokens && units.written() <= held.output_tokens);
        prop_assert!(price("known").cost(&units, served) <= held.spend);
    }
}
