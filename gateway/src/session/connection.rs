//! A caller's connection, in whatever mode it is proxied.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use http::HeaderMap;
use jiff::Timestamp;
use tollgate_policy::denial::Denial;
use tollgate_policy::operation::{HttpRequest, RequestLine};
use tollgate_policy::policy::Policy;
use tollgate_policy::target::{Target, TunnelAuthority};

use super::deadline::{HeaderDeadline, Late};
use super::shutdown::{Shutdown, ShutdownSignal};
use super::write_progress::{WriteProgress, Writes};
use crate::caller_body::{BodyProgress, CallerBody, Leftover};
use crate::caller_occupancy::OccupancySlot;
use crate::identity::{Proofs, ShownTo};
use crate::incoming::IncomingBody;
use crate::min_rate::MinRate;

/// How a connection came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProxyMode {
    /// Over a socket of its own.
    Direct,
    /// In a tunnel of the mesh, which leads there.
    Hbone(TunnelAuthority),
    /// To the gateway as a proxy.
    Forward,
    /// In a tunnel that a proxy was asked for, which leads there.
    Intercepted(TunnelAuthority),
}

impl ProxyMode {
    /// What the gateway is to those who came in it.
    pub(crate) const fn shown_to(&self) -> ShownTo {
        match self {
            Self::Forward => ShownTo::Proxy,
            Self::Direct | Self::Hbone(_) | Self::Intercepted(_) => ShownTo::Server,
        }
    }

    /// Where a request goes that came in it, and what it asks there. `named` is told of that before its tunnel has a say, so that the
    /// record of what is refused then says where it would have gone.
    ///
    /// # Errors
    /// As [`Policy::resolve`]; `ambiguous_authority` too where its tunnel leads elsewhere.
    pub(crate) fn resolve(
        &self,
        policy: &Policy,
        line: &RequestLine<'_>,
        named: impl FnOnce(&Target, &HttpRequest),
    ) -> Result<(Target, HttpRequest), Denial> {
        let (target, request) = policy.resolve(line)?;
        named(&target, &request);
        if let Self::Hbone(authority) | Self::Intercepted(authority) = self {
            policy.tunnel(authority)?.check(&target, request.path_prefix().is_some())?;
        }
        Ok((target, request))
    }
}

/// What a listener knows of a connection, but for who is on it.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) address: SocketAddr,
    pub(crate) mode: ProxyMode,
    pub(crate) http2: bool,
    /// Its stream tells this of every byte that comes.
    pub(crate) deadline: Arc<HeaderDeadline>,
}

/// The first request of a connection, which has not come.
#[derive(Clone, Copy, Debug)]
pub(super) struct AwaitedRequest {
    /// Seconds since the connection was opened.
    pub(super) opened_for: i64,
    /// Seconds since it was told to end, if it was.
    pub(super) told_for: Option<i64>,
}

/// What is known of a caller's connection, for all requests on it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) address: SocketAddr,
    pub(crate) mode: ProxyMode,
    pub(crate) http2: bool,
    /// Shared by all that comes in tunnels on one connection.
    pub(crate) proofs: Arc<Proofs>,
    pub(crate) shutdown: ShutdownSignal,
    pub(crate) deadline: Arc<HeaderDeadline>,
    pub(super) writes: Writes,
    /// Of the request under way, where there is one at a time.
    body: Option<Arc<BodyProgress>>,
    /// It holds no more than it has to until a request comes.
    is_parked: AtomicBool,
    /// When it was opened, in seconds.
    opened: i64,
    /// When it was first told to end, in seconds; 0: it was not.
    told: AtomicI64,
    _place: Option<Arc<OccupancySlot>>,
}

impl Session {
    /// Of a connection with what it has to show, and its place among its caller's; none where it has shown nothing.
    pub(crate) fn new(arrival: Arrival, (proofs, place): (Proofs, Option<OccupancySlot>)) -> Self {
        Self::of(arrival, Arc::new(proofs), place.map(Arc::new))
    }

    /// Of what comes in a tunnel on this connection: it proves what the connection proves, and has a `place` of its own among the
    /// connections of its caller.
    pub(crate) fn tunnelled(
        &self,
        mode: ProxyMode,
        http2: bool,
        deadline: Arc<HeaderDeadline>,
        place: Arc<OccupancySlot>,
    ) -> Self {
        let arrival = Arrival { address: self.address, mode, http2, deadline };
        Self::within(arrival, Arc::clone(&self.proofs), place)
    }

