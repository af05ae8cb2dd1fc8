//! The proxy before a destination: one host and port, and nothing beside it that only a direct connection has.

use std::sync::Arc;

use super::Scope;
use super::verify::verified;
use crate::model::{DestinationSpec, ProtocolWord};
use crate::pattern::HostPattern;
use crate::resource::Proxy;

/// `Err`: what was written is no proxy, which is reported.
pub(super) fn proxy(spec: &DestinationSpec, scope: &mut Scope<'_>) -> Result<Option<Arc<Proxy>>, ()> {
    let path = "spec.proxy";
    let Some(written) = &spec.proxy else {
        return if scope.source.claims(path) { Err(()) } else { Ok(None) };
    };
    if scope.app_namespace().is_some() {
        let message = "a proxy is part of the gateway's own network, so only a Destination of its namespace names one: leave this out";
        scope.problem(path, message);
    }
    if spec.addresses.written().is_some() {
        scope.problem("spec.addresses", "the proxy looks the name up: leave `addresses` out, or `proxy`");
    }
    let is_ours = spec.tls.as_ref().is_some_and(|tls| tls.originate.is_some());
    let is_unverified = !is_ours && matches!(spec.protocol, Some(ProtocolWord::Tcp | ProtocolWord::Tls));
    if is_unverified && spec.hosts.values().any(|host| host.is_wildcard()) {
        let message = "the proxy looks names up, and anybody may have one below a wildcard lead to an address of the inside: \
                       list exact hosts, or have the gateway speak TLS (`tls.originate`)";
        scope.problem(path, message);
    }
    if written.verify.is_some() && written.tls != Some(true) {
        scope.problem("spec.proxy.verify", "this goes with `tls: true`");
    }
    let at = "spec.proxy.address";
    let address =
        scope.required(at, written.address.as_deref(), "host and port, as in `proxy.internal.example:3128`");
    let parsed = address.and_then(|address| {
        let parsed = parse(address);
        if parsed.is_none() {
            scope
                .problem(at, format!("`{address}` is no host and port, as in `proxy.internal.example:3128`"));
        }
        parsed
    });
    let tls = match written.tls {
        Some(true) => Some(verified(written.verify.as_ref(), "spec.proxy.verify.caFile", scope).ok_or(())?),
        _ => None,
    };
    let (host, port) = parsed.ok_or(())?;
    Ok(Some(Arc::new(Proxy { host, port, tls })))
}

fn parse(address: &str) -> Option<(Arc<str>, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    match host.parse().ok()? {
        HostPattern::Exact(host) => Some((host, port)),
        _ => None,
    }
}
