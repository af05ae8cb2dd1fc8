//! Destinations: hosts that are claimed once, and values that can be dialled.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::own::{check_allowed, check_destination};
use super::proxy::proxy;
use super::resilience::resilience;
use super::source_pool::unusable;
use super::verify::verified;
use super::{Compiler, Scope};
use crate::dialect::Dialect;
use crate::model::{
    Address, ApprovalWord, DestinationSpec, HttpWord, Interval, OriginateWord, ProtocolWord, Resource,
    ScrubWord, guess,
};
use crate::name::ResourceId;
use crate::pattern::HostPattern;
use crate::resource::{
    Destination, HttpDestination, HttpVersion, Protocol, Scrub, TcpDestination, Timeouts, TlsStart,
    TlsVerify, TunnelTls,
};
use crate::target::GatewayName;

/// What no other protocol has.
const HTTP_FIELDS: [&str; 8] = [
    "spec.dialect",
    "spec.http",
    "spec.timeouts.firstByte",
    "spec.timeouts.total",
    "spec.encodedPath",
    "spec.scrub",
    "spec.circuitBreaker.maxRequests",
    "spec.retries",
];

/// What only connections that are passed through have.
const TCP_FIELDS: [&str; 2] = ["spec.tls.originate", "spec.timeouts.lifetime"];

/// A host that a destination names, with its place in the list.
#[derive(Clone, Copy)]
struct Claim<'a> {
    resource: &'a Resource<DestinationSpec>,
    host: (usize, &'a HostPattern),
}

impl<'a> Compiler<'a> {
    pub(super) fn destinations(&mut self) {
        let mut claimed = BTreeMap::new();
        let all = self.model.destinations.iter();
        let mut claims: Vec<Claim<'a>> = all
            .flat_map(|resource| resource.spec.hosts.iter().map(move |host| Claim { resource, host }))
            .collect();
        let is_apps = |id: &ResourceId| self.namespaces.is_some_and(|it| !it.is_gateways(id.namespace()));
        // Whoever may edit an older object must not take a host by that from who has it.
        claims.sort_by_cached_key(|Claim { resource, host: (_, host) }| {
            let holds = resource.source.holds(host);
            (resource.source.yields() && !holds, is_apps(&resource.id), !holds)
        });
        for claim in claims {
            self.claim_host(claim, &mut claimed);
        }
        self.parts.held_hosts.values_mut().for_each(|hosts| hosts.sort_unstable());
        for resource in &self.model.destinations {
            if let Some(destination) = self.destination(resource) {
                self.parts.destinations.insert(resource.id.clone(), Arc::new(destination));
            }
        }
    }

    fn destination(&mut self, resource: &Resource<DestinationSpec>) -> Option<Destination> {
        let spec = &resource.spec;
        let (protocol, idle) = self.protocol(resource);
        let sources = self.sources(resource);
        let mut scope = Scope::new(resource, self.namespaces, &mut self.problems);
        if !resource.source.is_withheld() {
            scope.at_least_one("spec.hosts", &spec.hosts, "at least one host, as in `[api.example.com]`");
        }
        if spec.port == Some(0) {
            scope.problem("spec.port", "a port is a number from 1 to 65535");
        }
        if spec.protocol == Some(ProtocolWord::Tcp) && !resource.source.claims("spec.port") {
            let message = "required for `protocol: tcp`: nothing but the port says which service is meant, as in `port: 5432`";
            scope.problem("spec.port", message);
        }
        addresses(spec, &mut scope);
        check_allowed(spec.allowed_namespaces.as_ref(), &mut scope);
        check_destination(spec, &mut scope);
        let resilience = resilience(spec, &mut scope);
        let proxy = proxy(spec, &mut scope);
        let timeouts = spec.timeouts.as_ref();
        let tls = verify(spec, &mut scope);
        let written = spec.tls.as_ref().and_then(|tls| tls.client_certificate.as_ref());
        let client_certificate = written.map(|reference| scope.id(reference));
        // One that is written and cannot be read must not become a destination without it.
        if client_certificate.is_none() && resource.source.claims("spec.tls.clientCertificate") {
            return None;
        }
        // It may be another destination than what is left of it: grants are not held against that.
        if !resource.is_whole {
            return None;
        }
        let (tls, protocol, sources, proxy) = (tls?, protocol?, sources?, proxy.ok()?);
        Some(Destination {
            name: resource.id.clone(),
            hosts: spec.hosts.values().cloned().collect(),
            port: spec.port.unwrap_or(443),
            addresses: spec.addresses.values().map(|Address(address)| *address).collect(),
            virtual_addresses: spec.virtual_addresses.values().map(|Address(address)| *address).collect(),
            proxy,
            sources,
            tls,
            client_certificate,
            timeouts: Timeouts {
                connect: time(timeouts.and_then(|written| written.connect), Duration::from_secs(3)),
                idle: time(timeouts.and_then(|written| written.idle), idle),
            },
            resilience,
            protocol,
            demands_approval: spec.approval == Some(ApprovalWord::Required),
            origin: resource.source.clone(),
        })
    }

