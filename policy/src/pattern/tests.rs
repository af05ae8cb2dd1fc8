use std::borrow::Cow;

use super::*;

fn spiffe(text: &str) -> SpiffePattern {
    text.parse().unwrap()
}

fn path(text: &str) -> PathPattern {
    text.parse().unwrap()
}

fn model(text: &str) -> ModelPattern {
    text.parse().unwrap()
}

fn host(text: &str) -> HostPattern {
    text.parse().unwrap()
}

#[test]
fn a_wildcard_never_crosses_a_segment() {
    let pattern = spiffe("spiffe://prod.acme/ns/*/sa/web");
    let matches = |id: &str| pattern.matches(&id.parse().unwrap());
    assert!(matches("spiffe://prod.acme/ns/shop/sa/web"));
    assert!(!matches("spiffe://prod.acme/ns/shop/x/sa/web"));
    assert!(!matches("spiffe://prod.acme/ns/sa/web"));
    assert!(!matches("spiffe://prod.acme/ns/shop/sa/web/x"));
    assert!(!path("/v1/*/content").matches("/v1/a/b/content"));
    assert!(!path("/v1/*").matches("/v1/"));
}

#[test]
fn a_trailing_double_star_is_one_segment_or_more() {
    let pattern = spiffe("spiffe://prod.acme/ns/**");
    let matches = |id: &str| pattern.matches(&id.parse().unwrap());
    assert!(matches("spiffe://prod.acme/ns/a"));
    assert!(matches("spiffe://prod.acme/ns/a/sa/b"));
    assert!(!matches("spiffe://prod.acme/ns"));
    assert!(!matches("spiffe://prod.acme/nsx/a"));
    assert!(path("/v1/**").matches("/v1/"));
    assert!(path("/v1/**").matches("/v1/a/b"));
    assert!(!path("/v1/**").matches("/v1"));
    assert!(path("/**").matches("/"));
    assert_eq!(PathPattern::any(), path("/**"));
}

#[test]
fn a_wildcard_matches_odd_segments_only_if_it_matches_however_they_are_read() {
    let matches = |pattern: &str, text: &str| path(pattern).matches(text);
    for (pattern, text) in [
        ("/bucket/**", "/bucket/a/../b"),
        ("/bucket/**", "/bucket//lead"),
        ("/bucket/**", "/bucket/."),
        ("/bucket//**", "/bucket//lead"),
        ("/a/../b", "/a/../b"),
        ("/a//b", "/a//b"),
    ] {
        assert!(matches(pattern, text), "{pattern} {text}");
    }
    for (pattern, text) in [
        ("/bucket/public/**", "/bucket/public/../secret"),
        ("/bucket/public/**", "/bucket/public/x/../../secret"),
        ("/bucket/public/**", "/bucket/public//../../secret"),
        ("/bucket/*", "/bucket/.."),
        ("/bucket/*", "/bucket/."),
        ("/a/*/c", "/a//c"),
        ("/a/b", "/a/../a/b"),
        ("/a/b", "/a//b"),
        ("/a//b", "/a/b"),
        ("/a/../b", "/b"),
    ] {
        assert!(!matches(pattern, text), "{pattern} {text}");
    }
    assert!(matches!("/a/../**".parse::<PathPattern>(), Err(PathPatternError::Dots)));
}

#[test]
fn another_trust_domain_never_matches() {
    let id = "spiffe://prod.acme.evil/ns/a".parse().unwrap();
    assert!(!spiffe("spiffe://prod.acme/**").matches(&id));
    assert!(!spiffe("spiffe://prod.acme/ns/a").matches(&id));
    assert!("spiffe://*/ns/a".parse::<SpiffePattern>().is_err());
    assert!("spiffe://*.acme/ns/a".parse::<SpiffePattern>().is_err());
}

