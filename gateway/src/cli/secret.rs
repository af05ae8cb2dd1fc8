//! stub
#[derive(Debug, clap::Args)]
pub struct SecretArgs {}
pub fn run(_: SecretArgs) -> anyhow::Result<()> { Ok(()) }
