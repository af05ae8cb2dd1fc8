//! The actions of an AWS service that a request names, where a key that signs may be put on it.
//!
//! **Invariant:** a body in which a service looks for an action is read before its grant decides, as that service reads it, or refused.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use tollgate_policy::decision::{Actions, Admission, action_of_target, actions_of_form, actions_of_path};
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::policy::SigV4;

use super::facts;
use crate::identity::{RequestHead, same_name};

/// The longest form that is read: the largest message of SNS is 256 KiB, before each byte of it is escaped in three.
pub(super) const FORM_BYTES: usize = 1 << 20;

/// A request that names actions, if it does, and what of it says where.
#[derive(Clone, Copy)]
pub(super) struct SignedAction<'a> {
    head: &'a RequestHead,
    path: &'a str,
    query: &'a str,
    /// S3 has no actions, and no other service takes what is signed for it.
    is_for_s3: bool,
}

impl<'a> SignedAction<'a> {
    /// `None` where no grant that may decide has a key that signs for AWS.
    pub(super) fn of(admission: &'a Admission, head: &'a RequestHead) -> Option<Self> {
        admission.aws_keys().next()?;
        // What names no service is signed for the only one that its key has.
        let is_for_s3 = match &head.aws_scope {
            Some(scope) => scope.is_s3(),
            None => admission.aws_keys().all(SigV4::is_for_s3),
        };
        let request = admission.http()?;
        Some(Self { head, path: request.path(), query: request.query().unwrap_or_default(), is_for_s3 })
    }

    /// Those of the head, and of `form` where [`SignedAction::may_be_in_body`].
    ///
    /// # Errors
    /// `ambiguous_body` for more than a service takes.
    pub(super) fn named(self, form: &[u8]) -> Result<Actions, Denial> {
        let headers = self.head.headers.iter().filter(|(name, _)| same_name(name.as_str(), "x-amz-target"));
        let targets = headers.map(|(_, value)| action_of_target(&String::from_utf8_lossy(value.as_bytes())));
        let path = if self.is_for_s3 { Vec::new() } else { actions_of_path(self.path) };
        let forms = actions_of_form(self.query.as_bytes()).chain(actions_of_form(form));
        Actions::of(targets.chain(path).chain(forms))
    }

    /// Whether the body could be a form that names one.
    pub(super) fn may_be_in_body(self) -> bool {
        !self.is_for_s3 && may_be_form(&self.head.headers)
    }
}

/// Refuses a form that a service could read in another way than it is read here.
///
/// # Errors
/// `unsupported_encoding`, `unsupported_media_type`.
pub(super) fn check_form(headers: &HeaderMap) -> Result<(), Denial> {
    facts::check_encoding(headers)?;
    let kinds = headers.get_all(CONTENT_TYPE).iter();
    if kinds.into_iter().all(|kind| is_in_ascii(kind.as_bytes())) {
        return Ok(());
    }
    let detail = "the body may name an action: its charset must be utf-8, us-ascii or iso-8859-1";
    Err(Denial::new(Reason::UnsupportedMediaType, detail))
}

/// Whether letters are in every charset that is named what they are in ASCII.
fn is_in_ascii(kind: &[u8]) -> bool {
    let parameters = kind.split(|byte| *byte == b';').skip(1);
    let charset = |parameter: &[u8]| -> bool {
        let mut parts = parameter.splitn(2, |byte| *byte == b'=').map(<[u8]>::trim_ascii);
        if !parts.next().is_some_and(|name| name.eq_ignore_ascii_case(b"charset")) {
            return true;
        }
        let value = parts.next().unwrap_or_default();
        let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        ["utf-8", "utf8", "us-ascii", "iso-8859-1"]
            .iter()
            .any(|known| known.as_bytes().eq_ignore_ascii_case(value))
    };
    parameters.into_iter().all(charset)
}

pub(super) fn too_long() -> Denial {
    let detail = "the body may name an action, and of one that does 1 MiB is read: a body that is no form \
                  has to say so in content-type";
    Denial::new(Reason::BodyTooLarge, detail)
}

