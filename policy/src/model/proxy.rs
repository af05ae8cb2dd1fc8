//! The proxy before a Destination, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::verify::VerifySpec;

/// An HTTP proxy through which the service is reached, by `CONNECT`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["address"]))]
pub(crate) struct ProxySpec {
    /// Its host or IP address with its port, as in `proxy.internal.example:3128`.
    pub(crate) address: Option<String>,
    /// Whether TLS is spoken to the proxy itself. TLS to the service runs inside in any case.
    #[schemars(extend("default" = false))]
    pub(crate) tls: Option<bool>,
    /// With `tls: true`: which certificate authorities are trusted to name the proxy.
    #[schemars(extend("default" = "system"))]
    pub(crate) verify: Option<VerifySpec>,
}
