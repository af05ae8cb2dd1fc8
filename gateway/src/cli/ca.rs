//! `tollgate ca`: the authority that `interception` signs with.
//!
//! **Invariant:** what it makes can sign for the named hosts alone, so that whoever trusts it trusts it for nothing else; nothing that is
//! there is written over.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CidrSubnet, DistinguishedName, DnType,
    GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints,
};
use tollgate_policy::pattern::HostPattern;
use zeroize::Zeroizing;

use super::authority::last;
use super::say;
use crate::files::write_private;

const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";

#[derive(Debug, Args)]
pub(super) struct CaArgs {
    #[command(subcommand)]
    command: CaCommand,
}

#[derive(Debug, Subcommand)]
enum CaCommand {
    /// Make an authority that can sign for these hosts alone
    #[command(after_help = "Example:
  tollgate ca init --out ca --host api.openai.com --host github.com

It writes ca/ca.pem and ca/ca.key. Name them as `interception` in the settings, and have the programs that call through
the proxy trust ca/ca.pem beside the authorities of the system.")]
    Init(CaInitArgs),
}

#[derive(Debug, Args)]
struct CaInitArgs {
    /// The directory for ca.pem and ca.key; it is made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A host that it can sign for, with all below it; as `hosts` of a Destination has it
    #[arg(long = "host", value_name = "HOST", required = true)]
    hosts: Vec<HostPattern>,
    /// How many days it is valid
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=3650))]
    days: u16,
    /// Its name, as programs show it
    #[arg(long, value_name = "NAME", default_value = "Tollgate interception")]
    name: String,
}

pub(super) fn run(args: &CaArgs) -> anyhow::Result<()> {
    let CaCommand::Init(args) = &args.command;
    init(args)
}

fn init(args: &CaInitArgs) -> anyhow::Result<()> {
    let (certificate_file, key_file) = (args.out.join(CERTIFICATE), args.out.join(KEY));
    for file in [&certificate_file, &key_file] {
        // A link to nowhere is something, too.
        if file.symlink_metadata().is_ok() {
            bail!("{} is there already, and nothing is written over: name another --out", file.display());
        }
    }
    let key = KeyPair::generate()?;
    let pem = Zeroizing::new(key.serialize_pem());
    let authority = CertifiedIssuer::self_signed(params(args)?, key)?;
    fs::create_dir_all(&args.out).with_context(|| format!("making {}", args.out.display()))?;
    write_private(&key_file, pem.as_bytes()).with_context(|| format!("writing {}", key_file.display()))?;
    fs::write(&certificate_file, authority.pem())
        .with_context(|| format!("writing {}", certificate_file.display()))?;
    let hosts: Vec<String> = args.hosts.iter().map(ToString::to_string).collect();
    let (certificate_file, key_file) = (certificate_file.display(), key_file.display());
    say(&format!("{certificate_file}: an authority for {}, for {} days", hosts.join(", "), args.days));
    say(&format!(
        "{key_file}: its key. Whoever has it can pass for these hosts: give it to the gateway alone."
    ));
    say(&format!(
        "Next: `interception: {{caCertFile: {certificate_file}, caKeyFile: {key_file}}}` in the settings. Programs that call through \
         the proxy trust it beside the system's: `cat /etc/ssl/certs/ca-certificates.crt {certificate_file} > trusted.pem`, and name \
         that by SSL_CERT_FILE, CURL_CA_BUNDLE, REQUESTS_CA_BUNDLE, NODE_EXTRA_CA_CERTS, GIT_SSL_CAINFO, PIP_CERT, AWS_CA_BUNDLE."
    ));
    Ok(())
}

fn params(args: &CaInitArgs) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, args.name.as_str());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    last(&mut params, Duration::from_secs(u64::from(args.days) * 86_400))?;
    params.name_constraints = Some(constraints(&args.hosts));
    Ok(params)
}

/// These hosts, and no address but those that are among them. A kind of name that is not limited at all would be free.
fn constraints(hosts: &[HostPattern]) -> NameConstraints {
    let (mut permitted, mut excluded) = (Vec::new(), Vec::new());
    for host in hosts {
        let text = host.to_string();
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        permitted.push(match bare.parse::<IpAddr>() {
            Ok(address) => {
                let bits = if address.is_ipv4() { 32 } else { 128 };
                GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, bits))
            }
            Err(_) => GeneralSubtree::DnsName(text.trim_start_matches("*.").to_owned()),
        });
    }
    if !permitted.iter().any(|subtree| matches!(subtree, GeneralSubtree::IpAddress(_))) {
        let (v4, v6) = (CidrSubnet::V4([0; 4], [0; 4]), CidrSubnet::V6([0; 16], [0; 16]));
        excluded.extend([v4, v6].map(GeneralSubtree::IpAddress));
    }
    if !permitted.iter().any(|subtree| matches!(subtree, GeneralSubtree::DnsName(_))) {
        // The root of all names.
        excluded.push(GeneralSubtree::DnsName(String::new()));
    }
    NameConstraints { permitted_subtrees: permitted, excluded_subtrees: excluded }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn args(out: PathBuf, hosts: &[&str]) -> CaInitArgs {
        let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
        CaInitArgs { out, hosts, days: 365, name: "Test".to_owned() }
    }

    #[test]
    fn an_authority_is_made_with_a_private_key_and_nothing_is_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("a/ca");
        init(&args(out.clone(), &["api.up.test"])).unwrap();
        let mode = fs::metadata(out.join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let before = fs::read(out.join(CERTIFICATE)).unwrap();
        let error = init(&args(out.clone(), &["other.test"])).unwrap_err().to_string();
        assert!(error.contains("ca.pem is there already"), "{error}");
        assert_eq!(fs::read(out.join(CERTIFICATE)).unwrap(), before);
        fs::remove_file(out.join(CERTIFICATE)).unwrap();
        assert!(init(&args(out, &["other.test"])).is_err(), "its key is there");
    }
}
