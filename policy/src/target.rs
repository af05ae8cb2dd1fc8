//! Where a request goes: the only host, port and path there is from here on.
//!
//! **Invariant:** matching, DNS, SNI, `Host` and records all read the same `Target`, and the bytes that are matched are the bytes that
//! are sent. What two readers could read differently has no target.

use std::borrow::Cow;
use std::str::FromStr;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use serde::Deserialize;

use crate::denial::{Denial, Reason};
use crate::pattern::canonical_host;
use crate::resource::Destination;

mod directory;

#[cfg(test)]
mod tests;

pub(crate) use directory::Directory;

/// How a destination is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP over TLS: there is no other way out.
    Https,
}

/// What a request says of where it wants to go, untouched.
#[derive(Debug, Clone, Copy)]
pub struct RequestLine<'a> {
    /// `host[:port]`, on which `:authority`, `Host` and an absolute-form target already agree.
    pub authority: &'a str,
    /// Undecoded; empty means `/`.
    pub path: &'a str,
    /// Without the question mark.
    pub query: Option<&'a str>,
}

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

/// A resolved request line. Made only by [`crate::policy::Policy::target`].
#[derive(Debug, Clone)]
pub struct Target {
    destination: Arc<Destination>,
    host: Arc<str>,
    path: Box<str>,
    query: Option<Box<str>>,
    by_path: Option<Box<str>>,
}

impl Scheme {
    /// The scheme of a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
        }
    }
}

impl Target {
    /// [`Target::host`], shared.
    pub fn host_shared(&self) -> Arc<str> {
        Arc::clone(&self.host)
    }

    /// The destination that has this host.
    pub fn destination(&self) -> &Arc<Destination> {
        &self.destination
    }

    /// How it is spoken to.
    pub fn scheme(&self) -> Scheme {
        Scheme::Https
    }

    /// In canonical spelling: lower case, no trailing dot; an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port that is dialled.
    pub fn port(&self) -> u16 {
        self.destination.port
    }

    /// In canonical form, beginning with `/`, as it is matched and sent.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// As it is sent, without the question mark: visible ASCII, no `#`.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// `/openai` where the destination was named by the first path segment: what a `Location` on its host gets prepended.
    pub fn path_prefix(&self) -> Option<&str> {
        self.by_path.as_deref()
    }
}

/// Cuts `host[:port]` and brings the host into canonical spelling, unless it `is_canonical` as it stands.
pub(crate) fn split_authority(
    authority: &str,
    is_canonical: impl Fn(&str) -> bool,
) -> Result<(Cow<'_, str>, Option<u16>), Denial> {
    let refuse = |detail: &'static str| Denial::new(Reason::AmbiguousAuthority, detail);
    let colon = match authority.rfind(']') {
        Some(bracket) => authority.get(bracket..).and_then(|rest| rest.find(':')).map(|at| bracket + at),
        None => authority.find(':'),
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

/// Query parameters that some frameworks take the method from, in lower case and with `_` for `-`.
const METHOD_OVERRIDES: [&str; 5] =
    ["_method", "$httpmethod", "x_http_method", "x_http_method_override", "x_method_override"];

/// Refuses a query that names another method than the one that is decided on.
pub(crate) fn check_method(query: &str, method: &str) -> Result<(), Denial> {
    let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
    let names_another = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(name).to_ascii_lowercase().replace('-', "_");
        METHOD_OVERRIDES.contains(&name.as_str()) && !decoded(value).eq_ignore_ascii_case(method)
    };
    if !query.split(['&', ';']).any(names_another) {
        return Ok(());
    }
    let detail = "the query names another method than the request has, and some servers would take that one";
    Err(Denial::new(Reason::BadRequest, detail))
}

/// A query is passed on as it is, so it has to be something that every reader cuts off at the same place.
pub(crate) fn check_query(query: &str) -> Result<(), Denial> {
    if query.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Ok(());
    }
    Err(Denial::new(
        Reason::BadRequest,
        "the query has a space, a control character, `#` or a character outside ASCII",
    ))
}
