//! `natter check`: is the store whole, and how it goes on if it is not.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use natter_bridge::{AcceptedLoss, Bridge};

use crate::cli::print;
use crate::config::Config;
use crate::data::DataDir;

/// What is to be done.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Go on without acknowledged messages that are missing: positions in inboxes jump, so that none is given twice. No server may run
    #[arg(long)]
    accept_loss: bool,
}

/// Does it; exit code 0 if nothing is wrong.
pub(crate) fn run(config: &Config, options: &Options) -> Result<ExitCode> {
    let dir = DataDir::open_or_make(&config.data.dir)?;
    if options.accept_loss {
        return accept_loss(config, &dir);
    }
    bail!("expected --accept-loss")
}

fn accept_loss(config: &Config, dir: &DataDir) -> Result<ExitCode> {
    let Some(_lock) = dir.try_lock()? else {
        bail!("data directory {}: another natter is using it: stop it first", dir.path().display());
    };
    if !dir.database().exists() {
        bail!("data directory {}: there is no natter.db in it: nothing is lost, or all of it", dir.path().display());
    }
    let AcceptedLoss { extent, users } =
        Bridge::accept_loss(config.bridge(dir.database())).context("nothing is changed")?;
    let lost = match extent.missing() {
        0 => format!("nothing is known to be missing: the journal ends at row {}", extent.newest),
        lost => format!(
            "{lost} acknowledged batches are lost: rows {} to {} of the journal",
            extent.newest + 1,
            extent.marked
        ),
    };
    print(&format!(
        "{lost}\nthe positions of {users} users have jumped by 2^32, so that none is given twice; the server may be started\n"
    ))?;
    Ok(ExitCode::SUCCESS)
}
