//! What a Destination says of trouble at the service, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::field::{Interval, List};

/// When an endpoint of the service, an IP address with its port, is left alone for a while.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct OutlierDetectionSpec {
    /// An endpoint is ejected after so many failures in a row: 502, 503 or 504 as its answer, no answer in time, a connection that
    /// breaks off before an answer, none at all. `0`: no endpoint is ever ejected.
    #[schemars(range(max = 1000), extend("default" = 5))]
    pub(crate) consecutive_gateway_errors: Option<u32>,
    /// For how long, the first time. Each further time in a row it is longer by as much.
    #[schemars(extend("default" = "30s"))]
    pub(crate) base_ejection_time: Option<Interval>,
    /// The longest ejection. At least `baseEjectionTime`.
    #[schemars(extend("default" = "5m"))]
    pub(crate) max_ejection_time: Option<Interval>,
    /// Most of the endpoints of a host that are ejected at once, in percent; one may always be. The last that works never is.
    #[schemars(range(max = 100), extend("default" = 50))]
    pub(crate) max_ejection_percent: Option<u32>,
}

/// How much of the gateway the service may occupy. What is over it is 503 `circuit_open`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct CircuitBreakerSpec {
    /// Most connections of this gateway to the service, kept ones included. Without it as many as there are calls.
    #[schemars(range(min = 1))]
    pub(crate) max_connections: Option<u32>,
    /// Most calls that are under way at once. Without it as many of `limits.calls` as it leaves to others.
    #[schemars(range(min = 1))]
    pub(crate) max_requests: Option<u32>,
}

/// How often calls are sent again that may be. See [when a call is sent again](../gateway/README.md#when-a-call-is-sent-again).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct RetriesSpec {
    /// How often one call is sent again at most.
    #[schemars(range(max = 10), extend("default" = 3))]
    pub(crate) attempts: Option<u32>,
    /// Most calls that are sent again, in percent of the calls of the last ten seconds.
    #[schemars(range(max = 100), extend("default" = 20))]
    pub(crate) budget_percent: Option<u32>,
    /// So many calls a second may be sent again besides, however few calls there are.
    #[schemars(range(max = 10_000), extend("default" = 10))]
    pub(crate) min_per_second: Option<u32>,
    /// Answers after which a call is sent again: of `502`, `503` and `504`. Only calls that may be made twice (`GET`, `HEAD`, `OPTIONS`,
    /// `PUT`, `DELETE`) and that nothing is billed for.
    #[schemars(extend("items" = {"type": "integer", "enum": [502, 503, 504]}))]
    pub(crate) retry_on: List<u16>,
}
