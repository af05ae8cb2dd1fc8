//! The worst answers that the providers' documentation allows settle within what was held, for every endpoint of the catalog that is
//! metered and every rule of it that multiplies. What an answer may say is worked out here from the documentation, not from the rules.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tollgate_policy::price::Item;

use super::*;
use crate::metering::facts;

/// A call, and the most that its answer may report.
#[derive(Debug)]
struct Call {
    body: Value,
    read: u64,
    written: u64,
    web_searches: u64,
    file_searches: u64,
}

/// Tools of the provider after whose use the model is run again, by the documentation; the first three bring content to it.
const LOOPS: [&str; 4] = ["web_search", "web_fetch", "file_search", "tool_search"];

fn is_loop(tool: &str) -> bool {
    LOOPS.iter().any(|name| tool.starts_with(name))
}

fn brings_content(tool: &str) -> bool {
    LOOPS[..3].iter().any(|name| tool.starts_with(name))
}

/// Numbers that a call is made up from.
type Dice = Vec<u32>;

/// Takes one of the dice, below `below`.
fn roll(dice: &mut Dice, below: u64) -> u64 {
    u64::from(dice.pop().unwrap_or(0)) % below.max(1)
}

fn flip(dice: &mut Dice) -> bool {
    roll(dice, 2) == 1
}

/// 2,048 inputs at most, each of 8,192 tokens, and 300,000 together.
fn embeddings(dice: &mut Dice) -> Call {
    let lengths: Vec<usize> = (0..1 + roll(dice, 60)).map(|_| 1 + roll(dice, 8192) as usize).collect();
    let as_tokens = flip(dice);
    let input = |length: &usize| if as_tokens { json!(vec![7; *length]) } else { json!("!".repeat(*length)) };
    let inputs: Vec<Value> = lengths.iter().map(input).collect();
    let input = if inputs.len() == 1 && flip(dice) { inputs[0].clone() } else { json!(inputs) };
    let read = lengths.iter().sum::<usize>().min(300_000) as u64;
    Call { body: json!({"input": input}), read, written: 0, web_searches: 0, file_searches: 0 }
}

/// Text of so many tokens: one for each byte, which is the most there can be.
fn text(dice: &mut Dice) -> (String, u64) {
    let length = roll(dice, 20_000);
    ("~".repeat(length as usize), length)
}

