//! `natter`: a messenger whose wire is plain MQTT. One process holds the door, the bridge and an HTTP server.

mod accounts;
mod admin;
mod brake;
mod cert;
#[cfg(feature = "chat")]
mod chat;
mod check;
mod cli;
mod codes;
mod config;
mod control;
mod data;
mod desk;
mod http;
mod keys;
mod limits;
#[cfg(feature = "chat")]
mod link;
mod listener;
mod password;
mod serve;
mod tls;
mod token;
mod websocket;
mod write_timeout;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            // Nobody is left to tell if stderr is gone too.
            let _told = writeln!(std::io::stderr(), "natter: {error:#}");
            ExitCode::FAILURE
        }
    }
}