    /// Of what comes in a tunnel, with the proofs of whoever has opened it and a place among the connections of that caller.
    pub(crate) fn within(arrival: Arrival, proofs: Arc<Proofs>, place: Arc<OccupancySlot>) -> Self {
        Self::of(arrival, proofs, Some(place))
    }

    /// With a place that more than the connection holds.
    pub(crate) fn of(arrival: Arrival, proofs: Arc<Proofs>, place: Option<Arc<OccupancySlot>>) -> Self {
        let Arrival { address, mode, http2, deadline } = arrival;
        Self {
            address,
            mode,
            http2,
            proofs,
            shutdown: ShutdownSignal::default(),
            deadline,
            writes: Writes::default(),
            body: (!http2).then(|| Arc::new(BodyProgress::new())),
            is_parked: AtomicBool::new(false),
            opened: Timestamp::now().as_second(),
            told: AtomicI64::new(0),
            _place: place,
        }
    }

    /// Whether its caller takes too long to ask for something. Over HTTP/2 that is answered by pings.
    pub(super) fn late(&self, now: Timestamp) -> Option<Late> {
        if self.http2 {
            None
        } else if self.is_answered_early(now) {
            Some(Late::Body)
        } else {
            self.deadline.late(now.as_second())
        }
    }

    /// How long its first request has been awaited; `None`: it has come.
    pub(super) fn awaited_request(&self, now: Timestamp) -> Option<AwaitedRequest> {
        let told = Some(self.told.load(Ordering::Relaxed)).filter(|told| *told != 0);
        (!self.deadline.was_asked()).then(|| AwaitedRequest {
            opened_for: now.as_second() - self.opened,
            told_for: told.map(|told| now.as_second() - told),
        })
    }

    /// Tells whoever drives it how it has to end.
    pub(super) fn tell(&self, order: Shutdown, now: Timestamp) {
        let _ = self.told.compare_exchange(0, now.as_second(), Ordering::Relaxed, Ordering::Relaxed);
        self.shutdown.send(order);
    }

    /// Whether the answer has been over for a while, and the body of its request still comes.
    pub(crate) fn is_answered_early(&self, now: Timestamp) -> bool {
        let is_late = |body: &Arc<BodyProgress>| body.is_late(now.as_second());
        !self.deadline.is_answering() && self.body.as_ref().is_some_and(is_late)
    }

    /// Whether it may be parked: HTTP/1.1 on which nothing was asked for a while and nothing is under way.
    pub(crate) fn can_park(&self, now: Timestamp) -> bool {
        let was_read = self.body.as_ref().is_some_and(|body| body.was_read());
        was_read && !self.is_parked.load(Ordering::Relaxed) && self.deadline.can_park(now.as_second())
    }

    #[cfg(test)]
    pub(crate) fn is_parked(&self) -> bool {
        self.is_parked.load(Ordering::Relaxed)
    }

    /// It is parked from now on, or no longer.
    pub(crate) fn set_parked(&self, is_parked: bool) {
        self.is_parked.store(is_parked, Ordering::Relaxed);
    }

    /// The body of a request on this connection; what it may leave unread goes to `leftover`, where others come beside it.
    pub(crate) fn body(
        &self,
        incoming: IncomingBody,
        headers: &HeaderMap,
        leftover: &mut Option<Leftover>,
    ) -> CallerBody {
        let (body, left) = CallerBody::new(incoming, headers, self.body.as_ref());
        *leftover = left;
        body
    }

    /// Whether nobody will read what is left of the body of the request under way, so that the connection has to close.
    pub(crate) fn body_was_dropped(&self) -> bool {
        self.body.as_ref().is_some_and(|body| body.was_dropped())
    }

    /// For an answer that streams to this caller, who has to take it at the minimum rate where one is given.
    pub(crate) fn write_progress(&self, least: Option<MinRate>) -> Arc<WriteProgress> {
        let progress = Arc::new(WriteProgress::new(least));
        self.writes.add(Arc::downgrade(&progress));
        progress
    }
}
