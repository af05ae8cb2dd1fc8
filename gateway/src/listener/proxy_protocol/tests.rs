use std::net::Ipv6Addr;
use std::time::Duration;

use ppp::v2::{Builder, IPv4, IPv6, Type, Version};
use tokio::io::AsyncWriteExt;

use super::*;

const WEB: &str = "spiffe://prod.acme/ns/shop/sa/web";

fn peer() -> SocketAddr {
    "10.0.0.9:4000".parse().unwrap()
}

fn settings(spiffe_tlv: bool) -> ProxyProtocolSettings {
    ProxyProtocolSettings { from: vec!["10.0.0.0/24".parse().unwrap()], spiffe_tlv }
}

fn header(
    command: Command,
    protocol: Protocol,
    addresses: impl Into<Addresses>,
    tlvs: &[(u8, &[u8])],
) -> Vec<u8> {
    let mut builder = Builder::with_addresses(Version::Two | command, protocol, addresses);
    for (kind, value) in tlvs {
        builder = builder.write_tlv(*kind, value).unwrap();
    }
    builder.build().unwrap()
}

fn v4() -> IPv4 {
    IPv4::new([203, 0, 113, 7], [240, 240, 0, 1], 55_000, 443)
}

fn proxied(tlvs: &[(u8, &[u8])]) -> Vec<u8> {
    header(Command::Proxy, Protocol::Stream, v4(), tlvs)
}

#[test]
fn a_header_says_who_really_connected() {
    let source = |header: &[u8]| parse(header, peer(), false).map(|proxied| proxied.source.to_string());
    assert_eq!(source(&proxied(&[])).unwrap(), "203.0.113.7:55000");
    let v6 = IPv6::new(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, 55_000, 443);
    assert_eq!(source(&header(Command::Proxy, Protocol::Stream, v6, &[])).unwrap(), "[::1]:55000");
    for unknown in [
        header(Command::Local, Protocol::Stream, v4(), &[]),
        header(Command::Local, Protocol::Unspecified, Addresses::Unspecified, &[]),
        header(Command::Proxy, Protocol::Unspecified, Addresses::Unspecified, &[]),
    ] {
        assert_eq!(source(&unknown).unwrap(), peer().to_string(), "{unknown:?}");
    }
    let datagram = header(Command::Proxy, Protocol::Datagram, v4(), &[]);
    assert_eq!(source(&datagram), Err(Refusal::ProxyHeader));
}

#[test]
fn a_workload_is_named_once_and_only_where_the_listener_takes_it() {
    let named = |header: &[u8], takes| parse(header, peer(), takes).map(|proxied| proxied.workload);
    let web = proxied(&[(Type::Authority as u8, b"api.up.test"), (SPIFFE_ID, WEB.as_bytes())]);
    assert_eq!(named(&web, true).unwrap().unwrap().as_str(), WEB);
    assert_eq!(named(&web, false), Ok(None), "nobody is proven by it elsewhere");
    for (tlvs, refusal) in [
        (vec![], Refusal::ProxyHeader),
        (vec![(SPIFFE_ID, WEB.as_bytes()), (SPIFFE_ID, WEB.as_bytes())], Refusal::ProxyHeader),
        (vec![(SPIFFE_ID, b"".as_slice())], Refusal::NotSpiffe),
        (vec![(SPIFFE_ID, b"prod.acme/web".as_slice())], Refusal::NotSpiffe),
        (vec![(SPIFFE_ID, b"spiffe://prod.acme/\xff".as_slice())], Refusal::NotSpiffe),
    ] {
        assert_eq!(named(&proxied(&tlvs), true), Err(refusal), "{tlvs:?}");
    }
    let local = header(Command::Local, Protocol::Stream, v4(), &[(SPIFFE_ID, WEB.as_bytes())]);
    assert_eq!(named(&local, true), Err(Refusal::ProxyHeader), "no workload has opened it");
}

#[tokio::test]
async fn only_listed_peers_are_read_and_not_a_byte_behind_their_header() {
    let bytes = [proxied(&[(SPIFFE_ID, WEB.as_bytes())]), b"GET / HTTP/1.1\r\n".to_vec()].concat();
    let mut stream = bytes.as_slice();
    let stranger = "10.0.1.9:4000".parse().unwrap();
    assert_eq!(read(&mut stream, stranger, &settings(true)).await, Err(Refusal::ProxyStranger));
    assert_eq!(stream.len(), bytes.len());
    let mapped = "[::ffff:10.0.0.9]:4000".parse().unwrap();
    assert!(read(&mut stream, mapped, &settings(true)).await.unwrap().workload.is_some());
    assert_eq!(stream, b"GET / HTTP/1.1\r\n");
}

#[tokio::test]
async fn what_is_no_whole_and_bounded_header_of_version_2_is_refused() {
    let good = proxied(&[]);
    let mut version = good.clone();
    version[12] = 0x11;
    let mut long = good.clone();
    long[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    let mut short = good.clone();
    short[14..16].copy_from_slice(&4_u16.to_be_bytes());
    let mut tlv = proxied(&[(SPIFFE_ID, WEB.as_bytes())]);
    tlv[29..31].copy_from_slice(&500_u16.to_be_bytes());
    for bad in [
        b"PROXY TCP4 203.0.113.7 240.240.0.1 55000 443\r\nGET / HTTP/1.1\r\n\r\n".to_vec(),
        b"GET /up/x HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaa".to_vec(),
        Vec::new(),
        good[..20].to_vec(),
        version,
        long,
        short,
        tlv,
    ] {
        let refused = read(&mut bad.as_slice(), peer(), &settings(false)).await;
        assert_eq!(refused, Err(Refusal::ProxyHeader), "{bad:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_header_that_does_not_come_is_waited_for_by_the_handshakes_deadline_alone() {
    let (mut ours, mut theirs) = tokio::io::duplex(64);
    theirs.write_all(&proxied(&[])[..10]).await.unwrap();
    let waited =
        tokio::time::timeout(Duration::from_secs(5), read(&mut ours, peer(), &settings(false))).await;
    assert!(waited.is_err(), "the listener gives it up");
}