#[test]
fn the_more_specific_pattern_comes_first() {
    let order = [
        "/v1/a/b", "/v1/a", "/v1/a/*", "/v1/*/b", "/v1/*/*", "/*/a/b", "/*/a/*", "/v1/a/**", "/v1/*/**",
        "/v1/**", "/**",
    ];
    let mut sorted: Vec<PathPattern> = order.iter().rev().map(|text| path(text)).collect();
    sorted.sort();
    let sorted: Vec<String> = sorted.iter().map(ToString::to_string).collect();
    assert_eq!(sorted, order);
}

#[test]
fn an_exact_model_comes_before_a_longer_beginning_before_a_shorter() {
    let order = ["gpt-5-mini", "gpt-5*", "gpt-*", "*"];
    let mut sorted: Vec<ModelPattern> = order.iter().rev().map(|text| model(text)).collect();
    sorted.sort();
    assert_eq!(sorted.iter().map(ToString::to_string).collect::<Vec<_>>(), order);
    assert!(model("gpt-5*").matches("gpt-5"));
    assert!(!model("gpt-5").matches("gpt-5-mini"));
    assert!(model("*").matches("anything"));
    assert!(!model("gpt-5*").matches("Gpt-5"));
}

#[test]
fn models_and_methods_have_no_other_wildcards() {
    for text in ["", "a*b", "a**", "*a", "a b", "é", &"x".repeat(129)] {
        assert!(text.parse::<ModelPattern>().is_err(), "{text}");
    }
    for text in ["", "post", "Post", "P*", "GET POST", "TRACE", "TRACK", "CONNECT"] {
        assert!(text.parse::<MethodPattern>().is_err(), "{text}");
    }
    assert!("M-SEARCH".parse::<MethodPattern>().is_ok());
    assert!("GET".parse::<MethodPattern>().unwrap() < MethodPattern::Any);
}

#[test]
fn a_wildcard_host_stands_for_one_label() {
    let pattern = host("*.Example.COM.");
    assert_eq!(pattern.to_string(), "*.example.com");
    assert!(pattern.matches("a.example.com"));
    assert!(!pattern.matches("a.b.example.com"));
    assert!(!pattern.matches("example.com"));
    assert!(!pattern.matches("a.example.com.evil"));
    assert!(!pattern.matches("aexample.com"));
    assert!(host("a.example.com") < pattern);
}

#[test]
fn a_host_has_one_spelling() {
    for (written, canonical) in [
        ("API.OpenAI.com.", "api.openai.com"),
        ("192.0.2.7", "192.0.2.7"),
        ("[2001:DB8:0:0::1]", "[2001:db8::1]"),
        ("localhost", "localhost"),
        ("my_host", "my_host"),
        ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
    ] {
        assert_eq!(canonical_host(written).unwrap(), canonical);
    }
}

#[test]
fn what_is_no_host_is_refused() {
    let texts = [
        "",
        ".",
        "a..b",
        ".a",
        "a..",
        "-a.b",
        "a-.b",
        "a b",
        "a/b",
        "user@a",
        "a:443",
        "a?b",
        "a#b",
        "é.example",
        "a%2eb",
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "01.2.3.4",
        "0x7f.1",
        "2130706433",
        "example.0x1",
        "[::1",
        "::1",
        "[::1%eth0]",
        "[1.2.3.4]",
        "a.*",
        "a\0",
    ];
    for text in texts {
        assert!(canonical_host(text).is_err(), "{text}");
    }
    assert!(canonical_host(&format!("{}.example", "a".repeat(64))).is_err());
    assert!(canonical_host(&["a"; 128].join(".")).is_err());
    for text in ["*", "*.", "*.*.a", "*a.b", "*.1.2.3.4", "*.[::1]"] {
        assert!(text.parse::<HostPattern>().is_err(), "{text}");
    }
}

fn subjects(subject: &str) -> CallerPattern {
    let issuer = "https://ci.example".parse().unwrap();
    CallerPattern::Token(TokenPattern::new(issuer, subject.parse().unwrap()))
}

fn accounts(namespace: &str, name: &str) -> CallerPattern {
    let (namespace, name) = (Cow::Borrowed(namespace).try_into(), Cow::Borrowed(name).try_into());
    let pattern = ServiceAccountPattern::new("eu-1".parse().unwrap(), namespace.unwrap(), name.unwrap());
    CallerPattern::ServiceAccount(pattern)
}

