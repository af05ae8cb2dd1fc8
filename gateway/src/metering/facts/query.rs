//! Deciding facts in the query, which is a second place for them.

use percent_encoding::percent_decode_str;
use tollgate_policy::decision::Facts;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::dialect::{Member, RequestRules};

use super::json;

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

fn decoded(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}
