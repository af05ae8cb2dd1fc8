//! `tollgate secret`: keeps the age-encrypted file that an `age` store reads.
//!
//! **Invariant:** a value comes in through standard input only, never as an argument, where every process of the
//! machine could read it, and never goes out again.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use tollgate_secrets::AgeFile;
use zeroize::Zeroizing;

use super::say;
use crate::memory;

/// One more than a value may have, so that a longer one is seen to be longer.
const READ_LIMIT: usize = 64 * 1024 + 2;

#[derive(Debug, Args)]
pub(super) struct SecretArgs {
    /// The encrypted file, as `spec.age.file` of the SecretStore names it
    #[arg(long, global = true, value_name = "PATH", default_value = "secrets.age")]
    file: PathBuf,
    /// The age identity that opens it, as `spec.age.identityFile` names it
    #[arg(long, global = true, value_name = "PATH", default_value = "identity.txt")]
    identity: PathBuf,
    #[command(subcommand)]
    command: SecretCommand,
}

#[derive(Debug, Subcommand)]
enum SecretCommand {
    /// Make a new identity file, readable by its owner alone
    #[command(after_help = "Example:
  tollgate secret init")]
    Init,
    /// Store the value that is read from standard input, without its trailing newline
    #[command(after_help = "Examples:
  tollgate secret set openai key                  # asks for it
  tollgate secret set openai key < my-openai-key")]
    Set {
        /// Path of the secret, as `spec.from.path` of the Credential names it
        path: String,
        /// Field under that path
        field: String,
    },
    /// Print the paths and the names of their fields, never a value
    #[command(after_help = "Example:
  tollgate secret list --file secrets.age")]
    List,
    /// Remove a secret, or one field of it
    #[command(after_help = "Example:
  tollgate secret rm openai key")]
    Rm {
        /// Path of the secret
        path: String,
        /// The one field to remove; all of them if left out
        field: Option<String>,
    },
}

pub(super) fn run(args: SecretArgs) -> anyhow::Result<()> {
    memory::keep_private().context("switching core dumps off")?;
    let SecretArgs { file, identity, command } = args;
    let secrets = AgeFile::new(&file, &identity);
    match command {
        SecretCommand::Init => {
            let public = AgeFile::create_identity(&identity)?;
            say(&format!("{}: identity made, public key {public}", identity.display()));
        }
        SecretCommand::Set { path, field } => {
            let replaced = secrets.set(&path, &field, printable(standard_input()?)?)?;
            say(&format!("{path} {field}: {}", if replaced { "replaced" } else { "stored" }));
        }
        SecretCommand::List => {
            for (path, fields) in secrets.list()? {
                say(&format!("{path}  {}", fields.join(", ")));
            }
        }
        SecretCommand::Rm { path, field } => {
            secrets.remove(&path, field.as_deref()).with_context(|| path.clone())?;
            say(&format!("{path}{}: removed", field.map(|field| format!(" {field}")).unwrap_or_default()));
        }
    }
    Ok(())
}

fn standard_input() -> anyhow::Result<Zeroizing<String>> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Ok(Zeroizing::new(rpassword::prompt_password("Value: ")?));
    }
    // Past the standard library's own buffer, which nobody zeroizes.
    read_value(&mut File::from(stdin.as_fd().try_clone_to_owned()?))
}

/// No header and no query can carry a control character, and a line break is mostly a slip of the paste, but in PEM.
fn printable(value: Zeroizing<String>) -> anyhow::Result<Zeroizing<String>> {
    let is_pem = is_pem(&value);
    match value.chars().any(|c| c.is_control() && !(is_pem && matches!(c, '\n' | '\r'))) {
        true => {
            bail!(
                "the value has a control character in it, such as a line break (PEM alone may have some) or a tab: nothing is stored"
            )
        }
        false => Ok(value),
    }
}

/// Whether it is PEM from its first line to its last (RFC 7468), be it one block or several.
fn is_pem(value: &str) -> bool {
    let label = |line: &str, mark: &str| {
        let label = line.strip_prefix(mark)?.strip_suffix("-----")?;
        let is_label = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b' ';
        label.bytes().all(is_label).then(|| label.to_owned())
    };
    let mut lines = value.trim_end_matches(['\n', '\r']).lines();
    let begins = lines.next().is_some_and(|line| label(line, "-----BEGIN ").is_some());
    let mut rest = lines.rev();
    let Some(end) = rest.next().and_then(|line| label(line, "-----END ")) else { return false };
    begins && rest.chain(value.lines().next()).any(|line| label(line, "-----BEGIN ").as_ref() == Some(&end))
}

