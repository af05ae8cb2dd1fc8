//! Where a request to an AWS service names its action.
//!
//! **Invariant:** every place that some service could read is read, and every name in it is one that the request asks for.

use std::sync::Arc;

use percent_encoding::percent_decode;

/// The actions that a query or a form names (`Action=GetUser`).
pub fn actions_of_form(form: &[u8]) -> impl Iterator<Item = Arc<str>> {
    let pairs = form.split(|byte| *byte == b'&');
    pairs.filter_map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        let (name, value) = (decoded(parts.next()?), decoded(parts.next().unwrap_or_default()));
        let is_target = name.eq_ignore_ascii_case("x-amz-target");
        (is_target || name.eq_ignore_ascii_case("action"))
            .then(|| if is_target { action_of_target(&value) } else { value.into() })
    })
}

/// The action that `x-amz-target` names: what follows the service's own name, as in `DynamoDB_20120810.GetItem`.
pub fn action_of_target(target: &str) -> Arc<str> {
    let is_plain = target.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
    // What is no such name stays whole, so that no part of it counts as one.
    let action = target.rsplit('.').next().filter(|_| is_plain);
    action.unwrap_or(target).into()
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
        assert_eq!(found(""), "");
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
