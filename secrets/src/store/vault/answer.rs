//! What the vault's JSON says: <https://openbao.org/api-docs/secret/kv/kv-v2/#read-secret-version>,
//! <https://openbao.org/api-docs/secret/kv/kv-v1/#read-secret>, <https://openbao.org/api-docs/system/leases/>,
//! <https://openbao.org/api-docs/system/wrapping-lookup/> and <https://openbao.org/api-docs/auth/approle/#login-with-approle>.
//!
//! **Invariant:** answers are parsed in place, from the zeroized buffer they were received in.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::super::{Fetched, field};
use crate::error::Failure;

/// A clock can be set so far ahead; nothing of a vault lives longer.
const LONGEST: u64 = 10 * 365 * 24 * 3600;
const FOREIGN: Failure = Failure::Foreign("it is not of the form that a vault's has");

#[derive(Deserialize)]
struct VaultAnswer<T> {
    data: Option<T>,
}

#[derive(Deserialize)]
struct Kv<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    version: u64,
}

/// The fields of a KV version 2 secret, and the version that was read.
pub(super) fn secret(body: &[u8], wanted: &[String]) -> Result<Fetched, Failure> {
    let answer: VaultAnswer<Kv<'_>> = serde_json::from_slice(body).map_err(|_| FOREIGN)?;
    let kv = answer.data.ok_or(FOREIGN)?;
    let data = kv.data.ok_or(Failure::NotFound)?;
    let value = field::pick(data.get().as_bytes(), wanted)?;
    Ok(Fetched { value, version: Some(kv.metadata.version.to_string().into()), lease: None, expires: None })
}

/// The field of a KV version 1 secret.
pub(super) fn unversioned(body: &[u8], wanted: &[String]) -> Result<Fetched, Failure> {
    let answer: VaultAnswer<&RawValue> = serde_json::from_slice(body).map_err(|_| FOREIGN)?;
    let value = field::pick(answer.data.ok_or(FOREIGN)?.get().as_bytes(), wanted)?;
    Ok(Fetched { value, version: None, lease: None, expires: None })
}

/// What an engine made, or what a renewal of it says.
pub(super) struct Lent {
    /// Empty where it is not leased.
    pub(super) id: Zeroizing<String>,
    pub(super) time: Duration,
    pub(super) renewable: bool,
    /// The object with its fields; `None` from a renewal.
    pub(super) data: Option<Zeroizing<Vec<u8>>>,
}

#[derive(Deserialize)]
struct Leased<'a> {
    lease_id: &'a str,
    lease_duration: u64,
    renewable: bool,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// A dynamic secret, or the renewal of one.
pub(super) fn lent(body: &[u8]) -> Result<Lent, Failure> {
    let Leased { lease_id, lease_duration, renewable, data } =
        serde_json::from_slice(body).map_err(|_| FOREIGN)?;
    Ok(Lent {
        id: Zeroizing::new(lease_id.to_owned()),
        time: seconds(lease_duration),
        renewable,
        data: data.map(|data| Zeroizing::new(data.get().as_bytes().to_vec())),
    })
}

#[derive(Deserialize)]
struct LookedUp {
    ttl: u64,
}

/// The time that a token has left, of a `lookup-self`; `None` where it does not end.
pub(super) fn remaining(body: &[u8]) -> Option<Duration> {
    let answer: VaultAnswer<LookedUp> = serde_json::from_slice(body).ok()?;
    answer.data.map(|data| data.ttl).filter(|ttl| *ttl > 0).map(seconds)
}

#[derive(Deserialize)]
struct Wrapping<'a> {
    creation_path: &'a str,
}

/// Whose answer a wrapping token holds.
pub(super) fn wrapped_path(body: &[u8]) -> Result<&str, Failure> {
    let answer: VaultAnswer<Wrapping<'_>> = serde_json::from_slice(body).map_err(|_| FOREIGN)?;
    Ok(answer.data.ok_or(FOREIGN)?.creation_path)
}

/// The secret id that was unwrapped.
pub(super) fn secret_id(body: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let answer: VaultAnswer<&RawValue> = serde_json::from_slice(body).map_err(|_| FOREIGN)?;
    let wanted = ["secret_id".to_owned()];
    let picked = field::pick(answer.data.ok_or(FOREIGN)?.get().as_bytes(), &wanted).map_err(|_| FOREIGN)?;
    picked.only().ok_or(FOREIGN)
}

