use jiff::Timestamp;
use tollgate_policy::dialect::Class;
use tollgate_policy::price::{NanoUsd, Units};

use super::*;

fn catalog() -> Catalog {
    shipped().unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

fn cost(provider: &str, model: &str, units: Units, tier: Option<&str>) -> NanoUsd {
    catalog().prices().price(provider, model, now()).unwrap().cost(&units, tier)
}

fn class_of(dialect: &str, method: &str, path: &str) -> Option<Class> {
    catalog().dialect(dialect).unwrap().endpoint(method, path).map(|endpoint| endpoint.class)
}

#[test]
fn every_file_of_the_catalog_is_read() {
    let catalog = catalog();
    let mut names: Vec<_> = catalog.dialect_names().collect();
    names.sort_unstable();
    assert_eq!(names, ["anthropic", "google", "http", "openai"]);
}

#[test]
fn every_price_has_a_source_and_a_day_that_has_come() {
    let catalog = catalog();
    assert!(catalog.prices().all().count() > 60);
    for price in catalog.prices().all() {
        assert!(price.source().starts_with("https://"), "{}", price.version());
        assert!(price.valid_from() <= now(), "{}", price.version());
        let million = Units { input: 1_000_000, ..Units::default() };
        assert!(price.cost(&million, None) > NanoUsd::ZERO, "{}", price.version());
        assert!(price.ceiling(1_000_000, 0, None) >= price.cost(&million, None), "{}", price.version());
    }
}

#[test]
fn prices_are_the_published_ones() {
    let units = Units { input: 1_000_000, cache_read: 1_000_000, output: 1_000_000, ..Units::default() };
    let usd = |text: &str| format!("{text} USD").parse::<NanoUsd>().unwrap();
    assert_eq!(cost("openai", "gpt-5-mini-2025-08-07", units, Some("default")), usd("2.275"));
    assert_eq!(cost("openai", "gpt-5-mini", units, Some("flex")), usd("1.1375"));
    assert_eq!(cost("openai", "gpt-5-mini", units, Some("priority")), usd("4.095"));
    // Two million tokens of context are long ones.
    assert_eq!(cost("openai", "gpt-5.4", units, Some("default")), usd("28"));
    assert_eq!(cost("anthropic", "claude-sonnet-5-5", units, Some("standard")), usd("12.1"));
    let written = Units {
        cache_write_5m: 1_000_000,
        cache_write_1h: 1_000_000,
        web_searches: 1000,
        ..Units::default()
    };
    assert_eq!(cost("anthropic", "claude-opus-5-5-20260901", written, Some("standard+us")), usd("24.3"));
    let embedded = Units { input: 1_000_000, ..Units::default() };
    assert_eq!(cost("openai", "text-embedding-3-small", embedded, None), usd("0.02"));
}

#[test]
fn an_unknown_model_has_no_price_and_the_provider_has_a_dearest() {
    let catalog = catalog();
    assert!(catalog.prices().price("openai", "gpt-99", now()).is_none());
    for provider in ["openai", "anthropic"] {
        let dearest = catalog.prices().dearest(provider, now()).unwrap();
        let all = catalog.prices().all().filter(|price| price.version().starts_with(provider));
        assert!(
            all.map(|price| price.ceiling(1000, 1000, None)).max() <= Some(dearest.ceiling(1000, 1000, None))
        );
        assert_eq!((dearest.context_window(), dearest.max_output()), (None, None));
    }
}

#[test]
fn every_call_of_the_providers_is_of_its_class() {
    use Class::{AccountState, Administers, MintsCredentials, Use};
    let cases = [
        ("openai", "POST", "/v1/chat/completions", Some(Use)),
        ("openai", "GET", "/v1/chat/completions", Some(AccountState)),
        ("openai", "DELETE", "/v1/chat/completions/chatcmpl-1", Some(AccountState)),
        ("openai", "POST", "/v1/responses", Some(Use)),
        ("openai", "GET", "/v1/responses/resp_1", Some(AccountState)),
        ("openai", "POST", "/v1/responses/compact", Some(Use)),
        ("openai", "GET", "/v1/models/gpt-5", Some(Use)),
        ("openai", "DELETE", "/v1/models/ft:gpt-4o", Some(AccountState)),
        ("openai", "GET", "/v1/files/file-1/content", Some(AccountState)),
        ("openai", "POST", "/v1/realtime/client_secrets", Some(MintsCredentials)),
        ("openai", "POST", "/v1/Realtime/Client_Secrets/", Some(MintsCredentials)),
        ("openai", "POST", "/v1/chatkit/sessions", Some(MintsCredentials)),
        ("openai", "POST", "/v1/organization/admin_api_keys", Some(Administers)),
        ("openai", "POST", "/v1/fine_tuning/checkpoints/x/permissions", Some(Administers)),
        ("openai", "POST", "/v1/fine_tuning/jobs", Some(AccountState)),
        ("openai", "POST", "/v1/images/generations", Some(Use)),
        ("openai", "POST", "/v2/chat/completions", None),
        ("anthropic", "POST", "/v1/messages", Some(Use)),
        ("anthropic", "POST", "/v1/messages/count_tokens", Some(Use)),
        ("anthropic", "GET", "/v1/messages/batches/b/results", Some(AccountState)),
        ("anthropic", "GET", "/v1/files", Some(AccountState)),
        ("anthropic", "GET", "/v1/organizations/api_keys", Some(Administers)),
        ("anthropic", "POST", "/v1/tunnels/t/reveal_token", Some(MintsCredentials)),
        ("http", "PROPFIND", "/", Some(Use)),
        ("http", "GET", "/a/b//c", Some(Use)),
    ];
    for (dialect, method, path, class) in cases {
        assert_eq!(class_of(dialect, method, path), class, "{dialect} {method} {path}");
    }
}

#[test]
fn what_cannot_be_metered_or_comes_later_says_so() {
    let catalog = catalog();
    let openai = catalog.dialect("openai").unwrap();
    let metered = |path| openai.endpoint("POST", path).unwrap().metered;
    assert!(metered("/v1/chat/completions") && metered("/v1/responses") && metered("/v1/embeddings"));
    assert!(
        !metered("/v1/images/generations") && !metered("/v1/audio/speech") && !metered("/v1/moderations")
    );
    for path in ["/v1/batches", "/v1/videos", "/v1/threads/runs", "/v1/fine_tuning/jobs"] {
        assert!(openai.endpoint("POST", path).unwrap().deferred, "{path}");
    }
    assert!(openai.endpoint("GET", "/v1/models").unwrap().free);
    let anthropic = catalog.dialect("anthropic").unwrap();
    assert!(anthropic.endpoint("POST", "/v1/messages").unwrap().metered);
    assert!(anthropic.endpoint("POST", "/v1/messages/count_tokens").unwrap().free);
    assert!(anthropic.endpoint("POST", "/v1/messages/batches").unwrap().deferred);
    assert!(catalog.dialect("http").unwrap().is_plain());
}

#[test]
fn only_chat_completions_have_to_be_asked_for_usage() {
    let catalog = catalog();
    for dialect in catalog.dialect_names() {
        for endpoint in catalog.dialect(dialect).unwrap().endpoints() {
            assert_eq!(
                endpoint.forces_usage(),
                &*endpoint.path == "/v1/chat/completions" && endpoint.metered
            );
        }
    }
}

#[test]
fn a_key_is_dead_on_401_and_on_nothing_else() {
    let catalog = catalog();
    for dialect in catalog.dialect_names() {
        let dialect = catalog.dialect(dialect).unwrap();
        assert_eq!((100..600).filter(|status| dialect.keys().dead(*status)).collect::<Vec<_>>(), [401]);
    }
}