fn read_value(from: &mut impl Read) -> anyhow::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(READ_LIMIT));
    from.take(READ_LIMIT as u64).read_to_end(&mut bytes).context("cannot read standard input")?;
    let text = std::str::from_utf8(&bytes).context("the value is not UTF-8 text")?;
    let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SecretArgs,
    }

    fn parsed(line: &[&str]) -> Result<SecretArgs, clap::Error> {
        Line::try_parse_from(std::iter::once("secret").chain(line.iter().copied())).map(|line| line.args)
    }

    #[test]
    fn the_value_loses_one_trailing_newline_and_nothing_else() {
        for (read, value) in [("sk-1\n", "sk-1"), ("sk-1\r\n", "sk-1"), (" a\nb\n\n", " a\nb\n"), ("", "")] {
            assert_eq!(read_value(&mut read.as_bytes()).unwrap().as_str(), value);
        }
        assert!(read_value(&mut [0xff, 0xfe].as_slice()).is_err());
    }

    #[test]
    fn a_value_with_a_control_character_is_refused_and_not_shown() {
        for value in ["sk\n-1", "sk-1\n", "sk\t-1", "sk\0", "\u{85}"] {
            let refused = printable(Zeroizing::new(value.into())).unwrap_err().to_string();
            assert!(!refused.contains("sk"), "{refused}");
        }
        assert_eq!(printable(Zeroizing::new("sk-ä 1".into())).unwrap().as_str(), "sk-ä 1");
    }

    #[test]
    fn pem_keeps_its_line_breaks_and_nothing_else_has_any() {
        let block =
            |label: &str, end: &str| format!("-----BEGIN {label}-----{end}TWFu{end}-----END {label}-----");
        let [unix, windows] = ["\n", "\r\n"].map(|end| block("PRIVATE KEY", end));
        let chain = format!("{}\n{}", block("CERTIFICATE", "\n"), block("CERTIFICATE", "\n"));
        for whole in [&unix, &windows, &chain, &format!("{unix}\n")] {
            assert_eq!(printable(Zeroizing::new(whole.clone())).unwrap().as_str(), whole);
        }
        let other = unix.replace("END PRIVATE", "END PUBLIC");
        let cut = &unix[..unix.len() - 1];
        for not in [&format!("a\n{unix}"), &format!("{unix}\na"), &other, cut, &unix.replace("Fu", "\tu")] {
            assert!(printable(Zeroizing::new(not.to_owned())).is_err(), "{not:?}");
        }
    }

    #[test]
    fn a_value_cannot_be_an_argument() {
        assert!(parsed(&["set", "llm/openai", "api_key"]).is_ok());
        assert!(parsed(&["set", "llm/openai", "api_key", "sk-1"]).is_err());
        assert!(parsed(&["set", "llm/openai", "api_key", "--value", "sk-1"]).is_err());
    }

    #[test]
    fn a_secret_that_was_stored_can_be_removed_and_then_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let (file, identity) = (directory.path().join("s.age"), directory.path().join("id"));
        let (at, id) = (file.to_str().unwrap(), identity.to_str().unwrap());
        let command =
            |words: &[&str]| run(parsed(&[words, &["--file", at, "--identity", id]].concat()).unwrap());
        command(&["init"]).unwrap();
        assert!(command(&["init"]).is_err(), "an identity is never overwritten");
        assert_eq!(std::fs::metadata(&identity).unwrap().permissions().mode() & 0o777, 0o600);
        let secrets = AgeFile::new(&file, &identity);
        secrets.set("llm/openai", "api_key", Zeroizing::new("sk-1".into())).unwrap();
        command(&["list"]).unwrap();
        command(&["rm", "llm/openai", "api_key"]).unwrap();
        assert!(secrets.list().unwrap().is_empty());
        let absent = command(&["rm", "llm/openai"]).unwrap_err();
        assert_eq!(format!("{absent:#}"), "llm/openai: no such secret");
    }
}
