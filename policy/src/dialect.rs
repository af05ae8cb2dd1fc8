//! How a provider's API is read: which calls do what, where a request says what it may cost, where an answer says
//! what it did cost. All of it is data, parsed from the gateway's catalog files.
//!
//! **Invariant:** a rule that names nothing claims nothing. A path that a dialect does not list, a request member it
//! does not class and a number it has no place for are unknown, never harmless.
//!
//! Deliberately absent: code for any one provider.

mod content;
mod endpoint;
mod key;
mod names;
mod request;
mod response;
mod session;
mod tool;
pub mod tree;

use std::sync::Arc;
use std::time::Duration;

pub use content::{ContentMember, ContentRules};
pub(crate) use endpoint::Bearing;
pub use endpoint::{Class, Endpoint};
pub use key::KeyRules;
pub use request::{Member, RequestRules};
pub use response::{Reading, ResponseRules, StreamRules, Terminal, TierSlots, UsageSlots};
use serde::Deserialize;
pub use session::{DetectionRules, EventMember, SessionRules};
pub use tool::{ToolRule, ToolRules};

use crate::map::Map;
use crate::model::{Fractions, Interval, Problem, Single, SourceFile};
use crate::price::{PriceFile, PriceTable};

#[cfg(test)]
mod tests;

/// What a file says that contradicts itself: the field, and what is wrong with it.
type Problems = Vec<(String, String)>;

/// All dialects and prices that the gateway ships, by name.
#[derive(Debug, Default)]
pub struct Catalog {
    dialects: Map<Arc<str>, Arc<Dialect>>,
    prices: PriceTable,
}

impl Catalog {
    /// Reads catalog files: each holds one dialect (`dialect: NAME`) or one provider's prices (`prices: PROVIDER`).
    ///
    /// Errors are those of all files, with the line of each.
    pub fn parse(files: &[SourceFile]) -> Result<Self, Vec<Problem>> {
        let mut catalog = Self::default();
        let problems: Vec<_> =
            files.iter().flat_map(|file| catalog.take(file).unwrap_or_else(|problems| problems)).collect();
        if problems.is_empty() { Ok(catalog) } else { Err(problems) }
    }

    /// The dialect of this name.
    pub fn dialect(&self, name: &str) -> Option<&Arc<Dialect>> {
        self.dialects.get(name)
    }

    /// The names of all dialects, in no order.
    pub fn dialect_names(&self) -> impl Iterator<Item = &str> {
        self.dialects.keys().map(AsRef::as_ref)
    }

    /// The prices of all providers.
    pub const fn prices(&self) -> &PriceTable {
        &self.prices
    }

    fn take(&mut self, file: &SourceFile) -> Result<Vec<Problem>, Vec<Problem>> {
        let file = Single::read(file, Fractions::Refused);
        let mut problems = Problems::new();
        let source = if file.has("prices") {
            let (prices, source) = file.parse::<PriceFile>()?;
            problems = prices.add_to(&mut self.prices);
            source
        } else {
            let (text, source) = file.parse::<DialectText>()?;
            let dialect = text.dialect(&mut problems);
            if self.dialects.insert(dialect.name.clone(), Arc::new(dialect)).is_some() {
                problems.push(("dialect".to_owned(), "this dialect is in another file already".to_owned()));
            }
            source
        };
        Ok(problems.into_iter().map(|(field, message)| source.problem(&field, message)).collect())
    }
}

/// How one provider's API is read.
#[derive(Debug)]
pub struct Dialect {
    name: Arc<str>,
    provider: Arc<str>,
    plain: bool,
    errors: ErrorForm,
    carriers: Carriers,
    keys: KeyRules,
    patience: Patience,
    literal: Map<Arc<str>, Vec<Arc<Endpoint>>>,
    patterns: Vec<Arc<Endpoint>>,
}

/// The form in which this API's own clients look for what went wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorForm {
    /// None in particular: problem details (RFC 9457).
    #[default]
    Problem,
    /// `{"error": {"message", "type", "param", "code"}}`.
    Openai,
    /// `{"type": "error", "error": {"type", "message"}, "request_id"}`.
    Anthropic,
    /// `{"error": {"code", "message", "status", "details"}}`.
    Google,
}

