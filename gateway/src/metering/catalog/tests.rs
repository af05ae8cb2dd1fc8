use super::*;

#[test]
fn every_file_of_the_catalog_is_read() {
    let catalog = shipped().unwrap_or_else(|problems| panic!("{problems:#?}"));
    let mut names: Vec<_> = catalog.dialect_names().collect();
    names.sort_unstable();
    assert_eq!(names, ["anthropic", "http", "openai"]);
}
