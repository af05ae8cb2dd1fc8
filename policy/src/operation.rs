//! What is asked of a target: an HTTP request, or a connection that is passed through as it is.
//!
//! **Invariant:** an [`HttpRequest`] is asked only of a destination that speaks HTTP, and the bytes of its path that are matched are the bytes
//! that are sent. A connection has neither method nor path nor model, so no grant that limits one of them is for it.

use std::borrow::Cow;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use crate::denial::{Denial, Reason};
use crate::resource::HttpDestination;
pub use crate::upgrade::Upgrade;

/// What a request says of where it wants to go and what it wants there, untouched.
#[derive(Debug, Clone, Copy)]
pub struct RequestLine<'a> {
    /// `host[:port]`, on which `:authority`, `Host` and an absolute-form target already agree.
    pub authority: &'a str,
    /// In its own spelling: methods have letter case (RFC 9110, section 9.1).
    pub method: &'a str,
    /// Undecoded; empty means `/`.
    pub path: &'a str,
    /// Without the question mark.
    pub query: Option<&'a str>,
}

/// What is asked of a [`Target`](crate::target::Target).
#[derive(Debug, Clone)]
pub enum Operation {
    /// One request.
    Http(HttpRequest),
    /// Bytes both ways, which nobody looks into.
    Tunnel,
    /// A session with a database.
    DatabaseSession,
}

/// A resolved request line, but for its host. Made only by [`crate::policy::Policy::resolve`].
#[derive(Debug, Clone)]
pub struct HttpRequest {
    pub(crate) destination: Arc<HttpDestination>,
    pub(crate) method: Cow<'static, str>,
    pub(crate) path: Arc<str>,
    pub(crate) query: Option<Box<str>>,
    pub(crate) path_prefix: Option<Box<str>>,
    pub(crate) upgrade: Option<Upgrade>,
}

impl Operation {
    /// The request; `None`: it is a connection.
    pub fn http(&self) -> Option<&HttpRequest> {
        match self {
            Self::Http(request) => Some(request),
            Self::Tunnel | Self::DatabaseSession => None,
        }
    }
}

impl From<HttpRequest> for Operation {
    fn from(request: HttpRequest) -> Self {
        Self::Http(request)
    }
}

impl HttpRequest {
    /// How HTTP is spoken where it goes.
    pub fn destination(&self) -> &Arc<HttpDestination> {
        &self.destination
    }

    /// In its own spelling.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// In canonical form, beginning with `/`, as it is matched and sent.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// [`HttpRequest::path`], shared.
    pub fn path_shared(&self) -> &Arc<str> {
        &self.path
    }

    /// As it is sent, without the question mark: visible ASCII, no `#`.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// `/openai` where the destination was named by the first path segment: what a `Location` on its host gets prepended.
    pub fn path_prefix(&self) -> Option<&str> {
        self.path_prefix.as_deref()
    }

    /// The same request, which asks to go on with this protocol.
    pub fn upgrading(self, upgrade: Option<Upgrade>) -> Self {
        Self { upgrade, ..self }
    }

    /// The protocol that it asks to go on with; `None`: it is HTTP and stays it.
    pub fn upgrade(&self) -> Option<Upgrade> {
        self.upgrade
    }

    /// Refuses a query that names another method than the one that is decided on.
    pub(crate) fn check_method(&self) -> Result<(), Denial> {
        self.query().map_or(Ok(()), |query| check_method(query, &self.method))
    }
}

/// Copied only where it is none that everybody knows.
pub(crate) fn known_method(method: &str) -> Cow<'static, str> {
    const KNOWN: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    let known = KNOWN.into_iter().find(|known| *known == method);
    known.map_or_else(|| Cow::Owned(method.to_owned()), Cow::Borrowed)
}

/// Query parameters that some frameworks take the method from, in lower case and with `_` for `-`.
const METHOD_OVERRIDES: [&str; 5] =
    ["_method", "$httpmethod", "x_http_method", "x_http_method_override", "x_method_override"];

/// Refuses a query that names another method than the one that is decided on.
fn check_method(query: &str, method: &str) -> Result<(), Denial> {
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
