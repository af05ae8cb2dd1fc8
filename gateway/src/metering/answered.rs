//! An answered call, before its answer is passed on.

use std::sync::Arc;

use http::{Version, response};
use tollgate_policy::denial::Denial;

use super::permitted::PermittedCall;
use crate::fault::Faults;
use crate::identity::{CallProof, CallerContext};
use crate::in_place::boxed;
use crate::injection::{Scrubber, Template};
use crate::key_health::SelectedKey;
use crate::upstream::{Answer, AnswerBody, Lease};
use crate::websocket::Switched;

/// The head of the provider's answer and what is needed to pass the rest on.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) head: response::Parts,
    pub(crate) body: AnswerBody,
    pub(crate) lease: Lease,
    pub(crate) call: Arc<PermittedCall>,
    pub(crate) key: Option<SelectedKey>,
    /// What the body has to go through.
    pub(crate) scrubber: Option<Scrubber>,
    /// Where the connection goes on with another protocol.
    pub(crate) switched: Option<Switched>,
    pub(crate) faults: Faults,
    /// What ends with the token that the call was made with.
    pub(crate) proof: Option<Box<CallProof>>,
}

impl Answered {
    pub(crate) fn new(
        answer: Box<Answer>,
        call: Arc<PermittedCall>,
        key: Option<SelectedKey>,
        context: &CallerContext,
        faults: Faults,
    ) -> Box<Self> {
        let (lease, (mut head, body)) = (answer.lease, answer.response.into_parts());
        // That of the connection to the provider; the caller has a connection, and a version, of its own (RFC 9110, section 2.5).
        head.version = Version::HTTP_11;
        let proof = context.proof().map(Box::new);
        boxed(|| Self { head, body, lease, call, key, scrubber: None, switched: None, faults, proof })
    }

    /// With what the connection goes on with, where `template` asked for that and the provider agrees.
    ///
    /// # Errors
    /// As [`Template::switched`].
    pub(crate) fn switched(mut self: Box<Self>, template: &Template) -> Result<Box<Self>, Denial> {
        self.switched = template.switched(&mut self.head)?;
        Ok(self)
    }
}
