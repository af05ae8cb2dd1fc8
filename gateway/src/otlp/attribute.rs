//! The one table of the names that spans and logs have, which `TELEMETRY.md` explains and a test compares.
//!
//! **Invariant:** no attribute can hold a header value, a body, a query or a secret: each is made of what a record has, or of a line of the log.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};

/// The name of an attribute that is text.
#[derive(Clone, Copy, Debug)]
pub(super) struct TextName(&'static str);

/// The name of an attribute that is a whole number.
#[derive(Clone, Copy, Debug)]
pub(super) struct IntegerName(&'static str);

/// The name of an attribute that is a number with a fraction.
#[derive(Clone, Copy, Debug)]
pub(super) struct FractionName(&'static str);

/// The name of an attribute that is there where it is true.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlagName(&'static str);

macro_rules! attributes {
    ($( $id:ident: $kind:ident $name:literal; )*) => {
        $( pub(super) const $id: $kind = $kind($name); )*

        /// Name and type of each.
        #[cfg(test)]
        const ALL: &[(&str, &str)] = &[$( ($name, $kind::WORD) ),*];
    };
}

attributes! {
    HTTP_METHOD: TextName "http.request.method";
    URL_SCHEME: TextName "url.scheme";
    URL_PATH: TextName "url.path";
    HTTP_STATUS: IntegerName "http.response.status_code";
    HTTP_REQUEST_SIZE: IntegerName "http.request.body.size";
    HTTP_RESPONSE_SIZE: IntegerName "http.response.body.size";
    HTTP_RESENDS: IntegerName "http.request.resend_count";
    SERVER_ADDRESS: TextName "server.address";
    SERVER_PORT: IntegerName "server.port";
    PEER_ADDRESS: TextName "network.peer.address";
    PEER_PORT: IntegerName "network.peer.port";
    LOCAL_ADDRESS: TextName "network.local.address";
    PROTOCOL_VERSION: TextName "network.protocol.version";
    ERROR_TYPE: TextName "error.type";
    OPERATION: TextName "gen_ai.operation.name";
    PROVIDER: TextName "gen_ai.provider.name";
    REQUEST_MODEL: TextName "gen_ai.request.model";
    RESPONSE_MODEL: TextName "gen_ai.response.model";
    INPUT_TOKENS: IntegerName "gen_ai.usage.input_tokens";
    OUTPUT_TOKENS: IntegerName "gen_ai.usage.output_tokens";
    CACHE_READ_TOKENS: IntegerName "gen_ai.usage.cache_read.input_tokens";
    CACHE_WRITE_TOKENS: IntegerName "gen_ai.usage.cache_creation.input_tokens";
    REASONING_TOKENS: IntegerName "gen_ai.usage.reasoning.output_tokens";
    CALL_ID: TextName "tollgate.request.id";
    CALLER: TextName "tollgate.caller.id";
    CALLER_NAMESPACE: TextName "tollgate.caller.namespace";
    CALLER_ACCOUNT: TextName "tollgate.caller.service_account";
    CALLER_PROOF: TextName "tollgate.caller.proof";
    DESTINATION: TextName "tollgate.destination";
    GRANT: TextName "tollgate.grant";
    CREDENTIAL: TextName "tollgate.credential";
    OUTCOME: TextName "tollgate.outcome";
    USAGE_SOURCE: TextName "tollgate.usage.source";
    COST: FractionName "tollgate.cost.usd";
    UNPRICED: FlagName "tollgate.unpriced";
    GENERATION: IntegerName "tollgate.policy.generation";
    ATTEMPTS: IntegerName "tollgate.attempts";
    COUNT: IntegerName "tollgate.count";
    LOG_TARGET: TextName "tollgate.log.target";
}

/// What the names of the other fields of log lines begin with; each is text.
pub(super) const LOG_FIELD: &str = "tollgate.log.field.";

/// The attributes of one span, event or log record. What is not known is left out.
#[derive(Debug, Default)]
pub(super) struct Attributes(pub(super) Vec<KeyValue>);

impl TextName {
    #[cfg(test)]
    const WORD: &'static str = "text";
}

impl IntegerName {
    #[cfg(test)]
    const WORD: &'static str = "integer";
}

impl FractionName {
    #[cfg(test)]
    const WORD: &'static str = "fraction";
}

impl FlagName {
    #[cfg(test)]
    const WORD: &'static str = "flag";
}

impl Attributes {
    /// Nothing is said where the text is empty.
    pub(super) fn text(&mut self, name: TextName, value: &str) {
        if !value.is_empty() {
            self.0.push(text(name.0, value));
        }
    }

    pub(super) fn integer(&mut self, name: IntegerName, value: Option<u64>) {
        if let Some(value) = value {
            let value = Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX));
            self.0.push(pair(name.0, value));
        }
    }

    pub(super) fn fraction(&mut self, name: FractionName, value: Option<f64>) {
        if let Some(value) = value {
            self.0.push(pair(name.0, Value::DoubleValue(value)));
        }
    }

    pub(super) fn flag(&mut self, name: FlagName, is_set: bool) {
        if is_set {
            self.0.push(pair(name.0, Value::BoolValue(true)));
        }
    }
}

/// A text attribute of any name.
pub(super) fn text(name: &str, value: &str) -> KeyValue {
    pair(name, Value::StringValue(value.to_owned()))
}

fn pair(name: &str, value: Value) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_has_every_attribute_with_its_type_and_no_other() {
        let specification = include_str!("../../TELEMETRY.md");
        let rows = specification.split_once("## Attributes").unwrap().1;
        let rows = rows.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with("| `"));
        let rows: Vec<_> = rows
            .map(|row| {
                let cells: Vec<_> = row.split('|').map(|cell| cell.trim().replace('`', "")).collect();
                (cells[1].clone(), cells[2].clone())
            })
            .collect();
        let mut all: Vec<_> =
            ALL.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect();
        all.push((format!("{LOG_FIELD}NAME"), "text".to_owned()));
        assert_eq!(rows, all);
    }
}
