//! Connections to a destination that takes nothing, and to one that has TLS from its first byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpSocket;

use super::*;

/// Stalled tunnels of one connection.
const STALLED: usize = 100;
/// More than any of them may take.
const MOST: usize = 64 << 20;
/// What of one connection's tunnels waits in the gateway altogether (`WINDOW_OF_ALL`), in KiB.
const WINDOW: u64 = 16 << 10;
/// What else a tunnel takes: a piece each way, and what it is.
const EACH: u64 = 64;

/// A destination on loopback that takes connections and reads nothing of them.
fn deaf() -> u16 {
    let socket = TcpSocket::new_v4().unwrap();
    // As little as the system has, so that it is the gateway where bytes wait.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1024).unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_destination_that_does_not_read_is_bounded_and_stops_no_other() {
    let mut plan = Plan::new();
    plan.settings.environment = vec![("RUST_LOG".to_owned(), "info".to_owned())];
    let (deaf, echo) = (deaf(), echo().await);
    let resources = passed("deaf", deaf, "tcp", "") + &passed("queue", echo, "tcp", "");
    let fixture = mesh(plan, &resources).await;
    let checkout = workload(&fixture, "tunnels");
    let (deaf, queue) = (format!("deaf.test:{deaf}"), format!("queue.test:{echo}"));
    let works = async |mesh_client: &mut HboneClient| {
        let mut io = mesh_client.tunnel(&queue).await;
        io.write_all(&[7; 100_000]).await.unwrap();
        let mut back = vec![0; 100_000];
        io.read_exact(&mut back).await.unwrap();
    };
    let (mut stalled, mut other) =
        (HboneClient::connect(&checkout).await, HboneClient::connect(&checkout).await);
    works(&mut stalled).await;
    works(&mut other).await;
    let before = resident(fixture.gateway.pid());
    let sent: Arc<AtomicUsize> = Arc::default();
    let write = |mut io: tokio::io::WriteHalf<_>| {
        let sent = sent.clone();
        tokio::spawn(async move {
            let piece = vec![7; 16 << 10];
            for _ in 0..MOST / piece.len() {
                if io.write_all(&piece).await.is_err() {
                    return;
                }
                sent.fetch_add(piece.len(), Ordering::SeqCst);
            }
            panic!("what nobody reads is never all written");
        })
    };
    let mut open = Vec::new();
    let mut writers = Vec::new();
    for number in 0..STALLED {
        let (reader, writer) = tokio::io::split(stalled.tunnel(&deaf).await);
        open.push(reader);
        writers.push(write(writer));
        if number == STALLED / 4 {
            settled(&sent).await;
            works(&mut stalled).await;
        }
    }
    settled(&sent).await;
    let after = resident(fixture.gateway.pid());
    let bytes = sent.load(Ordering::SeqCst);
    eprintln!(
        "{STALLED} stalled tunnels: {bytes} bytes taken, resident {before} KiB before, {after} KiB after"
    );
    assert!(bytes as u64 > WINDOW << 10, "no more than {bytes} bytes went in");
    assert!(writers.iter().all(|writer| !writer.is_finished()), "each of them waits");
    // The buffers that bytes come in are not always full of them.
    let bound = 2 * WINDOW + EACH * STALLED as u64;
    assert!(after < before + bound, "{before} KiB before, {after} KiB after, bound {bound} KiB");
    works(&mut other).await;
    writers.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Waits until no more bytes are taken for two seconds.
async fn settled(sent: &AtomicUsize) {
    let mut before = usize::MAX;
    while before != sent.load(Ordering::SeqCst) {
        before = sent.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_with_tls_from_its_first_byte_gets_that_of_the_gateway_around_plain_bytes() {
    let plan = Plan::new();
    let server = plan.pki.server(&plan.sandbox, &["direct.test"]);
    let upstream = Upstream::raw(&server, &[], None, |stream, _| async move {
        let (mut reader, mut writer) = tokio::io::split(stream);
        if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
            let _ = writer.shutdown().await;
        }
    })
    .await;
    let plain = echo().await;
    let tls = format!("  tls: {{originate: direct, verify: {{caFile: {}}}}}\n", plan.pki.bundle().display());
    let resources = passed("direct", upstream.port(), "tcp", &tls)
        // Its certificate is for another name.
        + &passed("other", upstream.port(), "tcp", &tls)
        // It speaks no TLS.
        + &passed("plain", plain, "tcp", &tls);
    let fixture = mesh(plan, &resources).await;
    let mut mesh_client = HboneClient::connect(&workload(&fixture, "tunnels")).await;
    let mut io = mesh_client.tunnel(&format!("direct.test:{}", upstream.port())).await;
    io.write_all(b"plain").await.unwrap();
    io.shutdown().await.unwrap();
    let mut back = String::new();
    io.read_to_string(&mut back).await.unwrap();
    assert_eq!((back.as_str(), upstream.connections()), ("plain", 1));
    let record = recorded(&fixture, "direct", 1).await.pop().unwrap();
    assert_eq!(
        (&record["outcome"], &record["bytes_in"], &record["bytes_out"]),
        (&"completed".into(), &5.into(), &5.into()),
        "{record}"
    );
    for (name, port) in [("other", upstream.port()), ("plain", plain)] {
        let refused = mesh_client.ask(&format!("{name}.test:{port}")).await;
        let reason = refused.headers()["x-tollgate-reason"].to_str().unwrap();
        assert_eq!((refused.status().as_u16(), reason), (503, "upstream_tls"), "{name}");
        assert_eq!(recorded(&fixture, name, 1).await[0]["reason"], "upstream_tls");
    }
}
