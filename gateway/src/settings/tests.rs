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
    assert_eq!((over.cores(), over.drain.delay.as_secs(), over.log.level.as_str()), (3, 1, "debug"));
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
        problems[0].contains("log.level: `loud`") && problems[0].ends_with("(set by RUST_LOG)"),
        "{problems:?}"
    );
}

#[test]
fn what_contradicts_itself_is_named_with_the_line_of_its_field() {
    let problems = read(&format!("{GOOD}cores: 0\nlog: 'loud'\n"), &[]).unwrap_err();
    assert!(problems.iter().any(|p| p.starts_with("7: cores:")), "{problems:?}");
    assert!(problems.iter().any(|p| p.starts_with("8: log.level:")), "{problems:?}");
}

#[test]
fn a_seal_key_inside_the_data_directory_is_refused() {
    let problems = read(&format!("{GOOD}ledger: {{sealKeyFile: data/seal.key}}\n"), &[]).unwrap_err();
    assert!(problems[0].contains("sealKeyFile"), "{problems:?}");
}

#[test]
fn a_file_that_is_missing_has_no_line() {
    let problems = Settings::read(Path::new("/nonexistent/tollgate.yaml"), |_| None).unwrap_err();
    assert!(
        problems[0]
            .to_string()
            .starts_with("/nonexistent/tollgate.yaml: there is no such file: `tollgate init`"),
        "{problems:?}"
    );
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
        (with("limits: {heldBytes: 1 MiB}"), "7: limits.heldBytes: ", "at least 16 MiB"),
        (with("limits: {headBytes: 4 KiB}"), "7: limits.headBytes: ", "from 8 KiB"),
        (with("limits: {streams: 0}"), "7: limits.streams: ", "at least 1"),
        (with("ledger: {keep: {age: 0s}}"), "7: ledger.keep.age: ", "above 0"),
        (with("drain: {delay: 5}"), "7: drain.delay: ", "with its unit"),
        (with("drain: {timeout: 0s}"), "7: drain.timeout: ", "above 0"),
        (with("names: [tollgate, 'a b']"), "7: names[1]: ", "a b"),
        (
            with("telemetry: {otlp: {endpoint: 'otel:4318'}}"),
            "7: telemetry.otlp.endpoint: ",
            "the URL of a collector",
        ),
        (
            with("telemetry: {otlp: {endpoint: 'http://otel:4318', headers: {key: {file: key}}}}"),
            "7: telemetry.otlp.headers.key: ",
            "https",
        ),
        (
            with("telemetry: {otlp: {endpoint: 'https://otel:4318', traces: {sample: 2}}}"),
            "7: telemetry.otlp.traces.sample: ",
            "from 0 to 1",
        ),
        (with("telemetry: {propagate: ['a b']}"), "7: telemetry.propagate[0]: ", "a b"),
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
fn bounds_have_defaults_that_follow_the_memory_and_are_taken_as_written() {
    let plain = read(GOOD, &[]).unwrap();
    let bounds = plain.limits.bounds();
    assert!((16 << 20..=1 << 30).contains(&bounds.held) && bounds.held_of_one == bounds.held / 3);
    assert_eq!((bounds.connections, bounds.calls), (4_096, 2_048));
    assert_eq!((plain.ledger.keep.age.0.as_secs(), plain.ledger.keep.size), (90 * 86_400, 20 << 30));
    let more = "limits: {heldBytes: 64 MiB, heldBytesPerCaller: 8 MiB, minRate: 1 KiB, patience: 1m, lifetime: 1d}\n\
                ledger: {keep: {age: 7d, size: 1 GiB}}\n";
    let written = read(&format!("{GOOD}{more}"), &[]).unwrap();
    let (bounds, least) = (written.limits.bounds(), written.limits.min_rate());
    assert_eq!((bounds.held, bounds.held_of_one), (64 << 20, 8 << 20));
    assert_eq!((least.bytes, least.patience.as_secs(), least.lifetime.as_secs()), (1_024, 60, 86_400));
    assert_eq!((written.ledger.keep.age.0.as_secs(), written.ledger.keep.size), (7 * 86_400, 1 << 30));
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

#[test]
fn a_level_alone_stands_for_one_with_the_format_left_open() {
    use crate::telemetry::LogFormat;
    let log = |more: &str, environment: &[(&str, &str)]| {
        let log = read(&format!("{GOOD}{more}\n"), environment).unwrap().log;
        (log.level, log.format)
    };
    assert_eq!(log("", &[]), ("info".to_owned(), None));
    assert_eq!(log("log: debug", &[]), ("debug".to_owned(), None));
    assert_eq!(log("log: {level: warn, format: json}", &[]), ("warn".to_owned(), Some(LogFormat::Json)));
    let variables = [("TOLLGATE_LOG", "error"), ("TOLLGATE_LOG_FORMAT", "text")];
    for more in ["", "log: debug", "log: {format: json}"] {
        assert_eq!(log(more, &variables), ("error".to_owned(), Some(LogFormat::Text)), "{more}");
    }
    let problems = read(&format!("{GOOD}log: {{formt: xml}}\n"), &[]).unwrap_err();
    assert!(problems[0].contains("did you mean `format`?"), "{problems:?}");
    let problems = read(&format!("{GOOD}log: {{format: jsn}}\n"), &[]).unwrap_err();
    assert!(problems[0].contains("did you mean `json`?"), "{problems:?}");
}

#[test]
fn a_listener_of_connections_asks_for_a_certificate_and_no_other_leads_to_a_destination() {
    let listener = |rest: &str| GOOD.replace("'127.0.0.1:0'", &format!("'127.0.0.1:0', {rest}"));
    for good in ["kind: tcp", "kind: tcp, destination: cache", "kind: tcp, destination: shop/cache"] {
        assert!(read(&listener(good), &[]).is_ok(), "{good}");
    }
    for (rest, field) in [
        ("kind: tcp, clientCertificate: optional", "clientCertificate"),
        ("kind: tcp, clientCertificate: none", "clientCertificate"),
        ("destination: cache", "destination"),
        ("kind: hbone, destination: cache", "destination"),
    ] {
        let problems = read(&listener(rest), &[]).unwrap_err();
        let named = format!("2: listeners[0].{field}: ");
        assert!(problems.len() == 1 && problems[0].starts_with(&named), "{rest}: {problems:?}");
    }
}

#[test]
fn a_listener_that_asks_for_no_certificate_needs_somebody_who_makes_tokens() {
    let listener =
        |word: &str| GOOD.replace("'127.0.0.1:0'", &format!("'127.0.0.1:0', clientCertificate: {word}"));
    let token =
        "tokens: [{kind: oidc, issuer: 'https://ci.example', audience: tollgate, keys: {discovery: {}}}]";
    let with = |text: &str| {
        text.replace("{prod.acme: {bundleFile: c}}", &format!("{{prod.acme: {{bundleFile: c}}}}, {token}"))
    };
    for word in ["required", "optional", "none"] {
        assert!(read(&with(&listener(word)), &[]).is_ok(), "{word}");
    }
    for word in ["optional", "none"] {
        let problems = read(&listener(word), &[]).unwrap_err();
        assert!(problems[0].starts_with("2: listeners[0].clientCertificate: "), "{problems:?}");
    }
    let tokens_alone = |text: &str| text.replace("trustDomains: {prod.acme: {bundleFile: c}}", token);
    assert!(read(&tokens_alone(&listener("none")), &[]).is_ok());
    let problems = read(&tokens_alone(&listener("optional")), &[]).unwrap_err();
    assert!(problems[0].contains("identity.trustDomains: without one"), "{problems:?}");
    let problems =
        read(&with(GOOD).replace("audience: tollgate", "audience: 'https://ci.example'"), &[]).unwrap_err();
    assert!(problems[0].starts_with("3: identity.tokens[0].audience: "), "{problems:?}");
    let problems = read(&with(GOOD).replace("{discovery: {}}", "{discovery: {}}, algorithms: [HS256]"), &[])
        .unwrap_err();
    assert!(problems[0].contains("identity.tokens[0].algorithms"), "{problems:?}");
}

#[test]
fn resources_come_from_a_directory_or_from_a_cluster() {
    let resources = |written: &str| read(&GOOD.replace("resources: res", written), &[]);
    let of = |written: &str| match resources(written).unwrap().resources {
        ResourceSettings::Kubernetes(cluster) => cluster,
        ResourceSettings::Directory(_) => panic!("{written}"),
    };
    assert!(resources("resources: res").unwrap().resources.directory().unwrap().ends_with("res"));
    assert_eq!(of("resources: {kubernetes: {}}").namespaces, None);
    let cluster =
        of("resources: {kubernetes: {kubeconfig: admin.conf, namespaces: [shop], gatewayNamespace: egress}}");
    assert!(cluster.kubeconfig.unwrap().is_absolute());
    assert_eq!(cluster.namespaces.unwrap(), ["shop".parse().unwrap()]);
    let wrong = [
        (
            "resources: {kubernetes: {namespace: shop}}",
            "4: resources.kubernetes.namespace: there is no field `namespace` here; did you mean `namespaces`?",
        ),
        (
            "resources: {kubernetes: {namespaces: []}}",
            "4: resources.kubernetes.namespaces: leave it out for all namespaces",
        ),
        (
            "resources: {kubernetes: {namespaces: [Shop]}}",
            "4: resources.kubernetes.namespaces[0]: `Shop` is not a name",
        ),
        ("resources: {files: res}", "4: resources.files: there is no field `files` here"),
        ("resources: 7", "4: resources: this has to be a directory or `{kubernetes: {}}`"),
    ];
    for (written, said) in wrong {
        let problems = resources(written).unwrap_err();
        assert!(problems.iter().any(|problem| problem.starts_with(said)), "{problems:?}");
    }
    let over = read(
        &GOOD.replace("resources: res", "resources: {kubernetes: {}}"),
        &[("TOLLGATE_RESOURCES", "res")],
    );
    assert!(over.unwrap().resources.directory().is_some());
}

#[test]
fn the_certificate_and_bundles_come_from_files_or_from_the_workload_api() {
    let files = "certificate: {certFile: a, keyFile: b}, trustDomains: {prod.acme: {bundleFile: c}}";
    let with = |identity: &str| GOOD.replace(files, identity);
    let api = "workloadApi: 'unix:///run/spire/agent.sock', trustDomains: {prod.acme: {}, partner.example: {bundleFile: c}}";
    assert!(read(&with(api), &[]).is_ok());
    for text in ["/run/spire/agent.sock", "tcp://127.0.0.1:8081", "unix:run/agent.sock", "unix://"] {
        let problems = read(&with(&api.replace("unix:///run/spire/agent.sock", text)), &[]).unwrap_err();
        assert!(
            problems[0].contains("a Workload API is a Unix socket, as in unix:///run/spire/agent.sock"),
            "{problems:?}"
        );
    }
    let problems = read(&with("trustDomains: {prod.acme: {}}"), &[]).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("identity.certificate: required"), "{problems:?}");
    assert!(problems[1].contains("identity.trustDomains.prod.acme.bundleFile: required"), "{problems:?}");
}

#[test]
fn proxies_in_front_of_a_listener_are_listed_and_one_that_names_workloads_ends_their_tls() {
    let with = |more: &str| GOOD.replace("'127.0.0.1:0'", &format!("'127.0.0.1:0', {more}"));
    for good in
        ["proxyProtocol: {from: [10.0.0.0/28]}", "proxyProtocol: {from: [10.0.0.7/32], spiffeTlv: true}"]
    {
        assert!(read(&with(good), &[]).is_ok(), "{good}");
    }
    for (wrong, field) in [
        ("proxyProtocol: {from: []}", "proxyProtocol.from"),
        ("proxyProtocol: {}", "proxyProtocol"),
        ("proxyProtocol: {from: [10.0.0.7]}", "proxyProtocol.from[0]"),
        ("kind: hbone, proxyProtocol: {from: [10.0.0.7/32], spiffeTlv: true}", "proxyProtocol.spiffeTlv"),
    ] {
        let problems = read(&with(wrong), &[]).unwrap_err();
        assert!(problems[0].starts_with(&format!("2: listeners[0].{field}: ")), "{problems:?}");
    }
    let token = "tokens: [{kind: spiffe, trustDomain: prod.acme, audience: t, keys: {workloadApi: {}}}]";
    let asks = with("clientCertificate: none, proxyProtocol: {from: [10.0.0.7/32], spiffeTlv: true}");
    let asks = asks.replace("identity: {", &format!("identity: {{{token}, workloadApi: 'unix:/a', "));
    let problems = read(&asks, &[]).unwrap_err();
    assert!(
        problems[0].starts_with("2: listeners[0].clientCertificate: the proxy has verified"),
        "{problems:?}"
    );
    let problems = read(&GOOD.replace("identity: {", &format!("identity: {{{token}, ")), &[]).unwrap_err();
    assert!(problems[0].starts_with("3: identity.tokens[0].keys.workloadApi: "), "{problems:?}");
}

#[test]
fn the_variable_of_spiffe_names_the_workload_api_where_the_settings_name_no_identity() {
    let files = "certificate: {certFile: a, keyFile: b}, trustDomains: {prod.acme: {bundleFile: c}}";
    let variable = [("SPIFFE_ENDPOINT_SOCKET", "unix:/run/api.sock")];
    let socket = |text: &str| {
        let settings = read(text, &variable).unwrap();
        settings.identity.workload_api.map(|socket| socket.to_string())
    };
    let bare = GOOD.replace(files, "trustDomains: {prod.acme: {}}");
    assert_eq!(socket(&bare).as_deref(), Some("unix:///run/api.sock"));
    let own = bare.replace("{prod.acme: {}}", "{prod.acme: {}}, workloadApi: 'unix:///run/own.sock'");
    assert_eq!(socket(&own).as_deref(), Some("unix:///run/own.sock"));
    assert_eq!(socket(GOOD), None);
}

#[test]
fn a_listener_without_tls_is_a_proxy_on_a_loopback_address_that_asks_for_no_certificate() {
    let token =
        "tokens: [{kind: oidc, issuer: 'https://ci.example', audience: tollgate, keys: {discovery: {}}}]";
    let with = |listener: &str| {
        let text = GOOD.replace("address: '127.0.0.1:0'", listener);
        text.replace("{prod.acme: {bundleFile: c}}", &format!("{{prod.acme: {{bundleFile: c}}}}, {token}"))
    };
    let good = "kind: forward, tls: none, clientCertificate: none, address: '127.0.0.1:0'";
    assert!(read(&with(good), &[]).is_ok());
    assert!(read(&with(&good.replace("127.0.0.1", "[::1]")), &[]).is_ok());
    for (from, to, field) in [
        ("127.0.0.1", "0.0.0.0", "tls"),
        ("127.0.0.1", "10.0.0.1", "tls"),
        ("kind: forward", "kind: http", "tls"),
        ("clientCertificate: none", "clientCertificate: optional", "clientCertificate"),
        (", clientCertificate: none", "", "clientCertificate"),
    ] {
        let problems = read(&with(&good.replace(from, to)), &[]).unwrap_err();
        assert!(problems[0].starts_with(&format!("2: listeners[0].{field}: ")), "{to}: {problems:?}");
    }
}
