//! A call as grants see it: what is known of it before its body, and what its body asks for.

use std::sync::Arc;

use super::Facts;
use crate::dialect::{Dialect, Endpoint};
use crate::operation::{Operation, Upgrade};
use crate::resource::{Destination, Protocol};

/// What is known of a call before its body.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) destination: &'a Arc<Destination>,
    pub(super) asked: Asked<'a>,
}

/// An operation, as its destination's protocol has it.
#[derive(Clone, Copy)]
pub(super) enum Asked<'a> {
    Http(HttpCall<'a>),
    /// A tunnel, or a session with a database.
    Connection,
    /// Something that the destination's protocol does not have.
    Other,
}

#[derive(Clone, Copy)]
pub(super) struct HttpCall<'a> {
    pub(super) path: &'a str,
    pub(super) method: &'a str,
    pub(super) dialect: &'a Dialect,
    pub(super) endpoint: Option<&'a Arc<Endpoint>>,
    pub(super) upgrade: Option<Upgrade>,
}

/// What a call asks for, once its body was read.
#[derive(Clone, Copy)]
pub(super) struct Requested<'a> {
    pub(super) model: Option<&'a str>,
    pub(super) actions: &'a [Arc<str>],
}

impl<'a> Call<'a> {
    pub(super) fn new(destination: &'a Arc<Destination>, operation: &'a Operation) -> Self {
        Self::of(destination, operation, |dialect, method, path| dialect.endpoint(method, path))
    }

    /// A call whose endpoint was found before.
    pub(super) fn again(
        destination: &'a Arc<Destination>,
        operation: &'a Operation,
        endpoint: Option<&'a Arc<Endpoint>>,
    ) -> Self {
        Self::of(destination, operation, |_, _, _| endpoint)
    }

    fn of(
        destination: &'a Arc<Destination>,
        operation: &'a Operation,
        endpoint: impl FnOnce(&'a Dialect, &str, &str) -> Option<&'a Arc<Endpoint>>,
    ) -> Self {
        let asked = match (operation, &destination.protocol) {
            (Operation::Http(request), Protocol::Http(http)) => {
                let (dialect, path, method) = (&*http.dialect, request.path(), request.method());
                let (endpoint, upgrade) = (endpoint(dialect, method, path), request.upgrade());
                Asked::Http(HttpCall { path, method, dialect, endpoint, upgrade })
            }
            (Operation::Tunnel, Protocol::Tcp(_)) | (Operation::DatabaseSession, Protocol::Postgres) => {
                Asked::Connection
            }
            _ => Asked::Other,
        };
        Self { destination, asked }
    }

    pub(super) fn http(&self) -> Option<&HttpCall<'a>> {
        match &self.asked {
            Asked::Http(http) => Some(http),
            Asked::Connection | Asked::Other => None,
        }
    }

    pub(super) fn endpoint(&self) -> Option<&'a Arc<Endpoint>> {
        self.http()?.endpoint
    }
}

impl<'a> Requested<'a> {
    /// What is known before the body.
    pub(super) const NOTHING: Self = Self { model: None, actions: &[] };

    pub(super) fn of(facts: &'a Facts) -> Self {
        Self { model: facts.model.as_deref(), actions: facts.actions.as_slice() }
    }
}
