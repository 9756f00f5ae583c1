//! Sends without a server, ends, and sends the rest when there is one:
//! `cargo run -p natter-client --example offline_outbox -- mqtt://127.0.0.1:1883 alice TOKEN alice.db bob "hi"`
#![expect(clippy::print_stdout, reason = "it talks to a person")]
use std::time::Duration;

use natter_client::Client;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, user, token, path, to, text] = arguments.as_slice() else {
        return Err("expected URL USER TOKEN STORE TO TEXT".into());
    };
    // Returns at once, with a server or without.
    let client = Client::builder(url).user(user).device("outbox").token(token).store(path).start().await?;
    let message = client.chat(to).send_text(text).await?;
    println!("{} is on the disk; {} wait", message.id(), client.outgoing().len());
    // Start it again with a server, and everything that waits goes, in order.
    let left = client.close(Duration::from_secs(5)).await;
    println!("{left} wait for the next start");
    Ok(())
}
