use proptest::prelude::*;
use reqwest::header::{HeaderMap, HeaderValue};
use tollgate_policy::policy::{Client, ClientAuth, TokenEndpoint};
use zeroize::Zeroizing;

use super::super::tests::{endpoint, mint};
use super::*;

fn client() -> TokenGrant {
    TokenGrant::ClientCredentials(Client { id: Some("tollgate".to_owned()), auth: ClientAuth::Basic })
}

fn app() -> TokenGrant {
    TokenGrant::GithubApp { app_id: 7, installation_id: 8, repositories: Vec::new(), permissions: Vec::new() }
}

fn exchange() -> TokenGrant {
    let jwt = "urn:ietf:params:oauth:token-type:jwt".to_owned();
    TokenGrant::TokenExchange { subject_token_type: jwt, requested_token_type: None, client: None }
}

fn answer(status: u16, body: &str) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert(DATE, HeaderValue::from_static("Tue, 24 Nov 2026 20:00:00 GMT"));
    Answer { status, headers, body: Zeroizing::new(body.as_bytes().to_vec()) }
}

/// The token, and for how many seconds it may be used.
fn read(grant: TokenGrant, status: u16, body: &str) -> Result<(String, f64), Failure> {
    let endpoint: TokenEndpoint = endpoint();
    let asked = Instant::now();
    let fetched = token(&answer(status, body), &mint(endpoint, grant), asked)?;
    let usable = fetched.expires.unwrap() - asked;
    Ok((String::from_utf8(fetched.value.only().unwrap().to_vec()).unwrap(), usable.as_secs_f64()))
}

