//! Which destination is meant, and what is asked of it.

use std::net::IpAddr;
use std::sync::Arc;

use super::{GatewayName, Target, split_authority};
use crate::denial::{Denial, Reason};
use crate::map::Map;
use crate::name::ResourceId;
use crate::operation::{HttpRequest, RequestLine, check_query, known_method};
use crate::path::{self, EncodedForm, EncodedForms, PathError, resolved};
use crate::pattern::{HostPattern, canonical_host};
use crate::resource::{BlockedHosts, Destination, HttpDestination};

/// Destinations by host and by name, and the authorities that are the gateway itself.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    by_name: Map<ResourceId, Arc<Destination>>,
    /// Those of one namespace, which the first segment of a path names by their names alone.
    by_bare_name: Map<Arc<str>, Arc<Destination>>,
    /// By namespace and name: the segment `name.namespace`. Neither has a dot, so no other destination has that segment.
    by_namespace: Map<Arc<str>, Map<Arc<str>, Arc<Destination>>>,
    namespace: Box<str>,
    exact: Map<Arc<str>, Vec<Arc<Destination>>>,
    /// By what follows `*.`.
    wildcard: Map<Arc<str>, Vec<Arc<Destination>>>,
    /// By an address that the mesh has given to it.
    pub(super) by_virtual_address: Map<IpAddr, Vec<Arc<Destination>>>,
    gateway: Vec<GatewayName>,
    blocked: Vec<BlockedHosts>,
}

impl Directory {
    /// No two destinations may claim the same host pattern and port. `namespace` is the one whose destinations paths name by
    /// their bare names.
    pub(crate) fn new<'a>(
        destinations: impl Iterator<Item = &'a Arc<Destination>>,
        gateway: Vec<GatewayName>,
        namespace: &str,
    ) -> Self {
        let mut directory = Self { gateway, namespace: namespace.into(), ..Self::default() };
        for destination in destinations {
            let id = &destination.name;
            if id.namespace() == namespace {
                directory.by_bare_name.insert(id.name().into(), Arc::clone(destination));
            }
            let others = directory.by_namespace.entry(id.namespace().into()).or_default();
            others.insert(id.name().into(), Arc::clone(destination));
            directory.by_name.insert(destination.name.clone(), Arc::clone(destination));
            for address in &destination.virtual_addresses {
                directory
                    .by_virtual_address
                    .entry(address.to_canonical())
                    .or_default()
                    .push(Arc::clone(destination));
            }
            for host in &destination.hosts {
                let (index, host) = match host {
                    HostPattern::Exact(host) => (&mut directory.exact, host),
                    HostPattern::Wildcard(suffix) => (&mut directory.wildcard, suffix),
                };
                index.entry(Arc::clone(host)).or_default().push(Arc::clone(destination));
            }
        }
        directory
    }

    /// Denies what these destinations have, which are not among the others.
    pub(crate) fn block(&mut self, hosts: Vec<BlockedHosts>) {
        self.blocked = hosts;
    }

    pub(crate) fn destination(&self, name: &str) -> Option<&Arc<Destination>> {
        self.by_name.get(name)
    }

    pub(crate) fn resolve(&self, line: &RequestLine<'_>) -> Result<(Target, HttpRequest), Denial> {
        let (host, port) = split_authority(line.authority, |host| self.names(host))?;
        if let Some(query) = line.query {
            check_query(query)?;
        }
        if self.is_gateway(&host, port) {
            return self.resolve_by_path(line);
        }
        let (destinations, host) = self.by_host(&host, port)?;
        let destination = by_port(destinations, port)?;
        let http = speaks_http(destination)?;
        let path = canonical(line.path, http.encoded_path)?;
        Ok((Target { destination: Arc::clone(destination), host }, request(http, line, path, None)))
    }

    /// Where a connection to a host and a port goes: both are meant as they are named.
    pub(crate) fn connection(&self, host: &str, port: u16) -> Result<Target, Denial> {
        let host = canonical_host(host).map_err(|error| {
            Denial::new(Reason::AmbiguousAuthority, format!("the host is malformed: {error}"))
        })?;
        let (destinations, host) = self.by_host(&host, Some(port))?;
        let destination = destinations.iter().find(|destination| destination.port == port);
        let destination = destination.ok_or_else(no_such_port)?;
        Ok(Target { destination: Arc::clone(destination), host })
    }

    /// Whether a host or the gateway itself is spelt exactly so, which is then its canonical spelling.
    fn names(&self, host: &str) -> bool {
        self.gateway.iter().any(|name| *name.host == *host) || self.exact.contains_key(host)
    }

    pub(super) fn is_gateway(&self, host: &str, port: Option<u16>) -> bool {
        let is = |name: &GatewayName| {
            *name.host == *host && name.port.is_none_or(|only| only == port.unwrap_or(443))
        };
        self.gateway.iter().any(is)
    }

    /// The destination that the first segment of a path names.
    fn by_segment(&self, segment: &str) -> Option<&Arc<Destination>> {
        match segment.split_once('.') {
            None => self.by_bare_name.get(segment),
            Some((name, namespace)) => self.by_namespace.get(namespace)?.get(name),
        }
    }

    fn resolve_by_path(&self, line: &RequestLine<'_>) -> Result<(Target, HttpRequest), Denial> {
        let written = line.path.split('/').nth(1).unwrap_or_default();
        let named = self.by_segment(written).and_then(|named| named.http());
        let whole = canonical(line.path, named.map_or(EncodedForms::NONE, |http| http.encoded_path))?;
        let name = whole.split('/').nth(1).unwrap_or_default();
        let destination = self.by_segment(name).ok_or_else(|| {
            let (bare, namespace) = name.split_once('.').unwrap_or((name, &self.namespace));
            let is_named = |id: &ResourceId| id.namespace() == namespace && id.name() == bare;
            let blocked = self.blocked.iter().find(|blocked| is_named(&blocked.destination));
            let unknown = "the first segment of the path names no destination";
            blocked.map_or_else(|| Denial::new(Reason::UnknownHost, unknown), BlockedHosts::denial)
        })?;
        let http = speaks_http(destination)?;
        let host = destination.only_host().ok_or_else(|| {
            let detail = format!(
                "destination {name} has several hosts or a wildcard, so the path cannot say which is meant: call it by its host",
            );
            Denial::new(Reason::UnknownHost, detail)
        })?;
        let (prefix, path) = whole.split_at(name.len() + 1);
        // What leads above this destination's root would lead to another's.
        if http.encoded_path.contains(EncodedForm::DotSegment) && resolved(path).is_none() {
            return Err(Denial::new(Reason::AmbiguousPath, PathError::DotSegment.to_string()));
        }
        let path = if path.is_empty() { "/".into() } else { path.into() };
        let target = Target { destination: Arc::clone(destination), host: Arc::clone(host) };
        Ok((target, request(http, line, path, Some(prefix.into()))))
    }

    /// The destinations that have a host, each at a port of its own. `port` is the one that is asked for.
    pub(super) fn by_host(
        &self,
        host: &str,
        port: Option<u16>,
    ) -> Result<(&[Arc<Destination>], Arc<str>), Denial> {
        if let Some(blocked) = self.blocked_at(host, port) {
            return Err(blocked.denial());
        }
        if let Some((name, destinations)) = self.exact.get_key_value(host) {
            return Ok((destinations, Arc::clone(name)));
        }
        let parent = host.split_once('.').map(|(_, parent)| parent);
        match parent.and_then(|parent| self.wildcard.get(parent)) {
            Some(destinations) => Ok((destinations, host.into())),
            None => Err(Denial::new(Reason::UnknownHost, "no destination has this host")),
        }
    }

    /// The destination that is not in force and has this host, or may have it. Who has exactly this host and port is sure of it: no other
    /// can claim them.
    fn blocked_at(&self, host: &str, port: Option<u16>) -> Option<&BlockedHosts> {
        if self.blocked.is_empty() {
            return None;
        }
        let has_port = |claims: &Vec<Arc<Destination>>| {
            claims.iter().any(|destination| destination.port == port.unwrap_or(443))
        };
        let exact = self.exact.get(host);
        if exact.is_some_and(has_port) {
            return None;
        }
        let parent = host.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        let is_theirs = |pattern: &HostPattern| match pattern {
            HostPattern::Exact(blocked) => **blocked == *host,
            HostPattern::Wildcard(_) => {
                exact.is_none() && !parent.is_some_and(has_port) && pattern.matches(host)
            }
        };
        let may_be = |blocked: &&BlockedHosts| blocked.any_other || blocked.hosts.iter().any(is_theirs);
        self.blocked.iter().find(may_be)
    }
}

