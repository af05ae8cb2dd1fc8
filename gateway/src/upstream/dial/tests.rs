use std::sync::{Arc, LazyLock};

use tollgate_policy::policy::{SourceOrder, SourcePool, SourceRules};

use super::*;
use crate::upstream::health::UpstreamHealth;

fn loopback() -> DialRules {
    DialRules::new(vec!["127.0.0.0/8".parse().unwrap()])
}

fn dial(host: &str, port: u16) -> Dial<'_> {
    static DESTINATION: LazyLock<ResourceId> = LazyLock::new(|| "up".parse().unwrap());
    static SYSTEM: LazyLock<SourcePool> = LazyLock::new(SourcePool::default);
    static HEALTH: LazyLock<Arc<HostHealth>> =
        LazyLock::new(|| UpstreamHealth::default().host(&DESTINATION, &"up".into()));
    const RULES: &OutlierDetection = &OutlierDetection {
        consecutive_gateway_errors: 5,
        base_ejection_time: Duration::from_secs(30),
        max_ejection_time: Duration::from_secs(30),
        max_ejection_percent: 50,
    };
    let deadline = Instant::now() + Duration::from_secs(2);
    let watched = WatchedEndpoints { host: &HEALTH, rules: RULES, except: None };
    Dial { destination: &DESTINATION, host, port, fixed: &[], sources: SYSTEM.in_order(), deadline, watched }
}

fn sources(addresses: &[&str]) -> SourcePool {
    SourcePool::new(SourceRules {
        name: None,
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        order: SourceOrder::Ordered,
        failover: true,
        freebind: false,
    })
}

async fn connect(dial: Dial<'_>, rules: &DialRules) -> Result<Dialled, DialError> {
    let (resolver, sources) = (&Resolver::new(&[]), &SourceAddresses::new());
    dial.connect(DialContext { rules, resolver, sources }).await
}

#[tokio::test]
async fn a_name_that_resolves_to_a_private_address_is_not_dialled() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let refused = connect(dial("localhost", port), &DialRules::new(vec![])).await;
    assert!(matches!(refused, Err(DialError::Refused)), "{refused:?}");
    assert!(connect(dial("127.0.0.1", port), &loopback()).await.is_ok());
}

#[tokio::test]
async fn an_address_of_another_zone_is_dialled_only_where_none_of_our_own_answers() {
    let near = tokio::net::TcpListener::bind("127.0.2.1:0").await.unwrap();
    let port = near.local_addr().unwrap().port();
    let _far = tokio::net::TcpListener::bind(("127.0.1.1", port)).await.unwrap();
    let rules = loopback().in_zone(vec!["127.0.2.0/24".parse().unwrap()]);
    let fixed: Vec<IpAddr> = ["127.0.1.1", "127.0.2.1"].map(|a| a.parse().unwrap()).into();
    let both = || Dial { fixed: &fixed, ..dial("api.test", port) };
    for _ in 0..4 {
        let (_, remote, _) = connect(both(), &rules).await.unwrap().into_parts();
        assert_eq!(remote.ip(), fixed[1]);
    }
    drop(near);
    let (_, remote, _) = connect(both(), &rules).await.unwrap().into_parts();
    assert_eq!(remote.ip(), fixed[0]);
    assert!(!loopback().is_distant(fixed[0]), "no zone is known");
}

#[tokio::test]
async fn the_source_address_is_the_one_the_peer_sees() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let own = sources(&["127.0.0.7"]);
    let from = Dial { sources: own.in_order(), ..dial("127.0.0.1", port) };
    let (stream, remote, source) = connect(from, &loopback()).await.unwrap().into_parts();
    let (_, seen) = listener.accept().await.unwrap();
    assert_eq!(seen, stream.socket().local_addr().unwrap());
    assert_eq!((source.address(), remote), (seen.ip(), listener.local_addr().unwrap()));
    assert_eq!(seen.ip(), "127.0.0.7".parse::<IpAddr>().unwrap());
}

#[tokio::test]
async fn the_next_source_address_is_taken_where_the_first_cannot_be_had() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let pool = sources(&["192.0.2.1", "2001:db8::1", "127.0.0.7", "127.0.0.8"]);
    let from = Dial { sources: pool.in_order(), ..dial("127.0.0.1", port) };
    let (_, _, source) = connect(from, &loopback()).await.unwrap().into_parts();
    assert_eq!(source.address(), "127.0.0.7".parse::<IpAddr>().unwrap());
    let six = sources(&["2001:db8::1"]);
    let other = Dial { sources: six.in_order(), ..from };
    assert!(matches!(connect(other, &loopback()).await, Err(DialError::Family)));
}

