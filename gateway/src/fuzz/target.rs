//! Request lines.

use std::sync::{Arc, LazyLock};

use http::uri::PathAndQuery;
use percent_encoding::percent_decode;
use tollgate_policy::compile::{Environment, compile_files};
use tollgate_policy::model::{Problem, SourceFile};
use tollgate_policy::operation::RequestLine;
use tollgate_policy::policy::Policy;

use crate::metering::catalog;

const DESTINATIONS: &str = r#"
apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {name: strict}
spec: {hosts: [strict.example]}
---
apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {name: lenient}
spec: {hosts: [lenient.example], encodedPath: ["%2F", "%5C", "%25", ";"]}
---
apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {name: literal}
spec: {hosts: [literal.example], encodedPath: ["%2F", "%5C", "%25", ";", "//", "..", "%09"]}
---
apiVersion: tollgate.dev/v1alpha1
kind: Destination
metadata: {name: wild}
spec: {hosts: ["*.wild.example", "[2001:db8::1]"], port: 8443}
"#;

static POLICY: LazyLock<Result<Policy, Vec<Problem>>> = LazyLock::new(|| {
    let file = SourceFile { path: "fuzz.yaml".into(), text: DESTINATIONS.to_owned() };
    let gateway_names = ["tollgate:8443", "gateway"].iter().filter_map(|name| name.parse().ok()).collect();
    let catalog = Arc::new(catalog::shipped()?);
    let environment = Environment { catalog, gateway_names, ..Environment::default() };
    compile_files(&[file], &environment).map(|compiled| compiled.policy)
});

/// `AUTHORITY LF PATH [LF QUERY]`: what has a target is its own canonical form, is sent as it was matched, and leads nowhere else
/// however it is read.
pub fn target(data: &[u8]) {
    assert!(POLICY.is_ok(), "{:?}", POLICY.as_ref().err());
    let (Ok(policy), Ok(text)) = (&*POLICY, std::str::from_utf8(data)) else { return };
    let mut lines = text.splitn(3, '\n');
    let (authority, path, query) =
        (lines.next().unwrap_or_default(), lines.next().unwrap_or_default(), lines.next());
    let Ok((target, request)) = policy.resolve(&RequestLine { authority, method: "GET", path, query }) else {
        return;
    };
    let (host, path) = (target.host(), request.path());
    assert!(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()), "{path}");
    assert_eq!(request.query(), query, "a query is passed on as it is");

    // Asked for as it is sent, it is the same target.
    let authority = format!("{host}:{}", target.port());
    let sent = policy.resolve(&RequestLine { authority: &authority, method: "GET", path, query });
    let Ok((again, sent)) = sent else { unreachable(&authority, path) };
    assert_eq!((again.host(), sent.path(), sent.query()), (host, path, request.query()));
    assert_eq!(again.destination().name, target.destination().name);

    // The bytes that are matched are the bytes that are sent.
    let line = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    if let Ok(sent) = PathAndQuery::try_from(line.as_str()) {
        assert_eq!((sent.path(), sent.query()), (path, query));
        assert_eq!(sent.as_str(), line);
    }
    if target.destination().name.as_str() == "literal" {
        assert!(stays_below_root(path), "{path}");
    } else {
        assert!(!path.contains("//"), "{path}");
        assert_no_dots(path);
    }
}

fn unreachable(authority: &str, path: &str) -> ! {
    assert_eq!(authority, path, "what has a target has none as it is sent");
    std::process::abort()
}

/// However often it is decoded, no segment is one of dots and no byte is a control.
fn assert_no_dots(path: &str) {
    let mut seen = path.as_bytes().to_vec();
    loop {
        assert!(!seen.iter().any(u8::is_ascii_control), "{path}");
        for segment in seen.split(|byte| b"/\\".contains(byte)) {
            let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
            assert!(name != b"." && name != b"..", "{path}");
        }
        let next: Vec<u8> = percent_decode(&seen).collect();
        if next == seen {
            return;
        }
        seen = next;
    }
}

/// Whether dot segments lead nowhere above the root, empty segments counted or not.
fn stays_below_root(path: &str) -> bool {
    [false, true].iter().all(|skips| {
        let mut depth = 0_i64;
        path.split('/').skip(1).all(|segment| {
            match segment {
                "" if *skips => {}
                "." => {}
                ".." => depth -= 1,
                _ => depth += 1,
            }
            depth >= 0
        })
    })
}