/// A login as the vault granted it.
pub(super) struct Grant {
    pub(super) header: HeaderValue,
    /// `None` for a token that does not expire.
    pub(super) ttl: Option<Duration>,
    pub(super) renewable: bool,
}

#[derive(Deserialize)]
struct LoginAnswer<'a> {
    #[serde(borrow)]
    auth: Option<Auth<'a>>,
}

#[derive(Deserialize)]
struct Auth<'a> {
    client_token: &'a str,
    lease_duration: u64,
    renewable: bool,
}

/// The token of a login or a renewal.
pub(super) fn grant(body: &[u8]) -> Result<Grant, Failure> {
    let login: LoginAnswer<'_> = serde_json::from_slice(body).map_err(|_| FOREIGN)?;
    let auth = login.auth.ok_or(FOREIGN)?;
    let ttl = (auth.lease_duration > 0).then(|| seconds(auth.lease_duration));
    let header = header(Zeroizing::new(auth.client_token.as_bytes().to_vec()))?;
    Ok(Grant { header, ttl, renewable: auth.renewable })
}

fn seconds(written: u64) -> Duration {
    Duration::from_secs(written.min(LONGEST))
}

/// A header value that is never printed and whose buffer is zeroized when the last copy is dropped.
pub(super) fn header(token: Zeroizing<Vec<u8>>) -> Result<HeaderValue, Failure> {
    let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(token))
        .map_err(|_| Failure::Login("the token has characters that no token has"))?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_with_its_version() {
        let body = br#"{"request_id": "x", "data": {"data": {"api_key": "sk-1", "n": 1}, "metadata": {"version": 7}}}"#;
        let fetched = secret(body, &["api_key".into()]).unwrap();
        assert_eq!((fetched.value.texts(), fetched.version.as_deref()), (vec!["sk-1".to_owned()], Some("7")));
        assert_eq!(secret(body, &["other".into()]).err(), Some(Failure::FieldMissing));
    }

    #[test]
    fn a_deleted_version_is_not_found_and_a_foreign_answer_is_malformed() {
        let deleted = br#"{"data": {"data": null, "metadata": {"version": 2, "destroyed": false}}}"#;
        assert_eq!(secret(deleted, &[]).err(), Some(Failure::NotFound));
        for body in ["", "<html>", "{}", r#"{"data": {"api_key": "KV version 1"}}"#] {
            assert_eq!(secret(body.as_bytes(), &[]).err(), Some(FOREIGN), "{body}");
        }
    }

    #[test]
    fn a_lease_is_read_with_its_fields_and_a_renewal_without() {
        let body = br#"{"lease_id": "database/creds/r/x", "lease_duration": 60, "renewable": true, "data": {"username": "u", "password": "p"}}"#;
        let made = lent(body).unwrap();
        assert_eq!((made.id.as_str(), made.time.as_secs(), made.renewable), ("database/creds/r/x", 60, true));
        let data = made.data.unwrap();
        assert_eq!(field::pick(&data, &["password".into()]).unwrap().texts(), ["p"]);
        let renewal =
            br#"{"lease_id": "x", "lease_duration": 18446744073709551615, "renewable": true, "data": null}"#;
        let renewal = lent(renewal).unwrap();
        assert!(renewal.data.is_none());
        assert_eq!(renewal.time.as_secs(), LONGEST, "a clock can be set so far ahead");
        assert_eq!(lent(b"{}").err(), Some(FOREIGN));
    }

    #[test]
    fn a_secret_of_version_1_is_read_without_one() {
        let body = br#"{"lease_id": "", "lease_duration": 2764800, "data": {"api_key": "sk-1"}}"#;
        let fetched = unversioned(body, &["api_key".into()]).unwrap();
        assert_eq!((fetched.value.texts(), fetched.version), (vec!["sk-1".to_owned()], None));
    }

    #[test]
    fn a_token_is_a_sensitive_header_and_never_an_invalid_one() {
        let body = br#"{"auth": {"client_token": "s.canary", "lease_duration": 5, "renewable": true}}"#;
        let grant = grant(body).unwrap();
        assert_eq!(grant.ttl, Some(Duration::from_secs(5)));
        assert_eq!(grant.header.as_bytes(), b"s.canary");
        assert_eq!(format!("{:?}", grant.header), "Sensitive");
        assert!(matches!(header(Zeroizing::new(b"a\r\nb".to_vec())), Err(Failure::Login(_))));
    }
}
