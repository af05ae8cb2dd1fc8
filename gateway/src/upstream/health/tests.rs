use std::time::Duration;

use tokio::time::advance;
use tollgate_policy::policy::{CircuitBreaker, OutlierDetection, Retries};

use super::circuit::DialTicket;
use super::*;

const RULES: OutlierDetection = OutlierDetection {
    consecutive_gateway_errors: 3,
    base_ejection_time: Duration::from_secs(10),
    max_ejection_time: Duration::from_secs(25),
    max_ejection_percent: 50,
};

fn host() -> (UpstreamHealth, Arc<HostHealth>) {
    let health = UpstreamHealth::default();
    let host = health.host(&"up".parse().unwrap(), &"api.up.test".into());
    (health, host)
}

fn endpoints(host: &HostHealth, count: u8) -> Vec<Arc<Endpoint>> {
    (1..=count).map(|n| host.endpoint(SocketAddr::from(([192, 0, 2, n], 443)))).collect()
}

fn fail(host: &HostHealth, endpoint: &Endpoint, times: u32) {
    (0..times).for_each(|_| host.failed(endpoint, EndpointFailure::GatewayError, &RULES));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_ejected_after_failures_in_a_row_and_comes_back_by_time() {
    let (health, host) = host();
    let all = endpoints(&host, 2);
    fail(&host, &all[0], 2);
    all[0].succeeded();
    fail(&host, &all[0], 2);
    assert!(!all[0].is_ejected(), "a success between them");
    fail(&host, &all[0], 1);
    assert!(all[0].is_ejected() && !all[1].is_ejected());
    let status = health.status(&"up".parse().unwrap()).unwrap();
    assert_eq!((status.ejections, status.endpoints[0].3, status.endpoints[1].3), (1, Some(10), None));
    advance(Duration::from_secs(10)).await;
    assert!(!all[0].is_ejected());
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_and_fails_again_is_ejected_at_once_and_for_longer_up_to_a_bound() {
    let (_, host) = host();
    let all = endpoints(&host, 2);
    fail(&host, &all[0], 3);
    for seconds in [10, 20, 25, 25] {
        assert_eq!(all[0].ejected_for(), Some(Duration::from_secs(seconds)));
        advance(Duration::from_secs(seconds)).await;
        assert!(!all[0].is_ejected());
        fail(&host, &all[0], 1);
    }
    // What it was back for is taken off.
    advance(Duration::from_secs(25)).await;
    assert!(!all[0].is_ejected());
    all[0].succeeded();
    advance(Duration::from_secs(50)).await;
    fail(&host, &all[0], 3);
    assert_eq!(all[0].ejected_for(), Some(Duration::from_secs(10)));
}

#[tokio::test(start_paused = true)]
async fn the_last_that_works_stays_and_no_more_than_the_share_goes() {
    let (_, host) = host();
    let all = endpoints(&host, 1);
    fail(&host, &all[0], 10);
    assert!(!all[0].is_ejected(), "there is no other");
    let all = endpoints(&host, 4);
    // The first fails, too, and is not ejected: it is no other that works.
    fail(&host, &all[1], 3);
    assert!(all[1].is_ejected());
    fail(&host, &all[2], 3);
    assert!(all[2].is_ejected(), "half of four");
    fail(&host, &all[0], 1);
    assert!(!all[0].is_ejected(), "more than half of four");
    let (_, both) = self::host();
    let two = endpoints(&both, 2);
    for _ in 0..10 {
        two.iter().for_each(|endpoint| fail(&both, endpoint, 1));
    }
    assert!(
        two.iter().all(|endpoint| !endpoint.is_ejected()),
        "the service is in trouble, no endpoint of it"
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_ejected_where_that_is_switched_off() {
    let (_, host) = host();
    let all = endpoints(&host, 2);
    let off = OutlierDetection { consecutive_gateway_errors: 0, ..RULES };
    (0..100).for_each(|_| host.failed(&all[0], EndpointFailure::Reset, &off));
    assert!(!all[0].is_ejected());
}

#[tokio::test(start_paused = true)]
async fn addresses_that_a_name_had_are_forgotten() {
    let (_, host) = host();
    drop(endpoints(&host, 3));
    advance(Duration::from_secs(601)).await;
    let _new = host.endpoint("192.0.2.9:443".parse().unwrap());
    assert_eq!(lock(&host.endpoints).len(), 1);
}

#[test]
fn a_circuit_opens_after_dials_that_fail_in_a_row_and_one_at_a_time_tries() {
    let (health, host) = host();
    let take = || DialTicket::take(&host);
    (0..4).for_each(|_| take().unwrap().failed());
    take().unwrap().succeeded();
    (0..4).for_each(|_| take().unwrap().failed());
    drop(take().unwrap());
    assert!(!host.circuit.is_open());
    take().unwrap().failed();
    assert!(host.circuit.is_open());
    let probe = take().unwrap();
    assert_eq!(take().unwrap_err(), CircuitError::Unreachable);
    drop(probe);
    let probe = take().unwrap();
    probe.failed();
    assert_eq!(health.status(&"up".parse().unwrap()).unwrap().open, [Arc::<str>::from("api.up.test")]);
    take().unwrap().succeeded();
    let (_one, _other) = (take().unwrap(), take().unwrap());
    assert!(!host.circuit.is_open());
    // The other hosts of a destination are none of it.
    let other = health.host(&"up".parse().unwrap(), &"other.up.test".into());
    assert!(DialTicket::take(&other).is_ok() && Arc::ptr_eq(&other.destination, &host.destination));
}

#[tokio::test(start_paused = true)]
async fn connections_are_bounded_and_one_that_is_closed_makes_room() {
    let (health, host) = host();
    let two = CircuitBreaker { max_connections: Some(2), max_requests: None };
    let first = ConnectionSlot::take(&host, two, || false).await.unwrap();
    let _second = ConnectionSlot::take(&host, two, || false).await.unwrap();
    let full = ConnectionSlot::take(&host, two, || false).await;
    assert_eq!(full.unwrap_err(), CircuitError::Connections(2));
    assert!(host.destination.occupancy.is_wanted());
    let first = Mutex::new(Some(first));
    let shed = || first.lock().unwrap().take().is_some();
    let third = ConnectionSlot::take(&host, two, shed).await.unwrap();
    let _unbounded = ConnectionSlot::take(&host, CircuitBreaker::default(), || false).await.unwrap();
    assert_eq!(health.status(&"up".parse().unwrap()).unwrap().connections, 3);
    drop(third);
    assert_eq!(host.destination.occupancy.connections(), 2);
}

#[tokio::test(start_paused = true)]
async fn retries_are_a_share_of_the_calls_of_the_last_ten_seconds() {
    let rules = Retries { attempts: 3, budget_percent: 20, min_per_second: 1, on: Vec::new() };
    let budget = RetryBudget::new(Instant::now());
    let many = |begun: &mut u64| {
        let taken = || {
            *begun += 1;
            budget.take(&rules, *begun, Instant::now())
        };
        std::iter::repeat_with(taken).take(500).take_while(|taken| *taken).count()
    };
    // Nothing was called: one a second, for ten.
    assert_eq!(many(&mut 0), 10);
    // A hundred calls in the next ten seconds, of which all of the first five count.
    advance(Duration::from_secs(20)).await;
    let mut begun = 4011;
    let taken = many(&mut begun);
    assert!((205..=260).contains(&taken), "{taken}: a fifth of those of five seconds of twenty, and ten");
    assert_eq!(budget.counts().1, 2);
    advance(Duration::from_secs(30_000)).await;
    assert_eq!(many(&mut begun), 10, "those of before are forgotten");
    let none = Retries { budget_percent: 0, min_per_second: 0, ..rules };
    assert!(!budget.take(&none, 10_000, Instant::now()));
}

#[test]
fn a_destination_has_as_many_calls_as_it_leaves_free() {
    let (health, host) = host();
    let occupancy = &host.destination.occupancy;
    let none = CircuitBreaker::default();
    let taken = (0..10u64).take_while(|taken| occupancy.begin(none, 10 - taken).is_ok()).count();
    assert_eq!(taken, 5, "half of ten");
    assert_eq!(occupancy.begin(none, 0), Err(CircuitError::Share));
    // Where a number is set, it holds whatever is free.
    let other = health.host(&"other".parse().unwrap(), &"api.up.test".into());
    let two = CircuitBreaker { max_connections: None, max_requests: Some(2) };
    let begin = || other.destination.occupancy.begin(two, 0);
    assert_eq!([begin(), begin(), begin()], [Ok(()), Ok(()), Err(CircuitError::Calls(2))]);
    (0..2).for_each(|_| other.destination.occupancy.end());
    assert_eq!(begin(), Ok(()));
}
