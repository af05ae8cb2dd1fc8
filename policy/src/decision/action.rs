//! Where a request to an AWS service names its action.
//!
//! **Invariant:** every place that some service could read is read, and every name in it is one that the request asks for.

use std::sync::Arc;

use percent_encoding::{percent_decode, percent_decode_str};

use crate::denial::{Denial, Reason};

/// No service takes so many at once.
const MOST: usize = 16;
/// As long as a pattern can be; the longest name of AWS has about half of it.
const LONGEST: usize = 128;

/// The actions that a request names, few of them; cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actions(Option<Arc<[Arc<str>]>>);

impl Actions {
    /// Takes what is found, and looks for no more than it takes.
    ///
    /// # Errors
    /// `ambiguous_body` for more than 16, or a name of more than 128 bytes.
    pub fn of(found: impl Iterator<Item = Arc<str>>) -> Result<Self, Denial> {
        let mut named = Vec::new();
        for name in found {
            if named.len() == MOST || name.len() > LONGEST {
                let detail = "the request names more than 16 actions, or one in more than 128 bytes";
                return Err(Denial::new(Reason::AmbiguousBody, detail));
            }
            named.push(name);
        }
        Ok(Self((!named.is_empty()).then(|| named.into())))
    }

    /// Each of them, as often as it is named.
    pub fn as_slice(&self) -> &[Arc<str>] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// The actions that a query or a form names (`Action=GetUser`). Some readers part pairs at `;` too.
pub fn actions_of_form(form: &[u8]) -> impl Iterator<Item = Arc<str>> {
    let pairs = form.split(|byte| matches!(byte, b'&' | b';'));
    pairs.filter_map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        let (name, value) = (parts.next()?, parts.next().unwrap_or_default());
        if is_named(name, "x-amz-target") {
            return Some(action_of_target(&decoded(value)));
        }
        is_named(name, "action").then(|| decoded(value).into())
    })
}

/// The actions that a path names: `/service/S/operation/GetUser`, below any prefix
/// (<https://smithy.io/2.0/additional-specs/protocols/smithy-rpc-v2.html>).
pub fn actions_of_path(path: &str) -> Vec<Arc<str>> {
    let path = percent_decode_str(path).decode_utf8_lossy();
    let segments: Vec<&str> = path.split('/').collect();
    let is = |segment: &str, word: &str| segment.eq_ignore_ascii_case(word);
    let named = segments.windows(4).filter_map(|part| match part {
        [service, _, operation, name] if is(service, "service") && is(operation, "operation") => {
            Some((*name).into())
        }
        _ => None,
    });
    named.collect()
}

/// The action that `x-amz-target` names: what follows the service's own name, as in `DynamoDB_20120810.GetItem`.
pub fn action_of_target(target: &str) -> Arc<str> {
    let is_plain = target.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
    // What is no such name stays whole, so that no part of it counts as one.
    let action = target.rsplit('.').next().filter(|_| is_plain);
    action.unwrap_or(target).into()
}

/// Whether a name that may be escaped is this one, which is in lower case.
fn is_named(text: &[u8], name: &str) -> bool {
    percent_decode(text).map(|byte| byte.to_ascii_lowercase()).eq(name.bytes())
}

/// `+` is a space, as those read it who decode forms.
fn decoded(text: &[u8]) -> String {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_that_a_form_names_is_found_however_it_is_written() {
        let found = |form: &str| actions_of_form(form.as_bytes()).collect::<Vec<_>>().join(",");
        assert_eq!(found("Action=GetUser&Version=2010-05-08"), "GetUser");
        assert_eq!(found("Version=1&Action=GetUser&Action=DeleteUser"), "GetUser,DeleteUser");
        assert_eq!(found("%41ction=Get%55ser&action=+x"), "GetUser, x");
        assert_eq!(found("X-Amz-Target=A_1.GetItem&Action"), "GetItem,");
        assert_eq!(found("Actions=GetUser&xAction=b&a=Action=c"), "");
        assert_eq!(found("Version=1;Action=GetUser;%61ction=DeleteUser"), "GetUser,DeleteUser");
        assert_eq!(found(""), "");
    }

    #[test]
    fn a_path_that_names_an_operation_of_a_service_names_an_action() {
        let found = |path: &str| actions_of_path(path).join(",");
        assert_eq!(found("/service/GraniteServiceVersion20100801/operation/DeleteAlarms"), "DeleteAlarms");
        assert_eq!(found("/v1/Service/S/Operation/DeleteAlarms/"), "DeleteAlarms");
        assert_eq!(found("/service%2FS%2Foperation%2FDeleteAlarms"), "DeleteAlarms");
        assert_eq!(found("/service/A/operation/Get/service/B/operation/Put"), "Get,Put");
        for other in ["/", "/service/S/operation", "/services/S/operation/Get", "/service/operation/Get"] {
            assert!(actions_of_path(other).is_empty(), "{other}");
        }
    }

    #[test]
    fn more_actions_than_any_request_names_or_an_endless_one_are_refused() {
        let named = |form: String| Actions::of(actions_of_form(form.as_bytes()));
        let reason = |form: String| named(form).map_err(|denial| denial.reason);
        assert_eq!(named("action&".repeat(16)).unwrap().as_slice().len(), 16);
        assert_eq!(reason("action&".repeat(17)), Err(Reason::AmbiguousBody));
        assert_eq!(named(format!("Action={}", "a".repeat(128))).unwrap().as_slice().len(), 1);
        assert_eq!(reason(format!("Action={}", "a".repeat(129))), Err(Reason::AmbiguousBody));
        assert_eq!(named(String::new()).unwrap(), Actions::default());
        let mut read = 0;
        let endless = std::iter::repeat_with(|| Arc::from("GetUser")).inspect(|_| read += 1);
        assert!(Actions::of(endless).is_err());
        assert_eq!(read, 17);
    }

    #[test]
    fn of_a_target_only_a_plain_name_counts() {
        for (target, action) in [
            ("DynamoDB_20120810.GetItem", "GetItem"),
            ("AWSSecurityTokenServiceV20110615.AssumeRole", "AssumeRole"),
            ("GetItem", "GetItem"),
            ("A.DeleteTable,A.GetItem", "A.DeleteTable,A.GetItem"),
            ("A.DeleteTable A.GetItem", "A.DeleteTable A.GetItem"),
            ("", ""),
        ] {
            assert_eq!(&*action_of_target(target), action);
        }
    }
}
