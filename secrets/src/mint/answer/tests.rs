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
            Err(failure) => prop_assert!(lives > LONGEST_LIFE.as_secs() || failure == Failure::MintNonsense("it is not the JSON of a token")),
        }
    }
}
