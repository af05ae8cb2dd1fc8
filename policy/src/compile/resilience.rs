//! What is done about trouble at a destination: numbers within reason, and what is left out as it is for most.

use super::Scope;
use crate::model::{DestinationSpec, Interval};
use crate::resource::{CircuitBreaker, OutlierDetection, Resilience, Retries};

pub(super) fn resilience(spec: &DestinationSpec, scope: &mut Scope<'_>) -> Resilience {
    Resilience {
        outlier_detection: outlier_detection(spec, scope),
        circuit_breaker: circuit_breaker(spec, scope),
        retries: retries(spec, scope),
    }
}

fn outlier_detection(spec: &DestinationSpec, scope: &mut Scope<'_>) -> OutlierDetection {
    let usual = OutlierDetection::default();
    let Some(written) = &spec.outlier_detection else { return usual };
    let base = written.base_ejection_time.map_or(usual.base_ejection_time, |Interval(time)| time);
    let longest = written.max_ejection_time.map(|Interval(time)| time);
    if longest.is_some_and(|longest| longest < base) {
        let message = format!("the longest ejection is shorter than `baseEjectionTime`, {base:?}");
        scope.problem("spec.outlierDetection.maxEjectionTime", message);
    }
    let mut bounded = |name: &str, written: Option<u32>, usual: u32, most: u32| {
        within(&format!("spec.outlierDetection.{name}"), written.unwrap_or(usual), most, scope)
    };
    OutlierDetection {
        consecutive_gateway_errors: bounded(
            "consecutiveGatewayErrors",
            written.consecutive_gateway_errors,
            usual.consecutive_gateway_errors,
            1000,
        ),
        base_ejection_time: base,
        max_ejection_time: longest.unwrap_or_else(|| usual.max_ejection_time.max(base)),
        max_ejection_percent: bounded(
            "maxEjectionPercent",
            written.max_ejection_percent,
            usual.max_ejection_percent,
            100,
        ),
    }
}

fn circuit_breaker(spec: &DestinationSpec, scope: &mut Scope<'_>) -> CircuitBreaker {
    let Some(written) = &spec.circuit_breaker else { return CircuitBreaker::default() };
    for (name, number) in [("maxConnections", written.max_connections), ("maxRequests", written.max_requests)]
    {
        if number == Some(0) {
            let message = "nothing could be called with 0: suspend the grants instead, or leave this out";
            scope.problem(&format!("spec.circuitBreaker.{name}"), message);
        }
    }
    CircuitBreaker { max_connections: written.max_connections, max_requests: written.max_requests }
}

fn retries(spec: &DestinationSpec, scope: &mut Scope<'_>) -> Retries {
    let usual = Retries::default();
    let Some(written) = &spec.retries else { return usual };
    for (index, status) in written.retry_on.iter().filter(|(_, status)| !matches!(status, 502..=504)) {
        let message = format!("calls are sent again after 502, 503 and 504 only, and this is {status}");
        scope.problem(&format!("spec.retries.retryOn[{index}]"), message);
    }
    let mut bounded = |name: &str, written: Option<u32>, usual: u32, most: u32| {
        within(&format!("spec.retries.{name}"), written.unwrap_or(usual), most, scope)
    };
    Retries {
        attempts: bounded("attempts", written.attempts, usual.attempts, 10),
        budget_percent: bounded("budgetPercent", written.budget_percent, usual.budget_percent, 100),
        min_per_second: bounded("minPerSecond", written.min_per_second, usual.min_per_second, 10_000),
        on: written.retry_on.values().copied().collect(),
    }
}

fn within(path: &str, number: u32, most: u32, scope: &mut Scope<'_>) -> u32 {
    if number > most {
        scope.problem(path, format!("{number} is too much: at most {most}"));
    }
    number.min(most)
}
