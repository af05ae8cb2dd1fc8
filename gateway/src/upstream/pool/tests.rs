use std::any::Any;
use std::net::SocketAddr;

use hyper::client::conn::http1;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::io::duplex;

use super::*;
use crate::ledger::{Gate, Ledger, samples};
use crate::upstream::health::EndpointSlot;
use crate::upstream::source::SourceSlot;

/// A pool, and what the connections in it live by.
struct Fixture {
    pool: Pool,
    alive: Vec<Box<dyn Any>>,
    _directory: TempDir,
}

fn fixture() -> Fixture {
    let directory = samples::directory();
    let (ledger, _) = Ledger::open(directory.path(), None, 1).unwrap();
    let pool = Pool::new(
        ledger.journal(0).unwrap(),
        Resolver::new(&[]),
        (SourceAddresses::new(), UpstreamHealth::default()),
        128,
    );
    Fixture { pool, alive: vec![Box::new(ledger)], _directory: directory }
}

fn key(destination: &str, host: &str) -> PoolKey {
    let destination = destination.parse().unwrap();
    PoolKey {
        destination,
        host: host.into(),
        port: 443,
        tls: 1,
        sources: SourcePool::default(),
        turns: [None, None],
        credential: None,
        certificate: None,
        offer: AlpnOffer::Http1,
        proxy: None,
    }
}

fn state(host: &str) -> Arc<ConnectionState> {
    let remote: SocketAddr = "192.0.2.1:443".parse().unwrap();
    let endpoint = EndpointSlot::sample(remote);
    Arc::new(ConnectionState::new(host.into(), remote, SourceSlot::of_system(remote.ip()), endpoint))
}

impl Fixture {
    /// A new connection to `host`, idle from now on.
    async fn kept(&mut self, destination: &str, host: &str) -> Arc<Bucket> {
        let bucket = self.pool.bucket(&key(destination, host)).unwrap();
        self.pool.make_room(&destination.parse().unwrap());
        let (near, far) = duplex(64);
        let (sender, connection) = http1::handshake(TokioIo::new(near)).await.unwrap();
        self.alive.push(Box::new((connection, far)));
        let gate = Arc::new(Gate::new(&self.pool.journal));
        bucket.put(Http1Sender { sender, gate }, state(host));
        tokio::time::advance(Duration::from_micros(10)).await;
        bucket
    }

    async fn shared(&mut self, bucket: &Bucket, caller: &Identity, allowed: usize) -> Sender {
        let (near, far) = duplex(4096);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(near)).await.unwrap();
        self.alive.push(Box::new((connection, far)));
        bucket.begin(Negotiated::Http2(sender, StreamLimit::fixed(allowed)), caller, &state("api.test"))
    }
}

#[tokio::test(start_paused = true)]
async fn idle_connections_to_one_destination_are_bounded_whatever_their_hosts() {
    let mut fixture = fixture();
    let other = fixture.kept("other", "api.other.test").await;
    let first = fixture.kept("wild", "a0.wild.test").await;
    for number in 1..IDLE_PER_DESTINATION + 10 {
        fixture.kept("wild", &format!("a{number}.wild.test")).await;
        let kept = lock(&fixture.pool.buckets).0.values().map(|b| lock(&b.http1).len()).sum::<usize>();
        assert!(kept <= IDLE_PER_DESTINATION + 1, "{kept}");
    }
    assert!(lock(&first.http1).is_empty(), "the oldest goes");
    assert_eq!(lock(&other.http1).len(), 1, "that of another destination stays");
    let newest = fixture.kept("wild", "new.wild.test").await;
    assert_eq!(lock(&newest.http1).len(), 1);
    assert!(fixture.pool.sweep() > LEFT_PER_DESTINATION);
    assert!(lock(&fixture.pool.buckets).0.len() <= IDLE_PER_DESTINATION + 2);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_with_its_time_and_one_in_use_does_not() {
    let mut fixture = fixture();
    let caller: Identity = "spiffe://prod.acme/ns/shop/sa/web".parse().unwrap();
    let bucket = fixture.kept("up", "api.test").await;
    let sender = fixture.shared(&bucket, &caller, 100).await;
    assert_eq!(fixture.pool.sweep(), 2);
    tokio::time::advance(IDLE_LIMIT).await;
    assert_eq!(fixture.pool.sweep(), 1);
    drop(sender);
    assert_eq!(fixture.pool.sweep(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_http2_connection_serves_its_own_caller_alone() {
    let mut fixture = fixture();
    let [one, two]: [Identity; 2] =
        ["spiffe://prod.acme/ns/shop/sa/web", "spiffe://prod.acme/ns/shop/sa/api"]
            .map(|id| id.parse().unwrap());
    let bucket = fixture.pool.bucket(&key("up", "api.test")).unwrap();
    let sender = fixture.shared(&bucket, &one, 100).await;
    assert!(bucket.take(&two, |_| true).is_none());
    assert!(bucket.take(&one, |_| true).is_some());
    drop(sender);
    assert!(bucket.take(&two, |_| true).is_none());
}

#[tokio::test(start_paused = true)]
async fn an_http2_connection_takes_no_more_streams_than_the_other_side_allows() {
    let mut fixture = fixture();
    let caller: Identity = "spiffe://prod.acme/ns/shop/sa/web".parse().unwrap();
    let bucket = fixture.pool.bucket(&key("up", "api.test")).unwrap();
    let first = fixture.shared(&bucket, &caller, 2).await;
    let second = bucket.take(&caller, |_| true);
    assert!(second.is_some());
    assert!(bucket.take(&caller, |_| true).is_none(), "the third needs another connection");
    drop(first);
    assert!(bucket.take(&caller, |_| true).is_some());
}

#[tokio::test(start_paused = true)]
async fn connections_to_where_a_call_got_no_answer_are_not_handed_out_again() {
    let mut fixture = fixture();
    let caller: Identity = "spiffe://prod.acme/ns/shop/sa/web".parse().unwrap();
    let bucket = fixture.kept("up", "api.test").await;
    let _sender = fixture.shared(&bucket, &caller, 100).await;
    bucket.retire();
    assert!(bucket.take(&caller, |_| true).is_none());
}
