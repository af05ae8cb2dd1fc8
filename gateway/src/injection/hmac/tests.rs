use bytes::Bytes;
use http::{Method, Request};

use super::*;

fn hmac_of(message: Vec<Piece>, headers: Vec<(String, Vec<Piece>)>) -> Hmac {
    let (algorithm, key_encoding) = (HmacAlgorithm::Sha256, KeyEncoding::Raw);
    Hmac { algorithm, key_encoding, message, encoding: SignatureEncoding::Hex, headers, queries: Vec::new() }
}

fn text(text: &str) -> Piece {
    Piece::Text(text.to_owned())
}

fn header(name: &str, pieces: &[Piece]) -> (String, Vec<Piece>) {
    (name.to_owned(), pieces.to_vec())
}

fn signer(wanted: &Hmac, key: &str) -> HmacSigner {
    let id = |name: &str| (name == "id").then_some(b"key-id".as_slice());
    HmacSigner::of(wanted, key.as_bytes(), id).unwrap()
}

/// The headers and the target that leave.
fn sent(wanted: &Hmac, key: &str, at: &str, (method, target, body): (&str, &str, &str)) -> (Sent, String) {
    let mut request = Request::new(OutBody::Whole(Bytes::copy_from_slice(body.as_bytes())));
    *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
    let path = PathAndQuery::try_from(target).unwrap();
    let signer = signer(wanted, key);
    let path = signer.sign(&mut request, path, "api.example.com", at.parse().unwrap()).unwrap();
    (Sent(request), path.to_string())
}

struct Sent(Request<OutBody>);

impl Sent {
    fn header(&self, name: &str) -> &str {
        self.0.headers()[name].to_str().unwrap()
    }
}

#[test]
fn the_example_of_binances_documentation_comes_out_in_the_query() {
    // https://developers.binance.com/docs/binance-spot-api-docs/rest-api/request-security
    let mut wanted = hmac_of(
        vec![Piece::Query, Piece::Body],
        vec![header("x-mbx-apikey", &[Piece::Field("id".to_owned())])],
    );
    wanted.queries =
        vec![header("signature", &[Piece::Signature]), header("timestamp", &[Piece::TimestampMillis])];
    let asked = "/api/v3/order?symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000";
    let key = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j";
    let (request, target) = sent(&wanted, key, "2017-07-12T02:41:59.559Z", ("POST", asked, ""));
    let signature = "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71";
    assert_eq!(target, format!("{asked}&timestamp=1499827319559&signature={signature}"));
    assert_eq!(request.header("x-mbx-apikey"), "key-id");
    assert!(format!("{:?}", request.0.headers()).contains("Sensitive"));
}

#[test]
fn the_example_of_githubs_documentation_comes_out() {
    // https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
    let wanted =
        hmac_of(vec![Piece::Body], vec![header("x-hub-signature-256", &[text("sha256="), Piece::Signature])]);
    let call = ("POST", "/hook", "Hello, World!");
    let (request, _) = sent(&wanted, "It's a Secret to Everybody", "2026-01-01T00:00:00Z", call);
    let signature = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    assert_eq!(request.header("x-hub-signature-256"), format!("sha256={signature}"));
}

#[test]
fn the_example_of_slacks_documentation_comes_out() {
    // https://docs.slack.dev/authentication/verifying-requests-from-slack
    let wanted = hmac_of(
        vec![text("v0:"), Piece::Timestamp, text(":"), Piece::Body],
        vec![
            header("x-slack-signature", &[text("v0="), Piece::Signature]),
            header("x-slack-request-timestamp", &[Piece::Timestamp]),
        ],
    );
    let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    let call = ("POST", "/slack", body);
    let (request, _) = sent(&wanted, "8f742231b10e8888abcd99yyyzzz85a5", "2018-07-12T18:36:58Z", call);
    let signature = "a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
    assert_eq!(request.header("x-slack-signature"), format!("v0={signature}"));
    assert_eq!(request.header("x-slack-request-timestamp"), "1531420618");
}

