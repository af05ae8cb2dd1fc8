//! The entry points to the gateway, what differs between them, and where a rule has nothing to say of one.

/// A way to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryPoint {
    Http1ByBaseUrl,
    Http2ByHost,
    HboneHttp,
    HboneTls,
    HboneTcp,
    DoubleHboneHttp,
    DoubleHboneTcp,
    ForwardAbsolute,
    ForwardClear,
    ForwardIntercepted,
    ForwardTunnel,
    ForwardTunnelHttp2,
    ForwardTls,
    TcpListener,
    TlsByServerName,
    WebSocketHttp1,
    WebSocketHttp2,
    Sandwich,
    SandwichTcp,
}

/// What comes in through an entry point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// HTTP requests, which get a key.
    Requests,
    /// The messages of a WebSocket, whose handshake gets a key.
    Messages,
    /// Bytes that nobody looks into.
    Bytes,
}

/// The form in which an entry point refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// With this status and the reason in a header.
    Answer(u16),
    /// With a reset: what is spoken there has no room for a reason.
    Reset,
}

/// What holds at every entry point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A call is one record, with its caller, destination, proof and source address, and is counted once.
    Recorded,
    /// Without a grant it is refused, in the entry point's own form, with a record that says why.
    Refused,
    /// A limit refuses what goes beyond it.
    Limited,
    /// The key reaches the destination and not the caller.
    Hidden,
    /// What passes is in no sink.
    Unseen,
    /// What a caller says of itself in headers is not believed, and not passed on.
    Unbelieved,
    /// What is open ends when its grant is withdrawn.
    Withdrawn,
    /// A revoked certificate opens nothing, and ends what it has opened.
    Revoked,
    /// What a certificate has opened ends with it.
    Expired,
    /// A drain lets finish, and cuts at its end.
    Drained,
}

impl Rule {
    pub(crate) const ALL: [Self; 10] = [
        Self::Recorded,
        Self::Refused,
        Self::Limited,
        Self::Hidden,
        Self::Unseen,
        Self::Unbelieved,
        Self::Withdrawn,
        Self::Revoked,
        Self::Expired,
        Self::Drained,
    ];
}

/// An entry point, and what is its own.
pub(crate) struct Row {
    pub(crate) entry_point: EntryPoint,
    /// Also of its grant, and of its caller's service account.
    pub(crate) name: &'static str,
    pub(crate) traffic: Traffic,
    pub(crate) destination: &'static str,
    /// What its records say of how the caller was proven.
    pub(crate) proof: &'static str,
    /// Where 403 is meant.
    pub(crate) without_grant: Refusal,
    /// Where 429 is meant.
    pub(crate) beyond_limit: Refusal,
    /// Whether its caller can tell a cut from an end.
    pub(crate) tells_cut: bool,
    /// The rules that have nothing to say here, and why.
    exceptions: &'static [(Rule, &'static str)],
}

const NO_KEY: (Rule, &str) =
    (Rule::Hidden, "nobody looks into what is passed through, so no credential is put on it");
const READ_BY_DESIGN: (Rule, &str) =
    (Rule::Unseen, "a request is read to decide on it: its path is recorded, and `leaks.rs` sweeps the rest");
const NO_HEAD: (Rule, &str) = (Rule::Unbelieved, "nothing that comes here has fields");
const PROXY_VERIFIES: (Rule, &str) =
    (Rule::Revoked, "the listed proxy has verified the workload: its certificate is not seen here");
const PROXY_CLOSES: (Rule, &str) =
    (Rule::Expired, "the listed proxy knows when the workload's certificate ends: it is not seen here");

const fn http(entry_point: EntryPoint, name: &'static str) -> Row {
    Row {
        entry_point,
        name,
        traffic: Traffic::Requests,
        destination: "up",
        proof: "mtls",
        without_grant: Refusal::Answer(403),
        beyond_limit: Refusal::Answer(429),
        tells_cut: true,
        exceptions: &[READ_BY_DESIGN],
    }
}

