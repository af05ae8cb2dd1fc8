//! `kind: Approval`, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::hash::GrantHash;
use crate::name::Reference;

/// Says yes to a grant as it is now, in the namespace of the grant's destination.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(extend("required" = ["grant", "hash"]))]
pub(crate) struct ApprovalSpec {
    /// The Grant that is approved.
    pub(crate) grant: Option<Reference>,
    /// The hash of all that the grant amounts to, which `tollgate access approve` writes. A grant that changes has another.
    pub(crate) hash: Option<GrantHash>,
}