#[tokio::test]
async fn a_source_address_that_is_not_ours_is_an_error_and_not_the_default() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let missing = sources(&["192.0.2.1"]);
    let from = Dial { sources: missing.in_order(), ..dial("127.0.0.1", port) };
    assert!(matches!(connect(from, &loopback()).await, Err(DialError::Source(..))));
}

#[tokio::test]
async fn an_address_that_is_bound_freely_and_not_routed_here_is_an_error_of_its_own() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let free =
        SourcePool::new(SourceRules { freebind: true, ..sources(&["192.0.2.1"]).rules().unwrap().clone() });
    let from = Dial { sources: free.in_order(), ..dial("127.0.0.1", port) };
    let refused = connect(from, &loopback()).await;
    assert!(matches!(refused, Err(DialError::Source(..))), "{refused:?}");
}

#[tokio::test]
async fn a_dead_address_costs_a_moment_and_is_tried_last_from_then_on() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // Nothing listens at the first. At the second a queue that is full takes no more, as a host that drops everything.
    let full = TcpSocket::new_v4().unwrap();
    full.bind(SocketAddr::from(([127, 0, 0, 9], port))).unwrap();
    let full = full.listen(1).unwrap();
    let mut queued = Vec::new();
    let waits = || Instant::now() + ATTEMPT_DELAY;
    while let Ok(queue) = timeout_at(waits(), TcpStream::connect(full.local_addr().unwrap())).await {
        queued.push(queue.unwrap());
    }
    let fixed: Vec<IpAddr> = ["127.0.0.8", "127.0.0.9", "127.0.0.1"].map(|a| a.parse().unwrap()).into();
    let dial =
        Dial { fixed: &fixed, deadline: Instant::now() + Duration::from_secs(20), ..dial("api.test", port) };
    let (rules, resolver) = (loopback(), Resolver::new(&[]));
    let context = DialContext { rules: &rules, resolver: &resolver, sources: &SourceAddresses::new() };
    for attempt in 0..2 {
        let begun = Instant::now();
        let (_, remote, _) = dial.connect(context).await.unwrap().into_parts();
        assert_eq!(remote.ip(), fixed[2]);
        assert!(attempt == 0 || begun.elapsed() < ATTEMPT_DELAY, "{:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(10), "not a share of the time for each");
    }
}

#[tokio::test]
async fn an_ejected_endpoint_is_dialled_only_when_all_others_have_failed() {
    let ejected = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = ejected.local_addr().unwrap().port();
    let other = tokio::net::TcpListener::bind(("127.0.0.8", port)).await.unwrap();
    let fixed: Vec<IpAddr> = ["127.0.0.1", "127.0.0.8"].map(|a| a.parse().unwrap()).into();
    let dial = Dial { fixed: &fixed, ..dial("api.test", port) };
    let host = UpstreamHealth::default().host(dial.destination, &"api.test".into());
    let dial = Dial { watched: WatchedEndpoints { host: &host, ..dial.watched }, ..dial };
    let endpoint = host.endpoint(ejected.local_addr().unwrap());
    host.endpoint(other.local_addr().unwrap());
    (0..5).for_each(|_| host.failed(&endpoint, EndpointFailure::GatewayError, dial.watched.rules));
    assert!(endpoint.is_ejected());
    for _ in 0..4 {
        let dialled = connect(dial, &loopback()).await.unwrap();
        assert_eq!(dialled.remote().ip(), fixed[1]);
    }
    drop(other);
    assert_eq!(connect(dial, &loopback()).await.unwrap().remote().ip(), fixed[0]);
}

#[tokio::test]
async fn a_name_that_nobody_answers_for_is_said_to_be_that() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let resolver = Resolver::new(&[silent.local_addr().unwrap()]);
    let dial = Dial { deadline: Instant::now() + Duration::from_millis(300), ..dial("api.test", 443) };
    let (rules, sources) = (&loopback(), &SourceAddresses::new());
    let failed = dial.connect(DialContext { rules, resolver: &resolver, sources }).await;
    assert!(matches!(failed, Err(DialError::Resolve(LookupError::Timeout))), "{failed:?}");
}
