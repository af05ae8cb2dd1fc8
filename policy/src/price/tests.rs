use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::dialect::Catalog;
use crate::model::{Problem, SourceFile};

const LIST: &str = r#"
prices: acme
source: https://acme.example/prices
standard: [default, standard]
snapshots: ["-####-##-##", "-########"]
rates: {web_searches: 10000}
models:
  - model: small
    aliases: [small-latest, "ft:small:*"]
    context_window: 400000
    max_output: 128000
    prices:
      - valid_from: 2026-01-01
        rates: {input: "0.25", cache_read: "0.025", output: 2}
      - valid_from: 2026-06-01
        source: https://acme.example/june
        rates: {input: "0.2", output: 1}
  - model: large
    context_window: 1000000
    max_output: 64000
    prices:
      - valid_from: 2026-02-01
        rates: {input: 4, cache_read: "0.4", cache_write_5m: 5, cache_write_1h: 8, output: 20, audio_in: 40}
        long_context: {above: 200000, rates: {input: 8, cache_read: "0.8", cache_write_5m: 10, cache_write_1h: 16, output: 30}}
        tiers:
          flex: {rates: {input: 2, output: 10}}
          priority: {rates: {input: 9, output: 45}}
          ultra: {asked: true, rates: {input: 100, output: 500}}
        surcharges: {us: {permille: 1100, asked: false}, fast: {permille: 2000, asked: true}}
  - model: search
    prices:
      - valid_from: 2026-01-01
        rates: {requests: 10000, input: 1, output: 1}
"#;

fn parse(text: &str) -> Result<Catalog, Vec<Problem>> {
    Catalog::parse(&[SourceFile { path: PathBuf::from("prices.yaml"), text: text.to_owned() }])
}

fn day(date: &str) -> Timestamp {
    format!("{date}T00:00:00Z").parse().unwrap()
}

fn price(model: &str, date: &str) -> Option<Arc<Price>> {
    parse(LIST).unwrap().prices().price("acme", model, day(date))
}

fn large() -> Arc<Price> {
    price("large", "2026-11-01").unwrap()
}

fn usd(text: &str) -> NanoUsd {
    format!("{text} USD").parse().unwrap()
}

#[test]
fn money_is_read_exactly() {
    assert_eq!("500 USD".parse(), Ok(NanoUsd(500_000_000_000)));
    assert_eq!("0.05 USD".parse(), Ok(NanoUsd(50_000_000)));
    assert_eq!("0.000000001 USD".parse(), Ok(NanoUsd(1)));
    assert_eq!("1.10  USD".parse(), Ok(NanoUsd(1_100_000_000)));
    assert_eq!("18446744073.709551615 USD".parse(), Ok(NanoUsd(u64::MAX)));
}

#[test]
fn what_is_no_amount_of_dollars_is_refused() {
    use MoneyError::{Currency, Number, TooLarge, TooPrecise};
    let cases = [
        ("500", Currency),
        ("500USD", Currency),
        ("500 EUR", Currency),
        ("500 usd", Currency),
        ("-1 USD", Number),
        ("+1 USD", Number),
        ("1e3 USD", Number),
        ("1,000 USD", Number),
        (".5 USD", Number),
        ("5. USD", Number),
        (" USD", Number),
        ("0.0000000001 USD", TooPrecise),
        ("18446744073.709551616 USD", TooLarge),
        ("99999999999999999999 USD", TooLarge),
    ];
    for (text, error) in cases {
        assert_eq!(text.parse::<NanoUsd>(), Err(error), "{text}");
    }
}

#[test]
fn a_cost_is_rounded_up_to_the_next_nano_dollar() {
    let small = price("small", "2026-03-01").unwrap();
    let one = Units { input: 1, ..Units::default() };
    assert_eq!(small.cost(&one, None), NanoUsd(250));
    let text = LIST.replace("input: \"0.25\"", "input: \"0.000001\"");
    let cheap = parse(&text).unwrap().prices().price("acme", "small", day("2026-03-01")).unwrap();
    assert_eq!(cheap.cost(&one, None), NanoUsd(1), "a thousandth of a nano-dollar");
    assert_eq!(cheap.cost(&Units { input: 1001, ..Units::default() }, None), NanoUsd(2));
    assert_eq!(cheap.cost(&Units::default(), None), NanoUsd::ZERO);
}

#[test]
fn each_unit_is_billed_at_its_own_rate() {
    let units = Units {
        input: 1_000_000,
        cache_read: 1_000_000,
        cache_write_5m: 1_000_000,
        cache_write_1h: 1_000_000,
        output: 1_000_000,
        reasoning: 1_000_000,
        web_searches: 3,
        ..Units::default()
    };
    // Four million tokens read are a long context.
    assert_eq!(large().cost(&units, None), usd("94.83"));
}