/// What says nothing of itself or that it is text could be one as well, and so could what names no one type.
fn may_be_form(headers: &HeaderMap) -> bool {
    let mut kinds = headers.get_all(CONTENT_TYPE).iter().peekable();
    let is_form = |kind: &[u8]| {
        let essence = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(b);
        let is_word = |part: &[u8]| !part.is_empty() && part.iter().all(is_token);
        let mut parts = essence.splitn(2, |byte| *byte == b'/');
        let names_one = parts.next().is_some_and(is_word) && parts.next().is_some_and(is_word);
        let forms = ["application/x-www-form-urlencoded", "text/plain"];
        !names_one || forms.iter().any(|form| form.as_bytes().eq_ignore_ascii_case(essence))
    };
    kinds.peek().is_none() || kinds.any(|kind| is_form(kind.as_bytes()))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::identity::ShownTo;

    fn head(headers: &[(&str, &str)]) -> Box<RequestHead> {
        let mut request = Request::post("https://sts.example/").header("host", "sts.example");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        RequestHead::read(request.body(()).unwrap().into_parts().0, 64 << 10, ShownTo::Server).unwrap()
    }

    fn signed(head: &RequestHead) -> SignedAction<'_> {
        SignedAction { head, path: "/", query: "", is_for_s3: false }
    }

    #[test]
    fn every_place_that_names_an_action_is_read() {
        let named = |headers: &[(&str, &str)], path, query, is_for_s3, form: &str| {
            let head = head(headers);
            let named =
                SignedAction { path, query, is_for_s3, ..signed(&head) }.named(form.as_bytes()).unwrap();
            let mut named = named.as_slice().to_vec();
            named.sort_unstable();
            named.join(",")
        };
        assert_eq!(
            named(&[("x-amz-target", "D_1.A")], "/service/S/operation/B", "Action=C", false, "Action=D"),
            "A,B,C,D"
        );
        assert_eq!(named(&[("x-amz-target", "A.B"), ("x_amz_target", "C.D")], "/", "", false, ""), "B,D");
        assert_eq!(named(&[], "/bucket/service/S/operation/B", "list-type=2&prefix=Action", true, ""), "");
    }

    #[test]
    fn more_actions_than_are_read_are_refused_wherever_they_stand() {
        let head = head(&[("x-amz-target", "A.B")]);
        let (eight, seven) = ("action&".repeat(8), "action&".repeat(7));
        let signed = SignedAction { query: &eight, ..signed(&head) };
        assert_eq!(signed.named(seven.as_bytes()).unwrap().as_slice().len(), 16);
        let refused = signed.named(eight.as_bytes()).unwrap_err();
        assert_eq!(refused.reason, Reason::AmbiguousBody);
    }

    #[test]
    fn a_body_is_read_for_its_action_unless_it_cannot_name_one() {
        let of = |kinds: &[&str], is_for_s3| {
            let headers: Vec<_> = kinds.iter().map(|kind| ("content-type", *kind)).collect();
            let head = head(&headers);
            SignedAction { is_for_s3, ..signed(&head) }.may_be_in_body()
        };
        for kind in [
            "application/x-www-form-urlencoded; charset=utf-8",
            "Text/Plain",
            "",
            "application/json,application/x-www-form-urlencoded",
            "application/x-www-form-urlencoded charset=utf-8",
            "json",
            "application/json/x",
        ] {
            assert!(of(&[kind], false), "{kind}");
            assert!(!of(&[kind], true), "{kind}");
        }
        assert!(of(&[], false) && of(&["application/json", "text/plain"], false));
        for kind in ["application/x-amz-json-1.1", "application/cbor", "application/problem+json;a=\"b/c\""] {
            assert!(!of(&[kind], false), "{kind}");
        }
    }

    #[test]
    fn a_form_that_its_service_may_read_in_another_way_is_refused() {
        let checked =
            |headers: &[(&str, &str)]| check_form(&head(headers).headers).map_err(|denial| denial.reason);
        const FORM: &str = "application/x-www-form-urlencoded";
        for encoding in ["gzip", "aws-chunked", "identity, gzip", "", "x"] {
            let headers = [("content-type", FORM), ("content-encoding", encoding)];
            assert_eq!(checked(&headers), Err(Reason::UnsupportedEncoding), "{encoding}");
        }
        assert_eq!(
            checked(&[("content-encoding", "identity"), ("content-encoding", "br")]),
            Err(Reason::UnsupportedEncoding)
        );
        for charset in ["utf-16", "ibm037", "\"cp037\"", "utf-8; charset=utf-7", ""] {
            let kind = format!("{FORM}; charset={charset}");
            assert_eq!(checked(&[("content-type", &kind)]), Err(Reason::UnsupportedMediaType), "{charset}");
        }
        for headers in [
            &[][..],
            &[("content-encoding", "Identity")],
            &[("content-type", "application/x-www-form-urlencoded; Charset=\"UTF-8\"")],
            &[("content-type", "text/plain;charset=us-ascii; format=flowed")],
        ] {
            assert_eq!(checked(headers), Ok(()), "{headers:?}");
        }
    }
}