    /// The protocol with what only it has, and how long a connection may be idle where nothing is written.
    fn protocol(&mut self, resource: &Resource<DestinationSpec>) -> (Option<Protocol>, Duration) {
        let idle = Duration::from_secs(300);
        let word = resource.spec.protocol.unwrap_or(ProtocolWord::Http);
        if word == ProtocolWord::Http {
            let http = self.http(resource);
            for field in TCP_FIELDS.into_iter().filter(|field| resource.source.has(field)) {
                let message = "only connections that are passed through have this, those of `protocol: tcp` and `tls`: leave it out";
                self.problems.push(resource.source.problem(field, message));
            }
            let longer = http.as_ref().and_then(|http| http.dialect.patience().idle);
            return (http.map(Arc::new).map(Protocol::Http), longer.unwrap_or(idle));
        }
        for field in HTTP_FIELDS.into_iter().filter(|field| resource.source.has(field)) {
            let message = "only a destination that speaks HTTP has this: leave it out";
            self.problems.push(resource.source.problem(field, message));
        }
        match word {
            ProtocolWord::Http => (None, idle),
            // As long as Envoy's TCP proxy waits (`idle_timeout`).
            ProtocolWord::Tcp | ProtocolWord::Tls => {
                (Some(Protocol::Tcp(self.tcp(resource, word))), Duration::from_secs(3_600))
            }
            #[cfg(test)]
            ProtocolWord::Postgres => (Some(Protocol::Postgres), idle),
        }
    }

    fn tcp(&mut self, resource: &Resource<DestinationSpec>, word: ProtocolWord) -> TcpDestination {
        let (spec, source) = (&resource.spec, &resource.source);
        let originate = spec.tls.as_ref().and_then(|tls| tls.originate);
        let tls = match (word, originate) {
            (ProtocolWord::Tls, _) => TunnelTls::Callers,
            (_, Some(word)) => TunnelTls::Originated(word.into()),
            (_, None) => TunnelTls::Opaque,
        };
        let is_ours = matches!(tls, TunnelTls::Originated(_)) || source.claims("spec.tls.originate");
        let message = match tls {
            TunnelTls::Callers => {
                "TLS is the caller's own here, who verifies the service and shows what it has: leave this out"
            }
            _ => "bytes pass as they are here: leave this out, or have the gateway speak TLS by `originate`",
        };
        let fields = ["spec.tls.verify", "spec.tls.clientCertificate", "spec.tls.originate"];
        for field in fields.into_iter().filter(|field| source.has(field)) {
            if tls == TunnelTls::Callers || !is_ours {
                self.problems.push(source.problem(field, message));
            }
        }
        TcpDestination {
            tls,
            lifetime: spec.timeouts.as_ref().and_then(|it| it.lifetime).map(|Interval(it)| it),
        }
    }

