//! Sentinels and servers that answer what the test says, and note what they are told.

use std::sync::Mutex;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::*;

/// A server that answers by the first words of a command.
struct Fake {
    port: u16,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    async fn start(ip: &str, answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let (notes, answer) = (Arc::clone(&heard), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (notes, answer) = (Arc::clone(&notes), Arc::clone(&answer));
                tokio::spawn(async move {
                    let mut socket = BufReader::new(socket);
                    while let Some(command) = command(&mut socket).await {
                        notes.lock().unwrap().push(command.clone());
                        let _ = socket.get_mut().write_all(answer(&command).as_bytes()).await;
                    }
                });
            }
        });
        Self { port, heard }
    }

    fn heard(&self, word: &str) -> bool {
        self.heard.lock().unwrap().iter().any(|command| command.contains(word))
    }
}

async fn command(socket: &mut BufReader<tokio::net::TcpStream>) -> Option<String> {
    let mut line = String::new();
    socket.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    let count: usize = line.trim().strip_prefix('*')?.parse().ok()?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut line = String::new();
        socket.read_line(&mut line).await.ok()?;
        let mut word = vec![0; line.trim().strip_prefix('$')?.parse::<usize>().ok()? + 2];
        socket.read_exact(&mut word).await.ok()?;
        words.push(String::from_utf8_lossy(&word).trim_end().to_owned());
    }
    Some(words.join(" "))
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

async fn sentinel(host: &'static str, port: u16) -> Fake {
    Fake::start("127.0.0.1", move |command| match command.split(' ').next() {
        Some("SENTINEL") => format!("*2\r\n{}{}", bulk(host), bulk(&port.to_string())),
        _ => "+OK\r\n".to_owned(),
    })
    .await
}

async fn server(ip: &str, role: &'static str) -> Fake {
    Fake::start(ip, move |command| match command.split(' ').next() {
        Some("INFO") => bulk("maxmemory:0\r\nmaxmemory_policy:noeviction"),
        Some("ROLE") => format!("*3\r\n{}:0\r\n*0\r\n", bulk(role)),
        _ => "+OK\r\n".to_owned(),
    })
    .await
}

/// A node of a cluster that says whose the keys are; `None`: its own.
async fn node(ip: &str, owner: Option<String>) -> Fake {
    Fake::start(ip, move |command| match (command.split(' ').next(), &owner) {
        (Some("INFO"), _) => bulk("maxmemory:0"),
        (Some("PEXPIRETIME"), Some(owner)) => format!("-MOVED 42 {owner}\r\n"),
        (Some("PEXPIRETIME"), None) => ":-2\r\n".to_owned(),
        _ => "+OK\r\n".to_owned(),
    })
    .await
}