#[test]
fn the_example_of_standard_webhooks_comes_out_with_a_key_in_base64() {
    // https://github.com/standard-webhooks/standard-webhooks/blob/main/libraries/python/tests/test_webhooks.py
    let id = "msg_p5jXN8AQM9LWM0D4loKWxJek.";
    let mut wanted = hmac_of(
        vec![text(id), Piece::Timestamp, text("."), Piece::Body],
        vec![header("webhook-signature", &[text("v1,"), Piece::Signature])],
    );
    (wanted.key_encoding, wanted.encoding) = (KeyEncoding::Base64, SignatureEncoding::Base64);
    let call = ("POST", "/", r#"{"test": 2432232314}"#);
    let (request, _) = sent(&wanted, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "2021-02-25T15:02:10Z", call);
    assert_eq!(request.header("webhook-signature"), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[test]
fn the_example_of_twilios_documentation_comes_out_over_host_and_target() {
    // https://www.twilio.com/docs/usage/security; its parameters sorted and joined are the body here.
    let mut wanted = hmac_of(
        vec![text("https://"), Piece::Host, Piece::Target, Piece::Body],
        vec![header("x-twilio-signature", &[Piece::Signature])],
    );
    (wanted.algorithm, wanted.encoding) = (HmacAlgorithm::Sha1, SignatureEncoding::Base64);
    let joined = "CallSidCA1234567890ABCDECaller+12349013030Digits1234From+12349013030To+18005551212";
    let mut request = Request::new(OutBody::Whole(Bytes::from_static(joined.as_bytes())));
    let path = PathAndQuery::from_static("/myapp.php?foo=1&bar=2");
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    signer(&wanted, "12345").sign(&mut request, path, "mycompany.com", now).unwrap();
    assert_eq!(Sent(request).header("x-twilio-signature"), "0/KCTR6DLpKmkAf8muzZqo1nDgQ=");
}

#[test]
fn the_vector_of_rfc_4231_comes_out_with_sha_512() {
    let mut wanted = hmac_of(vec![Piece::Body], vec![header("x-sign", &[Piece::Signature])]);
    wanted.algorithm = HmacAlgorithm::Sha512;
    let call = ("POST", "/", "what do ya want for nothing?");
    let (request, _) = sent(&wanted, "Jefe", "2026-01-01T00:00:00Z", call);
    let signature = "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737";
    assert_eq!(request.header("x-sign"), signature);
}

#[test]
fn every_piece_says_what_its_name_says_and_the_same_wherever_it_stands() {
    let said = [
        (Piece::Timestamp, "1796158680"),
        (Piece::TimestampMillis, "1796158680123"),
        (Piece::Date, "Tue, 01 Dec 2026 20:58:00 GMT"),
        (Piece::DateTime, "2026-12-01T20:58:00Z"),
        (Piece::DateTimeMillis, "2026-12-01T20:58:00.123Z"),
        (Piece::BodySha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (Piece::BodySha256Base64, "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="),
    ];
    for (piece, expected) in said {
        let wanted = hmac_of(vec![piece.clone()], vec![header("x-said", std::slice::from_ref(&piece))]);
        let (request, _) = sent(&wanted, "k", "2026-12-01T20:58:00.123Z", ("POST", "/", "abc"));
        assert_eq!(request.header("x-said"), expected, "{piece:?}");
    }
    let nonce =
        hmac_of(vec![Piece::Nonce], vec![header("x-one", &[Piece::Nonce]), header("x-two", &[Piece::Nonce])]);
    let once = || sent(&nonce, "k", "2026-12-01T20:58:00Z", ("GET", "/", "")).0;
    let (first, second) = (once(), once());
    assert_eq!((first.header("x-one"), first.header("x-one").len()), (first.header("x-two"), 32));
    assert_ne!(first.header("x-one"), second.header("x-one"));
}

#[test]
fn signed_is_what_is_sent_and_anything_else_is_another_signature() {
    let message = [Piece::Method, Piece::Host, Piece::Path, text("?"), Piece::Query, Piece::Body];
    let mut wanted = hmac_of(message.to_vec(), vec![header("x-sign", &[Piece::Signature])]);
    wanted.queries = vec![header("a", &[Piece::Field("id".to_owned())]), header("s", &[Piece::Signature])];
    let call = ("POST", "/p?x=1", "b");
    let (request, target) = sent(&wanted, "k", "2026-12-01T20:58:00Z", call);
    let expected = {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"k");
        hex(hmac::sign(&key, b"POSTapi.example.com/p?x=1&a=key-idb").as_ref())
    };
    assert_eq!(request.header("x-sign"), expected);
    assert_eq!(target, format!("/p?x=1&a=key-id&s={expected}"));
    for other in
        [("PUT", "/p?x=1", "b"), ("POST", "/q?x=1", "b"), ("POST", "/p?x=2", "b"), ("POST", "/p?x=1", "c")]
    {
        let (request, _) = sent(&wanted, "k", "2026-12-01T20:58:00Z", other);
        assert_ne!(request.header("x-sign"), expected, "{other:?}");
    }
}

#[test]
fn a_key_that_is_not_in_its_encoding_signs_nothing() {
    let made = |encoding, written: &str| key(encoding, written.as_bytes()).map(|key| key.to_vec());
    assert_eq!(made(KeyEncoding::Raw, "abc").unwrap(), b"abc");
    for written in ["a2V5cw==", "a2V5cw"] {
        assert_eq!(made(KeyEncoding::Base64, written).unwrap(), b"keys", "{written}");
    }
    assert_eq!(made(KeyEncoding::Hex, "00ffA1").unwrap(), [0, 255, 161]);
    for (encoding, wrong) in [
        (KeyEncoding::Base64, "a2V5c*=="),
        (KeyEncoding::Base64, "===="),
        (KeyEncoding::Base64, "a2V5cw==\n"),
        (KeyEncoding::Hex, "0"),
        (KeyEncoding::Hex, "zz"),
    ] {
        assert_eq!(made(encoding, wrong), None, "{wrong}");
    }
}

#[test]
fn a_field_that_is_missing_or_would_split_a_header_makes_no_signer() {
    let wanted =
        hmac_of(vec![Piece::Body], vec![header("x-key", &[Piece::Field("id".to_owned()), Piece::Signature])]);
    let of = |value: Option<&'static [u8]>| HmacSigner::of(&wanted, b"k", |_| value).is_some();
    assert!(of(Some(b"key-id")));
    assert!(!of(Some(b"a\r\nx-admin: 1")) && !of(None));
}
