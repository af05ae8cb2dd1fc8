//! Which HTTP a connection offers.

use std::sync::Arc;

use rustls::ClientConfig;
use tollgate_policy::policy::HttpVersion;

/// What a connection offers in ALPN (RFC 7301), and so which calls may share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AlpnOffer {
    /// HTTP/1.1 alone: one call at a time is on a connection, and what is wrong with one is wrong with one call.
    Http1,
    /// HTTP/2, or HTTP/1.1 where the other side has no other.
    Http2,
    /// HTTP/2 alone: gRPC needs it.
    Grpc,
    /// Nothing: what is spoken is not ours to know.
    Nothing,
}

impl AlpnOffer {
    /// What is offered for a call to a destination that says `version`.
    pub(crate) const fn of(version: HttpVersion, is_grpc: bool) -> Self {
        match (version, is_grpc) {
            (HttpVersion::Http1, _) | (HttpVersion::Auto, false) => Self::Http1,
            (HttpVersion::Http2, false) => Self::Http2,
            (HttpVersion::Auto | HttpVersion::Http2, true) => Self::Grpc,
        }
    }

    /// The protocol ids, in order of preference.
    pub(super) fn alpn(self) -> Vec<Vec<u8>> {
        let ids: &[&[u8]] = match self {
            Self::Http1 => &[b"http/1.1"],
            Self::Http2 => &[b"h2", b"http/1.1"],
            Self::Grpc => &[b"h2"],
            Self::Nothing => &[],
        };
        ids.iter().map(|id| id.to_vec()).collect()
    }

    /// `config`, offering this. Sessions are shared by all.
    pub(super) fn config(self, config: Arc<ClientConfig>) -> Arc<ClientConfig> {
        if self == Self::Http1 {
            return config;
        }
        let mut config = (*config).clone();
        config.alpn_protocols = self.alpn();
        Arc::new(config)
    }
}
