//! Processes that do not outlive the one that started them.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// From now on this process is killed when the thread that started it ends, as it does with its process. `parent` is that process.
///
/// # Errors
/// When it has ended already.
pub(crate) fn die_with(parent: u32) -> Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).context("death signal")?;
    let now = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if u32::try_from(now).ok() != Some(parent) {
        bail!("parent: expected process {parent}, got {now}: it has ended");
    }
    Ok(())
}

/// Becomes `natter` with these arguments, and dies with `parent`.
///
/// # Errors
/// Whenever it returns.
pub(crate) fn become_natter(parent: u32, arguments: &[String]) -> Result<()> {
    die_with(parent)?;
    let program = std::env::current_exe().context("the program itself")?;
    Err(Command::new(program).args(arguments).exec()).context("natter")
}
