//! Deciding facts in the query: a second place for them, and the only one of a call that begins a session.

use percent_encoding::percent_decode_str;
use tollgate_policy::decision::Facts;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::dialect::{Endpoint, Member, RequestRules};

use super::{ReadBody, json};

/// The longest name of a model.
const NAME_MAX: usize = 256;

/// Refuses a query that names something that the body decides, but for the very model that the body names.
pub(crate) fn check(rules: &RequestRules, query: &str, facts: &Facts) -> Result<(), Denial> {
    for pair in query.split(['&', ';']) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(name);
        let name = json::folded(&name).unwrap_or(name);
        let same =
            |member: &Member| *member == Member::Model && facts.model.as_deref() == Some(&*decoded(value));
        // A list is named with brackets by some readers of queries.
        let member = rules.member(name.split('[').next().unwrap_or_default());
        if member.is_some_and(|member| member.is_deciding() && !same(member)) {
            let detail =
                format!("`{name}` stands in the query, where it could be taken for what the body says of it");
            return Err(Denial::new(Reason::AmbiguousBody, detail));
        }
    }
    Ok(())
}

/// Reads what a call that begins a session asks for. A parameter that the catalog does not know stands in the way of limits.
///
/// # Errors
/// `ambiguous_body` for a model that is named twice, or in other letter case; `body_invalid` for one that is no name.
pub(crate) fn of_session(endpoint: &Endpoint, query: Option<&str>) -> Result<ReadBody, Denial> {
    let known = endpoint.session.as_ref().map_or(&[][..], |session| &session.query);
    let mut facts = Facts { stream: true, ..Facts::default() };
    let mut unknown = None;
    let pairs = query.unwrap_or_default().split(['&', ';']).filter(|pair| !pair.is_empty());
    for pair in pairs {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(name), decoded(value));
        let folded = json::folded(&name);
        let is_model = |name: &str| endpoint.request.member(name) == Some(&Member::Model);
        if is_model(folded.as_deref().unwrap_or(&name)) {
            if folded.is_some() || facts.model.is_some() {
                return Err(json::ambiguous(folded.as_deref().unwrap_or(&name)));
            }
            if value.is_empty() || value.len() > NAME_MAX {
                return Err(json::invalid(&name, "must be a model's name"));
            }
            facts.model = Some(value.into());
        } else if !known.iter().any(|known| **known == *name) {
            unknown.get_or_insert(name);
        }
    }
    let obstacle = unknown.map(|name| {
        let name: String = name.chars().filter(|c| !c.is_control()).take(json::NAME_SHOWN).collect();
        let detail = format!("`{name}` in the query may change what this session costs");
        Denial::new(Reason::UnmeteredEndpoint, detail)
    });
    Ok(ReadBody { obstacle, ..ReadBody::unread(facts) })
}

fn decoded(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}