fn request(
    destination: &Arc<HttpDestination>,
    line: &RequestLine<'_>,
    path: Arc<str>,
    path_prefix: Option<Box<str>>,
) -> HttpRequest {
    let (method, query) = (known_method(line.method), line.query.map(Box::from));
    HttpRequest { destination: Arc::clone(destination), method, path, query, path_prefix, upgrade: None }
}

fn speaks_http(destination: &Destination) -> Result<&Arc<HttpDestination>, Denial> {
    let detail = "the destination that has this host does not speak HTTP: connections to it are passed through (tcp://HOST:PORT)";
    let other = || Denial::new(Reason::UnknownHost, detail);
    destination.http().ok_or_else(other)
}

pub(super) fn no_such_port() -> Denial {
    Denial::new(Reason::UnknownHost, "no destination has this host with this port")
}

/// The destination that is meant by a port. 80 and 443 are what a client fills in by itself, so they mean the only one there is.
pub(super) fn by_port(
    destinations: &[Arc<Destination>],
    port: Option<u16>,
) -> Result<&Arc<Destination>, Denial> {
    let wanted = port.unwrap_or(443);
    if let Some(destination) = destinations.iter().find(|destination| destination.port == wanted) {
        return Ok(destination);
    }
    match destinations {
        [only] if matches!(wanted, 80 | 443) => Ok(only),
        _ => Err(no_such_port()),
    }
}

fn canonical(written: &str, allowed: EncodedForms) -> Result<Arc<str>, Denial> {
    let written = if written.is_empty() { "/" } else { written };
    match path::canonical(written, allowed) {
        Ok(path) => Ok(path.into()),
        Err(error) => Err(Denial::new(Reason::AmbiguousPath, error.to_string())),
    }
}
