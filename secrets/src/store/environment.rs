//! Variables of the process's own environment, for machines that have nothing better.
//!
//! **Invariant:** only variables whose names begin with the store's prefix are read, and the policy accepts no prefix
//! that a setting of the gateway could begin with.
//!
//! Deliberately lacks: taking a variable out once it was read. A process that has threads cannot do that without
//! `unsafe`, and what started it would still show it.

use std::env;
use std::os::unix::ffi::OsStringExt;

use zeroize::Zeroizing;

use super::{Fetched, field};
use crate::error::Failure;
use crate::reference::Reference;

pub(super) struct Variables {
    prefix: String,
}

impl Variables {
    pub(super) const fn new(prefix: String) -> Self {
        Self { prefix }
    }

    /// The whole variable, or the named member of the JSON object that it holds.
    pub(super) fn fetch(&self, reference: &Reference) -> Result<Fetched, Failure> {
        let path = &reference.secret.path;
        if !path.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(Failure::PathRefused("it is not the rest of a variable's name"));
        }
        let value = env::var_os(format!("{}{path}", self.prefix)).ok_or(Failure::NotFound)?;
        let value = Zeroizing::new(value.into_vec());
        let value = field::of(value, &reference.secret.fields)?;
        Ok(Fetched { value, version: None, lease: None, expires: None })
    }
}

#[cfg(test)]
mod tests {
    use tollgate_policy::policy::StoreKind;

    use super::*;
    use crate::reference::tests::reference_to;

    /// Cargo sets `CARGO_PKG_NAME` for every test.
    fn fetched(prefix: &str, path: &str, field: Option<&str>) -> Result<String, Failure> {
        let reference = reference_to(StoreKind::Env { prefix: prefix.into() }, path, field);
        let fetched = Variables::new(prefix.into()).fetch(&reference)?;
        Ok(fetched.value.texts().concat())
    }

    #[test]
    fn a_variable_is_read_below_its_prefix_alone() {
        assert_eq!(fetched("CARGO_PKG_", "NAME", None), Ok("tollgate-secrets".into()));
        assert_eq!(fetched("CARGO_PKG_", "CARGO_PKG_NAME", None), Err(Failure::NotFound));
        assert_eq!(fetched("CARGO_PKG_NAME_", "", None), Err(Failure::NotFound));
        assert!(matches!(fetched("CARGO_PKG_", "../NAME", None), Err(Failure::PathRefused(_))));
        assert!(matches!(fetched("CARGO_PKG_", "NAME=x", None), Err(Failure::PathRefused(_))));
    }

    #[test]
    fn a_field_is_taken_from_json_only() {
        assert!(matches!(fetched("CARGO_PKG_", "NAME", Some("k")), Err(Failure::Malformed(_))));
    }
}
