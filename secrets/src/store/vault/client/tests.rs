use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tollgate_policy::policy::{KvVersion, VaultAuth};
use vaultrs::api::kv2::requests::ReadSecretRequest;
use vaultrs::api::token::requests::{LookupTokenSelfRequest, RenewTokenSelfRequest};

use super::*;

fn definition(address: &str) -> VaultStore {
    VaultStore {
        address: address.to_owned(),
        mount: "secret".to_owned(),
        kv: KvVersion::V2,
        namespace: None,
        ca: None,
        client_certificate: None,
        auth: VaultAuth::Token { file: "/token".into() },
    }
}

fn client(address: &str) -> Client {
    Client::new(&definition(address), Arc::new(|_| true))
}

fn url(client: &Client, endpoint: &impl Endpoint) -> String {
    Question::new(client, endpoint).unwrap().url.to_string()
}

fn read(path: &str, version: Option<u64>) -> ReadSecretRequest {
    ReadSecretRequest::builder().mount("secret").path(path).version(version).build().unwrap()
}

#[test]
fn endpoints_stand_under_the_address() {
    let plain = client("https://bao:8200");
    assert_eq!(url(&plain, &read("llm/openai", None)), "https://bao:8200/v1/secret/data/llm/openai");
    assert_eq!(
        url(&plain, &read("llm/openai", Some(3))),
        "https://bao:8200/v1/secret/data/llm/openai?version=3"
    );
    assert_eq!(url(&plain, &LookupTokenSelfRequest {}), "https://bao:8200/v1/auth/token/lookup-self");
    assert_eq!(
        url(&plain, &RenewTokenSelfRequest { increment: None }),
        "https://bao:8200/v1/auth/token/renew-self"
    );
    let login = Question::post(&plain, "auth/approle/login").unwrap();
    assert_eq!(login.url.as_str(), "https://bao:8200/v1/auth/approle/login");
}

#[test]
fn a_path_cannot_become_a_query_or_another_path() {
    let client = client("https://bao:8200");
    let odd = url(&client, &read("a b?version=1#x%2f..", None));
    assert_eq!(odd, "https://bao:8200/v1/secret/data/a%20b%3Fversion=1%23x%252f..");
    let odd = Question::get(&client, "database/a b?version=1#x%2f..").unwrap();
    assert_eq!(odd.url.as_str(), "https://bao:8200/v1/database/a%20b%3Fversion=1%23x%252f..");
}

#[test]
fn an_address_that_would_send_the_token_in_the_clear_is_refused() {
    for (address, good) in [
        ("https://bao:8200", true),
        ("http://127.0.0.1:8100", true),
        ("http://[::1]:8100", true),
        ("http://bao:8200", false),
        ("http://10.0.0.7:8200", false),
        ("https://user:pass@bao:8200", false),
        ("https://bao:8200/", true),
        ("https://bao:8200/v1", false),
        ("https://bao:8200?x=1", false),
        ("bao:8200", false),
        ("unix:///run/bao", false),
    ] {
        assert_eq!(client(address).base().is_ok(), good, "{address}");
    }
}

#[tokio::test]
async fn an_address_that_may_not_be_dialled_is_not_dialled_literal_or_resolved() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let refusing = Arc::new(|_| false);
        let client = Client::new(&definition(&format!("https://{host}:{port}")), refusing);
        let question = Question::new(&client, &LookupTokenSelfRequest {}).unwrap();
        assert_eq!(client.ask(&question, None, None).await.err(), Some(Failure::AddressRefused), "{host}");
    }
    let knocked = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(knocked.is_err(), "nothing connected");
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_token_stays() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let mut head = [0; 4096];
            let _ = connection.read(&mut head).await.unwrap();
            let answer = format!(
                "HTTP/1.1 307 x\r\nlocation: http://127.0.0.1:{port}/stolen\r\ncontent-length: 0\r\n\r\n"
            );
            connection.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let client = client(&format!("http://127.0.0.1:{port}"));
    let question = Question::new(&client, &LookupTokenSelfRequest {}).unwrap();
    let token = HeaderValue::from_static("s.canary");
    assert_eq!(client.ask(&question, Some(&token), None).await.unwrap().status, 307);
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        let _ = connection.read(&mut head).await.unwrap();
        connection.write_all(b"HTTP/1.1 200 x\r\n\r\n").await.unwrap();
        while connection.write_all(&[b'x'; 65536]).await.is_ok() {}
    });
    let client = client(&format!("http://127.0.0.1:{port}"));
    let question = Question::new(&client, &LookupTokenSelfRequest {}).unwrap();
    assert!(matches!(client.ask(&question, None, None).await, Err(Failure::Foreign(_))));
}

#[tokio::test]
async fn a_closed_port_and_a_server_without_tls_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = client(&format!("https://127.0.0.1:{port}"));
    let question = Question::new(&client, &LookupTokenSelfRequest {}).unwrap();
    let server = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut hello = [0; 4096];
        let _ = connection.read(&mut hello).await.unwrap();
        connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    assert!(matches!(client.ask(&question, None, None).await, Err(Failure::Tls(_))));
    server.await.unwrap();
    let refused = Some(Failure::Unreachable("connection refused"));
    assert_eq!(client.ask(&question, None, None).await.err(), refused);
}

#[test]
fn a_json_body_escapes_and_never_grows() {
    assert_eq!(json(&[]).unwrap().as_slice(), b"{}");
    let odd = json(&[("a", b"\"\\\x01"), ("b", b"plain")]).unwrap();
    assert_eq!(odd.as_slice(), br#"{"a":"\"\\\u0001","b":"plain"}"#);
    let long = json(&[("lease_id", [1; 1000].as_slice())]).unwrap();
    assert!(long.len() > 6000 && long.capacity() >= long.len());
    assert!(matches!(json(&[("jwt", b"\xff")]), Err(Failure::Login(_))));
}
