//! What clients of rustls begin with, whole, in pieces and broken.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

fn client_hello(server: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(server.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// The outer form of Encrypted ClientHello: HKDF-SHA256 with AES-128-GCM, a config, a key and what is encrypted.
const OUTER: [u8; 12] = [0, 0, 1, 0, 1, 7, 0, 1, 9, 0, 1, 9];

/// The same with an extension of this type, in records of at most `fragment` bytes.
fn with_extension(hello: &[u8], kind: u16, fragment: usize) -> Vec<u8> {
    let mut message = hello[5..].to_vec();
    let session = 4 + 34;
    let suites = session + 1 + usize::from(message[session]);
    let compression = suites + 2 + usize::from(u16::from_be_bytes([message[suites], message[suites + 1]]));
    let extensions = compression + 1 + usize::from(message[compression]);
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&[0, 12]);
    message.extend_from_slice(&OUTER);
    let length = u16::try_from(message.len() - extensions - 2).unwrap();
    message[extensions..extensions + 2].copy_from_slice(&length.to_be_bytes());
    let length = u32::try_from(message.len() - 4).unwrap().to_be_bytes();
    message[1..4].copy_from_slice(&length[1..]);
    let mut records = Vec::new();
    for piece in message.chunks(fragment) {
        records.extend_from_slice(&[HANDSHAKE, 3, 1]);
        records.extend_from_slice(&u16::try_from(piece.len()).unwrap().to_be_bytes());
        records.extend_from_slice(piece);
    }
    records
}

async fn read(bytes: &[u8]) -> Result<Hello, Reason> {
    Hello::read(&mut &*bytes).await.map_err(|denial| denial.reason)
}

#[tokio::test]
async fn the_server_is_read_and_every_byte_is_kept() {
    let hello = client_hello("API.up.test");
    let mut with_more = hello.clone();
    with_more.extend_from_slice(b"what came behind it");
    for bytes in [&hello, &with_more] {
        let read = read(bytes).await.unwrap();
        assert!(read.server().eq_ignore_ascii_case("api.up.test"));
        assert_eq!(&read.into_bytes(), bytes);
    }
    let (mut near, mut far) = tokio::io::duplex(1);
    let sent = hello.clone();
    tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut near, &sent).await });
    assert_eq!(Hello::read(&mut far).await.unwrap().into_bytes(), hello, "byte by byte");
}

#[tokio::test]
async fn a_server_that_is_not_named_or_hidden_is_none() {
    assert_eq!(
        read(&client_hello("192.0.2.1")).await.unwrap_err(),
        Reason::SniMissing,
        "an address is no name"
    );
    let hello = client_hello("api.up.test");
    for fragment in [1 << 14, 100] {
        let other = with_extension(&hello, 0x1234, fragment);
        assert_eq!(read(&other).await.unwrap().server(), "api.up.test", "{fragment}");
        let hidden = with_extension(&hello, ENCRYPTED_CLIENT_HELLO, fragment);
        assert_eq!(read(&hidden).await.unwrap_err(), Reason::SniMissing, "{fragment}");
    }
}

#[tokio::test]
async fn what_is_no_tls_is_refused_at_its_first_byte() {
    let hello = client_hello("api.up.test");
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"", &[0, 0, 0, 8, 4, 210, 22, 47], &hello[..hello.len() - 1]]
    {
        assert_eq!(read(bytes).await.unwrap_err(), Reason::TlsExpected, "{bytes:?}");
    }
    let mut cut = hello;
    cut.truncate(60);
    cut.resize(5 + 0x3fff, 0xff);
    assert_eq!(read(&cut).await.unwrap_err(), Reason::TlsExpected);
    let endless = [[HANDSHAKE, 3, 1, 0x3f, 0xff].as_slice(), &[1; 0x3fff]].concat().repeat(6);
    assert_eq!(read(&endless).await.unwrap_err(), Reason::TlsExpected);
}

#[tokio::test(start_paused = true)]
async fn it_has_to_come_in_time() {
    let (_near, mut far) = tokio::io::duplex(16);
    assert_eq!(Hello::read(&mut far).await.unwrap_err().reason, Reason::TlsExpected);
}
