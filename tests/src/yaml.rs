//! YAML of test data as JSON values.

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::Value;

/// Every document of a text.
pub fn documents(text: &str) -> Vec<Value> {
    let documents = Yaml::load_from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    documents.iter().map(value).collect()
}

fn value(node: &Yaml<'_>) -> Value {
    match node {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(value)) => Value::from(*value),
        Yaml::Value(Scalar::Integer(value)) => Value::from(*value),
        Yaml::Value(Scalar::String(value)) => Value::from(value.as_ref()),
        Yaml::Sequence(elements) => elements.iter().map(value).collect(),
        Yaml::Mapping(members) => members
            .iter()
            .map(|(key, member)| (key.as_str().expect("a text key").to_owned(), value(member)))
            .collect(),
        other => panic!("{other:?} has no place in test data"),
    }
}
