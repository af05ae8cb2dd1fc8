use std::sync::atomic::AtomicU32;

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::*;

/// What a server of ours says to one question; `None`: nothing.
type Says = Option<(ResponseCode, Vec<IpAddr>, u32)>;

/// A DNS server on loopback.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicU32>,
    says: Arc<Mutex<Says>>,
}

impl Server {
    /// Says of IPv4 what it is told, and of IPv6 that there is none.
    async fn start(says: Says) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (asked, says) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(says)));
        let (count, script) = (Arc::clone(&asked), Arc::clone(&says));
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let question = Message::from_vec(&buffer[..length]).unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let says = script.lock().unwrap().clone();
                if let Some(answer) = says.map(|says| answer(&question, says)) {
                    socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
                }
            }
        });
        Self { address, asked, says }
    }

    fn resolver(&self) -> Resolver {
        Resolver::new(&[self.address])
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }

    fn now_says(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }
}

fn answer(question: &Message, (code, addresses, ttl): (ResponseCode, Vec<IpAddr>, u32)) -> Message {
    let query = question.queries[0].clone();
    let mut answer = Message::response(question.id, question.op_code);
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.response_code = code;
    for address in addresses {
        let data = match address {
            IpAddr::V4(v4) => RData::A(v4.into()),
            IpAddr::V6(v6) => RData::AAAA(v6.into()),
        };
        let kind = if address.is_ipv4() { RecordType::A } else { RecordType::AAAA };
        if query.query_type() == kind {
            answer.add_answer(Record::from_rdata(query.name().clone(), ttl, data));
        }
    }
    answer.add_query(query);
    answer
}

fn found(address: &str, ttl: u32) -> Says {
    Some((ResponseCode::NoError, vec![address.parse().unwrap()], ttl))
}

fn destination(name: &str) -> ResourceId {
    name.parse().unwrap()
}

async fn v4(resolver: &Resolver, host: &str) -> LookupResult {
    resolver.lookup(host, AddressFamily::V4, &destination("up")).await
}

fn one(address: &str) -> LookupResult {
    Ok([address.parse().unwrap()].into())
}

#[tokio::test]
async fn a_name_is_asked_for_once_however_many_wait_and_not_again_before_its_time() {
    let server = Server::start(found("192.0.2.7", 60)).await;
    let resolver = server.resolver();
    let mut waiting = JoinSet::new();
    for _ in 0..50 {
        let resolver = resolver.clone();
        waiting.spawn(async move { v4(&resolver, "api.test").await });
    }
    while let Some(found) = waiting.join_next().await {
        assert_eq!(found.unwrap(), one("192.0.2.7"));
    }
    assert_eq!(v4(&resolver, "api.test").await, one("192.0.2.7"));
    assert_eq!(server.asked(), 1);
    assert_eq!(resolver.lookup("api.test", AddressFamily::V6, &destination("up")).await, Ok([].into()));
}

#[tokio::test]
async fn a_name_that_moved_is_found_again_after_its_time() {
    let server = Server::start(found("192.0.2.7", 0)).await;
    let resolver = server.resolver();
    assert_eq!(v4(&resolver, "api.test").await, one("192.0.2.7"));
    server.now_says(found("192.0.2.8", 0));
    assert_eq!(v4(&resolver, "api.test").await, one("192.0.2.7"), "it holds for a moment all the same");
    sleep(HOLDS.0).await;
    assert_eq!(v4(&resolver, "api.test").await, one("192.0.2.8"));
}

#[tokio::test]
async fn a_question_goes_with_the_last_call_that_waits_for_it() {
    let server = Server::start(None).await;
    let resolver = server.resolver();
    let waited = timeout(Duration::from_millis(100), v4(&resolver, "api.test")).await;
    assert!(waited.is_err(), "nobody answers");
    let key = ("api.test".into(), AddressFamily::V4);
    assert!(!resolver.0.lock().names[&key].is_waited_for());
    assert_eq!(resolver.0.lookups.available_permits(), IN_ALL);
}

