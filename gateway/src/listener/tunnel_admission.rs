//! What all tunnels have in common: the leave to open one, how what comes in it begins, and the record of one that is refused.
//!
//! **Invariant:** what was read to tell is read again by whoever serves it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::target::TunnelEnd;

use super::rewind::Rewind;
use crate::caller_occupancy::OccupancySlot;
use crate::core::Core;
use crate::identity::CallerContext;
use crate::ledger::RecordId;
use crate::metering::Account;
use crate::session::HEAD_LIMIT;
use crate::snapshot::Snapshot;

/// For the first bytes in a tunnel.
pub(super) const FIRST_BYTES: Duration = Duration::from_secs(HEAD_LIMIT.unsigned_abs());
/// What a client of HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a TLS client begins with: a handshake record (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    Tls,
    /// What may be HTTP/1.1.
    Http1,
    Http2,
}

/// Reads on until it is known what comes: to the end of its preface where it may be HTTP/2. `None`: it did not begin in time, or failed.
pub(super) async fn begun<S: AsyncRead + Unpin>(stream: &mut Rewind<S>) -> Option<Begun> {
    let bytes = timeout(FIRST_BYTES, first_bytes(stream)).await.ok()?.ok()?;
    let begun = match bytes.first() {
        Some(&TLS_HANDSHAKE) => Begun::Tls,
        _ if bytes == PREFACE => Begun::Http2,
        _ => Begun::Http1,
    };
    stream.put_back(bytes);
    Some(begun)
}

async fn first_bytes(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut begun = Vec::with_capacity(PREFACE.len());
    while begun.len() < PREFACE.len() && PREFACE.starts_with(&begun) {
        let room = PREFACE.len() - begun.len();
        if (&mut *stream).take(room as u64).read_buf(&mut begun).await? == 0 {
            break;
        }
    }
    Ok(begun)
}

/// A place for a tunnel among the connections of its caller: what comes in it is one.
///
/// # Errors
/// `concurrency_limited`.
pub(super) fn place(opener: &CallerContext) -> Result<Arc<OccupancySlot>, Denial> {
    let full = "this workload has too many connections and tunnels at once";
    let place = opener.usage().connection();
    place.map(Arc::new).ok_or_else(|| Denial::new(Reason::ConcurrencyLimited, full))
}

/// Records that a tunnel, or what came in it, was refused: `by` is whoever has asked, `asked` the authority, `end` where it leads, if
/// anywhere.
pub(super) fn refuse(
    core: &Arc<Core>,
    headers: &HeaderMap,
    by: Option<(&CallerContext, &Snapshot)>,
    (asked, end): (&str, Option<&TunnelEnd>),
    denial: &Denial,
) -> RecordId {
    let mut account = Account::open(Arc::clone(core), &Method::CONNECT, headers);
    if let Some((context, snapshot)) = by {
        // It is refused either way.
        let _ = account.identified(context, snapshot);
        account.tunnelled(asked, end);
    }
    account.refuse(denial)
}

/// Ends our half of a tunnel, behind the last answer.
pub(super) async fn end<S: AsyncWrite + Unpin>(mut stream: S) {
    // A peer that is gone has its answer or does not want it.
    let _ = stream.shutdown().await;
}
