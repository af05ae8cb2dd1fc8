//! YAML of the catalog into plain data, with the line that each field stands on.

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::model::{Problem, SourceFile};

/// One catalog file.
pub(super) struct Document<'a> {
    file: &'a SourceFile,
    root: MarkedYaml<'a>,
}

impl<'a> Document<'a> {
    pub(super) fn parse(file: &'a SourceFile) -> Result<Self, Problem> {
        let at =
            |line, message: String| Problem { file: file.path.clone(), line, field: String::new(), message };
        let documents = MarkedYaml::load_from_str(&file.text);
        let mut documents = documents.map_err(|error| at(error.marker().line(), error.info().to_owned()))?;
        match (documents.pop(), documents.is_empty()) {
            (Some(root), true) => Ok(Self { file, root }),
            _ => Err(at(1, "a catalog file is one YAML document".to_owned())),
        }
    }

    /// Whether the file has this field at its top: it tells which kind of catalog file it is.
    pub(super) fn has(&self, field: &str) -> bool {
        matches!(&self.root.data, YamlData::Mapping(map) if map.keys().any(|key| key.data.as_str() == Some(field)))
    }

    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let value = self.value(&self.root, "")?;
        serde_path_to_error::deserialize(value).map_err(|error| {
            self.problem(error.path().to_string().trim_end_matches(".?"), error.inner().to_string())
        })
    }

    /// A problem with this field, such as `models[3].prices`, at the line of what there is of its path.
    pub(super) fn problem(&self, field: &str, message: String) -> Problem {
        let mut at = (&self.root, self.root.span.start.line());
        for step in field.split(['.', '[', ']']).filter(|step| !step.is_empty()) {
            let next = match &at.0.data {
                YamlData::Mapping(map) => {
                    let found = map.iter().find(|(key, _)| key.data.as_str() == Some(step));
                    found.map(|(key, value)| (value, key.span.start.line()))
                }
                YamlData::Sequence(list) => {
                    let found = step.parse().ok().and_then(|index: usize| list.get(index));
                    found.map(|item| (item, item.span.start.line()))
                }
                _ => None,
            };
            let Some(next) = next else { break };
            at = next;
        }
        let field = field.trim_start_matches('.').to_owned();
        Problem { file: self.file.path.clone(), line: at.1, field, message }
    }

    fn value(&self, node: &MarkedYaml<'_>, field: &str) -> Result<Value, Problem> {
        match &node.data {
            YamlData::Mapping(map) => {
                let members = map.iter().map(|(key, value)| {
                    let name = key
                        .data
                        .as_str()
                        .ok_or_else(|| self.problem(field, "a key must be text".to_owned()))?;
                    Ok((name.to_owned(), self.value(value, &format!("{field}.{name}"))?))
                });
                members.collect::<Result<Map<_, _>, _>>().map(Value::Object)
            }
            YamlData::Sequence(list) => {
                let items =
                    list.iter().enumerate().map(|(i, item)| self.value(item, &format!("{field}[{i}]")));
                items.collect::<Result<_, _>>().map(Value::Array)
            }
            YamlData::Value(Scalar::Null) => Ok(Value::Null),
            YamlData::Value(Scalar::Boolean(value)) => Ok(Value::Bool(*value)),
            YamlData::Value(Scalar::Integer(value)) => Ok(Value::from(*value)),
            YamlData::Value(Scalar::String(value)) => Ok(Value::from(value.as_ref())),
            YamlData::Value(Scalar::FloatingPoint(_)) => {
                let message = "a number with a fraction is written in quotes, so that it is read exactly";
                Err(self.problem(field, message.to_owned()))
            }
            _ => Err(self.problem(field, "not a value that the catalog can hold".to_owned())),
        }
    }
}