const fn websocket(entry_point: EntryPoint, name: &'static str) -> Row {
    Row { traffic: Traffic::Messages, destination: "ws", exceptions: &[], ..http(entry_point, name) }
}

const fn passed(entry_point: EntryPoint, name: &'static str, destination: &'static str) -> Row {
    Row { traffic: Traffic::Bytes, destination, exceptions: &[NO_KEY], ..http(entry_point, name) }
}

/// Every entry point.
pub(crate) const ENTRY_POINTS: [Row; 19] = [
    http(EntryPoint::Http1ByBaseUrl, "http1"),
    http(EntryPoint::Http2ByHost, "http2"),
    Row { without_grant: Refusal::Answer(401), ..http(EntryPoint::HboneHttp, "hbone-http") },
    Row { without_grant: Refusal::Answer(401), ..passed(EntryPoint::HboneTls, "hbone-tls", "named") },
    Row { without_grant: Refusal::Answer(401), ..passed(EntryPoint::HboneTcp, "hbone-tcp", "queue") },
    Row { without_grant: Refusal::Answer(401), ..http(EntryPoint::DoubleHboneHttp, "double-hbone-http") },
    Row {
        without_grant: Refusal::Answer(401),
        ..passed(EntryPoint::DoubleHboneTcp, "double-hbone-tcp", "queue")
    },
    http(EntryPoint::ForwardAbsolute, "absolute"),
    http(EntryPoint::ForwardClear, "clear"),
    http(EntryPoint::ForwardIntercepted, "intercepted"),
    passed(EntryPoint::ForwardTunnel, "tunnel", "queue"),
    // Its stream ends with END_STREAM whenever the gateway lets go of it (hyper 1.12, `proto/h2/upgrade.rs`).
    Row { tells_cut: false, ..passed(EntryPoint::ForwardTunnelHttp2, "tunnel-http2", "queue") },
    passed(EntryPoint::ForwardTls, "tunnel-tls", "named"),
    Row {
        without_grant: Refusal::Reset,
        beyond_limit: Refusal::Reset,
        exceptions: &[NO_KEY, NO_HEAD],
        ..passed(EntryPoint::TcpListener, "tcp", "queue")
    },
    Row {
        without_grant: Refusal::Reset,
        beyond_limit: Refusal::Reset,
        exceptions: &[NO_KEY, NO_HEAD],
        ..passed(EntryPoint::TlsByServerName, "tls", "named")
    },
    websocket(EntryPoint::WebSocketHttp1, "websocket-http1"),
    websocket(EntryPoint::WebSocketHttp2, "websocket-http2"),
    Row {
        proof: "proxy",
        exceptions: &[READ_BY_DESIGN, PROXY_VERIFIES, PROXY_CLOSES],
        ..http(EntryPoint::Sandwich, "sandwich")
    },
    Row {
        proof: "proxy",
        without_grant: Refusal::Reset,
        beyond_limit: Refusal::Reset,
        exceptions: &[NO_KEY, NO_HEAD, PROXY_VERIFIES, PROXY_CLOSES],
        ..passed(EntryPoint::SandwichTcp, "sandwich-tcp", "queue")
    },
];

impl Row {
    /// Whether the rule has something to say here; where not, the table says why.
    pub(crate) fn obeys(&self, rule: Rule) -> bool {
        self.exceptions.iter().all(|(exception, _)| *exception != rule)
    }

    /// Why rules have nothing to say here.
    pub(crate) fn exceptions(&self) -> impl Iterator<Item = &(Rule, &'static str)> {
        self.exceptions.iter()
    }
}

/// The entry points that a rule holds at.
pub(crate) fn under(rule: Rule) -> impl Iterator<Item = &'static Row> {
    const { &ENTRY_POINTS }.iter().filter(move |row| row.obeys(rule))
}
