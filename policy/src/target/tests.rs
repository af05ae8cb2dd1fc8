use super::path::{EncodedForm, EncodedForms, PathError, canonical};

const NONE: EncodedForms = EncodedForms::NONE;

#[test]
fn escapes_of_unreserved_characters_are_undone_and_others_put_in_upper_case() {
    for (written, sent) in [
        ("/", "/"),
        ("/v1/%6Dodels", "/v1/models"),
        ("/%41%7a%30%2D%5f%7E%2e5", "/Az0-_~.5"),
        ("/a%20b%3fc%23", "/a%20b%3Fc%23"),
        ("/%e2%82%ac", "/%E2%82%AC"),
        ("/%2A%26%3d", "/%2A%26%3D"),
    ] {
        assert_eq!(canonical(written, NONE).unwrap(), sent);
        assert_eq!(canonical(sent, NONE).unwrap(), sent, "not its own canonical form");
    }
}

#[test]
fn each_form_needs_its_own_leave() {
    for (path, form) in [
        ("/a%2Fb", EncodedForm::Slash),
        ("/a%5Cb", EncodedForm::Backslash),
        ("/a%25b", EncodedForm::Percent),
        ("/a;b", EncodedForm::Semicolon),
        ("/a%3Bb", EncodedForm::Semicolon),
    ] {
        assert_eq!(canonical(path, NONE), Err(PathError::Form(form)));
        assert_eq!(canonical(path, [form].into_iter().collect()).unwrap(), path);
        let others = EncodedForms::EACH.into_iter().filter(|other| *other != form).collect();
        assert_eq!(canonical(path, others), Err(PathError::Form(form)), "{path}");
        let within: Vec<EncodedForm> = EncodedForms::within(path).beyond(NONE).collect();
        assert_eq!(within, [form]);
    }
}

#[test]
fn no_leave_lets_a_dot_segment_through() {
    let paths = [
        "/..",
        "/../",
        "/a/..",
        "/./a",
        "/%2e",
        "/.%2E",
        "/%2e%2e/a",
        "/..;/a",
        "/.;x",
        "/..%3b",
        "/a%2f..",
        "/a%2F%2e%2e%2Fb",
        "/..%5cb",
        "/%252e%252e/a",
        "/%25%32%65.",
        "/a%252f..",
        "/%25252e",
        "/..%253bx",
        "/a%255c..%255cb",
    ];
    for path in paths {
        assert_eq!(canonical(path, EncodedForms::ALL), Err(PathError::DotSegment), "{path}");
    }
}

#[test]
fn no_leave_lets_controls_through_in_any_encoding() {
    for path in ["/a\0", "/a\nb", "/a b", "/%00", "/%0a", "/%7f", "/%1F", "/%2500", "/%25250a", "/a\u{7f}"] {
        assert_eq!(canonical(path, EncodedForms::ALL), Err(PathError::Control), "{path}");
    }
}

#[test]
fn what_is_no_path_is_refused() {
    for (path, error) in [
        ("", PathError::NotAbsolute),
        ("*", PathError::NotAbsolute),
        ("v1", PathError::NotAbsolute),
        ("http://h/", PathError::NotAbsolute),
        ("//h/", PathError::EmptySegment),
        ("/a//", PathError::EmptySegment),
        ("/%", PathError::Escape),
        ("/%4", PathError::Escape),
        ("/%4g", PathError::Escape),
        ("/%+1", PathError::Escape),
        ("/% 1", PathError::Control),
        ("/é", PathError::NonAscii),
        ("/a\\b", PathError::Character),
        ("/a#b", PathError::Character),
        ("/a?b", PathError::Character),
        ("/<a>", PathError::Character),
        ("/`{", PathError::Character),
    ] {
        assert_eq!(canonical(path, EncodedForms::ALL), Err(error), "{path}");
    }
    let deep = format!("/%{}41", "25".repeat(1000));
    assert_eq!(canonical(&deep, EncodedForms::ALL), Err(PathError::TooDeep));
}
