//! Protocols that a request may go on with on its connection.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

/// Another protocol, which a request asks to go on with on its connection (RFC 9110, section 7.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Upgrade {
    /// WebSocket (RFC 6455), also over HTTP/2 (RFC 8441).
    Websocket,
}

impl Upgrade {
    /// The word, as a grant's `allow.upgrades` spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Websocket => "websocket",
        }
    }
}

impl fmt::Display for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
