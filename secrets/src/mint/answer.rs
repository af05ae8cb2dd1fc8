//! What a token endpoint answers: a bearer token with a life, or the word that says why not (RFC 6749, sections 5.1 and 5.2).
//!
//! **Invariant:** nothing of an answer but the token itself leaves this module; all else becomes one of a few fixed words. Of a refusal
//! code and description are told besides, bounded, and only where nothing of what was shown stands in them.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tollgate_policy::policy::{Mint, TokenGrant};

use super::unix_seconds;
use crate::error::Failure;
use crate::http::Answer;
use crate::store::Fetched;
use crate::value::{Hidden, Value};

/// A token ends for us this much before it ends for whoever takes it: clocks differ, and a call is under way for a moment. Of a short
/// life it is a tenth.
const MARGIN: Duration = Duration::from_secs(30);
/// No token lives longer; whoever says so means something else, such as milliseconds or a date.
const LONGEST_LIFE: Duration = Duration::from_secs(366 * 24 * 3600);
/// The most characters of an endpoint's own words that are told.
const LONGEST_SAID: usize = 200;
/// Longer words of a description may be a form of what was shown.
const LONGEST_WORD: usize = 20;
/// So many bytes of what was shown are never by chance in a description.
const SHARED: usize = 8;
/// What a header of a request can hold, with room for the others.
pub(super) const LONGEST_TOKEN: usize = 16 * 1024;

#[derive(Deserialize)]
struct Granted<'a> {
    access_token: Option<Hidden>,
    #[serde(borrow)]
    token_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    expires_in: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ErrorAnswer<'a> {
    #[serde(borrow)]
    error: Option<Cow<'a, str>>,
    #[serde(borrow)]
    error_description: Option<Cow<'a, str>>,
}

impl<'a> ErrorAnswer<'a> {
    /// What it is, where it is an error.
    fn read(body: &'a [u8]) -> Option<(Cow<'a, str>, Option<Cow<'a, str>>)> {
        let Self { error, error_description } = serde_json::from_slice(body).ok()?;
        error.filter(|error| !error.is_empty()).map(|error| (error, error_description))
    }
}

#[derive(Deserialize)]
struct Installed<'a> {
    token: Option<Hidden>,
    #[serde(borrow)]
    expires_at: Option<Cow<'a, str>>,
}

/// The token of an answer to a request that was sent at `asked`.
pub(super) fn token(answer: &Answer, mint: &Mint, asked: Instant) -> Result<Fetched, Failure> {
    let (token, life) = match &mint.grant {
        TokenGrant::GithubApp { .. } => installed(answer)?,
        grant => granted(answer, mint.lifetime, matches!(grant, TokenGrant::TokenExchange { .. }))?,
    };
    let value = token.into_inner();
    if value.is_empty() || value.len() > LONGEST_TOKEN {
        return Err(Failure::MintNonsense("the token is empty or longer than 16 KiB"));
    }
    if !value.iter().all(u8::is_ascii_graphic) {
        return Err(Failure::MintNonsense("the token has characters that no token has"));
    }
    expiring(value.into(), life, asked)
}

/// What was made by a request that was sent at `asked`, to be used for that life, less the margin.
pub(super) fn expiring(value: Value, life: Duration, asked: Instant) -> Result<Fetched, Failure> {
    if life > LONGEST_LIFE {
        return Err(Failure::MintNonsense("the token would live for more than a year"));
    }
    let usable = life - MARGIN.min(life / 10);
    Ok(Fetched { value, version: None, lease: None, expires: Some(asked + usable) })
}

fn granted(
    answer: &Answer,
    lifetime: Option<Duration>,
    is_exchange: bool,
) -> Result<(Hidden, Duration), Failure> {
    if answer.status != 200 {
        return Err(refused(answer));
    }
    // Some endpoints refuse with a status that says otherwise.
    if let Some((error, _)) = ErrorAnswer::read(json(&answer.body)) {
        return Err(named(&error));
    }
    let granted: Granted<'_> =
        serde_json::from_slice(json(&answer.body)).map_err(|error| foreign(answer, &error))?;
    let token = granted.access_token.ok_or(Failure::MintNonsense("there is no access_token"))?;
    // An exchange may give something that is no access token at all (RFC 8693, section 2.2.1).
    let is_usable = |word: &str| word.eq_ignore_ascii_case("bearer") || (is_exchange && word == "N_A");
    match &granted.token_type {
        Some(word) if is_usable(word) => {}
        Some(_) => return Err(Failure::MintNonsense("token_type is not Bearer")),
        None => return Err(Failure::MintNonsense("there is no token_type")),
    }
    let life = match (granted.expires_in, lifetime) {
        (Some(written), _) => seconds(written.get())?,
        (None, Some(lifetime)) => lifetime,
        (None, None) => {
            return Err(Failure::MintNonsense(
                "there is no expires_in; say in `mint` what `lifetime` is right",
            ));
        }
    };
    Ok((token, life))
}

