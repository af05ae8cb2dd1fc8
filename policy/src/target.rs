//! Where a call goes: the only host and port there is from here on.
//!
//! **Invariant:** matching, DNS, SNI, `Host` and records all read the same `Target`. What two readers could read differently has none.

use std::borrow::Cow;
use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;

use crate::denial::{Denial, Reason};
use crate::pattern::canonical_host;
use crate::resource::Destination;

mod directory;
mod tunnel;

#[cfg(test)]
mod tests;

pub(crate) use directory::Directory;
pub use tunnel::{Passage, TunnelAuthority, TunnelEnd};

/// An authority that is the gateway's own, `host` or `host:port`: under it the first path segment names the destination.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct GatewayName {
    pub(crate) host: Box<str>,
    /// Where only this port is meant.
    pub(crate) port: Option<u16>,
}

impl GatewayName {
    /// Without the port; an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }
}

impl FromStr for GatewayName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) =
            split_authority(text, |_| false).map_err(|denial| format!("`{text}`: {}", denial.detail))?;
        Ok(Self { host: host.into(), port })
    }
}

impl TryFrom<String> for GatewayName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A host of a destination. Made only by a [`Policy`](crate::policy::Policy).
#[derive(Debug, Clone)]
pub struct Target {
    destination: Arc<Destination>,
    host: Arc<str>,
}

impl Target {
    /// The destination that has this host.
    pub fn destination(&self) -> &Arc<Destination> {
        &self.destination
    }

    /// In canonical spelling: lower case, no trailing dot; an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// [`Target::host`], shared.
    pub fn host_shared(&self) -> Arc<str> {
        Arc::clone(&self.host)
    }

    /// The port that is dialled.
    pub fn port(&self) -> u16 {
        self.destination.port
    }
}

/// Cuts `host[:port]` and brings the host into canonical spelling, unless it `is_canonical` as it stands.
pub(crate) fn split_authority(
    authority: &str,
    is_canonical: impl Fn(&str) -> bool,
) -> Result<(Cow<'_, str>, Option<u16>), Denial> {
    let refuse = |detail: &'static str| Denial::new(Reason::AmbiguousAuthority, detail);
    let place = |byte: u8| authority.bytes().position(|other| other == byte);
    // An IPv6 address has colons of its own.
    let after = |bracket: usize| authority.get(bracket..)?.find(':').map(|at| bracket + at);
    let colon = match place(b']') {
        Some(_) => authority.rfind(']').and_then(after),
        None => place(b':'),
    };
    let (host, port) = match colon {
        None => (authority, None),
        Some(at) => {
            let (host, port) = (authority.get(..at), authority.get(at + 1..));
            let digits = port.unwrap_or_default();
            let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
            let port = digits.parse::<u16>().ok().filter(|_| plain);
            let port =
                port.ok_or_else(|| refuse("the port of the authority is not a number from 1 to 65535"))?;
            (host.unwrap_or_default(), Some(port))
        }
    };
    if is_canonical(host) {
        return Ok((Cow::Borrowed(host), port));
    }
    match canonical_host(host) {
        Ok(host) => Ok((host, port)),
        Err(error) => {
            Err(Denial::new(Reason::AmbiguousAuthority, format!("the authority is malformed: {error}")))
        }
    }
}
