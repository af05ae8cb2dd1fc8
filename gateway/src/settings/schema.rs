//! What a schema says of settings that are written in a form of their own.

use schemars::{Schema, SchemaGenerator, json_schema};
use tollgate_policy::schema_forms;

use crate::telemetry::LogSettings;

/// Bytes: [`value::bytes`](super::value).
pub(crate) enum SizeText {}

/// A length of time that may be nothing: [`pause`](super::pause).
pub(crate) enum PauseText {}

/// An address with its port.
pub(super) enum SocketText {}

/// A host with its port.
pub(super) enum HostPortText {}

/// A host, with a port or without.
pub(super) enum HostText {}

/// A range of addresses.
pub(super) enum RangeText {}

/// An address, with its port or without.
pub(super) enum ServerText {}

/// Settings of the log, or its level alone.
pub(super) fn log(generator: &mut SchemaGenerator) -> Schema {
    let settings = generator.subschema_for::<LogSettings>();
    json_schema!({ "anyOf": [settings, { "type": "string" }] })
}

schema_forms! {
    SizeText: "size", {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+ *(B|[kK]B|[MG]B|[KMG]iB)?$"}]};
    PauseText: "duration", {"type": "string", "pattern": "^(0|0*[1-9][0-9]*)(ms|s|m|h|d)$"};
    SocketText: "IP address and port", {"type": "string", "pattern": "^.+:[0-9]{1,5}$"};
    HostPortText: "host and port", {"type": "string", "pattern": "^[^/@?#\\s]+:[0-9]{1,5}$"};
    HostText: "host", {"type": "string", "pattern": "^[^/@?#\\s]+$"};
    RangeText: "range", {"type": "string", "pattern": "^[0-9A-Fa-f:.]+/[0-9]{1,3}$"};
    ServerText: "IP address", {"type": "string", "pattern": "^[0-9A-Fa-f:.\\[\\]]+$"};
}
