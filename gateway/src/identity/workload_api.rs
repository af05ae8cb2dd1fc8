//! The SPIFFE Workload API, as an agent on this machine serves it: the gateway's own SVIDs, and the bundles of trust domains.
//!
//! **Invariant:** what the API says last counts, and stays when the API is gone. A bundle that cannot be read is the fault of its own trust
//! domain alone. The socket's owner decides who is trusted, so only a Unix socket is taken.
//!
//! `spiffe` 0.19 is not used: it drops revocation lists, and refuses all that the API says because of one partner's bundle.

mod client;
mod follow;
mod jwt;
mod message;
mod x509;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tollgate_policy::schema_forms;

pub(super) use self::client::ApiFault;
pub(super) use self::follow::jwt as follow_jwt;
pub(super) use self::jwt::{JwtBundles, jwt_svid};
#[cfg(test)]
pub(super) use self::x509::OwnSvid;
pub(super) use self::x509::{ApiBundle, X509Context, x509_svid};

/// The address of a Workload API (SPIFFE Workload Endpoint, section 4): a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadSocket(PathBuf);

impl WorkloadSocket {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for WorkloadSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix://{}", self.0.display())
    }
}

impl<'de> Deserialize<'de> for WorkloadSocket {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let text = String::deserialize(value)?;
        let path = text.strip_prefix("unix:").map(|rest| rest.strip_prefix("//").unwrap_or(rest));
        match path {
            Some(path) if path.starts_with('/') && !path.contains(['?', '#', '\0']) => Ok(Self(path.into())),
            _ => {
                let shown: String = text.chars().take(80).collect();
                let form = "a Workload API is a Unix socket, as in unix:///run/spire/agent.sock";
                Err(serde::de::Error::custom(format!("`{shown}`: {form}")))
            }
        }
    }
}

/// A Unix socket as a URI.
pub(super) enum UnixSocketText {}

schema_forms! {
    UnixSocketText: "socket", {"type": "string", "pattern": "^unix:(//)?/.+$"};
}

/// What is known of the API's X.509 side.
#[derive(Clone, Debug, Default)]
pub(super) struct X509State {
    /// What it said last.
    pub(super) said: Option<Arc<X509Context>>,
    /// Why nothing more is heard of it.
    pub(super) fault: Option<Arc<str>>,
}

/// What the API says of certificates, kept up to date once it is followed.
#[derive(Debug)]
pub(super) struct X509Feed {
    pub(super) socket: WorkloadSocket,
    states: watch::Receiver<X509State>,
    sender: Option<watch::Sender<X509State>>,
}

impl X509Feed {
    /// One that says nothing before it is followed.
    pub(super) fn new(socket: WorkloadSocket) -> Self {
        let (sender, states) = watch::channel(X509State::default());
        Self { socket, states, sender: Some(sender) }
    }

    /// Follows the API on `control` for as long as that runs.
    pub(super) fn follow(&mut self, control: &Handle) {
        if let Some(states) = self.sender.take() {
            control.spawn(follow::x509(self.socket.clone(), states));
        }
    }

    /// What is known now. It counts as seen.
    pub(super) fn now(&mut self) -> X509State {
        self.states.borrow_and_update().clone()
    }

    /// The same, and what of it is new stays so.
    pub(super) fn peek(&self) -> X509State {
        self.states.borrow().clone()
    }

    /// Ready when something else is known.
    pub(super) async fn changed(&mut self) {
        // Without a sender nothing will be.
        if self.states.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    #[cfg(test)]
    pub(super) fn tell(&self, state: X509State) {
        if let Some(states) = &self.sender {
            states.send_replace(state);
        }
    }
}

#[cfg(test)]
mod tests;
