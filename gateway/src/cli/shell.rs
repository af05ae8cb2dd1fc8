//! `tollgate completions` and `tollgate man`: what a shell and a reader of manuals want to know of the commands.

use std::io;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, output};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  source <(tollgate completions bash)
  tollgate completions zsh > \"${fpath[1]}/_tollgate\"
  tollgate completions fish > ~/.config/fish/completions/tollgate.fish")]
pub(super) struct CompletionsArgs {
    /// Whose
    shell: Shell,
}

pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tollgate", &mut script);
    output::print("the completions", |out| io::Write::write_all(out, &script))
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate man | man -l -
  tollgate man --to /usr/local/share/man/man1     # tollgate.1, tollgate-calls.1, …")]
pub(super) struct ManArgs {
    /// Write the pages of all commands there, instead of the first one to standard output
    #[arg(long, value_name = "DIRECTORY")]
    to: Option<PathBuf>,
}

pub(super) fn man(args: &ManArgs) -> anyhow::Result<()> {
    let Some(directory) = &args.to else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        return output::print("the page", |out| io::Write::write_all(out, &page));
    };
    let writing = || format!("writing to {}", directory.display());
    std::fs::create_dir_all(directory).with_context(writing)?;
    clap_mangen::generate_to(Cli::command(), directory).with_context(writing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
        let mut subcommands = command.get_subcommands().filter(|one| one.get_name() != "help").peekable();
        if subcommands.peek().is_none() {
            found.push((path.to_owned(), command.clone()));
        }
        subcommands.for_each(|one| leaves(one, &format!("{path} {}", one.get_name()), found));
    }

    #[test]
    fn every_command_shows_an_example_in_its_help() {
        let mut found = Vec::new();
        leaves(&Cli::command(), "tollgate", &mut found);
        assert!(found.len() > 15, "{found:?}");
        for (path, mut command) in found {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example") && help.contains(&format!("  {path}")), "{path}:\n{help}");
        }
    }

    #[test]
    fn the_commands_are_put_together_without_contradiction() {
        Cli::command().debug_assert();
    }

    #[test]
    fn there_is_a_page_for_every_command_and_a_script_for_every_shell() {
        let directory = tempfile::tempdir().unwrap();
        man(&ManArgs { to: Some(directory.path().join("man1")) }).unwrap();
        for page in ["tollgate.1", "tollgate-calls.1", "tollgate-ledger-settle.1"] {
            assert!(directory.path().join("man1").join(page).exists(), "{page}");
        }
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tollgate", &mut script);
            assert!(String::from_utf8(script).unwrap().contains("calls"), "{shell}");
        }
    }
}
