//! Connections whose callers show a token: how long one may wait with the first, how many may, and what ends with each.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tollgate_tests::client::{Body, Connection};
use tollgate_tests::fixture::CHECKOUT;
use tollgate_tests::idp::Idp;
use tollgate_tests::{Client, Protocol, needs};

use super::{AUDIENCE, Stand};

const SUBJECT: &str = "repo:acme/shop:main";

fn by(client: &Client, token: &str, path: &str) -> http::Request<Body> {
    let mut request = client.request(Method::POST, path, "body");
    request.headers_mut().insert("x-api-key", token.parse().unwrap());
    request
}

/// How long it takes until the peer has closed, at most half a minute.
async fn closes(connection: &Connection, begun: Instant) -> Duration {
    while !connection.closed() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it is still open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_proof_ends_within_seconds_whatever_it_asks_and_one_with_a_late_token_stays() {
    needs!(Idp::installed());
    let stand = Stand::start("optional").await;
    let client = stand.nobody();
    let token = stand.token(SUBJECT).await;
    let begun = Instant::now();
    let silent = client.open(Protocol::H1).await.unwrap();
    let silent_h2 = client.open(Protocol::H2).await.unwrap();
    let mut late = client.open(Protocol::H2).await.unwrap();
    // One that goes on sending the body of what was refused.
    let mut sends = client.open(Protocol::H2).await.unwrap();
    let (body, channel) = Channel::<Bytes, std::io::Error>::new(1);
    let request = client.request(Method::POST, "/up/x", "").map(|_| {
        let body = channel.map_err(|error| -> tollgate_tests::client::Failure { error.into() });
        Body::new(body)
    });
    assert_eq!(sends.start(request).await.unwrap().status(), 401);
    // One that asks without end.
    let mut asks = client.open(Protocol::H2).await.unwrap();
    let asking = async {
        while let Ok(answer) = asks.send(client.request(Method::POST, "/up/x", "body")).await {
            answer.assert_refused(401, "no_proof");
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(begun.elapsed() < Duration::from_secs(30), "it is still answered");
        }
        begun.elapsed()
    };
    let shows = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        late.send(by(&client, &token, "/up/x")).await.unwrap().assert_status(200);
    };
    let ended = async {
        [closes(&silent, begun).await, closes(&silent_h2, begun).await, closes(&sends, begun).await]
    };
    let (ended, asked, ()) = tokio::join!(ended, asking, shows);
    drop(body);
    // None ends before its time; how much later a busy machine comes to it says nothing.
    for after in ended.into_iter().chain([asked]) {
        assert!(after > Duration::from_secs(9), "{after:?}");
    }
    late.send(by(&client, &token, "/up/x")).await.unwrap().assert_status(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_without_a_proof_ends_its_own_oldest_and_no_caller_feels_it() {
    needs!(Idp::installed());
    let stand = Stand::start("optional").await;
    let (nobody, token) = (stand.nobody(), stand.token(SUBJECT).await);
    let checkout = stand.fixture.caller(CHECKOUT);
    let mut kept = nobody.open(Protocol::H2).await.unwrap();
    kept.send(by(&nobody, &token, "/up/x")).await.unwrap().assert_status(200);
    let tls = nobody.tls(&["h2"]);
    let mut flood = Vec::new();
    for wave in 0..10 {
        let opened = (0..80).map(|_| nobody.handshake(tls.clone()));
        flood.extend(futures_util::future::join_all(opened).await.into_iter().flatten());
        checkout.get("/up/x").await.assert_status(200);
        let answer = nobody.send(Protocol::H1, by(&nobody, &token, "/up/x")).await;
        answer.unwrap_or_else(|error| panic!("wave {wave}: {error}")).assert_status(200);
        kept.send(by(&nobody, &token, "/up/x")).await.unwrap().assert_status(200);
    }
    assert!(flood.len() > 700, "{}", flood.len());
    let mut ended = 0;
    for stream in &mut flood {
        let mut bytes = [0; 4096];
        // Tickets and the settings of HTTP/2 come first.
        while let Ok(read) = tokio::time::timeout(Duration::from_millis(2), stream.read(&mut bytes)).await {
            if matches!(read, Ok(0) | Err(_)) {
                ended += 1;
                break;
            }
        }
    }
    // Of one address 256 stay of each core's.
    let most = super::CORES * 256;
    assert!(flood.len() - ended <= most, "{ended} of {} have ended", flood.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_ends_with_the_token_of_its_call_whoever_else_is_proven_on_its_connection() {
    needs!(Idp::installed());
    let stand = Stand::start("none").await;
    let client = stand.nobody();
    let lasting = stand.token(SUBJECT).await;
    let now = unix_seconds();
    let short = json!({"sub": SUBJECT, "aud": AUDIENCE, "exp": now + 4});
    let short = stand.idp.mint(&short, false).await;
    let mut connection = client.open(Protocol::H2).await.unwrap();
    let begun = Instant::now();
    let response = connection.start(by(&client, &short, "/up/slow")).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let reads = async {
        let mut frames = 0;
        loop {
            match body.frame().await {
                Some(Ok(_)) => frames += 1,
                Some(Err(error)) => return (frames, begun.elapsed(), error.to_string()),
                None => panic!("it came to its end after {:?}", begun.elapsed()),
            }
        }
    };
    let asks = async {
        loop {
            connection.send(by(&client, &lasting, "/up/x")).await.unwrap().assert_status(200);
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    };
    let (frames, ended, error) = tokio::select! {
        ended = reads => ended,
        () = asks => unreachable!("it asks for ever"),
    };
    // A minute after it, as what a certificate has permitted; the answer itself would take twice as long.
    assert!(frames > 30 && ended > Duration::from_secs(60), "{frames} frames in {ended:?}: {error}");
    connection.send(by(&client, &lasting, "/up/x")).await.unwrap().assert_status(200);
    connection.send(by(&client, &short, "/up/x")).await.unwrap().assert_refused(401, "token_expired");
}

fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}
