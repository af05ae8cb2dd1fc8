use std::time::Duration;

use proptest::prelude::*;
use reqwest::header::HeaderMap;
use reqwest::{Method, Url};

use super::*;

const SESSION: &str = "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\
<AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/reader/x</Arn></AssumedRoleUser>\
<Credentials>\n<AccessKeyId>ASIAIOSFODNN7EXAMPLE</AccessKeyId><SecretAccessKey>wJalr/XUtn+canary</SecretAccessKey>\
<SessionToken>AQoDYXdzEPT//////////wEXAMPLE==</SessionToken><Expiration>2026-11-24T21:00:00Z</Expiration>\n</Credentials>\
</AssumeRoleResult></AssumeRoleResponse>";

fn role() -> AwsSession {
    AwsSession {
        role_arn: "arn:aws:iam::123456789012:role/reader".to_owned(),
        name: "tollgate-s3".to_owned(),
        policy: None,
        duration: None,
    }
}

fn answer(status: u16, body: &str) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert("date", HeaderValue::from_static("Tue, 24 Nov 2026 20:00:00 GMT"));
    Answer { status, headers, body: Zeroizing::new(body.as_bytes().to_vec()) }
}

fn read(status: u16, body: &str) -> Result<(Vec<String>, Duration), Failure> {
    let asked = Instant::now();
    let fetched = session(&answer(status, body), asked)?;
    Ok((fetched.value.texts(), fetched.expires.unwrap() - asked))
}

fn text(body: &[u8]) -> &str {
    std::str::from_utf8(body).unwrap()
}

#[test]
fn a_role_is_asked_for_as_it_is_written() {
    let asked = "Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Freader&RoleSessionName=tollgate-s3";
    assert_eq!(text(&assume_role(&role(), None)), format!("Action=AssumeRole&{asked}"));
    let narrowed =
        AwsSession { policy: Some("{}".to_owned()), duration: Some(Duration::from_secs(900)), ..role() };
    assert_eq!(
        text(&assume_role(&narrowed, Some("a:b"))),
        format!("Action=AssumeRole&{asked}&DurationSeconds=900&Policy=%7B%7D&ExternalId=a%3Ab")
    );
    assert_eq!(
        text(&web_identity(&role(), b"e30.e30.x\n")),
        format!("Action=AssumeRoleWithWebIdentity&{asked}&WebIdentityToken=e30.e30.x")
    );
}

fn stored(id: &str, secret: &str) -> Value {
    let field = |name: &str, text: &str| (name.into(), Zeroizing::new(text.as_bytes().to_vec()));
    Value::of(vec![field("id", id), field("key", secret)])
}

fn signed(url: &str, stored: &Value) -> Result<Request, Failure> {
    let mut request = Request::new(Method::POST, Url::parse(url).unwrap());
    describe(&mut request);
    let key = AwsKey { access_key_id: "id".to_owned(), secret_access_key: "key".to_owned() };
    let now = "2015-08-30T12:36:00Z".parse().unwrap();
    sign(&mut request, b"Action=AssumeRole", (&key, "us-east-1"), stored, now)?;
    Ok(request)
}

