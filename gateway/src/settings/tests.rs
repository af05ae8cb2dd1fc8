use super::*;

const GOOD: &str = "
listeners: [{name: mesh, address: '127.0.0.1:0'}]
identity: {certificate: {certFile: a, keyFile: b}, trustDomains: {prod.acme: {bundleFile: c}}}
resources: res
dataDir: data
admin: {tokenFile: token}
";

fn read(text: &str, environment: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tollgate.yaml");
    std::fs::write(&file, text).unwrap();
    let find = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_string());
    Settings::read(&file, find).map_err(|problems| {
        problems.iter().map(|p| format!("{}: {}: {}", p.line, p.field, p.message)).collect()
    })
}

#[test]
fn defaults_are_those_of_the_documentation_and_the_environment_overrides_single_settings() {
    let plain = read(GOOD, &[]).unwrap();
    assert_eq!((plain.drain.delay.as_secs(), plain.drain.timeout.0.as_secs()), (5, 600));
    assert!(plain.admin.address.ip().is_loopback());
    let over = read(GOOD, &[("TOLLGATE_CORES", "3"), ("TOLLGATE_DRAIN_DELAY", "1s"), ("RUST_LOG", "debug")])
        .unwrap();
    assert_eq!((over.cores(), over.drain.delay.as_secs(), over.log.as_str()), (3, 1, "debug"));
}

#[test]
fn a_misspelt_setting_is_named_with_its_line() {
    let problems = read(&GOOD.replace("dataDir", "dataDirectory"), &[]).unwrap_err();
    assert!(problems.iter().any(|p| p.starts_with("5:") && p.contains("dataDirectory")), "{problems:?}");
}

#[test]
fn a_name_that_is_no_authority_is_named_with_its_line() {
    let problems = read(&format!("{GOOD}names: ['https://tollgate']\n"), &[]).unwrap_err();
    assert!(problems[0].starts_with("7: names[0]: `https://tollgate`"), "{problems:?}");
}

#[test]
fn a_problem_that_the_environment_brought_names_its_variable() {
    let problems = read(GOOD, &[("TOLLGATE_CORES", "many"), ("TOLLGATE_LOG", "info")]).unwrap_err();
    assert!(problems[0].ends_with("(set by TOLLGATE_CORES)"), "{problems:?}");
    let problems = read(GOOD, &[("RUST_LOG", "loud")]).unwrap_err();
    assert!(
        problems[0].contains("log: `loud`") && problems[0].ends_with("(set by RUST_LOG)"),
        "{problems:?}"
    );
}

#[test]
fn what_contradicts_itself_is_named_with_the_line_of_its_field() {
    let problems = read(&format!("{GOOD}cores: 0\nlog: 'loud'\n"), &[]).unwrap_err();
    assert!(problems.iter().any(|p| p.starts_with("7: cores:")), "{problems:?}");
    assert!(problems.iter().any(|p| p.starts_with("8: log:")), "{problems:?}");
}

#[test]
fn a_seal_key_inside_the_data_directory_is_refused() {
    let problems = read(&format!("{GOOD}ledger: {{sealKeyFile: data/seal.key}}\n"), &[]).unwrap_err();
    assert!(problems[0].contains("sealKeyFile"), "{problems:?}");
}

#[test]
fn a_file_that_is_missing_has_no_line() {
    let problems = Settings::read(Path::new("/nonexistent/tollgate.yaml"), |_| None).unwrap_err();
    assert!(problems[0].to_string().starts_with("/nonexistent/tollgate.yaml: No such file"), "{problems:?}");
}

#[test]
fn one_mistake_is_one_problem_that_says_what_would_be_right() {
    let with = |more: &str| format!("{GOOD}{more}\n");
    let address = |address: &str| GOOD.replace("'127.0.0.1:0'", address);
    let form = "an address is IP:port, as in 0.0.0.0:8443";
    for (text, place, part) in [
        (address("'127.0.0.1'"), "2: listeners[0].address: ", form),
        (address("8443"), "2: listeners[0].address: ", form),
        (with("egress: {privateRanges: [127.0.0.1]}"), "7: egress.privateRanges[0]: ", "as in 127.0.0.1/32"),
        (with("egress: {privateRanges: [local]}"), "7: egress.privateRanges[0]: ", "as in 10.0.0.0/8"),
        (with("cores: many"), "7: cores: ", "a whole number"),
        (with("limits: {bodyBytes: 1 MBB}"), "7: limits.bodyBytes: ", "a whole number"),
        (with("limits: {bodyBytes: -1}"), "7: limits.bodyBytes: ", "a whole number"),
        (with("drain: {delay: 5}"), "7: drain.delay: ", "with its unit"),
        (with("drain: {timeout: 0s}"), "7: drain.timeout: ", "above 0"),
        (with("names: [tollgate, 'a b']"), "7: names[1]: ", "a b"),
    ] {
        let problems = read(&text, &[]).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(place) && problems[0].contains(part), "{problems:?}");
    }
}

#[test]
fn a_mistake_in_a_list_hides_no_other() {
    let text = GOOD.replace("'127.0.0.1:0'", "'127.0.0.1'") + "cores: many\nresouces: x\nlog: 3\n";
    let problems = read(&text, &[]).unwrap_err();
    let lines: Vec<&str> = problems.iter().filter_map(|p| p.split_once(": ").map(|(line, _)| line)).collect();
    assert_eq!(lines, ["2", "7", "8", "9"], "{problems:?}");
}

#[test]
fn bytes_have_units_and_a_delay_may_be_nothing() {
    for (written, bytes) in
        [("4096", 4096), ("'4096'", 4096), ("32 MiB", 32 << 20), ("1MB", 1_000_000), ("2 KiB", 2048)]
    {
        let settings = read(&format!("{GOOD}limits: {{bodyBytes: {written}}}\n"), &[]).unwrap();
        assert_eq!(settings.limits.body_bytes, bytes, "{written}");
    }
    let settings = read(&format!("{GOOD}drain: {{delay: 0s}}\n"), &[]).unwrap();
    assert!(settings.drain.delay.is_zero());
}

#[test]
fn a_variable_that_nothing_reads_is_named_with_the_nearest() {
    let names = [
        "TOLLGATE_SECRET_OPENAI",
        "TOLLGATE_DATADIR",
        "TOLLGATE_CORES",
        "TOLLGATE_CONFIG",
        "TOLLGATE_PORT_8443_TCP",
        "HOME",
    ];
    let said = unknown_variables(names.into_iter().map(str::to_owned));
    assert_eq!(said, ["nothing reads the variable TOLLGATE_DATADIR; did you mean TOLLGATE_DATA_DIR?"]);
}
