use std::collections::VecDeque;

use http::{HeaderMap, Method, Uri};
use proptest::prelude::*;
use tollgate_policy::policy::SigV4;

use super::*;
use crate::upstream::{BodyRewriter, MalformedBody};

/// The key of AWS's own examples.
const ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &[u8] = b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

fn signer() -> SigV4Signer {
    let (id, secret) = (Zeroizing::new(ID.to_owned()), Zeroizing::new(SECRET.to_vec()));
    SigV4Signer { id, secret, token: None, keys: Mutex::default() }
}

fn scope_of(region: &str, service: &str) -> AwsScope {
    AwsScope { region: region.into(), service: service.into() }
}

fn at() -> Timestamp {
    "2013-05-24T00:00:00Z".parse().unwrap()
}

fn request(method: &str, target: &str, headers: &[(&'static str, &str)], body: &[u8]) -> Request<OutBody> {
    let mut request = Request::new(OutBody::Whole(Bytes::copy_from_slice(body)));
    *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
    *request.uri_mut() = target.parse::<Uri>().unwrap();
    let pairs = headers.iter().map(|(name, text)| (HeaderName::from_static(name), text.parse().unwrap()));
    *request.headers_mut() = pairs.collect::<HeaderMap>();
    request
}

fn signature(request: &Request<OutBody>) -> &str {
    request.headers()[AUTHORIZATION].to_str().unwrap().split_once("Signature=").unwrap().1
}

#[test]
fn the_examples_of_the_s3_documentation_come_out() {
    // https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
    for (target, expected) in [
        ("/?lifecycle", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("/?max-keys=2&prefix=J", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ] {
        let mut request = request("GET", target, &[], b"");
        let scope = scope_of("us-east-1", "s3");
        signer().sign(&mut request, "examplebucket.s3.amazonaws.com", &scope, at()).unwrap();
        assert_eq!(signature(&request), expected, "{target}");
        assert_eq!(request.headers()[DATE], "20130524T000000Z");
        assert_eq!(request.headers()[CONTENT_SHA256].to_str().unwrap(), sha256(b""));
        assert!(format!("{:?}", request.headers()).contains("Sensitive"));
    }
}

/// The chunked upload of <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html>, from its seed signature on.
fn resigner() -> Resigner {
    resigner_before(ChunkTrailer::Absent)
}

fn resigner_before(trailer: ChunkTrailer) -> Resigner {
    let stamp = signer().stamp(&scope_of("us-east-1", "s3"), at()).unwrap();
    let seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
    Resigner::new(stamp, seed.to_owned(), trailer)
}

fn chunked(sizes: &[usize], signatures: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    for (size, signature) in sizes.iter().zip(signatures) {
        body.extend_from_slice(format!("{size:x};chunk-signature={signature}\r\n").as_bytes());
        if *size > 0 {
            body.extend(std::iter::repeat_n(b'a', *size));
            body.extend_from_slice(b"\r\n");
        }
    }
    body.extend_from_slice(b"\r\n");
    body
}

fn resigned(mut by: Resigner, body: &[u8], piece: usize) -> Result<Vec<u8>, MalformedBody> {
    let mut out = VecDeque::new();
    for piece in body.chunks(piece) {
        by.feed(Bytes::copy_from_slice(piece), &mut out)?;
    }
    by.end()?;
    Ok(out.iter().flat_map(|part| part.to_vec()).collect())
}

#[test]
fn signed_chunks_get_the_signatures_of_the_documentation_however_they_arrive() {
    let sizes = [65_536, 1_024, 0];
    let wrong = "0".repeat(64);
    let caller = chunked(&sizes, &[&wrong, &wrong, &wrong]);
    let expected = chunked(
        &sizes,
        &[
            "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
            "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
            "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
        ],
    );
    assert_eq!(caller.len(), expected.len());
    for piece in [1, 7, 4_096, 65_537, caller.len()] {
        assert!(resigned(resigner(), &caller, piece).is_ok_and(|body| body == expected), "{piece}");
    }
}

#[test]
fn nothing_of_a_chunk_leaves_before_all_of_it_is_there() {
    let body = chunked(&[10, 0], &[&"0".repeat(64), &"0".repeat(64)]);
    let (mut by, mut out) = (resigner(), VecDeque::new());
    let head = body.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    by.feed(Bytes::copy_from_slice(&body[..head + 10 + 1]), &mut out).unwrap();
    assert!(out.is_empty());
    by.feed(Bytes::copy_from_slice(&body[head + 10 + 1..head + 12]), &mut out).unwrap();
    assert_eq!(out.iter().map(Bytes::len).sum::<usize>(), head + 12);
    assert!(by.end().is_err(), "the last chunk is missing");
}

#[test]
fn a_trailer_is_signed_behind_the_last_chunk() {
    let zero = "0".repeat(64);
    let body = format!(
        "3;chunk-signature={zero}\r\nabc\r\n0;chunk-signature={zero}\r\nx-amz-checksum-crc32c:sOO8/Q==\r\n\
         x-amz-trailer-signature:{zero}\r\n\r\n"
    );
    let signed = resigner_before(ChunkTrailer::Signed);
    let out = String::from_utf8(resigned(signed, body.as_bytes(), 5).unwrap()).unwrap();
    assert_eq!(out.len(), body.len());
    let last = out.split("0;chunk-signature=").nth(1).unwrap().get(..64).unwrap();
    let stamp = signer().stamp(&scope_of("us-east-1", "s3"), at()).unwrap();
    let expected =
        stamp.sign("AWS4-HMAC-SHA256-TRAILER", &[last, &sha256(b"x-amz-checksum-crc32c:sOO8/Q==\n")]);
    assert!(out.ends_with(&format!("x-amz-trailer-signature:{expected}\r\n\r\n")), "{out}");
    assert!(resigned(resigner(), body.as_bytes(), 5).is_err(), "a trailer that the head does not announce");
}

#[test]
fn a_trailers_signature_of_another_length_would_give_the_body_another_length() {
    let zero = "0".repeat(64);
    for signature in ["", "0", &zero[1..], &format!("{zero}0"), &format!("+{}", &zero[1..])] {
        let body = format!("0;chunk-signature={zero}\r\nx-amz-trailer-signature:{signature}\r\n\r\n");
        let signed = resigner_before(ChunkTrailer::Signed);
        assert!(resigned(signed, body.as_bytes(), body.len()).is_err(), "{signature}");
    }
}

#[test]
fn chunks_that_are_none_are_refused() {
    let zero = "0".repeat(64);
    for body in [
        "abc".to_owned(),
        "3\r\nabc\r\n0\r\n\r\n".to_owned(),
        format!("3;chunk-signature={zero}\r\nabcd\r\n"),
        format!("zz;chunk-signature={zero}\r\n"),
        format!("ffffffff;chunk-signature={zero}\r\n"),
        "3;chunk-signature=12\r\nabc\r\n".to_owned(),
        format!("0;chunk-signature={zero}\n\n"),
        format!("0;chunk-signature={zero}\r\n\r\nmore"),
        "1".repeat(2_000),
    ] {
        assert!(resigned(resigner(), body.as_bytes(), 3).is_err(), "{body}");
    }
}

#[test]
fn region_and_service_are_those_of_the_list_or_none() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let aws = |regions: &[&str], services: &[&str]| SigV4 {
        access_key_id: "id".into(),
        secret_access_key: "key".into(),
        session_token: None,
        regions: names(regions),
        services: names(services),
    };
    let one = aws(&["us-east-1"], &["s3"]);
    let (east, west) = (scope_of("us-east-1", "s3"), scope_of("us-west-2", "s3"));
    assert_eq!(scope(&one, None, None).unwrap(), east);
    assert_eq!(scope(&one, Some(&east), None).unwrap(), east);
    assert_eq!(scope(&one, Some(&west), None).unwrap_err().reason, Reason::NoGrant);
    let two = aws(&["us-east-1", "us-west-2"], &["s3"]);
    assert_eq!(scope(&two, Some(&west), None).unwrap(), west);
    assert_eq!(scope(&two, None, None).unwrap_err().reason, Reason::BadRequest);
    let word = |text: &'static str| HeaderValue::from_static(text);
    for known in ["UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", CHUNKED, CHUNKED_TRAILER] {
        assert!(scope(&one, None, Some(&word(known))).is_ok(), "{known}");
    }
    let ecdsa = word("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD");
    assert_eq!(scope(&one, None, Some(&ecdsa)).unwrap_err().reason, Reason::BadRequest);
}

#[test]
fn neither_a_copy_nor_a_rename_nor_a_presigned_url_is_signed() {
    let headers =
        |name: &'static str| request("PUT", "/b/k", &[(name, "/other/secret")], b"").headers().clone();
    for name in ["x-amz-copy-source", "x_amz_copy_source", "x-amz-rename-source", "x_amz-rename_source"] {
        assert!(reads_elsewhere(&headers(name)), "{name}");
    }
    assert!(!reads_elsewhere(&headers("x-amz-source-account")) && !reads_elsewhere(&headers("source")));
    assert!(!reads_elsewhere(&headers("x-amz-copy-source-range")));
    assert!(is_presigned("a=1&X-Amz-Algorithm=AWS4-HMAC-SHA256") && is_presigned("%58-amz-algorithm="));
    assert!(!is_presigned("algorithm=x-amz-algorithm"));
}

#[test]
fn a_signing_key_is_kept_for_its_day_and_scope() {
    let signer = signer();
    let kept = || signer.keys.lock().unwrap().len();
    for _ in 0..3 {
        signer.stamp(&scope_of("us-east-1", "s3"), at()).unwrap();
    }
    assert_eq!(kept(), 1);
    signer.stamp(&scope_of("us-west-2", "s3"), at()).unwrap();
    assert_eq!(kept(), 2);
    signer.stamp(&scope_of("us-west-2", "s3"), at() + jiff::SignedDuration::from_hours(24)).unwrap();
    assert_eq!(kept(), 1);
}

/// What the AWS SDK's own crate signs for the same request.
fn by_aws(request: &Request<OutBody>, host: &str, scope: &AwsScope, body: &[u8]) -> String {
    use aws_credential_types::Credentials;
    use aws_sigv4::http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
        UriPathNormalizationMode, sign,
    };
    let identity = Credentials::new(ID, std::str::from_utf8(SECRET).unwrap(), None, None, "test").into();
    let mut settings = SigningSettings::default();
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    if scope.is_s3() {
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    let params = aws_sigv4::sign::v4::SigningParams::builder()
        .identity(&identity)
        .region(&scope.region)
        .name(&scope.service)
        .time(at().into())
        .settings(settings)
        .build()
        .unwrap();
    let uri = format!("https://{host}{}", request.uri());
    let headers = request.headers().iter().map(|(name, text)| (name.as_str(), text.to_str().unwrap()));
    let signable =
        SignableRequest::new(request.method().as_str(), &uri, headers, SignableBody::Bytes(body)).unwrap();
    let (_, signature) = sign(signable, &params.into()).unwrap().into_parts();
    signature
}

proptest! {
    #[test]
    fn signatures_are_those_of_the_sdk(
        segments in prop::collection::vec("[a-zA-Z0-9._~!$&'()*,;=:@-]{1,8}", 0..4),
        pairs in prop::collection::vec(("[a-z-]{1,4}", "[a-zA-Z0-9._~/-]{0,6}"), 0..4),
        body in prop::collection::vec(any::<u8>(), 0..64),
        meta in "[a-z]{1,4}( {1,3}[a-z]{1,4})?",
        is_s3 in any::<bool>(),
    ) {
        let query: Vec<String> = pairs.iter().map(|(name, text)| format!("{name}={text}")).collect();
        // The SDK has encoded what it hands to its signer; a key that was sent unescaped is read as its escaped form.
        let encode = |text: &String| percent_encoding::percent_encode(text.as_bytes(), canonical::ENCODED).to_string();
        let escaped: Vec<String> = segments.iter().map(encode).collect();
        let mut target = format!("/{}", escaped.join("/"));
        if !query.is_empty() {
            target = format!("{target}?{}", query.join("&"));
        }
        let scope = scope_of("eu-central-1", if is_s3 { "s3" } else { "bedrock" });
        let headers = [("content-type", "application/json"), ("x-amz-meta-a", &*meta)];
        let mut own = request("PUT", &target, &headers, &body);
        let theirs = by_aws(&own, "host.example", &scope, &body);
        if is_s3 {
            *own.uri_mut() = target.replace(&escaped.join("/"), &segments.join("/")).parse().unwrap();
        }
        signer().sign(&mut own, "host.example", &scope, at()).unwrap();
        prop_assert_eq!(signature(&own), theirs);
    }
}
