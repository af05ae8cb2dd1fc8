//! Variables of the process: only those that a prefix sets apart from what the gateway itself is set up with.

use super::super::Scope;
use crate::model::{EnvSpec, FromSpec};

/// Below [`OURS`], the names that are left to secrets.
const SECRETS: &str = "TOLLGATE_SECRET_";
/// What the gateway's own settings begin with, and what its cloud identity is read from.
const OURS: [&str; 3] = ["TOLLGATE_", "RUST_LOG", "AWS_"];

pub(super) fn prefix(env: &EnvSpec, scope: &mut Scope<'_>) -> Option<String> {
    let path = "spec.env.prefix";
    let what = format!("what the variables that hold secrets begin with, as in `{SECRETS}`");
    let prefix = scope.required(path, env.prefix.clone(), &what)?;
    if prefix.is_empty() || prefix.starts_with(|first: char| first.is_ascii_digit()) || !is_name(&prefix) {
        scope.problem(path, format!("a prefix is letters, digits and `_`, as in `{SECRETS}`"));
    } else if reaches_ours(&prefix) {
        let message = format!(
            "variables that begin so may be the gateway's own settings or its cloud identity: use another prefix, or `{SECRETS}`"
        );
        scope.problem(path, message);
    }
    Some(prefix)
}

pub(super) fn check_path((at, from): (&str, &FromSpec), scope: &mut Scope<'_>) {
    if from.path.as_ref().is_some_and(|path| !is_name(path)) {
        let message = "a path is the rest of the variable's name after the prefix: letters, digits and `_`";
        scope.problem(&format!("{at}.path"), message);
    }
}

fn is_name(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether a variable of the gateway's own can begin like this.
fn reaches_ours(prefix: &str) -> bool {
    let may_be = |ours: &str| prefix.starts_with(ours) || ours.starts_with(prefix);
    OURS.into_iter().any(may_be) && !prefix.starts_with(SECRETS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_prefix_reaches_what_the_gateway_itself_is_set_up_with() {
        for prefix in [
            "T",
            "TOLLGATE",
            "TOLLGATE_",
            "TOLLGATE_S",
            "TOLLGATE_SECRET",
            "TOLLGATE_ADMIN_",
            "A",
            "AWS_",
            "AWS_SECRET_",
        ] {
            assert!(reaches_ours(prefix), "{prefix}");
        }
        for prefix in [SECRETS, "TOLLGATE_SECRET_LLM_", "KEY_", "TOLLKEY_", "AWSKEY_", "t"] {
            assert!(!reaches_ours(prefix), "{prefix}");
        }
    }
}