#[test]
fn a_subject_is_matched_whole_or_by_its_beginning_and_for_its_issuer_alone() {
    let matches = |subject: &str, id: &str| subjects(subject).matches(&id.parse().unwrap());
    for (subject, id) in [
        ("repo:acme/shop:ref:x", "jwt:https://ci.example#repo:acme/shop:ref:x"),
        ("repo:acme/shop:*", "jwt:https://ci.example#repo:acme/shop:ref:x"),
        ("a b*", "jwt:https://ci.example#a%20b%20c"),
        ("é", "jwt:https://ci.example#%C3%A9"),
        ("*", "jwt:https://ci.example#anyone"),
    ] {
        assert!(matches(subject, id), "{subject} {id}");
    }
    for (subject, id) in [
        ("repo:acme/shop", "jwt:https://ci.example#repo:acme/shop:ref:x"),
        ("repo:acme/shop:*", "jwt:https://ci.example#repo:acme/shop2:ref:x"),
        ("repo:acme/shop:*", "jwt:https://ci.example.evil#repo:acme/shop:ref:x"),
        ("*", "jwt:https://ci.example/#anyone"),
        ("a%20b", "jwt:https://ci.example#a%20b"),
        ("*", "spiffe://ci.example/anyone"),
        ("*", "k8s:eu-1/shop/web"),
    ] {
        assert!(!matches(subject, id), "{subject} {id}");
    }
    for text in ["", "a*b", "**", "*a", &"a".repeat(256)] {
        assert!(text.parse::<SubjectPattern>().is_err(), "{text}");
    }
}

#[test]
fn a_service_account_is_matched_in_its_cluster_by_namespace_and_name() {
    let matches = |pattern: &CallerPattern, id: &str| pattern.matches(&id.parse().unwrap());
    for pattern in [accounts("shop", "web"), accounts("shop", "*"), accounts("*", "web"), accounts("*", "*")]
    {
        assert!(matches(&pattern, "k8s:eu-1/shop/web"), "{pattern}");
        assert!(!matches(&pattern, "k8s:us-1/shop/web"), "{pattern}");
        assert!(!matches(&pattern, "spiffe://eu-1/ns/shop/sa/web"), "{pattern}");
        assert!(!matches(&pattern, "jwt:eu-1#shop/web"), "{pattern}");
    }
    assert!(!matches(&accounts("shop", "web"), "k8s:eu-1/shop/api"));
    assert!(!matches(&accounts("shop", "*"), "k8s:eu-1/web/api"));
    for text in ["we*", "**", "", "Shop"] {
        assert!(OneOrAny::<crate::name::Name>::try_from(Cow::Borrowed(text)).is_err(), "{text}");
    }
}

#[test]
fn within_a_kind_of_caller_the_more_specific_comes_first() {
    let order = [
        spiffe_caller("spiffe://prod.acme/ns/shop/sa/web"),
        spiffe_caller("spiffe://prod.acme/**"),
        accounts("shop", "web"),
        accounts("shop", "*"),
        accounts("*", "web"),
        accounts("*", "*"),
        subjects("repo:acme/shop:ref"),
        subjects("repo:acme/shop:*"),
        subjects("repo:acme/*"),
        subjects("*"),
    ];
    let mut sorted: Vec<&CallerPattern> = order.iter().rev().collect();
    sorted.sort();
    assert!(sorted.into_iter().eq(&order));
    let texts: Vec<String> = order[5..8].iter().map(ToString::to_string).collect();
    let expected = [
        "k8s:eu-1/*/*",
        "jwt:https://ci.example#repo:acme/shop:ref",
        "jwt:https://ci.example#repo:acme/shop:*",
    ];
    assert_eq!(texts, expected);
}

fn spiffe_caller(text: &str) -> CallerPattern {
    CallerPattern::Spiffe(spiffe(text))
}
