use super::yaml::{self, Document, Fractions};
use super::{MOST_ELEMENTS, Model, SourceFile, nearest};

fn read(text: &str) -> Result<Model, Vec<String>> {
    let file = SourceFile { path: "a.yaml".into(), text: text.to_owned() };
    Model::read(&[file]).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn documents(text: &str) -> Vec<Document> {
    yaml::read(text, Fractions::Numbers)
}

#[test]
fn every_member_and_element_has_its_line() {
    let text = "# a comment\na: 1\nb:\n  - x\n  - c: {d: 2}\n\n  - [3,\n     4]\n";
    let documents = documents(text);
    let lines = &documents[0].lines;
    for (path, line) in [
        ("", 2),
        ("a", 2),
        ("b", 3),
        ("b[0]", 4),
        ("b[1].c", 5),
        ("b[1].c.d", 5),
        ("b[2][0]", 7),
        ("b[2][1]", 8),
    ] {
        assert_eq!(lines.get(path), Some(&line), "{path}");
    }
}

#[test]
fn a_list_of_too_many_elements_is_refused_by_the_name_of_its_field() {
    let grant = |paths: usize| {
        let paths = vec!["/x"; paths].join(", ");
        let head = "apiVersion: tollgate.dev/v1alpha1\nkind: Grant\nmetadata: {name: web}\n";
        format!("{head}spec:\n  destination: up\n  allow: {{paths: [{paths}]}}\n")
    };
    assert!(read(&grant(MOST_ELEMENTS)).is_ok());
    let problems = read(&grant(MOST_ELEMENTS + 1)).unwrap_err();
    let expected =
        "a.yaml:6: Grant/web: spec.allow.paths: a list has at most 4096 elements, and this one 4097";
    assert_eq!(problems, [expected]);
}

#[test]
fn lines_count_through_the_whole_file() {
    let documents = documents("a: 1\n--- # next\nb: 2\n---\n# nothing\n---\nc: |\n  ---x\n  text\nd: 4\n");
    assert_eq!(documents.len(), 4);
    assert_eq!(documents[1].lines.get("b"), Some(&3));
    assert!(documents[2].value.is_null() && documents[2].faults.is_empty());
    assert_eq!(documents[3].value.pointer("/c").unwrap(), "---x\ntext\n");
    assert_eq!(documents[3].lines.get("d"), Some(&10));
}

#[test]
fn what_is_wrong_at_the_end_of_a_text_is_on_its_last_line() {
    for (text, lines) in [
        ("a: {b", vec![1]),
        ("a: 1\nb: {c\n", vec![2]),
        ("a: 1\r\nb: [\r\n", vec![2]),
        ("a: 1\rb: [", vec![2]),
        ("a: {b\n---\nc: 1\nd: {e", vec![1, 4]),
    ] {
        let found: Vec<usize> =
            documents(text).iter().flat_map(|document| &document.faults).map(|fault| fault.line).collect();
        assert_eq!(found, lines, "{text:?}");
    }
}

#[test]
fn null_is_the_same_as_not_there() {
    let documents = documents("a:\nb: ~\nc: {d: null}\n");
    assert_eq!(documents[0].value.to_string(), r#"{"c":{}}"#);
    assert!(!documents[0].lines.contains_key("a"));
}

#[test]
fn every_key_that_occurs_twice_is_found_and_the_first_one_kept() {
    let documents = documents("a: 1\n'a': 2\nb: {c: 1, \"c\": 2, \"\": 3, \"\": 4}\na: 3\n");
    let faults: Vec<(usize, &str)> =
        documents[0].faults.iter().map(|fault| (fault.line, fault.path.as_str())).collect();
    assert_eq!(faults, [(2, "a"), (3, "b.c"), (3, "b."), (4, "a")]);
    assert_eq!(documents[0].value.to_string(), r#"{"a":1,"b":{"":3,"c":1}}"#);
}

#[test]
fn an_anchor_is_what_it_stands_for() {
    let documents = documents("a: &x {b: 1}\nc: *x\n");
    assert_eq!(documents[0].value.to_string(), r#"{"a":{"b":1},"c":{"b":1}}"#);
}

#[test]
fn what_an_alias_repeats_keeps_its_lines_and_is_bounded() {
    let documents_of = documents("a: &x\n  b: [1, 2]\nc: [*x]\nd: *x\n");
    assert_eq!(documents_of[0].lines.get("c[0]"), Some(&3));
    assert_eq!(documents_of[0].lines.get("c[0].b[1]"), Some(&2));
    assert_eq!(documents_of[0].lines.get("d.b"), Some(&2));

    let mut bomb = format!("a0: &a0 {}\n", "x".repeat(1000));
    for level in 1..12 {
        let repeated = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{repeated}]\n"));
    }
    let mut deep = "a0: &a0 []\n".to_owned();
    for level in 1..100 {
        deep.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    let long = format!("{}: [{}]\n", "x".repeat(1_000), "0, ".repeat(20_000));
    for (text, message) in [
        (bomb, "aliases repeat more than"),
        (deep, "more than 64 deep"),
        ("- ".repeat(100_000), "more than 64 deep"),
        ("[".repeat(200), "more than 64 deep"),
        (long, "too many fields with too long names"),
    ] {
        let documents = documents(&text);
        let [document] = &documents[..] else { panic!("{message}: {}", documents.len()) };
        assert!(document.unreadable && document.value.is_null(), "{message}");
        assert!(document.faults[0].message.contains(message), "{:?}", document.faults);
    }
    let inside = documents("a: &x [*x]\n");
    assert_eq!(inside[0].faults[0].message, "this has no value that YAML defines");
}

#[test]
fn a_scalar_is_what_the_core_schema_says() {
    for (written, read) in [
        ("12", "12"),
        ("+12", "12"),
        ("-012", "-12"),
        ("0x1F", "31"),
        ("0o17", "15"),
        ("0x-1", "\"0x-1\""),
        ("18446744073709551615", "18446744073709551615"),
        ("1.5e3", "1500.0"),
        (".5", "0.5"),
        ("inf", "\"inf\""),
        ("nan", "\"nan\""),
        ("1_000", "\"1_000\""),
        ("1.2.3", "\"1.2.3\""),
        ("2026-01-01", "\"2026-01-01\""),
        ("TRUE", "true"),
        ("yes", "\"yes\""),
        ("'12'", "\"12\""),
        ("!!str 12", "\"12\""),
        ("!!int 12", "12"),
        ("|-\n  12", "\"12\""),
    ] {
        let documents = documents(&format!("a: {written}\n"));
        assert!(documents[0].faults.is_empty(), "{written}: {:?}", documents[0].faults);
        assert_eq!(documents[0].value["a"].to_string(), read, "{written}");
    }
    for written in [".inf", "-.INF", ".nan", "1e999", "!x 1", "!x {b: 1}", "!!binary aGk="] {
        let documents = documents(&format!("a: {written}\n"));
        assert_eq!(documents[0].faults.len(), 1, "{written}");
        assert!(documents[0].value["a"].is_null(), "{written}");
    }
}

#[test]
fn what_ends_with_dots_is_a_document_of_its_own() {
    let documents = documents("# first\na: 1\n...\nb: 2\n---\nc: 3\n");
    let values: Vec<_> = documents.iter().map(|document| document.value.to_string()).collect();
    assert_eq!(values, [r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#]);
    assert_eq!(documents[2].lines.get("c"), Some(&6));
}

#[test]
fn a_text_that_is_not_yaml_is_named_with_its_line() {
    for text in [
        "a: 1\nb: [1, 2\n",
        "a: 1\n\t b: 2\n",
        "a: 'x\n",
        "a: 1\n  b: 2\n",
        "a: *nowhere\n",
        "{a: 1}}\n",
        "a: 1\n\0b: 2\n",
    ] {
        let documents = documents(text);
        assert!(documents[0].unreadable && !documents[0].faults.is_empty(), "{text}");
        assert!(documents[0].value.is_null());
    }
}

#[test]
fn what_is_no_mapping_is_no_resource() {
    for text in ["- a\n", "text\n", "3\n"] {
        let problems = read(text).unwrap_err();
        assert!(problems[0].starts_with("a.yaml:1: kind: a resource needs a `kind`"), "{problems:?}");
    }
    assert!(read("").is_ok());
    assert!(read("---\n# nothing\n---\n").is_ok());
}

#[test]
fn a_fault_moves_no_other_element() {
    let text = "apiVersion: tollgate.dev/v1alpha1\nkind: Destination\nmetadata: {name: a}\nspec:\n  hosts:\n    - '*'\n    - a.example\n    - b:c\n";
    let problems = read(text).unwrap_err();
    assert_eq!(problems.len(), 2);
    assert!(problems[0].starts_with("a.yaml:6: Destination/a: spec.hosts[0]: "), "{problems:?}");
    assert!(problems[1].starts_with("a.yaml:8: Destination/a: spec.hosts[2]: "), "{problems:?}");
}

#[test]
fn a_mistyped_kind_and_a_mistyped_word_are_guessed() {
    let text = "apiVersion: tollgate.dev/v1alpha1\nkind: Grnat\nmetadata: {name: a}\nspec: {}\n";
    let problems = read(text).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("there is no such kind; did you mean `Grant`?"), "{problems:?}");
    let grant =
        text.replace("Grnat", "Grant").replace("spec: {}", "spec: {limits: [{requests: 1, per: minut}]}");
    let problems = read(&grant).unwrap_err();
    assert!(problems[0].contains("did you mean `minute`?"), "{problems:?}");
}

#[test]
fn a_mistyped_name_is_guessed_and_another_one_is_not() {
    let known = ["hosts", "sourceAddress", "tls"];
    assert_eq!(nearest("host", known.into_iter()), Some("hosts"));
    assert_eq!(nearest("sourceadress", known.into_iter()), Some("sourceAddress"));
    assert_eq!(nearest("tsl", known.into_iter()), Some("tls"), "two that changed places are one mistake");
    assert_eq!(nearest("region", known.into_iter()), None);
    assert_eq!(nearest("x", std::iter::empty()), None);
}
