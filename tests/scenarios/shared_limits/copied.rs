//! A data directory that was copied, and runs beside its original.

use std::process::Command;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_on_copies_of_one_directory_the_earlier_one_stops_and_nothing_is_spent_twice() {
    needs!(Redis::installed());
    const AMOUNT: u64 = 60_000;
    let mut replicas = Replicas::start(1, &format!("[{{tokens: {AMOUNT}, per: day}}]"), |_| 1_000).await;
    replicas.client(0).post(CHAT, &chat(100)).await.assert_status(200);
    eventually("the call is settled", || replicas.sum("tollgate_limit_held") == 0.0).await;
    let leased = replicas.sum("tollgate_limit_leased") as u64;

    let original = &replicas.gateways[0];
    let mut copy = Gateway::prepare(&Sandbox::new(), original.settings());
    for (from, to) in [
        (original.home().join("data"), copy.home().to_owned()),
        (original.inputs().join("seal.key"), copy.inputs()),
    ] {
        assert!(Command::new("cp").arg("-r").args([from, to]).status().expect("cp").success());
    }
    copy.launch().await;
    copy.ready().await;
    replicas.gateways.push(copy);
    let ready = |replicas: &Replicas, replica: usize| replicas.gateways[replica].admin_get("/readyz");
    eventually("the original learns of it", || ready(&replicas, 0).0 == 503).await;
    assert!(ready(&replicas, 0).1.contains("another process has the id of this replica"));
    replicas.client(0).post(CHAT, &chat(100)).await.assert_refused(503, "limits_unavailable");

    let (answers, stop) = (Arc::new(Answers::default()), Arc::new(AtomicBool::new(false)));
    tokio::time::sleep(LEASE).await;
    insist(replicas.client(1), answers.clone(), stop).await;
    let billed = replicas.billed.load(Ordering::SeqCst);
    println!("billed {billed} of {AMOUNT}, the original had {leased}: {answers:?}");
    assert_eq!(ready(&replicas, 1).0, 200);
    // What the original had counts whole beside what the copy has spent.
    assert!(billed <= AMOUNT && billed + leased + 6_000 > AMOUNT, "{billed}, {leased} of the original");
}