fn png(width: u32, height: u32) -> String {
    let sides = [width.to_be_bytes(), height.to_be_bytes()].concat();
    STANDARD.encode([b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".as_slice(), &sides, &[8, 6, 0, 0, 0]].concat())
}

/// An image by its size, and what it is billed as by the guide of each provider; `None` where the guide does not name the model.
fn image(dice: &mut Dice, model: &str) -> Option<(String, &'static str, u64)> {
    let (width, height) = (1 + roll(dice, 9000) as u32, 1 + roll(dice, 9000) as u32);
    let detail = if flip(dice) { "low" } else { "auto" };
    let patches = |side: f64, most: f64| {
        let (w, h) = (f64::from(width), f64::from(height));
        if (w / side).ceil() * (h / side).ceil() <= most {
            return (w / side).ceil() * (h / side).ceil();
        }
        let factor = (side * side * most / (w * h)).sqrt();
        let (w, h) = (w * factor / side, h * factor / side);
        let fit = (w.floor() / w).min(h.floor() / h);
        ((w * fit).ceil() * (h * fit).ceil()).min(most)
    };
    let tiles = |base: f64, each: f64| {
        let (mut w, mut h) = (f64::from(width), f64::from(height));
        let fit = (2048.0 / w.max(h)).min(1.0);
        (w, h) = (w * fit, h * fit);
        let fit = (768.0 / w.min(h)).min(1.0);
        let count = (w * fit / 512.0).ceil() * (h * fit / 512.0).ceil();
        if detail == "low" { base } else { base + each * count }
    };
    let low = |patches: f64| if detail == "low" { 256.0 } else { patches };
    let tokens = match model {
        "gpt-5-mini" => low(patches(32.0, 1536.0)) * 1.62,
        "gpt-5.4" => low(patches(32.0, 10_000.0)) * 1.2,
        "gpt-6-sol" => low(f64::from(width.div_ceil(32)) * f64::from(height.div_ceil(32))) * 1.2,
        "gpt-4o" => tiles(85.0, 170.0),
        "gpt-4o-mini" => tiles(2833.0, 5667.0),
        "claude-haiku-4-5" | "claude-sonnet-4-5" => patches(28.0, 1568.0),
        "claude-opus-5-5" => patches(28.0, 4784.0),
        _ => return None,
    };
    Some((png(width, height), detail, tokens.ceil() as u64))
}

/// `n` answers, each as long as its cap, and a prediction that was wrong throughout.
fn chat_call(dice: &mut Dice, model: &str, window: u64) -> Call {
    let (text, mut read) = text(dice);
    let (n, cap) = (1 + roll(dice, 5), 1 + roll(dice, 9000));
    let mut content = vec![json!({"type": "text", "text": text})];
    for _ in 0..roll(dice, 16) {
        let Some((data, detail, tokens)) = image(dice, model) else { continue };
        content.push(json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{data}"), "detail": detail}}));
        read += tokens;
    }
    let mut body =
        json!({"messages": [{"role": "user", "content": content}], "n": n, "max_completion_tokens": cap});
    let mut written = n * cap;
    if flip(dice) {
        let (prediction, tokens) = self::text(dice);
        body["prediction"] = json!({"type": "content", "content": prediction});
        written += n * tokens;
        read += tokens;
    }
    let mut web_searches = 0;
    if flip(dice) {
        body["web_search_options"] = json!({});
        web_searches = n;
        read = window * (1 + n);
    }
    // The images of one model are billed beside what its window holds.
    let read = if model == "gpt-4o-mini" || web_searches > 0 { read } else { read.min(window) };
    Call { body, read, written, web_searches, file_searches: 0 }
}

/// The model is run again after each call of a tool, and reads its whole window each time.
fn responses_call(dice: &mut Dice, name: &str, window: u64) -> Call {
    let (text, length) = text(dice);
    let (calls, cap) = (1 + roll(dice, 20), 1 + roll(dice, 9000));
    let tool = name.trim_end_matches('*');
    let tools = if flip(dice) {
        json!([{"type": "namespace", "tools": [{"type": tool}]}, {"type": tool}])
    } else {
        json!([{"type": tool}])
    };
    let body = json!({"input": text, "tools": tools, "max_tool_calls": calls, "max_output_tokens": cap});
    let once = (length + cap).min(window);
    let read = if brings_content(tool) { window * (calls + 1) } else { once * (calls + 1) };
    let (web_searches, file_searches) = match tool {
        "file_search" => (0, calls),
        tool if tool.starts_with("web_search") => (calls, 0),
        _ => (0, 0),
    };
    Call { body, read, written: cap, web_searches, file_searches }
}

/// Every use of every tool is a run of the model, or its provider's ten runs for a request.
fn messages_call(dice: &mut Dice, name: &str, (model, window): (&str, u64)) -> Call {
    let (text, mut once) = text(dice);
    let mut content = vec![json!({"type": "text", "text": text})];
    for _ in 0..roll(dice, 4) {
        let Some((data, _, tokens)) = image(dice, model) else { continue };
        content.push(
            json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}),
        );
        once += tokens;
    }
    let (uses, cap, budget) = (1 + roll(dice, 9), 1 + roll(dice, 9000), roll(dice, 20_000));
    let tool = name.trim_end_matches('*').to_owned() + if name.ends_with('*') { "20270101" } else { "" };
    let mut body = json!({"messages": [{"role": "user", "content": content}], "max_tokens": cap});
    let mut written = cap;
    if flip(dice) {
        body["thinking"] = json!({"type": "enabled", "budget_tokens": budget});
        written = cap.max(budget);
    }
    let (mut read, mut web_searches) = (once.min(window), 0);
    if is_loop(&tool) {
        body["tools"] = json!([{"type": tool, "name": "t", "max_uses": uses}, {"type": tool, "name": "u", "max_uses": uses}]);
        let searches = tool.starts_with("web_search");
        web_searches = if searches { 2 * uses } else { 0 };
        let by_code = !tool.ends_with("20250305") && !tool.ends_with("20250910");
        let runs = if by_code { 10.max(2 * uses + 1) } else { 2 * uses + 1 };
        read = if brings_content(&tool) { window * runs } else { (once + written).min(window) * 10 };
    }
    Call { body, read, written, web_searches, file_searches: 0 }
}

/// Settles the worst answer to the call, its tokens billed as the dice fall. An error says what was beyond the hold.
fn settles_within_its_hold(
    dice: &mut Dice,
    (endpoint, price): (&Endpoint, &Price),
    mut call: Call,
) -> Result<(), String> {
    call.body["model"] = json!(price.model());
    let body = call.body.to_string();
    let facts = read(endpoint, &body);
    let terms = Terms { default_output_cap: Some(2000), assume: None };
    let Ok(held) = bound(&facts, endpoint, Some(price), terms) else {
        let is_known = price.context_window().is_some() && price.max_output().is_some();
        return if is_known { Err(format!("refused: {:?}", facts.causes)) } else { Ok(()) };
    };
    let mut units = Units { requests: 1, ..Units::default() };
    (units.web_searches, units.file_searches) = (call.web_searches, call.file_searches);
    let mut left = call.read;
    for item in Item::READ {
        let part = roll(dice, left + 1);
        units.set(item, part);
        left -= part;
    }
    units.cache_write_1h += left;
    units.set(Item::WRITTEN[roll(dice, Item::WRITTEN.len() as u64) as usize], call.written);
    let cost = price.cost(&units, facts.tier.as_deref());
    let is_held = units.read() <= held.input_tokens && units.written() <= held.output_tokens;
    if is_held && cost <= held.spend {
        return Ok(());
    }
    let shown = body.chars().take(300).collect::<String>();
    Err(format!("{}: {units:?} cost {cost}, beyond {held:?}: {shown}", price.version()))
}

fn read(endpoint: &Endpoint, body: &str) -> Facts {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    facts::read(endpoint, &headers, body.as_bytes()).unwrap().facts
}

fn prices(catalog: &Catalog, provider: &str) -> Vec<Arc<Price>> {
    let now = "2026-11-01T00:00:00Z".parse::<Timestamp>().unwrap();
    let of = |price: &&Arc<Price>| price.version().starts_with(provider) && price.valid_from() <= now;
    catalog.prices().all().filter(of).cloned().collect()
}

/// Makes up a call of the catalog and settles the worst answer to it.
fn try_a_call(catalog: &Catalog, dice: &mut Dice) -> Result<(), String> {
    /// Kinds of models that answer at other endpoints.
    const ELSEWHERE: [&str; 9] =
        ["transcribe", "tts", "image", "dall-e", "whisper", "instruct", "davinci", "babbage", "realtime"];
    const FAVOURITES: [&str; 7] = [
        "gpt-5-mini",
        "gpt-4o-mini",
        "gpt-4o",
        "gpt-5.4",
        "gpt-6-sol",
        "claude-haiku-4-5",
        "claude-opus-5-5",
    ];
    let (provider, path) = match roll(dice, 5) {
        0 => ("openai", "/v1/embeddings"),
        1 => ("openai", "/v1/responses"),
        2 => ("openai", "/v1/chat/completions"),
        _ => ("anthropic", "/v1/messages"),
    };
    let endpoint = catalog.dialect(provider).unwrap().endpoint("POST", path).unwrap();
    let prices = prices(catalog, provider);
    let is_of = |kinds: &[&str], price: &Price| kinds.iter().any(|kind| price.model().contains(kind));
    let fits = |price: &&Arc<Price>| {
        is_of(&["text-embedding"], price) == (path == "/v1/embeddings") && !is_of(&ELSEWHERE, price)
    };
    let (known, others): (Vec<_>, Vec<_>) =
        prices.iter().filter(fits).partition(|price| FAVOURITES.contains(&price.model()));
    let prices = if known.is_empty() || flip(dice) { others } else { known };
    let price = prices[roll(dice, prices.len() as u64) as usize];
    let window = price.context_window().unwrap_or(0);
    let types = endpoint.request.tools.types();
    let tools: Vec<&str> = types.filter(|(_, rule)| !rule.unbounded).map(|(name, _)| name).collect();
    let loops: Vec<&str> = tools.iter().copied().filter(|name| is_loop(name)).collect();
    let call = match path {
        "/v1/embeddings" => embeddings(dice),
        "/v1/responses" => {
            let tool = loops[roll(dice, loops.len() as u64) as usize];
            responses_call(dice, tool, window)
        }
        "/v1/messages" => {
            let tool = tools[roll(dice, tools.len() as u64) as usize];
            messages_call(dice, tool, (price.model(), window))
        }
        _ => chat_call(dice, price.model(), window),
    };
    settles_within_its_hold(dice, (endpoint, price), call)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn the_worst_answer_to_any_call_settles_within_its_hold(mut dice in prop::collection::vec(any::<u32>(), 200)) {
        static CATALOG: OnceLock<Catalog> = OnceLock::new();
        let catalog = CATALOG.get_or_init(|| catalog::shipped().unwrap());
        let tried = try_a_call(catalog, &mut dice);
        prop_assert!(tried.is_ok(), "{}", tried.unwrap_err());
    }
}

/// The shipped catalog with one of its files changed.
fn catalog_without(rule: &str, instead: &str) -> Catalog {
    let texts = [
        include_str!("../../../../catalog/dialects/anthropic.yaml"),
        include_str!("../../../../catalog/dialects/openai.yaml"),
        include_str!("../../../../catalog/prices/anthropic.yaml"),
        include_str!("../../../../catalog/prices/openai.yaml"),
    ];
    assert!(texts.iter().any(|text| text.contains(rule)), "no file has {rule:?}");
    let file = |(index, text): (usize, &str)| SourceFile {
        path: PathBuf::from(format!("{index}.yaml")),
        text: text.replace(rule, instead),
    };
    Catalog::parse(&texts.into_iter().enumerate().map(file).collect::<Vec<_>>()).unwrap()
}

#[test]
fn a_rule_that_bounds_too_little_is_noticed() {
    let rules = [
        // Embeddings at the window of one input.
        (
            "      inputs: input\n      call_input: 300000\n      inert: [dimensions,",
            "      inert: [input, dimensions,",
        ),
        // Loops at one window.
        ("web_search_20250305: {outside: true, fee: 0.01 USD, cap: max_uses}", "web_search_20250305: {}"),
        ("web_search: {outside: true, fee: 0.01 USD}", "web_search: {}"),
        ("file_search: {outside: true, fee: 0.0025 USD}", "file_search: {}"),
        ("\"tool_search_tool_*\": {pass: true, runs: 10}", "\"tool_search_tool_*\": {}"),
        ("predicted: [prediction]\n      inert:\n", "inert:\n        - prediction\n"),
        (
            "      choices: [n]\n      tiers: {service_tier",
            "      other_models: [n]\n      tiers: {service_tier",
        ),
        (
            "patches-1536-mini: {patches: {side: 32, most: 1536, low: 256, permille: 1620}}",
            "patches-1536-mini: {patches: {side: 32, most: 1536, low: 25, permille: 620}}",
        ),
    ];
    for (rule, instead) in rules {
        let catalog = catalog_without(rule, instead);
        let mut seed = 7_u32;
        let mut dice = || -> Dice {
            let next = |_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                seed >> 8
            };
            (0..200).map(next).collect()
        };
        let noticed = (0..1500).any(|_| try_a_call(&catalog, &mut dice()).is_err());
        assert!(noticed, "nobody notices {instead:?} in place of {rule:?}");
    }
}

#[test]
fn every_tool_that_multiplies_without_a_bound_is_refused() {
    let catalog = catalog::shipped().unwrap();
    let mut refused = 0;
    for dialect in catalog.dialect_names() {
        for endpoint in catalog.dialect(dialect).unwrap().endpoints().filter(|endpoint| endpoint.metered) {
            for (name, rule) in endpoint.request.tools.types() {
                let body =
                    json!({"model": "m", "tools": [{"type": name.replace('*', "20270101")}]}).to_string();
                let facts = read(endpoint, &body);
                let is_refused = bound(&facts, endpoint, Some(&price("known")), Terms::default()).is_err();
                // Runs of the model bound its tokens, and not a fee for each use.
                let has_bound = rule.once || (rule.fee.is_none() && rule.runs.is_some());
                assert!(
                    !rule.is_loop() || rule.unbounded || is_loop(name),
                    "nobody makes up calls with {name}"
                );
                let expected = rule.unbounded || (rule.is_loop() && !has_bound);
                assert_eq!(is_refused, expected, "{} {name}", endpoint.path);
                refused += usize::from(is_refused);
            }
        }
    }
    assert!(refused >= 12, "{refused} rules");
}
