//! What an API server's JSON says of a Secret: <https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/secret-v1/>.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::field;
use crate::error::Failure;
use crate::value::Value;

const FOREIGN: Failure = Failure::Foreign("it is not of the form that an API server's has");

#[derive(Deserialize)]
struct SecretObject<'a> {
    #[serde(borrow)]
    metadata: ObjectMetadata<'a>,
    /// An object of base64; absent where the Secret has no keys.
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectMetadata<'a> {
    #[serde(borrow)]
    resource_version: Cow<'a, str>,
}

/// One line of a watch, of which nothing is taken but whose it is.
#[derive(Deserialize)]
pub(super) struct WatchLine<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    object: WatchedObject<'a>,
}

#[derive(Deserialize)]
struct WatchedObject<'a> {
    #[serde(borrow)]
    metadata: Option<ObjectMetadata<'a>>,
}

impl WatchLine<'_> {
    /// Of a line without its end; `None`: it is none.
    pub(super) fn parse(line: &[u8]) -> Option<WatchLine<'_>> {
        serde_json::from_slice(line).ok()
    }

    /// The version of the object.
    pub(super) fn version(&self) -> Option<&str> {
        self.object.metadata.as_ref().map(|metadata| &*metadata.resource_version)
    }
}

/// The wanted keys of a Secret, decoded, and the version of the object.
pub(super) fn secret(body: &[u8], wanted: &[String]) -> Result<(Value, String), Failure> {
    let SecretObject { metadata, data } = serde_json::from_slice(body).map_err(|_| FOREIGN)?;
    let data = data.ok_or(Failure::FieldMissing)?;
    let value = field::pick(data.get().as_bytes(), wanted)?.decoded()?;
    Ok((value, metadata.resource_version.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &str, wanted: &[&str]) -> Result<(Vec<String>, String), Failure> {
        let body = format!(
            "{{\"kind\": \"Secret\", \"metadata\": {{\"name\": \"a\", \"resourceVersion\": \"17\"}}{data}}}"
        );
        let wanted: Vec<String> = wanted.iter().map(|key| (*key).to_owned()).collect();
        secret(body.as_bytes(), &wanted).map(|(value, version)| (value.texts(), version))
    }

    #[test]
    fn the_named_keys_are_decoded_in_their_order() {
        let data = r#", "data": {"a": "b25l", "b": "dHdvIQ==", "c": ""}"#;
        let two = (vec!["two!".to_owned(), "one".to_owned()], "17".to_owned());
        assert_eq!(read(data, &["b", "a"]), Ok(two));
        assert_eq!(read(data, &["d"]), Err(Failure::FieldMissing));
        assert_eq!(read(r#", "data": {"a": "b25l"}"#, &[]).unwrap().0, ["one"]);
    }

    #[test]
    fn a_secret_without_keys_or_with_nonsense_in_them_has_no_value() {
        assert_eq!(read("", &["a"]), Err(Failure::FieldMissing));
        assert_eq!(read(r#", "data": null"#, &["a"]), Err(Failure::FieldMissing));
        assert_eq!(read(r#", "data": {"a": "b25"}"#, &["a"]), Err(Failure::Malformed("it is no base64")));
        assert_eq!(secret(b"<html>", &[]).err(), Some(FOREIGN));
    }

    #[test]
    fn a_line_of_a_watch_says_whose_it_is() {
        let line = br#"{"type": "MODIFIED", "object": {"kind": "PartialObjectMetadata", "metadata": {"resourceVersion": "18"}}}"#;
        let parsed = WatchLine::parse(line).unwrap();
        assert_eq!((&*parsed.kind, parsed.version()), ("MODIFIED", Some("18")));
        let line = br#"{"type": "ERROR", "object": {"kind": "Status", "metadata": {}, "code": 410}}"#;
        // It has no object's version, and a watch takes what it cannot read for a change.
        assert!(WatchLine::parse(line).is_none());
    }
}
