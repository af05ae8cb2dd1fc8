//! What is outside, and how it is reached: destinations after compilation.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::resilience::Resilience;
use super::source_pool::SourcePool;
use crate::dialect::Dialect;
use crate::model::Source;
use crate::name::ResourceId;
use crate::path::EncodedForms;
use crate::pattern::HostPattern;

/// What is outside, and how to reach it.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Its name, which is also its first path segment at the gateway.
    pub name: ResourceId,
    /// The hosts that are this destination; at least one.
    pub hosts: Vec<HostPattern>,
    /// The port that is dialled.
    pub port: u16,
    /// Dialled instead of what DNS says; empty: DNS decides.
    pub addresses: Vec<IpAddr>,
    /// The proxy through which it is reached.
    pub proxy: Option<Arc<Proxy>>,
    /// What the mesh calls it by: a tunnel to one of them leads here. Never dialled.
    pub virtual_addresses: Vec<IpAddr>,
    /// The local addresses that connections leave from.
    pub sources: SourcePool,
    /// Whom the destination's certificate has to be verified by.
    pub tls: TlsVerify,
    /// The credential that is its client certificate; [`crate::policy::Policy::client_certificate`] has it.
    pub client_certificate: Option<ResourceId>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// What is done about trouble there.
    pub resilience: Resilience,
    /// What is spoken there.
    pub protocol: Protocol,
    /// A grant for it permits nothing before it is approved.
    pub demands_approval: bool,
    /// Where it was written.
    pub origin: Source,
}

/// What a destination speaks, with all that only this protocol has.
#[derive(Debug, Clone)]
pub enum Protocol {
    /// HTTP over TLS.
    Http(Arc<HttpDestination>),
    /// Connections, which are passed through.
    Tcp(TcpDestination),
    /// The PostgreSQL protocol over TLS. No listener leads here yet, so none can be written.
    Postgres,
}

/// How HTTP is spoken at a destination.
#[derive(Debug, Clone)]
pub struct HttpDestination {
    /// How usage is read.
    pub dialect: Arc<Dialect>,
    /// From the request's last byte to the answer's first. What the dialect says unless written otherwise, else 60 s.
    pub first_byte: Duration,
    /// From the arrival of a call to the last byte of its answer; `None`: as long as the other times let it.
    pub total: Option<Duration>,
    /// Which HTTP it is spoken to in.
    pub version: HttpVersion,
    /// Path forms that are matched and sent encoded, instead of being refused.
    pub encoded_path: EncodedForms,
    /// Where in an answer a key that was put on the call is looked for.
    pub scrub: Scrub,
}

/// How connections are passed through to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TcpDestination {
    /// Whose TLS the destination sees.
    pub tls: TunnelTls,
    /// How long one of them may last; `None`: as long as it is used.
    pub lifetime: Option<Duration>,
}

/// Whose TLS a destination sees on connections that are passed through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TunnelTls {
    /// Nobody looks: bytes pass as they are.
    Opaque,
    /// The caller's own, whose first message names a host of the destination.
    Callers,
    /// The gateway's, which verifies the destination, around what the caller sends plain.
    Originated(TlsStart),
}

/// How the gateway's TLS begins on a connection that is passed through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsStart {
    /// With the first byte.
    Direct,
    /// After PostgreSQL's request for it (`SSLRequest`, PostgreSQL's documentation, section 55.2.10).
    Postgres,
}

/// Where in an answer a key that was put on the call is looked for, to be masked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Scrub {
    /// In headers and bodies.
    #[default]
    All,
    /// In headers only: bodies pass as they are, in any encoding.
    Headers,
}

/// Which HTTP a destination is spoken to in. It has the last word: HTTP/2 is spoken only where its TLS agrees to that (RFC 7301).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// HTTP/1.1, but for gRPC, which there is over HTTP/2 only.
    #[default]
    Auto,
    /// HTTP/1.1 always.
    Http1,
    /// HTTP/2, where the destination has it.
    Http2,
}

/// Which certificate authorities a destination is verified with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TlsVerify {
    /// Those of the operating system.
    System,
    /// Those in this PEM file and no other; absolute, or relative to the working directory.
    Bundle(PathBuf),
}

/// An HTTP proxy through which a destination is reached, by CONNECT (RFC 9110, section 9.3.6).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Proxy {
    /// In canonical spelling.
    pub host: Arc<str>,
    /// The port that is dialled.
    pub port: u16,
    /// Whom its certificate has to be verified by; `None`: no TLS is spoken to it.
    pub tls: Option<TlsVerify>,
}

/// How long to wait for a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// For the connection, TLS included. 3 s unless written otherwise.
    pub connect: Duration,
    /// Between two bytes of the answer. What the dialect says unless written otherwise, else 300 s. On a connection that is passed through
    /// between two bytes of either side, 1 h unless written otherwise.
    pub idle: Duration,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Destination {
    /// How HTTP is spoken there; `None`: it is not.
    pub fn http(&self) -> Option<&Arc<HttpDestination>> {
        match &self.protocol {
            Protocol::Http(http) => Some(http),
            Protocol::Tcp(_) | Protocol::Postgres => None,
        }
    }

    /// How connections are passed through there; `None`: they are not.
    pub fn tcp(&self) -> Option<TcpDestination> {
        match &self.protocol {
            Protocol::Tcp(tcp) => Some(*tcp),
            Protocol::Http(_) | Protocol::Postgres => None,
        }
    }

    /// Whether the gateway itself speaks TLS to it.
    pub fn is_secured(&self) -> bool {
        self.tcp().is_none_or(|tcp| matches!(tcp.tls, TunnelTls::Originated(_)))
    }

    /// Whether this is one of its hosts; `host` is in canonical spelling.
    pub fn has_host(&self, host: &str) -> bool {
        self.hosts.iter().any(|pattern| pattern.matches(host))
    }

    /// The only host, where there is exactly one and it is exact: what the destination means when it is named by path.
    pub fn only_host(&self) -> Option<&Arc<str>> {
        match self.hosts.as_slice() {
            [HostPattern::Exact(host)] => Some(host),
            _ => None,
        }
    }
}
