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
        let by_what_is_made =
            Units { images: 1_000_000, seconds: 1_000_000, characters: 1_000_000, ..million };
        assert!(price.cost(&by_what_is_made, None) > NanoUsd::ZERO, "{}", price.version());
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
fn searches_by_a_preview_tool_cost_more_with_models_that_do_not_reason() {
    let usd = |text: &str| format!("{text} USD").parse::<NanoUsd>().unwrap();
    let searched = Units { preview_searches: 4, ..Units::default() };
    for (model, price) in [
        ("gpt-4.1", "0.1"),
        ("gpt-4o-mini-2024-07-18", "0.1"),
        ("ft:gpt-4.1-2025-04-14:acme::x", "0.1"),
        ("gpt-5-mini", "0.04"),
        ("o3", "0.04"),
    ] {
        for tier in [None, Some("priority"), Some("flex")] {
            assert_eq!(cost("openai", model, searched, tier), usd(price), "{model} {tier:?}");
        }
    }
    let plain = Units { web_searches: 4, ..Units::default() };
    assert_eq!(cost("openai", "gpt-4.1", plain, None), usd("0.04"));
}

#[test]
fn images_and_sound_cost_what_their_models_are_billed_by() {
    let usd = |text: &str| format!("{text} USD").parse::<NanoUsd>().unwrap();
    let made = Units { input: 50, image_in: 100, image_out: 4160, images: 1, ..Units::default() };
    assert_eq!(cost("openai", "gpt-image-1", made, Some("hd")), usd("0.16765"));
    assert_eq!(cost("openai", "gpt-image-2-2026-04-21", made, None), usd("0.12585"));
    let images = Units { images: 2, ..Units::default() };
    for (model, tier, price) in [
        ("dall-e-3", None, "0.08"),
        ("dall-e-3", Some("hd"), "0.16"),
        ("dall-e-3", Some("1792x1024"), "0.16"),
        ("dall-e-3", Some("hd+1792x1024"), "0.24"),
        ("dall-e-3", Some("1024x1792+hd"), "0.24"),
        ("dall-e-3", Some("?"), "0.24"),
        ("dall-e-2", None, "0.04"),
        ("dall-e-2", Some("256x256"), "0.032"),
    ] {
        assert_eq!(cost("openai", model, images, tier), usd(price), "{model} {tier:?}");
    }
    let minute = Units { seconds: 60, ..Units::default() };
    assert_eq!(cost("openai", "whisper-1", minute, None), usd("0.006"));
    let spoken = Units { characters: 1000, ..Units::default() };
    assert_eq!(cost("openai", "tts-1-hd", spoken, None), usd("0.03"));
    assert_eq!(cost("openai", "gpt-4o-mini-tts", spoken, None), NanoUsd::ZERO);
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
        ("openai", "POST", "/v1/responses/input_tokens", Some(Use)),
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
    let read = |path| {
        let endpoint = openai.endpoint("POST", path).unwrap();
        (endpoint.metered, endpoint.bounded)
    };
    for path in ["/v1/chat/completions", "/v1/responses", "/v1/responses/compact", "/v1/embeddings"] {
        assert_eq!(read(path), (true, true), "{path}");
    }
    for path in [
        "/v1/images/generations",
        "/v1/images/edits",
        "/v1/images/variations",
        "/v1/audio/speech",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/completions",
    ] {
        assert_eq!(read(path), (true, false), "{path}");
    }
    assert_eq!(read("/v1/decisions"), (false, false));
    for path in ["/v1/moderations", "/v1/responses/input_tokens"] {
        assert!(openai.endpoint("POST", path).unwrap().free, "{path}");
    }
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
fn only_completions_have_to_be_asked_for_usage() {
    let catalog = catalog();
    for dialect in catalog.dialect_names() {
        for endpoint in catalog.dialect(dialect).unwrap().endpoints() {
            assert_eq!(
                endpoint.forces_usage(),
                ["/v1/chat/completions", "/v1/completions"].contains(&&*endpoint.path) && endpoint.metered
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