#[test]
fn a_long_context_switches_the_rate_of_all_tokens() {
    let at = Units { input: 150_000, cache_read: 50_000, output: 1_000, ..Units::default() };
    assert_eq!(large().cost(&at, None), usd("0.64"));
    let above = Units { cache_read: 50_001, ..at };
    assert_eq!(large().cost(&above, None), usd("1.2700008"));
}

#[test]
fn a_tier_has_its_own_rates_and_an_unknown_one_costs_the_dearest() {
    let units = Units { input: 100_000, output: 10_000, ..Units::default() };
    let cost = |tier| large().cost(&units, tier);
    assert_eq!(cost(None), usd("0.6"));
    assert_eq!(cost(Some("default")), usd("0.6"));
    assert_eq!(cost(Some("flex")), usd("0.3"));
    assert_eq!(cost(Some("priority")), usd("1.35"));
    assert_eq!(cost(Some("scale9")), usd("33"), "ultra, with every surcharge");
}

#[test]
fn a_tier_without_long_context_rates_costs_the_dearer_of_its_own_and_the_standard_ones() {
    let units = Units { input: 300_000, output: 10_000, ..Units::default() };
    assert_eq!(large().cost(&units, Some("flex")), usd("2.7"));
    assert_eq!(large().cost(&units, Some("priority")), usd("3.15"));
}

#[test]
fn surcharges_multiply_tokens_and_nothing_else() {
    let units = Units { input: 100_000, web_searches: 100, ..Units::default() };
    assert_eq!(large().cost(&units, Some("standard")), usd("1.4"));
    assert_eq!(large().cost(&units, Some("standard+us")), usd("1.44"));
    assert_eq!(large().cost(&units, Some("us+fast")), usd("1.88"));
    assert_eq!(large().cost(&units, Some("fast+fast")), usd("1.8"), "a word said twice counts once");
}

#[test]
fn a_ceiling_takes_what_the_request_leaves_open_at_its_dearest() {
    let large = large();
    // As audio, in the priority tier, in the US; ultra and fast have to be asked for.
    assert_eq!(large.ceiling(100_000, 10_000, None), usd("4.895"));
    assert_eq!(large.ceiling(100_000, 10_000, Some("default")), usd("4.62"));
    assert_eq!(large.ceiling(100_000, 10_000, Some("flex+fast")), usd("9.02"));
    assert_eq!(large.ceiling(0, 10_000, Some("ultra")), usd("5.5"));
    assert!(large.ceiling(1, 1, Some("?")) >= large.ceiling(1, 1, Some("ultra+fast")));
}

#[test]
fn a_ceiling_bills_input_as_the_dearest_cache_write() {
    let text = LIST.replace(", audio_in: 40", "");
    let large = parse(&text).unwrap().prices().price("acme", "large", day("2026-03-01")).unwrap();
    assert_eq!(large.ceiling(100_000, 0, Some("default")), usd("0.88"));
    assert_eq!(large.ceiling(300_000, 0, Some("default")), usd("5.28"));
}

#[test]
fn a_ceiling_includes_what_a_call_costs_by_itself() {
    let search = price("search", "2026-03-01").unwrap();
    assert_eq!(search.ceiling(0, 0, None), usd("0.01"));
    assert_eq!(search.cost(&Units { requests: 1, ..Units::default() }, None), usd("0.01"));
}

#[test]
fn a_price_holds_from_its_day_on() {
    assert!(price("small", "2025-12-31").is_none());
    let first = price("small", "2026-05-31").unwrap();
    assert_eq!((first.version(), first.source()), ("acme/small@2026-01-01", "https://acme.example/prices"));
    let second = price("small", "2026-06-01").unwrap();
    assert_eq!((second.version(), second.source()), ("acme/small@2026-06-01", "https://acme.example/june"));
    assert_eq!(second.context_window(), Some(400_000));
}

#[test]
fn a_dated_snapshot_has_the_price_of_its_model() {
    for name in ["small", "small-latest", "small-2025-08-07", "small-20250929", "ft:small:org::id"] {
        assert_eq!(
            price(name, "2026-03-01").map(|price| price.model().to_owned()).as_deref(),
            Some("small"),
            "{name}"
        );
    }
    for name in
        ["smaller", "small-", "small-2025-8-07", "small-2025-08-07-x", "Small", "", "-2025-08-07", "ft:smal"]
    {
        assert!(price(name, "2026-03-01").is_none(), "{name}");
    }
}

#[test]
fn a_label_is_the_name_in_the_catalog() {
    let catalog = parse(LIST).unwrap();
    let prices = catalog.prices();
    assert_eq!(prices.canonical_model("acme", "small-2025-08-07"), Some("small"));
    assert_eq!(prices.canonical_model("acme", "ft:small:mine"), Some("small"));
    assert_eq!(prices.canonical_model("acme", "é-2025-08-07"), None);
    assert_eq!(prices.canonical_model("other", "small"), None);
}

