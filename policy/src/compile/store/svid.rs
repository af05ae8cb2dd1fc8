//! The gateway's own SVIDs: of each kind one, under a fixed path.

use super::super::Scope;
use crate::model::{FromSpec, SvidSpec};
use crate::resource::{StoreKind, Svid};

/// `audiences`: those of tokens for the gateway itself.
pub(super) fn store(
    written: &SvidSpec,
    is_shared: bool,
    audiences: &[String],
    scope: &mut Scope<'_>,
) -> StoreKind {
    if is_shared {
        let message =
            "this says who the gateway is: only credentials of its own namespace may, so leave this out";
        scope.problem("spec.allowedNamespaces", message);
    }
    let is_text = |audience: &String| !audience.trim().is_empty() && !audience.chars().any(char::is_control);
    if written.audience.as_ref().is_some_and(|audience| !is_text(audience)) {
        scope.problem("spec.svid.audience", "this cannot be empty or have control characters");
    }
    if written.audience.as_ref().is_some_and(|audience| audiences.contains(audience)) {
        let message = "tokens for this audience are for the gateway itself: whoever is shown one could call as the gateway";
        scope.problem("spec.svid.audience", message);
    }
    StoreKind::Svid { audience: written.audience.clone() }
}

pub(super) fn check_reference((at, from): (&str, &FromSpec), audience: Option<&str>, scope: &mut Scope<'_>) {
    let Some(path) = from.path.as_deref() else { return };
    let at_path = format!("{at}.path");
    let named: Vec<(String, &String)> = match &from.field {
        Some(field) => vec![(format!("{at}.field"), field)],
        None => from.fields.iter().map(|(index, field)| (format!("{at}.fields[{index}]"), field)).collect(),
    };
    match Svid::at(path) {
        Some(Svid::Jwt) => {
            if audience.is_none() {
                let message = "the store has no JWT-SVIDs: its `svid.audience` says whom they are for";
                scope.problem(&at_path, message);
            }
            for (field, _) in named {
                scope.problem(&field, "a JWT-SVID has no fields: leave this out");
            }
        }
        Some(Svid::X509) => {
            for (field, name) in named.into_iter().filter(|(_, name)| !Svid::FIELDS.contains(&name.as_str()))
            {
                scope.problem(
                    &field,
                    format!("an X.509-SVID has the fields `certificate` and `key`, not `{name}`"),
                );
            }
        }
        None => scope.problem(&at_path, "a path is `jwt` or `x509`, as the kind of SVID"),
    }
}

#[cfg(test)]
mod tests {
    use crate::compile::{Environment, compile_files};
    use crate::dialect::Catalog;
    use crate::model::SourceFile;

    /// What is said of a credential that reads `from` in a store of `svid`.
    fn said(svid: &str, from: &str, inject: &str) -> Vec<String> {
        let text = format!(
            "apiVersion: tollgate.dev/v1alpha1\nkind: Destination\nmetadata: {{name: api}}\nspec: {{hosts: [api.example]}}\n---\n\
             apiVersion: tollgate.dev/v1alpha1\nkind: SecretStore\nmetadata: {{name: own}}\nspec: {{svid: {svid}}}\n---\n\
             apiVersion: tollgate.dev/v1alpha1\nkind: Credential\nmetadata: {{name: key}}\nspec: {{destinations: [api], from: {from}, \
             inject: {inject}}}\n"
        );
        let catalog = "dialect: http\nprovider: http\nplain: true\nendpoints: []\n".to_owned();
        let catalog = Catalog::parse(&[SourceFile { path: "catalog.yaml".into(), text: catalog }]).unwrap();
        let audiences = vec!["tollgate".to_owned()];
        let environment = Environment { catalog: catalog.into(), audiences, ..Environment::default() };
        let files = [SourceFile { path: "a.yaml".into(), text }];
        let problems = compile_files(&files, &environment).err().unwrap_or_default();
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_path_is_the_kind_of_svid_and_a_jwt_needs_an_audience() {
        let jwt = "{store: own, path: jwt}";
        assert_eq!(said("{audience: 'api://exchange'}", jwt, "{bearer: {}}"), [""; 0]);
        let problems = said("{}", jwt, "{bearer: {}}");
        assert!(problems.len() == 1 && problems[0].contains("spec.from.path"), "{problems:?}");
        let problems = said("{audience: a}", "{store: own, path: token}", "{bearer: {}}");
        assert!(problems.len() == 1 && problems[0].contains("`jwt` or `x509`"), "{problems:?}");
        let problems = said("{audience: tollgate}", jwt, "{bearer: {}}");
        assert!(problems.len() == 1 && problems[0].contains("for the gateway itself"), "{problems:?}");
        let problems = said("{audience: ' '}", jwt, "{bearer: {}}");
        assert!(problems.len() == 1 && problems[0].contains("spec.svid.audience"), "{problems:?}");
    }

    #[test]
    fn a_certificate_has_two_fields_and_a_token_has_none() {
        let shown = "{clientCertificate: {certificate: certificate, key: key}}";
        let both = "{store: own, path: x509, fields: [certificate, key]}";
        assert_eq!(said("{}", both, shown), [""; 0]);
        let problems = said("{}", "{store: own, path: x509, field: key}", "{bearer: {}}");
        assert!(problems.len() == 1 && problems[0].contains("spec.inject"), "{problems:?}");
        let problems = said(
            "{}",
            both,
            "[{header: {name: x-key}, field: key}, {header: {name: x-cert}, field: certificate}]",
        );
        assert!(problems.iter().any(|problem| problem.contains("go on no call")), "{problems:?}");
        let problems = said("{}", "{store: own, path: x509, fields: [certificate, bundle]}", shown);
        assert!(problems.iter().any(|problem| problem.contains("spec.from.fields[1]")), "{problems:?}");
        let problems = said("{audience: a}", "{store: own, path: jwt, field: token}", "{bearer: {}}");
        assert!(problems.len() == 1 && problems[0].contains("spec.from.field"), "{problems:?}");
    }
}
