use http::Response;

use super::*;

const KEY_OF_CALLER: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn request(method: &str, fields: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::builder().method(method).uri("/socket");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn wished(fields: &[(&str, &str)]) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("connection", "keep-alive, Upgrade".to_owned()),
        ("upgrade", "websocket".to_owned()),
        ("sec-websocket-key", KEY_OF_CALLER.to_owned()),
        ("sec-websocket-version", "13".to_owned()),
    ];
    for (name, value) in fields {
        all.retain(|(known, _)| known != name);
        if !value.is_empty() {
            all.push((Box::leak((*name).into()), (*value).to_owned()));
        }
    }
    all
}

fn read(method: &str, fields: &[(&str, &str)]) -> Result<bool, Reason> {
    let fields = wished(fields);
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, &**value)).collect();
    Offer::read(&request(method, &fields)).map(|offer| offer.is_some()).map_err(|denial| denial.reason)
}

fn offer(fields: &[(&str, &str)]) -> Offer {
    let fields = wished(fields);
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, &**value)).collect();
    Offer::read(&request("GET", &fields)).unwrap().unwrap()
}

#[test]
fn a_handshake_is_whole_or_refused() {
    assert_eq!(read("GET", &[]), Ok(true));
    assert_eq!(read("GET", &[("upgrade", "WebSocket")]), Ok(true));
    for (fields, reason) in [
        (("sec-websocket-version", "8"), Reason::UpgradeRefused),
        (("sec-websocket-version", ""), Reason::UpgradeRefused),
        (("sec-websocket-key", ""), Reason::BadRequest),
        (("sec-websocket-key", "c2hvcnQ="), Reason::BadRequest),
        (("sec-websocket-protocol", "a, a"), Reason::BadRequest),
        (("connection", "keep-alive"), Reason::BadRequest),
        (("connection", ""), Reason::BadRequest),
        (("upgrade", "websocket, h2c"), Reason::UpgradeRefused),
        (("upgrade", "h2c, websocket"), Reason::UpgradeRefused),
        (("upgrade", "irc"), Reason::UpgradeRefused),
        (("upgrade", "websocket, irc"), Reason::UpgradeRefused),
        (("content-length", "5"), Reason::BadRequest),
        (("transfer-encoding", "chunked"), Reason::BadRequest),
    ] {
        assert_eq!(read("GET", &[fields]), Err(reason), "{fields:?}");
    }
    assert_eq!(read("POST", &[]), Err(Reason::BadRequest));
    // What may be wished for and not given is left out.
    for upgrade in ["", "h2c", "h2, http/2", "TLS/1.3"] {
        assert_eq!(read("POST", &[("upgrade", upgrade)]), Ok(false), "{upgrade}");
    }
}

#[test]
fn what_the_provider_is_asked_for_is_ours() {
    let offer = offer(&[
        ("sec-websocket-protocol", "realtime, openai-insecure-api-key.sk-1"),
        ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits, x-other"),
    ]);
    let mut headers = HeaderMap::new();
    offer.clone().ask(false).unwrap().write(&mut headers);
    assert_eq!(headers["connection"], "Upgrade");
    assert_eq!(headers["upgrade"], "websocket");
    assert_eq!(headers["sec-websocket-version"], "13");
    assert_eq!(headers["sec-websocket-protocol"], "realtime");
    assert!(is_key(&headers["sec-websocket-key"]) && headers["sec-websocket-key"] != KEY_OF_CALLER);
    assert_eq!(headers.len(), 5);
    offer.ask(true).unwrap().write(&mut headers);
    assert_eq!(headers["sec-websocket-extensions"], "permessage-deflate; client_max_window_bits");
}

/// How an answer is judged that has these fields besides, or instead.
fn judged(status: u16, may_deflate: bool, fields: &[(&str, &str)]) -> Result<bool, Reason> {
    let asked =
        offer(&[("sec-websocket-protocol", "a, b"), ("sec-websocket-extensions", "permessage-deflate")]);
    let asked = asked.ask(may_deflate).unwrap();
    let accept = accept_of(asked.key.as_bytes());
    let mut all = HeaderMap::new();
    for (name, value) in
        [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", &*accept)]
    {
        all.insert(name, HeaderValue::from_str(value).unwrap());
    }
    for (name, value) in fields {
        let name: HeaderName = name.parse().unwrap();
        all.remove(&name);
        if !value.is_empty() {
            all.insert(name, value.parse().unwrap());
        }
    }
    let mut head = Response::builder().status(status).body(()).unwrap().into_parts().0;
    head.headers = all;
    // As hyper does it; there is no connection behind it.
    head.extensions.insert(hyper::upgrade::on(Response::new(())));
    let switched = Handshake::judge(Some(&asked), &mut head).map_err(|denial| denial.reason)?;
    let Some(switched) = switched else { return Ok(false) };
    switched.answer(&mut head);
    // The answer of RFC 6455, section 1.3, to the key of the caller.
    assert_eq!(head.headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    Ok(true)
}

#[test]
fn the_providers_agreement_is_verified() {
    assert_eq!(judged(101, false, &[]), Ok(true));
    assert_eq!(judged(101, false, &[("sec-websocket-protocol", "b")]), Ok(true));
    assert_eq!(judged(101, true, &[("sec-websocket-extensions", "permessage-deflate")]), Ok(true));
    for fields in [
        ("sec-websocket-accept", ""),
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("upgrade", "h2c"),
        ("upgrade", ""),
        ("connection", "keep-alive"),
        ("sec-websocket-protocol", "c"),
        ("sec-websocket-protocol", "a, b"),
        ("sec-websocket-extensions", "permessage-deflate"),
        ("sec-websocket-extensions", "x-other"),
    ] {
        assert_eq!(judged(101, false, &[fields]), Err(Reason::UnsupportedUpgrade), "{fields:?}");
    }
    assert_eq!(
        judged(101, true, &[("sec-websocket-extensions", "x-other")]),
        Err(Reason::UnsupportedUpgrade)
    );
}

#[test]
fn an_error_stays_http_and_a_success_that_does_not_switch_is_refused() {
    for status in [301, 400, 401, 426, 503] {
        assert_eq!(judged(status, false, &[]), Ok(false), "{status}");
    }
    for status in [200, 204] {
        assert_eq!(judged(status, false, &[]), Err(Reason::UnsupportedUpgrade), "{status}");
    }
    let mut unasked = Response::builder().status(101).body(()).unwrap().into_parts().0;
    assert_eq!(Handshake::judge(None, &mut unasked).unwrap_err().reason, Reason::UnsupportedUpgrade);
}
