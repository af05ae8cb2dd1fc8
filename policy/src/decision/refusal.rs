//! What a caller is told whose call is refused by its grants.

use super::CallerGrants;
use super::call::{Asked, Call, Requested};
use crate::denial::{Denial, Reason};
use crate::dialect::Class;
use crate::operation::Upgrade;
use crate::resource::{Approval, Grant};

/// What the grant that decides refuses with.
pub(super) fn refusal(
    grant: &Grant,
    reason: Reason,
    grants: &CallerGrants,
    call: &Call<'_>,
    requested: Requested<'_>,
) -> Denial {
    match &grant.suspended {
        Some(why) => Denial::new(reason, format!("grant {} is suspended: {why}", grant.name)),
        None if grant.is_broken => Denial::new(
            reason,
            format!("grant {} is not in force: its configuration has an error", grant.name),
        ),
        None if grant.approval == Approval::Lacking => Denial::new(
            reason,
            format!(
                "grant {} is not approved: whoever owns destination {} has to agree to it",
                grant.name, grant.destination.name
            ),
        ),
        None => match grant.broken_budget() {
            Some(budget) => {
                let name = &budget.name;
                let detail =
                    format!("budget {name} has an error, so nothing is let through that it might limit");
                Denial::new(reason, detail)
            }
            None => denial(reason, grants, call, requested),
        },
    }
}

/// What is refused with where no grant matches, or the one that decides cannot let the call out.
pub(super) fn denial(
    reason: Reason,
    grants: &CallerGrants,
    call: &Call<'_>,
    requested: Requested<'_>,
) -> Denial {
    let model = requested.model;
    let (caller, name) = (grants.caller().id(), &call.destination.name);
    let shown = |text: &str| text.chars().filter(char::is_ascii_graphic).take(128).collect::<String>();
    let detail = match reason {
        Reason::NoGrant => match call.asked {
            Asked::Http(_) | Asked::Connection => format!("{caller} has no grant for destination {name}"),
            Asked::Other => format!("destination {name} is not one that can be asked for this"),
        },
        Reason::PathNotAllowed => format!("no grant of {caller} for destination {name} allows this path"),
        Reason::MethodNotAllowed => {
            let method = call.http().map_or("", |http| http.method);
            format!("no grant of {caller} for destination {name} allows {} on this path", shown(method))
        }
        Reason::EndpointClass => match call.endpoint() {
            Some(endpoint) => {
                let class = class_word(endpoint.class);
                format!("this endpoint of {name} is of class {class}, which a grant has to name")
            }
            None => format!(
                "the dialect of {name} does not list this endpoint, so a grant has to name its exact path"
            ),
        },
        Reason::ActionNotAllowed => match requested.actions {
            [] => format!("actions are limited for destination {name}, and the request names none"),
            actions => {
                let first: Vec<String> = actions.iter().take(3).map(|action| shown(action)).collect();
                let first = first.join(", ");
                let rest = if actions.len() > 3 { " and the others" } else { "" };
                format!("no grant of {caller} for destination {name} lists {first}{rest} in `actions`")
            }
        },
        Reason::ModelNotAllowed => {
            format!(
                "no grant of {caller} for destination {name} allows model {}",
                shown(model.unwrap_or_default())
            )
        }
        Reason::ModelRequired => {
            format!("models are limited for destination {name}, and the request names none")
        }
        Reason::UpgradeRefused => {
            let asked = call.http().and_then(|http| http.upgrade).map_or("", Upgrade::as_str);
            format!(
                "WebSocket is not forwarded: the grant of {caller} for destination {name} does not list {asked} in \
                 `allow.upgrades`; the API's plain HTTP requests may stream their answers"
            )
        }
        Reason::UnmeteredEndpoint if call.http().is_some_and(|http| http.upgrade.is_some()) => {
            format!(
                "models, tokens or spend are limited for destination {name}, and what a WebSocket to this path carries cannot be \
                 metered"
            )
        }
        Reason::UnmeteredEndpoint => {
            format!(
                "models, tokens or spend are limited for destination {name}, and this endpoint cannot be metered"
            )
        }
        Reason::DeferredCost => {
            format!(
                "models, tokens or spend are limited for destination {name}, and this endpoint is billed later"
            )
        }
        Reason::UnpricedModel => match model {
            Some(model) => format!("spend is limited, and model {} has no price", shown(model)),
            None => "spend is limited, and the request names no model to price".to_owned(),
        },
        _ => return Denial::new(reason, "refused"),
    };
    Denial::new(reason, detail)
}

/// The class as a grant's `allow.classes` spells it.
pub(crate) fn class_word(class: Class) -> &'static str {
    match class {
        Class::Use => "use",
        Class::AccountState => "accountState",
        Class::MintsCredentials => "mintsCredentials",
        Class::Administers => "administers",
    }
}