    fn http(&mut self, resource: &Resource<DestinationSpec>) -> Option<HttpDestination> {
        let spec = &resource.spec;
        let dialect = self.dialect(resource)?;
        if !dialect.is_plain() {
            for (index, form) in spec.encoded_path.iter().filter(|(_, form)| form.is_of_segments()) {
                // What its endpoints cost and who may call them is known by their paths.
                let message = format!(
                    "the dialect `{}` knows its endpoints by their paths, and a provider might read {form} as one of them",
                    dialect.name()
                );
                let path = format!("spec.encodedPath[{index}]");
                self.problems.push(resource.source.problem(&path, message));
            }
        }
        let written = spec.timeouts.as_ref().and_then(|timeouts| timeouts.first_byte);
        let default = dialect.patience().first_byte.unwrap_or(Duration::from_secs(60));
        Some(HttpDestination {
            first_byte: time(written, default),
            total: spec.timeouts.as_ref().and_then(|it| it.total).map(|Interval(it)| it),
            version: spec.http.map_or_else(HttpVersion::default, HttpVersion::from),
            encoded_path: spec.encoded_path.values().copied().collect(),
            scrub: spec.scrub.map_or_else(Scrub::default, Scrub::from),
            dialect,
        })
    }

    fn dialect(&mut self, resource: &Resource<DestinationSpec>) -> Option<Arc<Dialect>> {
        let catalog = &self.environment.catalog;
        let name = resource.spec.dialect.as_deref().unwrap_or("http");
        if let Some(dialect) = catalog.dialect(name) {
            return Some(Arc::clone(dialect));
        }
        let mut known: Vec<&str> = catalog.dialect_names().collect();
        known.sort_unstable();
        let guess = guess(name, known.iter().copied());
        let message = format!("there is no dialect `{name}`{guess} (known: {})", known.join(", "));
        self.problems.push(resource.source.problem("spec.dialect", message));
        None
    }

    /// The namespace that a host belongs to, so far as claims were looked at.
    fn owner(&self, host: &HostPattern) -> Option<&'a str> {
        self.hosts.get(host).or_else(|| self.hosts.get(&host.covering()?)).copied()
    }

    /// Notes that it holds the host. What takes its host from no other holds none but what it held.
    fn hold(&mut self, Claim { resource, host: (_, host) }: Claim<'a>) {
        let is_new = !resource.source.holds(host);
        if self.namespaces.is_none() || (is_new && resource.source.yields()) {
            return;
        }
        let held = self.parts.held_hosts.entry(resource.id.clone()).or_default();
        if !held.contains(host) {
            held.push(host.clone());
        }
    }

    /// The gateway's namespace may name an app's host for a moment. No other app is to have it after that.
    fn keep(&mut self, claim: Claim<'a>) {
        let Claim { resource, host: (_, host) } = claim;
        let (Some(namespaces), Some(owner)) = (self.namespaces, self.owner(host)) else { return };
        if !namespaces.is_gateways(owner) || host.is_wildcard() || !resource.source.holds(host) {
            return;
        }
        let own = resource.id.namespace();
        if *self.kept.entry(host).or_insert(own) == own {
            self.hold(claim);
        }
    }

    /// In a cluster a host belongs to one namespace, at every port: to the gateway's if a Destination of it claims the host, by itself or
    /// by a wildcard, which is that namespace's alone; else to the one whose claim comes first.
    fn may_claim(&mut self, Claim { resource, host: (index, host) }: Claim<'a>) -> bool {
        let Some(namespaces) = self.namespaces else { return true };
        let own = resource.id.namespace();
        let first = self.owner(host);
        let message = match first {
            _ if host.is_wildcard() && !namespaces.is_gateways(own) => {
                format!(
                    "anybody's host may be one of `{host}`, so only a Destination of the gateway's namespace has it: list hosts"
                )
            }
            Some(other) if other != own => {
                let why = match namespaces.is_gateways(other) {
                    true => "the gateway's own, whose claims come before all others",
                    false => "where a Destination has it already",
                };
                format!("`{host}` belongs to the namespace `{other}`, {why}: refer to that one if it agrees")
            }
            _ => {
                self.hosts.entry(host).or_insert(own);
                return true;
            }
        };
        self.unclaimed.insert((&resource.id, index));
        self.problems.push(resource.source.problem(&format!("spec.hosts[{index}]"), message));
        false
    }

    /// Two destinations cannot be told apart at the same host and port, and the gateway's own names are no destination.
    fn claim_host(
        &mut self,
        claim: Claim<'a>,
        claimed: &mut BTreeMap<(HostPattern, Option<u16>), (ResourceId, String)>,
    ) {
        if !self.may_claim(claim) {
            self.keep(claim);
            return;
        }
        let Claim { resource, host: (index, host) } = claim;
        let path = format!("spec.hosts[{index}]");
        let port = resource.spec.port.unwrap_or(443);
        // One that cannot be read may be every one.
        let is_known = resource.spec.port.is_some() || !resource.source.claims("spec.port");
        let at_any = claimed.get(&(host.clone(), None)).cloned();
        let taken = match claimed.entry((host.clone(), is_known.then_some(port))) {
            // Nothing is in force besides.
            _ if !is_known && self.namespaces.is_none() => None,
            Entry::Occupied(first) => Some(first.get().clone()),
            Entry::Vacant(free) => {
                free.insert((resource.id.clone(), resource.source.aside()));
                at_any
            }
        };
        let is_free = taken.is_none();
        if let Some((other, place)) = taken {
            let message = match other == resource.id {
                true => format!("`{host}` is in this list twice"),
                false => format!("`{host}` port {port} is already Destination/{other}{place}"),
            };
            self.problems.push(resource.source.problem(&path, message));
        }
        // Another one of its namespace may have it for a moment, too.
        if is_free || resource.source.holds(host) {
            self.hold(claim);
        }
        let is_own = |own: &GatewayName| matches!(host, HostPattern::Exact(host) if **host == *own.host);
        if self.environment.gateway_names.iter().any(is_own) {
            let message =
                format!("`{host}` is one of the gateway's own names, where paths name the destination");
            self.problems.push(resource.source.problem(&path, message));
        }
    }
}

