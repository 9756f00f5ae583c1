//! `natter chat`: a small chat in the terminal.
//!
//! - `command.rs` what a line of input means · `edit.rs` the line itself · `model.rs` everything that is shown, and what follows from what
//!   happens · `text.rs` strangers' words on a terminal · `view.rs` a model on a screen (pure)
//! - `page.rs` what is shown in place of a chat (pure)
//! - `history.rs` messages on disk, in the file of the client's store · `run.rs` the terminal, the client, and what is between them

mod command;
mod edit;
mod groups;
mod history;
mod model;
mod page;
mod run;
mod text;
mod view;

pub(crate) use run::{Identity, run};

use std::path::PathBuf;

use clap::Args;
use natter_protocol::{DeviceId, UserId};

/// What `natter chat` can be told.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Type a line and press Enter to send it; /help lists the commands. Tab and Shift-Tab go from chat to chat, PageUp and \
    PageDown through a long one, Ctrl-C leaves. Messages are kept in a file, and what is written without a connection is sent later."
)]
pub(crate) struct Options {
    /// Who you are
    #[arg(long)]
    user: UserId,
    /// Which of your devices this is
    #[arg(long, default_value = "terminal")]
    device: DeviceId,
    /// Where the server is: mqtt://host:1883, or mqtts://host
    #[arg(long, value_name = "URL", default_value = "mqtt://127.0.0.1:1883")]
    server: String,
    /// Where its HTTP is, for files [default: port 8080 of the server]
    #[arg(long, value_name = "URL")]
    http: Option<String>,
    /// Your token; on the server's own machine one is made without
    #[arg(long, env = "NATTER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Where messages are kept [default: natter/ in XDG_DATA_HOME or ~/.local/share]
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// With whom to talk first
    peer: Option<String>,
}

impl Options {
    /// Who it is for.
    pub(crate) fn user(&self) -> &UserId {
        &self.user
    }
}
