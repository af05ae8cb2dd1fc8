//! What a caller's own TLS begins with: which server it is for.
//!
//! **Invariant:** the bytes that are read are the bytes that are passed on. A name that is hidden is none: behind Encrypted ClientHello
//! another server may be meant than the one that is named in the clear.

use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;
use tollgate_policy::denial::{Denial, Reason};

/// For all of it.
const LIMIT: Duration = Duration::from_secs(10);
/// More than any client says: rustls reads no more of one message.
const LARGEST: usize = 64 << 10;
const PIECE: usize = 4 << 10;
/// A record with a handshake message (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 0x16;
/// `encrypted_client_hello` (IANA, TLS ExtensionType Values).
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// A ClientHello, with what came behind it.
#[derive(Debug)]
pub(crate) struct Hello {
    bytes: Vec<u8>,
    server: Box<str>,
}

impl Hello {
    /// Reads on until it is whole.
    ///
    /// # Errors
    /// `tls_expected` where it is none or does not come, `sni_missing` where it does not say for which server it is.
    pub(crate) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Self, Denial> {
        let late = |_| expected("the TLS that has to come here did not begin in time");
        timeout(LIMIT, Self::whole(stream)).await.map_err(late)?
    }

    async fn whole<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Self, Denial> {
        let mut acceptor = Acceptor::default();
        let mut bytes = Vec::with_capacity(PIECE);
        loop {
            let before = bytes.len();
            let room = LARGEST - before;
            let read = (&mut *stream).take(room.min(PIECE) as u64).read_buf(&mut bytes).await;
            if bytes.first().is_some_and(|first| *first != HANDSHAKE) {
                return Err(expected(
                    "what came is no TLS, and nothing else is passed on to this destination",
                ));
            }
            if room == 0 || !matches!(read, Ok(1..)) {
                return Err(expected("the connection ended before the TLS that has to come here had begun"));
            }
            let mut new = bytes.get(before..).unwrap_or_default();
            let unreadable = "what came is no TLS that can be read";
            while !new.is_empty() {
                acceptor.read_tls(&mut new).map_err(|_| expected(unreadable))?;
            }
            let Some(accepted) = acceptor.accept().map_err(|_| expected(unreadable))? else { continue };
            let server = accepted.client_hello().server_name().map(Box::from);
            let missing = "the caller's TLS does not say for which server it is (SNI)";
            let server = server.ok_or_else(|| Denial::new(Reason::SniMissing, missing))?;
            if extensions(&bytes).is_none_or(|all| all.contains(&ENCRYPTED_CLIENT_HELLO)) {
                let hidden = "the caller's TLS hides for which server it is (Encrypted ClientHello)";
                return Err(Denial::new(Reason::SniMissing, hidden));
            }
            return Ok(Self { bytes, server });
        }
    }

    /// The server that it is for, as it is spelt.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Bytes that were read.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// All that was read.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

fn expected(detail: &'static str) -> Denial {
    Denial::new(Reason::TlsExpected, detail)
}

/// The types of a ClientHello's extensions (RFC 8446, sections 4.1.2 and 5.1); `None` where they cannot be told.
fn extensions(records: &[u8]) -> Option<Vec<u16>> {
    let mut message = Vec::new();
    let mut rest = records;
    while let Some((&HANDSHAKE, after)) = rest.split_first() {
        let (_version, after) = after.split_at_checked(2)?;
        let (fragment, after) = vector(after, 2).or_else(|| Some((after.get(2..)?, &[][..])))?;
        message.extend_from_slice(fragment);
        rest = after;
    }
    let (_kind, rest) = message.split_first()?;
    let (hello, _) = vector(rest, 3)?;
    // The version and the random.
    let (_, rest) = hello.split_at_checked(2 + 32)?;
    let (_session, rest) = vector(rest, 1)?;
    let (_suites, rest) = vector(rest, 2)?;
    let (_compression, rest) = vector(rest, 1)?;
    let (mut rest, _) = vector(rest, 2)?;
    let mut kinds = Vec::new();
    while let Some((kind, after)) = rest.split_first_chunk::<2>() {
        kinds.push(u16::from_be_bytes(*kind));
        (_, rest) = vector(after, 2)?;
    }
    Some(kinds)
}

/// What a length of so many bytes is of, and what follows.
fn vector(bytes: &[u8], width: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(width)?;
    let length = length.iter().fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte));
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests;