/// By another's hand: computed with botocore's `SigV4Auth`, given these headers, this body and this time.
#[test]
fn the_signature_is_the_one_that_the_sdk_of_aws_makes() {
    let stored = stored("AKIDEXAMPLEEXAMPLE00", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY\n");
    for (url, expected) in [
        (
            "https://sts.us-east-1.amazonaws.com/",
            "a6c44150a95b8367f5e35f1d61f936e6bfb7db42a8f370a537b6a039e3485a5d",
        ),
        (
            "https://sts.test:8443/sts=x/b+c",
            "c50d317c9f3c9b4e1d6e1488004dba6722e721e23043d7b747152dab7f567f3e",
        ),
    ] {
        let request = signed(url, &stored).unwrap();
        let authorization = request.headers()[AUTHORIZATION].to_str().unwrap();
        let start = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLEEXAMPLE00/20150830/us-east-1/sts/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=";
        assert_eq!(authorization.strip_prefix(start), Some(expected), "{url}");
        assert_eq!(request.headers()[DATE], "20150830T123600Z");
        assert!(!format!("{request:?}").contains("AKIDEXAMPLE"));
    }
}

#[test]
fn halves_that_were_exchanged_are_noticed_and_not_sent() {
    let swapped = stored("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "AKIDEXAMPLEEXAMPLE00");
    assert!(matches!(signed("https://sts.test/", &swapped), Err(Failure::Malformed(_))));
}

#[test]
fn a_session_is_three_fields_that_end_before_aws_ends_them() {
    let (fields, usable) = read(200, SESSION).unwrap();
    assert_eq!(fields, ["ASIAIOSFODNN7EXAMPLE", "wJalr/XUtn+canary", "AQoDYXdzEPT//////////wEXAMPLE=="]);
    assert_eq!(usable, Duration::from_secs(3570));
    let precise = SESSION.replace("21:00:00Z", "20:15:00.000Z");
    assert_eq!(read(200, &precise).unwrap().1, Duration::from_secs(870));
}

#[test]
fn what_is_not_plainly_a_session_is_refused_without_repeating_it() {
    let without = |name: &str| {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let (before, rest) = SESSION.split_once(&open).unwrap();
        format!("{before}{}", rest.split_once(&close).unwrap().1)
    };
    let twice = SESSION.replace("<SessionToken>", "<SessionToken>a</SessionToken><SessionToken>");
    for (body, expected) in [
        (String::new(), "not the XML"),
        (r#"{"Credentials": "canary"}"#.to_owned(), "not the XML"),
        (without("Credentials"), "not the XML"),
        (without("AccessKeyId"), "not the XML"),
        (without("SecretAccessKey"), "not the XML"),
        (without("SessionToken"), "not the XML"),
        (twice, "not the XML"),
        (without("Expiration"), "not a time"),
        (SESSION.replace("2026-11-24T21", "2026-11-24T20"), "over"),
        (SESSION.replace("2026-11-24T21", "2036-11-24T21"), "more than a year"),
        (SESSION.replace("ASIAIOSFODNN7EXAMPLE", "ASIA, Signature"), "characters"),
        (SESSION.replace("ASIAIOSFODNN7EXAMPLE", "ASIA"), "characters"),
        (SESSION.replace("wJalr/XUtn+canary", ""), "characters"),
        (SESSION.replace("AQoDYXdzEPT", "a&amp;b"), "characters"),
        (SESSION.replace("AQoDYXdzEPT", "a\r\nx-y: z"), "characters"),
        (SESSION.replace("AQoDYXdzEPT", &"x".repeat(LONGEST_TOKEN)), "too many"),
    ] {
        let failure = read(200, &body).unwrap_err();
        assert!(matches!(failure, Failure::MintNonsense(why) if why.contains(expected)), "{body}: {failure}");
        assert!(!failure.to_string().contains("canary"));
    }
}

#[test]
fn a_refusal_is_named_by_its_code_and_by_nothing_else_of_it() {
    let refusal = |code: &str| {
        format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>canary</Message></Error></ErrorResponse>"
        )
    };
    for (status, code, expected) in [
        (403, "AccessDenied", "AccessDenied;"),
        (400, "ExpiredTokenException", "ExpiredToken;"),
        (403, "SignatureDoesNotMatch", "SignatureDoesNotMatch;"),
        (400, "canary", "a code of its own"),
    ] {
        let failure = read(status, &refusal(code)).unwrap_err();
        assert!(matches!(failure, Failure::MintRefused(why) if why.contains(expected)), "{code}: {failure}");
        assert!(failure.spares_store() && !failure.to_string().contains("canary"));
    }
    assert_eq!(read(400, &refusal("Throttling")), Err(Failure::Throttled));
    for (status, body) in
        [(503, refusal("AccessDenied")), (403, "<html>canary".to_owned()), (302, String::new())]
    {
        assert_eq!(read(status, &body), Err(Failure::Status(status)));
    }
}

proptest! {
    #[test]
    fn whatever_is_answered_is_a_session_that_ends_or_none_at_all(
        at in 0..SESSION.len(),
        cut in 0..40usize,
        put in prop_oneof![any::<String>(), "[<>/A-Za-z0-9&;]{0,12}"],
        status in prop_oneof![Just(200), 100..600u16],
    ) {
        let end = (at + cut).min(SESSION.len());
        let body = format!("{}{put}{}", &SESSION[..at], &SESSION[end..]);
        if let Ok((fields, usable)) = read(status, &body) {
            prop_assert!(status == 200 && usable > Duration::ZERO);
            let is_plain = |b: u8| b.is_ascii_graphic() && !b"<>&\"'".contains(&b);
            prop_assert!(fields.len() == 3 && fields.iter().all(|field| !field.is_empty() && field.bytes().all(is_plain)));
        }
    }
}
