//! `tollgate demo`: the main job on embedded defaults, in one process and a temporary directory.
//!
//! A certificate authority, an encrypted secret file, a provider and three workloads are made up on the spot; the gateway between them is
//! the real one, with its real listeners, ledger and report.

mod provider;
mod workload;
mod world;

use anyhow::bail;
use clap::Args;

use self::workload::{DemoAnswer, Workload};
use self::world::DemoWorld;
use super::{report, say};
use crate::app::{self, App};

#[derive(Debug, Args)]
#[command(after_help = "Example:
  tollgate demo --once")]
pub(super) struct DemoArgs {
    /// Stop after the report instead of keeping the gateway up
    #[arg(long)]
    once: bool,
}

pub(super) fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let world = DemoWorld::build()?;
    let settings = app::read_settings(&world.settings())?;
    let app = App::start(settings, world.directory(), false)?;
    let gateway = app.listeners[0];
    say(&format!(
        "Tollgate listens on https://localhost:{}; the provider's key is in {}",
        gateway.port(),
        world.store().display()
    ));
    say("and on the wire to the provider. No workload has it.\n");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(play(&world, gateway))?;
    if !args.once {
        say(&format!("\nAdmin port: http://{} (token in {})", app.admin, world.admin_token().display()));
        say(&format!(
            "Try:  curl -H \"Authorization: Bearer $(cat {})\" http://{}/metrics",
            world.admin_token().display(),
            app.admin
        ));
        say("Call: ");
        say(&format!("  {}", world.curl(gateway)));
        say("Ctrl-C stops, and prints the report.");
        app.run()?;
    } else {
        app.stop()?;
    }
    say("\nWho used what, for how much:\n");
    report::print(&world.data(), &["caller", "destination", "model", "reason"])
}

/// Three workloads: one that may, one that may not, one whose budget is small.
async fn play(world: &DemoWorld, gateway: std::net::SocketAddr) -> anyhow::Result<()> {
    let checkout = Workload::connect(world, "checkout", gateway).await?;
    let stranger = Workload::connect(world, "stranger", gateway).await?;
    let batch = Workload::connect(world, "batch", gateway).await?;

    for stream in [false, false, true] {
        let answer = checkout.chat(stream).await?;
        expect(&answer, 200)?;
        let how = if stream { "streamed" } else { "in one piece" };
        say(&format!("checkout  200  an answer {how}: {:?}", answer.text));
    }
    let refused = stranger.chat(false).await?;
    expect(&refused, 403)?;
    say(&format!("stranger  403  {}: {}", refused.reason, refused.text));

    for _ in 0..50 {
        let answer = batch.chat(false).await?;
        if answer.status != 200 {
            expect(&answer, 429)?;
            say(&format!("batch     429  {}: {}", answer.reason, answer.text));
            return Ok(());
        }
        say("batch     200");
    }
    bail!("the budget of `batch` did not run out")
}

fn expect(answer: &DemoAnswer, status: u16) -> anyhow::Result<()> {
    if answer.status == status {
        return Ok(());
    }
    bail!("expected {status}, got {} ({}): {}", answer.status, answer.reason, answer.text)
}
