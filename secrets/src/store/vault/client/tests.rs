use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use vaultrs::api::auth::approle::requests::LoginWithApproleRequest;
use vaultrs::api::kv2::requests::ReadSecretRequest;
use vaultrs::api::token::requests::{LookupTokenSelfRequest, RenewTokenSelfRequest};

use super::*;

fn client(address: &str) -> Client {
    Client::new(address.to_owned(), None, None, Arc::new(|_| true))
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
    let login =
        LoginWithApproleRequest { mount: "approle".into(), role_id: String::new(), secret_id: String::new() };
    assert_eq!(url(&plain, &login), "https://bao:8200/v1/auth/approle/login");
}

#[test]
fn a_path_cannot_become_a_query_or_another_path() {
    let client = client("https://bao:8200");
    let odd = url(&client, &read("a b?version=1#x%2f..", None));
    assert_eq!(odd, "https://bao:8200/v1/secret/data/a%20b%3Fversion=1%23x%252f..");
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
        let client = Client::new(format!("https://{host}:{port}"), None, None, refusing);
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
    assert!(matches!(client.ask(&question, None, None).await, Err(Failure::Malformed(_))));
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