#[tokio::test(start_paused = true)]
async fn who_still_waits_when_a_question_was_in_vain_asks_it_again() {
    let server = Server::start(None).await;
    let resolver = server.resolver();
    let mut waiting = JoinSet::new();
    for _ in 0..3 {
        let resolver = resolver.clone();
        waiting.spawn(async move { timeout(ASKED_FOR * 3, v4(&resolver, "api.test")).await });
    }
    while let Some(waited) = waiting.join_next().await {
        assert!(waited.unwrap().is_err());
    }
}

#[tokio::test]
async fn names_that_nobody_answers_for_keep_only_their_own_destination_waiting() {
    let server = Server::start(None).await;
    let resolver = server.resolver();
    let mut stuck = JoinSet::new();
    for number in 0..100 {
        let resolver = resolver.clone();
        let host = format!("h{number}.wild.test");
        stuck.spawn(async move { resolver.lookup(&host, AddressFamily::V4, &destination("wild")).await });
    }
    while server.asked() < PER_DESTINATION as u32 {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(IN_ALL - resolver.0.lookups.available_permits(), PER_DESTINATION);
    server.now_says(found("192.0.2.7", 60));
    let other = timeout(Duration::from_secs(2), v4(&resolver, "api.test")).await;
    assert_eq!(other.expect("others are served meanwhile"), one("192.0.2.7"));
}

#[tokio::test]
async fn an_old_answer_stands_in_while_nobody_gives_a_newer_one_and_never_for_one_that_is_no_more() {
    let server = Server::start(found("192.0.2.7", 0)).await;
    let resolver = server.resolver();
    assert_eq!(v4(&resolver, "api.test").await, one("192.0.2.7"));
    for silent in [None, Some((ResponseCode::ServFail, Vec::new(), 0))] {
        sleep(HOLDS.0).await;
        server.now_says(silent);
        assert_eq!(v4(&resolver, "api.test").await, one("192.0.2.7"));
        resolver.0.lock().names.values_mut().for_each(|entry| entry.failed = None);
    }
    server.now_says(Some((ResponseCode::NXDomain, Vec::new(), 0)));
    assert_eq!(v4(&resolver, "api.test").await, Err(LookupError::NoName));
    assert_eq!(v4(&resolver, "api.test").await, Err(LookupError::NoName));
    let mut entry = CachedName::default();
    let now = Instant::now();
    entry.answer = Some((one("192.0.2.7"), now));
    assert!(entry.stale(now + STALE - Duration::from_secs(1)).is_some());
    assert!(entry.stale(now + STALE).is_none(), "not for ever");
}

#[tokio::test]
async fn what_is_remembered_is_bounded() {
    let server = Server::start(Some((ResponseCode::NXDomain, Vec::new(), 0))).await;
    let resolver = server.resolver();
    for number in 0..NAMES + 10 {
        let key = (format!("h{number}.wild.test").into(), AddressFamily::V4);
        resolver.0.answered(&key, one("192.0.2.7"), HOLDS.1);
    }
    assert_eq!(v4(&resolver, "api.test").await, Err(LookupError::NoName));
    assert!(resolver.0.lock().names.len() <= NAMES);
    for port in 0..2000 {
        resolver.avoid(SocketAddr::from(([192, 0, 2, 7], port)));
    }
    assert!(resolver.0.lock().avoided.len() <= AVOIDED_AT_ONCE);
    assert!(resolver.avoids(SocketAddr::from(([192, 0, 2, 7], 0))));
}

#[tokio::test]
async fn the_hosts_file_comes_first() {
    let server = Server::start(found("192.0.2.7", 60)).await;
    let found = v4(&server.resolver(), "localhost").await.unwrap();
    assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty(), "{found:?}");
    assert_eq!(server.asked(), 0);
}
