//! `natter link`: makes this machine a device of a user, by the code that another device of his shows.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use natter_client::Client;
use natter_client::devices::{DeviceError, Linked};
use natter_protocol::{DeviceId, UserId};

use crate::cli::print;

/// What `natter link` can be told.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "/link in `natter chat`, or POST /v1/devices/codes, shows a code; it is good once, for two minutes. The token is good for \
    that device alone: NATTER_TOKEN=... natter chat --user NAME --device NAME uses it."
)]
pub(crate) struct Options {
    /// The code, as 7G4K-X2MQ; small letters, and no hyphen, will do
    code: String,
    /// Whose device this becomes
    #[arg(long)]
    user: UserId,
    /// Where the server's HTTP is: http://host:8080, or https://host
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    server: String,
    /// How the device is called in topics: none that a device of the user has
    #[arg(long, value_name = "NAME", default_value = "terminal")]
    device: DeviceId,
    /// How it is called in lists
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// Writes the token to this file, which is new and for its owner alone (mode 0600), and not to stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Redeems the code, and says the token.
///
/// # Errors
/// The code is not good, the name is taken, the server is not there, or the file cannot be made.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { user, device, out, .. } = options;
    // Before the code is used up: a token that cannot be written down is lost.
    let file = out.as_ref().map(|path| new_file(path).with_context(|| path.display().to_string())).transpose()?;
    let linked = match tokio::runtime::Runtime::new().context("runtime")?.block_on(redeem(options)) {
        Ok(linked) => linked,
        Err(error) => {
            if let Some(path) = out {
                fs::remove_file(path).with_context(|| path.display().to_string())?;
            }
            bail!("{}", told(&error));
        }
    };
    let (Some(path), Some(mut file)) = (out, file) else { return print(&format!("{}\n", linked.token)) };
    let written = writeln!(file, "{}", linked.token).and_then(|()| file.sync_all());
    written.with_context(|| format!("{}: the device is linked, and its token was not written", path.display()))?;
    print(&format!("linked {user}/{device}; its token is in {}\n", path.display()))
}

async fn redeem(options: &Options) -> Result<Linked, DeviceError> {
    let Options { code, user, server, device, label, out: _ } = options;
    let redeem = Client::redeem(server, user.as_str(), code, device.as_str());
    match label {
        Some(label) => redeem.label(label).await,
        None => redeem.await,
    }
}

fn new_file(path: &PathBuf) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// An error, and what to do about it.
fn told(error: &DeviceError) -> String {
    match error {
        DeviceError::Taken(_) => format!("{error} (--device NAME chooses another name; the code is still good)"),
        DeviceError::Unreachable(_) => format!("{error} (--server URL says where the server's HTTP is)"),
        _ => error.to_string(),
    }
}
