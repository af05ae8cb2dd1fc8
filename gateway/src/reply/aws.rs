//! Refusals as the SDKs of AWS read them, in the protocol that the request itself speaks
//! (<https://smithy.io/2.0/aws/protocols/index.html>).

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use super::form::{RefusalText, json};
use crate::identity::AwsScope;

/// How a service of AWS is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AwsProtocol {
    Json,
    RestJson,
    Query,
    Ec2,
    S3,
    Cbor,
}

impl AwsProtocol {
    /// Of a request that was signed for `scope`.
    pub(super) fn of(scope: &AwsScope, headers: &HeaderMap) -> Self {
        let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
        if scope.is_s3() {
            Self::S3
        } else if headers.get("smithy-protocol").is_some_and(|protocol| protocol == "rpc-v2-cbor") {
            Self::Cbor
        } else if headers.contains_key("x-amz-target") || kind.starts_with(b"application/x-amz-json") {
            Self::Json
        } else if &*scope.service == "ec2" {
            Self::Ec2
        } else if kind.starts_with(b"application/x-www-form-urlencoded") || is_rest_xml(&scope.service) {
            Self::Query
        } else {
            Self::RestJson
        }
    }

    /// The content type and the body.
    pub(super) fn render(self, text: RefusalText<'_>) -> (&'static str, Bytes) {
        let (code, message, id) = (text.denial.reason.as_str(), text.message, text.id);
        match self {
            Self::Json => ("application/x-amz-json-1.1", errors(code, message, id)),
            Self::RestJson => ("application/json", errors(code, message, id)),
            Self::Cbor => ("application/cbor", cbor(&[("__type", code), ("message", message)])),
            Self::S3 => xml(&format!(
                "<Error><Code>{code}</Code><Message>{}</Message><RequestId>{id}</RequestId></Error>",
                escaped(message)
            )),
            Self::Query => {
                let whose = if text.status.is_server_error() { "Receiver" } else { "Sender" };
                xml(&format!(
                    "<ErrorResponse><Error><Type>{whose}</Type><Code>{code}</Code><Message>{}</Message></Error>\
                     <RequestId>{id}</RequestId></ErrorResponse>",
                    escaped(message)
                ))
            }
            Self::Ec2 => xml(&format!(
                "<Response><Errors><Error><Code>{code}</Code><Message>{}</Message></Error></Errors>\
                 <RequestID>{id}</RequestID></Response>",
                escaped(message)
            )),
        }
    }

    /// The header in which its SDKs look for the id of a request.
    pub(super) const fn id_header(self) -> &'static str {
        match self {
            Self::S3 => "x-amz-request-id",
            _ => "x-amzn-requestid",
        }
    }
}

/// What no request of theirs tells; all others of this protocol are signed for as S3.
fn is_rest_xml(service: &str) -> bool {
    ["cloudfront", "route53"].contains(&service)
}

fn errors(code: &str, message: &str, request_id: &str) -> Bytes {
    #[derive(Serialize)]
    struct Form<'a> {
        __type: &'a str,
        message: &'a str,
        reason: &'a str,
        request_id: &'a str,
    }
    json(&Form { __type: code, message, reason: code, request_id })
}

fn xml(root: &str) -> (&'static str, Bytes) {
    ("application/xml", format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{root}").into())
}

/// Text between tags. XML has no place for control characters, escaped or not.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            _ if char.is_control() => escaped.push(' '),
            _ => escaped.push(char),
        }
    }
    escaped
}

/// A map of texts (RFC 8949, section 3.1).
fn cbor(members: &[(&str, &str)]) -> Bytes {
    fn head(to: &mut Vec<u8>, kind: u8, count: usize) {
        match u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes() {
            [0, 0, 0, low] if low < 24 => to.push(kind | low),
            [0, 0, 0, low] => to.extend([kind | 24, low]),
            [0, 0, high, low] => to.extend([kind | 25, high, low]),
            bytes => {
                to.push(kind | 26);
                to.extend(bytes);
            }
        }
    }
    let mut bytes = Vec::new();
    head(&mut bytes, 0xa0, members.len());
    for text in members.iter().flat_map(|(name, value)| [name, value]) {
        head(&mut bytes, 0x60, text.len());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_told_by_the_request() {
        let of = |service: &str, headers: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, value.parse().unwrap());
            }
            AwsProtocol::of(&AwsScope { region: "eu-1".into(), service: service.into() }, &map)
        };
        const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");
        assert_eq!(of("s3", &[]), AwsProtocol::S3);
        assert_eq!(of("dynamodb", &[("x-amz-target", "DynamoDB_20120810.GetItem")]), AwsProtocol::Json);
        assert_eq!(of("sqs", &[("content-type", "application/x-amz-json-1.0")]), AwsProtocol::Json);
        assert_eq!(of("sts", &[FORM]), AwsProtocol::Query);
        assert_eq!(of("ec2", &[FORM]), AwsProtocol::Ec2);
        assert_eq!(of("route53", &[]), AwsProtocol::Query);
        assert_eq!(of("bedrock", &[("content-type", "application/json")]), AwsProtocol::RestJson);
        assert_eq!(of("monitoring", &[("smithy-protocol", "rpc-v2-cbor")]), AwsProtocol::Cbor);
    }

    #[test]
    fn what_is_no_text_of_xml_is_escaped_or_left_out() {
        assert_eq!(escaped("a<b> & \"c\"\u{1b}[2J\0é"), "a&lt;b&gt; &amp; \"c\" [2J é");
    }

    #[test]
    fn cbor_tells_the_length_of_what_follows() {
        assert_eq!(&cbor(&[("a", "bc")])[..], b"\xa1\x61a\x62bc");
        let long = "x".repeat(300);
        let bytes = cbor(&[("a", &long[..100]), ("b", &long)]);
        assert_eq!((bytes[0], &bytes[3..5]), (0xa2, &b"\x78\x64"[..]));
        assert_eq!(&bytes[107..110], b"\x79\x01\x2c");
        assert_eq!(bytes.len(), 110 + 300);
    }
}
