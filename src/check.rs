//! `natter check`: is the store whole, and how it goes on if it is not.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use natter_bridge::store::audit::{Counts, Report, audit};
use natter_bridge::{AcceptedLoss, Bridge};

use crate::cli::print;
use crate::config::Config;
use crate::data::{DATABASE, DataDir};

/// What is to be done.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Leave out whether every index agrees with its table: faster by far for a large store
    #[arg(long)]
    quick: bool,
    /// Go on without acknowledged messages that are missing: positions in inboxes jump, so that none is given twice. No server may run
    #[arg(long, conflicts_with = "quick")]
    accept_loss: bool,
}

/// Does it; exit code 0 if nothing is wrong.
pub(crate) fn run(config: &Config, options: &Options) -> Result<ExitCode> {
    // Not made if it is not there: a check changes nothing.
    if !config.data.dir.join(DATABASE).exists() {
        bail!("data directory {}: there is no {DATABASE} in it", config.data.dir.display());
    }
    let dir = DataDir::open_or_make(&config.data.dir)?;
    if options.accept_loss {
        return accept_loss(config, &dir);
    }
    // Needs no lock: it reads, as one more reader beside a server that runs.
    let report = audit(&dir.database(), options.quick, &mut progress)?;
    progress("");
    print(&text(&report))?;
    Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says what comes next, to somebody who watches.
fn progress(step: &str) {
    let mut stderr = io::stderr().lock();
    if stderr.is_terminal() {
        let line = if step.is_empty() { String::new() } else { format!("checking: {step} ...") };
        let _watched = write!(stderr, "\r\x1b[2K{line}").and_then(|()| stderr.flush());
    }
}

/// A line a finding, and a summary.
fn text(report: &Report) -> String {
    let Counts { users, devices, entries, messages, accepted, journal, bytes } = report.counts;
    let mut out: String = report.findings.iter().map(|finding| format!("{finding}\n")).collect();
    let verdict = match report.findings.len() {
        0 => "the store is whole".to_owned(),
        1 => "1 finding".to_owned(),
        count => format!("{count} findings"),
    };
    out.push_str(&format!(
        "{verdict}: users={users} devices={devices} entries={entries} messages={messages} dedupe={accepted} journal={journal} \
         bytes={bytes}\n"
    ));
    out
}

fn accept_loss(config: &Config, dir: &DataDir) -> Result<ExitCode> {
    let Some(_lock) = dir.try_lock()? else {
        bail!("data directory {}: another natter is using it: stop it first", dir.path().display());
    };
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
