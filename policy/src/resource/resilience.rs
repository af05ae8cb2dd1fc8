//! What is done about trouble at a destination.

use std::time::Duration;

/// What is done about trouble at a destination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resilience {
    /// When an endpoint is left alone.
    pub outlier_detection: OutlierDetection,
    /// How much of the gateway it may occupy.
    pub circuit_breaker: CircuitBreaker,
    /// How often calls are sent again.
    pub retries: Retries,
}

/// When an endpoint, an address with its port, is left alone for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutlierDetection {
    /// After so many failures in a row; 0: never.
    pub consecutive_gateway_errors: u32,
    /// For how long, times how often it was ejected in a row.
    pub base_ejection_time: Duration,
    /// At most for so long.
    pub max_ejection_time: Duration,
    /// Most of a host's endpoints that are ejected at once, 0 to 100; one may always be.
    pub max_ejection_percent: u32,
}

/// How much of the gateway a destination may occupy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// Most connections, kept ones included; `None`: unbounded.
    pub max_connections: Option<u32>,
    /// Most calls under way at once; `None`: a share of what the gateway takes.
    pub max_requests: Option<u32>,
}

/// How often calls are sent again that may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retries {
    /// Of one call.
    pub attempts: u32,
    /// Of a hundred calls of the last ten seconds.
    pub budget_percent: u32,
    /// Besides, per second.
    pub min_per_second: u32,
    /// The statuses of answers after which a call is sent again that may be made twice and is not billed.
    pub on: Vec<u16>,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_gateway_errors: 5,
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 50,
        }
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self { attempts: 3, budget_percent: 20, min_per_second: 10, on: Vec::new() }
    }
}
