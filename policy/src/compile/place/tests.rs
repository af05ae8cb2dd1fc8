use super::*;
use crate::resource::VaultAuth;

fn file(root: &str) -> StoreKind {
    StoreKind::File { root: root.into() }
}

fn env(prefix: &str) -> StoreKind {
    StoreKind::Env { prefix: prefix.to_owned() }
}

fn vault(address: &str, mount: &str, kv: KvVersion, namespace: Option<&str>) -> StoreKind {
    StoreKind::Vault(VaultStore {
        address: address.to_owned(),
        mount: mount.to_owned(),
        kv,
        namespace: namespace.map(ToOwned::to_owned),
        ca: None,
        client_certificate: None,
        auth: VaultAuth::Token { file: "/t".into() },
    })
}

fn aws(region: &str, role: Option<&str>) -> StoreKind {
    StoreKind::Aws(AwsStore {
        region: region.to_owned(),
        endpoint: None,
        ca: None,
        credentials_file: None,
        profile: None,
        role_arn: role.map(ToOwned::to_owned),
    })
}

fn secret(path: &str, fields: &[&str]) -> SecretRef {
    SecretRef {
        store: "any".parse().unwrap(),
        path: path.to_owned(),
        fields: fields.iter().map(ToString::to_string).collect(),
        version: None,
        stage: None,
        version_id: None,
        dynamic: false,
    }
}

/// Whether what both paths name may be the same, whichever is asked.
fn overlap((one, path): (&StoreKind, &str), (two, other): (&StoreKind, &str)) -> bool {
    let (path, other) = (secret(path, &[]), secret(other, &[]));
    let (one, two) = (Place::of(&path, one), Place::of(&other, two));
    assert_eq!(one.overlaps(&two), two.overlaps(&one));
    one.overlaps(&two)
}

#[test]
fn a_file_is_the_same_from_whichever_root_it_is_named() {
    for (one, two, expected) in [
        (("/keys", "a/b"), ("/keys/a", "b"), true),
        (("/keys", "a/b"), ("/keys/./x/../a/", "b"), true),
        (("/keys", "a/b"), ("/../keys/a", "b"), true),
        (("keys", "a/b"), ("other/../keys/a", "b"), true),
        (("/keys", "a/b"), ("/keys/b", "a"), false),
        (("/keys", "a"), ("/other", "a"), false),
        (("keys", "a"), ("../keys", "a"), false),
        // What a relative path counts from is not known here.
        (("/etc/keys", "a/b"), ("keys/a", "b"), true),
        (("/etc/keys", "a/b"), ("../../keys/a", "b"), true),
        (("/etc/keys", "a/b"), ("other/a", "b"), false),
    ] {
        assert_eq!(overlap((&file(one.0), one.1), (&file(two.0), two.1)), expected, "{one:?} {two:?}");
    }
    let age = |file: &str| StoreKind::Age { file: file.into(), identity_file: "/i".into() };
    assert!(overlap((&age("/s/x.age"), "idp"), (&age("/s/y/../x.age"), "idp")));
    assert!(!overlap((&age("/s/x.age"), "idp"), (&age("/s/x.age"), "other")));
}

#[test]
fn a_variable_is_the_same_from_whichever_prefix_it_is_named() {
    assert!(overlap((&env("KEY_"), "X"), (&env("KEY"), "_X")));
    assert!(!overlap((&env("KEY_"), "X"), (&env("KEY_"), "_X")));
    assert!(!overlap((&env("KEY_"), "X"), (&file("KEY_"), "X")));
}

#[test]
fn a_vaults_secret_is_the_same_by_address_namespace_and_path_of_the_api() {
    use KvVersion::{V1, V2};
    let bao = "https://bao:8200";
    let first = vault(bao, "kv/team", V2, Some("ns"));
    for (other, path, expected) in [
        (vault(bao, "kv/team", V2, Some("ns/")), "a/b", true),
        (vault(bao, "ns/kv/team", V2, None), "a/b", true),
        (vault(bao, "kv/team/data/a", V1, Some("ns")), "b", true),
        (vault(bao, "kv/team", V1, Some("ns")), "a/b", false),
        (vault(bao, "kv/team", V2, None), "a/b", false),
        (vault(bao, "kv/other", V2, Some("ns")), "a/b", false),
        (vault("https://other:8200", "kv/team", V2, Some("ns")), "a/b", false),
    ] {
        assert_eq!(overlap((&first, "a/b"), (&other, path)), expected, "{other:?}");
    }
    let ported = |address| vault(address, "secret", V2, None);
    assert!(overlap((&ported("https://bao"), "a"), (&ported("https://bao:443"), "a")));
    let dynamic = SecretRef { dynamic: true, ..secret("ns/kv/team/data/a/b", &["x"]) };
    let (read, root) = (secret("a/b", &["y"]), vault(bao, "any", V2, None));
    assert!(Place::of(&read, &first).overlaps(&Place::of(&dynamic, &root)), "fields of another reading");
}

#[test]
fn a_secret_of_aws_is_the_same_by_name_and_by_arn_unless_the_account_is_known_to_differ() {
    let arn = |account: &str, name: &str| format!("arn:aws:secretsmanager:eu-west-1:{account}:secret:{name}");
    let (plain, there) = (aws("eu-west-1", None), aws("us-east-1", None));
    let role = aws("eu-west-1", Some("arn:aws:iam::222222222222:role/x"));
    let full = arn("111111111111", "idp/client-AbCdEf");
    for (one, two, expected) in [
        ((&plain, "idp/client"), (&plain, full.as_str()), true),
        ((&plain, "idp/client-AbCdEf"), (&plain, &full), true),
        ((&plain, "idp/other"), (&plain, &full), false),
        ((&plain, "idp/client"), (&there, "idp/client"), false),
        ((&plain, "idp/client"), (&role, "idp/client"), true),
        ((&role, "idp/client"), (&plain, &full), false),
        ((&plain, &*arn("222222222222", "idp/client-AbCdEf")), (&plain, &full), false),
        ((&plain, "idp/client-AbCdEf"), (&plain, "idp/client"), false),
    ] {
        assert_eq!(overlap(one, two), expected, "{one:?} {two:?}");
    }
}

#[test]
fn fields_of_one_secret_are_places_of_their_own() {
    let root = file("/keys");
    let place = |fields: &[&str]| secret("a", fields);
    for (one, two, expected) in
        [(&["x"][..], &["x", "y"][..], true), (&["x"], &["y"], false), (&["x"], &[], true), (&[], &[], true)]
    {
        let (one, two) = (place(one), place(two));
        assert_eq!(Place::of(&one, &root).overlaps(&Place::of(&two, &root)), expected, "{one:?} {two:?}");
    }
}
