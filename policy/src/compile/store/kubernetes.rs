//! Kubernetes Secrets: those of the namespace that the store is in, and no others.

use super::super::Scope;
use crate::model::FromSpec;
use crate::resource::StoreKind;

/// A store of a namespace, which only objects of a cluster are in.
pub(super) fn store(scope: &mut Scope<'_>) -> Option<StoreKind> {
    if scope.source.is_object() {
        return Some(StoreKind::Kubernetes);
    }
    let message =
        "only a store that is an object of a cluster is in a namespace of it: this one is in a file";
    scope.problem("spec.kubernetes", message);
    None
}

pub(super) fn check_name((at, from): (&str, &FromSpec), scope: &mut Scope<'_>) {
    if from.path.as_ref().is_some_and(|name| !is_name(name)) {
        let message = "a path is the name of a Secret in the store's own namespace, as in `openai-key`";
        scope.problem(&format!("{at}.path"), message);
    }
}

/// A DNS subdomain (RFC 1123), as names of Secrets are.
fn is_name(name: &str) -> bool {
    let is_plain = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        inner && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_plain)
}

#[cfg(test)]
mod tests {
    use crate::compile::{Environment, compile_each};
    use crate::consent::Consents;
    use crate::dialect::Catalog;
    use crate::model::SourceFile;

    /// What is said of a credential in a store of `shop`, by field and message.
    fn problems(from: &str) -> Vec<String> {
        let object = |kind: &str, name: &str, spec: &str| {
            let metadata = format!("{{\"namespace\": \"shop\", \"name\": \"{name}\"}}");
            SourceFile::object(format!(
                "{{\"apiVersion\": \"tollgate.dev/v1alpha1\", \"kind\": \"{kind}\", \"metadata\": {metadata}, \"spec\": {spec}}}"
            ))
        };
        let objects = [
            object("Destination", "api", r#"{"hosts": ["api.example"]}"#),
            object("SecretStore", "keys", r#"{"kubernetes": {}}"#),
            object(
                "Credential",
                "key",
                &format!(
                    "{{\"destinations\": [\"api\"], \"from\": {from}, \"inject\": {{\"bearer\": {{}}}}}}"
                ),
            ),
        ];
        let catalog = "dialect: http\nprovider: http\nplain: true\nendpoints: []\n".to_owned();
        let file = SourceFile { path: "catalog.yaml".into(), text: catalog };
        let catalog = Catalog::parse(&[file]);
        let environment = Environment { catalog: catalog.unwrap().into(), ..Environment::default() };
        let compiled = compile_each(&objects, &environment, &Consents::default()).unwrap();
        compiled.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_secret_is_named_by_its_name_and_its_key() {
        assert_eq!(problems(r#"{"store": "keys", "path": "openai.v2", "field": "api_key"}"#), [""; 0]);
        for path in ["../other/openai", "other/openai", "OpenAI", "a..b", "-a", "a?watch=true"] {
            let said = problems(&format!("{{\"store\": \"keys\", \"path\": \"{path}\", \"field\": \"a\"}}"));
            assert!(said.iter().any(|problem| problem.contains("spec.from.path")), "{path}: {said:?}");
        }
        let said = problems(r#"{"store": "keys", "path": "openai"}"#);
        assert!(said.len() == 1 && said[0].contains("spec.from.field"), "{said:?}");
    }
}