/// Where this API takes credentials and account selectors from: none of them is forwarded from a caller.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Carriers {
    /// Headers that carry a credential, in lower case.
    pub headers: Vec<Box<str>>,
    /// Query parameters that carry a credential, percent-decoded.
    pub queries: Vec<Box<str>>,
    /// Headers that choose the account, project or user that pays, in lower case.
    pub account_headers: Vec<Box<str>>,
}

/// How long answers of this API may take where a destination does not say. `None`: as long as those of any other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    /// From the request's last byte to the answer's first.
    pub first_byte: Option<Duration>,
    /// Between two bytes of the answer.
    pub idle: Option<Duration>,
}

impl Dialect {
    /// The name in a destination's `dialect`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `gen_ai.provider.name`, and the key into the price table.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// Whether only requests and bytes are counted: no bodies are read, and every call is [`Class::Use`].
    pub const fn is_plain(&self) -> bool {
        self.plain
    }

    /// How this API's clients read an error.
    pub const fn errors(&self) -> ErrorForm {
        self.errors
    }

    /// The headers and query parameters that must come from the gateway alone.
    pub const fn carriers(&self) -> &Carriers {
        &self.carriers
    }

    /// What answers say of the key that they were asked with.
    pub const fn keys(&self) -> &KeyRules {
        &self.keys
    }

    /// How long its answers may take.
    pub const fn patience(&self) -> Patience {
        self.patience
    }

    /// The endpoints, in no order.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.literal.values().flatten().chain(&self.patterns)
    }

    /// The endpoint that this call goes to; the more literal path wins. `None`: the dialect does not list it.
    ///
    /// A spelling that a lenient server may take for a listed one (other letter case, a trailing slash) is not that
    /// endpoint, but is still found where that endpoint is more than use, so that it cannot pass as unlisted.
    pub fn endpoint(&self, method: &str, path: &str) -> Option<&Arc<Endpoint>> {
        let found = self.find(method, path);
        if found.is_some() || self.plain {
            return found;
        }
        let lenient = path.trim_end_matches('/').to_ascii_lowercase();
        self.find(method, &lenient).filter(|endpoint| endpoint.class != Class::Use)
    }

    fn find(&self, method: &str, path: &str) -> Option<&Arc<Endpoint>> {
        let literal = self.literal.get(path).into_iter().flatten().find(|endpoint| endpoint.takes(method));
        literal.or_else(|| self.patterns.iter().find(|endpoint| endpoint.matches(method, path)))
    }
}

/// A dialect as its file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DialectText {
    dialect: Arc<str>,
    provider: Arc<str>,
    #[serde(default)]
    plain: bool,
    #[serde(default)]
    errors: ErrorForm,
    #[serde(default)]
    carriers: Carriers,
    #[serde(default)]
    keys: key::KeyText,
    #[serde(default)]
    patience: PatienceText,
    endpoints: Vec<endpoint::EndpointText>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PatienceText {
    first_byte: Option<Interval>,
    idle: Option<Interval>,
}

impl DialectText {
    fn dialect(self, problems: &mut Problems) -> Dialect {
        let mut literal: Map<Arc<str>, Vec<Arc<Endpoint>>> = Map::default();
        let mut patterns = Vec::new();
        for (index, text) in self.endpoints.into_iter().enumerate() {
            let field = format!("endpoints[{index}]");
            for endpoint in text.endpoints(&field, problems) {
                let endpoint = Arc::new(endpoint);
                if endpoint.is_literal() {
                    literal.entry(endpoint.path.clone()).or_default().push(endpoint);
                } else {
                    patterns.push(endpoint);
                }
            }
        }
        literal.values_mut().for_each(|endpoints| endpoints.sort_by(|a, b| a.precedence(b)));
        patterns.sort_by(|a, b| a.precedence(b));
        for pair in patterns.windows(2).chain(literal.values().flat_map(|endpoints| endpoints.windows(2))) {
            if let [one, other] = pair
                && one.path == other.path
                && one.method == other.method
            {
                problems
                    .push(("endpoints".to_owned(), format!("{} {} is listed twice", one.method, one.path)));
            }
        }
        Dialect {
            name: self.dialect,
            provider: self.provider,
            plain: self.plain,
            errors: self.errors,
            carriers: self.carriers,
            keys: self.keys.rules(problems),
            patience: Patience {
                first_byte: self.patience.first_byte.map(|Interval(time)| time),
                idle: self.patience.idle.map(|Interval(time)| time),
            },
            literal,
            patterns,
        }
    }
}
