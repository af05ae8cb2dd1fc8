//! `tollgate init`: a first set-up that works, for one machine.
//!
//! **Invariant:** nothing that is there is written over: either all of it is made, or nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail};
use clap::Args;
use tollgate_secrets::AgeFile;
use zeroize::Zeroizing;

use super::authority::{Authority, dns};
use super::{say, schema};
use crate::app;
use crate::files::write_private;

const SETTINGS: &str = include_str!("../../../examples/first-call/tollgate.yaml");
const RESOURCES: &str = include_str!("../../../examples/first-call/resources/openai.yaml");
/// What is nobody else's business.
const IGNORED: &str = "# What `tollgate init` and `tollgate serve` make here and nobody else should have.
/certs/
/data/
/admin.token
/identity.txt
/seal.key
/secrets.age
";
const IDENTITY: &str = "identity.txt";
const CERTS: &str = "certs";

#[derive(Debug, Args)]
#[command(after_help = "Example:
  tollgate init first-call && cd first-call
  tollgate secret set openai key     # the provider's key, which is asked for
  tollgate check
  tollgate serve

It writes settings, a destination with a grant and limits, their schema for editors, the key of an encrypted secret file, and a throw-away certificate
authority with a certificate for the gateway and one for a first caller, spiffe://prod.acme/ns/shop/sa/web. The authority's key is kept nowhere: name
further callers here, or bring an authority of your own.")]
pub(super) struct InitArgs {
    /// Where to; it is made if it is not there
    #[arg(value_name = "DIRECTORY", default_value = ".")]
    directory: PathBuf,
    /// A further caller, as in `batch/api`: certs/batch-api.pem is spiffe://prod.acme/ns/batch/sa/api. May be given several times
    #[arg(long = "caller", value_name = "NAMESPACE/ACCOUNT")]
    callers: Vec<NewCaller>,
}

/// A service account of a namespace.
#[derive(Clone, Debug)]
struct NewCaller {
    namespace: String,
    account: String,
}

impl FromStr for NewCaller {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = |name: &str| {
            let all =
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
            !name.is_empty() && name.len() <= 63 && all
        };
        match text.split_once('/') {
            Some((namespace, account)) if is_name(namespace) && is_name(account) => {
                Ok(Self { namespace: namespace.to_owned(), account: account.to_owned() })
            }
            _ => Err(
                "a namespace and a service account of lower-case letters, digits and `-`, as in `batch/api`"
                    .to_owned(),
            ),
        }
    }
}

pub(super) fn run(args: &InitArgs) -> anyhow::Result<()> {
    let directory = &args.directory;
    let at = |name: &str| directory.join(name);
    for name in [app::SETTINGS, schema::FILE, "resources", CERTS, IDENTITY] {
        // A link to nowhere is something, too.
        if at(name).symlink_metadata().is_ok() {
            bail!(
                "{} is there already, and nothing is written over: name another directory",
                at(name).display()
            );
        }
    }
    let files = certificates(&args.callers)?;
    for folder in ["resources", CERTS] {
        fs::create_dir_all(at(folder)).with_context(|| format!("making {}", at(folder).display()))?;
    }
    write(&at(schema::FILE), &format!("{:#}\n", schema::whole()))?;
    write(&at(app::SETTINGS), &for_editors("", SETTINGS))?;
    write(&at("resources/openai.yaml"), &for_editors("../", RESOURCES))?;
    if !at(".gitignore").exists() {
        write(&at(".gitignore"), IGNORED)?;
    }
    for (name, pem) in &files {
        let path = at(CERTS).join(name);
        write_private(&path, pem.as_bytes()).with_context(|| format!("writing {}", path.display()))?;
    }
    AgeFile::create_identity(&at(IDENTITY))?;
    say(&format!(
        "{}: made tollgate.yaml, resources/openai.yaml, tollgate.schema.json, certs/ and identity.txt",
        directory.display()
    ));
    say(
        "Next, there: `tollgate secret set openai key` takes the provider's key, `tollgate serve` starts the gateway.",
    );
    Ok(())
}

/// A file of YAML with the line by which an editor finds its schema.
fn for_editors(to_schema: &str, yaml: &str) -> String {
    format!("# yaml-language-server: $schema={to_schema}{}\n{yaml}", schema::FILE)
}

/// Names and contents of what is in `certs`.
fn certificates(callers: &[NewCaller]) -> anyhow::Result<Vec<(String, Zeroizing<String>)>> {
    let authority = Authority::new("Tollgate first call", "prod.acme")?;
    let gateway = authority.leaf(vec![dns("localhost")?, authority.id("ns/egress/sa/tollgate")?])?;
    let web = authority.leaf(vec![authority.id("ns/shop/sa/web")?])?;
    let mut leaves = vec![("gateway".to_owned(), gateway), ("web".to_owned(), web)];
    for NewCaller { namespace, account } in callers {
        let leaf = authority.leaf(vec![authority.id(&format!("ns/{namespace}/sa/{account}"))?])?;
        leaves.push((format!("{namespace}-{account}"), leaf));
    }
    let pairs = leaves.into_iter().flat_map(|(name, leaf)| {
        [(format!("{name}.pem"), leaf.certificate.into()), (format!("{name}.key"), leaf.key)]
    });
    Ok(std::iter::once(("ca.pem".to_owned(), authority.pem().into())).chain(pairs).collect())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_first_set_up_is_made_whole_and_nothing_is_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let callers = vec!["batch/api".parse().unwrap()];
        let args = InitArgs { directory: directory.path().join("a/b"), callers };
        run(&args).unwrap();
        for private in ["certs/gateway.key", "certs/web.key", "certs/batch-api.key", "identity.txt"] {
            let mode = fs::metadata(args.directory.join(private)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{private}");
        }
        let settings = app::read_settings(&args.directory.join("tollgate.yaml")).unwrap();
        let resources = settings.resources.directory().unwrap().join("openai.yaml");
        for file in [&args.directory.join("tollgate.yaml"), &resources] {
            let text = fs::read_to_string(file).unwrap();
            let hint = text
                .lines()
                .next()
                .and_then(|line| line.strip_prefix("# yaml-language-server: $schema="))
                .unwrap();
            assert!(file.parent().unwrap().join(hint).exists(), "{hint}");
        }
        let before = fs::read(args.directory.join("certs/ca.pem")).unwrap();
        let error = run(&args).unwrap_err().to_string();
        assert!(error.contains("tollgate.yaml is there already"), "{error}");
        assert_eq!(fs::read(args.directory.join("certs/ca.pem")).unwrap(), before);

        let other = InitArgs { directory: directory.path().join("other"), callers: Vec::new() };
        fs::create_dir_all(&other.directory).unwrap();
        fs::write(other.directory.join("identity.txt"), "mine").unwrap();
        assert!(run(&other).is_err());
        assert_eq!(fs::read_dir(&other.directory).unwrap().count(), 1, "nothing was made");
    }
}
