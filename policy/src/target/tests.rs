use crate::path::{EncodedForm, EncodedForms, PathError, canonical, other_readings};

const NONE: EncodedForms = EncodedForms::NONE;

/// The forms of one segment's text.
fn encoded() -> EncodedForms {
    let is_encoded = |form: &EncodedForm| !form.is_of_segments() && *form != EncodedForm::Tab;
    EncodedForms::EACH.into_iter().filter(is_encoded).collect()
}

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
        assert_eq!(canonical(path, encoded()), Err(PathError::DotSegment), "{path}");
    }
}

#[test]
fn no_leave_lets_controls_through_in_any_encoding() {
    for path in ["/a\0", "/a\nb", "/a b", "/%00", "/%0a", "/%7f", "/%1F", "/%2500", "/%25250a", "/a\u{7f}"] {
        assert_eq!(canonical(path, encoded()), Err(PathError::Control), "{path}");
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
        assert_eq!(canonical(path, encoded()), Err(error), "{path}");
    }
    let deep = format!("/%{}41", "25".repeat(1000));
    assert_eq!(canonical(&deep, EncodedForms::ALL), Err(PathError::TooDeep));
}

#[test]
fn empty_and_dot_segments_and_a_tab_stand_as_they_are_written_where_each_is_allowed() {
    let only = |form| [form].into_iter().collect::<EncodedForms>();
    for (path, form, error) in [
        ("/bucket//lead", EncodedForm::EmptySegment, PathError::EmptySegment),
        ("//lead", EncodedForm::EmptySegment, PathError::EmptySegment),
        ("/a//b//", EncodedForm::EmptySegment, PathError::EmptySegment),
        ("/bucket/.", EncodedForm::DotSegment, PathError::DotSegment),
        ("/a/../b", EncodedForm::DotSegment, PathError::DotSegment),
        ("/a/b/../../c", EncodedForm::DotSegment, PathError::DotSegment),
        ("/a%09b", EncodedForm::Tab, PathError::Control),
    ] {
        assert_eq!(canonical(path, only(form)).unwrap(), path);
        assert_eq!(canonical(path, encoded()), Err(error), "{path}");
        assert_eq!(EncodedForms::within(path).beyond(NONE).collect::<Vec<_>>(), [form], "{path}");
    }
    assert_eq!(canonical("/a/%2e%2E/b", EncodedForms::ALL).unwrap(), "/a/../b", "one spelling of it");
}

#[test]
fn no_leave_lets_a_dot_segment_be_encoded_or_lead_above_the_root() {
    for path in [
        "/..",
        "/../a",
        "/a/../..",
        "/a/./../../b",
        "//..",
        "/a//../../..",
        "/a/..;x/b",
        "/a%2F..",
        "/a/..%2Fb",
        "/a/..%5Cb",
        "/a/%252e%252e/b",
        "/a/..%253Bx",
        "/.;x/..",
        "/a/%2F/..//b",
        "/a/b%5C/../c",
        "/a/;x/../b",
        "/a/%3B/../b",
        "/a/%25/../b",
    ] {
        assert_eq!(canonical(path, EncodedForms::ALL), Err(PathError::DotSegment), "{path}");
    }
    for path in ["/%00", "/%0A", "/a%0D%09", "/%2500", "/a\tb"] {
        assert_eq!(canonical(path, EncodedForms::ALL), Err(PathError::Control), "{path}");
    }
}

#[test]
fn readings_are_those_of_whoever_skips_or_resolves_segments() {
    for (path, expected) in [
        ("/a/b", None),
        ("/a.b/..c", None),
        ("/a/../b", Some(["/b", "/b", "/b", "/a/../b"])),
        ("/a//b", Some(["/a//b", "/a/b", "/a/b", "/a/b"])),
        ("/a/b//../c", Some(["/a/b/c", "/a/c", "/a/b/c", "/a/b/../c"])),
        ("/a/.", Some(["/a/", "/a/", "/a/", "/a/."])),
        ("/a/..", Some(["/", "/", "/", "/a/.."])),
    ] {
        let expected = expected.map(|all| all.map(str::to_owned).to_vec());
        assert_eq!(other_readings(path), expected, "{path}");
    }
}
