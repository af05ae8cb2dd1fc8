//! PROXY protocol, version 2 (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>): who really connected, as a proxy in front of
//! the listener says it, and of Istio's ztunnel also which workload it has verified.
//!
//! **Invariant:** only a listed peer is believed, and it has to say something: a connection without a whole, bounded header ends. Nothing
//! behind the header is read here.

use std::net::SocketAddr;

use ppp::v2::{Addresses, Command, Header, Protocol};
use tokio::io::{AsyncRead, AsyncReadExt};
use tollgate_policy::caller::SpiffeId;

use crate::identity::Refusal;
use crate::settings::ProxyProtocolSettings;

/// What every header begins with: the signature, version and command, family, and the length of the rest (section 2.2).
const FIXED: usize = 16;
const SIGNATURE: &[u8] = ppp::v2::PROTOCOL_PREFIX;
/// A proxy that tells more than this of a connection is none of ours: a SPIFFE id has at most 2048 bytes.
const MOST_BYTES: usize = 4096;
/// What Istio has for the SPIFFE id of the workload (istio/ztunnel, `src/proxy`: `PROXY_PROTOCOL_IDENTITY_TLV`).
const SPIFFE_ID: u8 = 0xD0;

/// What is known of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proxied {
    /// Who really connected.
    pub(super) source: SocketAddr,
    /// Where the connection was to lead.
    pub(super) destination: Option<SocketAddr>,
    /// The workload that the proxy has verified, where it may say one.
    pub(super) workload: Option<SpiffeId>,
}

/// Reads what a proxy says, and not a byte more.
///
/// # Errors
/// `proxy_stranger` for a peer that is not listed; `proxy_header` for one that says nothing that can be understood.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    peer: SocketAddr,
    settings: &ProxyProtocolSettings,
) -> Result<Proxied, Refusal> {
    if !settings.lists(peer.ip()) {
        return Err(Refusal::ProxyStranger);
    }
    let mut header = vec![0; FIXED];
    stream.read_exact(&mut header).await.map_err(|_| Refusal::ProxyHeader)?;
    header.resize(length(&header)?, 0);
    let rest = header.get_mut(FIXED..).unwrap_or_default();
    stream.read_exact(rest).await.map_err(|_| Refusal::ProxyHeader)?;
    parse(&header, peer, settings.spiffe_tlv)
}

/// How long a header is that begins like this.
fn length(fixed: &[u8]) -> Result<usize, Refusal> {
    match fixed {
        [signature @ .., _, _, high, low] if signature == SIGNATURE => {
            Some(FIXED + usize::from(u16::from_be_bytes([*high, *low])))
                .filter(|length| *length <= MOST_BYTES)
        }
        _ => None,
    }
    .ok_or(Refusal::ProxyHeader)
}

/// What a whole header says of a connection from `peer`.
pub(super) fn parse(header: &[u8], peer: SocketAddr, has_workload: bool) -> Result<Proxied, Refusal> {
    let header = Header::try_from(header).map_err(|_| Refusal::ProxyHeader)?;
    let (source, destination) = match (header.command, header.protocol, header.addresses) {
        // Of the proxy's own, as for a health check, and where it does not know (section 2.2).
        (Command::Local, ..) | (Command::Proxy, _, Addresses::Unspecified) => (peer, None),
        (Command::Proxy, Protocol::Stream, Addresses::IPv4(ip)) => (
            SocketAddr::from((ip.source_address, ip.source_port)),
            Some(SocketAddr::from((ip.destination_address, ip.destination_port))),
        ),
        (Command::Proxy, Protocol::Stream, Addresses::IPv6(ip)) => (
            SocketAddr::from((ip.source_address, ip.source_port)),
            Some(SocketAddr::from((ip.destination_address, ip.destination_port))),
        ),
        _ => return Err(Refusal::ProxyHeader),
    };
    let mut workload = None;
    for tlv in header.tlvs() {
        let tlv = tlv.map_err(|_| Refusal::ProxyHeader)?;
        if has_workload && tlv.kind == SPIFFE_ID {
            let id = std::str::from_utf8(&tlv.value).ok().and_then(|text| text.parse().ok());
            let id: SpiffeId = id.ok_or(Refusal::NotSpiffe)?;
            if workload.replace(id).is_some() {
                return Err(Refusal::ProxyHeader);
            }
        }
    }
    if has_workload && (workload.is_none() || header.command == Command::Local) {
        return Err(Refusal::ProxyHeader);
    }
    Ok(Proxied { source, destination, workload })
}

/// Any bytes as a header: what is understood has one source and, only where it may, one workload, and is read as long as it says.
#[cfg(any(test, fuzzing))]
pub fn fuzz(data: &[u8]) {
    let peer = SocketAddr::from(([192, 0, 2, 1], 1234));
    let Some(fixed) = data.get(..FIXED) else { return };
    let Ok(length) = length(fixed) else { return };
    let Some(header) = data.get(..length) else { return };
    assert!(length <= MOST_BYTES && header.starts_with(SIGNATURE));
    let plain = parse(header, peer, false);
    let named = parse(header, peer, true);
    if let Ok(plain) = &plain {
        assert_eq!(plain.workload, None);
    }
    if let Ok(named) = named {
        let id = named.workload.as_ref().map(ToString::to_string).unwrap_or_default();
        assert!(header.windows(id.len()).any(|part| part == id.as_bytes()) && !id.is_empty());
        assert_eq!(plain.map(|plain| plain.source), Ok(named.source));
    }
}

#[cfg(test)]
mod tests;
