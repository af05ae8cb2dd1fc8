//! `tollgate serve`.

use std::path::PathBuf;

use clap::Args;

use crate::app::{self, App};

#[derive(Debug, Args)]
#[command(after_help = "Example:
  tollgate serve --config /etc/tollgate/tollgate.yaml")]
pub(super) struct ServeArgs {
    /// Settings of the process
    #[arg(long, value_name = "FILE", default_value = app::SETTINGS, env = "TOLLGATE_CONFIG")]
    config: PathBuf,
}

pub(super) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let settings = app::read_settings(&args.config)?;
    App::start(settings, &app::base(&args.config), true)?.run()
}