#[test]
fn the_dearest_price_claims_nothing_about_the_size_of_an_unlisted_model() {
    let catalog = parse(LIST).unwrap();
    let early = catalog.prices().dearest("acme", day("2026-01-15")).unwrap();
    assert_eq!(early.model(), "small");
    let later = catalog.prices().dearest("acme", day("2026-11-01")).unwrap();
    assert_eq!((later.model(), later.context_window(), later.max_output()), ("large", None, None));
    assert!(catalog.prices().dearest("acme", day("2025-01-01")).is_none());
    assert!(catalog.prices().dearest("other", day("2026-11-01")).is_none());
}

#[test]
fn a_list_that_contradicts_itself_is_refused_with_its_line() {
    let twice = LIST.replace("- model: large", "- model: small");
    let unsorted = LIST.replace("valid_from: 2026-06-01", "valid_from: 2025-06-01");
    let float = LIST.replace("cache_read: \"0.025\"", "cache_read: 0.025");
    let unknown = LIST.replace("rates: {requests:", "rates: {wishes:");
    let precise = LIST.replace("\"0.25\"", "\"0.2500000001\"");
    let cases = [
        (twice, 1, "- model: small", "models[1]"),
        (unsorted, 0, "    prices:", "models[0].prices"),
        (float, 0, "rates: {input", "models[0].prices[0].rates.cache_read"),
        (unknown, 0, "rates: {wishes", "models[2].prices[0].rates"),
        (precise, 0, "rates: {input", "models[0].prices[0].rates"),
    ];
    for (text, nth, marker, field) in cases {
        let problems = parse(&text).unwrap_err();
        let line = text.lines().enumerate().filter(|(_, line)| line.contains(marker)).nth(nth).unwrap().0 + 1;
        let found: Vec<_> = problems.iter().map(|problem| (problem.line, &*problem.field)).collect();
        assert_eq!(found, [(line, field)], "{problems:?}");
    }
}

#[test]
fn units_are_capped_and_named() {
    let mut units = Units::default();
    units.set(Item::Input, u64::MAX);
    assert_eq!(units.input, UNIT_MAX);
    units.set(Item::Output, 5);
    units.set(Item::WebSearches, 2);
    assert_eq!(units.tokens(), UNIT_MAX + 5);
    assert_eq!(
        serde_json::to_string(&units).unwrap(),
        r#"{"input":1000000000000,"output":5,"web_searches":2}"#
    );
    let read: Units = serde_json::from_str(r#"{"input":1000000000000,"output":5,"web_searches":2}"#).unwrap();
    assert_eq!(read, units);
    units.add(&read);
    assert_eq!(units.web_searches, 4);
    for item in Item::ALL {
        let named: Item = serde_json::from_value(item.as_str().into()).unwrap();
        assert_eq!(named, *item);
    }
}

#[test]
fn every_unit_is_read_or_written_or_something_else() {
    let mut items = [&Item::READ[..], &Item::WRITTEN[..], &Item::OTHER[..]].concat();
    items.sort_unstable();
    assert_eq!(items, Item::ALL);
}

fn tier() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![
        None,
        Some("default"),
        Some("flex"),
        Some("priority"),
        Some("flex+fast"),
        Some("?"),
    ])
}

proptest! {
    #[test]
    fn an_amount_is_shown_as_it_is_read(nanos: u64) {
        let shown = NanoUsd(nanos).to_string();
        prop_assert_eq!(shown.parse::<NanoUsd>(), Ok(NanoUsd(nanos)));
    }

    /// What a call is held at covers it, however its tokens are split and in whichever tier the request allows.
    #[test]
    fn no_split_of_a_calls_tokens_costs_more_than_its_ceiling(
        read in prop::array::uniform6(0_u64..200_000),
        written in prop::array::uniform4(0_u64..50_000),
        pinned in tier(),
        in_us: bool,
        surplus in 0_u64..1000,
    ) {
        let [input, cache_read, cache_write_5m, cache_write_1h, audio_in, image_in] = read;
        let [output, reasoning, audio_out, image_out] = written;
        let units = Units {
            input, cache_read, cache_write_5m, cache_write_1h, audio_in, image_in,
            output, reasoning, audio_out, image_out, requests: 1, ..Units::default()
        };
        let large = large();
        let ceiling = large.ceiling(units.read() + surplus, units.written() + surplus, pinned);
        let served = match pinned {
            None => vec!["default", "flex", "priority"],
            Some(tier) => vec![tier],
        };
        for tier in served {
            let tier = if in_us { format!("{tier}+us") } else { tier.to_owned() };
            prop_assert!(large.cost(&units, Some(&tier)) <= ceiling, "{}", tier);
        }
    }

    #[test]
    fn costs_of_any_size_do_not_overflow(counts in prop::array::uniform4(any::<u64>())) {
        let [input, cache_write_1h, output, web_searches] = counts;
        let units = Units { input, cache_write_1h, output, web_searches, ..Units::default() };
        prop_assert!(large().cost(&units, Some("?")) >= large().cost(&units, None));
    }
}
