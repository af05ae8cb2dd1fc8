//! The actions of an AWS service that a request names, where a key that signs may be put on it.
//!
//! **Invariant:** a body in which a service looks for an action is read before its grant decides.

use std::sync::Arc;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use tollgate_policy::decision::{action_of_target, actions_of_form};

use crate::identity::{AwsScope, Head, same_name};

/// Those of the headers and the query.
pub(super) fn of_head(head: &Head, query: Option<&str>) -> Vec<Arc<str>> {
    let targets = head.headers.iter().filter(|(name, _)| same_name(name.as_str(), "x-amz-target"));
    let targets = targets.map(|(_, value)| action_of_target(&String::from_utf8_lossy(value.as_bytes())));
    let query = query.map(str::as_bytes).unwrap_or_default();
    targets.chain(actions_of_form(query)).collect()
}

/// Whether the body could be a form that names one. S3 has no actions, and no other service takes what is signed for it.
pub(super) fn may_be_in_body(head: &Head) -> bool {
    !head.aws_scope.as_ref().is_some_and(AwsScope::is_s3) && may_be_form(&head.headers)
}

/// What says nothing of itself, or that it is text, could be one as well.
fn may_be_form(headers: &HeaderMap) -> bool {
    let mut kinds = headers.get_all(CONTENT_TYPE).iter().peekable();
    let is_form = |kind: &[u8]| {
        let essence = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        ["application/x-www-form-urlencoded", "text/plain", ""]
            .iter()
            .any(|form| form.as_bytes().eq_ignore_ascii_case(essence))
    };
    kinds.peek().is_none() || kinds.any(|kind| is_form(kind.as_bytes()))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(headers: &[(&str, &str)]) -> Head {
        let mut request = Request::post("https://sts.example/").header("host", "sts.example");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Head::read(request.body(()).unwrap().into_parts().0).unwrap()
    }

    #[test]
    fn every_place_of_a_head_that_names_an_action_is_read() {
        let named = |headers: &[(&str, &str)], query| {
            let mut named = of_head(&head(headers), query);
            named.sort_unstable();
            named.join(",")
        };
        assert_eq!(named(&[("x-amz-target", "DynamoDB_20120810.GetItem")], Some("Action=B")), "B,GetItem");
        assert_eq!(named(&[("x-amz-target", "A.B"), ("x_amz_target", "C.D")], None), "B,D");
        assert_eq!(named(&[], Some("list-type=2&prefix=Action")), "");
    }

    #[test]
    fn a_body_is_read_for_its_action_unless_it_cannot_name_one() {
        let of = |kind: &[&str], service: &str| {
            let signed =
                format!("AWS4-HMAC-SHA256 Credential=A/20260101/eu-1/{service}/aws4_request, Signature=0");
            let mut headers: Vec<_> = kind.iter().map(|kind| ("content-type", *kind)).collect();
            headers.push(("authorization", &signed));
            may_be_in_body(&head(&headers))
        };
        for kind in ["application/x-www-form-urlencoded; charset=utf-8", "Text/Plain", ""] {
            assert!(of(&[kind], "sts"), "{kind}");
            assert!(!of(&[kind], "s3"), "{kind}");
        }
        assert!(of(&[], "sts") && of(&["application/json", "text/plain"], "sts"));
        assert!(!of(&["application/x-amz-json-1.1"], "dynamodb"));
    }
}
