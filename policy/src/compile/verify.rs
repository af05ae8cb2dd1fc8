//! Which certificate authorities speak for somebody.

use super::Scope;
use crate::model::VerifySpec;
use crate::resource::TlsVerify;

/// `path`: of the file, where one is written.
pub(super) fn verified(written: Option<&VerifySpec>, path: &str, scope: &mut Scope<'_>) -> Option<TlsVerify> {
    match written {
        None | Some(VerifySpec::System) => Some(TlsVerify::System),
        Some(VerifySpec::Bundle(bundle)) => {
            let file = scope.required(path, bundle.ca_file.as_deref(), "a file with certificates in PEM")?;
            if file.is_empty() {
                scope.problem(path, "a file needs a name");
            }
            Some(TlsVerify::Bundle(scope.source.resolve(file)))
        }
    }
}
