//! Connections that do not come about: after several in a row calls are refused at once, and one at a time tries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::{CircuitError, HostHealth};

/// So many in a row open the circuit.
const FAILURES: u32 = 5;

/// Of one host.
#[derive(Debug, Default)]
pub(crate) struct DialCircuit {
    /// Connections that did not come about, in a row, to no endpoint.
    failures: AtomicU32,
    /// Somebody tries.
    is_tried: AtomicBool,
}

/// What the end of a dial made of the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DialEnd {
    Opened,
    Closed,
    Unchanged,
}

/// Leave to dial. Dropped, it tells nothing.
#[derive(Debug)]
pub(crate) struct DialTicket {
    host: Arc<HostHealth>,
    is_trial: bool,
}

impl DialCircuit {
    pub(crate) fn is_open(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FAILURES
    }
}

impl DialTicket {
    /// # Errors
    /// Where the circuit is open, and somebody tries already.
    pub(crate) fn take(host: &Arc<HostHealth>) -> Result<Self, CircuitError> {
        let is_trial = host.circuit.is_open();
        if is_trial && host.circuit.is_tried.swap(true, Ordering::Relaxed) {
            return Err(CircuitError::Unreachable);
        }
        Ok(Self { host: Arc::clone(host), is_trial })
    }

    /// A connection came about.
    pub(crate) fn succeeded(self) {
        let before = self.host.circuit.failures.swap(0, Ordering::Relaxed);
        self.host.dialled(if before >= FAILURES { DialEnd::Closed } else { DialEnd::Unchanged });
    }

    /// None did, and that is not for a reason of ours.
    pub(crate) fn failed(self) {
        let failures = &self.host.circuit.failures;
        let before = failures.fetch_add(1, Ordering::Relaxed);
        // Never as many that it begins anew.
        failures.fetch_min(FAILURES, Ordering::Relaxed);
        self.host.dialled(if before + 1 == FAILURES { DialEnd::Opened } else { DialEnd::Unchanged });
    }
}

impl Drop for DialTicket {
    fn drop(&mut self) {
        if self.is_trial {
            self.host.circuit.is_tried.store(false, Ordering::Relaxed);
        }
    }
}