/// Connects by this sentinel, with a password.
async fn by(
    sentinel: &Fake,
    dialable: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
) -> Result<(), String> {
    by_way(sentinel, r#""sentinel": "main""#, dialable).await
}

/// Connects by this node of a cluster, with a password.
async fn by_node(
    node: &Fake,
    dialable: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
) -> Result<(), String> {
    by_way(node, r#""cluster": true"#, dialable).await
}

async fn by_way(
    first: &Fake,
    way: &str,
    dialable: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
) -> Result<(), String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "canary-password\n").unwrap();
    let text = format!(
        r#"{{"addresses": ["127.0.0.1:{}"], {way}, "passwordFile": "{}"}}"#,
        first.port,
        file.path().display()
    );
    let settings: RedisSettings = serde_json::from_str(&text).unwrap();
    let dialable: Dialable = Arc::new(dialable);
    connect(&settings, &dialable).await.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn the_primary_that_a_sentinel_names_is_logged_in_to_and_the_sentinel_is_not() {
    let primary = server("127.0.0.1", "master").await;
    let sentinel = sentinel("127.0.0.1", primary.port).await;
    by(&sentinel, |ip| ip.is_loopback()).await.unwrap();
    assert!(primary.heard("AUTH canary-password") && primary.heard("ROLE"));
    assert!(sentinel.heard("SENTINEL GET-MASTER-ADDR-BY-NAME main") && !sentinel.heard("canary"));
}

#[tokio::test]
async fn a_sentinel_leads_to_no_address_that_the_dial_rules_refuse() {
    let primary = server("127.0.0.2", "master").await;
    let sentinel = sentinel("127.0.0.2", primary.port).await;
    let error = by(&sentinel, |ip| ip == IpAddr::from([127, 0, 0, 1])).await.unwrap_err();
    assert!(error.contains("127.0.0.2, which `egress.privateRanges` does not list"), "{error}");
    assert!(primary.heard.lock().unwrap().is_empty(), "nothing was dialled");
}

#[tokio::test]
async fn no_password_goes_without_tls_where_a_sentinel_leads_away_from_this_machine() {
    let sentinel = sentinel("192.0.2.1", 6379).await;
    let error = by(&sentinel, |_| true).await.unwrap_err();
    assert!(error.contains("192.0.2.1: without `limits.redis.tls` the password"), "{error}");
}

#[tokio::test]
async fn who_is_no_primary_any_more_is_not_used() {
    let copy = server("127.0.0.1", "slave").await;
    let sentinel = sentinel("127.0.0.1", copy.port).await;
    let error = by(&sentinel, |_| true).await.unwrap_err();
    assert!(error.contains("says that it is no primary"), "{error}");
    let none = Fake::start("127.0.0.1", |command| match command.split(' ').next() {
        Some("SENTINEL") => "*-1\r\n".to_owned(),
        _ => "+OK\r\n".to_owned(),
    })
    .await;
    let error = by(&none, |_| true).await.unwrap_err();
    assert!(error.contains("no sentinel knows a primary `main`"), "{error}");
}

#[tokio::test]
async fn nodes_of_a_cluster_lead_to_the_one_that_has_the_keys() {
    let owner = node("127.0.0.1", None).await;
    let between = node("127.0.0.1", Some(format!(":{}", owner.port))).await;
    let first = node("127.0.0.1", Some(format!("127.0.0.1:{}", between.port))).await;
    by_node(&first, |ip| ip.is_loopback()).await.unwrap();
    assert!(owner.heard("AUTH canary-password") && owner.heard("PEXPIRETIME tollgate:{tollgate}"));
    by_node(&owner, |ip| ip.is_loopback()).await.unwrap();
}

#[tokio::test]
async fn a_node_leads_to_no_address_that_the_dial_rules_refuse_nor_takes_a_password_there() {
    let owner = node("127.0.0.2", None).await;
    let first = node("127.0.0.1", Some(format!("127.0.0.2:{}", owner.port))).await;
    let error = by_node(&first, |ip| ip == IpAddr::from([127, 0, 0, 1])).await.unwrap_err();
    assert!(error.contains("127.0.0.2, which `egress.privateRanges` does not list"), "{error}");
    assert!(owner.heard.lock().unwrap().is_empty(), "nothing was dialled");
    let first = node("127.0.0.1", Some("192.0.2.1:6379".to_owned())).await;
    let error = by_node(&first, |_| true).await.unwrap_err();
    assert!(error.contains("192.0.2.1: without `limits.redis.tls` the password"), "{error}");
}

#[tokio::test]
async fn nodes_that_name_each_other_are_left_after_a_few() {
    // It names itself.
    let first = node("127.0.0.1", Some(String::from(":"))).await;
    let error = by_node(&first, |_| true).await.unwrap_err();
    assert!(error.contains("Moved"), "no port: {error}");
    let listener = Arc::new(Mutex::new(0_u16));
    let port = Arc::clone(&listener);
    let around = Fake::start("127.0.0.1", move |command| match command.split(' ').next() {
        Some("INFO") => bulk("maxmemory:0"),
        Some("PEXPIRETIME") => format!("-MOVED 42 127.0.0.1:{}\r\n", port.lock().unwrap()),
        _ => "+OK\r\n".to_owned(),
    })
    .await;
    *listener.lock().unwrap() = around.port;
    let error = by_node(&around, |_| true).await.unwrap_err();
    assert!(error.contains("do not agree"), "{error}");
    let asked = around.heard.lock().unwrap().iter().filter(|command| command.contains("PEXPIRETIME")).count();
    assert_eq!(asked, 4);
    let down = Fake::start("127.0.0.1", |command| match command.split(' ').next() {
        Some("INFO") => bulk("maxmemory:0"),
        Some("PEXPIRETIME") => "-CLUSTERDOWN Hash slot not served\r\n".to_owned(),
        _ => "+OK\r\n".to_owned(),
    })
    .await;
    assert!(by_node(&down, |_| true).await.unwrap_err().to_lowercase().contains("not served"));
}