/// Without the mark that some put before a text (RFC 8259, section 8.1, lets readers skip it).
fn json(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

/// What an answer is that is not the JSON of a token.
fn foreign(answer: &Answer, error: &serde_json::Error) -> Failure {
    let body = json(&answer.body).trim_ascii();
    let is_of = |kind: &str| {
        let written = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        written.is_some_and(|written| written.starts_with(kind))
    };
    let is_encoded = answer
        .headers
        .get(CONTENT_ENCODING)
        .is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    Failure::MintNonsense(if body.is_empty() {
        "it is empty, not the JSON of a token"
    } else if is_encoded || body.starts_with(b"\x1f\x8b") {
        "it is compressed, which nobody asked for, and not the JSON of a token"
    } else if body.starts_with(b"<") || is_of("text/html") {
        "it is HTML or XML, not the JSON of a token: is the path right, and no login page or proxy in between?"
    } else if is_of("application/x-www-form-urlencoded") || body.starts_with(b"access_token=") {
        "it is a form, not the JSON of a token"
    } else if error.to_string().starts_with("duplicate field") {
        "a member is there twice: it is not the JSON of a token"
    } else {
        "it is not the JSON of a token"
    })
}

/// A whole number of seconds. Some endpoints put it in quotes, or write it with a fraction of nothing.
fn seconds(written: &str) -> Result<Duration, Failure> {
    let number = written.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(written);
    let digits = match number.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() && fraction.bytes().all(|b| b == b'0') => whole,
        _ => number,
    };
    match digits.parse() {
        Ok(0) => Err(Failure::MintNonsense("expires_in is 0")),
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => Err(Failure::MintNonsense("expires_in is not a number of seconds")),
    }
}

/// The error codes of RFC 6749 section 5.2, RFC 8693 section 2.2.2 and RFC 8707 section 2.
fn refused(answer: &Answer) -> Failure {
    if answer.status == 429 {
        return Failure::MintBusy("it wants to be asked less often (429)");
    }
    if !matches!(answer.status, 400 | 401 | 403) {
        return Failure::Status(answer.status);
    }
    ErrorAnswer::read(json(&answer.body)).map_or(Failure::Status(answer.status), |(error, _)| named(&error))
}

fn named(error: &str) -> Failure {
    Failure::MintRefused(match error {
        // Those are no word about what was shown (RFC 6749, section 4.1.2.1; RFC 8628, section 3.5).
        "temporarily_unavailable" => return Failure::MintBusy("temporarily_unavailable"),
        "server_error" => return Failure::MintBusy("server_error"),
        "slow_down" => return Failure::MintBusy("slow_down"),
        "invalid_client" => "invalid_client; is the client's secret or key the one that is registered?",
        "invalid_grant" => "invalid_grant; is what was shown expired, or for another audience?",
        "invalid_request" => "invalid_request",
        "invalid_scope" => "invalid_scope",
        "invalid_target" => "invalid_target",
        "unauthorized_client" => "unauthorized_client; the client may not use this grant",
        "unsupported_grant_type" => "unsupported_grant_type",
        "access_denied" => "access_denied",
        _ => "with a code of its own",
    })
}

/// What an endpoint says of its refusal, for operators: its code and description, as far as they are plain text of a length that a
/// person reads, and hold nothing of what was `shown`. Words that are long enough to be some form of that are left out.
pub(super) fn said(answer: &Answer, shown: &[&[u8]]) -> Option<String> {
    let (error, description) = ErrorAnswer::read(json(&answer.body))?;
    let text = description.map_or_else(|| error.to_string(), |description| format!("{error}: {description}"));
    let text: String = text.chars().take(2 * LONGEST_SAID).collect();
    let has = |part: &[u8]| text.as_bytes().windows(part.len()).any(|window| window == part);
    let holds = |secret: &&[u8]| !secret.is_empty() && secret.windows(secret.len().min(SHARED)).any(has);
    if shown.iter().any(holds) {
        return None;
    }
    // RFC 6749, section 5.2: neither quotes nor backslashes, nor what is not ASCII.
    let is_plain = |c: char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
    let plain: String = text.chars().map(|c| if is_plain(c) { c } else { ' ' }).collect();
    let word = |word: &str| if word.len() > LONGEST_WORD { "…".to_owned() } else { word.to_owned() };
    let words: Vec<String> = plain.split_whitespace().map(word).collect();
    Some(words.join(" ").chars().take(LONGEST_SAID).collect())
}

/// <https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app>
fn installed(answer: &Answer) -> Result<(Hidden, Duration), Failure> {
    match answer.status {
        201 => {}
        401 => return Err(Failure::MintRefused("the app's number or private key is not known there")),
        403 => return Err(Failure::MintRefused("the app is suspended or asks too often")),
        404 => return Err(Failure::MintRefused("the app has no such installation")),
        422 => {
            return Err(Failure::MintRefused(
                "the installation has not all of these repositories or permissions",
            ));
        }
        status => return Err(Failure::Status(status)),
    }
    let installed: Installed<'_> =
        serde_json::from_slice(json(&answer.body)).map_err(|error| foreign(answer, &error))?;
    let token = installed.token.ok_or(Failure::MintNonsense("there is no token"))?;
    let ends = installed.expires_at.and_then(|text| text.parse::<Timestamp>().ok());
    let ends = ends.ok_or(Failure::MintNonsense("expires_at is not a time"))?;
    Ok((token, life_until(ends, answer)?))
}

/// How long it is until then, by the clock of the one who says so; ours may differ.
pub(super) fn life_until(ends: Timestamp, answer: &Answer) -> Result<Duration, Failure> {
    let dated = answer.headers.get(DATE).and_then(|date| date.to_str().ok());
    let theirs = dated.and_then(|date| rfc2822::DateTimeParser::new().parse_timestamp(date).ok());
    let now = match theirs {
        Some(theirs) => theirs.as_second(),
        None => i64::try_from(unix_seconds()?).map_err(|_| Failure::Internal)?,
    };
    let life = u64::try_from(ends.as_second().saturating_sub(now)).ok().filter(|life| *life > 0);
    life.map(Duration::from_secs).ok_or(Failure::MintNonsense("what it made is over already"))
}

#[cfg(test)]
mod tests;
