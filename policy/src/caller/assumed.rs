//! Callers that nobody has proven, to ask what they could do if they had been.
//!
//! **Invariant:** no route uses it: commands that explain and compare do, and tests. The shape check lists them.

use super::{Caller, Identity, Proof, Proven};

struct Assumed(Identity);

impl Proven for Assumed {
    fn identity(&self) -> &Identity {
        &self.0
    }

    fn proof(&self) -> Proof {
        Proof::MutualTls
    }
}

/// The caller that this identity would be, had it been proven. For commands that explain a policy, and for tests: never for a call.
#[must_use]
pub fn assumed(identity: Identity) -> Caller {
    Caller::of(&Assumed(identity))
}
