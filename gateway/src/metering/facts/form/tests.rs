use std::sync::Arc;

use http::HeaderValue;
use tollgate_policy::decision::Facts;
use tollgate_policy::dialect::Endpoint;

use super::*;
use crate::metering::catalog;

fn endpoint(path: &str) -> Arc<Endpoint> {
    catalog::shipped().unwrap().dialect("openai").unwrap().endpoint("POST", path).unwrap().clone()
}

fn headers(kind: &str) -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_str(kind).unwrap())])
}

fn part(head: &str, value: &str) -> String {
    format!("--B\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n")
}

fn form(parts: &[(&str, &str)]) -> String {
    parts.iter().map(|(head, value)| part(head, value)).collect::<String>() + "--B--\r\n"
}

fn facts(path: &str, body: &str) -> Result<Facts, Reason> {
    let headers = headers("multipart/form-data; boundary=B");
    let read = super::super::read(&endpoint(path), &headers, body.as_bytes());
    read.map(|read| read.facts).map_err(|denial| denial.reason)
}

const FILE: (&str, &str) =
    ("name=\"file\"; filename=\"a.mp3\"", "ID3\r\n--C\r\nname=\"model\"\r\n\r\nother\u{0}");

#[test]
fn a_form_says_what_a_json_body_of_the_same_members_would() {
    let body = form(&[("name=\"model\"", "whisper-1"), FILE, ("name=\"stream\"", "true")]);
    let read = facts("/v1/audio/transcriptions", &body).unwrap();
    assert_eq!((read.model.as_deref(), read.stream), (Some("whisper-1"), true));
    assert_eq!(read.body_bytes, body.len() as u64);

    let body = form(&[
        ("name=\"image[]\"; filename=\"a.png\"", "x"),
        ("name=\"image[]\"; filename=\"b.png\"", "y"),
        ("name=\"model\"", "dall-e-2"),
        ("name=\"size\"", "512x512"),
        ("name=\"n\"", "3"),
    ]);
    let read = facts("/v1/images/edits", &body).unwrap();
    assert_eq!((read.model.as_deref(), read.choices), (Some("dall-e-2"), 3));
    assert_eq!(read.tier.as_deref(), Some("512x512"));
}

#[test]
fn a_deciding_field_that_two_readers_could_read_differently_is_refused() {
    let model = ("name=\"model\"", "whisper-1");
    for (parts, reason) in [
        (vec![model, ("name=\"model\"", "gpt-4o-transcribe")], Reason::AmbiguousBody),
        (vec![model, ("name=\"Model\"", "gpt-4o-transcribe")], Reason::AmbiguousBody),
        (vec![model, ("name=\"model[0]\"", "gpt-4o-transcribe")], Reason::AmbiguousBody),
        (vec![("name=\"model[]\"", "whisper-1")], Reason::AmbiguousBody),
        (vec![("name=\"model\"; filename=\"m\"", "whisper-1")], Reason::AmbiguousBody),
        (vec![("name=model", "whisper-1")], Reason::BodyInvalid),
        (vec![model, ("name=\"_charset_\"", "utf-7")], Reason::BodyInvalid),
        (
            vec![("name=\"model\"\r\nContent-Type: text/plain; charset=utf-7", "whisper-1")],
            Reason::BodyInvalid,
        ),
        (vec![("name=\"file\"; name=\"model\"", "whisper-1")], Reason::BodyInvalid),
        (vec![("name=\"file\"; filename=\"a\"; name=\"model\"", "whisper-1")], Reason::BodyInvalid),
        (vec![("name=\"file\"; filename=\"a\\\"; name=\\\"model\"", "whisper-1")], Reason::BodyInvalid),
        (vec![("name=\"file\"; filename=a; Name=\"model\"", "whisper-1")], Reason::BodyInvalid),
        (vec![("name=\"mo\\del\"", "whisper-1")], Reason::BodyInvalid),
        (vec![("filename=\"a\"; name=\"model\"", "whisper-1")], Reason::BodyInvalid),
        (vec![("name=\"a\"\r\nContent-Disposition: form-data; name=\"model\"", "x")], Reason::BodyInvalid),
        (vec![("name=\"model\"\r\nContent-Transfer-Encoding: base64", "eA==")], Reason::BodyInvalid),
        (vec![("name=\"a\";\r\n name=\"model\"", "x")], Reason::BodyInvalid),
        (vec![("name=\"a\"\nX: y", "x")], Reason::BodyInvalid),
    ] {
        assert_eq!(facts("/v1/audio/transcriptions", &form(&parts)).map(drop), Err(reason), "{parts:?}");
    }
}