#[test]
fn a_token_ends_for_us_before_it_ends_for_others() {
    for (written, usable) in
        [("3600", 3570.0), ("\"3600\"", 3570.0), ("60", 54.0), ("1", 0.9), ("300", 270.0)]
    {
        let body =
            format!(r#"{{"token_type": "bearer", "expires_in": {written}, "access_token": "t", "x": [1]}}"#);
        assert_eq!(read(client(), 200, &body), Ok(("t".to_owned(), usable)), "{written}");
    }
}

#[test]
fn nonsense_is_refused_and_named_without_repeating_it() {
    let long = "x".repeat(LONGEST_TOKEN + 1);
    let long = format!(r#"{{"access_token": "{long}", "token_type": "Bearer", "expires_in": 60}}"#);
    for (body, expected) in [
        ("<html>please log in, canary</html>", "not the JSON"),
        ("", "not the JSON"),
        ("[]", "not the JSON"),
        (r#"{"access_token": 7, "token_type": "Bearer", "expires_in": 60}"#, "not the JSON"),
        (
            r#"{"access_token": "a", "access_token": "b", "token_type": "Bearer", "expires_in": 60}"#,
            "not the JSON",
        ),
        (r#"{"token_type": "Bearer", "expires_in": 60}"#, "no access_token"),
        (r#"{"access_token": "", "token_type": "Bearer", "expires_in": 60}"#, "empty"),
        (r#"{"access_token": "t", "expires_in": 60}"#, "no token_type"),
        (r#"{"access_token": "t", "token_type": "mac", "expires_in": 60}"#, "not Bearer"),
        (r#"{"access_token": "t", "token_type": "N_A", "expires_in": 60}"#, "not Bearer"),
        (r#"{"access_token": "t", "token_type": "Bearer"}"#, "no expires_in"),
        (r#"{"access_token": "t", "token_type": "Bearer", "expires_in": 0}"#, "is 0"),
        (r#"{"access_token": "t", "token_type": "Bearer", "expires_in": -5}"#, "not a number"),
        (r#"{"access_token": "t", "token_type": "Bearer", "expires_in": 1e3}"#, "not a number"),
        (r#"{"access_token": "t", "token_type": "Bearer", "expires_in": "soon"}"#, "not a number"),
        (r#"{"access_token": "t", "token_type": "Bearer", "expires_in": {}}"#, "not a number"),
        (r#"{"access_token": "t", "token_type": "Bearer", "expires_in": 99999999999}"#, "more than a year"),
        (
            r#"{"access_token": "t", "token_type": "Bearer", "expires_in": 99999999999999999999}"#,
            "not a number",
        ),
        (r#"{"access_token": "a\r\nx: y", "token_type": "Bearer", "expires_in": 60}"#, "characters"),
        (r#"{"access_token": "a b", "token_type": "Bearer", "expires_in": 60}"#, "characters"),
        (r#"{"access_token": "caf\u00e9", "token_type": "Bearer", "expires_in": 60}"#, "characters"),
        (long.as_str(), "16 KiB"),
    ] {
        let failure = read(client(), 200, body).unwrap_err();
        assert!(matches!(failure, Failure::MintNonsense(why) if why.contains(expected)), "{body}: {failure}");
        assert!(!failure.to_string().contains("canary") && !failure.revokes() && !failure.spares_store());
    }
}

#[test]
fn a_life_that_is_not_said_is_the_one_of_the_definition() {
    let body = r#"{"access_token": "t", "token_type": "Bearer"}"#;
    let mint = Mint { lifetime: Some(Duration::from_secs(600)), ..mint(endpoint(), client()) };
    let asked = Instant::now();
    let fetched = token(&answer(200, body), &mint, asked).unwrap();
    assert_eq!(fetched.expires, Some(asked + Duration::from_secs(570)));
    let shorter = token(&answer(200, &body.replace('}', r#", "expires_in": 100}"#)), &mint, asked).unwrap();
    assert_eq!(shorter.expires, Some(asked + Duration::from_secs(90)), "the endpoint's word counts for more");
}

#[test]
fn an_exchange_may_give_what_is_no_access_token() {
    let body =
        r#"{"access_token": "t", "issued_token_type": "urn:x", "token_type": "N_A", "expires_in": 60}"#;
    assert_eq!(read(exchange(), 200, body), Ok(("t".to_owned(), 54.0)));
}

#[test]
fn a_refusal_is_told_from_a_failure() {
    for (status, body, expected) in [
        (401, r#"{"error": "invalid_client", "error_description": "canary"}"#, "invalid_client"),
        (400, r#"{"error": "invalid_scope"}"#, "invalid_scope"),
        (400, r#"{"error": "canary"}"#, "code of its own"),
    ] {
        let failure = read(client(), status, body).unwrap_err();
        assert!(matches!(failure, Failure::MintRefused(why) if why.contains(expected)), "{body}: {failure}");
        assert!(failure.spares_store() && !failure.revokes() && !failure.to_string().contains("canary"));
    }
    for (status, body) in [(401, "<html>"), (404, r#"{"error": "x"}"#), (503, ""), (302, ""), (201, "{}")] {
        assert_eq!(read(client(), status, body), Err(Failure::Status(status)), "{status}");
    }
}

#[test]
fn a_refusal_with_a_status_of_success_is_that_refusal() {
    for (body, expected) in [
        (r#"{"error": "invalid_client", "error_description": "x"}"#, "invalid_client"),
        (r#"{"ok": false, "error": "invalid_client_id"}"#, "code of its own"),
        (
            r#"{"error": "invalid_grant", "access_token": "t", "token_type": "Bearer", "expires_in": 9}"#,
            "invalid_grant",
        ),
    ] {
        let failure = read(client(), 200, body).unwrap_err();
        assert!(matches!(failure, Failure::MintRefused(why) if why.contains(expected)), "{body}: {failure}");
    }
    let fine = r#"{"error": null, "access_token": "t", "token_type": "Bearer", "expires_in": 60}"#;
    assert!(read(client(), 200, fine).is_ok());
    for (status, body) in
        [(400, r#"{"error": "slow_down"}"#), (429, "{}"), (200, r#"{"error": "server_error"}"#)]
    {
        assert!(matches!(read(client(), status, body), Err(Failure::MintBusy(_))), "{status} {body}");
    }
}

#[test]
fn what_is_no_json_is_called_what_it_is() {
    let token = r#"{"access_token": "t", "token_type": "Bearer", "expires_in": 60}"#;
    for (body, kind, expected) in [
        ("", "application/json", "it is empty"),
        (" \n", "application/json", "it is empty"),
        ("<!DOCTYPE html><html>canary</html>", "text/plain", "it is HTML"),
        ("Please log in", "text/html; charset=utf-8", "it is HTML"),
        ("access_token=t&token_type=bearer", "text/plain", "it is a form"),
        (r#"{"access_token": "a", "access_token": "b"}"#, "application/json", "there twice"),
        ("{", "application/json", "it is not the JSON"),
    ] {
        let mut answer = answer(200, body);
        answer.headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        let failure = token_of(&answer).unwrap_err();
        assert!(
            failure.to_string().contains(expected) && !failure.to_string().contains("canary"),
            "{body}: {failure}"
        );
    }
    let mut packed = answer(200, "");
    packed.body = Zeroizing::new(vec![0x1f, 0x8b, 8, 0]);
    assert!(token_of(&packed).unwrap_err().to_string().contains("compressed"));
    let mut encoded = answer(200, "xx");
    encoded.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("br"));
    assert!(token_of(&encoded).unwrap_err().to_string().contains("compressed"));
    assert!(read(client(), 200, &format!("\u{feff}{token}")).is_ok(), "a mark before it is skipped");
    for life in ["3599.0", "\"3599.000\""] {
        assert_eq!(read(client(), 200, &token.replace("60", life)).unwrap().1, 3569.0);
    }
    for life in ["3599.5", "3599.", ".0", "3599.0.0", "\"\""] {
        assert!(read(client(), 200, &token.replace("60", life)).is_err(), "{life}");
    }
}

fn token_of(answer: &Answer) -> Result<(), Failure> {
    token(answer, &mint(endpoint(), client()), Instant::now()).map(drop)
}

#[test]
fn what_an_endpoint_says_of_its_refusal_is_told_without_what_was_shown() {
    let told = |description: &str| {
        let body = serde_json::json!({"error": "invalid_client", "error_description": description});
        said(&answer(401, &body.to_string()), &[b"sk-canary-secret", b"ab"])
    };
    assert_eq!(told("The client is unknown.").as_deref(), Some("invalid_client: The client is unknown."));
    assert_eq!(told("no such secret: sk-canary-secret"), None);
    assert_eq!(told("it begins with canary-s"), None, "nor a part of it");
    assert_eq!(told("about"), None, "nor a short one");
    assert_eq!(told("got c2stY2FuYXJ5LXNlY3JldA== now").as_deref(), Some("invalid_client: got … now"));
    assert_eq!(told("x\n\"y\"\u{1b}[31m \u{202e}z").as_deref(), Some("invalid_client: x y [31m z"));
    assert_eq!(told(&"word ".repeat(999)).unwrap().chars().count(), LONGEST_SAID);
    assert_eq!(said(&answer(401, r#"{"error": "nope"}"#), &[]).as_deref(), Some("nope"));
    assert_eq!(said(&answer(401, "<html>"), &[]), None);
}

#[test]
fn the_life_of_an_installation_token_is_measured_by_the_clock_that_dated_it() {
    let body = r#"{"token": "ghs_1", "expires_at": "2026-11-24T21:00:00Z", "permissions": {}}"#;
    assert_eq!(read(app(), 201, body), Ok(("ghs_1".to_owned(), 3570.0)));
    for (body, expected) in [
        (r#"{"token": "ghs_1", "expires_at": "2026-11-24T20:00:00Z"}"#, "over"),
        (r#"{"token": "ghs_1", "expires_at": "tomorrow"}"#, "not a time"),
        (r#"{"token": "ghs_1"}"#, "not a time"),
        (r#"{"expires_at": "2026-11-24T21:00:00Z"}"#, "no token"),
        (r#"{"token": "ghs_1", "expires_at": "9026-11-24T21:00:00Z"}"#, "year"),
    ] {
        let failure = read(app(), 201, body).unwrap_err();
        assert!(matches!(failure, Failure::MintNonsense(why) if why.contains(expected)), "{body}: {failure}");
    }
    for status in [401, 403, 404, 422] {
        assert!(matches!(read(app(), status, "{}"), Err(Failure::MintRefused(_))), "{status}");
    }
    assert_eq!(read(app(), 502, ""), Err(Failure::Status(502)));
}

fn members() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        "-?[0-9]{1,22}".prop_map(String::from),
        "[ -~]{0,9}|Bearer".prop_map(|text| serde_json::Value::from(text).to_string()),
        Just("null".to_owned()),
        Just("{}".to_owned()),
        any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
    ];
    let name = prop_oneof!["access_token", "token_type", "expires_in", "error", "token", "expires_at"];
    prop::collection::vec((name, value), 0..6).prop_map(|members| {
        let members: Vec<String> =
            members.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
        format!("{{{}}}", members.join(", "))
    })
}

proptest! {
    #[test]
    fn whatever_is_answered_is_a_token_that_ends_or_none_at_all(
        body in prop_oneof![members(), any::<String>()],
        lives in 1..2 * LONGEST_LIFE.as_secs(),
        status in prop_oneof![Just(200), Just(201), 100..600u16],
    ) {
        let granted = format!(r#"{{"access_token": "t", "token_type": "Bearer", "expires_in": {lives}, "x": {body:?}}}"#);
        for body in [&body, &granted] {
            for grant in [client(), exchange(), app()] {
                let asked = Instant::now();
                let Ok(fetched) = token(&answer(status, body), &mint(endpoint(), grant), asked) else { continue };
                let usable = fetched.expires.unwrap() - asked;
                prop_assert!(usable > Duration::ZERO && usable < LONGEST_LIFE);
                let token = fetched.value.only().unwrap();
                prop_assert!(!token.is_empty() && token.iter().all(u8::is_ascii_graphic));
            }
        }
        let said = read(client(), 200, &granted);
        let life = lives as f64;
        match said {
            Ok((_, usable)) => prop_assert!(usable < life && usable >= life * 0.9 - 0.001 || life - usable <= 30.001),
            Err(failure) => prop_assert!(lives > LONGEST_LIFE.as_secs() || matches!(failure, Failure::MintNonsense(why) if why.contains("not the JSON"))),
        }
    }
}