fn time(written: Option<Interval>, default: Duration) -> Duration {
    written.map_or(default, |Interval(time)| time)
}

fn addresses(spec: &DestinationSpec, scope: &mut Scope<'_>) {
    let written = spec.addresses.iter().map(|(index, address)| (format!("spec.addresses[{index}]"), address));
    if let Some(Address(source)) = spec.source_address
        && let Some(why) = unusable(source)
    {
        scope.problem("spec.sourceAddress", format!("`{source}` {why}"));
    }
    let given = spec.virtual_addresses.iter();
    let given = given.map(|(index, address)| (format!("spec.virtualAddresses[{index}]"), address));
    for (path, Address(address)) in written.chain(given) {
        let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
        if address.is_unspecified() || address.is_multicast() || is_broadcast {
            scope.problem(&path, format!("`{address}` is not the address of one host"));
        }
    }
    let Some(Address(source)) = spec.source_address else { return };
    for (index, Address(address)) in spec.addresses.iter() {
        if address.is_ipv4() != source.is_ipv4() {
            let message = format!(
                "`{address}` cannot be reached from `sourceAddress` {source}: one is IPv4, the other IPv6"
            );
            scope.problem(&format!("spec.addresses[{index}]"), message);
        }
    }
}

fn verify(spec: &DestinationSpec, scope: &mut Scope<'_>) -> Option<TlsVerify> {
    verified(spec.tls.as_ref().and_then(|tls| tls.verify.as_ref()), "spec.tls.verify.caFile", scope)
}

impl From<HttpWord> for HttpVersion {
    fn from(word: HttpWord) -> Self {
        match word {
            HttpWord::Auto => Self::Auto,
            HttpWord::Http1 => Self::Http1,
            HttpWord::Http2 => Self::Http2,
        }
    }
}

impl From<OriginateWord> for TlsStart {
    fn from(word: OriginateWord) -> Self {
        match word {
            OriginateWord::Direct => Self::Direct,
            OriginateWord::Postgres => Self::Postgres,
        }
    }
}

impl From<ScrubWord> for Scrub {
    fn from(word: ScrubWord) -> Self {
        match word {
            ScrubWord::All => Self::All,
            ScrubWord::Headers => Self::Headers,
        }
    }
}