#[test]
fn files_are_called_as_clients_call_them() {
    for head in [
        "name=\"file\"; filename=\"user name=model; x.mp3\"\r\nContent-Type: audio/mpeg",
        "name=\"file\"; filename=\"a.mp3\"; filename*=utf-8''%e2%82%ac.mp3",
        "name=\"file\"; filename*=utf-8''name.mp3",
        "name=\"file\"; filename=a.mp3",
    ] {
        let body = form(&[("name=\"model\"", "whisper-1"), (head, "ID3")]);
        let read = facts("/v1/audio/transcriptions", &body).map(|facts| facts.model);
        assert_eq!(read, Ok(Some("whisper-1".into())), "{head}");
    }
}

#[test]
fn what_is_no_form_from_its_first_byte_to_its_last_is_refused() {
    let good = form(&[("name=\"model\"", "whisper-1")]);
    assert!(facts("/v1/audio/transcriptions", &good).is_ok());
    for body in [
        format!("\r\n{good}"),
        format!("preamble\r\n{good}"),
        format!("{good}{good}"),
        good.replace("--B--\r\n", ""),
        good.replace("--B--", "--Bx--"),
        good.replace("\r\n", "\n"),
        good.replace("form-data;", "attachment;"),
        String::new(),
    ] {
        let refused = facts("/v1/audio/transcriptions", &body).map(drop);
        assert_eq!(refused, Err(Reason::BodyInvalid), "{body:?}");
    }
}

#[test]
fn a_form_says_what_separates_its_parts() {
    let of = |kind: &str| boundary(&headers(kind)).map(|found| found.ok());
    assert_eq!(of("multipart/form-data; boundary=\"a b\""), Some(None));
    assert_eq!(of("Multipart/Form-Data; charset=utf-8; Boundary=\"a-b\""), Some(Some("a-b".to_owned())));
    assert_eq!(of("multipart/form-data; boundary=a; boundary=b"), Some(None));
    assert_eq!(of("multipart/form-data; boundary=a; boundary*=utf-8''b"), Some(None));
    assert_eq!(of("multipart/form-data; boundary=a; charset=utf-7"), Some(None));
    assert_eq!(of("multipart/form-data; boundary=a; charset=utf-8"), Some(Some("a".to_owned())));
    assert_eq!(of("multipart/form-data"), Some(None));
    assert_eq!(of("application/json"), None);
}

#[test]
fn where_no_form_is_taken_only_json_is_read() {
    let refused = super::super::read(
        &endpoint("/v1/chat/completions"),
        &headers("multipart/form-data; boundary=B"),
        form(&[]).as_bytes(),
    );
    assert_eq!(refused.map(drop).map_err(|denial| denial.reason), Err(Reason::UnsupportedMediaType));
    let json = super::super::read(
        &endpoint("/v1/images/generations"),
        &headers("application/json"),
        br#"{"model":"dall-e-3","prompt":"x","quality":"hd","size":"1792x1024","n":2}"#,
    );
    let facts = json.unwrap().facts;
    assert_eq!((facts.tier.as_deref(), facts.choices), (Some("hd+1792x1024"), 2));
}

#[test]
fn no_bytes_make_it_panic() {
    let good = form(&[("name=\"model\"", "whisper-1"), FILE]);
    for end in 0..good.len() {
        let _ = facts("/v1/audio/transcriptions", &String::from_utf8_lossy(&good.as_bytes()[..end]));
    }
}
