//! A cluster whose namespaces are `tollgate`, the gateway's own, `shop` and `web`.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use serde_json::{Value, json};
use tollgate_policy::compile::{Compiled, Environment, HomeCluster, compile_each};
use tollgate_policy::consent::{Consents, ReferenceGrant};
use tollgate_policy::decision::Facts;
use tollgate_policy::denial::Reason;
use tollgate_policy::dialect::Catalog;
use tollgate_policy::model::SourceFile;
use tollgate_policy::operation::RequestLine;
use tollgate_policy::policy::Policy;

use crate::{assumed, read};

pub(crate) const GATEWAY: &str = "tollgate";

/// A call: caller, host, path and method.
pub(crate) type Call = (&'static str, &'static str, &'static str, &'static str);

pub(crate) fn resource(kind: &str, (namespace, name): (&str, &str), spec: &Value) -> Value {
    json!({
        "apiVersion": "tollgate.dev/v1alpha1", "kind": kind,
        "metadata": {"namespace": namespace, "name": name}, "spec": spec,
    })
}

/// The namespace `web` has no labels that are known.
pub(crate) fn consents(reference_grants: &[Value]) -> Consents {
    let labels = |team: &str| BTreeMap::from([("team".to_owned(), team.to_owned())]);
    Consents {
        reference_grants: reference_grants.iter().map(|it| ReferenceGrant::read(it).unwrap()).collect(),
        namespaces: [("shop", "shop"), (GATEWAY, "platform")]
            .map(|(namespace, team)| (namespace.parse().unwrap(), labels(team)))
            .into(),
        ..Consents::default()
    }
}

pub(crate) fn compile(resources: &[Value], reference_grants: &[Value]) -> Compiled {
    compile_with(resources, &consents(reference_grants))
}

pub(crate) fn compile_with(resources: &[Value], consents: &Consents) -> Compiled {
    static CATALOG: LazyLock<Arc<Catalog>> = LazyLock::new(read::catalog);
    let environment = Environment {
        catalog: Arc::clone(&CATALOG),
        trust_domains: vec!["prod.acme".parse().unwrap()],
        home: HomeCluster {
            gateway_namespace: GATEWAY.parse().ok(),
            trust_domain: "prod.acme".parse().ok(),
            name: None,
        },
        ..Environment::default()
    };
    let files: Vec<_> = resources.iter().map(|it| SourceFile::object(it.to_string())).collect();
    compile_each(&files, &environment, consents).unwrap()
}

/// The grant that lets the call out, or why none does.
pub(crate) fn decide(policy: &Policy, (caller, authority, path, method): Call) -> Result<String, Reason> {
    let line = RequestLine { authority, method, path, query: None };
    let (target, request) = policy.resolve(&line).map_err(|denial| denial.reason)?;
    let grants = policy.grants_of(&assumed::caller(caller));
    let admission = policy.admit(&grants, target, request.into()).map_err(|denial| denial.reason)?;
    let permit =
        admission.permit(&Facts::default(), Timestamp::UNIX_EPOCH).map_err(|denial| denial.reason)?;
    Ok(permit.grant().name.to_string())
}
