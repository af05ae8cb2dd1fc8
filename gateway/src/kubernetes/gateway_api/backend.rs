//! An XBackend as a Destination.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tollgate_policy::name::Name;

use super::condition::Objection;
use super::written::{BackendSpec, BackendTls, BackendValidation};
use super::{GatewayWorld, TranslatedDestination, Written};

/// The Destination that it stands for.
pub(super) fn translate(
    backend: &Written<BackendSpec>,
    world: &GatewayWorld<'_>,
) -> Result<TranslatedDestination, Objection> {
    let written = backend.spec.as_ref().map_err(|error| Objection::new("Invalid", error.clone()))?;
    if world.destinations.contains(&backend.id()) {
        let message = "a Destination of this name is in the namespace already, and it serves";
        return Err(Objection::new("Conflicted", message));
    }
    if let Some(other) = written.others.keys().next() {
        return Err(unsupported(format!("`spec.{other}` is not for hosts outside of the cluster")));
    }
    let host = match (written.kind.as_str(), &written.external_hostname) {
        ("ExternalHostname", Some(external)) => &external.hostname,
        (kind, _) => return Err(unsupported(format!("type `{kind}`: only ExternalHostname leads outside"))),
    };
    let Some(port) = written.port.number.or(written.port.port) else {
        return Err(Objection::new("Invalid", "`spec.port.number` is missing"));
    };
    for (what, name) in [("namespace", &backend.namespace), ("name", &backend.name)] {
        name.parse::<Name>().map_err(|error| {
            Objection::new("Invalid", format!("`metadata.{what}`, of a Destination: {error}"))
        })?;
    }
    let mut spec = Map::new();
    spec.insert("hosts".to_owned(), json!([host]));
    spec.insert("port".to_owned(), json!(port));
    let http = match written.protocol.as_deref() {
        None | Some("HTTP") => "auto",
        Some("HTTP11") => "1",
        Some("HTTP2" | "GRPC") => "2",
        Some(other) => {
            return Err(unsupported(format!("protocol `{other}`: HTTP, HTTP11, HTTP2 and GRPC are spoken")));
        }
    };
    spec.insert("http".to_owned(), json!(http));
    spec.insert("tls".to_owned(), tls(written.tls.as_ref(), host, backend)?);
    if let Some(dialect) = &backend.dialect {
        spec.insert("dialect".to_owned(), json!(dialect));
    }
    let (namespace, name) = backend.id();
    let mut resource = json!({
        "apiVersion": "tollgate.dev/v1alpha1", "kind": "Destination",
        "metadata": {"namespace": namespace, "name": name}, "spec": spec,
    });
    keep_hosts(&mut resource, backend);
    Ok(TranslatedDestination { namespace, name, created: backend.created, resource })
}

/// The Destination that it is not, which nothing of it falls past: since when routes lead to it, and why it is not to be had. Where none
/// leads to it, it takes no host from others. `None`: a Destination of its name is there, or there can be none.
pub(super) fn withheld(
    backend: &Written<BackendSpec>,
    world: &GatewayWorld<'_>,
    (since, because): (Option<Timestamp>, &str),
) -> Option<TranslatedDestination> {
    let (namespace, name) = backend.id();
    if world.destinations.contains(&backend.id())
        || namespace.parse::<Name>().is_err()
        || name.parse::<Name>().is_err()
    {
        return None;
    }
    let because = match &backend.spec {
        Err(unreadable) if backend.is_unreadable => unreadable,
        _ => because,
    };
    let port = backend.spec.as_ref().ok().and_then(|spec| spec.port.number.or(spec.port.port));
    let hosts: Vec<&String> = backend.host.iter().collect();
    let mut resource = json!({
        "apiVersion": "tollgate.dev/v1alpha1", "kind": "Destination",
        "metadata": {"namespace": namespace, "name": name}, "spec": {"hosts": hosts},
        "withheld": {"because": because},
    });
    if let Some(port) = port {
        resource["spec"]["port"] = json!(port);
    }
    if let (true, Some(members)) = (backend.is_unreadable, resource.as_object_mut()) {
        members.remove("spec");
        members.insert("unreadable".to_owned(), json!(because));
    }
    keep_hosts(&mut resource, backend);
    if since.is_none() {
        resource["withheld"]["yields"] = json!(true);
    }
    let created = since.unwrap_or(backend.created);
    Some(TranslatedDestination { namespace, name, created, resource })
}

/// What its status says that it holds it keeps.
fn keep_hosts(resource: &mut Value, backend: &Written<BackendSpec>) {
    if !backend.held_hosts.is_empty() {
        resource["heldHosts"] = json!(backend.held_hosts);
    }
}

fn unsupported(message: impl Into<String>) -> Objection {
    Objection::new("UnsupportedValue", message)
}

/// Always TLS, whose name is the host that is called.
fn tls(written: Option<&BackendTls>, host: &str, backend: &Written<BackendSpec>) -> Result<Value, Objection> {
    let mode = written.map_or("None", |tls| tls.mode.as_str());
    let Some(tls) = written.filter(|_| matches!(mode, "ServerOnly" | "ClientAndServer")) else {
        let message = "`spec.tls.mode` has to be ServerOnly or ClientAndServer: a key is put on no call that others can read";
        return Err(unsupported(message));
    };
    let mut made = Map::new();
    made.insert("verify".to_owned(), json!("system"));
    if let Some(validation) = &tls.validation {
        check(validation, host)?;
    }
    if let Some(shown) = &tls.client_certificate_ref {
        let kind = (shown.group.as_deref().unwrap_or(""), shown.kind.as_deref().unwrap_or("Secret"));
        if kind != ("tollgate.dev", "Credential") {
            let message =
                "`spec.tls.clientCertificateRef` has to name a Credential of the group tollgate.dev";
            return Err(Objection::new("InvalidClientCertificateRef", message));
        }
        let namespace = shown.namespace.as_deref().unwrap_or(&backend.namespace);
        made.insert("clientCertificate".to_owned(), json!(format!("{namespace}/{}", shown.name)));
    }
    Ok(Value::Object(made))
}

fn check(validation: &BackendValidation, host: &str) -> Result<(), Objection> {
    if validation.well_known_ca_certificates.as_deref() != Some("System")
        || !validation.ca_certificate_refs.is_empty()
    {
        let message = "`spec.tls.validation` has to say `wellKnownCACertificates: System`: a Destination names CA files of its own (tls.verify)";
        return Err(Objection::new("InvalidCACertificateRef", message));
    }
    if !validation.hostname.eq_ignore_ascii_case(host) || !validation.subject_alt_names.is_empty() {
        let message =
            "`spec.tls.validation.hostname` has to be the host that is called, and no other names are taken";
        return Err(unsupported(message));
    }
    Ok(())
}
